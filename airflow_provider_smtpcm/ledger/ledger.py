"""The ledger of a task: the state of each row, written to Airflow's task state store before and after it is sent.

A row is reserved before it is sent, and its result is recorded afterwards. One write to the state store takes longer
than sending many mails, so a thread writes: each write records all results that have come in and reserves all rows that
the window has room for. If the process is killed, the rows that were reserved and have no result may have been
delivered; there are never more of them than the window.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from airflow_provider_smtpcm.errors import LedgerError
from airflow_provider_smtpcm.ledger.record import (
    BLOCK_ROWS,
    DIGEST_OCTETS,
    FINGERPRINT_OCTETS,
    IN_DOUBT,
    NO_PROGRESS,
    Block,
    DigestSet,
    LedgerStore,
    Progress,
    RowState,
    RunState,
)
from airflow_provider_smtpcm.ledger.window import Window
from airflow_provider_smtpcm.smtp.cancellation import release_fully

if TYPE_CHECKING:
    from airflow_provider_smtpcm.ledger.record import StateStore

# The key of the task's full result.
_RESULT = "result"
#: How long the full result is stored: not long, since it contains addresses. An attempt that finds the task finished
#: returns it; or, once it has expired, the summary in the head record, which has no addresses.
RESULT_RETENTION = timedelta(days=1)
# Seconds between renewals of the whole ledger; Airflow's retention counts in days.
_RENEWAL_INTERVAL = 6 * 3600.0
_NO_ROW_PROGRESS: Mapping[int, Progress] = MappingProxyType({})
# Results are written within this many seconds, even if no further rows are reserved.
_RECORD_WITHIN = 1.0
# How many writes the average of their time is over.
_AVERAGED_WRITES = 4
# Blocks of this attempt that are kept in memory; any other is read again if one of its rows is retried.
_CACHED_BLOCKS = 8


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


class _RowResult:
    __slots__ = ("fingerprint", "progress", "state")

    def __init__(self, state: RowState, progress: Progress, fingerprint: bytes | None) -> None:
        self.state = state
        self.progress = progress
        self.fingerprint = fingerprint


class Ledger:
    """The ledger of one task. `end` or `complete` writes the remaining results and stops the writing thread.

    Args:
        store: Airflow's task state store.
        send_again: whether a task that was cleared after it failed for good sends all rows again, or only the pending
            ones.
        window: how many rows may be in doubt after a crash; None: see `Window`.
        connections: how many mails are in flight at once; the window is never smaller.
        max_tries: the task instance's `max_tries`, which Airflow increases only when the task is cleared; None: not
            known.
        times_cleared: how often the task was cleared; a ledger that is new or has expired starts with this generation.

    Raises:
        LedgerError: the ledger cannot be read. If it cannot be written, `raise_if_failed` raises.
    """

    def __init__(
        self,
        store: StateStore,
        *,
        send_again: bool = False,
        window: int | None = None,
        connections: int = 1,
        max_tries: int | None = None,
        times_cleared: int = 0,
    ) -> None:
        self._store = LedgerStore(store)
        self._window = Window(window, connections)
        self._connections = connections
        # How long a write takes: a moving average.
        self._write_seconds = 0.0
        #: How many rows to reserve at once.
        self.batch_rows = self._window.rows
        # The blocks that earlier attempts have written, and the latest others, which are all written too.
        self._earlier_blocks: dict[int, Block] = {}
        self._recent_blocks: dict[int, Block] = {}
        # How many blocks there are.
        self._block_count = 0
        # The numbers of the blocks to write again, so that they do not expire; when this was last begun.
        self._renewals: deque[int] = deque()
        self._renewed_at = 0.0
        self._open: set[int] = set()
        self._results: dict[int, _RowResult] = {}
        # How many rows of `_open` have a result in `_results`.
        self._open_with_result = 0
        self._first_result_at = 0.0
        self._reservation: Reservation | None = None
        self._is_stopping = False
        self._failure: LedgerError | None = None
        #: Called by the writing thread after each write, and when it fails for good.
        self.on_write: Callable[[], None] = lambda: None
        self._changed = threading.Condition()
        self._writer: threading.Thread | None = None  # None: the task is finished, and nothing is written
        head = self._store.read_head()
        run_state = RunState(head.get("standing", RunState.UNFINISHED))
        self._max_tries = max_tries
        #: How often everything was deliberately sent again. Part of the Message-IDs, since a server may drop mail whose
        #: Message-ID it knows.
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

    def _begin(self, obsolete_generation: int, obsolete_blocks: int) -> None:
        """Start the writing thread, which first deletes the obsolete blocks."""
        self._writer = threading.Thread(
            target=self._write, args=(obsolete_generation, obsolete_blocks), name="smtpcm-ledger", daemon=True
        )
        self._writer.start()

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

    def _was_seen(self, fingerprint: bytes) -> bool:
        """Whether an earlier attempt reached this row, at any index."""
        return any(_pad(fingerprint[:width]) in seen for width, seen in self._fingerprints.items())

    @cached_property
    def _fingerprints(self) -> Mapping[int, DigestSet]:
        """The fingerprints of all rows that earlier attempts reached, by their width."""
        fingerprints: dict[int, DigestSet] = {}
        for block in self._earlier_blocks.values():
            seen = fingerprints.setdefault(block.width, DigestSet())
            for position in range(len(block)):
                seen.add(_pad(block.fingerprint(position)))
        return fingerprints

    def stored_result(self) -> Any:
        """Return the result that `store_result` stored in this generation; None if there is none, or it has expired."""
        return self._store.get(_RESULT)

    # --- This attempt

    def store_result(self, result: Mapping[str, Any]) -> None:
        """Store the task's full result for `RESULT_RETENTION`, without waiting for the thread.

        Raises:
            LedgerError: it cannot be written.
        """
        self._store.set(_RESULT, result, retention=RESULT_RETENTION)
        self._result = result

    @property
    def window(self) -> int:
        """How many rows may be open at once."""
        return self._window.rows

    def reserve(
        self, rows: Sequence[tuple[int, bytes]], progress: Mapping[int, Progress] = _NO_ROW_PROGRESS
    ) -> Reservation:
        """Have the thread write rows as open. Only one reservation may be pending.

        The rows are written in order, as soon as the window has room for them.

        Args:
            rows: at most `batch_rows` rows: the index of each, with its fingerprint.
            progress: the recipient progress of rows that have any.
        """
        reservation = Reservation(rows, progress)
        with self._changed:
            assert self._reservation is None
            self._reservation = reservation
            self._changed.notify_all()
        return reservation

    def withdraw(self, reservation: Reservation) -> int:
        """Cancel the rows of a reservation that are not being written yet.

        Returns:
            How many of its rows are written, or are being written.
        """
        with self._changed:
            if self._reservation is reservation:
                self._reservation = None
            return reservation.taken

    def raise_if_failed(self) -> None:
        """Raise the error of the writing thread, if it failed: then nothing more may be sent.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        if self._failure is not None:
            raise self._failure

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
        with self._changed:
            is_first = not self._results
            if is_first:
                self._first_result_at = time.monotonic()
            if row in self._open and row not in self._results:
                self._open_with_result += 1
                self._window.on_row_closed()
            self._results[row] = _RowResult(state, progress, fingerprint)
            if is_first or self._has_room():  # waking the thread for each row would cost more than sending it
                self._changed.notify_all()

    def end(self, run_state: RunState) -> None:
        """Write all results and how the attempt ended, and keep the rows for the next attempt.

        Args:
            run_state: `UNFINISHED` if Airflow may retry the task, `FAILED` if not.

        Raises:
            LedgerError: it cannot be written.
        """
        self._flush()
        self._store.write_head(run_state, self._max_tries, self._block_count)

    def complete(self, result: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
        """Write that the task succeeded, and delete its rows.

        Args:
            result: what the task returns.
            summary: the same without addresses, which is stored longer than `RESULT_RETENTION`.

        Raises:
            LedgerError: it cannot be written.
        """
        self._renewals.clear()  # the blocks are about to be deleted
        self._flush()
        if result != self._result:
            self.store_result(result)
        self._store.write_head(RunState.SUCCEEDED, self._max_tries, 0, summary)
        self._store.delete_blocks(self.generation, self._block_count)

    def _flush(self) -> None:
        release_fully(self._changed)
        with self._changed:
            self._reservation = None  # no further row is sent
            self._is_stopping = True
            self._changed.notify_all()
        if self._writer is not None:
            self._writer.join()
        self.raise_if_failed()

    # --- The writing thread

    def _write(self, obsolete_generation: int, obsolete_blocks: int) -> None:
        try:
            self._begin_renewal()
            self._store.delete_blocks(obsolete_generation, obsolete_blocks)
            while self._write_next():
                pass
            while self._renewals:
                self._renew_next()
        except LedgerError as error:
            self._failure = error
        except Exception as error:  # noqa: BLE001 - otherwise the sending thread would wait forever
            self._failure = LedgerError(f"The ledger of this task cannot be written ({type(error).__name__}: {error}).")
        self.on_write()

    def _write_next(self) -> bool:
        """Wait until there is something to write, and write it; return False at the end."""
        with self._changed:
            while not (is_due := self._is_due()) and not self._renewals:
                self._changed.wait(self._seconds_until_due())
            results: Mapping[int, _RowResult] = {}
            reservation, rows = None, cast("Sequence[tuple[int, bytes]]", ())
            if is_due:
                results, self._results = self._results, {}
                self._open.difference_update(results)
                self._open_with_result = 0
                self._window.measure()
                reservation = self._reservation if self._has_room() else None
            if reservation is not None:
                rows = reservation.rows[reservation.taken : reservation.taken + self.window - len(self._open)]
                self._open.update(row for row, _ in rows)
                reservation.taken += len(rows)
                if reservation.taken == len(reservation.rows):
                    self._reservation = None
                self.batch_rows = self._next_batch_rows()
            is_stopping = self._is_stopping
        began = time.monotonic()
        self._write_rows(results, rows, reservation.progress if reservation is not None else _NO_ROW_PROGRESS)
        if reservation is not None:
            self._write_seconds += (time.monotonic() - began - self._write_seconds) / _AVERAGED_WRITES
            with self._changed:
                reservation.written += len(rows)
                self._window.on_rows_opened(len(rows))
        if is_due:
            self.on_write()
        if time.monotonic() - self._renewed_at > _RENEWAL_INTERVAL:
            self._begin_renewal()
        elif self._renewals:  # one at a time, since rows may wait
            self._renew_next()
        return not is_stopping

    def _next_batch_rows(self) -> int:
        """Return the window less the rows that are sent while a write takes; at least half a window.

        So the sessions need not wait for the store, and there are as few writes as that allows.
        """
        sent_meanwhile = math.ceil(self._window.rate * self._write_seconds)
        return max(1, self.window // 2, self.window - 2 * self._connections - sent_meanwhile)

    def _is_due(self) -> bool:
        if self._is_stopping or self._has_room():
            return True
        return bool(self._results) and time.monotonic() - self._first_result_at >= _RECORD_WITHIN

    def _has_room(self) -> bool:
        """Whether a reservation is pending, and the window has room for its next rows."""
        if self._reservation is None:
            return False
        still_open = len(self._open) - self._open_with_result
        # The window may have shrunk since the reservation was made. No session is to wait for the last rows of it.
        most = max(1, self.window // 2, self.window - 2 * self._connections)
        next_rows = min(most, len(self._reservation.rows) - self._reservation.taken)
        return still_open + next_rows <= self.window

    def _seconds_until_due(self) -> float | None:
        return max(0.0, self._first_result_at + _RECORD_WITHIN - time.monotonic()) if self._results else None

    def _write_rows(
        self, results: Mapping[int, _RowResult], rows: Sequence[tuple[int, bytes]], progress: Mapping[int, Progress]
    ) -> None:
        """Write the results before the reservations: if only the first write succeeds, the window is not exceeded."""
        recorded: dict[int, Block] = {}
        for row, result in results.items():
            self._put(recorded, row, result.fingerprint, result.state, result.progress)
        reserved: dict[int, Block] = {}
        for row, fingerprint in rows:
            self._put(reserved, row, fingerprint, RowState.OPEN, progress.get(row, NO_PROGRESS))
        for number in (*sorted(recorded.keys() - reserved), *sorted(reserved)):
            self._store.write_block(number, reserved.get(number) or recorded[number])
        while len(self._recent_blocks) > _CACHED_BLOCKS:
            del self._recent_blocks[next(iter(self._recent_blocks))]

    def _put(
        self,
        blocks: dict[int, Block],
        row: int,
        fingerprint: bytes | None,
        state: RowState,
        progress: Progress = NO_PROGRESS,
    ) -> None:
        """Write a row to its block, and add the block to `blocks`."""
        number, position = divmod(row, BLOCK_ROWS)
        block = blocks.get(number)
        if block is None:
            block = blocks[number] = self._load_block(number)
        block.put(position, block.fingerprint(position) if fingerprint is None else fingerprint, state, progress)

    def _load_block(self, number: int) -> Block:
        if number in self._earlier_blocks:
            return self._earlier_blocks[number]
        block = self._recent_blocks.pop(number, None)
        if block is None and number < self._block_count:
            block = self._store.read_block(number)
        elif block is None:
            block = Block()
            for missing in range(self._block_count, number):  # none of their rows is reserved yet
                self._store.write_block(missing, block)
            self._block_count = number + 1
        self._recent_blocks[number] = block  # last: the first ones are forgotten first
        return block

    def _begin_renewal(self) -> None:
        """Write everything again, bit by bit, to postpone its expiry: no part may expire while an attempt runs.

        The head record is written first, so that it expires first: if it outlived the blocks, it would look like a
        ledger without rows.
        """
        self._store.write_head(RunState.UNFINISHED, self._max_tries, self._block_count)
        self._renewals.extend(range(self._block_count))
        self._renewed_at = time.monotonic()

    def _renew_next(self) -> None:
        try:
            number = self._renewals.popleft()
        except IndexError:  # the task has succeeded meanwhile
            return
        block = self._earlier_blocks.get(number) or self._recent_blocks.get(number) or self._store.read_block(number)
        self._store.write_block(number, block)

    def _reset_refusals(self) -> None:
        """Make permanently refused recipients pending: the task was cleared, so the cause may have been fixed.

        The blocks are written before the head record says `UNFINISHED`: an interruption in between repeats this in the
        next attempt instead of losing it.
        """
        for number, block in self._earlier_blocks.items():
            if block.reset_refusals():
                self._store.write_block(number, block)


def _pad(fingerprint: bytes) -> bytes:
    """Pad a fingerprint to the length that a `DigestSet` takes."""
    return fingerprint.ljust(DIGEST_OCTETS, b"\0")


def rows_changed_error(difference: str) -> LedgerError:
    """Return the error for rows that differ from those of the earlier attempts.

    Args:
        difference: a clause that names what differs.
    """
    return LedgerError(
        f"The rows have changed since the previous attempt: {difference}. The changed rows were not sent.",
        remedy="Pass the same rows again; or send all rows, by a new run or by clearing the task with "
        "on_clear='send_again'. If only some columns change between attempts, identify the rows by 'row_key'.",
    )
