"""Operators of the expression language. Microsoft: the page of each operator, "Implicit Data Conversion".

An operator on a null gives a null, except `&&` and `||`, which use three-valued logic. Strings are compared by code
point, where SSIS takes the order of the package's locale for `<` and `>`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from decimal import ROUND_DOWN, Decimal
from typing import Any

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
    is_in_range,
)
from airflow_provider_smtpcm.ssis.expressions.values import (
    DECIMAL_CONTEXT,
    Value,
    cast,
    describe_type,
    format_value,
    round_to_type,
    to_decimal,
    to_float,
)

_COMPARISONS: dict[str, Callable[[Any, Any], object]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
_BITWISE: dict[str, Callable[[int, int], int]] = {"&": operator.and_, "^": operator.xor, "|": operator.or_}


def apply_binary(sign: str, left: Value, right: Value) -> Value:
    """Return the result of a binary operator.

    Args:
        sign: the operator.
        left: the left operand.
        right: the right operand.

    Raises:
        ExpressionError: the operator does not accept the operands' types, the divisor is zero, or the result is out of
            range.
    """
    if sign in {"&&", "||"}:
        return apply_logical(sign, left, right)
    if sign in _COMPARISONS:
        return _compare(sign, left, right)
    if sign == "+" and (left.type.data_type in STRINGS or right.type.data_type in STRINGS):
        return _concatenate(left, right)
    if sign in _BITWISE:
        return _apply_bitwise(sign, left, right)
    return _apply_arithmetic(sign, left, right)


def _concatenate(left: Value, right: Value) -> Value:
    """Concatenate; a date is converted to a text, a number has to be cast."""
    for value in (left, right):
        if value.type.data_type not in STRINGS | DATES | TIMES:
            raise ExpressionError(
                f"+ cannot join a text and {describe_type(value)}.", remedy="Cast it to a text: (DT_WSTR,20)…"
            )
    if left.data is None or right.data is None:
        return Value(WSTR, None)
    return Value(WSTR, format_value(left) + format_value(right))


def apply_logical(sign: str, left: Value, right: Value) -> Value:
    """Return the result of `&&` or `||`, in three-valued logic.

    Raises:
        ExpressionError: an operand is no DT_BOOL.
    """
    for value in (left, right):
        if value.type.data_type is not DataType.BOOL:
            raise ExpressionError(
                f"{sign} takes Booleans, not {describe_type(value)}.", remedy="Compare it, or cast to DT_BOOL."
            )
    decisive = sign == "||"
    if decisive in {left.data, right.data}:
        return Value(BOOL, decisive)
    return Value(BOOL, None if left.data is None or right.data is None else not decisive)


def _compare(sign: str, left: Value, right: Value) -> Value:
    """Compare two values; strings with their case, numbers and dates also where their types differ."""
    one, other = _coerce_for_comparison(sign, left, right)
    if one.data is None or other.data is None:
        return Value(BOOL, None)
    a, b = one.data, other.data
    if one.type.data_type in NUMBERS:
        floats = {one.type.data_type, other.type.data_type} & FLOATS
        a, b = (to_float(one), to_float(other)) if floats else (to_decimal(one), to_decimal(other))
    return Value(BOOL, bool(_COMPARISONS[sign](a, b)))


def _coerce_for_comparison(sign: str, left: Value, right: Value) -> tuple[Value, Value]:
    one, other = left.type.data_type, right.type.data_type
    for types in (STRINGS, NUMBERS):
        if one in types and other in types:
            return left, right
    if one in TIMES and other in TIMES:
        return left, right
    if one in DATES and other in DATES:
        type_ = _find_common_date_type(left.type, right.type)
        return cast(left, type_), cast(right, type_)
    # "7/4/2003" == GETDATE() is an example of Microsoft's page of ==.
    if one in STRINGS and other in DATES | TIMES:
        return _coerce_for_comparison(sign, cast(left, right.type), right)
    if one in DATES | TIMES and other in STRINGS:
        return _coerce_for_comparison(sign, left, cast(right, left.type))
    if one is other and (one in {DataType.GUID, DataType.BYTES} or (one is DataType.BOOL and sign in {"==", "!="})):
        return left, right
    raise ExpressionError(
        f"{sign} cannot compare {describe_type(left)} with {describe_type(right)}.",
        remedy="Cast one of them to the type of the other.",
    )


def _find_common_date_type(left: TypeSpec, right: TypeSpec) -> TypeSpec:
    for type_ in (DataType.DBTIMESTAMPOFFSET, DataType.DBTIMESTAMP2):
        if type_ in {left.data_type, right.data_type}:
            return TypeSpec(type_, (7,))
    return left if left == right else TypeSpec(DataType.DBTIMESTAMP)


def _apply_bitwise(sign: str, left: Value, right: Value) -> Value:
    for value in (left, right):
        if value.type.data_type not in INTEGERS:
            raise ExpressionError(
                f"{sign} takes whole numbers, not {describe_type(value)}.", remedy="Did you mean && or ||?"
            )
    type_ = _find_common_number_type(sign, left.type, right.type)
    if not isinstance(left.data, int) or not isinstance(right.data, int):
        return Value(type_, None)
    return Value(type_, _BITWISE[sign](left.data, right.data))


def _find_common_number_type(sign: str, left: TypeSpec, right: TypeSpec) -> TypeSpec:
    """Return the type of an arithmetic operator's result; of an exact one, without precision and scale."""
    one, other = left.data_type, right.data_type
    if one in FLOATS or other in FLOATS:
        return TypeSpec(DataType.R4 if one is other is DataType.R4 else DataType.R8)
    if one in EXACT or other in EXACT:
        return TypeSpec(DataType.CY) if one is other is DataType.CY else TypeSpec(DataType.NUMERIC)
    if one is other:
        return left
    if (one in SIGNED) == (other in SIGNED):
        sizes = SIGNED if one in SIGNED else UNSIGNED
        return left if sizes[one] > sizes[other] else right
    signed, unsigned = (one, other) if one in SIGNED else (other, one)
    if unsigned is DataType.UI8:
        raise ExpressionError(f"{sign} cannot join DT_UI8 and {signed}.", remedy="Cast one of them.")
    # "a signed integer that is potentially larger than either argument"
    size = max(SIGNED[signed], 2 * UNSIGNED[unsigned])
    return TypeSpec(next(type_ for type_, bits in SIGNED.items() if bits == size))


def _apply_arithmetic(sign: str, left: Value, right: Value) -> Value:
    for value in (left, right):
        if value.type.data_type not in NUMBERS:
            remedy = "Use DATEADD or DATEDIFF." if value.type.data_type in DATES else "Cast it to a number."
            raise ExpressionError(f"{sign} takes numbers, not {describe_type(value)}.", remedy=remedy)
    type_ = _find_common_number_type(sign, left.type, right.type)
    if left.data is None or right.data is None:
        return Value(type_, None)
    if sign in "/%" and right.data == 0:
        raise ExpressionError(
            f"{format_value(left)} {sign} 0 is a division by zero.", remedy="Test the divisor: x == 0 ? … : …"
        )
    if type_.data_type in FLOATS:
        return check_float(type_, _calculate_floats(sign, to_float(left), to_float(right)), sign)
    if type_.data_type in EXACT:
        return _calculate_decimals(sign, left, right, type_)
    assert isinstance(left.data, int) and isinstance(right.data, int)
    return check_integer(type_, _calculate_integers(sign, left.data, right.data), sign)


def check_integer(type_: TypeSpec, number: int, sign: str) -> Value:
    """Return the result of an operator or function as an integer.

    Args:
        sign: the operator or the function, for the error.

    Raises:
        ExpressionError: it is out of the type's range.
    """
    if not is_in_range(number, type_.data_type):
        raise ExpressionError(f"The result of {sign}, {number:.9G}, overflows {type_}.", remedy="Cast to DT_I8 before.")
    return Value(type_, number)


def check_float(type_: TypeSpec, number: float, sign: str) -> Value:
    """Return the result of an operator or function as a float.

    Args:
        sign: the operator or the function, for the error.

    Raises:
        ExpressionError: it is infinite, or no number.
    """
    if not math.isfinite(number):
        raise ExpressionError(f"The result of {sign} overflows {type_}.", remedy="Use smaller numbers.")
    return Value(type_, to_float(Value(type_, number), type_.data_type))


def _calculate_integers(sign: str, a: int, b: int) -> int:
    if sign in "/%":
        # Rounded towards zero; the remainder has the sign of the dividend, as in C.
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        return quotient if sign == "/" else a - quotient * b
    return {"+": a + b, "-": a - b, "*": a * b}[sign]


def _calculate_floats(sign: str, a: float, b: float) -> float:
    try:
        if sign == "/":
            return a / b
        return math.fmod(a, b) if sign == "%" else {"+": a + b, "-": a - b, "*": a * b}[sign]
    except OverflowError:
        return math.inf


def _calculate_decimals(sign: str, left: Value, right: Value, type_: TypeSpec) -> Value:
    """Calculate with T-SQL's precision and scale; Microsoft documents none for SSIS."""
    a, b = to_decimal(left), to_decimal(right)
    context = DECIMAL_CONTEXT
    if sign == "/":
        found = context.divide(a, b)
        scale = max(6, left.type.scale + right.type.precision + 1)
    elif sign == "%":
        whole = context.divide(a, b).to_integral_value(rounding=ROUND_DOWN)
        found = context.subtract(a, context.multiply(whole, b))
        scale = max(left.type.scale, right.type.scale)
    elif sign == "*":
        found, scale = context.multiply(a, b), left.type.scale + right.type.scale
    else:
        found = context.add(a, b) if sign == "+" else context.subtract(a, b)
        scale = max(left.type.scale, right.type.scale)
    if type_.data_type is DataType.CY:
        return Value(type_, round_to_type(found, type_))
    before = max(1, found.adjusted() + 1 if found else 1)
    result = TypeSpec(DataType.NUMERIC, (38, max(0, min(scale, 38 - before))))
    return Value(result, round_to_type(found, result))


def apply_unary(sign: str, value: Value) -> Value:
    """Return the result of `!`, `-` or `~`.

    Raises:
        ExpressionError: the operator does not accept the operand's type, or the result is out of range.
    """
    type_, data = value.type.data_type, value.data
    if sign == "!":
        if type_ is not DataType.BOOL:
            raise ExpressionError(
                f"! takes a Boolean, not {describe_type(value)}.", remedy="Compare it, or cast to DT_BOOL."
            )
        return value if data is None else Value(BOOL, not data)
    if type_ not in (INTEGERS if sign == "~" else NUMBERS):
        raise ExpressionError(f"{sign} takes a number, not {describe_type(value)}.", remedy="Cast it to a number.")
    if data is None:
        return value
    if isinstance(data, int):
        if sign == "-" and type_ in UNSIGNED:
            return check_integer(_find_common_number_type("-", value.type, I4), -data, "-")
        bits = (1 << UNSIGNED[type_]) - 1 - data if type_ in UNSIGNED else ~data
        return check_integer(value.type, -data if sign == "-" else bits, sign)
    assert isinstance(data, float | Decimal)
    return Value(value.type, -data)
