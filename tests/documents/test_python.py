"""Every Python block of the pages runs: a DAG by Airflow, a test by pytest, and mails reach a real server."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_smtpcm.testing import Relay
from tests.documents.identities import make_openpgp_identity, make_smime_identity
from tests.documents.pages import BLOCKS, DOCS, README, Block, blocks_in

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from airflow.sdk import DAG

LOGIN, PASSWORD = r"CORP\alice", "correct horse"
# A small picture: one pixel.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c020000000b4944415478da6364f8ff1f0003030200ef9af7aa"
    "0000000049454e44ae426082"
)


def is_of_pytest(block: Block) -> bool:
    """Return whether pytest runs it."""
    return "def test_" in block.code or "pytest_plugins" in block.code


# The DAGs of an import fail until their placeholders are replaced: tests/integration/test_import_ssis.py.
IMPORTED = {"airflow/dags/load.py", "airflow/dags/orders.py"}
PROGRAMS = [block for block in blocks_in("python") if not is_of_pytest(block) and block.title not in IMPORTED]


@pytest.fixture
def srv(tmp_path: Path) -> Path:
    """The folder /srv of the pages, with the files that their blocks use."""
    folder = tmp_path / "srv"
    for name in ("loads", "out", "statements", "templates"):
        (folder / name).mkdir(parents=True)
    (folder / "logo.png").write_bytes(PNG)
    today = datetime.now(UTC).date()
    for day in (today - timedelta(days=1), today, today + timedelta(days=1)):
        for kind in ("csv", "log"):
            (folder / f"loads/{day}.{kind}").write_text("table,rows\norders,1204\n")
    make_smime_identity(folder / "etl.pem")
    for name in ("loads/rows.csv", "loads/errors.log", "loads/page.html", "statements/terms.pdf"):
        (folder / name).write_text("A file.\n")
    (folder / "out/report.eml").write_text("From: etl@corp.example\nTo: dba@corp.example\n\nA report.\n")
    for number in (4711, 4712):
        (folder / f"statements/{number}.pdf").write_text("A statement.\n")
    for block in BLOCKS:
        if block.title.startswith("/srv/"):
            (folder / block.title.removeprefix("/srv/")).write_text(block.code, encoding="utf-8")
    return folder


@pytest.fixture
def _sales(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection `sales` of the pages: a database with orders."""
    path = tmp_path / "sales.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE orders (id INTEGER, customer TEXT, email TEXT, amount REAL, region TEXT)")
        orders = [
            (1, "Anna Jensen", "anna@corp.example", 1250.5, "North"),
            (2, "Björn & Söhne", "bjoern@corp.example", 99.0, "South"),
            (3, None, "nobody@corp.example", 250.0, "South"),
        ]
        connection.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?)", orders)
    monkeypatch.setenv("AIRFLOW_CONN_SALES", json.dumps({"conn_type": "sqlite", "host": str(path)}))


@pytest.mark.slow
@pytest.mark.usefixtures("_sales")
@pytest.mark.parametrize("block", PROGRAMS, ids=[f"{block} {block.title}" for block in PROGRAMS])
def test_every_program_runs_and_what_it_sends_arrives(
    block: Block,
    srv: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_dag: Callable[[DAG], DagRun],
) -> None:
    """A DAG with an alert fails, as intended, and the alert arrives."""
    monkeypatch.chdir(tmp_path)
    if "gpg" in block.code:
        make_openpgp_identity(tmp_path / "gnupg", monkeypatch)
    # The README's connection has a default sender.
    defaults = {"from_address": "etl@corp.example"} if block.page == README else {}
    with Relay(users={LOGIN: PASSWORD}) as relay:
        for name in ("SMTPCM_DEFAULT", "SMTP_EXCHANGE_CORP_EXAMPLE_WINDOWS_SSL"):
            monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(relay.airflow_connection(**defaults)))
        names: dict[str, Any] = {"__name__": "page"}
        code = block.code.replace("/srv/", f"{srv}/")
        exec(compile(code, str(block), "exec"), names)  # noqa: S102
        if "dag" in names:
            run = run_dag(names["dag"])
            assert str(run.state) == ("failed" if "alert" in names else "success")
        if "dag" in names or re.search(r"\(\"smtpcm_default\"\)\.send\(mail\)$", block.code):
            assert relay.messages
            assert {mail.authenticated_as for mail in relay.messages} == {LOGIN}


def test_most_of_the_dags_are_run() -> None:
    """A DAG is run if its name is `dag`; the others are Airflow's own, too late, or the quick start's."""
    without = [block for block in PROGRAMS if "with DAG(" in block.code and " as dag:" not in block.code]
    assert {block.page.name for block in without} == {"quick-start.md", "from-the-smtp-provider.md", "alerts.md"}
    assert len(without) == 4


@pytest.mark.slow
def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    """When copied into a folder."""
    tests = list(filter(is_of_pytest, blocks_in("python")))
    assert {block.page for block in tests} == {DOCS / "testing.md"}
    for block in blocks_in("python"):
        if block.page == DOCS / "testing.md":
            (tmp_path / block.title).write_text(block.code, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "3 passed" in ended.stdout, ended.stdout + ended.stderr
