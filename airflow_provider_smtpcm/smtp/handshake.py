"""The beginning of a conversation: connect, greeting, EHLO, STARTTLS, AUTH. Knows no mail, and no Airflow."""

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
from airflow_provider_smtpcm.smtp.transport import Wire

log = logging.getLogger(__name__)

# Some servers write "AUTH=NTLM" beside "AUTH NTLM", for clients older than RFC 2554.
_AUTH_WITH_EQUALS = re.compile(r"^AUTH=", re.IGNORECASE)
_FULL_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9\-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9\-]*[A-Za-z0-9])?)+")


class Handshake:
    """One way in, from nothing to a line that is ready for mail.

    Args:
        manager: the server and how to talk to it.
        context: a TLS context built before; None: one is built if it is needed.
        authenticator: what signs in.
        give_up_at: a moment (`time.monotonic`) that nothing outlives, or None.
        trace: hears of each step.
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

    def run(self) -> Wire:
        """Connect, encrypt and sign in, as the connection manager says.

        Raises:
            MailError: nothing was sent, and the connection is closed again.
        """
        manager = self._manager
        opening = time.monotonic() + manager.timeout
        ceiling = opening if self._give_up_at is None else min(opening, self._give_up_at)
        context = self._context
        if context is None and manager.ssl_mode is not SslMode.NONE:
            context = tls_context(manager)
        wire = Wire.connect(manager.host, manager.port, timeout=manager.timeout, give_up_at=ceiling, trace=self._trace)
        try:
            if manager.ssl_mode is SslMode.IMPLICIT and context is not None:
                wire.phase = Phase.TLS
                self._trace.begin(Step.TLS)
                self._encrypt(wire, context)
            wire.give_up_at = self._give_up_at
            self._greeting(wire)
            self._say_hello(wire, Step.HELLO)
            if manager.ssl_mode is SslMode.STARTTLS and context is not None:
                self._start_tls(wire, context)
            wire.phase = Phase.AUTH
            if manager.auth_mode is AuthMode.WINDOWS:
                self.authentication = self._authenticator.authenticate(wire, self.extensions, trace=self._trace)
        except BaseException:
            wire.close()
            wire.replies.clear()  # a challenge, or a token that the server repeated, is not for an error collector
            raise
        return wire

    def _greeting(self, wire: Wire) -> None:
        wire.phase = Phase.CONNECT
        self._trace.begin(Step.GREETING)
        reply = wire.read_reply()
        wire.awaiting_greeting = False
        if reply.code != 220:  # RFC 5321 3.1: anything else means that no mail is wanted now
            raise ConnectError(
                f"{wire.peer} greets with '{reply}'.",
                remedy="The server takes no mail from this worker now; try again, or ask its administrator why.",
                reply=reply,
                retryable=not 500 <= reply.code <= 599,
            )
        self._trace.tell(Step.GREETING, str(reply))

    def _say_hello(self, wire: Wire, step: Step) -> None:
        self._trace.begin(step)
        name = self._manager.local_hostname or _own_name(wire.local_address)
        wire.command(f"EHLO {name}")
        reply = wire.read_reply()
        before, self.extensions = self.extensions, {}
        if reply.positive:
            for line in reply.text.split("\n")[1:]:
                keyword, _, parameters = _AUTH_WITH_EQUALS.sub("AUTH ", line).partition(" ")
                known = self.extensions.get(keyword.upper())
                self.extensions[keyword.upper()] = f"{known} {parameters}" if known else parameters
            again = step is Step.HELLO_AFTER_TLS
            offers = _what_changed(before, self.extensions) if again else f"it offers {_told(self.extensions)}"
            self._trace.tell(step, f"said as {name}; {offers}")
            return
        if reply.code in (500, 502, 504, 550):  # RFC 5321 3.2: a server of old knows HELO only
            wire.command(f"HELO {name}")
            reply = wire.read_reply()
        if not reply.positive:
            raise ConnectError(
                f"{wire.peer} refuses EHLO {name} with '{reply}'.",
                remedy="Give the name that it expects of this worker as 'Local host name'."
                if reply.code in (501, 504, 550, 553)
                else remedy_for(reply, anonymous=self._manager.auth_mode is AuthMode.ANONYMOUS),
                reply=reply,
                retryable=reply.transient,
            )
        self._trace.tell(step, f"HELO said as {name}, since the server does not know EHLO; it offers no extension")

    def _start_tls(self, wire: Wire, context: ssl.SSLContext) -> None:
        wire.phase = Phase.TLS
        self._trace.begin(Step.TLS)
        if "STARTTLS" not in self.extensions:
            raise TlsError(
                f"{wire.peer} does not offer STARTTLS (it offers {_told(self.extensions)}).",
                remedy="Have it enabled on the server; or set SSL to 'Implicit TLS' with the port that speaks it, or "
                "to 'None' if clear text is acceptable.",
            )
        if self._manager.auth_mode is AuthMode.WINDOWS:
            log.info("%s offers before TLS: %s.", wire.peer, _told(self.extensions))
        wire.command("STARTTLS")
        reply = wire.read_reply()
        if reply.code != 220:
            raise TlsError(
                f"{wire.peer} offers STARTTLS, but answers it with '{reply}'.",
                remedy="The server's administrator must look at its certificate and its log.",
                reply=reply,
                retryable=reply.transient,
            )
        self._encrypt(wire, context)
        self._say_hello(wire, Step.HELLO_AFTER_TLS)  # RFC 3207 4.2: what was offered before TLS no longer counts

    def _encrypt(self, wire: Wire, context: ssl.SSLContext) -> None:
        implicit = self._manager.ssl_mode is SslMode.IMPLICIT
        wire.start_tls(context, self._manager.server_name, implicit=implicit)
        began = "from the start" if implicit else "after STARTTLS"
        verified = "" if self._manager.verify_certificate else "; the certificate was not verified"
        self._trace.tell(Step.TLS, f"{wire.tls_version}, {wire.cipher}, {began}{verified}")
        self._trace.encrypted(wire)


def _told(extensions: Mapping[str, str]) -> str:
    """The extensions in the server's order, for a message."""
    return ", ".join(f"{key} {value}".strip() for key, value in extensions.items()) or "no extension"


def _what_changed(before: dict[str, str], after: dict[str, str]) -> str:
    """What an EHLO offers that the one before did not, and the other way round."""
    new, gone = (
        [f"{key} {value}".strip() for key, value in mine.items() if other.get(key) != value]
        for mine, other in ((after, before), (before, after))
    )
    told = [f"{word}: {', '.join(offers)}" for word, offers in (("new", new), ("gone", gone)) if offers]
    return "; ".join((*told, "the rest as before" if told else "it offers the same as before"))


def _own_name(local_address: str) -> str:
    """What to say in EHLO (RFC 5321 4.1.4): the full host name, else an address literal; never waits for DNS."""
    name = socket.gethostname()
    if _FULL_NAME.fullmatch(name):
        return name
    return f"[IPv6:{local_address}]" if ":" in local_address else f"[{local_address}]"
