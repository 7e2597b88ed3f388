"""What the operators share of Airflow's task machinery: attempts, retries, the task state store, stopping."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.errors import LedgerError, MailError, OutcomeUnknownError

try:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException
except ImportError:  # Airflow 3.1 has them elsewhere
    from airflow.exceptions import AirflowException, AirflowFailException  # type: ignore[attr-defined,no-redef]

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_smtpcm.ledger.ledger import Ledger
    from airflow_provider_smtpcm.ledger.record import RunState
    from airflow_provider_smtpcm.smtp.cancellation import CancellationToken
    from airflow_provider_smtpcm.smtp.delivery import Delivery

__all__ = ["AirflowException", "AirflowFailException", "Attempt", "airflow_error", "at_most_once"]

log = logging.getLogger(__name__)

# How long (s) before Airflow's own time limit a task stops, so that it can still record what became of its mails.
_STOP_BEFORE_TIMEOUT = 5.0


# --- Attempts


class Attempt:
    """One attempt of a task: its ledger, what it has delivered so far, and how it ends.

    Args:
        context: of the task.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        #: The deliveries of the attempt, in a task that sends one mail.
        self.deliveries: list[Delivery] = []
        #: The task's result, and the same without addresses, once the task is done.
        self.result: Mapping[str, object] = {}
        self.summary: Mapping[str, object] = {}
        #: The error with which the task is to fail; None: it succeeds.
        self.failure: AirflowException | None = None
        #: Returns whether a recipient was accepted, or may have been, in this attempt.
        self.may_have_arrived: Callable[[], bool] = self._may_have_delivered

    def _may_have_delivered(self) -> bool:
        return any(delivery.may_have_arrived for delivery in self.deliveries)

    @contextmanager
    def open_ledger(self, *, on_clear: str, window: int | None = None, connections: int = 1) -> Iterator[Ledger | None]:
        """Open the ledger of the task, and write at the end what is in it and how the attempt ended.

        Args:
            on_clear: `send_again` or `resume_unfinished`; see the operators.
            window, connections: see `Ledger`.

        Yields:
            The ledger; None before Airflow 3.3.

        Raises:
            LedgerError: it cannot be read or written.
        """
        # Here, since every parse of a DAG imports this module.
        from airflow_provider_smtpcm.ledger.ledger import Ledger
        from airflow_provider_smtpcm.smtp.cancellation import release_fully

        store = TaskStateStore.of(self._context)
        if store is None:
            log.info("This Airflow stores no task state: once a mail was accepted, the task is not retried.")
            yield None
            return
        ledger = Ledger(
            store,
            send_again=on_clear == "send_again",
            window=window,
            connections=connections,
            max_tries=getattr(self._context["ti"], "max_tries", None),
            cleared=_times_cleared(self._context),
        )
        if ledger.finished_result is not None:
            log.info("An earlier attempt was done, and died before it could tell Airflow: nothing is sent.")
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
            log.info(
                "The task was cleared after it had ended: everything is sent again (generation %d).", ledger.generation
            )
        try:
            yield ledger
        except BaseException as error:
            release_fully(supervisor_lock)  # the ledger's thread may need it to come to its end
            is_final = isinstance(error, MailError) and not error.retryable
            with suppress(LedgerError):
                ledger.end(self._run_state(is_final=is_final))
            raise
        if self.failure is None:
            ledger.complete(self.result, self.summary)
        else:
            ledger.end(self._run_state(is_final=isinstance(self.failure, AirflowFailException)))

    def message_identity(self, ledger: Ledger | None, *parts: str) -> tuple[str, ...]:
        """Return what makes a mail of this task unique, in every attempt; see `mail.headers.stable_message_id`.

        Args:
            ledger: says how often everything was sent again on purpose: a server would drop mail with an old
                Message-ID.
            parts: what tells the mails of the task from each other.
        """
        ti = self._context["ti"]
        generation = ledger.generation if ledger is not None else 0
        again = (f"generation {generation}",) if generation else ()
        return (ti.dag_id, ti.run_id, ti.task_id, str(ti.map_index), *parts, *again)

    def _run_state(self, *, is_final: bool) -> RunState:
        from airflow_provider_smtpcm.ledger.record import RunState

        ti = self._context["ti"]
        number, most = getattr(ti, "try_number", None), getattr(ti, "max_tries", None)
        is_last = isinstance(number, int) and isinstance(most, int) and number > most
        return RunState.ENDED if is_final or is_last else RunState.OPEN


def _times_cleared(context: Context) -> int:
    """Return at least 1 if the task was cleared, by what Airflow then adds to the number of its retries.

    It counts where the ledger is gone: expired, or removed by `[state_store] clear_on_success`. A mail that is sent
    again on purpose needs another Message-ID, or a server may drop it.
    """
    most = getattr(context["ti"], "max_tries", None)
    retries = getattr(context.get("task"), "retries", None)
    return max(0, most - retries) if isinstance(most, int) and isinstance(retries, int) else 0


def retry_budget(seconds: float, limit: timedelta | None) -> float:
    """Return for how long (s) a mail may be retried within an attempt: at most half of the task's time limit.

    Args:
        seconds: the operator's `retry_for`.
        limit: the task's `execution_timeout`.
    """
    return seconds if limit is None else min(seconds, limit.total_seconds() / 2)


# --- Errors and retries


def airflow_error(error: MailError, *, retry_unknown: bool = False) -> AirflowException:
    """Return an `AirflowException` where a retry may succeed and cannot deliver twice, else an `AirflowFailException`.

    Args:
        error: why no recipient was accepted.
        retry_unknown: whether to retry although the mail may have been delivered.
    """
    is_retried = error.retryable or (retry_unknown and isinstance(error, OutcomeUnknownError))
    failure = AirflowException(str(error)) if is_retried else AirflowFailException(str(error))
    failure.__suppress_context__ = True  # the message has what a library below reported
    return failure


@contextmanager
def at_most_once(context: Context) -> Iterator[Attempt]:
    """Keep Airflow from retrying a task whose mail was or may have been accepted, unless the next attempt knows of it.

    Every operator runs in this guard, whatever raises in it, and when. Before Airflow 3.3 it also covers what Airflow
    does after `execute`: a `post_execute`, the XCom, asset events.

    Raises:
        AirflowFailException: an exception came after a recipient was accepted, or may have been.
        AirflowException: the failure of the attempt.
    """
    attempt = Attempt(context)
    is_durable = TaskStateStore.of(context) is not None
    retries = _Retries(context)
    if not is_durable:
        retries.forbid()  # until a retry is known to do no harm, since a time limit may raise between any two steps
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
            f"The task was interrupted ({type(error).__name__}: {error}) after mail was accepted, or may have been. "
            "Airflow does not retry this, since it would arrive twice. Look in the log for the recipients who have it."
        ) from error
    is_retried = attempt.failure is not None and not isinstance(attempt.failure, AirflowFailException)
    if is_retried or not attempt.may_have_arrived():
        retries.allow()
    if attempt.failure is not None:
        raise attempt.failure


class _Retries:
    """Forbids and allows Airflow's task runner to retry this attempt, whatever is raised.

    It uses what the API server answered when the attempt began, a private field in every version. Without it the task
    is as safe as its exceptions make it, which is up to the end of `execute`.
    """

    def __init__(self, context: Context) -> None:
        self._answer: Any = getattr(context["ti"], "_ti_context_from_server", None)
        self._should_retry: bool | None = getattr(self._answer, "should_retry", None)

    def forbid(self) -> None:
        if self._should_retry:
            self._answer.should_retry = False

    def allow(self) -> None:
        """Allow it again, if Airflow would have retried."""
        if self._should_retry:
            self._answer.should_retry = True


# --- The supervisor and the task state store

#: Held during each request to Airflow: the task's process has one connection to its supervisor, and in `dag.test()`
#: Airflow does not see to it that threads take turns. Reentrant, since a signal handler may interrupt a request.
supervisor_lock = threading.RLock()


def locked(items: Any) -> Any:
    """Return an iterable that fetches each item under `supervisor_lock`, where Airflow fetches the items.

    Args:
        items: anything; all else than one of Airflow's iterables is returned as it is.
    """
    is_airflows = type(items).__module__.startswith("airflow.") and isinstance(items, Iterable)
    if not is_airflows or isinstance(items, Mapping) or hasattr(type(items), "open"):
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
    """What Airflow (3.3 and newer) stores for one task of one run, until an expiry that each write renews.

    Args:
        accessor: `context["task_state_store"]`.
    """

    def __init__(self, accessor: Any) -> None:
        self._accessor = accessor

    @classmethod
    def of(cls, context: Context) -> TaskStateStore | None:
        """Return the store of this task; None before Airflow 3.3."""
        accessor: Any = context.get("task_state_store")
        return None if accessor is None else cls(accessor)

    def get(self, key: str) -> Any:
        """Return the value; None: there is none."""
        with supervisor_lock:
            return self._accessor.get(key)

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        """Write a value. Deleting the run deletes it too.

        Args:
            key: within the task.
            value: what JSON can hold.
            retention: how long it is stored; None: `[state_store] default_retention_days`.
        """
        with supervisor_lock:
            self._accessor.set(key, value, retention=retention)

    def delete(self, key: str) -> None:
        """Delete a value, if there is one."""
        with supervisor_lock:
            self._accessor.delete(key)


# --- Stopping


class Stoppable:
    """The part of an operator that stops it: on Airflow's `on_kill`, and shortly before its `execution_timeout`.

    Each run is stopped by an object of its own: Airflow runs a copy of the operator in the DAG, and `dag.test()` runs
    one copy after the other in one process.
    """

    execution_timeout: timedelta | None
    # Of the latest run; on the class, so that an operator that has not run holds nothing that cannot be copied.
    _stop: CancellationToken | None = None
    _was_killed_before_run = False

    def on_kill(self) -> None:
        """Start nothing more; replies to mails in flight are awaited for up to 3 s, then recorded and reported."""
        if self._stop is None:  # a signal that came before `execute`
            self._was_killed_before_run = True
        else:
            self._stop.cancel()

    def _start_run(self) -> CancellationToken:
        """Return what stops this run."""
        from airflow_provider_smtpcm.smtp.cancellation import CancellationToken

        stop_at = math.inf
        if self.execution_timeout is not None:
            seconds = self.execution_timeout.total_seconds()
            stop_at = time.monotonic() + max(seconds * 0.9, seconds - _STOP_BEFORE_TIMEOUT)
        self._stop = stop = CancellationToken(at=stop_at, reason="its execution_timeout is nearly over")
        if self._was_killed_before_run:
            self._was_killed_before_run = False
            stop.cancel()
        return stop
