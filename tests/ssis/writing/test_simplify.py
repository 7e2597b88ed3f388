"""Executables that never run, and property expressions that decide on the shape of a DAG."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_smtpcm.ssis.model import (
    ConstraintValue,
    Container,
    DatabaseConnection,
    EvalOp,
    ExpressionTask,
    ResultSetType,
    Severity,
    SqlResult,
    SqlTask,
)
from airflow_provider_smtpcm.ssis.writing.conversion import DagModule
from tests.ssis.writing.building import constraint, handler, mail, other_task, variable, written

LIMIT = variable("limit", "0", 3)
DATABASE = DatabaseConnection(
    name="DB", id="{db}", connection_string="Data Source=sql.corp.example;Initial Catalog=Sales;"
)


def decisions(module: DagModule) -> set[str]:
    """Return the codes of the decisions."""
    return {one.code for one in module.findings if one.severity is Severity.DECISION}


def after_box(expressions: dict[str, str], *before: Any, **more: Any) -> DagModule:
    """Return a package whose mail follows the success of a container with these property expressions."""
    box = Container(
        name="Box",
        id="{Box}",
        path=("Package", "Box"),
        executables=(other_task("work", ("Package", "Box")),),
        expressions=expressions,
    )
    after = mail("after")
    joined = [constraint(box, after), *(constraint(one, box) for one in before)]
    return written(*before, box, after, constraints=joined, variables=[LIMIT], **more)


@pytest.mark.parametrize(
    "expressions",
    [
        {"ForceExecutionResult": "0"},
        {"ForceExecutionResult": '"Success"'},
        {"MaximumErrorCount": "0"},
        {"MaximumErrorCount": "@[User::limit]"},
        {"MaximumErrorCount": "5000 + @[User::limit]"},
    ],
)
def test_a_forced_result_by_expression_is_honored(expressions: dict[str, str]) -> None:
    """As one that is stored; a note says which value was used."""
    module = after_box(expressions)
    assert decisions(module) == set()
    assert {"property-evaluated", "forced-result"} <= {one.code for one in module.findings}
    assert 'trigger_rule="all_done"' in module.source


def test_an_expression_that_forces_nothing_takes_the_place_of_a_stored_value() -> None:
    """The stored value is that of the developer's machine."""
    before = mail("before", force_result="failure", expressions={"ForceExecutionResult": "-1"})
    after = mail("after")
    module = written(before, after, constraints=[constraint(before, after)])
    assert decisions(module) == set()


@pytest.mark.parametrize("expression", ["@[User::count]", '"often"', "@[User::nowhere]"])
def test_a_forced_result_that_only_a_run_knows_is_a_decision(expression: str) -> None:
    """A DAG cannot change its trigger rules in a run."""
    counts = SqlTask(
        name="Count",
        id="{count}",
        path=("Package", "Count"),
        connection=DATABASE,
        statement="SELECT 1",
        result_set=ResultSetType.SINGLE_ROW,
        results=(SqlResult(name="0", variable="User::count"),),
    )
    box = Container(
        name="Box",
        id="{Box}",
        path=("Package", "Box"),
        executables=(other_task("work", ("Package", "Box")),),
        expressions={"MaximumErrorCount": expression},
    )
    after = mail("after")
    joined = [constraint(counts, box), constraint(box, after)]
    module = written(counts, box, after, constraints=joined, variables=[variable("count", "0", 3)])
    assert "forced-result" in decisions(module)


def test_a_forced_result_by_expression_of_a_container_in_an_event_handler_is_honored() -> None:
    """A mail after the failure of a container that never fails is left out."""
    where = ("Package.EventHandlers[OnError]",)
    work = Container(
        name="Box",
        id="{w}",
        path=(*where, "Box"),
        executables=(other_task("Log", (*where, "Box")),),
        expressions={"MaximumErrorCount": "0"},
    )
    alert = mail("Alert", where)
    on_error = handler("OnError", work, alert, constraints=(constraint(work, alert, value=ConstraintValue.FAILURE),))
    module = written(other_task("Load"), mail("After"), handlers=[on_error])
    assert decisions(module) == set()
    assert "SendMailNotifier(" not in module.source


def assigning(expression: str, *before: Any, **more: Any) -> DagModule:
    """Return a package whose Expression task has this expression for its assignment."""
    task = ExpressionTask(
        name="Set",
        id="{set}",
        path=("Package", "Set"),
        expression='@[User::text] = "cached"',
        expressions={"Expression": expression},
    )
    send = mail(expressions={"Subject": "@[User::text]"})
    joined = [constraint(task, send), *(constraint(one, task) for one in before)]
    variables = [variable("text", "x"), variable("table", "Orders")]
    return written(*before, task, send, constraints=joined, variables=variables, **more)


def test_the_expression_of_an_expression_task_is_the_one_that_its_property_expression_gives() -> None:
    """Not the one that the developer's machine had."""
    module = assigning(r'"@[User::text] = \"Load of " + @[User::table] + "\""')
    assert decisions(module) == set()
    assert "Load of Orders" in module.source
    assert "cached" not in module.source


def test_an_expression_task_whose_expression_only_a_run_knows_is_a_placeholder() -> None:
    """It fails until a task takes its place, as any task that cannot be translated."""
    clock = r'"@[User::text] = \"" + (DT_WSTR, 30)GETDATE() + "\""'
    assert "PlaceholderOperator(" in assigning(clock).source
    module = assigning("@[User::table]", other_task("Q", sets=("User::table",)))
    assert "cached" not in module.source
    assert module.source.count("PlaceholderOperator(") == 2


NEVER_SENT = {"file_attachments": "D:\\x.csv"}


@pytest.mark.parametrize("expression", ["false", "1 == 2", '"a" == "b" && TRUE'])
@pytest.mark.parametrize("eval_op", [EvalOp.EXPRESSION, EvalOp.EXPRESSION_AND_CONSTRAINT])
def test_a_mail_behind_a_constraint_that_is_never_met_is_left_out_with_its_questions(
    expression: str, eval_op: EvalOp
) -> None:
    """And so is what follows it, also after its completion; developers switch a mail off this way."""
    load, on, off, later = other_task("Load"), mail("On"), mail("Off", **NEVER_SENT), mail("Later", **NEVER_SENT)
    joined = [
        constraint(load, on),
        constraint(load, off, eval_op=eval_op, expression=expression),
        constraint(off, later, value=ConstraintValue.COMPLETION),
    ]
    module = written(load, on, off, later, constraints=joined)
    assert decisions(module) == set()
    assert module.source.count("SendMailOperator(") == 1
    notes = [one.where for one in module.findings if one.code == "condition-on-variables"]
    assert notes == ["Package\\Off", "Package\\Later"]
    assert [mail.where for mail in module.mails] == ["Package\\On", "Package\\Off", "Package\\Later"]
    assert [bool(mail.became) for mail in module.mails] == [True, False, False]


def test_a_mail_that_another_constraint_may_reach_stays() -> None:
    """One of several is enough, or the result of the task before."""
    one, other, send = other_task("One"), other_task("Other"), mail()
    joined = [
        constraint(one, send, eval_op=EvalOp.EXPRESSION, expression="false", logical_and=False),
        constraint(other, send, logical_and=False),
    ]
    assert "SendMailOperator(" in written(one, other, send, constraints=joined).source
    either = constraint(one, send, eval_op=EvalOp.EXPRESSION_OR_CONSTRAINT, expression="false")
    assert "SendMailOperator(" in written(one, send, constraints=[either]).source
    both = [replace(each, logical_and=True) for each in joined]
    assert written(one, other, send, constraints=both).source == ""


@pytest.mark.parametrize("expression", ["@[User::limit] == 1", 'GETDATE() < (DT_DATE)"2000-01-01"', "true", "1 +"])
def test_a_mail_whose_constraint_may_be_met_stays(expression: str) -> None:
    """A variable may get another value in a run."""
    load, send = other_task("Load"), mail()
    joined = [constraint(load, send, eval_op=EvalOp.EXPRESSION_AND_CONSTRAINT, expression=expression)]
    assert "SendMailOperator(" in written(load, send, constraints=joined, variables=[LIMIT]).source


def test_what_never_runs_in_a_container_is_left_out() -> None:
    """At any depth."""
    where = ("Package", "Box")
    load, on, off = other_task("Load", where), mail("On", where), mail("Off", where, **NEVER_SENT)
    joined = (constraint(load, off, eval_op=EvalOp.EXPRESSION_AND_CONSTRAINT, expression="false"),)
    box = Container(name="Box", id="{Box}", path=where, executables=(load, on, off), constraints=joined)
    module = written(box)
    assert decisions(module) == set()
    assert module.source.count("SendMailOperator(") == 1
