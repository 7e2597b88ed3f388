"""The ledger of a task that sends one mail: what became of it before, and who lacks it. Knows no server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import MailError, OutcomeUnknownError, RefusedError
from airflow_provider_smtpcm.mail.errand import Errand
from airflow_provider_smtpcm.operators.ledger.journal import LedgerJournal, as_before, doubt, errand_of, parsed
from airflow_provider_smtpcm.operators.ledger.ledger import NOTHING, RESULT, Known, Ledger
from airflow_provider_smtpcm.operators.ledger.record import EVERYBODY, MARK, State
from airflow_provider_smtpcm.smtp.delivery import Delivery, Outcome

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail import Mail

# The one mail of a task is the same whatever its text: a date in it changes with every try.
_THE_ONE = bytes(MARK)


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

    def accepted(self) -> Delivery | None:
        """The delivery, if everybody has the mail; to know that, it need not be made again, which may be dear."""
        if self._ledger is None or self._known is None or self._known.state is not State.ACCEPTED:
            return None
        kept = self._ledger.kept(RESULT)
        return Delivery.from_dict(kept) if kept is not None and kept["outcome"] == Outcome.ACCEPTED else None

    def settled(self, mail: Mail, *, retry_unknown: bool) -> Delivery | None:
        """The delivery, if nothing is left to be done.

        Args:
            mail: as it would be sent.
            retry_unknown: whether what may have been delivered is sent again.
        """
        if self._ledger is None or self._known is None:
            return None
        state, rest = self._known.state, self._known.rest
        if state in (State.ACCEPTED, State.PARTIAL):
            return self._kept(mail, Outcome.ACCEPTED if state is State.ACCEPTED else Outcome.PARTIAL)
        if state in (State.OPEN, State.UNKNOWN) and not retry_unknown:
            self._ledger.record(0, State.UNKNOWN, rest)
            return Delivery(
                message_id=mail.message_id or "",
                outcome=Outcome.UNKNOWN,
                error=OutcomeUnknownError(
                    "The mail was about to be sent, or on its way, when an earlier try ended without knowing what "
                    "became of it. It is not sent again, since it may have been delivered.",
                    remedy="Look for it in the server's log; then mark the task as done, or clear it with "
                    "on_clear='send_again'.",
                ),
            )
        if self.errand(mail) is None:
            self._ledger.record(0, State.ACCEPTED)
            return self._kept(mail, Outcome.ACCEPTED)
        return None

    def errand(self, mail: Mail) -> Errand | None:
        """The mail for those who lack it; None: nobody does."""
        if self._ledger is None or self._known is None:
            return Errand(0, mail)
        return errand_of(0, mail, self._known)

    def as_before(self, mail: Mail, error: MailError) -> Delivery:
        """What became of it, where this try did not begin with it."""
        return as_before(0, mail, self._known or NOTHING, error)

    def with_doubt(self, error: MailError) -> MailError:
        """Why no mail was sent; that an earlier try may have delivered it is not forgotten for that."""
        if self._known is None or not self._known.in_doubt:
            return error
        return doubt("The mail may have been delivered", error)

    def _kept(self, mail: Mail, outcome: Outcome) -> Delivery:
        """What `keep` has stored, or, where the try ended just before, what the rows say."""
        assert self._ledger is not None
        assert self._known is not None
        kept = self._ledger.kept(RESULT)
        if kept is not None and kept["outcome"] == outcome:
            return Delivery.from_dict(kept)
        rest = self._known.rest if outcome is Outcome.PARTIAL else EVERYBODY
        return Delivery(
            message_id=mail.message_id or "",
            outcome=outcome,
            accepted=rest.accepted or tuple(address.address for address in mail.recipients),
            refused={address: parsed(said) for address, said in rest.lost.items()},
            error=RefusedError(f"An earlier try was refused for {', '.join(rest.lost)}.") if rest.lost else None,
        )

    def close(self) -> None:
        """Nothing more is sent."""
        if self.journal is not None:
            self.journal.close()

    def keep(self, delivery: Delivery) -> None:
        """Keep what became of it, for the result of a try that finds it done."""
        if self._ledger is not None and delivery.accepted:
            self._ledger.keep(delivery.to_dict())
