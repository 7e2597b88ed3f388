"""Evaluator of SSIS expressions.

One difference from SSIS: it checks the types of all operands when it parses. Here the branch of `?:` that is not
selected is not evaluated, and neither is the right side of `&&` and `||` if the left side decides.
"""

from __future__ import annotations

from collections.abc import Mapping

from airflow_provider_smtpcm.ssis.expressions.ast import (
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
from airflow_provider_smtpcm.ssis.expressions.casts import Value, cast, to_bool, to_value
from airflow_provider_smtpcm.ssis.expressions.functions import call_function
from airflow_provider_smtpcm.ssis.expressions.operators import apply_binary, apply_logical, apply_unary
from airflow_provider_smtpcm.ssis.expressions.parser import parse
from airflow_provider_smtpcm.ssis.expressions.types import BOOL, WSTR, ExpressionError


def evaluate(expression: str | Expression, variables: Mapping[str, object] | None = None) -> Value:
    """Evaluate an expression.

    Args:
        expression: text or syntax tree.
        variables: values by qualified name (`User::X`, `System::X`, `$Project::X`), as Python objects, or as `Value`
            where the type matters. A name without a namespace is looked up unchanged, then in `User`, then in `System`.

    Raises:
        ExpressionError: it cannot be parsed, a variable is missing, or the evaluation fails.
    """
    if not isinstance(expression, str):
        return _evaluate(expression, variables or {})
    tree = parse(expression)
    try:
        return _evaluate(tree, variables or {})
    except ExpressionError as error:
        if error.text is None and error.position is not None:
            error.text = expression
        raise


def _evaluate(node: Expression, variables: Mapping[str, object]) -> Value:  # noqa: C901, PLR0911 - one for each node
    try:
        match node:
            case Operation():
                return _evaluate_operation(node, variables)
            case Call():
                return call_function(
                    node.function, tuple(_evaluate(argument, variables) for argument in node.arguments)
                )
            case Cast():
                return cast(_evaluate(node.operand, variables), node.type)
            case Unary():
                return apply_unary(node.operator, _evaluate(node.operand, variables))
            case Conditional():
                return _evaluate_conditional(node, variables)
            case Name():
                return _look_up(node.name, variables)
            case Null():
                return Value(node.type, None)
            case Literal():
                return Value(node.type, node.value)
    except ExpressionError as error:
        if error.position is None:
            error.position = node.position
        raise


def _look_up(name: str, variables: Mapping[str, object]) -> Value:
    for candidate in (name, f"User::{name}", f"System::{name}") if "::" not in name else (name,):
        if candidate in variables:
            return to_value(variables[candidate])
    similar = [candidate for candidate in variables if candidate.lower() == name.lower()]
    remedy = f"Names are case-sensitive: did you mean {similar[0]}?" if similar else "Give it a value."
    raise ExpressionError(f"The variable {name} is not defined.", remedy=remedy)


def _evaluate_operation(node: Operation, variables: Mapping[str, object]) -> Value:
    left = _evaluate(node.first, variables)
    if node.is_sum and left.type == WSTR:
        return _evaluate_concatenation(left, node, variables)
    for operator, operand, position in node.rest:
        try:
            if operator in {"&&", "||"} and left.data is (operator == "||"):
                # The left side decides; this only checks its type.
                left = apply_logical(operator, left, Value(BOOL, None))
            else:
                left = apply_binary(operator, left, _evaluate(operand, variables))
        except ExpressionError as error:
            if error.position is None:
                error.position = position
            raise
    return left


def _evaluate_concatenation(left: Value, node: Operation, variables: Mapping[str, object]) -> Value:
    """Evaluate a chain of `+` that begins with a string. Joins once, so that thousands of operands take linear time."""
    values = [left]
    for operator, operand, position in node.rest:
        right = _evaluate(operand, variables)
        try:
            # Checks the type of the operand and converts it to a string.
            values.append(apply_binary(operator, Value(WSTR, ""), right))
        except ExpressionError as error:
            if error.position is None:
                error.position = position
            raise
    if any(value.data is None for value in values):
        return Value(WSTR, None)
    return Value(WSTR, "".join(str(value.data) for value in values))


def _evaluate_conditional(node: Conditional, variables: Mapping[str, object]) -> Value:
    for test, chosen in node.arms:
        condition = _evaluate(test, variables)
        if condition.data is None and condition.type == BOOL:
            # A null condition gives a null of the first branch's type.
            return Value(_evaluate(chosen, variables).type, None)
        if to_bool(condition):
            return _evaluate(chosen, variables)
    return _evaluate(node.otherwise, variables)
