"""A DAG with `SendMailNotifier`: callbacks of tasks, callbacks of the DAG, and a Deadline Alert."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import assert_type

from airflow.sdk import DAG, ObjectStoragePath, task
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

from airflow_provider_smtpcm import Attachment, Mail, Priority, SendMailNotifier

alert = SendMailNotifier(to="oncall@corp.example")
full_alert = SendMailNotifier(
    to=["oncall@corp.example", *Mail(to="dba@corp.example").to],
    smtpcm_conn_id="smtpcm_default",
    from_address="Airflow <airflow@corp.example>",
    cc=("a@corp.example",),
    bcc=None,
    reply_to="b@corp.example",
    subject="{{ alert.name }} failed",
    text="{{ alert.exception.message }}",
    attachments=[Path("/srv/load.log"), ObjectStoragePath("s3://logs/load.log"), Attachment("/srv/x.log")],
    inline_images={"logo": Path("/srv/logo.png")},
    priority=Priority.HIGH,
    headers={"X-Try": 2, "X-Auto-Response-Suppress": None},
    log_lines=20,
    only_if="{{ params.alerts }}",
    retry_for=10,
)
assert_type(alert.preview({"exception": ValueError("row 17")}), Mail)
silent_alert = SendMailNotifier(to="oncall@corp.example", only_if=False)

with DAG(
    dag_id="typed_alerts",
    schedule=None,
    default_args={"on_failure_callback": alert},
    on_failure_callback=alert,
    on_success_callback=[alert, full_alert],
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(hours=1),
        callback=AsyncCallback(SendMailNotifier, kwargs={"to": "oncall@corp.example"}),
    ),
) as dag:

    @task(on_failure_callback=full_alert, on_retry_callback=[alert])
    def load() -> None: ...

    load()

# Wrong types.
SendMailNotifier()  # type: ignore[call-arg]  # ty: ignore[missing-argument]
SendMailNotifier(to=5)  # type: ignore[arg-type]  # ty: ignore[invalid-argument-type]
SendMailNotifier(to="a@corp.example", attachments=5)  # type: ignore[arg-type]  # ty: ignore[invalid-argument-type]
SendMailNotifier(to="a@corp.example", retry_for="10")  # type: ignore[arg-type]  # ty: ignore[invalid-argument-type]
SendMailNotifier(to="a@corp.example", only_if=5)  # type: ignore[arg-type]  # ty: ignore[invalid-argument-type]
SendMailNotifier(to="a@corp.example", subjekt="x")  # type: ignore[call-arg]  # ty: ignore[unknown-argument]
