"""The files that rows stand in: CSV, JSON Lines and Parquet, read as they are needed. Knows no mail and no template."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail.worker_files import (
    FILE_CHANGED_REMEDY,
    FileChangedError,
    UnchangedFile,
    file_remedy,
    is_pathlib_path,
)
from airflow_provider_smtpcm.operators._task import fetched

# folded: A row, and the rows of a merge as they come, one at a time. Knows no file, no mail and no template.
#   A row that cannot be read is an error in its place, and the rows after it follow. Where nobody can tell any more
#   where
#   the next row begins, the rows end in an error.

LIST = "Pass a list of mappings, such as [{'email': 'jane@corp.example', 'name': 'Jane'}]."
#: Rows that are turned into Python objects together: a compromise between speed and memory.
BATCH = 1000


class Row(dict[str, Any]):
    """One row by the names of its columns. It has no methods for a template: `row.items` is the column `items`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows in their order, each a `Row` or why it is none.

    Iterating raises MessageError where the source itself fails, after which no row follows.

    Args:
        items: the rows; they can be taken once.
        total: how many there are, if that is known beforehand.
        share_read: how much of its file was read, from 0 to 1, if it is a file that knows its size.
    """

    items: Iterator[Row | MessageError]
    total: int | None = None
    share_read: Callable[[], float] | None = None

    def share(self, done: int) -> float | None:
        """Which part of the rows so many of them are, about; None where nobody can know."""
        if self.total is not None:
            return min(done / max(self.total, 1), 1.0)
        return self.share_read() if self.share_read is not None else None


def rows_of_mappings(items: Iterable[Any]) -> Rows:
    """Mappings, or what has `keys` as they do (a row of a database), from wherever they come."""
    return Rows((_row(item) for item in fetched(items)), len(items) if isinstance(items, Sized) else None)


def rows_of_frame(frame: Any) -> Rows:
    """The rows of a pandas DataFrame; its missing values become None."""
    columns = checked_columns(list(frame.columns), "'rows'")

    def rows() -> Iterator[Row | MessageError]:
        for start in range(0, len(frame), BATCH):
            batch = frame.iloc[start : start + BATCH].astype(object)
            cells = batch.where(batch.notna(), None).itertuples(index=False, name=None)
            yield from (Row(zip(columns, row, strict=True)) for row in cells)

    return Rows(rows(), len(frame))


def checked_columns(columns: list[Any], source: str) -> list[str]:
    """The names of the columns, if each has one of its own.

    Raises:
        MessageError: a name is no text, is blank, or stands there twice.
    """
    strangers = [column for column in columns if not isinstance(column, str)]
    if strangers:
        raise MessageError(
            f"The name of a column of {source} is text, and {strangers[0]!r} is not.", remedy="Rename the column."
        )
    twice = sorted({column for column in columns if columns.count(column) > 1 and column})
    if twice:
        raise MessageError(
            f"{source} has more than one column {', '.join(map(repr, twice))}.", remedy="Give each a name of its own."
        )
    if "" in columns:
        raise MessageError(f"Column {columns.index('') + 1} of {source} has no name.", remedy="Name it, or remove it.")
    return columns


def _row(item: Any) -> Row | MessageError:
    if not (isinstance(item, Mapping) or hasattr(item, "keys")):
        return MessageError(f"A row is a mapping, not {type(item).__name__}.", remedy=LIST)
    for name in item.keys():  # noqa: SIM118 - a row of sqlite3 iterates over its values
        if not isinstance(name, str):
            return MessageError(f"The name of a column is text, and {name!r} is not.", remedy="Rename the column.")
    return Row(item)


# folded: here began the module itself

FORMATS = "Give a path that ends in .csv, .tsv, .jsonl, .ndjson or .parquet."
STORAGE = "The worker needs Airflow's provider for that storage, and a connection that may do this there."
# A later try meets these again; anything else that reading raises (a network, a busy share) may pass.
_LASTING = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ValueError,
    LookupError,
    ImportError,
)


def open_file(path: Any, encoding: str, delimiter: str | None) -> Rows:
    """Open a file by what its name ends in; arguments and errors as `open_rows` has them."""
    suffix = PurePath(str(path)).suffix.lower()
    openers: dict[str, Callable[[], Rows]] = {
        ".csv": lambda: _csv(path, encoding, delimiter or ","),
        ".tsv": lambda: _csv(path, encoding, delimiter or "\t"),
        ".jsonl": lambda: _json_lines(path, encoding),
        ".ndjson": lambda: _json_lines(path, encoding),
        ".parquet": lambda: _parquet(path),
    }
    if suffix not in openers:
        raise MessageError(f"The name of '{path}' does not say what kind of rows it holds.", remedy=FORMATS)
    return openers[suffix]()


def _unreadable(what: str, error: Exception) -> MessageError:
    """What opening or reading raised, as one of our errors."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    remedy = STORAGE if "://" in what else file_remedy(what.lstrip("'"))
    if isinstance(error, UnicodeError | LookupError):
        remedy = "Name its encoding by 'rows_encoding'; Excel's CSV may be 'cp1252'."
    elif isinstance(error, FileChangedError):
        remedy = FILE_CHANGED_REMEDY
    return MessageError(f"{what} cannot be read: {reason}.", remedy=remedy, retryable=not isinstance(error, _LASTING))


def _opened(path: Any) -> IO[bytes]:
    """The file; one on the worker hands out no row that was written after it was opened, nor half of one."""
    try:
        file: IO[bytes] = io.BufferedReader(UnchangedFile(path)) if is_pathlib_path(path) else path.open("rb")
    except Exception as error:  # whatever a storage's own library raises; its classes are not known here
        raise _unreadable(f"'{path}'", error) from error
    return file


def _opened_as_text(path: Any, encoding: str) -> tuple[IO[str], Callable[[], float] | None]:
    """The file, and what says how much of it was read."""
    file = _opened(path)
    try:
        return io.TextIOWrapper(file, encoding=encoding, newline=""), _share_read(file)
    except LookupError as error:
        file.close()
        raise _unreadable(f"'{path}'", error) from None


def _share_read(file: IO[bytes]) -> Callable[[], float] | None:
    if not file.seekable():
        return None
    size = max(file.seek(0, 2), 1)
    file.seek(0)
    return lambda: 1.0 if file.closed else file.tell() / size


def _csv(path: Any, encoding: str, delimiter: str) -> Rows:
    """CSV (RFC 4180): the first line names the columns, lines without anything on them are passed over."""
    file, share_read = _opened_as_text(path, encoding)
    try:
        lines = _csv_lines(file, delimiter, str(path))
        columns = [cell.strip() for cell in next(lines, (1, []))[1]]
        if not columns:
            names = "Its first line names the columns, even where no row follows."
            raise MessageError(f"'{path}' is empty.", remedy=names)
        checked_columns(columns, f"'{path}'")
    except MessageError:
        file.close()
        raise
    return Rows(_csv_rows(file, lines, columns), None, share_read)


def _csv_lines(file: IO[str], delimiter: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Each line with cells on it, and the number of the line on which it begins."""
    import csv

    # Strict: a quotation mark that is never closed would make one cell of all that follows.
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    while True:
        begins = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise MessageError(
                f"'{name}' cannot be read from line {begins} on ({error}).",
                remedy='Mend that line (a quotation mark in a cell is "", and the cell stands in quotation marks); or '
                "give the rows as JSON Lines, whose values may be of any length.",
            ) from None
        except Exception as error:
            raise _unreadable(f"'{name}', after line {begins - 1},", error) from error
        if cells is None:
            return
        if cells:
            yield begins, cells


def _csv_rows(
    file: IO[str], lines: Iterator[tuple[int, list[str]]], columns: list[str]
) -> Iterator[Row | MessageError]:
    with file:
        for number, cells in lines:
            if len(cells) == len(columns):
                yield Row(zip(columns, cells, strict=True))
            else:
                yield MessageError(
                    f"Line {number} has {len(cells)} cells, and the first line names {len(columns)} columns.",
                    remedy="Mend that line; a cell with the delimiter in it stands in quotation marks.",
                )


def _json_lines(path: Any, encoding: str) -> Rows:
    file, share_read = _opened_as_text(path, encoding)
    return Rows(_json_rows(file, str(path)), None, share_read)


def _json_rows(file: IO[str], name: str) -> Iterator[Row | MessageError]:
    import json

    with file:
        number = 0
        while True:
            try:
                line = file.readline()
            except Exception as error:
                raise _unreadable(f"'{name}', after line {number},", error) from error
            if not line:
                return
            number += 1
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield MessageError(f"Line {number} is no JSON ({error}).", remedy="Each line holds one object.")
                continue
            if isinstance(value, dict):
                yield Row(value)
            else:
                yield MessageError(f"Line {number} holds no JSON object.", remedy='Write it as {"column": "value"}.')


def _parquet(path: Any) -> Rows:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        return _parquet_by_pandas(path)
    file = _opened(path)
    try:
        parquet = ParquetFile(file)
        columns = checked_columns(list(parquet.schema_arrow.names), f"'{path}'")
    except MessageError:
        file.close()
        raise
    except Exception as error:
        file.close()
        raise _unreadable(f"'{path}'", error) from error

    def rows() -> Iterator[Row | MessageError]:
        with file:
            try:
                for batch in parquet.iter_batches(batch_size=BATCH):
                    cells = [batch.column(column).to_pylist() for column in range(len(columns))]
                    yield from (Row(zip(columns, row, strict=True)) for row in zip(*cells, strict=True))
            except Exception as error:
                raise _unreadable(f"'{path}'", error) from error

    return Rows(rows(), parquet.metadata.num_rows)


def _parquet_by_pandas(path: Any) -> Rows:
    try:
        from pandas import read_parquet
    except ImportError:
        raise MessageError(
            f"'{path}' cannot be read: neither pyarrow nor pandas is installed here.",
            remedy="Have the workers install pyarrow (pip install pyarrow), or give the rows as CSV or JSON Lines.",
        ) from None
    with _opened(path) as file:
        try:
            frame = read_parquet(file)
        except Exception as error:
            raise _unreadable(f"'{path}'", error) from error
    return rows_of_frame(frame)


# folded: Where the rows of a merge come from: a list, a file or a data frame. Knows no mail and no template.


def open_rows(rows: Any, *, encoding: str, delimiter: str | None = None) -> Rows:
    """Open the rows.

    Args:
        rows: a list or another iterable of mappings; the path of a file, as text (a URL is an ObjectStoragePath) or as
            an object with `open`; or a pandas DataFrame, whose missing values become None.
        encoding: of a CSV or JSON Lines file.
        delimiter: between the cells of a CSV file; None: a comma, and a tab where the name ends in .tsv.

    Raises:
        MessageError: they cannot be opened, or their columns have no names of their own.
    """
    if is_path(rows):
        return open_file(_path(rows), encoding, delimiter)
    if hasattr(rows, "itertuples") and hasattr(rows, "columns"):
        return rows_of_frame(rows)
    if rows is None:
        raise MessageError("'rows' is None.", remedy="The task that it comes from has to return the rows.")
    if isinstance(rows, Mapping | bytes | bytearray) or not isinstance(rows, Iterable):
        raise MessageError(f"'rows' is a list or a path, not {type(rows).__name__}.", remedy=LIST)
    return rows_of_mappings(rows)


def is_path(rows: Any) -> bool:
    """Whether it says where the rows are; by its class, since a data frame may have a column `open`."""
    return isinstance(rows, str | os.PathLike) or hasattr(type(rows), "open")


def storage_path(text: str) -> Any:
    """A path as somebody wrote it: a URL such as `s3://bucket/key` is Airflow's ObjectStoragePath.

    Raises:
        MessageError: Airflow knows no storage of that kind.
    """
    if "://" not in text:
        return Path(text)
    from airflow.sdk import ObjectStoragePath

    try:
        return ObjectStoragePath(text)
    except (ValueError, ImportError) as error:
        raise MessageError(f"'{text}' is no URL of a storage: {error}.", remedy=STORAGE) from None


def _path(rows: Any) -> Any:
    if not isinstance(rows, str):
        return rows if hasattr(rows, "open") else Path(rows)
    from airflow_provider_smtpcm.mail.tainted import check_path

    text = check_path(rows, "rows").strip()
    if text[:1] in ("[", "{") and text[-1:] in ("]", "}"):
        raise MessageError(
            "'rows' is a list that was turned into text.",
            remedy="Pass rows=the_other_task.output, or give the DAG render_template_as_native_obj=True.",
        )
    if not text:
        raise MessageError("'rows' is empty text.", remedy=FORMATS)
    return storage_path(text)
