"""The Debian packages that some tests need, and skipping a test that lacks one, or root's rights."""

from __future__ import annotations

import os
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


def skip_unless_root(what: str) -> None:
    """Skip if the tests do not run as root, whom this server needs to start."""
    if os.geteuid() != 0:
        pytest.skip(f"{what} starts as root only: sudo make test")
