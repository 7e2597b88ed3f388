"""The ledger of a task that sends one mail: what became of it before, and who lacks it. Knows no server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import OutcomeUnknownError
from airflow_provider_smtpcm.mail.errand import Errand
from airflow_provider_smtpcm.operators.ledger.journal import LedgerJournal, errand_of
from airflow_provider_smtpcm.operators.ledger.ledger import Known, Ledger
from airflow_provider_smtpcm.operators.ledger.record import MARK, State
from airflow_provider_smtpcm.smtp.delivery import Delivery, Outcome

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail import Mail

# The one mail of a task is the same whatever its text: a date in it changes with every try.
_THE_ONE = bytes(MARK)
_DELIVERY = "delivery"


class PastDelivery:
    """What earlier tries left of the mail.

    Args:
        ledger: of the task; None: nobody wrote it down.
    """

    def __init__(self, ledger: Ledger | None) -> None:
        self._ledger = ledger
        self._known: Known | None = None if ledger is None else ledger.known(0, _THE_ONE)
        #: What is asked before the mail is sent, and told afterwards.
        self.journal = None if ledger is None else LedgerJournal(ledger, lambda _: _THE_ONE)

    def settled(self, *, retry_unknown: bool) -> Delivery | None:
        """The delivery, if nothing is left to be done.

        Args:
            retry_unknown: whether what may have been delivered is sent again.
        """
        if self._ledger is None or self._known is None:
            return None
        state = self._known.state
        if state in (State.ACCEPTED, State.PARTIAL):
            kept = self._ledger.kept(_DELIVERY)
            return None if kept is None else Delivery.from_dict(kept)
        if state in (State.OPEN, State.UNKNOWN) and not retry_unknown:
            self._ledger.record(0, State.UNKNOWN)
            return Delivery(
                message_id="",
                outcome=Outcome.UNKNOWN,
                error=OutcomeUnknownError(
                    "The mail was about to be sent, or on its way, when an earlier try ended without knowing what "
                    "became of it. It is not sent again, since it may have been delivered.",
                    remedy="Look for it in the server's log; then mark the task as done, or clear it with "
                    "on_clear='send_again'.",
                ),
            )
        return None

    def errand(self, mail: Mail) -> Errand:
        """The mail for those who lack it."""
        return Errand(0, mail) if self._known is None else errand_of(0, mail, self._known)

    def keep(self, delivery: Delivery) -> None:
        """Keep what became of it, for the result of a try that finds it done."""
        if self._ledger is not None and delivery.accepted:
            self._ledger.keep(_DELIVERY, delivery.to_dict())
