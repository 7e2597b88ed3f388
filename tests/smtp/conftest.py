"""What the tests of the conversation share."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import pytest
import trustme

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.mail import Mail
from tests.smtp.dialogue import Dialogue


@pytest.fixture
def manager_for() -> Callable[..., SmtpConnectionManager]:
    """A connection manager for a scripted server: in clear text, with the script's timeout, unless a test differs."""

    def make(dialogue: Dialogue, **settings: object) -> SmtpConnectionManager:
        defaults = {"host": "127.0.0.1", "port": dialogue.port, "ssl_mode": "none", "timeout": dialogue.patience}
        return SmtpConnectionManager(**{**defaults, **settings})  # type: ignore[arg-type]

    return make


@pytest.fixture
def mail() -> Mail:
    """A mail to two people."""
    return Mail(
        from_address="etl@corp.example", to="a@corp.example; b@corp.example", subject="Done", text="All is well."
    )


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """The authority that issues the certificates of the tests' servers."""
    return trustme.CA()


@pytest.fixture(scope="session")
def tls_contexts(authority: trustme.CA) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's TLS context, and that of a client who trusts it."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client
