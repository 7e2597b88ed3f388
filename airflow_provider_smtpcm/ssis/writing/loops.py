"""Loops whose iterations are known before they begin: over the rows of a query, over files or items, and counters.

A loop that holds nothing but a mail becomes a mail merge: one mail for each row. Any other one becomes a mapped task
group, whose first task pushes an XCom for each variable that the loop sets, for the tasks of the same iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from airflow_provider_smtpcm.ssis.expressions import ExpressionError, evaluate, parse_assignment
from airflow_provider_smtpcm.ssis.model import (
    Container,
    ContainerKind,
    Executable,
    ForeachLoop,
    ForLoop,
    Package,
    ResultSetType,
    SendMailTask,
    SqlTask,
    Variable,
)
from airflow_provider_smtpcm.ssis.writing.flow import Flow, MappedLoop, find_queries, handler_sends_mail, sends_mail
from airflow_provider_smtpcm.ssis.writing.live_variables import VariableSetters
from airflow_provider_smtpcm.ssis.writing.python_source import UniqueNames, slug

#: The limit for items and counters. By default, Airflow maps a task group over at most 1,024 rows (`max_map_length`).
MAX_ITERATIONS = 1000
# The values of EnumType with which a Foreach ADO enumerator yields the rows of an Execute SQL task.
_ROW_ENUMERATIONS = {"", "EnumerateRowsInFirstTable", "EnumerateAllRows"}

# The properties of a For loop that are expressions; a property expression gives another one in each run.
_FOR_PROPERTIES = {"InitExpression", "EvalExpression", "AssignExpression"}
#: The properties of a Foreach File enumerator that may come from expressions.
FILE_PROPERTIES = {"Directory", "FileSpec"}

DesignValue = Callable[[Variable], object]


def find_mapped_loops(
    package: Package, flow: Flow, setters: VariableSetters, design_value: DesignValue
) -> dict[str, MappedLoop]:
    """Return the loops that become mail merges or mapped task groups, by their ids.

    Args:
        flow: the control flow of the package, for the order of its executables.
        design_value: returns the design-time value of a variable; None if it has none.
    """
    found: dict[str, MappedLoop] = {}
    for executable, handler in package.walk_executables():
        if handler is not None or not isinstance(executable, Container) or executable.id not in flow.task_ids:
            continue
        if (executable.for_loop or executable.foreach_loop) and sends_mail(executable):
            mapped = _LoopReader(package, flow, setters, design_value, executable).read()
            if mapped is not None and mapped.query is not None:
                mapped = _with_own_fields(mapped, find_queries(found).get(mapped.query.id, {}))
            # Airflow does not map a task group inside a mapped one.
            is_inside = any(flow.contains(outer, executable.id) for outer in found)
            if mapped is not None and (mapped.mail is not None or not is_inside):
                found[executable.id] = mapped
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Values:
    """The variables that a loop sets, and their values in each iteration or the columns of a query.

    `next_rows` has the values at the end of each iteration, if the end changes them.
    """

    variables: list[Variable]
    rows: list[list[object]] = field(default_factory=list)
    next_rows: list[list[object]] = field(default_factory=list)
    query: SqlTask | None = None
    files: ForeachLoop | None = None
    columns: list[int] = field(default_factory=list)


class _LoopReader:
    """Finds the iterations of one loop."""

    def __init__(
        self, package: Package, flow: Flow, setters: VariableSetters, design_value: DesignValue, loop: Container
    ) -> None:
        self._package, self._flow, self._setters, self._loop = package, flow, setters, loop
        self._design_value = design_value

    def read(self) -> MappedLoop | None:
        loop = self._loop
        if loop.force_result or loop.maximum_errors != 1:
            return None
        values = self._find_values()
        if values is None:
            return None
        mail = self._find_only_mail(values.variables)
        if mail is None and not self._is_each_iteration_independent(values.variables):
            return None
        names = _name_fields(values.variables, for_merge=mail is not None)
        rows = [dict(zip(names, row, strict=True)) for row in values.rows]
        next_fields: list[tuple[Variable, str]] = []
        if mail is None and values.next_rows and any(map(self._is_read_elsewhere, values.variables)):
            taken = UniqueNames({*names})
            next_names = [taken.allocate(f"next_{name}") for name in names]
            next_fields = list(zip(values.variables, next_names, strict=True))
            for row, following in zip(rows, values.next_rows, strict=True):
                row |= dict(zip(next_names, following, strict=True))
        return MappedLoop(
            loop=loop,
            mail=mail,
            query=values.query,
            files=values.files,
            columns=dict(zip(names, values.columns, strict=True)) if values.query is not None else {},
            rows=tuple(rows),
            fields=tuple(zip(values.variables, names, strict=True)),
            next_fields=tuple(next_fields),
        )

    def _find_values(self) -> _Values | None:
        """Return what the loop sets in each iteration; None if it is not known before a run."""
        if self._loop.for_loop is not None:
            return self._count(self._loop.for_loop)
        foreach = self._loop.foreach_loop
        if foreach is None or (foreach.expressions and foreach.enumerator != "File"):
            return None
        mapped = [(index, self._setters.resolve(name, self._loop)) for index, name in foreach.mappings]
        indexes = [index for index, _ in mapped]
        variables = [variable for _, variable in mapped if variable is not None and variable.expression is None]
        if len(variables) != len(mapped) or len(set(variables)) != len(variables):
            return None
        if foreach.enumerator == "ADO":
            query = self._find_query(foreach)
            return None if query is None else _Values(variables=variables, query=query, columns=indexes)
        if foreach.enumerator == "File":
            is_known = foreach.expressions.keys() <= FILE_PROPERTIES and foreach.file_name_retrieval in range(3)
            return _Values(variables=variables, files=foreach) if is_known and indexes == [0] else None
        rows = self._read_items(foreach, indexes, variables) if foreach.enumerator == "Item" else None
        return None if rows is None else _Values(variables=variables, rows=rows)

    def _read_items(
        self, foreach: ForeachLoop, indexes: list[int], variables: list[Variable]
    ) -> list[list[object]] | None:
        if not 0 < len(foreach.items) <= MAX_ITERATIONS or max(indexes, default=0) >= min(map(len, foreach.items)):
            return None
        rows = [
            [
                self._design_value(replace(variable, value=item[index]))
                for index, variable in zip(indexes, variables, strict=True)
            ]
            for item in foreach.items
        ]
        # None: the value has another type, or may be secret.
        return None if any(value is None for row in rows for value in row) else rows

    def _find_query(self, foreach: ForeachLoop) -> SqlTask | None:
        """Return the only task that sets the object variable, if it always runs before the loop."""
        variable = self._setters.resolve(foreach.variable, self._loop)
        setters = () if variable is None else self._setters.of(variable)
        if len(setters) != 1 or foreach.enumeration not in _ROW_ENUMERATIONS:
            return None
        (setter,) = setters
        query = next((each for each, _ in self._package.walk_executables() if each.id == setter.executable.id), None)
        is_result = isinstance(query, SqlTask) and query.result_set is ResultSetType.FULL and len(query.results) == 1
        if not isinstance(query, SqlTask) or not is_result or setter.event_handler is not None:
            return None
        has_outputs = any(parameter.direction != "Input" for parameter in query.parameters)
        if has_outputs or self._flow.may_follow(self._loop.id, query.id) is not True:
            return None
        # Inside another loop, the query has a result for each iteration, or is not a task of its own in the DAG.
        around = (each for each, _ in self._package.walk_executables() if self._flow.contains(each.id, query.id))
        for outer in around:
            is_plain = isinstance(outer, Container) and outer.kind in {ContainerKind.SEQUENCE, ContainerKind.PACKAGE}
            if outer.id != query.id and not is_plain and not self._flow.contains(outer.id, self._loop.id):
                return None
        return query

    def _count(self, loop: ForLoop) -> _Values | None:
        """Return the variable that a For loop counts, and its value in each iteration."""
        if not _FOR_PROPERTIES.isdisjoint(self._loop.expressions):
            return None
        try:
            names, first = parse_assignment(loop.initialize)
            next_names, following = parse_assignment(loop.assign)
            variable = self._setters.resolve(names[0], self._loop)
            if len(names) != 1 or variable is None or next_names != names or variable.expression is not None:
                return None
            if any(setter.executable.id != self._loop.id for setter in self._setters.of(variable)):
                return None
            known = self._constants(variable)
            rows: list[list[object]] = []
            value = evaluate(first, known)
            for _ in range(MAX_ITERATIONS):
                values = {**known, variable.qualified_name: value, names[0]: value}
                rows.append([value.data])
                if evaluate(loop.condition, values).data is not True:
                    is_plain = len(rows) > 1 and all(isinstance(row[0], int | str) for row in rows)
                    # The last value ends the loop, and stays in the variable.
                    return _Values(variables=[variable], rows=rows[:-1], next_rows=rows[1:]) if is_plain else None
                value = evaluate(following, values)
        except (ExpressionError, RecursionError):
            pass
        return None

    def _constants(self, counter: Variable) -> dict[str, object]:
        """Return the values of the variables that do not change while the package runs, except the counter."""
        found: dict[str, object] = {}
        for variable in self._package.variables:
            visible = self._setters.resolve(variable.qualified_name, self._loop) == variable
            if visible and variable != counter and self._setters.is_constant(variable):
                value = self._design_value(variable)
                if value is not None:
                    found[variable.qualified_name] = value
        return found

    def _find_only_mail(self, variables: list[Variable]) -> SendMailTask | None:
        """Return the mail of the loop, if it sends nothing else and each iteration sends it."""
        enabled = [child for child in self._loop.executables if not child.disabled]
        mail = enabled[0] if len(enabled) == 1 else None
        if not isinstance(mail, SendMailTask):
            return None
        if mail.force_result or mail.maximum_errors != 1 or "Disable" in mail.expressions:
            return None
        if any(constraint.after == mail.id for constraint in self._loop.constraints):
            return None
        if any(map(handler_sends_mail, (*mail.event_handlers, *self._loop.event_handlers))):
            return None
        # A merge pushes no XCom: nothing else may read what the loop sets.
        return None if any(True for each in variables for _ in self._find_readers(each, mail)) else mail

    def _find_readers(self, variable: Variable, mail: SendMailTask) -> Iterator[str]:
        """Yield the ids of what reads a variable as this loop has set it, besides its mail."""
        others = {
            setter.executable.id for setter in self._setters.of(variable) if isinstance(setter.executable, Container)
        } - {self._loop.id}
        for reader in self._setters.reads(variable):
            is_own = reader.event_handler is None and reader.executable.id in {mail.id, self._loop.id}
            is_reset = any(self._flow.contains(other, reader.executable.id) for other in others)
            if not is_own and not is_reset:
                yield reader.executable.id

    def _is_read_elsewhere(self, variable: Variable) -> bool:
        """Whether something outside of the loop, or an event handler, may read a variable as the loop leaves it."""
        return any(
            reader.event_handler is not None or not self._flow.contains(self._loop.id, reader.executable.id)
            for reader in self._setters.reads(variable)
        )

    def _is_each_iteration_independent(self, variables: list[Variable]) -> bool:
        """Whether no iteration reads what an earlier one has set."""
        for executable, _ in self._package.walk_executables():
            is_inside = executable.id != self._loop.id and self._flow.contains(self._loop.id, executable.id)
            for variable in self._setters.set_by(executable) if is_inside and not executable.disabled else ():
                readers = [reader.executable.id for reader in self._setters.reads(variable)]
                if variable in variables or any(self._may_read_earlier(reader, executable) for reader in readers):
                    return False
        return True

    def _may_read_earlier(self, reader: str, setter: Executable) -> bool:
        """Whether an executable may read what another one has set in an earlier iteration."""
        if not self._flow.contains(self._loop.id, reader):
            return False
        if isinstance(setter, Container) and self._flow.contains(setter.id, reader):
            return False  # a loop sets its variables before what it contains
        if reader != setter.id and self._flow.task_ids.get(reader) == self._flow.task_ids[setter.id]:
            return False  # one placeholder replaces both
        return not self._flow.requires(reader, setter.id)


def _with_own_fields(mapped: MappedLoop, taken: Mapping[str, int]) -> MappedLoop:
    """Return a loop in which no field has the name of another column that an earlier loop needs of the same query.

    Args:
        taken: the columns that the earlier loops need, by field.
    """
    names: dict[str, str] = {}
    for name, column in mapped.columns.items():
        own, number = name, 2
        while taken.get(own, column) != column or (own != name and own in mapped.columns):
            own, number = f"{name}_{number}", number + 1
        names[name] = own
    return replace(
        mapped,
        columns={names[name]: column for name, column in mapped.columns.items()},
        fields=tuple((variable, names[name]) for variable, name in mapped.fields),
    )


def _name_fields(variables: list[Variable], *, for_merge: bool) -> list[str]:
    """Return the name of the field for each variable; in a task group, it is the name of a Python argument."""
    if not for_merge:
        names = UniqueNames.for_variables()
        return [names.allocate(_argument_name(variable)) for variable in variables]
    short = [variable.name for variable in variables]
    return [each.name if short.count(each.name) == 1 else each.qualified_name for each in variables]


def _argument_name(variable: Variable) -> str:
    name = slug(variable.name, "value")
    return f"n_{name}" if name[:1].isdigit() else name
