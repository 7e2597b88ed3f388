"""What earlier tries of a merge left of its rows, and who is still to be sent to. Knows a ledger, and no server."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_smtpcm.operators.ledger.ledger import NOTHING, Known, Ledger, changed
from airflow_provider_smtpcm.operators.ledger.record import State
from airflow_provider_smtpcm.operators.merge.tally import MergeTally

# What each state counts as where it is left as it is.
_OUTCOMES = {
    State.ACCEPTED: "accepted",
    State.PARTIAL: "partial",
    State.REFUSED: "refused",
    State.UNKNOWN: "unknown",
    State.OPEN: "unknown",
}


class Past:
    """Tells rows that are settled from those that are left.

    Args:
        ledger: open.
        tally: hears of the rows that are settled.
        retry_unknown: whether what may have been delivered is sent again, under the same Message-ID.
    """

    def __init__(self, ledger: Ledger, tally: MergeTally, *, retry_unknown: bool) -> None:
        self._ledger = ledger
        self._tally = tally
        self._retry_unknown = retry_unknown
        self._rows = ledger.rows
        # The rows in doubt that this try has not come to.
        self._not_reached = set(ledger.doubts)

    def left(self, number: int, key: str | None, mark: bytes, message_id: Callable[[], str | None]) -> Known | None:
        """What is known of a row that is to be sent: Known() for nothing; None: it is settled.

        Args:
            number: of the row.
            key: what names it.
            mark: what tells it from others.
            message_id: of its mail, where somebody has to look for that.

        Raises:
            LedgerError: this is another row than the earlier try met in its place.
        """
        if number > self._rows:
            return NOTHING
        known = self._ledger.known(number - 1, mark)
        self._not_reached.discard(number - 1)
        if known is None or known.state in (State.AGAIN, State.FAILED):
            return known or NOTHING
        if known.state in (State.OPEN, State.UNKNOWN) and self._retry_unknown:
            return known
        if known.state is State.OPEN:
            self._tally.left_in_doubt(number, key, message_id())
        else:
            self._tally.settled_before(number, _OUTCOMES[known.state])
        if known.state is State.OPEN:  # last: a row that was not named yet is named by the next try
            self._ledger.record(number - 1, State.UNKNOWN, known.rest)
        return None

    def not_reached(self, *, named_before: bool) -> dict[int, bytes | None]:
        """The numbers of the rows in doubt that this try has not come to, and what tells each from others, if known.

        Args:
            named_before: also those that an earlier try has named.
        """
        return {
            row + 1: self._ledger.mark(row)
            for row in sorted(self._not_reached)
            if named_before or self._ledger.is_open(row)
        }

    def made_no_mail(self, number: int, mark: bytes, known: Known) -> None:
        """Write down that no mail can be made of a row; what is known of one that somebody has, or may have, stays."""
        if not known.rest.accepted and known.state not in (State.OPEN, State.UNKNOWN):
            self._ledger.record(number - 1, State.FAILED, mark=mark)

    def everybody_has_it(self, number: int) -> None:
        """Nobody is left of a row's recipients who lacks its mail."""
        self._ledger.record(number - 1, State.ACCEPTED)
        self._tally.settled_before(number, "accepted")

    def check_end(self, number: int) -> None:
        """The rows ended with this one.

        Raises:
            LedgerError: earlier tries met more.
        """
        if number < self._rows:
            raise changed(f"there are {number} now, and there were {self._rows} at least")
