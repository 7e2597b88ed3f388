"""The table in a body: escaped and aligned in HTML, aligned in plain text."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import jinja2
import pytest

from airflow_provider_smtpcm.tables.body_table import BodyTable

COLUMNS = ["id", "name", "amount"]
ROWS = [(1, "Anna", 12.5), (20, "<b>Björn</b> & Co", None)]


class Cells(HTMLParser):
    """The texts of a table's cells, line by line."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.lines: list[list[str]] = []
        self.tags: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 - as the base class has it
        self.tags.append(tag)
        if tag == "tr":
            self.lines.append([])
        elif tag in ("td", "th"):
            self.lines[-1].append("")
        elif tag == "br":
            self.lines[-1][-1] += "\n"

    def handle_data(self, data: str) -> None:
        if self.lines and self.lines[-1] and self.tags[-1] != "p":
            self.lines[-1][-1] += data.strip("\n")


def table(rows: list[tuple[Any, ...]] = ROWS, **more: Any) -> BodyTable:
    return BodyTable(COLUMNS, rows, **{"row_count": len(rows), **more})


def test_a_value_is_no_markup() -> None:
    """Neither is the name of a column."""
    cells = Cells(BodyTable(["<i>"], [("<script>",), ("a\nb",)], row_count=2).__html__())
    assert cells.lines == [["<i>"], ["<script>"], ["a\nb"]]
    assert set(cells.tags) == {"table", "tr", "th", "td", "br"}


def test_a_template_writes_html_where_values_are_escaped_and_text_elsewhere() -> None:
    """By the same name."""
    template = "{{ table }}"
    html = jinja2.Environment(autoescape=True).from_string(template).render(table=table())
    text = jinja2.Environment(autoescape=False).from_string(template).render(table=table())  # noqa: S701 - plain text
    assert Cells(html).lines == [COLUMNS, ["1", "Anna", "12.5"], ["20", "<b>Björn</b> & Co", ""]]
    assert text.splitlines() == [
        "id  name               amount",
        "--  -----------------  ------",
        " 1  Anna                 12.5",
        "20  <b>Björn</b> & Co",
    ]


def test_a_column_of_numbers_is_aligned_to_the_right() -> None:
    """NULL does not count, and a column of NULL alone is no column of numbers; nor are flags numbers."""
    html = BodyTable(["a", "b", "c", "d"], [(1, "1", None, True), (None, "2", None, False)], row_count=2).__html__()
    assert html.count('<th align="right">') == 1
    assert html.count('<td align="right">') == 2
    assert '<th align="right">a</th>' in html


@pytest.mark.parametrize(
    ("row_count", "attachments", "note"),
    [
        (2, [], ""),
        (3, [], "… and 1 more row"),
        (12347, ["a.csv"], "… and 12,345 more rows in a.csv"),
        (12347, ["a.csv", "a&b.xlsx"], "… and 12,345 more rows in a.csv and a&b.xlsx"),
    ],
)
def test_the_table_says_how_many_rows_it_does_not_show(row_count: int, attachments: list[str], note: str) -> None:
    """And where they are."""
    shown = table(row_count=row_count, attachments=attachments)
    assert str(shown).partition("\n\n")[2] == note
    assert shown.__html__().partition("</table>")[2].strip() == (f"<p>{note.replace('&', '&amp;')}</p>" if note else "")


def test_without_rows_there_are_the_names_of_the_columns() -> None:
    """And a sentence."""
    assert str(table([])) == "id  name  amount\n--  ----  ------\n\nNo rows."
    assert table([]).__html__().endswith("<p>No rows.</p>")


def test_a_long_value_neither_fills_the_body_nor_moves_all_lines() -> None:
    """It is cut, and in plain text only its own line is wide."""
    shown = BodyTable(["a", "b"], [("x" * 10**6, "y"), ("z", "y")], row_count=2)
    assert Cells(shown.__html__()).lines[1] == ["x" * 1000 + "…", "y"]
    assert [len(line) for line in str(shown).splitlines()] == [63, 63, 1004, 63]


def test_wide_characters_and_line_breaks_keep_the_columns_aligned() -> None:
    """In a font of fixed width."""
    lines = str(BodyTable(["a", "b"], [("世界", "x"), ("e\u0301", "y"), ("1\n2", "z")], row_count=3)).splitlines()
    assert lines == ["a     b", "----  -", "世界  x", "e\u0301     y", "1 2   z"]
