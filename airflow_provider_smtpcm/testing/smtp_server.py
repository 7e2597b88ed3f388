"""The SMTP server of the relay: aiosmtpd with AUTH NTLM (MS-SMTPNTLM) and the replies of an Exchange server.

Needs the `testing` extra, so only the relay's process imports this module.
"""

from __future__ import annotations

import asyncio
import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections import defaultdict
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from aiosmtpd.smtp import SMTP, Envelope, Session, TLSSetupException

from airflow_provider_smtpcm.testing.authentication import AuthError, accept_ntlm
from airflow_provider_smtpcm.testing.relay import ReceivedMail

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    from airflow_provider_smtpcm.testing.authentication import Acceptor

#: In octets. RFC 4954 4: 12288 for a line of base64 in an AUTH exchange, and its CRLF.
TOKEN_LINE_LIMIT = 12288 + 2
#: In octets. RFC 5321 4.5.3.1.6: a line of the message with its CRLF, and the dot that may precede it.
TEXT_LINE_LIMIT = 1001
#: In octets, without CRLF. RFC 5321 4.5.3.1.4; RFC 4954 4: it includes the initial response of AUTH.
COMMAND_LIMIT = 510
#: Enhanced status codes (RFC 3463) for the replies that aiosmtpd sends without one.
ENHANCED_CODES = {
    "220": "2.0.0",
    "221": "2.0.0",
    "250": "2.0.0",
    "252": "2.5.0",
    "500": "5.5.2",
    "501": "5.5.4",
    "502": "5.5.1",
    "503": "5.5.1",
    "552": "5.3.4",
    "553": "5.1.3",
    "555": "5.5.4",
}
#: A reply without an enhanced status code.
BARE_REPLY = re.compile(r"([245]\d\d) (?![245]\.\d+\.\d+(?: |$))(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What all sessions of the server share.

    Args:
        users: the users that may sign in, by name in upper case; None: no authentication.
        refuse: the reply to each refused recipient, by address in lower case.
        deliver: called with each accepted mail.
    """

    users: Mapping[str, str] | None
    refuse: Mapping[str, str]
    deliver: Callable[[ReceivedMail], None]


class RelaySession(Session):
    """The state of a session, which aiosmtpd replaces after STARTTLS (RFC 3207 4.2)."""

    user: str | None = None
    mechanism: str | None = None


class Handler:
    """The handler that aiosmtpd calls for senders, recipients and messages."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.numbers = count(1)

    async def handle_MAIL(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 Sender OK"

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        refusal = self.policy.refuse.get(address.lower())
        if refusal is not None:
            return refusal
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 Recipient OK"

    async def handle_DATA(self, server: RelaySmtp, session: RelaySession, envelope: Envelope) -> str:
        sender = envelope.mail_from or ""
        self.policy.deliver(
            ReceivedMail(
                mail_from="" if sender == "<>" else sender,  # aiosmtpd keeps the brackets of the null sender
                recipients=tuple(envelope.rcpt_tos),
                content=cast("bytes", envelope.content),  # would be text only with `decode_data`
                authenticated_as=session.user,
                mechanism=session.mechanism,
                tls_version=server.tls_version,
                helo_name=session.host_name or "",
            )
        )
        return f"250 2.6.0 <{uuid4()}@{server.hostname}> [InternalId={next(self.numbers)}] Queued mail for delivery"

    async def handle_exception(self, error: Exception) -> str:
        if not isinstance(error, (TLSSetupException, OSError)):  # the client does not trust the certificate, or is gone
            asyncio.get_running_loop().call_exception_handler({"message": "SMTP session failed", "exception": error})
        return "451 4.3.0 The relay has failed; its standard error output says why"


class RelaySmtp(SMTP):
    """The session of one client."""

    # Never None while a command is executed; aiosmtpd's own types allow None.
    session: RelaySession
    envelope: Envelope

    # `super().__init__` reads this as the limit of asyncio's StreamReader, which must have room for a token. Later, the
    # instance's own value limits the lines of a message.
    line_length_limit = TOKEN_LINE_LIMIT

    @property
    def greeting(self) -> str:
        """What follows the host's name in the greeting."""
        return "SMTP relay for tests"

    def __init__(
        self,
        policy: Policy,
        handler: Handler,
        *,
        size_limit: int,
        smtputf8: bool,
        starttls: ssl.SSLContext | None,
    ) -> None:
        # Per session, since aiosmtpd's own dictionary is shared by all sessions, and they modify it.
        self.command_size_limits = defaultdict(lambda: COMMAND_LIMIT)
        super().__init__(
            handler,
            data_size_limit=size_limit,
            enable_SMTPUTF8=smtputf8,
            hostname="localhost",
            ident=self.greeting,
            tls_context=starttls,
            auth_exclude_mechanism=("LOGIN", "PLAIN"),
        )
        self.line_length_limit = TEXT_LINE_LIMIT
        self.policy = policy

    def _create_session(self) -> RelaySession:
        return RelaySession(self.loop)

    @property
    def tls_version(self) -> str | None:
        """The TLS version of the session, or None."""
        ssl_object = self.transport and self.transport.get_extra_info("ssl_object")
        return ssl_object.version() if ssl_object else None

    @property
    def offers_starttls(self) -> bool:
        return self.tls_context is not None and self.tls_version is None

    @property
    def offers_auth(self) -> bool:
        return self.policy.users is not None and not self.offers_starttls

    async def push(self, status: str | bytes) -> None:
        """Send a reply; after EHLO, with an enhanced status code (RFC 2034 4)."""
        text = status.decode() if isinstance(status, bytes) else status
        bare_reply = BARE_REPLY.fullmatch(text)
        if bare_reply and self.session.extended_smtp:
            code, message = bare_reply.groups()
            text = f"{code} {ENHANCED_CODES.get(code, f'{code[0]}.0.0')} {message}"
        await super().push(text)

    async def smtp_EHLO(self, hostname: str) -> None:
        if not hostname:
            await self.push("501 5.5.4 Syntax: EHLO hostname")
            return
        self.envelope = self._create_envelope()
        self.session.extended_smtp = True
        self.session.host_name = hostname
        # RFC 1870 6.1 and RFC 6531 3.4 allow a longer MAIL command.
        self.command_size_limits["MAIL"] = COMMAND_LIMIT + 26 + 10
        lines = self.list_extensions()
        # Not by our `push`, since the reply to EHLO has no enhanced status code (RFC 2034 4).
        await super().push("\r\n".join([*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}"]))

    def list_extensions(self) -> list[str]:
        """Return the lines of the reply to EHLO."""
        lines = [f"{self.hostname} Hello", f"SIZE {self.data_size_limit}", "PIPELINING", "ENHANCEDSTATUSCODES"]
        lines += ["STARTTLS"] * self.offers_starttls + ["AUTH NTLM"] * self.offers_auth
        return lines + ["8BITMIME"] + ["SMTPUTF8"] * self.enable_SMTPUTF8

    async def check_auth_needed(self, caller_method: str) -> bool:
        if self.policy.users is None or self.session.authenticated:
            return False
        await self.push("530 5.7.1 Client was not authenticated")
        return True

    def _getparams(self, params: Any) -> dict[str, str | bool] | None:
        # RFC 4954 5: a server with AUTH must accept the AUTH parameter of MAIL, and may ignore it.
        return super()._getparams([param for param in params if not param.startswith("AUTH=")])

    async def smtp_STARTTLS(self, arg: str) -> None:
        if self.offers_starttls:
            await super().smtp_STARTTLS(arg)
        else:
            await self.push("502 5.5.1 STARTTLS is not offered")

    async def smtp_AUTH(self, arg: str | None) -> None:
        if await self.check_helo_needed("EHLO"):
            return
        if not self.offers_auth and self.offers_starttls and self.policy.users is not None:
            await self.push("530 5.7.0 Must issue a STARTTLS command first")
        elif not self.offers_auth:
            await self.push("500 5.3.3 Unrecognized command")
        elif self.session.authenticated or self.envelope.mail_from is not None:  # RFC 4954 4
            await self.push("503 5.5.1 AUTH is possible once, and not while a mail is being sent")
        else:
            try:
                self.session.user = await self._authenticate_client((arg or "").split())
            except AuthError as refusal:
                await self.push(str(refusal))
            else:
                self.session.authenticated = True
                await self.push("235 2.7.0 Authentication successful")

    def make_acceptor(self, mechanism: str) -> Acceptor | None:
        """Return the server's side of a mechanism; None if it is not offered."""
        return accept_ntlm(self.policy.users or {}) if mechanism == "NTLM" else None

    async def _authenticate_client(self, arguments: list[str]) -> str:
        """Authenticate the client; return the user's name as in the settings."""
        if not 1 <= len(arguments) <= 2:
            raise AuthError("501 5.5.4 Syntax: AUTH mechanism [initial-response]")
        mechanism = arguments[0].upper()
        acceptor = self.make_acceptor(mechanism)
        if acceptor is None:
            raise AuthError("504 5.7.4 Unrecognized authentication type")
        challenge = next(acceptor)
        # MS-SMTPNTLM 2.2.1.2: with an initial response, the first challenge is not sent.
        token = decode_token(arguments[1].encode()) if arguments[1:] else await self._request_token(challenge)
        try:
            while True:
                challenge = acceptor.send(token)
                token = await self._request_token(challenge)
        except StopIteration as end:
            self.session.mechanism = mechanism
            return str(end.value)

    async def _request_token(self, challenge: bytes | str) -> bytes:
        """Send a 334 with a challenge, or with text that is none, and read the client's token."""
        text = challenge if isinstance(challenge, str) else b64encode(challenge).decode()
        await super().push(f"334 {text}")
        try:
            line = await self._reader.readuntil(b"\n")
        except asyncio.LimitOverrunError as overrun:
            await self._skip_line(overrun.consumed)
            raise AuthError("500 5.5.6 Authentication exchange line is too long") from None  # RFC 4954 6
        token = line.rstrip(b"\r\n")
        if token == b"*":
            raise AuthError("501 5.7.0 Authentication canceled")
        return decode_token(token)

    async def _skip_line(self, consumed: int) -> None:
        while True:
            await self._reader.readexactly(consumed)
            try:
                await self._reader.readuntil(b"\n")
            except asyncio.LimitOverrunError as overrun:
                consumed = overrun.consumed
            else:
                return


def decode_token(text: bytes) -> bytes:
    """Decode one line of base64. A single `=` means an empty initial response (RFC 4954 4)."""
    try:
        return b"" if text == b"=" else b64decode(text, validate=True)
    except Base64Error:
        raise AuthError("501 5.5.2 Cannot decode the base64") from None
