"""The ledger of a task that sends one mail: its row is part of the head record, written by the thread that sends.

An attempt makes four requests to the state store: it reads the head record, writes it before the mail is sent, stores
the result, and writes the head record at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from airflow_provider_smtpcm.errors import LedgerError
from airflow_provider_smtpcm.ledger.ledger import Ledger, Reservation
from airflow_provider_smtpcm.ledger.record import NO_PROGRESS, Block, Progress, RowState, RunState


class SingleMailLedger(Ledger):
    """A ledger without a writing thread; the arguments are those of `Ledger`.

    Refusals that `Ledger` resets are written with the row, before it is sent.
    """

    def _begin(self, obsolete_generation: int, obsolete_blocks: int) -> None:
        self._store.delete_blocks(obsolete_generation, obsolete_blocks)
        # None until the row has a state.
        self._rows: Block | None = self._earlier_blocks.get(0)

    def reserve(self, rows: Sequence[tuple[int, bytes]], progress: Mapping[int, Progress] | None = None) -> Reservation:
        """Write the row as open.

        Args:
            rows: the row: its index, which is 0, with its fingerprint.
            progress: its recipient progress, if it has any.

        Raises:
            LedgerError: it cannot be written; the mail must not be sent.
        """
        [(row, fingerprint)] = rows
        before = None if self._rows is None else self._rows.to_json()
        try:
            self._put_row(fingerprint, RowState.OPEN, (progress or {}).get(row, NO_PROGRESS))
            self._write_row(RunState.UNFINISHED)
        except BaseException:  # a time limit, for example: `end` then writes that the mail was not sent
            self._rows = None if before is None else Block.from_json(before)
            raise
        return Reservation(rows, progress or {}, taken=1, written=1)

    def withdraw(self, reservation: Reservation) -> int:
        """Return how many rows of the reservation are written."""
        return reservation.taken

    def record(
        self, row: int, state: RowState, progress: Progress = NO_PROGRESS, *, fingerprint: bytes | None = None
    ) -> None:
        """Record the result of the row. It is written at once if the mail is to be retried, else by `end`.

        Args:
            row: its index, which is 0.
            state: the result.
            progress: the recipient progress, if some recipients lack the mail.
            fingerprint: the row's fingerprint; None: it is known from an earlier call.
        """
        if fingerprint is None:
            assert self._rows is not None, row
            fingerprint = self._rows.fingerprint(0)
        self._put_row(fingerprint, state, progress)
        if state is RowState.RETRY:
            try:
                self._write_row(RunState.UNFINISHED)
            except LedgerError as error:  # raised before anything else is sent
                self._failure = error

    def end(self, run_state: RunState) -> None:
        """Write the result and how the attempt ended; see `Ledger.end`."""
        self._write_row(run_state)

    def _put_row(self, fingerprint: bytes, state: RowState, progress: Progress) -> None:
        if self._rows is None:
            self._rows = Block()
        self._rows.put(0, fingerprint, state, progress)

    def _write_row(self, run_state: RunState) -> None:
        self._store.write_head(run_state, self._max_tries, 0, rows=self._rows)
