"""Which executables of a package set a variable, and which read it.

A name is resolved from where it is used, as SSIS does: to the variable of the nearest scope, case-sensitively; without
a namespace it is a user variable, or else one of any other namespace. What is disabled neither sets nor reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from airflow_provider_smtpcm.ssis.model import (
    Configuration,
    Container,
    DatabaseConnection,
    EventHandler,
    Executable,
    ExpressionTask,
    FileConnection,
    MessageSourceType,
    OtherTask,
    Package,
    PrecedenceConstraint,
    SendMailTask,
    SmtpConnection,
    SqlSourceType,
    SqlTask,
    Variable,
)

# A string literal, or the name of a variable; `=` or `:=` after a name assigns to it, unlike `==`.
_NAMES = re.compile(
    r"""
    "(?:[^"\\]|\\.)*"
    | @ (?: \[ \s* (?P<quoted>[^\]]+?) \s* \] | (?P<bare>\w+(?:::\w+)?) ) (?P<assigned>\s*:?=(?!=))?
    """,
    re.VERBOSE | re.DOTALL,
)
_DATA_FLOWS = ("pipeline", "{5918251b-2970-45a4-ab5f-01c3c588fe5a}", "{e3cfbea8-1f48-40d8-91e1-2dedc1eddd56}")

_Identity = tuple[str, tuple[str, ...]]
_Scope = Mapping[str, Variable]  # by qualified name


class SetterKind(StrEnum):
    """How an executable sets a variable."""

    RESULT = "result"  # a result binding of an Execute SQL task
    OUTPUT_PARAMETER = "output parameter"  # of an Execute SQL task
    EXPRESSION = "expression"  # an Expression task, or a Script task that only sets variables
    SCRIPT = "script"  # the ReadWriteVariables of a Script task
    DATA_FLOW = "data flow"
    FOREACH_MAPPING = "foreach mapping"
    FOR_EXPRESSION = "for expression"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setter:
    """An executable that sets a variable.

    Args:
        kind: its CreationName, or the kind of the container.
        how: how it sets the variable.
        event_handler: the innermost event handler that contains it; None in the control flow.
    """

    executable_id: str
    path: tuple[str, ...]
    name: str
    kind: str
    how: SetterKind
    event_handler: EventHandler | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """An executable that reads a variable, directly or in the definition of another variable.

    Args:
        kind: its CreationName, `Microsoft.SendMailTask`, or the kind of the container.
        what: the property that reads it, such as `Subject`; `condition` for a precedence constraint on the executable.
        event_handler: the innermost event handler that contains it; None in the control flow.
    """

    executable_id: str
    path: tuple[str, ...]
    name: str
    kind: str
    what: str
    event_handler: EventHandler | None = field(default=None, repr=False, compare=False)


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

    def of(self, variable: Variable) -> tuple[Setter, ...]:
        """Return what sets a variable, in the order of `Package.walk_executables`."""
        return self._setters.get(_identify(variable), ())

    def reads(self, variable: Variable) -> tuple[Reader, ...]:
        """Return what reads a variable: mails, conditions, statements, expressions and tasks, in the same order."""
        return self._readers.get(_identify(variable), ())

    def set_by(self, executable: Executable) -> tuple[Variable, ...]:
        """Return the variables that an executable sets itself, even if it is disabled; not those that it contains."""
        place = self._places.get(executable.id)
        if place is None:
            return ()
        found = (_resolve(name, place.scope) for name, _ in _find_outputs(executable))
        return tuple(dict.fromkeys(variable for variable in found if variable is not None))

    def resolve(self, name: str, executable: Executable) -> Variable | None:
        """Return the variable that a name means in an executable."""
        place = self._places.get(executable.id)
        return None if place is None else _resolve(name, place.scope)

    def configurations(self, variable: Variable) -> tuple[Configuration, ...]:
        """Return the package configurations that may set a variable and whose values are unknown."""
        return tuple(each for each in self._package.unread_configurations if each.may_set(variable))

    def is_constant(self, variable: Variable) -> bool:
        """Whether a variable keeps its design-time value in each run; one that has an expression does not."""
        return variable.expression is None and not self.of(variable) and not self.configurations(variable)

    @cached_property
    def _places(self) -> dict[str, _Place]:
        return {place.executable.id: place for place in _walk(self._package.root)}

    @cached_property
    def _setters(self) -> dict[_Identity, tuple[Setter, ...]]:
        setters: dict[_Identity, dict[Setter, None]] = {}
        for place in self._places.values():
            executable = place.executable
            if executable.disabled:
                continue
            for name, how in _find_outputs(executable):
                if (variable := _resolve(name, place.scope)) is not None:
                    setter = Setter(
                        executable_id=executable.id,
                        path=executable.path,
                        name=executable.name,
                        kind=_kind_of(executable),
                        how=how,
                        event_handler=place.handler,
                    )
                    setters.setdefault(_identify(variable), {})[setter] = None
        return {identity: tuple(found) for identity, found in setters.items()}

    @cached_property
    def _readers(self) -> dict[_Identity, tuple[Reader, ...]]:
        readers: dict[_Identity, dict[Reader, None]] = {}
        for place in self._places.values():
            executable = place.executable
            if executable.disabled:
                continue
            for name, what, scope in _find_inputs(place):
                reader = Reader(
                    executable_id=executable.id,
                    path=executable.path,
                    name=executable.name,
                    kind=_kind_of(executable),
                    what=what,
                    event_handler=place.handler,
                )
                for identity in self._find_definition(name, scope):
                    readers.setdefault(identity, {})[reader] = None
        return {identity: tuple(found) for identity, found in readers.items()}

    def _find_definition(self, name: str, scope: _Scope) -> Iterable[_Identity]:
        """Return the variable with this name, and those that its expression needs."""
        found: dict[_Identity, None] = {}
        remaining = [_resolve(name, scope)]
        while remaining:
            variable = remaining.pop()
            if variable is None or _identify(variable) in found:
                continue
            found[_identify(variable)] = None
            if variable.expression is not None:
                declaring_scope = self._scopes.get(variable.scope, scope)
                remaining += [_resolve(each, declaring_scope) for each in find_names(variable.expression)]
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


def _identify(variable: Variable) -> _Identity:
    return variable.qualified_name, variable.scope


def _resolve(name: str, scope: _Scope) -> Variable | None:
    """Return the variable that a name means in a scope."""
    if "::" in name:
        return scope.get(name)
    return scope.get(f"User::{name}") or next((each for each in scope.values() if each.name == name), None)


def _kind_of(executable: Executable) -> str:
    return "Microsoft.SendMailTask" if isinstance(executable, SendMailTask) else str(executable.kind)


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


def _find_outputs(executable: Executable) -> Iterator[tuple[str, SetterKind]]:
    """Yield the names of the variables that an executable sets."""
    if isinstance(executable, SqlTask):
        yield from ((result.variable, SetterKind.RESULT) for result in executable.results)
        outputs = (parameter for parameter in executable.parameters if parameter.direction != "Input")
        yield from ((parameter.variable, SetterKind.OUTPUT_PARAMETER) for parameter in outputs)
    elif isinstance(executable, ExpressionTask):
        yield from ((name, SetterKind.EXPRESSION) for name in find_assigned_names(executable.expression))
    elif isinstance(executable, OtherTask):
        how = _classify(executable.kind) if executable.assignments is None else SetterKind.EXPRESSION
        yield from ((name, how) for name in executable.sets)
    elif isinstance(executable, Container):
        expressions = _loop_expressions(executable)
        yield from ((name, SetterKind.FOR_EXPRESSION) for each in expressions for name in find_assigned_names(each))
        mappings = () if executable.foreach_loop is None else executable.foreach_loop.mappings
        yield from ((name, SetterKind.FOREACH_MAPPING) for _, name in mappings)


def _loop_expressions(container: Container) -> tuple[str, ...]:
    loop = container.for_loop
    return () if loop is None else (loop.initialize, loop.condition, loop.assign)


def _classify(kind: str) -> SetterKind:
    kind = kind.lower()
    if any(word in kind for word in _DATA_FLOWS):
        return SetterKind.DATA_FLOW
    return SetterKind.SCRIPT if "scripttask" in kind else SetterKind.OTHER


def _find_inputs(place: _Place) -> Iterator[tuple[str, str, _Scope]]:
    """Yield the names of the variables that an executable reads, the property that reads it, and the name's scope."""
    for constraint in place.constraints:
        yield from ((name, "condition", place.outer_scope) for name in find_names(constraint.expression or ""))
    executable = place.executable
    for what, expression in executable.expressions.items():
        yield from ((name, what, place.scope) for name in find_names(expression))
    yield from ((name, what, place.scope) for name, what in _find_own_inputs(executable))


def _find_own_inputs(executable: Executable) -> Iterator[tuple[str, str]]:
    """Yield the names of the variables that an executable reads other than in property expressions."""
    if isinstance(executable, SendMailTask):
        is_variable = executable.message_source_type is MessageSourceType.VARIABLE
        if is_variable and "MessageSource" not in executable.expressions:
            yield executable.message_source, "MessageSource"
        yield from _find_connection_inputs(executable.connection, executable.message_file)
    elif isinstance(executable, SqlTask):
        if executable.source_type is SqlSourceType.VARIABLE:
            yield executable.statement, "statement"
        inputs = (parameter for parameter in executable.parameters if parameter.direction == "Input")
        yield from ((parameter.variable, "parameter") for parameter in inputs)
        yield from _find_connection_inputs(executable.connection, executable.statement_file)
    elif isinstance(executable, ExpressionTask):
        yield from ((name, "expression") for name in _find_read_names(executable.expression))
    elif isinstance(executable, OtherTask):
        yield from ((name, "data") for name in executable.reads)
    else:
        yield from ((name, "loop") for each in _loop_expressions(executable) for name in _find_read_names(each))
        if executable.foreach_loop is not None:
            yield executable.foreach_loop.variable, "loop"
            expressions = executable.foreach_loop.expressions.values()
            yield from ((name, "loop") for each in expressions for name in find_names(each))


def _find_connection_inputs(
    *connections: SmtpConnection | FileConnection | DatabaseConnection | None,
) -> Iterator[tuple[str, str]]:
    for connection in connections:
        if connection is not None:
            expressions = connection.expressions.values()
            yield from ((name, "connection") for each in expressions for name in find_names(each))


def _find_read_names(assignment: str) -> Iterator[str]:
    """Yield the names on the right of an assignment, or in an expression without one."""
    for match in _NAMES.finditer(assignment):
        if _name(match) and not match["assigned"]:
            yield _name(match)
