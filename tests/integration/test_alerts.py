"""Alerts under Airflow's own scheduler, DAG processor and triggerer, through a server with Windows Authentication.

A retry, a failure and a success come from the task's own process; a run that ended, and a task that was killed, come
from the DAG processor; a missed deadline comes from the triggerer.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from airflow import __version__

from airflow_provider_smtpcm import notifications
from airflow_provider_smtpcm.testing import ReceivedMail, Relay
from demo.airflow_stack import AirflowStack
from demo.processes import free_port

pytestmark = [pytest.mark.slow, pytest.mark.every_airflow, pytest.mark.timeout(1800)]

DAGS = Path(__file__).parent / "alert_dags"
LOGIN = r"CORP\alice"
# Seconds without a heartbeat until a task is considered dead.
CONFIG = {
    "core.default_timezone": "Asia/Kolkata",
    "core.parallelism": "6",
    "scheduler.task_instance_heartbeat_timeout": "8",
    "scheduler.task_instance_heartbeat_timeout_detection_interval": "2",
}
# Airflow's own alerts, with the look of ours. Airflow 3.2.0 to 3.3.0 send them through their own SMTP provider.
TEMPLATES = Path(notifications.__path__[0]) / "templates"
EMAIL = {
    "email.email_backend": "airflow_provider_smtpcm.email_backend.send_email",
    "email.email_conn_id": "smtpcm_default",
    "email.subject_template": str(TEMPLATES / "email_subject.txt"),
    "email.html_content_template": str(TEMPLATES / "email.html"),
}
VERSION = tuple(int(part) for part in __version__.split(".")[:3] if part.isdigit())
HAS_EMAIL = VERSION < (3, 2) or VERSION >= (3, 3, 1)
MAILBOXES = ("retry", "failure", "failed-run", "success", "succeeded-run", "killed", "killed-run", "deadline") + (
    ("email",) if HAS_EMAIL else ()
)
PATIENCE = 600


class Stack(AirflowStack):
    """With a triggerer, which Deadline Alerts need."""

    def start(self) -> None:
        """Start all four components."""
        super().start()
        self._launch("triggerer", "--skip-serve-logs")


@dataclass(slots=True)
class Alerts:
    """The results of all runs: the mails by mailbox, and the state of each run."""

    url: str
    mails: dict[str, list[ReceivedMail]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    logs: str = ""

    def of(self, mailbox: str) -> ReceivedMail:
        """Return the mail of a mailbox, which may have two only if Airflow reported one event twice."""
        found = self.mails.get(mailbox, [])
        assert found, f"No mail for {mailbox}; there are {sorted(self.mails)}.\n{self.logs}"
        assert len({mail.message["Message-ID"] for mail in found}) == 1
        return found[0]


def bodies(mail: ReceivedMail) -> tuple[str, str]:
    """Return text and HTML."""
    parts = [mail.message.get_body((kind,)) for kind in ("plain", "html")]
    text, html = ("" if part is None else part.get_content().replace("\r\n", "\n") for part in parts)
    return text, html


@pytest.fixture(scope="module")
def alerts(airflow_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alerts]:
    """Run every DAG, and wait for every mail."""
    pids = tmp_path_factory.mktemp("killed") / "pids"
    with (
        pytest.MonkeyPatch.context() as patch,
        Relay(users={LOGIN: "P@ssw0rd-Alice"}) as relay,
    ):
        patch.setenv("PIDS_OF_THE_KILLED", str(pids))
        with Stack(DAGS, config=CONFIG | EMAIL, database=airflow_tables) as airflow:
            connection = relay.airflow_connection(from_address="Airflow <airflow@corp.example>")
            down = {"conn_type": "smtpcm", "host": "127.0.0.1", "port": free_port(), "extra": connection["extra"]}
            down["extra"] = {"ssl_mode": "none", "from_address": "airflow@corp.example"}
            for conn_id, each in (("smtpcm_default", connection), ("server_that_is_down", down)):
                airflow.cli("connections", "add", conn_id, "--conn-json", json.dumps(each))
            airflow.wait_until_healthy()
            found = Alerts(airflow.url)
            runs = {dag_id: airflow.trigger(dag_id) for dag_id in states_of_all()}
            kill(pids)
            for dag_id, run_id in runs.items():
                found.states[dag_id] = airflow.wait_for_run(dag_id, run_id)
            mails = wait_for(relay)
            found.logs = "\n".join([airflow.task_logs("succeeding", runs["succeeding"]), airflow.component_logs()])
        for mail in mails:
            found.mails.setdefault(mail.recipients[0].partition("@")[0], []).append(mail)
        yield found


def states_of_all() -> dict[str, str]:
    """Return the states in which the runs of all DAGs end."""
    return {"killed": "failed", "failing": "failed", "succeeding": "success", "late": "success", "emailing": "failed"}


def kill(pids: Path) -> None:
    """Kill the task and the worker that supervises it, as a power failure does."""
    deadline = time.monotonic() + PATIENCE
    while not (pids.exists() and len(pids.read_text().split()) == 2):
        assert time.monotonic() < deadline, "The task that is to be killed has not begun."
        time.sleep(0.2)
    for pid in pids.read_text().split():
        os.kill(int(pid), signal.SIGKILL)


def wait_for(relay: Relay) -> list[ReceivedMail]:
    """Wait until each mailbox has a mail, and return all mails."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        have = {mail.recipients[0].partition("@")[0] for mail in relay.messages}
        if have >= set(MAILBOXES):
            break
        time.sleep(0.5)
    return relay.messages


@pytest.mark.parametrize("mailbox", MAILBOXES)
def test_each_alert_arrives_signed_in_and_from_the_connection_s_address(alerts: Alerts, mailbox: str) -> None:
    """With NTLM, over TLS."""
    mail = alerts.of(mailbox)
    assert (mail.authenticated_as, mail.mechanism, mail.tls_version) == (LOGIN, "NTLM", "TLSv1.3")
    assert mail.message["From"] == "Airflow <airflow@corp.example>"
    assert mail.message["X-Auto-Response-Suppress"] == "OOF, AutoReply"
    assert all(bodies(mail)) or mailbox == "email"  # which Airflow gives an HTML body alone


@pytest.mark.parametrize(
    ("mailbox", "subject"),
    [
        (
            "retry",
            r"Will retry: failing\.load \[0\], try 1 of 2 – RuntimeError: dbo\.Orders is locked by <spid 4711> and",
        ),
        (
            "failure",
            r"Failed: failing\.load \[0\], try 2 of 2 – RuntimeError: dbo\.Orders is locked by <spid 4711> and",
        ),
        ("failed-run", r"Failed: failing – 1 task: load_0 – RuntimeError: dbo\.Orders is locked by <spid 4711> and"),
        ("success", r"Succeeded: succeeding\.fine"),
        ("succeeded-run", r"Succeeded: succeeding"),
        ("killed", r"Failed: killed\.be_killed, try 1 of 1 – no error was reported"),
        ("killed-run", r"Failed: killed – 1 task: be_killed"),
        ("deadline", r"Deadline missed: late, due \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"),
    ],
)
def test_its_subject_says_what_happened(alerts: Alerts, mailbox: str, subject: str) -> None:
    """By what each process's context has."""
    assert re.match(rf"\[Airflow\] {subject}", alerts.of(mailbox).message["Subject"])


def test_the_failure_has_its_reason_and_a_notice_of_its_broken_template(alerts: Alerts) -> None:
    """With the line of the DAG that raised, and not as markup."""
    text, html = bodies(alerts.of("failure"))
    assert "NOTE: The notifier's 'html' could not be rendered (UndefinedError: 'no' is undefined)" in text
    assert 'raise RuntimeError(f"{table} is locked by <spid 4711>' in text
    assert "&lt;spid 4711&gt;" in html
    assert "<spid" not in html


@pytest.mark.parametrize("mailbox", ["retry", "failure"])
def test_the_alert_of_a_task_has_the_last_lines_of_its_log(alerts: Alerts, mailbox: str) -> None:
    """What it printed and logged in this try, without credentials, and without what Airflow says of itself."""
    text, _ = bodies(alerts.of(mailbox))
    lines = text.partition("Last lines of the log (times in UTC):\n")[2].strip().splitlines()
    # Airflow writes what a task prints a little later than what it logs.
    assert sorted(re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines) == [
        "Reading dbo.Orders",
        "WARNING Waiting for a lock; PWD=***;",
    ]


def test_the_alert_of_a_task_has_the_author_s_part_of_the_traceback(alerts: Alerts) -> None:
    """Airflow's frames are counted."""
    text, html = bodies(alerts.of("failure"))
    assert re.search(r"  … \d+ frames of Airflow left out\n  File .*alerts_under_test\.py.*, in load\n", text)
    assert "task_runner.py" not in text + html


def test_the_alert_of_a_run_has_the_exception_of_each_failed_task(alerts: Alerts) -> None:
    """The DAG processor reads it from the log, which is on its machine here."""
    text, html = bodies(alerts.of("failed-run"))
    link = re.search(r"- load \[0\] \(try 2\): RuntimeError: dbo\.Orders is locked .*\n  (http.*)\n", text)
    assert link is not None
    assert re.fullmatch(re.escape(alerts.url) + r"/dags/failing/runs/manual__[^/]*/tasks/load/mapped/0", link[1])
    assert f'href="{link[1]}"' in html


def test_times_are_in_airflow_s_time_zone_too(alerts: Alerts) -> None:
    """Besides UTC, from every process, and in Airflow's own alert."""
    text, _ = bodies(alerts.of("failure"))
    local = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC \([\d :-]*\d\d:\d\d IST\)"
    assert re.search(rf"Started: +{local}\n", text)
    for mailbox in ("failed-run", "deadline"):
        assert re.search(rf"Started: +{local}\n", bodies(alerts.of(mailbox))[0])
    if HAS_EMAIL:
        assert re.search(local, bodies(alerts.of("email"))[1])


@pytest.mark.skipif(not HAS_EMAIL, reason="this Airflow ignores the email backend")
def test_airflow_s_own_alert_has_the_same_look(alerts: Alerts) -> None:
    """By the two templates; Airflow renders them."""
    mail = alerts.of("email")
    assert mail.message["Subject"] == "[Airflow] Failed: emailing.export, try 1 of 1 - ValueError: no such column <x>"
    _, html = bodies(mail)
    assert "ValueError: no such column &lt;x&gt;" in html
    assert re.search(re.escape(alerts.url) + r"/dags/emailing/runs/[^\"]*/tasks/export\?try_number=1", html)


@pytest.mark.parametrize(
    ("mailbox", "page"),
    [
        ("failure", "/dags/failing/runs/{run}/tasks/load/mapped/0?try_number=2"),
        ("killed", "/dags/killed/runs/{run}/tasks/be_killed?try_number=1"),
        ("failed-run", "/dags/failing/runs/{run}"),
        ("deadline", "/dags/late/runs/{run}"),
    ],
)
def test_its_link_is_that_of_the_log_or_of_the_run(alerts: Alerts, mailbox: str, page: str) -> None:
    """At this Airflow's own address."""
    _, html = bodies(alerts.of(mailbox))
    found = re.search(rf'href="{re.escape(alerts.url)}(/[^"]*)"', html)
    assert found is not None
    assert re.fullmatch(re.escape(page).replace(r"\{run\}", r"manual__[^/]*"), found[1].replace("&amp;", "&"))


@pytest.mark.parametrize("mailbox", ["success", "succeeded-run"])
def test_an_alert_has_what_a_task_set(alerts: Alerts, mailbox: str) -> None:
    """By `ssis.variable`, in the task's own process and in the DAG processor."""
    assert alerts.of(mailbox).message["X-Rows"] == "3"


def test_no_alert_changes_the_state_of_a_run(alerts: Alerts) -> None:
    """Although a server is down, a connection does not exist, and a template is broken."""
    assert alerts.states == states_of_all()
    assert "nobody" not in alerts.mails


def test_an_alert_that_was_not_sent_is_in_the_task_s_log_with_its_remedy(alerts: Alerts) -> None:
    """Where a user looks first."""
    assert "fine, try 1: success" in alerts.logs
    assert "The alert did not reach every recipient (not_sent): Cannot connect" in alerts.logs
    assert "Connection 'no_such_connection' cannot be used" in alerts.logs
