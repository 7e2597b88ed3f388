"""One conversation with a mail server: greeting, EHLO, STARTTLS, AUTH, then any number of mails. Knows no Airflow."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import ssl
import time
from collections.abc import Generator, Iterable
from types import TracebackType
from typing import Self

from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager, SslMode
from airflow_provider_smtpcm.errors import ConnectError, MailError, Phase, Reply, TlsError
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.mail.errand import Errand, in_order
from airflow_provider_smtpcm.smtp.delivery import Delivery
from airflow_provider_smtpcm.smtp.manners import Manners
from airflow_provider_smtpcm.smtp.many import Mailing
from airflow_provider_smtpcm.smtp.outgoing import not_prepared
from airflow_provider_smtpcm.smtp.refusals import remedy_for
from airflow_provider_smtpcm.smtp.tls import tls_context
from airflow_provider_smtpcm.smtp.trace import LOG, Step, Trace
from airflow_provider_smtpcm.smtp.windows.sign_in import SignedIn, WindowsSignIn
from airflow_provider_smtpcm.smtp.wire import Wire

log = logging.getLogger(__name__)

# Saying good-bye is a courtesy: it may not hold anybody up.
QUIT_TIMEOUT = 5.0
# Some servers write "AUTH=NTLM" beside "AUTH NTLM", for clients older than RFC 2554.
_AUTH_WITH_EQUALS = re.compile(r"^AUTH=", re.IGNORECASE)
_SIZE = re.compile(r"[0-9]{1,20}")  # RFC 1870 4
_FULL_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9\-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9\-]*[A-Za-z0-9])?)+")


class Session:
    """An open, signed-in conversation. Use it as a context manager; it is open from `open()` on.

    Args:
        manager: the server and how to talk to it.
        context: a TLS context built before, since building one is slow; else one is built when needed.
        windows: what signs sessions in and remembers how, shared by the sessions of a hook.
        give_up_at: a moment (`time.monotonic`) that nothing outlives, whatever the timeouts say.
        trace: hears of each step of `open`; the log by default.
    """

    def __init__(
        self,
        manager: SmtpConnectionManager,
        *,
        context: ssl.SSLContext | None = None,
        windows: WindowsSignIn | None = None,
        give_up_at: float | None = None,
        trace: Trace = LOG,
    ) -> None:
        self.manager = manager
        #: What the server offers: keyword in capitals to its parameters (RFC 5321 4.1.1.1).
        self.extensions: dict[str, str] = {}
        #: How we signed in; None for an anonymous session.
        self.signed_in: SignedIn | None = None
        self._windows = windows or WindowsSignIn(manager)
        self._context = context
        self._give_up_at = give_up_at
        self._trace = trace
        self._wire: Wire | None = None
        self._manners = Manners()
        self._quit_said = False
        #: Whether a mail went through since it was opened, or was refused.
        self.has_carried_mail = False
        #: Whether a transaction was begun and not ended, so that the server has to be told to forget it.
        self.needs_reset = False
        #: Whether one is broken off before its message, so that the server has to be told to forget it at the end.
        self.half_begun = False

    def open(self) -> Self:
        """Connect, encrypt and sign in, as the connection manager says.

        Raises:
            MailError: nothing was sent, and the connection is closed again.
        """
        if self._wire is not None:
            return self
        opening = time.monotonic() + self.manager.timeout
        ceiling = opening if self._give_up_at is None else min(opening, self._give_up_at)
        context = self._context
        if context is None and self.manager.ssl_mode is not SslMode.NONE:
            context = tls_context(self.manager)
        self._quit_said = self.has_carried_mail = self.needs_reset = False
        self._wire = wire = Wire.connect(
            self.manager.host, self.manager.port, timeout=self.manager.timeout, give_up_at=ceiling, trace=self._trace
        )
        try:
            if self.manager.ssl_mode is SslMode.IMPLICIT and context is not None:
                wire.phase = Phase.TLS
                self._trace.begin(Step.TLS)
                self._encrypt(wire, context)
            wire.give_up_at = self._give_up_at
            self._greeting(wire)
            self._say_hello(wire, Step.HELLO)
            if self.manager.ssl_mode is SslMode.STARTTLS and context is not None:
                self._start_tls(wire, context)
            wire.phase = Phase.AUTH
            if self.manager.auth_mode is AuthMode.WINDOWS:
                self.signed_in = self._windows.sign_in(wire, self.extensions, trace=self._trace)
        except BaseException:
            self._wire = None
            wire.close()
            raise
        log.info(
            "Connected to %s (%s, %s).",
            wire.peer,
            wire.tls_version or "clear text",
            f"signed in by {self.signed_in}" if self.signed_in else "anonymous",
        )
        return self

    @property
    def wire(self) -> Wire:
        """The open line, for who sends mail through it."""
        assert self._wire is not None
        return self._wire

    @property
    def usable(self) -> bool:
        """Whether another mail can go through this session."""
        return self._wire is not None

    @property
    def tls_version(self) -> str | None:
        """Such as `TLSv1.3`; None in clear text."""
        return self._wire.tls_version if self._wire else None

    @property
    def size_limit(self) -> int | None:
        """The largest message that the server takes, in octets (RFC 1870); None where it does not say."""
        text = self.extensions.get("SIZE", "")
        return int(text) or None if _SIZE.fullmatch(text) else None

    def send(self, mail: Mail, *, index: int = 0) -> Delivery:
        """Send one mail. Never raises for the mail or the server: the delivery says what became of it.

        Args:
            mail: what to say; a From or Reply-To that it lacks is the connection's.
            index: its place in a batch.

        Raises:
            OutcomeUnknownError: the task was interrupted (a time limit, say) after the whole message was handed over.
        """
        errand = Errand(index, mail)
        if self._wire is None:
            closed = ConnectError("The session is closed.", remedy="Open another one.")
            return not_prepared(errand, mail, closed)
        mailing = Mailing(iter((errand,)), self.manager, None, manners=self._manners, session=self)
        return next(mailing.deliveries())

    def send_many(self, mails: Iterable[Mail]) -> Generator[Delivery, None, None]:
        """Send many mails, each envelope on the heels of the mail before where the server offers PIPELINING.

        The session is opened again where the server closes it, for its limit of messages or for idling. It stays open.

        Args:
            mails: taken as they are needed, a few ahead of the deliveries.

        Returns:
            One delivery for every mail, as they finish; never raises for one mail.
        """
        return Mailing(in_order(mails), self.manager, self.open, manners=self._manners, session=self).deliveries()

    def noop(self) -> Reply:
        """Ask whether the server is still there (RFC 5321 4.1.1.9).

        Raises:
            MailError: it is not, or it wants something else first.
        """
        if self._wire is None:
            raise ConnectError("The session is closed.", remedy="Open another one.")
        try:
            self._wire.command("NOOP")
            reply = self._wire.read_reply()
        except MailError:
            self.abandon()
            raise
        if not reply.positive:
            raise ConnectError(
                f"{self._wire.peer} answers NOOP with '{reply}'.",
                remedy=remedy_for(reply, anonymous=self.signed_in is None),
                reply=reply,
                retryable=reply.transient,
            )
        return reply

    def close(self) -> None:
        """Say QUIT and close. Never raises: a good-bye cannot turn a success into a failure."""
        self.say_quit()
        wire, self._wire = self._wire, None
        if wire is None:
            return
        with contextlib.suppress(MailError):
            if self.half_begun:
                wire.read_reply()  # to RSET
            wire.read_reply()
        wire.close()

    def say_quit(self) -> None:
        """Say QUIT without waiting for the answer; `close` does, and has to follow."""
        if self._wire is None or self._quit_said:
            return
        self._quit_said = True
        self._wire.timeout = min(QUIT_TIMEOUT, self._wire.timeout)
        try:
            if self.half_begun:
                self._wire.command("RSET")
            self._wire.command("QUIT")
        except MailError:
            self.abandon()

    def abandon(self) -> None:
        """Close the socket without a word, where a word would be taken for message text or nobody listens."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def __enter__(self) -> Self:
        return self if self.usable else self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
        name = self.manager.local_hostname or _own_name(wire.local_address)
        wire.command(f"EHLO {name}")
        reply = wire.read_reply()
        before, self.extensions = self.extensions, {}
        if reply.positive:
            for line in reply.text.split("\n")[1:]:
                keyword, _, parameters = _AUTH_WITH_EQUALS.sub("AUTH ", line).partition(" ")
                known = self.extensions.get(keyword.upper())
                self.extensions[keyword.upper()] = f"{known} {parameters}" if known else parameters
            again = step is Step.HELLO_AFTER_TLS
            offers = _what_changed(before, self.extensions) if again else f"it offers {self.offered}"
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
                else remedy_for(reply, anonymous=self.manager.auth_mode is AuthMode.ANONYMOUS),
                reply=reply,
                retryable=reply.transient,
            )
        self._trace.tell(step, f"HELO said as {name}, since the server does not know EHLO; it offers no extension")

    def _start_tls(self, wire: Wire, context: ssl.SSLContext) -> None:
        wire.phase = Phase.TLS
        self._trace.begin(Step.TLS)
        if "STARTTLS" not in self.extensions:
            raise TlsError(
                f"{wire.peer} does not offer STARTTLS (it offers {self.offered}).",
                remedy="Have it enabled on the server; or set SSL to 'Implicit TLS' with the port that speaks it, or "
                "to 'None' if clear text is acceptable.",
            )
        if self.manager.auth_mode is AuthMode.WINDOWS:
            log.info("%s offers before TLS: %s.", wire.peer, self.offered)
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
        implicit = self.manager.ssl_mode is SslMode.IMPLICIT
        wire.start_tls(context, self.manager.host, implicit=implicit)
        began = "from the start" if implicit else "after STARTTLS"
        verified = "" if self.manager.verify_certificate else "; the certificate was not verified"
        self._trace.tell(Step.TLS, f"{wire.tls_version}, {wire.cipher}, {began}{verified}")
        self._trace.encrypted(wire)

    @property
    def offered(self) -> str:
        """The extensions in the server's order, for a message."""
        return ", ".join(f"{key} {value}".strip() for key, value in self.extensions.items()) or "no extension"


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
