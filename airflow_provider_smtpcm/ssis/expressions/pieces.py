"""A piece of a Jinja expression, with what is known of its value before it runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from airflow_provider_smtpcm.ssis.expressions.types import DATES, NUMBERS, STRINGS, TIMES, DataType

# folded: Text in a Jinja template: what of it has to be protected, and how a string is written inside `{{ }}`.
#   Jinja drops one new line at the end of a template and turns every kind of line end into `\n`; the first is undone
#   here,
#   and `\r\n` becomes `\n`: in a mail a line end is a line end.

_DELIMITER = re.compile(r"\{[{%#]|\{\Z|\r(?!\n)|[\x00\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\xa0\u2028\u2029\ufeff]")
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def protected(text: str, *, ends: bool = True) -> str:
    """Text that comes out of a template as it is.

    Args:
        text: what is to come out.
        ends: whether the template ends with it.
    """
    text = _DELIMITER.sub(lambda found: f"{{{{ {quoted(found[0])} }}}}", text).replace("\r\n", "\n")
    if ends and text.endswith("\n"):
        text = f"{text[:-1]}{{{{ '\\n' }}}}"
    return text


def quoted(text: str) -> str:
    """A string of Jinja's language, on one line."""
    text = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{_CONTROL.sub(_escape, text)}'"


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return _NAMED.get(found[0]) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


# folded: here began the module itself

_TIGHT = re.compile(r"[A-Za-z_]\w*(?:\.\w+|\[(?:'[^'\\]*'|\d+)\])*")


class Kind(StrEnum):
    """What a value is, as far as can be told."""

    TEXT = "a text"
    WHOLE = "a whole number (DT_I4)"
    NUMBER = "a number"
    BOOL = "a Boolean"
    DATE = "a date"
    OTHER = "a value"
    UNKNOWN = "a value of unknown type"


def kind_of_type(type_: DataType | None) -> Kind:
    """The kind of a data type."""
    if type_ is None:
        return Kind.UNKNOWN
    if type_ in STRINGS:
        return Kind.TEXT
    if type_ in NUMBERS:
        return Kind.WHOLE if type_ is DataType.I4 else Kind.NUMBER
    if type_ in DATES or type_ in TIMES:
        return Kind.DATE
    return Kind.BOOL if type_ is DataType.BOOL else Kind.OTHER


@dataclass(frozen=True, slots=True, kw_only=True)
class JinjaName:
    """What a variable is in a template.

    Args:
        text: the Jinja expression, without braces, such as `params['Recipients']`.
        type: its SSIS type, where it is known; the plainest template comes of it.
        nullable: whether it may be None. A variable of SSIS hardly ever is.
        note: what a reader has to know of it.
    """

    text: str
    type: DataType | None = None
    nullable: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A Jinja expression.

    Args:
        code: its text.
        kind: what it gives.
        nullable: whether it may give a null.
        native: whether it gives a value of Python (and not a `Value`) where it gives no null.
        tight: whether something can follow it (`[…]`, `|`, an operator) without parentheses.
        depth: how deep it is nested.
        text: what it is, if it is a text that is known.
    """

    code: str
    kind: Kind
    nullable: bool = False
    native: bool = True
    tight: bool = True
    depth: int = 1
    text: str | None = None

    @property
    def closed(self) -> str:
        """The code so that anything can follow it."""
        return self.code if self.tight else f"({self.code})"

    @property
    def plain(self) -> bool:
        """A value of Python, for certain."""
        return self.native and not self.nullable

    @property
    def is_text(self) -> bool:
        """A `str`, for certain."""
        return self.plain and self.kind is Kind.TEXT


def literal(value: str | bool | int) -> Piece:  # noqa: FBT001 - it is the value
    """The piece of a text, a Boolean or a number of DT_I4."""
    if isinstance(value, bool):
        return Piece(code="true" if value else "false", kind=Kind.BOOL)
    if isinstance(value, int):
        return Piece(code=str(value), kind=Kind.WHOLE, tight=value >= 0)
    return Piece(code=quoted(value), kind=Kind.TEXT, text=value)


def of_name(name: JinjaName) -> Piece:
    """The piece of a variable."""
    kind = kind_of_type(name.type)
    tight = _TIGHT.fullmatch(name.text) is not None
    if name.type is None or kind in {Kind.TEXT, Kind.BOOL, Kind.WHOLE}:
        return Piece(code=name.text, kind=kind, nullable=name.nullable, tight=tight)
    # A number of DT_I8 and a date that a parameter holds as text get their type.
    scale = {DataType.NUMERIC: ", 38, 10", DataType.DECIMAL: ", 10"}.get(name.type, "")
    code = f"ssis.cast({name.text}, '{name.type}'{scale})"
    return Piece(code=code, kind=kind, nullable=name.nullable, native=False)


def macro(name: str, *arguments: Piece | str, kind: Kind, nullable: bool, native: bool = True) -> Piece:
    """A call of one of our macros; a text among the arguments is code."""
    codes = [argument if isinstance(argument, str) else argument.code for argument in arguments]
    depth = 1 + max([argument.depth for argument in arguments if isinstance(argument, Piece)], default=0)
    return Piece(code=f"ssis.{name}({', '.join(codes)})", kind=kind, nullable=nullable, native=native, depth=depth)
