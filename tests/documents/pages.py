"""The documents for tests: the README and the pages of `docs`, their code blocks, and their headings."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]

_FENCE = re.compile(r'^( *)```(\S*)(?: title="([^"]*)")?(.*)$')


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A code block.

    Args:
        line: of its fence.
        language: of its fence.
        title: shown above it on the page; a path if the block is a file.
    """

    page: Path
    line: int
    language: str
    title: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def text_of(page: Path) -> str:
    """Return the text of a page."""
    return page.read_text(encoding="utf-8")


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the code blocks of a page, including those in tabs."""
    opened: tuple[int, str, str, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(text_of(page).splitlines(), start=1):
        fence = _FENCE.match(line)
        if opened is None:
            if fence:
                assert not fence[4], f"{page.name}:{number}: a fence has a language and a title, and nothing else"
                opened, lines = (number, fence[1], fence[2], fence[3] or ""), []
        elif fence and fence[1] == opened[1] and not fence[2]:
            code = textwrap.dedent("\n".join(lines)) + "\n"
            yield Block(page=page, line=opened[0], language=opened[2], title=opened[3], code=code)
            opened = None
        else:
            lines.append(line)
    assert opened is None, f"{page.name}: a block is not closed"


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def blocks_in(*languages: str) -> list[Block]:
    """Return the blocks of all pages in these languages."""
    return [block for block in BLOCKS if block.language in languages]


def commands_of(block: Block) -> list[str]:
    """Return the commands of a block, one for each prompt; a backslash at the end of a line continues a command."""
    joined = block.code.replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]


def prose_of(page: Path) -> str:
    """Return the page without its code blocks."""
    return re.sub(r"^( *)```.*?^\1```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of its headings, as the site and GitHub make them."""
    titles = re.findall(r"^#{1,6} (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def table_after(page: Path, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its header."""
    rest = f"\n{text_of(page)}".split(f"\n{heading}\n", 1)[1]
    rows: list[list[str]] = []
    for line in rest.splitlines():
        if line.startswith("|"):
            rows.append([cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif rows:
            break
    return rows[2:]
