"""`preview` returns what a task or an alert would send, by the same code, and sends nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from email import message_from_bytes, policy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.decorators.send_mail import send_mail_task
from airflow_provider_smtpcm.errors import MailError, MessageError
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.notifications.send_mail import SendMailNotifier
from airflow_provider_smtpcm.operators.mail_merge import MailMergeOperator
from airflow_provider_smtpcm.operators.send_mail import SendMailOperator
from airflow_provider_smtpcm.testing import Relay

# Nothing listens there, and nothing may connect.
NOWHERE = SmtpConnectionManager(host="mail.corp.example", from_address="ETL <etl@corp.example>")
ROWS = [{"id": 1, "email": "a@corp.example"}, {"id": 2, "email": "nobody"}, {"id": 3, "email": "c@corp.example"}]


def without_date(octets: bytes) -> list[bytes]:
    """Return the lines of a message except its date."""
    return [line for line in octets.split(b"\r\n") if not line.startswith(b"Date: ")]


def merge(**fields: Any) -> MailMergeOperator:
    """A merge with the least that it needs."""
    return MailMergeOperator(**{"task_id": "merge", "rows": ROWS, "to": "{{ row.email }}", "subject": "x", **fields})


# --- One mail.


def test_a_dict_is_context_enough(tmp_path: Path) -> None:
    """No Airflow database, no connection, no server."""
    task = SendMailOperator(task_id="mail", to="a@corp.example", bcc="b@corp.example", subject="Load of {{ ds }}")
    mail = task.preview({"ds": "2026-01-31"}, manager=NOWHERE)
    assert isinstance(mail, Mail)
    file = tmp_path / "mail.eml"
    mail.write_eml(file)
    read = message_from_bytes(file.read_bytes(), policy=policy.default)
    assert (read["From"], read["To"], read["Subject"]) == (
        "ETL <etl@corp.example>",
        "a@corp.example",
        "Load of 2026-01-31",
    )
    assert read["Bcc"] is None
    assert task.subject == "Load of {{ ds }}"  # the operator is as it was
    assert task.preview({"ds": "2026-02-01"}, manager=NOWHERE).subject == "Load of 2026-02-01"


def test_the_preview_is_what_the_run_sends(
    run_dag: Callable[[DAG], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Octet by octet, but for the date."""
    attached = tmp_path / "rows.csv"
    attached.write_text("id,name\n1,Jürgen\n")
    with Relay(ssl_mode="none") as relay:
        monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(relay.airflow_connection()))
        with DAG(dag_id="previewed", schedule=None, params={"table": "orders"}) as dag:
            task = SendMailOperator(
                task_id="mail",
                from_address="ETL <etl@corp.example>",
                to="a@corp.example",
                subject="Load of {{ params.table }}",
                text="Grüße.",
                html="<p>{{ '<b>' }}</p>",
                attachments=[str(attached)],
                message_id="<one@corp.example>",
            )
        preview = task.preview({"params": {"table": "orders"}, "dag": dag})
        assert relay.messages == []
        assert str(run_dag(dag).state) == "success"
        [sent] = relay.messages
    file = tmp_path / "mail.eml"
    preview.write_eml(file)
    assert without_date(file.read_bytes()) == without_date(sent.content)


def test_a_preview_has_the_message_id_of_the_task() -> None:
    """Which is the same in every attempt; in a plain dict there is no task."""
    task = SendMailOperator(task_id="mail", to="a@corp.example", subject="x")
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="mail", map_index=-1)
    first, second = (task.preview({"ti": ti}, manager=NOWHERE).message_id for _ in range(2))
    assert first == second
    assert first != task.preview({}, manager=NOWHERE).message_id
    assert task.preview({"ti": None}, manager=NOWHERE) != task.preview(
        {"ti": SimpleNamespace(run_id="r")}, manager=NOWHERE
    )


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"to": "{{ 'nobody' }}"}, "nobody"),
        ({"attachments": ["/nowhere/rows.csv"]}, "/nowhere/rows.csv"),
        ({"html_file": "/nowhere/report.html"}, "/nowhere/report.html"),
    ],
)
def test_what_cannot_be_sent_has_no_preview(fields: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    """The error is that of the task; a missing attachment shows when the mail is written."""
    task = SendMailOperator(**{"task_id": "mail", "to": "a@corp.example", **fields})
    with pytest.raises(MessageError, match=complaint):
        task.preview({}, manager=NOWHERE).write_eml(tmp_path / "mail.eml")
    assert not (tmp_path / "mail.eml").exists()


def test_a_connection_that_does_not_exist_is_the_error_of_the_task() -> None:
    """Its From address is needed."""
    task = SendMailOperator(task_id="mail", to="a@corp.example", smtpcm_conn_id="no_such_connection")
    with pytest.raises(Exception, match="no_such_connection"):
        task.preview({})


def test_a_function_is_called_for_a_preview() -> None:
    """It makes the mail."""
    with DAG("decorated", schedule=None) as dag:

        @send_mail_task(to="a@corp.example", subject="{{ ds }}")
        def report(rows: int) -> str:
            return f"{rows} rows"

        report(3)
    mail = dag.get_task("report").preview({"ds": "2026-01-31"}, manager=NOWHERE)
    assert (mail.subject, mail.text) == ("2026-01-31", "3 rows")


# --- A merge.


def test_a_merge_previews_its_first_rows() -> None:
    """By their numbers."""
    rows = [{"id": number, "email": f"{number}@corp.example"} for number in range(1, 10)]
    task = merge(rows=rows, text="{{ row_number }}", row_key="{{ row.id }}")
    mails = task.preview({}, manager=NOWHERE)
    assert {number: mail.text for number, mail in mails.items()} == {1: "1", 2: "2", 3: "3"}
    assert {number: str(mail.to[0]) for number, mail in task.preview({}, rows=[9], manager=NOWHERE).items()} == {
        9: "9@corp.example"
    }
    assert task.preview({}, rows=[10], manager=NOWHERE) == task.preview({}, rows=[], manager=NOWHERE) == {}


def test_a_merge_previews_the_headers_against_automatic_replies_as_it_sends_them(tmp_path: Path) -> None:
    """They are left out if the author says so."""
    for auto_generated in (True, False):
        mails = merge(auto_generated=auto_generated).preview({}, rows=[1], manager=NOWHERE)
        mails[1].write_eml(tmp_path / "mail.eml")
        assert (b"\r\nAuto-Submitted: " in (tmp_path / "mail.eml").read_bytes()) == auto_generated


def test_a_row_without_a_mail_is_the_error_of_the_merge() -> None:
    """Others have theirs."""
    with pytest.raises(MailError, match="nobody"):
        merge().preview({}, manager=NOWHERE)
    assert list(merge().preview({}, rows=[1, 3], manager=NOWHERE)) == [1, 3]


def test_rows_after_the_last_that_is_asked_for_are_not_read() -> None:
    """A file may have millions."""

    def read() -> Any:
        yield ROWS[0]
        raise AssertionError

    assert list(merge(rows=read()).preview({}, rows=[1], manager=NOWHERE)) == [1]


def test_rows_that_cannot_be_read_are_an_error() -> None:
    """As in a run."""
    with pytest.raises(MailError, match=r"/nowhere/rows\.csv"):
        merge(rows="/nowhere/rows.csv").preview({}, manager=NOWHERE)


def test_the_preview_of_a_row_is_what_the_merge_sends(
    run_dag: Callable[[DAG], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Octet by octet, but for the date."""
    rows = tmp_path / "rows.csv"
    rows.write_text("id,email\n1,a@corp.example\n2,b@corp.example\n")
    with Relay(ssl_mode="none") as relay:
        monkeypatch.setenv(
            "AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(relay.airflow_connection(from_address="e@x.example"))
        )
        with DAG(dag_id="previewed_merge", schedule=None) as dag:
            task = merge(
                rows=str(rows),
                text="{{ row.id }} of {{ dag.dag_id }}",
                html="<p>{{ row.email }}</p>",
                attachments=str(rows),
                message_id="<{{ row.id }}@corp.example>",
            )
        previews = task.preview({"dag": dag})
        assert str(run_dag(dag).state) == "success"
        assert len(relay.messages) == len(previews) == 2
        for number, preview in previews.items():
            preview.write_eml(tmp_path / "mail.eml")
            assert without_date((tmp_path / "mail.eml").read_bytes()) == without_date(
                relay.messages[number - 1].content
            )


# --- An alert.


def test_an_alert_is_previewed_whatever_its_condition_is() -> None:
    """With the default page, and with words of its own."""
    context: Mapping[str, Any] = {
        "ti": SimpleNamespace(dag_id="d", task_id="t", run_id="r", state="failed", try_number=1, max_tries=0),
        "exception": ValueError("row 17 has no date"),
    }
    page = SendMailNotifier(to="a@corp.example", only_if=False).preview(context, manager=NOWHERE)
    assert "d.t" in page.subject
    assert "row 17 has no date" in (page.html or "")
    own = SendMailNotifier(to="a@corp.example", subject="{{ alert.name }} failed", text="{{ exception }}")
    mail = own.preview(context, manager=NOWHERE)
    assert (mail.subject, mail.text, mail.html) == ("d.t failed", "row 17 has no date", None)


def test_a_broken_template_shows_in_the_preview_of_an_alert() -> None:
    """As it would in the alert."""
    notifier = SendMailNotifier(to="a@corp.example", text="{{ no_such.thing }}")
    mail = notifier.preview({}, manager=NOWHERE)
    assert "The notifier's 'text' could not be rendered" in (mail.text or "")


# --- Template files of the connection.


@pytest.fixture
def with_files(tmp_path: Path) -> SmtpConnectionManager:
    """A connection with both."""
    subject, html = tmp_path / "subject.txt", tmp_path / "body.html"
    subject.write_text("Load of\n{{ ds }} & more\n")
    html.write_text("<p>{{ name }}</p>")
    return SmtpConnectionManager(
        host="mail.corp.example", from_address="etl@corp.example", subject_file=str(subject), html_file=str(html)
    )


def test_a_mail_without_subject_and_body_has_those_of_the_connection(with_files: SmtpConnectionManager) -> None:
    """The subject is one line, and values in HTML are escaped."""
    context: Any = {"ds": "2026-01-31", "name": "<Jane>"}
    mail = SendMailOperator(task_id="mail", to="a@corp.example").preview(context, manager=with_files)
    assert (mail.subject, mail.text, mail.html) == ("Load of 2026-01-31 & more", None, "<p>&lt;Jane&gt;</p>")
    alert = SendMailNotifier(to="a@corp.example").preview(context, manager=with_files)
    assert (alert.subject, alert.text, alert.html) == ("Load of 2026-01-31 & more", None, "<p>&lt;Jane&gt;</p>")


@pytest.mark.parametrize("make", [SendMailOperator, SendMailNotifier])
def test_what_the_task_says_itself_is_not_replaced(make: Any, with_files: SmtpConnectionManager) -> None:
    """Any body of its own is one."""
    task_id = {"task_id": "mail"} if make is SendMailOperator else {}
    own = make(**task_id, to="a@corp.example", subject="Own", text="Own.")
    mail = own.preview({}, manager=with_files)
    assert (mail.subject, mail.text, mail.html) == ("Own", "Own.", None)


def test_a_file_of_the_connection_that_is_missing_fails_a_task_and_never_an_alert(
    with_files: SmtpConnectionManager,
) -> None:
    """The alert says what is wrong."""
    Path(with_files.html_file or "").unlink()
    context: Any = {"ds": "2026-01-31"}
    with pytest.raises(MessageError, match="html_file: there is no file"):
        SendMailOperator(task_id="mail", to="a@corp.example").preview(context, manager=with_files)
    alert = SendMailNotifier(to="a@corp.example").preview(context, manager=with_files)
    assert "The connection's 'html_file' could not be rendered" in (alert.text or "")
