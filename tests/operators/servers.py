"""A scripted server behind the default connection."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.smtp.dialogue import Dialogue


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a scripted server behind the default connection."""

    def define(dialogue: Dialogue, **settings: object) -> None:
        patience = getattr(dialogue, "patience", 60.0)
        extra = {"ssl_mode": "none", "timeout": patience, "final_reply_timeout": patience, **settings}
        connection = {"conn_type": "smtpcm", "host": "127.0.0.1", "port": dialogue.port, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(connection))

    return define
