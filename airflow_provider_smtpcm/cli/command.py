"""What a command is, for argparse as for Airflow. Knows no command."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


class UsageError(Exception):
    """Arguments that do not belong together."""


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument, as argparse's `add_argument` takes it.

    Args:
        flags: its names.
        options: the rest.
    """

    flags: tuple[str, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command.

    Args:
        run: does it; returns the exit status, or raises UsageError.
        epilog: stands below the arguments in its help, line by line as it is.
    """

    name: str
    help: str
    description: str
    arguments: tuple[Argument, ...]
    run: Callable[[argparse.Namespace], int]
    epilog: str = ""
