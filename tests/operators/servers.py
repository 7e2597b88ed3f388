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
        extra = {"ssl_mode": "none", "timeout": 1, "final_reply_timeout": 1, **settings}
        connection = {"conn_type": "smtpcm", "host": "127.0.0.1", "port": dialogue.port, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(connection))

    return define
