"""The results of a statement become the values of variables, as an Execute SQL task makes them."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
import uuid
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_smtpcm.ssis.live_values import to_json
from airflow_provider_smtpcm.ssis.sql_results import (
    Processor,
    SqlResultError,
    fetch_results,
    full_result_set,
    no_result_set,
    result_rows,
    single_row,
)


class Batch:
    """A cursor over several results (PEP 249), as pyodbc has it after a batch; None is a count of rows."""

    def __init__(self, *results: tuple[Sequence[str], Sequence[Sequence[Any]]] | Exception | None) -> None:
        self._results = list(results)
        self.description: list[tuple[str]] | None
        self._open()

    def _open(self) -> None:
        if isinstance(result := self._results.pop(0), Exception):
            raise result
        columns, self._rows = result or ((), ())
        self.description = [(name,) for name in columns] or None

    def fetchall(self) -> Sequence[Sequence[Any]]:
        return self._rows

    def nextset(self) -> bool:
        if not self._results:
            return False
        self._open()
        return True


def process(processor: Processor, *results: Any) -> Any:
    """Return what the task returns: the operator passes what the handler returns in a list, and takes the last."""
    return processor([fetch_results(Batch(*results))], [])[-1]


PEOPLE = (("Email", "Name"), [["a@corp.example", "Jane"], ["b@corp.example", None]])


def test_a_single_row_sets_variables_by_column_number_and_name() -> None:
    """Names regardless of case; the first of several rows counts."""
    values = process(single_row({"User::To": 0, "User::Name": "NAME"}), PEOPLE)
    assert values == {"User::To": "a@corp.example", "User::Name": "Jane"}


def test_counts_of_rows_before_the_result_set_do_not_matter() -> None:
    """An UPDATE in a batch reports one if NOCOUNT is off."""
    assert process(single_row({"User::To": "email"}), None, PEOPLE, None) == {"User::To": "a@corp.example"}


def test_without_a_row_the_task_fails() -> None:
    """As in SSIS: the variables keep no value of an earlier run."""
    with pytest.raises(SqlResultError, match="returned no row"):
        process(single_row({"User::To": 0}), (("Email",), []))


@pytest.mark.parametrize(
    "processor", [single_row({"User::To": 0}), full_result_set("User::People"), no_result_set(outputs=["User::Rows"])]
)
def test_without_a_result_set_the_task_fails(processor: Processor) -> None:
    """A statement that only changes rows."""
    with pytest.raises(SqlResultError, match="returned no result set"):
        process(processor, None)


@pytest.mark.parametrize("column", [2, "Phone"])
def test_a_column_that_is_not_there_fails_and_the_others_are_named(column: int | str) -> None:
    """By number and by name."""
    with pytest.raises(SqlResultError, match=rf"no column {column!r}; its columns are 'Email', 'Name'"):
        process(single_row({"User::To": column}), PEOPLE)


def test_null_fails_unless_the_variable_is_an_object() -> None:
    """As in SSIS, whose variables of other types are never null."""
    row = (("Name",), [[None]])
    with pytest.raises(SqlResultError, match="User::Name is NULL"):
        process(single_row({"User::Name": 0}), row)
    assert process(single_row({"User::Name": 0}, nullable=["User::Name"]), row) == {"User::Name": None}


def test_a_full_result_set_is_a_list_of_lists() -> None:
    """Nulls included."""
    assert process(full_result_set("User::People"), PEOPLE) == {"User::People": [list(row) for row in PEOPLE[1]]}
    assert process(full_result_set("User::People"), (("Email",), [])) == {"User::People": []}


def test_the_rows_of_a_loop_have_names() -> None:
    """For a merge or for `expand`."""
    rows = process(result_rows({"to": 0, "name": "name"}), PEOPLE)
    assert rows == [{"to": "a@corp.example", "name": "Jane"}, {"to": "b@corp.example", "name": None}]
    assert process(result_rows({"to": 0}), (("Email",), [])) == []


def test_without_a_result_the_task_returns_nothing() -> None:
    """Also if the statement returns rows that no variable gets."""
    assert process(no_result_set(), None) is None
    assert process(no_result_set(), PEOPLE) is None


def test_output_parameters_are_the_last_result_set() -> None:
    """With and without a result set of the procedure."""
    decimals = (("Sum", "Whole"), [[Decimal("12.5000000000"), Decimal("100.0000000000")]])
    processor = no_result_set(outputs=["User::Sum", "User::Whole"], padded=["User::Sum", "User::Whole"])
    assert process(processor, None, decimals) == {"User::Sum": "12.5", "User::Whole": 100}
    outputs = (("Rows", "Code"), [[12, 0]])
    processor = no_result_set(outputs=["User::Rows", "User::Code"])
    assert process(processor, None, outputs) == {"User::Rows": 12, "User::Code": 0}
    processor = single_row({"User::To": 0}, outputs=["User::Rows", "User::Code"])
    assert process(processor, PEOPLE, outputs) == {"User::To": "a@corp.example", "User::Rows": 12, "User::Code": 0}
    with pytest.raises(SqlResultError, match="returned no result set"):
        process(processor, outputs)


def test_an_error_in_a_later_statement_of_a_batch_fails_the_task() -> None:
    """A driver raises it only when its result is read."""
    with pytest.raises(RuntimeError, match="division by zero"):
        process(no_result_set(), None, RuntimeError("division by zero"))


def test_a_database_without_batches_has_one_result() -> None:
    """Some cursors have no `nextset`, others raise NotSupportedError."""
    cursor = sqlite3.connect(":memory:").execute("SELECT 1 AS n")
    assert single_row({"User::Rows": "n"})([fetch_results(cursor)], []) == [{"User::Rows": 1}]

    class Psycopg(Batch):
        def nextset(self) -> bool:
            raise sqlite3.NotSupportedError

    assert no_result_set()([fetch_results(Psycopg(PEOPLE))], []) == [None]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True),
        (2**40, 2**40),
        (1.5, 1.5),
        (float("nan"), None),
        ("Jürgen 'x'", "Jürgen 'x'"),
        (None, None),
        (Decimal(12), 12),
        (Decimal("12.50"), "12.50"),
        (Decimal("0.1000000000000000000000001"), "0.1000000000000000000000001"),
        (dt.datetime(2026, 11, 29, 10, 57, 48, 123000), "2026-11-29 10:57:48.123000"),  # noqa: DTZ001
        (dt.date(2026, 11, 29), "2026-11-29"),
        (dt.time(10, 57), "10:57:00"),
        (uuid.UUID(int=10), "{00000000-0000-0000-0000-00000000000A}"),
        (b"\x00\xff", "0x00FF"),
        (memoryview(b"a"), "0x61"),
        ([(1, Decimal("1.0"))], [[1, "1.0"]]),
    ],
)
def test_values_become_json_that_keeps_all_digits(value: object, expected: object) -> None:
    """Airflow would make a float of a decimal number, and has no form for bytes."""
    assert to_json(value) == expected
    assert json.loads(json.dumps(to_json(value))) == expected
