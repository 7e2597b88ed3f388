r"""Generation of Jinja source code: quoting, escaping, and the static types of expressions.

Jinja drops one newline at the end of a template and converts every line ending to `\n`. Templates built here keep the
last newline. They write `\r\n` as `\n`, which makes no difference in a mail.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
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

# Maximum nesting of a Jinja expression. Jinja compiles to Python, whose parser rejects code only slightly deeper.
MAX_DEPTH = 22

_NEEDS_ESCAPE = re.compile(r"\{[{%#]|\{\Z|\r(?!\n)|[\x00\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\xa0\u2028\u2029\ufeff]")
_NAMED_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_PRIMARY = re.compile(r"[A-Za-z_]\w*(?:\.\w+|\[(?:'[^'\\]*'|\d+)\])*")
_STRING_LITERAL = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")


def escape_template(text: str, *, ends: bool = True) -> str:
    """Return a template that renders as the text.

    Args:
        text: any text.
        ends: whether the text is the end of the template, where Jinja would drop a newline.
    """
    text = _NEEDS_ESCAPE.sub(lambda match: f"{{{{ {quote_string(match[0])} }}}}", text).replace("\r\n", "\n")
    if ends and text.endswith("\n"):
        text = f"{text[:-1]}{{{{ '\\n' }}}}"
    return text


def quote_string(text: str) -> str:
    """Return a text as a single-line Jinja string literal."""
    text = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{_CONTROL.sub(_escape_control, text)}'"


def _escape_control(match: re.Match[str]) -> str:
    code = ord(match[0])
    return _NAMED_ESCAPES.get(match[0]) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


class JinjaType(StrEnum):
    """Static type of a Jinja expression. The value is its description in error messages."""

    STRING = "a string"
    INTEGER = "an integer (DT_I4)"
    NUMBER = "a number"
    BOOL = "a Boolean"
    DATE = "a date"
    OTHER = "a value"
    UNKNOWN = "a value of unknown type"


def to_jinja_type(data_type: DataType | None) -> JinjaType:
    """Return the Jinja type of an SSIS type; UNKNOWN for None."""
    if data_type is None:
        return JinjaType.UNKNOWN
    if data_type in STRINGS:
        return JinjaType.STRING
    if data_type in NUMBERS:
        return JinjaType.INTEGER if data_type is DataType.I4 else JinjaType.NUMBER
    if data_type in DATES or data_type in TIMES:
        return JinjaType.DATE
    return JinjaType.BOOL if data_type is DataType.BOOL else JinjaType.OTHER


def find_common_type(left: JinjaType, right: JinjaType) -> JinjaType:
    """Return the type of `left if test else right`."""
    if left is right:
        return left
    types = {left, right}
    if types == {JinjaType.INTEGER, JinjaType.NUMBER}:
        return JinjaType.NUMBER
    # SSIS requires both branches to have one type, so a variable of unknown type beside a string is a string.
    return JinjaType.STRING if types == {JinjaType.STRING, JinjaType.UNKNOWN} else JinjaType.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class JinjaName:
    """The Jinja expression that replaces a variable.

    Args:
        code: the expression without braces, such as `params['Recipients']`.
        type: the SSIS type of the variable; None: unknown, which makes the template more complex.
        nullable: whether the value may be None.
        note: a difference from SSIS, for a comment in the DAG.
        is_typed: whether the code is a call that returns a value of the type.
    """

    code: str
    type: DataType | None = None
    nullable: bool = False
    note: str = ""
    is_typed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JinjaExpression:
    """A Jinja expression with the static properties of its value.

    Args:
        code: the expression without braces.
        type: the type of the value.
        nullable: whether the value may be null.
        native: whether a value that is not null is a Python object rather than a `Value`.
        primary: whether `[…]`, `|` or an operator can follow the code without parentheses.
        depth: levels of nesting.
        constant: the value of a string literal; None for any other expression.
    """

    code: str
    type: JinjaType
    nullable: bool = False
    native: bool = True
    primary: bool = True
    depth: int = 1
    constant: str | None = None

    @property
    def operand(self) -> str:
        """The code as an operand, in parentheses if necessary."""
        return self.code if self.primary else f"({self.code})"

    @property
    def is_plain(self) -> bool:
        """Whether the value is always a Python object and never null."""
        return self.native and not self.nullable

    @property
    def is_string(self) -> bool:
        """Whether the value is always a `str`."""
        return self.is_plain and self.type is JinjaType.STRING

    def to_bool(self) -> JinjaExpression:
        """Return the expression converted to a Python bool. The caller handles a Boolean that may be null."""
        if self.type is JinjaType.BOOL and (self.is_plain or self.nullable):
            return self
        return call_macro("truth", self, type_=JinjaType.BOOL, nullable=False)

    def check_depth(self) -> None:
        """Raise if Jinja cannot compile the expression.

        Raises:
            NotTranslatable: the expression is nested too deeply.
        """
        if self.depth > MAX_DEPTH:
            raise NotTranslatable(
                f"The expression is nested {self.depth} levels deep; the limit for a template is {MAX_DEPTH}.",
                remedy="Compute it in an upstream task, and pass the result by XCom.",
            )


def make_literal(value: str | bool | int) -> JinjaExpression:  # noqa: FBT001 - the value itself
    """Return a string, Boolean or DT_I4 literal."""
    if isinstance(value, bool):
        return JinjaExpression(code="true" if value else "false", type=JinjaType.BOOL)
    if isinstance(value, int):
        return JinjaExpression(code=str(value), type=JinjaType.INTEGER, primary=value >= 0)
    return JinjaExpression(code=quote_string(value), type=JinjaType.STRING, constant=value)


def read_variable(name: JinjaName) -> JinjaExpression:
    """Return the expression that reads a variable."""
    type_ = to_jinja_type(name.type)
    is_native = name.type is None or type_ in {JinjaType.STRING, JinjaType.BOOL, JinjaType.INTEGER}
    if name.type is None or name.is_typed or is_native:
        primary = name.is_typed or _PRIMARY.fullmatch(name.code) is not None
        return JinjaExpression(code=name.code, type=type_, nullable=name.nullable, native=is_native, primary=primary)
    # Airflow stores any other type differently: a date in a param, for example, is a string.
    # A cast would give every decimal number ten fractional digits.
    macro = "convert" if name.type in {DataType.NUMERIC, DataType.DECIMAL} else "cast"
    code = f"ssis.{macro}({name.code}, '{name.type}')"
    return JinjaExpression(code=code, type=type_, nullable=name.nullable, native=False)


def call_macro(
    name: str, *arguments: JinjaExpression | str, type_: JinjaType, nullable: bool, native: bool = True
) -> JinjaExpression:
    """Return a call of a macro of `ssis.macros`.

    Args:
        name: the macro.
        arguments: expressions, or Jinja code.
        type_: the type of the result.
        nullable: whether the result may be null.
        native: whether a result that is not null is a Python object rather than a `Value`.
    """
    codes = [argument if isinstance(argument, str) else argument.code for argument in arguments]
    depth = 1 + max([argument.depth for argument in arguments if isinstance(argument, JinjaExpression)], default=0)
    return JinjaExpression(
        code=f"ssis.{name}({', '.join(codes)})", type=type_, nullable=nullable, native=native, depth=depth
    )


def quote_type(spec: TypeSpec) -> list[str]:
    """Return a type as arguments of the macro `cast`."""
    return [f"'{spec.data_type}'", *map(str, spec.parameters)]


class TemplateBuilder:
    """Builds a template from text, expressions and statements."""

    __slots__ = ("_parts", "uses_macros")

    def __init__(self) -> None:
        # Pairs: whether the part is code, and its text.
        self._parts: list[tuple[bool, str]] = []
        self.uses_macros = False

    def add_text(self, text: str) -> None:
        """Add text, which renders unchanged."""
        if self._parts and not self._parts[-1][0]:
            text = self._parts.pop()[1] + text
        self._parts.append((False, text))

    def add_expression(self, expression: JinjaExpression) -> None:
        """Add an expression. A null renders as nothing.

        Raises:
            NotTranslatable: the expression is nested too deeply.
        """
        if expression.constant is not None:
            self.add_text(expression.constant)
            return
        expression.check_depth()
        # Jinja renders None as "None". The null of a macro is a `Value`, which renders as nothing.
        is_none_possible = expression.nullable and expression.native and not expression.code.startswith("ssis.")
        code = f"ssis.text({expression.code})" if is_none_possible else expression.code
        self._add_code(f"{{{{ {code} }}}}")

    def add_statement(self, code: str) -> None:
        """Add a statement, such as `endif`."""
        self._add_code(f"{{% {code} %}}")

    def _add_code(self, code: str) -> None:
        self.uses_macros = self.uses_macros or "ssis." in code
        self._parts.append((True, code))

    def get_literal_text(self) -> str:
        """Return the text outside the braces and the string literals inside them, concatenated."""
        return "".join("".join(_STRING_LITERAL.findall(part)) if is_code else part for is_code, part in self._parts)

    def get_constant(self) -> str | None:
        """Return the text, if there is nothing else."""
        is_constant = not any(is_code for is_code, _ in self._parts)
        return "".join(text for _, text in self._parts) if is_constant else None

    def build(self) -> tuple[str, bool]:
        """Return the template, and whether rendering it changes anything."""
        last = len(self._parts) - 1
        template = "".join(
            part if is_code else escape_template(part, ends=index == last)
            for index, (is_code, part) in enumerate(self._parts)
        )
        plain = "".join(part.replace("\r\n", "\n") for _, part in self._parts)
        return template, any(is_code for is_code, _ in self._parts) or template != plain
