"""*Test* in Airflow's list of connections: its answers in the browser; and no saved password is visible anywhere."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.connection_form.faults import FAULTS, LOGIN, PASSWORD, WRONG_PASSWORD, Servers
from tests.integration.programs import KERBEROS_COMMAND
from tests.smtp.dialogue import Dialogue

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from demo.airflow_stack import AirflowStack

pytestmark = [pytest.mark.slow, pytest.mark.every_airflow]

TRIES = 5
OFFERS_KERBEROS = "S: 220 ready\nC: EHLO *\nS: 250-localhost\nS: 250 AUTH GSSAPI NTLM\nHANG"


def make(page: Page, airflow: AirflowStack, conn_id: str, connection: dict[str, Any]) -> None:
    """Make a connection by the API, as the form does, and show it in the list."""
    answer = page.request.post(f"{airflow.url}/api/v2/connections", data={"connection_id": conn_id, **connection})
    assert answer.ok, answer.text()
    page.reload()


def fill_form(page: Page, conn_id: str, servers: Servers) -> None:
    """Fill in the form for the server that requires Windows Authentication, and save it."""
    from tests.integration.browser import ConnectionForm

    form = ConnectionForm.add(page, conn_id)
    form.fill("SMTP server", "localhost")
    form.fill("Port", str(servers.windows.port))
    form.fill("User name", LOGIN)
    form.fill("Password", PASSWORD)
    form.open("Extra Fields")
    form.fill("CA certificate", servers.windows.ca_certificate)
    for _ in range(2):  # the second look is a person's before Save
        form.choose("Authentication", "Windows Authentication")
        form.choose("SSL", "STARTTLS (SSIS: Enable SSL)")
    form.save()


# --- What does not work.


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_shown_with_its_remedy(fault: str, page: Page, airflow: AirflowStack, servers: Servers) -> None:
    """On one line, completely, within the window, and without the password."""
    from tests.integration.browser import answer_of_test

    conn_id = fault.replace(" ", "_")
    make(page, airflow, conn_id, FAULTS[fault].connection(servers))

    answer = answer_of_test(page, conn_id)

    title, *lines = answer.inner_text().splitlines()
    assert title == "Test Connection Failed"
    [text] = [line for line in lines if line]
    for words in FAULTS[fault].said:
        assert words in text
    assert PASSWORD not in text
    assert WRONG_PASSWORD not in text
    page.wait_for_timeout(700)  # it slides in
    box, window = answer.bounding_box(), page.viewport_size
    assert box is not None
    assert window is not None
    assert box["x"] >= 0 <= box["y"]
    assert box["x"] + box["width"] <= window["width"]
    assert box["y"] + box["height"] <= window["height"]
    assert answer.locator("[data-part=description]").evaluate("box => box.scrollHeight <= box.clientHeight + 1")


def test_a_silent_kdc_does_not_block_airflow(page: Page, airflow: AirflowStack) -> None:
    """Kerberos's library has no deadline: while it waits, Airflow serves its other users."""
    from playwright.sync_api import expect

    if missing := ", ".join(name for name in ("gssapi", "krb5") if find_spec(name) is None):
        pytest.skip(f"Python's {missing} missing: {KERBEROS_COMMAND}")
    from tests.integration.browser import answers_of_tests, row_of

    with Dialogue(OFFERS_KERBEROS) as server:
        extra = {"auth_mode": "windows", "ssl_mode": "none", "windows_protocol": "kerberos", "timeout": 8}
        account = {"login": "alice@CORP.EXAMPLE", "password": PASSWORD}
        connection = {"conn_type": "smtpcm", "host": "localhost", "port": server.port, **account}
        make(page, airflow, "silent_kdc", {**connection, "extra": json.dumps(extra)})
        row_of(page, "silent_kdc").get_by_role("button", name="Test Connection").click()
        page.wait_for_timeout(500)

        assert page.request.get(f"{airflow.url}/api/v2/monitor/health").ok
        expect(answers_of_tests(page)).to_have_count(0)  # still waiting

        expect(answers_of_tests(page)).to_contain_text("no KDC answered within 8 seconds. Check krb5.conf")


# --- What works.


def test_the_connection_made_in_the_form_is_the_one_that_the_scheduler_delivers_by(
    page: Page, airflow: AirflowStack, servers: Servers
) -> None:
    """Filled in, saved, tested; then a mail arrives, and no log of a DAG has the password."""
    from tests.integration.browser import WORKERS_TEST, ConnectionForm, press_test

    fill_form(page, "smtpcm_default", servers)

    answer = press_test(page, "smtpcm_default")
    assert "Test Connection Successful" in answer
    for words in ("localhost", "TLSv1.3", rf"signed in with NTLM as {LOGIN}", "messages up to", "offers PIPELINING"):
        assert words in answer
    assert servers.windows.messages == []  # a test sends nothing

    runs = {dag_id: airflow.trigger(dag_id) for dag_id in ("windows_authentication", "tell_the_connection")}
    for dag_id, run_id in runs.items():
        assert airflow.wait_for_run(dag_id, run_id) == "success", airflow.task_logs(dag_id, run_id)
    if WORKERS_TEST:
        assert f"signed in with NTLM as {LOGIN}" in what_a_worker_says(page, airflow, "smtpcm_default", servers)
    [mail] = servers.windows.clear()
    assert (mail.authenticated_as, mail.mechanism, mail.tls_version) == (LOGIN, "NTLM", "TLSv1.3")
    assert runs["windows_authentication"] in mail.message["Subject"]

    told = airflow.task_logs("tell_the_connection", runs["tell_the_connection"])
    assert LOGIN.replace("\\", "\\\\") in told
    assert "'password': '***'" in told
    form = ConnectionForm.edit(page, "smtpcm_default")
    assert form.labels("Standard Fields")
    assert (form.read("Password").widget, form.read("Password").value) == ("password", "***")
    form.close()
    for seen in (
        told,
        page.request.get(f"{airflow.url}/api/v2/connections/smtpcm_default").text(),
        page.request.get(f"{airflow.url}/api/v2/connections?limit=100").text(),
        page.request.get(f"{airflow.url}/api/v2/eventLogs?limit=500").text(),
    ):
        assert "smtpcm_default" in seen
        assert PASSWORD not in seen


def what_a_worker_says(page: Page, airflow: AirflowStack, conn_id: str, servers: Servers) -> str:
    """Return a worker's answer to a test of the connection (`/enqueue-test`).

    A worker whose own request Airflow refused is asked again: with SQLite, two writers at once are enough.
    """
    for _ in range(TRIES):
        answer = _ask_worker(page, airflow, conn_id, servers)
        if "ServerResponseError" not in answer:
            break
    return answer


def _ask_worker(page: Page, airflow: AirflowStack, conn_id: str, servers: Servers) -> str:
    url = f"{airflow.url}/api/v2/connections/enqueue-test"
    body = {"connection_id": conn_id, **servers.windows.airflow_connection()}
    asked = page.request.post(url, data={**body, "extra": json.dumps(body["extra"])})
    assert asked.ok, asked.text()
    headers = {"Airflow-Connection-Test-Token": asked.json()["token"]}
    while (answer := page.request.get(url, headers=headers).json())["state"] not in ("success", "failed"):
        page.wait_for_timeout(500)
    return str(answer["result_message"])


def test_the_answer_says_that_a_relay_is_anonymous(page: Page, airflow: AirflowStack, servers: Servers) -> None:
    """It also has the warnings about weak settings."""
    from tests.integration.browser import press_test

    trusting = servers.anonymous.airflow_connection(verify_certificate=False, ca_certificate=None)
    make(page, airflow, "trusting", {**trusting, "extra": json.dumps(trusting["extra"])})
    answer = press_test(page, "trusting")
    assert "; anonymous; " in answer
    assert "Warning: The server's certificate is not verified" in answer
