"""Commands and their arguments, and the types of arguments. Each type parses a text.

No message repeats an argument, since it may be a password in the wrong place.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


class UsageError(Exception):
    """A wrong combination of arguments."""


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a command, for argparse's `add_argument`.

    Args:
        flags: its name, or its option strings.
        options: the keyword arguments of `add_argument`.
    """

    flags: tuple[str, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command.

    Args:
        name: its name on the command line.
        help: one clause for the list of commands.
        description: the text above the arguments in `--help`.
        arguments: in the order of `--help`.
        run: the function that runs it and returns the exit status; may raise `UsageError`.
        epilog: the text below the arguments in `--help`; its line breaks are kept.
    """

    name: str
    help: str
    description: str
    arguments: tuple[Argument, ...]
    run: Callable[[argparse.Namespace], int]
    epilog: str = ""


# --- Types of arguments.

SSL_MODES = ("starttls", "none", "implicit")
EXTENDED_PROTECTION = ("none", "allow", "require")
_NOT_ON_COMMAND_LINE = (
    "a connection on the command line shows its password to everyone in the process list; "
    "give it on standard input with '--uri -', or in an environment variable with '--uri-env NAME'"
)


def parse_port(text: str) -> int:
    """Parse a port; 0 means any free one."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError("not a port; give a number up to 65535, or 0 for any free port")
    return int(text)


def parse_ssl_mode(text: str) -> str:
    """Check that a text is one of the relay's SSL modes."""
    if text not in SSL_MODES:
        raise argparse.ArgumentTypeError(f"choose one of {', '.join(SSL_MODES)}")
    return text


def parse_personality(text: str) -> str:
    """Check that a text is one of the relay's personalities."""
    if text != "exchange":
        raise argparse.ArgumentTypeError("choose exchange")
    return text


def parse_message_rate(text: str) -> int:
    """Parse a number of messages per minute."""
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError("give a number of messages per minute, from 1")
    return int(text)


def parse_extended_protection(text: str) -> str:
    """Check that a text is one of the policies of Extended Protection."""
    if text not in EXTENDED_PROTECTION:
        raise argparse.ArgumentTypeError(f"choose one of {', '.join(EXTENDED_PROTECTION)}")
    return text


def parse_variable_name(text: str) -> str:
    """Check that a text is the name of an environment variable."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise argparse.ArgumentTypeError("give the name of an environment variable, not the password itself")
    return text


def parse_conn_id(text: str) -> str:
    """Check that a text is the id of a connection, not a connection itself."""
    if "://" in text or text.lstrip().startswith("{"):
        raise argparse.ArgumentTypeError(_NOT_ON_COMMAND_LINE)
    return text


def parse_recipient(text: str) -> str:
    """Check that a text is one mail address; only the server can tell whether it exists."""
    if not re.fullmatch(r"[^\s<>@;,\x00-\x1f\x7f]+@[^\s<>@;,\x00-\x1f\x7f]+", text):
        raise argparse.ArgumentTypeError("give one mail address, such as me@corp.example")
    return text


def parse_row_number(text: str) -> int:
    """Parse the number of a row."""
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError("give the number of a row, from 1")
    return int(text)


def parse_map_index(text: str) -> int:
    """Parse a map index."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError("give a map index, from 0")
    return int(text)


def parse_date(text: str) -> str:
    """Check that a text is a date or a time."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("give a date, such as 2026-01-31 or 2026-01-31T06:00:00+00:00") from None
    return text


def parse_json_object(text: str) -> dict[str, Any]:
    """Parse a JSON object."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError('give a JSON object, such as \'{"month": "2026-01"}\'')
    return value


def parse_dash(text: str) -> str:
    """Check that a text is `-`, for standard input."""
    if text != "-":
        raise argparse.ArgumentTypeError(_NOT_ON_COMMAND_LINE)
    return text


def parse_windows_auth(text: str) -> tuple[str, str | None]:
    """Parse `keep` or `anonymous`, and the connection manager after `=`; None: all that no other option names."""
    mode, equals, name = text.partition("=")
    if mode not in {"keep", "anonymous"} or (equals and not name):
        raise argparse.ArgumentTypeError("give keep, anonymous, or one of them with =NAME of a connection manager")
    return mode, name or None


def parse_path_mapping(text: str) -> tuple[str, str]:
    r"""Parse a prefix of Windows paths, and the path on the workers that replaces it: `\\files\loads=/srv/loads`."""
    windows, _, worker = text.rpartition("=")
    if not windows.strip() or not worker.startswith("/"):
        raise argparse.ArgumentTypeError(
            r"write it as '\\server\share=/mnt/share': the Windows path, '=', the path on the workers"
        )
    return windows.strip(), worker
