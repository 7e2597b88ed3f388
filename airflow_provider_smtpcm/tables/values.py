"""The values of a database as text, the same in a table and in every file. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

# A decimal number with a longer exponent is written with it: 1E+1000000 would be a megabyte of zeros.
_MAX_EXPONENT = 100


def format_value(value: Any) -> str:
    """Return a value as text.

    NULL is an empty text. A number has a decimal point, no thousands separators, and no zeros that it did not have; a
    date is `2026-11-30`, a time with date and zone `2026-11-30 08:15:00+01:00`, a duration `26:15:00`; octets are
    hexadecimal (`0x1F2E`); lists and mappings are JSON.
    """
    kind = type(value)
    formatter = _FORMATTERS.get(kind) or next((_FORMATTERS[base] for base in kind.__mro__ if base in _FORMATTERS), str)
    return formatter(value)


def is_number(value: Any) -> bool:
    """Whether a value is aligned as a number."""
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _format_float(number: float) -> str:
    if math.isfinite(number):
        return repr(float(number))
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _format_decimal(number: Decimal) -> str:
    if number.is_nan():
        return "NaN"
    return format(number, "f") if number.is_finite() and abs(number.adjusted()) <= _MAX_EXPONENT else str(number)


def _format_duration(duration: timedelta) -> str:
    sign = "-" if duration < timedelta(0) else ""
    duration = abs(duration)
    minutes, seconds = divmod(duration.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{duration.microseconds:06}" if duration.microseconds else ""
    return f"{sign}{duration.days * 24 + hours}:{minutes:02}:{seconds:02}{fraction}"


def _format_octets(octets: bytes) -> str:
    return f"0x{octets.hex().upper()}"


def _format_json(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, default=format_value)


_FORMATTERS: dict[type, Callable[[Any], str]] = {
    str: str,
    type(None): lambda _: "",
    bool: lambda value: "true" if value else "false",
    int: str,
    float: _format_float,
    Decimal: _format_decimal,
    datetime: lambda moment: moment.isoformat(sep=" "),
    date: date.isoformat,
    time: time.isoformat,
    timedelta: _format_duration,
    bytes: _format_octets,
    bytearray: _format_octets,
    list: _format_json,
    tuple: _format_json,
    dict: _format_json,
}
