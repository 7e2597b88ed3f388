"""Non-blocking I/O: octets that do not count as sent cannot have been read by the peer."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest

from airflow_provider_smtpcm.errors import ConnectionLostError
from airflow_provider_smtpcm.smtp.transport import Transport


@contextlib.contextmanager
def line(tls: tuple[ssl.SSLContext, ssl.SSLContext] | None) -> Iterator[tuple[Transport, socket.socket]]:
    """A transport with small buffers, and its peer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
    if tls is not None:
        ends: list[ssl.SSLSocket] = []
        shake = threading.Thread(target=lambda: ends.append(tls[0].wrap_socket(theirs, server_side=True)))
        shake.start()
        ours = tls[1].wrap_socket(ours, server_hostname="127.0.0.1")
        shake.join()
        (theirs,) = ends
    wire = Transport(peer="mail.corp.example:25", timeout=1, sock=ours)
    wire.set_nonblocking()
    with theirs:
        yield wire, theirs
    wire.close()


@pytest.fixture(params=["clear text", "TLS"])
def connected(
    request: pytest.FixtureRequest, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> Iterator[tuple[Transport, socket.socket]]:
    """Both ends of a connection."""
    with line(tls_contexts if request.param == "TLS" else None) as both:
        yield both


def read_up_to(size: int, theirs: socket.socket) -> bytes:
    """What arrives, up to this many octets or until nothing comes for a while."""
    found = b""
    theirs.settimeout(0.3)
    with contextlib.suppress(TimeoutError):
        while len(found) < size:
            found += theirs.recv(65536)
    return found


def test_what_did_not_count_as_sent_was_not_read(connected: tuple[Transport, socket.socket]) -> None:
    """Otherwise a final dot that was sent would count as not sent, and its mail would be sent again."""
    wire, theirs = connected
    text = bytes(range(256)) * 40_000
    sent = wire.send_some(text)
    assert 0 < sent < len(text)
    assert read_up_to(len(text), theirs) == text[:sent]


def test_a_line_that_broke_is_lost_in_both_directions(connected: tuple[Transport, socket.socket]) -> None:
    """At the latest the second time, since the first one may only find out."""
    wire, theirs = connected
    theirs.close()
    with pytest.raises(ConnectionLostError):
        list(iter(lambda: wire.send_some(b"x" * 1000), None))
    with pytest.raises(ConnectionLostError):
        wire.receive_some()


def test_nothing_is_waited_for(connected: tuple[Transport, socket.socket]) -> None:
    """Neither a reply nor room to write."""
    wire, _ = connected
    wire.receive_some()
    while wire.send_some(b"x" * 100_000):
        pass
    assert wire.send_some(b"x" * 100_000) == 0


def test_the_rest_goes_where_it_was_left(connected: tuple[Transport, socket.socket]) -> None:
    """However many times there was no room for it."""
    wire, theirs = connected
    text = bytes(range(251)) * 4_000
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(read_up_to(len(text), theirs)))
    reader.start()
    at = 0
    while at < len(text):
        at += wire.send_some(memoryview(text)[at : at + 65536])
    reader.join()
    assert found == [text]


def test_an_answer_of_many_records_is_taken_in_whole(connected: tuple[Transport, socket.socket]) -> None:
    """What TLS has decrypted, no `poll` shows."""
    wire, theirs = connected
    theirs.sendall(b"250-yes\r\n" * 3000 + b"250 yes\r\n")
    wire._sock.settimeout(1)
    wire.receive_some()
    wire.set_nonblocking()
    pending = wire._sock.pending() if isinstance(wire._sock, ssl.SSLSocket) else 0
    assert pending == 0
    assert wire.replies.pending > 0
