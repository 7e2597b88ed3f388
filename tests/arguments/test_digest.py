"""The digest of arguments: the same in every process, another for other values."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_smtpcm.arguments.digest import digest
from airflow_provider_smtpcm.mail import Attachment

VALUES: list[Any] = [
    None,
    "",
    "a",
    b"a",
    1,
    True,
    ["a"],
    ["a", "b"],
    ["ab"],
    {"a": "b"},
    {"a": b"b"},
    {"a": b"b", "c": b"d"},
    {"a", "b"},
    Path("/srv/a.csv"),
    date(2026, 1, 31),
    Attachment(b"a", name="a.csv"),
    Attachment(b"b", name="a.csv"),
    [date(2026, 1, 31), {"x": Path("y")}],
]


def test_other_values_have_another_digest() -> None:
    """Also values that look alike."""
    assert len({digest(value) for value in VALUES}) == len(VALUES)


def test_it_is_the_same_in_every_process() -> None:
    """The order of a set, and the addresses of objects, are not."""
    code = "from tests.arguments.test_digest import *; print([digest(value) for value in VALUES])"
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
        ).stdout
        for seed in ("1", "2")
    }
    assert printed == {f"{[digest(value) for value in VALUES]}\n"}


@pytest.mark.parametrize("value", [(row for row in "ab"), lambda: 1, [{"x": (row for row in "ab")}]])
def test_what_has_no_content_has_no_digest(value: Any) -> None:
    """Reading a generator would use it up."""
    with pytest.raises(TypeError):
        digest(value)
