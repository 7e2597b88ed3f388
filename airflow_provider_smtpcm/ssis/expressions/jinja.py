r"""Jinja expressions and templates as text: quoting, escaping, and the types of values before a template is rendered.

Jinja drops one newline at the end of a template, and turns every line ending into `\n`. Templates built here keep the
last newline; of `\r\n` they keep the `\n` alone, which is a line ending all the same in a mail.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum

from airflow_provider_smtpcm.ssis.expressions.types import (
    DATES,
    NUMBERS,
    STRINGS,
    TIMES,
    DataType,
    NotTranslatable,
    TypeSpec,
)

# Maximum nesting of a Jinja expression: a little deeper, and Python's own parser refuses what Jinja compiles it to.
MAX_DEPTH = 22

_NEEDS_ESCAPE = re.compile(r"\{[{%#]|\{\Z|\r(?!\n)|[\x00\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\xa0\u2028\u2029\ufeff]")
_NAMED_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_PRIMARY = re.compile(r"[A-Za-z_]\w*(?:\.\w+|\[(?:'[^'\\]*'|\d+)\])*")
_STRING_LITERAL = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")


def escape_template(text: str, *, ends: bool = True) -> str:
    """Return the template that renders to a text.

    Args:
        text: the text.
        ends: whether the template ends with it.
    """
    text = _NEEDS_ESCAPE.sub(lambda found: f"{{{{ {quote_string(found[0])} }}}}", text).replace("\r\n", "\n")
    if ends and text.endswith("\n"):
        text = f"{text[:-1]}{{{{ '\\n' }}}}"
    return text


def quote_string(text: str) -> str:
    """Return a text as a string literal of Jinja, on one line."""
    text = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{_CONTROL.sub(_escape_control, text)}'"


def _escape_control(found: re.Match[str]) -> str:
    code = ord(found[0])
    return _NAMED_ESCAPES.get(found[0]) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


class JinjaType(StrEnum):
    """The type of a Jinja expression's value, as error messages name it."""

    TEXT = "a text"
    WHOLE = "a whole number (DT_I4)"
    NUMBER = "a number"
    BOOL = "a Boolean"
    DATE = "a date"
    OTHER = "a value"
    UNKNOWN = "a value of unknown type"


def find_jinja_type(type_: DataType | None) -> JinjaType:
    """Return the type of an SSIS type in Jinja."""
    if type_ is None:
        return JinjaType.UNKNOWN
    if type_ in STRINGS:
        return JinjaType.TEXT
    if type_ in NUMBERS:
        return JinjaType.WHOLE if type_ is DataType.I4 else JinjaType.NUMBER
    if type_ in DATES or type_ in TIMES:
        return JinjaType.DATE
    return JinjaType.BOOL if type_ is DataType.BOOL else JinjaType.OTHER


def find_common_type(one: JinjaType, other: JinjaType) -> JinjaType:
    """Return the type of `one if test else other`."""
    if one is other:
        return one
    if {one, other} == {JinjaType.WHOLE, JinjaType.NUMBER}:
        return JinjaType.NUMBER
    # If one is a text, both are: the other is a variable of unknown type.
    is_text = JinjaType.TEXT in {one, other} and JinjaType.UNKNOWN in {one, other}
    return JinjaType.TEXT if is_text else JinjaType.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class JinjaName:
    """What a variable is in a template.

    Args:
        text: the Jinja expression, without braces, such as `params['Recipients']`.
        type: its SSIS type, if known; it makes the template simpler.
        nullable: whether it may be None. A variable of SSIS rarely is.
        note: what a reader of the template has to know about it.
    """

    text: str
    type: DataType | None = None
    nullable: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JinjaExpression:
    """A Jinja expression, with what is known of its value before it is rendered.

    Args:
        code: its text, without braces.
        type: of its value.
        nullable: whether the value may be null.
        native: whether a value that is not null is a Python object, and not a `Value`.
        primary: whether `[…]`, `|` or an operator can follow the code without parentheses.
        depth: its nesting, in levels.
        text: the value, if it is a text that is known.
    """

    code: str
    type: JinjaType
    nullable: bool = False
    native: bool = True
    primary: bool = True
    depth: int = 1
    text: str | None = None

    @property
    def operand(self) -> str:
        """The code as an operand, in parentheses where it needs them."""
        return self.code if self.primary else f"({self.code})"

    @property
    def is_plain(self) -> bool:
        """Whether the value is certain to be a Python object, and not null."""
        return self.native and not self.nullable

    @property
    def is_text(self) -> bool:
        """Whether the value is certain to be a `str`."""
        return self.is_plain and self.type is JinjaType.TEXT

    def in_parentheses(self) -> JinjaExpression:
        """Return the expression as an operand."""
        return replace(self, code=self.operand, primary=True)

    def as_bool(self) -> JinjaExpression:
        """Return the expression as a Python bool. A Boolean that may be null has to be tested for it before."""
        if self.type is JinjaType.BOOL and (self.is_plain or self.nullable):
            return self
        return call_macro("truth", self, type_=JinjaType.BOOL, nullable=False)

    def check_depth(self) -> None:
        """Refuse an expression that Jinja cannot compile.

        Raises:
            NotTranslatable: it is nested too deep.
        """
        if self.depth > MAX_DEPTH:
            raise NotTranslatable(
                f"The expression is nested {self.depth} levels deep, and Jinja reads {MAX_DEPTH}.",
                remedy="Work it out in a task before the mail, and pass the result on by XCom.",
            )


def make_literal(value: str | bool | int) -> JinjaExpression:  # noqa: FBT001 - it is the value
    """Return the literal of a text, a Boolean or a number of DT_I4."""
    if isinstance(value, bool):
        return JinjaExpression(code="true" if value else "false", type=JinjaType.BOOL)
    if isinstance(value, int):
        return JinjaExpression(code=str(value), type=JinjaType.WHOLE, primary=value >= 0)
    return JinjaExpression(code=quote_string(value), type=JinjaType.TEXT, text=value)


def read_variable(name: JinjaName) -> JinjaExpression:
    """Return the expression that reads a variable."""
    type_ = find_jinja_type(name.type)
    if name.type is None or type_ in {JinjaType.TEXT, JinjaType.BOOL, JinjaType.WHOLE}:
        primary = _PRIMARY.fullmatch(name.text) is not None
        return JinjaExpression(code=name.text, type=type_, nullable=name.nullable, primary=primary)
    # A DT_I8, or a date that is held as a text in a param, has to be given its type.
    scale = {DataType.NUMERIC: ", 38, 10", DataType.DECIMAL: ", 10"}.get(name.type, "")
    code = f"ssis.cast({name.text}, '{name.type}'{scale})"
    return JinjaExpression(code=code, type=type_, nullable=name.nullable, native=False)


def call_macro(
    name: str, *arguments: JinjaExpression | str, type_: JinjaType, nullable: bool, native: bool = True
) -> JinjaExpression:
    """Return a call of a macro of `ssis.macros`.

    Args:
        name: of the macro.
        arguments: expressions, or Jinja code.
        type_: of the result.
        nullable: whether the result may be null.
        native: whether a result that is not null is a Python object.
    """
    codes = [argument if isinstance(argument, str) else argument.code for argument in arguments]
    depth = 1 + max([one.depth for one in arguments if isinstance(one, JinjaExpression)], default=0)
    return JinjaExpression(
        code=f"ssis.{name}({', '.join(codes)})", type=type_, nullable=nullable, native=native, depth=depth
    )


def quote_type(spec: TypeSpec) -> list[str]:
    """Return a type specification as the arguments of the macro `cast`."""
    return [f"'{spec.data_type}'", *map(str, spec.parameters)]


class TemplateBuilder:
    """Builds a template of text, expressions and statements."""

    __slots__ = ("_parts", "uses_macros")

    def __init__(self) -> None:
        # Each part with whether it is code.
        self._parts: list[tuple[bool, str]] = []
        self.uses_macros = False

    def add_text(self, text: str) -> None:
        """Add a text that is rendered as it is."""
        if self._parts and not self._parts[-1][0]:
            text = self._parts.pop()[1] + text
        self._parts.append((False, text))

    def add_expression(self, expression: JinjaExpression) -> None:
        """Add an expression whose value is rendered; a null renders to nothing.

        Raises:
            NotTranslatable: it is nested too deep.
        """
        if expression.text is not None:
            self.add_text(expression.text)
            return
        expression.check_depth()
        # Jinja itself renders a None as "None". A macro's null is a `Value`, which renders to nothing.
        is_none_possible = expression.nullable and expression.native and not expression.code.startswith("ssis.")
        code = f"ssis.text({expression.code})" if is_none_possible else expression.code
        self._add_code(f"{{{{ {code} }}}}")

    def add_statement(self, code: str) -> None:
        """Add a statement, such as `endif`."""
        self._add_code(f"{{% {code} %}}")

    def _add_code(self, code: str) -> None:
        self.uses_macros = self.uses_macros or "ssis." in code
        self._parts.append((True, code))

    def literal_text(self) -> str:
        """Return the text outside of the braces, and the string literals inside of them."""
        return "".join("".join(_STRING_LITERAL.findall(part)) if is_code else part for is_code, part in self._parts)

    def build(self) -> tuple[str, bool]:
        """Return the template, and whether it differs from the text that it renders to."""
        last = len(self._parts) - 1
        template = "".join(
            part if is_code else escape_template(part, ends=index == last)
            for index, (is_code, part) in enumerate(self._parts)
        )
        plain = "".join(part.replace("\r\n", "\n") for _, part in self._parts)
        return template, any(is_code for is_code, _ in self._parts) or template != plain
