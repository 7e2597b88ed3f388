"""The files that rows stand in: CSV, JSON Lines and Parquet, read as they are needed. Knows no mail and no template."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import IO, Any

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.file_state import WRITTEN_TO, FileChangedError, UnchangedFile, is_plain
from airflow_provider_smtpcm.operators.merge.row import BATCH, Row, Rows, checked_columns, rows_of_frame
from airflow_provider_smtpcm.worker_path import file_remedy

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
        remedy = WRITTEN_TO
    return MessageError(f"{what} cannot be read: {reason}.", remedy=remedy, retryable=not isinstance(error, _LASTING))


def _opened(path: Any) -> IO[bytes]:
    """The file; one on the worker hands out no row that was written after it was opened, nor half of one."""
    try:
        file: IO[bytes] = io.BufferedReader(UnchangedFile(path)) if is_plain(path) else path.open("rb")
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
