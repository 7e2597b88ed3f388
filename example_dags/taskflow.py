"""Send mail from functions: `@task.send_mail` sends the text or the whole mail that a function returns.

Uses the connection `smtpcm_default` of type *SMTP Connection Manager*. What a function returns is data: a `{{` in it is
sent unchanged. A function that has nothing to send raises `AirflowSkipException`.
"""

from __future__ import annotations

import csv
import io

from airflow.sdk import DAG, Asset, task

from airflow_provider_smtpcm import Attachment

SENT = Asset("smtpcm_sales_report")

with DAG(
    dag_id="taskflow",
    description="Mails whose text, HTML and attachments come from functions.",
    schedule=None,
    default_args={"from_address": "Sales reports <sales@corp.example>"},
    tags=["smtpcm"],
) as dag:

    @task
    def regions() -> list[dict[str, int | str]]:
        """Return what a query would."""
        return [{"name": "North", "orders": 1204}, {"name": "Süd", "orders": 987}]

    @task.send_mail(to="operations@corp.example", subject="Orders of {{ dag_run.run_after | ds }}")
    def summary(found: list[dict[str, int | str]]) -> str:
        """Return a str: the text of the mail."""
        return "\n".join(f"{region['name']}: {region['orders']} orders" for region in found)

    @task.send_mail(to="board@corp.example", subject="All regions", priority="high", outlets=[SENT])
    def report(found: list[dict[str, int | str]]) -> dict[str, object]:
        """Return a dict: fields of the mail, beside those of the decorator."""
        file = io.StringIO()
        csv.writer(file).writerows(region.values() for region in found)
        items = "".join(f"<li>{region['name']}: {region['orders']}</li>" for region in found)
        return {
            "html": f"<h1>Orders</h1><ul>{items}</ul>",
            "attachments": [Attachment(content=file.getvalue().encode(), name="orders.csv")],
        }

    @task.send_mail(to="region@corp.example")
    def to_region(region: dict[str, int | str]) -> dict[str, object]:
        """Return the fields of one mail; mapped, this is one task and one mail for each region."""
        return {"subject": f"Orders in {region['name']}", "text": f"{region['orders']} orders were placed."}

    all_regions = regions()
    summary(all_regions)
    report(all_regions)
    to_region.expand(region=all_regions)
