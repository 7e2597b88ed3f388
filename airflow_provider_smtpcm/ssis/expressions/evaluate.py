"""Evaluator of SSIS expressions, with the operators of the language.

See Microsoft's page of each operator, and the pages "Integration Services Data Types" and "Implicit Data Conversion". A
null operand gives a null, except with `&&` and `||`, which use three-valued logic.

There are two differences from SSIS. SSIS checks the types of all operands when it parses; here, neither the branch of
`?:` that is not selected is evaluated, nor the right side of `&&` and `||` if the left side decides. Also, `<` and `>`
compare strings by code point here; SSIS uses the sort order of the package's locale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import ROUND_DOWN, Decimal
from operator import and_, eq, ge, gt, le, lt, ne, or_, xor
from typing import Any

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
from airflow_provider_smtpcm.ssis.expressions.casts import (
    DECIMAL_CONTEXT,
    Value,
    cast,
    check_float,
    check_integer,
    describe_type,
    format_value,
    round_to_type,
    to_bool,
    to_decimal,
    to_float,
    to_value,
)
from airflow_provider_smtpcm.ssis.expressions.functions import call_function
from airflow_provider_smtpcm.ssis.expressions.parser import parse
from airflow_provider_smtpcm.ssis.expressions.types import (
    BOOL,
    DATES,
    EXACT,
    FLOATS,
    I4,
    INTEGERS,
    NUMBERS,
    SIGNED,
    STRINGS,
    TIMES,
    UNSIGNED,
    WSTR,
    DataType,
    ExpressionError,
    TypeSpec,
)


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
    remedy = f"Names are case-sensitive: did you mean {similar[0]}?" if similar else "Define it, or write its value."
    raise ExpressionError(f"The variable {name} is not defined.", remedy=remedy)


def _evaluate_operation(node: Operation, variables: Mapping[str, object]) -> Value:
    left = _evaluate(node.first, variables)
    if node.is_sum and left.type == WSTR:
        return _evaluate_concatenation(left, node, variables)
    for operator, operand, position in node.rest:
        try:
            if operator in {"&&", "||"} and left.data is (operator == "||"):
                # The left side decides; this only checks its type.
                left = _apply_logical(operator, left, Value(BOOL, None))
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


# --- Operators

_COMPARISONS: dict[str, Callable[[Any, Any], object]] = {
    "==": eq,
    "!=": ne,
    "<": lt,
    ">": gt,
    "<=": le,
    ">=": ge,
}
_BITWISE: dict[str, Callable[[int, int], int]] = {"&": and_, "^": xor, "|": or_}


def apply_binary(operator: str, left: Value, right: Value) -> Value:
    """Return the result of a binary operator.

    Args:
        operator: any binary operator, such as `&&`.
        left: the left operand.
        right: the right operand.

    Raises:
        ExpressionError: the operator does not accept the operands' types, the divisor is zero, or the result is out of
            range.
    """
    if operator in {"&&", "||"}:
        return _apply_logical(operator, left, right)
    if operator in _COMPARISONS:
        return _compare(operator, left, right)
    if operator == "+" and (left.type.data_type in STRINGS or right.type.data_type in STRINGS):
        return _concatenate(left, right)
    if operator in _BITWISE:
        return _apply_bitwise(operator, left, right)
    return _apply_arithmetic(operator, left, right)


def _concatenate(left: Value, right: Value) -> Value:
    """Concatenate. Dates are converted to strings; numbers need a cast."""
    for value in (left, right):
        if value.type.data_type not in STRINGS | DATES | TIMES:
            raise ExpressionError(
                f"+ cannot concatenate a string and {describe_type(value)}.",
                remedy="Cast it to a string: (DT_WSTR,20)…",
            )
    if left.data is None or right.data is None:
        return Value(WSTR, None)
    return Value(WSTR, format_value(left) + format_value(right))


def _apply_logical(operator: str, left: Value, right: Value) -> Value:
    """Return the result of `&&` or `||`, in three-valued logic.

    Raises:
        ExpressionError: an operand is not a DT_BOOL.
    """
    for value in (left, right):
        if value.type.data_type is not DataType.BOOL:
            raise ExpressionError(
                f"{operator} takes Booleans, not {describe_type(value)}.",
                remedy="Compare it with a value, or cast it to DT_BOOL.",
            )
    decisive = operator == "||"
    if decisive in {left.data, right.data}:
        return Value(BOOL, decisive)
    return Value(BOOL, None if left.data is None or right.data is None else not decisive)


def _compare(operator: str, left: Value, right: Value) -> Value:
    """Compare two values. Strings are case-sensitive; numbers and dates may be of different types."""
    left, right = _coerce_for_comparison(operator, left, right)
    if left.data is None or right.data is None:
        return Value(BOOL, None)
    a, b = left.data, right.data
    if left.type.data_type in NUMBERS:
        has_float = left.type.data_type in FLOATS or right.type.data_type in FLOATS
        a, b = (to_float(left), to_float(right)) if has_float else (to_decimal(left), to_decimal(right))
    return Value(BOOL, bool(_COMPARISONS[operator](a, b)))


def _coerce_for_comparison(operator: str, left: Value, right: Value) -> tuple[Value, Value]:
    left_type, right_type = left.type.data_type, right.type.data_type
    for types in (STRINGS, NUMBERS, TIMES):
        if left_type in types and right_type in types:
            return left, right
    if left_type in DATES and right_type in DATES:
        type_ = _find_common_date_type(left.type, right.type)
        return cast(left, type_), cast(right, type_)
    # Microsoft's page on == has the example "7/4/2003" == GETDATE().
    if left_type in STRINGS and right_type in DATES | TIMES:
        return _coerce_for_comparison(operator, cast(left, right.type), right)
    if left_type in DATES | TIMES and right_type in STRINGS:
        return _coerce_for_comparison(operator, left, cast(right, left.type))
    if left_type is right_type:
        is_equality = operator in {"==", "!="}
        if left_type in {DataType.GUID, DataType.BYTES} or (left_type is DataType.BOOL and is_equality):
            return left, right
    raise ExpressionError(
        f"{operator} cannot compare {describe_type(left)} with {describe_type(right)}.",
        remedy="Cast one of them to the type of the other.",
    )


def _find_common_date_type(left: TypeSpec, right: TypeSpec) -> TypeSpec:
    for data_type in (DataType.DBTIMESTAMPOFFSET, DataType.DBTIMESTAMP2):
        if data_type in {left.data_type, right.data_type}:
            return TypeSpec(data_type, (7,))
    return left if left == right else TypeSpec(DataType.DBTIMESTAMP)


def _apply_bitwise(operator: str, left: Value, right: Value) -> Value:
    for value in (left, right):
        if value.type.data_type not in INTEGERS:
            raise ExpressionError(
                f"{operator} takes integers, not {describe_type(value)}.", remedy="Did you mean && or ||?"
            )
    type_ = _find_common_number_type(operator, left.type, right.type)
    if not isinstance(left.data, int) or not isinstance(right.data, int):
        return Value(type_, None)
    return Value(type_, _BITWISE[operator](left.data, right.data))


def _find_common_number_type(operator: str, left: TypeSpec, right: TypeSpec) -> TypeSpec:
    """Return the type of an arithmetic result. Precision and scale of DT_NUMERIC are left to the calculation."""
    types = {left.data_type, right.data_type}
    if types & FLOATS:
        return TypeSpec(DataType.R4 if types == {DataType.R4} else DataType.R8)
    if types & EXACT:
        return TypeSpec(DataType.CY if types == {DataType.CY} else DataType.NUMERIC)
    if len(types) == 1:
        return left
    if (left.data_type in SIGNED) == (right.data_type in SIGNED):
        sizes = SIGNED if left.data_type in SIGNED else UNSIGNED
        return left if sizes[left.data_type] > sizes[right.data_type] else right
    signed, unsigned = (left, right) if left.data_type in SIGNED else (right, left)
    if unsigned.data_type is DataType.UI8:
        raise ExpressionError(f"{operator} cannot combine DT_UI8 and {signed.data_type}.", remedy="Cast one of them.")
    # Microsoft: "a signed integer that is potentially larger than either argument".
    size = max(SIGNED[signed.data_type], 2 * UNSIGNED[unsigned.data_type])
    return TypeSpec(next(data_type for data_type, bits in SIGNED.items() if bits == size))


def _apply_arithmetic(operator: str, left: Value, right: Value) -> Value:
    for value in (left, right):
        if value.type.data_type not in NUMBERS:
            remedy = "Use DATEADD or DATEDIFF." if value.type.data_type in DATES else "Cast it to a number."
            raise ExpressionError(f"{operator} takes numbers, not {describe_type(value)}.", remedy=remedy)
    type_ = _find_common_number_type(operator, left.type, right.type)
    if left.data is None or right.data is None:
        return Value(type_, None)
    if operator in "/%" and right.data == 0:
        raise ExpressionError(
            f"{format_value(left)} {operator} 0 is a division by zero.", remedy="Test the divisor first: x == 0 ? … : …"
        )
    if type_.data_type in FLOATS:
        return check_float(type_, _calculate_floats(operator, to_float(left), to_float(right)), operator)
    if type_.data_type in EXACT:
        return _calculate_decimals(operator, left, right, type_)
    assert isinstance(left.data, int) and isinstance(right.data, int)
    return check_integer(type_, _calculate_integers(operator, left.data, right.data), operator)


def _calculate_integers(operator: str, a: int, b: int) -> int:
    if operator in "/%":
        # As in C: the quotient is rounded toward zero, and the remainder has the sign of the dividend.
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        return quotient if operator == "/" else a - quotient * b
    return {"+": a + b, "-": a - b, "*": a * b}[operator]


def _calculate_floats(operator: str, a: float, b: float) -> float:
    try:
        if operator == "/":
            return a / b
        return math.fmod(a, b) if operator == "%" else {"+": a + b, "-": a - b, "*": a * b}[operator]
    except OverflowError:
        return math.inf


def _calculate_decimals(operator: str, left: Value, right: Value, type_: TypeSpec) -> Value:
    """Calculate with T-SQL's rules for precision and scale; Microsoft documents none for SSIS."""
    a, b = to_decimal(left), to_decimal(right)
    context = DECIMAL_CONTEXT
    scale = max(left.type.scale, right.type.scale)
    if operator == "/":
        number = context.divide(a, b)
        scale = max(6, left.type.scale + right.type.precision + 1)
    elif operator == "%":
        quotient = context.divide(a, b).to_integral_value(rounding=ROUND_DOWN)
        number = context.subtract(a, context.multiply(quotient, b))
    elif operator == "*":
        number, scale = context.multiply(a, b), left.type.scale + right.type.scale
    else:
        number = context.add(a, b) if operator == "+" else context.subtract(a, b)
    if type_.data_type is DataType.CY:
        return Value(type_, round_to_type(number, type_))
    integer_digits = max(1, number.adjusted() + 1 if number else 1)
    numeric = TypeSpec(DataType.NUMERIC, (38, max(0, min(scale, 38 - integer_digits))))
    return Value(numeric, round_to_type(number, numeric))


def apply_unary(operator: str, value: Value) -> Value:
    """Return the result of `!`, `-` or `~`.

    Raises:
        ExpressionError: the operator does not accept the operand's type, or the result is out of range.
    """
    data_type, data = value.type.data_type, value.data
    if operator == "!":
        if data_type is not DataType.BOOL:
            raise ExpressionError(
                f"! takes a Boolean, not {describe_type(value)}.",
                remedy="Compare it with a value, or cast it to DT_BOOL.",
            )
        return value if data is None else Value(BOOL, not data)
    if data_type not in (INTEGERS if operator == "~" else NUMBERS):
        raise ExpressionError(f"{operator} takes a number, not {describe_type(value)}.", remedy="Cast it to a number.")
    if data is None:
        return value
    if isinstance(data, int):
        if operator == "-" and data_type in UNSIGNED:
            return check_integer(_find_common_number_type("-", value.type, I4), -data, "-")
        complement = (1 << UNSIGNED[data_type]) - 1 - data if data_type in UNSIGNED else ~data
        return check_integer(value.type, -data if operator == "-" else complement, operator)
    assert isinstance(data, float | Decimal)
    return Value(value.type, -data)
