"""The result of a query for the templates of a body: a table in HTML or plain text, the first rows, their number."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_smtpcm.tables.values import format_value, is_number

# Outlook's HTML is that of Word: attributes and inline styles are what all mail clients show.
_TABLE = '<table border="1" cellpadding="4" cellspacing="0" style="border-collapse: collapse">'
_SPACE_BETWEEN = "  "
# A longer value is cut: one document or picture would make the body larger than servers accept.
_MAX_CELL_LENGTH = 1000
# In plain text, a longer value moves the rest of its line to the right, and not all lines.
_MAX_WIDTH = 60


class BodyTable:
    """A table of rows: HTML where a template escapes values (`html`), aligned plain text elsewhere.

    Args:
        columns: the names of the columns.
        rows: the rows to show.
        row_count: how many rows there are.
        attachments: the names of the attached files that have all rows.
    """

    def __init__(
        self, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, row_count: int, attachments: Sequence[str] = ()
    ) -> None:
        self._columns = columns
        self._cells = [[_shorten(format_value(value)) for value in row] for row in rows]
        self._are_numbers = [
            all(is_number(row[index]) for row in rows if row[index] is not None)
            and any(row[index] is not None for row in rows)
            for index in range(len(columns))
        ]
        self._note = _describe_rest(row_count - len(rows), row_count, attachments)

    def __html__(self) -> str:
        """Return HTML; Jinja and MarkupSafe call this method instead of escaping."""
        from markupsafe import escape

        alignments = [' align="right"' if is_right else ' align="left"' for is_right in self._are_numbers]
        names = zip(alignments, self._columns, strict=True)
        lines = [_TABLE, f"<tr>{''.join(f'<th{align}>{escape(name)}</th>' for align, name in names)}</tr>"]
        for row in self._cells:
            cells = zip(alignments, row, strict=True)
            lines.append(f"<tr>{''.join(f'<td{align}>{_escape_lines(cell)}</td>' for align, cell in cells)}</tr>")
        lines.append("</table>")
        if self._note:
            lines.append(f"<p>{escape(self._note)}</p>")
        return "\n".join(lines)

    def __str__(self) -> str:
        """Return plain text, with the columns aligned."""
        lines = [[" ".join(cell.split()) for cell in row] for row in (self._columns, *self._cells)]
        widths = [min(max(map(_width, column)), _MAX_WIDTH) for column in zip(*lines, strict=True)]
        lines.insert(1, ["-" * width for width in widths])
        text = [
            _SPACE_BETWEEN.join(
                _pad(cell, width, is_right=is_right)
                for cell, width, is_right in zip(line, widths, self._are_numbers, strict=True)
            ).rstrip()
            for line in lines
        ]
        return "\n".join([*text, "", self._note] if self._note else text)


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateResult:
    """What templates know as `result`."""

    #: All rows that are shown in a body, as a table.
    table: BodyTable
    #: These rows as mappings.
    rows: Sequence[Mapping[str, Any]]
    #: The names of the columns.
    columns: Sequence[str]
    #: How many rows the query returned.
    row_count: int


def _describe_rest(rest: int, row_count: int, attachments: Sequence[str]) -> str:
    if not row_count:
        return "No rows."
    if rest <= 0:
        return ""
    where = f" in {' and '.join(attachments)}" if attachments else ""
    return f"… and {rest:,} more {'row' if rest == 1 else 'rows'}{where}"


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_CELL_LENGTH else f"{text[:_MAX_CELL_LENGTH]}…"


def _escape_lines(cell: str) -> str:
    from markupsafe import escape

    return "<br>".join(map(str, map(escape, cell.splitlines())))


def _width(text: str) -> int:
    """Return how many columns a text takes in a font of fixed width."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def _pad(text: str, width: int, *, is_right: bool) -> str:
    blanks = " " * (width - _width(text))
    return blanks + text if is_right else text + blanks
