"""What an argument may be: its text in its type, or argparse's error. A password is refused without being repeated."""

from __future__ import annotations

import argparse
import re

SSL_MODES = ("starttls", "none", "implicit")
_NOT_HERE = (
    "a connection on the command line shows its password to everybody in the process list; "
    "give it on standard input with '--uri -', or in an environment variable with '--uri-env NAME'"
)


def port(text: str) -> int:
    """A port number, or 0."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:  # the highest there is
        raise argparse.ArgumentTypeError("that is not a port; take one up to 65535, or 0 for any free one")
    return int(text)


def ssl_mode(text: str) -> str:
    """One of the relay's; argparse's own `choices` repeats what is none of them."""
    if text not in SSL_MODES:
        raise argparse.ArgumentTypeError(f"choose one of {', '.join(SSL_MODES)}")
    return text


def variable(text: str) -> str:
    """The name of an environment variable, as a shell can spell it."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise argparse.ArgumentTypeError("name an environment variable here, not the password itself")
    return text


def connection_id(text: str) -> str:
    """The id of an Airflow connection; the connection itself is refused without being repeated."""
    if "://" in text or text.lstrip().startswith("{"):
        raise argparse.ArgumentTypeError(_NOT_HERE)
    return text


def standard_input(text: str) -> str:
    """`-` alone."""
    if text != "-":
        raise argparse.ArgumentTypeError(_NOT_HERE)
    return text


def windows_auth(text: str) -> tuple[str, str | None]:
    """`keep` or `anonymous`, and the connection manager that it is about; None: all others."""
    mode, equals, name = text.partition("=")
    if mode not in {"keep", "anonymous"} or (equals and not name):
        raise argparse.ArgumentTypeError("say keep, anonymous, or one of them with =NAME of a connection manager")
    return mode, name or None


def path_mapping(text: str) -> tuple[str, str]:
    r"""The beginning of a Windows path, and where it is on the workers: `\\files\loads=/srv/loads`."""
    windows, _, worker = text.rpartition("=")
    if not windows.strip() or not worker.startswith("/"):
        raise argparse.ArgumentTypeError(r"write it as '\\server\share=/mnt/share': Windows's, '=', the workers'")
    return windows.strip(), worker
