"""A task's fields in the UI: as they were sent, complete enough to be read, and never a reason to fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, ObjectStoragePath, task

from airflow_provider_smtpcm.mail import Address, Attachment, Mail, Priority
from airflow_provider_smtpcm.operators.mail_merge import MailMergeOperator
from airflow_provider_smtpcm.operators.send_mail import SendMailOperator
from airflow_provider_smtpcm.operators.sql_to_mail import SqlToMailOperator
from airflow_provider_smtpcm.testing import Relay
from tests.operators.merges import merge

RunDag = Callable[[DAG], Any]
# Airflow's limit is 4096; some versions cut first and escape afterward.
SHOWN = 5000
LEAST = {"task_id": "send", "from_address": "etl@corp.example", "to": "a@corp.example", "retry_for": 0}


def rendered(run: Any) -> dict[str, Any]:
    """The fields of its one task, as Airflow's database has them for the UI."""
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.utils.session import create_session

    assert str(run.state) == "success"
    with create_session() as session:
        (row,) = session.query(RenderedTaskInstanceFields).filter_by(dag_id=run.dag_id, run_id=run.run_id)
        return dict(row.rendered_fields)


@pytest.mark.parametrize("operator", [SendMailOperator, MailMergeOperator, SqlToMailOperator])
def test_only_fields_that_exist_have_a_way_to_be_shown(operator: Any) -> None:
    """And only ways that Airflow knows."""
    assert set(operator.template_fields_renderers) <= set(operator.template_fields)
    assert set(operator.template_fields_renderers.values()) <= {"text", "html", "json", "sql"}


def test_objects_in_fields_are_shown_by_what_names_them(relay: Relay, run_dag: RunDag, tmp_path: Path) -> None:
    """Not by their octets, nor by where they are in memory."""
    path = tmp_path / "report.csv"
    path.write_text("a,b\n")
    with DAG("objects", schedule=None) as dag:
        SendMailOperator(
            **{**LEAST, "to": [Address(display_name="Jane", local_part="jane", domain="corp.example")]},
            html="<img src='cid:logo'>",
            inline_images={"logo": Attachment(content=b"secret octets", name="logo.png")},
            attachments=[path, ObjectStoragePath(f"file://{path}"), Attachment(path, name="other.csv")],
            priority=Priority.HIGH,
            headers={"X-Number": 17},  # type: ignore[dict-item]
        )
    fields = rendered(run_dag(dag))
    assert "Jane" in str(fields["to"])
    assert str(path) in str(fields["attachments"])
    assert "name='other.csv'" in str(fields["attachments"])
    assert "name='logo.png'" in str(fields["inline_images"])
    assert fields["priority"] == "high"
    assert fields["headers"] == {"X-Number": 17}
    assert "secret octets" not in str(fields)
    assert " at 0x" not in str(fields)


@pytest.mark.parametrize("returned", ["str", "Mail"])
def test_a_decorated_task_shows_what_its_function_returned(returned: str, relay: Relay, run_dag: RunDag) -> None:
    """Before it was called there was nothing to show."""
    mail = Mail(to="b@corp.example", cc="c@corp.example", html="<p>{{ 1 }}</p>\n", headers={"X-A": "1"})
    with DAG(f"shows_{returned}", schedule=None) as dag:

        @task.send_mail(from_address="etl@corp.example", to="a@corp.example" if returned == "str" else None)
        def report() -> Any:
            return "Two\nlines & {{ 1 }}" if returned == "str" else mail

        report()
    fields = rendered(run_dag(dag))
    shown = {name: value for name, value in fields.items() if value and name not in ("smtpcm_conn_id", "priority")}
    if returned == "str":
        assert shown == {"from_address": "etl@corp.example", "to": "a@corp.example", "text": "Two\nlines & {{ 1 }}"}
    else:
        assert set(shown) == {"from_address", "to", "cc", "html", "headers"}
        assert shown["html"] == "<p>{{ 1 }}</p>\n"
        assert "X-A" in str(shown["headers"])


def test_a_body_of_any_size_is_sent_whole_and_shown_cut(relay: Relay, run_dag: RunDag) -> None:
    """Airflow's own limit, [core] max_templated_field_length."""
    with DAG("huge", schedule=None) as dag:
        SendMailOperator(**LEAST, text="{{ 'x' * 60 }}\n" * 40_000)
    fields = rendered(run_dag(dag))
    assert fields["text"].startswith("Truncated.")
    assert len(fields["text"]) < SHOWN
    assert len(relay.messages[0].message.get_content()) >= 61 * 40_000


def test_a_merge_shows_its_templates_and_as_many_rows_as_airflow_keeps(relay: Relay, run_dag: RunDag) -> None:
    """The rows themselves are in the report."""
    rows = [{"email": f"{number}@corp.example", "name": "x" * 100} for number in range(100)]
    with DAG("merge_shown", schedule=None) as dag:
        merge(rows=rows, html="<p>{{ row.name }}</p>", attachments=[Attachment(content=b"x", name="a.txt")])
    fields = rendered(run_dag(dag))
    assert fields["html"] == "<p>{{ row.name }}</p>"
    assert "name='a.txt'" in str(fields["attachments"])
    assert len(str(fields["rows"])) < SHOWN
    assert len(relay.messages) == 100
