"""From an SSIS package to a mail: imported by Airflow's command line, stored and parsed by Airflow, sent to a relay."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_smtpcm.testing import ReceivedMail, Relay
from benchmarks.ssis_tree import make_tree
from tests.documents.pages import DOCS, blocks_of
from tests.integration.odbc_databases import Database

pytestmark = pytest.mark.slow

AIRFLOW = [sys.executable, "-m", "airflow"]
#: Airflow 3.1 takes no commands of a provider.
OURS = [*AIRFLOW, "smtpcm"] if version("apache-airflow") >= "3.2" else [sys.executable, "-m", "airflow_provider_smtpcm"]
Run = Callable[..., str]
#: Two packages whose mails depend on a query: one for OLE DB of 2014, one for ODBC of 2008.
QUERIES = Path(__file__).parent / "query_packages"


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


def test_the_package_of_the_page_sends_its_mail(airflow: Run, database: Database, tmp_path: Path) -> None:
    """Once its placeholder is replaced as the page says; to a server that requires Windows Authentication."""
    page = DOCS / "from-ssis.md"
    [package] = [block.code for block in blocks_of(page) if block.language == "xml"]
    (tmp_path / "load.dtsx").write_text(package, encoding="utf-8")
    for name in ("rows.csv", "errors.log"):
        (tmp_path / name).write_text("A file.\n")
    (tmp_path / "orders.csv").write_text("id,amount\n1,10.50\n2,\n3,2.25\n")
    database.create("orders", id="int", amount="decimal")
    words = ("--windows-auth", "keep", "--map-path", rf"\\files\loads={tmp_path}")
    airflow(*OURS, "import-ssis", str(tmp_path / "load.dtsx"), "--out", str(tmp_path / "out"), *words)
    [conn_id] = [name for name in connections_in(tmp_path / "out") if name.startswith("smtp_")]
    [database_id] = [name for name in connections_in(tmp_path / "out") if name.startswith("db_")]
    dag = tmp_path / "out/dags/load.py"
    with Relay(users={r"CORP\svc-etl": "the password"}) as relay:
        there = {
            f"AIRFLOW_CONN_{conn_id.upper()}": json.dumps(relay.airflow_connection()),
            f"AIRFLOW_CONN_{database_id.upper()}": database.airflow,
        }
        airflow(*AIRFLOW, "dags", "test", "load", expected=1, **there)
        assert relay.messages == []
        [work] = [block.code for block in blocks_of(page) if block.title == "Above the DAG in airflow/dags/load.py"]
        driver = json.loads(database.airflow)["extra"]["driver"]
        work = work.replace("/srv/loads", str(tmp_path)).replace("ODBC Driver 18 for SQL Server", driver)
        text = dag.read_text(encoding="utf-8").replace("with DAG(", f"{work}\n\nwith DAG(")
        [call] = re.findall(r"PlaceholderOperator\(\n.*?\n    \)", text, re.DOTALL)
        dag.write_text(text.replace(call, "load_orders_of_file()"), encoding="utf-8")
        airflow(*AIRFLOW, "dags", "test", "load", **there)
    [mail] = relay.messages
    assert list(mail.recipients) == ["operations@corp.example", "dba@corp.example"]
    assert mail.mail_from == "etl@corp.example"
    assert mail.authenticated_as == r"CORP\svc-etl"
    assert mail.message["Subject"] == "Load of orders: 2 rows, 1 rejected"
    assert mail.message["Subject"] in page.read_text(encoding="utf-8")
    assert [part.get_filename() for part in mail.message.iter_attachments()] == ["rows.csv", "errors.log"]


def connections_in(folder: Path) -> dict[str, Any]:
    """Return the connections of an import."""
    connections: dict[str, Any] = json.loads((folder / "connections.json").read_text(encoding="utf-8"))
    return connections


@pytest.fixture
def run_package(airflow: Run, database: Database, tmp_path: Path) -> Callable[..., list[ReceivedMail]]:
    """Return a function that imports the packages, runs one against the database, and returns its mails."""

    def run(name: str, *, expected: int = 0) -> list[ReceivedMail]:
        airflow(*OURS, "import-ssis", str(QUERIES), "--out", str(tmp_path / "out"))
        with Relay(ssl_mode="none") as relay:
            there = {
                "AIRFLOW_CONN_SMTP_MAIL_CORP_EXAMPLE": json.dumps(relay.airflow_connection()),
                "AIRFLOW_CONN_DB_SQLSRV_SALES_ETL": database.airflow,
                "AIRFLOW_CONN_DB_STOCK_ETL": database.airflow,
            }
            airflow(*AIRFLOW, "dags", "test", name, expected=expected, **there)
        return relay.messages

    return run


RunPackage = Callable[..., list[ReceivedMail]]
ORDERS = [(1, "Jane", "it's open"), (2, "O'Brien", "it's open"), (3, "Zoë", "done")]


@pytest.mark.parametrize(
    ("orders", "recipient", "subject", "text", "logged"),
    [
        (ORDERS, "sales@corp.example", "2 open, twice that is 4", "Last: O'Brien and others", (2, 4, "O'Brien")),
        (ORDERS[2:], "ops@corp.example", "Nothing is open", ".", (0, 0, "-")),
    ],
    ids=["some", "none"],
)
def test_mails_depend_on_what_a_query_found(
    run_package: RunPackage,
    database: Database,
    orders: list[tuple[object, ...]],
    recipient: str,
    subject: str,
    text: str,
    logged: tuple[object, ...],
) -> None:
    """Its count decides which mail is sent, is in it, and is written by a statement that an expression makes."""
    database.create("orders", id="int", name="text", status="text")
    database.create("log", counted="int", total="int", last="text")
    database.insert("orders", *orders)
    [mail] = run_package("report_orders")
    assert list(mail.recipients) == [recipient]
    assert (mail.message["Subject"], mail.message.get_content().strip()) == (subject, text)
    assert database.run("SELECT * FROM log") == [logged]


@pytest.mark.parametrize(
    ("counted", "subject"), [("2026-11-29 10:57:48", "Stock: 12.5"), ("1999-12-31 00:00:00", "No stock was counted")]
)
def test_a_query_without_a_row_fails_and_the_failure_is_mailed(
    run_package: RunPackage, database: Database, counted: str, subject: str
) -> None:
    """As in SSIS; with a row, its number is in the mail."""
    database.create("stock", amount="decimal", counted="moment")
    database.insert("stock", ("12.50", counted))
    [mail] = run_package("check_stock", expected=0 if "Stock" in subject else 1)
    assert mail.message["Subject"] == subject
