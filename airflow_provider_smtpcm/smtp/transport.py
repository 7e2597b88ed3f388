"""Bytes to and from the server: connect, TLS, replies, deadlines. Knows no commands and no mail.

Not smtplib's: its reader restarts the clock with every octet that drips in, has no bound on a reply's length, and
keeps what a server (or somebody in the line) slipped in before TLS. Here a deadline covers a whole reply, and a whole
block written. What AUTH says is never logged.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from typing import Any

from airflow_provider_smtpcm.errors import (
    ConnectError,
    ConnectionLostError,
    NoAnswerError,
    Phase,
    ProtocolError,
    Reply,
)
from airflow_provider_smtpcm.smtp.replies import ReplyReader
from airflow_provider_smtpcm.smtp.tls import handshake_error
from airflow_provider_smtpcm.smtp.trace import LOG, Step, Trace

# folded: The addresses of a server's name, within a deadline. Knows no SMTP.


def look_up(host: str, port: int, deadline: float) -> list[tuple[int, tuple[str, int]]]:
    """The addresses of a name, each with its family, before the deadline (`time.monotonic`).

    The system's resolver knows no deadline, so it is waited for in a thread.

    Raises:
        ConnectError: the name service does not know it, or does not answer.
    """
    answer: list[tuple[int, tuple[str, int]]] = []
    problem = "no answer from the name service"

    def ask() -> None:
        nonlocal problem
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            problem = getattr(error, "strerror", None) or str(error)
        else:
            answer.extend(dict.fromkeys((family, address) for family, _, _, _, address in found))  # type: ignore[misc]

    resolver = threading.Thread(target=ask, daemon=True, name="smtpcm-name-service")
    resolver.start()
    resolver.join(max(0.0, deadline - time.monotonic()))
    if not answer:
        raise ConnectError(
            f"The name {host!r} cannot be resolved ({problem}).",
            remedy="Check 'SMTP server', and that this worker's name service knows it.",
        )
    return list(answer)


# folded: here began the module itself

log = logging.getLogger(__name__)

_DER = 2  # OpenSSL's number for it, which Python's `ssl` hides before 3.13
# What one write hands over at the most, so that its deadline means the same for a long text as for a file.
BLOCK = 65536
_TLS_RECORD = 16384  # RFC 8446 5.1


class Wire:
    """One connection, as bytes.

    Args:
        sock: a connected socket.
        peer: how messages call the server.
        timeout: seconds for each whole reply and for each block written.
    """

    def __init__(self, sock: socket.socket, *, peer: str, timeout: float) -> None:
        self._sock = sock
        #: What the server says, as replies.
        self.replies = ReplyReader(peer)
        self.peer = peer
        self.timeout = timeout
        #: What errors call the moment; the session sets it as it goes on.
        self.phase = Phase.CONNECT
        #: Whether the server has yet to say its first word.
        self.awaiting_greeting = True
        #: A moment (`time.monotonic`) that no operation outlives, whatever its own timeout says.
        self.give_up_at: float | None = None

    @classmethod
    def connect(
        cls, host: str, port: int, *, timeout: float, give_up_at: float | None = None, trace: Trace = LOG
    ) -> Wire:
        """Connect to the first address that answers, looking the name up included, before the deadline."""
        deadline = _earlier(time.monotonic() + timeout, give_up_at)
        peer = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        trace.begin(Step.NAME)
        addresses = look_up(host, port, deadline)
        found = ", ".join(dict.fromkeys(address[0] for _, address in addresses))
        trace.tell(Step.NAME, f"{host} is {'an address itself' if found == host else found}")
        trace.begin(Step.TCP)
        problems: list[str] = []
        for position, (family, address) in enumerate(addresses):
            left = (deadline - time.monotonic()) / (len(addresses) - position)
            if left <= 0:
                problems.append("the deadline passed")
                break
            sock = None
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)  # fails where the worker lacks the family
                sock.settimeout(left)
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                if sock is not None:
                    sock.close()
                problems.append(f"{address[0]}: {'no answer' if isinstance(error, TimeoutError) else error.strerror}")
                continue
            wire = cls(sock, peer=peer, timeout=timeout)
            wire.give_up_at = give_up_at
            trace.tell(Step.TCP, f"connected to {address[0]}, port {port}, from {wire.local_address}")
            return wire
        raise ConnectError(
            f"Cannot connect to {peer} ({'; '.join(dict.fromkeys(problems))}).",
            remedy="Check 'SMTP server' and 'Port', that the server runs, and that a firewall lets this worker in.",
        )

    def start_tls(self, context: ssl.SSLContext, host: str, *, implicit: bool = False) -> None:
        """Encrypt the line from here on. Whatever the server sent ahead of the handshake is an attack (RFC 3207 6).

        Args:
            context: how to verify the server.
            host: its name.
            implicit: whether this is how the line begins, rather than after STARTTLS.
        """
        if self.replies.pending:
            raise ProtocolError(
                f"{self.peer} sent {self.replies.pending} octets in clear text after it had agreed to start TLS.",
                remedy="Somebody in the line may be slipping in commands; the server's administrator must look at it.",
                phase=Phase.TLS,
            )
        try:
            self._sock.settimeout(self.seconds_left(self.timeout))
            self._sock = context.wrap_socket(self._sock, server_hostname=host)
        except OSError as error:
            self.close()
            raise handshake_error(error, self.peer, implicit=implicit) from None

    @property
    def tls_version(self) -> str | None:
        """Such as `TLSv1.3`; None in clear text."""
        return self._sock.version() if isinstance(self._sock, ssl.SSLSocket) else None

    @property
    def cipher(self) -> str | None:
        """The cipher suite by its TLS name; None in clear text."""
        cipher = self._sock.cipher() if isinstance(self._sock, ssl.SSLSocket) else None
        return cipher[0] if cipher else None

    @property
    def certificates(self) -> list[bytes]:
        """What the server sent, in DER, its own certificate first; nothing in clear text."""
        if not isinstance(self._sock, ssl.SSLSocket):
            return []
        if hasattr(self._sock, "get_unverified_chain"):  # Python 3.13
            return list(self._sock.get_unverified_chain())
        below: Any = getattr(self._sock, "_sslobj", None)
        if hasattr(below, "get_unverified_chain"):
            return [certificate.public_bytes(_DER) for certificate in below.get_unverified_chain() or ()]
        return [self.server_certificate or b""]

    @property
    def server_certificate(self) -> bytes | None:
        """The server's certificate in DER; None in clear text."""
        return self._sock.getpeercert(binary_form=True) if isinstance(self._sock, ssl.SSLSocket) else None

    @property
    def tls_unique(self) -> bytes | None:
        """What RFC 5929 3 takes from the handshake; None in clear text."""
        return self._sock.get_channel_binding("tls-unique") if isinstance(self._sock, ssl.SSLSocket) else None

    @property
    def local_address(self) -> str:
        """The address that this end of the connection has."""
        return str(self._sock.getsockname()[0])

    def write(self, block: bytes) -> None:
        """Send it all, each block of it before a deadline of its own."""
        view = memoryview(block)
        try:
            for at in range(0, len(view), BLOCK):
                self._sock.settimeout(self.seconds_left(self.timeout))
                self._sock.sendall(view[at : at + BLOCK])
        except TimeoutError:
            raise self.no_answer("did not take what we sent") from None
        except OSError as error:
            raise self.lost(error) from None

    def command(self, line: str, *, secret: bool = False) -> None:
        """Send one command line; a secret one is not logged."""
        if "\r" in line or "\n" in line:
            raise ValueError("a command is one line")
        log.debug("C: %s", f"({len(line)} octets, not shown)" if secret else line)
        self.write(line.encode() + b"\r\n")

    def read_reply(self, *, timeout: float | None = None, secret: bool = False) -> Reply:
        """Read one whole reply, however many lines it has, before the deadline.

        Args:
            timeout: seconds, if not the wire's own.
            secret: whether the text is kept out of the log, as a challenge must be.
        """
        deadline = time.monotonic() + self.seconds_left(self.timeout if timeout is None else timeout)
        while (reply := self.replies.next(self.phase, secret=secret)) is None:
            self._receive(deadline)
        log.debug("S: %s", f"{reply.code} (not shown)" if secret else reply)
        return reply

    def fileno(self) -> int:
        """What `poll` waits for."""
        return self._sock.fileno()

    def do_not_wait(self) -> None:
        """From here on only `send_some` and `receive_some` are used, until one of the others sets a time again."""
        self._sock.settimeout(0)

    def send_some(self, octets: bytes | memoryview) -> int:
        """Send as much as fits without waiting, and say how much that was.

        The other side cannot have read what does not count as sent. So TLS gets one record at a time: of a longer text
        it sends some records and says that it sent nothing, until it is given the same text again.
        """
        sent = 0
        try:
            if not isinstance(self._sock, ssl.SSLSocket):
                return self._sock.send(octets)
            while sent < len(octets):
                sent += self._sock.send(memoryview(octets)[sent : sent + _TLS_RECORD])
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError as error:
            if not sent:  # else the next attempt finds out
                raise self.lost(error) from None
        return sent

    def receive_some(self) -> None:
        """Take in what has arrived, without waiting for more."""
        try:
            self._take(self._sock.recv(BLOCK))
            while isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
                self._take(self._sock.recv(BLOCK))
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            raise self.lost(error) from None

    def close(self) -> None:
        """Close the socket; never raises."""
        with contextlib.suppress(OSError):
            self._sock.close()

    def _receive(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self._sock.settimeout(left)
            self._take(self._sock.recv(BLOCK))
        except TimeoutError:
            raise self.no_answer("did not answer in full") from None
        except OSError as error:
            raise self.lost(error) from None

    def _take(self, received: bytes) -> None:
        if not received:
            raise self.lost(None)
        self.replies.feed(received)

    def seconds_left(self, timeout: float) -> float:
        """So many seconds, or fewer where the wire gives up before.

        Raises:
            NoAnswerError: it has given up.
        """
        if self.give_up_at is None:
            return timeout
        left = min(timeout, self.give_up_at - time.monotonic())
        if left <= 0:
            raise self.no_answer("was not done")
        return left

    def no_answer(self, what: str) -> NoAnswerError:
        """The error of a deadline that has passed."""
        remedy = "Ask the server's administrator what holds it up, or raise 'Timeout'."
        if self.awaiting_greeting and self.tls_version is None:
            remedy = "If this port speaks TLS from the start (465 usually does), set SSL to 'Implicit TLS'. " + remedy
        return NoAnswerError(f"{self.peer} {what} before the deadline.", remedy=remedy, phase=self.phase)

    def lost(self, error: OSError | None) -> ConnectionLostError:
        """The error of a line that broke; None: the server hung up."""
        why = (error.strerror or type(error).__name__) if error else "it hung up"
        return ConnectionLostError(
            f"The connection to {self.peer} was lost ({why}).",
            remedy="Try again; if it happens each time, look into the server's log for this worker's address.",
            phase=self.phase,
        )


def _earlier(moment: float, other: float | None) -> float:
    return moment if other is None else min(moment, other)
