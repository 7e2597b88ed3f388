"""Variables that tasks set while a package runs: what sets and reads each of them, and how the DAG reads it.

Each task pushes an XCom for what it sets, and readers pull it. A name is resolved from where it is used, as SSIS does:
to the variable of the nearest scope, case-sensitively; without a namespace it is a user variable, or else one of any
other namespace. What is disabled neither sets nor reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from airflow_provider_smtpcm.ssis.expressions import (
    DataType,
    Expression,
    ExpressionError,
    JinjaName,
    parse,
    parse_assignment,
    quote_string,
)
from airflow_provider_smtpcm.ssis.findings import KEEP, Findings, Question
from airflow_provider_smtpcm.ssis.model import (
    ConnectionManager,
    Container,
    EventHandler,
    Executable,
    ExpressionTask,
    MessageSourceType,
    OtherTask,
    Package,
    Parameter,
    PrecedenceConstraint,
    SendMailTask,
    SqlSourceType,
    SqlTask,
    Variable,
    describe_kind,
)
from airflow_provider_smtpcm.ssis.writing.flow import Flow, MappedLoop, find_queries, row_field
from airflow_provider_smtpcm.ssis.writing.python_source import quoted_list

# A string literal, or the name of a variable; `=` or `:=` after a name assigns to it, unlike `==`.
_NAMES = re.compile(
    r"""
    "(?:[^"\\]|\\.)*"
    | @ (?: \[ \s* (?P<quoted>[^\]]+?) \s* \] | (?P<bare>\w+(?:::\w+)?) ) (?P<assigned>\s*:?=(?!=))?
    """,
    re.VERBOSE | re.DOTALL,
)

_Identity = tuple[str, tuple[str, ...]]
_Scope = Mapping[str, Variable]  # by qualified name
_Symbol = TypeVar("_Symbol", bound=Variable | Parameter)


@dataclass(frozen=True, slots=True, eq=False)
class VariableUse:
    """An executable that sets a variable, or that reads it directly or in the definition of another one.

    Args:
        event_handler: the innermost event handler that contains it; None in the control flow.
    """

    executable: Executable
    event_handler: EventHandler | None


@dataclass(frozen=True, slots=True)
class _Place:
    """An executable, with the variables that are visible to it."""

    executable: Executable
    scope: _Scope
    handler: EventHandler | None
    # The precedence constraints that lead to it, with the scope of the container that has them.
    constraints: tuple[PrecedenceConstraint, ...]
    outer_scope: _Scope


class VariableSetters:
    """The setters and readers of a package's variables.

    Args:
        package: the package.
    """

    def __init__(self, package: Package) -> None:
        self._package = package

    def of(self, variable: Variable) -> Sequence[VariableUse]:
        """Return what sets a variable, in the order of `Package.walk_executables`."""
        return self._setters.get(variable.identity, ())

    def in_event_handlers(self, variable: Variable) -> list[VariableUse]:
        """Return what sets a variable in event handlers."""
        return [setter for setter in self.of(variable) if setter.event_handler is not None]

    def reads(self, variable: Variable) -> Sequence[VariableUse]:
        """Return what reads a variable: mails, conditions, statements, expressions and tasks.

        The order is that of `Package.walk_executables`.
        """
        return self._readers.get(variable.identity, ())

    def set_by(self, executable: Executable) -> tuple[Variable, ...]:
        """Return the variables that an executable sets itself, even if it is disabled; not those that it contains."""
        place = self._places.get(executable.id)
        if place is None:
            return ()
        found = (resolve_name(name, place.scope) for name in _find_outputs(executable))
        return tuple(dict.fromkeys(variable for variable in found if variable is not None))

    def find_undeclared(self) -> list[tuple[Executable, str]]:
        """Return what sets a variable that the package does not declare, with its name: one of a parent package."""
        return [
            (place.executable, name if "::" in name else f"User::{name}")
            for place in self._places.values()
            if not place.executable.disabled
            for name in _find_outputs(place.executable)
            if resolve_name(name, place.scope) is None and not name.startswith(("System::", "$"))
        ]

    def find_read(self, executable: Executable) -> frozenset[str]:
        """Return the names of the variables that are visible to an executable and that something reads."""
        place = self._places.get(executable.id)
        return frozenset(
            name for name, variable in (place.scope.items() if place is not None else ()) if self.reads(variable)
        )

    def resolve(self, name: str, executable: Executable) -> Variable | None:
        """Return the variable that a name means in an executable."""
        place = self._places.get(executable.id)
        return None if place is None else resolve_name(name, place.scope)

    def is_constant(self, variable: Variable) -> bool:
        """Whether a variable keeps its design-time value in each run; one that has an expression does not."""
        is_configured = any(each.may_set(variable) for each in self._package.unread_configurations)
        return variable.expression is None and not self.of(variable) and not is_configured

    @cached_property
    def _places(self) -> dict[str, _Place]:
        return {place.executable.id: place for place in _walk(self._package.root)}

    @cached_property
    def _setters(self) -> dict[_Identity, list[VariableUse]]:
        found: dict[_Identity, list[VariableUse]] = {}
        for place in self._places.values():
            names = () if place.executable.disabled else _find_outputs(place.executable)
            variables = (resolve_name(name, place.scope) for name in names)
            for identity in dict.fromkeys(each.identity for each in variables if each is not None):
                found.setdefault(identity, []).append(VariableUse(place.executable, place.handler))
        return found

    @cached_property
    def _readers(self) -> dict[_Identity, list[VariableUse]]:
        found: dict[_Identity, list[VariableUse]] = {}
        for place in self._places.values():
            names = () if place.executable.disabled else _find_inputs(place)
            for identity in dict.fromkeys(each for name, scope in names for each in self._find_definition(name, scope)):
                found.setdefault(identity, []).append(VariableUse(place.executable, place.handler))
        return found

    def _find_definition(self, name: str, scope: _Scope) -> Iterable[_Identity]:
        """Return the identities of the variable with this name, and of those that its expression needs."""
        found: dict[_Identity, None] = {}
        remaining = [resolve_name(name, scope)]
        while remaining:
            variable = remaining.pop()
            if variable is None or variable.identity in found:
                continue
            found[variable.identity] = None
            if variable.expression is not None:
                declaring_scope = self._scopes.get(variable.scope, scope)
                remaining += [resolve_name(each, declaring_scope) for each in find_names(variable.expression)]
        return found

    @cached_property
    def _scopes(self) -> dict[tuple[str, ...], _Scope]:
        """The variables that are visible to each declared variable, by the scope that declares it."""
        return {place.executable.path: place.scope for place in self._places.values() if place.executable.variables}


def find_names(expression: str) -> tuple[str, ...]:
    """Return the names of the variables in an expression, also in one that cannot be parsed."""
    return tuple(dict.fromkeys(_name(match) for match in _NAMES.finditer(expression) if _name(match)))


def find_assigned_names(expression: str) -> tuple[str, ...]:
    """Return the names of the variables to which an expression assigns."""
    return tuple(dict.fromkeys(_name(match) for match in _NAMES.finditer(expression) if match["assigned"]))


def _name(match: re.Match[str]) -> str:
    return match["quoted"] or match["bare"] or ""


def resolve_name(name: str, scope: Mapping[str, _Symbol]) -> _Symbol | None:
    """Return what a name means in a scope; without a namespace it is a user variable, or else one of any namespace."""
    if "::" in name:
        return scope.get(name)
    variables = (each for qualified, each in scope.items() if not qualified.startswith("$") and each.name == name)
    return scope.get(f"User::{name}") or next(variables, None)


def _open_scope(variables: Iterable[Variable], outer: _Scope) -> _Scope:
    added = {variable.qualified_name: variable for variable in variables}
    return {**outer, **added} if added else outer


def _walk(root: Container) -> Iterator[_Place]:
    """Yield every executable, in the order of `Package.walk_executables`."""
    scope = _open_scope(root.variables, {})
    yield _Place(root, scope, None, (), {})
    yield from _walk_members(root, scope, None)
    for handler in root.event_handlers:
        yield from _walk_handler(handler, scope)


def _walk_members(owner: Container | EventHandler, outer: _Scope, handler: EventHandler | None) -> Iterator[_Place]:
    constraints: dict[str, tuple[PrecedenceConstraint, ...]] = {}
    for constraint in owner.constraints:
        constraints[constraint.after] = (*constraints.get(constraint.after, ()), constraint)
    for executable in owner.executables:
        scope = _open_scope(executable.variables, outer)
        yield _Place(executable, scope, handler, constraints.get(executable.id, ()), outer)
        if isinstance(executable, Container):
            yield from _walk_members(executable, scope, handler)
        for nested in executable.event_handlers:
            yield from _walk_handler(nested, scope)


def _walk_handler(handler: EventHandler, outer: _Scope) -> Iterator[_Place]:
    scope = _open_scope(handler.variables, outer)
    yield from _walk_members(handler, scope, handler)
    for nested in handler.event_handlers:
        yield from _walk_handler(nested, scope)


def _find_outputs(executable: Executable) -> Iterator[str]:
    """Yield the names of the variables that an executable sets."""
    if isinstance(executable, SqlTask):
        yield from (result.variable for result in executable.results)
        yield from (parameter.variable for parameter in executable.parameters if parameter.direction != "Input")
        if executable.row_count:
            yield executable.row_count
    elif isinstance(executable, ExpressionTask):
        yield from find_assigned_names(executable.expression)
    elif isinstance(executable, OtherTask):
        yield from executable.sets
    elif isinstance(executable, Container):
        yield from (name for each in _loop_expressions(executable) for name in find_assigned_names(each))
        if executable.foreach_loop is not None:
            yield from (name for _, name in executable.foreach_loop.mappings)


def _loop_expressions(container: Container) -> tuple[str, ...]:
    loop = container.for_loop
    return () if loop is None else (loop.initialize, loop.condition, loop.assign)


def _find_inputs(place: _Place) -> Iterator[tuple[str, _Scope]]:
    """Yield the names of the variables that an executable reads, each with the scope that it is resolved in."""
    for constraint in place.constraints:
        yield from ((name, place.outer_scope) for name in find_names(constraint.expression or ""))
    executable = place.executable
    yield from ((name, place.scope) for each in executable.expressions.values() for name in find_names(each))
    yield from ((name, place.scope) for name in _find_own_inputs(executable))


def _find_own_inputs(executable: Executable) -> Iterator[str]:
    """Yield the names of the variables that an executable reads other than in property expressions."""
    if isinstance(executable, SendMailTask):
        is_variable = executable.message_source_type is MessageSourceType.VARIABLE
        if is_variable and "MessageSource" not in executable.expressions:
            yield executable.message_source
        yield from _find_connection_inputs(executable.connection, executable.message_file)
    elif isinstance(executable, SqlTask):
        if executable.source_type is SqlSourceType.VARIABLE:
            yield executable.statement
        yield from (parameter.variable for parameter in executable.parameters if parameter.direction == "Input")
        yield from _find_connection_inputs(executable.connection, executable.statement_file)
    elif isinstance(executable, ExpressionTask):
        yield from _find_read_names(executable.expression)
    elif isinstance(executable, OtherTask):
        yield from executable.reads
        yield from executable.updates
    else:
        yield from (name for each in _loop_expressions(executable) for name in _find_read_names(each))
        if executable.foreach_loop is not None:
            yield executable.foreach_loop.variable
            yield from (name for each in executable.foreach_loop.expressions.values() for name in find_names(each))


def _find_connection_inputs(*managers: ConnectionManager | None) -> Iterator[str]:
    for manager in managers:
        if manager is not None:
            yield from (name for each in manager.expressions.values() for name in find_names(each))


def _find_read_names(assignment: str) -> Iterator[str]:
    """Yield the names on the right of an assignment, or in an expression without one."""
    for match in _NAMES.finditer(assignment):
        if _name(match) and not match["assigned"]:
            yield _name(match)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPoint:
    """Where variables are read: in an executable, or in an event handler of the package.

    Args:
        id: the id of the executable; empty for an event handler, which runs whenever its event occurs.
        name: its name in SSIS.
        where: its SSIS path.
    """

    id: str = ""
    name: str = ""
    where: str = ""

    @classmethod
    def inside(cls, executable: Executable, *, is_callback: bool = False) -> ReadPoint:
        """Return the point in an executable of the control flow, or in one that becomes a callback."""
        return cls(id="" if is_callback else executable.id, name=executable.name, where=executable.where)


@dataclass(slots=True, kw_only=True)
class LiveVariables:
    """The variables of one package that its tasks set.

    Args:
        package: the package.
        setters: what sets each variable.
        flow: the order and the ids of the tasks.
        findings: a finding is added for each variable that is read.
        loops: the loops with known iterations, by their ids.

    Attributes:
        queries: the columns that loops need of Execute SQL tasks, by the task's id and the field of a row.
    """

    package: Package
    setters: VariableSetters
    flow: Flow
    findings: Findings
    loops: Mapping[str, MappedLoop] = field(default_factory=dict)
    queries: Mapping[str, Mapping[str, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.queries = find_queries(self.loops)

    def is_live(self, variable: Variable, reader: ReadPoint) -> bool:
        """Whether a task may have set the variable when it is read."""
        return self._find_row_field(variable, reader) is not None or bool(self._find_tasks(variable, reader))

    def jinja_name(
        self, variable: Variable, reader: ReadPoint, data_type: DataType | None, default: object
    ) -> JinjaName | None:
        """Return the Jinja expression for a variable that tasks set; None if none sets it before it is read.

        Args:
            variable: the variable.
            reader: what reads it.
            data_type: its type; None for an object.
            default: its design-time value.
        """
        self._report_handlers(variable, reader)
        if (field_code := self._find_row_field(variable, reader)) is not None:
            # A number may come from a column of another type.
            is_text = data_type is None or data_type is DataType.WSTR
            code = field_code if is_text else f"ssis.convert({field_code}, {quote_string(str(data_type))})"
            return JinjaName(code=code, type=data_type)
        task_ids = self._find_tasks(variable, reader)
        if not task_ids:
            return None
        self._report(variable, reader)
        arguments = [
            "ti",
            quote_string(variable.qualified_name),
            f"[{', '.join(map(quote_string, task_ids))}]",
            _jinja_literal(default),
            *([quote_string(str(data_type))] if data_type is not None else []),
        ]
        return JinjaName(code=f"ssis.variable({', '.join(arguments)})", type=data_type, is_typed=True)

    def is_translated(self, variable: Variable, reader: ReadPoint) -> bool:
        """Whether a task other than a placeholder, or a loop over a query, may have set the variable when it is read.

        A loop over the files of a folder from an expression counts, too. A script that only sets the variable to an
        empty text does not.
        """
        names = {variable.qualified_name, variable.name}
        for mapped in self.find_loops(variable, reader):
            is_computed = mapped.files is not None and mapped.yields_paths and "Directory" in mapped.files.expressions
            if mapped.query is not None or is_computed:
                return True
        return any(_computes(setter.executable, names) for setter in self._before(variable, reader))

    def find_items(self, variable: Variable, reader: ReadPoint) -> list[object]:
        """Return the values that loops over known rows give a variable."""
        loops = self.find_loops(variable, reader)
        return [row[name] for mapped in loops if (name := mapped.find_field(variable)) for row in mapped.rows]

    def find_assigned(self, variable: Variable, reader: ReadPoint) -> list[Expression]:
        """Return the expressions that tasks of the DAG assign to a variable before it is read."""
        names = {variable.qualified_name, variable.name}
        return [
            value
            for setter in self._before(variable, reader)
            for name, value in _parse_assignments(setter.executable)
            if name in names
        ]

    def find_loops(self, variable: Variable, reader: ReadPoint) -> list[MappedLoop]:
        """Return the loops with known iterations that set a variable before it is read, or for each mail of a merge."""
        before = {setter.executable.id for setter in self._before(variable, reader)}
        found = [
            mapped
            for key, mapped in self.loops.items()
            if key in before or (mapped.mail is not None and mapped.mail.id == reader.id)
        ]
        return [mapped for mapped in found if mapped.find_field(variable) is not None]

    def describe_setters(self, variable: Variable) -> str:
        """Return what sets a variable, such as `'Count' (Execute SQL task) sets User::Rows`; empty if nothing does."""
        setters = self.setters.of(variable)
        return _describe(variable, setters) if setters else ""

    def _find_tasks(self, variable: Variable, reader: ReadPoint) -> list[str]:
        """Return the ids of the tasks that may have set a variable, in the order in which they run."""
        ids = dict.fromkeys(setter.executable.id for setter in self._before(variable, reader))
        found = (task_id for key in self.flow.sort(list(ids)) for task_id in self._task_ids(key, variable, reader))
        return list(dict.fromkeys(found))

    def _task_ids(self, executable_id: str, variable: Variable, reader: ReadPoint) -> Iterator[str]:
        """Yield the ids of the tasks that push a variable for an executable, in the order in which they run."""
        task_id, mapped = self.flow.task_ids[executable_id], self.loops.get(executable_id)
        if mapped is None or mapped.mail is not None:
            yield task_id
            return
        yield f"{task_id}.{self.flow.row_task(mapped.loop)}"
        is_counted = any(known == variable for known, _ in mapped.next_fields)
        if is_counted and not (reader.id and self.flow.contains(executable_id, reader.id)):
            yield f"{task_id}.{self.flow.end_task(mapped.loop)}"

    def _find_row_field(self, variable: Variable, reader: ReadPoint) -> str | None:
        """Return the Jinja expression for a variable that the loop of a mail merge sets; None for any other one."""
        for mapped in self.loops.values():
            if mapped.mail is not None and mapped.mail.id == reader.id:
                name = mapped.find_field(variable)
                return None if name is None else row_field(name)
        return None

    def _before(self, variable: Variable, reader: ReadPoint) -> Iterator[VariableUse]:
        """Yield what may have set a variable in the control flow when it is read.

        For a callback, this is every setter. For a task, it is every setter that does not certainly run after it; of
        the containers around it, only a mapped loop.
        """
        for setter in self.setters.of(variable):
            if setter.event_handler is not None or setter.executable.id not in self.flow.task_ids:
                continue
            mapped = self.loops.get(setter.executable.id)
            if mapped is not None and mapped.mail is not None:
                continue  # only its own mail reads what it sets
            if not reader.id or self._is_iteration(setter, reader):
                yield setter
            elif setter.executable.id != reader.id and not self.flow.contains(setter.executable.id, reader.id):
                order = self.flow.may_follow(reader.id, setter.executable.id)
                if order is not False or self.flow.contains(reader.id, setter.executable.id):
                    yield setter

    def _is_iteration(self, setter: VariableUse, reader: ReadPoint) -> bool:
        """Whether a setter is the mapped task group around the reader."""
        is_mapped = setter.executable.id in self.loops and setter.executable.id != reader.id
        return is_mapped and self.flow.contains(setter.executable.id, reader.id)

    def _report(self, variable: Variable, reader: ReadPoint) -> None:
        setters = list(self._before(variable, reader))
        text = f"{_describe(variable, setters)} in each run. The DAG reads the value that was set, or the design-time "
        text += "value if none was."
        unordered = [
            setter.executable.name
            for setter in setters
            if reader.id
            and not self._is_iteration(setter, reader)
            and self.flow.may_follow(reader.id, setter.executable.id) is None
        ]
        if unordered:
            text += f" The package does not say whether {reader.name!r} runs before or after {quoted_list(unordered)}: "
            text += "the value that it sees depends on timing, in SSIS too."
        self.findings.note("variable-set-at-run-time", variable.qualified_name, text)
        if reader.id:
            self._report_race(variable, reader)

    def _report_race(self, variable: Variable, reader: ReadPoint) -> None:
        """Report setters in no fixed order: the last to end counts in SSIS, the last in the list of ids in the DAG."""
        ids = list(dict.fromkeys(setter.executable.id for setter in self._before(variable, reader)))
        last = self.flow.sort(ids)[-1]
        names = {setter.executable.id: setter.executable.name for setter in self._before(variable, reader)}
        rivals = [names[key] for key in ids if key != last and self.flow.may_run_together(key, last)]
        if rivals:
            self.findings.decision(
                "set-by-several-tasks",
                variable.qualified_name,
                f"{quoted_list(rivals)} and {names[last]!r} set {variable.qualified_name}, and the package does not "
                "say in which order they run. SSIS uses the value of the one that ends last; the DAG uses that of "
                f"{names[last]!r}, if it has run.",
                "Check which value is meant. If it is that of another task, move that task to the end of the list of "
                "tasks in the DAG.",
            )

    def _report_handlers(self, variable: Variable, reader: ReadPoint) -> None:
        inside = self.setters.in_event_handlers(variable)
        if inside and reader.id:
            names = dict.fromkeys(f"{setter.executable.name!r}" for setter in inside)
            setters = quoted_list(sorted({setter.executable.name for setter in inside}))
            self.findings.decision(
                "set-in-event-handler",
                reader.where,
                f"{', '.join(names)} in an event handler {'sets' if len(names) == 1 else 'set'} "
                f"{variable.qualified_name}, which {reader.name!r} reads. The callbacks of the DAG only send mail, so "
                "the variable keeps the value that it has outside event handlers.",
                "Check whether the value matters; if it does, set it in a task of the DAG.",
                Question(
                    key=f"variable {variable.qualified_name} in event handlers, for other tasks",
                    text=f"In SSIS, {setters} in an event handler sets {variable.qualified_name}, and a task of the "
                    "control flow reads it. In the DAG, the variable keeps the value that it has outside event "
                    f"handlers. Answer {KEEP} if that is right.",
                    guess=KEEP,
                    subject=variable.qualified_name,
                    shared_text="In SSIS, executables in event handlers set these variables, and tasks of the control "
                    "flow read them. In the DAG, the variables keep the values that they have outside event handlers. "
                    f"Answer {KEEP} if that is right.",
                ),
            )


def _computes(executable: Executable, names: set[str]) -> bool:
    """Whether a task of the DAG computes a variable; some scripts only empty it before a loop fills it.

    Args:
        names: the names of the variable.
    """
    if isinstance(executable, OtherTask):
        assignments = executable.assignments
        return assignments is not None and not any(name in names and value == '""' for name, value in assignments)
    return isinstance(executable, SqlTask | ExpressionTask)


def _parse_assignments(executable: Executable) -> list[tuple[str, Expression]]:
    """Return the variables that an Expression task or a translated script sets, each with the expression."""
    try:
        if isinstance(executable, OtherTask):
            return [(name, parse(value)) for name, value in executable.assignments or ()]
        if isinstance(executable, ExpressionTask):
            names, value = parse_assignment(executable.expression)
            return [(name, value) for name in names]
    except (ExpressionError, RecursionError):
        pass  # the conversion of the task reports it
    return []


def _describe(variable: Variable, setters: Iterable[VariableUse]) -> str:
    names = dict.fromkeys(f"{setter.executable.name!r} ({describe_kind(setter.executable.kind)})" for setter in setters)
    return f"{', '.join(names)} {'sets' if len(names) == 1 else 'set'} {variable.qualified_name}"


def _jinja_literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    return "none" if value is None else quote_string(str(value))
