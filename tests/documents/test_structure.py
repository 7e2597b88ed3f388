"""The pages are consistent: links and pictures exist, and every code block is tested."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.sending import table
from tests.documents.pages import BLOCKS, DOCS, PAGES, README, ROOT, anchors_of, prose_of, text_of
from tests.documents.test_commands import HANDLED
from tests.documents.test_data import CHECKED
from tests.integration import sign_in_matrix
from tests.readme import PAGE, render_page

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
# The only other names, which a page has to mention.
REAL = {
    "github.com",
    "www.microsoft.com",  # in the namespaces of XML
    "corp-example.mail.protection.outlook.com",  # of a tenant that cannot exist: `.example` is reserved
    "learn.microsoft.com",
    "techcommunity.microsoft.com",
}
HOST = re.compile(r"(?<![\w./@-])(?:[\w-]+\.)+(?:com|org|net|io|dev|local|lan|internal)\b")


def page_ids(page: Path) -> str:
    """Return the ids of the tests."""
    return str(page.relative_to(ROOT))


def test_every_code_block_is_tested() -> None:
    """Each is in a language that some test runs or checks; a new language needs a test first."""
    tested = {"python", *HANDLED, *CHECKED}
    assert [str(block) for block in BLOCKS if block.language not in tested] == []
    assert tested <= {block.language for block in BLOCKS}


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_every_link_has_a_target(page: Path) -> None:
    """A file, and a heading in it."""
    broken = []
    for link in LINK.findall(prose_of(page)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_every_row_of_a_table_is_below_a_header(page: Path) -> None:
    """A blank line ends a table: rows after it would be shown as text."""
    tables = re.findall(r"(?:^\|.*\n)+", f"{prose_of(page)}\n", re.MULTILINE)
    assert [table for table in tables if not re.match(r".*\n\|(?:\s*:?-+:?\s*\|)+\n", table)] == []


def test_a_broken_anchor_would_be_noticed() -> None:
    """The pages have anchors, and not every word is one."""
    assert "every-field" in anchors_of(DOCS / "connection.md")
    assert "no-such-heading" not in anchors_of(DOCS / "connection.md")


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_only_example_domains_are_named(page: Path) -> None:
    """No page sends mail, or a reader, to a real server."""
    assert set(HOST.findall(text_of(page))) <= REAL
    addresses = re.findall(r"[\w.+-]+@([\w-]+(?:\.[\w-]+)+)", text_of(page))
    assert {domain for domain in addresses if not domain.lower().endswith(".example")} == set()


def test_the_connection_table_is_the_code_s() -> None:
    """`make readme` updates it."""
    assert render_page() == text_of(PAGE)


def between_the_marks(page: Path, writer: Any) -> str:
    """Return what a command has written into a page."""
    before, rest = text_of(page).split(writer.BEGIN)
    written, after = rest.split(writer.END)
    assert before
    assert after
    return written


def test_the_tables_that_take_long_to_measure_have_their_places() -> None:
    """Between the markers, where the commands write them."""
    for writer in (sign_in_matrix, table):
        assert between_the_marks(writer.PAGE, writer).startswith("\n| ")


def test_every_test_that_a_guarantee_names_exists() -> None:
    """In some folder of the tests."""
    named = set(re.findall(r"`(?:[\w/]*/)?(test_\w+\.py)`", text_of(DOCS / "guarantees.md")))
    assert len(named) > 10
    assert named <= {path.name for path in ROOT.glob("tests/**/test_*.py")}


def test_every_page_is_in_the_navigation_once() -> None:
    """And is linked from the README, except the pages of the reference and the changelog."""
    pages: list[str] = []

    def walk(entries: list[object]) -> None:
        for entry in entries:
            value = next(iter(entry.values())) if isinstance(entry, dict) else entry
            pages.extend([value]) if isinstance(value, str) else walk(value)

    walk(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(pages) == sorted(str(page.relative_to(DOCS)) for page in PAGES if page != README)
    linked = {link.partition("#")[0] for link in LINK.findall(text_of(README))}
    outside = {f"docs/{page}" for page in pages if not page.startswith(("api/", "reference/"))} - linked
    assert outside == {"docs/index.md", "docs/changelog.md"}
