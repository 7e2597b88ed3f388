"""What the tests of the operators share: a relay, or a scripted server, behind the default connection."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from airflow_provider_smtpcm.testing import Relay
from tests.smtp.dialogue import Dialogue


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """A relay behind the default connection."""
    with Relay(ssl_mode="none", refuse={"bad@corp.example": "550 5.1.1 No such user"}) as relay:
        monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(relay.airflow_connection()))
        yield relay


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a scripted server behind the default connection."""

    def define(dialogue: Dialogue, **settings: object) -> None:
        extra = {"ssl_mode": "none", "timeout": 1, "final_reply_timeout": 1, **settings}
        connection = {"conn_type": "smtpcm", "host": "127.0.0.1", "port": dialogue.port, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(connection))

    return define
