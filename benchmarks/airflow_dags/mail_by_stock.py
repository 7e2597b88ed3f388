"""One task that sends one mail, by Airflow's own SMTP provider."""

from __future__ import annotations

from airflow.providers.smtp.operators.smtp import EmailOperator
from airflow.sdk import DAG

with DAG(dag_id="mail_by_stock", schedule=None):
    EmailOperator(
        task_id="mail",
        conn_id="stock",
        to="user@corp.example",
        subject="Load of {{ dag_run.run_after }}",
        html_content="x" * 1024,
    )
