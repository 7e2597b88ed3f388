"""What the tests of the conversation share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.mail import Mail
from tests.smtp.dialogue import Dialogue


@pytest.fixture
def manager_for() -> Callable[..., SmtpConnectionManager]:
    """A connection manager for a scripted server: in clear text and impatient, unless a test says otherwise."""

    def make(dialogue: Dialogue, **settings: object) -> SmtpConnectionManager:
        defaults = {"host": "127.0.0.1", "port": dialogue.port, "ssl_mode": "none", "timeout": 1.0}
        return SmtpConnectionManager(**{**defaults, **settings})  # type: ignore[arg-type]

    return make


@pytest.fixture
def mail() -> Mail:
    """A mail to two people."""
    return Mail(
        from_address="etl@corp.example", to="a@corp.example; b@corp.example", subject="Done", text="All is well."
    )
