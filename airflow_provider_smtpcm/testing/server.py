"""The server of the relay, a process of its own: aiosmtpd with AUTH NTLM (MS-SMTPNTLM) and the replies of Exchange.

The parent writes commands to standard input, one line each: the settings as JSON, then any number of `ping <number>`,
and finally `stop`. The end of the input means that the parent has ended, and has the effect of `stop`. Events go to
standard output, one JSON object on each line: `ready` or `failed`, then each `mail`, written before the client gets its
250, and each `pong`.

Needs the `testing` extra, so only the relay's process imports this module.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import ssl
import sys
import tempfile
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from aiosmtpd.smtp import SMTP, Envelope, Session, TLSSetupException

from airflow_provider_smtpcm.testing.relay import ReceivedMail, RelaySettings

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from spnego import ContextProxy

EventWriter = Callable[[dict[str, Any]], None]

#: The maximum length of a line of input, in octets; the settings may contain many users.
INPUT_LIMIT = 16 * 1024 * 1024
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


def main() -> None:
    """Serve until the input ends."""
    write_event = make_event_writer()
    # aiosmtpd logs each client that does not trust the certificate; the error in that client is more useful.
    logging.getLogger("mail.log").setLevel(logging.CRITICAL + 1)
    with suppress(BrokenPipeError):  # the parent has ended
        asyncio.run(serve(write_event))


def make_event_writer() -> EventWriter:
    """Return a function that writes events to standard output, and redirect all other output to standard error."""
    events = os.dup(1)
    os.dup2(2, 1)

    def write_event(event: dict[str, Any]) -> None:
        line = memoryview(json.dumps(event).encode() + b"\n")
        while line:
            line = line[os.write(events, line) :]

    return write_event


async def serve(write_event: EventWriter) -> None:
    """Read and execute commands until `stop`, the end of the input, or a signal."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(ignore_lost_clients)
    commands = asyncio.StreamReader(limit=INPUT_LIMIT)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    running = loop.create_task(run_server(commands, write_event))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, running.cancel)
    await asyncio.wait([running])
    if not running.cancelled():
        running.result()


async def run_server(commands: asyncio.StreamReader, write_event: EventWriter) -> None:
    """Read the settings, listen, and answer pings until `stop`."""
    line = await commands.readline()
    if not line.endswith(b"\n"):
        return
    settings = RelaySettings.from_json(line)
    context, ca_certificate = (None, "") if settings.ssl_mode == "none" else make_tls_context(settings)
    with ntlm_user_file(settings.users) as folder:
        try:
            server = await listen(settings, context, write_event)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            write_event(
                {
                    "event": "failed",
                    "error": f"The relay cannot listen on {settings.host}, port {settings.port}: {reason}. "
                    "Choose another port, or 0 for any free one.",
                }
            )
            return
        port = server.sockets[0].getsockname()[1]
        write_event({"event": "ready", "port": port, "ca_certificate": ca_certificate, "folder": folder})
        while (line := await commands.readline()).startswith(b"ping "):
            write_event({"event": "pong", "number": int(line.split()[1])})
        server.close()


async def listen(settings: RelaySettings, context: ssl.SSLContext | None, write_event: EventWriter) -> asyncio.Server:
    """Start the SMTP server.

    Raises:
        OSError: it cannot listen on the address.
    """
    users = settings.users
    policy = Policy(
        users=None if users is None else {user.removeprefix("\\").upper(): user for user in users},
        refuse={address.lower(): reply for address, reply in settings.refuse.items()},
        deliver=lambda mail: write_event(make_mail_event(mail)),
    )
    handler = Handler(policy)
    if users is not None:
        import spnego  # noqa: F401  (imported now, so that the first client does not wait for it)

    def make_session() -> RelaySmtp:
        return RelaySmtp(
            policy,
            handler,
            size_limit=settings.size_limit,
            smtputf8=settings.smtputf8,
            starttls=context if settings.ssl_mode == "starttls" else None,
        )

    return await asyncio.get_running_loop().create_server(
        make_session, settings.host, settings.port, ssl=context if settings.ssl_mode == "implicit" else None
    )


def make_mail_event(mail: ReceivedMail) -> dict[str, Any]:
    """Return the event for a mail."""
    return {"event": "mail", **asdict(mail), "content": b64encode(mail.content).decode()}


@contextmanager
def ntlm_user_file(users: Mapping[str, str] | None) -> Iterator[str | None]:
    """Configure the users of pyspnego's NTLM acceptor in this process; yield the folder of their file.

    Args:
        users: passwords by user; None: no authentication, and no file.
    """
    if users is None:
        yield None
        return
    # Accept NTLMv2 only, as hardened domains do, whatever the environment sets for clients.
    os.environ["LM_COMPAT_LEVEL"] = "5"
    with tempfile.TemporaryDirectory(prefix="smtpcm-relay-") as folder:
        path = Path(folder, "users")
        path.touch(mode=0o600)
        path.write_text("".join(format_user(*user) for user in users.items()), encoding="utf-8", newline="")
        os.environ["NTLM_USER_FILE"] = str(path)
        yield folder


def format_user(user: str, password: str) -> str:
    """Return a line `DOMAIN:user:password` of the user file. `alice` and `alice@corp.example` have an empty domain."""
    domain, _, name = user.rpartition("\\")
    return f"{domain}:{name}:{password}\n"


def make_tls_context(settings: RelaySettings) -> tuple[ssl.SSLContext, str]:
    """Make the server's TLS context; return it and the CA certificate as PEM."""
    import trustme

    authority = trustme.CA()
    now = datetime.now(UTC)
    end = now + timedelta(days=-1 if settings.certificate_expired else 365)
    certificate = authority.issue_cert(*settings.certificate_names, not_before=now - timedelta(days=30), not_after=end)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context, authority.cert_pem.bytes().decode("ascii")


def ignore_lost_clients(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Handle exceptions of the event loop: ignore a client that disconnects or does not trust the certificate."""
    if not isinstance(context.get("exception"), OSError):  # its subclasses include ssl.SSLError
        loop.default_exception_handler(context)


# --- The SMTP sessions.


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
                mechanism="NTLM" if session.authenticated else None,
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
            ident="SMTP relay for tests",
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
        lines = [f"{self.hostname} Hello", f"SIZE {self.data_size_limit}", "PIPELINING", "ENHANCEDSTATUSCODES"]
        lines += ["STARTTLS"] * self.offers_starttls + ["AUTH NTLM"] * self.offers_auth
        lines += ["8BITMIME"] + ["SMTPUTF8"] * self.enable_SMTPUTF8
        # Not by our `push`, since the reply to EHLO has no enhanced status code (RFC 2034 4).
        await super().push("\r\n".join([*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}"]))

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
        if self.policy.users is None:
            await self.push("500 5.3.3 Unrecognized command")
        elif self.offers_starttls:
            await self.push("530 5.7.0 Must issue a STARTTLS command first")
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

    async def _authenticate_client(self, arguments: list[str]) -> str:
        match arguments:
            case [mechanism, *initial] if mechanism.upper() == "NTLM" and len(initial) <= 1:
                return await self._authenticate_by_ntlm(*initial)
            case [_] | [_, _]:
                raise AuthError("504 5.7.4 Unrecognized authentication type")
            case _:
                raise AuthError("501 5.5.4 Syntax: AUTH mechanism [initial-response]")

    async def _authenticate_by_ntlm(self, initial_response: str | None = None) -> str:
        """Authenticate with NTLM; return the user's name as in the settings."""
        exchange = accept_ntlm(self.policy.users or {})
        next(exchange)
        if initial_response is None:
            # MS-SMTPNTLM 2.2.1.2: any text, which a client must ignore.
            token = await self._request_token("ntlm supported")
        else:
            token = decode_token(initial_response.encode())
        try:
            while True:
                challenge = exchange.send(token)
                token = await self._request_token(b64encode(challenge or b"").decode())
        except StopIteration as end:
            return str(end.value)

    async def _request_token(self, challenge: str) -> bytes:
        """Send a 334 and read the client's token."""
        await super().push(f"334 {challenge}")
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


class AuthError(Exception):
    """Ends an AUTH exchange. The text is the whole reply."""


def accept_ntlm(users: Mapping[str, str]) -> Generator[bytes | None, bytes, str]:
    """Authenticate a client with NTLM, using the passwords in the file that `NTLM_USER_FILE` names.

    A generator: it yields None and then the challenge, receives the client's tokens, and returns the user.

    Args:
        users: the users that may sign in, by name in upper case.

    Raises:
        AuthError: wrong password, unknown user, or not an NTLM token.
    """
    import spnego

    acceptor = spnego.server(protocol="ntlm", options=spnego.NegotiateOptions.use_ntlm)
    negotiate = yield None
    authenticate = yield _step(acceptor, negotiate)
    _step(acceptor, authenticate)
    user = users.get((acceptor.client_principal or "").upper())
    if not acceptor.complete or user is None:
        raise AuthError("535 5.7.3 Authentication unsuccessful")
    return user


def _step(acceptor: ContextProxy, token: bytes) -> bytes:
    """Pass a token to the acceptor and return its answer."""
    try:
        return acceptor.step(token) or b""
    except Exception:  # noqa: BLE001  (wrong password, unknown user, or any error of the parser for a malformed token)
        raise AuthError("535 5.7.3 Authentication unsuccessful") from None


def decode_token(text: bytes) -> bytes:
    """Decode one line of base64. A single `=` means an empty initial response (RFC 4954 4)."""
    try:
        return b"" if text == b"=" else b64decode(text, validate=True)
    except Base64Error:
        raise AuthError("501 5.5.2 Cannot decode the base64") from None


if __name__ == "__main__":
    main()
