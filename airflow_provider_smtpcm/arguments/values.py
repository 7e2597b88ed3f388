"""Values of arguments: checked, turned into text, or kept from Airflow's rendering. Pure: no mail, no Airflow."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: The default of `retry_for`: seconds for which a mail is retried within one attempt of the task.
DEFAULT_RETRY_FOR = 60.0

_LISTED = 10
_MEMORY_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def as_text(value: object) -> str | None:
    """Return a value as text, since native rendering turns text that looks like a number into one. None stays None."""
    return value if value is None or isinstance(value, str) else str(value)


def as_headers(value: Any) -> Any:
    """Return headers with text as values. `Mail` checks whatever is not a mapping."""
    return {name: as_text(text) or "" for name, text in value.items()} if isinstance(value, Mapping) else value or ()


def shorten_list(words: Sequence[str]) -> str:
    """List the first 10 words and how many more there are, for a log line. The XCom has all of them."""
    more = len(words) - _LISTED
    return ", ".join(words[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Check that an argument is one of the allowed values.

    Raises:
        ValueError: names the argument, its value and the allowed values.
    """
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(allowed)}.")


def check_positive_int(name: str, value: object) -> None:
    """Check that an argument is a whole number from 1.

    Raises:
        ValueError: names the argument and its value.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}; give a whole number from 1.")


def check_positive_or_none(name: str, value: object) -> None:
    """Check that an argument is a number above 0, or None.

    Raises:
        ValueError: names the argument and its value.
    """
    if value is not None and not _to_float(value) > 0:
        raise ValueError(f"{name} is {value!r}; give a number above 0, or None.")


def check_not_negative(name: str, value: object) -> None:
    """Check that an argument is a number from 0.

    Raises:
        ValueError: names the argument and its value.
    """
    if not _to_float(value) >= 0:
        raise ValueError(f"{name} is {value!r}; give a number from 0.")


def _to_float(value: object) -> float:
    """Return a number as a float; nan for anything else, and for an integer that is too large for a float."""
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return math.nan


@dataclass(frozen=True, slots=True)
class Unrendered:
    """A value as the author of the DAG wrote it, which Airflow does not render.

    A field of a merge is a template over each row, but Airflow renders template fields before there are rows. They are
    template fields all the same, so that the output of another task can be passed for any of them: Airflow then sets
    the dependency and replaces the output by its value. That value is data, and never compiled as a template.
    """

    value: Any

    def __repr__(self) -> str:
        """Return what the UI shows for the field.

        It must be the same for every parse of the DAG, or each parse would make a new version of the DAG.
        """
        return _MEMORY_ADDRESS.sub("", str(self.value))


def keep_unrendered(value: Any) -> Any:
    """Wrap a value in `Unrendered`, except for the outputs of tasks in it, which Airflow must resolve."""
    if value is None or isinstance(value, Unrendered) or _is_reference(value):
        return value
    if not _has_reference(value):
        return Unrendered(value)
    if isinstance(value, Mapping):
        return {key: keep_unrendered(item) for key, item in value.items()}
    return [keep_unrendered(item) for item in value]


def unwrap_unrendered(value: Any) -> Any:
    """Undo `keep_unrendered`, with the values that Airflow resolved in their places."""
    if isinstance(value, Unrendered):
        return value.value
    if isinstance(value, dict):
        return {key: unwrap_unrendered(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unwrap_unrendered(item) for item in value]
    return value


def _is_reference(value: Any) -> bool:
    """Whether Airflow resolves it at run time: a task's output, a DAG's parameter, a group's argument, a literal.

    Their common base class is not public, but the method that it requires of each is.
    """
    return hasattr(type(value), "iter_references")


def _has_reference(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_reference, value.values()))
    if isinstance(value, tuple | list):
        return any(map(_has_reference, value))
    return _is_reference(value)
