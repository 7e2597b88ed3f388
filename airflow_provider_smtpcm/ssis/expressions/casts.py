"""The cast operator. Microsoft: "Cast (SSIS Expression)", "Data Truncation (SSIS)".

A text that is too long is cut without a word, and so are digits behind the point; whatever else does not fit is an
error. A code page is not applied: a mail is Unicode, and the length counts characters.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import struct
import uuid
from decimal import ROUND_DOWN, ROUND_HALF_UP, Context, Decimal, InvalidOperation

from airflow_provider_smtpcm.ssis.expressions import dates
from airflow_provider_smtpcm.ssis.expressions.tokens import fits
from airflow_provider_smtpcm.ssis.expressions.types import (
    DATES,
    EXACT,
    FLOATS,
    INTEGERS,
    NUMBERS,
    STRINGS,
    TIMES,
    DataType,
    ExpressionError,
    TypeSpec,
)
from airflow_provider_smtpcm.ssis.expressions.values import Data, Value, kind_of, text_of

# Wide enough for the product of two numbers of 38 digits before it is checked.
EXACT_CONTEXT = Context(prec=100, rounding=ROUND_HALF_UP)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?")
_WHOLE = re.compile(r"[+-]?\d{1,40}")


def cast(value: Value, type_: TypeSpec) -> Value:
    """The value as another type; a null stays null.

    Raises:
        ExpressionError: the types do not go together, or the value does not fit.
    """
    if value.data is None or value.type == type_:
        return Value(type_, value.data)
    return Value(type_, _converted(value, type_))


def _converted(value: Value, type_: TypeSpec) -> Data:  # noqa: PLR0911 - one for each family of types
    to = type_.type
    if to in STRINGS:
        return text_of(value)[: type_.length]
    if to is DataType.BOOL:
        return _to_bool(value)
    if to in INTEGERS:
        return _to_integer(value, type_)
    if to in FLOATS:
        return as_float(value, to)
    if to in EXACT:
        return _to_exact(value, type_)
    if to in DATES or to in TIMES:
        return _to_date(value, type_)
    return _to_bytes(value, type_)


def _no(value: Value, type_: TypeSpec, remedy: str) -> ExpressionError:
    shown = f"'{value.data:.60}'" if isinstance(value.data, str) else f"{text_of(value)}, {kind_of(value)},"
    return ExpressionError(f"{shown} cannot be cast to {type_}.", remedy=remedy)


def _to_bool(value: Value) -> bool:
    if isinstance(value.data, bool):
        return value.data
    if isinstance(value.data, str) and value.data.strip().lower() in {"true", "false"}:
        return value.data.strip().lower() == "true"
    if value.type.type in NUMBERS:
        return value.data != 0
    text = value.data.strip() if isinstance(value.data, str) else ""
    if _WHOLE.fullmatch(text):
        return int(text) != 0
    raise _no(value, TypeSpec(DataType.BOOL), 'Give "True", "False" or a number.')


def _to_integer(value: Value, type_: TypeSpec) -> int:
    data = value.data
    number: int
    if isinstance(data, bool):
        # "The SSIS Expression Language converts True to -1."
        number = -1 if data else 0
    elif isinstance(data, str) and not _WHOLE.fullmatch(data.strip()):
        raise _no(value, type_, "Give a whole number.")
    elif isinstance(data, str | int | float | Decimal):
        number = int(data)
    else:
        raise _no(value, type_, "Give a whole number.")
    if not fits(number, type_.type):
        raise ExpressionError(f"{number} does not fit into {type_}.", remedy="Cast it to a larger type, such as DT_I8.")
    return number


def as_float(value: Value, to: DataType = DataType.R8) -> float:
    """A number as DT_R8, or rounded to DT_R4."""
    data = value.data
    try:
        if isinstance(data, bool):
            number = -1.0 if data else 0.0
        elif isinstance(data, int | float | Decimal) or (isinstance(data, str) and _NUMBER.fullmatch(data.strip())):
            number = float(data)
        else:
            raise _no(value, TypeSpec(to), "Give a number.")
        if to is DataType.R4:
            number = float(struct.unpack("<f", struct.pack("<f", number))[0])
    except OverflowError:
        raise ExpressionError(f"{text_of(value)} does not fit into {to}.", remedy="Use DT_R8.") from None
    if not math.isfinite(number):
        raise ExpressionError(f"{text_of(value)} does not fit into {to}.", remedy="Use a smaller number.")
    return number


def as_decimal(value: Value) -> Decimal:
    """A number without loss; a float by the digits that are shown."""
    data = value.data
    if isinstance(data, bool):
        return Decimal(-1 if data else 0)
    if isinstance(data, int | Decimal):
        return Decimal(data)
    if isinstance(data, float):
        return Decimal(repr(data))
    if isinstance(data, str) and _NUMBER.fullmatch(data.strip()):
        return Decimal(data.strip())
    raise _no(value, TypeSpec(DataType.DECIMAL, (0,)), "Give a number.")


def _to_exact(value: Value, type_: TypeSpec) -> Decimal:
    return fit_exact(as_decimal(value), type_)


def fit_exact(number: Decimal, type_: TypeSpec, *, cut: bool = False) -> Decimal:
    """A number with the digits of its type behind the point; rounded, or cut.

    Raises:
        ExpressionError: there are too many before it.
    """
    try:
        step = Decimal(1).scaleb(-type_.scale)
        fitted = number.quantize(step, rounding=ROUND_DOWN if cut else ROUND_HALF_UP, context=EXACT_CONTEXT)
    except InvalidOperation:
        fitted = Decimal(10) ** 99
    if abs(fitted) >= Decimal(10) ** (type_.precision - type_.scale):
        raise ExpressionError(f"{number:.12G} does not fit into {type_}.", remedy="Give it more digits, or DT_R8.")
    return fitted


def _to_date(value: Value, type_: TypeSpec) -> dt.datetime | dt.date | dt.time:
    data = value.data
    if isinstance(data, str):
        return dates.read(data, type_)
    if isinstance(data, dt.date | dt.time):
        return dates.convert(data, type_)
    raise _no(value, type_, "Give a date, or a text such as 2026-11-25 10:57:48.")


def _to_bytes(value: Value, type_: TypeSpec) -> uuid.UUID | bytes:
    data = value.data
    if type_.type is DataType.GUID and isinstance(data, str):
        try:
            return uuid.UUID(data.strip())
        except ValueError:
            raise _no(value, type_, "Write it as {00000000-0000-0000-0000-000000000000}.") from None
    if type_.type in {DataType.BYTES, DataType.IMAGE}:
        if isinstance(data, bytes):
            return data[: type_.length]
        if isinstance(data, str):
            return data.encode("utf-16-le", "replace")[: type_.length]
    raise _no(value, type_, "Cast it to DT_WSTR first.")
