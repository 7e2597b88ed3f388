"""Send each region its own report: one mapped task for each recipient, so that a retry sends only what failed."""

from __future__ import annotations

from airflow.sdk import DAG, task

from airflow_provider_smtpcm import SendMailOperator

with DAG(
    dag_id="report_by_region",
    description="One mail for each region, by dynamic task mapping.",
    schedule=None,
    tags=["smtpcm"],
) as dag:

    @task
    def reports() -> list[dict[str, str]]:
        """Return what a query would: the recipients and their figures."""
        sales = {"North": (1204, "anna@corp.example"), "Süd": (987, "bjoern@corp.example")}
        return [
            {
                "to": to,
                "subject": f"Sales in {region}",
                "html": f"<h1>{region}</h1><p>{amount:,} orders were placed today.</p>",
            }
            for region, (amount, to) in sales.items()
        ]

    SendMailOperator.partial(
        task_id="send",
        from_address="Sales reports <sales@corp.example>",
        reply_to="controlling@corp.example",
    ).expand_kwargs(reports())
