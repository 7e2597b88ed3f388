"""The README is true: its table is the code's, its connections parse, and its Python runs."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager
from tests.readme import README, written_anew

TEXT = README.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The README's code blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_connection_table_is_the_code_s() -> None:
    """`make readme` mends it."""
    assert written_anew() == TEXT


def test_every_file_that_it_links_to_exists() -> None:
    """The picture of the form too."""
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in link]
    assert links
    assert [link for link in links if not (README.parent / link).exists()] == []


def test_every_test_that_holds_a_promise_exists() -> None:
    """A guarantee is worth what its test is worth."""
    named = set(re.findall(r"`(?:[\w/]*/)?(test_\w+\.py)`", TEXT))
    assert named
    assert named <= {path.name for path in README.parent.glob("tests/**/test_*.py")}


def test_every_connection_in_json_is_one() -> None:
    """As Airflow would hand it over."""
    found = [json.loads(block) for block in blocks("json")]
    connections = [SmtpConnectionManager.from_airflow(SimpleNamespace(**c)) for c in found if "conn_type" in c]
    assert [connection.auth_mode for connection in connections] == [AuthMode.ANONYMOUS, AuthMode.WINDOWS]


def test_every_connection_on_a_command_line_is_one() -> None:
    """In JSON, and as a URI."""
    hosts = []
    for line in "".join(blocks("console")).splitlines():
        for word in shlex.split(line, comments=True):
            value = word.removeprefix("AIRFLOW_CONN_SMTPCM_DEFAULT=")
            if value.startswith("{"):
                hosts.append(SmtpConnectionManager.from_airflow(SimpleNamespace(**json.loads(value))).host)
            elif value.startswith("smtpcm://"):
                uri = urlsplit(value)
                manager = SmtpConnectionManager.from_airflow(
                    SimpleNamespace(
                        host=uri.hostname,
                        port=uri.port,
                        login=unquote(uri.username or ""),
                        password=unquote(uri.password or ""),
                        extra=dict(parse_qsl(uri.query)),
                    )
                )
                assert manager.login == r"CORP\svc-etl"
                hosts.append(manager.host)
    assert hosts == ["relay.corp.example", "relay.corp.example", "exchange.corp.example"]


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.split("\n")[0][:40])
def test_every_python_block_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder, and without a trace in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", "")
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})  # noqa: S102
