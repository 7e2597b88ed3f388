"""Shared by the tests of alerts: a relay behind the default connection, and Airflow's web address."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from airflow_provider_smtpcm.notifications import alert_delivery
from airflow_provider_smtpcm.testing import Relay
from tests.notifications.shapes import BASE


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """A relay behind the default connection, which has a From address."""
    with Relay(ssl_mode="none", size_limit=200_000, refuse={"bad@corp.example": "550 5.1.1 No such user"}) as relay:
        connection = relay.airflow_connection(from_address="airflow@corp.example")
        monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(connection))
        yield relay


@pytest.fixture(autouse=True)
def airflow_at_corp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the web address that links begin with."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", BASE)


@pytest.fixture(autouse=True)
def _no_server_was_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_delivery, "_unreachable_since", {})
