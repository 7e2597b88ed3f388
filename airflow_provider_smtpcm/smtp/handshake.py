"""The handshake of a session: connect, greeting, EHLO, STARTTLS, AUTH."""

from __future__ import annotations

import logging
import re
import socket
import ssl
import time
from collections.abc import Mapping

from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager, SslMode
from airflow_provider_smtpcm.errors import ConnectError, Phase, TlsError
from airflow_provider_smtpcm.smtp.auth.sasl import Authentication
from airflow_provider_smtpcm.smtp.auth.windows import WindowsAuthenticator
from airflow_provider_smtpcm.smtp.remedies import remedy_for
from airflow_provider_smtpcm.smtp.tls import tls_context
from airflow_provider_smtpcm.smtp.trace import Step, Trace
from airflow_provider_smtpcm.smtp.transport import Transport

log = logging.getLogger(__name__)

# Some servers write "AUTH=NTLM" beside "AUTH NTLM", for clients older than RFC 2554.
_AUTH_WITH_EQUALS = re.compile(r"^AUTH=", re.IGNORECASE)
_FULL_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9\-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9\-]*[A-Za-z0-9])?)+")


class Handshake:
    """Opens one connection, up to where it is ready for mail.

    Args:
        manager: the server and how to sign in to it.
        context: a TLS context built before; None: one is built if it is needed.
        authenticator: signs in where the connection asks for Windows Authentication.
        give_up_at: a moment (`time.monotonic`) at which every operation fails; None: there is none.
        trace: receives each step.
    """

    def __init__(
        self,
        manager: SmtpConnectionManager,
        *,
        context: ssl.SSLContext | None,
        authenticator: WindowsAuthenticator,
        give_up_at: float | None,
        trace: Trace,
    ) -> None:
        self._manager = manager
        self._context = context
        self._authenticator = authenticator
        self._give_up_at = give_up_at
        self._trace = trace
        #: What the server offers: keyword in capitals to its parameters (RFC 5321 4.1.1.1).
        self.extensions: dict[str, str] = {}
        #: How we signed in; None for an anonymous session.
        self.authentication: Authentication | None = None

    def run(self) -> Transport:
        """Connect, encrypt and sign in, as the connection manager says.

        Returns:
            The open transport; `extensions` and `authentication` are set.

        Raises:
            MailError: nothing was sent, and the connection is closed again.
        """
        manager = self._manager
        deadline = time.monotonic() + manager.timeout
        deadline = deadline if self._give_up_at is None else min(deadline, self._give_up_at)
        context = self._context
        if context is None and manager.ssl_mode is not SslMode.NONE:
            context = tls_context(manager)
        transport = Transport.connect(
            manager.host, manager.port, timeout=manager.timeout, give_up_at=deadline, trace=self._trace
        )
        try:
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
            if manager.auth_mode is AuthMode.WINDOWS:
                self.authentication = self._authenticator.authenticate(transport, self.extensions, trace=self._trace)
        except BaseException:
            transport.close()
            transport.replies.clear()  # keeps challenges, and tokens that the server repeated, from error collectors
            raise
        return transport

    def _read_greeting(self, transport: Transport) -> None:
        transport.phase = Phase.CONNECT
        self._trace.begin(Step.GREETING)
        reply = transport.read_reply()
        transport.awaiting_greeting = False
        if reply.code != 220:  # RFC 5321 3.1: anything else means that the server takes no mail now
            raise ConnectError(
                f"{transport.peer} greets with '{reply}'.",
                remedy="The server takes no mail from this worker now; try again, or ask its administrator why.",
                reply=reply,
                retryable=not 500 <= reply.code <= 599,
            )
        self._trace.tell(Step.GREETING, str(reply))

    def _ehlo(self, transport: Transport, step: Step) -> None:
        self._trace.begin(step)
        name = self._manager.local_hostname or _ehlo_name(transport.local_address)
        transport.command(f"EHLO {name}")
        reply = transport.read_reply()
        before, self.extensions = self.extensions, {}
        if reply.positive:
            for line in reply.text.split("\n")[1:]:
                keyword, _, parameters = _AUTH_WITH_EQUALS.sub("AUTH ", line).partition(" ")
                known = self.extensions.get(keyword.upper())
                self.extensions[keyword.upper()] = f"{known} {parameters}" if known else parameters
            again = step is Step.HELLO_AFTER_TLS
            offers = (
                _format_changes(before, self.extensions)
                if again
                else f"it offers {_format_extensions(self.extensions)}"
            )
            self._trace.tell(step, f"said as {name}; {offers}")
            return
        if reply.code in (500, 502, 504, 550):  # RFC 5321 3.2: an old server knows HELO only
            transport.command(f"HELO {name}")
            reply = transport.read_reply()
        if not reply.positive:
            raise ConnectError(
                f"{transport.peer} refuses EHLO {name} with '{reply}'.",
                remedy="Give the name that it expects of this worker as 'Local host name'."
                if reply.code in (501, 504, 550, 553)
                else remedy_for(reply, anonymous=self._manager.auth_mode is AuthMode.ANONYMOUS),
                reply=reply,
                retryable=reply.transient,
            )
        self._trace.tell(step, f"HELO said as {name}, since the server does not know EHLO; it offers no extension")

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
            log.info("%s offers before TLS: %s.", transport.peer, _format_extensions(self.extensions))
        transport.command("STARTTLS")
        reply = transport.read_reply()
        if reply.code != 220:
            raise TlsError(
                f"{transport.peer} offers STARTTLS, but answers it with '{reply}'.",
                remedy="The server's administrator must look at its certificate and its log.",
                reply=reply,
                retryable=reply.transient,
            )
        self._encrypt(transport, context)
        self._ehlo(transport, Step.HELLO_AFTER_TLS)  # RFC 3207 4.2: what was offered before TLS no longer counts

    def _encrypt(self, transport: Transport, context: ssl.SSLContext) -> None:
        implicit = self._manager.ssl_mode is SslMode.IMPLICIT
        transport.start_tls(context, self._manager.server_name, implicit=implicit)
        began = "from the start" if implicit else "after STARTTLS"
        verified = "" if self._manager.verify_certificate else "; the certificate was not verified"
        self._trace.tell(Step.TLS, f"{transport.tls_version}, {transport.cipher}, {began}{verified}")
        self._trace.encrypted(transport)


def _format_extensions(extensions: Mapping[str, str]) -> str:
    """Return the extensions in the server's order, for a message."""
    return ", ".join(f"{key} {value}".strip() for key, value in extensions.items()) or "no extension"


def _format_changes(before: dict[str, str], after: dict[str, str]) -> str:
    """Return which extensions an EHLO offers that the one before did not, and the other way round."""
    new, gone = (
        [f"{key} {value}".strip() for key, value in mine.items() if other.get(key) != value]
        for mine, other in ((after, before), (before, after))
    )
    changes = [f"{word}: {', '.join(offers)}" for word, offers in (("new", new), ("gone", gone)) if offers]
    return "; ".join((*changes, "the rest as before" if changes else "it offers the same as before"))


def _ehlo_name(local_address: str) -> str:
    """Return the name for EHLO (RFC 5321 4.1.4): the full host name, else an address literal; without a DNS lookup."""
    name = socket.gethostname()
    if _FULL_NAME.fullmatch(name):
        return name
    return f"[IPv6:{local_address}]" if ":" in local_address else f"[{local_address}]"
