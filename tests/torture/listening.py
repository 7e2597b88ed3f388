"""Servers on a free loopback port, with a thread for each connection, that come to an end without disturbing others."""

from __future__ import annotations

import contextlib
import socket
import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Listening(ABC):
    """A server as a context manager.

    Only the thread that reads from a socket closes it: if another one did, the system could give its number to a new
    socket, somebody else's, and the reader would read there.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._peers: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.port: int = self._listener.getsockname()[1]

    @abstractmethod
    def converse(self, peer: socket.socket) -> None:
        """Serve one connection; what goes wrong with its socket ends it."""

    def watch(self, peer: socket.socket) -> None:
        """End this socket too when the server ends; for one that took over a connection."""
        self._peers.append(peer)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _shut_down(self._listener)
        self._threads[0].join(60)
        for peer in self._peers:
            _shut_down(peer)
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _accept(self) -> None:
        with self._listener, contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._peers.append(peer)
                self._start(self._serve, peer)

    def _serve(self, peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            self.converse(peer)

    def _start(self, target: object, *arguments: socket.socket) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()


def _shut_down(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Not an SSLSocket's own, which would also have it forget that it is one.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
