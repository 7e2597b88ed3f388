"""What scripts in C# and Visual Basic have in common: assignments to variables, and values as SSIS expressions.

A value is an expression in which each variable has its value from before the script.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import reduce
from typing import ClassVar

from airflow_provider_smtpcm.ssis.expressions import (
    Call,
    Cast,
    DataType,
    Expression,
    Literal,
    Name,
    Operation,
    TypeSpec,
    Unary,
)

# --- Values

# The length in the cast to DT_WSTR that replaces a conversion of a variable to text by .NET.
_MAX_TEXT = 4000
# Locals are replaced by their values, and `a = a & a` doubles them each time.
_MAX_NODES = 1000
# Text, an escaped brace, a placeholder, or another use of a brace.
_FORMAT = re.compile(r"([^{}]+)|(\{\{|\}\})|\{(\d{1,3})\}|([{}])")


class Kind(StrEnum):
    """The .NET type of a value."""

    TEXT = "String"
    INTEGER = "Int32"
    BOOLEAN = "Boolean"
    DATE = "DateTime"
    OBJECT = "Object"  # what `Dts.Variables("X").Value` is before it is converted


class NotRecognizedError(Exception):
    """The script does something other than setting variables."""


@dataclass(frozen=True, slots=True)
class ScriptValue:
    """A value as an expression; the variables in it have their values from before the script."""

    kind: Kind
    tree: Expression
    nodes: int = 1


def make_literal(value: str | int | bool) -> ScriptValue:  # noqa: FBT001 - the value itself
    types = {str: (Kind.TEXT, DataType.WSTR), bool: (Kind.BOOLEAN, DataType.BOOL), int: (Kind.INTEGER, DataType.I4)}
    kind, data_type = types[type(value)]
    return ScriptValue(kind, Literal(type=TypeSpec(data_type), value=value))


def _cast(kind: Kind, value: ScriptValue, type_: TypeSpec) -> ScriptValue:
    return ScriptValue(kind, Cast(type=type_, operand=value.tree), value.nodes + 1)


def to_text(value: ScriptValue) -> ScriptValue:
    """Return the text that `ToString` gives."""
    if value.kind is Kind.TEXT:
        return value
    if value.kind is Kind.DATE:  # the general format has no fraction of a second
        value = _cast(Kind.DATE, value, TypeSpec(DataType.DATE))
    length = {Kind.OBJECT: _MAX_TEXT, Kind.DATE: 30}.get(value.kind, 20)
    return _cast(Kind.TEXT, value, TypeSpec(DataType.WSTR, (length,)))


def convert(value: ScriptValue, kind: Kind) -> ScriptValue:
    """Return a value as a type to which the script converts it; only a variable of that type can be converted."""
    if value.kind is kind:
        return value
    if value.kind is Kind.OBJECT:
        if kind is Kind.TEXT:
            return replace(value, kind=kind)
        if kind is Kind.INTEGER:
            return _cast(kind, value, TypeSpec(DataType.I4))
        if kind is Kind.BOOLEAN:
            return _cast(kind, value, TypeSpec(DataType.BOOL))
    if kind is Kind.OBJECT:
        return value
    raise NotRecognizedError


def join(left: ScriptValue, operator: str, right: ScriptValue) -> ScriptValue:
    """Return a sum or a concatenation of values of the same type."""
    nodes = left.nodes + right.nodes
    if left.kind is not right.kind or nodes > _MAX_NODES:
        raise NotRecognizedError
    tree = left.tree
    if isinstance(tree, Operation):
        tree = replace(tree, rest=(*tree.rest, (operator, right.tree, 0)))
    else:
        tree = Operation(first=tree, rest=((operator, right.tree, 0),))
    return ScriptValue(left.kind, tree, nodes)


def concatenate(values: Sequence[ScriptValue]) -> ScriptValue:
    return reduce(lambda left, right: join(left, "+", right), values)


def format_text(values: Sequence[ScriptValue]) -> ScriptValue:
    """Return what `String.Format` gives for a literal with `{0}`, `{1}`, ... without formats."""
    pattern, *arguments = values
    if not (isinstance(pattern.tree, Literal) and isinstance(pattern.tree.value, str)):
        raise NotRecognizedError
    parts: list[ScriptValue] = []
    for match in _FORMAT.finditer(pattern.tree.value):
        text, index = match[1] or (match[2] and match[2][0]), match[3]
        if match[4] or (index and int(index) >= len(arguments)):
            raise NotRecognizedError
        parts.append(arguments[int(index)] if index else make_literal(text))
    return concatenate(parts) if parts else make_literal("")


def negate(value: ScriptValue) -> ScriptValue:
    if value.kind is not Kind.INTEGER:
        raise NotRecognizedError
    return ScriptValue(value.kind, Unary(operator="-", operand=value.tree), value.nodes + 1)


# --- Statements

_MAX_DEPTH = 50
_MAX_INT32 = 2**31 - 1
_CONSTANTS = {"environment.newline": "\r\n", "string.empty": ""}
_SUCCESS = {
    "scriptresults.success",
    "dts.results.success",
    "dtsexecresult.success",
    "microsoft.sqlserver.dts.runtime.dtsexecresult.success",
}
TYPES = {
    "string": Kind.TEXT,
    "int": Kind.INTEGER,
    "integer": Kind.INTEGER,
    "int32": Kind.INTEGER,
    "bool": Kind.BOOLEAN,
    "boolean": Kind.BOOLEAN,
    "object": Kind.OBJECT,
}
_CONVERSIONS = {
    "convert.tostring": Kind.TEXT,
    "convert.toint32": Kind.INTEGER,
    "convert.toboolean": Kind.BOOLEAN,
}


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a script."""

    kind: str  # `string`, `name`, `number`, `sign`, or `end`
    text: str


class ScriptParser(ABC):
    """Parses `Main`, and keeps the value of each variable and local after each statement.

    Args:
        source: the file with `Main`.
        read_only: the names of the variables that the script may read.
        read_write: the names of those that it may also set.
    """

    def __init__(self, source: str, read_only: tuple[str, ...], read_write: tuple[str, ...]) -> None:
        self._read_only, self._read_write = read_only, read_write
        self._locals: dict[str, ScriptValue | None] = {}
        self._types: dict[str, Kind | None] = {}
        self._assigned: dict[str, ScriptValue] = {}
        self._depth = 0
        self._tokens = self._find_main(self._tokenize(source))
        self._index = 0

    # What differs between the languages.

    #: The token that ends a statement.
    _STATEMENT_END: ClassVar[str]
    #: The keyword for the current instance: `this` or `Me`, in lower case.
    _SELF: ClassVar[str]
    #: The tokens before the body of `Main`, and those of a constructor.
    _MAIN: ClassVar[list[str]]
    _CONSTRUCTOR: ClassVar[list[str]]

    @abstractmethod
    def _tokenize(self, source: str) -> list[Token]: ...

    @abstractmethod
    def _find_end(self, texts: Sequence[str], start: int) -> int:
        """Return the index of the token after the body of `Main`, given the texts of all tokens and where it starts."""

    @abstractmethod
    def _parse_statement(self) -> None: ...

    @abstractmethod
    def _parse_variable(self) -> str:
        """Parse `Variables["X"].Value`, after `Dts.`; return the name."""

    @abstractmethod
    def _parse_unary(self) -> ScriptValue: ...

    @abstractmethod
    def _add(self, left: ScriptValue, right: ScriptValue) -> ScriptValue: ...

    @abstractmethod
    def _subtract(self, left: ScriptValue, right: ScriptValue) -> ScriptValue: ...

    @abstractmethod
    def _parse_empty_arguments(self) -> None:
        """Parse `()` after `ToString`, which Visual Basic does not require."""

    # Tokens.

    def _find_main(self, tokens: list[Token]) -> list[Token]:
        """Return the tokens of the body of `Main`."""
        texts = [self._key(token.text) if token.kind in {"name", "sign"} else "" for token in tokens]
        starts = _find_sequence(texts, self._MAIN)
        # A constructor runs before `Main`; `#if` and similar directives decide what is compiled.
        if len(starts) != 1 or "#" in texts or _find_sequence(texts, self._CONSTRUCTOR):
            raise NotRecognizedError
        start = starts[0] + len(self._MAIN)
        return tokens[start : self._find_end(texts, start)]

    @staticmethod
    def _key(text: str) -> str:
        """Return a name in the form in which equal names are equal."""
        return text

    def _peek(self, offset: int = 0) -> str:
        """Return the text of a token that is not a literal; empty for a literal and at the end."""
        index = self._index + offset
        token = self._tokens[index] if index < len(self._tokens) else Token("end", "")
        return self._key(token.text) if token.kind in {"name", "sign"} else ""

    def _take(self) -> Token:
        if self._index >= len(self._tokens):
            raise NotRecognizedError
        self._index += 1
        return self._tokens[self._index - 1]

    def _accept(self, *texts: str) -> bool:
        """Take these tokens if they are next."""
        if all(self._peek(offset) == text for offset, text in enumerate(texts)):
            self._index += len(texts)
            return True
        return False

    def _expect(self, *texts: str) -> None:
        if not self._accept(*texts):
            raise NotRecognizedError

    def _expect_kind(self, kind: str) -> str:
        token = self._take()
        if token.kind != kind:
            raise NotRecognizedError
        return token.text

    # Statements.

    def parse(self) -> Mapping[str, ScriptValue]:
        """Return the value of each variable that the script sets.

        Raises:
            NotRecognizedError: it does something else.
        """
        while self._index < len(self._tokens):
            self._parse_statement()
        return self._assigned

    def _parse_result(self) -> None:
        """Parse what is assigned to `Dts.TaskResult`, which must be success."""
        words: list[str] = []
        while self._peek() != self._STATEMENT_END:
            words.append(self._take().text.lower())
        text = "".join(words)
        for prefix in ("(int)", "cint", "ctype"):
            text = text.removeprefix(prefix)
        text = text.replace(",integer)", ")")
        if text.removeprefix("(").removesuffix(")") not in _SUCCESS | {"0"}:
            raise NotRecognizedError

    def _declare(self, name: str, kind: Kind | None, value: ScriptValue | None) -> None:
        if self._key(name) in self._types:
            raise NotRecognizedError
        self._types[self._key(name)] = kind
        self._locals[self._key(name)] = None
        if value is not None:
            self._set_local(name, value)

    def _set_local(self, name: str, value: ScriptValue) -> None:
        key = self._key(name)
        if key not in self._types:
            raise NotRecognizedError
        kind = self._types[key]
        self._locals[key] = value if kind is None else self._convert_to_local(value, kind)

    def _convert_to_local(self, value: ScriptValue, kind: Kind) -> ScriptValue:
        return convert(value, kind)

    def _get_local(self, name: str) -> ScriptValue:
        value = self._locals.get(self._key(name))
        if value is None:
            raise NotRecognizedError
        return value

    def _parse_assignment(self) -> None:
        """Parse an assignment to a local, to a variable of the package, or to `Dts.TaskResult`."""
        self._accept(self._SELF, ".")
        if self._accept(self._key("Dts"), "."):
            if self._accept(self._key("TaskResult")):
                self._expect("=")
                self._parse_result()
                return
            name = self._parse_variable()
            value = self._parse_assigned(lambda: self._read_variable(name))
            if self._match(name, self._read_write) is None:
                raise NotRecognizedError
            self._assigned[self._identify(name)] = value
            return
        local = self._expect_kind("name")
        value = self._parse_assigned(lambda: self._get_local(local))
        self._set_local(local, value)

    def _parse_assigned(self, read: Callable[[], ScriptValue]) -> ScriptValue:
        """Parse an assignment from its operator on; return the value."""
        if self._accept("="):
            return self._parse_expression()
        if self._accept("+="):
            return self._add(read(), self._parse_expression())
        raise NotRecognizedError

    # Variables of the package.

    def _match(self, name: str, listed: Sequence[str]) -> str | None:
        """Return the entry of a list that names the same variable; entries may lack the namespace."""
        found = {
            each
            for each in listed
            if each == name or each.endswith(f"::{name}") or ("::" not in each and name.endswith(f"::{each}"))
        }
        return found.pop() if len(found) == 1 else None

    def _identify(self, name: str) -> str:
        """Return the name of a variable with its namespace, if the script or the task has it."""
        listed = self._match(name, (*self._read_only, *self._read_write))
        if listed is None:  # SSIS does not find it, or locks it twice
            raise NotRecognizedError
        return listed if "::" in listed else name

    def _read_variable(self, name: str) -> ScriptValue:
        name = self._identify(name)
        return self._assigned.get(name) or ScriptValue(Kind.OBJECT, Name(name=name))

    # Expressions.

    def _parse_expression(self) -> ScriptValue:
        return self._parse_sum()

    def _parse_sum(self) -> ScriptValue:
        value = self._parse_unary()
        while self._peek() in {"+", "-"}:
            operator = self._take().text
            right = self._parse_unary()
            value = self._add(value, right) if operator == "+" else self._subtract(value, right)
        return value

    def _parse_nested(self) -> ScriptValue:
        """Parse an expression inside parentheses."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise NotRecognizedError
        value = self._parse_expression()
        self._depth -= 1
        return value

    def _parse_primary(self) -> ScriptValue:
        """Parse a literal, a local, a variable, a constant or a conversion."""
        token = self._take()
        if token.kind == "string":
            return make_literal(token.text)
        if token.kind == "number":
            if not token.text.isdecimal() or int(token.text) > _MAX_INT32:
                raise NotRecognizedError
            return make_literal(int(token.text))
        if token.kind == "name":
            return self._parse_name(token.text)
        if token.text == "(":
            value = self._parse_nested()
            self._expect(")")
            return value
        raise NotRecognizedError

    def _parse_name(self, name: str) -> ScriptValue:
        key = self._key(name)
        if key in self._types:
            return self._get_local(name)
        if key in {"true", "false"}:
            return make_literal(key == "true")
        if key == self._key("Dts"):
            self._expect(".")
            return self._read_variable(self._parse_variable())
        return self._parse_path(name)

    def _parse_path(self, name: str) -> ScriptValue:
        """Parse a constant such as `Environment.NewLine`, or a call such as `Convert.ToString(…)`."""
        path = name.lower()
        while True:
            value = self._parse_known(path)
            if value is not None:
                return value
            self._expect(".")
            path = f"{path}.{self._expect_kind('name').lower()}"
            if path.count(".") > 3:
                raise NotRecognizedError

    def _parse_known(self, path: str) -> ScriptValue | None:
        """Return the value of a constant or a call; None if the path is not known, or not yet complete."""
        path = path.removeprefix("system.")
        if path in _CONSTANTS:
            return make_literal(_CONSTANTS[path])
        if path == "datetime.now":
            return ScriptValue(Kind.DATE, Call(function="GETDATE", arguments=()))
        if path in {"string.format", "string.concat"}:
            texts = self._parse_arguments()
            return format_text(texts) if path == "string.format" else concatenate(texts)
        kind = _CONVERSIONS.get(path)
        return None if kind is None else self._parse_conversion(kind)

    def _parse_arguments(self) -> list[ScriptValue]:
        """Parse arguments, each converted to text."""
        self._expect("(")
        values = [to_text(self._parse_nested())]
        while self._accept(","):
            values.append(to_text(self._parse_nested()))
        self._expect(")")
        return values

    def _parse_conversion(self, kind: Kind) -> ScriptValue:
        """Parse the argument of a conversion."""
        self._expect("(")
        value = self._parse_nested()
        self._expect(")")
        return to_text(value) if kind is Kind.TEXT else convert(value, kind)

    def _parse_postfix(self) -> ScriptValue:
        """Parse a value, and `ToString` after it."""
        value = self._parse_primary()
        while self._peek() == ".":
            self._index += 1
            self._expect(self._key("ToString"))
            self._parse_empty_arguments()
            value = to_text(value)
        return value


def _find_sequence(texts: Sequence[str], sequence: list[str]) -> list[int]:
    """Return the indices at which a sequence of texts starts."""
    return [index for index in range(len(texts)) if texts[index : index + len(sequence)] == sequence]


def scan(pattern: re.Pattern[str], source: str) -> Iterator[tuple[str, str]]:
    """Yield the kind and the text of each token, without white space and comments.

    Args:
        pattern: has a group for each kind; what its group `skip` matches is left out.

    Raises:
        NotRecognizedError: something in the source is not a token.
    """
    position = 0
    while position < len(source):
        match = pattern.match(source, position)
        if match is None:
            raise NotRecognizedError
        position = match.end()
        if match.lastgroup != "skip":
            yield str(match.lastgroup), match[0]
