"""A server that follows a script, over a real socket: recorded dialogues replayed whole, line by line, or byte by byte.

A script has one step a line:

    S: 220 ready          the server says this line
    C: EHLO *             the client must say a line of this pattern (fnmatch)
    MESSAGE               the client sends a message, up to and with the final dot
    PAUSE                 the server waits for 0.3 seconds, whatever the client says
    HANG                  the server says nothing more, until the client hangs up
    DRIP 250 ok           the server says this line an octet every 0.3 seconds
    SEND <python bytes>   the server sends these octets as they are
    ECHO 535              the server repeats the client's last line, in a reply of many short lines
    RESET                 the server resets the connection
    (the end)             the server hangs up
"""

from __future__ import annotations

import ast
import contextlib
import fnmatch
import itertools
import socket
import struct
import threading
import time
from enum import StrEnum
from types import TracebackType
from typing import BinaryIO, Self


class Pace(StrEnum):
    """In what pieces the server's words arrive."""

    WHOLE = "whole"
    LINE = "line"
    BYTE = "byte"


class Dialogue:
    """One connection with a scripted server on a free loopback port.

    Args:
        script: see the module.
        pace: in what pieces the server's words arrive.
        listener: where to wait for the client, if several dialogues share a port.
    """

    def __init__(self, script: str, pace: Pace = Pace.WHOLE, *, listener: socket.socket | None = None) -> None:
        self._steps = [line.strip() for line in script.strip().splitlines() if line.strip()]
        self._pace = pace
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.port: int = self._listener.getsockname()[1]
        #: Every line that the client said, message text aside.
        self.heard: list[str] = []
        #: Every message that came in full, as it stood on the wire, without its final dot.
        self.messages: list[bytes] = []
        #: Where the client left the script.
        self.surprise: str | None = None

    def start(self) -> None:
        """Wait for the client, in a thread."""
        self._thread.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self._thread.join(10)
        if error is None:
            assert self.surprise is None, self.surprise

    def _serve(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return
        peer.settimeout(20)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with peer, peer.makefile("rb") as lines, contextlib.suppress(ConnectionError, BrokenPipeError):
            self._follow(peer, lines)

    def _follow(self, peer: socket.socket, lines: BinaryIO) -> None:
        said = b""
        for step, following in itertools.pairwise((*self._steps, "")):
            word, _, rest = step.partition(" ")
            if word == "S:":
                said += rest.encode() + b"\r\n"
                if following.startswith("S:"):
                    continue
            if said:
                self._say(peer, said)
                said = b""
            if not self._do(word, rest, peer, lines):
                return

    def _do(self, word: str, rest: str, peer: socket.socket, lines: BinaryIO) -> bool:
        """One step; False where the dialogue is over."""
        time.sleep(0.3 if word == "PAUSE" else 0)
        match word:
            case "C:":
                return self._hear(lines, rest)
            case "MESSAGE":
                self._take_message(lines)
            case "DRIP":
                for octet in rest.encode() + b"\r\n":
                    peer.sendall(bytes((octet,)))
                    time.sleep(0.3)
            case "ECHO":
                peer.sendall(_folded(rest, self.heard[-1]))
            case "SEND":
                peer.sendall(ast.literal_eval(rest))
            case "HANG":
                while lines.readline():
                    pass
            case "RESET":
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                peer.close()
                return False
        return True

    def _say(self, peer: socket.socket, said: bytes) -> None:
        match self._pace:
            case Pace.WHOLE:
                pieces = [said]
            case Pace.LINE:
                pieces = said.splitlines(keepends=True)
            case Pace.BYTE:
                pieces = [bytes((octet,)) for octet in said]
        for piece in pieces:
            peer.sendall(piece)
            if len(pieces) > 1:
                time.sleep(0.0005)

    def _hear(self, lines: BinaryIO, pattern: str) -> bool:
        line = lines.readline().decode().removesuffix("\r\n")
        self.heard.append(line)
        if fnmatch.fnmatchcase(line, pattern.replace("[", "[[]")):
            return True
        self.surprise = f"the script wants {pattern!r}, the client said {line!r}"
        return False

    def _take_message(self, lines: BinaryIO) -> None:
        message = b""
        while (line := lines.readline()) != b".\r\n":
            if not line:
                return
            message += line
        self.messages.append(message)


def _folded(code: str, text: str) -> bytes:
    """A reply of many short lines."""
    pieces = [f"{code}-{text[at : at + 36]}" for at in range(0, len(text), 36)]
    return "".join(f"{piece}\r\n" for piece in (*pieces, f"{code} end")).encode()
