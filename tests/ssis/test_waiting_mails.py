"""Which mails wait for a decision: those at its place or below it, or those that use what it is about."""

from __future__ import annotations

import pytest

from airflow_provider_smtpcm.ssis.findings import Finding, Severity
from airflow_provider_smtpcm.ssis.model import (
    Container,
    DatabaseConnection,
    EvalOp,
    EventHandler,
    OtherTask,
    Package,
    PrecedenceConstraint,
    SendMailTask,
    SmtpConnection,
    SqlParameter,
    SqlResult,
    SqlTask,
    Variable,
)
from airflow_provider_smtpcm.ssis.waiting_mails import WaitingMails

RELAY = SmtpConnection(name="Relay", id="1", expressions={"SmtpServer": "@[$Project::Server]"})


def mail(
    *path: str, disabled: bool = False, connection: SmtpConnection | None = None, **expressions: str
) -> SendMailTask:
    """Return a Send Mail task; its id is its name."""
    return SendMailTask(
        name=path[-1], id=path[-1], path=path, disabled=disabled, connection=connection, expressions=expressions
    )


def package_of() -> Package:
    """Return a package in which a query decides about two mails, beside two others and one in an event handler."""
    query = SqlTask(
        name="Query",
        id="Query",
        path=("Package", "Query"),
        connection=DatabaseConnection(name="Sales", id="2"),
        parameters=(SqlParameter(name="0", variable="User::Day"),),
        results=(SqlResult(name="0", variable="User::To"),),
    )
    script = OtherTask(name="Script", id="Script", path=("Package", "Script"))
    sequence = Container(
        name="S",
        id="S",
        path=("Package", "S"),
        executables=(mail("Package", "S", "Third"), mail("Package", "S", "Off", disabled=True)),
    )
    handler = EventHandler(
        event_name="OnError",
        owner=("Package",),
        executables=(mail("Package.EventHandlers[OnError]", "Alert", connection=RELAY),),
    )
    constraints = (
        PrecedenceConstraint(before="Query", after="First"),
        PrecedenceConstraint(
            before="First", after="Script", expression="@Count > 0", eval_op=EvalOp.EXPRESSION_AND_CONSTRAINT
        ),
        PrecedenceConstraint(before="Script", after="S"),
    )
    root = Container(
        name="p",
        id="p",
        path=("Package",),
        executables=(
            query,
            mail("Package", "First", ToLine="@[User::List]"),
            script,
            sequence,
            mail("Package", "Alone", Subject="@[$Package::Name]"),
        ),
        constraints=constraints,
        event_handlers=(handler,),
        variables=(Variable(namespace="User", name="List", expression='@[User::To] + ";x@y"'),),
    )
    return Package(name="p", id="p", path="p.dtsx", root=root)


FIRST, THIRD, ALONE = "Package\\First", "Package\\S\\Third", "Package\\Alone"
ALERT = "Package.EventHandlers[OnError]\\Alert"


@pytest.mark.parametrize(
    ("where", "waiting"),
    [
        ("Package", {FIRST, THIRD, ALONE, ALERT}),
        ("Package\\S", {THIRD}),
        ("package\\s\\THIRD", {THIRD}),
        (ALERT, {ALERT}),
        ("User::To", {FIRST}),
        ("User::List", {FIRST}),
        ("$Package::Name", {ALONE}),
        ("User::Count", {THIRD}),
        ("User::Day", {FIRST, THIRD}),
        ("User::Unused", set()),
        ("$Project::Server", {ALERT}),
        ("Connection managers\\relay", {ALERT}),
        ("Connection managers\\Other", set()),
        ("Package\\Script", set()),
        ("Package\\Query", {FIRST}),
        ("Connection managers\\sales", {FIRST}),
    ],
)
def test_the_mails_at_a_place(where: str, waiting: set[str]) -> None:
    """Below an executable; that use a variable, also by another one; or that come after what uses it."""
    assert WaitingMails(package_of()).find_at(where) == waiting


def test_all_mails_wait_for_a_decision_about_none_in_particular() -> None:
    """Such as one about a script."""
    decision = Finding(code="x", severity=Severity.DECISION, where="Package\\Script", text="x")
    assert WaitingMails(package_of()).find(decision) == {FIRST, THIRD, ALONE, ALERT}
