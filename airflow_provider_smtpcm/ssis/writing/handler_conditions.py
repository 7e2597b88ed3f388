"""When SSIS sends the mails of an event handler: the conditions of precedence constraints and of `Disable`.

The DAG runs no task of an event handler but its mails. So each of the others is taken to succeed: a mail that follows
its success is sent, one that follows only its failure never. System variables about the executable that raises the
event are replaced in a condition where their values are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from airflow_provider_smtpcm.ssis.expressions import (
    Conditional,
    DataType,
    Expression,
    ExpressionError,
    Literal,
    Name,
    NotTranslatable,
    Operation,
    TypeSpec,
    Unary,
    evaluate,
    find_variables,
    parse,
    reads_clock,
    replace_names,
    unparse,
)
from airflow_provider_smtpcm.ssis.model import (
    ConstraintValue,
    Container,
    ContainerKind,
    EvalOp,
    EventHandler,
    Executable,
    PrecedenceConstraint,
    SendMailTask,
)
from airflow_provider_smtpcm.ssis.writing.flow import find_incoming, get_forced_result, is_limit_within_reach
from airflow_provider_smtpcm.ssis.writing.handler_values import HandlerValues
from airflow_provider_smtpcm.ssis.writing.secrets import display_expression
from airflow_provider_smtpcm.ssis.writing.symbols import Scope, SymbolTable, open_scope

# Maximum tests in one condition. Where constraints branch and join again, their number doubles.
_MAX_TESTS = 100
#: The System variables of the executable that raised the event.
SOURCE_NAMES = ("SourceName", "SourceID", "SourceDescription")
_PACKAGE_NAMES = ("PackageName", "PackageID")
# The last one may be a loop, too.
_LOOPS = {ContainerKind.FOR_LOOP, ContainerKind.FOREACH_LOOP, ContainerKind.TASK_HOST}
_SSIS_WORDS: dict[str | bool, str] = {"and": "&&", "or": "||", True: "TRUE", False: "FALSE"}
_JINJA_WORDS: dict[str | bool, str] = {"and": "and", "or": "or", True: "true", False: "false"}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Test:
    """A Boolean expression of a precedence constraint, or the negated one of `Disable`.

    Args:
        text: the expression as the package has it; `!(...)` if it is negated.
        tree: the expression with the variables that are defined by expressions replaced; None: it cannot be parsed.
        error: why it cannot be parsed.
        scope: resolves the names in it.
        is_disable: whether it is the negated expression of a Disable property.
    """

    text: str
    tree: Expression | None
    is_disable: bool = False
    error: ExpressionError | None = None
    scope: Scope = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Group:
    """Several conditions, of which all (`and`) or at least one (`or`) must be true.

    Args:
        size: the number of tests in it.
    """

    operator: str
    parts: tuple[Condition, ...]
    size: int


Condition = bool | Test | Group


def combine(operator: str, parts: Iterable[Condition]) -> Condition:
    """Return the conjunction (`and`) or the disjunction (`or`) of conditions, simplified.

    Raises:
        NotTranslatable: it is too large.
    """
    decides = operator == "or"
    flat: dict[int, Condition] = {}
    for part in parts:
        if isinstance(part, bool):
            if part is decides:
                return decides
        elif isinstance(part, Group) and part.operator == operator:
            flat |= {id(inner): inner for inner in part.parts}
        else:
            flat[id(part)] = part
    kept = tuple(flat.values())
    size = sum(part.size if isinstance(part, Group) else 1 for part in kept)
    if size > _MAX_TESTS:
        raise NotTranslatable(
            f"It consists of {size} tests; the limit is {_MAX_TESTS}.",
            remedy="Write the condition of the alert in the DAG.",
        )
    if len(kept) == 1:
        return kept[0]
    return Group(operator=operator, parts=kept, size=size) if kept else not decides


def find_tests(condition: Condition) -> Iterator[Test]:
    """Yield the expressions in a condition."""
    if isinstance(condition, Test):
        yield condition
    elif isinstance(condition, Group):
        for part in condition.parts:
            yield from find_tests(part)


def display_condition(condition: Condition) -> str:
    """Return a condition in SSIS's syntax, without credentials."""
    return _write(condition, lambda test: display_expression(test.text), _SSIS_WORDS)


def condition_to_code(condition: Condition, translate: Callable[[Test], str]) -> str:
    """Return a condition as a Jinja expression without braces.

    Args:
        translate: returns the Jinja expression of a test.
    """
    return _write(condition, translate, _JINJA_WORDS)


def _write(condition: Condition, write_test: Callable[[Test], str], words: Mapping[str | bool, str]) -> str:
    if isinstance(condition, Test):
        return write_test(condition)
    if isinstance(condition, Group):
        return f" {words[condition.operator]} ".join(f"({_write(each, write_test, words)})" for each in condition.parts)
    return words[condition]


def make_test(expression: str, scope: Scope, symbols: SymbolTable, task_name: str | None = None) -> Test:
    """Return the test of an expression.

    Args:
        task_name: the value of `System::TaskName`; None: there is none.
    """
    try:
        tree = symbols.inline(parse(expression), scope, task_name)
    except ExpressionError as error:
        return Test(text=expression, tree=None, error=error, scope=scope)
    return Test(text=expression, tree=tree, scope=scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """When an executable of an event handler runs, as far as the DAG can determine it.

    Args:
        condition: its condition, if no task of the handler fails.
        assumed: the tasks that must not fail, by path.
        lost: the tasks whose failure would make it run as well, by path.
        forced: the executables whose forced result influences whether a preceding container fails, by path.
    """

    condition: Condition = True
    assumed: Mapping[tuple[str, ...], Executable] = field(default_factory=dict)
    lost: Mapping[tuple[str, ...], Executable] = field(default_factory=dict)
    forced: Mapping[tuple[str, ...], Executable] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerMail:
    """A Send Mail task in an event handler.

    Args:
        scope: its variables, and those around it. A variable that tasks before it set has an expression for the
            value that they set.
        values: what is known of such variables.
        run: when SSIS sends it.
        loops: the loops around it.
        error: why its condition cannot be computed.
    """

    task: SendMailTask
    scope: Scope
    run: Run
    values: HandlerValues
    loops: tuple[Container, ...] = ()
    error: NotTranslatable | None = None


def find_handler_mails(handler: EventHandler, scope: Scope, symbols: SymbolTable) -> list[HandlerMail]:
    """Return the Send Mail tasks of an event handler in the order in which SSIS runs them, including disabled ones.

    Args:
        scope: the handler's own variables, and those around it.
        symbols: resolves the names in expressions.
    """
    disable = handler.expressions.get("Disable")
    run = Run(condition=_disable_test(disable, scope, symbols)) if disable and not handler.disabled else Run()
    values = HandlerValues(handler, symbols)
    return list(_Flow(handler, run, scope, values).find_mails())


class _Flow:
    """The executables of an event handler, or of a container in it.

    Args:
        container: the handler or the container.
        entered: when the executables without precedence constraints run.
        scope: the variables of the container, and those around it.
        values: the variables at each point of the event handler.
        loops: the loops around the executables.
    """

    def __init__(
        self,
        container: EventHandler | Container,
        entered: Run,
        scope: Scope,
        values: HandlerValues,
        loops: tuple[Container, ...] = (),
    ) -> None:
        self._entered, self._scope, self._values, self._loops = entered, scope, values, loops
        self._members = {executable.id: executable for executable in container.executables}
        self._incoming = find_incoming(container.constraints, self._members)
        # None while it is computed: SSIS allows no cycle, but a file may contain one.
        self._runs: dict[str, Run | NotTranslatable | None] = {}

    def find_mails(self) -> Iterator[HandlerMail]:
        for key in self._members:
            self._find_run(key)
        for key, run in self._runs.items():  # each after its predecessors
            yield from self._find_mails_in(self._members[key], run)

    def _find_mails_in(self, executable: Executable, run: Run | NotTranslatable | None) -> Iterator[HandlerMail]:
        declared = open_scope(executable.variables, self._scope)
        scope = self._values.before(executable, declared)
        error = run if isinstance(run, NotTranslatable) else None
        run = run if isinstance(run, Run) else Run()
        if (disable := executable.expressions.get("Disable")) and not executable.disabled and error is None:
            test = _disable_test(disable, scope, self._values.symbols, executable.name)
            try:
                run = replace(run, condition=combine("and", [run.condition, test]))
            except NotTranslatable as too_large:
                error = too_large
        if isinstance(executable, SendMailTask):
            values, loops = self._values, self._loops
            yield HandlerMail(task=executable, scope=scope, run=run, values=values, loops=loops, error=error)
        elif isinstance(executable, Container):
            loops = (*self._loops, executable) if executable.kind in _LOOPS else self._loops
            for mail in _Flow(executable, run, declared, self._values, loops).find_mails():
                yield replace(mail, error=error or mail.error)

    def _find_run(self, key: str) -> Run | NotTranslatable | None:
        if key in self._runs:
            return self._runs[key]
        self._runs[key] = None
        try:
            found: Run | NotTranslatable = self._make_run(key)
        except NotTranslatable as error:
            found = error
        del self._runs[key]  # so that it is added again, after its predecessors
        self._runs[key] = found
        return found

    def _make_run(self, key: str) -> Run:
        runs = []
        for constraint in self._incoming[key]:
            before = self._find_run(constraint.before)
            if isinstance(before, NotTranslatable):
                raise before
            if before is not None:
                runs.append(self._follow(constraint, before))
        if not runs:
            return self._entered
        all_of = len(runs) == 1 or all(constraint.logical_and for constraint in self._incoming[key])
        condition = combine("and" if all_of else "or", [run.condition for run in runs])
        # If the condition is never true, only the parts that are never true matter for the findings.
        runs = [run for run in runs if condition is not False or run.condition is False]
        return Run(
            condition=condition,
            assumed={path: task for run in runs for path, task in run.assumed.items()},
            lost={path: task for run in runs for path, task in run.lost.items()},
            forced={path: task for run in runs for path, task in run.forced.items()},
        )

    def _follow(self, constraint: PrecedenceConstraint, before: Run) -> Run:
        """Return when a constraint is satisfied.

        Args:
            before: when the preceding executable runs.
        """
        scope = self._values.after(self._members[constraint.before], self._scope)
        test = make_test(constraint.expression or "", scope, self._values.symbols)
        if constraint.eval_op is EvalOp.EXPRESSION or (
            constraint.eval_op is EvalOp.EXPRESSION_OR_CONSTRAINT and constraint.value is ConstraintValue.FAILURE
        ):
            run = replace(before, condition=combine("and", [before.condition, test]))
            if constraint.eval_op is EvalOp.EXPRESSION_OR_CONSTRAINT:
                run = replace(run, lost={**run.lost, **_fallible(self._members[constraint.before])})
            return run
        run = self._apply_value(constraint.value, before, self._members[constraint.before])
        if constraint.eval_op is EvalOp.EXPRESSION_AND_CONSTRAINT:
            run = replace(run, condition=combine("and", [run.condition, test]))
        return run

    @staticmethod
    def _apply_value(value: ConstraintValue, before: Run, executable: Executable) -> Run:
        if value is ConstraintValue.COMPLETION:
            return before
        if (forced_result := get_forced_result(executable)) and not executable.disabled:
            own = {executable.path: executable} if is_limit_within_reach(executable) else {}
            run = before if forced_result == value else Run(condition=False)
            return replace(run, forced={**before.forced, **own})
        fallible = _fallible(executable)
        forced = {**before.forced, **_find_forced(executable)}
        if value is ConstraintValue.FAILURE:
            return Run(condition=False, lost={**before.lost, **fallible}, forced=forced)
        return replace(before, assumed={**before.assumed, **fallible}, forced=forced)


def _fallible(executable: Executable) -> dict[tuple[str, ...], Executable]:
    """Return the tasks whose failure makes an executable fail in SSIS, by path."""
    if executable.disabled or executable.force_result == "success":
        return {}
    if not isinstance(executable, Container):
        return {executable.path: executable}
    return {path: task for child in executable.executables for path, task in _fallible(child).items()}


def _find_forced(executable: Executable) -> dict[tuple[str, ...], Executable]:
    """Return the executables in a container whose result SSIS forces, by path."""
    found: dict[tuple[str, ...], Executable] = {}
    for child in executable.executables if isinstance(executable, Container) else ():
        if not child.disabled:
            found |= {child.path: child} if child.force_result else _find_forced(child)
    return found


def _disable_test(expression: str, scope: Scope, symbols: SymbolTable, task_name: str | None = None) -> Test:
    return replace(make_test(f"!({expression})", scope, symbols, task_name), is_disable=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Specialized:
    """A condition, and the executables that share it.

    Args:
        condition: the condition, in which System variables with known values are replaced by them.
        sources: the executables.
    """

    condition: Condition
    sources: tuple[Executable, ...]


class SourceKnowledge:
    """Replaces the System variables about the package, and about the executable that raised the event.

    Args:
        symbols: the symbols of the package.
    """

    def __init__(self, symbols: SymbolTable) -> None:
        self._symbols = symbols

    def find_source_names(self, condition: Condition) -> set[str]:
        """Return the System variables about the source of the event in a condition."""
        return {
            unqualified
            for test in find_tests(condition)
            for name in (() if test.tree is None else find_variables(test.tree))
            if (unqualified := self._as_system_variable(name, test.scope)) in SOURCE_NAMES
        }

    def specialize(self, condition: Condition, sources: Sequence[Executable]) -> list[Specialized]:
        """Return the condition for each executable that may raise the event; those with equal conditions share one."""
        if not self.find_source_names(condition):
            return [Specialized(condition=self.fold(condition, None), sources=tuple(sources))]
        found: dict[str, tuple[Condition, list[Executable]]] = {}
        for source in sources:
            folded = self.fold(condition, source)
            text = _write(folded, _get_text, _SSIS_WORDS)
            found.setdefault(text, (folded, []))[1].append(source)
        return [Specialized(condition=folded, sources=tuple(having)) for folded, having in found.values()]

    def fold(self, condition: Condition, source: Executable | None) -> Condition:
        """Return a condition in which each test with a known value is replaced by it.

        Args:
            source: the executable that raised the event; None: not known.
        """
        if isinstance(condition, Group):
            return combine(condition.operator, [self.fold(part, source) for part in condition.parts])
        if not isinstance(condition, Test) or condition.tree is None:
            return condition
        package = self._symbols.package
        values = {"PackageName": package.root.name, "PackageID": package.id}
        if source is not None:
            id_ = package.id if source is package.root else source.id
            values |= {"SourceName": source.name, "SourceID": id_, "SourceDescription": source.description}

        def replace_name(node: Name) -> Expression:
            value = values.get(self._as_system_variable(node.name, condition.scope) or "")
            return node if value is None else Literal(type=TypeSpec(DataType.WSTR), value=value)

        known = {*SOURCE_NAMES, *_PACKAGE_NAMES}
        names = {self._as_system_variable(name, condition.scope) for name in find_variables(condition.tree)}
        folded = _fold(replace_names(condition.tree, replace_name) if names & known else condition.tree)
        value = _get_boolean(folded)
        if value is not None:
            return value
        return replace(condition, tree=folded) if folded is not condition.tree else condition

    def name_test(self, sources: Iterable[Executable]) -> Test:
        """Return a test that the source of the event has the name of one of these executables."""
        text = " || ".join(
            unparse(
                Operation(
                    first=Name(name="System::SourceName"),
                    rest=(("==", Literal(type=TypeSpec(DataType.WSTR), value=name), 0),),
                )
            )
            for name in dict.fromkeys(source.name for source in sources)
        )
        return Test(text=text, tree=parse(text))

    def _as_system_variable(self, name: str, scope: Scope) -> str | None:
        """Return a name without `System::`; None if it refers to a variable of the package."""
        if "::" in name and not name.startswith("System::"):
            return None
        return None if self._symbols.lookup(name, scope) is not None else name.removeprefix("System::")


def _get_text(test: Test) -> str:
    return test.text if test.tree is None else unparse(test.tree)


def _fold(node: Expression) -> Expression:
    """Return the tree in which each Boolean part with a known value is replaced by it."""
    if isinstance(node, Operation) and node.rest[0][0] in {"&&", "||"}:
        return _fold_logical(node)
    if isinstance(node, Unary) and node.operator == "!":
        operand = _fold(node.operand)
        value = _get_boolean(operand)
        return replace(node, operand=operand) if value is None else _boolean(not value)
    if isinstance(node, Conditional) and len(node.arms) == 1:
        ((test, chosen),) = node.arms
        value = _get_boolean(_fold(test))
        if value is not None:
            return _fold(chosen if value else node.otherwise)
    return _evaluate_constant(node)


def _evaluate_constant(node: Expression) -> Expression:
    """Return the value of an expression without variables if it is a Boolean; otherwise the expression."""
    if find_variables(node) or reads_clock(node):
        return node
    try:
        value = evaluate(node)
    except (ExpressionError, RecursionError):
        return node
    return _boolean(value.data) if isinstance(value.data, bool) else node


def _fold_logical(node: Operation) -> Expression:
    operator = node.rest[0][0]
    decides = operator == "||"
    kept = []
    for operand in map(_fold, node.operands):
        value = _get_boolean(operand)
        if value is decides:
            return operand
        if value is None:
            kept.append(operand)
    if not kept:
        return _boolean(not decides)
    first, *rest = kept
    return replace(node, first=first, rest=tuple((operator, part, 0) for part in rest)) if rest else first


def _get_boolean(node: Expression) -> bool | None:
    """Return the value of a Boolean literal; None for any other expression."""
    return node.value if isinstance(node, Literal) and isinstance(node.value, bool) else None


def _boolean(value: bool) -> Literal:  # noqa: FBT001 - the value itself
    return Literal(type=TypeSpec(DataType.BOOL), value=value)
