"""The stored form of a ledger: blocks of row states and a head record, in a state store."""

from __future__ import annotations

import re
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from airflow_provider_smtpcm.errors import LedgerError

if TYPE_CHECKING:

    class StateStore(Protocol):
        """The methods of Airflow's task state store that a ledger uses."""

        def get(self, key: str) -> Any: ...

        def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None: ...

        def delete(self, key: str) -> None: ...


#: Rows stored under one key: few enough to rewrite a block for each window, many enough to need few keys.
BLOCK_ROWS = 1024
#: Octets of a row's digest that are stored. In a million rows, the probability that any two have the same is 1 in 37
#: million.
FINGERPRINT_OCTETS = 8
# Format 1 stored only three octets. Its blocks keep that width, since the other octets are lost.
_FORMAT_1_FINGERPRINT_OCTETS = 3
_RUN = rb"(?s)(.)\1*"
_CODED_RUN = r"([a-z])(\d*)"

#: The key of the head record, and the prefix of all other keys.
HEAD = "smtpcm"
#: The format that is written. Format 1, which can still be read, has shorter fingerprints.
FORMAT = 2
#: The format of a head record that contains the rows. It differs from `FORMAT`, so that an older release, which would
#: not find the rows there, refuses the ledger.
FORMAT_WITH_ROWS = 3
_READABLE_FORMATS = (1, FORMAT, FORMAT_WITH_ROWS)
# Delays (s) before each retry of a failed request to the state store; after the last one, sending stops.
_RETRY_DELAYS = (0.5, 1.0, 2.0, 4.0)


class RowState(StrEnum):
    """The state of a row. The values are those of the stored format."""

    #: Reserved for sending, and no result was recorded: the mail may have been delivered.
    OPEN = "o"
    #: The server accepted the mail for every recipient.
    ACCEPTED = "a"
    #: The server accepted the mail for some recipients and permanently refused the others.
    PARTIAL = "p"
    #: The server permanently refused every recipient.
    REFUSED = "r"
    #: The whole message was sent and no reply came: the mail may have been delivered (RFC 1047).
    UNKNOWN = "u"
    #: At least one recipient lacks the mail, and another attempt may succeed.
    RETRY = "t"
    #: The row could not be turned into a mail, or it was `REFUSED` and the task was then cleared. No recipient has the
    #: mail, and another attempt may succeed if the row has been fixed.
    FAILED = "f"
    #: No attempt has started this row.
    UNSEEN = "n"


#: The states of rows whose mail may have been delivered.
IN_DOUBT = (RowState.OPEN, RowState.UNKNOWN)


class RunState(StrEnum):
    """How the latest attempt of the task ended. The values are those of the stored format."""

    #: It is running, was killed, or failed in a way that Airflow may retry.
    UNFINISHED = "open"
    #: It failed, and Airflow does not retry it: if there is a further attempt, the task was cleared.
    FAILED = "ended"
    #: It succeeded: a further attempt sends everything again.
    SUCCEEDED = "closed"


class Progress(NamedTuple):
    """Recipient progress of a mail; a recipient in neither field is still pending.

    Args:
        accepted: the addresses that the server accepted the mail for.
        rejected: the permanently refused addresses, each with the server's reply.
    """

    accepted: tuple[str, ...] = ()
    rejected: Mapping[str, str] = MappingProxyType({})

    def __bool__(self) -> bool:
        return bool(self.accepted or self.rejected)


NO_PROGRESS = Progress()


class Block:
    """The rows stored under one key, in order.

    Args:
        states: one octet for each row.
        fingerprints: `width` octets for each row.
        progress: the recipient progress of rows that have any, by position.
        width: `FINGERPRINT_OCTETS`, or fewer in a block that an older release wrote.
    """

    __slots__ = ("fingerprints", "progress", "states", "width")

    def __init__(
        self,
        states: bytearray | None = None,
        fingerprints: bytearray | None = None,
        progress: dict[int, Progress] | None = None,
        width: int = FINGERPRINT_OCTETS,
    ) -> None:
        self.states = bytearray() if states is None else states
        self.fingerprints = bytearray() if fingerprints is None else fingerprints
        self.progress: dict[int, Progress] = {} if progress is None else progress
        self.width = width

    def __len__(self) -> int:
        return len(self.states)

    def fingerprint(self, position: int) -> bytes:
        """Return the stored fingerprint of the row at this position: `width` octets."""
        return bytes(self.fingerprints[position * self.width : (position + 1) * self.width])

    def state(self, position: int) -> RowState:
        """Return the state of the row at this position."""
        return RowState(chr(self.states[position]))

    def put(self, position: int, fingerprint: bytes, state: RowState, progress: Progress = NO_PROGRESS) -> None:
        """Write one row; positions that are skipped become `UNSEEN`.

        Args:
            position: the row's place in this block, from 0.
            fingerprint: at least `width` octets; the first `width` are stored.
            state: the new state.
            progress: replaces the progress of the row.
        """
        missing = position + 1 - len(self.states)
        if missing > 0:
            self.states += RowState.UNSEEN.encode() * missing
            self.fingerprints += bytes(self.width) * missing
        self.states[position] = ord(state)
        self.fingerprints[position * self.width : (position + 1) * self.width] = fingerprint[: self.width]
        if progress:
            self.progress[position] = progress
        else:
            self.progress.pop(position, None)

    def rows_in_doubt(self) -> dict[int, Progress]:
        """Return the positions of rows whose mail may have been delivered, each with its recipient progress."""
        if not any(state.encode() in self.states for state in IN_DOUBT):
            return {}
        return {
            position: self.progress.get(position, NO_PROGRESS)
            for position in range(len(self))
            if self.state(position) in IN_DOUBT
        }

    def reset_refusals(self) -> bool:
        """Make permanently refused recipients pending again.

        Returns:
            Whether there were any.
        """
        refusals = (ord(RowState.REFUSED), ord(RowState.PARTIAL))
        refused = [position for position, state in enumerate(self.states) if state in refusals]
        for position in refused:
            was_refused = self.states[position] == ord(RowState.REFUSED)
            self.states[position] = ord(RowState.FAILED if was_refused else RowState.RETRY)
        rejected = [position for position, progress in self.progress.items() if progress.rejected]
        for position in rejected:
            accepted = self.progress[position].accepted
            self.put(position, self.fingerprint(position), self.state(position), Progress(accepted))
        return bool(refused or rejected)

    def to_json(self) -> dict[str, Any]:
        """Return the stored form; states are run-length encoded, and a run of one has no number."""
        # The keys are part of the format: stored ledgers call fingerprints `marks`.
        runs = (match[0] for match in re.finditer(_RUN, self.states))
        value: dict[str, Any] = {
            "states": "".join(f"{chr(run[0])}{len(run) if len(run) > 1 else ''}" for run in runs),
            "marks": b64encode(self.fingerprints).decode(),
        }
        if self.progress:
            value["rest"] = {
                str(position): {"accepted": list(progress.accepted), "lost": dict(progress.rejected)}
                for position, progress in self.progress.items()
            }
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Block:
        """Read the stored form.

        Raises:
            ValueError, KeyError, TypeError: the value is not a block.
        """
        states = b"".join(
            letter.encode() * int(number or 1) for letter, number in re.findall(_CODED_RUN, value["states"])
        )
        fingerprints = bytearray(b64decode(value["marks"]))
        has_full_width = len(fingerprints) == FINGERPRINT_OCTETS * len(states)
        block = cls(
            bytearray(states),
            fingerprints,
            {
                int(position): Progress(tuple(entry["accepted"]), entry["lost"])
                for position, entry in value.get("rest", {}).items()
            },
            FINGERPRINT_OCTETS if has_full_width else _FORMAT_1_FINGERPRINT_OCTETS,
        )
        if len(fingerprints) != block.width * len(states) or not set(states) <= {ord(state) for state in RowState}:
            raise ValueError(f"{len(block.states)} states and {len(block.fingerprints)} octets of fingerprints")
        return block


class LedgerStore:
    """Reads and writes the head record and the blocks of one task's ledger.

    A failed request is retried for 7.5 s, since mail that cannot be recorded must not be sent.

    Args:
        store: the task's state store.

    Raises:
        LedgerError: from every method but `delete_blocks`: the store fails, or its content cannot be read.
    """

    def __init__(self, store: StateStore) -> None:
        self._store = store
        #: The generation whose blocks are read and written; see `Ledger.generation`.
        self.generation = 0

    def read_head(self) -> dict[str, Any]:
        """Return the head record that `write_head` wrote last; empty for the first attempt."""
        head = self._with_retries(lambda: self._store.get(HEAD))
        if head is None:
            return {}
        version = head.get("format") if isinstance(head, dict) else type(head).__name__
        if not isinstance(head, dict) or version not in _READABLE_FORMATS:
            raise LedgerError(  # without the record itself, which may contain recipients
                f"The ledger of this task was written by another version of this package (format {version!r}).",
                remedy="Finish the run with that version, or start a new one.",
            )
        return head

    def write_head(
        self,
        run_state: RunState,
        max_tries: int | None,
        blocks: int,
        result: Mapping[str, Any] | None = None,
        rows: Block | None = None,
    ) -> None:
        """Write the state of the run.

        Args:
            run_state: how the attempt ended; `UNFINISHED` while it runs.
            max_tries: the task instance's `max_tries`; None: not known.
            blocks: the number of blocks; if a later attempt finds fewer, some have expired.
            result: the task's result without addresses, once it has succeeded; until then None.
            rows: the first block, if it is stored in the head record; else None.
        """
        head = {
            "format": FORMAT if rows is None else FORMAT_WITH_ROWS,
            "generation": self.generation,
            "standing": str(run_state),
            "max_tries": max_tries,
            "blocks": blocks,
            **({} if result is None else {"done": dict(result)}),
            **({} if rows is None else {"rows": rows.to_json()}),
        }
        self._with_retries(lambda: self._store.set(HEAD, head))

    def read_blocks(self, head: Mapping[str, Any]) -> dict[int, Block]:
        """Return every block of this generation, by its number.

        Args:
            head: the head record.

        Raises:
            LedgerError: there are fewer than the head record says, or one of them cannot be read.
        """
        if "rows" in head:
            return {0: _parse_block(head["rows"])}
        blocks: dict[int, Block] = {}
        while (block := self._read_block(len(blocks))) is not None:
            blocks[len(blocks)] = block
        if len(blocks) < head.get("blocks", 0):
            raise _expired_error()
        return blocks

    def read_block(self, number: int) -> Block:
        """Return a block of this generation.

        Raises:
            LedgerError: there is none, or it cannot be read.
        """
        block = self._read_block(number)
        if block is None:
            raise _expired_error()
        return block

    def _read_block(self, number: int) -> Block | None:
        value = self.get(str(number))
        return None if value is None else _parse_block(value)

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
            value: a JSON value.
            retention: how long it is kept; None: `[state_store] default_retention_days`.
        """
        key = f"{HEAD}/{self.generation}/{name}"
        self._with_retries(lambda: self._store.set(key, value, retention=retention))

    def delete_blocks(self, generation: int, blocks: int) -> None:
        """Delete the blocks of a generation; if the store fails, they remain until they expire.

        Args:
            generation: the number of the generation.
            blocks: the number of its blocks.
        """
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
                        remedy="See the API server's log. Mail that cannot be recorded is not sent.",
                        retryable=True,
                    ) from error
                time.sleep(delay)


def _parse_block(value: Any) -> Block:
    try:
        return Block.from_json(value)
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(f"The ledger of this task is damaged ({error}).", remedy="Start a new run.") from error


def _expired_error() -> LedgerError:
    return LedgerError(
        "Part of the ledger of this task has expired ([state_store] default_retention_days): it is not known which "
        "recipients already have the mail.",
        remedy="Check the report of the merge or the server's log, and start a new run for the other recipients.",
    )
