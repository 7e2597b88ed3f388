"""A relay that follows a schedule of faults, step by step, and remembers what it really took responsibility for.

It answers each command as it comes to it. When a client hangs up on it although nothing was amiss, it counts that too:
on a machine that is too busy a time limit may pass although the relay did nothing wrong.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from tests.smtp.dialogue import Ears
from tests.torture.listening import Listening

#: What the client waits for, in seconds; LATE is later than that.
TIMEOUT = 1.0
_SLOW, _LATE = 0.03, 1.3 * TIMEOUT
_GARBAGE = b"\x00\xff!? SMTP garbled \x1b[0m\r\n"
_MESSAGE_ID = re.compile(rb"^Message-ID: (<.*>)\r$", re.MULTILINE)


class Step(StrEnum):
    """Where in the session a fault may happen."""

    GREETING = "greeting"
    EHLO = "EHLO"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    MESSAGE = "the middle of the message"
    DOT = "the final dot, before it is stored"
    STORED = "the final dot, after it was stored"
    QUIT = "QUIT"


class Fault(StrEnum):
    """The faults."""

    TRANSIENT = "451"
    PERMANENT = "554"
    CLOSING = "421"
    SLOW = "a little later"
    LATE = "later than anybody waits"
    DROP = "the connection is closed"
    RESET = "the connection is reset"
    HALF_CLOSE = "nothing more is said, and the client is told so"
    GARBLE = "garbage"
    NEVER = "nothing more is said"
    KILL = "the client's process is killed"


ANSWERS = {
    Fault.TRANSIENT: b"451 4.3.0 Try again later\r\n",
    Fault.PERMANENT: b"554 5.7.0 No\r\n",
    Fault.CLOSING: b"421 4.3.2 Service not available\r\n",
}
#: What makes the client wait until its deadline.
_SILENT = frozenset({Fault.LATE, Fault.NEVER})
#: What loses the reply, or delays it until the client has gone.
_LOSES = frozenset({Fault.LATE, Fault.DROP, Fault.RESET, Fault.HALF_CLOSE, Fault.GARBLE, Fault.NEVER})
#: After these a mail may have arrived, or not.
_DOUBTFUL = frozenset({Step.MESSAGE, Step.DOT, Step.STORED})


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault of a schedule.

    Args:
        step: where.
        fault: what.
        nth: at which time that the step comes up, over all connections and tries, from 1; 0: each time.
    """

    step: Step
    fault: Fault
    nth: int = 1


def loses_an_answer(planned: Planned) -> bool:
    """Whether the client may have handed a mail over and not hear what became of it.

    Where a socket is closed with the message unread, the system resets the connection, and may drop the 421 before it.
    """
    unread = planned.step is Step.MESSAGE and planned.fault is Fault.CLOSING
    return planned.step in _DOUBTFUL and (planned.fault in _LOSES or unread)


def possible(step: Step, fault: Fault) -> bool:
    """Whether a relay can do that without lying: one that has stored a mail and refuses it deceives any client."""
    return fault is not Fault.KILL and not (step is Step.STORED and fault in ANSWERS)


class FaultyRelay(Listening):
    """Any number of connections, one thread each.

    Args:
        schedule: its faults.
        pipelining: whether it offers that.
        wants_any_message: whether it answers DATA with 354 although it took no recipient (RFC 2920 3.1).
        small_buffers: whether a long message has to wait for it to read.
        kill: what `Fault.KILL` does.
    """

    def __init__(
        self,
        schedule: Iterable[Planned] = (),
        *,
        pipelining: bool = True,
        wants_any_message: bool = False,
        small_buffers: bool = False,
        kill: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        self._schedule = tuple(schedule)
        self._times: Counter[Step] = Counter()
        self._lock = threading.Lock()
        self.pipelining = pipelining
        self.wants_any_message = wants_any_message
        self.kill = kill
        #: Each fault that happened, once per occurrence.
        self.happened: Counter[Planned] = Counter()
        #: Message-ID and recipient of each copy that it took responsibility for.
        self.stored: Counter[tuple[str, str]] = Counter()
        #: How many times a client hung up without QUIT although its connection had no fault.
        self.deserted = 0
        if small_buffers:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)

    def due(self, step: Step) -> Fault | None:
        """The fault that is due at this step; None if there is none."""
        with self._lock:
            self._times[step] += 1
            for planned in self._schedule:
                if planned.step is step and planned.nth in (0, self._times[step]):
                    self.happened[planned] += 1
                    return planned.fault
        return None

    @property
    def falls_silent(self) -> bool:
        """Whether its schedule makes a client wait for nothing."""
        return any(planned.fault in _SILENT for planned in self._schedule)

    def repair(self) -> None:
        """From now on there are no faults."""
        with self._lock:
            self._schedule = ()

    def take(self, message: bytes, recipients: Iterable[str]) -> None:
        """Take responsibility."""
        found = _MESSAGE_ID.search(message)
        with self._lock:
            self.stored.update((found[1].decode() if found else "", recipient) for recipient in recipients)

    def desert(self) -> None:
        """A client left without QUIT."""
        with self._lock:
            self.deserted += 1

    def copies(self, recipient: str) -> int:
        """How many copies a recipient got, whatever their Message-ID."""
        return sum(copies for (_, to), copies in self.stored.items() if to == recipient)

    def converse(self, peer: socket.socket) -> None:
        """Serve one session."""
        peer.settimeout(60)
        conversation = _Conversation(self, peer)
        with contextlib.suppress(_OverError):
            try:
                conversation.hold()
            finally:
                if not (conversation.amiss or conversation.quit):
                    self.desert()


class _OverError(Exception):
    """The session has ended."""


class _Conversation:
    """One connection."""

    def __init__(self, relay: FaultyRelay, peer: socket.socket) -> None:
        self._relay = relay
        self._peer = peer
        self._ears = Ears(peer, at_once=65536)
        self._begun = False
        self._recipients: list[str] = []
        #: Whether a fault has happened on it.
        self.amiss = False
        #: Whether the client sent QUIT.
        self.quit = False

    def hold(self) -> None:
        self._say(Step.GREETING, b"220 mail.corp.example ESMTP\r\n")
        while line := self._ears.readline():
            self._answer(line.decode().rstrip("\r\n"))

    def _answer(self, command: str) -> None:
        match command[:4].upper():
            case "EHLO":
                offers = b"250-PIPELINING\r\n" if self._relay.pipelining else b""
                self._say(Step.EHLO, b"250-mail.corp.example\r\n" + offers + b"250 SIZE 0\r\n")
            case "MAIL":
                self._begun = self._say(Step.MAIL, b"250 2.1.0 ok\r\n")
            case "RCPT" if self._begun:
                if self._say(Step.RCPT, b"250 2.1.5 ok\r\n"):
                    self._recipients.append(command[command.index("<") + 1 : command.index(">")])
            case "DATA" if self._recipients or (self._begun and self._relay.wants_any_message):
                if self._say(Step.DATA, b"354 go on\r\n"):
                    self._hear_message()
                self._forget()
            case "RCPT" | "DATA":
                self._peer.sendall(b"503 5.5.1 Not now\r\n")
                if command == "DATA":
                    self._forget()
            case "QUIT":
                self.quit = True
                self._say(Step.QUIT, b"221 2.0.0 bye\r\n")
                raise _OverError
            case _:
                self._forget()
                self._peer.sendall(b"250 2.0.0 ok\r\n")

    def _forget(self) -> None:
        self._begun = False
        self._recipients = []

    def _hear_message(self) -> None:
        fault = self._relay.due(Step.MESSAGE)
        if fault is not None:
            self._peer.recv(1, socket.MSG_PEEK)
        answered = fault is not None and not self._go_wrong(fault)
        message = self._ears.message()
        if message is None:
            raise _OverError
        if answered:
            return  # the reply to the message was sent in the middle of it
        if not self._recipients:
            self._peer.sendall(b"554 5.5.1 No valid recipients\r\n")
            return
        fault = self._relay.due(Step.DOT)
        if fault is None or self._go_wrong(fault):
            self._relay.take(message, self._recipients)
            self._say(Step.STORED, b"250 2.6.0 queued\r\n")

    def _say(self, step: Step, reply: bytes) -> bool:
        """Send it, unless a fault is due; return whether it was sent."""
        fault = self._relay.due(step)
        if fault is not None and not self._go_wrong(fault):
            return False
        self._peer.sendall(reply)
        return True

    def _go_wrong(self, fault: Fault) -> bool:
        """Cause it; return whether the session continues as usual."""
        self.amiss = self.amiss or fault is not Fault.SLOW
        match fault:
            case Fault.SLOW | Fault.LATE:
                time.sleep(_SLOW if fault is Fault.SLOW else _LATE)
                return True
            case Fault.TRANSIENT | Fault.PERMANENT | Fault.CLOSING:
                if fault is Fault.CLOSING and self._has_hung_up():
                    self._relay.desert()
                self._peer.sendall(ANSWERS[fault])
                if fault is not Fault.CLOSING:
                    self.amiss = False  # it was a reply like others
                    return False
            case Fault.GARBLE:
                self._peer.sendall(_GARBAGE)
                self._drain()
            case Fault.HALF_CLOSE:
                self._peer.shutdown(socket.SHUT_WR)
                self._drain()
            case Fault.NEVER:
                self._drain()
            case Fault.RESET:
                self._peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            case Fault.KILL:
                assert self._relay.kill is not None
                self._relay.kill()
        raise _OverError

    def _has_hung_up(self) -> bool:
        """Whether the client has gone, and left nothing to read."""
        readable, _, _ = select.select([self._peer], [], [], 0)
        return bool(readable) and not self._peer.recv(1, socket.MSG_PEEK)

    def _drain(self) -> None:
        """Read, and neither answer nor store anything, until the client has had enough."""
        while self._peer.recv(65536):
            pass
