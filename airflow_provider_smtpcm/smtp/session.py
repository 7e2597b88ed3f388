"""One conversation with a mail server, from its opening over any number of mails to QUIT. Knows no Airflow."""

from __future__ import annotations

import contextlib
import logging
import re
import ssl
import time
from collections.abc import Generator, Iterable
from types import TracebackType
from typing import Self

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import ConnectError, MailError, Reply
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.smtp.auth.sasl import Authentication
from airflow_provider_smtpcm.smtp.auth.windows import WindowsAuthenticator
from airflow_provider_smtpcm.smtp.batch import BatchSender
from airflow_provider_smtpcm.smtp.cancellation import only_delivery
from airflow_provider_smtpcm.smtp.delivery import Delivery, SendRequest, in_order
from airflow_provider_smtpcm.smtp.handshake import Handshake
from airflow_provider_smtpcm.smtp.outgoing import not_prepared
from airflow_provider_smtpcm.smtp.remedies import remedy_for
from airflow_provider_smtpcm.smtp.throttling import ServerProfile
from airflow_provider_smtpcm.smtp.trace import LOG, Trace
from airflow_provider_smtpcm.smtp.transport import Wire

log = logging.getLogger(__name__)

# Saying good-bye is a courtesy: it may not hold anybody up.
QUIT_TIMEOUT = 5.0
_SIZE = re.compile(r"[0-9]{1,20}")  # RFC 1870 4
_RCPTMAX = re.compile(r"(?<!\S)RCPTMAX=([1-9][0-9]{0,5})(?!\S)", re.IGNORECASE)


class Session:
    """An open, signed-in conversation. Use it as a context manager; it is open from `open()` on.

    Args:
        manager: the server and how to talk to it.
        context: a TLS context built before, since building one is slow; else one is built when needed.
        authenticator: what signs sessions in and remembers how, shared by the sessions of a hook.
        give_up_at: a moment (`time.monotonic`) that nothing outlives, whatever the timeouts say.
        trace: hears of each step of `open`; the log by default.
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
        #: What the server offers: keyword in capitals to its parameters (RFC 5321 4.1.1.1).
        self.extensions: dict[str, str] = {}
        #: How we signed in; None for an anonymous session.
        self.authentication: Authentication | None = None
        self._authenticator = authenticator or WindowsAuthenticator(manager)
        self._context = context
        self._give_up_at = give_up_at
        self._trace = trace
        self._wire: Wire | None = None
        self._manners = ServerProfile()
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
        self._quit_said = self.has_carried_mail = self.needs_reset = self.half_begun = False
        opening = Handshake(
            self.manager,
            context=self._context,
            authenticator=self._authenticator,
            give_up_at=self._give_up_at,
            trace=self._trace,
        )
        self._wire = wire = opening.run()
        self.extensions, self.authentication = opening.extensions, opening.authentication
        log.info(
            "Connected to %s (%s, %s).",
            wire.peer,
            wire.tls_version or "clear text",
            f"signed in by {self.authentication}" if self.authentication else "anonymous",
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

    @property
    def recipient_limit(self) -> int | None:
        """How many recipients of one transaction the server takes (RFC 9422 4); None where it does not say."""
        found = _RCPTMAX.search(self.extensions.get("LIMITS", ""))
        return int(found[1]) if found else None

    def send(self, mail: Mail, *, index: int = 0) -> Delivery:
        """Send one mail. Never raises for the mail or the server: the delivery says what became of it.

        Args:
            mail: what to say; a From or Reply-To that it lacks is the connection's.
            index: its place in a batch.

        Raises:
            InterruptedDeliveryError: sending was interrupted (by a time limit, for example) after a recipient was
                accepted, or may have been.
        """
        errand = SendRequest(index, mail)
        if self._wire is None:
            closed = ConnectError("The session is closed.", remedy="Open another one.")
            return not_prepared(errand, mail, closed)
        mailing = BatchSender(iter((errand,)), self.manager, None, manners=self._manners, session=self)
        delivery = only_delivery(mailing.deliveries())
        assert delivery is not None
        return delivery

    def send_many(self, mails: Iterable[Mail]) -> Generator[Delivery, None, None]:
        """Send many mails, each envelope on the heels of the mail before where the server offers PIPELINING.

        The session is opened again where the server closes it, for its limit of messages or for idling. It stays open.

        Args:
            mails: taken as they are needed, a few ahead of the deliveries.

        Returns:
            One delivery for every mail, as they finish; never raises for one mail.
        """
        return BatchSender(in_order(mails), self.manager, self.open, manners=self._manners, session=self).deliveries()

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
                remedy=remedy_for(reply, anonymous=self.authentication is None),
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
        # One moment for all that follows, so that the sessions of a batch are waited for together.
        until = time.monotonic() + min(QUIT_TIMEOUT, self._wire.timeout)
        self._wire.give_up_at = until if self._wire.give_up_at is None else min(until, self._wire.give_up_at)
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
