"""The errors of this package: what failed, what the server replied, and what to do. No network, no Airflow.

The classes distinguish where the cause lies: in the connection's settings, the mail, the network, or the server's
reply. A message states what was tried and what the other side answered; the remedy is its last sentence.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from airflow_provider_smtpcm.frozen_dataclasses import Record

# Maximum characters of a reply's text in an error message; a server may send 64 KiB.
_MAX_TEXT_LENGTH = 500


class Phase(StrEnum):
    """The stage at which sending failed. From FINAL_DOT on the server may have the mail, so it is not simply resent."""

    SETTINGS = "settings"
    MESSAGE = "message"
    CONNECT = "connect"
    TLS = "TLS"
    AUTH = "auth"
    ENVELOPE = "envelope"
    DATA = "data"
    FINAL_DOT = "after the final dot"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Reply(Record):
    """A server's reply (RFC 5321 4.2).

    Args:
        code: three digits.
        enhanced: the enhanced status code (RFC 3463), if the reply has one.
        text: the lines, separated by line feeds, without the codes.
    """

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
        # On one line, so that a server cannot forge log lines.
        text = " / ".join(line for line in self.text.split("\n") if line)
        if len(text) > _MAX_TEXT_LENGTH:
            text = f"{text[:_MAX_TEXT_LENGTH]}…"
        return " ".join(part for part in (str(self.code), self.enhanced, text) if part)


class MailError(Exception):
    """The base class: a mail was not sent, or its outcome is unknown.

    Args:
        message: what was tried and what the other side answered.
        remedy: what the reader can do about it; the last sentence of `str(error)`.
        phase: the stage that failed; None: the class's `default_phase`.
        reply: the server's reply, if the error is due to one; else None.
        retryable: whether the same attempt may succeed later; None: the class's `default_retryable`.
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
    """The connection's settings cannot be used.

    Args:
        faults: one sentence for each fault; it names the setting by its label in the form.
        conn_id: the id of the Airflow connection; None: the settings are from elsewhere.
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


def _rebuild_settings_error(faults: Sequence[str], conn_id: str | None) -> ConnectionSettingsError:
    return ConnectionSettingsError(faults, conn_id=conn_id)


class MessageError(MailError):
    """The mail itself is at fault: an address, a header, a body, an attachment."""

    default_phase = Phase.MESSAGE


class ConnectError(MailError):
    """The server could not be reached, or sent no greeting."""

    default_phase = Phase.CONNECT
    default_retryable = True


class TlsError(MailError):
    """No trustworthy encryption: no STARTTLS, an untrusted certificate, or a port that does not speak TLS."""

    default_phase = Phase.TLS


class AuthenticationError(MailError):
    """The server refused the sign-in, or the worker could not prove its identity."""

    default_phase = Phase.AUTH


class RefusedError(MailError):
    """The server refused the sender, every recipient, or the message; a transient refusal (4yz) is retryable."""

    default_phase = Phase.ENVELOPE
    #: Whether each reply is to RCPT; otherwise the delivery's reply is to MAIL, to DATA, or to the message.
    is_about_recipients = True


class NoAnswerError(MailError):
    """The server did not reply, or did not read what was sent, before the deadline."""

    default_retryable = True


class ConnectionLostError(MailError):
    """The connection broke, or the server closed it."""

    default_retryable = True


class ProtocolError(MailError):
    """The server sent something that SMTP does not allow."""


class OutcomeUnknownError(MailError):
    """The whole message was sent, and no final reply came: sending it again could deliver it twice."""

    default_phase = Phase.FINAL_DOT


class StoppedError(MailError):
    """The mail was not sent, because the task was asked to end."""

    default_phase = Phase.MESSAGE
    default_retryable = True


class LedgerError(MailError):
    """The ledger cannot be read or written, or belongs to other rows."""


class PackageError(MailError):
    """An SSIS package, project or connection manager, or a file given with them, cannot be read."""

    default_phase = Phase.SETTINGS


def clear_frames(error: BaseException, handled: BaseException | None) -> None:
    """Clear the local variables of all frames in the traceback of an error, and of the errors that caused it.

    Error trackers record the variables of every frame in a traceback, generators included. During a sign-in these hold
    the password, its hash, and tokens from which it can be guessed offline. For the same reason a cause is kept only if
    it is an `OSError` or a `MailError`: errors of other libraries hold the text or token that they could not process.

    Args:
        error: the error, after it has propagated out of these frames.
        handled: the exception that the caller was already handling (`sys.exception()`) when `error` was raised; its
            frames are not cleared. None: there was none.
    """
    chain: list[BaseException | None] = [error]
    seen: set[int] = {id(handled), id(None)}
    while chain:
        current = chain.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        for frame, _ in traceback.walk_tb(current.__traceback__):
            with contextlib.suppress(RuntimeError):  # the frame is still running
                frame.clear()
        chain += (current.__cause__, current.__context__)
        if isinstance(error, MailError):
            if not isinstance(current.__cause__, MailError | OSError):
                current.__cause__ = None
            current.__context__ = handled if current is error else None
            current.__suppress_context__ = True


def is_callers_timeout(error: BaseException) -> bool:
    """Whether an error while a file was read is from the caller's own signal handler, as after `signal.alarm`.

    One from the file system, such as NFS, has an errno.
    """
    return isinstance(error, TimeoutError) and error.errno is None
