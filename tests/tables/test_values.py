"""A value of a database is the same text in a table and in every file."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_smtpcm.tables.values import format_value

CET = dt.timezone(dt.timedelta(hours=1))


class Amount(float):
    """A number as a library may have it."""

    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""),
        ("", ""),
        (" Jürgen & Söhne – 世界 ", " Jürgen & Söhne – 世界 "),
        (True, "true"),
        (0, "0"),
        (-12345678901234567890, "-12345678901234567890"),
        (0.1, "0.1"),
        (1e22, "1e+22"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        (Amount(2.5), "2.5"),
        (Decimal("12.50"), "12.50"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1E-7"), "0.0000001"),
        (Decimal("1E+1000000"), "1E+1000000"),
        (Decimal("NaN"), "NaN"),
        (Decimal("sNaN"), "NaN"),
        (Decimal("Infinity"), "Infinity"),
        (dt.date(2026, 11, 30), "2026-11-30"),
        (dt.datetime(2026, 11, 30, 8, 15), "2026-11-30 08:15:00"),  # noqa: DTZ001 - a timestamp without a zone
        (dt.datetime(2026, 11, 30, 8, 15, 0, 5, tzinfo=CET), "2026-11-30 08:15:00.000005+01:00"),
        (dt.time(8, 15), "08:15:00"),
        (dt.timedelta(days=1, hours=2, seconds=3), "26:00:03"),
        (-dt.timedelta(minutes=90, milliseconds=5), "-1:30:00.005000"),
        (b"\x00\xff", "0x00FF"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ({"a": [1, "ü", None, Decimal("2.50"), dt.date(2026, 1, 1)]}, '{"a": [1, "ü", null, "2.50", "2026-01-01"]}'),
    ],
)
def test_a_value_is_written_so_that_a_person_and_a_program_can_read_it(value: Any, expected: str) -> None:
    """NULL is empty, numbers have no separators, and times are ISO 8601."""
    assert format_value(value) == expected
