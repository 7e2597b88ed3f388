"""The operators' interface to Airflow's task runner: attempts, retries, the task state store, cancellation."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.errors import LedgerError, MailError, OutcomeUnknownError
from airflow_provider_smtpcm.operators._executions import Execution, begin_execution

try:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
except ImportError:  # Airflow 3.1
    from airflow.exceptions import (  # type: ignore[attr-defined,no-redef]
        AirflowException,
        AirflowFailException,
        AirflowSkipException,
    )

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    from airflow_provider_smtpcm.ledger.ledger import Ledger
    from airflow_provider_smtpcm.ledger.record import RunState
    from airflow_provider_smtpcm.smtp.cancellation import CancellationToken
    from airflow_provider_smtpcm.smtp.outcome import Delivery

__all__ = [
    "AirflowException",
    "AirflowFailException",
    "AirflowSkipException",
    "Attempt",
    "airflow_error",
    "at_most_once",
]

log = logging.getLogger(__name__)

# A task is canceled this many seconds before its execution_timeout (or after nine tenths of it, if that is later), so
# that it can still record its results.
_STOP_BEFORE_TIMEOUT = 5.0


# --- Attempts


class Attempt:
    """One attempt of a task: its ledger, its deliveries so far, and how it ends.

    Args:
        context: the task's context.
        execution: the call of `execute`; None: the only one of the task.
    """

    def __init__(self, context: Context, execution: Execution | None = None) -> None:
        self._context = context
        self._execution = execution or Execution()
        #: The deliveries of this attempt, if the task sends one mail.
        self.deliveries: list[Delivery] = []
        #: The task's result, for its ledger; empty until the task succeeds.
        self.result: Mapping[str, object] = {}
        #: The result without addresses.
        self.summary: Mapping[str, object] = {}
        #: The exception with which the task fails; None if it succeeds.
        self.failure: AirflowException | None = None
        #: Replaces the check of `deliveries` in `may_have_arrived`, for a task that sends many mails.
        self.arrival_check: Callable[[], bool] | None = None

    @classmethod
    def of_preview(cls, context: Mapping[str, Any]) -> Attempt:
        """Return an attempt that sends nothing, for a preview.

        Args:
            context: any mapping; without `ti`, or with an incomplete one, the Message-IDs are those of no task.
        """
        names = ("dag_id", "task_id", "run_id", "map_index")
        ti = SimpleNamespace(**{name: getattr(context.get("ti"), name, "preview") for name in names})
        return cls({**context, "ti": ti})  # type: ignore[typeddict-item]

    def may_have_arrived(self) -> bool:
        """Return whether this attempt delivered mail to a recipient, or may have."""
        if self.arrival_check is not None:
            return self.arrival_check()
        return any(delivery.may_have_arrived for delivery in self.deliveries)

    @contextmanager
    def open_ledger(
        self, *, on_clear: str, single_mail: bool = False, window: int | None = None, connections: int = 1
    ) -> Iterator[Ledger | None]:
        """Open the ledger of the task; at the end, write its last results and how the attempt ended.

        Args:
            on_clear: `resume_unfinished` or `send_again`; see `SendMailOperator`.
            single_mail: whether the task sends one mail.
            window, connections: of a task that sends many; see `MergeLedger`.

        Yields:
            The ledger; None before Airflow 3.3, and in a callback.

        Raises:
            LedgerError: the ledger cannot be read or written, or has another mail in place of this one.
        """
        if self._execution.in_callback:
            yield None
            return
        store = TaskStateStore.of(self._context)
        if store is None:
            log.info(
                "This version of Airflow has no task state store (added in 3.3), so the task is not retried once any "
                "mail has been accepted."
            )
            yield None
            return
        # Imported here, since every parse of a DAG imports this module.
        from airflow_provider_smtpcm.smtp.cancellation import release_fully

        new_ledger: Callable[..., Ledger]
        if single_mail:
            from airflow_provider_smtpcm.ledger.ledger import SingleMailLedger

            new_ledger = SingleMailLedger
        else:
            from airflow_provider_smtpcm.ledger.merge import MergeLedger

            new_ledger = partial(MergeLedger, window=window, connections=connections)
        ledger = new_ledger(
            self._execution.narrow(store),
            send_again=on_clear == "send_again",
            max_tries=getattr(self._context["ti"], "max_tries", None),
            times_cleared=_count_clears(self._context),
        )
        if ledger.finished_result is not None:
            self._execution.check_arguments(store, ledger)
            if self._execution.scope:
                log.info("'%s' succeeded in an earlier attempt of the task: nothing is sent.", self._execution.task_id)
            else:
                log.info("An earlier attempt succeeded, but ended before Airflow recorded it: nothing is sent.")
            yield ledger
            return
        if ledger.is_resumed:
            log.info(
                "Resuming: %d %s seen, %d pending, %d unknown.",
                ledger.rows_seen,
                "row" if ledger.rows_seen == 1 else "rows",
                ledger.rows_pending,
                len(ledger.rows_in_doubt),
            )
        elif ledger.generation:
            log.info("The task was cleared: everything is sent again (generation %d).", ledger.generation)
        try:
            self._execution.check_arguments(store, ledger)
            yield ledger
        except BaseException as error:
            release_fully(supervisor_lock)  # the ledger's thread may need it to finish
            is_final = isinstance(error, MailError) and not error.retryable
            with suppress(LedgerError):
                ledger.end(self._run_state(is_final=is_final))
            raise
        if self.failure is None:
            ledger.complete(self.result, self.summary)
        else:
            ledger.end(self._run_state(is_final=isinstance(self.failure, AirflowFailException)))

    def message_identity(self, ledger: Ledger | None, *parts: str) -> tuple[str, ...]:
        """Return the parts of a Message-ID that is the same in every attempt; see `mail.headers.stable_message_id`.

        Args:
            ledger: provides the generation: a mail that is deliberately sent again needs a new Message-ID, or a server
                may drop it as a duplicate. None: before Airflow 3.3.
            parts: distinguish the mails of the task from each other.
        """
        ti = self._context["ti"]
        generation = ledger.generation if ledger is not None else 0
        generation_part = (f"generation {generation}",) if generation else ()
        scope = self._execution.scope
        return (ti.dag_id, ti.run_id, ti.task_id, str(ti.map_index), *scope, *parts, *generation_part)

    def _run_state(self, *, is_final: bool) -> RunState:
        from airflow_provider_smtpcm.ledger.record import RunState

        ti = self._context["ti"]
        try_number, max_tries = getattr(ti, "try_number", None), getattr(ti, "max_tries", None)
        is_last = isinstance(try_number, int) and isinstance(max_tries, int) and try_number > max_tries
        return RunState.FAILED if is_final or is_last else RunState.UNFINISHED


def _count_clears(context: Context) -> int:
    """Return 0 if the task was never cleared, else at least 1: clearing a task increases its `max_tries`.

    It serves as the generation if the ledger has expired, or was removed by `[state_store] clear_on_success`.
    """
    max_tries = getattr(context["ti"], "max_tries", None)
    retries = getattr(context.get("task"), "retries", None)
    return max(0, max_tries - retries) if isinstance(max_tries, int) and isinstance(retries, int) else 0


def retry_budget(retry_for: float, execution_timeout: timedelta | None) -> float:
    """Return the seconds for which a mail may be retried within an attempt: at most half of the task's time limit.

    Args:
        retry_for: the operator's `retry_for`, in seconds.
        execution_timeout: the task's time limit; None: no limit.
    """
    return retry_for if execution_timeout is None else min(retry_for, execution_timeout.total_seconds() / 2)


# --- Errors and retries


def airflow_error(error: MailError, *, retry_unknown: bool = False) -> AirflowException:
    """Return an `AirflowException` if a retry may succeed and delivers nothing twice, else an `AirflowFailException`.

    Args:
        error: the error of the attempt. Without a ledger, call this only if no recipient was accepted.
        retry_unknown: whether to retry even if the mail may have been delivered.
    """
    is_retried = error.retryable or (retry_unknown and isinstance(error, OutcomeUnknownError))
    failure = AirflowException(str(error)) if is_retried else AirflowFailException(str(error))
    failure.__suppress_context__ = True  # its text is already in the message
    return failure


@contextmanager
def at_most_once(operator: BaseOperator, context: Context) -> Iterator[Attempt]:
    """Keep Airflow from retrying a task whose mail was or may have been accepted, unless there is a ledger.

    Each operator sends within this context. Before Airflow 3.3, when there is no ledger, it also covers what Airflow
    does after `execute`: `post_execute`, XCom, asset events.

    Args:
        operator: the operator that sends.
        context: the task's context.

    Yields:
        The attempt. Its `failure` is raised at the end.

    Raises:
        AirflowFailException: an exception was raised after a recipient was accepted, or may have been.
        AirflowException: the failure of the attempt.
    """
    with begin_execution(operator, context) as execution:
        if execution.in_callback:  # the attempt of the task has its own mails, and may be retried whatever this sends
            attempt = Attempt(context, execution)
            yield attempt
            if attempt.failure is not None:
                raise attempt.failure
        else:
            yield from _at_most_once(Attempt(context, execution), context)


def _at_most_once(attempt: Attempt, context: Context) -> Iterator[Attempt]:
    is_durable = TaskStateStore.of(context) is not None
    retries = _Retries(context)
    if not is_durable:
        retries.forbid()  # until a retry is known to be safe: a time limit may raise at any point
    try:
        yield attempt
    except AirflowFailException:
        raise
    except BaseException as error:
        if is_durable or not attempt.may_have_arrived():
            retries.allow()
            raise
        failure = attempt.failure if isinstance(attempt.failure, AirflowFailException) else None
        raise failure or AirflowFailException(
            f"The task was interrupted ({type(error).__name__}: {error}) after mail was, or may have been, accepted. "
            "The task is not retried, since that mail could arrive twice. The log lists its recipients."
        ) from error
    is_retried = attempt.failure is not None and not isinstance(attempt.failure, AirflowFailException)
    if is_retried or not attempt.may_have_arrived():
        retries.allow()
    if attempt.failure is not None:
        raise attempt.failure


class _Retries:
    """Forbids or allows Airflow to retry this attempt, whatever exception it raises.

    The API server decides at the start of the attempt whether it may be retried, and the task instance keeps that
    response in a private attribute; this class changes `should_retry` in it. In a version of Airflow without the
    attribute, only an `AirflowFailException` prevents a retry, so a failure after `execute` is retried.
    """

    def __init__(self, context: Context) -> None:
        self._server_context: Any = getattr(context["ti"], "_ti_context_from_server", None)
        self._should_retry: bool | None = getattr(self._server_context, "should_retry", None)

    def forbid(self) -> None:
        if self._should_retry:
            self._server_context.should_retry = False

    def allow(self) -> None:
        """Allow a retry, if Airflow would have made one."""
        if self._should_retry:
            self._server_context.should_retry = True


# --- The supervisor and the task state store

#: Held during each request to Airflow: a task process has one connection to its supervisor, which is not thread-safe in
#: `dag.test()`. Reentrant, since a signal handler may interrupt a request and make another.
supervisor_lock = threading.RLock()


def fetch_under_lock(items: Any) -> Any:
    """Return an iterable that holds `supervisor_lock` while it fetches an item, if Airflow fetches the items.

    Args:
        items: any value. If it is not one of Airflow's iterables (outputs of mapped tasks), it is returned unchanged.
    """
    is_from_airflow = type(items).__module__.startswith("airflow.") and isinstance(items, Iterable)
    # Airflow's iterables include its storage paths, whose class has `open`.
    if not is_from_airflow or isinstance(items, Mapping) or hasattr(type(items), "open"):
        return items
    return (_LockedSequence if isinstance(items, Sized) else _LockedIterable)(items)


class _LockedIterable:
    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        with supervisor_lock:
            iterator = iter(self._items)
        while True:
            with supervisor_lock:
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item


class _LockedSequence(_LockedIterable):
    _items: Any

    def __len__(self) -> int:
        with supervisor_lock:
            return len(self._items)


class TaskStateStore:
    """Airflow's task state store (3.3 and newer) for one task of one run, used under `supervisor_lock`.

    Args:
        accessor: `context["task_state_store"]`.
        prefix: of each key.
    """

    def __init__(self, accessor: Any, prefix: str = "") -> None:
        self._accessor = accessor
        self._prefix = prefix

    @classmethod
    def of(cls, context: Context) -> TaskStateStore | None:
        """Return the store of this task; None before Airflow 3.3."""
        accessor: Any = context.get("task_state_store")
        return None if accessor is None else cls(accessor)

    def within(self, prefix: str) -> TaskStateStore:
        """Return the part of the store whose keys have this prefix."""
        return TaskStateStore(self._accessor, prefix)

    def get(self, key: str) -> Any:
        """Return a value, or None if there is none."""
        with supervisor_lock:
            return self._accessor.get(self._prefix + key)

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        """Write a value; each write of a key renews its expiry.

        Args:
            key: unique within the task.
            value: a JSON value.
            retention: how long it is stored; None: `[state_store] default_retention_days`.
        """
        with supervisor_lock:
            self._accessor.set(self._prefix + key, value, retention=retention)

    def delete(self, key: str) -> None:
        """Delete a value, if there is one."""
        with supervisor_lock:
            self._accessor.delete(self._prefix + key)


# --- Cancellation


class Cancelable:
    """An operator that can be canceled: by Airflow's `on_kill`, and shortly before its `execution_timeout`.

    Each run has a token of its own, since Airflow may run several copies of an operator in one process (`dag.test()`).
    """

    execution_timeout: timedelta | None
    # The token of the latest run. Not created in `__init__`, since Airflow copies operators before they run.
    _cancellation: CancellationToken | None = None
    _was_killed_before_run = False

    def on_kill(self) -> None:
        """Begin no further mail; mails in flight get up to 3 s for their final reply, and the results are recorded."""
        if self._cancellation is None:  # Airflow's signal came before `execute`
            self._was_killed_before_run = True
        else:
            self._cancellation.cancel()

    def _new_cancellation_token(self) -> CancellationToken:
        """Return the token that cancels this run."""
        from airflow_provider_smtpcm.smtp.cancellation import CancellationToken

        stop_at = math.inf
        if self.execution_timeout is not None:
            seconds = self.execution_timeout.total_seconds()
            stop_at = time.monotonic() + max(seconds * 0.9, seconds - _STOP_BEFORE_TIMEOUT)
        self._cancellation = token = CancellationToken(at=stop_at, reason="its execution_timeout is nearly over")
        if self._was_killed_before_run:
            self._was_killed_before_run = False
            token.cancel()
        return token
