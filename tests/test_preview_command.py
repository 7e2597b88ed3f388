"""`preview` writes the mail of a task of a DAG file, as Airflow would render it, and opens no connection."""

from __future__ import annotations

import io
import json
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_smtpcm.cli import main
from airflow_provider_smtpcm.testing import Relay

pytestmark = pytest.mark.every_airflow

DAG_FILE = """
from airflow.sdk import DAG, Param, task

from airflow_provider_smtpcm import MailMergeOperator, SendMailNotifier, SendMailOperator

alert = SendMailNotifier(to="operations@corp.example", subject="{{ alert.name }} failed", text="{{ exception }}")

with DAG(
    dag_id="to_preview", schedule="@daily", params={"table": Param("orders")}, on_success_callback=[alert]
) as dag:

    @task(on_failure_callback=alert)
    def customers():
        return [{"email": f"{number}@corp.example", "name": "Jürgen & Söhne"} for number in range(5)]

    rows = customers()
    SendMailOperator(
        task_id="mail",
        to="a@corp.example",
        bcc="b@corp.example",
        subject="{{ params.table }} of {{ ds }} by {{ var.value.get('who', 'nobody') }}",
        text="{{ conn.smtpcm_default.host }}",
    )
    SendMailOperator(task_id="with_output", to="a@corp.example", text="{{ ti.xcom_pull('customers') | length }} rows")
    MailMergeOperator(
        task_id="merge", rows=rows, to="{{ row.email }}", subject="x", html="<p>{{ row.name }}</p>"
    )
    MailMergeOperator(task_id="broken", rows=[{"to": "a@corp.example"}, {"to": "nobody"}], to="{{ row.to }}")
    SendMailOperator.partial(task_id="mapped", subject="{{ ds }}").expand(to=["x@corp.example", "y@corp.example"])
    SendMailOperator(task_id="wrong", to="a@corp.example", text="{{ 1 / 0 }}")
"""


@pytest.fixture
def dag_file(airflow_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The DAG in Airflow's folder."""
    file = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]) / "to_preview.py"
    file.write_text(DAG_FILE)
    connection = {"conn_type": "smtpcm", "host": "mail.corp.example", "extra": {"from_address": "etl@corp.example"}}
    monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW_VAR_WHO", "somebody")
    yield file
    file.unlink()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No socket can be connected to any server."""
    forbid_connections(monkeypatch)


def forbid_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each attempt to connect fail."""

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def preview(task_id: str, *options: str) -> int:
    """Run the command."""
    return main(["preview", "to_preview", task_id, *options])


def read(file: Path) -> EmailMessage:
    """Return the mail in a file, as a mail program reads it."""
    return message_from_bytes(file.read_bytes(), policy=policy.default)  # type: ignore[return-value]


@pytest.mark.usefixtures("dag_file", "no_network")
def test_a_mail_is_written_and_described(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With params, the logical date, a variable and a connection; Bcc is only in the description."""
    assert preview("mail", "--logical-date", "2026-01-31", "--conf", '{"table": "customers"}') == 0
    mail = read(folder / "mail.eml")
    assert (mail["From"], mail["To"], mail["Bcc"]) == ("etl@corp.example", "a@corp.example", None)
    assert mail["Subject"] == "customers of 2026-01-31 by somebody"
    assert mail.get_content().split() == ["mail.corp.example"]
    out = capsys.readouterr().out
    assert "from etl@corp.example to a@corp.example, b@corp.example\n" in out
    assert "written to mail.eml" in out


@pytest.mark.usefixtures("dag_file")
def test_airflow_logs_nothing_between_the_lines(folder: Path) -> None:
    """In a process of its own, where Airflow logs to stdout that it reads and stores all DAGs."""
    command = [sys.executable, "-m", "airflow_provider_smtpcm", "preview", "to_preview", "mail"]
    ended = subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, check=True)
    first, *others = ended.stdout.splitlines()
    assert first == "from etl@corp.example to a@corp.example, b@corp.example"
    assert len(others) == 2, ended.stdout


@pytest.mark.usefixtures("dag_file", "no_network", "folder")
def test_a_terminal_that_lacks_characters_shows_question_marks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mail is written all the same."""
    monkeypatch.setenv("AIRFLOW_VAR_WHO", "Jürgen")
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", out)
        assert preview("mail") == 0
    out.seek(0)
    assert "by J?rgen\n" in out.read()


@pytest.mark.usefixtures("dag_file", "no_network")
def test_without_a_date_it_is_today(folder: Path) -> None:
    """And the file is the one that is named."""
    assert preview("mail", "--output", "other.eml") == 0
    assert read(folder / "other.eml")["Subject"].startswith("orders of 20")


def test_the_outputs_of_other_tasks_come_from_a_run(
    dag_file: Path,
    folder: Path,
    run_dag: Callable[[Any], Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rows of a merge, too; nothing of the run changes."""
    with Relay(ssl_mode="none") as relay:
        connection = relay.airflow_connection(from_address="etl@corp.example")
        monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(connection))
        run = run_dag(runpy.run_path(str(dag_file))["dag"])
    forbid_connections(monkeypatch)
    states = {ti.task_id: (ti.state, ti.end_date) for ti in run.get_task_instances()}
    assert preview("with_output", "--run-id", run.run_id) == 0
    assert read(folder / "with_output.eml").get_content().strip() == "5 rows"
    assert preview("merge", "--run-id", run.run_id) == 0
    assert sorted(path.name for path in folder.glob("merge*")) == ["merge-1.eml", "merge-2.eml", "merge-3.eml"]
    assert read(folder / "merge-3.eml")["To"] == "2@corp.example"
    assert "Jürgen &amp; Söhne" in read(folder / "merge-3.eml").get_content()
    assert preview("merge", "--run-id", run.run_id, "--row", "5", "--output", "last.eml") == 0
    assert read(folder / "last.eml")["To"] == "4@corp.example"
    capsys.readouterr()
    assert preview("merge", "--run-id", run.run_id, "--row", "6") == 3
    assert "The rows have no row 6" in capsys.readouterr().err
    assert {ti.task_id: (ti.state, ti.end_date) for ti in run.get_task_instances()} == states


@pytest.mark.usefixtures("dag_file", "no_network")
def test_a_row_without_a_mail_does_not_hide_the_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its error is printed."""
    assert preview("broken") == 1
    assert [path.name for path in folder.glob("*.eml")] == ["broken-1.eml"]
    assert "preview: row 2: " in capsys.readouterr().err


@pytest.mark.usefixtures("dag_file", "no_network")
def test_of_a_mapped_task_one_is_previewed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The one with this index."""
    assert preview("mapped", "--map-index", "1", "--logical-date", "2026-01-31") == 0
    assert (read(folder / "mapped.eml")["To"], read(folder / "mapped.eml")["Subject"]) == (
        "y@corp.example",
        "2026-01-31",
    )
    assert preview("mapped") == 3
    assert "add --map-index N" in capsys.readouterr().err


@pytest.mark.usefixtures("dag_file", "no_network")
def test_an_alert_is_previewed_by_its_callback(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That of the task, or else of the DAG."""
    assert preview("customers", "--alert", "failure") == 0
    mail = read(folder / "customers.eml")
    assert mail["Subject"] == "to_preview.customers failed"
    assert "has not failed" in mail.get_content()
    assert preview("customers", "--alert", "success", "--output", "success.eml") == 0
    assert (folder / "success.eml").exists()
    assert preview("customers", "--alert", "retry") == 3
    assert "on_retry_callback" in capsys.readouterr().err


@pytest.mark.usefixtures("dag_file", "no_network")
@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["no_such_dag", "mail"], 3, "airflow dags list-import-errors"),
        (["to_preview", "no_such_task"], 3, "has no task 'no_such_task'"),
        (["to_preview", "mail", "--run-id", "no_such_run"], 3, "has no run 'no_such_run'"),
        (["to_preview", "customers"], 3, "--alert failure"),
        (["to_preview", "wrong"], 1, "ZeroDivisionError"),
        (["to_preview", "merge"], 1, "preview: "),
    ],
)
def test_what_cannot_be_previewed_says_why(
    arguments: list[str], status: int, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With an exit status of its own, without a traceback."""
    assert main(["preview", *arguments]) == status
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err
    assert list(folder.glob("*.eml")) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--row", "0"], "the number of a row, from 1"),
        (["--conf", "[1]"], "give a JSON object"),
        (["--conf", "hush-1"], "give a JSON object"),
        (["--logical-date", "yesterday"], "give a date"),
        (["--map-index", "-1"], ""),
        (["--run-id", "r", "--logical-date", "2026-01-31"], "Give --run-id or --logical-date"),
    ],
)
def test_wrong_arguments_are_explained(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before Airflow is loaded."""
    with pytest.raises(SystemExit) as end:
        preview("mail", *options)
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert message in err
    assert "hush-1" not in err
