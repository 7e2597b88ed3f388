"""A value with its SSIS type, what a value of Python is to SSIS, and the text that SSIS makes of each.

Texts of dates: "Integration Services Data Types", "Converting Between Strings and Date/Time Data Types"; where that
says `[.fff]` for DT_DBTIMESTAMP, SSIS itself writes nine digits, and nothing where the fraction is zero. A DT_DATE
(what a DateTime variable is) is written as the US English locale writes it; SSIS takes the locale of the package.
"""

from __future__ import annotations

import datetime as dt
import math
import uuid
from dataclasses import dataclass
from decimal import Decimal

from airflow_provider_smtpcm.ssis.expressions.tokens import fits
from airflow_provider_smtpcm.ssis.expressions.types import (
    DATES,
    FLOATS,
    INTEGERS,
    NUMBERS,
    STRINGS,
    TIMES,
    DataType,
    ExpressionError,
    TypeSpec,
)

Data = str | bool | int | float | Decimal | dt.datetime | dt.date | dt.time | uuid.UUID | bytes | None

WSTR = TypeSpec(DataType.WSTR)
I4 = TypeSpec(DataType.I4)
BOOL = TypeSpec(DataType.BOOL)
R8 = TypeSpec(DataType.R8)
TIMESTAMP = TypeSpec(DataType.DBTIMESTAMP)


@dataclass(frozen=True, slots=True)
class Value:
    """A value and its type; `data` is None for a null, which has a type too. `str(value)` is SSIS's text."""

    type: TypeSpec
    data: Data

    def __bool__(self) -> bool:
        # A condition in a template: only a Boolean is one, and a null is neither.
        return truth(self)

    def __str__(self) -> str:
        return text_of(self)


def value_of(found: object) -> Value:  # noqa: PLR0911 - one for each type
    """What a value of Python, or of a template, is to SSIS.

    Raises:
        ExpressionError: SSIS has no type for it.
    """
    if isinstance(found, Value):
        return found
    if isinstance(found, bool):
        return Value(BOOL, found)
    if isinstance(found, str):
        return Value(WSTR, str(found))
    if isinstance(found, int):
        for type_ in (DataType.I4, DataType.I8, DataType.UI8):
            if fits(found, type_):
                return Value(TypeSpec(type_), int(found))
    if isinstance(found, float):
        return Value(R8, float(found))
    if isinstance(found, Decimal) and found.is_finite():
        _, digits, exponent = found.as_tuple()
        scale = max(0, -int(exponent))
        if scale <= 38:
            return Value(TypeSpec(DataType.NUMERIC, (min(38, max(len(digits), scale, 1)), scale)), found)
    return _other(found)


def _other(found: object) -> Value:
    if found is None:
        return Value(WSTR, None)
    if isinstance(found, dt.datetime):
        # A DateTime variable; what knows its zone is turned to local time, in which SSIS lives.
        return Value(TypeSpec(DataType.DATE), local(found))
    if isinstance(found, dt.date):
        return Value(TypeSpec(DataType.DBDATE), dt.date(found.year, found.month, found.day))
    if isinstance(found, dt.time):
        return Value(TypeSpec(DataType.DBTIME2, (7,)), found.replace(tzinfo=None))
    if isinstance(found, uuid.UUID):
        return Value(TypeSpec(DataType.GUID), found)
    if isinstance(found, bytes):
        return Value(TypeSpec(DataType.BYTES, (len(found),)), found)
    # An undefined name of a template lands here too; its own text says which.
    raise ExpressionError(
        f"SSIS has no type for {type(found).__name__} ({found!s:.60}).",
        remedy="Give a text, a number, a Boolean or a date.",
    )


def local(moment: dt.datetime) -> dt.datetime:
    """A plain datetime in the local time of this machine."""
    if moment.tzinfo is not None:
        moment = moment.astimezone().replace(tzinfo=None)
    m = moment
    return dt.datetime(m.year, m.month, m.day, m.hour, m.minute, m.second, m.microsecond)  # noqa: DTZ001 - no pendulum


def truth(value: Value) -> bool:
    """The Boolean that a value is."""
    if value.type.type is not DataType.BOOL or value.data is None:
        kind = "A null" if value.data is None else f"A value of {value.type}"
        raise ExpressionError(f"{kind} is no Boolean.", remedy="Compare it, cast it to DT_BOOL, or ask ISNULL first.")
    return bool(value.data)


def text_of(value: Value) -> str:  # noqa: C901, PLR0911 - one for each type
    """The text that a cast to DT_WSTR makes; a null is empty here."""
    data, type_ = value.data, value.type.type
    if data is None:
        return ""
    if type_ in STRINGS:
        return str(data)
    if isinstance(data, bool):
        return "True" if data else "False"
    if isinstance(data, int):
        return str(data)
    if isinstance(data, float):
        return _float_text(data, 7 if type_ is DataType.R4 else 15)
    if isinstance(data, Decimal):
        return f"{data:.4f}" if type_ is DataType.CY else f"{data:.{value.type.scale}f}"
    if isinstance(data, dt.datetime):
        return _moment_text(data, value.type)
    if isinstance(data, dt.date):
        return data.isoformat()
    if isinstance(data, dt.time):
        scale = value.type.scale if type_ is DataType.DBTIME2 else 0
        return f"{data:%H:%M:%S}{_fraction(data.microsecond, scale)}"
    if isinstance(data, bytes):
        return f"0x{data.hex().upper()}"
    if isinstance(data, uuid.UUID):
        return f"{{{str(data).upper()}}}"
    return data


def _float_text(number: float, digits: int) -> str:
    if math.isinf(number) or math.isnan(number):
        return str(number)
    text = f"{number:.{digits}G}"
    return "0" if text == "-0" else text


def _fraction(microsecond: int, scale: int) -> str:
    return f".{microsecond:06d}000"[: scale + 1] if scale else ""


def _moment_text(moment: dt.datetime, type_: TypeSpec) -> str:
    if type_.type is DataType.DATE:
        day = f"{moment.month}/{moment.day}/{moment.year}"
        if moment.time() == dt.time():
            return day
        return f"{day} {moment.hour % 12 or 12}:{moment:%M:%S} {'PM' if moment.hour >= 12 else 'AM'}"
    # Not strftime: it writes the years before 1000 differently from one platform to the next.
    text = moment.replace(microsecond=0, tzinfo=None).isoformat(sep=" ")
    if type_.type is DataType.FILETIME:
        return f"{text}:{moment.microsecond // 1000:03d}"
    if type_.type is DataType.DBTIMESTAMP:
        return f"{text}.{moment.microsecond:06d}000" if moment.microsecond else text
    text += _fraction(moment.microsecond, type_.scale)
    offset = moment.utcoffset()
    if type_.type is not DataType.DBTIMESTAMPOFFSET or offset is None:
        return text
    minutes = int(offset.total_seconds() // 60)
    sign = "-" if minutes < 0 else "+"
    return f"{text} {sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def kind_of(value: Value) -> str:
    """What a value is, in the words of an error."""
    type_ = value.type.type
    for kinds, word in ((STRINGS, "a text"), (INTEGERS, "a whole number"), (FLOATS | NUMBERS, "a number")):
        if type_ in kinds:
            return f"{word} ({type_})"
    return f"a {'time' if type_ in TIMES else 'date' if type_ in DATES else 'value'} ({type_})"
