"""The transport: a TCP or TLS connection, with a deadline for each operation.

It is used instead of smtplib, whose timeout starts again with every octet read, which has no limit on a reply's length,
and which does not notice what the server (or an attacker on the network path) sent too early, before TLS. Here a
deadline covers a whole reply, or a whole block written. AUTH data is never logged.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import ssl
import threading
import time
from typing import Any

from airflow_provider_smtpcm.errors import (
    ConnectError,
    ConnectionLostError,
    MailError,
    NoAnswerError,
    Phase,
    Reply,
)
from airflow_provider_smtpcm.smtp.replies import ReplyParser
from airflow_provider_smtpcm.smtp.trace import LOG, Step, Trace

log = logging.getLogger(__name__)

_DER = 2  # `_ssl.ENCODING_DER`; public methods return DER only from Python 3.13 on
#: Maximum octets per write, so that one deadline covers the same amount of text and of attachment.
BLOCK_OCTETS = 65536
_TLS_RECORD = 16384  # RFC 8446 5.1
LOST_REMEDY = "Try again; if it happens each time, search the server's log for this worker's address."


class Transport:
    """A connection to a server; `connect` opens it.

    Args:
        peer: the server's name in messages (`host:port`).
        timeout: seconds for each whole reply, and for each block written.
        sock: a connected socket; None: `connect` opens one.
    """

    def __init__(self, *, peer: str, timeout: float, sock: socket.socket | None = None) -> None:
        self._sock: socket.socket
        if sock is not None:
            self._sock = sock
        self._is_interrupted = False
        # Held while the resolver's thread runs; `interrupt` releases it too.
        self._resolving = threading.Lock()
        self.replies = ReplyParser(peer)
        self.peer = peer
        self.timeout = timeout
        #: The phase that errors report; set by the caller as the session proceeds.
        self.phase = Phase.CONNECT
        #: Whether the connection has a client certificate, which the server may refuse; set by the caller.
        self.has_client_certificate = False
        #: Whether the server's greeting (RFC 5321 3.1) has not been read yet.
        self.is_awaiting_greeting = True
        #: The text of the greeting, which often names the server's software and has its date.
        self.greeting = ""
        #: Deadline (`time.monotonic`) for all operations, whatever their timeouts; None: no deadline.
        self.give_up_at: float | None = None

    def connect(self, host: str, port: int, *, deadline: float, trace: Trace = LOG) -> None:
        """Connect to the first of the server's addresses that answers.

        Args:
            host: a name or an IP address.
            port: TCP port.
            deadline: a time (`time.monotonic`), for resolving and connecting together.
            trace: receives the steps.

        Raises:
            ConnectError: the name cannot be resolved, or no address answers.
        """
        trace.begin(Step.NAME)
        addresses = self._resolve(host, port, deadline)
        if trace.records_info:
            found = ", ".join(dict.fromkeys(address[0] for _, address in addresses))
            trace.info(Step.NAME, f"{host} is {'an IP address' if found == host else found}")
        trace.begin(Step.TCP)
        problems: list[str] = []
        cause: OSError | None = None
        for position, (family, address) in enumerate(addresses):
            # The remaining time is divided among the remaining addresses.
            attempt_timeout = (deadline - time.monotonic()) / (len(addresses) - position)
            if attempt_timeout <= 0:
                problems.append("the deadline passed")
                break
            sock = None
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)  # fails if the worker does not support the family
                self._sock = sock
                self._check_interrupted()
                sock.settimeout(attempt_timeout)
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                if sock is not None:
                    sock.close()
                _raise_if_foreign(error)
                cause = error
                problems.append(f"{address[0]}: {'no answer' if isinstance(error, TimeoutError) else error.strerror}")
                continue
            if trace.records_info:
                trace.info(Step.TCP, f"connected to {address[0]}, port {port}, from {self.local_address}")
            return
        try:
            raise ConnectError(
                f"Cannot connect to {self.peer} ({'; '.join(dict.fromkeys(problems))}).",
                remedy="Check 'SMTP server' and 'Port', that the server runs, and that no firewall blocks this worker.",
            ) from cause
        finally:
            del cause  # its traceback has this frame: a reference cycle

    def start_tls(self, context: ssl.SSLContext, host: str, *, implicit: bool = False) -> None:
        """Encrypt the connection. The caller checks that nothing was received before (`replies.pending`).

        Args:
            context: how to verify the server.
            host: the name that the certificate must match.
            implicit: whether TLS starts with the connection (implicit TLS) rather than with STARTTLS.

        Raises:
            MailError: the server is not trusted, or does not speak TLS.
        """
        try:
            self._sock.settimeout(self.seconds_left(self.timeout))
            # The socket is replaced before the TLS handshake, so that `interrupt` can end the handshake.
            encrypted = context.wrap_socket(self._sock, server_hostname=host, do_handshake_on_connect=False)
            self._sock = encrypted
            self._check_interrupted()
            encrypted.do_handshake()
        except OSError as error:
            from airflow_provider_smtpcm.smtp.tls import handshake_error

            self.close()
            _raise_if_foreign(error)
            raise self._refusal(error) or handshake_error(error, self.peer, implicit=implicit) from error

    @property
    def tls_version(self) -> str | None:
        """The TLS version, such as `TLSv1.3`; None in clear text."""
        return self._sock.version() if isinstance(self._sock, ssl.SSLSocket) else None

    @property
    def cipher(self) -> str | None:
        """The cipher suite by its TLS name; None in clear text."""
        cipher = self._sock.cipher() if isinstance(self._sock, ssl.SSLSocket) else None
        return cipher[0] if cipher else None

    @property
    def certificates(self) -> list[bytes]:
        """The certificate chain that the server sent, in DER, its own first; empty in clear text."""
        if not isinstance(self._sock, ssl.SSLSocket):
            return []
        if hasattr(self._sock, "get_unverified_chain"):  # Python 3.13
            return list(self._sock.get_unverified_chain())
        ssl_object: Any = getattr(self._sock, "_sslobj", None)
        if hasattr(ssl_object, "get_unverified_chain"):
            return [certificate.public_bytes(_DER) for certificate in ssl_object.get_unverified_chain() or ()]
        return [self.server_certificate or b""]

    @property
    def server_certificate(self) -> bytes | None:
        """The server's certificate in DER; None in clear text."""
        return self._sock.getpeercert(binary_form=True) if isinstance(self._sock, ssl.SSLSocket) else None

    @property
    def tls_unique(self) -> bytes | None:
        """The `tls-unique` channel binding (RFC 5929 3); None in clear text."""
        return self._sock.get_channel_binding("tls-unique") if isinstance(self._sock, ssl.SSLSocket) else None

    @property
    def local_address(self) -> str:
        """The IP address of this end of the connection."""
        return str(self._sock.getsockname()[0])

    def write(self, octets: bytes) -> None:
        """Send all octets, with one deadline for each block of at most `BLOCK_OCTETS`.

        Raises:
            MailError: the deadline passed, or the connection broke.
        """
        view = memoryview(octets)
        try:
            for at in range(0, len(view), BLOCK_OCTETS):
                self._sock.settimeout(self.seconds_left(self.timeout))
                self._sock.sendall(view[at : at + BLOCK_OCTETS])
        except TimeoutError as error:
            _raise_if_foreign(error)
            raise self.deadline_error("did not read what was sent") from error
        except OSError as error:
            raise self.lost_error(error) from error

    def send_command(self, line: str, *, secret: bool = False) -> None:
        """Send one command line.

        Args:
            line: the line, without its line break.
            secret: whether to keep it out of the log.

        Raises:
            ValueError: the line contains a line break.
            MailError: see `write`.
        """
        if "\r" in line or "\n" in line:
            raise ValueError("a command is one line")
        log.debug("C: %s", f"({len(line)} octets, not shown)" if secret else line)
        self.write(line.encode() + b"\r\n")

    def read_reply(self, *, timeout: float | None = None, secret: bool = False) -> Reply:
        """Read one reply, of one or more lines.

        Args:
            timeout: seconds for the whole reply; None: the transport's timeout.
            secret: whether to keep the text out of the log and of errors, as for an AUTH challenge.

        Raises:
            MailError: the deadline passed, the connection broke, or the octets are not a reply.
        """
        deadline = time.monotonic() + self.seconds_left(self.timeout if timeout is None else timeout)
        while (reply := self.replies.next_reply(self.phase, secret=secret)) is None:
            self._receive(deadline)
        log.debug("S: %s", f"{reply.code} (not shown)" if secret else reply)
        return reply

    def fileno(self) -> int:
        """Return the socket's descriptor, for `poll`."""
        return self._sock.fileno()

    def set_nonblocking(self) -> None:
        """Make the socket non-blocking, for `send_some` and `receive_some`; all other operations make it blocking."""
        self._sock.settimeout(0)

    def send_some(self, octets: bytes | memoryview) -> int:
        """Send as much as the socket takes without blocking; return the number of octets sent.

        Octets that are not counted cannot have reached the server. TLS is therefore given one record at a time:
        OpenSSL may send some records of a longer block and still report nothing as sent until it is called again.

        Raises:
            ConnectionLostError: nothing was sent, and the connection broke.
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
            if not sent:  # otherwise the next call raises
                raise self.lost_error(error) from error
        return sent

    def receive_some(self) -> None:
        """Feed the octets that have arrived to `replies`, without blocking.

        Raises:
            ConnectionLostError: the connection broke, or the server closed it.
        """
        try:
            self._take(self._sock.recv(BLOCK_OCTETS))
            while isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
                self._take(self._sock.recv(BLOCK_OCTETS))
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            raise self.lost_error(error) from error

    def interrupt(self) -> None:
        """Make the running operation, and all later ones, fail. May be called in any thread and in a signal handler.

        A signal handler may run while the same thread waits for this socket. Python then continues to wait; so the
        socket is shut down, which ends the wait.
        """
        self._is_interrupted = True
        with contextlib.suppress(RuntimeError):  # no name is being resolved
            self._resolving.release()
        sock = getattr(self, "_sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # `SSLSocket.shutdown` would also end TLS

    def _check_interrupted(self) -> None:
        """Raise OSError if `interrupt` was called, perhaps before there was a socket to shut down."""
        if self._is_interrupted:
            raise InterruptedError(errno.EINTR, "interrupted")

    def close(self) -> None:
        """Close the socket, if there is one; never raises."""
        sock = getattr(self, "_sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()

    def _resolve(self, host: str, port: int, deadline: float) -> list[tuple[int, tuple[str, int]]]:
        """Resolve a host name; return each address with its family.

        The system's resolver has no timeout, so it runs in a thread, unless the name is an IP address.

        Args:
            host: a name or an IP address.
            port: TCP port.
            deadline: a time (`time.monotonic`).

        Raises:
            ConnectError: the name cannot be resolved, or not before the deadline.
        """
        # As octets: for a `str`, even if it is ASCII, Python loads its codec for international names.
        name = host.encode() if host.isascii() else host
        with contextlib.suppress(OSError, UnicodeError):
            return _distinct(socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
        answer: list[tuple[int, tuple[str, int]]] = []
        problem = "no answer from the name service"
        cause: Exception | None = None

        def ask() -> None:
            nonlocal problem, cause
            try:
                answer.extend(_distinct(socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)))
            except (OSError, UnicodeError) as error:
                problem, cause = getattr(error, "strerror", None) or str(error), error
            finally:
                with contextlib.suppress(RuntimeError):  # `interrupt` has released it
                    self._resolving.release()

        self._resolving.acquire()
        if not self._is_interrupted:  # after an earlier `interrupt`, nothing would end the wait
            threading.Thread(target=ask, daemon=True, name="smtpcm-name-service").start()
            # Wait until `ask` or `interrupt` releases it.
            self._resolving.acquire(timeout=max(0.0, deadline - time.monotonic()))
        if not answer:
            try:
                raise ConnectError(
                    f"The name {host!r} cannot be resolved ({problem}).",
                    remedy="Check 'SMTP server', and that this worker's name service knows it.",
                ) from cause
            finally:
                cause = None  # its traceback has a frame that refers to it: a reference cycle
        return list(answer)

    def _receive(self, deadline: float) -> None:
        seconds = deadline - time.monotonic()
        try:
            if seconds <= 0:
                raise TimeoutError
            self._sock.settimeout(seconds)
            self._take(self._sock.recv(BLOCK_OCTETS))
        except TimeoutError as error:
            _raise_if_foreign(error)
            raise self.deadline_error("did not answer in full") from error
        except OSError as error:
            raise self.lost_error(error) from error

    def _take(self, received: bytes) -> None:
        if not received:
            raise self.lost_error(None)
        self.replies.feed(received)

    def seconds_left(self, timeout: float) -> float:
        """Return the seconds until the timeout or `give_up_at`, whichever comes first.

        Raises:
            NoAnswerError: `give_up_at` has passed.
        """
        if self.give_up_at is None:
            return timeout
        seconds = min(timeout, self.give_up_at - time.monotonic())
        if seconds <= 0:
            raise self.deadline_error("did not finish")
        return seconds

    def deadline_error(self, what: str) -> NoAnswerError:
        """Return the error for a deadline that has passed.

        Args:
            what: what the server failed to do, such as `did not answer in full`.
        """
        remedy = "Ask the server's administrator why it is slow, or raise 'Timeout'."
        if self.is_awaiting_greeting and self.tls_version is None:
            remedy = "If this port speaks TLS from the start (465 usually does), set SSL to 'Implicit TLS'. " + remedy
        return NoAnswerError(f"{self.peer} {what} before the deadline.", remedy=remedy, phase=self.phase)

    def lost_error(self, error: OSError | None) -> MailError:
        """Return the error for a broken connection; `error` is None if the server closed it."""
        remedy = LOST_REMEDY
        # In TLS 1.3 a server judges the client's certificate after the handshake (RFC 8446 4.4.2.4).
        if isinstance(self._sock, ssl.SSLSocket) and (self.phase is Phase.TLS or self.is_awaiting_greeting):
            refusal = self._refusal(error)
            if refusal is not None:
                return refusal
            if self.has_client_certificate:
                remedy += " It may not accept this worker's client certificate."
            else:
                remedy += " It may demand a client certificate: give one as 'Client certificate'."
        why = (error.strerror or type(error).__name__) if error else "the server closed it"
        return ConnectionLostError(f"The connection to {self.peer} was lost ({why}).", remedy=remedy, phase=self.phase)

    def _refusal(self, error: OSError | None) -> MailError | None:
        """Return the error if the server refused the client's certificate by a TLS alert; None if it did not."""
        from airflow_provider_smtpcm.smtp.tls import client_certificate_refusal

        return client_certificate_refusal(error, self.peer, has_client_certificate=self.has_client_certificate)


def format_peer(host: str, port: int) -> str:
    """Return `host:port`, as messages name a server; an IPv6 address is in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _raise_if_foreign(error: OSError) -> None:
    """Raise a TimeoutError again if it is from the caller's own signal handler, as after `signal.alarm`.

    Such an error has a frame of the handler, while a socket raises its own from C or from the `ssl` module.
    """
    if not isinstance(error, TimeoutError):
        return
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is not None and trace.tb_frame.f_code.co_filename not in (__file__, socket.__file__, ssl.__file__):
        raise error


def _distinct(found: list[Any]) -> list[tuple[int, tuple[str, int]]]:
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))
