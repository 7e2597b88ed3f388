"""Who sets a variable and who reads it, as SSIS resolves names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from airflow_provider_smtpcm.ssis.model import (
    Configuration,
    Container,
    ContainerKind,
    DatabaseConnection,
    EventHandler,
    Executable,
    ExpressionTask,
    ForeachLoop,
    ForLoop,
    MessageSourceType,
    OtherTask,
    Package,
    SqlParameter,
    SqlResult,
    SqlSourceType,
    SqlTask,
    Variable,
)
from airflow_provider_smtpcm.ssis.writing.live_variables import (
    VariableSetters,
    find_assigned_names,
    find_names,
)
from tests.ssis.writing.building import constraint, mail

ROOT = ("Package",)


def variable(name: str, scope: tuple[str, ...] = ROOT, namespace: str = "User", **more: Any) -> Variable:
    """Return a variable of the package, or of another scope."""
    return Variable(namespace=namespace, name=name, scope=scope, **more)


def sql_task(name: str = "Count", path: tuple[str, ...] = ROOT, **more: Any) -> SqlTask:
    """Return an Execute SQL task."""
    return SqlTask(name=name, id="\\".join((*path, name)), path=(*path, name), **more)


def other(name: str, path: tuple[str, ...] = ROOT, **more: Any) -> OtherTask:
    """Return a task of another type."""
    return OtherTask(name=name, id="\\".join((*path, name)), path=(*path, name), **more)


def counting(target: str, name: str = "Count", path: tuple[str, ...] = ROOT, **more: Any) -> SqlTask:
    """Return an Execute SQL task with one result binding."""
    return sql_task(name, path, results=(SqlResult(name="0", variable=target),), **more)


def container(
    name: str,
    *executables: Executable,
    path: tuple[str, ...] = ROOT,
    kind: ContainerKind = ContainerKind.SEQUENCE,
    **more: Any,
) -> Container:
    """Return a container with these executables."""
    return Container(
        name=name, id="\\".join((*path, name)), path=(*path, name), kind=kind, executables=executables, **more
    )


def package(
    *executables: Executable,
    variables: Sequence[Variable] = (),
    event_handlers: Sequence[EventHandler] = (),
    unread: Sequence[Configuration] = (),
    **more: Any,
) -> Package:
    """Return a package with these executables."""
    root = Container(
        name="p",
        id="root",
        path=ROOT,
        kind=ContainerKind.PACKAGE,
        executables=executables,
        variables=tuple(variables),
        event_handlers=tuple(event_handlers),
        **more,
    )
    return Package(name="p", id="root", path="p.dtsx", root=root, unread_configurations=tuple(unread))


def setters(of: Package, what: Variable) -> list[str]:
    """Return the names of a variable's setters."""
    return [setter.executable.name for setter in VariableSetters(of).of(what)]


ROWS = variable("Rows")


@pytest.mark.parametrize(
    "task",
    [
        counting("User::Rows"),
        sql_task(parameters=(SqlParameter(name="0", variable="User::Rows", direction="Output"),)),
        sql_task(parameters=(SqlParameter(name="0", variable="User::Rows", direction="ReturnValue"),)),
        sql_task(row_count="User::Rows"),
        ExpressionTask(name="Count", id="e", path=(*ROOT, "Count"), expression="@[User::Rows] = @[User::A] + 1"),
        other("Count", kind="Microsoft.ScriptTask", sets=("User::Rows",)),
        other("Count", kind="Microsoft.Pipeline", sets=("Rows",)),
        container("Count", kind=ContainerKind.FOR_LOOP, for_loop=ForLoop(initialize="@Rows = 0")),
        container("Count", kind=ContainerKind.FOR_LOOP, for_loop=ForLoop(assign="@[User::Rows] = @[User::Rows] + 1")),
        container("Count", kind=ContainerKind.FOREACH_LOOP, foreach_loop=ForeachLoop(mappings=((0, "User::Rows"),))),
    ],
)
def test_every_kind_of_setter_is_found(task: Executable) -> None:
    """By its name; and what it sets is found from it."""
    of = package(task, variables=[ROWS, variable("A")])
    assert setters(of, ROWS) == ["Count"]
    assert setters(of, variable("A")) == []
    assert VariableSetters(of).set_by(task) == (ROWS,)


@pytest.mark.parametrize(
    "task",
    [
        counting("User::rows"),
        counting("Audit::Rows"),
        counting("System::Rows"),
        sql_task(parameters=(SqlParameter(name="0", variable="User::Rows"),)),
        container("Check", kind=ContainerKind.FOR_LOOP, for_loop=ForLoop(condition="@Rows == 1")),
        ExpressionTask(name="Other", id="e", path=(*ROOT, "Other"), expression="@[User::A] = @[User::Rows] == 1"),
        counting("User::Rows", disabled=True),
    ],
)
def test_what_does_not_set_it_is_not_a_setter(task: Executable) -> None:
    """Another case or namespace is another variable; an input, a comparison and a disabled task set nothing."""
    of = package(task, variables=[ROWS, variable("A")])
    assert setters(of, ROWS) == []
    assert VariableSetters(of).is_constant(ROWS)


def test_a_name_means_the_variable_of_the_nearest_scope() -> None:
    """The inner variable hides the outer one, for tasks inside its scope alone."""
    inner = variable("Rows", (*ROOT, "Load"))
    of = package(
        container("Load", counting("User::Rows", "Inside", (*ROOT, "Load")), variables=(inner,)),
        counting("User::Rows", "Outside"),
        variables=[ROWS],
    )
    assert setters(of, inner) == ["Inside"]
    assert setters(of, ROWS) == ["Outside"]


def test_a_task_can_set_its_own_variable() -> None:
    """A task is a scope, too, and so is a loop for its mappings."""
    own = variable("Rows", (*ROOT, "Count"))
    assert setters(package(counting("User::Rows", variables=(own,)), variables=[ROWS]), own) != []
    loop_variable = variable("Rows", (*ROOT, "Each"))
    loop = container(
        "Each",
        kind=ContainerKind.FOREACH_LOOP,
        variables=(loop_variable,),
        foreach_loop=ForeachLoop(mappings=((0, "User::Rows"),)),
    )
    of = package(loop, variables=[ROWS])
    assert setters(of, loop_variable) == ["Each"]
    assert setters(of, ROWS) == []


def test_a_name_without_a_namespace_prefers_the_user_variable() -> None:
    """Before one of another namespace, which it means if there is no other."""
    audit = variable("Rows", namespace="Audit")
    assert setters(package(counting("Rows"), variables=[audit, ROWS]), audit) == []
    assert setters(package(counting("Rows"), variables=[audit]), audit) == ["Count"]


def test_a_setter_in_an_event_handler_is_marked() -> None:
    """With the innermost handler; it sees the variables of the owner and of the handler."""
    inner = ("Package.EventHandlers[OnError]",)
    own = variable("Text", inner)
    handler = EventHandler(
        event_name="OnError",
        owner=ROOT,
        variables=(own,),
        executables=(counting("User::Rows", "Log", inner), counting("User::Text", "Text", inner)),
    )
    of = package(counting("User::Rows"), variables=[ROWS, variable("Text")], event_handlers=[handler])
    found = VariableSetters(of).of(ROWS)
    assert [(setter.executable.name, setter.event_handler) for setter in found] == [("Count", None), ("Log", handler)]
    assert setters(of, own) == ["Text"]
    assert setters(of, variable("Text")) == []


@pytest.mark.parametrize(
    ("path", "may"),
    [
        (None, True),
        (r"\Package.Variables[User::Rows].Properties[Value]", True),
        (r"\Package.Variables[User::Rows].Value", True),
        (r"\PACKAGE.variables[user::rows].properties[value]", True),
        (r"\Package.Variables[User::Rows2].Properties[Value]", False),
        (r"\Package\Load.Variables[User::Rows].Properties[Value]", False),
        (r"\Package.Connections[Relay].Properties[SmtpServer]", False),
    ],
)
def test_an_unread_configuration_may_set_a_variable(path: str | None, may: bool) -> None:
    """If it names the variable, or does not say what it sets."""
    found = VariableSetters(package(variables=[ROWS], unread=[Configuration(kind="sql server", source="t", path=path)]))
    assert found.is_constant(ROWS) is not may


def test_everything_that_reads_a_variable_is_found() -> None:
    """Mails, conditions, statements, parameters, loops, other tasks and connections; not what is disabled."""
    first = sql_task("By parameter", parameters=(SqlParameter(name="0", variable="User::Rows"),))
    second = mail("By condition", expressions={"ToLine": '"@[User::Rows]"'})
    connection = DatabaseConnection(name="db", id="db", expressions={"ServerName": "@[User::Rows]"})
    of = package(
        first,
        second,
        mail("By subject", expressions={"Subject": '"Rows: " + (DT_WSTR,10)@[User::Rows]'}),
        mail("By no name", expressions={"ToLine": '"@[User::Rows]"'}),
        sql_task("By statement", source_type=SqlSourceType.VARIABLE, statement="User::Rows"),
        sql_task("By connection", connection=connection),
        other("By script", reads=("Rows",)),
        mail("By text", message_source_type=MessageSourceType.VARIABLE, message_source="User::Rows"),
        mail("Disabled", disabled=True, expressions={"Subject": "@[User::Rows]"}),
        container("By loop", kind=ContainerKind.FOR_LOOP, for_loop=ForLoop(condition="@Rows < 3")),
        container("By rows", kind=ContainerKind.FOREACH_LOOP, foreach_loop=ForeachLoop(variable="User::Rows")),
        variables=[ROWS],
        constraints=(constraint(first, second, expression="@Rows > 0"),),
    )
    assert [reader.executable.name for reader in VariableSetters(of).reads(ROWS)] == [
        "By parameter",
        "By condition",
        "By subject",
        "By statement",
        "By connection",
        "By script",
        "By text",
        "By loop",
        "By rows",
    ]


def test_a_variable_is_read_through_the_definition_of_another() -> None:
    """Even if the definitions refer to each other."""
    text = variable("Text", expression='"Rows: " + (DT_WSTR,10)@[User::Rows] + @[User::Loop]')
    loop = variable("Loop", expression="@[User::Text]")
    of = package(mail(expressions={"Subject": "@[User::Text]"}), variables=[ROWS, text, loop])
    found = VariableSetters(of)
    assert [reader.executable.name for reader in found.reads(ROWS)] == ["Send Mail"]
    assert not found.is_constant(text)


@pytest.mark.parametrize(
    ("expression", "names", "assigned"),
    [
        ("@[User::A] = @[User::B]", ("User::A", "User::B"), ("User::A",)),
        ("@A=@B+1", ("A", "B"), ("A",)),
        ("@[ User::A ]  := 1", ("User::A",), ("User::A",)),
        ("@A == @B", ("A", "B"), ()),
        ("@A != @B && @C <= 1", ("A", "B", "C"), ()),
        ('"@[User::A] = " + @[$Package::B]', ("$Package::B",), ()),
        (r'"\" @A = " + @User::B', ("User::B",), ()),
        ("@[User::A] = @[User::A] == 1 ? 2 : 3", ("User::A",), ("User::A",)),
        ("", (), ()),
    ],
)
def test_names_are_found_in_expressions(expression: str, names: Sequence[str], assigned: Sequence[str]) -> None:
    """Outside of string literals; `=` assigns and `==` does not."""
    assert find_names(expression) == names
    assert find_assigned_names(expression) == assigned
