r"""Send one mail through a server that requires Windows Authentication, such as an Exchange receive connector.

Uses the connection `smtpcm_default` of type *SMTP Connection Manager*:

    airflow connections add smtpcm_default --conn-json \
        '{"conn_type": "smtpcm", "host": "exchange.corp.example", "port": 587, "login": "CORP\\svc-etl",
          "password": "...", "extra": {"auth_mode": "windows", "ssl_mode": "starttls"}}'

The DAG is the same as for an anonymous relay: signing in is configured in the connection.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from airflow_provider_smtpcm import SendMailOperator

with DAG(
    dag_id="windows_authentication",
    description="One mail through a server that requires Windows Authentication.",
    schedule=None,
    params={"to": Param("operations@corp.example", type="string", description="Several are separated by ';'.")},
    tags=["smtpcm"],
) as dag:
    SendMailOperator(
        task_id="send",
        smtpcm_conn_id="smtpcm_default",
        from_address="ETL <etl@corp.example>",
        to="{{ params.to }}",
        subject="Windows Authentication works (run {{ run_id }})",
        text="This mail was signed in with a Windows account, from a Linux worker.",
        html="<p>This mail was signed in with a <b>Windows account</b>, from a Linux worker.</p>",
        priority="high",
        retries=0,
    )
