"""An SSIS expression as a tree, and its text again. Chains of operators and of `?:` are flat: a body has hundreds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from airflow_provider_smtpcm.ssis.expressions.types import DataType, TypeSpec

# Microsoft, "Operator Precedence and Associativity", from the loosest to the tightest; all of them left to right.
LEVELS: tuple[tuple[str, ...], ...] = (
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
LEVEL_OF = {operator: level for level, operators in enumerate(LEVELS) for operator in operators}


@dataclass(frozen=True, slots=True, kw_only=True)
class Literal:
    """A constant: its type, and text, a number or a Boolean."""

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
    """Operators of one level from left to right: `first`, then each operator with its right side and its position."""

    first: Expression
    rest: tuple[tuple[str, Expression, int], ...]

    @property
    def position(self) -> int:
        """Where it begins."""
        return self.first.position


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditional:
    """`a ? b : c ? d : e`: each condition with what it chooses, and what is left."""

    arms: tuple[tuple[Expression, Expression], ...]
    otherwise: Expression
    position: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A function by its name in capitals."""

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
    """The parts that a node is made of."""
    match node:
        case Cast() | Unary():
            return (node.operand,)
        case Operation():
            return (node.first, *(right for _, right, _ in node.rest))
        case Conditional():
            return (*(part for arm in node.arms for part in arm), node.otherwise)
        case Call():
            return node.arguments
        case _:
            return ()


def walk(node: Expression) -> Iterator[Expression]:
    """The node and all that it is made of."""
    todo = [node]
    while todo:
        found = todo.pop()
        yield found
        todo += reversed(children(found))


def variables_of(node: Expression) -> tuple[str, ...]:
    """The variables and parameters that an expression reads, each once, in the order of its text."""
    return tuple(dict.fromkeys(found.name for found in walk(node) if isinstance(found, Name)))


def to_text(node: Expression) -> str:  # noqa: PLR0911 - one for each node
    """The expression in SSIS's own language; `parse` makes the same tree of it."""
    match node:
        case Literal():
            return _literal(node)
        case Null():
            return f"NULL({node.type})"
        case Name():
            return f"@[{node.name}]"
        case Cast():
            return f"({node.type}){_operand(node.operand)}"
        case Unary():
            return f"{node.operator}{_operand(node.operand)}"
        case Operation():
            level = LEVEL_OF[node.rest[0][0]]
            parts = [_at(node.first, level), *(f"{sign} {_at(right, level)}" for sign, right, _ in node.rest)]
            return " ".join(parts)
        case Conditional():
            arms = [f"{_within(test)} ? {_within(chosen)} : " for test, chosen in node.arms]
            return "".join([*arms, _within(node.otherwise)])
        case Call():
            return f"{node.function}({', '.join(map(to_text, node.arguments))})"


def _literal(node: Literal) -> str:
    value = node.value
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, str):
        return '"' + "".join(_escaped(char) for char in value) + '"'
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return text if "." in text else f"{text}."
    if isinstance(value, float):
        return f"{value:.17e}" + ("F" if node.type.type is DataType.R4 else "")
    suffixes = {DataType.UI4: "U", DataType.I8: "L", DataType.UI8: "UL"}
    return f"{value}{suffixes.get(node.type.type, '')}"


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    return f"\\x{ord(char):04x}" if char < " " else char


def _operand(node: Expression) -> str:
    text = to_text(node)
    return f"({text})" if isinstance(node, Operation | Conditional) else text


def _at(node: Expression, level: int) -> str:
    text = to_text(node)
    loose = isinstance(node, Conditional) or (isinstance(node, Operation) and LEVEL_OF[node.rest[0][0]] <= level)
    return f"({text})" if loose else text


def _within(node: Expression) -> str:
    text = to_text(node)
    return f"({text})" if isinstance(node, Conditional) else text
