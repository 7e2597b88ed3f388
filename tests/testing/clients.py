"""Independent clients: smtplib for SMTP and pyspnego for NTLM, with explicit credentials only."""

from __future__ import annotations

import smtplib
import ssl
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

import spnego

if TYPE_CHECKING:
    from airflow_provider_smtpcm.testing import Relay

USER = r"CORP\alice"
PASSWORD = "secret of Alice"
USERS = {USER: PASSWORD}

CONTENT = b"From: alice@corp.example\r\nSubject: Report\r\n\r\n.a line that begins with a dot\r\n"


def trusting(relay: Relay) -> ssl.SSLContext:
    """Return a context that verifies, and trusts only the relay's authority."""
    return ssl.create_default_context(cadata=relay.ca_certificate)


def connect(relay: Relay, *, tls: bool = True, host: str = "localhost") -> smtplib.SMTP:
    """Open a session, with TLS if the relay has it."""
    ssl_mode = relay.airflow_connection()["extra"]["ssl_mode"]
    if ssl_mode == "implicit":
        client: smtplib.SMTP = smtplib.SMTP_SSL(
            host, relay.port, "client.corp.example", timeout=60, context=trusting(relay)
        )
    else:
        client = smtplib.SMTP(host, relay.port, "client.corp.example", timeout=60)
    client.ehlo()
    if tls and ssl_mode == "starttls":
        client.starttls(context=trusting(relay))
        client.ehlo()
    return client


def ntlm_context(user: str = USER, password: str = PASSWORD) -> Any:
    """An NTLM client."""
    credential = spnego.Password(user, password)
    return spnego.client(
        credential, hostname="localhost", service="smtp", protocol="ntlm", context_req=spnego.ContextReq.integrity
    )


def log_in(
    client: smtplib.SMTP, user: str = USER, password: str = PASSWORD, *, initial_response: bool = False
) -> tuple[int, bytes]:
    """Sign in with AUTH NTLM and return the last reply."""
    context = ntlm_context(user, password)
    negotiate = b64encode(context.step()).decode()
    if initial_response:
        code, reply = client.docmd("AUTH", f"NTLM {negotiate}")
    else:
        assert client.docmd("AUTH", "NTLM") == (334, b"ntlm supported")
        code, reply = client.docmd(negotiate)
    assert code == 334
    return client.docmd(b64encode(context.step(b64decode(reply, validate=True))).decode())


def send(client: smtplib.SMTP, *recipients: str, content: bytes = CONTENT) -> dict[str, tuple[int, bytes]]:
    """Send a mail from Alice and return the refused recipients."""
    return client.sendmail("alice@corp.example", recipients or ("bob@corp.example",), content)
