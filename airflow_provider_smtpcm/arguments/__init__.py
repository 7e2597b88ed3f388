"""Arguments of operators and the notifier: checked and converted here; templates are rendered by the modules below.

Pure: no Airflow. Every parse of a DAG file imports this module.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sized
from typing import Any

#: The arguments that describe a mail, of every operator and notifier.
MAIL_FIELDS = (
    "from_address",
    "to",
    "cc",
    "bcc",
    "reply_to",
    "subject",
    "text",
    "html",
    "text_file",
    "html_file",
    "attachments",
    "inline_images",
    "priority",
    "headers",
    "envelope_from",
)
#: The default of `retry_for`: how long (s) a mail is retried within one attempt of the task.
DEFAULT_RETRY_FOR = 60.0
#: The maximum of `connections`: no server takes more from one client, and each session has a thread.
MAX_CONNECTIONS = 256


def as_text(value: object) -> str | None:
    """Convert a value to text, since native rendering turns text that looks like a number into one. None stays None."""
    return value if value is None or isinstance(value, str) else str(value)


def as_headers(value: Any) -> Any:
    """Convert the values of a mapping of headers to text. Anything else is returned unchanged, for `Mail` to check."""
    if is_empty(value):
        return ()
    return {name: as_text(text) or "" for name, text in value.items()} if isinstance(value, Mapping) else value


def is_empty(value: object) -> bool:
    """Whether a value is None, false or without items. Not by truthiness, which a pandas Series does not have."""
    if value is None or type(value) in (str, tuple, list, dict):  # first, since the check for `Sized` is slow
        return not value
    return not (len(value) if isinstance(value, Sized) else value)


def as_reusable(value: Any) -> Any:
    """Return the items of an iterator as a list: an operator or a notifier reads a field several times.

    Its `repr`, which Airflow stores for each version of a DAG, has no memory address then. Open files and all other
    values are returned unchanged.
    """
    return list(value) if isinstance(value, Iterator) and not hasattr(value, "read") else value


def check_bool(name: str, value: object) -> None:
    """Check that an argument is True or False.

    Raises:
        ValueError: names the argument and its value.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; give True or False.")  # noqa: TRY004 - as the other checks


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Check that an argument is one of the allowed values.

    Raises:
        ValueError: names the argument, its value and the allowed values.
    """
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(allowed)}.")


def check_delimiter(value: str | None) -> None:
    """Check that `delimiter` is a character that may separate the cells of a CSV file, or None.

    Raises:
        ValueError: it is not.
    """
    if value is not None and (len(value) != 1 or value in '"\r\n'):
        raise ValueError(f"delimiter is {value!r}; give one character, or None.")


def check_int_in_range(name: str, value: object, low: int, high: int | None = None) -> None:
    """Check that an argument is an integer of at least `low` and, unless it is None, at most `high`.

    Raises:
        ValueError: names the argument and its value.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        wanted = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} is {value!r}; give an integer {wanted}.")


def check_positive_or_none(name: str, value: object) -> None:
    """Check that an argument is a number above 0, or None.

    Raises:
        ValueError: names the argument and its value.
    """
    if value is not None and not _to_float(value) > 0:
        raise ValueError(f"{name} is {value!r}; give a number above 0, or None.")


def check_not_negative(name: str, value: object) -> None:
    """Check that an argument is a number of at least 0.

    Raises:
        ValueError: names the argument and its value.
    """
    if not _to_float(value) >= 0:
        raise ValueError(f"{name} is {value!r}; give a number of at least 0.")


def _to_float(value: object) -> float:
    """Return a number as a float; nan for anything else, and for an integer that is too large for a float."""
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return math.nan
