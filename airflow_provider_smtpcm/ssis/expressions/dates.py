"""Dates and times: parsing, conversion between types, and the date functions of the expression language.

See Microsoft's pages "Integration Services Data Types" and "Converting Date/Time Data Types", and those of DATEADD,
DATEDIFF and DATEPART. Precision is a microsecond; the seventh fractional digit that some types have is lost.
"""

from __future__ import annotations

import calendar
import datetime as dt
import re

from airflow_provider_smtpcm.ssis.expressions.types import TIMES, DataType, ExpressionError, TypeSpec

# The dateparts with their abbreviations.
_DATEPARTS = {
    "year": ("yy", "yyyy"),
    "quarter": ("qq", "q"),
    "month": ("mm", "m"),
    "dayofyear": ("dy", "y"),
    "day": ("dd", "d"),
    "week": ("wk", "ww"),
    "weekday": ("dw", "w"),
    "hour": ("hh",),
    "minute": ("mi", "n"),
    "second": ("ss", "s"),
    "millisecond": ("ms",),
}
_DATEPART_BY_NAME = {name: part for part, abbreviations in _DATEPARTS.items() for name in (part, *abbreviations)}
_TIME = r"(\d{1,2}):(\d{2})(?::(\d{2})(?:[.:](\d{1,9}))?)?(?:\s*([aApP][mM]))?"
_OFFSET = r"(?:\s*([+-])\s*(\d{1,2}):(\d{2}))?"
_ISO = re.compile(rf"(\d{{4}})[-/](\d{{1,2}})[-/](\d{{1,2}})(?:[T\s]\s*{_TIME}{_OFFSET})?")
# Month before day, as in US English; SSIS uses the locale of the package.
_US = re.compile(rf"(\d{{1,2}})[-/](\d{{1,2}})[-/](\d{{4}}|\d{{2}})(?:\s+{_TIME}{_OFFSET})?")
# Day before month, as is usual where dots separate them; Czech and others have a space after the dot.
_DOTTED = re.compile(rf"(\d{{1,2}})\.\s*(\d{{1,2}})\.\s*(\d{{4}}|\d{{2}})(?:\s+{_TIME}{_OFFSET})?")
# OLE Automation takes a year of two digits up to this one for 20xx, others for 19xx.
_LAST_SHORT_YEAR = 29
_TIME_ONLY = re.compile(_TIME)
_SECONDS_IN = {"hour": 3600, "minute": 60, "second": 1}


def now(*, utc: bool = False) -> dt.datetime:
    """Return the current time as a naive datetime with milliseconds.

    Args:
        utc: whether to return UTC (GETUTCDATE) instead of this machine's time (GETDATE).
    """
    moment = dt.datetime.now(tz=dt.UTC)
    moment = (moment if utc else moment.astimezone()).replace(tzinfo=None)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def parse_date(text: str, type_: TypeSpec) -> dt.datetime | dt.date | dt.time:
    """Parse a string as a date or time.

    Args:
        text: a date in ISO or US English order, or with dots and the day first, with or without a time; for a time
            type also a time alone. Except in ISO order, the year may have two digits.
        type_: type of the result; fractional seconds are truncated to its scale.

    Raises:
        ExpressionError: the string is not a date or time.
    """
    text = text.strip()
    try:
        if type_.data_type in TIMES and (match := _TIME_ONLY.fullmatch(text)):
            return convert_date(_build_time(match.groups()), type_)
        return convert_date(_parse_moment(text), type_)
    except ValueError:
        pattern = "hh:mm:ss" if type_.data_type in TIMES else "yyyy-mm-dd hh:mm:ss"
        message = f"'{text:.60}' is not a valid {type_.data_type}."
        raise ExpressionError(message, remedy=f"Write it as {pattern}.") from None


def _build_time(groups: tuple[str | None, ...]) -> dt.time:
    hour, minute, second, fraction, meridiem = groups
    if hour is None:
        return dt.time()
    hours = int(hour)
    if meridiem:
        if not 1 <= hours <= 12:
            raise ValueError
        hours = hours % 12 + (12 if meridiem.lower() == "pm" else 0)
    return dt.time(hours, int(minute or 0), int(second or 0), int((fraction or "0").ljust(6, "0")[:6]))


def _parse_moment(text: str) -> dt.datetime:
    if match := _ISO.fullmatch(text):
        year, month, day, *rest = match.groups()
    elif match := _US.fullmatch(text):
        month, day, year, *rest = match.groups()
        if int(month) > 12:  # as OLE Automation reads it
            month, day = day, month
    elif match := _DOTTED.fullmatch(text):
        day, month, year, *rest = match.groups()
    else:
        raise ValueError
    if len(year) == 2:
        year = f"{'20' if int(year) <= _LAST_SHORT_YEAR else '19'}{year}"
    moment = dt.datetime.combine(dt.date(int(year), int(month), int(day)), _build_time(tuple(rest[:5])))
    sign, hours, minutes = rest[5:]
    if sign is None:
        return moment
    if int(minutes) > 59 or int(hours) > 14:
        raise ValueError
    offset = dt.timedelta(hours=int(hours), minutes=int(minutes))
    return moment.replace(tzinfo=dt.timezone(-offset if sign == "-" else offset))


def convert_date(value: dt.datetime | dt.date | dt.time, type_: TypeSpec) -> dt.datetime | dt.date | dt.time:
    """Convert a date or time to another type.

    Fractional seconds are truncated to the scale of the type. A date becomes midnight, a time gets today's date.
    """
    if isinstance(value, dt.time):
        if type_.data_type in TIMES:
            return value.replace(microsecond=_truncate_microsecond(value.microsecond, type_))
        value = dt.datetime.combine(now().date(), value)
    elif not isinstance(value, dt.datetime):
        value = dt.datetime.combine(value, dt.time())
    if type_.data_type in TIMES:
        return value.time().replace(microsecond=_truncate_microsecond(value.microsecond, type_))
    if type_.data_type is DataType.DBDATE:
        return value.date()
    if type_.data_type is DataType.DBTIMESTAMPOFFSET:
        # Microsoft: the cast "sets the time zone field to zero" where the source has none.
        value = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
    else:
        value = value.replace(tzinfo=None)
    if type_.data_type is DataType.DATE:
        return value
    return value.replace(microsecond=_truncate_microsecond(value.microsecond, type_))


def _truncate_microsecond(microsecond: int, type_: TypeSpec) -> int:
    step: int = 10 ** max(0, 6 - type_.scale)
    return microsecond // step * step


def resolve_datepart(name: str, function: str) -> str:
    """Return the full name of a datepart.

    Args:
        name: full name or abbreviation, case-insensitive.
        function: the function with this argument, for the error message.

    Raises:
        ExpressionError: there is no such datepart.
    """
    if part := _DATEPART_BY_NAME.get(name.strip().lower()):
        return part
    known = ", ".join(f"{part} ({', '.join(abbreviations)})" for part, abbreviations in _DATEPARTS.items())
    raise ExpressionError(f"{function} has no datepart '{name:.40}'.", remedy=f"The dateparts are {known}.")


def date_add(part: str, number: int, moment: dt.datetime) -> dt.datetime:
    """DATEADD. January 31 plus a month is the last day of February.

    Args:
        part: full name of a datepart, from `resolve_datepart`.
        number: how many to add; may be negative.
        moment: the date to add to.

    Raises:
        ExpressionError: the result is outside the years 1 to 9999.
    """
    months = {"year": 12, "quarter": 3, "month": 1}.get(part)
    try:
        if months is not None:
            year, month = divmod(moment.year * 12 + moment.month - 1 + number * months, 12)
            day = min(moment.day, calendar.monthrange(year, month + 1)[1])
            return moment.replace(year=year, month=month + 1, day=day)
        if part == "millisecond":
            return moment + dt.timedelta(milliseconds=number)
        if part in _SECONDS_IN:
            return moment + dt.timedelta(seconds=number * _SECONDS_IN[part])
        return moment + dt.timedelta(days=number * (7 if part == "week" else 1))
    except (OverflowError, ValueError):
        message = f"DATEADD of {number} ({part}) to {moment.date()} is outside the years 1 to 9999."
        raise ExpressionError(message, remedy="Use a smaller number.") from None


def date_diff(part: str, start: dt.datetime, end: dt.datetime) -> int:  # noqa: PLR0911 - one for each part
    """DATEDIFF: the number of datepart boundaries between two dates. A week begins on Sunday.

    Args:
        part: full name of a datepart, from `resolve_datepart`.
        start: the first date; the result is positive if it is before `end`.
        end: the second date.
    """
    if part == "year":
        return end.year - start.year
    if part == "quarter":
        return (end.year * 4 + (end.month - 1) // 3) - (start.year * 4 + (start.month - 1) // 3)
    if part == "month":
        return (end.year * 12 + end.month) - (start.year * 12 + start.month)
    if part == "week":
        return end.toordinal() // 7 - start.toordinal() // 7
    days = end.toordinal() - start.toordinal()
    if part in {"day", "dayofyear", "weekday"}:
        return days
    if part == "millisecond":
        return days * 86_400_000 + _milliseconds_since_midnight(end) - _milliseconds_since_midnight(start)
    unit = _SECONDS_IN[part] * 1000
    return (
        days * 86_400_000 // unit
        + _milliseconds_since_midnight(end) // unit
        - _milliseconds_since_midnight(start) // unit
    )


def _milliseconds_since_midnight(moment: dt.datetime) -> int:
    return ((moment.hour * 60 + moment.minute) * 60 + moment.second) * 1000 + moment.microsecond // 1000


def date_part(part: str, moment: dt.datetime) -> int:
    """DATEPART. Sunday is weekday 1; week 1 begins on January 1 and ends on the first Saturday.

    Args:
        part: full name of a datepart, from `resolve_datepart`.
        moment: the date.
    """
    january_1 = moment.replace(month=1, day=1)
    return {
        "year": moment.year,
        "quarter": (moment.month - 1) // 3 + 1,
        "month": moment.month,
        "dayofyear": moment.timetuple().tm_yday,
        "day": moment.day,
        "week": date_diff("week", january_1, moment) + 1,
        "weekday": moment.isoweekday() % 7 + 1,
        "hour": moment.hour,
        "minute": moment.minute,
        "second": moment.second,
        "millisecond": moment.microsecond // 1000,
    }[part]
