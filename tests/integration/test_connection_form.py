"""A person makes the connection in Airflow's real form, tests it there, and the scheduler delivers through it."""

from __future__ import annotations

import json
import os
import shutil
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_smtpcm.testing import Relay
from demo.airflow_stack import AirflowStack
from tests.integration.system_packages import skip_for_want_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs/images/connection-form.png"
LOGIN, PASSWORD = r"CORP\alice", "P@ssw0rd-Alice"


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    """It demands STARTTLS and Windows Authentication."""
    with Relay(users={LOGIN: PASSWORD}) as server:
        yield server


@pytest.fixture(scope="module")
def airflow() -> Iterator[AirflowStack]:
    """A real Airflow with the example DAGs and no connection yet."""
    if shutil.which("chromium") is None:
        skip_for_want_of("chromium")
    with AirflowStack(ROOT / "example_dags", config={"core.test_connection": "Enabled"}) as stack:
        stack.wait_until_healthy()
        yield stack


@pytest.fixture
def page(airflow: AirflowStack) -> Iterator[Page]:
    """The list of connections in a browser."""
    from tests.integration.browser import open_page

    with open_page(f"{airflow.url}/connections") as page:
        yield page


def add_connection(page: Page, conn_id: str, relay: Relay, password: str) -> None:
    """Fill the form for this relay and save it."""
    from tests.integration.browser import ConnectionForm

    form = ConnectionForm(page, conn_id)
    form.fill("SMTP server", "localhost")
    form.fill("Port", str(relay.port))
    form.fill("User name", LOGIN)
    form.fill("Password", password)
    form.open("Extra Fields")
    form.fill("CA certificate", relay.ca_certificate)
    for _ in range(2):  # the second look is a person's before Save
        form.choose("Authentication", "Windows Authentication")
        form.choose("SSL", "STARTTLS (SSIS: Enable SSL)")
    form.open("Advanced")
    form.fill("Timeout (seconds)", "10")
    form.save()


def test_the_connection_made_in_the_form_is_the_one_that_the_scheduler_delivers_by(
    page: Page, airflow: AirflowStack, relay: Relay
) -> None:
    """Filled, saved, tested with a good answer; then a DAG's mail arrives at the relay that it leads to."""
    from tests.integration.browser import press_test

    add_connection(page, "smtpcm_default", relay, PASSWORD)

    answer = press_test(page, "smtpcm_default")
    assert "Test Connection Successful" in answer
    assert "NTLM" in answer
    assert "TLSv1.3" in answer
    assert relay.messages == []  # a test sends nothing

    run_id = airflow.trigger("windows_authentication")
    state = airflow.wait_for_run("windows_authentication", run_id)

    assert state == "success", airflow.task_logs("windows_authentication", run_id)
    [mail] = relay.clear()
    assert mail.authenticated_as == LOGIN
    assert mail.mechanism == "NTLM"
    assert mail.tls_version == "TLSv1.3"
    assert run_id in mail.message["Subject"]


def test_the_form_saves_what_was_filled_in(page: Page, airflow: AirflowStack, relay: Relay) -> None:
    """Choices as their values, numbers as numbers, and nothing where nothing was filled in that SSIS could say."""
    add_connection(page, "what_is_saved", relay, PASSWORD)

    saved = page.request.get(f"{airflow.url}/api/v2/connections/what_is_saved").json()
    extra = json.loads(saved["extra"])
    assert (saved["host"], saved["port"], saved["login"]) == ("localhost", relay.port, LOGIN)
    assert saved["password"] == "***"
    assert extra["auth_mode"] == "windows"
    assert extra["ssl_mode"] == "starttls"
    assert extra["ca_certificate"].split() == relay.ca_certificate.split()
    assert extra["timeout"] == 10
    assert extra["ssis_properties"] is None


def test_a_wrong_password_is_told_by_the_test_with_its_remedy(page: Page, relay: Relay) -> None:
    """The server's own words, what to do, and never the password."""
    from tests.integration.browser import press_test

    add_connection(page, "wrong_password", relay, "wrong-Password-1")

    answer = press_test(page, "wrong_password")

    assert "Test Connection Failed" in answer
    assert "535 5.7.3" in answer
    assert "Check" in answer
    assert "wrong-Password-1" not in answer


if os.environ.get("SCREENSHOTS"):

    def test_the_readmes_picture_of_the_filled_form(airflow: AirflowStack, relay: Relay) -> None:
        """`make screenshots` writes it; it shows a company's server, not ours."""
        from tests.integration.browser import ConnectionForm, open_page

        with open_page(f"{airflow.url}/connections", height=2000) as page:
            form = ConnectionForm(page, "smtpcm_default")
            form.fill("Description", "Exchange, internal receive connector")
            form.fill("SMTP server", "exchange.corp.example")
            form.fill("Port", "587")
            form.fill("User name", r"CORP\svc-etl")
            form.fill("Password", "not-a-real-password")
            upper = form.picture(until="Extra Fields")
            form.open("Extra Fields")
            form.choose("Authentication", "Windows Authentication")
            form.choose("SSL", "STARTTLS (SSIS: Enable SSL)")
            form.fill("CA certificate", relay.ca_certificate)
            form.fill("From address", "ETL <etl@corp.example>")
            lower = form.picture(since="Extra Fields")
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        PICTURE.write_bytes(stacked(upper, lower))


def stacked(*pictures: bytes) -> bytes:
    """PNGs one above the other: the form shows one section at a time, and a reader wants to see both."""
    from tests.integration.browser import open_page

    images = "".join(
        f'<img style="display: block" src="data:image/png;base64,{b64encode(png).decode()}">' for png in pictures
    )
    with open_page("about:blank", height=2000) as page:
        page.set_content(f'<div style="position: absolute; top: 0; left: 0">{images}</div>')
        return page.locator("div").screenshot()
