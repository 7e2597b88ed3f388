"""Send mail from functions: `@task.send_mail` sends what a function returns, its text or all of it.

It uses the connection `smtpcm_default` of type *SMTP Connection Manager*. What a function returns is data: a `{{` in it
is sent as it is. A function that finds nothing to tell raises `AirflowSkipException`.
"""

from __future__ import annotations

import csv
import io

from airflow.sdk import DAG, Asset, task

from airflow_provider_smtpcm.mail import Attachment

SENT = Asset("smtpcm_sales_report")

with DAG(
    dag_id="taskflow",
    description="Mails whose text, HTML and attachments are made by functions.",
    schedule=None,
    default_args={"from_address": "Sales reports <sales@corp.example>"},
    tags=["smtpcm"],
) as dag:

    @task
    def regions() -> list[dict[str, int | str]]:
        """What would come from a query."""
        return [{"name": "North", "orders": 1204}, {"name": "Süd", "orders": 987}]

    @task.send_mail(to="operations@corp.example", subject="Orders of {{ dag_run.run_after | ds }}")
    def summary(found: list[dict[str, int | str]]) -> str:
        """A str is the text."""
        return "\n".join(f"{region['name']}: {region['orders']} orders" for region in found)

    @task.send_mail(to="board@corp.example", subject="All regions", priority="high", outlets=[SENT])
    def report(found: list[dict[str, int | str]]) -> dict[str, object]:
        """A dict is any of the mail's fields; the decorator has said the others."""
        file = io.StringIO()
        csv.writer(file).writerows(region.values() for region in found)
        items = "".join(f"<li>{region['name']}: {region['orders']}</li>" for region in found)
        return {
            "html": f"<h1>Orders</h1><ul>{items}</ul>",
            "attachments": [Attachment(content=file.getvalue().encode(), name="orders.csv")],
        }

    @task.send_mail(to="region@corp.example")
    def to_region(region: dict[str, int | str]) -> dict[str, object]:
        """Mapped: one task, and one mail, for each region."""
        return {"subject": f"Orders in {region['name']}", "text": f"{region['orders']} orders were placed."}

    all_regions = regions()
    summary(all_regions)
    report(all_regions)
    to_region.expand(region=all_regions)
