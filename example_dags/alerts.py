"""Send an alert for each retry and each failure of a task, for a failed run, and for a missed deadline.

Uses the connection `smtpcm_default` of type *SMTP Connection Manager*. The task fails once and succeeds on its second
try, so one alert arrives. Airflow runs the callbacks of tasks in the task's own process, those of DAGs and of killed
tasks in the DAG processor, and those of deadlines in the triggerer: all of them need the connection.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, task
from airflow.sdk.definitions.deadline import AsyncCallback, DeadlineAlert, DeadlineReference

from airflow_provider_smtpcm import SendMailNotifier

SENDER, ON_CALL = "Airflow <airflow@corp.example>", "oncall@corp.example; dba@corp.example"
alert = SendMailNotifier(from_address=SENDER, to=ON_CALL, priority="high")

with DAG(
    dag_id="alerts",
    description="Alerts by mail for retries and failures.",
    schedule=None,
    default_args={"on_failure_callback": alert, "on_retry_callback": alert},
    on_failure_callback=alert,
    tags=["smtpcm"],
) as dag:

    @task(retries=1, retry_delay=timedelta(seconds=1))
    def load(**context: object) -> None:
        """Fail on the first try, as if the server was not ready."""
        if context["ti"].try_number == 1:  # type: ignore[attr-defined]
            raise ConnectionError("The warehouse does not answer yet.")

    load()

with DAG(
    dag_id="alerts_of_deadlines",
    description="An alert by mail for a run that takes more than an hour.",
    schedule=None,
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(hours=1),
        callback=AsyncCallback(SendMailNotifier, kwargs={"from_address": SENDER, "to": ON_CALL}),
    ),
    tags=["smtpcm"],
):
    load()
