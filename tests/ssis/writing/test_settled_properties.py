"""Property expressions that decide on the shape of a DAG; the stored values are those of the developer's machine."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_smtpcm.ssis.model import (
    ConstraintValue,
    Container,
    DatabaseConnection,
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
