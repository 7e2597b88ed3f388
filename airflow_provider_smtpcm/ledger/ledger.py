"""The ledger of a task: which rows may be on their way, and what became of the others.

Rows are reserved before they are sent, and their results recorded afterwards. A write to the state store takes longer
than sending many mails, so a thread writes: each write records all results that have come in, and reserves all rows
that the window has room for. Rows that were reserved but never recorded, because the process was killed, may have been
delivered; there are never more of them than the window.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from types import MappingProxyType
from typing import Any

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
    StateStore,
)
from airflow_provider_smtpcm.ledger.window import Window
from airflow_provider_smtpcm.smtp.cancellation import release_fully

# The key of the task's full result, which names recipients, and how long it is stored for an attempt that finds the
# task finished: Airflow makes such an attempt soon. A later one returns the summary in the head, which has no
# addresses.
_RESULT = "result"
RESULT_RETENTION = timedelta(days=1)
# Seconds between rewrites of the whole ledger; Airflow's retention counts in days.
_REWRITE_INTERVAL = 6 * 3600.0
_NO_ROWS: Mapping[int, Progress] = MappingProxyType({})
# Results are written after this many seconds at the latest, also where no further rows are reserved.
_RECORD_WITHIN = 1.0


@dataclass(frozen=True, slots=True)
class PriorRow:
    """What an earlier attempt left of a row."""

    state: RowState
    progress: Progress = NO_PROGRESS

    @property
    def is_in_doubt(self) -> bool:
        """Whether the mail may have been delivered without an answer."""
        return self.state in IN_DOUBT


#: The prior row of a row that no attempt has seen.
UNSEEN = PriorRow(RowState.UNSEEN)


@dataclass(slots=True, eq=False)
class Reservation:
    """Rows that may be sent once they are written: in order, as many as the window has room for."""

    rows: Sequence[tuple[int, bytes]]
    #: The recipient progress of rows that have any.
    progress: Mapping[int, Progress]
    #: How many of the rows are written, or are being written.
    taken: int = 0
    #: How many of the rows may be sent.
    written: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether all rows may be sent."""
        return self.written == len(self.rows)


@dataclass(slots=True)
class _Result:
    state: RowState
    progress: Progress
    fingerprint: bytes | None


class Ledger:
    """An open ledger. Finish it with `end` or `complete`, which also end its thread.

    Args:
        store: where it is stored.
        send_again: whether an attempt after one that failed for good sends all rows again, instead of the pending ones.
        window: how many rows may be in doubt after a crash; None: see `Window`.
        connections: how many mails are in flight at once; the window is never smaller.
        max_tries: the task instance's `max_tries`, which Airflow raises when the task is cleared, and only then; None:
            not known.
        cleared: how often the task was cleared, for a task whose ledger has expired.

    Raises:
        LedgerError: it cannot be read.
    """

    def __init__(
        self,
        store: StateStore,
        *,
        send_again: bool = False,
        window: int | None = None,
        connections: int = 1,
        max_tries: int | None = None,
        cleared: int = 0,
    ) -> None:
        self._store = LedgerStore(store)
        self._window = Window(window, connections)
        self._blocks: dict[int, Block] = {}
        self._open: set[int] = set()
        self._results: dict[int, _Result] = {}
        # How many rows of `_results` are in `_open`.
        self._closing = 0
        self._first_result_at = 0.0
        self._wanted: Reservation | None = None
        self._is_stopping = False
        self._failure: LedgerError | None = None
        #: Called by the writing thread after each write, and when it cannot write any more.
        self.on_write: Callable[[], None] = lambda: None
        self._changed = threading.Condition()
        self._writer: threading.Thread | None = None  # where there is something to write
        head = self._store.read_head()
        run_state = RunState(head.get("standing", RunState.OPEN))
        self._max_tries = max_tries
        #: How often everything was started again on purpose; part of the Message-IDs.
        self.generation: int = head.get("generation", cleared)
        #: The result of an earlier attempt that succeeded and died before it could tell Airflow; nothing is sent then.
        self.finished_result: dict[str, Any] | None = None
        self._result: Mapping[str, Any] | None = None
        self._rewritten_at = time.monotonic()
        if max_tries is not None and head.get("max_tries") == max_tries:
            # The task was not cleared: an attempt ended, and died before it could tell Airflow.
            if run_state is RunState.CLOSED and "done" in head:
                self._store.generation = self.generation
                self.finished_result = self.stored_result() or head["done"]
                return
            run_state = RunState.OPEN
        #: Whether this attempt continues an earlier one.
        self.is_resumed = bool(head)
        if run_state is RunState.CLOSED or (run_state is RunState.ENDED and send_again):
            self.generation += 1
            self.is_resumed = False
        self._store.generation = self.generation
        #: The rows that an earlier attempt may have delivered, each with its recipient progress.
        self.rows_in_doubt: dict[int, Progress] = {}
        if self.is_resumed:
            self._blocks = self._store.read_blocks(head.get("blocks", 0))
            for number, block in self._blocks.items():
                self.rows_in_doubt.update(
                    (number * BLOCK_ROWS + at, progress) for at, progress in block.rows_in_doubt().items()
                )
            if run_state is RunState.ENDED:
                self._reset_refusals()
        self._rewrite()
        if head and not self.is_resumed:
            self._store.delete_blocks(head["generation"], head.get("blocks", 0))
        # Last, so that an interruption before it leaves no thread that no one can end.
        self._writer = threading.Thread(target=self._write, name="smtpcm-ledger", daemon=True)
        self._writer.start()

    # --- Earlier attempts

    @property
    def rows_seen(self) -> int:
        """How many rows earlier attempts have reached, counted up to the last one."""
        return max((number * BLOCK_ROWS + len(block) for number, block in self._blocks.items()), default=0)

    @property
    def rows_pending(self) -> int:
        """How many of the rows seen this attempt is to send; those in `rows_in_doubt` are not among them."""
        states = [state.encode() for state in (RowState.AGAIN, RowState.FAILED, RowState.UNSEEN)]
        return sum(block.states.count(state) for block in self._blocks.values() for state in states)

    def prior(self, row: int, fingerprint: bytes) -> PriorRow | None:
        """Return what an earlier attempt left of a row; None: nothing.

        Args:
            row: its index, from 0.
            fingerprint: of the row that is there now.

        Raises:
            LedgerError: an earlier attempt met another row in this place.
        """
        block, at = self._blocks.get(row // BLOCK_ROWS), row % BLOCK_ROWS
        if block is None or at >= len(block) or block.state(at) is RowState.UNSEEN:
            return None
        state = block.state(at)
        # A row that reached no one may have been fixed, unless it is one of the other rows.
        is_same = block.fingerprint(at) == fingerprint[: block.width]
        if not is_same and (state is not RowState.FAILED or self._was_seen(fingerprint)):
            raise rows_changed_error(f"row {row + 1} is another one")
        return PriorRow(state, block.progress.get(at, NO_PROGRESS))

    def fingerprint(self, row: int) -> bytes | None:
        """Return the stored fingerprint of a row that an earlier attempt saw; None: format 1 stored too short a one."""
        block = self._blocks[row // BLOCK_ROWS]
        return block.fingerprint(row % BLOCK_ROWS) if block.width == FINGERPRINT_OCTETS else None

    def is_open(self, row: int) -> bool:
        """Whether a row that an earlier attempt saw was reserved and has no result."""
        return self._blocks[row // BLOCK_ROWS].state(row % BLOCK_ROWS) is RowState.OPEN

    def _was_seen(self, fingerprint: bytes) -> bool:
        """Whether an earlier attempt saw this row, in whatever place."""
        return any(_padded(fingerprint[:width]) in seen for width, seen in self._fingerprints.items())

    @cached_property
    def _fingerprints(self) -> Mapping[int, DigestSet]:
        """The fingerprints of all rows that earlier attempts saw, by their width."""
        fingerprints: dict[int, DigestSet] = {}
        for block in self._blocks.values():
            seen = fingerprints.setdefault(block.width, DigestSet())
            for at in range(len(block)):
                seen.add(_padded(block.fingerprint(at)))
        return fingerprints

    def stored_result(self) -> Any:
        """Return what `store_result` has stored in this generation; None: nothing."""
        return self._store.get(_RESULT)

    # --- This attempt

    def store_result(self, result: Mapping[str, Any]) -> None:
        """Store the task's result at once, for `RESULT_RETENTION`.

        Raises:
            LedgerError: it cannot be written.
        """
        self._store.set(_RESULT, result, retention=RESULT_RETENTION)
        self._result = result

    @property
    def window(self) -> int:
        """How many rows may be open at once."""
        return self._window.rows

    @property
    def batch_rows(self) -> int:
        """How many rows to reserve together: while half a window is sent, the other half is written."""
        return max(1, self.window // 2)

    def reserve(self, rows: Sequence[tuple[int, bytes]], progress: Mapping[int, Progress] = _NO_ROWS) -> Reservation:
        """Have rows written as about to be sent; one reservation at a time, of at most `batch_rows` rows.

        They are written in order, as many as the window has room for; it may have shrunk since.

        Args:
            rows: the index of each row, with its fingerprint.
            progress: the recipient progress of rows that have any.
        """
        reservation = Reservation(rows, progress)
        with self._changed:
            assert self._wanted is None
            self._wanted = reservation
            self._changed.notify_all()
        return reservation

    def withdraw(self, reservation: Reservation) -> int:
        """Cancel the part of a reservation that is not written yet.

        Returns:
            How many of its rows are written, or are being written.
        """
        with self._changed:
            if self._wanted is reservation:
                self._wanted = None
            return reservation.taken

    def check(self) -> None:
        """Check that it can still be written.

        Raises:
            LedgerError: it cannot, so that nothing more may be sent.
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
            progress: the recipient progress, where some recipients lack the mail.
            fingerprint: of a row that was never reserved.
        """
        with self._changed:
            is_first = not self._results
            if is_first:
                self._first_result_at = time.monotonic()
            if row in self._open and row not in self._results:
                self._closing += 1
                self._window.closed()
            self._results[row] = _Result(state, progress, fingerprint)
            if is_first or self._has_room():  # waking the writer for each row would cost more than sending it
                self._changed.notify_all()

    def end(self, run_state: RunState) -> None:
        """Write all results, and how the attempt ended, where another attempt may need the rows.

        Args:
            run_state: `OPEN` if Airflow may retry the task, `ENDED` if not.

        Raises:
            LedgerError: it cannot be written.
        """
        self._flush()
        self._store.write_head(run_state, self._max_tries, len(self._blocks))

    def complete(self, result: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
        """Write that the task has succeeded, and delete its rows.

        Args:
            result: what the task returns, for an attempt that finds it finished.
            summary: the same without addresses, which is stored longer.

        Raises:
            LedgerError: it cannot be written.
        """
        self._flush()
        if result != self._result:
            self.store_result(result)
        self._store.write_head(RunState.CLOSED, self._max_tries, 0, summary)
        self._store.delete_blocks(self.generation, len(self._blocks))

    def _flush(self) -> None:
        release_fully(self._changed)
        with self._changed:
            self._wanted = None  # nothing more is sent
            self._is_stopping = True
            self._changed.notify_all()
        if self._writer is not None:
            self._writer.join()
        self.check()

    # --- The writing thread

    def _write(self) -> None:
        try:
            while True:
                with self._changed:
                    while not self._is_due():
                        self._changed.wait(self._seconds_until_due())
                    results, self._results = self._results, {}
                    self._open.difference_update(results)
                    self._closing = 0
                    self._window.measure()
                    reservation = self._wanted if self._has_room() else None
                    rows: Sequence[tuple[int, bytes]] = ()
                    if reservation is not None:
                        rows = reservation.rows[reservation.taken : reservation.taken + self.batch_rows]
                        self._open.update(row for row, _ in rows)
                        reservation.taken += len(rows)
                        if reservation.taken == len(reservation.rows):
                            self._wanted = None
                    is_stopping = self._is_stopping
                self._write_rows(results, rows, reservation.progress if reservation is not None else _NO_ROWS)
                if reservation is not None:
                    with self._changed:
                        reservation.written += len(rows)
                        self._window.opened(len(rows))
                self.on_write()
                if is_stopping:
                    return
        except LedgerError as error:
            self._failure = error
        except Exception as error:  # noqa: BLE001 - else the sending thread would wait forever
            self._failure = LedgerError(f"The ledger of this task cannot be written ({error!r}).")
        self.on_write()

    def _is_due(self) -> bool:
        if self._is_stopping or self._has_room():
            return True
        return bool(self._results) and time.monotonic() - self._first_result_at >= _RECORD_WITHIN

    def _has_room(self) -> bool:
        """Whether rows are to be reserved, and the window has room for them."""
        if self._wanted is None:
            return False
        staying_open = len(self._open) - self._closing
        # No more than the present batch size: the reservation may date from a time when the window was wider.
        next_rows = min(self.batch_rows, len(self._wanted.rows) - self._wanted.taken)
        return staying_open + next_rows <= self.window

    def _seconds_until_due(self) -> float | None:
        return max(0.0, self._first_result_at + _RECORD_WITHIN - time.monotonic()) if self._results else None

    def _write_rows(
        self, results: Mapping[int, _Result], rows: Sequence[tuple[int, bytes]], progress: Mapping[int, Progress]
    ) -> None:
        """Write the results first: if only one of two writes succeeds, no more rows are open than the window allows."""
        recorded: set[int] = set()
        for row, result in results.items():
            self._put(row, result.fingerprint, result.state, result.progress)
            recorded.add(row // BLOCK_ROWS)
        reserved: set[int] = set()
        for row, fingerprint in rows:
            self._put(row, fingerprint, RowState.OPEN, progress.get(row, NO_PROGRESS))
            reserved.add(row // BLOCK_ROWS)
        for number in (*sorted(recorded - reserved), *sorted(reserved)):
            self._store.write_block(number, self._blocks[number])
        if time.monotonic() - self._rewritten_at > _REWRITE_INTERVAL:
            self._rewrite()

    def _rewrite(self) -> None:
        """Write everything again, which postpones its expiry: no part may expire while the task is attempted.

        The head comes first, so that it is never the only part that is left.
        """
        self._store.write_head(RunState.OPEN, self._max_tries, len(self._blocks))
        for number, block in self._blocks.items():
            self._store.write_block(number, block)
        self._rewritten_at = time.monotonic()

    def _put(self, row: int, fingerprint: bytes | None, state: RowState, progress: Progress = NO_PROGRESS) -> None:
        block, at = self._blocks.setdefault(row // BLOCK_ROWS, Block()), row % BLOCK_ROWS
        block.put(at, block.fingerprint(at) if fingerprint is None else fingerprint, state, progress)

    def _reset_refusals(self) -> None:
        """Ask permanently refused recipients again: the task was cleared, so the cause may have been fixed.

        The blocks are written before the head, so that this holds until each of them was asked, however many attempts
        that takes: this one may end before.
        """
        for number, block in self._blocks.items():
            if block.reset_refusals():
                self._store.write_block(number, block)


def _padded(fingerprint: bytes) -> bytes:
    return fingerprint.ljust(DIGEST_OCTETS, b"\0")


def rows_changed_error(difference: str) -> LedgerError:
    """Return the error for rows that are not those of the earlier attempts.

    Args:
        difference: what differs, as a clause.
    """
    return LedgerError(
        f"The rows have changed since the previous attempt: {difference}. Nothing was sent for them.",
        remedy="Give it the rows that it started with; or clear the task with on_clear='send_again', or start a new "
        "run, which sends all rows. Where only some columns change between attempts, identify the rows by 'row_key'.",
    )
