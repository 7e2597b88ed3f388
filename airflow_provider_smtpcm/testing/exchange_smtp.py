"""The sessions of a relay with the personality of an Exchange: aiosmtpd with what `Exchange` says.

Needs the `testing` extra, so only the relay's process imports this module.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from email.parser import BytesHeaderParser
from email.utils import format_datetime, getaddresses, localtime
from typing import TYPE_CHECKING, Any, cast

from aiosmtpd.smtp import Envelope

from airflow_provider_smtpcm.testing.authentication import ExtendedProtection, accept_gssapi, accept_ntlm
from airflow_provider_smtpcm.testing.exchange import BAD_SEQUENCE, TOO_LARGE, Connector
from airflow_provider_smtpcm.testing.smtp_server import Handler, Policy, RelaySession, RelaySmtp

if TYPE_CHECKING:
    import ssl

    from aiosmtpd.smtp import SMTP, Session

    from airflow_provider_smtpcm.testing.authentication import Acceptor

# How long, in seconds, a client may go on talking after a 421, so that closing does not destroy the reply (RFC 9293
# 3.10.4: data that nobody reads resets the connection).
_LINGER = 1.0
_BLOCK = 1 << 16
#: Parameters of MAIL and RCPT for delivery status notifications (RFC 3461 4), which are not sent.
_DSN_PARAMETERS = ("RET", "ENVID", "NOTIFY", "ORCPT")
_BINARY = "BODY=BINARYMIME"
# Exchange's words for what aiosmtpd says, by the beginning of its reply.
_WORDS = {
    # learn.microsoft.com/exchange/mail-flow/test-smtp-telnet.
    "354 ": "354 Start mail input; end with <CRLF>.<CRLF>",
    "552 ": TOO_LARGE,
    # github.com/marlam/msmtp/issues/11.
    "220 Ready": "220 2.0.0 SMTP server ready",
    # github.com/benmerckx/smtpmailer/issues/23.
    "503 Error: send": "503 5.5.2 Send hello first",
    "503 Error: need MAIL": "503 5.5.2 Need mail command",
    "503 Error: need RCPT": "503 5.5.2 Need rcpt command",
    "221 ": "221 2.0.0 Service closing transmission channel",
}


class ExchangeEnvelope(Envelope):
    """The envelope of a mail, and its chunks so far (RFC 3030)."""

    def __init__(self) -> None:
        super().__init__()
        self.chunks = bytearray()


class ExchangeHandler(Handler):
    """The handler that aiosmtpd calls for senders, recipients and messages."""

    def __init__(self, policy: Policy, connector: Connector) -> None:
        super().__init__(policy)
        self.connector = connector

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        session = cast("RelaySession", session)
        source = session.user or cast("ExchangeSmtp", server).address
        refusal = self.connector.refuse_message(source, time.monotonic())
        return refusal or await super().handle_MAIL(server, session, envelope, address, options)

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        refusal = self.connector.refuse_recipient(address, is_anonymous=not session.authenticated)
        return refusal or await super().handle_RCPT(server, session, envelope, address, options)

    async def handle_DATA(self, server: RelaySmtp, session: RelaySession, envelope: Envelope) -> str:
        sender = envelope.mail_from or ""
        senders = [] if sender == "<>" else [sender]  # aiosmtpd keeps the brackets of the null sender
        header = BytesHeaderParser().parsebytes(cast("bytes", envelope.content))
        senders += [address for _, address in getaddresses(map(str, header.get_all("From", []))) if address]
        refusal = self.connector.refuse_content(session.user, senders, envelope.rcpt_tos)
        return refusal or await super().handle_DATA(server, session, envelope)


class ExchangeSmtp(RelaySmtp):
    """The session of one client."""

    envelope: ExchangeEnvelope

    def __init__(
        self,
        policy: Policy,
        handler: ExchangeHandler,
        connector: Connector,
        *,
        size_limit: int,
        smtputf8: bool,
        starttls: ssl.SSLContext | None,
        requires_authentication: bool,
    ) -> None:
        super().__init__(policy, handler, size_limit=size_limit, smtputf8=smtputf8, starttls=starttls)
        self.handler = handler
        self.size_limit = size_limit
        self.connector = connector
        self.requires_authentication = requires_authentication
        self.address = ""
        self._is_counted = False

    def _create_envelope(self) -> ExchangeEnvelope:
        return ExchangeEnvelope()

    # --- Connections

    @property
    def greeting(self) -> str:
        return f"Microsoft ESMTP MAIL Service ready at {format_datetime(localtime())}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.transport is None:  # else it is made again after STARTTLS
            peer = transport.get_extra_info("peername")  # None where the client has gone already
            self.address = peer[0] if peer else ""
            self._is_counted = self.connector.open_connection(self.address)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self._is_counted:
            self._is_counted = False
            self.connector.close_connection(self.address)
        super().connection_lost(error)

    async def push(self, status: str | bytes) -> None:
        """Send a reply in Exchange's words: a refusal after the tarpit interval; after a 421, close the connection."""
        text = status.decode() if isinstance(status, bytes) else status
        if not self._is_counted:  # instead of the greeting
            text = self.connector.replies.too_many_connections
        text = next((words for beginning, words in _WORDS.items() if text.startswith(beginning)), text)
        if text.startswith('500 Error: command "'):
            text = self.connector.replies.unrecognized_command.format(command=text.split('"')[1])
        # "Authenticated connections are never delayed": itgeeknotes.blogspot.com/2017/03.
        if text.startswith("5") and not self.session.authenticated:
            await asyncio.sleep(self.connector.settings.tarpit)
        await super().push(text)
        if text.startswith("421") and self.transport is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LINGER):
                    while await self._reader.read(_BLOCK):
                        pass
            self.transport.close()

    # --- EHLO and AUTH

    @property
    def offers_auth(self) -> bool:
        """Always, before STARTTLS too: github.com/marlam/msmtp/issues/11."""
        return True

    def list_extensions(self) -> list[str]:
        mechanisms = "GSSAPI NTLM" if self.connector.settings.keytab else "NTLM"
        return [
            f"{self.hostname} Hello [{self.address}]",
            f"SIZE {self.data_size_limit}",
            "PIPELINING",
            "DSN",
            "ENHANCEDSTATUSCODES",
            *["STARTTLS", "X-ANONYMOUSTLS"] * self.offers_starttls,
            f"AUTH {mechanisms}",
            "X-EXPS GSSAPI NTLM",
            "8BITMIME",
            "BINARYMIME",
            "CHUNKING",
            *["SMTPUTF8"] * self.enable_SMTPUTF8,
            *self.connector.replies.extensions,
        ]

    def make_acceptor(self, mechanism: str) -> Acceptor | None:
        settings, users = self.connector.settings, self.policy.users or {}
        bindings = self.connector.bindings if self.tls_version else None
        protection = ExtendedProtection(policy=settings.extended_protection, bindings=bindings)
        if mechanism == "GSSAPI" and settings.keytab:
            return accept_gssapi(users, protection=protection)
        # The hint: github.com/marlam/msmtp/issues/11.
        return accept_ntlm(users, hint="NTLM supported", protection=protection) if mechanism == "NTLM" else None

    async def check_auth_needed(self, caller_method: str) -> bool:
        """Refuse MAIL alone: without it, the commands that follow are out of sequence."""
        if caller_method != "MAIL" or not self.requires_authentication or self.session.authenticated:
            return False
        await self.push(self.connector.replies.not_authenticated)
        return True

    # --- Messages

    def _getparams(self, params: Any) -> dict[str, str | bool] | None:
        known = [param for param in params if param != _BINARY and param.partition("=")[0] not in _DSN_PARAMETERS]
        return super()._getparams(known)

    async def smtp_DATA(self, arg: str) -> None:
        if _BINARY in self.envelope.mail_options:  # RFC 3030 3
            await self.push(BAD_SEQUENCE)
        else:
            await super().smtp_DATA(arg)

    async def smtp_BDAT(self, arg: str | None) -> None:
        """Receive a chunk, which follows the command whether it is accepted or not (RFC 3030 2)."""
        size, *end = (arg or "").upper().split() or [""]
        if not (size.isascii() and size.isdigit()) or end not in ([], ["LAST"]):
            await self.push("501 5.5.4 Invalid arguments")
            return
        envelope = self.envelope
        is_expected = bool(envelope.rcpt_tos)
        left = int(size)
        while left:
            octets = await self._reader.readexactly(min(left, _BLOCK))
            left -= len(octets)
            if is_expected and len(envelope.chunks) <= self.size_limit:
                envelope.chunks += octets
        if not is_expected:
            await self.push("503 5.5.2 Need rcpt command" if envelope.mail_from else "503 5.5.2 Need mail command")
        elif len(envelope.chunks) > self.size_limit:
            self.envelope = self._create_envelope()
            await self.push(TOO_LARGE)
        elif not end:
            # blogs.technet.microsoft.com/stuartp/stange-things-are-afoot.
            await self.push(f"250 2.6.0 CHUNK received OK, {size} octets")
        else:
            envelope.content = bytes(envelope.chunks)
            status = await self.handler.handle_DATA(self, self.session, envelope)
            self.envelope = self._create_envelope()
            await self.push(status)
