"""Bytes to and from the server: connect, TLS, replies, deadlines. Knows no commands and no mail.

Not smtplib's: its reader restarts the clock with every octet that drips in, has no bound on a reply's length, and
keeps what a server (or somebody in the line) slipped in before TLS. Here a deadline covers a whole reply, and a whole
block written. What AUTH says is never logged.
"""

from __future__ import annotations

import contextlib
import logging
import re
import select
import socket
import ssl
import time
from typing import Any

from airflow_provider_smtpcm.errors import (
    ConnectError,
    ConnectionLostError,
    MailError,
    NoAnswerError,
    Phase,
    ProtocolError,
    Reply,
)
from airflow_provider_smtpcm.smtp.name_service import look_up
from airflow_provider_smtpcm.smtp.tls import handshake_error
from airflow_provider_smtpcm.smtp.trace import LOG, Step, Trace

log = logging.getLogger(__name__)

# RFC 5321 4.5.3.1.5 allows 512 octets a line, and RFC 4954 4 a challenge of 12288.
LONGEST_LINE = 16384
LONGEST_REPLY = 65536
_DER = 2  # OpenSSL's number for it, which Python's `ssl` hides before 3.13
# What one write hands over at the most, so that its deadline means the same for a long text as for a file.
BLOCK = 65536
_REPLY_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|$)")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class Wire:
    """One connection, as bytes.

    Args:
        sock: a connected socket.
        peer: how messages call the server.
        timeout: seconds for each whole reply and for each block written.
    """

    def __init__(self, sock: socket.socket, *, peer: str, timeout: float) -> None:
        self._sock = sock
        self._received = bytearray()
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
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.settimeout(left)
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
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
        if self._received:
            raise ProtocolError(
                f"{self.peer} sent {len(self._received)} octets in clear text after it had agreed to start TLS.",
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
            raise self._no_answer("did not take what we sent") from None
        except OSError as error:
            raise self._lost(error) from None

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
        code: int | None = None
        texts: list[str] = []
        size = 0
        while True:
            line = self._read_line(deadline)
            size += len(line)
            match = _REPLY_LINE.fullmatch(line)
            if match is None:
                raise self._not_smtp(line, secret=secret)
            if code is not None and int(match[1]) != code:
                raise ProtocolError(
                    f"{self.peer} changed from {code} to {int(match[1])} within one reply.",
                    remedy="The server's administrator must look at it; a proxy in between may garble what it says.",
                    phase=self.phase,
                )
            if size > LONGEST_REPLY:
                raise self._too_long()
            code = int(match[1])
            texts.append(_UNPRINTABLE.sub("?", (match[3] or b"").decode("utf-8", "replace")).strip())
            if match[2] != b"-":
                break
        reply = _reply(code, texts)
        log.debug("S: %s", f"{code} (not shown)" if secret else reply)
        return reply

    def early_reply(self) -> Reply | None:
        """What the server has said without being asked, if it has; does not wait for it to begin."""
        with contextlib.suppress(MailError, OSError, ValueError):
            pending = isinstance(self._sock, ssl.SSLSocket) and self._sock.pending()
            if self._received or pending or select.select([self._sock], [], [], 0)[0]:
                return self.read_reply(timeout=0.05)
        return None

    def close(self) -> None:
        """Close the socket; never raises."""
        with contextlib.suppress(OSError):
            self._sock.close()

    def _read_line(self, deadline: float) -> bytes:
        while (end := self._received.find(b"\n")) < 0:
            if len(self._received) > LONGEST_LINE:
                raise self._too_long()
            self._receive(deadline)
        if end > LONGEST_LINE:
            raise self._too_long()
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line.removesuffix(b"\r")

    def _receive(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self._sock.settimeout(left)
            received = self._sock.recv(65536)
        except TimeoutError:
            raise self._no_answer("did not answer in full") from None
        except OSError as error:
            raise self._lost(error) from None
        if not received:
            raise self._lost(None)
        self._received += received

    def seconds_left(self, timeout: float) -> float:
        """So many seconds, or fewer where the wire gives up before.

        Raises:
            NoAnswerError: it has given up.
        """
        if self.give_up_at is None:
            return timeout
        left = min(timeout, self.give_up_at - time.monotonic())
        if left <= 0:
            raise self._no_answer("was not done")
        return left

    def _no_answer(self, what: str) -> NoAnswerError:
        remedy = "Ask the server's administrator what holds it up, or raise 'Timeout'."
        if self.awaiting_greeting and self.tls_version is None:
            remedy = "If this port speaks TLS from the start (465 usually does), set SSL to 'Implicit TLS'. " + remedy
        return NoAnswerError(f"{self.peer} {what} before the deadline.", remedy=remedy, phase=self.phase)

    def _lost(self, error: OSError | None) -> ConnectionLostError:
        why = (error.strerror or type(error).__name__) if error else "it hung up"
        return ConnectionLostError(
            f"The connection to {self.peer} was lost ({why}).",
            remedy="Try again; if it happens each time, look into the server's log for this worker's address.",
            phase=self.phase,
        )

    def _not_smtp(self, line: bytes, *, secret: bool) -> ProtocolError:
        if line[:2] in (b"\x15\x03", b"\x16\x03"):
            remedy = "It speaks TLS from the start on this port: set SSL to 'Implicit TLS'."
        else:
            remedy = "Check that 'Port' is the mail server's SMTP port."
        shown = f"({len(line)} octets, not shown)" if secret else line[:60].decode("ascii", "backslashreplace")
        return ProtocolError(
            f"{self.peer} answered {_UNPRINTABLE.sub('?', shown)!r}, which is not an SMTP reply.",
            remedy=remedy,
            phase=self.phase,
        )

    def _too_long(self) -> ProtocolError:
        return ProtocolError(
            f"{self.peer} sent a reply without end (above {LONGEST_LINE} octets a line or {LONGEST_REPLY} in all).",
            remedy="Check that 'Port' is the mail server's SMTP port.",
            phase=self.phase,
        )


def _reply(code: int, texts: list[str]) -> Reply:
    match = _ENHANCED.match(texts[0])
    if match is None:
        return Reply(code=code, text="\n".join(texts))
    enhanced = match[1]
    return Reply(code=code, enhanced=enhanced, text="\n".join(t.removeprefix(enhanced).strip() for t in texts))


def _earlier(moment: float, other: float | None) -> float:
    return moment if other is None else min(moment, other)
