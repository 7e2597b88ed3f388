"""Attachments and bodies from the worker, from object storage and from memory, in every operator and in alerts."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, ObjectStoragePath, task

from airflow_provider_smtpcm.mail import Attachment, FilePattern
from airflow_provider_smtpcm.notifications.send_mail import SendMailNotifier
from airflow_provider_smtpcm.operators._task import AirflowFailException
from airflow_provider_smtpcm.operators.send_mail import SendMailOperator
from airflow_provider_smtpcm.testing import Relay
from tests.notifications.shapes import raised, task_failed
from tests.operators.merges import merge
from tests.operators.tasks import context

RunDag = Callable[[DAG], Any]
PAGE = "<p>{{ 7 * 7 }} &auml; ä</p>\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files, which are also objects of Airflow's storage."""
    for name in ("b.csv", "a.csv", "c.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "page.html").write_text(PAGE, encoding="utf-8")
    return tmp_path


def attached(mail: Any) -> list[tuple[str, bytes]]:
    """The attachments of a mail."""
    return [(part.get_filename(), part.get_payload(decode=True)) for part in mail.message.iter_attachments()]


def html(mail: Any) -> str:
    """The HTML body of a mail."""
    body = mail.message.get_body(("html",))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")


FILES: list[Callable[[Path], Any]] = [
    lambda folder: f"{folder}/?.csv",
    lambda folder: [f"{folder}/a.csv", f"{folder}/b.*"],
    lambda folder: f"file://{folder}/*.csv",
    lambda folder: f"file://{folder}/a.csv|file://{folder}/b.csv",
    lambda folder: [ObjectStoragePath(f"file://{folder}/a.csv"), Attachment(f"file://{folder}/b.csv")],
    lambda folder: {"a.csv": b"a.csv", "b.csv": folder / "b.csv"},
    lambda folder: {"a.csv": io.BytesIO(b"a.csv"), "b.csv": Attachment(f"file://{folder}/b.csv")},
    lambda folder: FilePattern(folder / "*.csv"),
]


@pytest.mark.parametrize("files", FILES)
@pytest.mark.parametrize("face", ["operator", "merge", "notifier"])
def test_files_come_from_anywhere(
    files: Callable[[Path], Any], face: str, folder: Path, relay: Relay, run_dag: RunDag
) -> None:
    """In the order in which they are written, those of a pattern by name."""
    given = files(folder)
    if face == "notifier":
        SendMailNotifier(to="a@corp.example", from_address="etl@corp.example", attachments=given, retry_for=0)(
            task_failed(raised(ValueError("x")))
        )
    else:
        with DAG(f"files_{face}", schedule=None) as dag:
            if face == "merge":
                merge(rows=[{"email": "a@corp.example", "name": "x"}], attachments=given)
            else:
                SendMailOperator(task_id="s", from_address="e@corp.example", to="a@corp.example", attachments=given)
        assert str(run_dag(dag).state) == "success"
    (mail,) = relay.messages
    assert attached(mail) == [("a.csv", b"a.csv"), ("b.csv", b"b.csv")]


def test_a_value_opens_no_url_and_matches_no_files(folder: Path, relay: Relay, run_dag: RunDag) -> None:
    """Of another task, of a row, of a template, of a function: it is a path on the worker, which does not exist."""

    @task
    def url() -> str:
        return f"file://{folder}/a.csv"

    @task
    def patterns() -> list[str]:
        return [f"{folder}/*.csv"]

    mail = {"from_address": "e@corp.example", "to": "a@corp.example"}
    with DAG("values", schedule=None, params={"url": f"file://{folder}/a.csv"}) as dag:
        SendMailOperator(task_id="output", attachments=url(), **mail)
        SendMailOperator(task_id="item", attachments=[url()], **mail)
        SendMailOperator(task_id="list", attachments=patterns(), **mail)
        SendMailOperator(task_id="param", attachments="{{ params.url }}", **mail)
        SendMailOperator(task_id="both", attachments=f"{{{{ params.url }}}}|{folder}/a.csv", **mail)
        merge(task_id="row", rows=[{"email": "a@x.example", "name": f"{folder}/*.csv"}], attachments="{{ row.name }}")

        @task.send_mail(**mail)
        def function() -> dict[str, object]:
            return {"text": "x", "attachments": f"file://{folder}/a.csv"}

        function()
    run = run_dag(dag)
    assert {instance.task_id for instance in run.get_task_instances() if instance.state == "failed"} == {
        "output",
        "item",
        "list",
        "param",
        "both",
        "row",
        "function",
    }
    assert not relay.messages


def test_a_value_fills_in_a_part_of_a_url_or_pattern(folder: Path, relay: Relay, run_dag: RunDag) -> None:
    """Of each row, too."""
    rows = [{"email": f"{name}@corp.example", "name": name} for name in ("a", "b")]
    with DAG("parts", schedule=None) as dag:
        merge(task_id="url", rows=rows, attachments=f"file://{folder}/{{{{ row.name }}}}.csv")
        merge(task_id="pattern", rows=rows, attachments=[f"{folder}/{{{{ row.name }}}}.*", f"{folder}/c.txt"])
    assert str(run_dag(dag).state) == "success"
    assert sorted(tuple(name for name, _ in attached(mail)) for mail in relay.messages) == [
        ("a.csv",),
        ("a.csv", "c.txt"),
        ("b.csv",),
        ("b.csv", "c.txt"),
    ]


def test_no_match_fails_the_task_unless_that_is_meant(folder: Path, relay: Relay, run_dag: RunDag) -> None:
    """The error says how to mean it."""
    mail = {"from_address": "e@corp.example", "to": "a@corp.example"}
    with DAG("none", schedule=None) as dag:
        SendMailOperator(task_id="error", attachments=f"{folder}/*.pdf", **mail)
        SendMailOperator(task_id="meant", attachments=FilePattern(f"{folder}/{{{{ ts }}}}*", required=False), **mail)
    run_dag(dag)
    assert len(relay.messages) == 1
    with pytest.raises(AirflowFailException, match="required=False"):
        SendMailOperator(task_id="send", attachments=FilePattern(folder / "*.pdf"), **mail).execute(context())


@pytest.mark.parametrize("separator", [";", "; ", ", ", ","])
def test_another_separator_between_attachments_is_an_error_that_says_which(separator: str, folder: Path) -> None:
    """SSIS's addresses have a semicolon, its attachments a bar."""
    from airflow_provider_smtpcm.errors import MessageError
    from airflow_provider_smtpcm.mail.attachment import parse_attachments

    (attachment,) = parse_attachments(f"{folder}/a.csv{separator}{folder}/b.csv")
    with pytest.raises(MessageError, match=r"put '\|' between"):
        attachment.size()
    odd = folder / "x; y.csv"
    odd.write_text("x")
    assert [one.size() for one in parse_attachments(str(odd))] == [1]


@pytest.mark.parametrize("face", ["operator", "merge", "notifier"])
@pytest.mark.parametrize("kind", ["Path", "object storage"])
def test_a_body_as_a_path_object_is_sent_as_it_is(
    face: str, kind: str, folder: Path, relay: Relay, run_dag: RunDag
) -> None:
    """No template is rendered in it, and nothing is escaped."""
    path: Any = folder / "page.html" if kind == "Path" else ObjectStoragePath(f"file://{folder}/page.html")
    if face == "notifier":
        SendMailNotifier(to="a@corp.example", from_address="etl@corp.example", html=path, retry_for=0)(
            task_failed(raised(ValueError("x")))
        )
    else:
        with DAG(f"body_{face}", schedule=None) as dag:
            if face == "merge":
                merge(rows=[{"email": "a@corp.example", "name": "x"}], html=path, text="{{ row.name }}")
            else:
                SendMailOperator(task_id="s", from_address="e@corp.example", to="a@corp.example", html=path)
        assert str(run_dag(dag).state) == "success"
    (mail,) = relay.messages
    assert html(mail) == PAGE


@pytest.mark.parametrize("face", ["operator", "merge", "notifier"])
def test_a_body_file_in_object_storage_is_a_template(face: str, folder: Path, relay: Relay, run_dag: RunDag) -> None:
    """As on the worker; its URL may have templates too."""
    url = f"file://{folder}/{{{{ 'page' }}}}.html"
    if face == "notifier":
        SendMailNotifier(to="a@corp.example", from_address="etl@corp.example", html_file=url, retry_for=0)(
            task_failed(raised(ValueError("x")))
        )
    else:
        with DAG(f"file_{face}", schedule=None) as dag:
            if face == "merge":
                merge(rows=[{"email": "a@corp.example", "name": "x"}], html_file=url)
            else:
                SendMailOperator(task_id="s", from_address="e@corp.example", to="a@corp.example", html_file=url)
        assert str(run_dag(dag).state) == "success"
    (mail,) = relay.messages
    assert html(mail).rstrip() == "<p>49 &auml; ä</p>"


def test_a_body_that_is_missing_or_in_another_encoding_is_an_error(folder: Path, relay: Relay) -> None:
    """It names the file."""
    mail = {"task_id": "send", "from_address": "e@corp.example", "to": "a@corp.example"}
    (folder / "latin.html").write_bytes(b"\xe4")
    for path in (folder / "none.html", folder / "latin.html", ObjectStoragePath(f"file://{folder}/none.html")):
        with pytest.raises(AirflowFailException, match=path.name):
            SendMailOperator(html=path, **mail).execute(context())
    SendMailOperator(html=folder / "latin.html", encoding="latin-1", **mail).execute(context())
    assert [html(mail).rstrip() for mail in relay.messages] == ["ä"]


def test_an_open_file_is_the_same_in_every_mail(relay: Relay) -> None:
    """A preview, a mapped task or another alert of the same process leaves it at where it was."""
    file = io.BytesIO(b"header;a.csv")
    file.seek(7)
    task_with_file = SendMailOperator(
        task_id="send", from_address="etl@corp.example", to="a@corp.example", attachments={"a.csv": file}
    )
    task_with_file.preview(context())
    task_with_file.execute(context())
    (mail,) = relay.messages
    assert attached(mail) == [("a.csv", b"a.csv")]


def test_a_mapping_may_have_contents_beside_the_files_of_each_row(folder: Path, relay: Relay) -> None:
    """The names of contents are the keys."""
    rows = [{"id": str(number), "email": f"{number}@corp.example", "name": name} for number, name in enumerate("ab")]
    files = {"terms.txt": b"terms", "open.txt": io.BytesIO(b"open"), "own.csv": f"{folder}/{{{{ row.name }}}}.csv"}
    merge(rows=rows, attachments=files).execute(context())
    assert sorted(attached(mail) for mail in relay.messages) == [
        [("terms.txt", b"terms"), ("open.txt", b"open"), ("own.csv", name)] for name in (b"a.csv", b"b.csv")
    ]
