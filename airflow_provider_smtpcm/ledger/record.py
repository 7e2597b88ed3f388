"""What became of each row, in a few bytes: states in runs, and eight octets that tell rows apart."""

from __future__ import annotations

import re
import time
from array import array
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from struct import Struct
from typing import Any, Protocol

from airflow_provider_smtpcm.errors import LedgerError

#: Rows that are stored under one key: small enough to be written for each window, large enough for few keys.
ROWS = 1024
#: Octets of a digest that tell a row from another one: that two of a million rows share them is as likely as 1 in
#: 37 million.
MARK = 8
#: So many had the first format. Its blocks keep them, since the rest of those digests is gone.
_OLD_MARK = 3
_RUN = re.compile(rb"(.)\1*", re.DOTALL)
_CODED_RUN = re.compile(r"([a-z])(\d*)")


class State(StrEnum):
    """What is known of a row."""

    #: It was about to be sent, and nothing was heard of it since: it may have been delivered.
    OPEN = "o"
    #: The server took responsibility for every recipient.
    ACCEPTED = "a"
    #: It did so for some, and refused the others for good.
    PARTIAL = "p"
    #: It refused everybody for good.
    REFUSED = "r"
    #: It was handed over, and nobody said what became of it.
    UNKNOWN = "u"
    #: Nobody, or not everybody, has it, and another try may help.
    AGAIN = "t"
    #: Nobody has it, and somebody may mend it: no mail could be made of it, or it was refused before the task was
    #: cleared.
    FAILED = "f"
    #: Nothing was begun with it.
    UNSEEN = "n"


@dataclass(frozen=True, slots=True)
class Rest:
    """Of a mail that not everybody has; who is in neither is to be asked.

    Args:
        accepted: who has it.
        lost: who was refused for good, with the reply that said so.
    """

    accepted: tuple[str, ...] = ()
    lost: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.accepted or self.lost)


EVERYBODY = Rest()


@dataclass(slots=True)
class Block:
    """The rows of one key, in their order.

    Args:
        states: one octet for each row.
        marks: `width` octets for each row.
        rest: who lacks it, for rows that not everybody has.
        width: `MARK`, or less in a block of an older release.
    """

    states: bytearray = field(default_factory=bytearray)
    marks: bytearray = field(default_factory=bytearray)
    rest: dict[int, Rest] = field(default_factory=dict)
    width: int = MARK

    def __len__(self) -> int:
        return len(self.states)

    def mark(self, at: int) -> bytes:
        """Of the row at this place, as far as it was written down."""
        return bytes(self.marks[at * self.width : (at + 1) * self.width])

    def state(self, at: int) -> State:
        """Of the row at this place."""
        return State(chr(self.states[at]))

    def put(self, at: int, mark: bytes, state: State, rest: Rest = EVERYBODY) -> None:
        """Write one row down."""
        missing = at + 1 - len(self.states)
        if missing > 0:
            self.states += State.UNSEEN.encode() * missing
            self.marks += bytes(self.width) * missing
        self.states[at] = ord(state)
        self.marks[at * self.width : (at + 1) * self.width] = mark[: self.width]
        if rest:
            self.rest[at] = rest
        else:
            self.rest.pop(at, None)

    def in_doubt(self) -> dict[int, Rest]:
        """The rows that may have been delivered, and of each who has it, or was refused for good, all the same."""
        doubtful = {State.OPEN, State.UNKNOWN}
        if not any(state.encode() in self.states for state in doubtful):
            return {}
        return {at: self.rest.get(at, EVERYBODY) for at in range(len(self)) if self.state(at) in doubtful}

    def give_another_chance(self) -> bool:
        """Whoever was refused for good is to be asked again; whether there is anybody."""
        refused = {at for at, state in enumerate(self.states) if state in (ord(State.REFUSED), ord(State.PARTIAL))}
        for at in refused:
            self.states[at] = ord(State.FAILED if self.states[at] == ord(State.REFUSED) else State.AGAIN)
        lost = {at for at, rest in self.rest.items() if rest.lost}
        for at in lost:
            self.put(at, self.mark(at), self.state(at), Rest(self.rest[at].accepted))
        return bool(refused or lost)

    def to_json(self) -> dict[str, Any]:
        """As it is stored; a run of one is its letter alone."""
        runs = (match[0] for match in _RUN.finditer(self.states))
        value: dict[str, Any] = {
            "states": "".join(f"{chr(run[0])}{len(run) if len(run) > 1 else ''}" for run in runs),
            "marks": b64encode(self.marks).decode(),
        }
        if self.rest:
            value["rest"] = {
                str(at): {"accepted": list(rest.accepted), "lost": dict(rest.lost)} for at, rest in self.rest.items()
            }
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Block:
        """As it was stored.

        Raises:
            ValueError: that is no such block.
        """
        states = b"".join(letter.encode() * int(number or 1) for letter, number in _CODED_RUN.findall(value["states"]))
        marks = bytearray(b64decode(value["marks"]))
        block = cls(
            bytearray(states),
            marks,
            {int(at): Rest(tuple(rest["accepted"]), rest["lost"]) for at, rest in value.get("rest", {}).items()},
            MARK if len(marks) == MARK * len(states) else _OLD_MARK,
        )
        if len(marks) != block.width * len(states) or not set(states) <= {ord(state) for state in State}:
            raise ValueError(f"{len(block.states)} states and {len(block.marks)} octets of marks")
        return block


# folded: The ledger as it lies in a store: a head, and blocks of rows. Knows no window and no thread.
#   A store that fails is asked again for a while, since nothing is sent that cannot be written down.

HEAD = "smtpcm"
#: What is written; the blocks of format 1 have shorter marks.
FORMAT = 2
_READABLE = (1, FORMAT)
# A store that fails is asked again after so many seconds, then sending stops.
_AGAIN = (0.5, 1.0, 2.0, 4.0)


class Store(Protocol):
    """What is needed of Airflow's task state store."""

    def get(self, key: str) -> Any: ...

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None: ...

    def delete(self, key: str) -> None: ...


class Standing(StrEnum):
    """How the try before ended."""

    #: It did not end, or Airflow tries again what is left.
    OPEN = "open"
    #: It failed for good: whoever tries again does so on purpose.
    ENDED = "ended"
    #: It was done: whoever tries again wants all of it again.
    CLOSED = "closed"


class Book:
    """What is kept of one task.

    Args:
        store: where.

    Raises:
        LedgerError: from every method: the store does not answer, or has what cannot be read.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        #: Whose blocks are meant.
        self.generation = 0

    def head(self) -> dict[str, Any]:
        """What the try before wrote by `write_head`; empty: there was none."""
        head = self._asked(lambda: self._store.get(HEAD))
        if head is None:
            return {}
        if not isinstance(head, dict) or head.get("format") not in _READABLE:
            raise LedgerError(
                f"The ledger of this task was written by another version of this package ({head!r}).",
                remedy="Finish the run with that version, or begin a new one.",
            )
        return head

    def write_head(
        self, standing: Standing, max_tries: int | None, blocks: int, done: Mapping[str, Any] | None = None
    ) -> None:
        """How the task stands.

        Args:
            standing: that.
            max_tries: Airflow's number.
            blocks: how many there are, so that a part of them that has expired is missed.
            done: what the task came to, without an address, once it is done.
        """
        head = {
            "format": FORMAT,
            "generation": self.generation,
            "standing": str(standing),
            "max_tries": max_tries,
            "blocks": blocks,
            **({} if done is None else {"done": dict(done)}),
        }
        self._asked(lambda: self._store.set(HEAD, head))

    def blocks(self, expected: int) -> dict[int, Block]:
        """Every block of this generation; `expected` is how many there were at least."""
        blocks: dict[int, Block] = {}
        while (value := self.get(str(len(blocks)))) is not None:
            try:
                blocks[len(blocks)] = Block.from_json(value)
            except (ValueError, KeyError, TypeError) as error:
                raise LedgerError(
                    f"The ledger of this task is damaged ({error}).", remedy="Begin a new run."
                ) from error
        if len(blocks) < expected:
            raise LedgerError(
                "A part of the ledger of this task has expired ([state_store] default_retention_days), so that it is "
                "not known who has the mail.",
                remedy="Look into the report of the merge, or the server's log, and begin a new run for those who lack "
                "it.",
            )
        return blocks

    def write_block(self, number: int, block: Block) -> None:
        """One block of this generation, as it is now."""
        self.set(str(number), block.to_json())

    def get(self, name: str) -> Any:
        """What `set` has kept in this generation; None: nothing."""
        key = f"{HEAD}/{self.generation}/{name}"
        return self._asked(lambda: self._store.get(key))

    def set(self, name: str, value: Any) -> None:
        """Keep something in this generation, at once, for as long as Airflow is configured to."""
        key = f"{HEAD}/{self.generation}/{name}"
        self._asked(lambda: self._store.set(key, value))

    def set_shortly(self, name: str, value: Any, retention: timedelta) -> None:
        """Keep something in this generation for so long."""
        key = f"{HEAD}/{self.generation}/{name}"
        self._asked(lambda: self._store.set(key, value, retention=retention))

    def drop(self, generation: int, blocks: int) -> None:
        """Delete the blocks of a generation that serve no more. What a store that fails keeps of them expires."""
        with suppress(LedgerError):
            for number in range(blocks):
                key = f"{HEAD}/{generation}/{number}"
                self._asked(lambda key=key: self._store.delete(key))  # type: ignore[misc]

    def _asked(self, ask: Callable[[], Any]) -> Any:
        waits = iter(_AGAIN)
        while True:
            try:
                return ask()
            except Exception as error:
                wait = next(waits, None)
                if wait is None:
                    raise LedgerError(
                        f"Airflow's task state store does not answer ({type(error).__name__}: {error}).",
                        remedy="Look into the API server's log; nothing is sent that cannot be written down.",
                        retryable=True,
                    ) from error
                time.sleep(wait)


# folded: A set of digests in 18 to 27 octets each, where `set` takes about 100. No store, no rows.
#   A merge has to know every row that it has met. Hash tables of numbers hold 96 bits of each digest, side by side:
#   that
#   two of a million rows share these is as likely as 1 in 10^17, of a hundred million 1 in 10^13.

# Many small tables, since a table that grows is filled again, while the mails wait.
_TABLES = 64
_FIRST_SLOTS = 8
_NUMBERS = Struct(">QI")
#: So many are held of each digest, which has no fewer.
DIGEST_OCTETS = _NUMBERS.size


class DigestSet:
    """Digests, each held by its first `DIGEST_OCTETS`."""

    def __init__(self) -> None:
        self._tables = [_Table() for _ in range(_TABLES)]

    def add(self, digest: bytes) -> bool:
        """Add a digest; whether it is new."""
        high, low = _numbers(digest)
        return self._tables[high % _TABLES].add(high, low)

    def __contains__(self, digest: bytes) -> bool:
        high, low = _numbers(digest)
        return self._tables[high % _TABLES].slot(high, low) < 0


class _Table:
    """A hash table with linear probing (Knuth, TAOCP 6.4, algorithm L), at most two thirds full."""

    __slots__ = ("_high", "_left", "_low", "_slots")

    def __init__(self) -> None:
        self._allocate(_FIRST_SLOTS)

    def _allocate(self, slots: int) -> None:
        self._slots = slots
        self._left = 2 * slots // 3
        # Two zeros are an empty slot.
        self._high = array("Q", bytes(8 * slots))
        self._low = array("I", bytes(4 * slots))

    def slot(self, high: int, low: int) -> int:
        """The slot where these numbers belong; where they are there already, its complement, which is negative."""
        highs, lows, slots = self._high, self._low, self._slots
        at = high // _TABLES % slots
        while True:
            there = highs[at]
            if there == high and lows[at] == low:
                return ~at
            if not there and not lows[at]:
                return at
            at = at + 1 if at + 1 < slots else 0

    def add(self, high: int, low: int) -> bool:
        at = self.slot(high, low)
        if at < 0:
            return False
        self._high[at] = high
        self._low[at] = low
        self._left -= 1
        if not self._left:
            self._grow()
        return True

    def _grow(self) -> None:
        highs, lows = self._high, self._low
        self._allocate(3 * self._slots // 2)
        for high, low in zip(highs, lows, strict=True):
            if high or low:
                at = self.slot(high, low)
                self._high[at] = high
                self._low[at] = low
                self._left -= 1


def _numbers(digest: bytes) -> tuple[int, int]:
    high, low = _NUMBERS.unpack_from(digest)
    return (high, low) if high or low else (1, 0)  # zeros are an empty slot
