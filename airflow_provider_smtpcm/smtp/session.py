"""An SMTP session: the handshake (connect, greeting, EHLO, STARTTLS, AUTH), any number of mails, QUIT."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import ssl
import time
from collections.abc import Generator, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager, SslMode
from airflow_provider_smtpcm.errors import (
    ConnectError,
    ConnectionLostError,
    MailError,
    MessageError,
    NoAnswerError,
    Phase,
    ProtocolError,
    Reply,
    TlsError,
)
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.mail.render import Rendering
from airflow_provider_smtpcm.smtp.cancellation import get_single_delivery
from airflow_provider_smtpcm.smtp.connection_pool import BatchSender
from airflow_provider_smtpcm.smtp.outcome import Delivery, format_addresses, get_greeting_remedy, remedy_for
from airflow_provider_smtpcm.smtp.queue import SendRequest, as_mail, complete_mail, refuse_message
from airflow_provider_smtpcm.smtp.throttling import ServerProfile
from airflow_provider_smtpcm.smtp.trace import LOG, Step, Trace
from airflow_provider_smtpcm.smtp.transport import LOST_REMEDY, Transport, format_peer

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail.mime_message import AnyMail, MessageLike
    from airflow_provider_smtpcm.smtp.auth.negotiation import WindowsAuthenticator
    from airflow_provider_smtpcm.smtp.auth.sasl import Authentication
    from airflow_provider_smtpcm.smtp.failover import Failover, Outage, Server

log = logging.getLogger(__name__)

# The errors that mean, before the reply to EHLO, that another of several servers is to be tried.
_UNREACHABLE = (ConnectError, ConnectionLostError, NoAnswerError, ProtocolError)
# Seconds to wait for the reply to QUIT; no mail depends on it.
QUIT_TIMEOUT = 5.0
_MAX_SIZE_DIGITS = 20  # RFC 1870 4
_FQDN = r"[A-Za-z0-9]([A-Za-z0-9\-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9\-]*[A-Za-z0-9])?)+"
# RFC 9422 4: `LIMITS MAILMAX=20 RCPTMAX=100`
_LIMIT = r"(?i)(?<!\S){}=([1-9][0-9]{{0,5}})(?!\S)"


class Session:
    """An SMTP session. Call `open` before sending, or use it as a context manager.

    Args:
        manager: the server, and how to sign in to it.
        context: a TLS context to reuse, since building one is slow; None: one is built on demand.
        authenticator: signs in and remembers the mechanism that worked; share it between sessions. None: a new one.
        give_up_at: deadline (`time.monotonic`) for all operations, whatever the timeouts; None: no deadline.
        trace: receives each step of `open`; by default they are logged.
        failover: chooses the server if the connection has several; share it between sessions, instead of an
            authenticator. None: a new one, if the connection has fallback hosts.
    """

    def __init__(
        self,
        manager: SmtpConnectionManager,
        *,
        context: ssl.SSLContext | None = None,
        authenticator: WindowsAuthenticator | None = None,
        give_up_at: float | None = None,
        trace: Trace = LOG,
        failover: Failover | None = None,
    ) -> None:
        self.manager = manager
        #: The server that the session was opened to; None if the connection has only one.
        self.server: Server | None = None
        #: Why the servers before it are not used, by their rank.
        self.passed_over: dict[int, Outage] = {}
        #: The server's EHLO keywords, in capitals, with their parameters (RFC 5321 4.1.1.1).
        self.extensions: dict[str, str] = {}
        #: How the session signed in; None: anonymous.
        self.authentication: Authentication | None = None
        if failover is None and manager.fallback_hosts:
            from airflow_provider_smtpcm.smtp.failover import Failover

            failover = Failover(manager)
        self._failover = failover
        if failover is None and authenticator is None and manager.auth_mode is AuthMode.WINDOWS:
            from airflow_provider_smtpcm.smtp.auth.negotiation import WindowsAuthenticator

            authenticator = WindowsAuthenticator(manager)
        self._authenticator = authenticator
        self._context = context
        self._give_up_at = give_up_at
        self._trace = trace
        self._transport: Transport | None = None
        self._handshake: Handshake | None = None
        self._is_interrupted = False
        #: Whether the last `open` failed because the server cannot be reached, which is what fallback hosts are for.
        self.is_unreachable = False
        self._profile = ServerProfile()
        self._is_closing = False
        #: Whether QUIT was sent, so that no further mail can be sent.
        self.has_quit = False
        #: Whether a mail was accepted or refused since `open`.
        self.has_processed_mail = False
        #: Whether a mail was accepted since `open`.
        self.has_accepted_mail = False
        #: Whether the server has throttled the client in this session.
        self.has_throttled = False
        #: The number of MAIL commands since `open`; counted only if the server limits them.
        self.mail_count = 0
        #: Whether the last transaction is unfinished, so that RSET must precede the next MAIL (RFC 5321 4.1.1.5).
        self.needs_rset_before_mail = False
        #: Whether a transaction was canceled before DATA, so that RSET precedes QUIT.
        self.needs_rset_before_quit = False

    def open(self, *, give_up_at: float | None = None) -> Self:
        """Connect, encrypt and sign in as the connection manager says; do nothing if the session is open.

        If the connection has fallback hosts, that is the first server that can be reached.

        Args:
            give_up_at: deadline (`time.monotonic`) for this call, besides the session's; None: no further deadline.

        Raises:
            MailError: the handshake failed; the socket is closed.
        """
        if self._transport is not None:
            return self
        deadline = min((at for at in (self._give_up_at, give_up_at) if at is not None), default=None)
        if self._failover is None:
            self._run(self._new_handshake(self.manager, self._authenticator, deadline))
        else:
            self.passed_over = self._failover.connect(
                lambda server, reach_by: self._try_server(server, deadline, reach_by), deadline
            )
        return self

    def open_to(self, server: Server) -> bool:
        """Open the session to a server that was down, as `Failover.probe` does; return whether it was opened."""
        assert self._failover is not None
        return self._failover.probe(server, lambda one, reach_by: self._try_server(one, self._give_up_at, reach_by))

    def _try_server(self, server: Server, give_up_at: float | None, reach_by: float | None) -> MailError | None:
        """Open the session to one of several servers; return the error if the server cannot be reached."""
        handshake = self._new_handshake(server.manager, server.authenticator, give_up_at, reach_by)
        try:
            self._run(handshake)
        except MailError as error:
            if self._is_interrupted:
                raise
            if self.is_unreachable:
                return error.with_traceback(None)  # its frames would refer to the caller's list of errors
            server.mark_up()
            raise
        server.mark_up()
        self.server = server
        return None

    def _new_handshake(
        self,
        manager: SmtpConnectionManager,
        authenticator: WindowsAuthenticator | None,
        give_up_at: float | None,
        reach_by: float | None = None,
    ) -> Handshake:
        context = self._context
        if context is None and manager.ssl_mode is not SslMode.NONE:
            from airflow_provider_smtpcm.smtp.tls import create_context_of

            context = create_context_of(manager)
        return Handshake(
            manager,
            context=context,
            authenticator=authenticator,
            give_up_at=give_up_at,
            trace=self._trace,
            reach_by=reach_by,
        )

    def _run(self, handshake: Handshake) -> None:
        self._is_closing = self.has_quit = False
        self.has_processed_mail = self.needs_rset_before_mail = self.needs_rset_before_quit = False
        self.has_accepted_mail = self.has_throttled = False
        self.mail_count = 0
        self._handshake = handshake
        self.is_unreachable = False
        if self._is_interrupted:  # perhaps before there was a handshake to interrupt
            handshake.interrupt()
        try:
            self._transport = transport = handshake.run()
        except BaseException as error:
            self.is_unreachable = not handshake.is_reached and isinstance(error, _UNREACHABLE)
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
            f"signed in with {self.authentication}" if self.authentication else "anonymous",
        )

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
        return self._announced_limit("RCPTMAX")

    @property
    def mail_limit(self) -> int | None:
        """The server's maximum number of MAIL commands per session (RFC 9422 4); None: not announced."""
        return self._announced_limit("MAILMAX")

    def _announced_limit(self, name: str) -> int | None:
        match = re.search(_LIMIT.format(name), self.extensions["LIMITS"]) if "LIMITS" in self.extensions else None
        return int(match[1]) if match else None

    def limit_error(self, mail: AnyMail, rendering: Rendering) -> MessageError:
        """Return the error for a mail that is larger than the server's SIZE, or needs an extension that it lacks.

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
        if rendering.is_8bit and "8BITMIME" not in self.extensions:
            return MessageError(
                f"The message has octets beyond ASCII, and {peer} does not accept such messages (8BITMIME).",
                remedy="Encode its parts in quoted-printable or base64, before it is signed.",
            )
        sender = (mail.from_address,) if mail.from_address else ()
        addresses = (*sender, *mail.reply_to, *mail.recipients)
        names = [address.address for address in addresses if address.needs_smtputf8]
        if not mail.envelope_sender.isascii() and mail.envelope_sender not in names:
            names.append(mail.envelope_sender)
        if not names:
            return MessageError(
                f"The header of the message has letters outside ASCII, and {peer} does not accept that (SMTPUTF8).",
                remedy="Encode its text (RFC 2047), write domains as A-labels (xn--...), and use ASCII aliases of "
                "mailboxes.",
            )
        return MessageError(
            f"{peer} does not accept addresses with letters outside ASCII before the @ (SMTPUTF8): "
            f"{format_addresses(names)}.",
            remedy="Use an ASCII alias of that mailbox.",
        )

    def send(self, mail: Mail | MessageLike, *, index: int = 0) -> Delivery:
        """Send one mail. If it cannot be sent, nothing is raised: the delivery has the error.

        Args:
            mail: a mail, whose From and Reply-To default to the connection's; or a complete message, as in the hook's
                `send`.
            index: the delivery's index, for callers that send several mails.

        Raises:
            InterruptedDeliveryError: sending was interrupted (by a time limit, for example) after a recipient was
                accepted, or may have been.
        """
        try:
            request = SendRequest(index, as_mail(mail))
        except MessageError as error:
            return refuse_message(index, error)
        if self._transport is None:
            return request.not_sent(ConnectError("The session is closed.", remedy="Open another one."))
        try:
            request.mail = complete_mail(request.mail, self.manager)
        except MailError as error:
            return request.not_sent(error)
        sender = BatchSender(iter((request,)), self.manager, None, profile=self._profile, session=self)
        delivery = get_single_delivery(sender.deliveries())
        assert delivery is not None
        return delivery

    def send_many(self, mails: Iterable[Mail | MessageLike]) -> Generator[Delivery, None, None]:
        """Send many mails.

        With PIPELINING (RFC 2920), each envelope is sent directly after the previous message, before its reply. If
        the server closes the session (a message limit, idle time), it is opened again. It is left open at the end.

        Args:
            mails: consumed lazily, a few ahead of the deliveries.

        Returns:
            One delivery per mail, in the order in which they finish; that of a mail that cannot be sent has the error.
        """
        return BatchSender(iter(mails), self.manager, lambda: self, profile=self._profile, session=self).deliveries()

    def check_open(self) -> None:
        """Check whether the server has closed the session since it was opened, without waiting.

        Raises:
            MailError: it has.
        """
        transport = self.transport
        transport.set_nonblocking()
        transport.receive_some()
        reply = transport.replies.next_reply(transport.phase)
        if reply is not None:
            raise ConnectionLostError(
                f"{transport.peer} closed the session with '{reply}'.",
                remedy=LOST_REMEDY,
                reply=reply,
                phase=transport.phase,
            )

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


# --- The handshake.


class Handshake:
    """Opens a connection and makes it ready for MAIL.

    Args:
        manager: the server, and how to sign in to it.
        context: the TLS context; None without TLS.
        authenticator: signs in, if the connection uses Windows Authentication.
        give_up_at: deadline (`time.monotonic`) for all operations; None: no deadline.
        trace: receives each step.
        reach_by: deadline for all up to the reply to EHLO; None: `give_up_at`.
    """

    def __init__(
        self,
        manager: SmtpConnectionManager,
        *,
        context: ssl.SSLContext | None,
        authenticator: WindowsAuthenticator | None,
        give_up_at: float | None,
        trace: Trace,
        reach_by: float | None = None,
    ) -> None:
        self._manager = manager
        self._context = context
        self._authenticator = authenticator
        self._give_up_at = give_up_at
        self._trace = trace
        self._reach_by = give_up_at if reach_by is None else reach_by
        #: Whether the server has answered EHLO, with anything but 421: it can be reached.
        self.is_reached = False
        self._transport = Transport(peer=format_peer(manager.host, manager.port), timeout=manager.timeout)
        self._transport.has_client_certificate = manager.client_certificate is not None
        #: The server's EHLO keywords, in capitals, with their parameters (RFC 5321 4.1.1.1).
        self.extensions: dict[str, str] = {}
        #: How the session signed in; None: anonymous.
        self.authentication: Authentication | None = None

    def run(self) -> Transport:
        """Connect, encrypt and sign in as the connection manager says.

        Returns:
            The open transport; `extensions` and `authentication` are set.

        Raises:
            MailError: the handshake failed; the socket is closed.
        """
        manager = self._manager
        deadline = time.monotonic() + manager.timeout
        deadline = deadline if self._reach_by is None else min(deadline, self._reach_by)
        context, transport = self._context, self._transport
        try:
            transport.connect(manager.host, manager.port, deadline=deadline, trace=self._trace)
            transport.give_up_at = deadline
            if manager.ssl_mode is SslMode.IMPLICIT and context is not None:
                transport.phase = Phase.TLS
                self._trace.begin(Step.TLS)
                self._encrypt(transport, context)
            transport.give_up_at = self._reach_by
            self._read_greeting(transport)
            self._ehlo(transport, Step.HELLO)
            transport.give_up_at = self._give_up_at
            if manager.ssl_mode is SslMode.STARTTLS and context is not None:
                self._start_tls(transport, context)
            transport.phase = Phase.AUTH
            if self._authenticator is not None:
                self.authentication = self._authenticator.authenticate(transport, self.extensions, trace=self._trace)
        except BaseException:
            transport.close()
            transport.replies.clear()  # keeps challenges and echoed tokens out of error trackers
            raise
        return transport

    def abort(self) -> None:
        """Close the socket, if there is one."""
        self._transport.close()

    def interrupt(self) -> None:
        """Make `run` fail soon; see `Transport.interrupt`."""
        self._transport.interrupt()

    def _read_greeting(self, transport: Transport) -> None:
        transport.phase = Phase.CONNECT
        self._trace.begin(Step.GREETING)
        reply = transport.read_reply()
        transport.is_awaiting_greeting = False
        transport.greeting = reply.text
        if reply.code != 220:  # RFC 5321 3.1: the server accepts no mail now
            raise ConnectError(
                f"{transport.peer} greeted with '{reply}'.",
                remedy=get_greeting_remedy(reply, has_client_certificate=transport.has_client_certificate),
                reply=reply,
                retryable=not 500 <= reply.code <= 599,
            )
        if self._trace.records_info:
            self._trace.info(Step.GREETING, str(reply))

    def _ehlo(self, transport: Transport, step: Step) -> None:
        self._trace.begin(step)
        name = self._manager.local_hostname or _ehlo_name(transport)
        transport.send_command(f"EHLO {name}")
        reply = transport.read_reply()
        self.is_reached = self.is_reached or reply.code != 421
        previous, self.extensions = self.extensions, {}
        if reply.positive:
            for line in reply.text.split("\n")[1:]:
                keyword, _, parameters = line.partition(" ")
                keyword = keyword.upper()
                if keyword.startswith("AUTH="):  # also written by some servers, for clients older than RFC 2554
                    keyword, parameters = "AUTH", line[len("AUTH=") :]
                known = self.extensions.get(keyword)
                self.extensions[keyword] = f"{known} {parameters}" if known else parameters
            if self._trace.records_info:
                if step is Step.HELLO_AFTER_TLS:
                    offers = _format_changes(previous, self.extensions)
                else:
                    offers = f"the server offers {_format_extensions(self.extensions)}"
                self._trace.info(step, f"sent as {name}; {offers}")
            return
        if reply.code in (500, 502, 504, 550):  # RFC 5321 3.2: an old server may know only HELO
            transport.send_command(f"HELO {name}")
            reply = transport.read_reply()
        if not reply.positive:
            raise ConnectError(
                f"{transport.peer} refused EHLO {name} with '{reply}'.",
                remedy="Set 'Local host name' to the name that the server expects of this worker."
                if reply.code in (501, 504, 550, 553)
                else remedy_for(
                    reply,
                    is_anonymous=self._manager.auth_mode is AuthMode.ANONYMOUS,
                    has_client_certificate=transport.has_client_certificate,
                ),
                reply=reply,
                retryable=reply.transient,
            )
        self._trace.info(step, f"the server does not know EHLO: HELO sent as {name}, no extensions")

    def _start_tls(self, transport: Transport, context: ssl.SSLContext) -> None:
        transport.phase = Phase.TLS
        self._trace.begin(Step.TLS)
        if "STARTTLS" not in self.extensions:
            raise TlsError(
                f"{transport.peer} does not offer STARTTLS (it offers {_format_extensions(self.extensions)}).",
                remedy="Have it enabled on the server; or set SSL to 'Implicit TLS' with the port that speaks it, or "
                "to 'None' if clear text is acceptable.",
            )
        if self._manager.auth_mode is AuthMode.WINDOWS:
            log.info("%s offered before TLS: %s.", transport.peer, _format_extensions(self.extensions))
        transport.send_command("STARTTLS")
        reply = transport.read_reply()
        if reply.code != 220:
            raise TlsError(
                f"{transport.peer} offers STARTTLS, but answered it with '{reply}'.",
                remedy="The server's administrator must check its certificate and its log.",
                reply=reply,
                retryable=reply.transient,
            )
        if transport.replies.pending:  # RFC 3207 6: sent before TLS, perhaps not by the server
            raise ProtocolError(
                f"{transport.peer} sent {transport.replies.pending} octets in clear text after it had agreed to "
                "STARTTLS.",
                remedy="Someone on the network path may be injecting commands; the server's administrator must look "
                "into it.",
                phase=Phase.TLS,
            )
        self._encrypt(transport, context)
        self._ehlo(transport, Step.HELLO_AFTER_TLS)  # RFC 3207 4.2: extensions offered before TLS no longer count

    def _encrypt(self, transport: Transport, context: ssl.SSLContext) -> None:
        implicit = self._manager.ssl_mode is SslMode.IMPLICIT
        transport.start_tls(context, self._manager.server_name, implicit=implicit)
        began = "from the start" if implicit else "after STARTTLS"
        verified = "" if self._manager.verify_certificate else "; the certificate was not verified"
        self._trace.info(Step.TLS, f"{transport.tls_version}, {transport.cipher}, {began}{verified}")
        self._trace.on_encrypted(transport)


def _format_extensions(extensions: Mapping[str, str]) -> str:
    """Format extensions in the server's order."""
    return ", ".join(f"{key} {value}".strip() for key, value in extensions.items()) or "no extensions"


def _format_changes(before: dict[str, str], after: dict[str, str]) -> str:
    """Format the difference between the extensions of two EHLO replies."""
    new, gone = (
        [f"{key} {value}".strip() for key, value in these.items() if others.get(key) != value]
        for these, others in ((after, before), (before, after))
    )
    changes = [f"{word}: {', '.join(offers)}" for word, offers in (("new", new), ("gone", gone)) if offers]
    return "; ".join((*changes, "otherwise the same" if changes else "the same extensions as before"))


def _ehlo_name(transport: Transport) -> str:
    """Return the argument of EHLO (RFC 5321 4.1.4): the FQDN, or an address literal; without a DNS lookup."""
    name = socket.gethostname()
    if "." in name and re.fullmatch(_FQDN, name):
        return name
    local_address = transport.local_address
    return f"[IPv6:{local_address}]" if ":" in local_address else f"[{local_address}]"
