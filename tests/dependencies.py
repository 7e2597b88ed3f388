"""The table under "Dependencies" in docs/contributing.md: what the package imports, and what that comes with."""

from __future__ import annotations

import re
from pathlib import Path

_PAGE = Path(__file__).resolve().parent.parent / "docs/contributing.md"


def _rows() -> dict[str, str]:
    section = _PAGE.read_text(encoding="utf-8").partition("## Dependencies\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return {module: cells[1].strip() for cells in rows for module in re.findall(r"`(\w+)`", cells[0])}


#: What each imported module comes with, as the table words it.
DEPENDENCIES = _rows()


def comes_with(dependency: str) -> set[str]:
    """The modules that rest on a dependency of this name, or on the extra of this name."""
    return {
        module
        for module, source in DEPENDENCIES.items()
        if re.match(rf"(extra )?`{re.escape(dependency)}`(?![-\w])", source)
    }
