"""The Debian packages that some tests need, and skipping a test that lacks one."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

INSTALL_COMMAND = "make system-packages"
_LIST = Path(__file__).parents[2] / ".ci/system-packages.txt"


def skip_for_want_of(what: str) -> NoReturn:
    """Skip with what is missing and the command that installs it."""
    lines = (line.partition("#")[0].strip() for line in _LIST.read_text().splitlines())
    packages = " ".join(line for line in lines if line)
    pytest.skip(f"{what} missing: `{INSTALL_COMMAND}` installs {packages}")
