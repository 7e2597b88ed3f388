"""Makes the tree of an SSIS expression. Microsoft: "Operator Precedence and Associativity", "Syntax (SSIS)"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from airflow_provider_smtpcm.ssis.expressions.tokens import Kind, Token, tokens
from airflow_provider_smtpcm.ssis.expressions.types import DataType, ExpressionError, TypeSpec, fault_of

# folded: An SSIS expression as a tree, and its text again. Chains of operators and of `?:` are flat: a body has
#   hundreds.

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


# folded: here began the module itself

# How deep parentheses, calls, casts and signs may be nested in one another. Chains of operators have no limit.
MAX_DEPTH = 50

# Each function with the number of its arguments.
FUNCTIONS = {
    **dict.fromkeys(["GETDATE", "GETUTCDATE"], 0),
    **dict.fromkeys(["CODEPOINT", "HEX", "LEN", "LOWER", "LTRIM", "REVERSE", "RTRIM", "TRIM", "UPPER"], 1),
    **dict.fromkeys(["ABS", "CEILING", "EXP", "FLOOR", "LN", "LOG", "SIGN", "SQRT", "SQUARE"], 1),
    **dict.fromkeys(["DAY", "MONTH", "YEAR", "ISNULL"], 1),
    **dict.fromkeys(["LEFT", "REPLICATE", "RIGHT", "TOKENCOUNT", "POWER", "ROUND", "DATEPART", "REPLACENULL"], 2),
    **dict.fromkeys(["FINDSTRING", "REPLACE", "SUBSTRING", "TOKEN", "DATEADD", "DATEDIFF"], 3),
}


def parse(text: str) -> Expression:
    """The tree of an expression.

    Raises:
        ExpressionError: it cannot be read; the error shows where, and says what to write.
    """
    return _Parser(text).whole()


class _Parser:
    """Recursive descent by one token; a level of operators is a loop, so that only nesting costs depth."""

    __slots__ = ("_at", "_depth", "_text", "_tokens")

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokens(text)
        self._at = 0
        self._depth = 0

    def whole(self) -> Expression:
        """Everything up to the end."""
        if len(self._tokens) == 1:
            raise self._fault(self._here, "The expression is empty.", 'Write a value, such as "text" or @[User::Name].')
        expression = self._expression()
        if self._here.kind is not Kind.END:
            remedy = "Put an operator, such as +, before it."
            if self._here.text == ")":
                remedy = "Remove this parenthesis, or open one before it."
            raise self._fault(self._here, f"{_shown(self._here)} was not expected here.", remedy)
        return expression

    @property
    def _here(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _sees(self, *operators: str) -> bool:
        return self._here.kind is Kind.OPERATOR and self._here.text in operators

    def _expect(self, operator: str, remedy: str) -> None:
        if not self._sees(operator):
            raise self._fault(self._here, f"'{operator}' was expected, not {_shown(self._here)}.", remedy)
        self._at += 1

    def _expression(self) -> Expression:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            message = f"The expression is nested more than {MAX_DEPTH} levels deep."
            raise self._fault(self._here, message, "Remove needless parentheses, or split it over several variables.")
        first = self._operation()
        arms: list[tuple[Expression, Expression]] = []
        otherwise = first
        while self._sees("?"):
            self._take()
            chosen = self._expression()
            self._expect(":", "A condition has two outcomes: test ? one : other.")
            arms.append((otherwise, chosen))
            otherwise = self._operation()
        self._depth -= 1
        if not arms:
            return first
        return Conditional(arms=tuple(arms), otherwise=otherwise, position=first.position)

    def _operation(self) -> Expression:
        """Operands and operators up to what is neither; then the tightest operators are joined first."""
        operands = [self._unary()]
        signs: list[Token] = []
        while self._here.kind is Kind.OPERATOR and self._here.text in LEVEL_OF:
            signs.append(self._take())
            operands.append(self._unary())
        for operators in reversed(LEVELS):
            if signs:
                operands, signs = _joined(operands, signs, operators)
        return operands[0]

    def _unary(self) -> Expression:
        # Signs and casts before an operand, right to left; a loop, since "(DT_WSTR,3)(DT_I4)-!~x" is no nesting to
        # its writer.
        before: list[tuple[Token, TypeSpec | None]] = []
        while True:
            token = self._here
            if self._sees("!", "-", "~"):
                before.append((self._take(), None))
            elif self._sees("+"):
                raise self._fault(token, "+ needs a value before it.", "Remove it, or put a value on its left side.")
            elif self._sees("(") and self._names_a_type(self._at + 1):
                self._at += 1
                before.append((token, self._type()))
            else:
                break
            if self._depth + len(before) > MAX_DEPTH:
                raise self._fault(
                    token, f"More than {MAX_DEPTH} signs and casts stand before one value.", "Remove some."
                )
        self._depth += len(before)
        node = self._primary()
        self._depth -= len(before)
        for token, type_ in reversed(before):
            if type_ is not None:
                node = Cast(type=type_, operand=node, position=token.position)
            else:
                node = Unary(operator=token.text, operand=node, position=token.position)
        return node

    def _primary(self) -> Expression:
        token = self._take()
        if token.kind is Kind.NUMBER:
            assert token.type is not None
            return Literal(type=token.type, value=token.value, position=token.position)
        if token.kind is Kind.STRING:
            return Literal(type=TypeSpec(DataType.WSTR), value=token.value, position=token.position)
        if token.kind is Kind.VARIABLE:
            return Name(name=str(token.value), position=token.position)
        if token.kind is Kind.IDENTIFIER:
            return self._named(token)
        if token.text == "(" and token.kind is Kind.OPERATOR:
            inner = self._expression()
            self._expect(")", "Close the parenthesis.")
            return inner
        self._at -= 1
        message = f"A value was expected, not {_shown(token)}."
        raise self._fault(token, message, "Write a literal, a variable, a function or a parenthesis here.")

    def _named(self, token: Token) -> Expression:
        name = token.text.upper()
        if name in {"TRUE", "FALSE"} and not self._sees("("):
            return Literal(type=TypeSpec(DataType.BOOL), value=name == "TRUE", position=token.position)
        if not self._sees("("):
            if name in FUNCTIONS or name == "NULL":
                raise self._fault(token, f"{name} is a function.", f"Write {name}(…).")
            remedy = f'A variable is written @[User::{token.text}], a text "{token.text}".'
            raise self._fault(token, f"{token.text} would be a column, and columns exist in a data flow only.", remedy)
        self._take()
        if name == "NULL":
            return Null(type=self._type(), position=token.position)
        if name not in FUNCTIONS:
            raise self._fault(
                token, f"There is no function {token.text}.", f"The functions are {', '.join(sorted(FUNCTIONS))}."
            )
        arguments: list[Expression] = []
        if not self._sees(")"):
            arguments.append(self._expression())
            while self._sees(","):
                self._take()
                arguments.append(self._expression())
        self._expect(")", f"Close {name}( with a parenthesis, and part its arguments by commas.")
        if len(arguments) != FUNCTIONS[name]:
            wanted = {0: "no argument", 1: "1 argument"}.get(FUNCTIONS[name], f"{FUNCTIONS[name]} arguments")
            raise self._fault(token, f"{name} takes {wanted}, not {len(arguments)}.", "Add or remove arguments.")
        return Call(function=name, arguments=tuple(arguments), position=token.position)

    def _names_a_type(self, index: int) -> bool:
        token = self._tokens[index]
        return token.kind is Kind.IDENTIFIER and token.text.upper().startswith("DT_")

    def _type(self) -> TypeSpec:
        """A type specification up to and with its closing parenthesis."""
        token = self._take()
        if token.kind is not Kind.IDENTIFIER or token.text.upper() not in set(DataType):
            raise self._fault(token, f"{_shown(token)} is no data type.", f"The types are {', '.join(DataType)}.")
        type_ = DataType(token.text.upper())
        parameters: list[int] = []
        while self._sees(","):
            self._take()
            number = self._take()
            if number.kind is not Kind.NUMBER or not isinstance(number.value, int):
                raise self._fault(
                    number, f"A whole number was expected, not {_shown(number)}.", f"As in ({_EXAMPLES})."
                )
            parameters.append(number.value)
        self._expect(")", "Close the type with a parenthesis.")
        if fault := fault_of(type_, tuple(parameters)):
            raise self._fault(token, f"{fault}.", f"As in ({_EXAMPLES}).")
        return TypeSpec(type_, tuple(parameters))

    def _fault(self, token: Token, message: str, remedy: str) -> ExpressionError:
        return ExpressionError(message, remedy=remedy, text=self._text, position=token.position)


_EXAMPLES = "DT_WSTR,30) or (DT_STR,30,1252) or (DT_NUMERIC,10,2) or (DT_DBTIMESTAMP2,3"


def _joined(
    operands: list[Expression], signs: list[Token], operators: tuple[str, ...]
) -> tuple[list[Expression], list[Token]]:
    """The same with each run of these operators made one operand."""
    kept = [operands[0]]
    left: list[Token] = []
    run: list[tuple[str, Expression, int]] = []
    for sign, operand in zip(signs, operands[1:], strict=True):
        if sign.text in operators:
            run.append((sign.text, operand, sign.position))
            continue
        if run:
            kept[-1] = Operation(first=kept[-1], rest=tuple(run))
            run = []
        left.append(sign)
        kept.append(operand)
    if run:
        kept[-1] = Operation(first=kept[-1], rest=tuple(run))
    return kept, left


def _shown(token: Token) -> str:
    if token.kind is Kind.END:
        return "the end of the expression"
    text = token.text if len(token.text) <= 40 else f"{token.text[:40]}…"
    return f"'{text}'"
