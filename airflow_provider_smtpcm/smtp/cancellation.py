"""Cancellation and interruption of a batch, with a delivery for every mail. Pure: no sockets.

A batch is canceled through a `CancellationToken`. It is interrupted by an exception that has nothing to do with mail: a
time limit raises in the main thread at any moment, and a worker can run out of memory or threads. The caller needs the
deliveries even then, or it would send again what some recipients already have.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress

from airflow_provider_smtpcm.errors import MailError, OutcomeUnknownError, StoppedError
from airflow_provider_smtpcm.smtp.outcome import Delivery, Outcome


class CancellationToken:
    """Cancels one batch: no further mail is started, and in-flight mails get up to 3 s for their final reply.

    `cancel` may be called in any thread, from a signal handler, and at any time.

    Args:
        at: when (`time.monotonic`) the batch is canceled without a call of `cancel`.
        reason: why it is canceled then; a clause, for the errors of mails that were not sent.
    """

    def __init__(self, *, at: float = math.inf, reason: str = "the task was asked to end") -> None:
        #: When (`time.monotonic`) the batch is canceled.
        self.at = at
        self._reason = reason
        #: Wakes the event loop; set by the batch, and safe in a signal handler.
        self.wake: Callable[[], None] | None = None

    @property
    def is_canceled(self) -> bool:
        """Whether the batch has been canceled."""
        return time.monotonic() >= self.at

    def cancel(self, reason: str = "the task was asked to end") -> None:
        """Cancel the batch now; `reason` is a clause, for the errors of mails that were not sent."""
        if not self.is_canceled:
            self._reason, self.at = reason, -math.inf
        wake = self.wake  # another thread may set it to None
        if wake is not None:
            wake()

    def raise_if_canceled(self) -> None:
        """Raise `error` if the batch has been canceled."""
        if self.is_canceled:
            raise self.error()

    def error(self) -> StoppedError:
        """Return the error for a mail that was not sent because of the cancellation."""
        return StoppedError(f"It was not sent: {self._reason}.", remedy="Run the task again.")


class InterruptedDeliveryError(OutcomeUnknownError):
    """Sending was interrupted after a recipient was accepted, or may have been; see `delivery`."""

    delivery: Delivery


def get_single_delivery(deliveries: Iterable[Delivery], found: list[Delivery] | None = None) -> Delivery | None:
    """Return the delivery of a batch of one mail; None if the batch has none.

    Args:
        deliveries: the deliveries of the batch.
        found: a list that receives the delivery even if this function raises; None: none is needed.

    Raises:
        InterruptedDeliveryError: sending was interrupted after a recipient was accepted, or may have been.
    """
    found = [] if found is None else found
    try:
        found.extend(deliveries)  # one call: a signal handler cannot raise between two deliveries
    except (MailError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as interruption:
        if not found or not found[-1].may_have_arrived:
            raise
        raise _interrupted_delivery(found[-1], interruption) from interruption
    return found[-1] if found else None


def drain_deliveries(deliveries: Generator[Delivery, None, None], interruption: BaseException) -> Iterator[Delivery]:
    """Interrupt a batch, and yield its remaining deliveries.

    Args:
        deliveries: the deliveries of the batch.
        interruption: the exception to throw into the batch; it is not raised from here.
    """
    try:
        yield deliveries.throw(interruption)
        yield from deliveries
    except BaseException as error:
        if error is not interruption:
            raise


def interruption_error(interruption: BaseException) -> StoppedError:
    """Return the error for a mail that cannot have been delivered when sending was interrupted."""
    error = StoppedError(f"It was not sent: {describe_interruption(interruption)}.", remedy="Run the task again.")
    error.__cause__ = interruption
    return error


def describe_interruption(interruption: BaseException) -> str:
    """Return a clause about the interruption, for a message."""
    return f"the task was interrupted ({type(interruption).__name__}: {interruption})".replace(": )", ")")


def release_fully(lock: threading.RLock | threading.Condition) -> None:
    """Release a lock as many times as this thread holds it, so that other threads do not wait for it.

    A signal handler may raise after a `with` statement has acquired the lock and before its block begins: with a
    Condition, and from Python 3.14 on with any lock.
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
