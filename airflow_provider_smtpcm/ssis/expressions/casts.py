"""Values with their SSIS types, and their casts: from Python, from type to type, and to strings.

See Microsoft's pages "Integration Services Data Types", "Cast (SSIS Expression)" and "Data Truncation (SSIS)". This
implementation differs in three points:

* A DT_DBTIMESTAMP has nine fractional digits, or none if they are zero, which is what SSIS writes; Microsoft documents
  `[.fff]`.
* A DT_DATE (a DateTime variable) is formatted in US English; SSIS uses the locale of the package. An import says so.
* Code pages are ignored: a mail is Unicode, and lengths count characters.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import struct
import uuid
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation

from airflow_provider_smtpcm.ssis.expressions import dates
from airflow_provider_smtpcm.ssis.expressions.types import (
    BOOL,
    DATES,
    EXACT,
    FLOATS,
    INTEGERS,
    NUMBERS,
    R8,
    STRINGS,
    TIMES,
    WSTR,
    DataType,
    ExpressionError,
    TypeSpec,
    is_in_range,
)

Data = str | bool | int | float | Decimal | dt.datetime | dt.date | dt.time | uuid.UUID | bytes | None

# Enough digits for the product of two numbers of 38 digits.
DECIMAL_CONTEXT = Context(prec=100, rounding=ROUND_HALF_UP)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?")
_INTEGER = re.compile(r"[+-]?\d{1,40}")


@dataclass(frozen=True, slots=True)
class Value:
    """A value with its type. `str()` of it is its cast to DT_WSTR.

    Args:
        type: the SSIS type, which a null has too.
        data: the Python value; None for a null.
    """

    type: TypeSpec
    data: Data

    def __bool__(self) -> bool:
        # For `{% if %}` in a template. A null is neither true nor false, so it raises.
        return to_bool(self)

    def __str__(self) -> str:
        return format_value(self)


def to_value(data: object) -> Value:  # noqa: PLR0911 - one for each type
    """Convert a Python object, such as the value of a template variable, to the closest SSIS type.

    Args:
        data: a `Value` is returned unchanged; None becomes a DT_WSTR null; an aware datetime is converted to local
            time, since a DT_DATE has no time zone.

    Raises:
        ExpressionError: no SSIS type corresponds to it.
    """
    if isinstance(data, Value):
        return data
    if isinstance(data, bool):
        return Value(BOOL, data)
    if isinstance(data, str):
        return Value(WSTR, str(data))
    if isinstance(data, int):
        for data_type in (DataType.I4, DataType.I8, DataType.UI8):
            if is_in_range(data, data_type):
                return Value(TypeSpec(data_type), int(data))
    if isinstance(data, float):
        return Value(R8, float(data))
    if isinstance(data, Decimal) and data.is_finite():
        _, digits, exponent = data.as_tuple()
        scale = max(0, -int(exponent))
        if scale <= 38:
            return Value(TypeSpec(DataType.NUMERIC, (min(38, max(len(digits), scale, 1)), scale)), data)
    return _to_other_value(data)


def _to_other_value(data: object) -> Value:
    if data is None:
        return Value(WSTR, None)
    if isinstance(data, dt.datetime):
        return Value(TypeSpec(DataType.DATE), _to_local_time(data))
    if isinstance(data, dt.date):
        return Value(TypeSpec(DataType.DBDATE), dt.date(data.year, data.month, data.day))
    if isinstance(data, dt.time):
        return Value(TypeSpec(DataType.DBTIME2, (7,)), data.replace(tzinfo=None))
    if isinstance(data, uuid.UUID):
        return Value(TypeSpec(DataType.GUID), data)
    if isinstance(data, bytes):
        return Value(TypeSpec(DataType.BYTES, (len(data),)), data)
    # Also for jinja2.Undefined, whose text names the variable.
    raise ExpressionError(
        f"SSIS has no type for {type(data).__name__} ({data!s:.60}).",
        remedy="Use a string, a number, a Boolean or a date.",
    )


def _to_local_time(moment: dt.datetime) -> dt.datetime:
    """Convert to a naive `datetime.datetime` in this machine's time zone."""
    if moment.tzinfo is not None:
        moment = moment.astimezone().replace(tzinfo=None)
    # A plain datetime: pendulum's subclass, which Airflow passes, formats differently.
    m = moment
    return dt.datetime(m.year, m.month, m.day, m.hour, m.minute, m.second, m.microsecond)  # noqa: DTZ001 - naive


def to_bool(value: Value) -> bool:
    """Return a DT_BOOL as a bool.

    Raises:
        ExpressionError: the value has another type, or is null.
    """
    if value.type.data_type is not DataType.BOOL or value.data is None:
        kind = "A null" if value.data is None else f"A value of {value.type}"
        raise ExpressionError(
            f"{kind} is not a Boolean.",
            remedy="Compare it with a value, cast it to DT_BOOL, or test it with ISNULL first.",
        )
    return bool(value.data)


def format_value(value: Value) -> str:  # noqa: C901, PLR0911 - one for each type
    """Return the result of a cast to DT_WSTR; an empty string for a null."""
    data, data_type = value.data, value.type.data_type
    if data is None:
        return ""
    if data_type in STRINGS:
        return str(data)
    if isinstance(data, bool):
        return "True" if data else "False"
    if isinstance(data, int):
        return str(data)
    if isinstance(data, float):
        return _format_float(data, 7 if data_type is DataType.R4 else 15)
    if isinstance(data, Decimal):
        return f"{data:.4f}" if data_type is DataType.CY else f"{data:.{value.type.scale}f}"
    if isinstance(data, dt.datetime):
        return _format_moment(data, value.type)
    if isinstance(data, dt.date):
        return data.isoformat()
    if isinstance(data, dt.time):
        scale = value.type.scale if data_type is DataType.DBTIME2 else 0
        return f"{data:%H:%M:%S}{_format_fraction(data.microsecond, scale)}"
    if isinstance(data, bytes):
        return f"0x{data.hex().upper()}"
    if isinstance(data, uuid.UUID):
        return f"{{{str(data).upper()}}}"
    return data


def _format_float(number: float, digits: int) -> str:
    if math.isinf(number) or math.isnan(number):
        return str(number)
    text = f"{number:.{digits}G}"
    return "0" if text == "-0" else text


def _format_fraction(microsecond: int, scale: int) -> str:
    return f".{microsecond:06d}000"[: scale + 1] if scale else ""


def _format_moment(moment: dt.datetime, type_: TypeSpec) -> str:
    if type_.data_type is DataType.DATE:
        date = f"{moment.month}/{moment.day}/{moment.year}"
        if moment.time() == dt.time():
            return date
        return f"{date} {moment.hour % 12 or 12}:{moment:%M:%S} {'PM' if moment.hour >= 12 else 'AM'}"
    # Not strftime: whether it pads years before 1000 depends on the platform.
    text = moment.replace(microsecond=0, tzinfo=None).isoformat(sep=" ")
    if type_.data_type is DataType.FILETIME:
        return f"{text}:{moment.microsecond // 1000:03d}"
    if type_.data_type is DataType.DBTIMESTAMP:
        return f"{text}.{moment.microsecond:06d}000" if moment.microsecond else text
    text += _format_fraction(moment.microsecond, type_.scale)
    offset = moment.utcoffset()
    if type_.data_type is not DataType.DBTIMESTAMPOFFSET or offset is None:
        return text
    minutes = int(offset.total_seconds() // 60)
    sign = "-" if minutes < 0 else "+"
    return f"{text} {sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def describe_type(value: Value) -> str:
    """Return the type of a value for an error message, such as `an integer (DT_I4)`."""
    data_type = value.type.data_type
    for types, noun in ((STRINGS, "a string"), (INTEGERS, "an integer"), (FLOATS | NUMBERS, "a number")):
        if data_type in types:
            return f"{noun} ({data_type})"
    noun = "time" if data_type in TIMES else "date" if data_type in DATES else "value"
    return f"a {noun} ({data_type})"


def cast(value: Value, type_: TypeSpec) -> Value:
    """Convert a value to another type; a null stays null.

    Strings are truncated to the length of the type, fractional seconds to its scale, and numbers to integers. A cast to
    DT_NUMERIC, DT_DECIMAL or DT_CY rounds to the scale, halves away from zero.

    Raises:
        ExpressionError: there is no such cast, the string is not valid for the type, or the value is out of range.
    """
    if value.data is None or value.type == type_:
        return Value(type_, value.data)
    return Value(type_, _convert(value, type_))


def _convert(value: Value, type_: TypeSpec) -> Data:  # noqa: PLR0911 - one for each family of types
    data_type = type_.data_type
    if data_type in STRINGS:
        return format_value(value)[: type_.length]
    if data_type is DataType.BOOL:
        return _cast_to_bool(value)
    if data_type in INTEGERS:
        return _cast_to_integer(value, type_)
    if data_type in FLOATS:
        return to_float(value, data_type)
    if data_type in EXACT:
        return round_to_type(to_decimal(value), type_)
    if data_type in DATES or data_type in TIMES:
        return _cast_to_date(value, type_)
    return _cast_to_binary(value, type_)


def _cast_error(value: Value, type_: TypeSpec, remedy: str) -> ExpressionError:
    source = f"'{value.data:.60}'" if isinstance(value.data, str) else f"{format_value(value)}, {describe_type(value)},"
    return ExpressionError(f"{source} cannot be cast to {type_}.", remedy=remedy)


def _cast_to_bool(value: Value) -> bool:
    if isinstance(value.data, bool):
        return value.data
    if isinstance(value.data, str) and value.data.strip().lower() in {"true", "false"}:
        return value.data.strip().lower() == "true"
    if value.type.data_type in NUMBERS:
        return value.data != 0
    text = value.data.strip() if isinstance(value.data, str) else ""
    if _INTEGER.fullmatch(text):
        return int(text) != 0
    raise _cast_error(value, TypeSpec(DataType.BOOL), 'Use "True", "False" or a number.')


def _cast_to_integer(value: Value, type_: TypeSpec) -> int:
    data = value.data
    number: int
    if isinstance(data, bool):
        # "The SSIS Expression Language converts True to -1" (Microsoft, Cast).
        number = -1 if data else 0
    elif isinstance(data, str) and not _INTEGER.fullmatch(data.strip()):
        raise _cast_error(value, type_, "Use an integer.")
    elif isinstance(data, str | int | float | Decimal):
        number = int(data)
    else:
        raise _cast_error(value, type_, "Use an integer.")
    if not is_in_range(number, type_.data_type):
        raise ExpressionError(f"{number} does not fit in {type_}.", remedy="Cast it to a larger type, such as DT_I8.")
    return number


def to_float(value: Value, data_type: DataType = DataType.R8) -> float:
    """Convert a value to a float.

    Args:
        value: a number, a Boolean, or a string that contains a number.
        data_type: DT_R8, or DT_R4 to round to single precision.

    Raises:
        ExpressionError: the value is not a number, or out of range.
    """
    data = value.data
    try:
        if isinstance(data, bool):
            number = -1.0 if data else 0.0
        elif isinstance(data, int | float | Decimal) or (isinstance(data, str) and _NUMBER.fullmatch(data.strip())):
            number = float(data)
        else:
            raise _cast_error(value, TypeSpec(data_type), "Use a number.")
        if data_type is DataType.R4:
            number = float(struct.unpack("<f", struct.pack("<f", number))[0])
    except OverflowError:
        raise ExpressionError(f"{format_value(value)} does not fit in {data_type}.", remedy="Use DT_R8.") from None
    if not math.isfinite(number):
        raise ExpressionError(f"{format_value(value)} does not fit in {data_type}.", remedy="Use a smaller number.")
    return number


def to_decimal(value: Value) -> Decimal:
    """Convert a value to a Decimal without loss of precision; a float by its shortest representation.

    Raises:
        ExpressionError: the value is not a number.
    """
    data = value.data
    if isinstance(data, bool):
        return Decimal(-1 if data else 0)
    if isinstance(data, int | Decimal):
        return Decimal(data)
    if isinstance(data, float):
        return Decimal(repr(data))
    if isinstance(data, str) and _NUMBER.fullmatch(data.strip()):
        return Decimal(data.strip())
    raise _cast_error(value, TypeSpec(DataType.DECIMAL, (0,)), "Use a number.")


def round_to_type(number: Decimal, type_: TypeSpec) -> Decimal:
    """Round a number to the scale of DT_NUMERIC, DT_DECIMAL or DT_CY, halves away from zero.

    Raises:
        ExpressionError: the number has more integer digits than the type.
    """
    try:
        rounded = number.quantize(Decimal(1).scaleb(-type_.scale), context=DECIMAL_CONTEXT)
    except InvalidOperation:
        rounded = Decimal(10) ** 99
    if abs(rounded) >= Decimal(10) ** (type_.precision - type_.scale):
        raise ExpressionError(f"{number:.12G} does not fit in {type_}.", remedy="Increase the precision, or use DT_R8.")
    return rounded


def check_integer(type_: TypeSpec, number: int, name: str) -> Value:
    """Return the result of an operator or function as an integer.

    Args:
        name: the operator or function, for the error message.

    Raises:
        ExpressionError: the number is out of the type's range.
    """
    if not is_in_range(number, type_.data_type):
        raise ExpressionError(f"The result of {name}, {number:.9G}, overflows {type_}.", remedy="Cast to DT_I8 first.")
    return Value(type_, number)


def check_float(type_: TypeSpec, number: float, name: str) -> Value:
    """Return the result of an operator or function as a float.

    Args:
        name: the operator or function, for the error message.

    Raises:
        ExpressionError: the number is infinite or NaN.
    """
    if not math.isfinite(number):
        raise ExpressionError(f"The result of {name} overflows {type_}.", remedy="Use smaller numbers.")
    return Value(type_, to_float(Value(type_, number), type_.data_type))


def _cast_to_date(value: Value, type_: TypeSpec) -> dt.datetime | dt.date | dt.time:
    data = value.data
    if isinstance(data, str):
        return dates.parse_date(data, type_)
    if isinstance(data, dt.date | dt.time):
        return dates.convert_date(data, type_)
    raise _cast_error(value, type_, "Use a date, or a string such as 2026-11-25 10:57:48.")


def _cast_to_binary(value: Value, type_: TypeSpec) -> uuid.UUID | bytes:
    data = value.data
    if type_.data_type is DataType.GUID and isinstance(data, str):
        try:
            return uuid.UUID(data.strip())
        except ValueError:
            raise _cast_error(value, type_, "Write it as {00000000-0000-0000-0000-000000000000}.") from None
    if type_.data_type in {DataType.BYTES, DataType.IMAGE}:
        if isinstance(data, bytes):
            return data[: type_.length]
        if isinstance(data, str):
            return data.encode("utf-16-le", "replace")[: type_.length]
    raise _cast_error(value, type_, "Cast it to DT_WSTR first.")
