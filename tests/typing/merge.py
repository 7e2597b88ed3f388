"""A DAG with `MailMergeOperator`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import assert_type

from airflow.sdk import DAG, ObjectStoragePath, task

from airflow_provider_smtpcm import Attachment, Mail, MailMergeOperator

ROWS = [{"id": 1, "email": "a@corp.example"}, {"id": 2, "email": "b@corp.example"}]


def read_rows() -> Iterator[dict[str, object]]:
    yield {"id": 1, "email": "a@corp.example"}


with DAG(dag_id="typed_merge", schedule=None) as dag:

    @task
    def export() -> str:
        return "/srv/rows.csv"

    merge = MailMergeOperator(
        task_id="everything",
        rows="/srv/rows.csv",
        row_key="{{ row.id }}",
        smtpcm_conn_id="smtpcm_default",
        from_address="etl@corp.example",
        to="{{ row.email }}",
        cc=["{{ row.manager }}"],
        subject="Statement {{ row.id }}",
        text="Dear {{ row.name }},",
        html_file="statement.html",
        attachments=["/srv/{{ row.id }}.pdf", Path("/srv/terms.pdf"), Attachment(content=b"x", name="x.txt")],
        inline_images={"logo": Path("/srv/logo.png")},
        priority="low",
        headers={"X-Row": "{{ row.id }}", "X-Batch": 7},
        on_error="continue",
        on_refused="warn",
        on_unknown="retry",
        on_clear="resume_unfinished",
        connections=4,
        rate_limit=1800,
        report_file="/srv/report.jsonl",
        rows_encoding="cp1252",
        delimiter=";",
        retry_for=30.5,
        ledger_window=100,
    )
    assert_type(merge, MailMergeOperator)
    assert_type(merge.preview({}, rows=[1, 7]), dict[int, Mail])

    # Rows, in every form.
    MailMergeOperator(task_id="list", rows=ROWS, to="{{ row.email }}", text="x")
    MailMergeOperator(task_id="iterator", rows=read_rows(), to="{{ row.email }}", text="x")
    MailMergeOperator(task_id="path", rows=Path("/srv/rows.csv"), to="{{ row.email }}", text="x")
    MailMergeOperator(task_id="object", rows=ObjectStoragePath("s3://in/rows.csv"), to="{{ row.email }}", text="x")
    MailMergeOperator(task_id="result", rows=export(), to="{{ row.email }}", text="x", report_file=export())
    merge_each = MailMergeOperator.partial(task_id="mapped", to="{{ row.email }}", text="x")
    merge_each.expand(rows=[ROWS, ROWS])  # pyright: ignore[reportUnknownMemberType] - Airflow's is incomplete

    # Wrong types.
    MailMergeOperator(task_id="w1", text="x")  # type: ignore[call-arg]  # ty: ignore[missing-argument]
    MailMergeOperator(task_id="w2", rows=ROWS, to=5)  # type: ignore[arg-type]  # ty: ignore[invalid-argument-type]
    MailMergeOperator(task_id="w3", rows=ROWS, on_error="skip")  # type: ignore[arg-type]  # ty: ignore[invalid-argument-type]
    MailMergeOperator(task_id="w4", rows=ROWS, connections="4")  # type: ignore[arg-type]  # ty: ignore[invalid-argument-type]
    MailMergeOperator(task_id="w5", rows=ROWS, row_key=5)  # type: ignore[arg-type]  # ty: ignore[invalid-argument-type]
