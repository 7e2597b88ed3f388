"""From an SSIS package to a mail: imported by Airflow's command line, stored and parsed by Airflow, sent to a relay."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_smtpcm.testing import Relay
from benchmarks.ssis_tree import make_tree
from tests.documents.pages import DOCS, blocks_of

pytestmark = pytest.mark.slow

AIRFLOW = [sys.executable, "-m", "airflow"]
#: Airflow 3.1 takes no commands of a provider.
OURS = [*AIRFLOW, "smtpcm"] if version("apache-airflow") >= "3.2" else [sys.executable, "-m", "airflow_provider_smtpcm"]
Run = Callable[..., str]


@pytest.fixture
def airflow(airflow_tables: Path, tmp_path: Path) -> Run:
    """The command line of an Airflow whose DAGs are the imported ones."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "out/dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
    }

    def run(*words: str, expected: int = 0, **more: str) -> str:
        ended = subprocess.run(words, env=environment | more, capture_output=True, text=True, check=False)
        assert ended.returncode == expected, f"{words}:\n{ended.stdout}{ended.stderr}"
        return ended.stdout

    shutil.copyfile(airflow_tables, home / "airflow.db")
    return run


def listed(said: str) -> list[dict[str, Any]]:
    """Return the last line of the output; Airflow may print warnings above it."""
    found: list[dict[str, Any]] = json.loads(said.strip().splitlines()[-1])
    return found


def test_a_company_s_packages_become_dags_that_airflow_parses(airflow: Run, tmp_path: Path) -> None:
    """And connections; what has to be decided is in the report, not in an error of the import."""
    tree = make_tree(tmp_path / "packages", 40, with_mail=0.5)
    summary = json.loads(
        airflow(*OURS, "import-ssis", str(tree.folder), "--out", str(tmp_path / "out"), "--json", expected=3)
    )
    dags = list((tmp_path / "out/dags").iterdir())
    assert summary["counts"]["dags"] == len(dags) > 10
    stored = airflow(*AIRFLOW, "connections", "import", str(tmp_path / "out/connections.json"))
    assert "rror" not in stored
    assert listed(airflow(*AIRFLOW, "dags", "list-import-errors", "--local", "--output", "json")) == []
    known = listed(airflow(*AIRFLOW, "dags", "list", "--local", "--output", "json"))
    assert {one["dag_id"] for one in known} == {path.stem for path in dags}
    conn_ids = {one["conn_id"] for one in listed(airflow(*AIRFLOW, "connections", "list", "--output", "json"))}
    assert conn_ids >= set(json.loads((tmp_path / "out/connections.json").read_text(encoding="utf-8")))


def test_the_package_of_the_page_sends_its_mail(airflow: Run, tmp_path: Path) -> None:
    """To a server that requires Windows Authentication, as the package says."""
    [package] = [block.code for block in blocks_of(DOCS / "from-ssis.md") if block.language == "xml"]
    (tmp_path / "load.dtsx").write_text(package, encoding="utf-8")
    for name in ("rows.csv", "errors.log"):
        (tmp_path / name).write_text("A file.\n")
    words = ("--windows-auth", "keep", "--map-path", rf"\\files\loads={tmp_path}")
    airflow(*OURS, "import-ssis", str(tmp_path / "load.dtsx"), "--out", str(tmp_path / "out"), *words)
    airflow(*AIRFLOW, "connections", "import", str(tmp_path / "out/connections.json"))
    [conn_id] = json.loads((tmp_path / "out/connections.json").read_text(encoding="utf-8"))
    with Relay(users={r"CORP\svc-etl": "the password"}) as relay:
        there = {f"AIRFLOW_CONN_{conn_id.upper()}": json.dumps(relay.airflow_connection())}
        airflow(*AIRFLOW, "dags", "test", "load", **there)
    [mail] = relay.messages
    assert list(mail.recipients) == ["operations@corp.example", "dba@corp.example"]
    assert mail.mail_from == "etl@corp.example"
    assert mail.authenticated_as == r"CORP\svc-etl"
    assert mail.message["Subject"] == "Load of orders finished"
    assert [part.get_filename() for part in mail.message.iter_attachments()] == ["rows.csv", "errors.log"]
