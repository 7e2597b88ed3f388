"""*Rendered Templates* in Airflow's real UI shows the mail as it was sent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_smtpcm.testing import Relay
from demo.airflow_stack import AirflowStack
from tests.integration.system_packages import skip_for_want_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.slow, pytest.mark.every_airflow]

TEXT = "Dear Jane & Søn,\n\n  five < six\n\nYours"
HTML = '<h1>Sales &amp; Söhne</h1>\n<p class="note">five &lt; six</p>\n<img src="cid:logo">'
DAG_ID, RUNS = "shown", 3
DAG = f"""
from airflow.sdk import DAG, task
from airflow_provider_smtpcm.mail import Attachment
from airflow_provider_smtpcm.operators.mail_merge import MailMergeOperator
from airflow_provider_smtpcm.operators.send_mail import SendMailOperator

with DAG("{DAG_ID}", schedule=None, default_args={{"from_address": "etl@corp.example"}}):
    SendMailOperator(
        task_id="operator",
        to="{{{{ dag.dag_id }}}}@corp.example",
        text={TEXT!r},
        html={HTML!r},
        inline_images={{"logo": Attachment(content=b"octets", name="logo.png")}},
        headers={{"X-Run": "{{{{ task.task_id }}}}", "X-Tag": "1"}},
    )

    @task.send_mail(to="jane@corp.example")
    def decorated():
        return {TEXT!r}

    decorated()

    MailMergeOperator(
        task_id="merge",
        rows=[{{"email": "a@corp.example", "name": "Jane"}}],
        to="{{{{ row.email }}}}",
        html="<p>Dear {{{{ row.name }}}},</p>\\n<p>Hello.</p>",
    )
"""


@pytest.fixture(scope="module")
def run(airflow_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a run that has sent its mails, in a real Airflow."""
    if shutil.which("chromium") is None:
        skip_for_want_of("chromium")
    dags: Path = tmp_path_factory.mktemp("dags")
    (dags / "shown.py").write_text(DAG)
    with Relay(ssl_mode="none") as relay, AirflowStack(dags, database=airflow_tables) as airflow:
        airflow.cli("connections", "add", "smtpcm_default", "--conn-json", json.dumps(relay.airflow_connection()))
        airflow.wait_until_healthy()
        run_id = airflow.trigger(DAG_ID)
        assert airflow.wait_for_run(DAG_ID, run_id) == "success", airflow.task_logs(DAG_ID, run_id)
        assert len(relay.messages) == RUNS
        yield f"{airflow.url}/dags/{DAG_ID}/runs/{run_id}"


def shown(page: Page) -> dict[str, str]:
    """Return the text beside the name of each field, without line numbers."""
    page.locator("tr", has_text="smtpcm_conn_id").wait_for()
    return dict(
        page.locator("tbody tr").evaluate_all(
            """rows => rows.map(row => {
                const code = row.querySelector('code').cloneNode(true)
                code.querySelectorAll('.linenumber').forEach(number => number.remove())
                return [row.cells[0].innerText, code.textContent]
            })"""
        )
    )


@pytest.fixture
def fields(run: str, request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Return the fields of a task."""
    from tests.integration.browser import open_page

    with open_page(f"{run}/tasks/{request.param}/rendered_templates") as page:
        yield shown(page)


@pytest.mark.parametrize("fields", ["operator"], indirect=True)
def test_text_and_html_are_shown_as_their_author_wrote_them(fields: dict[str, str]) -> None:
    """Line by line, escaped once for the page, with rendered templates."""
    assert fields["text"] == TEXT
    assert fields["html"] == HTML
    assert fields["to"] == "shown@corp.example"
    assert json.loads(fields["headers"]) == {"X-Run": "operator", "X-Tag": "1"}
    assert "name='logo.png'" in fields["inline_images"]  # as JSON, or in Airflow 3.1 as Python writes it
    assert "octets" not in fields["inline_images"].replace("octet-stream", "")


@pytest.mark.parametrize("fields", ["decorated"], indirect=True)
def test_what_a_function_returned_is_shown_as_it_was_sent(fields: dict[str, str]) -> None:
    """It was not known before the task ran."""
    assert fields["text"] == TEXT
    assert fields["to"] == "jane@corp.example"


@pytest.mark.parametrize("fields", ["merge"], indirect=True)
def test_a_merge_shows_its_templates_over_rows(fields: dict[str, str]) -> None:
    """And its rows."""
    assert fields["html"] == "<p>Dear {{ row.name }},</p>\n<p>Hello.</p>"
    assert fields["to"] == "{{ row.email }}"
    assert "a@corp.example" in fields["rows"]
