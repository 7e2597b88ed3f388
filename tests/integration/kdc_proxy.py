"""A proxy in front of a KDC: a second address of it, whose answers can be held back."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

from demo.processes import LOOPBACK

_LIMIT = 1 << 20


class KdcProxy:
    """The proxy as a context manager. A client of Kerberos opens a TCP connection for each request.

    Args:
        address: of the KDC.
        silent_after: how many requests are answered before the next answer is held back until `answer`; None: all. In
            the second request, a client proves its password.
    """

    def __init__(self, address: tuple[str, int], *, silent_after: int | None = None) -> None:
        self._address = address
        self._silent_after = silent_after
        self._may_answer = threading.Event()
        #: Set while an answer of the KDC is held back.
        self.is_holding = threading.Event()
        self._listener = socket.create_server((LOOPBACK, 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.port: int = self._listener.getsockname()[1]
        #: How many requests it has forwarded.
        self.requests = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.answer()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def answer(self) -> None:
        """Answer what has been asked, and everything from now on."""
        self._may_answer.set()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with client, contextlib.suppress(OSError):
                    self._forward(client)

    def _forward(self, client: socket.socket) -> None:
        request = _receive(client)
        if not request:
            return
        self.requests += 1
        with socket.create_connection(self._address) as kdc:
            kdc.sendall(request)
            answer = _receive(kdc)
        if self._silent_after is not None and self.requests > self._silent_after:
            self.is_holding.set()
            self._may_answer.wait()
        client.sendall(answer)


def _receive(stream: socket.socket) -> bytes:
    """Read a message: four octets with its length, then the message (RFC 4120 7.2.2)."""
    message = b""
    while len(message) < 4 or len(message) < 4 + int.from_bytes(message[:4]):
        octets = stream.recv(_LIMIT)
        if not octets:
            return b""
        message += octets
    return message
