"""This package, as a DAG uses it: mails from a generator by `send_many`, a file by `send`, rows by the operator."""

from __future__ import annotations

import contextvars
import json
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import jinja2
from airflow.sdk.bases.operator import ExecutorSafeguard

from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
from airflow_provider_smtpcm.mail import Attachment, Mail
from airflow_provider_smtpcm.mail.batch_rendering import BatchRenderer
from airflow_provider_smtpcm.mail.headers import new_message_id
from airflow_provider_smtpcm.merge import messages, sending
from airflow_provider_smtpcm.operators._lineage import Lineage
from airflow_provider_smtpcm.operators.mail_merge import MailMergeOperator
from airflow_provider_smtpcm.smtp import connection_pool, retry, session, tls
from benchmarks.sending.clients import first_use
from benchmarks.sending.clients.order import (
    CONNECTION_ID,
    HOST,
    HTML_TEMPLATE,
    SENDER,
    SUBJECT_TEMPLATE,
    Order,
    addresses,
    rows,
    text,
)

# Otherwise loaded on first use.
LOADED_BEFOREHAND = (connection_pool, messages, retry, sending, session, tls, first_use)
# Airflow loads its plugins when lineage is first asked for; a task runner has done so before the task.
Lineage(SmtpConnectionManagerHook()).add_input("rows.csv")


def environment(order: Order) -> dict[str, str]:
    """Return the Airflow connection, as environment; hide the extra `fast` if the order is without it."""
    if not order.fast:
        sys.modules["pybase64"] = None  # type: ignore[assignment]
    extra: dict[str, Any] = {"ssl_mode": "starttls" if order.tls else "none", "from_address": SENDER}
    if order.binary:
        extra["binary_mime"] = True
    connection = {"conn_type": "smtpcm", "host": HOST, "port": order.port, "extra": extra}
    return {f"AIRFLOW_CONN_{CONNECTION_ID.upper()}": json.dumps(connection)}


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
    ti = SimpleNamespace(dag_id="monthly", run_id="bench", task_id="statements", map_index=-1, try_number=1)
    running = contextvars.copy_context()
    running.run(ExecutorSafeguard.tracker.set, task)
    result: dict[str, Any] = running.run(task.execute, context={"ti": ti})  # type: ignore[typeddict-item]
    accepted: int = result["counts"]["accepted"]
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


WORKS = {"send": send, "attach": attach, "merge": merge, "generate": generate}
