"""A DAG with `SqlToMailOperator`, and a merge whose rows come from a query."""

from __future__ import annotations

from typing import assert_type

from airflow.sdk import DAG, task

from airflow_provider_smtpcm import MailMergeOperator, SqlQuery, SqlToMailOperator

with DAG(dag_id="typed_query", schedule=None) as dag:

    @task
    def find_region() -> str:
        return "North"

    # The shortest, and one with every argument of its own.
    shortest = SqlToMailOperator(
        task_id="shortest", sql="SELECT 1 AS a", sql_conn_id="sales", to="a@corp.example", from_address="b@corp.example"
    )
    assert_type(shortest, SqlToMailOperator)
    SqlToMailOperator(
        task_id="everything",
        retries=3,
        sql="SELECT * FROM orders WHERE region = ? AND amount > ?",
        sql_conn_id="sales",
        parameters=[find_region(), 100],
        sql_hook_params={"driver": "ODBC Driver 18 for SQL Server"},
        attach_as=["orders.csv", "orders.xlsx"],
        max_rows=20,
        on_empty="skip",
        delimiter=";",
        escape_formulas=False,
        to=["a@corp.example"],
        subject="{{ result.row_count }} orders",
        on_refused="warn",
    )
    SqlToMailOperator(task_id="mapping", sql="SELECT :a", sql_conn_id="sales", parameters={"a": 1}, attach_as="a.csv")
    SqlToMailOperator(task_id="results", sql=find_region(), sql_conn_id=find_region(), parameters=find_region())

    query = SqlQuery(sql="SELECT * FROM orders WHERE id > %s ORDER BY id", sql_conn_id="sales", parameters=(5,))
    assert_type(query, SqlQuery)
    MailMergeOperator(task_id="merge", rows=query, row_key="{{ row.id }}", to="{{ row.email }}", text="x")

    # Wrong types.
    SqlToMailOperator(task_id="w1", sql=5, sql_conn_id="a")  # type: ignore[arg-type]  # ty: ignore[invalid-argument-type]
    SqlToMailOperator(task_id="w2", sql="a")  # type: ignore[call-arg]  # ty: ignore[missing-argument]
    SqlToMailOperator(task_id="w3", sql="a", sql_conn_id="a", on_empty="x")  # type: ignore[arg-type]  # ty: ignore[invalid-argument-type]
    SqlToMailOperator(task_id="w4", sql="a", sql_conn_id="a", attach_as=[5])  # type: ignore[list-item]  # ty: ignore[invalid-argument-type]
    SqlQuery("SELECT 1", sql_conn_id="a")  # type: ignore[call-arg]  # ty: ignore[missing-argument, too-many-positional-arguments]
