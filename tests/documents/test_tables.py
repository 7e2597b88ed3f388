"""The tables of arguments and of translations are complete: for this package, Airflow's SMTP provider, and Jinja."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_smtpcm.connection_manager import FIELDS, STANDARD_FIELDS
from airflow_provider_smtpcm.notifications.event import Event
from airflow_provider_smtpcm.notifications.send_mail import SendMailNotifier
from airflow_provider_smtpcm.operators.mail_merge import MailMergeOperator
from airflow_provider_smtpcm.operators.send_mail import SendMailOperator
from airflow_provider_smtpcm.testing import Relay
from tests.documents.pages import DOCS, README, table_after, text_of

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from airflow.sdk import DAG

SSIS, STOCK = DOCS / "reference", DOCS / "from-the-smtp-provider.md"


def arguments_of(function: object) -> set[str]:
    """Return the arguments by name, without those that every task has."""
    return set(inspect.signature(function).parameters) - {"self", "args", "kwargs", "context"}


def named_in(cell: str) -> set[str]:
    """Return the words in code."""
    return set(re.findall(r"`([a-z_]+)`", cell))


def test_every_argument_of_an_operator_has_its_row() -> None:
    """And every row its argument; a merge has those of a mail too."""
    mail, merge = arguments_of(SendMailOperator.__init__), arguments_of(MailMergeOperator.__init__)
    rows = {name for row in table_after(DOCS / "sending.md", "## SendMailOperator") for name in named_in(row[0])}
    assert rows == mail
    rows = {name for row in table_after(DOCS / "mail-merge.md", "## Arguments") for name in named_in(row[0])}
    assert rows <= merge
    assert merge - rows <= mail


def test_every_argument_of_the_notifier_has_its_row() -> None:
    """In the second table of its part."""
    text = text_of(DOCS / "alerts.md").split("| argument |", 1)[1].split("\n\n", 1)[0]
    rows = {name for line in text.splitlines()[2:] for name in named_in(line.split(" | ")[0])}
    assert rows == arguments_of(SendMailNotifier.__init__)


def test_the_values_of_alerts_are_those_of_events() -> None:
    """Every name on the page is one of an event."""
    text = text_of(DOCS / "reference/alert-contents.md").split("| `alert.` |", 1)[1].split("\n\n", 1)[0]
    named = {
        word.removeprefix("exception.")
        for line in text.splitlines()[2:]
        for word in re.findall(r"`([^`]+)`", line.split(" | ")[0])
    }
    facts = {field.name for field in fields(Event)} | {"name", "duration", "type", ".name", ".message", ".traceback"}
    assert named
    assert named <= facts


def test_the_arguments_of_the_stock_operator_are_all_translated() -> None:
    """As the installed version has them, into arguments of ours."""
    from airflow.providers.smtp.hooks.smtp import SmtpHook
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier
    from airflow.providers.smtp.operators.smtp import EmailOperator

    for heading, theirs, ours in (
        ("## EmailOperator", EmailOperator, SendMailOperator),
        ("## SmtpNotifier", SmtpNotifier, SendMailNotifier),
    ):
        rows = table_after(STOCK, heading)
        assert {name for row in rows for name in named_in(row[0])} == arguments_of(theirs.__init__)
        # The first word in code of the other column, if any, is ours.
        for row in rows:
            if word := re.match(r"`([a-z_]+)`", row[1]):
                assert word[1] in arguments_of(ours.__init__), row
    for row in table_after(STOCK, "## SmtpHook"):
        for name in re.findall(r"(?:hook\.|^`)(\w+)\(", row[0]):
            assert hasattr(SmtpHook, name) or name == "SmtpHook", row


def test_the_extras_of_the_stock_connection_are_all_translated() -> None:
    """Those of its form, and those that only its code reads; into keys of ours."""
    from airflow.providers.smtp.hooks import smtp

    read = set(re.findall(r'extra(?:_dejson)?\.get\(\s*"(\w+)"', Path(smtp.__file__).read_text(encoding="utf-8")))
    rows = table_after(STOCK, "### Settings of a connection")
    theirs = {word for row in rows for word in re.findall(r"[a-z_0-9]+", row[0])}
    assert read - theirs == set()
    ours = (
        {field.name for field in (*STANDARD_FIELDS, *FIELDS)} | arguments_of(SendMailOperator.__init__) | {"template"}
    )
    for row in rows:
        if row[1].startswith("`") and "smtpcm" not in row[1]:
            assert set(re.findall(r"`([a-z_]+)(?::[^`]*)?`", row[1])) <= ours, row


def test_the_properties_of_the_ssis_connection_manager_are_in_the_form() -> None:
    """By the labels that the page has."""
    labels = {field.label for field in (*STANDARD_FIELDS, *FIELDS)}
    said = {
        word
        for row in table_after(SSIS / "ssis-mapping.md", "## SSIS names and Airflow names")
        for word in re.findall(r"^\*([A-Z][\w ]+)\*", row[1])
    } - {"Timeout"}
    assert said
    assert said <= labels
    assert "Timeout (seconds)" in labels


@pytest.mark.slow
def test_every_jinja_expression_of_the_page_renders(
    run_dag: Callable[[DAG], DagRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a task, with the values of the SSIS package's variables."""
    from airflow.sdk import DAG

    rows = table_after(SSIS / "ssis-expressions.md", "## Write an expression by hand")
    jinja = [re.match(r"`(.+?)`", row[1])[1] for row in rows]
    here = [template for template in jinja if "alert." not in template]
    assert len(here) > 10
    params = {"table": "orders", "rows": 3, "file": "20260102.csv", "name": "Jane  "}
    with Relay() as relay:
        monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(relay.airflow_connection()))
        with DAG(dag_id="expressions", schedule="@daily", params=params) as dag:
            SendMailOperator(task_id="t", from_address="a@corp.example", to="b@corp.example", text="\n".join(here))
        assert str(run_dag(dag).state) == "success"
        [mail] = relay.messages
    lines = mail.message.get_content().splitlines()
    assert len(lines) == len(here)
    assert {"Load of orders", "expressions", "t", "loaded", "20260102", ".csv", "12", "Jane"} <= set(lines)
    assert all(lines)


def test_the_figures_of_the_readme_are_those_of_the_table() -> None:
    """Rounded; a new run of the benchmarks may require new ones."""
    rows = {row[0]: row for row in table_after(DOCS / "performance.md", "# Performance")}
    small, large = rows["1 KiB, 1 connection, 0 ms"], rows["1 GiB attachment"]
    rate, stock = float(small[1].split()[0].replace(",", "")), float(small[2])
    said = " ".join(text_of(README).split())
    assert f"{round(rate, -3):,.0f} mails a second, of 1 KiB each" in said
    assert f"{stock:.0f} times what Airflow's own SMTP provider does" in said
    assert f"{round(float(large[1].split()[0]), -2):.0f} MiB a second, in {large[-1]} of memory" in said
