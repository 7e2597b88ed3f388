"""Lineage: the files that a task read and wrote are reported if anything collects them, and no mail fails for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, AssetAlias, ObjectStoragePath

from airflow_provider_smtpcm.mail import Attachment
from airflow_provider_smtpcm.operators import _lineage as lineage
from airflow_provider_smtpcm.operators._task import AirflowFailException
from airflow_provider_smtpcm.operators.send_mail import SendMailOperator
from airflow_provider_smtpcm.testing import Relay
from tests.operators.merges import merge
from tests.operators.tasks import context

try:
    from airflow.sdk import lineage as airflow_lineage
except ImportError:  # Airflow 3.1
    from airflow.lineage import hook as airflow_lineage  # type: ignore[attr-defined,no-redef]

RunDag = Callable[[DAG], Any]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Airflow's own collector, as it is where a plugin reads lineage."""
    collector = airflow_lineage.HookLineageCollector()
    monkeypatch.setattr(airflow_lineage, "get_hook_lineage_collector", lambda: collector)
    return collector


@pytest.fixture
def report(tmp_path: Path) -> str:
    """A file to be attached."""
    path = tmp_path / "report.csv"
    path.write_text("a,b\n")
    return str(path)


def send(**fields: Any) -> SendMailOperator:
    """A task with the least that a mail needs."""
    least = {"task_id": "send", "from_address": "etl@corp.example", "to": "a@corp.example", "retry_for": 0}
    return SendMailOperator(**{**least, **fields})


def read(collector: Any) -> list[str]:
    """What was read: each file as many times as it was reported, by anyone."""
    return [told.asset.uri for told in collector.collected_assets.inputs]


def written(collector: Any) -> list[str]:
    """What was written."""
    return [told.asset.uri for told in collector.collected_assets.outputs]


# --- What goes wrong with it.


@pytest.mark.parametrize("broken", ["get_hook_lineage_collector", "add_input_asset"])
def test_a_collector_that_fails_is_a_warning_and_the_mail_is_out(
    broken: str,
    relay: Relay,
    collector: Any,
    report: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Another attempt would send it again."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("lineage is away")

    monkeypatch.setattr(collector if broken == "add_input_asset" else airflow_lineage, broken, fail)
    assert send(attachments=report).execute(context())["outcome"] == "accepted"
    assert "The lineage of this task is incomplete: RuntimeError: lineage is away" in caplog.text
    assert len(relay.messages) == 1


def test_an_outlet_whose_event_cannot_be_told_of_is_a_warning(relay: Relay, caplog: pytest.LogCaptureFixture) -> None:
    """The context of a test has no events."""
    assert send(outlets=[Asset("sent")]).execute(context())["outcome"] == "accepted"
    assert "The result of the task could not be added to the event of" in caplog.text
    assert len(relay.messages) == 1


def test_a_file_that_went_to_nobody_is_not_told(relay: Relay, collector: Any, report: str) -> None:
    """A server that refuses all recipients gets nothing of it."""
    with pytest.raises(AirflowFailException):
        send(to="bad@corp.example", attachments=report).execute(context())
    assert relay.messages == []
    assert read(collector) == []


def test_a_path_that_no_uri_can_name_is_left_out(collector: Any) -> None:
    """An object that opens itself and does not say where it is."""
    told = lineage.Lineage(SimpleNamespace())  # type: ignore[arg-type]
    told.add_input(SimpleNamespace(open=None))
    assert read(collector) == []


def test_what_stands_before_the_host_of_a_url_is_not_told(collector: Any) -> None:
    """It names an Airflow connection, or is a secret; the file is the same without."""
    told = lineage.Lineage(SimpleNamespace())  # type: ignore[arg-type]
    told.add_input("s3://aws_default@bucket/a@b.csv")
    told.add_input("s3://key:secret@bucket/a@b.csv")
    assert read(collector) == ["s3://bucket/a@b.csv"]


def test_a_task_of_many_files_tells_of_some_and_remembers_no_more(collector: Any) -> None:
    """Memory does not grow with the number of rows."""
    told = lineage.Lineage(SimpleNamespace())  # type: ignore[arg-type]
    for number in range(lineage.MAX_FILES + 10):
        told.add_input(f"/srv/{number}.pdf")
    assert len(told._reported) == lineage.MAX_FILES
    assert len(read(collector)) == airflow_lineage.MAX_COLLECTED_ASSETS


# --- If nothing reads it.


def test_where_nobody_reads_lineage_nothing_is_told(relay: Relay, report: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's own stand-in ignores reports, and gets none."""
    told: list[object] = []
    monkeypatch.setattr(
        airflow_lineage.NoOpCollector, "add_input_asset", lambda *_, **given: told.append(given), raising=True
    )
    assert send(attachments=report).execute(context())["outcome"] == "accepted"
    assert told == []


def test_a_mail_without_files_does_not_even_ask_who_reads_lineage(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking loads Airflow's plugins."""
    monkeypatch.setattr(airflow_lineage, "get_hook_lineage_collector", lambda: pytest.fail("asked"))
    assert send(text="x").execute(context())["outcome"] == "accepted"


# --- If something reads it.


def test_files_that_were_sent_are_read(relay: Relay, collector: Any, report: str, tmp_path: Path) -> None:
    """Attachments and inline images, by absolute path; octets from memory are no file."""
    logo = tmp_path / "Logo #1?.png"
    logo.write_bytes(b"x")
    send(
        html="<img src='cid:logo'>",
        inline_images={"logo": str(logo)},
        attachments=[
            str(tmp_path / "." / ".." / tmp_path.name / "report.csv"),
            Attachment(report, name="again.csv"),
            Attachment(content=b"x", name="x"),
        ],
    ).execute(context())
    assert read(collector) == [f"file://{report}", f"file://{tmp_path}/Logo %231%3F.png"]
    assert written(collector) == []


def test_a_path_that_reports_itself_is_told_once(relay: Relay, collector: Any, report: str) -> None:
    """An ObjectStoragePath does, when it is read."""
    send(attachments=[ObjectStoragePath(f"file://{report}")]).execute(context())
    assert read(collector) == [f"file://{report}"]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_merge_has_read_its_rows_and_what_it_sent_and_has_written_its_report(
    scheme: str, relay: Relay, collector: Any, report: str, tmp_path: Path
) -> None:
    """A row without a mail has read nothing; the shared file is reported once."""
    (tmp_path / "rows.csv").write_text("email,file\na@corp.example,a\nnobody,b\nc@corp.example,c\n")
    for name in "abc":
        (tmp_path / f"{name}.pdf").write_text("x")
    merge(
        rows=f"{scheme}{tmp_path}/rows.csv",
        subject="S",
        attachments=[report, f"{tmp_path}/{{{{ row.file }}}}.pdf"],
        report_file=f"{scheme}{tmp_path}/out.jsonl",
        on_error="continue",
    ).execute(context())
    names = ["rows.csv", "report.csv", "a.pdf", "c.pdf"]
    assert read(collector) == [f"file://{tmp_path}/{name}" for name in names]
    assert written(collector) == [f"file://{tmp_path}/out.jsonl"]


def test_the_events_of_a_task_s_assets_tell_of_the_mail(relay: Relay, run_dag: RunDag) -> None:
    """Not who got it; what the DAG itself has put there stays."""
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session

    def mine(context: Any, result: object) -> None:
        context["outlet_events"][Asset("merged")].extra["mine"] = 1

    with DAG("outlets", schedule=None) as dag:
        send(outlets=[Asset("sent"), AssetAlias("alias")])
        merge(task_id="merge", outlets=[Asset("merged")], post_execute=mine)
    assert str(run_dag(dag).state) == "success"
    with create_session() as session:
        events = {
            event.source_task_id: event.extra for event in session.query(AssetEvent).filter_by(source_dag_id="outlets")
        }
    message_id = next(m for m in relay.messages if m.recipients == ("a@corp.example",)).message["Message-ID"]
    assert events["send"] == {"message_id": message_id, "outcome": "accepted", "accepted": 1, "refused": 0}
    assert events["merge"]["mine"] == 1
    assert events["merge"]["counts"]["accepted"] == 3
