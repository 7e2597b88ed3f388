"""DAGs that cause every kind of alert, each mailed to an address of its own."""

from __future__ import annotations

import logging
import os
import time
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, task
from airflow.sdk.definitions.deadline import AsyncCallback, DeadlineAlert, DeadlineReference
from airflow.sdk.types import RuntimeTaskInstanceProtocol

from airflow_provider_smtpcm.notifications.send_mail import SendMailNotifier
from airflow_provider_smtpcm.ssis import macros

log = logging.getLogger("warehouse")


def alert(name: str, **fields: object) -> SendMailNotifier:
    """Return a notifier for this mailbox."""
    return SendMailNotifier(to=f"{name}@corp.example", **fields)  # type: ignore[arg-type]


with DAG("failing", schedule=None, on_failure_callback=alert("failed-run")):

    @task(
        retries=1,
        retry_delay=timedelta(0),
        on_retry_callback=alert("retry"),
        on_failure_callback=alert("failure", html="{{ no.such.thing }}"),
    )
    def load(table: str) -> None:
        """Always fail."""
        print(f"Reading {table}")  # noqa: T201 - as authors do
        log.warning("Waiting for a lock; PWD=hunter2;")
        raise RuntimeError(f"{table} is locked by <spid 4711>\nand stays so")

    load.expand(table=["dbo.Orders"])

# As in imported DAGs, where an alert contains what a task set; a mapped task sets a value in each of its instances.
VARIABLE = "{{ ssis.variable(ti, 'User::Rows', ['never', 'count', 'fine'], 0, 'DT_I4') }}"

with DAG(
    "succeeding",
    schedule=None,
    on_success_callback=alert("succeeded-run", headers={"X-Rows": VARIABLE}),
    user_defined_macros={"ssis": macros},
):

    @task(
        on_success_callback=[
            alert("success", headers={"X-Rows": VARIABLE}),
            alert("nobody", smtpcm_conn_id="server_that_is_down", retry_for=0),
            alert("nobody", smtpcm_conn_id="no_such_connection"),
        ]
    )
    def fine() -> int:
        """Succeed."""
        return 1

    @task
    def count(rows: int, ti: RuntimeTaskInstanceProtocol | None = None) -> None:
        """Set a variable."""
        assert ti is not None
        ti.xcom_push(key="User::Rows", value=rows)

    count.expand(rows=[1, 2, 3]) >> fine()

with DAG("killed", schedule=None, on_failure_callback=alert("killed-run")):

    @task(on_failure_callback=alert("killed"))
    def be_killed() -> None:
        """Write down its process and its supervisor's, and wait."""
        Path(os.environ["PIDS_OF_THE_KILLED"]).write_text(f"{os.getppid()} {os.getpid()}")
        time.sleep(300)

    be_killed()

with DAG(
    "late",
    schedule=None,
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(seconds=1),
        callback=AsyncCallback(SendMailNotifier, kwargs={"to": "deadline@corp.example"}),
    ),
):

    @task
    def slow() -> None:
        """Run long enough for a busy scheduler."""
        time.sleep(20)

    slow()

with DAG("emailing", schedule=None):

    @task(email=["email@corp.example"], email_on_failure=True)
    def export() -> None:
        """Fail, which Airflow's own alert reports."""
        raise ValueError("no such column <x>")

    export()
