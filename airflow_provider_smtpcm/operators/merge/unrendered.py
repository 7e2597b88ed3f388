"""Values that Airflow must leave as they were written, though they stand in template fields. Knows no mail.

A field of a merge is a template over each row, and Airflow renders template fields before there is a row. They stay
among the template fields all the same, so that the output of another task may be given for any of them: Airflow then
sets the dependency and puts the value in its place. What comes from there is data and never compiled as a template.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow.sdk import XComArg


@dataclass(frozen=True, slots=True)
class Unrendered:
    """A value as the author of the DAG wrote it; Airflow finds nothing in it to render."""

    value: Any

    def __repr__(self) -> str:
        """What the UI shows for the field."""
        return str(self.value)


def unrendered(value: Any) -> Any:
    """The value, kept from being rendered but for the outputs of other tasks in it."""
    if value is None or isinstance(value, XComArg | Unrendered):
        return value
    if next(XComArg.iter_xcom_references(value), None) is None:
        return Unrendered(value)
    if isinstance(value, Mapping):
        return {key: unrendered(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [unrendered(item) for item in value]
    return value


def as_written(value: Any) -> Any:
    """What stood there before `unrendered`, with the outputs of other tasks in their places."""
    if isinstance(value, Unrendered):
        return value.value
    if isinstance(value, dict):
        return {key: as_written(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_written(item) for item in value]
    return value
