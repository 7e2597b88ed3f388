"""The earlier attempts of a merge: which rows they have settled, and which are still pending."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.ledger.ledger import UNSEEN, Ledger, PriorRow, rows_changed_error
from airflow_provider_smtpcm.ledger.record import NO_PROGRESS, Progress, RowState
from airflow_provider_smtpcm.merge.result import MergeResult

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail import Mail

# The outcome of a row that an earlier attempt has settled.
_SETTLED_OUTCOMES = {
    RowState.ACCEPTED: "accepted",
    RowState.PARTIAL: "partial",
    RowState.REFUSED: "refused",
    RowState.UNKNOWN: "unknown",
    RowState.OPEN: "unknown",
}


class PriorAttempts:
    """Resumes a merge: decides which rows are still pending after its earlier attempts.

    Args:
        ledger: the task's ledger.
        result: receives the rows that are settled.
        retry_unknown: whether a mail that may have been delivered is sent again, with the same Message-ID.
    """

    def __init__(self, ledger: Ledger, result: MergeResult, *, retry_unknown: bool) -> None:
        self._ledger = ledger
        self._result = result
        self._retry_unknown = retry_unknown
        #: How many rows earlier attempts have reached.
        self.rows_seen = ledger.rows_seen
        # The rows in doubt that this attempt has not reached.
        self._unreached = set(ledger.rows_in_doubt)

    def resume(
        self, number: int, key: str | None, fingerprint: bytes, try_render: Callable[[], Mail | None]
    ) -> PriorRow | None:
        """Return what earlier attempts recorded for a pending row. A settled row is added to the result: returns None.

        Args:
            number: the row's number, from 1 to `rows_seen`.
            key: the row's key; None: it has none.
            fingerprint: the row's fingerprint.
            try_render: returns its mail; None: the mail can no longer be made.

        Raises:
            LedgerError: an earlier attempt had a different row with this number.
        """
        row = self._ledger.prior(number - 1, fingerprint)
        self._unreached.discard(number - 1)
        if row is None or row.state in (RowState.RETRY, RowState.FAILED):
            return row or UNSEEN
        if row.is_in_doubt and self._retry_unknown:
            return row
        if row.state is not RowState.OPEN:
            self._add_settled(number, key, row.state, row.progress, try_render)
            return None
        mail = try_render()
        self._result.add_left_in_doubt(number, key, None if mail is None else mail.message_id)
        # Recorded last: if this attempt is interrupted before that, the next one adds the row to its report.
        self._ledger.record(number - 1, RowState.UNKNOWN, row.progress)
        return None

    def _add_settled(
        self,
        number: int,
        key: str | None,
        state: RowState,
        progress: Progress,
        try_render: Callable[[], Mail | None],
    ) -> None:
        outcome = _SETTLED_OUTCOMES[state]
        self._result.add_settled(number, outcome)
        if not self._result.is_line_missing(number, key, outcome):
            return
        mail = try_render()
        # The ledger does not name the recipients of a mail that all of them have.
        has_all = mail is not None and state is RowState.ACCEPTED
        self._result.restore_line(
            number,
            key,
            outcome,
            message_id=None if mail is None else mail.message_id,
            accepted=[address.address for address in mail.recipients] if mail and has_all else progress.accepted,
            rejected=progress.rejected,
        )

    def find_unreached(self, *, include_reported: bool) -> dict[int, bytes | None]:
        """Return the rows in doubt that this attempt did not reach: their numbers, with fingerprints if known.

        Args:
            include_reported: whether to include those that an earlier attempt has already reported.
        """
        return {
            row + 1: self._ledger.fingerprint(row)
            for row in sorted(self._unreached)
            if include_reported or self._ledger.is_open(row)
        }

    def record_failed(self, number: int, fingerprint: bytes, prior: PriorRow) -> None:
        """Record that a row cannot be turned into a mail, unless an earlier attempt may have delivered its mail."""
        if not prior.progress.accepted and not prior.is_in_doubt:
            self._ledger.record(number - 1, RowState.FAILED, fingerprint=fingerprint)

    def record_accepted(self, number: int, key: str, mail: Mail) -> None:
        """Record that every recipient of a row's mail has it."""
        self._ledger.record(number - 1, RowState.ACCEPTED)
        self._add_settled(number, key, RowState.ACCEPTED, NO_PROGRESS, lambda: mail)

    def check_row_count(self, number: int) -> None:
        """Check that there are at least as many rows as in earlier attempts.

        Args:
            number: the number of the last row; 0: there is none.

        Raises:
            LedgerError: there are fewer.
        """
        if number < self.rows_seen:
            raise rows_changed_error(f"there were at least {self.rows_seen}, and now there are {number}")
