"""Values that Airflow must leave as they were written, though they stand in template fields. Knows no mail.

A field of a merge is a template over each row, and Airflow renders template fields before there is a row. They stay
among the template fields all the same, so that the output of another task may be given for any of them: Airflow then
sets the dependency and puts the value in its place. What comes from there is data and never compiled as a template.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_WHERE_IN_MEMORY = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Unrendered:
    """A value as the author of the DAG wrote it; Airflow finds nothing in it to render."""

    value: Any

    def __repr__(self) -> str:
        """What the UI shows for the field; the same whenever the DAG is parsed, or each time would be a new version."""
        return _WHERE_IN_MEMORY.sub("", str(self.value))


def unrendered(value: Any) -> Any:
    """The value, kept from being rendered but for what Airflow puts in its place when the task runs."""
    if value is None or isinstance(value, Unrendered) or _resolved(value):
        return value
    if not _holds_resolved(value):
        return Unrendered(value)
    if isinstance(value, Mapping):
        return {key: unrendered(item) for key, item in value.items()}
    return [unrendered(item) for item in value]


def as_written(value: Any) -> Any:
    """What stood there before `unrendered`, with what Airflow put in between in its place."""
    if isinstance(value, Unrendered):
        return value.value
    if isinstance(value, dict):
        return {key: as_written(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_written(item) for item in value]
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
