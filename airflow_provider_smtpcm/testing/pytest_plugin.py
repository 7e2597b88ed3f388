r"""Fixtures for tests of your own DAGs. Knows no Airflow: a connection reaches it through the environment.

In your `conftest.py`:

    pytest_plugins = ["airflow_provider_smtpcm.testing.pytest_plugin"]

and in a test:

    def test_the_report_is_mailed(smtpcm_default):
        my_dag.test()
        [mail] = smtpcm_default.messages
        assert mail.message["Subject"] == "Report"
        assert mail.authenticated_as == r"CORP\alice"
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from airflow_provider_smtpcm.testing import Relay

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Who may log in at `smtpcm_relay`, with this password.
RELAY_USER = r"CORP\alice"
RELAY_PASSWORD = "correct horse battery staple"  # noqa: S105  (lives as long as a test)


@pytest.fixture
def smtpcm_relay() -> Iterator[Relay]:
    """A relay that offers STARTTLS and demands Windows Authentication as `RELAY_USER`; a new one for each test."""
    with Relay(users={RELAY_USER: RELAY_PASSWORD}) as relay:
        yield relay


@pytest.fixture
def smtpcm_default(smtpcm_relay: Relay, monkeypatch: pytest.MonkeyPatch) -> Relay:
    """`smtpcm_relay`, to which the Airflow connection `smtpcm_default` leads as long as the test runs."""
    monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(smtpcm_relay.airflow_connection()))
    return smtpcm_relay
