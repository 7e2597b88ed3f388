"""Syntax tree of an SSIS expression, with functions to search, transform and unparse it.

A chain of operators of one precedence level, or of `?:`, is one flat node: the expression for the text of a mail may
concatenate hundreds of parts, which would nest too deeply for recursion. The `position` of a node is an offset in the
text of the expression.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TypeGuard

from airflow_provider_smtpcm.ssis.expressions.types import DataType, TypeSpec

# Microsoft, "Operator Precedence and Associativity", from the lowest to the highest; all are left-associative.
PRECEDENCE_LEVELS: tuple[tuple[str, ...], ...] = (
    ("||",),
    ("&&",),
    ("|",),
    ("^",),
    ("&",),
    ("==", "!="),
    ("<", ">", "<=", ">="),
    ("+", "-"),
    ("*", "/", "%"),
)
# The index in PRECEDENCE_LEVELS of each operator.
PRECEDENCE = {operator: level for level, operators in enumerate(PRECEDENCE_LEVELS) for operator in operators}

COMPARISONS = frozenset({"==", "!=", "<", ">", "<=", ">="})
_CLOCKS = {"GETDATE", "GETUTCDATE"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Literal:
    """A constant: a string, a number or a Boolean, with its type."""

    type: TypeSpec
    value: str | int | float | bool | Decimal
    position: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Null:
    """`NULL(type)`."""

    type: TypeSpec
    position: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A variable or a parameter: `User::X`, `System::X`, `$Project::X`, `$Package::X`, or `X` without a namespace."""

    name: str
    position: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """`(type) operand`."""

    type: TypeSpec
    operand: Expression
    position: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unary:
    """`!`, `-` or `~` before an operand."""

    operator: str
    operand: Expression
    position: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A chain of binary operators of one precedence level, evaluated from left to right.

    Args:
        first: the leftmost operand.
        rest: each operator with its right operand and the operator's own position.
    """

    first: Expression
    rest: tuple[tuple[str, Expression, int], ...]

    @property
    def position(self) -> int:
        """Position of the first operand."""
        return self.first.position

    @property
    def operands(self) -> tuple[Expression, ...]:
        """All operands, from left to right."""
        return (self.first, *(right for _, right, _ in self.rest))

    @property
    def is_sum(self) -> bool:
        """Whether `+` is the only operator: an addition, or a concatenation."""
        return all(operator == "+" for operator, _, _ in self.rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditional:
    """`a ? b : c ? d : e`.

    Args:
        arms: pairs of a condition and the operand that it selects: `(a, b)`, `(c, d)`.
        otherwise: the operand if no condition is true: `e`.
    """

    arms: tuple[tuple[Expression, Expression], ...]
    otherwise: Expression
    position: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A function call. The function's name is in upper case."""

    function: str
    arguments: tuple[Expression, ...]
    position: int = 0


Expression = Literal | Null | Name | Cast | Unary | Operation | Conditional | Call

_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    '"': '\\"',
    "\\": "\\\\",
}


def children(node: Expression) -> tuple[Expression, ...]:
    """Return the direct operands of a node, from left to right."""
    match node:
        case Cast() | Unary():
            return (node.operand,)
        case Operation():
            return node.operands
        case Conditional():
            return (*(part for arm in node.arms for part in arm), node.otherwise)
        case Call():
            return node.arguments
        case _:
            return ()


def walk(node: Expression) -> Iterator[Expression]:
    """Yield a node and all its descendants, in source order."""
    pending = [node]
    while pending:
        current = pending.pop()
        yield current
        pending += reversed(children(current))


def find_variables(node: Expression) -> tuple[str, ...]:
    """Return the names of the variables and parameters in an expression, each once, in source order."""
    return tuple(dict.fromkeys(name.name for name in walk(node) if isinstance(name, Name)))


def find_leading_strings(node: Expression) -> list[str]:
    """Return the string literals with which the result of an expression may begin."""
    match node:
        case Literal(value=str() as value):
            return [value] if value else []
        case Cast():
            return find_leading_strings(node.operand)
        case Operation():
            return find_leading_strings(node.first)
        case Conditional():
            branches = (*(chosen for _, chosen in node.arms), node.otherwise)
            return [text for branch in branches for text in find_leading_strings(branch)]
        case _:
            return []


def reads_clock(node: Expression) -> bool:
    """Whether an expression reads the clock, so that its value differs from run to run."""
    return any(isinstance(each, Call) and each.function in _CLOCKS for each in walk(node))


def contains_choice(node: Expression) -> bool:
    """Whether an expression contains `?:`."""
    return any(isinstance(each, Conditional) for each in walk(node))


def replace_names(node: Expression, change: Callable[[Name], Expression]) -> Expression:
    """Return the tree with each name replaced by the result of `change`."""
    if isinstance(node, Name):
        return change(node)
    return _map_operands(node, lambda operand: replace_names(operand, change), conditions=True)


def replace_compared(node: Expression, change: Callable[[Name], Expression]) -> Expression:
    """Return the tree with each name in an operand of a comparison replaced by the result of `change`."""
    if isinstance(node, Operation) and node.rest[0][0] in COMPARISONS:
        return replace_names(node, change)
    return _map_operands(node, lambda operand: replace_compared(operand, change), conditions=True)


def replace_strings(node: Expression, change: Callable[[str], str]) -> Expression:
    """Return the tree with `change` applied to each string literal, except in the conditions of `?:`."""
    if _is_string(node):
        return replace(node, value=change(str(node.value)))
    return _map_operands(node, lambda operand: replace_strings(operand, change))


def merge_strings(node: Expression) -> Expression:
    """Return the tree with adjacent string literals of concatenations merged, except in calls and conditions."""
    if isinstance(node, Call) or (isinstance(node, Operation) and not node.is_sum):
        return node
    tree = _map_operands(node, merge_strings)
    if not isinstance(tree, Operation):
        return tree
    merged: list[tuple[str, Expression, int]] = []
    for operator, operand, position in (("+", tree.first, tree.first.position), *tree.rest):
        previous = merged[-1][1] if merged else None
        if previous is not None and _is_string(previous) and _is_string(operand):
            operand = replace(previous, value=f"{previous.value}{operand.value}")  # noqa: PLW2901
            operator, _, position = merged.pop()  # noqa: PLW2901
        merged.append((operator, operand, position))
    (_, first, _), *rest = merged
    return replace(tree, first=first, rest=tuple(rest)) if rest else first


def _map_operands(
    node: Expression, change: Callable[[Expression], Expression], *, conditions: bool = False
) -> Expression:
    """Return a node with `change` applied to its direct operands; to the conditions of `?:` only if `conditions`."""
    match node:
        case Cast() | Unary():
            return replace(node, operand=change(node.operand))
        case Operation():
            rest = tuple((operator, change(right), position) for operator, right, position in node.rest)
            return replace(node, first=change(node.first), rest=rest)
        case Conditional():
            arms = tuple((change(test) if conditions else test, change(chosen)) for test, chosen in node.arms)
            return replace(node, arms=arms, otherwise=change(node.otherwise))
        case Call():
            return replace(node, arguments=tuple(change(argument) for argument in node.arguments))
        case _:
            return node


def _is_string(node: Expression) -> TypeGuard[Literal]:
    return isinstance(node, Literal) and isinstance(node.value, str)


def unparse(node: Expression) -> str:  # noqa: PLR0911 - one for each node
    """Return the expression as text, which `parse` turns back into an equal tree."""
    match node:
        case Literal():
            return _unparse_literal(node)
        case Null():
            return f"NULL({node.type})"
        case Name():
            return f"@[{node.name}]"
        case Cast():
            return f"({node.type}){_unparse_operand(node.operand)}"
        case Unary():
            return f"{node.operator}{_unparse_operand(node.operand)}"
        case Operation():
            level = PRECEDENCE[node.rest[0][0]]
            chain = [f"{operator} {_unparse_at_level(right, level)}" for operator, right, _ in node.rest]
            return " ".join([_unparse_at_level(node.first, level), *chain])
        case Conditional():
            arms = [f"{_unparse_branch(test)} ? {_unparse_branch(chosen)} : " for test, chosen in node.arms]
            return "".join([*arms, _unparse_branch(node.otherwise)])
        case Call():
            return f"{node.function}({', '.join(map(unparse, node.arguments))})"


def _unparse_literal(node: Literal) -> str:
    value = node.value
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, str):
        return '"' + "".join(_escape(char) for char in value) + '"'
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return text if "." in text else f"{text}."
    if isinstance(value, float):
        return f"{value:.17e}" + ("F" if node.type.data_type is DataType.R4 else "")
    suffixes = {DataType.UI4: "U", DataType.I8: "L", DataType.UI8: "UL"}
    return f"{value}{suffixes.get(node.type.data_type, '')}"


def _escape(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    return f"\\x{ord(char):04x}" if char < " " else char


def _unparse_operand(node: Expression) -> str:
    text = unparse(node)
    return f"({text})" if isinstance(node, Operation | Conditional) else text


def _unparse_at_level(node: Expression, level: int) -> str:
    text = unparse(node)
    needs_parentheses = isinstance(node, Conditional) or (
        isinstance(node, Operation) and PRECEDENCE[node.rest[0][0]] <= level
    )
    return f"({text})" if needs_parentheses else text


def _unparse_branch(node: Expression) -> str:
    text = unparse(node)
    return f"({text})" if isinstance(node, Conditional) else text
