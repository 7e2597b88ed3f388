"""The rows of a merge, one at a time, from a list, a file or a data frame. Knows no mail and no template.

A row that cannot be read is an error in its place, and the rows after it follow. Where nobody can tell any more where
the next row begins, the rows end in an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any

from airflow_provider_smtpcm.errors import MessageError

_FORMATS = "Give a path that ends in .csv, .tsv, .jsonl, .ndjson or .parquet."
_ON_THE_WORKER = "The file is looked for on the worker that runs the task: check the path and its permissions there."
_LIST = "Pass a list of mappings, such as [{'email': 'jane@corp.example', 'name': 'Jane'}]."
# Rows that are turned into Python objects together: a compromise between speed and memory.
_BATCH = 1000
# A later try meets these again; anything else that reading raises (a network, a busy share) may pass.
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError, LookupError)


class Row(dict[str, Any]):
    """One row by the names of its columns. It has no methods for a template: `row.items` is the column `items`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows in their order, each a `Row` or why it is none; and how many, where that is known beforehand.

    Iterating raises MessageError where the source itself fails, after which no row follows.
    """

    items: Iterator[Row | MessageError]
    total: int | None


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
    if isinstance(rows, str | os.PathLike) or hasattr(rows, "open"):
        return _file(_path(rows), encoding, delimiter)
    if hasattr(rows, "itertuples") and hasattr(rows, "columns"):
        return Rows(_frame(rows), len(rows))
    if rows is None:
        raise MessageError("'rows' is None.", remedy="The task that it comes from has to return the rows.")
    if isinstance(rows, Mapping | bytes | bytearray) or not isinstance(rows, Iterable):
        raise MessageError(f"'rows' is a {type(rows).__name__}, neither a list nor a path.", remedy=_LIST)
    return Rows((_row(item) for item in rows), len(rows) if isinstance(rows, Sized) else None)


def storage_path(text: str) -> Any:
    """A path as somebody wrote it: a URL such as `s3://bucket/key` is Airflow's ObjectStoragePath."""
    if "://" not in text:
        return Path(text)
    from airflow.sdk import ObjectStoragePath

    return ObjectStoragePath(text)


def unreadable(what: str, error: Exception) -> MessageError:
    """What opening or reading raised, as one of our errors."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    remedy = _ON_THE_WORKER
    if isinstance(error, UnicodeError | LookupError):
        remedy = "Name its encoding by 'rows_encoding'; Excel's CSV may be 'cp1252'."
    return MessageError(f"{what} cannot be read: {reason}.", remedy=remedy, retryable=not isinstance(error, _LASTING))


def _path(rows: Any) -> Any:
    if not isinstance(rows, str):
        return rows if hasattr(rows, "open") else Path(rows)
    text = rows.strip()
    if text[:1] in ("[", "{") and text[-1:] in ("]", "}"):
        raise MessageError(
            "'rows' is a list that was turned into text.",
            remedy="Pass rows=the_other_task.output, or give the DAG render_template_as_native_obj=True.",
        )
    if not text:
        raise MessageError("'rows' is empty text.", remedy=_FORMATS)
    return storage_path(text)


def _file(path: Any, encoding: str, delimiter: str | None) -> Rows:
    suffix = PurePath(str(path)).suffix.lower()
    openers: dict[str, Callable[[], Rows]] = {
        ".csv": lambda: _csv(path, encoding, delimiter or ","),
        ".tsv": lambda: _csv(path, encoding, delimiter or "\t"),
        ".jsonl": lambda: Rows(_json_lines(_opened_as_text(path, encoding), str(path)), None),
        ".ndjson": lambda: Rows(_json_lines(_opened_as_text(path, encoding), str(path)), None),
        ".parquet": lambda: _parquet(path),
    }
    if suffix not in openers:
        raise MessageError(f"The name of '{path}' does not say what kind of rows it holds.", remedy=_FORMATS)
    return openers[suffix]()


def _opened(path: Any) -> IO[bytes]:
    try:
        file: IO[bytes] = path.open("rb")
    except Exception as error:  # whatever a storage's own library raises; its classes are not known here
        raise unreadable(f"'{path}'", error) from error
    return file


def _opened_as_text(path: Any, encoding: str) -> IO[str]:
    import io

    file = _opened(path)
    try:
        return io.TextIOWrapper(file, encoding=encoding, newline="")
    except LookupError as error:
        file.close()
        raise unreadable(f"'{path}'", error) from None


def _csv(path: Any, encoding: str, delimiter: str) -> Rows:
    """CSV (RFC 4180): the first line names the columns, lines without anything on them are passed over."""
    file = _opened_as_text(path, encoding)
    try:
        lines = _csv_lines(file, delimiter, str(path))
        columns = _checked_columns([cell.strip() for cell in next(lines, (1, []))[1]], str(path))
    except MessageError:
        file.close()
        raise
    return Rows(_csv_rows(file, lines, columns), None)


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
            raise unreadable(f"'{name}', after line {begins - 1},", error) from error
        if cells is None:
            return
        if cells:
            yield begins, cells


def _checked_columns(columns: list[str], name: str) -> list[str]:
    if not columns:
        raise MessageError(f"'{name}' is empty.", remedy="Its first line names the columns, even where no row follows.")
    twice = sorted({column for column in columns if columns.count(column) > 1 and column})
    if twice:
        raise MessageError(
            f"'{name}' has more than one column {', '.join(map(repr, twice))}.", remedy="Give each a name of its own."
        )
    if "" in columns:
        raise MessageError(f"Column {columns.index('') + 1} of '{name}' has no name.", remedy="Name it, or remove it.")
    return columns


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


def _json_lines(file: IO[str], name: str) -> Iterator[Row | MessageError]:
    import json

    with file:
        number = 0
        while True:
            try:
                line = file.readline()
            except Exception as error:
                raise unreadable(f"'{name}', after line {number},", error) from error
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
        columns = _checked_columns(list(parquet.schema_arrow.names), str(path))
    except MessageError:
        file.close()
        raise
    except Exception as error:
        file.close()
        raise unreadable(f"'{path}'", error) from error

    def rows() -> Iterator[Row | MessageError]:
        with file:
            try:
                for batch in parquet.iter_batches(batch_size=_BATCH):
                    names = [batch.column(column).to_pylist() for column in range(len(columns))]
                    yield from (Row(zip(columns, cells, strict=True)) for cells in zip(*names, strict=True))
            except Exception as error:
                raise unreadable(f"'{path}'", error) from error

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
            raise unreadable(f"'{path}'", error) from error
    return Rows(_frame(frame), len(frame))


def _frame(frame: Any) -> Iterator[Row | MessageError]:
    for start in range(0, len(frame), _BATCH):
        batch = frame.iloc[start : start + _BATCH].astype(object)
        yield from map(_row, batch.where(batch.notna(), None).to_dict("records"))


def _row(item: Any) -> Row | MessageError:
    if not (isinstance(item, Mapping) or hasattr(item, "keys")):
        return MessageError(f"It is a {type(item).__name__}, and a row is a mapping.", remedy=_LIST)
    stranger = next((name for name in item if not isinstance(name, str)), None)
    if stranger is not None:
        return MessageError(f"The name of a column is text, and {stranger!r} is not.", remedy="Rename the column.")
    return Row(item)
