"""The templates for `[email] subject_template` and `html_content_template`, which Airflow renders."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import jinja2
import pytest
from airflow import __version__
from airflow.sdk import DAG, task

from airflow_provider_smtpcm import notifications
from airflow_provider_smtpcm.testing import Relay
from tests.notifications.shapes import BASE, RUN_ID, raised, task_failed, task_killed, task_retried
from tests.notifications.test_html_page import Reader, in_order

FOLDER = Path(notifications.__path__[0]) / "templates"
VERSION = tuple(int(part) for part in __version__.split(".")[:3] if part.isdigit())
#: Airflow 3.2.0 to 3.3.0 send these mails through their own SMTP provider.
IS_HONOURED = VERSION < (3, 2) or VERSION >= (3, 3, 1)


def render(context: dict[str, Any], **environment: Any) -> tuple[str, str]:
    """Render subject and HTML as Airflow does, with what it adds to the context."""
    exception, ti = context.get("exception"), context["ti"]
    variables = {**context, "exception": exception, "try_number": ti.try_number, "max_tries": ti.max_tries}
    jinja = jinja2.Environment(**environment)  # noqa: S701 - as Airflow has it
    subject, html = (
        jinja.from_string((FOLDER / name).read_text(encoding="ascii")).render(variables)
        for name in ("email_subject.txt", "email.html")
    )
    return subject, html


@pytest.mark.parametrize("environment", [{}, {"autoescape": True}, {"undefined": jinja2.StrictUndefined}], ids=str)
@pytest.mark.parametrize(
    ("context", "subject"),
    [
        (
            task_failed(raised(ValueError("<b> & 'x'\nline 2"))),
            "[Airflow] Failed: warehouse_load.load_orders [3], try 2 of 2 - ValueError: <b> & 'x' line 2",
        ),
        (
            task_retried(raised(ValueError("<b> & 'x'\nline 2"))),
            "[Airflow] Will retry: warehouse_load.load_orders [3], try 1 of 4 - ValueError: <b> & 'x' line 2",
        ),
        (task_failed("killed"), "[Airflow] Failed: warehouse_load.load_orders [3], try 2 of 2 - killed"),  # type: ignore[arg-type]
        (task_killed(), "[Airflow] Failed: warehouse_load.load_orders, try 2 of 2"),
    ],
    ids=["failure", "retry", "text", "killed"],
)
def test_they_say_what_failed_why_and_where_the_log_is(
    context: dict[str, Any], subject: str, environment: dict[str, Any]
) -> None:
    """Whatever is missing in the context, and however the DAG has its templates rendered."""
    made, html = render(context, **environment)
    reader = Reader(html)
    if "autoescape" not in environment:  # a subject is no HTML
        assert made == subject
    assert reader.open == reader.outside == []
    assert in_order(reader.text, "warehouse_load.load_orders", "Open the log", "The whole run", RUN_ID)
    assert "<b>" not in html.replace("<b>none</b>", "")
    if "ValueError" in subject:
        assert in_order(reader.text, "ValueError: <b> & 'x' line 2", "Open the log", "2026-11-25 01:02:00 UTC")
    assert reader.links == [
        context["ti"].log_url,
        f"{BASE}/dags/warehouse_load/runs/scheduled__2026-11-24T22%3A00%3A00%2B00%3A00",
    ]


def test_a_long_message_is_shortened_at_the_top_and_whole_further_down() -> None:
    """As on the notifier's page; a template of Airflow's has no end of it."""
    words = " ".join(f"<word{number}>" for number in range(100))
    _, html = render(task_failed(raised(ValueError(words))))
    assert in_order(Reader(html).text, "<word20>", "...", "Open the log", "The whole message", "<word99>")
    assert "<word99>" not in Reader(html).text.partition("Open the log")[0]
    subject, html = render(task_failed(raised(ValueError("line\n" * 1_000_000))))
    assert len(subject) < 300
    assert len(html) < 20_000


def test_they_have_the_look_of_the_notifier_s_page() -> None:
    """Every rule that both have is the same."""
    page, mail = ((FOLDER / name).read_text(encoding="utf-8") for name in ("alert.html", "email.html"))
    rules = [line for line in mail.partition("<style>")[2].rpartition("</style>")[0].splitlines() if line.strip()]
    rules = [line for line in rules if not line.startswith("  .label, .foot")]
    assert [rule for rule in rules if rule not in page] == []


def test_airflow_sends_them(relay: Relay, run_dag: Callable[[DAG], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the two lines of configuration of the documents."""
    monkeypatch.setenv("AIRFLOW__EMAIL__EMAIL_BACKEND", "airflow_provider_smtpcm.email_backend.send_email")
    monkeypatch.setenv("AIRFLOW__EMAIL__EMAIL_CONN_ID", "smtpcm_default")
    monkeypatch.setenv("AIRFLOW__EMAIL__SUBJECT_TEMPLATE", str(FOLDER / "email_subject.txt"))
    monkeypatch.setenv("AIRFLOW__EMAIL__HTML_CONTENT_TEMPLATE", str(FOLDER / "email.html"))
    with DAG("email_templates", schedule=None) as dag:

        @task(email=["oncall@corp.example"], email_on_failure=True, retries=1, retry_delay=timedelta(0))
        def load() -> None:
            raise ValueError("no such column <x>")

        load()

    run_dag(dag)
    if not IS_HONOURED:
        assert relay.messages == []
        return
    retried, failed = relay.messages
    assert retried.message["Subject"] == (
        "[Airflow] Will retry: email_templates.load, try 1 of 2 - ValueError: no such column <x>"
    )
    assert (
        failed.message["Subject"]
        == "[Airflow] Failed: email_templates.load, try 2 of 2 - ValueError: no such column <x>"
    )
    body = failed.message.get_body(("html",))
    assert body is not None
    reader = Reader(body.get_content())
    assert in_order(reader.text, "Task failed", "ValueError: no such column <x>", "Open the log", "2 of 2")
