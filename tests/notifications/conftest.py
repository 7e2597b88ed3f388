"""Shared by the tests of alerts: a relay behind the default connection, and Airflow's web address."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_smtpcm.notifications import alert_delivery
from airflow_provider_smtpcm.testing import Relay
from tests.notifications.shapes import BASE


@pytest.fixture(scope="session")
def running_relay() -> Iterator[Relay]:
    """A relay for all tests."""
    with Relay(ssl_mode="none", size_limit=200_000, refuse={"bad@corp.example": "550 5.1.1 No such user"}) as relay:
        yield relay


@pytest.fixture
def relay(running_relay: Relay, monkeypatch: pytest.MonkeyPatch) -> Relay:
    """An empty relay behind the default connection, which has a From address."""
    running_relay.clear()
    connection = running_relay.airflow_connection(from_address="airflow@corp.example")
    monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(connection))
    return running_relay


@pytest.fixture(autouse=True)
def log_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Airflow's folder of task logs: empty, and not the test's `tmp_path`."""
    folder = tmp_path_factory.mktemp("logs")
    monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(folder))
    return folder


@pytest.fixture(autouse=True)
def airflow_at_corp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the web address that links begin with."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", BASE)


@pytest.fixture(autouse=True)
def _no_server_was_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_delivery, "_unreachable_since", {})
