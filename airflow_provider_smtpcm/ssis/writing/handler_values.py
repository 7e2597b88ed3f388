"""The values of variables inside an event handler, where scripts and Expression tasks set them before a mail.

A callback runs no script. So where it is certain which task has set a variable last, and how, the variable is replaced
by that value; where it is not, a person is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal as OneOf

from airflow_provider_smtpcm.ssis.expressions import (
    Cast,
    DataType,
    Expression,
    ExpressionError,
    Literal,
    Name,
    NotTranslatable,
    TypeSpec,
    find_variables,
    parse,
    replace_names,
    unparse,
    walk,
)
from airflow_provider_smtpcm.ssis.findings import KEEP, Question
from airflow_provider_smtpcm.ssis.model import (
    Container,
    ContainerKind,
    EventHandler,
    Executable,
    ExpressionTask,
    OtherTask,
    PrecedenceConstraint,
    Variable,
)
from airflow_provider_smtpcm.ssis.writing.flow import find_fork, find_incoming, find_upstream
from airflow_provider_smtpcm.ssis.writing.live_variables import VariableUse
from airflow_provider_smtpcm.ssis.writing.python_source import quoted_list
from airflow_provider_smtpcm.ssis.writing.symbols import TYPES, Scope, SymbolTable, is_secret
from airflow_provider_smtpcm.ssis.writing.tasks import find_assignments

# If the value of each variable contains that of another one twice, the size doubles with each level.
_MAX_NODES = 1000
_MAX_DEPTH = 20
_STRING = 8  # the VARENUM of String
# Patterns of variable names, and what most packages set such a variable to: `System::ErrorDescription` or `ErrorCode`.
_GUESSES = (
    (
        re.compile(r"err.*(desc|msg|message|text|info)|(desc|msg|message|text).*err|^err(or)?$", re.IGNORECASE),
        "Description",
    ),
    (re.compile(r"err.*(code|number|num|no)$", re.IGNORECASE), "Code"),
)
_DESCRIPTION = {"System::ErrorDescription", "ErrorDescription"}

_When = OneOf["certainly before", "perhaps before", "not before"]


class _UnknownError(Exception):
    """The value of a variable is not certain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerValue:
    """A variable of an event handler, defined by the value that it has for a mail.

    Args:
        variable: the variable as the package declares it.
        definition: the same one with the value as its expression.
        setters: the tasks that have computed the value.
        adds: whether the value contains the one that the variable had before.
        question: what a person is asked, if the value is a guess or an answer.
    """

    variable: Variable
    definition: Variable
    setters: tuple[Executable, ...] = ()
    adds: bool = False
    question: Question | None = None


@dataclass(frozen=True, slots=True)
class _Value:
    tree: Expression
    setters: tuple[Executable, ...] = ()
    adds: bool = False
    question: Question | None = None


@dataclass(frozen=True, slots=True)
class _Point:
    """The point before an executable of the handler begins, or after it has ended.

    Args:
        chain: the ids of the containers around it in the handler, from the outside, and its own.
    """

    chain: tuple[str, ...]
    is_after: bool


#: After the whole handler.
_END = _Point((), is_after=True)


class HandlerValues:
    """The values of variables at each point of an event handler.

    Args:
        handler: the event handler.
        symbols: the symbols of the package.
    """

    def __init__(self, handler: EventHandler, symbols: SymbolTable) -> None:
        self.symbols, self._find_setters = symbols, symbols.live.setters.in_event_handlers
        # Whether no event handler of the package sets a variable.
        self._is_idle = not any(map(self._find_setters, symbols.package.variables))
        # The constraints on each executable, by its id.
        self._incoming: dict[str, list[PrecedenceConstraint]] = {}
        self._required: dict[str, set[str]] = {}
        self._executables: dict[str, Executable] = {}
        self._chains: dict[str, tuple[str, ...]] = {}
        # The ids of the executables that set a variable, by its identity.
        self._setters: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        # The ids of the executables in the event handlers of this one, and of the executables in it.
        self._nested: set[str] = set()
        self._scopes: dict[tuple[str, ...], Scope] = {}
        self._enter(handler, ())
        for nested in handler.event_handlers:
            self._enter_nested(nested)
        self._preceding = self._find_preceding(handler)
        self._definitions: dict[int, HandlerValue] = {}

    def _enter(self, owner: EventHandler | Container, chain: tuple[str, ...]) -> None:
        self._incoming |= find_incoming(owner.constraints, {child.id for child in owner.executables})
        for child in owner.executables:
            self._executables[child.id], self._chains[child.id] = child, (*chain, child.id)
            if not child.disabled:
                for variable in self.symbols.live.setters.set_by(child):
                    self._setters.setdefault(variable.identity, []).append(child.id)
            if isinstance(child, Container):
                self._enter(child, (*chain, child.id))
            for nested in child.event_handlers:
                self._enter_nested(nested)

    def _find_preceding(self, handler: EventHandler) -> HandlerValues | None:
        """Return the values of the handler that SSIS has run for the same executable: OnError before OnTaskFailed."""
        if handler.event_name.lower() != "ontaskfailed" or self._is_idle:
            return None
        handlers = {id(one): one for _, one in self.symbols.package.walk_executables() if one is not None}
        found = [one for one in handlers.values() if one.owner == handler.owner and one.event_name.lower() == "onerror"]
        is_certain = len(found) == 1 and not found[0].disabled and "Disable" not in found[0].expressions
        return HandlerValues(found[0], self.symbols) if is_certain else None

    def _enter_nested(self, handler: EventHandler) -> None:
        pending: list[EventHandler | Executable] = [handler]
        while pending:
            owner = pending.pop()
            if not isinstance(owner, EventHandler):
                self._nested.add(owner.id)
            pending += owner.event_handlers
            if isinstance(owner, EventHandler | Container):
                pending += owner.executables

    def before(self, executable: Executable, scope: Scope) -> Scope:
        """Return a scope with the variables as they are when an executable begins."""
        return self._define(_Point(self._chains[executable.id], is_after=False), scope)

    def after(self, executable: Executable, scope: Scope) -> Scope:
        """Return a scope with the variables as they are when an executable has ended."""
        return self._define(_Point(self._chains[executable.id], is_after=True), scope)

    def find(self, symbol: object) -> HandlerValue | None:
        """Return what is known of a symbol from `before` or `after`; None if it is as the package declares it."""
        return self._definitions.get(id(symbol))

    def compute_at_end(self, variable: Variable, setters: set[str]) -> _Value | None:
        """Return the value that the handler leaves in a variable.

        Args:
            setters: the ids of the executables that may have set it, which must be in the handler.

        Raises:
            _UnknownError, ExpressionError, NotTranslatable: as in `_compute`.
        """
        if not setters <= self._executables.keys():
            raise _UnknownError
        return self._compute(variable, _END, 0, ())

    def _define(self, point: _Point, scope: Scope) -> Scope:
        if self._is_idle:
            return scope
        defined: dict[str, Variable] = {}
        for name, symbol in scope.items():
            if not isinstance(symbol, Variable) or id(symbol) in self._definitions or is_secret(symbol):
                continue
            value = self._find_value(symbol, point, 0)
            path = self._executables[point.chain[-1]].path
            if value is None or not self._means_the_same(symbol, value, path):
                continue
            definition = replace(symbol, expression=unparse(value.tree), scope=path)
            if not is_secret(definition):
                defined[name] = definition
                self._definitions[id(definition)] = HandlerValue(
                    variable=symbol,
                    definition=definition,
                    setters=value.setters,
                    adds=value.adds,
                    question=value.question,
                )
        return {**scope, **defined} if defined else scope

    def _means_the_same(self, variable: Variable, value: _Value, path: tuple[str, ...]) -> bool:
        """Whether the names in a value refer to the same variables at a path as where it is computed."""
        paths = [setter.path for setter in value.setters]
        paths += [variable.scope] if variable.expression is not None else []
        return all(
            self.symbols.lookup(name, self._scope_at(other)) == self.symbols.lookup(name, self._scope_at(path))
            for name in find_variables(value.tree)
            for other in paths
        )

    def _scope_at(self, path: tuple[str, ...]) -> Scope:
        if path not in self._scopes:
            self._scopes[path] = self.symbols.scope_at(path)
        return self._scopes[path]

    def _find_value(self, variable: Variable, point: _Point, depth: int) -> _Value | None:
        """Return the value of a variable; None if it is the one that the variable has outside the handler."""
        if variable.expression is not None:
            return self._expand_definition(variable, point, depth)
        try:
            return self._compute(variable, point, depth, ())
        except (_UnknownError, ExpressionError, NotTranslatable):
            return self._ask(variable)

    def _expand_definition(self, variable: Variable, point: _Point, depth: int) -> _Value | None:
        """Return the definition of a variable with the values of the variables in it."""
        if depth > _MAX_DEPTH:
            return None
        try:
            tree = parse(variable.expression or "")
        except (ExpressionError, RecursionError):
            return None
        scope = self._scope_at(variable.scope)
        values: list[_Value] = []

        def expand(node: Name) -> Expression:
            symbol = self.symbols.lookup(node.name, scope)
            value = self._find_value(symbol, point, depth + 1) if isinstance(symbol, Variable) else None
            if value is None:
                return node
            values.append(value)
            return value.tree

        tree = replace_names(tree, expand)
        if not values or _is_too_large(tree):
            return None
        return _merge(tree, values)

    def _compute(self, variable: Variable, point: _Point, depth: int, chain: tuple[str, ...]) -> _Value | None:
        """Return the value that a task has given to a variable.

        Args:
            point: where the variable is read.
            depth: the nesting of values so far; the maximum is 20.
            chain: the ids of the tasks whose values need this one.

        Raises:
            _UnknownError: it is not certain which task was the last one, or what it does.
            ExpressionError, NotTranslatable: as in `find_assignments`.
        """
        if depth > _MAX_DEPTH:
            raise _UnknownError
        found = {key: self._compare(key, point) for key in self._setters.get(variable.identity, ())}
        earlier = [key for key, when in found.items() if when != "not before"]
        if not earlier:
            others = {one.executable.id for one in self._find_setters(variable)} - {*chain}
            if not others:
                return None
            if self._preceding is None:
                raise _UnknownError
            return self._preceding.compute_at_end(variable, others)
        last = next((key for key in earlier if found[key] == "certainly before" and self._is_last(key, earlier)), None)
        if last is None or self._is_set_in_nested_handler(variable):
            raise _UnknownError
        return self._compute_assignment(variable, self._executables[last], depth, (*chain, last))

    def _compute_assignment(self, variable: Variable, task: Executable, depth: int, chain: tuple[str, ...]) -> _Value:
        """Return the value that a task assigns to a variable, in terms of the values outside the handler."""
        scope = self._scope_at(task.path)
        assignments = find_assignments(self.symbols, task, scope)
        tree = next((value for target, value in assignments or () if target.identity == variable.identity), None)
        if tree is None:
            raise _UnknownError
        point = _Point(self._chains[task.id], is_after=False)
        values: list[_Value] = []
        adds = False

        def expand(node: Name) -> Expression:
            nonlocal adds
            symbol = self.symbols.lookup(node.name, scope)
            if not isinstance(symbol, Variable):
                return node
            if symbol.expression is not None:
                value = self._expand_definition(symbol, point, depth + 1)
                if value is not None and value.question is not None:
                    raise _UnknownError
            else:
                value = self._compute(symbol, point, depth + 1, chain)
            if value is None:
                adds = adds or bool(self._find_setters(symbol))
                return node
            values.append(value)
            return value.tree

        tree = replace_names(tree, expand)
        if _is_too_large(tree):
            raise _UnknownError
        data_type = TYPES.get(variable.data_type)
        if isinstance(task, ExpressionTask) and data_type not in {None, DataType.WSTR}:
            assert data_type is not None
            tree = Cast(type=TypeSpec(data_type), operand=tree)
        merged = _merge(tree, values)
        return replace(merged, setters=(task, *merged.setters), adds=adds or merged.adds)

    # The order of the tasks.

    def _compare(self, setter: str, point: _Point) -> _When:
        """Return whether a task runs before a point."""
        chain, target = self._chains[setter], point.chain
        if chain[: len(target)] == target:
            if not point.is_after:
                return "not before"
            inside = chain[max(len(target) - 1, 0) :]
            is_certain = self._is_certain(inside) and (target or not self._incoming[chain[0]])
            return "certainly before" if is_certain else "perhaps before"
        depth = find_fork(chain, target)
        if depth is None:  # a loop around the point, which sets a variable for each item
            return "perhaps before"
        if target[depth] in find_upstream(self._incoming, chain[depth]):
            return "not before"
        is_certain = chain[depth] in self._find_required(target[depth]) and self._is_certain(chain[depth:])
        return "certainly before" if is_certain else "perhaps before"

    def _is_certain(self, chain: Sequence[str]) -> bool:
        """Whether the last of these executables runs whenever SSIS reaches the first one, which contains it."""
        for index, key in enumerate(chain):
            executable = self._executables[key]
            if executable.disabled or "Disable" in executable.expressions:
                return False
            if index and self._incoming[key]:
                return False
            if index < len(chain) - 1 and not (
                isinstance(executable, Container) and executable.kind is ContainerKind.SEQUENCE
            ):
                return False
        return True

    def _is_last(self, key: str, others: Iterable[str]) -> bool:
        """Whether a task always runs after the others."""
        return all(other == key or self._runs_after(key, other) for other in others)

    def _runs_after(self, key: str, other: str) -> bool:
        mine, its = self._chains[key], self._chains[other]
        depth = find_fork(mine, its)
        return depth is not None and its[depth] in find_upstream(self._incoming, mine[depth])

    def _find_required(self, key: str) -> set[str]:
        """Return the ids of the executables that SSIS has certainly reached before one in the same container."""
        if key not in self._required:
            self._required[key] = set()  # for a cycle
            constraints = self._incoming[key]
            if found := [{one.before, *self._find_required(one.before)} for one in constraints]:
                all_of = all(one.logical_and for one in constraints)
                self._required[key] = set.union(*found) if all_of else set.intersection(*found)
        return self._required[key]

    def _is_set_in_nested_handler(self, variable: Variable) -> bool:
        """Whether an event handler of this handler, or of an executable in it, sets a variable."""
        return any(one.executable.id in self._nested for one in self._find_setters(variable))

    # What a person is asked.

    def _ask(self, variable: Variable) -> _Value | None:
        """Return the answer of a person, or a guess; None for `keep`: the value outside the handler."""
        question = ask_for_value(self.symbols, variable)
        answer = self.symbols.findings.answer(question.key)
        text = question.guess if answer is None else answer
        if text.strip().lower() == KEEP:
            return None
        return _Value(_read_answer(text), question=question)


def ask_for_value(symbols: SymbolTable, variable: Variable) -> Question:
    """Return the question for the value of a variable that executables in event handlers set."""
    setters = symbols.live.setters.in_event_handlers(variable)
    names = quoted_list(sorted({one.executable.name for one in setters}))
    how = (
        "Answer with an SSIS expression such as @[System::ErrorDescription], with a text, or with "
        f"{KEEP} for the design-time value."
    )
    return Question(
        key=f"variable {variable.qualified_name} in event handlers",
        text=f"Which value does {variable.qualified_name} have in the mails of event handlers? In SSIS, it is set by "
        f"{names}, which the DAG does not run. {how}",
        guess=_guess(symbols, variable, setters),
        subject=variable.qualified_name,
        shared_text="Which value do these variables have in the mails of event handlers? In SSIS, they are set by "
        f"executables that the DAG does not run. {how}",
    )


def _guess(symbols: SymbolTable, variable: Variable, setters: Sequence[VariableUse]) -> str:
    if variable.data_type != _STRING:
        return KEEP
    for pattern, name in _GUESSES:
        if pattern.search(variable.name):
            return f"@[System::Error{name}]"
    ids = {setter.executable.id for setter in setters}
    names = {variable.qualified_name, variable.name}
    for executable, _ in symbols.package.walk_executables():
        # A script that reads the description of the error, and sets nothing but this variable.
        if not isinstance(executable, OtherTask) or executable.id not in ids:
            continue
        if names.issuperset(executable.sets) and not _DESCRIPTION.isdisjoint(executable.reads):
            return "@[System::ErrorDescription]"
    return KEEP


def is_expression(answer: str) -> bool:
    """Whether an answer is an SSIS expression, and not a text."""
    return answer.lstrip().startswith(("@", '"', "(")) or "@[" in answer


def _read_answer(answer: str) -> Expression:
    if is_expression(answer):
        try:
            return parse(answer)
        except (ExpressionError, RecursionError):  # which `read_answers` refuses
            pass
    return Literal(type=TypeSpec(DataType.WSTR), value=answer)


def _is_too_large(tree: Expression) -> bool:
    return sum(1 for _ in walk(tree)) > _MAX_NODES


def _merge(tree: Expression, values: Iterable[_Value]) -> _Value:
    values = list(values)
    return _Value(
        tree,
        setters=tuple({setter.id: setter for value in values for setter in value.setters}.values()),
        adds=any(value.adds for value in values),
        question=next((value.question for value in values if value.question is not None), None),
    )
