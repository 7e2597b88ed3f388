"""Mail the result of a query: a table in the body, all rows as an Excel and a CSV file, and a mail for each customer.

Uses the connection `smtpcm_default` of type *SMTP Connection Manager*, and the connection `sales` of a database, here
SQLite. Another one has placeholders of its own: `?` in ODBC (SQL Server), `%s` in PostgreSQL and MySQL.
"""

from __future__ import annotations

from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import DAG

from airflow_provider_smtpcm import MailMergeOperator, SqlQuery, SqlToMailOperator

with DAG(
    dag_id="query_to_mail",
    description="The result of a query as a table, as files, and as one mail for each row.",
    schedule=None,
    params={"days": 30},
    tags=["smtpcm"],
) as dag:
    load = SQLExecuteQueryOperator(
        task_id="load",
        conn_id="sales",
        sql=[
            "DROP TABLE IF EXISTS invoices",
            "CREATE TABLE invoices (id INTEGER, customer VARCHAR(50), email VARCHAR(50), amount NUMERIC, days INTEGER)",
            "INSERT INTO invoices VALUES (4711, 'Anna Jensen', 'anna@corp.example', 1250.5, 12)",
            "INSERT INTO invoices VALUES (4712, 'Björn & Söhne', 'bjoern@corp.example', 99.0, 45)",
            "INSERT INTO invoices VALUES (4713, 'Chloé Martin', 'chloe@corp.example', 12.25, 61)",
        ],
    )

    overdue = SqlToMailOperator(
        task_id="mail_overdue_invoices",
        sql_conn_id="sales",
        sql="SELECT id, customer, amount, days FROM invoices WHERE days > ? ORDER BY days DESC, id",
        parameters=["{{ params.days }}"],
        from_address="Accounts <accounts@corp.example>",
        to="controlling@corp.example",
        subject="{{ result.row_count }} invoices are overdue",
        html="<p>Overdue for more than {{ params.days }} days:</p>{{ result.table }}",
        attach_as=["overdue.xlsx", "overdue.csv"],
        max_rows=20,
        on_empty="skip",
    )

    reminders = MailMergeOperator(
        task_id="remind_customers",
        rows=SqlQuery(
            sql_conn_id="sales",
            sql="SELECT id, customer, email, amount FROM invoices WHERE days > ? ORDER BY id",
            parameters=["{{ params.days }}"],
        ),
        row_key="{{ row.id }}",
        from_address="Accounts <accounts@corp.example>",
        to="{{ row.email }}",
        subject="Invoice {{ row.id }}",
        text="Dear {{ row.customer }},\n\nplease pay {{ '%.2f' | format(row.amount) }} EUR.\n",
        connections=2,
    )

    load >> [overdue, reminders]
