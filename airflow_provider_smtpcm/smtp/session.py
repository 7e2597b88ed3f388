"""An SMTP session: the handshake, any number of mails, QUIT."""

from __future__ import annotations

import contextlib
import logging
import re
import ssl
import time
from collections.abc import Generator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager
from airflow_provider_smtpcm.errors import ConnectError, MailError, MessageError, Reply
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.mail.render import Rendering
from airflow_provider_smtpcm.smtp.cancellation import get_single_delivery
from airflow_provider_smtpcm.smtp.connection_pool import BatchSender
from airflow_provider_smtpcm.smtp.handshake import Handshake
from airflow_provider_smtpcm.smtp.outcome import Delivery, format_addresses
from airflow_provider_smtpcm.smtp.queue import SendRequest, complete_mail
from airflow_provider_smtpcm.smtp.remedies import remedy_for
from airflow_provider_smtpcm.smtp.throttling import ServerProfile
from airflow_provider_smtpcm.smtp.trace import LOG, Trace
from airflow_provider_smtpcm.smtp.transport import Transport

if TYPE_CHECKING:
    from airflow_provider_smtpcm.smtp.auth.negotiation import WindowsAuthenticator
    from airflow_provider_smtpcm.smtp.auth.sasl import Authentication

log = logging.getLogger(__name__)

# Seconds to wait for the reply to QUIT; no mail depends on it.
QUIT_TIMEOUT = 5.0
_MAX_SIZE_DIGITS = 20  # RFC 1870 4
# RFC 9422 4: `LIMITS MAILMAX=20 RCPTMAX=100`
_RCPTMAX = r"(?i)(?<!\S)RCPTMAX=([1-9][0-9]{0,5})(?!\S)"


class Session:
    """An SMTP session. Call `open` before sending, or use it as a context manager.

    Args:
        manager: the server, and how to sign in to it.
        context: a TLS context to reuse, since building one is slow; None: one is built on demand.
        authenticator: signs in and remembers the mechanism that worked; share it between sessions. None: a new one.
        give_up_at: deadline (`time.monotonic`) for all operations, whatever the timeouts; None: no deadline.
        trace: receives each step of `open`; by default they are logged.
    """

    def __init__(
        self,
        manager: SmtpConnectionManager,
        *,
        context: ssl.SSLContext | None = None,
        authenticator: WindowsAuthenticator | None = None,
        give_up_at: float | None = None,
        trace: Trace = LOG,
    ) -> None:
        self.manager = manager
        #: The server's EHLO keywords, in capitals, with their parameters (RFC 5321 4.1.1.1).
        self.extensions: dict[str, str] = {}
        #: How the session signed in; None: anonymous.
        self.authentication: Authentication | None = None
        if authenticator is None and manager.auth_mode is AuthMode.WINDOWS:
            from airflow_provider_smtpcm.smtp.auth.negotiation import WindowsAuthenticator

            authenticator = WindowsAuthenticator(manager)
        self._authenticator = authenticator
        self._context = context
        self._give_up_at = give_up_at
        self._trace = trace
        self._transport: Transport | None = None
        self._handshake: Handshake | None = None
        self._is_interrupted = False
        self._profile = ServerProfile()
        self._is_closing = False
        #: Whether QUIT was sent, so that no further mail can be sent.
        self.has_quit = False
        #: Whether a mail was accepted or refused since `open`.
        self.has_processed_mail = False
        #: Whether the last transaction is unfinished, so that RSET must precede the next MAIL (RFC 5321 4.1.1.5).
        self.needs_rset_before_mail = False
        #: Whether a transaction was canceled before DATA, so that RSET precedes QUIT.
        self.needs_rset_before_quit = False

    def open(self, *, give_up_at: float | None = None) -> Self:
        """Connect, encrypt and sign in as the connection manager says; do nothing if the session is open.

        Args:
            give_up_at: deadline (`time.monotonic`) for this call, besides the session's; None: no further deadline.

        Raises:
            MailError: the handshake failed; the socket is closed.
        """
        if self._transport is not None:
            return self
        self._is_closing = self.has_quit = False
        self.has_processed_mail = self.needs_rset_before_mail = self.needs_rset_before_quit = False
        self._handshake = handshake = Handshake(
            self.manager,
            context=self._context,
            authenticator=self._authenticator,
            give_up_at=min((at for at in (self._give_up_at, give_up_at) if at is not None), default=None),
            trace=self._trace,
        )
        if self._is_interrupted:  # perhaps before there was a handshake to interrupt
            handshake.interrupt()
        try:
            self._transport = transport = handshake.run()
        except BaseException:
            handshake.abort()
            raise
        finally:
            self._handshake = None
        transport.give_up_at = self._give_up_at
        self.extensions, self.authentication = handshake.extensions, handshake.authentication
        log.info(
            "Connected to %s (%s, %s).",
            transport.peer,
            transport.tls_version or "clear text",
            f"signed in by {self.authentication}" if self.authentication else "anonymous",
        )
        return self

    def interrupt(self) -> None:
        """Make a running `open` fail soon, and later ones. May be called in any thread and in a signal handler."""
        self._is_interrupted = True
        handshake = self._handshake  # `open` may set it to None meanwhile
        if handshake is not None:
            handshake.interrupt()

    @property
    def transport(self) -> Transport:
        """The transport of an open session."""
        assert self._transport is not None
        return self._transport

    @property
    def is_open(self) -> bool:
        """Whether another mail can be sent through this session."""
        return self._transport is not None

    @property
    def tls_version(self) -> str | None:
        """The TLS version, such as `TLSv1.3`; None in clear text."""
        return self._transport.tls_version if self._transport else None

    @property
    def size_limit(self) -> int | None:
        """The server's maximum message size in octets (RFC 1870); None: not announced."""
        text = self.extensions.get("SIZE", "")
        is_number = text.isascii() and text.isdecimal() and len(text) <= _MAX_SIZE_DIGITS
        return int(text) or None if is_number else None

    @property
    def recipient_limit(self) -> int | None:
        """The server's maximum number of recipients per transaction (RFC 9422 4); None: not announced."""
        match = re.search(_RCPTMAX, self.extensions["LIMITS"]) if "LIMITS" in self.extensions else None
        return int(match[1]) if match else None

    def limit_error(self, mail: Mail, rendering: Rendering) -> MessageError:
        """Return the error for a mail that is larger than the server's SIZE, or needs SMTPUTF8 but the server lacks it.

        Args:
            mail: the mail from `complete_mail`.
            rendering: the mail as it would be sent.
        """
        peer, limit = self.transport.peer, self.size_limit
        if limit is not None and rendering.size > limit:
            return MessageError(
                f"The message has {rendering.size:,} octets, and {peer} accepts {limit:,} at most (base64 makes "
                "attachments a third larger).",
                remedy="Send a link instead of the file, compress it, or have the server's limit raised.",
            )
        sender = (mail.from_address,) if mail.from_address else ()
        addresses = (*sender, *mail.reply_to, *mail.recipients)
        names = [address.address for address in addresses if address.needs_smtputf8]
        return MessageError(
            f"{peer} does not accept addresses with letters outside ASCII before the @ (SMTPUTF8): "
            f"{format_addresses(names)}.",
            remedy="Use an ASCII alias of that mailbox.",
        )

    def send(self, mail: Mail, *, index: int = 0) -> Delivery:
        """Send one mail. If it cannot be sent, nothing is raised: the delivery has the error.

        Args:
            mail: From and Reply-To default to the connection's.
            index: the delivery's index, for callers that send several mails.

        Raises:
            InterruptedDeliveryError: sending was interrupted (by a time limit, for example) after a recipient was
                accepted, or may have been.
        """
        request = SendRequest(index, mail)
        if self._transport is None:
            return request.not_sent(ConnectError("The session is closed.", remedy="Open another one."))
        try:
            request.mail = complete_mail(mail, self.manager)
        except MailError as error:
            return request.not_sent(error)
        sender = BatchSender(iter((request,)), self.manager, None, profile=self._profile, session=self)
        delivery = get_single_delivery(sender.deliveries())
        assert delivery is not None
        return delivery

    def send_many(self, mails: Iterable[Mail]) -> Generator[Delivery, None, None]:
        """Send many mails.

        With PIPELINING (RFC 2920), each envelope is sent directly after the previous message, before its reply. If
        the server closes the session (a message limit, idle time), it is opened again. It is left open at the end.

        Args:
            mails: consumed lazily, a few ahead of the deliveries.

        Returns:
            One delivery per mail, in the order in which they finish; that of a mail that cannot be sent has the error.
        """
        return BatchSender(iter(mails), self.manager, lambda: self, profile=self._profile, session=self).deliveries()

    def noop(self) -> Reply:
        """Send NOOP (RFC 5321 4.1.1.9) and return the reply.

        Raises:
            MailError: the session is closed, the connection broke, or the server refused.
        """
        if self._transport is None:
            raise ConnectError("The session is closed.", remedy="Open another one.")
        try:
            self._transport.send_command("NOOP")
            reply = self._transport.read_reply()
        except MailError:
            self.abort()
            raise
        if not reply.positive:
            raise ConnectError(
                f"{self._transport.peer} answered NOOP with '{reply}'.",
                remedy=remedy_for(
                    reply,
                    is_anonymous=self.authentication is None,
                    has_client_certificate=self._transport.has_client_certificate,
                ),
                reply=reply,
                retryable=reply.transient,
            )
        return reply

    def close(self) -> None:
        """Send QUIT if `send_quit` has not, wait for the reply, and close the socket. Never raises."""
        self.send_quit()
        transport, self._transport = self._transport, None
        if transport is None:
            return
        with contextlib.suppress(MailError):
            if self.needs_rset_before_quit:
                transport.read_reply()
            transport.read_reply()
        transport.close()

    def send_quit(self) -> None:
        """Send QUIT, unless it was sent with the last mail, without waiting for the reply; `close` must follow."""
        transport = self._transport
        if transport is None or self._is_closing:
            return
        self._is_closing = True
        # One deadline for QUIT and its reply, so that closing all sessions of a batch takes no longer than closing one.
        deadline = time.monotonic() + min(QUIT_TIMEOUT, transport.timeout)
        transport.give_up_at = deadline if transport.give_up_at is None else min(deadline, transport.give_up_at)
        if self.has_quit:
            return
        self.has_quit = True
        try:
            if self.needs_rset_before_quit:
                transport.send_command("RSET")
            transport.send_command("QUIT")
        except MailError:
            self.abort()

    def abort(self) -> None:
        """Close the socket without QUIT: the connection broke, or the server would read QUIT as message text."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def __enter__(self) -> Self:
        return self if self.is_open else self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
