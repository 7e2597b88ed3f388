"""Works out an SSIS expression with given variables, as SSIS does.

What differs: only the chosen branch of `?:` is looked at, and so is the right side of `&&` and `||` where the left one
decides; SSIS checks the types of all of them when it parses.
"""

from __future__ import annotations

from collections.abc import Mapping

from airflow_provider_smtpcm.ssis.expressions.casts import cast
from airflow_provider_smtpcm.ssis.expressions.functions import call
from airflow_provider_smtpcm.ssis.expressions.operators import binary, logical, unary
from airflow_provider_smtpcm.ssis.expressions.parser import (
    Call,
    Cast,
    Conditional,
    Expression,
    Literal,
    Name,
    Null,
    Operation,
    Unary,
    parse,
)
from airflow_provider_smtpcm.ssis.expressions.types import ExpressionError
from airflow_provider_smtpcm.ssis.expressions.values import BOOL, WSTR, Value, truth, value_of


def evaluate(expression: str | Expression, variables: Mapping[str, object] | None = None) -> Value:
    """The value of an expression.

    Args:
        expression: its text, or its tree.
        variables: by their full names (`User::X`, `System::X`, `$Project::X`); a name without a namespace is looked
            for as it stands, then in `User` and `System`. Values of Python, or `Value` where the type matters.

    Raises:
        ExpressionError: it cannot be read, a variable is missing, or it has no value.
    """
    if not isinstance(expression, str):
        return _value(expression, variables or {})
    tree = parse(expression)
    try:
        return _value(tree, variables or {})
    except ExpressionError as error:
        if error.text is None and error.position is not None:
            error.text = expression
        raise


def _value(node: Expression, variables: Mapping[str, object]) -> Value:  # noqa: C901, PLR0911 - one for each node
    try:
        match node:
            case Operation():
                return _operation(node, variables)
            case Call():
                return call(node.function, tuple(_value(argument, variables) for argument in node.arguments))
            case Cast():
                return cast(_value(node.operand, variables), node.type)
            case Unary():
                return unary(node.operator, _value(node.operand, variables))
            case Conditional():
                return _conditional(node, variables)
            case Name():
                return _variable(node.name, variables)
            case Null():
                return Value(node.type, None)
            case Literal():
                return Value(node.type, node.value)
    except ExpressionError as error:
        if error.position is None:
            error.position = node.position
        raise


def _variable(name: str, variables: Mapping[str, object]) -> Value:
    for known in (name, f"User::{name}", f"System::{name}") if "::" not in name else (name,):
        if known in variables:
            return value_of(variables[known])
    alike = [known for known in variables if known.lower() == name.lower()]
    remedy = f"Names have their case: did you mean {alike[0]}?" if alike else "Give it a value."
    raise ExpressionError(f"The variable {name} is not known.", remedy=remedy)


def _operation(node: Operation, variables: Mapping[str, object]) -> Value:
    left = _value(node.first, variables)
    if all(sign == "+" for sign, _, _ in node.rest) and left.type == WSTR:
        return _text(left, node, variables)
    for sign, operand, position in node.rest:
        try:
            if sign in {"&&", "||"} and left.data is (sign == "||"):
                # The left side decides; its type is checked all the same.
                left = logical(sign, left, Value(BOOL, None))
            else:
                left = binary(sign, left, _value(operand, variables))
        except ExpressionError as error:
            if error.position is None:
                error.position = position
            raise
    return left


def _text(left: Value, node: Operation, variables: Mapping[str, object]) -> Value:
    """A chain of `+` that begins with a text: joined once, since a body has thousands of parts."""
    parts = [left]
    for sign, operand, position in node.rest:
        right = _value(operand, variables)
        try:
            # The type is checked by the pair; the text is not built up by it.
            joined = binary(sign, Value(WSTR, ""), right)
        except ExpressionError as error:
            if error.position is None:
                error.position = position
            raise
        parts.append(joined)
    if any(part.data is None for part in parts):
        return Value(WSTR, None)
    return Value(WSTR, "".join(str(part.data) for part in parts))


def _conditional(node: Conditional, variables: Mapping[str, object]) -> Value:
    for test, chosen in node.arms:
        found = _value(test, variables)
        if found.data is None and found.type == BOOL:
            # The result has the type of what could have been chosen; where that fails, no type can be told.
            return Value(_value(chosen, variables).type, None)
        if truth(found):
            return _value(chosen, variables)
    return _value(node.otherwise, variables)
