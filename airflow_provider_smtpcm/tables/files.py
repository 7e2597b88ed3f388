"""The result of a query as a file, which its name chooses: CSV, Excel or Parquet, in constant memory."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time
from decimal import Decimal
from importlib.util import find_spec
from itertools import islice
from pathlib import PurePath
from typing import IO, Any, Protocol

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.tables.values import format_value, is_number

# The media type of each kind of file, and the library and the extra that write it.
_KINDS: dict[str, tuple[str, tuple[str, str] | None]] = {
    ".csv": ("text/csv; charset=utf-8", None),
    ".tsv": ("text/tab-separated-values; charset=utf-8", None),
    ".xlsx": ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", ("xlsxwriter", "xlsx")),
    ".parquet": ("application/vnd.apache.parquet", ("pyarrow", "parquet")),
}
_NAME_REMEDY = "Give a name that ends in .csv, .tsv, .xlsx or .parquet, such as 'orders.csv'."

# A spreadsheet runs a cell of a CSV file that begins so (OWASP, CSV injection). After a sign, digits and their
# punctuation alone are a number, or a telephone number.
_FORMULA = re.compile(r"[=@\t\r\n＝＠]|[+\-＋－](?![\d .,()/:%+-]*\Z)")

# Limits of Excel.
_MAX_XLSX_ROWS = 1_048_576
_MAX_XLSX_COLUMNS = 16_384
_MAX_XLSX_TEXT = 32_767
#: The significant digits that a number keeps in Excel.
_XLSX_DIGITS = 15
# Before this day Excel counts one day too many, since it takes 1900 for a leap year.
_FIRST_XLSX_DATE = date(1900, 3, 1)
_MAX_XLSX_WIDTH = 60

# Batches of rows in one row group of a Parquet file.
_ROW_GROUP_BATCHES = 50
_MAX_INT64 = 2**63
_INT64_DIGITS = 19


class Table(Protocol):
    """A table whose rows are read as often as they are needed."""

    @property
    def columns(self) -> Sequence[str]:
        """The names of the columns, all different."""

    def __len__(self) -> int: ...

    def batches(self) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows, some at a time."""


class TemporaryResultFile:
    """A file without a name on the worker, which `Attachment` accepts as a path.

    Args:
        name: the name that it stands for.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.file: IO[bytes] = tempfile.TemporaryFile(prefix="smtpcm-")  # noqa: SIM115 - closed by `close`

    def __str__(self) -> str:
        return self.name

    def open(self, mode: str = "rb") -> _Reader:  # noqa: ARG002 - as every path has it
        """Return a reader with a position of its own."""
        return _Reader(self.file.fileno())

    def stat(self) -> os.stat_result:
        """Return the state of the file."""
        return os.fstat(self.file.fileno())

    def close(self) -> None:
        """Delete the file."""
        with suppress(OSError):  # what could not be written
            self.file.close()

    def __del__(self) -> None:
        self.close()


class _Reader:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = 0

    def read(self, size: int, /) -> bytes:
        octets = os.pread(self._descriptor, size, self._position)
        self._position += len(octets)
        return octets

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        """Do nothing: the file is closed by its owner."""


def check_file_name(name: str) -> str:
    """Return the media type of a file that `write_file` can write.

    Raises:
        MessageError: the name is a path, or has no known extension.
    """
    if PurePath(name).name != name or "\\" in name:
        raise MessageError(f"'{name}' is not the name of a file.", remedy=_NAME_REMEDY)
    suffix = PurePath(name).suffix.lower()
    if suffix not in _KINDS:
        raise MessageError(f"'{name}' is not a kind of file that a result can be written to.", remedy=_NAME_REMEDY)
    return _KINDS[suffix][0]


def check_library(name: str) -> None:
    """Check that the library that writes this kind of file is installed here.

    Args:
        name: the name of the file, which `check_file_name` has accepted.

    Raises:
        MessageError: it is not; names the extra.
    """
    _, library = _KINDS[PurePath(name).suffix.lower()]
    if library is not None and find_spec(library[0]) is None:
        raise MessageError(
            f"'{name}' cannot be written: {library[0]} is not installed on the worker.",
            remedy=f"Install the extra on the workers: pip install 'airflow-provider-smtpcm[{library[1]}]'.",
        )


def write_file(
    table: Table, name: str, file: IO[bytes], *, delimiter: str | None = None, escape_formulas: bool = True
) -> None:
    """Write a table into a file.

    Args:
        table: the table.
        name: the name of the file, which `check_file_name` has accepted.
        file: the file, open for writing.
        delimiter: between the cells of a CSV file; None: a comma, or a tab in a .tsv file.
        escape_formulas: whether a text that a spreadsheet would run gets an apostrophe in front of it in a CSV file.

    Raises:
        MessageError: the table does not fit into this kind of file.
    """
    suffix = PurePath(name).suffix.lower()
    if suffix == ".xlsx":
        _write_xlsx(table, name, file)
    elif suffix == ".parquet":
        _write_parquet(table, file)
    else:
        _write_csv(
            table, file, delimiter=delimiter or ("\t" if suffix == ".tsv" else ","), escape_formulas=escape_formulas
        )
    file.flush()


# --- CSV


def _write_csv(table: Table, file: IO[bytes], *, delimiter: str, escape_formulas: bool) -> None:
    """Write RFC 4180 in UTF-8, with the byte order mark by which Excel recognizes it."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\r\n")
    format_cell: Callable[[Any], str] = _format_safely if escape_formulas else format_value
    writer.writerow(map(format_cell, table.columns))
    for rows in table.batches():
        writer.writerows([format_cell(value) for value in row] for row in rows)
    text.detach()


def _format_safely(value: Any) -> str:
    text = format_value(value)
    return f"'{text}" if _FORMULA.match(text) and not is_number(value) else text


# --- Excel


def _write_xlsx(table: Table, name: str, file: IO[bytes]) -> None:
    """Write a workbook with one sheet, whose first line names the columns. Text is never a formula or a link."""
    from xlsxwriter import Workbook

    if len(table) >= _MAX_XLSX_ROWS or len(table.columns) > _MAX_XLSX_COLUMNS:
        raise MessageError(
            f"'{name}' cannot be written: the result has {len(table):,} rows and {len(table.columns):,} columns, and a "
            f"sheet of Excel has {_MAX_XLSX_ROWS - 1:,} rows below the names of {_MAX_XLSX_COLUMNS:,} columns.",
            remedy="Attach it as .csv or .parquet, or select less.",
        )
    with tempfile.TemporaryDirectory(prefix="smtpcm-") as folder:
        workbook = Workbook(file, {"constant_memory": True, "tmpdir": folder})
        sheet = workbook.add_worksheet()
        bold = workbook.add_format({"bold": True})
        formats = {
            date: workbook.add_format({"num_format": "yyyy-mm-dd"}),
            datetime: workbook.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"}),
        }
        sheet.freeze_panes(1, 0)
        rows = (row for batch in table.batches() for row in batch)
        first = list(islice(rows, 100))
        for index, column in enumerate(table.columns):
            texts = [column, *(format_value(row[index]) for row in first)]
            sheet.set_column(index, index, min(max(map(len, texts)) + 2, _MAX_XLSX_WIDTH))
            sheet.write_string(0, index, column, bold)
        number = 0
        for part in (first, rows):
            for row in part:
                number += 1
                for index, value in enumerate(row):
                    if value is not None and _write_cell(sheet, number, index, value, formats) < 0:
                        raise MessageError(
                            f"'{name}' cannot be written: column {table.columns[index]!r} of row {number} has more "
                            f"than {_MAX_XLSX_TEXT:,} characters, the most that a cell of Excel can have.",
                            remedy="Attach it as .csv or .parquet, or select less of the column.",
                        )
        workbook.close()


def _write_cell(sheet: Any, row: int, column: int, value: Any, formats: Mapping[Any, Any]) -> int:
    """Write a value with its own type where Excel has it without loss, else as text; return what XlsxWriter returns."""
    kind = type(value)
    result: int
    if kind is bool:
        result = sheet.write_boolean(row, column, value)
    elif _is_exact_in_xlsx(value):
        result = sheet.write_number(row, column, float(value) if kind is Decimal else value)
    elif kind is date and value >= _FIRST_XLSX_DATE:
        result = sheet.write_datetime(row, column, value, formats[date])
    elif kind is datetime and value.tzinfo is None and value.date() >= _FIRST_XLSX_DATE:
        result = sheet.write_datetime(row, column, value, formats[datetime])
    else:
        result = sheet.write_string(row, column, format_value(value))
    return result


def _is_exact_in_xlsx(value: Any) -> bool:
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    if kind is int:
        return bool(abs(value) < 10**_XLSX_DIGITS)
    if kind is not Decimal or not value.is_finite():
        return False
    number: Decimal = value
    return len(number.as_tuple().digits) <= _XLSX_DIGITS and abs(number.adjusted()) <= _XLSX_DIGITS


# --- Parquet


def _write_parquet(table: Table, file: IO[bytes]) -> None:
    """Write a file whose types fit all rows; so these are read twice.

    A column with values of types that have no common one is text, as in the other files.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    kinds = [_ColumnType() for _ in table.columns]
    for rows in table.batches():
        for kind, values in zip(kinds, zip(*rows, strict=True), strict=True):
            kind.add(values)
    types = [kind.find_type(pa) for kind in kinds]
    schema = pa.schema([pa.field(name, of) for name, (of, _) in zip(table.columns, types, strict=True)])
    with ParquetWriter(file, schema) as writer:
        batches = table.batches()
        while group := list(islice(batches, _ROW_GROUP_BATCHES)):
            columns = zip(*(row for rows in group for row in rows), strict=True)
            arrays = [
                pa.array([None if value is None else convert(value) for value in values], of)
                for values, (of, convert) in zip(columns, types, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


class _ColumnType:
    """What the values of a column have in common, as far as they were seen."""

    def __init__(self) -> None:
        self._types: set[type] = set()
        self._is_large = False
        self._zones: set[bool] = set()
        # The digits of decimal numbers before and after the point; None: one of them is not finite.
        self._digits: tuple[int, int] | None = (1, 0)

    def add(self, values: Sequence[Any]) -> None:
        """Take the values of a batch into account."""
        types = set(map(type, values)) - {type(None)}
        self._types |= types
        if int in types:
            self._is_large |= any(type(value) is int and not -_MAX_INT64 <= value < _MAX_INT64 for value in values)
        if types & {datetime, time}:
            self._zones |= {value.tzinfo is not None for value in values if type(value) in (datetime, time)}
        if Decimal in types or self._is_large:
            self._measure(Decimal(value) for value in values if type(value) in (Decimal, int))

    def find_type(self, pa: Any) -> tuple[Any, Callable[[Any], Any]]:
        """Return the type of the column, and a function that converts its values."""
        found = self._find_number_type(pa) or self._find_date_type(pa)
        if found is not None:
            return found
        exact = {frozenset({bool}): pa.bool_(), frozenset({bytes}): pa.binary()}.get(frozenset(self._types))
        return (pa.string(), format_value) if exact is None else (exact, _same)

    def _find_number_type(self, pa: Any) -> tuple[Any, Callable[[Any], Any]] | None:
        types = self._types
        if types == {int} and not self._is_large:
            return pa.int64(), _same
        if types and types <= {int, Decimal} and self._digits is not None:
            digits, scale = self._digits
            digits = max(digits, _INT64_DIGITS) if int in types else digits  # of integers beside decimal numbers
            for make_type, max_digits in ((pa.decimal128, 38), (pa.decimal256, 76)):
                if digits + scale <= max_digits:
                    return make_type(digits + scale, scale), Decimal
        return (pa.float64(), float) if float in types and types <= {int, float, Decimal} else None

    def _find_date_type(self, pa: Any) -> tuple[Any, Callable[[Any], Any]] | None:
        types = self._types
        if types == {date}:
            return pa.date32(), _same
        if types == {datetime} and self._zones == {True}:
            return pa.timestamp("us", tz="UTC"), lambda value: value.astimezone(UTC)
        if types and types <= {date, datetime} and True not in self._zones:
            return pa.timestamp("us"), _to_datetime
        return (pa.time64("us"), _same) if types == {time} and self._zones == {False} else None

    def _measure(self, numbers: Iterable[Decimal]) -> None:
        for number in numbers:
            if self._digits is None:
                return
            if not number.is_finite():
                self._digits = None
                return
            _, digits, exponent = number.as_tuple()
            assert isinstance(exponent, int)  # it is finite
            whole, scale = self._digits
            self._digits = max(whole, len(digits) + exponent), max(scale, -exponent)


def _same(value: Any) -> Any:
    return value


def _to_datetime(value: date) -> datetime:
    return value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)  # noqa: DTZ001 - naive
