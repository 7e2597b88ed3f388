"""How a ledger is stored: row states in blocks, a head for the run, and the state store behind both."""

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

#: Rows stored under one key: few enough to be rewritten for each window, many enough to need few keys.
BLOCK_ROWS = 1024
#: Octets of a row's digest that tell it from other rows. Two of a million rows share them with a probability of 1 in
#: 37 million.
FINGERPRINT_OCTETS = 8
# Format 1 stored only three. Its blocks keep that width, since the rest of those digests is not stored.
_FORMAT_1_FINGERPRINT_OCTETS = 3
_RUN = re.compile(rb"(.)\1*", re.DOTALL)
_CODED_RUN = re.compile(r"([a-z])(\d*)")

#: The key of the head, and the prefix of all other keys.
HEAD = "smtpcm"
#: The format that is written; blocks of format 1 have shorter fingerprints.
FORMAT = 2
_READABLE_FORMATS = (1, FORMAT)
# Seconds before each further request to a state store that fails; after the last one, sending stops.
_RETRY_DELAYS = (0.5, 1.0, 2.0, 4.0)


class RowState(StrEnum):
    """What is known about a row. The values are those of the stored format."""

    #: Reserved: it was about to be sent and no result was recorded, so the mail may have been delivered.
    OPEN = "o"
    #: The server accepted the mail for every recipient.
    ACCEPTED = "a"
    #: The server accepted it for some recipients and permanently refused the others.
    PARTIAL = "p"
    #: The server permanently refused every recipient.
    REFUSED = "r"
    #: The whole message was handed over and no answer came, so the mail may have been delivered.
    UNKNOWN = "u"
    #: At least one recipient lacks the mail, and another attempt may succeed.
    AGAIN = "t"
    #: No recipient has the mail, and the cause can be fixed: no mail could be made of the row, or it was refused before
    #: the task was cleared.
    FAILED = "f"
    #: Nothing was started for this row.
    UNSEEN = "n"


#: The states of rows whose mail may have been delivered.
IN_DOUBT = (RowState.OPEN, RowState.UNKNOWN)


class RunState(StrEnum):
    """How the latest attempt of the task ended. The values are those of the stored format."""

    #: It did not end, or Airflow retries what is pending.
    OPEN = "open"
    #: It failed for good, so a further attempt was requested by clearing the task.
    ENDED = "ended"
    #: It succeeded, so a further attempt is to send everything again.
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Progress:
    """Recipient progress of a mail; a recipient in neither set is still pending.

    Args:
        accepted: the addresses that have the mail.
        rejected: each permanently refused address with the reply that refused it.
    """

    accepted: tuple[str, ...] = ()
    rejected: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.accepted or self.rejected)


NO_PROGRESS = Progress()


@dataclass(slots=True)
class Block:
    """The rows stored under one key, in order.

    Args:
        states: one octet for each row.
        fingerprints: `width` octets for each row.
        progress: the recipient progress of rows that have any.
        width: `FINGERPRINT_OCTETS`, or fewer in a block that an older release wrote.
    """

    states: bytearray = field(default_factory=bytearray)
    fingerprints: bytearray = field(default_factory=bytearray)
    progress: dict[int, Progress] = field(default_factory=dict)
    width: int = FINGERPRINT_OCTETS

    def __len__(self) -> int:
        return len(self.states)

    def fingerprint(self, at: int) -> bytes:
        """Return the stored fingerprint of the row at this position: `width` octets."""
        return bytes(self.fingerprints[at * self.width : (at + 1) * self.width])

    def state(self, at: int) -> RowState:
        """Return the state of the row at this position."""
        return RowState(chr(self.states[at]))

    def put(self, at: int, fingerprint: bytes, state: RowState, progress: Progress = NO_PROGRESS) -> None:
        """Write one row; positions before it that are still missing become `UNSEEN`.

        Args:
            at: the position in this block, from 0.
            fingerprint: at least `width` octets, of which that many are stored.
            state: the new state.
            progress: replaces the earlier progress of the row.
        """
        missing = at + 1 - len(self.states)
        if missing > 0:
            self.states += RowState.UNSEEN.encode() * missing
            self.fingerprints += bytes(self.width) * missing
        self.states[at] = ord(state)
        self.fingerprints[at * self.width : (at + 1) * self.width] = fingerprint[: self.width]
        if progress:
            self.progress[at] = progress
        else:
            self.progress.pop(at, None)

    def rows_in_doubt(self) -> dict[int, Progress]:
        """Return the positions of rows whose mail may have been delivered, each with its recipient progress."""
        if not any(state.encode() in self.states for state in IN_DOUBT):
            return {}
        return {at: self.progress.get(at, NO_PROGRESS) for at in range(len(self)) if self.state(at) in IN_DOUBT}

    def reset_refusals(self) -> bool:
        """Make permanently refused recipients pending again.

        Returns:
            Whether there were any.
        """
        refused = {
            at for at, state in enumerate(self.states) if state in (ord(RowState.REFUSED), ord(RowState.PARTIAL))
        }
        for at in refused:
            was_refused = self.states[at] == ord(RowState.REFUSED)
            self.states[at] = ord(RowState.FAILED if was_refused else RowState.AGAIN)
        rejected = {at for at, progress in self.progress.items() if progress.rejected}
        for at in rejected:
            self.put(at, self.fingerprint(at), self.state(at), Progress(self.progress[at].accepted))
        return bool(refused or rejected)

    def to_json(self) -> dict[str, Any]:
        """Return the stored form; states are run-length encoded, and a run of one is its letter alone."""
        runs = (match[0] for match in _RUN.finditer(self.states))
        value: dict[str, Any] = {
            "states": "".join(f"{chr(run[0])}{len(run) if len(run) > 1 else ''}" for run in runs),
            "marks": b64encode(self.fingerprints).decode(),
        }
        if self.progress:
            value["rest"] = {
                str(at): {"accepted": list(progress.accepted), "lost": dict(progress.rejected)}
                for at, progress in self.progress.items()
            }
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Block:
        """Read the stored form.

        Raises:
            ValueError, KeyError, TypeError: the value is not a block.
        """
        states = b"".join(letter.encode() * int(number or 1) for letter, number in _CODED_RUN.findall(value["states"]))
        fingerprints = bytearray(b64decode(value["marks"]))
        has_full_width = len(fingerprints) == FINGERPRINT_OCTETS * len(states)
        block = cls(
            bytearray(states),
            fingerprints,
            {int(at): Progress(tuple(rest["accepted"]), rest["lost"]) for at, rest in value.get("rest", {}).items()},
            FINGERPRINT_OCTETS if has_full_width else _FORMAT_1_FINGERPRINT_OCTETS,
        )
        if len(fingerprints) != block.width * len(states) or not set(states) <= {ord(state) for state in RowState}:
            raise ValueError(f"{len(block.states)} states and {len(block.fingerprints)} octets of fingerprints")
        return block


class StateStore(Protocol):
    """The part of Airflow's task state store that a ledger uses; the operators pass it in."""

    def get(self, key: str) -> Any: ...

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None: ...

    def delete(self, key: str) -> None: ...


class LedgerStore:
    """Reads and writes the head and the blocks of one task's ledger.

    A failing store is retried for 7.5 s, since nothing may be sent that cannot be recorded.

    Args:
        store: the task's state store.

    Raises:
        LedgerError: from every method: the store does not answer, or holds what cannot be read.
    """

    def __init__(self, store: StateStore) -> None:
        self._store = store
        #: The generation whose blocks are read and written.
        self.generation = 0

    def read_head(self) -> dict[str, Any]:
        """Return what the previous attempt passed to `write_head`; empty for the first attempt."""
        head = self._with_retries(lambda: self._store.get(HEAD))
        if head is None:
            return {}
        if not isinstance(head, dict) or head.get("format") not in _READABLE_FORMATS:
            raise LedgerError(
                f"The ledger of this task was written by another version of this package ({head!r}).",
                remedy="Finish the run with that version, or start a new one.",
            )
        return head

    def write_head(
        self, run_state: RunState, max_tries: int | None, blocks: int, result: Mapping[str, Any] | None = None
    ) -> None:
        """Write the state of the run.

        Args:
            run_state: how the attempt ended, or `OPEN`.
            max_tries: the task instance's `max_tries`; None: not known.
            blocks: the number of blocks, by which a later attempt notices that some have expired.
            result: the task's result without addresses, once it has succeeded.
        """
        head = {
            "format": FORMAT,
            "generation": self.generation,
            "standing": str(run_state),
            "max_tries": max_tries,
            "blocks": blocks,
            **({} if result is None else {"done": dict(result)}),
        }
        self._with_retries(lambda: self._store.set(HEAD, head))

    def read_blocks(self, expected: int) -> dict[int, Block]:
        """Return every block of this generation.

        Args:
            expected: the least number of blocks that there must be.
        """
        blocks: dict[int, Block] = {}
        while (value := self.get(str(len(blocks)))) is not None:
            try:
                blocks[len(blocks)] = Block.from_json(value)
            except (ValueError, KeyError, TypeError) as error:
                raise LedgerError(
                    f"The ledger of this task is damaged ({error}).", remedy="Start a new run."
                ) from error
        if len(blocks) < expected:
            raise LedgerError(
                "A part of the ledger of this task has expired ([state_store] default_retention_days), so that it is "
                "not known who has the mail.",
                remedy="Look in the report of the merge, or in the server's log, and start a new run for the "
                "recipients who lack it.",
            )
        return blocks

    def write_block(self, number: int, block: Block) -> None:
        """Write one block of this generation."""
        self.set(str(number), block.to_json())

    def get(self, name: str) -> Any:
        """Return a value of this generation; None if there is none."""
        key = f"{HEAD}/{self.generation}/{name}"
        return self._with_retries(lambda: self._store.get(key))

    def set(self, name: str, value: Any, *, retention: timedelta | None = None) -> None:
        """Write a value of this generation.

        Args:
            name: its key within the generation.
            value: what JSON can hold.
            retention: how long it is kept; None: as long as Airflow is configured to.
        """
        key = f"{HEAD}/{self.generation}/{name}"
        self._with_retries(lambda: self._store.set(key, value, retention=retention))

    def delete_blocks(self, generation: int, blocks: int) -> None:
        """Delete the blocks of a generation; where the store fails, they expire instead."""
        with suppress(LedgerError):
            for number in range(blocks):
                key = f"{HEAD}/{generation}/{number}"
                self._with_retries(lambda key=key: self._store.delete(key))  # type: ignore[misc]

    def _with_retries(self, request: Callable[[], Any]) -> Any:
        delays = iter(_RETRY_DELAYS)
        while True:
            try:
                return request()
            except Exception as error:
                delay = next(delays, None)
                if delay is None:
                    raise LedgerError(
                        f"Airflow's task state store does not answer ({type(error).__name__}: {error}).",
                        remedy="Look in the API server's log; nothing is sent that cannot be recorded.",
                        retryable=True,
                    ) from error
                time.sleep(delay)


# Many small tables, since a growing table is filled again while mails wait.
_TABLES = 64
_FIRST_SLOTS = 8
_NUMBERS = Struct(">QI")
#: Octets that are kept of each digest, which must have at least as many.
DIGEST_OCTETS = _NUMBERS.size


class DigestSet:
    """A set of digests that takes 18 to 27 octets for each, where `set` takes about 100.

    A merge has to recognize every row that it has seen. Tables of numbers hold the first 96 bits of each digest; two of
    a million rows share these with a probability of 1 in 10^17, of a hundred million with 1 in 10^13.
    """

    def __init__(self) -> None:
        self._tables = [_DigestTable() for _ in range(_TABLES)]

    def add(self, digest: bytes) -> bool:
        """Add a digest of at least `DIGEST_OCTETS`.

        Returns:
            Whether it is new.
        """
        high, low = _numbers(digest)
        return self._tables[high % _TABLES].add(high, low)

    def __contains__(self, digest: bytes) -> bool:
        high, low = _numbers(digest)
        return self._tables[high % _TABLES].find_slot(high, low) < 0


class _DigestTable:
    """A hash table with linear probing (Knuth, TAOCP 6.4, algorithm L), at most two thirds full."""

    __slots__ = ("_free", "_high", "_low", "_slots")

    def __init__(self) -> None:
        self._allocate(_FIRST_SLOTS)

    def _allocate(self, slots: int) -> None:
        self._slots = slots
        self._free = 2 * slots // 3
        # Two zeros are an empty slot.
        self._high = array("Q", bytes(8 * slots))
        self._low = array("I", bytes(4 * slots))

    def find_slot(self, high: int, low: int) -> int:
        """Return the slot for these numbers, or its complement (negative) if it already holds them."""
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
        at = self.find_slot(high, low)
        if at < 0:
            return False
        self._high[at] = high
        self._low[at] = low
        self._free -= 1
        if not self._free:
            self._grow()
        return True

    def _grow(self) -> None:
        highs, lows = self._high, self._low
        self._allocate(3 * self._slots // 2)
        for high, low in zip(highs, lows, strict=True):
            if high or low:
                at = self.find_slot(high, low)
                self._high[at] = high
                self._low[at] = low
                self._free -= 1


def _numbers(digest: bytes) -> tuple[int, int]:
    high, low = _NUMBERS.unpack_from(digest)
    return (high, low) if high or low else (1, 0)  # two zeros are an empty slot
