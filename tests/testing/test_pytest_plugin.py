"""The fixtures work in the tests of a user."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

THEIR_CONFTEST = 'pytest_plugins = ["airflow_provider_smtpcm.testing.pytest_plugin"]\n'
THEIR_TESTS = r"""
import json, os, smtplib

def test_there_is_a_relay(smtpcm_relay):
    with smtplib.SMTP("localhost", smtpcm_relay.port) as client:
        client.ehlo()
        assert client.docmd("MAIL FROM:<a@corp.example>")[0] == 530
        assert client.has_extn("starttls")
    assert smtpcm_relay.messages == []
    assert "AIRFLOW_CONN_SMTPCM_DEFAULT" not in os.environ

def test_the_connection_leads_to_it(smtpcm_default):
    connection = json.loads(os.environ["AIRFLOW_CONN_SMTPCM_DEFAULT"])
    assert connection == smtpcm_default.airflow_connection()
    assert connection["login"] == r"CORP\alice"

def test_the_connection_is_gone_again():
    assert "AIRFLOW_CONN_SMTPCM_DEFAULT" not in os.environ
"""


def test_the_fixtures_work_in_the_tests_of_a_user(tmp_path: Path) -> None:
    """With one line in the conftest, in a separate pytest."""
    (tmp_path / "conftest.py").write_text(THEIR_CONFTEST)
    (tmp_path / "test_theirs.py").write_text(THEIR_TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "3 passed" in run.stdout
