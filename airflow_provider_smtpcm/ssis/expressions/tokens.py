"""Cuts an SSIS expression into tokens. Microsoft: "Numeric, string, and Boolean literals", "Identifiers"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from airflow_provider_smtpcm.ssis.expressions.types import SIGNED, UNSIGNED, DataType, ExpressionError, TypeSpec

_SPACE = re.compile(r"[\s\ufeff]+")
_VARIABLE = re.compile(r"@(?:\[([^\[\]]*)\]|([^\W\d][\w@$#]*))")
_IDENTIFIER = re.compile(r"\[([^\[\]]*)\]|[^\W\d][\w$#]*")
_HEXADECIMAL = re.compile(r"0[xX]([0-9a-fA-F]+)([uU]?)")
_REAL = re.compile(r"(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE][+-]?[0-9]))(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"([0-9]+)([lL][uU]?|[uU][lL]?)?")
_OPERATOR = re.compile(r"\|\||&&|==|!=|<=|>=|[-+*/%<>&|^!~?:(),]")
_PLAIN = re.compile(r'[^"\\]+')
_CODE = re.compile(r"[0-9a-fA-F]{4}")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", '"': '"', "\\": "\\"}


class Kind(StrEnum):
    """What a token is."""

    NUMBER = "a number"
    STRING = "a string"
    VARIABLE = "a variable"
    IDENTIFIER = "a name"
    OPERATOR = "an operator"
    END = "the end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token, where it begins, and what it says: the operator, the name, or the value of a literal with its type."""

    kind: Kind
    position: int
    text: str
    value: str | int | float | Decimal = ""
    type: TypeSpec | None = None


def tokens(text: str) -> list[Token]:
    """All tokens of an expression, the end included."""
    found: list[Token] = []
    position = 0
    while True:
        if space := _SPACE.match(text, position):
            position = space.end()
        if position >= len(text):
            return [*found, Token(kind=Kind.END, position=len(text), text="")]
        token, position = _next(text, position)
        found.append(token)


def _next(text: str, position: int) -> tuple[Token, int]:
    char = text[position]
    if char == '"':
        return _string(text, position)
    if char == "@":
        return _variable(text, position)
    if "0" <= char <= "9" or (char == "." and text[position + 1 : position + 2].isdecimal()):
        return _number(text, position)
    if match := _OPERATOR.match(text, position):
        return Token(kind=Kind.OPERATOR, position=position, text=match[0]), match.end()
    if match := _IDENTIFIER.match(text, position):
        return Token(kind=Kind.IDENTIFIER, position=position, text=match[1] or match[0]), match.end()
    if char in "'‘’“”":
        raise _fault(
            text, position, f"{char} does not begin a string.", 'Put strings in straight quotation marks: "text".'
        )
    if char == "=":
        raise _fault(text, position, "A single = is no operator.", "Write == to compare.")
    if char == "#":
        raise _fault(
            text,
            position,
            "A lineage identifier names a column, and columns exist in a data flow only.",
            "Read a variable instead: @[User::Name].",
        )
    raise _fault(
        text, position, f"{char!r} does not belong to the expression language.", "Remove it, or put it in a string."
    )


def _string(text: str, start: int) -> tuple[Token, int]:
    parts: list[str] = []
    position = start + 1
    while position < len(text) and text[position] != '"':
        if plain := _PLAIN.match(text, position):
            parts.append(plain[0])
            position = plain.end()
            continue
        escape = text[position + 1 : position + 2]
        if escape == "x":
            code = _CODE.match(text, position + 2)
            if code is None or code[0] == "0000":
                raise _fault(
                    text,
                    position,
                    "\\x takes four hexadecimal digits other than 0000.",
                    "Write \\x000a for a new line.",
                )
            parts.append(chr(int(code[0], 16)))
            position = code.end()
        elif escape in _ESCAPES and escape:
            parts.append(_ESCAPES[escape])
            position += 2
        else:
            raise _fault(text, position, f"\\{escape} is no escape sequence.", "Write \\\\ for a backslash.")
    if position >= len(text):
        raise _fault(
            text, start, "This string does not end.", 'Close it with "; a quotation mark in a string is written \\".'
        )
    value = _SURROGATE.sub("\ufffd", _PAIR.sub(_joined, "".join(parts)))
    token = Token(kind=Kind.STRING, position=start, text=text[start : position + 1], value=value)
    return token, position + 1


def _joined(pair: re.Match[str]) -> str:
    return pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le")


def _variable(text: str, position: int) -> tuple[Token, int]:
    match = _VARIABLE.match(text, position)
    name = (match[1] if match[1] is not None else match[2]) if match else ""
    if match is None or not name.strip():
        raise _fault(
            text, position, "@ is not followed by a variable's name.", "Write @[User::Name], without blanks after @."
        )
    after = text[match.end() : match.end() + 2]
    if after == "::":
        raise _fault(
            text,
            position,
            "A variable with its namespace stands in brackets.",
            f"Write @[{name}::Name], not @{name}::Name.",
        )
    return Token(kind=Kind.VARIABLE, position=position, text=match[0], value=name), match.end()


def _number(text: str, position: int) -> tuple[Token, int]:
    value: int | float | Decimal
    if match := _HEXADECIMAL.match(text, position):
        value, end = int(match[1], 16), match.end()
        type_ = TypeSpec(DataType.UI4 if match[2] else DataType.I4)
        # The digits are the bits: 0xFFFFFFFF without U is -1 in 32 bits.
        if not match[2] and 1 << 31 <= value < 1 << 32:
            value -= 1 << 32
    elif match := _REAL.match(text, position):
        value, type_, end = _real(text, match)
    else:
        match = _INTEGER.match(text, position)
        assert match is not None
        value, end = int(match[1][:40]), match.end()
        suffix = "".join(sorted((match[2] or "").upper()))
        kind = {"": DataType.I4, "U": DataType.UI4, "L": DataType.I8, "LU": DataType.UI8}[suffix]
        type_ = TypeSpec(kind)
    if end < len(text) and (text[end].isalnum() or text[end] in "_."):
        raise _fault(
            text,
            end,
            f"{text[end]!r} cannot follow the number {text[position:end]}.",
            "The suffixes are L, U, UL and F.",
        )
    if isinstance(value, int) and not fits(value, type_.type):
        raise _fault(
            text,
            position,
            f"{text[position:end]} is too large for {type_}.",
            "Add the suffix L (or UL), or a decimal point.",
        )
    return Token(kind=Kind.NUMBER, position=position, text=text[position:end], value=value, type=type_), end


def _real(text: str, match: re.Match[str]) -> tuple[float | Decimal, TypeSpec, int]:
    digits, end = match[0], match.end()
    suffix = text[end : end + 1].upper()
    if suffix in {"F", "L"} and suffix:
        end += 1
        return float(digits), TypeSpec(DataType.R4 if suffix == "F" else DataType.R8), end
    if "e" in digits.lower():
        value = float(digits)
        if value in {float("inf"), float("-inf")}:
            raise _fault(text, match.start(), f"{digits} is too large for DT_R8.", "Use a smaller number.")
        return value, TypeSpec(DataType.R8), end
    whole, _, fraction = digits.partition(".")
    precision = max(len(whole.lstrip("0")) + len(fraction), 1)
    if precision > 38:
        raise _fault(text, match.start(), f"{digits} has more than the 38 digits of DT_NUMERIC.", "Use fewer digits.")
    return Decimal(digits), TypeSpec(DataType.NUMERIC, (precision, len(fraction))), end


def fits(value: int, type_: DataType) -> bool:
    """Whether an integer lies in the range of its type."""
    if type_ in SIGNED:
        half = 1 << (SIGNED[type_] - 1)
        return -half <= value < half
    return type_ not in UNSIGNED or 0 <= value < 1 << UNSIGNED[type_]


def _fault(text: str, position: int, message: str, remedy: str) -> ExpressionError:
    return ExpressionError(message, remedy=remedy, text=text, position=position)
