"""A hook for a server on loopback."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook


def hook_for(port: int, **extra: object) -> SmtpConnectionManagerHook:
    """What a task has: in clear text and anonymous, unless a test says otherwise.

    Args:
        port: the server's.
        extra: extras of the Airflow connection.
    """
    from airflow_provider_smtpcm.hooks.smtpcm import (
        SmtpConnectionManagerHook,
    )  # it imports Airflow, which takes seconds

    connection = {"conn_type": "smtpcm", "host": "127.0.0.1", "port": port, "extra": {"ssl_mode": "none", **extra}}
    hook = SmtpConnectionManagerHook("torture")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_TORTURE", json.dumps(connection))
        assert hook.connection_manager.port == port  # looked up here, and kept
    return hook
