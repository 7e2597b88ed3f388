"""The functions of the expression language on values, by their names in capitals. Microsoft: the page of each.

Each takes and gives `Value`; a null argument gives a null unless its page says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from airflow_provider_smtpcm.ssis.expressions import dates
from airflow_provider_smtpcm.ssis.expressions import number_functions as numbers
from airflow_provider_smtpcm.ssis.expressions import text_functions as texts
from airflow_provider_smtpcm.ssis.expressions.casts import cast
from airflow_provider_smtpcm.ssis.expressions.errors import ExpressionError
from airflow_provider_smtpcm.ssis.expressions.operators import integer_value
from airflow_provider_smtpcm.ssis.expressions.types import (
    INTEGERS,
    NUMBERS,
    SIGNED,
    STRINGS,
    UNSIGNED,
    DataType,
    TypeSpec,
)
from airflow_provider_smtpcm.ssis.expressions.values import BOOL, I4, R8, TIMESTAMP, WSTR, Data, Value, kind_of


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
    "CODEPOINT": (("text",), _UI2, texts.codepoint),
    "FINDSTRING": (("text", "text", "whole"), I4, texts.findstring),
    "LEFT": (("text", "whole"), WSTR, texts.left),
    "LEN": (("text",), I4, len),
    "LOWER": (("text",), WSTR, str.lower),
    "LTRIM": (("text",), WSTR, lambda text: text.lstrip(" ")),
    "REPLACE": (("text", "text", "text"), WSTR, texts.replace),
    "REPLICATE": (("text", "whole"), WSTR, texts.replicate),
    "REVERSE": (("text",), WSTR, lambda text: text[::-1]),
    "RIGHT": (("text", "whole"), WSTR, texts.right),
    "RTRIM": (("text",), WSTR, lambda text: text.rstrip(" ")),
    "SUBSTRING": (("text", "whole", "whole"), WSTR, texts.substring),
    "TOKEN": (("text", "text", "whole"), WSTR, texts.token),
    "_TOKENCOUNT": (("text", "text"), I4, lambda text, delimiters: len(texts.split(text, delimiters))),
    "TRIM": (("text",), WSTR, lambda text: text.strip(" ")),
    "UPPER": (("text",), WSTR, str.upper),
    "ABS": (("number",), R8, numbers.absolute),
    "CEILING": (("number",), R8, lambda value: numbers.to_whole(value, "up")),
    "EXP": (("number",), R8, numbers.exponential),
    "FLOOR": (("number",), R8, lambda value: numbers.to_whole(value, "down")),
    "LN": (("number",), R8, lambda value: numbers.logarithm(math.log, value)),
    "LOG": (("number",), R8, lambda value: numbers.logarithm(math.log10, value)),
    "POWER": (("number", "number"), R8, numbers.power_of),
    "ROUND": (("number", "whole"), R8, numbers.rounded),
    "SIGN": (("number",), I4, numbers.sign_of),
    "SQRT": (("number",), R8, numbers.square_root),
    "SQUARE": (("number",), R8, numbers.square),
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
