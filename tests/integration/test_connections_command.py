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
from airflow_provider_smtpcm.testing import Relay

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
    return run_module("airflow", *arguments)


def run_module(module: str, *arguments: str) -> str:
    """Run the command line of a module there; return its standard output."""
    run = subprocess.run(
        [sys.executable, "-m", module, *arguments],
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


def test_connections_of_the_smtp_provider_are_imported_as_ours_and_work(airflow_db: None, tmp_path: Path) -> None:
    """All that are in the database are found; one is sent through, by the account that it had."""
    password = 'p"ss \\ wörd'
    off = {"disable_ssl": True, "disable_tls": True, "from_email": "etl@corp.example"}
    with Relay(users={"etl": password}, ssl_mode="none") as relay:
        stock = {"conn_type": "smtp", "host": "127.0.0.1", "port": relay.port, "login": "etl", "password": password}
        airflow("connections", "add", "mail", "--conn-json", json.dumps({**stock, "extra": off}))
        file = tmp_path / "connections.json"
        options = ("--basic-as", "windows", "--output", "json", "--show-passwords")
        file.write_text(run_module("airflow_provider_smtpcm", "from-smtp", *options), encoding="utf-8")
        assert "mail_smtpcm" in json.loads(file.read_text(encoding="utf-8"))
        airflow("connections", "import", str(file))
        run_module("airflow_provider_smtpcm", "check", "mail_smtpcm", "--send-to", "me@corp.example")
        assert [message.authenticated_as for message in relay.messages] == ["etl", "etl"]
        assert relay.messages[0].message["From"] == "etl@corp.example"
    airflow("connections", "delete", "mail")  # other tests have no key for its password
