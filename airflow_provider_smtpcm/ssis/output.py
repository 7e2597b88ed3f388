"""The folder that an import writes into: whole files or none, and never over what a person has edited.

What was written is remembered in the folder by its digest. A file that still has it is ours and is brought up to date;
one that has another is a person's: it stays, and the new text goes beside it, as `load.py.new`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import IO

from airflow_provider_smtpcm.errors import MailError

MEMORY = ".import-ssis.json"
NEW = ".new"
_REPORTS = ("report.html", "report.json")
_NAME = re.compile(r"(?:dags/)?[A-Za-z0-9_][A-Za-z0-9_.-]*")


class OutputError(MailError):
    """The folder cannot be written into, or holds what is not an import's."""


class Fate(Enum):
    """What became of a file in the folder."""

    WRITTEN = "written"
    SAME = "as it was"
    KEPT = "a person's: kept"


class OutputFolder:
    """The folder, as the last import left it.

    Args:
        path: it is made where it is not there.
        force: overwrite what a person edited, too.

    Raises:
        OutputError: from `open`, `write` and `close`; nothing half-written stays behind.
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        self.path = path
        self._force = force
        self._before: dict[str, str] = {}
        self._now: dict[str, str] = {}
        self._seen: set[str] = set()

    def open(self) -> None:
        """Make it, and remember what an earlier import wrote."""
        with self._told():
            (self.path / "dags").mkdir(parents=True, exist_ok=True)
            memory = self.path / MEMORY
            if memory.exists():
                self._before = _remembered(memory)
            elif not self._force:
                there = [name for name in _REPORTS if (self.path / name).exists()]
                if there:
                    raise OutputError(
                        f"{self.path} holds a {there[0]} that no import has written.",
                        remedy="Name an empty folder with --out, or overwrite it with --force.",
                    )
            self._replace(MEMORY, lambda file: file.write(_memory(self._before)))

    def write(self, name: str, text: str) -> Fate:
        """Write a file, unless a person edited the one that is there."""
        if not _NAME.fullmatch(name):
            raise OutputError(f"{name!r} is no name for a file of an import.", remedy="Please report this.")
        text = text.encode("utf-8", "replace").decode()  # a file's name may hold half characters
        digest = hashlib.sha256(text.encode()).hexdigest()
        self._seen.add(name)
        with self._told():
            there = _digest_of(self.path / name)
            if there == digest:
                self._remember(name, digest)
                return Fate.SAME
            if there is None or there == self._before.get(name) or self._force:
                self._replace(name, lambda file: file.write(text))
                self._remember(name, digest)
                return Fate.WRITTEN
            self._replace(name + NEW, lambda file: file.write(text))
            if name in self._before:
                self._now[name] = self._before[name]
            self._now[name + NEW] = digest
            self._seen.add(name + NEW)
            return Fate.KEPT

    def report(self, name: str, writing: Callable[[IO[str]], object]) -> None:
        """Write a report, which is nobody else's."""
        with self._told():
            self._replace(name, writing)

    def close(self, *, whole: bool) -> list[str]:
        """Remember what was written; returns what is left of an earlier import and was not written by this one.

        Args:
            whole: this import went through to its end. Where it did not, nothing is called left over.
        """
        old = {name: digest for name, digest in self._before.items() if name not in self._seen}
        with self._told():
            there = {name: digest for name, digest in old.items() if (self.path / name).exists()}
            self._now = {**there, **self._now}
            self._replace(MEMORY, lambda file: file.write(_memory(self._now)))
        return sorted(name for name in there if not name.endswith(NEW)) if whole else []

    def _remember(self, name: str, digest: str) -> None:
        self._now[name] = digest
        # A person has taken over what stood beside it, or wanted to have it overwritten.
        beside = self.path / (name + NEW)
        if name + NEW in self._before and _digest_of(beside) == self._before[name + NEW]:
            beside.unlink()

    def _replace(self, name: str, writing: Callable[[IO[str]], object]) -> None:
        """All of a file at once, so that whoever reads meanwhile, as Airflow reads DAGs, finds a whole one."""
        path = self.path / name
        draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            # Not by tempfile, whose files only their owner can read: Airflow may be somebody else.
            with draft.open("w", encoding="utf-8", newline="\n") as file:
                writing(file)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = error.filename or self.path
            raise OutputError(
                f"{where} cannot be written: {error.strerror or error}.",
                remedy="Name a folder with --out that you can write into, and that has room.",
            ) from error


def _digest_of(path: Path) -> str | None:
    """None where there is nothing."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _memory(files: dict[str, str]) -> str:
    return json.dumps({"version": 1, "files": files}, indent=1, sort_keys=True) + "\n"


def _remembered(memory: Path) -> dict[str, str]:
    try:
        files = json.loads(memory.read_text(encoding="utf-8"))["files"]
        return {str(name): str(digest) for name, digest in files.items() if _NAME.fullmatch(name)}
    except (ValueError, KeyError, TypeError, AttributeError):
        # Then every file is a person's, which loses nothing.
        return {}


# folded: What packages hold, made fit to be shown: without accounts, without control characters, without half
#   characters.

# SSIS knows no account in an SMTP connection manager, but people wrote some into its string and into expressions. The
# value ends at a semicolon, at a quotation mark or at the end of the line; it may stand in quotation marks of its own.
_ACCOUNT = re.compile(
    r"""(?P<key>(?:password|passwd|pwd|secret|token|(?<![a-z0-9])(?:uid|login|user(?:\s?name|\s?id)?))\s*+=(?!=)\s*+)
        (?:["']\s*+\+\s*+(?:\([^()]*+\)\s*+)*+(?=["']))?
        (?:\\?["'](?=[^\s+;"']))?
        [^;"'\r\n]*[^;"'\r\n\s]""",
    re.IGNORECASE | re.VERBOSE,
)
# Stricter, for what is left out where it would be missed: a mail may well say `user = somebody`.
_HELD = re.compile(
    r"""(?:password|passwd|pwd)\s*+=(?!=)\s*+[^;]
        |(?:^|[;"'\n])[^\S\n]*+(?:uid|user\s?id|user\s?name)\s*+=(?!=)\s*+[^;]""",
    re.IGNORECASE | re.VERBOSE,
)
_REMOVED = "(removed)"
_SURROGATES = re.compile(r"[\ud800-\udfff]")
# Python calls what cannot be seen not printable, the marks that turn the direction of writing too.
_LINES = "\n\t"


def clean(text: str) -> str:
    """For a report: lines stay lines."""
    text = _ACCOUNT.sub(lambda found: found["key"] + _REMOVED, text)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in _LINES else "\ufffd" for one in _SURROGATES.sub("\ufffd", text))


def holds_account(text: str) -> bool:
    """Whether a text is, or has in it, the account of a connection string."""
    return bool(_HELD.search(text))


def on_one_line(text: str) -> str:
    """For a terminal, and for a name."""
    return " ".join(clean(text).split())
