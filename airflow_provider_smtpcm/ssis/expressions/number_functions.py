"""The functions of the expression language on numbers, each of its type. Microsoft: the page of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from airflow_provider_smtpcm.ssis.expressions.casts import EXACT_CONTEXT, as_float, fit_exact
from airflow_provider_smtpcm.ssis.expressions.errors import ExpressionError
from airflow_provider_smtpcm.ssis.expressions.operators import float_value, integer_value
from airflow_provider_smtpcm.ssis.expressions.text_functions import refuse_below
from airflow_provider_smtpcm.ssis.expressions.values import R8, Value


def absolute(value: Value) -> Value:
    data = value.data
    assert isinstance(data, int | float | Decimal)
    if isinstance(data, int):
        return integer_value(value.type, abs(data), "ABS")
    return Value(value.type, -data if data < 0 else data)


def to_whole(value: Value, direction: str) -> Value:
    data = value.data
    if isinstance(data, Decimal):
        way = ROUND_CEILING if direction == "up" else ROUND_FLOOR
        return Value(value.type, fit_exact(data.to_integral_value(rounding=way), value.type))
    if isinstance(data, float):
        return Value(value.type, float(math.ceil(data) if direction == "up" else math.floor(data)))
    return value


def rounded(value: Value, length: int) -> Value:
    """Half away from zero: 137.1575 becomes 137.1580."""
    refuse_below("ROUND", length)
    data = value.data
    if isinstance(data, int):
        return value
    assert isinstance(data, float | Decimal)
    length = min(length, 60)
    exact = data if isinstance(data, Decimal) else Decimal(repr(data))
    if -int(exact.as_tuple().exponent) <= length:
        return value
    exact = exact.quantize(Decimal(1).scaleb(-length), context=EXACT_CONTEXT)
    return Value(value.type, float(exact) if isinstance(data, float) else fit_exact(exact, value.type))


def logarithm(function: Callable[[float], float], value: Value) -> Value:
    # Microsoft: null for zero and below.
    number = as_float(value)
    return Value(R8, function(number) if number > 0 else None)


def exponential(value: Value) -> Value:
    try:
        return float_value(R8, math.exp(as_float(value)), "EXP")
    except OverflowError:
        raise ExpressionError("The result of EXP overflows DT_R8.", remedy="Use a smaller number.") from None


def power_of(value: Value, power: Value) -> Value:
    base, exponent = as_float(value), as_float(power)
    if base == 0 and exponent < 0:
        raise ExpressionError("POWER cannot raise zero to a negative power.", remedy="Test the number before.")
    try:
        return float_value(R8, math.pow(base, exponent), "POWER")
    except ValueError:
        return Value(R8, None)  # "indeterminate results"
    except OverflowError:
        raise ExpressionError("The result of POWER overflows DT_R8.", remedy="Use a smaller power.") from None


def square_root(value: Value) -> Value:
    number = as_float(value)
    if number < 0:
        raise ExpressionError(
            f"SQRT fails for a negative value, {value}.", remedy="Use ABS, or test the number before."
        )
    return Value(R8, math.sqrt(number))


def square(value: Value) -> Value:
    number = as_float(value)
    return float_value(R8, number * number, "SQUARE")


def sign_of(value: Value) -> int:
    number = as_float(value)
    return (number > 0) - (number < 0)
