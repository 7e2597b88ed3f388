"""The rows of a merge, read as they are needed: mappings, a data frame, or a CSV, JSON Lines or Parquet file.

A row that cannot be read is yielded as an error, and the next row follows. If the next row cannot be found (an open
quotation mark, a failing disk), iterating raises.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any

from airflow_provider_smtpcm.errors import MessageError

_LIST_REMEDY = "Pass a list of mappings, such as [{'email': 'jane@corp.example', 'name': 'Jane'}]."
_FILE_REMEDY = "Give a path that ends in .csv, .tsv, .jsonl, .ndjson or .parquet."
_NEVER_NAN = (str, int, bool, type(None))
# What may separate the cells of a file, if it is not what was given.
_DELIMITERS = {";": "';'", "\t": "a tab", "|": "'|'", ",": "','"}
# Rows of a data frame or Parquet file that are converted at once: a compromise between speed and memory.
_CHUNK_ROWS = 1000
# Not worth a retry. Any other exception while reading (a network, a busy share) may be temporary.
_PERMANENT = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ValueError,
    LookupError,
    ImportError,
)


class Row(dict[str, Any]):
    """One row, by column name. In a template, `row.items` is the column `items`; see `merge.templates`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows in order, each a `Row`, or the error of a row that cannot be read.

    Iterating raises `MessageError` if the source fails.

    Args:
        items: the rows; they can be iterated once.
        total: how many there are; None if that is not known.
        fraction_read: returns how much of the file was read, from 0 to 1; None if there is no file, or its size is not
            known.
    """

    items: Iterator[Row | MessageError]
    total: int | None = None
    fraction_read: Callable[[], float] | None = None

    def fraction_done(self, done: int) -> float | None:
        """Return the approximate fraction of the rows that is done, from 0 to 1; None if it is not known.

        Args:
            done: how many rows are done.
        """
        if self.total is not None:
            return min(done / max(self.total, 1), 1.0)
        return self.fraction_read() if self.fraction_read is not None else None


def open_rows(rows: Any, *, encoding: str, delimiter: str | None = None, to_path: Callable[[str], Any] = Path) -> Rows:
    """Open the rows.

    Args:
        rows: a list or another iterable of mappings; the path of a file, as text or as an object with `open`; or a
            pandas DataFrame. Missing values (NaN, pandas' NA and NaT) become None.
        encoding: the encoding of a CSV or JSON Lines file.
        delimiter: what separates the cells of a CSV file; None: a comma, or a tab if the name ends in .tsv.
        to_path: turns the text of a path or URL into an object with `open`.

    Raises:
        MessageError: they cannot be opened, or a column has no name or the name of another column.
    """
    if is_path(rows):
        return _open_file(_resolve_file(rows, to_path), encoding, delimiter)
    if hasattr(rows, "itertuples") and hasattr(rows, "columns"):
        return _read_frame(rows)
    if rows is None:
        raise MessageError("'rows' is None.", remedy="Return the rows from the upstream task.")
    if isinstance(rows, Mapping | bytes | bytearray) or not isinstance(rows, Iterable):
        raise MessageError(f"'rows' has to be a list or a path, not {type(rows).__name__}.", remedy=_LIST_REMEDY)
    return Rows(_read_mappings(rows), len(rows) if isinstance(rows, Sized) else None)


def is_path(rows: Any) -> bool:
    """Whether `rows` is a path or URL. `open` is looked up on its class: a data frame may have a column `open`."""
    return isinstance(rows, str | os.PathLike) or hasattr(type(rows), "open")


def _resolve_file(rows: Any, to_path: Callable[[str], Any]) -> Any:
    if not isinstance(rows, str):
        return rows if hasattr(rows, "open") else Path(rows)
    from airflow_provider_smtpcm.mail.tainted import check_path

    text = check_path(rows, "rows").strip()
    if text[:1] in ("[", "{") and text[-1:] in ("]", "}"):
        raise MessageError(
            "'rows' is a list that was turned into text.",
            remedy="Pass rows=the_other_task.output, or a template with nothing beside the list.",
        )
    if not text:
        raise MessageError("'rows' is an empty string.", remedy=_FILE_REMEDY)
    return to_path(text)


# --- Mappings and data frames


def _read_mappings(items: Iterable[Any]) -> Iterator[Row | MessageError]:
    for item in items:
        yield _make_row(item)


def _make_row(item: Any) -> Row | MessageError:
    """Return the row. Besides mappings, objects with `keys` are accepted, such as rows of a database driver."""
    if not (isinstance(item, Mapping) or hasattr(item, "keys")):
        return MessageError(f"A row has to be a mapping, not {type(item).__name__}.", remedy=_LIST_REMEDY)
    for name in item.keys():  # noqa: SIM118 - a row of sqlite3 iterates over its values
        if not isinstance(name, str):
            return MessageError(f"The name of a column has to be text; {name!r} is not.", remedy="Rename the column.")
    return _without_nan(Row(item))


def _without_nan(row: Row) -> Row:
    """Replace NaN, and pandas' NA and NaT, by None: nobody wants to read `nan` in a mail."""
    for name, value in row.items():
        kind = type(value)  # compared here, since a call for each cell would take longer than the rest
        if kind is str or kind in _NEVER_NAN:
            continue
        if value != value if kind is float else is_nan(value):  # noqa: PLR0124 - only NaN differs from itself
            row[name] = None
    return row


def is_nan(value: object) -> bool:
    """Whether a value is NaN, or pandas' NA or NaT; see `is_missing`."""
    if type(value) in _NEVER_NAN:
        return False
    from airflow_provider_smtpcm.mail.tainted import is_missing  # here, since each parse of a DAG imports this module

    return is_missing(value)


def _read_frame(frame: Any) -> Rows:
    columns = check_columns(list(frame.columns), "'rows'")

    def rows() -> Iterator[Row | MessageError]:
        for start in range(0, len(frame), _CHUNK_ROWS):
            chunk = frame.iloc[start : start + _CHUNK_ROWS].astype(object)
            cells = chunk.where(chunk.notna(), None).itertuples(index=False, name=None)
            yield from (Row(zip(columns, row, strict=True)) for row in cells)

    return Rows(rows(), len(frame))


def check_columns(columns: list[Any], source: str) -> list[str]:
    """Return the column names.

    Raises:
        MessageError: a name is not text, is empty, or occurs twice.
    """
    not_text = [column for column in columns if not isinstance(column, str)]
    if not_text:
        raise MessageError(
            f"The name of a column of {source} has to be text; {not_text[0]!r} is not.", remedy="Rename the column."
        )
    duplicates = sorted({column for column in columns if columns.count(column) > 1 and column})
    if duplicates:
        raise MessageError(
            f"{source} has more than one column {', '.join(map(repr, duplicates))}.",
            remedy="Give each column a different name.",
        )
    from airflow_provider_smtpcm.mail.tainted import find_unsendable_character, short_repr

    for column in columns:
        if character := find_unsendable_character(column):
            raise MessageError(
                f"The column {short_repr(column)} of {source} contains {character}.",
                remedy="Rename it; or, if the file is UTF-16, set rows_encoding='utf-16-le'.",
            )
    if "" in columns:
        raise MessageError(f"Column {columns.index('') + 1} of {source} has no name.", remedy="Name it, or remove it.")
    return columns


# --- Files


def _open_file(path: Any, encoding: str, delimiter: str | None) -> Rows:
    suffix = PurePath(str(path)).suffix.lower()
    openers: dict[str, Callable[[], Rows]] = {
        ".csv": lambda: _open_csv(path, encoding, delimiter or ","),
        ".tsv": lambda: _open_csv(path, encoding, delimiter or "\t"),
        ".jsonl": lambda: _open_json_lines(path, encoding),
        ".ndjson": lambda: _open_json_lines(path, encoding),
        ".parquet": lambda: _open_parquet(path),
    }
    if suffix not in openers:
        raise MessageError(f"'{path}' is not a supported kind of file.", remedy=_FILE_REMEDY)
    return openers[suffix]()


def _read_error(source: str, error: Exception) -> MessageError:
    from airflow_provider_smtpcm.mail.files import FILE_CHANGED_REMEDY, STORAGE_REMEDY, FileChangedError, file_remedy

    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    remedy = STORAGE_REMEDY if "://" in source else file_remedy(source.lstrip("'"))
    if isinstance(error, UnicodeError | LookupError):
        remedy = "Set 'rows_encoding' to its encoding; Excel may write CSV in 'cp1252'."
    elif isinstance(error, FileChangedError):
        remedy = FILE_CHANGED_REMEDY
    return MessageError(
        f"{source} cannot be read: {reason}.", remedy=remedy, retryable=not isinstance(error, _PERMANENT)
    )


def _open_binary(path: Any) -> IO[bytes]:
    """Open a file. One on the worker raises `FileChangedError` if it is changed while it is read."""
    from airflow_provider_smtpcm.mail.files import UnchangedFile, is_pathlib_path

    try:
        file: IO[bytes] = io.BufferedReader(UnchangedFile(path)) if is_pathlib_path(path) else path.open("rb")
    except Exception as error:  # each storage library raises errors of its own
        raise _read_error(f"'{path}'", error) from error
    return file


def _open_text(path: Any, encoding: str) -> tuple[IO[str], Callable[[], float] | None]:
    """Open a file.

    Returns:
        The file, and a function that returns the fraction of it that was read, or None if its size is not known.
    """
    file = _open_binary(path)
    try:
        return io.TextIOWrapper(file, encoding=encoding, newline=""), _fraction_reader(file)
    except LookupError as error:
        file.close()
        raise _read_error(f"'{path}'", error) from None


def _fraction_reader(file: IO[bytes]) -> Callable[[], float] | None:
    if not file.seekable():
        return None
    size = max(file.seek(0, 2), 1)
    file.seek(0)
    return lambda: 1.0 if file.closed else file.tell() / size


def _open_csv(path: Any, encoding: str, delimiter: str) -> Rows:
    """Open a CSV file (RFC 4180). The first line names the columns; empty lines are skipped."""
    file, fraction_read = _open_text(path, encoding)
    try:
        lines = _csv_lines(file, delimiter, str(path))
        columns = [cell.strip() for cell in next(lines, (1, []))[1]]
        if not columns:
            remedy = "Write the names of the columns in its first line, even if no row follows."
            raise MessageError(f"'{path}' is empty.", remedy=remedy)
        check_columns(columns, f"'{path}'")
    except MessageError:
        file.close()
        raise
    return Rows(_csv_rows(file, lines, columns), None, fraction_read)


def _csv_lines(file: IO[str], delimiter: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row, after the number of the line on which it begins."""
    import csv

    # Strict: without it, an open quotation mark would put the whole remaining file into one cell.
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    while True:
        first_line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise MessageError(
                f"'{name}' cannot be read from line {first_line} on ({error}).",
                remedy='Fix that line (a quotation mark in a cell is "", and the cell is enclosed in quotation marks); '
                "or give the rows as JSON Lines, whose values may be of any length.",
            ) from None
        except Exception as error:
            raise _read_error(f"'{name}', after line {first_line - 1},", error) from error
        if cells is None:
            return
        if cells:
            yield first_line, cells


def _csv_rows(
    file: IO[str], lines: Iterator[tuple[int, list[str]]], columns: list[str]
) -> Iterator[Row | MessageError]:
    with file:
        for number, cells in lines:
            if len(cells) == len(columns):
                yield Row(zip(columns, cells, strict=True))
            else:
                yield MessageError(
                    f"Line {number} has {len(cells)} cells, but the first line names "
                    f"{len(columns)} column{'s' if len(columns) != 1 else ''}.",
                    remedy=suggest_delimiter(columns)
                    or "Fix that line; a cell that contains the delimiter is enclosed in quotation marks.",
                )


def suggest_delimiter(columns: Sequence[str]) -> str | None:
    """Return the remedy if all columns of a CSV file were read as one; None if its name shows no delimiter."""
    if len(columns) != 1:
        return None
    for delimiter, name in _DELIMITERS.items():
        if delimiter in columns[0]:
            return f"Is the file separated by {name}? Set delimiter={delimiter!r}."
    return None


def _open_json_lines(path: Any, encoding: str) -> Rows:
    file, fraction_read = _open_text(path, encoding)
    return Rows(_json_rows(file, str(path)), None, fraction_read)


def _json_rows(file: IO[str], name: str) -> Iterator[Row | MessageError]:
    import json

    with file:
        number = 0
        while True:
            try:
                line = file.readline()
            except Exception as error:
                raise _read_error(f"'{name}', after line {number},", error) from error
            if not line:
                return
            number += 1
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield MessageError(
                    f"Line {number} is not JSON ({error}).", remedy="Write one JSON object in each line."
                )
                continue
            if isinstance(value, dict):
                yield _without_nan(Row(value))
            else:
                yield MessageError(f"Line {number} is not a JSON object.", remedy='Write it as {"column": "value"}.')


def _open_parquet(path: Any) -> Rows:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        return _open_parquet_by_pandas(path)
    file = _open_binary(path)
    try:
        parquet = ParquetFile(file)
        columns = check_columns(list(parquet.schema_arrow.names), f"'{path}'")
    except MessageError:
        file.close()
        raise
    except Exception as error:
        file.close()
        raise _read_error(f"'{path}'", error) from error

    def rows() -> Iterator[Row | MessageError]:
        with file:
            try:
                for batch in parquet.iter_batches(batch_size=_CHUNK_ROWS):
                    cells = [batch.column(column).to_pylist() for column in range(len(columns))]
                    yield from (_without_nan(Row(zip(columns, row, strict=True))) for row in zip(*cells, strict=True))
            except Exception as error:
                raise _read_error(f"'{path}'", error) from error

    return Rows(rows(), parquet.metadata.num_rows)


def _open_parquet_by_pandas(path: Any) -> Rows:
    try:
        from pandas import read_parquet
    except ImportError:
        raise MessageError(
            f"'{path}' cannot be read: neither pyarrow nor pandas is installed on the worker.",
            remedy="Install the extra on the workers (pip install 'airflow-provider-smtpcm[parquet]'), or give the "
            "rows as CSV or JSON Lines.",
        ) from None
    with _open_binary(path) as file:
        try:
            frame = read_parquet(file)
        except Exception as error:
            raise _read_error(f"'{path}'", error) from error
    return _read_frame(frame)
