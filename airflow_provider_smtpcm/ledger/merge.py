"""The ledger of a mail merge, written by a background thread; its window; and `DigestSet`, a set in a temporary file.

The window is the maximum number of rows that are reserved and have no result. If the process is killed, these rows may
have been delivered. One write to the state store takes longer than sending many mails, so each write records all
results that have come in, and reserves all rows that the window has room for.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast
from weakref import finalize

from airflow_provider_smtpcm.errors import LedgerError, MailError
from airflow_provider_smtpcm.ledger.ledger import NO_ROW_PROGRESS, Ledger, Reservation
from airflow_provider_smtpcm.ledger.record import BLOCK_ROWS, NO_PROGRESS, Block, Progress, RowState, RunState
from airflow_provider_smtpcm.smtp.cancellation import release_fully

if TYPE_CHECKING:
    from airflow_provider_smtpcm.ledger.record import StateStore

#: The window is the number of rows that are sent in `WINDOW_SECONDS`, but at most `LARGEST_WINDOW` rows.
LARGEST_WINDOW, WINDOW_SECONDS = 384, 0.25
# Time constant (s) of the measured rate: after this much time spent sending, a result has a weight of 1/e.
_DECAY_SECONDS = 1.0
# Seconds between renewals of the whole ledger; Airflow's retention counts in days.
_RENEWAL_INTERVAL = 6 * 3600.0
# Results are written within this many seconds, even if no further rows are reserved.
_RECORD_WITHIN = 1.0
# In the moving average of the duration of a write, the latest write has a weight of 1 / `_AVERAGED_WRITES`.
_AVERAGED_WRITES = 4
# Blocks of this attempt that are kept in memory; any other is read again if one of its rows is retried.
_CACHED_BLOCKS = 8
#: Octets of each digest that are kept; a digest has at least this many.
DIGEST_OCTETS = 12
# KiB of a `DigestSet` that are kept in memory.
_CACHE_KIB = 256
# Where SQLite puts a temporary file if no variable names a folder (https://www.sqlite.org/tempfiles.html).
_DEFAULT_FOLDERS = ("/var/tmp", "/usr/tmp", "/tmp", ".")  # noqa: S108 - named in an error only

# The state of a row, its recipient progress, and its fingerprint; None: it was stored when the row was reserved.
_RowResult = tuple[RowState, Progress, bytes | None]


class MergeLedger(Ledger):
    """The ledger of a merge. `end` or `complete` writes the remaining results and stops the writing thread.

    Args:
        store: Airflow's task state store.
        window: how many rows may be in doubt after a crash; None: adapted to the rate of the results.
        connections: how many mails are in flight at once; the window is never smaller.
        send_again, max_tries, times_cleared: as in `Ledger`.

    Raises:
        LedgerError: the ledger cannot be read. If it cannot be written, `raise_if_failed` raises.
    """

    def __init__(
        self,
        store: StateStore,
        *,
        window: int | None = None,
        connections: int = 1,
        send_again: bool = False,
        max_tries: int | None = None,
        times_cleared: int = 0,
    ) -> None:
        self._window = Window(window, connections)
        self.batch_rows = self._window.rows
        self._connections = connections
        # The average duration of a write.
        self._write_seconds = 0.0
        # A write-through cache of the latest blocks of this attempt.
        self._recent_blocks: dict[int, Block] = {}
        # The numbers of the blocks to write again, so that they do not expire.
        self._renewals: deque[int] = deque()
        # When (`time.monotonic`) the last renewal began.
        self._renewed_at = 0.0
        # The rows that are reserved, and whose result the thread has not begun to write.
        self._open: set[int] = set()
        self._results: dict[int, _RowResult] = {}
        # How many rows of `_open` have a result in `_results`.
        self._open_with_result = 0
        self._first_result_at = 0.0
        self._reservation: Reservation | None = None
        self._is_stopping = False
        # `record` enters the lock itself, which is faster: `Condition.__enter__` is written in Python.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._writer: threading.Thread | None = None  # None: the task is finished, and nothing is written
        super().__init__(store, send_again=send_again, max_tries=max_tries, times_cleared=times_cleared)

    def _begin(self, obsolete_generation: int, obsolete_blocks: int) -> None:
        """Start the writing thread, which first deletes the obsolete blocks."""
        self._writer = threading.Thread(
            target=self._write, args=(obsolete_generation, obsolete_blocks), name="smtpcm-ledger", daemon=True
        )
        self._writer.start()

    def _was_seen(self, fingerprint: bytes) -> bool:
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

    @property
    def window(self) -> int:
        """How many rows may be open at once."""
        return self._window.rows

    def reserve(
        self, rows: Sequence[tuple[int, bytes]], progress: Mapping[int, Progress] = NO_ROW_PROGRESS
    ) -> Reservation:
        """Have the thread write rows as open, in order, as soon as the window has room; see `Ledger.reserve`."""
        reservation = Reservation(rows, progress)
        with self._changed:
            assert self._reservation is None
            self._reservation = reservation
            self._changed.notify_all()
        return reservation

    def withdraw(self, reservation: Reservation) -> int:
        """Cancel the rows of a reservation that are not being written yet; see `Ledger.withdraw`."""
        with self._changed:
            if self._reservation is reservation:
                self._reservation = None
            return reservation.taken

    def record(
        self, row: int, state: RowState, progress: Progress = NO_PROGRESS, *, fingerprint: bytes | None = None
    ) -> None:
        """Have the thread write the result of a row; see `Ledger.record`."""
        with self._lock:
            is_first = not self._results
            if is_first:
                self._first_result_at = time.monotonic()
            if row in self._open and row not in self._results:
                self._open_with_result += 1
                self._window.on_row_closed()
            self._results[row] = state, progress, fingerprint
            if is_first or self._has_room():  # waking the thread for each row would cost more than sending it
                self._changed.notify_all()

    def end(self, run_state: RunState) -> None:
        """Write all results and how the attempt ended; see `Ledger.end`."""
        self._flush()
        self._store.write_head(run_state, self._max_tries, self._block_count)

    def complete(self, result: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
        """Write all results, and that the task succeeded; see `Ledger.complete`."""
        self._renewals.clear()  # the blocks are about to be deleted
        self._flush()
        super().complete(result, summary)

    def _flush(self) -> None:
        release_fully(self._lock)
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
        self._write_rows(results, rows, reservation.progress if reservation is not None else NO_ROW_PROGRESS)
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
        """Return how many rows to reserve with the next write: as many as possible without making the sessions wait.

        They need not wait if the window also has room for the rows that are sent during the write and for two rows per
        connection. If sending the whole window takes less time than a write, they wait anyway, so room is kept only
        for the two rows per connection. The result is at least half a window.
        """
        sent_meanwhile = math.ceil(self._window.rate * self._write_seconds)
        most = self.window - 2 * self._connections
        return max(1, self.window // 2, most if sent_meanwhile >= self.window else most - sent_meanwhile)

    def _is_due(self) -> bool:
        if self._is_stopping or self._has_room():
            return True
        return bool(self._results) and time.monotonic() - self._first_result_at >= _RECORD_WITHIN

    def _has_room(self) -> bool:
        """Whether a reservation is pending, and the window has room for its next rows."""
        if self._reservation is None:
            return False
        still_open = len(self._open) - self._open_with_result
        # The window may have shrunk since the reservation was made. The reservation is then written in parts; the next
        # part has room at the latest when only two rows per connection (or half a window, if less) are open.
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
        for row, (state, progress_of_row, fingerprint) in results.items():
            self._put(recorded, row, fingerprint, state, progress_of_row)
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
        self._recent_blocks[number] = block  # at the end: the cache drops its first block first
        return block

    def _begin_renewal(self) -> None:
        """Begin to write everything again, since no part of the ledger may expire while an attempt runs.

        The head record is written first, so that it expires first: a head record that outlived the blocks would look
        like a ledger without rows. The blocks follow one by one.
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


class Window:
    """The window, adapted to the rate at which results arrive.

    Only time in which a row is open counts as sending. It includes waiting for the server and for a rate limit, and
    excludes waiting for the state store or for further rows.

    Args:
        fixed: a fixed number of rows; None: adapted to the rate.
        connections: how many mails are in flight at once. The window starts at this size and is never smaller.
    """

    def __init__(self, fixed: int | None, connections: int) -> None:
        self._connections = connections
        self._is_measured = fixed is None
        #: How many rows may be open.
        self.rows = max(fixed or 1, connections)
        #: Results per second of sending.
        self.rate = 0.0
        self._open = 0
        # The start (`time.monotonic`) of the sending time that is not yet included in `_seconds`.
        self._since = 0.0
        # Whether a result has arrived. The time before the first one does not count: it includes opening the sessions.
        self._has_result = False
        # Results, and seconds of sending, since the last measurement.
        self._results, self._seconds = 0, 0.0
        # Their weighted totals before the last measurement.
        self._recent_results, self._recent_seconds = 0.0, 0.0

    def on_rows_opened(self, rows: int) -> None:
        """Count rows that are recorded as open, and may be sent."""
        if not self._open:
            self._since = time.monotonic()
        self._open += rows

    def on_row_closed(self) -> None:
        """Count the result of one open row."""
        self._open -= 1
        if not self._has_result:
            self._has_result = True
            self._since = time.monotonic()
            return
        self._results += 1
        if not self._open:
            self._seconds += time.monotonic() - self._since

    def measure(self) -> None:
        """Adapt the window to the results since the last measurement."""
        if not self._has_result:
            return
        if self._open:
            now = time.monotonic()
            self._seconds += now - self._since
            self._since = now
        decay = math.exp(-self._seconds / _DECAY_SECONDS)
        self._recent_results = decay * self._recent_results + self._results
        # Capped: a long pause of the server lowers the rate for no longer than `_DECAY_SECONDS`.
        self._recent_seconds = decay * self._recent_seconds + min(self._seconds, _DECAY_SECONDS)
        self._results, self._seconds = 0, 0.0
        # Results arrive in bursts, one per connection; counting the last burst would overestimate the rate.
        results = max(0.0, self._recent_results - self._connections)
        self.rate = results / max(self._recent_seconds, 0.001)
        if self._is_measured:
            self.rows = max(self._connections, min(LARGEST_WINDOW, int(self.rate * WINDOW_SECONDS)))


class DigestSet:
    """A set of digests in a temporary file of about 20 octets per digest; its memory does not grow with their number.

    A merge keeps a digest of every row that it has read. Only the first 96 bits are compared. The probability
    that two rows share them is 1 in 10^17 for a million rows, and 1 in 10^13 for a hundred million.

    When SQLite's cache is full, SQLite creates the file in the folder that `TMPDIR` names, and unlinks it at once. On a
    worker where no folder can be written to, the set is in memory.

    Raises:
        MailError: from every method: the file cannot be created, written or read.
    """

    def __init__(self) -> None:
        import sqlite3  # not before a merge runs
        import tempfile

        try:
            tempfile.gettempdir()
            name = ""  # a temporary file
        except FileNotFoundError:  # there is no folder to write to
            name = ":memory:"
        # Garbage collection may close it in any thread.
        database = sqlite3.connect(name, isolation_level=None, check_same_thread=False)
        finalize(self, database.close)
        self._execute_statement, self._error = database.execute, sqlite3.Error
        self._execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._execute("PRAGMA journal_mode = OFF")  # nothing is rolled back
        self._execute("CREATE TABLE digests (digest BLOB PRIMARY KEY) WITHOUT ROWID")
        self._execute("BEGIN")

    def add(self, digest: bytes) -> bool:
        """Add a digest of at least `DIGEST_OCTETS`.

        Returns:
            Whether it was not in the set before.
        """
        return bool(self._execute("INSERT OR IGNORE INTO digests VALUES (?)", digest[:DIGEST_OCTETS]).rowcount == 1)

    def __contains__(self, digest: bytes) -> bool:
        found = self._execute("SELECT 1 FROM digests WHERE digest = ?", digest[:DIGEST_OCTETS])
        return found.fetchone() is not None

    def _execute(self, statement: str, *values: bytes) -> Any:
        try:
            return self._execute_statement(statement, values)
        except self._error as error:
            raise MailError(
                f"The temporary file with the digests of the rows, in the folder '{_find_folder()}' of the worker, "
                f"cannot be written ({error}).",
                remedy="Free space there, or set TMPDIR on the worker to a folder with enough: the file takes about 20 "
                "octets for each row.",
                retryable=True,
            ) from error


def _find_folder() -> str:
    """Return the folder that SQLite uses for temporary files."""
    folders = (os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"), *_DEFAULT_FOLDERS)
    return next((folder for folder in folders if folder and os.access(folder, os.W_OK | os.X_OK)), ".")


def _pad(fingerprint: bytes) -> bytes:
    """Pad a fingerprint to the length that a `DigestSet` takes."""
    return fingerprint.ljust(DIGEST_OCTETS, b"\0")
