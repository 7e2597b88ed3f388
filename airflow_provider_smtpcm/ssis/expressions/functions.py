"""Functions of the expression language, by their names in capitals. Microsoft: the page of each.

A character is a code point here; to SSIS, one beyond U+FFFF counts as two. A null argument gives a null, except where
the function's page defines something else.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from airflow_provider_smtpcm.ssis.expressions import dates
from airflow_provider_smtpcm.ssis.expressions.operators import check_float, check_integer
from airflow_provider_smtpcm.ssis.expressions.types import (
    BOOL,
    DATES,
    I4,
    INTEGERS,
    NUMBERS,
    R8,
    SIGNED,
    STRINGS,
    TIMESTAMP,
    UNSIGNED,
    WSTR,
    DataType,
    ExpressionError,
    TypeSpec,
)
from airflow_provider_smtpcm.ssis.expressions.values import (
    DECIMAL_CONTEXT,
    Data,
    Value,
    cast,
    describe_type,
    round_to_type,
    to_float,
)

# Maximum length of REPLICATE's result, in characters: a longer one is a mistake, and would exhaust a worker's memory.
_MAX_REPLICATE = 10_000_000


def call_function(name: str, arguments: tuple[Value, ...]) -> Value:
    """Return the result of a function.

    Args:
        name: in capitals.
        arguments: as many as the function takes.

    Raises:
        ExpressionError: the function does not accept an argument's type or value.
    """
    if name in _NULL_SAFE:
        return _NULL_SAFE[name](*arguments)
    kinds, type_, implementation = _FUNCTIONS[name]
    data: list[object] = []
    for number, (kind, value) in enumerate(zip(kinds, arguments, strict=True), start=1):
        data.append(_check_argument(name, number, kind, value))
    if any(value.data is None for value in arguments):
        return Value(type_, None)
    result = implementation(*data)
    return result if isinstance(result, Value) else Value(type_, result)


def _check_argument(function: str, number: int, kind: str, value: Value) -> object:
    """Return an argument as the implementation takes it: a str, an int, a `Value` (a number), a datetime."""
    allowed, description, cast_to = {
        "text": (STRINGS, "a text", "(DT_WSTR,50)…"),
        "whole": (INTEGERS, "a whole number", "(DT_I4)…"),
        "number": (NUMBERS, "a number", "(DT_R8)…"),
        "part": (STRINGS, 'a text such as "day"', "(DT_R8)…"),
    }.get(kind, (frozenset(), "", ""))
    if allowed and value.type.data_type not in allowed:
        message = f"Argument {number} of {function} is {description}, not {describe_type(value)}."
        raise ExpressionError(message, remedy=f"Cast it: {cast_to}")
    if value.data is None:
        return None
    if kind == "moment":
        return _to_moment(value, function)
    if kind == "part":
        return dates.resolve_datepart(str(value.data), function)
    return value if kind == "number" else value.data


def _to_moment(value: Value, function: str) -> dt.datetime:
    data = value.data
    if isinstance(data, str):
        data = dates.parse_date(data, TIMESTAMP)
    if value.type.data_type not in DATES and not isinstance(data, dt.date):
        message = f"{function} takes a date, not {describe_type(value)}."
        raise ExpressionError(message, remedy="Cast it: (DT_DBTIMESTAMP)…")
    assert isinstance(data, dt.date)
    moment = data if isinstance(data, dt.datetime) else dt.datetime.combine(data, dt.time())
    return moment.replace(tzinfo=None)


def _check_minimum(function: str, number: int, minimum: int = 0) -> None:
    if number < minimum:
        expected = "greater than zero" if minimum else "zero or more"
        raise ExpressionError(f"{function} was given {number}.", remedy=f"That argument is {expected}.")


# --- String functions


def _codepoint(text: str) -> int | None:
    # A DT_UI2: of a character beyond U+FFFF, the first code unit of its UTF-16 pair.
    return int.from_bytes(text[0].encode("utf-16-be", "surrogatepass")[:2]) if text else None


def _findstring(text: str, searched: str, occurrence: int) -> int:
    _check_minimum("FINDSTRING", occurrence, 1)
    if not searched:
        return 0
    index = -1
    for _ in range(occurrence):
        index = text.find(searched, index + 1)
        if index < 0:
            return 0
    return index + 1


def _left(text: str, count: int) -> str:
    _check_minimum("LEFT", count)
    return text[:count]


def _right(text: str, count: int) -> str:
    _check_minimum("RIGHT", count)
    return text[max(0, len(text) - count) :]


def _replace(text: str, searched: str, replacement: str) -> str:
    if not searched:
        raise ExpressionError("REPLACE was given an empty text to search for.", remedy="Give at least one character.")
    return text.replace(searched, replacement)


def _replicate(text: str, times: int) -> str:
    _check_minimum("REPLICATE", times)
    if len(text) * times > _MAX_REPLICATE:
        raise ExpressionError(f"REPLICATE would make {len(text) * times} characters.", remedy="Give a smaller number.")
    return text * times


def _substring(text: str, position: int, length: int) -> str:
    _check_minimum("SUBSTRING", position, 1)
    _check_minimum("SUBSTRING", length)
    return text[position - 1 : position - 1 + length]


def _split(text: str, delimiters: str) -> list[str]:
    if not delimiters:
        return [text] if text else []
    return [token for token in re.split(f"[{re.escape(delimiters)}]", text) if token]


def _token(text: str, delimiters: str, occurrence: int) -> str:
    _check_minimum("TOKEN", occurrence, 1)
    tokens = _split(text, delimiters)
    # Beyond the last token, Microsoft's page has null in its remarks and an empty text in its example; SSIS gives the
    # empty text.
    return tokens[occurrence - 1] if occurrence <= len(tokens) else ""


# --- Mathematical functions


def _abs(value: Value) -> Value:
    data = value.data
    assert isinstance(data, int | float | Decimal)
    if isinstance(data, int):
        return check_integer(value.type, abs(data), "ABS")
    return Value(value.type, -data if data < 0 else data)


def _ceiling(value: Value) -> Value:
    if isinstance(value.data, float):
        return Value(value.type, float(math.ceil(value.data)))
    return _round_decimal(value, ROUND_CEILING)


def _floor(value: Value) -> Value:
    if isinstance(value.data, float):
        return Value(value.type, float(math.floor(value.data)))
    return _round_decimal(value, ROUND_FLOOR)


def _round_decimal(value: Value, rounding: str) -> Value:
    if not isinstance(value.data, Decimal):
        return value
    return Value(value.type, round_to_type(value.data.to_integral_value(rounding=rounding), value.type))


def _round(value: Value, length: int) -> Value:
    """Halves are rounded away from zero: 137.1575 becomes 137.1580."""
    _check_minimum("ROUND", length)
    data = value.data
    if isinstance(data, int):
        return value
    assert isinstance(data, float | Decimal)
    length = min(length, 60)
    exact = data if isinstance(data, Decimal) else Decimal(repr(data))
    if -int(exact.as_tuple().exponent) <= length:
        return value
    exact = exact.quantize(Decimal(1).scaleb(-length), context=DECIMAL_CONTEXT)
    return Value(value.type, float(exact) if isinstance(data, float) else round_to_type(exact, value.type))


def _logarithm(function: Callable[[float], float], value: Value) -> Value:
    # Microsoft: null for zero and below.
    number = to_float(value)
    return Value(R8, function(number) if number > 0 else None)


def _exp(value: Value) -> Value:
    try:
        return check_float(R8, math.exp(to_float(value)), "EXP")
    except OverflowError:
        raise ExpressionError("The result of EXP overflows DT_R8.", remedy="Use a smaller number.") from None


def _power(value: Value, power: Value) -> Value:
    base, exponent = to_float(value), to_float(power)
    if base == 0 and exponent < 0:
        raise ExpressionError("POWER cannot raise zero to a negative power.", remedy="Test the number before.")
    try:
        return check_float(R8, math.pow(base, exponent), "POWER")
    except ValueError:
        return Value(R8, None)  # "indeterminate results"
    except OverflowError:
        raise ExpressionError("The result of POWER overflows DT_R8.", remedy="Use a smaller power.") from None


def _sqrt(value: Value) -> Value:
    number = to_float(value)
    if number < 0:
        message = f"SQRT fails for a negative value, {value}."
        raise ExpressionError(message, remedy="Use ABS, or test the number before.")
    return Value(R8, math.sqrt(number))


def _square(value: Value) -> Value:
    number = to_float(value)
    return check_float(R8, number * number, "SQUARE")


def _sign(value: Value) -> int:
    number = to_float(value)
    return (number > 0) - (number < 0)


# --- Functions that accept nulls, or an argument of any type


def _hex(value: Value) -> Value:
    if value.type.data_type not in INTEGERS:
        message = f"Argument 1 of HEX is a whole number, not {describe_type(value)}."
        raise ExpressionError(message, remedy="Cast it: (DT_I4)…")
    if value.data is None:
        return Value(WSTR, None)
    assert isinstance(value.data, int)
    bits = {**SIGNED, **UNSIGNED}[value.type.data_type]
    return Value(WSTR, f"{value.data & ((1 << bits) - 1):X}")


def _tokencount(text: Value, delimiters: Value) -> Value:
    # Microsoft: it is 0 where the text is null.
    if text.data is None:
        return Value(I4, 0)
    return call_function("_TOKENCOUNT", (text, delimiters))


def _isnull(value: Value) -> Value:
    return Value(BOOL, value.data is None)


def _replacenull(value: Value, replacement: Value) -> Value:
    return cast(replacement, value.type) if value.data is None else value


_UI2 = TypeSpec(DataType.UI2)
# The kind of each argument, the result's type, and the implementation.
_FUNCTIONS: dict[str, tuple[tuple[str, ...], TypeSpec, Callable[..., Data | Value]]] = {
    "CODEPOINT": (("text",), _UI2, _codepoint),
    "FINDSTRING": (("text", "text", "whole"), I4, _findstring),
    "LEFT": (("text", "whole"), WSTR, _left),
    "LEN": (("text",), I4, len),
    "LOWER": (("text",), WSTR, str.lower),
    "LTRIM": (("text",), WSTR, lambda text: text.lstrip(" ")),
    "REPLACE": (("text", "text", "text"), WSTR, _replace),
    "REPLICATE": (("text", "whole"), WSTR, _replicate),
    "REVERSE": (("text",), WSTR, lambda text: text[::-1]),
    "RIGHT": (("text", "whole"), WSTR, _right),
    "RTRIM": (("text",), WSTR, lambda text: text.rstrip(" ")),
    "SUBSTRING": (("text", "whole", "whole"), WSTR, _substring),
    "TOKEN": (("text", "text", "whole"), WSTR, _token),
    "_TOKENCOUNT": (("text", "text"), I4, lambda text, delimiters: len(_split(text, delimiters))),
    "TRIM": (("text",), WSTR, lambda text: text.strip(" ")),
    "UPPER": (("text",), WSTR, str.upper),
    "ABS": (("number",), R8, _abs),
    "CEILING": (("number",), R8, _ceiling),
    "EXP": (("number",), R8, _exp),
    "FLOOR": (("number",), R8, _floor),
    "LN": (("number",), R8, lambda value: _logarithm(math.log, value)),
    "LOG": (("number",), R8, lambda value: _logarithm(math.log10, value)),
    "POWER": (("number", "number"), R8, _power),
    "ROUND": (("number", "whole"), R8, _round),
    "SIGN": (("number",), I4, _sign),
    "SQRT": (("number",), R8, _sqrt),
    "SQUARE": (("number",), R8, _square),
    "DATEADD": (("part", "whole", "moment"), TIMESTAMP, dates.date_add),
    "DATEDIFF": (
        ("part", "moment", "moment"),
        I4,
        lambda part, start, end: check_integer(I4, dates.date_diff(part, start, end), "DATEDIFF"),
    ),
    "DATEPART": (("part", "moment"), I4, dates.date_part),
    "DAY": (("moment",), I4, lambda moment: moment.day),
    "MONTH": (("moment",), I4, lambda moment: moment.month),
    "YEAR": (("moment",), I4, lambda moment: moment.year),
    "GETDATE": ((), TIMESTAMP, lambda: dates.now(utc=False)),
    "GETUTCDATE": ((), TIMESTAMP, lambda: dates.now(utc=True)),
}
_NULL_SAFE: dict[str, Callable[..., Value]] = {
    "HEX": _hex,
    "ISNULL": _isnull,
    "REPLACENULL": _replacenull,
    "TOKENCOUNT": _tokencount,
}
