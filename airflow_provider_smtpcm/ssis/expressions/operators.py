"""The operators of the expression language on values. Microsoft: the page of each operator, "Implicit Data Conversion".

Any operator on a null gives a null, but for `&&` and `||`, which know three truths. Texts are compared by code point,
where SSIS takes the order of the package's locale for < and >.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from decimal import ROUND_DOWN, Decimal
from typing import Any

from airflow_provider_smtpcm.ssis.expressions.casts import EXACT_CONTEXT, as_decimal, as_float, cast, fit_exact
from airflow_provider_smtpcm.ssis.expressions.tokens import fits
from airflow_provider_smtpcm.ssis.expressions.types import (
    DATES,
    EXACT,
    FLOATS,
    INTEGERS,
    NUMBERS,
    SIGNED,
    STRINGS,
    TIMES,
    UNSIGNED,
    DataType,
    ExpressionError,
    TypeSpec,
)
from airflow_provider_smtpcm.ssis.expressions.values import BOOL, I4, WSTR, Value, kind_of, text_of

_COMPARE: dict[str, Callable[[Any, Any], object]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
_BITS: dict[str, Callable[[int, int], int]] = {"&": operator.and_, "^": operator.xor, "|": operator.or_}


def binary(sign: str, left: Value, right: Value) -> Value:
    """One operator between two values.

    Raises:
        ExpressionError: the types do not go together, the divisor is zero, or the result does not fit.
    """
    if sign in {"&&", "||"}:
        return logical(sign, left, right)
    if sign in _COMPARE:
        return compare(sign, left, right)
    if sign == "+" and (left.type.type in STRINGS or right.type.type in STRINGS):
        return concatenate(left, right)
    if sign in _BITS:
        return _bits(sign, left, right)
    return _arithmetic(sign, left, right)


def concatenate(left: Value, right: Value) -> Value:
    """`+` of texts; a date is made a text first, a number has to be cast."""
    for value in (left, right):
        if value.type.type not in STRINGS | DATES | TIMES:
            raise ExpressionError(
                f"+ cannot join a text and {kind_of(value)}.", remedy="Cast it to a text: (DT_WSTR,20)…"
            )
    if left.data is None or right.data is None:
        return Value(WSTR, None)
    return Value(WSTR, text_of(left) + text_of(right))


def logical(sign: str, left: Value, right: Value) -> Value:
    """`&&` and `||` of three truths."""
    for value in (left, right):
        if value.type.type is not DataType.BOOL:
            raise ExpressionError(
                f"{sign} takes Booleans, not {kind_of(value)}.", remedy="Compare it, or cast to DT_BOOL."
            )
    decisive = sign == "||"
    if decisive in {left.data, right.data}:
        return Value(BOOL, decisive)
    return Value(BOOL, None if left.data is None or right.data is None else not decisive)


def compare(sign: str, left: Value, right: Value) -> Value:
    """A comparison; texts are compared with their case, and numbers and dates whatever their types."""
    one, other = _comparable(sign, left, right)
    if one.data is None or other.data is None:
        return Value(BOOL, None)
    a, b = one.data, other.data
    if one.type.type in NUMBERS:
        floats = {one.type.type, other.type.type} & FLOATS
        a, b = (as_float(one), as_float(other)) if floats else (as_decimal(one), as_decimal(other))
    return Value(BOOL, bool(_COMPARE[sign](a, b)))


def _comparable(sign: str, left: Value, right: Value) -> tuple[Value, Value]:
    one, other = left.type.type, right.type.type
    for kinds in (STRINGS, NUMBERS):
        if one in kinds and other in kinds:
            return left, right
    if one in TIMES and other in TIMES:
        return left, right
    if one in DATES and other in DATES:
        type_ = _common_date(left.type, right.type)
        return cast(left, type_), cast(right, type_)
    # "7/4/2003" == GETDATE() is an example of Microsoft's page of ==.
    if one in STRINGS and other in DATES | TIMES:
        return _comparable(sign, cast(left, right.type), right)
    if one in DATES | TIMES and other in STRINGS:
        return _comparable(sign, left, cast(right, left.type))
    if one is other and (one in {DataType.GUID, DataType.BYTES} or (one is DataType.BOOL and sign in {"==", "!="})):
        return left, right
    raise ExpressionError(
        f"{sign} cannot compare {kind_of(left)} with {kind_of(right)}.",
        remedy="Cast one of them to the type of the other.",
    )


def _common_date(left: TypeSpec, right: TypeSpec) -> TypeSpec:
    for type_ in (DataType.DBTIMESTAMPOFFSET, DataType.DBTIMESTAMP2):
        if type_ in {left.type, right.type}:
            return TypeSpec(type_, (7,))
    return left if left == right else TypeSpec(DataType.DBTIMESTAMP)


def _bits(sign: str, left: Value, right: Value) -> Value:
    for value in (left, right):
        if value.type.type not in INTEGERS:
            raise ExpressionError(f"{sign} takes whole numbers, not {kind_of(value)}.", remedy="Did you mean && or ||?")
    type_ = common_number(sign, left.type, right.type)
    if not isinstance(left.data, int) or not isinstance(right.data, int):
        return Value(type_, None)
    return Value(type_, _BITS[sign](left.data, right.data))


def common_number(sign: str, left: TypeSpec, right: TypeSpec) -> TypeSpec:
    """The type of what an operator makes of two numbers; for an exact one, without its digits."""
    one, other = left.type, right.type
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


def _arithmetic(sign: str, left: Value, right: Value) -> Value:
    for value in (left, right):
        if value.type.type not in NUMBERS:
            remedy = "Use DATEADD or DATEDIFF." if value.type.type in DATES else "Cast it to a number."
            raise ExpressionError(f"{sign} takes numbers, not {kind_of(value)}.", remedy=remedy)
    type_ = common_number(sign, left.type, right.type)
    if left.data is None or right.data is None:
        return Value(type_, None)
    if sign in "/%" and right.data == 0:
        raise ExpressionError(
            f"{text_of(left)} {sign} 0 is a division by zero.", remedy="Test the divisor: x == 0 ? … : …"
        )
    if type_.type in FLOATS:
        return float_value(type_, _of_floats(sign, as_float(left), as_float(right)), sign)
    if type_.type in EXACT:
        return _of_exact(sign, left, right, type_)
    assert isinstance(left.data, int) and isinstance(right.data, int)
    return integer_value(type_, _of_integers(sign, left.data, right.data), sign)


def integer_value(type_: TypeSpec, number: int, sign: str) -> Value:
    """A result, if it fits its type."""
    if not fits(number, type_.type):
        raise ExpressionError(f"The result of {sign}, {number:.9G}, overflows {type_}.", remedy="Cast to DT_I8 before.")
    return Value(type_, number)


def float_value(type_: TypeSpec, number: float, sign: str) -> Value:
    """A result, if it is a number."""
    if not math.isfinite(number):
        raise ExpressionError(f"The result of {sign} overflows {type_}.", remedy="Use smaller numbers.")
    return Value(type_, as_float(Value(type_, number), type_.type))


def _of_integers(sign: str, a: int, b: int) -> int:
    if sign in "/%":
        # Towards zero, and the rest has the sign of the dividend, as in C.
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        return quotient if sign == "/" else a - quotient * b
    return {"+": a + b, "-": a - b, "*": a * b}[sign]


def _of_floats(sign: str, a: float, b: float) -> float:
    try:
        if sign == "/":
            return a / b
        return math.fmod(a, b) if sign == "%" else {"+": a + b, "-": a - b, "*": a * b}[sign]
    except OverflowError:
        return math.inf


def _of_exact(sign: str, left: Value, right: Value, type_: TypeSpec) -> Value:
    """Digits as T-SQL counts them; SSIS's pages do not say otherwise."""
    a, b = as_decimal(left), as_decimal(right)
    context = EXACT_CONTEXT
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
    if type_.type is DataType.CY:
        return Value(type_, fit_exact(found, type_))
    before = max(1, found.adjusted() + 1 if found else 1)
    result = TypeSpec(DataType.NUMERIC, (38, max(0, min(scale, 38 - before))))
    return Value(result, fit_exact(found, result))


def unary(sign: str, value: Value) -> Value:
    """`!`, `-` and `~`."""
    type_, data = value.type.type, value.data
    if sign == "!":
        if type_ is not DataType.BOOL:
            raise ExpressionError(f"! takes a Boolean, not {kind_of(value)}.", remedy="Compare it, or cast to DT_BOOL.")
        return value if data is None else Value(BOOL, not data)
    if type_ not in (INTEGERS if sign == "~" else NUMBERS):
        raise ExpressionError(f"{sign} takes a number, not {kind_of(value)}.", remedy="Cast it to a number.")
    if data is None:
        return value
    if isinstance(data, int):
        if sign == "-" and type_ in UNSIGNED:
            return integer_value(common_number("-", value.type, I4), -data, "-")
        bits = (1 << UNSIGNED[type_]) - 1 - data if type_ in UNSIGNED else ~data
        return integer_value(value.type, -data if sign == "-" else bits, sign)
    assert isinstance(data, float | Decimal)
    return Value(value.type, -data)
