"""Conditions of several SSIS expressions, and what is known in them of the executable that raises an event."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from airflow_provider_smtpcm.ssis.expressions import (
    Call,
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
    replace_names,
    unparse,
    walk,
)
from airflow_provider_smtpcm.ssis.model import Executable
from airflow_provider_smtpcm.ssis.writing.symbols import Scope, SymbolTable
from airflow_provider_smtpcm.ssis.writing.templates import display_expression

# Maximum tests in one condition. Arrows that part and meet again would double their number each time.
_MAX_TESTS = 100
#: The System variables of the executable that raised the event.
SOURCE_NAMES = ("SourceName", "SourceID", "SourceDescription")
#: The functions that read the clock.
CLOCKS = ("GETDATE", "GETUTCDATE")
_PACKAGE_NAMES = ("PackageName", "PackageID")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Test:
    """A Boolean expression of a precedence constraint, or the negated one of `Disable`.

    Args:
        text: the expression as the package has it; `!(...)` if it is negated.
        tree: the expression with the variables that are defined by expressions replaced; None: it cannot be parsed.
        error: why it cannot be parsed.
        scope: resolves the names in it.
    """

    text: str
    tree: Expression | None
    error: ExpressionError | None = None
    scope: Scope = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Group:
    """Conditions that all have to hold (`and`), or of which one is enough (`or`)."""

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
        raise NotTranslatable(f"It consists of {size} tests.", remedy="Write the condition of the alert in the DAG.")
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
    if isinstance(condition, Test):
        return display_expression(condition.text)
    if isinstance(condition, Group):
        texts = [f"({display_condition(part)})" for part in condition.parts]
        return (" && " if condition.operator == "and" else " || ").join(texts)
    return str(condition).upper()


def condition_to_code(condition: Condition, translate: Callable[[Test], str]) -> str:
    """Return a condition as a Jinja expression without braces.

    Args:
        translate: returns the Jinja expression of a test.
    """
    if isinstance(condition, Test):
        return translate(condition)
    if isinstance(condition, Group):
        codes = [f"({condition_to_code(part, translate)})" for part in condition.parts]
        return f" {condition.operator} ".join(codes)
    return "true" if condition else "false"


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


# --- What is known of the executable that raises the event


@dataclass(frozen=True, slots=True, kw_only=True)
class Specialized:
    """A condition for those executables that have it in common.

    Args:
        condition: without the System variables that are known for each of them.
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
        """Return the condition for each executable that may raise the event; equal ones are one."""
        if not self.find_source_names(condition):
            return [Specialized(condition=self.fold(condition, None), sources=tuple(sources))]
        found: dict[str, tuple[Condition, list[Executable]]] = {}
        for source in sources:
            folded = self.fold(condition, source)
            found.setdefault(_structure(folded), (folded, []))[1].append(source)
        return [Specialized(condition=folded, sources=tuple(having)) for folded, having in found.values()]

    def fold(self, condition: Condition, source: Executable | None) -> Condition:
        """Return a condition with the tests replaced whose value is known.

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
        """Return the test whether the source of the event has the name of one of these executables."""
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


def _structure(condition: Condition) -> str:
    """Return a text that equal conditions have in common, given the same tests."""
    if isinstance(condition, Test):
        return condition.text if condition.tree is None else unparse(condition.tree)
    if isinstance(condition, Group):
        return f"({f' {condition.operator} '.join(map(_structure, condition.parts))})"
    return str(condition)


def _fold(node: Expression) -> Expression:
    """Return the tree with its Boolean parts replaced whose value is known."""
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
    if find_variables(node) or any(isinstance(part, Call) and part.function in CLOCKS for part in walk(node)):
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
