"""The transport: octets to and from the server, over TCP and TLS, each operation within a deadline.

Not smtplib's: its reader restarts the clock with every octet that arrives, has no bound on a reply's length, and keeps
what a server (or an attacker on the path) sent before TLS. Here a deadline covers a whole reply, and a whole block
written. What AUTH sends is never logged.
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

log = logging.getLogger(__name__)

_DER = 2  # OpenSSL's number for it, which Python's `ssl` hides before 3.13
#: Octets of one write at most, so that its deadline means the same for a long text as for a file.
BLOCK = 65536
_TLS_RECORD = 16384  # RFC 8446 5.1


class Transport:
    """One connection to a server.

    Args:
        sock: a connected socket.
        peer: the server, as messages name it.
        timeout: seconds for each whole reply and for each block written.
    """

    def __init__(self, sock: socket.socket, *, peer: str, timeout: float) -> None:
        self._sock = sock
        #: Parses what the server sends.
        self.replies = ReplyReader(peer)
        self.peer = peer
        self.timeout = timeout
        #: The phase that errors bear; the session sets it as it goes on.
        self.phase = Phase.CONNECT
        #: Whether the server has sent nothing yet.
        self.awaiting_greeting = True
        #: A moment (`time.monotonic`) at which every operation fails, whatever its own timeout; None: there is none.
        self.give_up_at: float | None = None

    @classmethod
    def connect(
        cls, host: str, port: int, *, timeout: float, give_up_at: float | None = None, trace: Trace = LOG
    ) -> Transport:
        """Connect to the first of the server's addresses that answers.

        Args:
            host, port: the server's; a name is resolved.
            timeout: seconds for all of this, and afterwards for each operation.
            give_up_at: see the attribute.
            trace: of the session.

        Raises:
            ConnectError: the name is unknown, or no address answers.
        """
        deadline = _earlier(time.monotonic() + timeout, give_up_at)
        peer = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        trace.begin(Step.NAME)
        addresses = resolve(host, port, deadline)
        found = ", ".join(dict.fromkeys(address[0] for _, address in addresses))
        trace.tell(Step.NAME, f"{host} is {'an address itself' if found == host else found}")
        trace.begin(Step.TCP)
        problems: list[str] = []
        cause: OSError | None = None
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
                cause = error
                problems.append(f"{address[0]}: {'no answer' if isinstance(error, TimeoutError) else error.strerror}")
                continue
            transport = cls(sock, peer=peer, timeout=timeout)
            transport.give_up_at = give_up_at
            trace.tell(Step.TCP, f"connected to {address[0]}, port {port}, from {transport.local_address}")
            return transport
        raise ConnectError(
            f"Cannot connect to {peer} ({'; '.join(dict.fromkeys(problems))}).",
            remedy="Check 'SMTP server' and 'Port', that the server runs, and that a firewall lets this worker in.",
        ) from cause

    def start_tls(self, context: ssl.SSLContext, host: str, *, implicit: bool = False) -> None:
        """Encrypt the connection. Octets that arrived before the handshake are taken for an attack (RFC 3207 6).

        Args:
            context: how to verify the server.
            host: its name.
            implicit: whether the connection begins with TLS, rather than after STARTTLS.

        Raises:
            MailError: the server sent something before, is not trusted, or does not speak TLS.
        """
        if self.replies.pending:
            raise ProtocolError(
                f"{self.peer} sent {self.replies.pending} octets in clear text after it had agreed to start TLS.",
                remedy="Someone on the network path may be injecting commands; the server's administrator must look "
                "into it.",
                phase=Phase.TLS,
            )
        try:
            self._sock.settimeout(self.seconds_left(self.timeout))
            self._sock = context.wrap_socket(self._sock, server_hostname=host)
        except OSError as error:
            self.close()
            raise handshake_error(error, self.peer, implicit=implicit) from error

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
        """The chain that the server sent, in DER, its own certificate first; empty in clear text."""
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
        """The channel binding of RFC 5929 3; None in clear text."""
        return self._sock.get_channel_binding("tls-unique") if isinstance(self._sock, ssl.SSLSocket) else None

    @property
    def local_address(self) -> str:
        """The address that this end of the connection has."""
        return str(self._sock.getsockname()[0])

    def write(self, block: bytes) -> None:
        """Send all of it, each block before a deadline of its own.

        Raises:
            MailError: the server took too long, or hung up.
        """
        view = memoryview(block)
        try:
            for at in range(0, len(view), BLOCK):
                self._sock.settimeout(self.seconds_left(self.timeout))
                self._sock.sendall(view[at : at + BLOCK])
        except TimeoutError as error:
            raise self.deadline_error("did not take what we sent") from error
        except OSError as error:
            raise self.lost_error(error) from error

    def command(self, line: str, *, secret: bool = False) -> None:
        """Send one command line.

        Args:
            line: without its line break.
            secret: whether it is kept out of the log.
        """
        if "\r" in line or "\n" in line:
            raise ValueError("a command is one line")
        log.debug("C: %s", f"({len(line)} octets, not shown)" if secret else line)
        self.write(line.encode() + b"\r\n")

    def read_reply(self, *, timeout: float | None = None, secret: bool = False) -> Reply:
        """Read one whole reply, however many lines it has, before the deadline.

        Args:
            timeout: seconds; None: the transport's own.
            secret: whether the text is kept out of the log and of errors, as a challenge must be.

        Raises:
            MailError: the server took too long, hung up, or sent something else.
        """
        deadline = time.monotonic() + self.seconds_left(self.timeout if timeout is None else timeout)
        while (reply := self.replies.next(self.phase, secret=secret)) is None:
            self._receive(deadline)
        log.debug("S: %s", f"{reply.code} (not shown)" if secret else reply)
        return reply

    def fileno(self) -> int:
        """Return the socket's descriptor, for `poll`."""
        return self._sock.fileno()

    def set_nonblocking(self) -> None:
        """Prepare the socket for `send_some` and `receive_some`; any other operation makes it blocking again."""
        self._sock.settimeout(0)

    def send_some(self, octets: bytes | memoryview) -> int:
        """Send as much as the socket takes without waiting; return how many octets that was.

        What does not count as sent cannot have been read by the server. So TLS gets one record at a time: of a longer
        block it would send some records and report none as sent until it is given the same block again.

        Raises:
            ConnectionLostError: nothing was sent, and the connection is gone.
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
            if not sent:  # otherwise the next attempt raises
                raise self.lost_error(error) from error
        return sent

    def receive_some(self) -> None:
        """Feed `replies` with what has arrived, without waiting for more.

        Raises:
            ConnectionLostError: the connection is gone, or the server hung up.
        """
        try:
            self._take(self._sock.recv(BLOCK))
            while isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
                self._take(self._sock.recv(BLOCK))
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            raise self.lost_error(error) from error

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
        except TimeoutError as error:
            raise self.deadline_error("did not answer in full") from error
        except OSError as error:
            raise self.lost_error(error) from error

    def _take(self, received: bytes) -> None:
        if not received:
            raise self.lost_error(None)
        self.replies.feed(received)

    def seconds_left(self, timeout: float) -> float:
        """Return the timeout, or fewer seconds where `give_up_at` comes before.

        Raises:
            NoAnswerError: that moment has passed.
        """
        if self.give_up_at is None:
            return timeout
        left = min(timeout, self.give_up_at - time.monotonic())
        if left <= 0:
            raise self.deadline_error("was not done")
        return left

    def deadline_error(self, what: str) -> NoAnswerError:
        """Return the error of a deadline that has passed.

        Args:
            what: what the server failed to do, such as `did not answer in full`.
        """
        remedy = "Ask the server's administrator what holds it up, or raise 'Timeout'."
        if self.awaiting_greeting and self.tls_version is None:
            remedy = "If this port speaks TLS from the start (465 usually does), set SSL to 'Implicit TLS'. " + remedy
        return NoAnswerError(f"{self.peer} {what} before the deadline.", remedy=remedy, phase=self.phase)

    def lost_error(self, error: OSError | None) -> ConnectionLostError:
        """Return the error of a connection that broke; None: the server hung up."""
        why = (error.strerror or type(error).__name__) if error else "it hung up"
        return ConnectionLostError(
            f"The connection to {self.peer} was lost ({why}).",
            remedy="Try again; if it happens each time, look into the server's log for this worker's address.",
            phase=self.phase,
        )


def resolve(host: str, port: int, deadline: float) -> list[tuple[int, tuple[str, int]]]:
    """Return the addresses of a name, each with its family.

    The system's resolver has no deadline, so it is waited for in a thread.

    Args:
        host, port: the server's.
        deadline: a moment (`time.monotonic`).

    Raises:
        ConnectError: the name service does not know the name, or does not answer.
    """
    answer: list[tuple[int, tuple[str, int]]] = []
    problem = "no answer from the name service"
    cause: Exception | None = None

    def ask() -> None:
        nonlocal problem, cause
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            problem, cause = getattr(error, "strerror", None) or str(error), error
        else:
            answer.extend(dict.fromkeys((family, address) for family, _, _, _, address in found))  # type: ignore[misc]

    resolver = threading.Thread(target=ask, daemon=True, name="smtpcm-name-service")
    resolver.start()
    resolver.join(max(0.0, deadline - time.monotonic()))
    if not answer:
        raise ConnectError(
            f"The name {host!r} cannot be resolved ({problem}).",
            remedy="Check 'SMTP server', and that this worker's name service knows it.",
        ) from cause
    return list(answer)


def _earlier(moment: float, other: float | None) -> float:
    return moment if other is None else min(moment, other)
