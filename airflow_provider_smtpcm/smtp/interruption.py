"""Ending early: asked to, as a signal handler asks, or forced to, by an exception. Knows no socket."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import MailError, OutcomeUnknownError, StoppedError
from airflow_provider_smtpcm.smtp.delivery import Delivery, Outcome

if TYPE_CHECKING:
    from airflow_provider_smtpcm.smtp.transaction import Transaction

_MAY_HAVE_ARRIVED = (Outcome.ACCEPTED, Outcome.PARTIAL, Outcome.UNKNOWN)


class Stop:
    """Asks a mailing to end: nothing more is begun, what was handed over has its answer heard, for a while.

    `ask` may be called from a signal handler, in any thread, and at any time.
    """

    def __init__(self) -> None:
        #: Whether somebody has asked.
        self.asked = False
        #: Why, for the errors of what was not sent.
        self.why = "the task was asked to end"
        #: Wakes whoever waits; must be safe in a signal handler.
        self.wake: Callable[[], None] | None = None

    def ask(self, why: str | None = None) -> None:
        """End it."""
        self.why = why or self.why
        self.asked = True
        wake = self.wake  # another thread may take it away
        if wake is not None:
            wake()

    def error(self) -> StoppedError:
        """Why a mail was not sent."""
        return StoppedError(f"It was not sent: {self.why}.", remedy="Run the task again.")


def raise_unknown(handed_over: Iterable[Transaction], untold: Iterable[Delivery], interruption: BaseException) -> None:
    """Raise what is known of mails that may have been delivered when something broke into the sending.

    Args:
        handed_over: whose answers were awaited.
        untold: whose answers had come.
        interruption: what broke in.
    """
    errors = [flying.interrupted(interruption) for flying in handed_over]
    errors += [_never_told(delivery, interruption) for delivery in untold if delivery.outcome in _MAY_HAVE_ARRIVED]
    if not errors:
        return
    if len(errors) == 1:
        raise errors[0] from interruption
    raise OutcomeUnknownError(
        "\n".join([f"{len(errors)} mails were handed over without an answer:", *(f"  - {e.message}" for e in errors)]),
        remedy=errors[0].remedy,
    ) from interruption


def _never_told(delivery: Delivery, interruption: BaseException) -> MailError:
    return OutcomeUnknownError(
        f"{delivery.message_id} was handed over (it is {delivery.outcome}), and the task was interrupted "
        f"({type(interruption).__name__}) before it could be told so.",
        remedy="Do not send it again.",
    )
