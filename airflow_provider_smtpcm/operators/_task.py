"""What one try of a task inherits from those before it, and leaves to those after it. Knows Airflow's context."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_smtpcm.errors import LedgerError, MailError, OutcomeUnknownError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_smtpcm.ledger.ledger import Ledger
    from airflow_provider_smtpcm.ledger.record import Standing
    from airflow_provider_smtpcm.smtp.cancellation import CancellationToken
    from airflow_provider_smtpcm.smtp.delivery import Delivery


# folded: What a failed mail means to Airflow: whether it may try the task again. Knows no SMTP.

try:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException
except ImportError:  # Airflow 3.1 has them elsewhere
    from airflow.exceptions import AirflowException, AirflowFailException  # type: ignore[attr-defined,no-redef]


__all__ = ["AirflowException", "AirflowFailException", "Attempt", "airflow_error", "sent_once"]


class Attempt:
    """One attempt of a task, for `sent_once`."""

    def __init__(self) -> None:
        #: Whether a recipient was accepted, or may have been.
        self.may_have_arrived: Callable[[], bool] = lambda: False
        #: The error with which the task is to end, if it ends with one.
        self.failure: AirflowException | None = None


@contextmanager
def sent_once(context: Context) -> Iterator[Attempt]:
    """Never let Airflow retry a task whose mail was accepted, or may have been, unless the next attempt knows of it.

    The one guard of every operator: it stands around all that the task does, whatever raises there, and when. Before
    Airflow 3.3 it also holds for what Airflow does after `execute`: a `post_execute`, the XCom, asset events.

    Raises:
        AirflowFailException: an exception came after a recipient was accepted, or may have been.
        AirflowException: `failure` of the attempt.
    """
    attempt = Attempt()
    durable = TaskStateStore.of(context) is not None
    retries = _Retries(context)
    if not durable:
        retries.forbid()  # until it is known to do no harm, since a time limit may raise between any two steps
    try:
        yield attempt
    except AirflowFailException:
        raise
    except BaseException as error:
        if durable or not attempt.may_have_arrived():
            retries.allow()
            raise
        failure = attempt.failure if isinstance(attempt.failure, AirflowFailException) else None
        raise failure or AirflowFailException(
            f"The task was interrupted ({type(error).__name__}: {error}) after mail was accepted, or may have been. "
            "Airflow does not try this again, since it would arrive twice. Look into the log for who has it."
        ) from error
    retried = attempt.failure is not None and not isinstance(attempt.failure, AirflowFailException)
    if retried or not attempt.may_have_arrived():
        retries.allow()
    if attempt.failure is not None:
        raise attempt.failure


class _Retries:
    """Switches off, and on again, that Airflow's task runner retries this attempt, whatever is raised.

    It goes by what the API server said when the attempt began, a private field in every version. Without it the task is
    as safe as its exceptions make it, which is up to the end of `execute`.
    """

    def __init__(self, context: Context) -> None:
        self._said: Any = getattr(context["ti"], "_ti_context_from_server", None)
        self._before: bool | None = getattr(self._said, "should_retry", None)

    def forbid(self) -> None:
        """It fails for good."""
        if self._before:
            self._said.should_retry = False

    def allow(self) -> None:
        """It is retried if Airflow would have done so."""
        if self._before:
            self._said.should_retry = True


def airflow_error(error: MailError, *, retry_unknown: bool) -> AirflowException:
    """`AirflowException` where another try may succeed and cannot deliver twice, else `AirflowFailException`.

    Args:
        error: why nobody accepted the mail.
        retry_unknown: whether somebody asked to try again although the mail may have been delivered.
    """
    retry = error.retryable or (retry_unknown and isinstance(error, OutcomeUnknownError))
    return AirflowException(str(error)) if retry else AirflowFailException(str(error))


# folded: here began the module itself

log = logging.getLogger(__name__)


class Tries:
    """The ledger of a task during one try, and how the try ends."""

    def __init__(self, ledger: Ledger | None) -> None:
        #: None before Airflow 3.3.
        self.ledger = ledger
        #: What became of the mail, of a task that sends one.
        self.told: list[Delivery] = []
        #: What the task returns, and the same without an address, once it is done.
        self.result: Mapping[str, object] = {}
        self.summary: Mapping[str, object] = {}
        #: With what the try ends; None: it is done.
        self.failure: AirflowException | None = None

    def may_have_arrived(self) -> bool:
        """Whether a recipient was accepted, or may have been, by this try."""
        return any(delivery.may_have_arrived for delivery in self.told)


@contextmanager
def ledger_of(context: Context, *, on_clear: str, window: int | None = None, connections: int = 1) -> Iterator[Tries]:
    """Open the ledger of the task, and write down at the end what is in it and how the try ended.

    Args:
        context: of the try.
        on_clear: `send_again` or `resume_unfinished`; see the operators.
        window, connections: see `Ledger`.

    Raises:
        LedgerError: it cannot be read, or not be written.
    """
    # Here, since every parse of a DAG imports this module.
    from airflow_provider_smtpcm.ledger.ledger import Ledger
    from airflow_provider_smtpcm.smtp.cancellation import release_fully

    store = TaskStateStore.of(context)
    if store is None:
        log.info("This Airflow keeps no state of tasks: once a mail was accepted, the task is not tried again.")
        yield Tries(None)
        return
    ledger = Ledger(
        store,
        send_again=on_clear == "send_again",
        window=window,
        connections=connections,
        max_tries=getattr(context["ti"], "max_tries", None),
        cleared=_times_cleared(context),
    )
    if ledger.done is not None:
        log.info("An earlier try was done, and died before Airflow heard of it: nothing is sent.")
        yield Tries(ledger)
        return
    if ledger.resumed:
        log.info(
            "An earlier try came to %d mail(s): left %d, in doubt %d.",
            ledger.rows,
            ledger.left,
            len(ledger.doubts),
        )
    elif ledger.generation:
        log.info("The task was cleared after it had ended: all is sent again (generation %d).", ledger.generation)
    tries = Tries(ledger)
    try:
        yield tries
    except BaseException as error:
        release_fully(LINE)  # the ledger's thread may need it to come to its end
        final = isinstance(error, MailError) and not error.retryable
        with suppress(LedgerError):
            ledger.end(_ended(context, final=final))
        raise
    if tries.failure is None:
        ledger.close(tries.result, tries.summary)
    else:
        ledger.end(_ended(context, final=isinstance(tries.failure, AirflowFailException)))


def _times_cleared(context: Context) -> int:
    """At least 1 after somebody cleared the task, by what Airflow then adds to the number of its retries.

    It counts where the ledger is gone: expired, or removed by `[state_store] clear_on_success`. A mail that is sent
    again on purpose needs another Message-ID, or a server may drop it.
    """
    most = getattr(context["ti"], "max_tries", None)
    retries = getattr(context.get("task"), "retries", None)
    return max(0, most - retries) if isinstance(most, int) and isinstance(retries, int) else 0


def _ended(context: Context, *, final: bool) -> Standing:
    from airflow_provider_smtpcm.ledger.record import Standing

    return Standing.ENDED if final or _is_the_last(context["ti"]) else Standing.OPEN


def _is_the_last(ti: Any) -> bool:
    tries, most = getattr(ti, "try_number", None), getattr(ti, "max_tries", None)
    return isinstance(tries, int) and isinstance(most, int) and tries > most


def identity_of(context: Context, ledger: Ledger | None, *more: str) -> tuple[str, ...]:
    """What makes a mail of this task this one and no other, on every try; see `mail.identity.stable_message_id`.

    Args:
        context: of the try.
        ledger: knows how often all was begun anew on purpose: a server would drop what bears an old Message-ID.
        more: what tells the mails of the task from one another.
    """
    ti = context["ti"]
    generation = ledger.generation if ledger is not None else 0
    again = (f"generation {generation}",) if generation else ()
    return (ti.dag_id, ti.run_id, ti.task_id, str(ti.map_index), *more, *again)


def budget(seconds: float, limit: timedelta | None) -> float:
    """How long a mail may be tried again: so many seconds, and never more than half of the task's time limit."""
    return seconds if limit is None else min(seconds, limit.total_seconds() / 2)


# folded: The one line from a task's process to its supervisor, which our threads use in turns. Knows no mail.
#   Airflow sees to that itself in a task, but not in `dag.test()`: while one thread asks, another finds no line at all.

_T = TypeVar("_T")

#: Held while something is asked of Airflow or told to it; a signal's handler may do so in the midst of it.
LINE = threading.RLock()


def fetched(items: Iterable[_T]) -> Iterator[_T]:
    """The items, one after the other; those that Airflow fetches by the line are fetched in turn."""
    if not type(items).__module__.startswith("airflow."):
        yield from items
        return
    with LINE:
        iterator = iter(items)
    while True:
        with LINE:
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


# folded: Airflow's task state store (3.3 and newer), where a ledger is kept. Knows no rows.


class TaskStateStore:
    """What Airflow keeps of one task of one run, up to an expiry that each write renews.

    Args:
        accessor: `context["task_state_store"]`.
    """

    def __init__(self, accessor: Any) -> None:
        self._accessor = accessor

    @classmethod
    def of(cls, context: Context) -> TaskStateStore | None:
        """The one of this task; None before Airflow 3.3."""
        accessor: Any = context.get("task_state_store")
        return None if accessor is None else cls(accessor)

    def get(self, key: str) -> Any:
        """The value, or None."""
        with LINE:
            return self._accessor.get(key)

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        """Write it down for so long; None: `[state_store] default_retention_days`. Deleting the run deletes it too."""
        with LINE:
            self._accessor.set(key, value, retention=retention)

    def delete(self, key: str) -> None:
        """Delete it, if it is there."""
        with LINE:
            self._accessor.delete(key)


# folded: How a task is asked to end: by Airflow's `on_kill`, and shortly before its `execution_timeout`.

# How long before Airflow's own time limit a task ends by itself, so that it can write down what became of its mails.
_BEFORE_THE_LIMIT = 5.0


class Stoppable:
    """The part of an operator that ends its sending.

    Each run has a `Stop` of its own: Airflow runs a copy of the operator in the DAG, and in `dag.test()` one copy after
    the other in one process.
    """

    execution_timeout: timedelta | None
    # Of the run that was begun last; on the class, so that nothing of a run is there to be copied before it begins.
    _stop: CancellationToken | None = None
    _killed_before = False

    def on_kill(self) -> None:
        """Begin nothing more; what was handed over has its answer heard, and the ledger and the report say so."""
        if self._stop is None:  # a signal that came before `execute`
            self._killed_before = True
        else:
            self._stop.cancel()

    def _begin_to_run(self) -> CancellationToken:
        """What ends this run."""
        from airflow_provider_smtpcm.smtp.cancellation import CancellationToken  # not on each parse of a DAG

        at = math.inf
        if self.execution_timeout is not None:
            seconds = self.execution_timeout.total_seconds()
            at = time.monotonic() + max(seconds * 0.9, seconds - _BEFORE_THE_LIMIT)
        self._stop = stop = CancellationToken(at=at, why="its execution_timeout is nearly over")
        if self._killed_before:
            self._killed_before = False
            stop.cancel()
        return stop
