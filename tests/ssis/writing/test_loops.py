"""Loops whose iterations are known: mail merges and mapped task groups, as generated code and in Airflow."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from airflow import __version__ as airflow_version

from airflow_provider_smtpcm.ssis.findings import Finding
from airflow_provider_smtpcm.ssis.model import (
    ConstraintValue,
    Container,
    ContainerKind,
    DatabaseConnection,
    DatabaseKind,
    EvalOp,
    Executable,
    ForeachLoop,
    ForLoop,
    ResultSetType,
    SendMailTask,
    Severity,
    SqlParameter,
    SqlResult,
    SqlTask,
    Variable,
)
from airflow_provider_smtpcm.ssis.writing.conversion import ConversionOptions, DagModule
from airflow_provider_smtpcm.testing import Relay
from tests.airflow_database import forget_dag
from tests.ssis.writing.building import codes, constraint, handler, mail, other_task, variable, written
from tests.ssis.writing.test_dag_module import lint

PATH = ("Package", "Each")
ITEMS = (("a@corp.example", "3"), ("b@corp.example;c@corp.example", "4"))
QUERY = SqlTask(
    name="List",
    id="{query}",
    path=("Package", "List"),
    connection=DatabaseConnection(
        name="Sales", id="{db}", kind=DatabaseKind.ODBC, connection_string="Dsn=sales;Uid=etl;"
    ),
    statement="SELECT address, owed FROM people",
    result_set=ResultSetType.FULL,
    results=(SqlResult(name="0", variable="User::People"),),
)
ROWS = ForeachLoop(enumerator="ADO", variable="User::People", mappings=((0, "User::Address"), (1, "User::Owed")))
OVER_ITEMS = ForeachLoop(enumerator="Item", mappings=((0, "User::Address"), (1, "User::Owed")), items=ITEMS)
COUNTING = ForLoop(initialize="@Owed = 1", condition="@Owed <= @Last", assign="@Owed = @Owed + 1")
VARIABLES = [variable("People", None, 13), variable("Address"), variable("Owed", "0", 3), variable("Last", "3", 3)]


def loop(*executables: Executable, over: ForeachLoop | ForLoop = OVER_ITEMS, **more: Any) -> Container:
    """Return a loop with these executables."""
    is_foreach = isinstance(over, ForeachLoop)
    defaults: dict[str, Any] = {
        "name": "Each",
        "id": "{each}",
        "path": PATH,
        "kind": ContainerKind.FOREACH_LOOP if is_foreach else ContainerKind.FOR_LOOP,
        "foreach_loop" if is_foreach else "for_loop": over,
    }
    return Container(executables=executables, **(defaults | more))


def reminder(**more: Any) -> SendMailTask:
    """Return a mail that reads both variables of the loop."""
    expressions = {"ToLine": "@[User::Address]", "Subject": '"You owe " + (DT_WSTR, 9)@[User::Owed]'}
    return mail("Remind", PATH, **{"expressions": expressions, **more})


def numbered(*path: str, **more: Any) -> SendMailTask:
    """Return a mail with the number of a For loop in its subject."""
    return mail("Number", path or PATH, expressions={"Subject": '"Number " + (DT_WSTR, 9)@[User::Owed]'}, **more)


def find(module: DagModule, code: str) -> list[Finding]:
    """Return the findings with this code."""
    return [one for one in module.findings if one.code == code]


def write(*executables: Executable, variables: list[Variable] | None = None, **more: Any) -> DagModule:
    """Return the module of a package with the variables of the loops; placeholders succeed."""
    options = ConversionOptions(placeholders_pass=True)
    return written(*executables, variables=variables or VARIABLES, options=options, **more)


def write_over_rows(each: Container, query: SqlTask = QUERY, **more: Any) -> DagModule:
    """Return the module of a package with a query before the loop."""
    return write(query, each, constraints=[constraint(query, each)], **more)


def assert_runs_once(module: DagModule) -> None:
    """The loop is a decision, as its iterations are not known."""
    assert [one.severity for one in find(module, "loop-runs-once")] == [Severity.DECISION]
    assert "MailMergeOperator(" not in module.source
    assert "expand_kwargs(\n" not in module.source


# --- Generated code


def test_a_mail_for_each_row_of_a_query_is_a_merge() -> None:
    """The query returns the rows with the names of the variables."""
    module = write_over_rows(loop(reminder(), over=ROWS))
    assert codes(module.findings) == {"loop-became-merge"}
    assert {one.severity for one in module.findings} == {Severity.NOTE}
    assert "rows=list_2.output" in module.source  # `list` is a name of Python
    assert 'output_processor=result_rows(\n            columns={\n                "Address": 0,' in module.source
    assert "multiple_outputs" not in module.source
    assert 'to="{{ row.Address }}"' in module.source
    assert "ssis.convert(row.Owed, 'DT_I4')" in module.source
    assert "SendMailOperator(" not in module.source
    assert [one.became for one in module.mails] == ["task each"]


def test_two_loops_share_the_rows_of_a_query() -> None:
    """The query returns the columns of both."""
    second = loop(
        mail("Other", ("Package", "Again"), expressions={"Subject": "@[User::Name]"}),
        over=replace(ROWS, mappings=((2, "User::Name"),)),
        name="Again",
        id="{again}",
        path=("Package", "Again"),
    )
    first = loop(reminder(), over=ROWS)
    module = write(
        QUERY,
        first,
        second,
        constraints=[constraint(QUERY, first), constraint(first, second)],
        variables=[*VARIABLES, variable("Name")],
    )
    assert len(find(module, "loop-became-merge")) == 2
    assert '"Address": 0,\n                "Owed": 1,\n                "Name": 2,' in module.source


@pytest.mark.parametrize(
    ("is_group", "columns", "used"),
    [
        (False, {"Address": 0, "Address_2": 2, "Owed": 1}, ["{{ row.Address }}", "{{ row.Address_2 }}"]),
        (True, {"address": 0, "address_2": 2, "owed": 1}, ['"User::Address": address,', '"User::Address": address_2,']),
    ],
)
def test_two_loops_may_read_different_columns_into_one_variable(
    is_group: bool, columns: dict[str, int], used: list[str]
) -> None:
    """Each loop has the addresses of its own column, whether it is a merge or a group."""

    def reminders(name: str, *mappings: tuple[int, str]) -> Container:
        path = ("Package", name)
        executables = [mail("Remind", path, expressions={"ToLine": "@[User::Address]"})]
        executables += [other_task("Log", path)] if is_group else []
        over = replace(ROWS, mappings=mappings)
        return loop(*executables, over=over, name=name, id=f"{{{name}}}", path=path)

    first = reminders("Private", (0, "User::Address"))
    second = reminders("Office", (2, "User::Address"), (1, "User::Owed"))
    module = write(QUERY, first, second, constraints=[constraint(QUERY, first), constraint(first, second)])
    found = re.search(r"result_rows\(\s+columns=(\{[^}]*\})", module.source)
    assert found is not None
    assert ast.literal_eval(found[1]) == columns
    assert all(module.source.count(text) == 1 for text in used)


@pytest.mark.parametrize(
    "change",
    [
        {"over": replace(ROWS, variable="User::Gone")},
        {"over": replace(ROWS, enumeration="EnumerateTables")},
        {"over": replace(ROWS, mappings=((0, "User::Gone"),))},
        {"over": replace(ROWS, expressions={"Variable": "@[User::Address]"})},
        {"force_result": "success"},
        {"maximum_errors": 0},
    ],
)
def test_a_loop_over_unknown_rows_runs_once(change: dict[str, Any]) -> None:
    """The variable, the enumeration, a mapping or the outcome is not what the import understands."""
    assert_runs_once(write_over_rows(loop(reminder(), **{"over": ROWS, **change})))


@pytest.mark.parametrize(
    "query",
    [
        replace(QUERY, result_set=ResultSetType.NONE, results=()),
        replace(QUERY, parameters=(SqlParameter(name="0", variable="User::Owed", direction="Output"),)),
        replace(QUERY, disabled=True),
    ],
)
def test_a_loop_over_the_rows_of_no_query_runs_once(query: SqlTask) -> None:
    """It returns no rows, or other values with them, or does not run."""
    assert_runs_once(write_over_rows(loop(reminder(), over=ROWS), query))


def test_a_placeholder_for_the_query_says_which_rows_it_must_return() -> None:
    """Such a query is one whose timeout comes from an expression."""
    query = replace(QUERY, expressions={"TimeOut": "60"})
    module = write_over_rows(loop(reminder(), over=ROWS), query)
    assert "rows=list_2.output" in module.source
    (found,) = find(module, "placeholder-task")
    assert "a list of mappings with the keys 'Address', 'Owed'" in found.text


def test_a_loop_that_does_not_follow_its_query_runs_once() -> None:
    """Nor one whose rows a second task may set."""
    each = loop(reminder(), over=ROWS)
    assert_runs_once(write(QUERY, each))
    script = other_task("Script", sets=("User::People",))
    assert_runs_once(write(QUERY, script, each, constraints=[constraint(QUERY, each), constraint(script, each)]))


def test_items_with_a_mail_are_a_merge_over_rows_of_values() -> None:
    """Values have the types of their variables; text in them is not a template."""
    items = (("{{ a }}@corp.example", "3"),)
    module = write(loop(reminder(), over=replace(OVER_ITEMS, items=items)))
    assert codes(module.findings) == {"loop-became-merge"}
    assert '"Address": "{{ a }}@corp.example",\n                "Owed": 3,' in module.source


ATTACHING = {"FileAttachments": "@[User::Address]"}


@pytest.mark.parametrize("is_group", [False, True])
def test_a_path_from_a_row_of_a_query_is_asked_about(is_group: bool) -> None:
    """It exists only in a run, which fails for a Windows path that nothing maps."""
    more = (other_task("Script", PATH),) if is_group else ()
    each = loop(reminder(expressions=ATTACHING), *more, over=ROWS)
    module = write_over_rows(each)
    (found,) = find(module, "unmapped-path")
    assert found.severity is Severity.DECISION
    assert "'Each' (foreach loop) sets User::Address in each run" in found.text
    options = ConversionOptions(placeholders_pass=True, path_map=((r"E:\in", "/srv/in"),))
    module = written(QUERY, each, variables=VARIABLES, options=options, constraints=[constraint(QUERY, each)])
    (note,) = find(module, "path-mapped-in-each-run")
    assert "The task fails if it is another Windows path" in note.text
    assert "'User::Address') | safe }}" in module.source.replace('"\n            "', "")


@pytest.mark.parametrize("is_group", [False, True])
def test_the_root_of_a_path_in_an_item_is_asked_for(is_group: bool) -> None:
    """As if it stood in the mail."""
    more = (other_task("Script", PATH),) if is_group else ()
    items = (("D:\\out\\a.csv", "3"), ("/srv/b.csv", "4"))
    module = write(loop(reminder(expressions=ATTACHING), *more, over=replace(OVER_ITEMS, items=items)))
    (found,) = find(module, "unmapped-path")
    assert found.question is not None
    assert found.question.key == "path D:\\"
    assert "ssis.worker_paths(" in module.source


def test_a_value_of_another_type_or_a_secret_is_not_written() -> None:
    """Such items keep the decision."""
    assert_runs_once(write(loop(reminder(), over=replace(OVER_ITEMS, items=(("a@corp.example", "x"),)))))
    secret = replace(OVER_ITEMS, mappings=((0, "User::Password"),), items=(("hunter2",),))
    module = write(
        loop(mail("Remind", PATH, expressions={"Subject": "@[User::Password]"}), over=secret),
        variables=[variable("Password")],
    )
    assert_runs_once(module)
    assert "hunter2" not in module.source


def test_a_counting_loop_with_a_mail_is_a_merge() -> None:
    """Its bound is a variable that nothing sets."""
    module = write(loop(numbered(), over=COUNTING))
    assert "loop-became-merge" in codes(module.findings)
    assert [f'"Owed": {number},' in module.source for number in range(5)] == [False, True, True, True, False]


@pytest.mark.parametrize(
    "over",
    [
        ForLoop(condition="@Owed < 3"),
        ForLoop(initialize="@Owed = 0", condition="@Owed < @Gone", assign="@Owed = @Owed + 1"),
        ForLoop(initialize="@Owed = 0", condition="@Owed < 3", assign="@Last = @Last + 1"),
        ForLoop(initialize="@Owed = 0", condition="@Owed < 3", assign="@Owed = 1 / 0"),
        ForLoop(initialize="@Owed = 0", condition="true", assign="@Owed = @Owed + 1"),
        ForLoop(initialize="@Owed = 5", condition="@Owed < 3", assign="@Owed = @Owed + 1"),
    ],
)
def test_a_for_loop_without_constant_bounds_runs_once(over: ForLoop) -> None:
    """Without expressions, without end, without an iteration, or over what is not known."""
    assert_runs_once(write(loop(numbered(), over=over)))


@pytest.mark.parametrize("name", ["InitExpression", "EvalExpression", "AssignExpression"])
def test_a_for_loop_with_a_property_expression_runs_once(name: str) -> None:
    """Its own expressions are then what the developer's machine evaluated last."""
    text = '"@Owed <= " + (DT_WSTR, 9)@[User::Last]'
    assert_runs_once(write(loop(numbered(), over=COUNTING, expressions={name: text})))


def test_a_for_loop_whose_bound_a_task_sets_runs_once() -> None:
    """Its iterations are known only then."""
    script, each = other_task("Script", sets=("User::Last",)), loop(numbered(), over=COUNTING)
    assert_runs_once(write(script, each, constraints=[constraint(script, each)]))


def test_a_loop_with_more_than_a_mail_is_a_mapped_group() -> None:
    """Its tasks read what the same iteration set."""
    script = other_task("Script", PATH, sets=("User::Note",))
    remind = reminder(message_source="", expressions={"Subject": "@[User::Address] + @[User::Note]"})
    module = write(
        loop(script, remind, constraints=(constraint(script, remind),)), variables=[*VARIABLES, variable("Note")]
    )
    assert "loop-became-group" in codes(module.findings)
    assert all(one.severity is Severity.NOTE for one in module.findings)
    assert "def iteration(address, owed):" in module.source
    assert "iteration.expand_kwargs(" in module.source
    assert "ssis.variable(ti, 'User::Address', ['each.row'], '', 'DT_WSTR')" in module.source
    assert "ssis.variable(ti, 'User::Note', ['each.script'], '', 'DT_WSTR')" in module.source


def test_what_another_task_reads_after_the_loop_makes_it_a_group() -> None:
    """A merge leaves no variables, a group those of its last iteration; a second loop sets its own."""
    each, after = loop(reminder()), mail("After", expressions={"Subject": "@[User::Address]"})
    module = write(each, after, constraints=[constraint(each, after)])
    assert "loop-became-group" in codes(module.findings)
    path = ("Package", "Again")
    again = loop(
        mail("Again", path, expressions={"Subject": "@[User::Address]"}), name="Again", id="{again}", path=path
    )
    module = write(each, again, constraints=[constraint(each, again)])
    assert len(find(module, "loop-became-merge")) == 2


def test_a_variable_may_be_called_like_an_argument_of_airflow() -> None:
    """Airflow passes the values of an iteration together with arguments of its own."""
    over = replace(OVER_ITEMS, mappings=((0, "User::Self"), (1, "User::tg_factory")))
    note = mail("Note", PATH, expressions={"Subject": "@[User::Self] + @[User::tg_factory]"})
    module = write(
        loop(other_task("Script", PATH), note, over=over), variables=[variable("Self"), variable("tg_factory")]
    )
    space: dict[str, Any] = {"__name__": "dag_module"}
    exec(compile(module.source, module.file_name, "exec"), space)  # noqa: S102 - it is what Airflow does
    assert "each.note" in space["dag"].task_dict


@pytest.mark.parametrize(
    "change",
    [
        {"expressions": {"Disable": "@[User::Owed] == 3"}},
        {"force_result": "success"},
        {"event_handlers": (handler("OnError", mail("Alert", (*PATH, "h")), owner=(*PATH, "Remind")),)},
    ],
)
def test_a_mail_that_not_every_iteration_sends_is_in_a_group(change: dict[str, Any]) -> None:
    """Its condition, its outcome and its events belong to one iteration."""
    module = write(loop(mail("Remind", PATH, **change)))
    assert "loop-became-group" in codes(module.findings)


def test_disabled_executables_do_not_count() -> None:
    """The loop still holds only a mail."""
    module = write(loop(reminder(), other_task("Off", PATH, disabled=True), mail("Old", PATH, disabled=True)))
    assert codes(module.findings) == {"loop-became-merge"}


def test_an_iteration_that_needs_the_one_before_runs_once() -> None:
    """Because a task adds to a variable, or leaves that of an earlier iteration."""
    total = other_task("Add", PATH, sets=("User::Note",), reads=("User::Note",))
    variables = [*VARIABLES, variable("Note")]
    assert_runs_once(write(loop(total, reminder()), variables=variables))
    script = other_task("Add", PATH, sets=("User::Note",), updates=("User::Note",))
    assert_runs_once(write(loop(script, reminder()), variables=variables))
    note = reminder(expressions={"Subject": "@[User::Note]"})
    once = other_task("Once", PATH, sets=("User::Note",))
    between = other_task("Between", PATH)
    assert_runs_once(write(loop(other_task("Next", PATH, sets=("User::Owed",)), reminder())))
    either = (constraint(between, note, logical_and=False), constraint(once, note, logical_and=False))
    assert_runs_once(write(loop(between, once, note, constraints=either), variables=variables))


@pytest.mark.parametrize("more", [{}, {"eval_op": EvalOp.EXPRESSION, "expression": '@[User::Note] == ""'}])
def test_what_runs_only_after_a_setter_reads_the_value_of_its_iteration(more: dict[str, Any]) -> None:
    """Also under a condition, behind a third task, and if the setter is in a Sequence container."""
    variables = [*VARIABLES, variable("Note")]
    path = (*PATH, "Box")
    setter, between = other_task("Set", path, sets=("User::Note",)), other_task("Between", PATH)
    box = Container(name="Box", id="{box}", path=path, executables=(setter,))
    note = reminder(expressions={"Subject": "@[User::Note]"})
    each = loop(box, between, note, constraints=(constraint(box, between), constraint(between, note, **more)))
    assert "loop-became-group" in codes(write(each, variables=variables).findings)
    may_skip = replace(box, executables=(replace(setter, expressions={"Disable": "@[User::Owed] == 3"}),))
    each = loop(may_skip, between, note, constraints=(constraint(may_skip, between), constraint(between, note, **more)))
    assert_runs_once(write(each, variables=variables))


def test_a_loop_in_a_mapped_group_is_a_merge_or_runs_once() -> None:
    """Airflow does not map a group inside a mapped one."""
    path = (*PATH, "Inner")
    inner_mail = mail("Inner mail", path, expressions={"Subject": "@[User::Address] + @[User::Name]"})
    over = ForeachLoop(enumerator="Item", mappings=((0, "User::Name"),), items=(("x",), ("y",)))
    inner = loop(inner_mail, over=over, name="Inner", id="{inner}", path=path)
    variables = [*VARIABLES, variable("Name")]
    module = write(loop(inner), variables=variables)
    assert {"loop-became-group", "loop-became-merge"} <= codes(module.findings)
    module = write(loop(replace(inner, executables=(other_task("Script", path), inner_mail))), variables=variables)
    assert {"loop-became-group", "loop-runs-once"} <= codes(module.findings)


def test_a_container_of_another_vendor_is_a_decision() -> None:
    """It may run its tasks as often as it likes; without mail, it is a placeholder."""
    box = Container(
        name="Parallel loop", id="{box}", path=PATH, kind=ContainerKind.TASK_HOST, executables=(mail("In", PATH),)
    )
    module = write(box)
    (found,) = find(module, "loop-runs-once")
    assert found.severity is Severity.DECISION
    assert "'Parallel loop' is a container of another vendor. In the DAG, everything in it runs once" in found.text
    module = write(replace(box, executables=(other_task("In", PATH),)), mail("After"))
    assert codes(module.findings) == {"placeholder-task"}


def test_the_modules_are_tidy() -> None:
    """Neither linter nor formatter changes anything in a merge, a group, or a group with long names."""
    script = other_task("Script", PATH)
    names = [variable(f"A rather long name of a variable, number {number}") for number in range(4)]
    over = replace(ROWS, mappings=tuple((index, one.qualified_name) for index, one in enumerate(names)))
    long = loop(
        script,
        mail("Long", PATH, expressions={"Subject": f"@[{names[0].qualified_name}]"}),
        over=over,
        name="A rather long name of a loop, for each of its rows",
    )
    after = mail("After")
    modules = [
        write_over_rows(loop(reminder(), over=ROWS)),
        write(loop(reminder())),
        write(loop(script, numbered(), over=COUNTING)),
        write(
            QUERY,
            long,
            after,
            constraints=[constraint(QUERY, long), constraint(long, after)],
            variables=[*VARIABLES, *names],
        ),
    ]
    assert lint(*modules) == ""
    assert "    def iteration(\n" in modules[-1].source


# --- In Airflow


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """A relay for the connection that the packages use."""
    with Relay(ssl_mode="none") as relay:
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_MAIL_CORP_EXAMPLE", json.dumps(relay.airflow_connection()))
        yield relay


@pytest.fixture
def run(run_dag: Callable[..., Any], tmp_path: Path) -> Callable[[DagModule], str]:
    """Runs the DAG of a module; returns the state of the run."""

    def run_module(module: DagModule) -> str:
        file = tmp_path / module.file_name
        file.write_text(module.source, encoding="utf-8")
        space: dict[str, Any] = {"__name__": "dag_module"}
        exec(compile(module.source, file, "exec"), space)  # noqa: S102 - it is what Airflow does with a DAG's file
        forget_dag(module.dag_id)
        return str(run_dag(space["dag"]).state)

    return run_module


def sent(relay: Relay) -> list[tuple[str, list[str]]]:
    """Return the subjects and recipients in the order of arrival."""
    return [(str(one.message["Subject"]), list(one.recipients)) for one in relay.messages]


def test_a_merge_over_items_sends_one_mail_for_each(relay: Relay, run: Callable[[DagModule], str]) -> None:
    """In their order; a value may hold several recipients, as in SSIS."""
    assert run(write(loop(reminder()))) == "success"
    assert sent(relay) == [
        ("You owe 3", ["a@corp.example"]),
        ("You owe 4", ["b@corp.example", "c@corp.example"]),
    ]


def test_a_counting_loop_sends_a_mail_for_each_number(relay: Relay, run: Callable[[DagModule], str]) -> None:
    """The second form has another task in the loop."""
    script = other_task("Script", PATH)
    for each in (
        loop(numbered(), over=COUNTING),
        loop(script, numbered(), over=COUNTING, constraints=(constraint(script, numbered()),)),
    ):
        assert run(write(each)) == "success"
        assert sorted(subject for subject, _ in sent(relay)) == ["Number 1", "Number 2", "Number 3"]
        relay.clear()


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        (COUNTING, "4"),
        (replace(COUNTING, assign="@Owed = @Owed + 2"), "5"),
        (ForLoop(initialize="@Owed = 3", condition="@Owed > 0", assign="@Owed = @Owed - 1"), "0"),
    ],
)
def test_after_a_counting_loop_its_counter_has_the_value_that_ended_it(
    relay: Relay, run: Callable[[DagModule], str], over: ForLoop, expected: str
) -> None:
    """In a mail and in a condition; in the loop, each iteration has its own value."""
    task, after = other_task("Next Owed", PATH), mail("After")
    after = replace(after, expressions={"Subject": '"After " + (DT_WSTR, 9)@[User::Owed]'})
    each = loop(task, numbered(), over=over, constraints=(constraint(task, numbered()),))
    only = constraint(each, after, eval_op=EvalOp.EXPRESSION_AND_CONSTRAINT, expression=f"@Owed == {expected}")
    module = write(each, after, constraints=[only])
    assert all(one.severity is Severity.NOTE for one in module.findings)
    assert lint(module) == ""
    assert run(module) == "success"
    subjects = [subject for subject, _ in sent(relay)]
    assert subjects[-1] == f"After {expected}"
    assert f"Number {expected}" not in subjects


@pytest.mark.parametrize(("failing", "expected"), [("inside", 2), ("after", 4)])
def test_an_alert_has_the_counter_of_its_iteration_or_the_value_that_ended_the_loop(
    relay: Relay, run: Callable[[DagModule], str], failing: str, expected: int
) -> None:
    """As SSIS has it when the task fails."""
    inside, after = other_task("Inside", PATH, expressions={"Disable": "@Owed != 2"}), other_task("After")
    each = loop(inside, numbered(), over=COUNTING)
    alert = mail("Alert", expressions={"Subject": '"Failed at " + (DT_WSTR, 9)@[User::Owed]'})
    module = write(each, after, constraints=[constraint(each, after)], handlers=[handler("OnError", alert)])
    tasks = module.source.split("PlaceholderOperator(\n")
    tasks = [task.replace("passes=True,", "") if f'task_id="{failing}"' in task else task for task in tasks]
    assert run(replace(module, source="PlaceholderOperator(\n".join(tasks))) == "failed"
    alerts = [subject for subject, _ in sent(relay) if subject.startswith("Failed")]
    assert alerts == [f"Failed at {expected}"]


def test_a_condition_in_a_loop_decides_for_each_iteration(relay: Relay, run: Callable[[DagModule], str]) -> None:
    """What follows the loop has the values of the last iteration."""
    script, remind = other_task("Script", PATH), reminder()
    only = constraint(script, remind, eval_op=EvalOp.EXPRESSION_AND_CONSTRAINT, expression="@[User::Owed] > 3")
    each = loop(script, remind, constraints=(only,))
    after = mail("After", expressions={"Subject": '"last: " + @[User::Address]'})
    assert run(write(each, after, constraints=[constraint(each, after)])) == "success"
    assert sent(relay) == [
        ("You owe 4", ["b@corp.example", "c@corp.example"]),
        ("last: b@corp.example;c@corp.example", ["ops@corp.example"]),
    ]


def test_a_failed_task_in_an_iteration_fails_the_loop(relay: Relay, run: Callable[[DagModule], str]) -> None:
    """Although the mail about it, the last task, was sent; what needs the loop's success does not run."""
    script, remind = other_task("Script", PATH), reminder()
    each = loop(script, remind, constraints=(constraint(script, remind, value=ConstraintValue.FAILURE),))
    well, badly = mail("well", subject="well"), mail("badly", subject="badly")
    constraints = [constraint(each, well), constraint(each, badly, value=ConstraintValue.FAILURE)]
    module = write(each, well, badly, constraints=constraints)
    assert run(module) == "success"
    assert sent(relay) == [("well", ["ops@corp.example"])]
    relay.clear()
    assert run(replace(module, source=re.sub(r"passes=True,", "", module.source))) == "failed"
    assert sorted(subject for subject, _ in sent(relay)) == ["You owe 3", "You owe 4", "badly"]


FILES = ForeachLoop(enumerator="File", folder="D:\\in", file_spec="*.CSV", mappings=((0, "User::Address"),))


@pytest.mark.parametrize("holds_another_task", [False, True])
def test_a_loop_over_files_sends_a_mail_for_each_file(
    relay: Relay, run: Callable[[DagModule], str], tmp_path: Path, holds_another_task: bool
) -> None:
    """That is there when the loop begins, with its Windows path; what follows the loop runs, also without a file."""
    folder = tmp_path / "in"
    (folder / "old").mkdir(parents=True)
    options = ConversionOptions(placeholders_pass=True, path_map=(("D:", str(tmp_path)),))
    script = other_task("Script", PATH)
    remind = mail("Remind", PATH, expressions={"Subject": '"new: " + @[User::Address]'})
    inside = (script, remind) if holds_another_task else (remind,)
    constraints = (constraint(script, remind),) if holds_another_task else ()
    after = mail("After", subject="done")
    for retrieval, recurse, expected in (
        (0, False, []),
        (0, False, ["D:\\in\\a.csv", "D:\\in\\B.csv"]),
        (0, True, ["D:\\in\\a.csv", "D:\\in\\B.csv", "D:\\in\\old\\c.Csv"]),
        (1, False, ["B.csv", "a.csv"]),
        (2, True, ["B", "a", "c"]),
    ):
        for name in ("a.csv", "B.csv", "b.txt", "old/c.Csv") if expected else ():
            (folder / name).touch()
        over = replace(FILES, file_name_retrieval=retrieval, recurse=recurse)
        each = loop(*inside, over=over, constraints=constraints)
        module = written(each, after, constraints=[constraint(each, after)], variables=VARIABLES, options=options)
        assert all(one.severity is Severity.NOTE for one in module.findings)
        assert lint(module) == ""
        if holds_another_task and airflow_version.startswith("3.1."):
            continue  # `dag.test` of Airflow 3.1 does not go on after a group that is mapped over an XCom
        assert run(module) == "success"
        assert sorted(subject for subject, _ in sent(relay)) == sorted(["done", *(f"new: {one}" for one in expected)])
        relay.clear()


_FILE_NAME = 'RIGHT(@[User::Address], FINDSTRING(REVERSE(@[User::Address]), "\\\\", 1) - 1)'


@pytest.mark.parametrize("holds_another_task", [False, True])
@pytest.mark.parametrize("directory", [None, "@[User::Folder]", '"D:\\\\" + @[User::Last]'])
def test_expressions_see_the_windows_path_of_a_file_that_is_opened_on_the_worker(
    relay: Relay, run: Callable[[DagModule], str], tmp_path: Path, directory: str | None, holds_another_task: bool
) -> None:
    """Also in a condition, in the definition of a variable, and if the folder comes from an expression."""
    (tmp_path / "in").mkdir()
    for name in ("orders 1.csv", "other.csv"):
        (tmp_path / "in" / name).write_text(f"{name},1")
    options = ConversionOptions(placeholders_pass=True, path_map=(("D:", str(tmp_path)),))
    over = FILES if directory is None else replace(FILES, folder="E:\\old", expressions={"Directory": directory})
    subject = '@[User::Name] + ": " + TOKEN(@[User::Address], "\\\\", 2)'
    archived = f'"D:\\\\in\\\\" + {_FILE_NAME}'
    remind = mail(
        "Remind", PATH, expressions={"Subject": subject, "FileAttachments": f'@[User::Address] + "|" + {archived}'}
    )
    each = loop(remind, over=over)
    if holds_another_task:
        script = other_task("Script", PATH)
        test = 'FINDSTRING(@[User::Address], "D:\\\\in\\\\orders", 1) > 0'
        only = constraint(script, remind, eval_op=EvalOp.EXPRESSION, expression=test)
        each = loop(script, remind, over=over, constraints=(only,))
    names = [variable("Folder", "D:\\in"), variable("Last", "in"), variable("Name", "", expression=_FILE_NAME)]
    module = written(each, variables=[variable("Address"), *names], options=options)
    assert all(one.severity is Severity.NOTE for one in module.findings)
    assert lint(module) == ""
    if holds_another_task and airflow_version.startswith("3.1."):
        return  # `dag.test` of Airflow 3.1 does not go on after a group that is mapped over an XCom
    assert run(module) == "success"
    expected = ["orders 1.csv"] if holds_another_task else ["orders 1.csv", "other.csv"]
    assert [subject for subject, _ in sent(relay)] == [f"{name}: in" for name in expected]
    for name, received in zip(expected, relay.messages, strict=True):
        attached = list(received.message.iter_attachments())
        assert [one.get_filename() for one in attached] == [name, name]


def test_the_root_of_a_loop_over_files_is_asked_for_where_a_mail_attaches_them() -> None:
    """A file name without its path needs no mapping, nor does a folder that is no Windows path."""
    remind = reminder(expressions=ATTACHING)
    module = write(loop(remind, over=FILES))
    assert {(one.where, one.question.key) for one in find(module, "unmapped-path") if one.question is not None} == {
        ("Package\\Each", "path D:\\"),
        ("Package\\Each\\Remind", "path D:\\"),
    }
    assert 'windows_folder="D:\\\\in"' in module.source
    assert "ssis.worker_paths(paths, {}, 'User::Address')" in module.source
    for over in (replace(FILES, file_name_retrieval=1), replace(FILES, folder="/srv/in")):
        module = write(loop(remind, over=over))
        assert "windows_folder" not in module.source
        assert "worker_paths" not in module.source


@pytest.mark.parametrize("over", [FILES, ROWS])
def test_a_function_in_a_path_finds_the_backslash_that_it_looks_for(over: ForeachLoop) -> None:
    """The path is mapped when it is complete."""
    attachments = f'"D:\\\\in\\\\" + {_FILE_NAME}'
    each = loop(mail("Remind", PATH, expressions={"FileAttachments": attachments}), over=over)
    options = ConversionOptions(path_map=((r"D:\in", "/srv/in"),))
    module = written(QUERY, each, variables=VARIABLES, options=options, constraints=[constraint(QUERY, each)])
    assert "findstring(row.Address | reverse, '\\\\\\\\', 1)" in module.source.replace('"\n            "', "")
    assert "ssis.worker_paths(paths, {'D:\\\\\\\\in': '/srv/in'}" in module.source.replace('"\n            "', "")


def test_a_folder_from_an_expression_is_a_template() -> None:
    """Or a place to complete, and then a decision; another property of the enumerator is not known."""
    over = replace(FILES, expressions={"Directory": '"/in/" + @[User::Name]'})
    module = write(loop(reminder(), over=over), variables=[*VARIABLES, variable("Name", "x")])
    assert "folder=\"/in/{{ params['Name'] }}\"" in module.source
    module = write(loop(reminder(), over=replace(over, expressions={"FileSpec": "@[User::Gone]"})))
    assert "complete_me.file_spec" in module.source
    assert find(module, "expression-to-complete")
    assert_runs_once(write(loop(reminder(), over=replace(over, expressions={"Recurse": "true"}))))
