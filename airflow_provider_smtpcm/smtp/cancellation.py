"""Cancellation: ending a batch early, on request or by an exception, with a delivery for every mail. Pure: no sockets.

A time limit raises in the main thread at any moment; a machine that runs out of threads or memory raises where one is
needed. A caller that sees such an exception alone would send again, although some recipients may have the mail.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress

from airflow_provider_smtpcm.errors import MailError, OutcomeUnknownError, StoppedError
from airflow_provider_smtpcm.smtp.delivery import Delivery, Outcome


class CancellationToken:
    """Cancels one batch: nothing more is begun, and in-flight mails get a few seconds for their final reply.

    `cancel` may be called from a signal handler, in any thread, and at any time.

    Args:
        at: the moment (`time.monotonic`) from which it is canceled by itself; no thread and no timer waits for it.
        why: the reason at that moment, for the errors of mails that were not sent.
    """

    def __init__(self, *, at: float = math.inf, why: str = "the task was asked to end") -> None:
        #: From when on (`time.monotonic`) it is canceled.
        self.at = at
        self._why = why
        #: Wakes the thread that sends; must be safe in a signal handler.
        self.wake: Callable[[], None] | None = None

    @property
    def is_canceled(self) -> bool:
        """Whether the batch is to end."""
        return time.monotonic() >= self.at

    def cancel(self, why: str = "the task was asked to end") -> None:
        """Cancel the batch now."""
        if not self.is_canceled:
            self._why, self.at = why, -math.inf
        wake = self.wake  # another thread may take it away
        if wake is not None:
            wake()

    def error(self) -> StoppedError:
        """Return the error of a mail that was not sent because of it."""
        return StoppedError(f"It was not sent: {self._why}.", remedy="Run the task again.")


class InterruptedDeliveryError(OutcomeUnknownError):
    """Sending was interrupted after a recipient was accepted, or may have been; `delivery` is what is known."""

    delivery: Delivery


def get_single_delivery(deliveries: Iterable[Delivery], found: list[Delivery] | None = None) -> Delivery | None:
    """Return the delivery of a batch of one mail; None if the mail was not begun.

    Args:
        deliveries: of the batch.
        found: receives the delivery even if this function raises.

    Raises:
        InterruptedDeliveryError: sending was interrupted after a recipient was accepted, or may have been.
    """
    found = [] if found is None else found
    try:
        found.extend(deliveries)  # one call, so that no exception comes between two of its steps
    except (MailError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as interruption:
        if not found or not found[-1].may_have_arrived:
            raise
        raise _interrupted_delivery(found[-1], interruption) from interruption
    return found[-1] if found else None


def drain_deliveries(deliveries: Generator[Delivery, None, None], interruption: BaseException) -> Iterator[Delivery]:
    """Yield what a batch still delivers once an exception from elsewhere has ended it.

    Args:
        deliveries: of the batch.
        interruption: the exception, wherever it was raised; it is thrown into the batch.
    """
    try:
        yield deliveries.throw(interruption)
        yield from deliveries
    except BaseException as error:
        if error is not interruption:
            raise


def interruption_error(interruption: BaseException) -> StoppedError:
    """Return the error of a mail that cannot have reached anyone when the exception came."""
    error = StoppedError(f"It was not sent: {describe_interruption(interruption)}.", remedy="Run the task again.")
    error.__cause__ = interruption
    return error


def describe_interruption(interruption: BaseException) -> str:
    """Return the clause about the exception, for an error's message."""
    return f"the task was interrupted ({type(interruption).__name__}: {interruption})".replace(": )", ")")


def release_fully(lock: threading.RLock | threading.Condition) -> None:
    """Release a lock as often as this thread holds it, before it waits for other threads.

    A signal handler that raises may come between taking a lock and the block that would release it: with a Condition,
    and from Python 3.14 on with any lock.
    """
    with suppress(RuntimeError):
        while True:
            lock.release()


def _interrupted_delivery(delivery: Delivery, interruption: BaseException) -> InterruptedDeliveryError:
    known = delivery.error
    message = known.message if known else f"{delivery.message_id} was accepted for every recipient."
    error = InterruptedDeliveryError(
        message if "interrupted" in message else f"{message} Then {describe_interruption(interruption)}.",
        remedy=known.remedy if known else "Do not send it again.",
        phase=known.phase if known else None,
        reply=delivery.reply,
        retryable=delivery.outcome is Outcome.PARTIAL,
    )
    error.delivery = delivery
    return error
