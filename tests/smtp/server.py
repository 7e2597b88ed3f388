"""A whole mail server on a loopback port: it follows RFC 5321, 2920 and 3030 unless a test has something else in mind.

It answers each command as it comes to it, so that a group is answered as its commands one by one would be, and it
remembers what it took responsibility for. A reply is sent with a system call of its own, and a connection is closed
with whatever is still unread on it, which resets it: neither makes things easy for the client.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from tests.smtp.dialogue import Ears, hang_up

#: Instead of a reply: the connection is closed.
HANG_UP = "hang up"
#: Instead of the final reply: the message is stored, and the connection is closed.
STORE_AND_HANG_UP = "store and hang up"
#: The mail that is not a command: what a decision about the message itself is asked for by.
MESSAGE = "(message)"

#: What to reply to a command line, or to `MESSAGE`; None: the server's usual reply.
Decide = Callable[[str], str | None]

_MESSAGE_ID = re.compile(rb"^Message-ID: (<.*>)\r$", re.MULTILINE)


class Habit(StrEnum):
    """What happens to commands that are sent before the reply to the previous one."""

    #: They are answered in order.
    GOOD = "good"
    #: They are lost.
    FORGETS = "forgets"
    #: They are a violation: the server says so and closes the connection.
    OBJECTS = "objects"
    #: They are a violation, and the connection is closed without a reply.
    HANGS_UP = "hangs up"


class Limit(StrEnum):
    """How a connection ends after its maximum number of messages."""

    HANG_UP = "hang up"
    SAY_421_UNASKED = "421 behind the answer"
    SAY_421_TO_MAIL = "421 to the next MAIL"


@dataclass(frozen=True, slots=True)
class SessionLimit:
    """A number of commands after which a connection gets a refusal to each further one."""

    #: What the command begins with: MAIL, RCPT or DATA.
    command: str
    count: int
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A message that the server took responsibility for."""

    sender: str
    recipients: tuple[str, ...]
    message: bytes

    @property
    def message_id(self) -> str:
        """Its Message-ID."""
        found = _MESSAGE_ID.search(self.message)
        return found[1].decode() if found else ""


class Server:
    """Any number of connections, one thread each.

    Args:
        decide: see `Decide`; called in the connection's thread.
        offers: the extensions.
        habit: what pipelining comes to.
        per_connection: messages that a connection may carry.
        limit: how it ends after that.
        session_limit: what a connection may ask for before it is refused, without being closed.
        tls: speak it from the start.
        at_once: octets that are read at the most, when more are needed; the system's buffers are small then.
        pause: seconds before that.
        port: the one to listen on; 0: any.
    """

    def __init__(
        self,
        decide: Decide | None = None,
        *,
        offers: tuple[str, ...] = ("PIPELINING", "SIZE 0", "8BITMIME"),
        habit: Habit = Habit.GOOD,
        per_connection: int | None = None,
        limit: Limit = Limit.HANG_UP,
        session_limit: SessionLimit | None = None,
        tls: ssl.SSLContext | None = None,
        at_once: int | None = None,
        pause: float = 0,
        port: int = 0,
    ) -> None:
        self._decide = decide
        self._offers = offers
        self._habit = habit
        self._per_connection = per_connection
        self._limit = limit
        self._session_limit = session_limit
        self._tls = tls
        self._at_once = at_once
        self._pause = pause
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        if at_once:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._peers: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self.stored: list[Stored] = []
        #: Set when the test is over.
        self.over = threading.Event()
        #: The lines that each connection sent, without message text.
        self.heard: list[list[str]] = []

    def manager(self, **settings: object) -> SmtpConnectionManager:
        """How to reach it: in clear text, unless a test says otherwise."""
        defaults = {"host": "127.0.0.1", "port": self.port, "ssl_mode": "none", "timeout": 60.0}
        return SmtpConnectionManager(**{**defaults, **settings})  # type: ignore[arg-type]

    @property
    def commands(self) -> list[str]:
        """The lines of all connections, one connection after the other."""
        return [line for lines in self.heard for line in lines]

    def copies(self, message_id: str) -> list[str]:
        """The recipients of this mail; one who got it twice is listed twice."""
        return [one for stored in self.stored if stored.message_id == message_id for one in stored.recipients]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        hang_up(self._listener)
        self._threads[0].join(60)
        for peer in self._peers:
            hang_up(peer)
        for thread in self._threads:
            thread.join(60)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                self._peers.append(peer)
                self.heard.append([])
                thread = threading.Thread(target=self._serve, args=(peer, self.heard[-1]), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, peer: socket.socket, heard: list[str]) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError, _HungUpError):
            if self._tls is not None:
                peer = self._tls.wrap_socket(peer, server_side=True)
                self._peers.append(peer)
            _Conversation(self, peer, heard).hold()
        peer.close()

    def decided(self, about: str) -> str | None:
        """The reply that the test wants."""
        return self._decide(about) if self._decide else None


class _HungUpError(Exception):
    """The session has ended."""


class _Conversation:
    """One connection."""

    def __init__(self, server: Server, peer: socket.socket, heard: list[str]) -> None:
        self._server = server
        self._peer = peer
        self._heard = heard
        self._ears = Ears(peer, at_once=server._at_once or 65536, pause=server._pause)
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._chunks = b""
        self._carried = 0
        self._asked = 0

    def hold(self) -> None:
        self._say(self._server.decided("CONNECT") or "220 mail.corp.example ESMTP")
        while line := self._ears.readline():
            command = line.decode().removesuffix("\r\n")
            self._heard.append(command)
            self._answer(command)

    def _answer(self, command: str) -> None:
        match command.partition(" ")[0].upper():
            case "EHLO":
                self._reply(command, "\r\n".join(("250-mail.corp.example", *self._offered())))
            case "MAIL":
                self._take_mail(command)
            case "RCPT":
                if self._sender is None:
                    self._reply("", "503 5.5.1 no MAIL")
                elif self._reply(command, "250 2.1.5 ok"):
                    self._recipients.append(_address(command))
            case "DATA":
                self._take_data(command)
            case "BDAT":
                self._take_chunk(command)
            case "RSET":
                self._forget()
                self._reply(command, "250 2.0.0 ok")
            case "QUIT":
                self._reply(command, "221 2.0.0 bye")
                raise _HungUpError
            case _:
                self._reply(command, "500 5.5.2 what?")

    def _offered(self) -> list[str]:
        offers = self._server._offers or ("8BITMIME",)
        return [f"250{'-' if offer is not offers[-1] else ' '}{offer}" for offer in offers]

    def _take_mail(self, command: str) -> None:
        if self._carried == self._server._per_connection:
            self._say("421 4.3.2 that was enough")
            raise _HungUpError
        if self._sender is not None:
            self._reply("", "503 5.5.1 nested MAIL")
        elif self._reply(command, "250 2.1.0 ok"):
            self._sender = _address(command)

    def _take_data(self, command: str) -> None:
        if self._sender is None:
            self._reply("", "503 5.5.1 no MAIL")
        elif self._reply(command, "354 go on" if self._recipients else "554 5.5.1 no valid recipients"):
            message = self._ears.message()
            if message is None:
                raise _HungUpError
            self._take(re.sub(rb"(\A|\r\n)\.", rb"\1", message))

    def _take_chunk(self, command: str) -> None:
        _, size, *last = command.split()
        decided = self._server.decided(command)
        octets = self._ears.read(int(size))
        if len(octets) < int(size) or decided == HANG_UP:
            raise _HungUpError
        if decided is not None or not self._recipients:
            self._say(decided or "503 5.5.1 no valid recipients")
            return
        self._chunks += octets
        if last:
            self._take(self._chunks)
        else:
            self._say("250 2.0.0 go on")

    def _take(self, message: bytes) -> None:
        decided = self._server.decided(MESSAGE)
        if decided == HANG_UP:
            raise _HungUpError
        if self._recipients and (decided is None or decided == STORE_AND_HANG_UP or decided.startswith("2")):
            stored = Stored(sender=self._sender or "", recipients=tuple(self._recipients), message=message)
            self._server.stored.append(stored)
        if decided == STORE_AND_HANG_UP:
            raise _HungUpError
        self._carried += 1
        at_the_limit = self._carried == self._server._per_connection
        answer = decided or "250 2.6.0 queued"
        if at_the_limit and self._server._limit is Limit.SAY_421_UNASKED:
            answer += "\r\n421 4.3.2 that was enough"
        self._mind_the_group()
        self._say(answer)
        self._forget()
        if answer.startswith("421") or (at_the_limit and self._server._limit is not Limit.SAY_421_TO_MAIL):
            raise _HungUpError

    def _forget(self) -> None:
        self._sender = None
        self._recipients = []
        self._chunks = b""

    def _reply(self, command: str, usual: str) -> bool:
        """Send the reply; return whether it was positive."""
        answer = self._refusal(command) or (self._server.decided(command) if command else None) or usual
        if answer == HANG_UP:
            raise _HungUpError
        self._mind_the_group()
        self._say(answer)
        if answer.startswith("421"):
            raise _HungUpError
        return answer[0] in "23"

    def _refusal(self, command: str) -> str | None:
        limit = self._server._session_limit
        if limit is None or not command.startswith(limit.command):
            return None
        self._asked += 1
        return limit.says if self._asked > limit.count else None

    def _mind_the_group(self) -> None:
        """Find what was sent before the reply could be known."""
        habit = self._server._habit
        if habit is Habit.GOOD or not self._ears.waiting(0):
            return
        if habit is Habit.OBJECTS:
            self._say("554 5.5.0 SMTP synchronization error")
        if habit is not Habit.FORGETS:
            raise _HungUpError
        self._ears.forget()

    def _say(self, answer: str) -> None:
        self._peer.sendall(answer.encode() + b"\r\n")


def _address(command: str) -> str:
    return command[command.index("<") + 1 : command.index(">")]
