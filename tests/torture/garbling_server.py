"""A mail server that sends any octets instead of one of its replies, and then ends in some way, or continues.

It knows when it has a message in full, so that a test can tell whether one that it has is reported as not sent.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import trustme

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from tests.smtp.dialogue import Ears
from tests.torture.listening import Listening

_MESSAGE_ID = re.compile(rb"^Message-ID: (<.*>)\r$", re.MULTILINE)


class Step(StrEnum):
    """What is garbled."""

    GREETING = "the greeting"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    BEFORE_TLS = "what is slipped in before TLS"
    HANDSHAKE = "the handshake"
    EHLO_IN_TLS = "EHLO within TLS"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    MESSAGE = "the middle of a message"
    FINAL_DOT = "the final dot"
    QUIT = "QUIT"


class Ending(StrEnum):
    """What follows the garbage."""

    GO_ON = "the reply that was due"
    HANG_UP = "the connection is closed"
    HALF_CLOSE = "nothing more is said, and still listened"
    RESET = "the connection is reset"
    SILENCE = "nothing"


class Pace(StrEnum):
    """How the garbage comes."""

    WHOLE = "whole"
    OCTETS = "one octet at a time"
    DRIPS = "an octet each tenth of a second"
    ENDLESS = "over and over again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """What is sent instead of a reply, and how.

    Args:
        only: at which time that the step comes up, over all connections, counted from 1; None: every time.
    """

    step: Step
    octets: bytes
    pace: Pace = Pace.WHOLE
    ending: Ending = Ending.HANG_UP
    only: int | None = None


class GarblingServer(Listening):
    """A server that is right in all but one thing.

    Args:
        garbage: that thing.
        offers: the extensions; in clear text STARTTLS as well, where that is what leads to the garbage.
    """

    def __init__(self, garbage: Garbage, *, offers: tuple[str, ...] = ("8BITMIME",)) -> None:
        super().__init__()
        self.garbage = garbage
        self._offers = offers
        self._times: Counter[Step] = Counter()
        self._lock = threading.Lock()
        self._encrypts = garbage.step in (Step.STARTTLS, Step.BEFORE_TLS, Step.HANDSHAKE, Step.EHLO_IN_TLS)
        #: Octets of garbage that were sent.
        self.said = 0
        #: When the garbage first began (`time.monotonic`); None until then.
        self.garbled_at: float | None = None
        #: The Message-ID of each complete message, whatever the reply to it.
        self.received: list[str] = []
        #: Those of messages with a positive reply.
        self.accepted: list[str] = []

    def manager(self, **settings: object) -> SmtpConnectionManager:
        """How to reach it: with a short timeout, unless a test says otherwise."""
        defaults = {
            "host": "127.0.0.1",
            "port": self.port,
            "ssl_mode": "starttls" if self._encrypts else "none",
            "timeout": 1.0,
            "final_reply_timeout": 1.0,
        }
        return SmtpConnectionManager(**{**defaults, **settings})  # type: ignore[arg-type]

    def converse(self, peer: socket.socket) -> None:
        """Serve a normal session, except for the garbage."""
        peer.settimeout(60)
        conversation = _Conversation(self, peer)
        with contextlib.suppress(OSError, ValueError, _OverError):
            conversation.hold()
        conversation.peer.close()  # it may be another one by now, which speaks TLS

    def due(self, step: Step) -> bool:
        """Whether the garbage is due."""
        if step is not self.garbage.step:
            return False
        with self._lock:
            self._times[step] += 1
            return self.garbage.only in (None, self._times[step])


class _OverError(Exception):
    """The session has ended."""


class _Conversation:
    """One connection."""

    def __init__(self, server: GarblingServer, peer: socket.socket) -> None:
        self._server = server
        self._garbage = server.garbage
        self.peer = peer
        self._ears = Ears(peer)
        self._encrypted = False

    def hold(self) -> None:
        self._say(Step.GREETING, b"220 mail.corp.example ESMTP\r\n")
        while line := self._ears.readline():
            match line[:4].upper().strip():
                case b"EHLO":
                    self._say(Step.EHLO_IN_TLS if self._encrypted else Step.EHLO, self._hello())
                case b"STAR":
                    self._encrypt()
                case b"MAIL":
                    self._say(Step.MAIL, b"250 2.1.0 ok\r\n")
                case b"RCPT":
                    self._say(Step.RCPT, b"250 2.1.5 ok\r\n")
                case b"DATA":
                    self._take_message()
                case b"QUIT":
                    self._say(Step.QUIT, b"221 2.0.0 bye\r\n")
                    raise _OverError
                case _:
                    self.peer.sendall(b"250 2.0.0 ok\r\n")

    def _hello(self) -> bytes:
        offers = [*self._server._offers, *(["STARTTLS"] if self._server._encrypts and not self._encrypted else [])]
        lines = ["mail.corp.example", *offers]
        return "".join(f"250{' ' if line is lines[-1] else '-'}{line}\r\n" for line in lines).encode()

    def _encrypt(self) -> None:
        go = b"220 2.0.0 go\r\n"
        if self._server.due(Step.BEFORE_TLS):
            self._garble(before=go)
        else:
            self._say(Step.STARTTLS, go)
        if self._server.due(Step.HANDSHAKE):
            self.peer.recv(1)
            self._garble()
        self.peer = _tls_of_server().wrap_socket(self.peer, server_side=True)
        self._server.watch(self.peer)
        self._ears = Ears(self.peer)
        self._encrypted = True

    def _take_message(self) -> None:
        go_on = b"354 go on\r\n"
        if self._server.due(Step.MESSAGE):
            self._garble(before=go_on)
        else:
            self._say(Step.DATA, go_on)
        message = self._ears.message()
        if message is None:
            raise _OverError
        found = _MESSAGE_ID.search(message)
        message_id = found[1].decode() if found else ""
        self._server.received.append(message_id)
        if self._say(Step.FINAL_DOT, b"250 2.6.0 queued\r\n"):
            self._server.accepted.append(message_id)

    def _say(self, step: Step, reply: bytes) -> bool:
        """Send it, or the garbage instead; return whether it was sent."""
        garbled = self._server.due(step)
        if garbled:
            self._garble()
        self.peer.sendall(reply)
        return not garbled

    def _garble(self, *, before: bytes = b"") -> None:
        """Send the garbage after a reply, or alone, and end as configured."""
        octets, pace = self._garbage.octets, self._garbage.pace
        if pace is Pace.WHOLE:
            self._send(before + octets)  # in one segment, so that it is there when the reply is read
        else:
            self._send(before)
        if self._server.garbled_at is None:
            self._server.garbled_at = time.monotonic()
        if pace is Pace.ENDLESS:
            block = octets * (65536 // len(octets) + 1)
            while True:
                self._send(block)
        if pace in (Pace.OCTETS, Pace.DRIPS):
            for octet in octets:
                self._send(bytes((octet,)))
                time.sleep(0.1 if pace is Pace.DRIPS else 0.0005)
        self._end()

    def _end(self) -> None:
        match self._garbage.ending:
            case Ending.GO_ON:
                return
            case Ending.HALF_CLOSE:
                self.peer.shutdown(socket.SHUT_WR)
            case Ending.RESET:
                self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if self._garbage.ending in (Ending.HALF_CLOSE, Ending.SILENCE):
            while self.peer.recv(65536):
                pass
        raise _OverError

    def _send(self, octets: bytes) -> None:
        self.peer.sendall(octets)
        self._server.said += len(octets)


@cache
def _authority() -> trustme.CA:
    return trustme.CA()


@cache
def _tls_of_server() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority().issue_cert("127.0.0.1").configure_cert(context)
    return context


@cache
def tls_of_client() -> ssl.SSLContext:
    """What trusts the server."""
    context = ssl.create_default_context()
    _authority().configure_trust(context)
    return context
