"""What is known of mails when an exception from elsewhere ends the sending. Pure: no sockets.

A time limit raises in the main thread at any moment; a machine that is short of threads or memory raises where one is
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


class InterruptedDeliveryError(OutcomeUnknownError):
    """Sending was interrupted after a recipient was accepted, or may have been; `delivery` is what is known."""

    delivery: Delivery


def only_delivery(deliveries: Iterable[Delivery], told: list[Delivery] | None = None) -> Delivery | None:
    """Return the delivery of a batch of one mail; None if the mail was not begun.

    Args:
        deliveries: of the batch.
        told: gets it, whatever is raised meanwhile.

    Raises:
        InterruptedDeliveryError: sending was interrupted after a recipient was accepted, or may have been.
    """
    told = [] if told is None else told
    try:
        told.extend(deliveries)  # one call, so that no exception comes between two of its steps
    except (MailError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as interruption:
        if not told or not told[-1].may_have_arrived:
            raise
        raise _interrupted(told[-1], interruption) from interruption
    return told[-1] if told else None


def remaining(deliveries: Generator[Delivery, None, None], interruption: BaseException) -> Iterator[Delivery]:
    """The deliveries that a batch still gives when an exception from elsewhere ends it, wherever it was raised."""
    try:
        yield deliveries.throw(interruption)
        yield from deliveries
    except BaseException as error:
        if error is not interruption:
            raise


def not_sent_for(interruption: BaseException) -> StoppedError:
    """The error of a mail that cannot have reached anyone when the exception came."""
    return StoppedError(f"It was not sent: {interrupted_by(interruption)}.", remedy="Run the task again.")


def interrupted_by(interruption: BaseException) -> str:
    """What came, for an error."""
    return f"the task was interrupted ({type(interruption).__name__}: {interruption})".replace(": )", ")")


def let_go(lock: threading.RLock | threading.Condition) -> None:
    """Release a lock as often as this thread holds it, where it should hold it no more, before others are waited for.

    A signal handler that raises may come between taking a lock and the block that would release it: with a Condition,
    and from Python 3.14 on with any lock.
    """
    with suppress(RuntimeError):
        while True:
            lock.release()


def _interrupted(delivery: Delivery, interruption: BaseException) -> InterruptedDeliveryError:
    known = delivery.error
    told = known.message if known else f"{delivery.message_id} was accepted for every recipient."
    error = InterruptedDeliveryError(
        told if "interrupted" in told else f"{told} Then {interrupted_by(interruption)}.",
        remedy=known.remedy if known else "Do not send it again.",
        phase=known.phase if known else None,
        reply=delivery.reply,
        retryable=delivery.outcome is Outcome.PARTIAL,
    )
    error.delivery = delivery
    return error


# folded: Asking a sending to end, as a signal handler may ask, or a moment that has come. Knows nothing else.


class Stop:
    """Asks one sending to end: nothing more is begun, what was handed over has its answer heard, for a while.

    `ask` may be called from a signal handler, in any thread, and at any time.

    Args:
        at: a moment (`time.monotonic`) from which on it is asked by itself; no thread and no timer waits for it.
        why: why at that moment, for the errors of what was not sent.
    """

    def __init__(self, *, at: float = math.inf, why: str = "the task was asked to end") -> None:
        #: From when on (`time.monotonic`) it is asked.
        self.at = at
        self._why = why
        #: Wakes whoever waits; must be safe in a signal handler.
        self.wake: Callable[[], None] | None = None

    @property
    def asked(self) -> bool:
        """Whether the sending is to end."""
        return time.monotonic() >= self.at

    def ask(self, why: str = "the task was asked to end") -> None:
        """End it now."""
        if not self.asked:
            self._why, self.at = why, -math.inf
        wake = self.wake  # another thread may take it away
        if wake is not None:
            wake()

    def error(self) -> StoppedError:
        """Why a mail was not sent."""
        return StoppedError(f"It was not sent: {self._why}.", remedy="Run the task again.")
