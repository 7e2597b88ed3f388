"""A DAG with `SendMailOperator` and `@task.send_mail`."""

from __future__ import annotations

from datetime import timedelta
from email.message import EmailMessage
from io import BytesIO
from pathlib import Path
from typing import assert_type

from airflow.sdk import DAG, ObjectStoragePath, XComArg, task

from airflow_provider_smtpcm import Attachment, Mail, Priority, SendMailOperator, SmtpConnectionManager
from airflow_provider_smtpcm.mail import AddressesLike, AttachmentsLike, FilePattern, HeaderValues, MimeMessage
from airflow_provider_smtpcm.operators.only_if import OnlyIfOperator

FILES = [Path("/srv/a.csv"), Path("/srv/b.csv")]
HEADERS = {"X-Run": 5, "X-Team": "etl"}
PEOPLE = ["a@corp.example", "b@corp.example"]
SENDER = Mail(from_address="ETL <etl@corp.example>", to=PEOPLE).from_address

with DAG(dag_id="typed", schedule=None, default_args={"from_address": "etl@corp.example"}) as dag:

    @task
    def write_report() -> str:
        return "/srv/report.csv"

    @task
    def find_people() -> list[str]:
        return PEOPLE

    # The shortest mail, and one with every argument.
    shortest = SendMailOperator(task_id="shortest", to="a@corp.example", text="Done.")
    assert_type(shortest, SendMailOperator)
    preview = shortest.preview({"ds": "2026-01-31"}, manager=SmtpConnectionManager(host="relay.corp.example"))
    assert_type(preview, Mail | MimeMessage)
    preview.write_eml(Path("preview.eml"))
    SendMailOperator(
        task_id="everything",
        retries=3,
        retry_delay=timedelta(minutes=1),
        smtpcm_conn_id="smtpcm_default",
        from_address=SENDER,
        to=["a@corp.example", *Mail(to=PEOPLE).to],
        cc=("c@corp.example",),
        bcc="d@corp.example; e@corp.example",
        reply_to=SENDER,
        subject="Load of {{ ds }}",
        text="Plain",
        html="<p>HTML</p>",
        attachments=[Path("/srv/a.csv"), "b.csv", Attachment(content=b"x", name="c.csv")],
        inline_images={"logo": Path("/srv/logo.png"), "chart": Attachment("/srv/chart.png")},
        priority=Priority.HIGH,
        headers={"X-Run": 5, "X-Team": None},
        message_id="<1@corp.example>",
        envelope_from="<>",
        auto_generated=False,
        on_refused="warn",
        on_unknown="retry",
        on_clear="send_again",
        retry_for=0,
    )
    SendMailOperator(task_id="body_files", to=PEOPLE, text_file="body.txt", html_file="body.html", encoding="cp1252")

    # Attachments, images and headers, in every form.
    SendMailOperator(task_id="path", to="a@corp.example", attachments=Path("/srv/a.csv"))
    SendMailOperator(task_id="paths", to="a@corp.example", attachments=FILES)
    SendMailOperator(task_id="string", to="a@corp.example", attachments="a.csv|b.csv")
    SendMailOperator(task_id="open", to="a@corp.example", attachments=[BytesIO(b"x"), FilePattern("/srv/*.csv")])
    SendMailOperator(task_id="names", to="a@corp.example", attachments={"a": b"x", "b": Path("/srv/b"), "c": BytesIO()})
    SendMailOperator(task_id="page", to="a@corp.example", html=Path("/srv/a.html"), text=ObjectStoragePath("s3://b/a"))
    SendMailOperator(task_id="object", to="a@corp.example", attachments=ObjectStoragePath("s3://reports/a.csv"))
    SendMailOperator(task_id="objects", to="a@corp.example", attachments=[ObjectStoragePath("s3://reports/a.csv")])
    SendMailOperator(task_id="images", to="a@corp.example", html="<img src='cid:a.png'>", inline_images=FILES)
    SendMailOperator(task_id="headers", to="a@corp.example", headers=HEADERS, priority="low")

    # The results of other tasks, for an argument and within one.
    report = write_report()
    assert_type(report, XComArg)
    SendMailOperator(
        task_id="results",
        smtpcm_conn_id=report,
        from_address=report,
        to=find_people(),
        subject=report,
        text=report,
        attachments=[report, "terms.pdf"],
        inline_images={"chart": report},
        headers=report,
    )
    SendMailOperator(task_id="result_in_a_list", to=[report, "a@corp.example"], attachments=report)
    only_if = OnlyIfOperator(task_id="only_if", condition="{{ ti.xcom_pull(task_ids='write_report') != '' }}")
    only_if >> shortest

    # Mapped: one task for each recipient. Airflow's own type of `expand` is incomplete.
    SendMailOperator.partial(task_id="mapped", text="x").expand(to=PEOPLE)  # pyright: ignore[reportUnknownMemberType]

    @task.send_mail(to="a@corp.example", subject="Text")
    def text() -> str:
        return "text"

    @task.send_mail(to="a@corp.example")
    def fields() -> dict[str, object]:
        return {"subject": "x", "text": "y", "attachments": FILES}

    @task.send_mail
    def mail() -> Mail:
        return Mail(to="a@corp.example", text="x")

    @task.send_mail
    def message() -> EmailMessage:
        return EmailMessage()

    text() >> fields() >> mail() >> message()
    SendMailOperator(task_id="m1", message=EmailMessage())
    SendMailOperator(task_id="m2", message=b"From: a@corp.example")
    SendMailOperator(task_id="m3", message="/srv/{{ ds }}.eml", to=PEOPLE, envelope_from=SENDER)
    SendMailOperator(task_id="m4", message=MimeMessage(Path("/srv/a.eml"), recipients=PEOPLE, envelope_from="<>"))
    SendMailOperator(task_id="m5", message=ObjectStoragePath("s3://b/a.eml"))
    SendMailOperator(task_id="m6", message=report)

    def send(
        task_id: str, to: AddressesLike, files: AttachmentsLike | None = None, headers: HeaderValues | None = None
    ) -> SendMailOperator:
        """The types of arguments, for a factory of one's own."""
        return SendMailOperator(task_id=task_id, to=to, attachments=files, headers=headers)

    send("factory", PEOPLE, FILES, HEADERS)

    # Wrong types.
    SendMailOperator(task_id="w1", to=5)  # type: ignore[arg-type]  # ty: ignore[invalid-argument-type]
    SendMailOperator(task_id="w2", to=[5])  # type: ignore[list-item]  # ty: ignore[invalid-argument-type]
    SendMailOperator(task_id="w3", attachments=[b"x"])  # type: ignore[list-item]  # ty: ignore[invalid-argument-type]
    SendMailOperator(task_id="w4", attachments=5)  # type: ignore[arg-type]  # ty: ignore[invalid-argument-type]
    SendMailOperator(task_id="w5", headers=["X: 5"])  # type: ignore[arg-type]  # ty: ignore[invalid-argument-type]
    SendMailOperator(task_id="w6", on_refused="skip")  # type: ignore[arg-type]  # ty: ignore[invalid-argument-type]
    SendMailOperator(task_id="w7", retry_for="30")  # type: ignore[arg-type]  # ty: ignore[invalid-argument-type]
    SendMailOperator(task_id="w8", text=b"x")  # type: ignore[arg-type]  # ty: ignore[invalid-argument-type]
    SendMailOperator(task_id="w10", message=5)  # type: ignore[arg-type]  # ty: ignore[invalid-argument-type]
    SendMailOperator("w9", "a@corp.example")  # type: ignore[call-arg]  # ty: ignore[too-many-positional-arguments]
