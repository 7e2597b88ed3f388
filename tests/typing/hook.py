"""A task that sends through the hook and reads the deliveries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from email.message import EmailMessage
from pathlib import Path
from typing import assert_type

from airflow.sdk import ObjectStoragePath, task

from airflow_provider_smtpcm import (
    Attachment,
    Delivery,
    Mail,
    MailError,
    Priority,
    SmtpConnectionManager,
    SmtpConnectionManagerHook,
)
from airflow_provider_smtpcm.connection_manager import AuthMode, SslMode
from airflow_provider_smtpcm.errors import OutcomeUnknownError, Phase, Reply
from airflow_provider_smtpcm.mail import Address, MimeMessage
from airflow_provider_smtpcm.smtp import Outcome


def make_mails() -> Iterator[Mail]:
    mail = Mail(to="a@corp.example", subject="x", text="y")
    assert_type(mail.to, tuple[Address, ...])
    assert_type(mail.attachments, tuple[Attachment, ...])
    assert_type(mail.priority, Priority)
    yield mail
    yield Mail(
        from_address=mail.to[0],
        to=["a@corp.example", *mail.to],
        cc=None,
        attachments=[Path("/srv/a.csv"), "b.csv", ObjectStoragePath("s3://reports/a.csv"), Attachment("/srv/c.csv")],
        inline_images={"logo": Path("/srv/logo.png")},
        priority="high",
        headers={"X-Run": "5"},
    )
    yield Mail(to="a@corp.example", attachments=Path("/srv/a.csv"), headers=[("X-Run", "5"), ("X-Run", "6")])


@task
def send() -> list[str]:
    hook = SmtpConnectionManagerHook("smtpcm_default")
    manager = hook.connection_manager
    assert_type(manager, SmtpConnectionManager)
    assert_type(manager.host, str)
    assert_type(manager.port, int)
    assert_type(manager.auth_mode, AuthMode)
    assert_type(manager.connection_string, str)
    assert_type(SmtpConnectionManager.from_connection_string("SmtpServer=mail.corp.example;"), SmtpConnectionManager)
    assert_type(SmtpConnectionManager(host="mail.corp.example", ssl_mode=SslMode.NONE), SmtpConnectionManager)

    try:
        delivery = hook.send(Mail(to="a@corp.example", text="x"))
    except OutcomeUnknownError:
        return []
    except MailError as error:
        assert_type(error.retryable, bool)
        assert_type(error.phase, Phase | None)
        assert_type(error.reply, Reply | None)
        assert_type(error.remedy, str)
        raise
    assert_type(delivery, Delivery)
    assert_type(delivery.outcome, Outcome)
    assert_type(delivery.accepted, tuple[str, ...])
    assert_type(delivery.refused, Mapping[str, Reply])
    assert_type(delivery.error, MailError | None)
    assert_type(delivery.to_dict(), dict[str, object])

    deliveries: Iterator[Delivery] = hook.send_many(make_mails(), connections=2, rate_limit=100)
    refused = [address for each in deliveries for address in each.refused]
    for each in hook.send_many([Mail(to="a@corp.example"), EmailMessage(), b"x", Path("/srv/a.eml")]):
        assert_type(each, Delivery)
    assert_type(hook.send(EmailMessage()), Delivery)
    assert_type(hook.send(MimeMessage(b"x", recipients="a@corp.example")), Delivery)
    with hook.get_conn() as session:
        session.noop()
    is_ok, answer = hook.test_connection()
    assert_type(is_ok, bool)
    assert_type(answer, str)
    return refused


def wrong() -> None:
    hook = SmtpConnectionManagerHook("smtpcm_default")
    hook.send("a mail")  # type: ignore[arg-type]  # ty: ignore[invalid-argument-type]
    hook.send_many(Mail(to="a@corp.example"))  # type: ignore[arg-type]  # ty: ignore[invalid-argument-type]
    Mail("a@corp.example")  # type: ignore[call-arg]  # ty: ignore[too-many-positional-arguments]
    Mail(to=5)  # type: ignore[arg-type]  # ty: ignore[invalid-argument-type]
    Mail(to="a@corp.example", attachments=[5])  # type: ignore[list-item]  # ty: ignore[invalid-argument-type]
    Mail(to="a@corp.example", headers={"X-Run": 5})  # type: ignore[arg-type]  # ty: ignore[invalid-argument-type]
    Mail(to="a@corp.example", subjekt="x")  # type: ignore[call-arg]  # ty: ignore[unknown-argument]
    Mail(to="a@corp.example").subject = "x"  # type: ignore[misc]  # ty: ignore[invalid-assignment]
    _ = Priority.URGENT  # type: ignore[attr-defined]  # ty: ignore[missing-attribute]
