"""The table in docs/contributing/dependencies.md: each imported module, and what installs it."""

from __future__ import annotations

import re
from pathlib import Path

_PAGE = Path(__file__).resolve().parent.parent / "docs/contributing/dependencies.md"


def _rows() -> dict[str, str]:
    lines = _PAGE.read_text(encoding="utf-8").splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("| `")]
    return {module: cells[1].strip() for cells in rows for module in re.findall(r"`(\w+)`", cells[0])}


#: What installs each imported module, as the table has it.
DEPENDENCIES = _rows()


def comes_with(dependency: str) -> set[str]:
    """Return the modules that a dependency, or an extra, of this name installs."""
    return {
        module
        for module, source in DEPENDENCIES.items()
        if re.match(rf"(extra )?`{re.escape(dependency)}`(?![-\w])", source)
    }
