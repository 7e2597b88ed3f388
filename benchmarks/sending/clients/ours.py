"""This package, as a DAG uses it: one mail by the operator or the hook, mails by `send_many`, rows by the operator."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import jinja2

from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
from airflow_provider_smtpcm.ledger import journal, ledger
from airflow_provider_smtpcm.mail import Attachment, Mail
from airflow_provider_smtpcm.mail.headers import new_message_id
from airflow_provider_smtpcm.mail.render import BatchRenderer
from airflow_provider_smtpcm.merge import messages, sending
from airflow_provider_smtpcm.operators._lineage import Lineage
from airflow_provider_smtpcm.operators.mail_merge import MailMergeOperator
from airflow_provider_smtpcm.operators.send_mail import SendMailOperator
from airflow_provider_smtpcm.smtp import connection_pool, retry, session, tls
from benchmarks.sending.clients import first_use
from benchmarks.sending.clients.order import (
    CONNECTION_ID,
    HTML_TEMPLATE,
    SENDER,
    SUBJECT_TEMPLATE,
    Order,
    addresses,
    rows,
    smtpcm_environment,
    text,
)
from benchmarks.sending.clients.task import execute

# Otherwise loaded on first use.
LOADED_BEFOREHAND = (connection_pool, journal, ledger, messages, retry, sending, session, tls, first_use)
# Airflow loads its plugins when lineage is first asked for; a task runner has done so before the task.
Lineage(SmtpConnectionManagerHook()).add_input("rows.csv")


def environment(order: Order) -> dict[str, str]:
    """Return the Airflow connection, as environment; hide the extra `fast` if the order is without it."""
    if not order.fast:
        sys.modules["pybase64"] = None  # type: ignore[assignment]
    return smtpcm_environment(order)


def operator(order: Order) -> int:
    """Run a task for each mail."""
    for number in range(order.mails):
        task = SendMailOperator(
            task_id=f"mail_{number}",
            smtpcm_conn_id=CONNECTION_ID,
            to=addresses(order, number),
            subject=f"Mail {number}",
            text=text(order, number),
        )
        if (outcome := execute(task, order)["outcome"]) != "accepted":
            raise RuntimeError(f"mail {number}: {outcome}")
    return order.mails


def hook(order: Order) -> int:
    """Use a hook for each mail, so each has a connection of its own."""
    for number in range(order.mails):
        mail = Mail(to=addresses(order, number), subject=f"Mail {number}", text=text(order, number))
        if (outcome := SmtpConnectionManagerHook(CONNECTION_ID).send(mail).outcome) != "accepted":
            raise RuntimeError(f"mail {number}: {outcome}")
    return order.mails


def send(order: Order) -> int:
    """Send mails from a generator by `send_many`."""
    return _accepted(_mails(order), order.connections)


def attach(order: Order) -> int:
    """Send mails with an attachment, each by `send`."""
    files = (Mail(to=addresses(order, n), subject=f"Mail {n}", attachments=order.file) for n in range(order.mails))
    return _accepted(files, order.connections)


def merge(order: Order) -> int:
    """Run a task of `MailMergeOperator`, as Airflow does."""
    task = MailMergeOperator(
        task_id="statements",
        smtpcm_conn_id=CONNECTION_ID,
        rows=order.rows,
        to="{{ row.address }}",
        subject=SUBJECT_TEMPLATE,
        html=HTML_TEMPLATE,
        attachments=order.file,
        connections=order.connections,
    )
    accepted: int = execute(task, order)["counts"]["accepted"]
    return accepted


def generate(order: Order) -> int:
    """Render the mails of a merge, and send none."""
    subject, html = jinja2.Template(SUBJECT_TEMPLATE), jinja2.Template(HTML_TEMPLATE)
    renderer = BatchRenderer()
    attachments = (Attachment(order.file),)  # built once, as by the operator
    written = 0
    for row in rows(order):
        mail = Mail(
            from_address=SENDER,
            to=row["address"],
            subject=subject.render(row=row),
            html=html.render(row=row),
            attachments=attachments,
            message_id=new_message_id("corp.example"),
        )
        written += len(b"".join(renderer.render(mail)))
    assert written > order.mails * 20_000, written
    return order.mails


def _mails(order: Order) -> Iterator[Mail]:
    for number in range(order.mails):
        yield Mail(to=addresses(order, number), subject=f"Mail {number}", text=text(order, number))


def _accepted(mails: Iterator[Mail], connections: int) -> int:
    sent = 0
    for delivery in SmtpConnectionManagerHook(CONNECTION_ID).send_many(mails, connections=connections):
        if delivery.outcome != "accepted":
            raise RuntimeError(f"mail {delivery.index}: {delivery.outcome}: {delivery.error or delivery.reply}")
        sent += 1
    return sent


WORKS = {"operator": operator, "hook": hook, "send": send, "attach": attach, "merge": merge, "generate": generate}
