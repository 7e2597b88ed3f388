"""The output folder of an import: files are replaced atomically, and edited files are kept.

A manifest in the folder records the digest of each file that an import wrote. The next import replaces a file that
still has this digest. A file with another digest was edited: it is kept, and the new text is written next to it, as
`load.py.new`.
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

#: The name of the manifest.
MANIFEST = ".import-ssis.json"
#: The suffix of a file that is written next to an edited one.
NEW_SUFFIX = ".new"
_REPORTS = ("report.html", "report.json")
_FILE_NAME = re.compile(r"(?:dags/)?[A-Za-z0-9_][A-Za-z0-9_.-]*")


class OutputError(MailError):
    """The folder cannot be written, or contains a file that no import wrote."""


class WriteResult(Enum):
    """The result of `OutputFolder.write`."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    KEPT = "kept"  # the file was edited; the new text is next to it


class OutputFolder:
    """The output folder.

    Args:
        path: created by `open` if it does not exist.
        force: whether to overwrite edited files.

    Raises:
        OutputError: raised by every method if the folder cannot be written; incomplete files are removed.
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        self.path = path
        self._force = force
        # Digests by file name: those from the manifest of the last import, and those for the manifest of this one.
        self._old_digests: dict[str, str] = {}
        self._new_digests: dict[str, str] = {}
        self._current_names: set[str] = set()  # the files of this import: written, unchanged or kept

    def open(self) -> None:
        """Create the folder, and read the manifest of the last import.

        Raises:
            OutputError: the folder cannot be written, or contains a report that no import wrote.
        """
        with self._os_errors_as_output_errors():
            (self.path / "dags").mkdir(parents=True, exist_ok=True)
            manifest = self.path / MANIFEST
            if manifest.exists():
                self._old_digests = _read_manifest(manifest)
            elif not self._force:
                existing = [name for name in _REPORTS if (self.path / name).exists()]
                if existing:
                    raise OutputError(
                        f"{self.path} contains a {existing[0]} that no import wrote.",
                        remedy="Name an empty folder with --out, or overwrite it with --force.",
                    )
            self._replace(MANIFEST, lambda file: file.write(_format_manifest(self._old_digests)))

    def write(self, name: str, text: str, *, replace: bool | None = None) -> WriteResult:
        """Write a file, unless it was edited after an import.

        Args:
            name: the file name, or `dags/` and the file name.
            replace: whether to overwrite an edited file; None: as `force` says.
        """
        replace = self._force if replace is None else replace
        if not _FILE_NAME.fullmatch(name):
            raise OutputError(f"{name!r} is not a valid file name for an import.", remedy="Please report it.")
        text = text.encode("utf-8", "replace").decode()  # a file name of a package may contain surrogates
        digest = hashlib.sha256(text.encode()).hexdigest()
        self._current_names.add(name)
        with self._os_errors_as_output_errors():
            existing = _compute_digest(self.path / name)
            if existing == digest:
                self._record(name, digest)
                return WriteResult.UNCHANGED
            if existing is None or existing == self._old_digests.get(name) or replace:
                self._replace(name, lambda file: file.write(text))
                self._record(name, digest)
                return WriteResult.WRITTEN
            self._replace(name + NEW_SUFFIX, lambda file: file.write(text))
            if name in self._old_digests:
                self._new_digests[name] = self._old_digests[name]
            self._new_digests[name + NEW_SUFFIX] = digest
            self._current_names.add(name + NEW_SUFFIX)
            return WriteResult.KEPT

    def remove(self, name: str) -> None:
        """Remove a file that an earlier import wrote, unless it was edited."""
        with self._os_errors_as_output_errors():
            digest = _compute_digest(self.path / name)
            if digest is not None and digest == self._old_digests.get(name):
                (self.path / name).unlink()

    def write_report(self, name: str, write_to: Callable[[IO[str]], object]) -> None:
        """Write a report; an earlier one is replaced even if it was edited.

        Args:
            name: the file name.
            write_to: called with the open file.
        """
        with self._os_errors_as_output_errors():
            self._replace(name, write_to)

    def close(self, *, complete: bool) -> list[str]:
        """Write the manifest; return the names of the files of earlier imports that this one did not write.

        Args:
            complete: whether the import processed all packages; if not, the list is empty.
        """
        old = {name: digest for name, digest in self._old_digests.items() if name not in self._current_names}
        with self._os_errors_as_output_errors():
            left_over = {name: digest for name, digest in old.items() if (self.path / name).exists()}
            self._new_digests = {**left_over, **self._new_digests}
            self._replace(MANIFEST, lambda file: file.write(_format_manifest(self._new_digests)))
        return sorted(name for name in left_over if not name.endswith(NEW_SUFFIX)) if complete else []

    def _record(self, name: str, digest: str) -> None:
        self._new_digests[name] = digest
        # The file is up to date, so the `.new` file of an earlier import is obsolete.
        new = self.path / (name + NEW_SUFFIX)
        if name + NEW_SUFFIX in self._old_digests and _compute_digest(new) == self._old_digests[name + NEW_SUFFIX]:
            new.unlink()

    def _replace(self, name: str, write_to: Callable[[IO[str]], object]) -> None:
        """Replace a file atomically, since Airflow may read the folder at any time."""
        path = self.path / name
        draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            # Not with tempfile, whose files only their owner can read: Airflow may run as another user.
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


def _compute_digest(path: Path) -> str | None:
    """Return the digest of a file, or None if there is no such file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _format_manifest(files: dict[str, str]) -> str:
    return json.dumps({"version": 1, "files": files}, indent=1, sort_keys=True) + "\n"


def _read_manifest(path: Path) -> dict[str, str]:
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {str(name): str(digest) for name, digest in files.items() if _FILE_NAME.fullmatch(name)}
    except (ValueError, KeyError, TypeError, AttributeError):
        # Without digests, every file counts as edited, and none is overwritten.
        return {}
