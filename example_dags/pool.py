"""Limit the number of sessions at a relay: all tasks that send through it share an Airflow *pool*.

A slot of the pool is one session at the server, on whichever worker the task runs. A task that sends one mail takes one
slot; a merge takes as many slots as it has `connections`. Without a free slot a task waits; it does not fail.

Uses the connection `smtpcm_default` of type *SMTP Connection Manager*, and a pool that has to be created once:

    airflow pools set mail_relay 3 'Sessions that relay.corp.example takes from us'
"""

from __future__ import annotations

from airflow.sdk import DAG, task

from airflow_provider_smtpcm import MailMergeOperator, SendMailOperator

POOL = "mail_relay"
CONNECTIONS = 2

with DAG(
    dag_id="pool",
    description="All tasks that send through one relay share a pool.",
    schedule=None,
    default_args={"pool": POOL},  # for every task but the one that sends nothing
    tags=["smtpcm"],
) as dag:

    @task(pool="default_pool")
    def reports() -> list[dict[str, str]]:
        """Return what a query would: the recipients and their figures."""
        regions = ("north", "east", "south", "west", "centre")
        return [
            {"to": f"{region}@corp.example", "subject": f"Sales in the {region}", "text": f"{n * 104} orders today.\n"}
            for n, region in enumerate(regions, start=1)
        ]

    SendMailOperator.partial(
        task_id="tell_each_region",
        from_address="Sales reports <sales@corp.example>",
    ).expand_kwargs(reports())

    MailMergeOperator(
        task_id="tell_the_customers",
        rows=[{"number": str(n), "email": f"customer{n}@corp.example"} for n in range(1, 21)],
        row_key="{{ row.number }}",
        from_address="Sales <sales@corp.example>",
        to="{{ row.email }}",
        subject="Your order is on its way",
        text="Dear customer {{ row.number }},\n\nyour order was shipped today.\n",
        connections=CONNECTIONS,
        pool_slots=CONNECTIONS,
    )
