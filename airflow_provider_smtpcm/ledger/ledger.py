"""The ledger of a task: which rows may be on their way, and what became of the others. Knows a store, and no mail.

Rows are reserved before they are sent and recorded afterwards. A write to the store takes longer than many mails, so a
thread writes, and each write records all that has come in and reserves all that there is room for. What was reserved
and never recorded, because the process was killed, may have been delivered: that is never more than the window.
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
    DIGEST_OCTETS,
    EVERYBODY,
    MARK,
    ROWS,
    Block,
    Book,
    DigestSet,
    Rest,
    Standing,
    State,
    Store,
)
from airflow_provider_smtpcm.ledger.window import Window
from airflow_provider_smtpcm.smtp.cancellation import release_fully

#: The name of what a task returns, and how long it is kept for a try that finds the task done: it names recipients,
#: and Airflow makes such a try soon. Afterwards such a try returns what the head says, without them.
RESULT, RESULT_KEPT = "result", timedelta(days=1)
# Airflow's retention counts in days.
_RENEWED_AFTER = 6 * 3600.0
_NOTHING_KNOWN: Mapping[int, Rest] = MappingProxyType({})
# What has come in is recorded at the latest after so many seconds, also where nothing more is reserved.
_UNRECORDED_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Known:
    """What an earlier try left of a row."""

    state: State
    rest: Rest = EVERYBODY

    @property
    def in_doubt(self) -> bool:
        """Whether the mail may have been delivered, and nobody knows."""
        return self.state in (State.OPEN, State.UNKNOWN)


#: Of a row that nobody has met.
NOTHING = Known(State.UNSEEN)


@dataclass(slots=True, eq=False)
class Reservation:
    """Rows that may be sent once they are written down: the first ones first, as many as the window has room for."""

    rows: Sequence[tuple[int, bytes]]
    #: What is known of those that not everybody lacks.
    rests: Mapping[int, Rest]
    #: How many of the rows are written down, or are just being.
    taken: int = 0
    #: How many of them may be sent.
    written: int = 0

    @property
    def done(self) -> bool:
        """Whether all of them may be sent."""
        return self.written == len(self.rows)


@dataclass(slots=True)
class _Result:
    state: State
    rest: Rest
    mark: bytes | None


class Ledger:
    """An open ledger; say how the try ends by `end` or `close`, with which its thread ends.

    Args:
        store: where it is kept.
        send_again: whether a try after one that failed for good sends all rows anew, instead of those that are left.
        window: how many rows may be in doubt after a crash; None: see `Window`.
        connections: how many mails are in flight at once: the window is never smaller.
        max_tries: Airflow's number, which it raises when somebody clears the task, and only then; None: not known.
        cleared: how often the task was cleared, where the ledger itself is not there to say so.

    Raises:
        LedgerError: it cannot be read.
    """

    def __init__(
        self,
        store: Store,
        *,
        send_again: bool = False,
        window: int | None = None,
        connections: int = 1,
        max_tries: int | None = None,
        cleared: int = 0,
    ) -> None:
        self._book = Book(store)
        self._window = Window(window, connections)
        self._blocks: dict[int, Block] = {}
        self._open: set[int] = set()
        self._results: dict[int, _Result] = {}
        # How many rows of `_results` are in `_open`.
        self._closing = 0
        self._first_result_at = 0.0
        self._wanted: Reservation | None = None
        self._stopping = False
        self._failure: LedgerError | None = None
        #: Called by the thread that writes, whenever it has written, or cannot write any more.
        self.on_write: Callable[[], None] = lambda: None
        self._changed = threading.Condition()
        self._writer: threading.Thread | None = None  # where there is something to write
        head = self._book.head()
        standing = Standing(head.get("standing", Standing.OPEN))
        self._max_tries = max_tries
        #: How often all of it was begun on purpose; part of what names a mail.
        self.generation: int = head.get("generation", cleared)
        #: What the try before came to, where that was done, and died before Airflow heard of it: nothing is sent.
        self.done: dict[str, Any] | None = None
        self._result: Mapping[str, Any] | None = None
        self._renewed_at = time.monotonic()
        if max_tries is not None and head.get("max_tries") == max_tries:
            # Nobody cleared it: a try came to its end, and died before Airflow heard of that.
            if standing is Standing.CLOSED and "done" in head:
                self._book.generation = self.generation
                self.done = self.kept(RESULT) or head["done"]
                return
            standing = Standing.OPEN
        #: Whether a try before this one left something.
        self.resumed = bool(head)
        if standing is Standing.CLOSED or (standing is Standing.ENDED and send_again):
            self.generation += 1
            self.resumed = False
        self._book.generation = self.generation
        #: Of the rows that an earlier try may have delivered: who has it, or was refused for good, all the same.
        self.doubts: dict[int, Rest] = {}
        if self.resumed:
            self._blocks = self._book.blocks(head.get("blocks", 0))
            for number, block in self._blocks.items():
                self.doubts.update((number * ROWS + at, rest) for at, rest in block.in_doubt().items())
            if standing is Standing.ENDED:
                self._give_another_chance()
        self._renew()
        if head and not self.resumed:
            self._book.drop(head["generation"], head.get("blocks", 0))
        # Here, where an interruption leaves no ledger: a later one could leave a thread that nobody knows of.
        self._writer = threading.Thread(target=self._write, name="smtpcm-ledger", daemon=True)
        self._writer.start()

    # --- What an earlier try left

    @property
    def rows(self) -> int:
        """How many rows an earlier try has begun, up to the last one."""
        return max((number * ROWS + len(block) for number, block in self._blocks.items()), default=0)

    @property
    def left(self) -> int:
        """How many of these are to be sent by this try; those in `doubts` are not among them."""
        states = [state.encode() for state in (State.AGAIN, State.FAILED, State.UNSEEN)]
        return sum(block.states.count(state) for block in self._blocks.values() for state in states)

    def known(self, row: int, mark: bytes) -> Known | None:
        """What an earlier try left of a row; None: nothing.

        Raises:
            LedgerError: this is another row than the earlier try met in its place.
        """
        block, at = self._blocks.get(row // ROWS), row % ROWS
        if block is None or at >= len(block) or block.state(at) is State.UNSEEN:
            return None
        state = block.state(at)
        # A row that reached no one may have been fixed, unless it is one of the others.
        if block.mark(at) != mark[: block.width] and (state is not State.FAILED or self._was_met(mark)):
            raise changed(f"row {row + 1} is another one")
        return Known(state, block.rest.get(at, EVERYBODY))

    def mark(self, row: int) -> bytes | None:
        """What tells a row that an earlier try met from others; None: an older release wrote down too little of it."""
        block = self._blocks[row // ROWS]
        return block.mark(row % ROWS) if block.width == MARK else None

    def is_open(self, row: int) -> bool:
        """Whether nothing was heard of a row that an earlier try met."""
        return self._blocks[row // ROWS].state(row % ROWS) is State.OPEN

    def _was_met(self, mark: bytes) -> bool:
        """Whether an earlier try met this row, in whatever place."""
        return any(_padded(mark[:width]) in marks for width, marks in self._marks.items())

    @cached_property
    def _marks(self) -> Mapping[int, DigestSet]:
        """Of all rows that earlier tries met, by their length."""
        marks: dict[int, DigestSet] = {}
        for block in self._blocks.values():
            met = marks.setdefault(block.width, DigestSet())
            for at in range(len(block)):
                met.add(_padded(block.mark(at)))
        return marks

    def kept(self, name: str) -> Any:
        """What `keep` has stored in this generation; None: nothing."""
        return self._book.get(name)

    # --- This try

    def keep(self, result: Mapping[str, Any]) -> None:
        """Store what the task returns beside the rows, at once, for `RESULT_KEPT`.

        Raises:
            LedgerError: it cannot be written.
        """
        self._book.set_shortly(RESULT, result, RESULT_KEPT)
        self._result = result

    @property
    def window(self) -> int:
        """How many rows may be open at once."""
        return self._window.rows

    @property
    def at_once(self) -> int:
        """How many rows are best reserved together: while half a window is sent, the other half is written down."""
        return max(1, self.window // 2)

    def reserve(self, rows: Sequence[tuple[int, bytes]], rests: Mapping[int, Rest] = _NOTHING_KNOWN) -> Reservation:
        """Ask for rows to be written down as about to be sent; one reservation after the other, `at_once` rows at most.

        They are written down in their order, as many as the window has room for; it may have shrunk since.

        Args:
            rows: each with its mark.
            rests: who has it already, or was refused for good, where somebody does or was.
        """
        reservation = Reservation(rows, rests)
        with self._changed:
            assert self._wanted is None
            self._wanted = reservation
            self._changed.notify_all()
        return reservation

    def withdraw(self, reservation: Reservation) -> int:
        """Nobody sends more of these rows; of how many something was, or will be, written."""
        with self._changed:
            if self._wanted is reservation:
                self._wanted = None
            return reservation.taken

    def check(self) -> None:
        """Whether it can still be written.

        Raises:
            LedgerError: it cannot, so that nothing more may be sent.
        """
        if self._failure is not None:
            raise self._failure

    def record(self, row: int, state: State, rest: Rest = EVERYBODY, *, mark: bytes | None = None) -> None:
        """Write down what became of a row.

        Args:
            row: its number, from 0.
            state: that.
            rest: who has it, where others lack it.
            mark: of a row that was never reserved.
        """
        with self._changed:
            first = not self._results
            if first:
                self._first_result_at = time.monotonic()
            if row in self._open and row not in self._results:
                self._closing += 1
                self._window.closed()
            self._results[row] = _Result(state, rest, mark)
            if first or self._fits():  # to wake the writer for each row would cost more than to send it
                self._changed.notify_all()

    def end(self, standing: Standing) -> None:
        """Write down all that has come in, and how the task ended, where another try may need the rows.

        Raises:
            LedgerError: it cannot be written.
        """
        self._flush()
        self._book.write_head(standing, self._max_tries, len(self._blocks))

    def close(self, result: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
        """Write down that the task is done, and drop its rows.

        Args:
            result: what it returns, for a try that finds it done.
            summary: the same without an address, which is kept longer.

        Raises:
            LedgerError: it cannot be written.
        """
        self._flush()
        if result != self._result:
            self.keep(result)
        self._book.write_head(Standing.CLOSED, self._max_tries, 0, summary)
        self._book.drop(self.generation, len(self._blocks))

    def _flush(self) -> None:
        release_fully(self._changed)
        with self._changed:
            self._wanted = None  # nobody sends them any more
            self._stopping = True
            self._changed.notify_all()
        if self._writer is not None:
            self._writer.join()
        self.check()

    # --- The writer

    def _write(self) -> None:
        try:
            while True:
                with self._changed:
                    while not self._due():
                        self._changed.wait(self._patience())
                    results, self._results = self._results, {}
                    self._open.difference_update(results)
                    self._closing = 0
                    self._window.measure()
                    reservation = self._wanted if self._fits() else None
                    rows: Sequence[tuple[int, bytes]] = ()
                    if reservation is not None:
                        rows = reservation.rows[reservation.taken : reservation.taken + self.at_once]
                        self._open.update(row for row, _ in rows)
                        reservation.taken += len(rows)
                        if reservation.taken == len(reservation.rows):
                            self._wanted = None
                    stopping = self._stopping
                self._write_down(results, rows, reservation.rests if reservation is not None else _NOTHING_KNOWN)
                if reservation is not None:
                    with self._changed:
                        reservation.written += len(rows)
                        self._window.opened(len(rows))
                self.on_write()
                if stopping:
                    return
        except LedgerError as error:
            self._failure = error
        except Exception as error:  # noqa: BLE001 - else the rows would wait for ever
            self._failure = LedgerError(f"The ledger of this task cannot be written ({error!r}).")
        self.on_write()

    def _due(self) -> bool:
        if self._stopping or self._fits():
            return True
        return bool(self._results) and time.monotonic() - self._first_result_at >= _UNRECORDED_SECONDS

    def _fits(self) -> bool:
        if self._wanted is None:
            return False
        staying = len(self._open) - self._closing
        # No more than is reserved at once now: the reservation may be from a time when the window was wider.
        next_rows = min(self.at_once, len(self._wanted.rows) - self._wanted.taken)
        return staying + next_rows <= self.window

    def _patience(self) -> float | None:
        return max(0.0, self._first_result_at + _UNRECORDED_SECONDS - time.monotonic()) if self._results else None

    def _write_down(
        self, results: Mapping[int, _Result], rows: Sequence[tuple[int, bytes]], rests: Mapping[int, Rest]
    ) -> None:
        """What has come in first: if only one write of two succeeds, no more rows are in doubt than there may be."""
        recorded: set[int] = set()
        for row, result in results.items():
            self._put(row, result.mark, result.state, result.rest)
            recorded.add(row // ROWS)
        reserved: set[int] = set()
        for row, mark in rows:
            self._put(row, mark, State.OPEN, rests.get(row, EVERYBODY))
            reserved.add(row // ROWS)
        for number in (*sorted(recorded - reserved), *sorted(reserved)):
            self._book.write_block(number, self._blocks[number])
        if time.monotonic() - self._renewed_at > _RENEWED_AFTER:
            self._renew()

    def _renew(self) -> None:
        """Write all again, since each write puts off when it expires: no part may while tries go on.

        The head comes first: if all of it expires, the head is not what is left.
        """
        self._book.write_head(Standing.OPEN, self._max_tries, len(self._blocks))
        for number, block in self._blocks.items():
            self._book.write_block(number, block)
        self._renewed_at = time.monotonic()

    def _put(self, row: int, mark: bytes | None, state: State, rest: Rest = EVERYBODY) -> None:
        block = self._blocks.setdefault(row // ROWS, Block())
        block.put(row % ROWS, block.mark(row % ROWS) if mark is None else mark, state, rest)

    def _give_another_chance(self) -> None:
        """Somebody may have mended what was refused for good.

        It is written down before the head is, so that it holds until each of them was asked, however many tries that
        takes: this one may end before.
        """
        for number, block in self._blocks.items():
            if block.give_another_chance():
                self._book.write_block(number, block)


def _padded(mark: bytes) -> bytes:
    return mark.ljust(DIGEST_OCTETS, b"\0")


def changed(how: str) -> LedgerError:
    """The error of rows that are not those of the try before."""
    return LedgerError(
        f"The rows have changed since the try before: {how}. Nothing was sent for them.",
        remedy="Give it the rows that it began with; or clear the task with on_clear='send_again', or begin a new run, "
        "which sends all rows. Where only some columns change from try to try, name the rows by 'row_key'.",
    )
