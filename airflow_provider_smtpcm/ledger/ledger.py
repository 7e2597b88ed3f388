"""The ledger of a task: the state of each row, written to Airflow's task state store before and after it is sent.

A row is reserved before it is sent, and its result is recorded afterward. If the process is killed, the rows that were
reserved and have no result may have been delivered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_smtpcm.errors import LedgerError
from airflow_provider_smtpcm.ledger.record import (
    BLOCK_ROWS,
    FINGERPRINT_OCTETS,
    IN_DOUBT,
    NO_PROGRESS,
    Block,
    LedgerStore,
    Progress,
    RowState,
    RunState,
)

if TYPE_CHECKING:
    from airflow_provider_smtpcm.ledger.record import StateStore

# The key of the task's full result.
_RESULT = "result"
#: How long the full result is stored: not long, since it contains addresses. An attempt that finds the task finished
#: returns it; or, once it has expired, the summary in the head record, which has no addresses.
RESULT_RETENTION = timedelta(days=1)
NO_ROW_PROGRESS: Mapping[int, Progress] = MappingProxyType({})


class PriorRow(NamedTuple):
    """The state and the recipient progress that an earlier attempt recorded for a row."""

    state: RowState
    progress: Progress = NO_PROGRESS

    @property
    def is_in_doubt(self) -> bool:
        """Whether the mail may have been delivered although no reply came."""
        return self.state in IN_DOUBT


#: For a row that no attempt has reached.
UNSEEN = PriorRow(RowState.UNSEEN)


class Reservation:
    """Rows to record as `RowState.OPEN`, in this order; each may be sent once that is written."""

    __slots__ = ("progress", "rows", "taken", "written")

    def __init__(
        self, rows: Sequence[tuple[int, bytes]], progress: Mapping[int, Progress], *, taken: int = 0, written: int = 0
    ) -> None:
        #: The index of each row, with its fingerprint.
        self.rows = rows
        #: The recipient progress of rows that have any.
        self.progress = progress
        #: How many of the rows are written, or are being written.
        self.taken = taken
        #: How many of the rows may be sent.
        self.written = written

    @property
    def is_complete(self) -> bool:
        """Whether all rows may be sent."""
        return self.written == len(self.rows)


class Ledger(ABC):
    """The ledger of one task: what earlier attempts recorded, and the record of this one.

    At the end of an attempt, call `end` or `complete`.

    Args:
        store: Airflow's task state store.
        send_again: whether a task that was cleared after it failed for good sends all rows again, or only the pending
            ones.
        max_tries: the task instance's `max_tries`, which Airflow increases only when the task is cleared; None: not
            known.
        times_cleared: how many times the task was cleared: the first generation of a ledger that is new or has expired.

    Raises:
        LedgerError: the ledger cannot be read. If it cannot be written, `raise_if_failed` raises.
    """

    #: How many rows to reserve at once.
    batch_rows = 1

    def __init__(
        self,
        store: StateStore,
        *,
        send_again: bool = False,
        max_tries: int | None = None,
        times_cleared: int = 0,
    ) -> None:
        self._store = LedgerStore(store)
        # The blocks that earlier attempts have written.
        self._earlier_blocks: dict[int, Block] = {}
        # How many blocks there are.
        self._block_count = 0
        self._failure: LedgerError | None = None
        #: Called by the writing thread after each write, and when writing has failed for good.
        self.on_write: Callable[[], None] = lambda: None
        head = self._store.read_head()
        run_state = RunState(head.get("standing", RunState.UNFINISHED))
        self._max_tries = max_tries
        #: How many times everything was deliberately sent again. Part of the Message-IDs, since a server may drop mail
        #: whose Message-ID it knows.
        self.generation: int = head.get("generation", times_cleared)
        #: The result of an earlier attempt that succeeded, if it ended before Airflow recorded the success; then
        #: nothing is sent.
        self.finished_result: dict[str, Any] | None = None
        self._result: Mapping[str, Any] | None = None
        if max_tries is not None and head.get("max_tries") == max_tries:
            # The task was not cleared: the earlier attempt ended before Airflow recorded its end.
            if run_state is RunState.SUCCEEDED and "done" in head:
                self._store.generation = self.generation
                self.finished_result = self.stored_result() or head["done"]
                return
            run_state = RunState.UNFINISHED
        #: Whether this attempt continues an earlier one.
        self.is_resumed = bool(head)
        if run_state is RunState.SUCCEEDED or (run_state is RunState.FAILED and send_again):
            self.generation += 1
            self.is_resumed = False
        self._store.generation = self.generation
        #: The rows whose mail an earlier attempt may have delivered, each with its recipient progress.
        self.rows_in_doubt: dict[int, Progress] = {}
        if self.is_resumed:
            self._earlier_blocks = self._store.read_blocks(head)
            self._block_count = len(self._earlier_blocks)
            for number, block in self._earlier_blocks.items():
                self.rows_in_doubt.update(
                    (number * BLOCK_ROWS + position, progress) for position, progress in block.rows_in_doubt().items()
                )
            if run_state is RunState.FAILED:
                self._reset_refusals()
        # The generation that this one replaces, and how many blocks it has.
        obsolete = (head["generation"], head.get("blocks", 0)) if head and not self.is_resumed else (0, 0)
        self._begin(*obsolete)  # last: an exception in the constructor would leave a thread that the caller cannot end

    @abstractmethod
    def _begin(self, obsolete_generation: int, obsolete_blocks: int) -> None:
        """Begin to write this generation, and delete the obsolete blocks."""

    def _reset_refusals(self) -> None:
        """Make permanently refused recipients pending: the task was cleared, so the cause may have been fixed."""
        for block in self._earlier_blocks.values():
            block.reset_refusals()

    # --- Earlier attempts

    @property
    def rows_seen(self) -> int:
        """How many rows earlier attempts have reached: the index of the last one, plus 1."""
        return max((number * BLOCK_ROWS + len(block) for number, block in self._earlier_blocks.items()), default=0)

    @property
    def rows_pending(self) -> int:
        """How many of the rows seen are pending; those in `rows_in_doubt` are not counted."""
        states = [state.encode() for state in (RowState.RETRY, RowState.FAILED, RowState.UNSEEN)]
        return sum(block.states.count(state) for block in self._earlier_blocks.values() for state in states)

    @property
    def may_have_arrived(self) -> bool:
        """Whether an earlier attempt delivered mail to a recipient, or may have."""
        sent = (RowState.ACCEPTED, RowState.PARTIAL, *IN_DOUBT)
        return self.finished_result is not None or any(
            any(state.encode() in block.states for state in sent)
            or any(progress.accepted for progress in block.progress.values())
            for block in self._earlier_blocks.values()
        )

    def prior(self, row: int, fingerprint: bytes) -> PriorRow | None:
        """Return what an earlier attempt recorded for a row; None if it recorded nothing.

        Args:
            row: its index, from 0.
            fingerprint: the fingerprint of the row that has this index now.

        Raises:
            LedgerError: an earlier attempt had a different row at this index.
        """
        block, position = self._earlier_blocks.get(row // BLOCK_ROWS), row % BLOCK_ROWS
        if block is None or position >= len(block) or block.state(position) is RowState.UNSEEN:
            return None
        state = block.state(position)
        # A row whose mail reached no one may differ, since it may have been fixed; but if the new content was seen at
        # another index, the rows have moved.
        is_same = block.fingerprint(position) == fingerprint[: block.width]
        if not is_same and (state is not RowState.FAILED or self._was_seen(fingerprint)):
            raise rows_changed_error(f"row {row + 1} is a different one")
        return PriorRow(state, block.progress.get(position, NO_PROGRESS))

    def fingerprint(self, row: int) -> bytes | None:
        """Return the fingerprint of a row that an earlier attempt reached; None if it has a short one (format 1)."""
        block = self._earlier_blocks[row // BLOCK_ROWS]
        return block.fingerprint(row % BLOCK_ROWS) if block.width == FINGERPRINT_OCTETS else None

    def is_open(self, row: int) -> bool:
        """Whether a row that an earlier attempt reached was reserved and has no result."""
        return self._earlier_blocks[row // BLOCK_ROWS].state(row % BLOCK_ROWS) is RowState.OPEN

    def _was_seen(self, fingerprint: bytes) -> bool:  # noqa: ARG002
        """Whether an earlier attempt reached this row, at any index. A task with one mail has no other row."""
        return False

    def stored_result(self) -> Any:
        """Return the result that `store_result` stored in this generation; None if there is none, or it has expired."""
        return self._store.get(_RESULT)

    # --- This attempt

    def store_result(self, result: Mapping[str, Any]) -> None:
        """Store the task's full result for `RESULT_RETENTION`, at once.

        Raises:
            LedgerError: it cannot be written.
        """
        self._store.set(_RESULT, result, retention=RESULT_RETENTION)
        self._result = result

    @abstractmethod
    def reserve(
        self, rows: Sequence[tuple[int, bytes]], progress: Mapping[int, Progress] = NO_ROW_PROGRESS
    ) -> Reservation:
        """Have rows written as open. Only one reservation may be pending.

        Args:
            rows: at most `batch_rows` rows: the index of each, with its fingerprint.
            progress: the recipient progress of rows that have any.
        """

    @abstractmethod
    def withdraw(self, reservation: Reservation) -> int:
        """Cancel the rows of a reservation that are not being written yet.

        Returns:
            How many of its rows are written, or are being written.
        """

    def raise_if_failed(self) -> None:
        """Raise the error with which writing failed, if it did: then nothing more may be sent.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        if self._failure is not None:
            raise self._failure

    @abstractmethod
    def record(
        self, row: int, state: RowState, progress: Progress = NO_PROGRESS, *, fingerprint: bytes | None = None
    ) -> None:
        """Record the result of a row.

        Args:
            row: its index, from 0.
            state: the result.
            progress: the recipient progress, if some recipients lack the mail.
            fingerprint: the row's fingerprint; None: it was stored when the row was reserved.
        """

    @abstractmethod
    def end(self, run_state: RunState) -> None:
        """Write all results and how the attempt ended, and keep the rows for the next attempt.

        Args:
            run_state: `UNFINISHED` if Airflow may retry the task, `FAILED` if not.

        Raises:
            LedgerError: it cannot be written.
        """

    def complete(self, result: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
        """Write that the task succeeded, and delete its rows.

        Args:
            result: what the task returns.
            summary: the same without addresses, which is stored longer than `RESULT_RETENTION`.

        Raises:
            LedgerError: it cannot be written.
        """
        if result != self._result:
            self.store_result(result)
        self._store.write_head(RunState.SUCCEEDED, self._max_tries, 0, summary)
        self._store.delete_blocks(self.generation, self._block_count)


class SingleMailLedger(Ledger):
    """The ledger of a task that sends one mail: its row is part of the head record, written by the thread that sends.

    The arguments are those of `Ledger`. An attempt makes four requests to the state store: it reads the head record,
    writes it before the mail is sent, stores the result, and writes the head record at the end. Refusals that `Ledger`
    resets are written with the row, before it is sent.
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


def rows_changed_error(difference: str) -> LedgerError:
    """Return the error for rows that differ from those of the earlier attempts.

    Args:
        difference: a clause that names what differs.
    """
    return LedgerError(
        f"The rows have changed since the previous attempt: {difference}. The changed rows were not sent.",
        remedy="Pass the same rows again; or send all rows: start a new run, or set on_clear='send_again' and clear "
        "the task. If only some columns change between attempts, identify the rows by 'row_key'.",
    )
