"""What a failed mail means to Airflow: whether it may try the task again. Knows no SMTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.errors import MailError, OutcomeUnknownError

try:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException
except ImportError:  # Airflow 3.1 has them elsewhere
    from airflow.exceptions import AirflowException, AirflowFailException  # type: ignore[attr-defined,no-redef]

if TYPE_CHECKING:
    from airflow.sdk import Context

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
    from airflow_provider_smtpcm.operators.ledger.store import TaskStateStore

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
