r"""Pytest fixtures for tests of your own DAGs: an embedded relay, and an Airflow connection to it in the environment.

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

#: The user of `smtpcm_relay`, and the user's password.
RELAY_USER = r"CORP\alice"
RELAY_PASSWORD = "correct horse battery staple"  # noqa: S105  (of a relay that runs during one test)


@pytest.fixture
def smtpcm_relay() -> Iterator[Relay]:
    """A relay with STARTTLS that requires Windows Authentication as `RELAY_USER`; a new one for each test."""
    with Relay(users={RELAY_USER: RELAY_PASSWORD}) as relay:
        yield relay


@pytest.fixture
def smtpcm_default(smtpcm_relay: Relay, monkeypatch: pytest.MonkeyPatch) -> Relay:
    """`smtpcm_relay`, with an Airflow connection `smtpcm_default` to it during the test."""
    monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(smtpcm_relay.airflow_connection()))
    return smtpcm_relay
