"""A sign-in with pyspnego in as few lines as possible, for testing the servers. Without any code of the package."""

from __future__ import annotations

import base64
import hashlib
import smtplib
import ssl
from typing import Any, Self

import spnego
from spnego import ContextReq
from spnego.channel_bindings import GssChannelBindings

#: Confidentiality, because pyspnego always seals what it wraps.
FLAGS = ContextReq.mutual_auth | ContextReq.integrity | ContextReq.confidentiality


class Client:
    """A connection with TLS, unless `ssl_mode` is `none`, after EHLO."""

    def __init__(self, port: int, ca_certificate: str, *, ssl_mode: str = "starttls", max_tls: str = "TLSv1_3") -> None:
        context = ssl.create_default_context(cadata=ca_certificate)
        context.maximum_version = ssl.TLSVersion[max_tls]
        if ssl_mode == "implicit":
            self.smtp: smtplib.SMTP = smtplib.SMTP_SSL("localhost", port, "client.example", timeout=60, context=context)
        else:
            self.smtp = smtplib.SMTP("localhost", port, "client.example", timeout=60)
        if ssl_mode == "starttls":
            self.smtp.starttls(context=context)
        self.smtp.ehlo()
        #: The mechanisms on offer.
        self.offered = self.smtp.esmtp_features.get("auth", "").split()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.smtp.close()

    def bindings(self, kind: str = "tls-server-end-point") -> bytes:
        """Return the right bindings of this connection; the certificate is signed with SHA-256."""
        channel: ssl.SSLSocket = self.smtp.sock  # type: ignore[assignment]
        if kind == "tls-unique":
            return b"tls-unique:" + (channel.get_channel_binding("tls-unique") or b"")
        return b"tls-server-end-point:" + hashlib.sha256(channel.getpeercert(binary_form=True) or b"").digest()

    def login(
        self,
        mechanism: str,
        credential: Any,
        protocol: str,
        *,
        bindings: bytes | None = None,
        host: str = "localhost",
        service: str = "smtp",
        flags: ContextReq = FLAGS,
    ) -> str:
        """Run AUTH to its end; return the last reply."""
        context = spnego.client(
            credential,
            hostname=host,
            service=service,
            protocol=protocol,
            context_req=flags,
            channel_bindings=GssChannelBindings(application_data=bindings) if bindings else None,
        )
        token = context.step() or b""
        code, text = self.smtp.docmd("AUTH", mechanism)
        while code == 334:
            code, text = self.smtp.docmd(base64.b64encode(token).decode())
            if code == 334:
                token = answer(context, base64.b64decode(text))
        return f"{code} {text.decode()}"

    def send(self, subject: str) -> None:
        """Send a mail over this connection."""
        self.smtp.sendmail("etl@corp.example", "ops@corp.example", f"Subject: {subject}\r\n\r\nHello\r\n")


def answer(context: spnego.ContextProxy, token: bytes) -> bytes:
    """Return the reply to a 334: the next token, an empty line, or the choice of no security layer (RFC 4752 3.1)."""
    if not context.complete:
        return context.step(token) or b""
    if not token:
        return b""
    assert context.unwrap(token).data[0] & 1
    return context.wrap(b"\x01\x00\x00\x00", encrypt=False).data
