"""Airflow's own SMTP provider: its operator as a task runs it, and its hook in the two usual ways.

What Airflow does around a task is not counted: no scheduling, no process, no rendering of fields. Templates are
compiled once, which Airflow does not do.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterable
from typing import Any

import jinja2
from airflow.providers.smtp.hooks.smtp import SmtpHook
from airflow.providers.smtp.operators.smtp import EmailOperator
from airflow.sdk.bases.operator import ExecutorSafeguard

from benchmarks.sending.clients import first_use
from benchmarks.sending.clients.order import (
    CONNECTION_ID,
    HTML_TEMPLATE,
    SENDER,
    SUBJECT_TEMPLATE,
    Order,
    addresses,
    rows,
    smtp_environment,
    text,
)

LOADED_BEFOREHAND = (first_use,)
environment = smtp_environment


def operator(order: Order) -> int:
    """Run a task for each mail."""
    return _tasks(order, _mails(order))


def hook(order: Order) -> int:
    """Use the hook as documented: `with` around each mail, so each has a connection of its own."""
    for mail in _mails(order):
        with SmtpHook(CONNECTION_ID) as smtp:
            smtp.send_email_smtp(**mail)
    return order.mails


def kept(order: Order) -> int:
    """Use one hook for all mails, so one connection."""
    with SmtpHook(CONNECTION_ID) as smtp:
        for mail in _mails(order):
            smtp.send_email_smtp(**mail)
    return order.mails


def merge(order: Order) -> int:
    """Run a task for each row."""
    return _tasks(order, _merged(order))


def generate(order: Order) -> int:
    """Render the mails of a merge, and send none."""
    smtp, written = SmtpHook(CONNECTION_ID), 0
    for mail in _merged(order):
        message, _ = smtp._build_mime_message(mail_from=SENDER, **mail)  # noqa: SLF001 - it has no public name
        written += len(message.as_string())
    assert written > order.mails * 20_000, written
    return order.mails


def _tasks(order: Order, mails: Iterable[dict[str, Any]]) -> int:
    for number, mail in enumerate(mails):
        task = EmailOperator(task_id=f"mail_{number}", conn_id=CONNECTION_ID, **mail)
        running = contextvars.copy_context()  # as Airflow's task runner does
        running.run(ExecutorSafeguard.tracker.set, task)
        running.run(task.execute, context={})
    return order.mails


def _mails(order: Order) -> Iterable[dict[str, Any]]:
    files = [order.file] if order.file else None
    for number in range(order.mails):
        yield {
            "to": addresses(order, number),
            "subject": f"Mail {number}",
            "html_content": text(order, number),
            "files": files,
        }


def _merged(order: Order) -> Iterable[dict[str, Any]]:
    subject, html = jinja2.Template(SUBJECT_TEMPLATE), jinja2.Template(HTML_TEMPLATE)
    for row in rows(order):
        yield {
            "to": row["address"],
            "subject": subject.render(row=row),
            "html_content": html.render(row=row),
            "files": [order.file],
        }


WORKS = {"operator": operator, "hook": hook, "kept": kept, "merge": merge, "generate": generate}
