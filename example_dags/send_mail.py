"""Send one mail with text, HTML and an attachment through a relay without sign-in.

Uses the connection `smtpcm_default` of type *SMTP Connection Manager*:

    airflow connections add smtpcm_default --conn-json \
        '{"conn_type": "smtpcm", "host": "relay.corp.example", "extra": {"auth_mode": "anonymous"}}'
"""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

from airflow.sdk import DAG, Param, task

from airflow_provider_smtpcm import SendMailOperator

with DAG(
    dag_id="send_mail",
    description="Text, HTML and an attachment through an anonymous relay.",
    schedule=None,
    params={"to": Param("operations@corp.example", type="string", description="Several are separated by ';'.")},
    tags=["smtpcm"],
) as dag:

    @task
    def write_report() -> str:
        """Write a small CSV file on the worker and return its path."""
        path = Path(tempfile.mkdtemp()) / "loads.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("table", "rows"), ("orders", 1204), ("customers", 87)])
        return str(path)

    SendMailOperator(
        task_id="send",
        from_address="ETL <etl@corp.example>",
        to="{{ params.to }}",
        subject="Load of {{ dag_run.run_after | ds }} finished",
        text="Two tables were loaded; see the attached file.",
        html="<p>Two tables were loaded; see the <b>attached</b> file.</p>",
        attachments=[write_report()],
        priority="low",
    )
