"""A row, and the rows of a merge as they come, one at a time. Knows no file, no mail and no template.

A row that cannot be read is an error in its place, and the rows after it follow. Where nobody can tell any more where
the next row begins, the rows end in an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.operators.supervisor_line import fetched

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
