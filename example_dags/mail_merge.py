"""Send every customer a statement: one task sends one mail for each line of a CSV file, over four connections.

Uses the connection `smtpcm_default` of type *SMTP Connection Manager*. An invalid line is skipped, and all other
customers get their mail. The report has a line of JSON with the outcome of each.
"""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

from airflow.sdk import DAG, task

from airflow_provider_smtpcm import MailMergeOperator

with DAG(
    dag_id="mail_merge",
    description="One task that sends many personal mails, with an attachment that they share.",
    schedule=None,
    tags=["smtpcm"],
) as dag:

    @task(multiple_outputs=True)
    def write_files() -> dict[str, str]:
        """Write what an export would: the customers, and the terms that all of them get; return their paths."""
        folder = Path(tempfile.mkdtemp())
        people = ("Anna Jensen", "Björn & Söhne", "Chloé Martin", "Dmitri Orlov", "Elena Ruiz")
        with (folder / "customers.csv").open("w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file)
            lines.writerow(("id", "email", "name", "balance"))
            lines.writerows((100 + n, f"customer{n}@corp.example", name, n * 12.5) for n, name in enumerate(people))
        (folder / "terms.txt").write_text("Payment is due within 30 days.\n", encoding="utf-8")
        names = {"customers": "customers.csv", "terms": "terms.txt", "report": "report.jsonl"}
        return {name: str(folder / file) for name, file in names.items()}

    files = write_files()

    MailMergeOperator(
        task_id="send",
        rows=files["customers"],
        row_key="{{ row.id }}",
        from_address="Accounts <accounts@corp.example>",
        to="{{ row.email }}",
        subject="Your statement {{ row.id }} of {{ dag_run.run_after | ds }}",
        text="Dear {{ row.name }},\n\nyour balance is {{ row.balance }} EUR.\n",
        html="<p>Dear {{ row.name }},</p><p>your balance is <b>{{ row.balance }} EUR</b>.</p>",
        attachments=[files["terms"]],
        connections=4,
        rate_limit=1800,  # mails a minute, as Exchange's MessageRateLimit counts
        on_error="continue",
        report_file=files["report"],
    )
