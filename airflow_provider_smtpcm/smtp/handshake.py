"""The handshake of an SMTP session: connect, greeting, EHLO, STARTTLS, AUTH."""

from __future__ import annotations

import logging
import re
import socket
import ssl
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager, SslMode
from airflow_provider_smtpcm.errors import ConnectError, Phase, ProtocolError, TlsError
from airflow_provider_smtpcm.smtp.remedies import get_certificate_remedy, remedy_for
from airflow_provider_smtpcm.smtp.trace import Step, Trace
from airflow_provider_smtpcm.smtp.transport import Transport, format_peer

if TYPE_CHECKING:
    from airflow_provider_smtpcm.smtp.auth.negotiation import WindowsAuthenticator
    from airflow_provider_smtpcm.smtp.auth.sasl import Authentication

log = logging.getLogger(__name__)

_FQDN = r"[A-Za-z0-9]([A-Za-z0-9\-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9\-]*[A-Za-z0-9])?)+"


class Handshake:
    """Opens a connection and makes it ready for MAIL.

    Args:
        manager: the server, and how to sign in to it.
        context: a TLS context to reuse; None: one is built if needed.
        authenticator: signs in, if the connection uses Windows Authentication.
        give_up_at: deadline (`time.monotonic`) for all operations; None: no deadline.
        trace: receives each step.
    """

    def __init__(
        self,
        manager: SmtpConnectionManager,
        *,
        context: ssl.SSLContext | None,
        authenticator: WindowsAuthenticator | None,
        give_up_at: float | None,
        trace: Trace,
    ) -> None:
        self._manager = manager
        self._context = context
        self._authenticator = authenticator
        self._give_up_at = give_up_at
        self._trace = trace
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
        deadline = deadline if self._give_up_at is None else min(deadline, self._give_up_at)
        context = self._context
        if context is None and manager.ssl_mode is not SslMode.NONE:
            from airflow_provider_smtpcm.smtp.tls import create_context_of

            context = create_context_of(manager)
        transport = self._transport
        try:
            transport.connect(manager.host, manager.port, deadline=deadline, trace=self._trace)
            transport.give_up_at = deadline
            if manager.ssl_mode is SslMode.IMPLICIT and context is not None:
                transport.phase = Phase.TLS
                self._trace.begin(Step.TLS)
                self._encrypt(transport, context)
            transport.give_up_at = self._give_up_at
            self._read_greeting(transport)
            self._ehlo(transport, Step.HELLO)
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
        if reply.code != 220:  # RFC 5321 3.1: the server accepts no mail now
            raise ConnectError(
                f"{transport.peer} greeted with '{reply}'.",
                remedy=get_certificate_remedy(reply, has_client_certificate=transport.has_client_certificate)
                or "The server accepts no mail from this worker now; try again, or ask its administrator why.",
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
