"""Fixtures for the tests of the operators: a relay, or a scripted server, behind the default connection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version

import pytest

from airflow_provider_smtpcm.testing import Relay
from tests.operators.servers import behind

__all__ = ["behind", "relay", "running_relay"]

# Airflow keeps task states from 3.3 on.
_AIRFLOW = tuple(int(part) for part in version("apache-airflow-core").split(".")[:2])
collect_ignore = [] if _AIRFLOW >= (3, 3) else ["test_state_store.py"]


@pytest.fixture(scope="session")
def running_relay() -> Iterator[Relay]:
    """A relay for all tests."""
    with Relay(ssl_mode="none", refuse={"bad@corp.example": "550 5.1.1 No such user"}) as relay:
        yield relay


@pytest.fixture
def relay(running_relay: Relay, monkeypatch: pytest.MonkeyPatch) -> Relay:
    """An empty relay behind the default connection."""
    running_relay.clear()
    monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(running_relay.airflow_connection()))
    return running_relay
