"""The output folder of an import: files are replaced as a whole, and never over what a person has edited.

The folder records the digest of each file that an import wrote. A file with that digest is replaced by the next import.
One with another digest was edited: it is kept, and the new text is written next to it, as `load.py.new`.
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

#: The record of the files, in the folder itself.
MANIFEST = ".import-ssis.json"
NEW_SUFFIX = ".new"
_REPORTS = ("report.html", "report.json")
_FILE_NAME = re.compile(r"(?:dags/)?[A-Za-z0-9_][A-Za-z0-9_.-]*")


class OutputError(MailError):
    """The folder cannot be written, or contains a file that no import wrote."""


class WriteResult(Enum):
    """What `OutputFolder.write` did."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    KEPT = "kept"  # an edited file, with the new text next to it


class OutputFolder:
    """The output folder.

    Args:
        path: is created if it does not exist.
        force: overwrite files that were edited, too.

    Raises:
        OutputError: from every method that writes; a file that was not written completely is removed.
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        self.path = path
        self._force = force
        # Digests by the files' names: of the last import, and of this one.
        self._before: dict[str, str] = {}
        self._now: dict[str, str] = {}
        self._given: set[str] = set()

    def open(self) -> None:
        """Create the folder, and read the record of the last import."""
        with self._os_errors_as_output_errors():
            (self.path / "dags").mkdir(parents=True, exist_ok=True)
            manifest = self.path / MANIFEST
            if manifest.exists():
                self._before = _read_manifest(manifest)
            elif not self._force:
                existing = [name for name in _REPORTS if (self.path / name).exists()]
                if existing:
                    raise OutputError(
                        f"{self.path} contains a {existing[0]} that no import wrote.",
                        remedy="Name an empty folder with --out, or overwrite it with --force.",
                    )
            self._replace(MANIFEST, lambda file: file.write(_manifest_json(self._before)))

    def write(self, name: str, text: str) -> WriteResult:
        """Write a file, unless a person has edited it.

        Args:
            name: relative to the folder: a file in it or in `dags`.
        """
        if not _FILE_NAME.fullmatch(name):
            raise OutputError(f"{name!r} is not a valid file name for an import.", remedy="Please report this.")
        text = text.encode("utf-8", "replace").decode()  # the name of a package's file may contain surrogates
        digest = hashlib.sha256(text.encode()).hexdigest()
        self._given.add(name)
        with self._os_errors_as_output_errors():
            existing = _digest_of(self.path / name)
            if existing == digest:
                self._record(name, digest)
                return WriteResult.UNCHANGED
            if existing is None or existing == self._before.get(name) or self._force:
                self._replace(name, lambda file: file.write(text))
                self._record(name, digest)
                return WriteResult.WRITTEN
            self._replace(name + NEW_SUFFIX, lambda file: file.write(text))
            if name in self._before:
                self._now[name] = self._before[name]
            self._now[name + NEW_SUFFIX] = digest
            self._given.add(name + NEW_SUFFIX)
            return WriteResult.KEPT

    def write_report(self, name: str, write_to: Callable[[IO[str]], object]) -> None:
        """Write a report; an earlier one is replaced, edited or not.

        Args:
            write_to: writes the text to the file that it is given.
        """
        with self._os_errors_as_output_errors():
            self._replace(name, write_to)

    def close(self, *, complete: bool) -> list[str]:
        """Record the files of this import; return those of earlier ones that it did not write.

        Args:
            complete: whether the import went through all packages; if not, nothing is returned.
        """
        old = {name: digest for name, digest in self._before.items() if name not in self._given}
        with self._os_errors_as_output_errors():
            left_over = {name: digest for name, digest in old.items() if (self.path / name).exists()}
            self._now = {**left_over, **self._now}
            self._replace(MANIFEST, lambda file: file.write(_manifest_json(self._now)))
        return sorted(name for name in left_over if not name.endswith(NEW_SUFFIX)) if complete else []

    def _record(self, name: str, digest: str) -> None:
        self._now[name] = digest
        # The new text of an earlier import is obsolete once its file is up to date.
        new = self.path / (name + NEW_SUFFIX)
        if name + NEW_SUFFIX in self._before and _digest_of(new) == self._before[name + NEW_SUFFIX]:
            new.unlink()

    def _replace(self, name: str, write_to: Callable[[IO[str]], object]) -> None:
        """Replace a file in one step, since Airflow may read the folder at any time."""
        path = self.path / name
        draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            # Not by tempfile, whose files only their owner can read: Airflow may run as another user.
            with draft.open("w", encoding="utf-8", newline="\n") as file:
                write_to(file)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    @contextmanager
    def _os_errors_as_output_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = error.filename or self.path
            raise OutputError(
                f"{where} cannot be written: {error.strerror or error}.",
                remedy="Name a folder with --out that you can write to and that has enough space.",
            ) from error


def _digest_of(path: Path) -> str | None:
    """Return the digest of a file, or None if there is no such file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _manifest_json(files: dict[str, str]) -> str:
    return json.dumps({"version": 1, "files": files}, indent=1, sort_keys=True) + "\n"


def _read_manifest(path: Path) -> dict[str, str]:
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {str(name): str(digest) for name, digest in files.items() if _FILE_NAME.fullmatch(name)}
    except (ValueError, KeyError, TypeError, AttributeError):
        # Then every file counts as edited, and none is overwritten.
        return {}
