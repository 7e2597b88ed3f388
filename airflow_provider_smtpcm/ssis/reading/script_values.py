"""The values of a .NET script, as expressions over the variables that the package has before the script."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import reduce

from airflow_provider_smtpcm.ssis.expressions import (
    Cast,
    DataType,
    Expression,
    Literal,
    Operation,
    TypeSpec,
    Unary,
)

#: The length of a cast that stands for .NET's conversion of a variable to text, whatever the variable's type is.
MAX_TEXT = 4000
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
    """A value as an expression over the variables as they are when the script begins."""

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
    length = {Kind.OBJECT: MAX_TEXT, Kind.DATE: 30}.get(value.kind, 20)
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
