"""The process of `BindingServer`: aiosmtpd, with real GSSAPI acceptors behind its AUTH. Run as a program.

Standard input: the settings as a line of JSON, then one query a line (`attempts`, `messages`, `clear`).
Standard output: a line of JSON with the server's address, then one for each query. It ends with its input.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import datetime as dt
import hashlib
import json
import logging
import ssl
import sys
import tempfile
from collections import defaultdict
from collections.abc import Generator
from dataclasses import asdict
from typing import Any

import trustme
from aiosmtpd.smtp import MISSING, SMTP, AuthResult, Envelope, Session
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import load_pem_x509_certificate
from cryptography.x509.oid import NameOID

from demo.processes import LOOPBACK
from tests.integration.binding_settings import Attempt, BindingSettings, StoredMail
from tests.integration.gss_acceptor import Identity, Refused, accept

#: RFC 5321 4.5.3.1.4, without the CRLF; an initial response has to fit as well (RFC 4954 4).
COMMAND_LIMIT = 510
#: RFC 5321 4.5.3.1.6: a line of the message, its CRLF, and the dot that may precede it.
TEXT_LINE_LIMIT = 1001
#: What a client may send before it is told that it was too much.
READ_LIMIT = 1 << 20
#: What Exchange says, whatever was wrong.
REFUSAL = "535 5.7.3 Authentication unsuccessful"
CERTIFICATE_NAMES = ("localhost", LOOPBACK, "mail.corp.example", "exchange.corp.example")

#: The uses of a key that a certificate may name (RFC 5280 4.2.1.3).
USES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip

Acceptor = Generator[bytes, bytes, Identity]


class Recorder:
    """The handler for aiosmtpd: authenticates by its `auth_` methods, and records what happens."""

    def __init__(self, settings: BindingSettings) -> None:
        self.settings = settings
        self.attempts: list[Attempt] = []
        self.messages: list[StoredMail] = []

    async def auth_GSSAPI(self, server: BindingSmtp, _words: list[str]) -> AuthResult:  # noqa: N802
        return await self._authenticate(server, "GSSAPI", self._accept(server, layer=True))

    # aiosmtpd reads two underscores as a hyphen.
    async def auth_GSS__SPNEGO(self, server: BindingSmtp, _words: list[str]) -> AuthResult:  # noqa: N802
        return await self._authenticate(server, "GSS-SPNEGO", self._accept(server, layer=self.settings.spnego_layer))

    async def auth_NTLM(self, server: BindingSmtp, _words: list[str]) -> AuthResult:  # noqa: N802
        return await self._authenticate(server, "NTLM", self._accept(server, layer=False, raw_ntlm=True))

    async def auth_X__BIG(self, server: BindingSmtp, _words: list[str]) -> AuthResult:  # noqa: N802
        return await self._authenticate(server, "X-BIG", accept_any_token())

    async def handle_DATA(self, _server: BindingSmtp, session: Session, envelope: Envelope) -> str:  # noqa: N802
        mail = StoredMail(
            authenticated_as=session.auth_data if session.authenticated else None,
            mail_from=envelope.mail_from or "",
            recipients=tuple(envelope.rcpt_tos),
            content=(envelope.content or b"").decode("ascii", "surrogateescape"),
        )
        self.messages.append(mail)
        return "250 2.6.0 Queued mail for delivery"

    def _accept(self, server: BindingSmtp, *, layer: bool, raw_ntlm: bool = False) -> Acceptor:
        mode = self.settings.channel_binding
        return accept(
            bindings=None if mode == "none" else server.bindings(),
            binding_required=mode == "require",
            layer=layer,
            raw_ntlm=raw_ntlm,
        )

    async def _authenticate(self, server: BindingSmtp, mechanism: str, acceptor: Acceptor) -> AuthResult:
        attempt = Attempt(mechanism=mechanism)
        self.attempts.append(attempt)
        server.attempt = attempt
        challenge: bytes | str = next(acceptor)
        if mechanism == "NTLM":
            challenge = "ntlm supported"  # MS-SMTPNTLM 2.2.1.2: free text, which a client has to ignore
        try:
            while True:
                token = await server.challenge_auth(challenge, isinstance(challenge, bytes))
                if token is MISSING:
                    return AuthResult(success=False)
                challenge = acceptor.send(token)
        except StopIteration as end:
            identity: Identity = end.value
            attempt.reply = "235 2.7.0 Authentication successful"
            vars(attempt).update(asdict(identity))
            return AuthResult(success=True, message=attempt.reply, auth_data=identity.user)
        except Refused as refusal:
            attempt.reply, attempt.why, attempt.bindings = REFUSAL, str(refusal), refusal.bindings
            return AuthResult(success=False, handled=False, message=REFUSAL)


def accept_any_token() -> Acceptor:
    """A mechanism of a single token, whatever it is."""
    yield b""
    return Identity(user="anybody", protocol="none", bindings="unchecked", service=None, flags=())


class BindingSmtp(SMTP):
    """A session with a client."""

    attempt: Attempt

    def __init__(self, recorder: Recorder, context: ssl.SSLContext, certificate: bytes) -> None:
        self.settings = recorder.settings
        self.recorder = recorder
        self.certificate = certificate
        starttls = self.settings.ssl_mode == "starttls"
        # Read by aiosmtpd's reader from now on; a line of a message has a limit of its own.
        self.line_length_limit = READ_LIMIT
        # One dictionary for each session; aiosmtpd's own is shared and changed by all of them.
        self.command_size_limits = defaultdict(lambda: COMMAND_LIMIT)
        every = {"LOGIN", "PLAIN", "GSSAPI", "GSS-SPNEGO", "NTLM", "X-BIG"}
        super().__init__(
            recorder,
            hostname="localhost",
            ident="SMTP with channel bindings",
            tls_context=context if starttls else None,
            auth_require_tls=starttls,
            auth_required=bool(self.settings.mechanisms),
            auth_exclude_mechanism=every - set(self.settings.mechanisms),
        )
        self.line_length_limit = TEXT_LINE_LIMIT
        self.command_size_limits["AUTH"] = READ_LIMIT  # so that `smtp_AUTH` sees what it refuses

    def bindings(self) -> bytes:
        """The application data of this connection's bindings (RFC 5929 3.1 and 4.1)."""
        channel = self.transport.get_extra_info("ssl_object")
        if channel is None:
            return b"no TLS, so that none are right"
        if self.settings.binding_type == "tls-unique":
            return b"tls-unique:" + channel.get_channel_binding("tls-unique")
        return b"tls-server-end-point:" + hashlib.sha256(self.certificate).digest()

    async def smtp_AUTH(self, arg: str | None) -> None:  # noqa: N802
        words = (arg or "").split()
        if len(words) < 2:
            await super().smtp_AUTH((arg or "").upper())
            return
        too_long = len(f"AUTH {arg}") > COMMAND_LIMIT
        reply = "500 5.5.2 Line too long" if too_long else "501 5.5.4 An initial response is not taken here"
        self.recorder.attempts.append(Attempt(mechanism=words[0].upper(), initial_response=True, reply=reply))
        await self.push(reply)

    async def challenge_auth(
        self,
        challenge: bytes | str,
        encode_to_b64: bool = True,  # noqa: FBT002  (aiosmtpd's)
        log_client_response: bool = False,  # noqa: ARG002, FBT002
    ) -> Any:
        """Return the client's token, or `MISSING` after a reply that explains why there is none."""
        octets = challenge.encode() if isinstance(challenge, str) else challenge
        await self.push(b"334 " + (base64.b64encode(octets) if encode_to_b64 else octets))
        line = (await self._reader.readuntil(b"\n")).removesuffix(b"\n").removesuffix(b"\r")
        self.attempt.line_lengths.append(len(line))
        if len(line) > self.settings.token_line_limit:
            return await self._give_up("500 5.5.6 Authentication exchange line is too long")  # RFC 4954 6
        if line == b"*":
            return await self._give_up("501 5.7.0 Authentication canceled")
        try:
            return base64.b64decode(line, validate=True)
        except binascii.Error:
            return await self._give_up("501 5.5.2 Cannot decode the base64")

    async def _give_up(self, reply: str) -> Any:
        self.attempt.reply = reply
        await self.push(reply)
        return MISSING


def issue_certificate(signature: str) -> tuple[bytes, bytes, bytes]:
    """Return an authority, a certificate that it has signed, and the certificate's key, as PEM."""
    if signature == "ECDSA":
        authority = trustme.CA()
        issued = authority.issue_cert(*CERTIFICATE_NAMES)
        return authority.cert_pem.bytes(), issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes()
    # trustme has no keys of that kind.
    authority_key, key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    names = [x509.DNSName(name) for name in CERTIFICATE_NAMES if name != LOOPBACK]
    root = _certify("Authority", authority_key, authority_key, [
        (x509.BasicConstraints(ca=True, path_length=None), True),
        (x509.KeyUsage(**dict.fromkeys(USES, False) | {"key_cert_sign": True}), True),
    ])  # fmt: skip
    leaf = _certify("localhost", key, authority_key, [(x509.SubjectAlternativeName(names), False)])
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return root, leaf, secret


def _certify(
    name: str, key: Ed25519PrivateKey, signer: Ed25519PrivateKey, extensions: list[tuple[x509.ExtensionType, bool]]
) -> bytes:
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(
        issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority")]),
        subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - dt.timedelta(days=1),
        not_valid_after=now + dt.timedelta(days=365),
    )
    key_identifiers = [
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False),
    ]
    for extension, critical in (*extensions, *key_identifiers):
        builder = builder.add_extension(extension, critical)
    return builder.sign(signer, None).public_bytes(Encoding.PEM)


async def serve() -> None:
    """Read the settings, listen, and answer queries."""
    loop = asyncio.get_running_loop()
    questions = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(questions), sys.stdin)
    settings = BindingSettings(**json.loads(await questions.readline()))
    recorder = Recorder(settings)
    authority, issued, key = issue_certificate(settings.signature)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion[settings.min_tls]
    context.maximum_version = ssl.TLSVersion[settings.max_tls]
    with tempfile.NamedTemporaryFile() as file:
        file.write(key + issued)
        file.flush()
        context.load_cert_chain(file.name)
    certificate = load_pem_x509_certificate(issued).public_bytes(Encoding.DER)
    server = await loop.create_server(
        lambda: BindingSmtp(recorder, context, certificate),
        LOOPBACK,
        0,
        ssl=context if settings.ssl_mode == "implicit" else None,
    )
    print_line({"port": server.sockets[0].getsockname()[1], "ca_certificate": authority.decode()})
    while question := (await questions.readline()).decode().strip():
        match question:
            case "attempts":
                print_line([asdict(attempt) for attempt in recorder.attempts])
            case "messages":
                print_line([asdict(mail) for mail in recorder.messages])
            case "clear":
                recorder.attempts.clear()
                recorder.messages.clear()
                print_line(None)
    server.close()


def print_line(what: Any) -> None:
    """Print a line of JSON to standard output."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # aiosmtpd logs each client that does not trust our certificate; the client's own error is better.
    logging.getLogger("mail.log").setLevel(logging.CRITICAL + 1)
    asyncio.run(serve())
