"""Reads CSV files as spreadsheets save them: with commas, semicolons or tabs, in UTF-8 or UTF-16."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator
from pathlib import Path

from airflow_provider_smtpcm.errors import PackageError

_DELIMITERS = ",;\t"
_MAX_OCTETS = 64 * 1024 * 1024
#: The remedy for a file in another form.
SAVE_AS = 'In Excel, save it as "CSV UTF-8 (Comma delimited)".'


def read_text(path: Path, *, remedy: str = SAVE_AS) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a byte order mark.

    Args:
        path: the file.
        remedy: what to do if it is in another encoding.

    Raises:
        PackageError: it cannot be read, is larger than 64 MiB, or is in another encoding.
    """
    try:
        with path.open("rb") as file:
            octets = file.read(_MAX_OCTETS + 1)
    except OSError as error:
        raise PackageError(
            f"{path} cannot be read: {error.strerror or error}.", remedy="Check the path and its permissions."
        ) from error
    if len(octets) > _MAX_OCTETS:
        raise PackageError(f"{path} is larger than {_MAX_OCTETS // 1024**2} MiB.", remedy="Check what the file is.")
    encoding = "utf-16" if octets[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"
    try:
        return octets.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise PackageError(f"{path} is not in UTF-8.", remedy=remedy) from error


def read_header(text: str, required: Collection[str]) -> tuple[list[str], str] | None:
    """Return the names of the columns in lower case, and the delimiter; None if the first line lacks a required one.

    Args:
        required: names in lower case.
    """
    header = (text.splitlines() or [""])[0]
    for delimiter in _DELIMITERS:
        names = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]
        if set(names) >= set(required):
            return names, delimiter
    return None


def read_lines(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number, from 1, and the cells of each line, including the header.

    Args:
        path: the file, for error messages.
        text: its text.

    Raises:
        PackageError: the text is not CSV.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise PackageError(f"{path}, line {reader.line_num}, is not CSV: {error}.", remedy=SAVE_AS) from error


def read_rows(path: Path, text: str, names: list[str], delimiter: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of each line after the header, and its cells by column; missing cells are empty.

    Args:
        path: the file, for error messages.
        text: its text.
        names, delimiter: the result of `read_header`.

    Raises:
        PackageError: the text is not CSV.
    """
    lines = read_lines(path, text, delimiter)
    next(lines, None)
    for number, cells in lines:
        yield number, dict(zip(names, [*cells, *[""] * (len(names) - len(cells))], strict=False))
