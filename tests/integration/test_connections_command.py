"""A connection manager becomes a connection in Airflow, by Airflow's own commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager, SslMode

pytestmark = [pytest.mark.slow, pytest.mark.every_airflow]

MANAGERS = {
    "from_program": SmtpConnectionManager(
        host="exchange.corp.example",
        auth_mode=AuthMode.WINDOWS,
        login=r"CORP\svc-etl",
        password='p"ss \\ wörd',
        from_address="ETL <etl@corp.example>",
        timeout=12.5,
    ),
    "from_ssis": SmtpConnectionManager.from_connection_string(
        "SmtpServer=relay.corp.example;UseWindowsAuthentication=False;EnableSsl=False;Timeout=20000;"
    ),
    "implicit": SmtpConnectionManager(host="relay.corp.example", ssl_mode=SslMode.IMPLICIT, verify_certificate=False),
}


def airflow(*arguments: str) -> str:
    """Run Airflow's command line in the tests' own Airflow home."""
    run = subprocess.run(
        [sys.executable, "-m", "airflow", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
        timeout=600,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_connections_add_and_import_accept_what_to_airflow_returns(airflow_db: None, tmp_path: Path) -> None:
    """And what Airflow then exports is the same connection manager."""
    added, *imported = MANAGERS
    airflow("connections", "add", added, "--conn-json", json.dumps(MANAGERS[added].to_airflow()))
    file = tmp_path / "connections.json"
    file.write_text(json.dumps({name: MANAGERS[name].to_airflow() for name in imported}), encoding="utf-8")
    airflow("connections", "import", str(file))
    exported = tmp_path / "exported.json"
    airflow("connections", "export", str(exported))
    stored = json.loads(exported.read_text(encoding="utf-8"))
    for name, manager in MANAGERS.items():
        assert stored[name]["conn_type"] == "smtpcm"
        assert SmtpConnectionManager.from_airflow(SimpleNamespace(**stored[name])) == manager
