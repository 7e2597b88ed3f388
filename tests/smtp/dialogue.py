"""A server that follows a script, over a real socket: recorded dialogues replayed whole, line by line, or byte by byte.

A script has one step a line:

    S: 220 ready          the server says this line
    C: EHLO *             the client must say a line of this pattern (fnmatch); of a whole group, one a step
    QUIET                 the client must say nothing more for 0.01 seconds
    MESSAGE               the client sends a message, up to and with the final dot
    CHUNK                 the client sends as many octets as its last line, a BDAT, announced
    PART                  the client sends the first 1000 octets of a message
    PAUSE                 the server waits for 0.3 seconds, whatever the client says; see `Dialogue.go_on`
    DEAF                  the server reads nothing more, until the test is over
    HANG                  the server says nothing more, until the client hangs up
    DRIP 250 ok           the server says this line an octet every 0.15 seconds
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
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from types import TracebackType
from typing import Self


class Pace(StrEnum):
    """In what pieces the server's lines arrive."""

    WHOLE = "whole"
    LINE = "line"
    BYTE = "byte"


class Ears:
    """What the client says, line by line or in so many octets.

    Args:
        peer: the connection.
        at_once: octets that are taken from it at the most, when more are needed.
        pause: seconds before that.
    """

    def __init__(self, peer: socket.socket, *, at_once: int = 65536, pause: float = 0) -> None:
        self._peer = peer
        self._at_once = at_once
        self._pause = pause
        self._octets = bytearray()

    def readline(self) -> bytes:
        """A line with its end; only a part of it if the client hung up."""
        return self._until(lambda: self._octets.find(b"\n") + 1)

    def read(self, size: int) -> bytes:
        """This many octets; fewer if the client hung up."""
        return self._until(lambda: size if len(self._octets) >= size else 0)

    def message(self) -> bytes | None:
        """Everything before the final dot; None if the client hung up before."""
        lines: list[bytes] = []
        while (line := self.readline()) != b".\r\n":
            if not line.endswith(b"\n"):
                return None
            lines.append(line)
        return b"".join(lines)

    def waiting(self, seconds: float) -> bool:
        """Whether the client sends something more within the time."""
        try:
            return bool(self._octets) or bool(select.select([self._peer], [], [], seconds)[0])
        except ValueError as error:  # it was closed at this end
            raise ConnectionResetError from error

    def forget(self) -> None:
        """Discard what has arrived and was not read."""
        while select.select([self._peer], [], [], 0)[0] and self._peer.recv(65536):
            pass
        self._octets.clear()

    def _until(self, end: Callable[[], int]) -> bytes:
        while not (size := end()):
            time.sleep(self._pause)
            received = self._peer.recv(self._at_once)
            if not received:
                size = len(self._octets)
                break
            self._octets += received
        taken = bytes(self._octets[:size])
        del self._octets[:size]
        return taken


class Dialogue:
    """One connection with a scripted server on a free loopback port.

    Args:
        script: see the module.
        pace: in what pieces the server's lines arrive.
        listener: where to wait for the client, if several dialogues share a port.
    """

    def __init__(self, script: str, pace: Pace = Pace.WHOLE, *, listener: socket.socket | None = None) -> None:
        self._steps = [line.strip() for line in script.strip().splitlines() if line.strip()]
        self._pace = pace
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self.serve, daemon=True)
        self.port: int = self._listener.getsockname()[1]
        #: Every line that the client sent, without message text.
        self.heard: list[str] = []
        #: Every complete message, as it was on the wire, without its final dot.
        self.messages: list[bytes] = []
        #: Where the client left the script.
        self.surprise: str | None = None
        #: Whether a client has come.
        self.connected = False
        #: Set when the server comes to a PAUSE.
        self.paused = threading.Event()
        #: A PAUSE begins when this is set; a test may clear it until something has happened.
        self.go_on = threading.Event()
        self.go_on.set()
        self._over = threading.Event()

    @property
    def patience(self) -> float:
        """How long a client waits for this server, in seconds: briefly if it is silent on purpose, else long enough."""
        is_silent = any(step.startswith(("HANG", "DRIP", "DEAF")) for step in self._steps)
        return 1.0 if is_silent else 60.0

    def start(self) -> None:
        """Wait for the client, in a thread."""
        self._thread.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        hang_up(self._listener)
        self._thread.join(60)
        if error is None:
            assert self.surprise is None, self.surprise

    def serve(self) -> None:
        """Wait for the client, and follow the script."""
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return
        self.connected = True
        peer.settimeout(60)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with peer, contextlib.suppress(ConnectionError, BrokenPipeError):
            self._follow(peer, Ears(peer))

    def _follow(self, peer: socket.socket, ears: Ears) -> None:
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
            if not self._listen(word, rest, ears) or not self._do(word, rest, peer):
                return

    def _listen(self, word: str, rest: str, ears: Ears) -> bool:
        """Wait for a step of the client; return False if it does something else."""
        match word:
            case "C:":
                return self._hear(ears, rest)
            case "QUIET":
                return not ears.waiting(0.01) or self._surprised("the script wants silence, the client goes on")
            case "MESSAGE":
                if (message := ears.message()) is not None:
                    self.messages.append(message)
            case "CHUNK":
                self.messages.append(ears.read(int(self.heard[-1].split()[1])))
            case "PART":
                ears.read(1000)
            case "HANG":
                while ears.readline():
                    pass
        return True

    def _do(self, word: str, rest: str, peer: socket.socket) -> bool:
        """Execute a step of the server; return False if the dialogue has ended."""
        match word:
            case "PAUSE":
                self.paused.set()
                self.go_on.wait(60)
                time.sleep(0.3)
            case "DEAF":
                self._over.wait(60)
            case "DRIP":
                for octet in rest.encode() + b"\r\n":
                    peer.sendall(bytes((octet,)))
                    time.sleep(0.15)
            case "ECHO":
                peer.sendall(_folded(rest, self.heard[-1]))
            case "SEND":
                peer.sendall(ast.literal_eval(rest))
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

    def _hear(self, ears: Ears, pattern: str) -> bool:
        line = ears.readline().decode().removesuffix("\r\n")
        self.heard.append(line)
        matches = fnmatch.fnmatchcase(line, pattern.replace("[", "[[]"))
        return matches or self._surprised(f"the script wants {pattern!r}, the client said {line!r}")

    def _surprised(self, by: str) -> bool:
        self.surprise = by
        return False


class Dialogues:
    """Several connections with scripted servers on one port, one after the other; further ones are refused.

    Args:
        scripts: one for each connection.
        pace: in what pieces the servers' lines arrive.
    """

    def __init__(self, *scripts: str, pace: Pace = Pace.WHOLE) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._each = [Dialogue(script, pace, listener=self._listener) for script in scripts]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def patience(self) -> float:
        """See `Dialogue.patience`; the least of all scripts."""
        return min(dialogue.patience for dialogue in self._each)

    @property
    def heard(self) -> list[list[str]]:
        """Every line that the client sent, without message text, for each connection."""
        return [dialogue.heard for dialogue in self._each]

    @property
    def messages(self) -> list[bytes]:
        """Every complete message, over all connections."""
        return [message for dialogue in self._each for message in dialogue.messages]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        hang_up(self._listener)
        self._thread.join(60)
        if error is None:
            surprises = [dialogue.surprise for dialogue in self._each if dialogue.surprise is not None]
            assert not surprises, surprises
            assert all(dialogue.connected for dialogue in self._each), "the client came too few times"

    def _serve(self) -> None:
        for dialogue in self._each:
            dialogue.serve()
        hang_up(self._listener)


def hang_up(sock: socket.socket) -> None:
    """Close a socket that another thread may be waiting for."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def _folded(code: str, text: str) -> bytes:
    """A reply of many short lines."""
    pieces = [f"{code}-{text[at : at + 36]}" for at in range(0, len(text), 36)]
    return "".join(f"{piece}\r\n" for piece in (*pieces, f"{code} end")).encode()
