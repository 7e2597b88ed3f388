"""From an SSIS package to a mail: imported by Airflow's command line, stored and parsed by Airflow, sent to a relay."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_smtpcm.testing import ReceivedMail, Relay
from benchmarks.ssis_tree import make_tree
from tests.documents.pages import DOCS, Block, blocks_of, commands_of, table_after
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


GUIDE = DOCS / "from-ssis.md"
#: Commands of the guide that need more than the sample.
NOT_WALKED = re.compile(r"pip |.*\.sql ")


@dataclass
class Walker:
    """Follows the guide in a folder: runs its commands, and compares what they print and write.

    Args:
        folder: the reader's empty folder.
        port: of the relay, instead of the one in the guide.
    """

    folder: Path
    port: int
    exports: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    printed: str = ""
    relay: subprocess.Popen[str] | None = None

    @property
    def received(self) -> str:
        """What the relay has printed, without sizes, which differ between machines."""
        return without_sizes((self.folder / "relay.txt").read_text(encoding="utf-8"))

    def here(self, text: str) -> str:
        """Return a text of the guide with the port and the folder of attachments that this test uses."""
        return text.replace("2525", str(self.port)).replace("/tmp/loads", str(self.folder / "loads"))  # noqa: S108

    def follow(self, block: Block) -> None:
        """Do what a block shows, or compare it with what was printed or written."""
        shown = self.here(block.code)
        match block.language, block.title:
            case "console", _:
                for command in commands_of(block):
                    self.run(command)
            case "xml", title:
                (self.folder / title).write_text(block.code, encoding="utf-8")
            case "text", "The relay prints":
                assert without_sizes(shown) in self.received
            case "text", _:
                assert self.printed == shown
            case "python", "Above the DAG in airflow/dags/orders.py":
                self.replace_placeholder(block.code)
            case _, title:
                assert (self.folder / title).read_text(encoding="utf-8") == shown

    def run(self, command: str) -> None:
        """Run a command, and keep its output and its exit status."""
        if NOT_WALKED.match(command):
            return
        if " relay " in command:
            self.start_relay(shlex.split(self.here(command))[2:])
        elif command.startswith("export "):
            self.exports.append(self.here(command))
        else:
            if "--answers" in command:
                self.answer_questions()
            ended = subprocess.run(
                ["bash", "-euc", "\n".join([*self.exports, self.here(command)])],
                cwd=self.folder,
                env={name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
                | {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"},
                capture_output=True,
                text=True,
                check=False,
            )
            self.printed = ended.stdout
            self.statuses.append(ended.returncode)

    def start_relay(self, arguments: list[str]) -> None:
        """Start the relay of the guide, and let it write to a file."""
        words = [sys.executable, "-m", "airflow_provider_smtpcm", *arguments]
        with (self.folder / "relay.txt").open("w", encoding="utf-8") as file:
            self.relay = subprocess.Popen(words, stdout=file, text=True)

    def answer_questions(self) -> None:
        """Fill in the column of `questions.csv` with the answers of the guide, in any order."""
        answers = {row[0].strip("`"): row[1].strip("`") for row in table_after(GUIDE, "## Answer the questions")}
        path = self.folder / "airflow/questions.csv"
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        assert {row["key"] for row in rows} == set(answers)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(row | {"answer": self.here(answers[row["key"]])} for row in rows)

    def replace_placeholder(self, work: str) -> None:
        """Edit the DAG as the guide says, after an import without `--placeholders pass`, and run it twice."""
        self.run("airflow smtpcm import-ssis packages --out airflow --answers airflow/questions.csv")
        path = self.folder / "airflow/dags/orders.py"
        text = path.read_text(encoding="utf-8").replace("with DAG(", f"{self.here(work)}\n\nwith DAG(")
        [call] = re.findall(r"PlaceholderOperator\(\n.*?\n    \)", text, re.DOTALL)
        path.write_text(text.replace(call, "load_orders_from_file()"), encoding="utf-8")
        self.run("airflow dags test orders")
        (self.folder / "loads/orders.csv").write_text("id\n1\n2\n", encoding="utf-8")
        self.run("airflow dags test orders")


def without_sizes(text: str) -> str:
    """Return what the relay prints without the sizes of the mails."""
    return re.sub(r"[\d,]+ octets", "", text)


@pytest.fixture
def walker(airflow_tables: Path, tmp_path: Path) -> Iterator[Walker]:
    """A reader in an empty folder, with a database so that `airflow db migrate` has little to do."""
    for name in ("bin", "home"):
        (tmp_path / name).mkdir()
    shutil.copyfile(airflow_tables, tmp_path / "home/airflow.db")
    program = tmp_path / "bin/airflow"
    ours, airflow = shlex.join(OURS), shlex.join(AIRFLOW)
    program.write_text(f'#!/bin/sh\n[ "$1" = smtpcm ] && shift && exec {ours} "$@"\nexec {airflow} "$@"\n')
    program.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        walker = Walker(folder=tmp_path, port=probe.getsockname()[1])
    yield walker
    if walker.relay is not None:
        walker.relay.terminate()
        walker.relay.wait()


def test_the_guide_can_be_walked(walker: Walker) -> None:
    """From an empty folder to the mail of the task that replaces the placeholder; what the guide shows is so."""
    for block in blocks_of(GUIDE):
        walker.follow(block)
    # The first import has questions, and the first run has a placeholder that fails.
    assert [status for status in walker.statuses if status] == [3, 1]
    subjects = re.findall(r"^  Subject: (.+)$", walker.received, re.MULTILINE)
    assert subjects == ["Load of orders failed", "0 orders loaded", "0 orders loaded", "2 orders loaded"]
    assert f"`{subjects[-1]}`" in GUIDE.read_text(encoding="utf-8")


def test_the_package_of_the_example_sends_its_mail(airflow: Run, database: Database, tmp_path: Path) -> None:
    """Once its placeholder is replaced as the page says; to a server that requires Windows Authentication."""
    page = DOCS / "reference/ssis-example.md"
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
