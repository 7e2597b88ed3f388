"""Functions of the SSIS expression language. See Microsoft's page of each function.

Lengths and positions count code points; SSIS counts a character beyond U+FFFF as two. A null argument gives a null,
except where the function's page says otherwise.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from airflow_provider_smtpcm.ssis.expressions import dates
from airflow_provider_smtpcm.ssis.expressions.casts import (
    DECIMAL_CONTEXT,
    Data,
    Value,
    cast,
    check_float,
    check_integer,
    describe_type,
    round_to_type,
    to_float,
)
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

# Maximum length of a REPLICATE result, in characters, so that an expression cannot exhaust a worker's memory.
_MAX_REPLICATE = 10_000_000


def call_function(name: str, arguments: tuple[Value, ...]) -> Value:
    """Call a function.

    Args:
        name: the name in upper case.
        arguments: exactly as many as the function takes.

    Raises:
        ExpressionError: the function does not accept an argument's type or value.
    """
    if name in _FUNCTIONS_OF_VALUES:
        return _FUNCTIONS_OF_VALUES[name](*arguments)
    kinds, type_, implementation = _FUNCTIONS[name]
    data: list[object] = []
    for number, (kind, value) in enumerate(zip(kinds, arguments, strict=True), start=1):
        data.append(_check_argument(name, number, kind, value))
    if any(value.data is None for value in arguments):
        return Value(type_, None)
    result = implementation(*data)
    return result if isinstance(result, Value) else Value(type_, result)


def _check_argument(function: str, number: int, kind: str, value: Value) -> object:
    """Return an argument for the implementation: str, int, datetime, or `Value` for a number; None for a null."""
    allowed, description, remedy = {
        "string": (STRINGS, "a string", "Cast it: (DT_WSTR,50)…"),
        "integer": (INTEGERS, "an integer", "Cast it: (DT_I4)…"),
        "number": (NUMBERS, "a number", "Cast it: (DT_R8)…"),
        "datepart": (STRINGS, 'a string such as "day"', "Write it in quotation marks."),
    }.get(kind, (frozenset(), "", ""))
    if allowed and value.type.data_type not in allowed:
        message = f"Argument {number} of {function} must be {description}, not {describe_type(value)}."
        raise ExpressionError(message, remedy=remedy)
    if value.data is None:
        return None
    if kind == "date":
        return _to_moment(value, function)
    if kind == "datepart":
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
        raise ExpressionError(f"{function} was called with {number}.", remedy=f"The argument must be {expected}.")


# --- String functions


def _codepoint(text: str) -> int | None:
    # The result is a DT_UI2: the first UTF-16 code unit of a character beyond U+FFFF.
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
        raise ExpressionError(
            "REPLACE was called with an empty search string.", remedy="Search for at least one character."
        )
    return text.replace(searched, replacement)


def _replicate(text: str, times: int) -> str:
    _check_minimum("REPLICATE", times)
    if len(text) * times > _MAX_REPLICATE:
        raise ExpressionError(f"REPLICATE would return {len(text) * times} characters.", remedy="Use a smaller number.")
    return text * times


def _substring(text: str, position: int, length: int) -> str:
    _check_minimum("SUBSTRING", position, 1)
    _check_minimum("SUBSTRING", length)
    return text[position - 1 : position - 1 + length]


def _split(text: str, delimiters: str) -> list[str]:
    if not delimiters:
        return [text] if text else []
    return [token for token in re.split(f"[{re.escape(delimiters)}]", text) if token]


def _upper(text: str) -> str:
    """Return a text in upper case as Windows does: each character becomes one, so `ß` stays as it is."""
    return "".join(changed if len(changed := character.upper()) == 1 else character for character in text)


def _lower(text: str) -> str:
    return "".join(changed if len(changed := character.lower()) == 1 else character for character in text)


def _token(text: str, delimiters: str, occurrence: int) -> str:
    _check_minimum("TOKEN", occurrence, 1)
    tokens = _split(text, delimiters)
    # Beyond the last token, Microsoft's page says null in its remarks and shows an empty string in its example. SSIS
    # returns the empty string.
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
    """Round halves away from zero: 137.1575 to three digits is 137.158."""
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


def _log(function: Callable[[float], float], value: Value) -> Value:
    # Microsoft: LN and LOG of zero or a negative number are null.
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
        raise ExpressionError("POWER cannot raise zero to a negative power.", remedy="Test the number first.")
    try:
        return check_float(R8, math.pow(base, exponent), "POWER")
    except ValueError:
        return Value(R8, None)  # Microsoft: null for "indeterminate results"
    except OverflowError:
        raise ExpressionError("The result of POWER overflows DT_R8.", remedy="Use smaller numbers.") from None


def _sqrt(value: Value) -> Value:
    number = to_float(value)
    if number < 0:
        message = f"SQRT fails for a negative value, {value}."
        raise ExpressionError(message, remedy="Use ABS, or test the number first.")
    return Value(R8, math.sqrt(number))


def _square(value: Value) -> Value:
    number = to_float(value)
    return check_float(R8, number * number, "SQUARE")


def _sign(value: Value) -> int:
    number = to_float(value)
    return (number > 0) - (number < 0)


# --- Functions that take any type, or define their own result for a null


def _hex(value: Value) -> Value:
    if value.type.data_type not in INTEGERS:
        message = f"Argument 1 of HEX must be an integer, not {describe_type(value)}."
        raise ExpressionError(message, remedy="Cast it: (DT_I4)…")
    if value.data is None:
        return Value(WSTR, None)
    assert isinstance(value.data, int)
    bits = {**SIGNED, **UNSIGNED}[value.type.data_type]
    return Value(WSTR, f"{value.data & ((1 << bits) - 1):X}")


def _tokencount(text: Value, delimiters: Value) -> Value:
    # Microsoft: the count is 0 if the string is null. A null delimiter gives a null, as usual.
    if text.data is None:
        return Value(I4, 0)
    return call_function(_TOKENCOUNT_OF_STRING, (text, delimiters))


def _isnull(value: Value) -> Value:
    return Value(BOOL, value.data is None)


def _replacenull(value: Value, replacement: Value) -> Value:
    return cast(replacement, value.type) if value.data is None else value


_UI2 = TypeSpec(DataType.UI2)
# TOKENCOUNT after its check for null; not a name that the parser accepts.
_TOKENCOUNT_OF_STRING = "_TOKENCOUNT"
# The kinds of the arguments, the type of the result, and the implementation.
_FUNCTIONS: dict[str, tuple[tuple[str, ...], TypeSpec, Callable[..., Data | Value]]] = {
    "CODEPOINT": (("string",), _UI2, _codepoint),
    "FINDSTRING": (("string", "string", "integer"), I4, _findstring),
    "LEFT": (("string", "integer"), WSTR, _left),
    "LEN": (("string",), I4, len),
    "LOWER": (("string",), WSTR, _lower),
    "LTRIM": (("string",), WSTR, lambda text: text.lstrip(" ")),
    "REPLACE": (("string", "string", "string"), WSTR, _replace),
    "REPLICATE": (("string", "integer"), WSTR, _replicate),
    "REVERSE": (("string",), WSTR, lambda text: text[::-1]),
    "RIGHT": (("string", "integer"), WSTR, _right),
    "RTRIM": (("string",), WSTR, lambda text: text.rstrip(" ")),
    "SUBSTRING": (("string", "integer", "integer"), WSTR, _substring),
    "TOKEN": (("string", "string", "integer"), WSTR, _token),
    _TOKENCOUNT_OF_STRING: (("string", "string"), I4, lambda text, delimiters: len(_split(text, delimiters))),
    "TRIM": (("string",), WSTR, lambda text: text.strip(" ")),
    "UPPER": (("string",), WSTR, _upper),
    "ABS": (("number",), R8, _abs),
    "CEILING": (("number",), R8, _ceiling),
    "EXP": (("number",), R8, _exp),
    "FLOOR": (("number",), R8, _floor),
    "LN": (("number",), R8, lambda value: _log(math.log, value)),
    "LOG": (("number",), R8, lambda value: _log(math.log10, value)),
    "POWER": (("number", "number"), R8, _power),
    "ROUND": (("number", "integer"), R8, _round),
    "SIGN": (("number",), I4, _sign),
    "SQRT": (("number",), R8, _sqrt),
    "SQUARE": (("number",), R8, _square),
    "DATEADD": (("datepart", "integer", "date"), TIMESTAMP, dates.date_add),
    "DATEDIFF": (
        ("datepart", "date", "date"),
        I4,
        lambda part, start, end: check_integer(I4, dates.date_diff(part, start, end), "DATEDIFF"),
    ),
    "DATEPART": (("datepart", "date"), I4, dates.date_part),
    "DAY": (("date",), I4, lambda moment: moment.day),
    "MONTH": (("date",), I4, lambda moment: moment.month),
    "YEAR": (("date",), I4, lambda moment: moment.year),
    "GETDATE": ((), TIMESTAMP, lambda: dates.now(utc=False)),
    "GETUTCDATE": ((), TIMESTAMP, lambda: dates.now(utc=True)),
}
_FUNCTIONS_OF_VALUES: dict[str, Callable[..., Value]] = {
    "HEX": _hex,
    "ISNULL": _isnull,
    "REPLACENULL": _replacenull,
    "TOKENCOUNT": _tokencount,
}
