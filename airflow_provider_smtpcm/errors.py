"""What can go wrong, and the questions that every failure answers. Knows no network and no Airflow.

The first split is *whose* fault it is: the connection's settings, the mail itself, the way to the server, or the
server's answer. Each error says what was tried, what the other side answered, and ends in the remedy.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

# So many characters of what a server says are for reading; it may say 64 KiB.
_SHOWN = 500


class Phase(StrEnum):
    """How far a mail had come when something failed. Nothing is ever resent blindly after `FINAL_DOT`."""

    SETTINGS = "settings"
    MESSAGE = "message"
    CONNECT = "connect"
    TLS = "TLS"
    AUTH = "auth"
    ENVELOPE = "envelope"
    DATA = "data"
    FINAL_DOT = "after the final dot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A server's reply (RFC 5321 4.2): three digits, the enhanced code of RFC 3463 where there is one, and the text."""

    code: int
    enhanced: str | None = None
    text: str = ""

    @property
    def positive(self) -> bool:
        """2yz: the command was carried out."""
        return self.code // 100 == 2

    @property
    def transient(self) -> bool:
        """4yz: the same command may succeed later (RFC 5321 4.2.1)."""
        return self.code // 100 == 4

    def __str__(self) -> str:
        # On one line, so that no server can write lines of its own into a log.
        text = " / ".join(line for line in self.text.split("\n") if line)
        if len(text) > _SHOWN:
            text = f"{text[:_SHOWN]}…"
        return " ".join(part for part in (str(self.code), self.enhanced, text) if part)


class MailError(Exception):
    """Anything that kept a mail from being sent, or its fate from being known.

    Args:
        message: what was tried and what the other side answered.
        remedy: what the reader can do about it; the last sentence of `str(error)`.
        phase: how far it had come.
        reply: the server's reply, if it was a reply that said so.
        retryable: whether the same attempt may succeed later without anybody changing anything.
    """

    default_phase: Phase | None = None
    default_retryable = False

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        phase: Phase | None = None,
        reply: Reply | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.phase = phase or self.default_phase
        self.reply = reply
        self.retryable = self.default_retryable if retryable is None else retryable

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class ConnectionSettingsError(MailError):
    """The connection cannot be used as it is written; `faults` holds all that is wrong with it, by form label.

    Args:
        faults: one sentence for each fault.
        conn_id: the Airflow connection, if it is one.
    """

    default_phase = Phase.SETTINGS

    def __init__(self, faults: Sequence[str], *, conn_id: str | None = None) -> None:
        subject = f"Connection '{conn_id}'" if conn_id else "The SMTP connection manager"
        lines = [f"{subject} cannot be used:", *(f"  - {fault}" for fault in faults)]
        super().__init__("\n".join(lines))
        self.faults = tuple(faults)
        self.conn_id = conn_id

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_settings_error, (self.faults, self.conn_id)


def clear_frames(error: BaseException, before: BaseException | None) -> None:
    """Clear the local variables of every frame that an error has left, and those of what led to it.

    Error collectors record the variables of each frame of a traceback, generators' included; those of a sign-in are the
    password, its hash, and tokens with which it can be guessed off-line.

    Args:
        error: what left the frames.
        before: what was handled already when the work began (`sys.exception()`): its frames are the caller's.
    """
    chain: list[BaseException | None] = [error]
    seen: set[int] = {id(before), id(None)}
    while chain:
        one = chain.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        for frame, _ in traceback.walk_tb(one.__traceback__):
            with contextlib.suppress(RuntimeError):  # it runs
                frame.clear()
        chain += (one.__cause__, one.__context__)
    if isinstance(error, MailError):
        # It says what a library below said; that error itself may hold the text that could not be encoded.
        error.__cause__, error.__context__, error.__suppress_context__ = None, before, True


def _rebuild_settings_error(faults: Sequence[str], conn_id: str | None) -> ConnectionSettingsError:
    return ConnectionSettingsError(faults, conn_id=conn_id)


class MessageError(MailError):
    """The mail itself is at fault: an address, a header, a body, an attachment."""

    default_phase = Phase.MESSAGE


class ConnectError(MailError):
    """The server could not be reached, or did not greet."""

    default_phase = Phase.CONNECT
    default_retryable = True


class TlsError(MailError):
    """No trustworthy encryption: not offered, not verified, or not spoken on this port."""

    default_phase = Phase.TLS


class AuthenticationError(MailError):
    """The server did not let us in, or we could not prove who we are."""

    default_phase = Phase.AUTH


class RefusedError(MailError):
    """The server refused the sender, every recipient, or the message; a transient refusal (4yz) is retryable."""

    default_phase = Phase.ENVELOPE


class NoAnswerError(MailError):
    """The server did not answer, or did not take what we sent, before the deadline."""

    default_retryable = True


class ConnectionLostError(MailError):
    """The line broke, or the server hung up."""

    default_retryable = True


class ProtocolError(MailError):
    """The server said something that SMTP does not allow."""


class OutcomeUnknownError(MailError):
    """The whole message was handed over and nobody said what became of it: sending again could deliver it twice."""

    default_phase = Phase.FINAL_DOT


class StoppedError(MailError):
    """The mail was not sent, because the task was asked to end."""

    default_phase = Phase.MESSAGE
    default_retryable = True


class LedgerError(MailError):
    """What was sent cannot be written down or read, or the rows are not those that it tells of."""


class PackageError(MailError):
    """An SSIS package, project or connection manager that cannot be read: what was found instead, and the remedy."""

    default_phase = Phase.SETTINGS
