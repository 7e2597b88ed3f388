"""Rows are read one at a time from any source; a fault in one does not affect the others."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.merge import rows as module
from airflow_provider_smtpcm.merge.rows import Row, Rows
from airflow_provider_smtpcm.operators.mail_merge import to_storage_path
from tests.smtp.files import overwrite, replace

PEOPLE = [{"email": "jane@corp.example", "name": "Jane"}, {"email": "bjoern@corp.example", "name": "Björn; B."}]
CSV = 'email,name\njane@corp.example,Jane\nbjoern@corp.example,"Björn; B."\n'


def opened(rows: Any, *, encoding: str = "utf-8-sig", delimiter: str | None = None) -> Rows:
    return module.open_rows(rows, encoding=encoding, delimiter=delimiter, to_path=to_storage_path)


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def parquet(path: Path, columns: dict[str, list[Any]]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def columns_of(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (None, "'rows' is None.*Return the rows"),
        ({"email": "jane@corp.example"}, "a list or a path, not dict.*list of mappings"),
        (b"rows.csv", "not bytes"),
        (5, "not int"),
        (" ", "an empty string.*ends in .csv"),
        ("[{'email': 'jane@corp.example'}]", r"turned into text.*the_other_task\.output"),
        ("rows.xlsx", r"rows\.xlsx.*ends in \.csv"),
        ("rows", "is not a supported kind of file"),
        ("/nowhere/rows.csv", "'/nowhere/rows.csv' cannot be read: No such file.*on the worker"),
        (Path("/nowhere/rows.jsonl"), "cannot be read"),
        (r"\\files\loads\rows.csv", r"'\\\\files\\loads\\rows\.csv' cannot be read.*on Windows.*mount the share"),
        (r"D:\loads\rows.jsonl", r"'D:\\loads\\rows\.jsonl' cannot be read.*a path on Windows"),
        ("file:///nowhere/rows.csv", "file:///nowhere/rows.csv' cannot be read.*provider for that storage"),
        ("s3://bucket/rows.csv", "s3://bucket/rows.csv' cannot be read.*provider for that storage"),
        # Airflow 3.3 knows when it is made, before that when it is opened.
        (
            "nosuch://bucket/rows.csv",
            "(not a URL that Airflow can open|cannot be read: No filesystem registered).*provider for that storage",
        ),
    ],
)
def test_what_are_no_rows_is_refused_with_the_remedy(rows: object, said: str) -> None:
    """Another attempt would fail in the same way."""
    with pytest.raises(MessageError, match=f"(?s){said}") as caught:
        opened(rows)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty.*names of the columns"),
        ("\n\n", "is empty"),
        ("email,name,email\n", "more than one column 'email'"),
        ("email, ,name\n", "Column 2 of .* has no name"),
        ("email,name\n".encode("utf-16"), "rows_encoding"),
        ("email,name\n".encode("utf-16-le"), "U\\+0000.*rows_encoding='utf-16-le'"),
    ],
)
def test_a_file_whose_columns_have_no_names_of_their_own_is_refused(
    content: str | bytes, said: str, tmp_path: Path
) -> None:
    """Which of two columns would `row.email` be?"""
    with pytest.raises(MessageError, match=said):
        opened(str(written(tmp_path / "rows.csv", content)))


def test_so_are_such_a_frame_and_such_a_parquet_file(tmp_path: Path) -> None:
    """Pandas would warn, and take the last."""
    frame = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(MessageError, match="'rows' has more than one column 'a'"):
        opened(frame)
    with pytest.raises(MessageError, match="name of a column of 'rows' has to be text; 0 is not"):
        opened(pd.DataFrame([[1, 2]]))
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(MessageError, match=r"rows\.parquet' has more than one column 'a'"):
        opened(tmp_path / "rows.parquet")


def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path) -> None:
    """And so is an encoding that does not exist."""
    with pytest.raises(MessageError, match="cannot be read"):
        opened(written(tmp_path / "rows.parquet", "email,name\n"))
    with pytest.raises(MessageError, match=r"klingon.*rows_encoding"):
        opened(written(tmp_path / "rows.csv", CSV), encoding="klingon")


def test_a_file_of_rows_that_would_block_is_refused(tmp_path: Path) -> None:
    """Opening a FIFO waits for a program that writes to it. A retry would not help."""
    for name in ("rows.csv", "rows.jsonl", "rows.parquet"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(MessageError, match="it is not a regular file") as caught:
            opened(str(tmp_path / name))
        assert not caught.value.retryable


def test_a_share_that_is_busy_may_be_asked_again() -> None:
    """Which Airflow retries."""

    class Busy:
        def open(self, mode: str) -> object:
            assert mode == "rb"
            raise OSError(5, "Input/output error")

        def __str__(self) -> str:
            return "/mnt/share/rows.csv"

    with pytest.raises(MessageError, match="Input/output error") as caught:
        opened(Busy())
    assert caught.value.retryable


def test_parquet_without_a_library_for_it_says_which_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pandas alone will do, if it can read the format."""
    path = parquet(tmp_path / "rows.parquet", columns_of(PEOPLE))
    frame = pd.DataFrame(PEOPLE)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MessageError, match="cannot be read"):
        opened(path)
    monkeypatch.setattr(pd, "read_parquet", lambda _: frame)
    assert list(opened(path).items) == PEOPLE
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MessageError, match=r"pip install 'airflow-provider-smtpcm\[parquet\]'"):
        opened(path)


def test_a_line_with_too_many_cells_is_no_row_and_the_next_one_is(tmp_path: Path) -> None:
    """The error names the line as an editor counts it."""
    path = written(tmp_path / "rows.csv", 'a,b\n1,"x\ny"\n1,2,3\n\n4\n5,6\n')
    first, second, third, fourth = opened(path).items
    assert (first, fourth) == ({"a": "1", "b": "x\ny"}, {"a": "5", "b": "6"})
    assert str(second).startswith("Line 4 has 3 cells, but the first line names 2 columns")
    assert str(third).startswith("Line 6 has 1 cells")


@pytest.mark.parametrize(
    ("delimiter", "named"), [(";", "';'? Set delimiter=';'"), ("\t", "a tab? Set delimiter='\\t'"), ("|", "'|'")]
)
def test_a_file_that_is_separated_otherwise_says_by_what(delimiter: str, named: str, tmp_path: Path) -> None:
    """As Excel writes CSV where the comma is for decimals: the header is one column, and a row may be two."""
    path = written(tmp_path / "rows.csv", f"email{delimiter}betrag\njane@corp.example{delimiter}1,50\n")
    (error,) = opened(path).items
    assert f"Line 2 has 2 cells, but the first line names 1 column. Is the file separated by {named}" in str(error)
    assert list(opened(path, delimiter=delimiter).items) == [{"email": "jane@corp.example", "betrag": "1,50"}]


MISSING = [
    math.nan,
    Decimal("NaN"),
    Decimal("sNaN"),
    np.float64("nan"),
    np.float32("nan"),
    np.datetime64("NaT"),
    pd.NA,
    pd.NaT,
]


@pytest.mark.parametrize("value", MISSING, ids=lambda value: f"{type(value).__name__}")
def test_a_value_that_is_no_number_is_missing(value: object) -> None:
    """As it is in a data frame; `frame.to_dict("records")` has it in its mappings."""
    (row,) = opened([{"email": "jane@corp.example", "amount": value, "array": np.array([1.0, math.nan])}]).items
    assert isinstance(row, Row)
    assert row["amount"] is None
    assert len(row["array"]) == 2


def test_json_lines_and_parquet_may_have_missing_values(tmp_path: Path) -> None:
    """Python and pandas write NaN into JSON, although JSON has none."""
    path = written(tmp_path / "rows.jsonl", '{"name": NaN, "amount": 1.5}\n{"name": "nan", "amount": Infinity}\n')
    assert list(opened(path).items) == [{"name": None, "amount": 1.5}, {"name": "nan", "amount": math.inf}]
    path = parquet(tmp_path / "rows.parquet", {"amount": [math.nan, 1.0]})
    assert list(opened(path).items) == [{"amount": None}, {"amount": 1.0}]


def test_the_mappings_of_the_author_are_not_changed() -> None:
    """They may be used again."""
    rows = [{"amount": math.nan}]
    list(opened(rows).items)
    assert math.isnan(rows[0]["amount"])


def test_a_line_that_is_no_json_object_is_no_row_and_the_next_one_is(tmp_path: Path) -> None:
    """In JSON Lines every line is a row of its own."""
    path = written(tmp_path / "rows.jsonl", '{"a": 1}\n{"a": \n[1]\n\n' + "[" * 100_000 + '\n{"a": 2}')
    first, second, third, fourth, fifth = opened(path).items
    assert (first, fifth) == ({"a": 1}, {"a": 2})
    assert [str(error)[:20] for error in (second, third)] == ["Line 2 is not JSON (", "Line 3 is not a JSON"]
    assert isinstance(fourth, MessageError)


def test_an_item_that_is_no_mapping_is_no_row_and_the_next_one_is() -> None:
    """Such as the list of lists that a mapped task may return."""
    first, second, third, fourth = opened([["jane@corp.example"], {1: "x"}, "x", {"a": "x"}]).items
    assert str(first).startswith("A row has to be a mapping, not list")
    assert str(second).startswith("The name of a column has to be text; 1 is not")
    assert isinstance(third, MessageError)
    assert fourth == {"a": "x"}


def test_where_nobody_can_tell_the_next_row_the_rows_end_in_an_error(tmp_path: Path) -> None:
    """What came before is there."""
    quoted = written(tmp_path / "rows.csv", 'a,b\n1,2\n3,"4\n5,6\n7,8\n')
    rows = opened(quoted).items
    assert next(rows) == {"a": "1", "b": "2"}
    with pytest.raises(MessageError, match=r"cannot be read from line 3 on.*JSON Lines"):
        next(rows)

    lines = "".join(f"{number}\n" for number in range(5000)).encode()
    for name in ("rows.csv", "rows.jsonl"):
        rows = opened(written(tmp_path / name, b"1\n" + lines + b"M\xfcller\n")).items
        with pytest.raises(MessageError, match=r"after line .*'rows_encoding'") as caught:
            list(rows)
        assert not caught.value.retryable


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_a_file_that_is_written_to_while_its_rows_are_read_gives_no_row_of_both(name: str, tmp_path: Path) -> None:
    """Half an old line and half a new one would be an address in neither; a later attempt reads the new file."""
    line = '{"email": "%s@old.example"}\n' if name.endswith("jsonl") else "%s@old.example\n"
    heading = "" if name.endswith("jsonl") else "email\n"
    text = heading + "".join(line % f"person{number:06}" for number in range(10_000))
    path = written(tmp_path / name, text)
    items = opened(path).items
    assert next(items) == {"email": "person000000@old.example"}
    overwrite(path, text.replace("old", "new").encode())
    emails: list[str] = []
    with pytest.raises(MessageError, match="it was written to while it was read") as caught:
        emails += (row["email"] for row in items if isinstance(row, dict))
    assert caught.value.retryable
    assert "rename" in caught.value.remedy
    assert {email.partition("@")[2] for email in emails} == {"old.example"}


def test_a_file_that_is_replaced_while_its_rows_are_read_is_read_to_its_end(tmp_path: Path) -> None:
    """As it was when it was opened."""
    path = written(tmp_path / "rows.csv", "email\n" + "jane@old.example\n" * 10_000)
    items = opened(path).items
    assert next(items) == {"email": "jane@old.example"}
    replace(path, b"email\n")
    assert len(list(items)) == 9_999


def test_a_parquet_file_that_breaks_off_ends_in_an_error(tmp_path: Path) -> None:
    """Its columns were known, from its end."""
    path = parquet(tmp_path / "rows.parquet", {"a": [f"{number}" * 50 for number in range(3000)]})
    octets = bytearray(path.read_bytes())
    octets[100:20_000] = bytes(19_900)
    rows = opened(written(path, bytes(octets)))
    with pytest.raises(MessageError, match="cannot be read"):
        list(rows.items)


SOURCES: dict[str, Callable[[Path], Any]] = {
    "a list": lambda _: PEOPLE,
    "a tuple": lambda _: tuple(PEOPLE),
    "a generator": lambda _: (person for person in PEOPLE),
    "a CSV file": lambda folder: str(written(folder / "rows.csv", CSV)),
    "a CSV file from Excel": lambda folder: written(folder / "rows.CSV", "\ufeff" + CSV.replace("\n", "\r\n")),
    "a TSV file": lambda folder: str(written(folder / "rows.tsv", CSV.replace(",", "\t"))),
    "a JSON Lines file": lambda folder: written(folder / "rows.jsonl", "\n".join(map(json.dumps, PEOPLE))),
    "an NDJSON file": lambda folder: written(folder / "rows.ndjson", "\r\n\r\n".join(map(json.dumps, PEOPLE))),
    "a Parquet file": lambda folder: str(parquet(folder / "rows.parquet", columns_of(PEOPLE))),
    "a URL": lambda folder: f"file://{written(folder / 'rows.csv', CSV)}",
    "a URL of Parquet": lambda folder: f"file://{parquet(folder / 'rows.parquet', columns_of(PEOPLE))}",
    "a data frame": lambda _: pd.DataFrame(PEOPLE),
}


@pytest.mark.parametrize("source", SOURCES)
def test_the_same_rows_are_the_same_wherever_they_come_from(source: str, tmp_path: Path) -> None:
    """With or without a byte order mark, blank lines and quotation marks."""
    rows = list(opened(SOURCES[source](tmp_path)).items)
    assert rows == PEOPLE
    assert all(type(row) is Row for row in rows)


def test_a_path_object_of_airflow_s_is_opened_by_itself(tmp_path: Path) -> None:
    """An ObjectStoragePath is no `os.PathLike`."""
    from airflow.sdk import ObjectStoragePath

    written(tmp_path / "rows.csv", CSV)
    assert list(opened(ObjectStoragePath(f"file://{tmp_path}/rows.csv")).items) == PEOPLE


def test_a_row_of_a_database_is_one() -> None:
    """It has keys, and iterates over its values."""
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    rows = connection.execute("SELECT 7 AS id, 'jane@corp.example' AS email").fetchall()
    connection.close()
    assert list(opened(rows).items) == [{"id": 7, "email": "jane@corp.example"}]


def test_a_csv_file_may_be_in_another_encoding_and_have_another_delimiter(tmp_path: Path) -> None:
    """As a German Excel writes it."""
    path = written(tmp_path / "rows.csv", "Name ;Ort\r\nMüller;Köln\r\n".encode("cp1252"))
    assert list(opened(path, encoding="cp1252", delimiter=";").items) == [{"Name": "Müller", "Ort": "Köln"}]


def test_a_data_frame_may_have_any_columns_and_its_missing_values_are_none() -> None:
    """A table of prices has a column `open`; integers stay integers beside what is missing."""
    frame = pd.DataFrame(
        {
            "open": [1.5, None],
            "count": pd.array([3, None], dtype="Int64"),
            "day": pd.to_datetime(["2024-01-31", None]),
            "to": [["a", "b"], None],
        }
    )
    first, second = opened(frame).items
    assert first == {"open": 1.5, "count": 3, "day": pd.Timestamp("2024-01-31"), "to": ["a", "b"]}
    assert second == {"open": None, "count": None, "day": None, "to": None}


def test_a_long_frame_and_a_long_parquet_file_come_by_and_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches, whose boundaries do not show."""
    monkeypatch.setattr(module, "_CHUNK_ROWS", 7)
    numbers = {"n": list(range(30))}
    expected = [{"n": number} for number in range(30)]
    assert list(opened(pd.DataFrame(numbers)).items) == expected
    assert list(opened(parquet(tmp_path / "rows.parquet", numbers)).items) == expected


def test_rows_are_taken_one_at_a_time() -> None:
    """Whatever gives them need not have all of them at once."""
    taken = []

    def rows() -> Iterator[dict[str, int]]:
        for number in range(3):
            taken.append(number)
            yield {"n": number}

    items = opened(rows()).items
    assert taken == []
    next(items)
    assert taken == [0]


def test_how_far_a_merge_has_come_is_known_where_it_can_be(tmp_path: Path) -> None:
    """By the number of the rows, or else by how much of the file was read."""
    assert opened(iter(PEOPLE)).fraction_done(1) is None
    assert opened(PEOPLE).fraction_done(1) == 0.5
    assert opened([]).fraction_done(0) == 0.0
    assert opened(parquet(tmp_path / "rows.parquet", columns_of(PEOPLE))).fraction_done(1) == 0.5

    lines = "".join(f"{number:05}\n" for number in range(20_000))
    for path in (written(tmp_path / "rows.csv", "n\n" + lines), f"file://{tmp_path}/rows.csv"):
        rows = opened(path)
        assert rows.total is None
        for _ in range(10_000):
            next(rows.items)
        fraction_done = rows.fraction_done(10_000)
        assert fraction_done is not None
        assert 0.5 <= fraction_done < 0.6
        assert len(list(rows.items)) == 10_000
        assert rows.fraction_done(20_000) == 1.0
