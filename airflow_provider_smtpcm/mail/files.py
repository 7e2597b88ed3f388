"""Files on the worker and in object storage: whether one changes while it is read, patterns, and paths in errors."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

from airflow_provider_smtpcm.errors import MessageError, Phase
from airflow_provider_smtpcm.frozen_dataclasses import Record
from airflow_provider_smtpcm.mail.tainted import TaintedStr, check_path

# Errors that a retry would not cure. Any other error of reading a file (a network, a busy share) may be temporary.
_PERMANENT_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError)
#: The remedy for a URL that cannot be opened.
STORAGE_REMEDY = "The worker needs Airflow's provider for that storage, and a connection with access to it."
#: The wildcards of a `FilePattern`. Brackets are none: `report [final].pdf` is the name of a file.
WILDCARDS = "*?"
#: The remedy for a file that changes while it is read.
FILE_CHANGED_REMEDY = (
    "Send it after the program that writes it has finished: let that program write to another name and rename the file "
    "at the end."
)

# `\\server\share`, `D:\folder` or `D:/folder`. Not `//server/share`, which is also a POSIX path.
_WINDOWS_PATH = r"\\\\|[A-Za-z]:[\\/]"
_ON_WINDOWS = os.name == "nt"
_CHECK_ON_WORKER = "The file must be on the worker that runs the task: check the path and its permissions there."
_MOUNT_SHARE = (
    "That is a path on Windows, and this worker does not run Windows: mount the share or copy the file there, and "
    "give its path on the worker, such as /mnt/loads/rows.csv."
)


class BinaryReader(Protocol):
    """The methods of an open file that reading an attachment needs."""

    def read(self, size: int, /) -> bytes: ...

    def fileno(self) -> int: ...

    def close(self) -> None: ...


@runtime_checkable
class RemotePath(Protocol):
    """A path object with its own `open` and `stat`, such as Airflow's ObjectStoragePath."""

    def open(self, mode: str, /) -> Any: ...

    def stat(self) -> Any: ...


def is_local_path(path: object) -> bool:
    """Whether a path names a local file. Even a `pathlib.Path` may be remote: see `is_pathlib_path`."""
    if isinstance(path, PurePath):
        return is_pathlib_path(path)
    return isinstance(path, str) or not isinstance(path, RemotePath)


class FileState(NamedTuple):
    """The size and version of a file. Equal states mean equal content, as far as the file system can tell.

    The ctime is not part of it: hard-linking the file (a backup) or unlinking it while it is read changes the ctime,
    but not the content.

    Args:
        size: the size in octets.
        modified: the mtime, in nanoseconds if the file system reports them, else in seconds; None if it reports none.
        inode, device: identify the file; 0 in object storage.
        tag: the ETag in object storage; None if there is none.
    """

    size: int
    modified: float | None
    inode: int
    device: int
    tag: str | None

    @classmethod
    def from_stat(cls, status: Any) -> Self:
        """Make a state from the result of `stat` or `fstat`, or from an object storage's counterpart of it.

        Args:
            status: must have `st_size`; everything else is optional.
        """
        tag = status.get("ETag", status.get("etag")) if isinstance(status, Mapping) else None
        modified = getattr(status, "st_mtime_ns", None) or getattr(status, "st_mtime", None)
        return cls(
            int(status.st_size), modified, getattr(status, "st_ino", 0), getattr(status, "st_dev", 0), tag and str(tag)
        )


class FileChangedError(OSError):
    """The file was modified while it was read."""

    def __init__(self) -> None:
        super().__init__("it was written to while it was read")


class UnchangedFile(io.FileIO):
    """A local file, open for reading, that raises instead of returning content written after it was opened.

    Raises:
        ValueError: it is not a regular file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - opening a FIFO would block
            raise ValueError("it is not a regular file")
        super().__init__(path)
        self._state = FileState.from_stat(os.fstat(self.fileno()))

    def readinto(self, buffer: Any, /) -> int | None:
        """Read as `io.RawIOBase.readinto` does.

        Raises:
            FileChangedError: the file was modified after it was opened.
        """
        octets = super().readinto(buffer)
        self._check()
        return octets

    def readall(self) -> bytes:
        """Read as `io.RawIOBase.readall` does; raises as `readinto`."""
        octets = super().readall()
        self._check()
        return octets

    def _check(self) -> None:
        if FileState.from_stat(os.fstat(self.fileno())) != self._state:
            raise FileChangedError


def make_read_error(
    subject: str, path: str, error: Exception, *, remedy: str = "", phase: Phase = Phase.MESSAGE
) -> MessageError:
    """Make a `MessageError` from an error of stat, open or read, retryable if it may be temporary.

    Args:
        subject: what cannot be read, for the beginning of the message.
        path: its path, or "" if it has none.
        error: the error.
        remedy: the remedy, if it is not that of `file_remedy`, or `STORAGE_REMEDY` for a URL.
        phase: the phase in which it occurred.
    """
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return MessageError(
        f"{subject} cannot be read: {reason}.",
        remedy=remedy or (STORAGE_REMEDY if "://" in path else file_remedy(path)),
        phase=phase,
        retryable=not isinstance(error, _PERMANENT_ERRORS),
    )


def is_pathlib_path(path: object) -> bool:
    """Whether a path is of one of `pathlib`'s own types, and so names a local file.

    A path of a subclass may be remote: `ObjectStoragePath` is a subclass in some versions of Airflow.
    """
    return type(path).__module__.partition(".")[0] == "pathlib"


def is_windows_path(path: str) -> bool:
    """Whether a path is a Windows path, and this machine does not run Windows."""
    return not _ON_WINDOWS and re.match(_WINDOWS_PATH, path.strip()) is not None


def quote_path(path: str) -> str:
    """Quote a path for a message: backslashes are not doubled, and control characters are escaped."""
    return f"'{path}'" if path.isprintable() else repr(path)


def file_remedy(path: str, *, default: str = _CHECK_ON_WORKER) -> str:
    """Return the remedy for a missing or unreadable file.

    Args:
        path: the path as the user wrote it.
        default: the remedy for a path that is not a Windows path.
    """
    return _MOUNT_SHARE if is_windows_path(path) else default


# --- Patterns


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class FilePattern(Record):
    """All files whose path matches a pattern when the mail is made, sorted by path.

    Args:
        pattern: a path with wildcards, such as `/srv/out/*.csv`: `*` is any text without a slash, `?` one character,
            `**` as a component any folders. A name that begins with a dot needs a pattern that does. If a file has
            exactly this path, only it is meant. In object storage, only `*` and `**` are wildcards.
        required: whether it is an error if no file matches; else nothing is attached then.
    """

    pattern: str | os.PathLike[str] | RemotePath
    _: KW_ONLY
    required: bool = True

    def __str__(self) -> str:
        return str(self.pattern)

    def find(self) -> list[Any]:
        """Return the files.

        Raises:
            MessageError: there is none although it is required, or the folder cannot be read.
        """
        pattern = check_path(self.pattern, "Attachments")
        found: list[Any]
        try:
            found = self._find_local() if is_local_path(pattern) else _find_remote(pattern)
        except Exception as error:  # an object storage library may raise any class
            raise make_read_error(f"The folder of {quote_path(str(pattern))}", str(pattern), error) from error
        if not found and self.required:
            text = str(pattern)
            where = "" if "://" in text else " on the worker that runs the task"
            default = f"Check the folder{where}. If there may be none, pass FilePattern(..., required=False)."
            raise MessageError(f"No file matches {quote_path(text)}.", remedy=file_remedy(text, default=default))
        return found

    def _find_local(self) -> list[str]:
        import glob

        text = os.fspath(self.pattern)  # type: ignore[arg-type]
        if Path(text).is_file():
            return [str(text)]
        mask = self.pattern.mask if isinstance(self.pattern, TaintedStr) else text
        escaped = "".join(
            character if masked == character and character in WILDCARDS else glob.escape(character)
            for character, masked in zip(text, mask, strict=True)
        )
        return sorted(path for path in glob.iglob(escaped, recursive=True) if Path(path).is_file())  # noqa: PTH207


def _find_remote(pattern: Any) -> list[Any]:
    """Return the files in object storage that match a pattern, which is a path object with wildcards in its name."""
    folder = pattern
    components: list[str] = []
    while "*" in str(folder):
        if folder.parent == folder:
            raise ValueError("the name of a bucket or host cannot have a wildcard")
        components.insert(0, folder.name)
        folder = folder.parent
    if not components:
        return [folder] if folder.is_file() else []
    return sorted((path for path in folder.glob("/".join(components)) if path.is_file()), key=str)
