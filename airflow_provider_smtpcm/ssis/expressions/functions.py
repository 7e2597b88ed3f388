"""The functions of the expression language on values, by their names in capitals. Microsoft: the page of each.

Each takes and gives `Value`; a null argument gives a null unless its page says otherwise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from airflow_provider_smtpcm.ssis.expressions import dates
from airflow_provider_smtpcm.ssis.expressions.casts import EXACT_CONTEXT, as_float, cast, fit_exact
from airflow_provider_smtpcm.ssis.expressions.operators import float_value, integer_value
from airflow_provider_smtpcm.ssis.expressions.types import (
    INTEGERS,
    NUMBERS,
    SIGNED,
    STRINGS,
    UNSIGNED,
    DataType,
    ExpressionError,
    TypeSpec,
)
from airflow_provider_smtpcm.ssis.expressions.values import BOOL, I4, R8, TIMESTAMP, WSTR, Data, Value, kind_of

# folded: The text functions of the expression language, on Python's texts. Microsoft: the page of each.
#   A character is a code point here; to SSIS, one beyond U+FFFF counts as two.

# What REPLICATE may make: more is a mistake, and would fill a worker's memory.
_LONGEST = 10_000_000


def refuse_below(function: str, number: int, least: int = 0) -> None:
    if number < least:
        wanted = "greater than zero" if least else "zero or more"
        raise ExpressionError(f"{function} was given {number}.", remedy=f"That argument is {wanted}.")


def codepoint(text: str) -> int | None:
    # DT_UI2: of a character beyond U+FFFF, the first of the two that UTF-16 makes of it.
    return int.from_bytes(text[0].encode("utf-16-be", "surrogatepass")[:2]) if text else None


def findstring(text: str, searched: str, occurrence: int) -> int:
    refuse_below("FINDSTRING", occurrence, 1)
    if not searched:
        return 0
    at = -1
    for _ in range(occurrence):
        at = text.find(searched, at + 1)
        if at < 0:
            return 0
    return at + 1


def left(text: str, count: int) -> str:
    refuse_below("LEFT", count)
    return text[:count]


def right(text: str, count: int) -> str:
    refuse_below("RIGHT", count)
    return text[max(0, len(text) - count) :]


def replace(text: str, searched: str, replacement: str) -> str:
    if not searched:
        raise ExpressionError("REPLACE was given an empty text to search for.", remedy="Give at least one character.")
    return text.replace(searched, replacement)


def replicate(text: str, times: int) -> str:
    refuse_below("REPLICATE", times)
    if len(text) * times > _LONGEST:
        raise ExpressionError(f"REPLICATE would make {len(text) * times} characters.", remedy="Give a smaller number.")
    return text * times


def substring(text: str, position: int, length: int) -> str:
    refuse_below("SUBSTRING", position, 1)
    refuse_below("SUBSTRING", length)
    return text[position - 1 : position - 1 + length]


def split(text: str, delimiters: str) -> list[str]:
    if not delimiters:
        return [text] if text else []
    return [word for word in re.split(f"[{re.escape(delimiters)}]", text) if word]


def token(text: str, delimiters: str, occurrence: int) -> str:
    refuse_below("TOKEN", occurrence, 1)
    words = split(text, delimiters)
    # The page says null in its remarks and an empty text in its example; the example is what SSIS does.
    return words[occurrence - 1] if occurrence <= len(words) else ""


# folded: The functions of the expression language on numbers, each of its type. Microsoft: the page of each.


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


# folded: here began the module itself


def call(function: str, arguments: tuple[Value, ...]) -> Value:
    """The result of a function.

    Raises:
        ExpressionError: an argument has not the type or the range that the function takes.
    """
    if function in _OF_ANYTHING:
        return _OF_ANYTHING[function](*arguments)
    kinds, result, work = _TABLE[function]
    data: list[object] = []
    for number, (kind, value) in enumerate(zip(kinds, arguments, strict=True), start=1):
        data.append(_checked(function, number, kind, value))
    if any(value.data is None for value in arguments):
        return Value(result, None)
    found = work(*data)
    return found if isinstance(found, Value) else Value(result, found)


def _checked(function: str, number: int, kind: str, value: Value) -> object:
    """The argument as the function works with it: a text, a whole number, a number as it is, or a moment."""
    type_ = value.type.type
    allowed, word = {
        "text": (STRINGS, "a text"),
        "whole": (INTEGERS, "a whole number"),
        "number": (NUMBERS, "a number"),
        "part": (STRINGS, 'a text such as "day"'),
    }.get(kind, (frozenset(), ""))
    if allowed and type_ not in allowed:
        cast_to = {"text": "(DT_WSTR,50)…", "whole": "(DT_I4)…"}.get(kind, "(DT_R8)…")
        raise ExpressionError(
            f"Argument {number} of {function} is {word}, not {kind_of(value)}.", remedy=f"Cast it: {cast_to}"
        )
    if value.data is None:
        return None
    if kind == "moment":
        return dates.moment_of(value, function)
    if kind == "part":
        return dates.part_of(str(value.data), function)
    return value if kind == "number" else value.data


def _hex(value: Value) -> Value:
    if value.type.type not in INTEGERS:
        message = f"Argument 1 of HEX is a whole number, not {kind_of(value)}."
        raise ExpressionError(message, remedy="Cast it: (DT_I4)…")
    if value.data is None:
        return Value(WSTR, None)
    assert isinstance(value.data, int)
    bits = {**SIGNED, **UNSIGNED}[value.type.type]
    return Value(WSTR, f"{value.data & ((1 << bits) - 1):X}")


def _tokencount(text: Value, delimiters: Value) -> Value:
    # Microsoft: it is 0 where the text is null.
    if text.data is None:
        return Value(I4, 0)
    return call("_TOKENCOUNT", (text, delimiters))


def _isnull(value: Value) -> Value:
    return Value(BOOL, value.data is None)


def _replacenull(value: Value, instead: Value) -> Value:
    return cast(instead, value.type) if value.data is None else value


_UI2 = TypeSpec(DataType.UI2)
_Work = Callable[..., Data | Value]
_TABLE: dict[str, tuple[tuple[str, ...], TypeSpec, _Work]] = {
    "CODEPOINT": (("text",), _UI2, codepoint),
    "FINDSTRING": (("text", "text", "whole"), I4, findstring),
    "LEFT": (("text", "whole"), WSTR, left),
    "LEN": (("text",), I4, len),
    "LOWER": (("text",), WSTR, str.lower),
    "LTRIM": (("text",), WSTR, lambda text: text.lstrip(" ")),
    "REPLACE": (("text", "text", "text"), WSTR, replace),
    "REPLICATE": (("text", "whole"), WSTR, replicate),
    "REVERSE": (("text",), WSTR, lambda text: text[::-1]),
    "RIGHT": (("text", "whole"), WSTR, right),
    "RTRIM": (("text",), WSTR, lambda text: text.rstrip(" ")),
    "SUBSTRING": (("text", "whole", "whole"), WSTR, substring),
    "TOKEN": (("text", "text", "whole"), WSTR, token),
    "_TOKENCOUNT": (("text", "text"), I4, lambda text, delimiters: len(split(text, delimiters))),
    "TRIM": (("text",), WSTR, lambda text: text.strip(" ")),
    "UPPER": (("text",), WSTR, str.upper),
    "ABS": (("number",), R8, absolute),
    "CEILING": (("number",), R8, lambda value: to_whole(value, "up")),
    "EXP": (("number",), R8, exponential),
    "FLOOR": (("number",), R8, lambda value: to_whole(value, "down")),
    "LN": (("number",), R8, lambda value: logarithm(math.log, value)),
    "LOG": (("number",), R8, lambda value: logarithm(math.log10, value)),
    "POWER": (("number", "number"), R8, power_of),
    "ROUND": (("number", "whole"), R8, rounded),
    "SIGN": (("number",), I4, sign_of),
    "SQRT": (("number",), R8, square_root),
    "SQUARE": (("number",), R8, square),
    "DATEADD": (("part", "whole", "moment"), TIMESTAMP, dates.add),
    "DATEDIFF": (
        ("part", "moment", "moment"),
        I4,
        lambda part, start, end: integer_value(I4, dates.difference(part, start, end), "DATEDIFF"),
    ),
    "DATEPART": (("part", "moment"), I4, dates.part),
    "DAY": (("moment",), I4, lambda moment: moment.day),
    "MONTH": (("moment",), I4, lambda moment: moment.month),
    "YEAR": (("moment",), I4, lambda moment: moment.year),
    "GETDATE": ((), TIMESTAMP, lambda: dates.now(utc=False)),
    "GETUTCDATE": ((), TIMESTAMP, lambda: dates.now(utc=True)),
}
_OF_ANYTHING: dict[str, Callable[..., Value]] = {
    "HEX": _hex,
    "ISNULL": _isnull,
    "REPLACENULL": _replacenull,
    "TOKENCOUNT": _tokencount,
}
