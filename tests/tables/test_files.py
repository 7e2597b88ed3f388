"""The result of a query as a file, read by programs that did not write it."""

from __future__ import annotations

import csv
import datetime as dt
import io
import sys
import zipfile
from decimal import Decimal
from typing import Any

import openpyxl
import pyarrow.parquet as pq
import pytest

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail import Attachment
from airflow_provider_smtpcm.tables import files as module
from airflow_provider_smtpcm.tables.files import TemporaryResultFile, check_file_name, check_library, write_file
from tests.tables.samples import Sample, column

CET = dt.timezone(dt.timedelta(hours=1))
MOMENT = dt.datetime(2026, 11, 30, 8, 15)  # noqa: DTZ001 - a timestamp without a zone


def written(table: Any, name: str, **settings: Any) -> bytes:
    """The octets of the file."""
    file = io.BytesIO()
    write_file(table, name, file, **settings)
    return file.getvalue()


def csv_lines(octets: bytes, delimiter: str = ",") -> list[list[str]]:
    """The cells of a CSV file."""
    return list(csv.reader(io.StringIO(octets.decode("utf-8-sig"), newline=""), delimiter=delimiter, strict=True))


def xlsx_cells(octets: bytes) -> list[Any]:
    """The cells of the first column of a workbook."""
    return [row[0] for row in openpyxl.load_workbook(io.BytesIO(octets)).active.iter_rows()]


def parquet(*values: Any) -> tuple[str, list[Any]]:
    """The type of a column with these values in a Parquet file, and what is read from it."""
    read = pq.read_table(io.BytesIO(written(column(*values), "a.parquet")))
    return str(read.schema.field("value").type), read.column("value").to_pylist()


# --- CSV


def test_a_csv_file_is_that_of_the_rfc_and_has_a_byte_order_mark() -> None:
    """By which Excel recognizes UTF-8 (RFC 4180 2)."""
    table = Sample(columns=["id", "näme"], rows=[(1, 'a "b", c'), (2, "two\nlines"), (3, None)])
    octets = written(table, "a.csv")
    assert octets == b'\xef\xbb\xbfid,n\xc3\xa4me\r\n1,"a ""b"", c"\r\n2,"two\nlines"\r\n3,\r\n'
    assert csv_lines(octets) == [["id", "näme"], ["1", 'a "b", c'], ["2", "two\nlines"], ["3", ""]]


@pytest.mark.parametrize(("name", "delimiter", "expected"), [("a.csv", ";", ";"), ("a.TSV", None, "\t")])
def test_another_delimiter_separates_the_cells(name: str, delimiter: str | None, expected: str) -> None:
    """A semicolon for Excel where the decimal sign is a comma, a tab in a file of that kind."""
    table = Sample(columns=["a", "b"], rows=[("x;y", "1\t2")])
    assert csv_lines(written(table, name, delimiter=delimiter), expected) == [["a", "b"], ["x;y", "1\t2"]]


def test_a_row_of_one_empty_cell_is_no_empty_line() -> None:
    """Readers skip empty lines."""
    assert csv_lines(written(column(None, "x"), "a.csv")) == [["value"], [""], ["x"]]


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-A1", "@SUM(1)", "\t=1", "\r=1", "＝A1", '=HYPERLINK("http://a")']
NO_FORMULAS = ["+49 30 1234-5", "-5", "-1.5", "- 2,5 %", "a=b", " =1", "'=x", "", "-", "(030) 12"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_a_spreadsheet_would_run_is_escaped(text: str) -> None:
    """In the name of a column too; a program may ask for the text as it is."""
    table = Sample(columns=[text], rows=[(text,)])
    assert csv_lines(written(table, "a.csv")) == [[f"'{text}"]] * 2
    assert csv_lines(written(table, "a.csv", escape_formulas=False)) == [[text]] * 2


@pytest.mark.parametrize("text", NO_FORMULAS)
def test_numbers_and_telephone_numbers_are_no_formulas(text: str) -> None:
    """They can neither call anything nor name a cell."""
    assert csv_lines(written(column(text, -1.5, float("-inf")), "a.csv")) == [
        ["value"],
        [text],
        ["-1.5"],
        ["-Infinity"],
    ]


# --- Excel


def test_excel_gets_its_own_types() -> None:
    """And the names of the columns in the first line, which stays in view."""
    values = [True, 7, 1.5, Decimal("12.50"), dt.date(2026, 11, 30), MOMENT, "Jürgen", None]
    octets = written(column(*values), "a.xlsx")
    cells = xlsx_cells(octets)
    assert [cell.value for cell in cells] == ["value", True, 7, 1.5, 12.5, dt.datetime(2026, 11, 30), MOMENT, "Jürgen"]  # noqa: DTZ001
    assert [cell.number_format for cell in cells[5:7]] == ["yyyy-mm-dd", "yyyy-mm-dd hh:mm:ss"]
    assert openpyxl.load_workbook(io.BytesIO(octets)).active.freeze_panes == "A2"


def test_what_excel_would_change_is_text() -> None:
    """It has no time zones, fifteen digits, and no days before March 1900."""
    values = [
        10**15,
        Decimal("1234567890.1234567"),
        float("nan"),
        dt.date(1900, 2, 28),
        MOMENT.replace(tzinfo=CET),
        dt.time(8, 15),
        b"\x1f",
        "0012",
    ]
    expected = ["1000000000000000", "1234567890.1234567", "NaN", "1900-02-28", "2026-11-30 08:15:00+01:00"]
    cells = xlsx_cells(written(column(*values), "a.xlsx"))[1:]
    assert [cell.value for cell in cells] == [*expected, "08:15:00", "0x1F", "0012"]
    assert {cell.data_type for cell in cells} <= {"s", "inlineStr"}


@pytest.mark.parametrize("text", [*FORMULAS, "http://corp.example/", "{=1}"])
def test_a_text_is_no_formula_and_no_link(text: str) -> None:
    """In any cell."""
    octets = written(Sample(columns=[text], rows=[(text,)]), "a.xlsx")
    assert {cell.data_type for cell in xlsx_cells(octets)} <= {"s", "inlineStr"}
    assert all(cell.hyperlink is None for cell in xlsx_cells(octets))
    with zipfile.ZipFile(io.BytesIO(octets)) as parts:
        assert b"<f>" not in parts.read("xl/worksheets/sheet1.xml")


def test_what_does_not_fit_into_a_sheet_is_an_error_and_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text, or the rows."""
    assert xlsx_cells(written(column("x" * 32767), "a.xlsx"))[1].value == "x" * 32767
    with pytest.raises(MessageError, match=r"'a\.xlsx'.*'value' of row 2 has more than 32,767 characters.*\.csv or"):
        written(column("", "x" * 32768), "a.xlsx")
    monkeypatch.setattr(module, "_MAX_XLSX_ROWS", 3)
    assert len(xlsx_cells(written(column(1, 2), "a.xlsx"))) == 3
    with pytest.raises(MessageError, match=r"has 3 rows and 1 columns.*\.parquet"):
        written(column(1, 2, 3), "a.xlsx")


# --- Parquet


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, None, -(2**63)], "int64"),
        ([0.5, None], "double"),
        ([True, None], "bool"),
        (["ü", None], "string"),
        ([b"\x00", None], "binary"),
        ([dt.date(1, 1, 1), None], "date32[day]"),
        ([dt.time(8, 15), None], "time64[us]"),
        ([MOMENT, None], "timestamp[us]"),
        ([None, None, None], "string"),
        ([None, None, None, Decimal("12.50"), Decimal("-0.005")], "decimal128(5, 3)"),
        ([2**63, 1], "decimal128(19, 0)"),
        ([Decimal("1E+40"), Decimal("0.5")], "decimal256(42, 1)"),
    ],
)
def test_a_column_of_a_parquet_file_has_the_type_of_all_its_values(values: list[Any], kind: str) -> None:
    """Also where the first thousand are NULL."""
    assert parquet(*values) == (kind, values)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, None, 2.5], "double", [1.0, None, 2.5]),
        ([12345, 1, None, Decimal("2.5")], "decimal128(20, 1)", [12345, 1, None, Decimal("2.5")]),
        ([0.5, Decimal("2.5")], "double", [0.5, 2.5]),
        ([dt.date(2026, 1, 1), MOMENT], "timestamp[us]", [dt.datetime(2026, 1, 1), MOMENT]),  # noqa: DTZ001
        ([1, "x", None], "string", ["1", "x", None]),
        ([MOMENT, MOMENT.replace(tzinfo=CET)], "string", ["2026-11-30 08:15:00", "2026-11-30 08:15:00+01:00"]),
        ([Decimal("NaN"), Decimal(1)], "string", ["NaN", "1"]),
        ([Decimal("1E+90")], "string", ["1" + "0" * 90]),
        ([{"a": 1}, [2]], "string", ['{"a": 1}', "[2]"]),
    ],
)
def test_values_of_several_types_get_one_that_holds_all_or_are_text(
    values: list[Any], kind: str, expected: list[Any]
) -> None:
    """The same text as in the other files; NULL stays NULL."""
    assert parquet(*values) == (kind, expected)


def test_moments_with_different_zones_are_the_same_moments() -> None:
    """A column has one zone."""
    moments = [MOMENT.replace(tzinfo=CET), MOMENT.replace(tzinfo=dt.UTC)]
    kind, read = parquet(*moments)
    assert kind == "timestamp[us, tz=UTC]"
    assert read == moments


# --- All of them


@pytest.mark.parametrize("name", ["a.csv", "a.xlsx", "a.parquet"])
def test_a_result_without_rows_has_the_names_of_its_columns(name: str) -> None:
    """In each kind of file."""
    octets = written(Sample(columns=["id", "name"], rows=[]), name)
    if name == "a.csv":
        assert csv_lines(octets) == [["id", "name"]]
    elif name == "a.xlsx":
        sheet = openpyxl.load_workbook(io.BytesIO(octets)).active
        assert [[cell.value for cell in row] for row in sheet.iter_rows()] == [["id", "name"]]
    else:
        read = pq.read_table(io.BytesIO(octets))
        assert (read.column_names, read.num_rows) == (["id", "name"], 0)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.pdf", r"'a\.pdf' is not a kind of file.*ends in \.csv"),
        ("orders", "is not a kind of file"),
        ("", "is not a kind of file"),
        ("out/a.csv", "is not the name of a file"),
        (r"C:\a.csv", "is not the name of a file"),
        ("../a.csv", "is not the name of a file"),
    ],
)
def test_a_name_that_says_no_kind_of_file_is_an_error(name: str, said: str) -> None:
    """So is a path: nothing is written to where it leads."""
    with pytest.raises(MessageError, match=said):
        check_file_name(name)


@pytest.mark.parametrize(
    ("name", "library", "extra"), [("a.xlsx", "xlsxwriter", "xlsx"), ("a.parquet", "pyarrow", "parquet")]
)
def test_a_missing_library_is_named_with_its_extra(
    name: str, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the query runs."""
    monkeypatch.setattr(module, "find_spec", lambda wanted: None if wanted == library else sys)
    with pytest.raises(MessageError, match=rf"{library} is not installed.*'airflow-provider-smtpcm\[{extra}\]'"):
        check_library(name)


def test_a_file_without_a_name_is_an_attachment_that_is_read_as_often_as_needed() -> None:
    """Two readers at once do not disturb each other, and nothing is left on the disk."""
    path = TemporaryResultFile("a.csv")
    path.file.write(b"0123456789")
    path.file.flush()
    attachment = Attachment(path, name="a.csv", content_type=check_file_name("a.csv"))
    assert attachment.size() == 10
    one, two = attachment.open(), attachment.open()
    assert [one.read(4), two.read(6), one.read(100), one.read(1)] == [b"0123", b"012345", b"456789", b""]
    assert attachment.state(one) == attachment.state()
    path.close()
