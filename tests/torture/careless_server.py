r"""A server that takes any line end for one: `\r\n`, `\n` and `\r`, and a lone dot between any two of them for the end.

SMTP smuggling needs servers like it: whatever may look like the end of a message to any server ends it here,
and what follows would be commands, and a mail of its own.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

from tests.torture.listening import Listening

_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")
_FINAL_DOT = re.compile(rb"(?:\A|\r\n|\n|\r)\.(?:\r\n|\n|\r(?!\Z))")
_PATH = re.compile(r"<([^\r\n]*)>(?: .*)?")
_HELLO = b"250-careless.corp.example\r\n250-PIPELINING\r\n250-SIZE\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A message with its envelope, octet by octet as it stood on the wire, its end included."""

    sender: str
    recipients: tuple[str, ...]
    wire: bytes


class CarelessServer(Listening):
    """It accepts everything from everyone."""

    def __init__(self) -> None:
        super().__init__()
        #: Every message, in no particular order.
        self.taken: list[Taken] = []
        #: What was sent where a command was expected, and is none.
        self.odd: list[str] = []

    def converse(self, peer: socket.socket) -> None:
        """Answer everything that can be answered by now, again and again."""
        peer.sendall(b"220 careless.corp.example ESMTP\r\n")
        conversation = _Conversation(self)
        while octets := peer.recv(1 << 18):
            peer.sendall(conversation.hear(octets))


class _Conversation:
    """One connection: octets in, answers out."""

    def __init__(self, server: CarelessServer) -> None:
        self._server = server
        self._octets = bytearray()
        self._in_message = False
        self._searched = 0
        self._sender = ""
        self._recipients: list[str] = []

    def hear(self, octets: bytes) -> bytes:
        """Everything that can be answered by now, answered."""
        self._octets += octets
        answers: list[bytes] = []
        while (answer := self._end_of_message() if self._in_message else self._command()) is not None:
            answers.append(answer)
        return b"".join(answers)

    def _end_of_message(self) -> bytes | None:
        found = _FINAL_DOT.search(self._octets, self._searched)
        if found is None:
            self._searched = max(0, len(self._octets) - 4)
            return None
        wire = self._take(found.end())
        self._searched, self._in_message = 0, False
        self._server.taken.append(Taken(sender=self._sender, recipients=tuple(self._recipients), wire=wire))
        return b"250 2.0.0 taken\r\n"

    def _command(self) -> bytes | None:
        found = _LINE_END.search(self._octets)
        if found is None:
            return None
        line = self._take(found.end())[: found.start()].decode("utf-8", "backslashreplace")
        verb, _, rest = line.partition(" ")
        match verb.upper():
            case "EHLO":
                return _HELLO
            case "MAIL" if path := _PATH.fullmatch(rest.removeprefix("FROM:")):
                self._sender, self._recipients = path[1], []
            case "RCPT" if path := _PATH.fullmatch(rest.removeprefix("TO:")):
                self._recipients.append(path[1])
            case "DATA":
                self._in_message = True
                return b"354 go on\r\n"
            case "RSET" | "QUIT":
                pass
            case _:
                self._server.odd.append(line)
                return b"500 5.5.2 what?\r\n"
        return b"250 2.0.0 ok\r\n"

    def _take(self, size: int) -> bytes:
        taken = bytes(self._octets[:size])
        del self._octets[:size]
        return taken
