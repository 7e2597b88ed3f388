"""Values that people write: choices, numbers, text, a short list of addresses. Knows no mail, and no Airflow."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_NAMED = 10
#: Seconds for which a mail is tried again within a try, unless somebody says otherwise.
DEFAULT_RETRY_FOR = 60.0


def as_text(value: object) -> str | None:
    """Native rendering turns text that looks like a number into one; this turns it back. None stays None."""
    return value if value is None or isinstance(value, str) else str(value)


def as_headers(value: Any) -> Any:
    """A mapping of headers with text alone in it; whatever else was given is for the mail to judge."""
    return {name: as_text(text) or "" for name, text in value.items()} if isinstance(value, Mapping) else value or ()


def shorten_list(words: Sequence[str]) -> str:
    """The first of them and how many more there are: a log line is for reading, the XCom holds all of them."""
    more = len(words) - _NAMED
    return ", ".join(words[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Hold an argument to the values that exist.

    Raises:
        ValueError: names the argument, what it is and what it may be.
    """
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(allowed)}.")


def check_positive_int(name: str, value: object) -> None:
    """Hold an argument to the whole numbers from 1; ValueError as in `check_choice`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}; give a whole number from 1.")


def check_positive_or_none(name: str, value: object) -> None:
    """Hold an argument to the numbers above 0 and None; ValueError as in `check_choice`."""
    if value is not None and not _number(value) > 0:
        raise ValueError(f"{name} is {value!r}; give a number above 0, or None.")


def check_not_negative(name: str, value: object) -> None:
    """Hold an argument to numbers from 0.

    Raises:
        ValueError: names the argument and what it is.
    """
    if not _number(value) >= 0:
        raise ValueError(f"{name} is {value!r}; give a number from 0.")


def _number(value: object) -> float:
    """Not a number (nan) is also a whole number that is too large for a clock to reckon with."""
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return math.nan


# folded: Values that Airflow must leave as they were written, though they stand in template fields. Knows no mail.
#   A field of a merge is a template over each row, and Airflow renders template fields before there is a row. They stay
#   among the template fields all the same, so that the output of another task may be given for any of them: Airflow
#   then
#   sets the dependency and puts the value in its place. What comes from there is data and never compiled as a template.

_WHERE_IN_MEMORY = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Unrendered:
    """A value as the author of the DAG wrote it; Airflow finds nothing in it to render."""

    value: Any

    def __repr__(self) -> str:
        """What the UI shows for the field; the same whenever the DAG is parsed, or each time would be a new version."""
        return _WHERE_IN_MEMORY.sub("", str(self.value))


def keep_unrendered(value: Any) -> Any:
    """The value, kept from being rendered but for what Airflow puts in its place when the task runs."""
    if value is None or isinstance(value, Unrendered) or _resolved(value):
        return value
    if not _holds_resolved(value):
        return Unrendered(value)
    if isinstance(value, Mapping):
        return {key: keep_unrendered(item) for key, item in value.items()}
    return [keep_unrendered(item) for item in value]


def unwrap_unrendered(value: Any) -> Any:
    """What stood there before `keep_unrendered`, with what Airflow put in between in its place."""
    if isinstance(value, Unrendered):
        return value.value
    if isinstance(value, dict):
        return {key: unwrap_unrendered(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unwrap_unrendered(item) for item in value]
    return value


def _resolved(value: Any) -> bool:
    """Whether Airflow puts something in its place: a task's output, a DAG's parameter, a group's argument, a literal.

    Their common class is not public; what it demands of each is.
    """
    return hasattr(type(value), "iter_references")


def _holds_resolved(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_resolved, value.values()))
    if isinstance(value, tuple | list):
        return any(map(_holds_resolved, value))
    return _resolved(value)
