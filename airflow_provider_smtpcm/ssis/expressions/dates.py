"""Dates and times: reading them from text, converting them, and the date functions.

Microsoft: the pages of DATEADD, DATEDIFF and DATEPART; "Integration Services Data Types", "Converting Date/Time Data
Types". Seconds have six digits here, of the seven that some types hold.
"""

from __future__ import annotations

import calendar
import datetime as dt
import re

from airflow_provider_smtpcm.ssis.expressions.types import DATES, TIMES, DataType, ExpressionError, TypeSpec
from airflow_provider_smtpcm.ssis.expressions.values import Value, kind_of

_PARTS = {
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
_PART_OF = {name: part for part, short in _PARTS.items() for name in (part, *short)}
_TIME = r"(\d{1,2}):(\d{2})(?::(\d{2})(?:[.:](\d{1,9}))?)?(?:\s*([aApP][mM]))?"
_OFFSET = r"(?:\s*([+-])\s*(\d{1,2}):(\d{2}))?"
_ISO = re.compile(rf"(\d{{4}})[-/](\d{{1,2}})[-/](\d{{1,2}})(?:[T\s]\s*{_TIME}{_OFFSET})?")
# The US English order; SSIS takes the order of the package's locale.
_US = re.compile(rf"(\d{{1,2}})[-/](\d{{1,2}})[-/](\d{{4}})(?:\s+{_TIME}{_OFFSET})?")
_CLOCK = re.compile(_TIME)
_SECONDS = {"hour": 3600, "minute": 60, "second": 1}


def now(*, utc: bool = False) -> dt.datetime:
    """GETDATE and GETUTCDATE: this moment in the local time of this machine, or in UTC, to the millisecond."""
    moment = dt.datetime.now(tz=dt.UTC)
    moment = (moment if utc else moment.astimezone()).replace(tzinfo=None)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def read(text: str, type_: TypeSpec) -> dt.datetime | dt.date | dt.time:
    """The date or time that a text says, for a type.

    Raises:
        ExpressionError: it says none.
    """
    text = text.strip()
    try:
        if type_.type in TIMES and (match := _CLOCK.fullmatch(text)):
            return convert(_clock(match.groups()), type_)
        return convert(_moment(text), type_)
    except ValueError:
        form = "hh:mm:ss" if type_.type in TIMES else "yyyy-mm-dd hh:mm:ss"
        message = f"The text '{text:.60}' is no {type_.type}."
        raise ExpressionError(message, remedy=f"Write it as {form}.") from None


def _clock(groups: tuple[str | None, ...]) -> dt.time:
    hour, minute, second, fraction, half = groups
    if hour is None:
        return dt.time()
    hours = int(hour)
    if half:
        if not 1 <= hours <= 12:
            raise ValueError
        hours = hours % 12 + (12 if half.lower() == "pm" else 0)
    return dt.time(hours, int(minute or 0), int(second or 0), int((fraction or "0").ljust(6, "0")[:6]))


def _moment(text: str) -> dt.datetime:
    if match := _ISO.fullmatch(text):
        year, month, day, *rest = match.groups()
    elif match := _US.fullmatch(text):
        month, day, year, *rest = match.groups()
    else:
        raise ValueError
    moment = dt.datetime.combine(dt.date(int(year), int(month), int(day)), _clock(tuple(rest[:5])))
    sign, hours, minutes = rest[5:]
    if sign is None:
        return moment
    if int(minutes) > 59 or int(hours) > 14:
        raise ValueError
    offset = dt.timedelta(hours=int(hours), minutes=int(minutes))
    return moment.replace(tzinfo=dt.timezone(-offset if sign == "-" else offset))


def convert(found: dt.datetime | dt.date | dt.time, type_: TypeSpec) -> dt.datetime | dt.date | dt.time:
    """A date or time as another type has it: what does not fit is cut off, what is missing is zero, or today."""
    if isinstance(found, dt.time):
        if type_.type in TIMES:
            return found.replace(microsecond=_cut(found.microsecond, type_))
        found = dt.datetime.combine(now().date(), found)
    elif not isinstance(found, dt.datetime):
        found = dt.datetime.combine(found, dt.time())
    if type_.type in TIMES:
        return found.time().replace(microsecond=_cut(found.microsecond, type_))
    if type_.type is DataType.DBDATE:
        return found.date()
    if type_.type is DataType.DBTIMESTAMPOFFSET:
        # "Sets the time zone field to zero": what has no offset is taken for UTC.
        found = found if found.tzinfo else found.replace(tzinfo=dt.UTC)
    else:
        found = found.replace(tzinfo=None)
    if type_.type is DataType.DATE:
        return found
    return found.replace(microsecond=_cut(found.microsecond, type_))


def _cut(microsecond: int, type_: TypeSpec) -> int:
    step: int = 10 ** max(0, 6 - type_.scale)
    return microsecond // step * step


def moment_of(value: Value, function: str) -> dt.datetime:
    """The moment that a function reads from its argument; a text is read as DT_DBTIMESTAMP."""
    data = value.data
    if isinstance(data, str):
        data = read(data, TypeSpec(DataType.DBTIMESTAMP))
    if value.type.type not in DATES and not isinstance(data, dt.date):
        raise ExpressionError(f"{function} takes a date, not {kind_of(value)}.", remedy="Cast it: (DT_DBTIMESTAMP)…")
    assert isinstance(data, dt.date)
    moment = data if isinstance(data, dt.datetime) else dt.datetime.combine(data, dt.time())
    return moment.replace(tzinfo=None)


def part_of(name: str, function: str) -> str:
    """The datepart by its full name."""
    if part := _PART_OF.get(name.strip().lower()):
        return part
    known = ", ".join(f"{part} ({', '.join(short)})" for part, short in _PARTS.items())
    raise ExpressionError(f"{function} knows no datepart '{name:.40}'.", remedy=f"The dateparts are {known}.")


def add(part: str, number: int, moment: dt.datetime) -> dt.datetime:
    """DATEADD; a day that the new month lacks becomes its last."""
    months = {"year": 12, "quarter": 3, "month": 1}.get(part)
    try:
        if months is not None:
            year, month = divmod(moment.year * 12 + moment.month - 1 + number * months, 12)
            day = min(moment.day, calendar.monthrange(year, month + 1)[1])
            return moment.replace(year=year, month=month + 1, day=day)
        if part == "millisecond":
            return moment + dt.timedelta(milliseconds=number)
        if part in _SECONDS:
            return moment + dt.timedelta(seconds=number * _SECONDS[part])
        return moment + dt.timedelta(days=number * (7 if part == "week" else 1))
    except (OverflowError, ValueError):
        message = f"DATEADD leaves the years 1 to 9999: {number} {part}s from {moment:%d.%m}.{moment.year}."
        raise ExpressionError(message, remedy="Use a smaller number.") from None


def difference(part: str, start: dt.datetime, end: dt.datetime) -> int:  # noqa: PLR0911 - one for each part
    """DATEDIFF: how many borders of a part lie between; a week begins on Sunday."""
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
        return days * 86_400_000 + _milliseconds(end) - _milliseconds(start)
    unit = _SECONDS[part] * 1000
    return days * 86_400_000 // unit + _milliseconds(end) // unit - _milliseconds(start) // unit


def _milliseconds(moment: dt.datetime) -> int:
    return ((moment.hour * 60 + moment.minute) * 60 + moment.second) * 1000 + moment.microsecond // 1000


def part(name: str, moment: dt.datetime) -> int:
    """DATEPART; Sunday is weekday 1, and the first of January lies in week 1, which ends on Saturday."""
    january = moment.replace(month=1, day=1)
    return {
        "year": moment.year,
        "quarter": (moment.month - 1) // 3 + 1,
        "month": moment.month,
        "dayofyear": moment.timetuple().tm_yday,
        "day": moment.day,
        "week": difference("week", january, moment) + 1,
        "weekday": moment.isoweekday() % 7 + 1,
        "hour": moment.hour,
        "minute": moment.minute,
        "second": moment.second,
        "millisecond": moment.microsecond // 1000,
    }[name]
