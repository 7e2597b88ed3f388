"""One task that sends one mail, by this package."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_smtpcm.operators.send_mail import SendMailOperator

with DAG(dag_id="mail_by_this_package", schedule=None):
    SendMailOperator(
        task_id="mail",
        smtpcm_conn_id="ours",
        to="user@corp.example",
        subject="Load of {{ dag_run.run_after }}",
        text="x" * 1024,
    )
