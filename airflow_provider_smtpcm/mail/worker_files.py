"""Files on the worker: detection of changes during reading, and paths in error messages."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

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
    """A local file, open for reading, that raises instead of returning content written after it was opened."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
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
