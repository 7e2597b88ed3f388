"""Tokenizer and parser of SSIS expressions.

See Microsoft's pages "Numeric, string, and Boolean literals", "Identifiers", "Operator Precedence and
Associativity" and "Syntax (SSIS)".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache

from airflow_provider_smtpcm.ssis.expressions.ast import (
    PRECEDENCE,
    PRECEDENCE_LEVELS,
    Call,
    Cast,
    Conditional,
    Expression,
    Literal,
    Name,
    Null,
    Operation,
    Unary,
)
from airflow_provider_smtpcm.ssis.expressions.types import (
    BOOL,
    WSTR,
    DataType,
    ExpressionError,
    TypeSpec,
    find_parameter_error,
    is_in_range,
)

# Maximum nesting of parentheses, calls, casts and signs. Chains of operators have no limit.
MAX_DEPTH = 50

# The functions with their numbers of arguments.
FUNCTIONS = {
    **dict.fromkeys(["GETDATE", "GETUTCDATE"], 0),
    **dict.fromkeys(["CODEPOINT", "HEX", "LEN", "LOWER", "LTRIM", "REVERSE", "RTRIM", "TRIM", "UPPER"], 1),
    **dict.fromkeys(["ABS", "CEILING", "EXP", "FLOOR", "LN", "LOG", "SIGN", "SQRT", "SQUARE"], 1),
    **dict.fromkeys(["DAY", "MONTH", "YEAR", "ISNULL"], 1),
    **dict.fromkeys(["LEFT", "REPLICATE", "RIGHT", "TOKENCOUNT", "POWER", "ROUND", "DATEPART", "REPLACENULL"], 2),
    **dict.fromkeys(["FINDSTRING", "REPLACE", "SUBSTRING", "TOKEN", "DATEADD", "DATEDIFF"], 3),
}

_SPACE = re.compile(r"[\s\ufeff]+")
_VARIABLE = re.compile(r"@(?:\[([^\[\]]*)\]|([^\W\d][\w@$#]*))")
_ASSIGNED = re.compile(r"[\s\ufeff]*@(?:\[([^\[\]]*)\]|([^\W\d][\w@$#]*))[\s\ufeff]*=(?!=)")
_IDENTIFIER = re.compile(r"\[([^\[\]]*)\]|[^\W\d][\w$#]*")
_HEXADECIMAL = re.compile(r"0[xX]([0-9a-fA-F]+)([uU]?)")
_REAL = re.compile(r"(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE][+-]?[0-9]))(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"([0-9]+)([lL][uU]?|[uU][lL]?)?")
_OPERATOR = re.compile(r"\|\||&&|==|!=|<=|>=|[-+*/%<>&|^!~?:(),]")
_UNESCAPED = re.compile(r'[^"\\]+')
_CODE_UNIT = re.compile(r"[0-9a-fA-F]{4}")
_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", '"': '"', "\\": "\\"}
_TYPE_EXAMPLES = "As in (DT_WSTR,30) or (DT_STR,30,1252) or (DT_NUMERIC,10,2) or (DT_DBTIMESTAMP2,3)."


class TokenKind(StrEnum):
    """Kinds of tokens."""

    NUMBER = "a number"
    STRING = "a string"
    VARIABLE = "a variable"
    IDENTIFIER = "a name"
    OPERATOR = "an operator"
    END = "the end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token.

    Args:
        position: offset of the first character.
        text: the source text; without the brackets of an identifier.
        value: the value of a literal, or the name of a variable.
        type: the type of a number.
    """

    kind: TokenKind
    position: int
    text: str
    value: str | int | float | Decimal = ""
    type: TypeSpec | None = None


def tokenize(text: str) -> list[Token]:
    """Return the tokens of an expression. The last one is END.

    Raises:
        ExpressionError: the text contains something that is not a token.
    """
    tokens: list[Token] = []
    position = 0
    while True:
        if space := _SPACE.match(text, position):
            position = space.end()
        if position >= len(text):
            return [*tokens, Token(kind=TokenKind.END, position=len(text), text="")]
        token, position = _read_token(text, position)
        tokens.append(token)


def _read_token(text: str, position: int) -> tuple[Token, int]:
    char = text[position]
    if char == '"':
        return _read_string(text, position)
    if char == "@":
        return _read_variable(text, position)
    if "0" <= char <= "9" or (char == "." and text[position + 1 : position + 2].isdecimal()):
        return _read_number(text, position)
    if match := _OPERATOR.match(text, position):
        return Token(kind=TokenKind.OPERATOR, position=position, text=match[0]), match.end()
    if match := _IDENTIFIER.match(text, position):
        return Token(kind=TokenKind.IDENTIFIER, position=position, text=match[1] or match[0]), match.end()
    message, remedy = f"{char!r} is not part of the expression language.", "Remove it, or put it in a string."
    if char in "'‘’“”":
        message, remedy = f"{char} does not begin a string.", 'Put strings in straight quotation marks: "text".'
    elif char == "=":
        message, remedy = "A single = is not an operator.", "Write == to compare."
    elif char == "#":
        message = "A lineage identifier names a column, and columns exist only in data flows."
        remedy = "Read a variable instead: @[User::Name]."
    raise ExpressionError(message, remedy=remedy, text=text, position=position)


def _read_string(text: str, start: int) -> tuple[Token, int]:
    chars: list[str] = []
    position = start + 1
    while position < len(text) and text[position] != '"':
        if unescaped := _UNESCAPED.match(text, position):
            chars.append(unescaped[0])
            position = unescaped.end()
            continue
        escape = text[position + 1 : position + 2]
        if escape == "x":
            code = _CODE_UNIT.match(text, position + 2)
            if code is None or code[0] == "0000":
                message = "\\x takes four hexadecimal digits other than 0000."
                raise ExpressionError(message, remedy="Write \\x000a for a new line.", text=text, position=position)
            chars.append(chr(int(code[0], 16)))
            position = code.end()
        elif escape in _ESCAPES and escape:
            chars.append(_ESCAPES[escape])
            position += 2
        else:
            message = f"\\{escape} is not an escape sequence."
            raise ExpressionError(message, remedy="Write \\\\ for a backslash.", text=text, position=position)
    if position >= len(text):
        remedy = 'Close it with "; a quotation mark in a string is written \\".'
        raise ExpressionError("This string is not closed.", remedy=remedy, text=text, position=start)
    value = _SURROGATE.sub("\ufffd", _SURROGATE_PAIR.sub(_combine_surrogates, "".join(chars)))
    token = Token(kind=TokenKind.STRING, position=start, text=text[start : position + 1], value=value)
    return token, position + 1


def _combine_surrogates(pair: re.Match[str]) -> str:
    return pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le")


def _read_variable(text: str, position: int) -> tuple[Token, int]:
    match = _VARIABLE.match(text, position)
    name = (match[1] if match[1] is not None else match[2]) if match else ""
    if match is None or not name.strip():
        message, remedy = "@ is not followed by a variable's name.", "Write @[User::Name], without a space after @."
        raise ExpressionError(message, remedy=remedy, text=text, position=position)
    if text.startswith("::", match.end()):
        message = "A variable name with a namespace must be in brackets."
        remedy = f"Write @[{name}::Name], not @{name}::Name."
        raise ExpressionError(message, remedy=remedy, text=text, position=position)
    return Token(kind=TokenKind.VARIABLE, position=position, text=match[0], value=name), match.end()


def _read_number(text: str, position: int) -> tuple[Token, int]:
    value: int | float | Decimal
    if match := _HEXADECIMAL.match(text, position):
        value, end = int(match[1], 16), match.end()
        type_ = TypeSpec(DataType.UI4 if match[2] else DataType.I4)
        # The digits are the bits of a DT_I4: 0xFFFFFFFF without U is -1.
        if not match[2] and 1 << 31 <= value < 1 << 32:
            value -= 1 << 32
    elif match := _REAL.match(text, position):
        value, type_, end = _read_real(text, match)
    else:
        match = _INTEGER.match(text, position)
        assert match is not None
        value, end = int(match[1][:40]), match.end()
        suffix = "".join(sorted((match[2] or "").upper()))
        type_ = TypeSpec({"": DataType.I4, "U": DataType.UI4, "L": DataType.I8, "LU": DataType.UI8}[suffix])
    number = text[position:end]
    if end < len(text) and (text[end].isalnum() or text[end] in "_."):
        message, remedy = f"{text[end]!r} cannot follow the number {number}.", "The suffixes are L, U, UL and F."
        raise ExpressionError(message, remedy=remedy, text=text, position=end)
    if isinstance(value, int) and not is_in_range(value, type_.data_type):
        message, remedy = f"{number} is too large for {type_}.", "Add the suffix L (or UL), or a decimal point."
        raise ExpressionError(message, remedy=remedy, text=text, position=position)
    return Token(kind=TokenKind.NUMBER, position=position, text=number, value=value, type=type_), end


def _read_real(text: str, match: re.Match[str]) -> tuple[float | Decimal, TypeSpec, int]:
    digits, end = match[0], match.end()
    suffix = text[end : end + 1].upper()
    if suffix in {"F", "L"} and suffix:
        return float(digits), TypeSpec(DataType.R4 if suffix == "F" else DataType.R8), end + 1
    if "e" in digits.lower():
        value = float(digits)
        if value in {float("inf"), float("-inf")}:
            message, remedy = f"{digits} is too large for DT_R8.", "Use a smaller number."
            raise ExpressionError(message, remedy=remedy, text=text, position=match.start())
        return value, TypeSpec(DataType.R8), end
    integer, _, fraction = digits.partition(".")
    precision = max(len(integer.lstrip("0")) + len(fraction), 1)
    if precision > 38:
        message, remedy = f"{digits} has more than the 38 digits of DT_NUMERIC.", "Use fewer digits."
        raise ExpressionError(message, remedy=remedy, text=text, position=match.start())
    return Decimal(digits), TypeSpec(DataType.NUMERIC, (precision, len(fraction))), end


@lru_cache(maxsize=128)  # converting a mail or an event handler parses the same text several times in succession
def parse(text: str) -> Expression:
    """Return the syntax tree of an expression.

    Raises:
        ExpressionError: the syntax is invalid; the message shows the position and what to write instead.
    """
    return _Parser(text).parse()


def parse_assignment(text: str) -> tuple[tuple[str, ...], Expression]:
    """Return the variables that an assignment sets, and the expression of their value.

    Expression tasks and For loops have assignments: `@[User::Total] = @[User::A] + 1`, or `@a = @b = 1`, which sets
    both.

    Raises:
        ExpressionError: it is not an assignment, or its syntax is invalid.
    """
    names: list[str] = []
    position = 0
    while (match := _ASSIGNED.match(text, position)) is not None:
        names.append(match[1] if match[1] is not None else match[2])
        position = match.end()
    if not names:
        target = _VARIABLE.match(text.lstrip())
        rest = text.lstrip()[target.end() :].lstrip() if target else ""
        if rest.startswith(":="):
            raise ExpressionError(":= does not assign; SSIS fails here.", remedy="Write = instead of :=.")
        raise ExpressionError(
            "This is not an assignment to a variable.",
            remedy="Write @[User::Name] = value, with one variable on the left.",
        )
    try:
        return tuple(name.strip() for name in names), parse(text[position:])
    except ExpressionError as error:
        if error.position is not None:
            error.text, error.position = text, error.position + position
        raise


class _Parser:
    """Recursive descent parser with one token of lookahead. Chains of operators are loops; only nesting recurses."""

    __slots__ = ("_depth", "_index", "_text", "_tokens")

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokenize(text)
        self._index = 0
        self._depth = 0

    def parse(self) -> Expression:
        """Parse the whole text."""
        if len(self._tokens) == 1:
            raise self._error(
                self._current, "The expression is empty.", 'Write a value, such as "text" or @[User::Name].'
            )
        expression = self._parse_expression()
        if self._current.kind is not TokenKind.END:
            remedy = "Put an operator, such as +, before it."
            if self._current.text == ")":
                remedy = "Remove this parenthesis, or open one before it."
            raise self._error(self._current, f"{_describe(self._current)} was not expected here.", remedy)
        return expression

    @property
    def _current(self) -> Token:
        return self._tokens[self._index]

    def _advance(self) -> Token:
        token = self._tokens[self._index]
        self._index += 1
        return token

    def _is_at(self, *operators: str) -> bool:
        return self._current.kind is TokenKind.OPERATOR and self._current.text in operators

    def _expect(self, operator: str, remedy: str) -> None:
        if not self._is_at(operator):
            raise self._error(self._current, f"'{operator}' was expected, not {_describe(self._current)}.", remedy)
        self._index += 1

    def _parse_expression(self) -> Expression:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            message = f"The expression is nested more than {MAX_DEPTH} levels deep."
            raise self._error(
                self._current, message, "Remove unneeded parentheses, or split it into several variables."
            )
        first = self._parse_operation()
        arms: list[tuple[Expression, Expression]] = []
        otherwise = first
        while self._is_at("?"):
            self._advance()
            chosen = self._parse_expression()
            self._expect(":", "A condition has two outcomes: test ? one : other.")
            arms.append((otherwise, chosen))
            otherwise = self._parse_operation()
        self._depth -= 1
        if not arms:
            return first
        return Conditional(arms=tuple(arms), otherwise=otherwise, position=first.position)

    def _parse_operation(self) -> Expression:
        """Parse operands and binary operators, then reduce them from the highest precedence level to the lowest."""
        operands = [self._parse_unary()]
        operators: list[Token] = []
        while self._current.kind is TokenKind.OPERATOR and self._current.text in PRECEDENCE:
            operators.append(self._advance())
            operands.append(self._parse_unary())
        for level in reversed(PRECEDENCE_LEVELS):
            if operators:
                operands, operators = _reduce(operands, operators, level)
        return operands[0]

    def _parse_unary(self) -> Expression:
        # Signs and casts apply from right to left. A loop, not recursion: "(DT_WSTR,3)(DT_I4)-!~x" is not nested.
        prefixes: list[tuple[Token, TypeSpec | None]] = []
        while True:
            token = self._current
            if self._is_at("!", "-", "~"):
                prefixes.append((self._advance(), None))
            elif self._is_at("+"):
                raise self._error(token, "+ needs a value before it.", "Remove it, or put a value before it.")
            elif self._is_at("(") and self._is_type_name(self._tokens[self._index + 1]):
                self._index += 1
                prefixes.append((token, self._parse_type()))
            else:
                break
            if self._depth + len(prefixes) > MAX_DEPTH:
                message = f"More than {MAX_DEPTH} signs and casts precede one value."
                raise self._error(token, message, "Remove some.")
        self._depth += len(prefixes)
        node = self._parse_primary()
        self._depth -= len(prefixes)
        for token, type_ in reversed(prefixes):
            if type_ is not None:
                node = Cast(type=type_, operand=node, position=token.position)
            else:
                node = Unary(operator=token.text, operand=node, position=token.position)
        return node

    def _parse_primary(self) -> Expression:
        token = self._advance()
        if token.kind is TokenKind.NUMBER:
            assert token.type is not None
            return Literal(type=token.type, value=token.value, position=token.position)
        if token.kind is TokenKind.STRING:
            return Literal(type=WSTR, value=token.value, position=token.position)
        if token.kind is TokenKind.VARIABLE:
            return Name(name=str(token.value), position=token.position)
        if token.kind is TokenKind.IDENTIFIER:
            return self._parse_identifier(token)
        if token.text == "(" and token.kind is TokenKind.OPERATOR:
            inner = self._parse_expression()
            self._expect(")", "Close the parenthesis.")
            return inner
        self._index -= 1
        message = f"A value was expected, not {_describe(token)}."
        raise self._error(token, message, "Write a literal, a variable, a function or a parenthesis here.")

    def _parse_identifier(self, token: Token) -> Expression:
        """Parse TRUE, FALSE, NULL or a function call after its first token."""
        name = token.text.upper()
        if name in {"TRUE", "FALSE"} and not self._is_at("("):
            return Literal(type=BOOL, value=name == "TRUE", position=token.position)
        if not self._is_at("("):
            if name in FUNCTIONS or name == "NULL":
                raise self._error(token, f"{name} is a function.", f"Write {name}(…).")
            remedy = f'Write @[User::{token.text}] for a variable, or "{token.text}" for a string.'
            raise self._error(token, f"{token.text} would name a column, and columns exist only in data flows.", remedy)
        self._advance()
        if name == "NULL":
            return Null(type=self._parse_type(), position=token.position)
        if name not in FUNCTIONS:
            message = f"There is no function {token.text}."
            raise self._error(token, message, f"The functions are {', '.join(sorted(FUNCTIONS))}.")
        arguments: list[Expression] = []
        if not self._is_at(")"):
            arguments.append(self._parse_expression())
            while self._is_at(","):
                self._advance()
                arguments.append(self._parse_expression())
        self._expect(")", f"Close {name}( with a parenthesis, and separate its arguments with commas.")
        if len(arguments) != FUNCTIONS[name]:
            expected = {0: "no arguments", 1: "1 argument"}.get(FUNCTIONS[name], f"{FUNCTIONS[name]} arguments")
            message = f"{name} takes {expected}, not {len(arguments)}."
            raise self._error(token, message, "Add or remove arguments.")
        return Call(function=name, arguments=tuple(arguments), position=token.position)

    @staticmethod
    def _is_type_name(token: Token) -> bool:
        return token.kind is TokenKind.IDENTIFIER and token.text.upper().startswith("DT_")

    def _parse_type(self) -> TypeSpec:
        """Parse a type specification and its closing parenthesis."""
        token = self._advance()
        if token.kind is not TokenKind.IDENTIFIER or token.text.upper() not in set(DataType):
            raise self._error(token, f"{_describe(token)} is not a data type.", f"The types are {', '.join(DataType)}.")
        data_type = DataType(token.text.upper())
        parameters: list[int] = []
        while self._is_at(","):
            self._advance()
            number = self._advance()
            if number.kind is not TokenKind.NUMBER or not isinstance(number.value, int):
                raise self._error(number, f"An integer was expected, not {_describe(number)}.", _TYPE_EXAMPLES)
            parameters.append(number.value)
        self._expect(")", "Close the type with a parenthesis.")
        if message := find_parameter_error(data_type, tuple(parameters)):
            raise self._error(token, f"{message}.", _TYPE_EXAMPLES)
        return TypeSpec(data_type, tuple(parameters))

    def _error(self, token: Token, message: str, remedy: str) -> ExpressionError:
        return ExpressionError(message, remedy=remedy, text=self._text, position=token.position)


def _reduce(
    operands: list[Expression], operators: list[Token], level: tuple[str, ...]
) -> tuple[list[Expression], list[Token]]:
    """Replace each run of operators of one precedence level by a single operand: an `Operation`."""
    reduced = [operands[0]]
    remaining: list[Token] = []
    run: list[tuple[str, Expression, int]] = []
    for operator, operand in zip(operators, operands[1:], strict=True):
        if operator.text in level:
            run.append((operator.text, operand, operator.position))
            continue
        if run:
            reduced[-1] = Operation(first=reduced[-1], rest=tuple(run))
            run = []
        remaining.append(operator)
        reduced.append(operand)
    if run:
        reduced[-1] = Operation(first=reduced[-1], rest=tuple(run))
    return reduced, remaining


def _describe(token: Token) -> str:
    if token.kind is TokenKind.END:
        return "the end of the expression"
    text = token.text if len(token.text) <= 40 else f"{token.text[:40]}…"
    return f"'{text}'"
