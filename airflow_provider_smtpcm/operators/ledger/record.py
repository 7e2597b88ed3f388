"""What became of each row, in a few bytes: states in runs, and eight octets that tell rows apart."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

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
