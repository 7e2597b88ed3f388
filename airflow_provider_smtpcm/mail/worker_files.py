"""What tells whether a file is still the one that was looked at before: its status, by descriptor or by path."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

#: What to do about a file that somebody writes to while it is read.
FILE_CHANGED_REMEDY = "Send it when whatever writes it is done: let that write to another name, and rename at the end."


class FileState(NamedTuple):
    """Two states are equal where, as far as the file system says, nobody wrote to the file or replaced it in between.

    The time of the last status change (ctime) is left out: a backup that links the file, or a clean-up that unlinks it
    while it is read, changes that and none of its octets.

    Args:
        size: octets.
        modified: time of the last modification, as exactly as it is told; None where a storage does not tell.
        inode, device: which file it is; 0 in object storage.
        tag: the version in object storage (ETag), where there is one.
    """

    size: int
    modified: float | None
    inode: int
    device: int
    tag: str | None


def state_of(status: Any) -> FileState:
    """The state in what stat or fstat, or a storage in place of them, returned.

    Args:
        status: has `st_size`; of the rest whatever there is.
    """
    tag = status.get("ETag", status.get("etag")) if isinstance(status, Mapping) else None
    modified = getattr(status, "st_mtime_ns", None) or getattr(status, "st_mtime", None)
    return FileState(
        int(status.st_size), modified, getattr(status, "st_ino", 0), getattr(status, "st_dev", 0), tag and str(tag)
    )


def is_pathlib_path(path: object) -> bool:
    """Whether a path is pathlib's own, and so names a local file.

    Subclasses may be anything: up to some version, Airflow's ObjectStoragePath is one.
    """
    return type(path).__module__.partition(".")[0] == "pathlib"


class FileChangedError(OSError):
    """The file was written to while it was read."""

    def __init__(self) -> None:
        super().__init__("it was written to while it was read")


class UnchangedFile(io.FileIO):
    """A local file, opened to be read, that hands out nothing that somebody has written since it was opened."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._state = state_of(os.fstat(self.fileno()))

    def readinto(self, buffer: Any, /) -> int | None:
        """As of any raw file.

        Raises:
            FileChangedError: it was written to.
        """
        octets = super().readinto(buffer)
        self._check()
        return octets

    def readall(self) -> bytes:
        """As of any raw file; raises as `readinto` does."""
        octets = super().readall()
        self._check()
        return octets

    def _check(self) -> None:
        if state_of(os.fstat(self.fileno())) != self._state:
            raise FileChangedError


# folded: How a path is shown to its author, and what to do where nothing is there. Opens nothing.

# `\\server\share` and `D:\folder`; `D:/folder` is Windows' too, while `//server/share` is a path elsewhere.
_OF_WINDOWS = re.compile(r"\\\\|[A-Za-z]:[\\/]")
_ON_WINDOWS = os.name == "nt"
_ON_THE_WORKER = "The file is looked for on the worker that runs the task: check the path and its permissions there."
_MOUNT_IT = (
    "That is a path on Windows, and this worker is no Windows machine: mount the share or copy the file there, and "
    "give the path that it has on the worker, such as /mnt/loads/rows.csv."
)


def is_windows_path(path: str) -> bool:
    """Whether a path can only be meant for Windows, and this is none."""
    return not _ON_WINDOWS and _OF_WINDOWS.match(path.strip()) is not None


def quote_path(path: str) -> str:
    """A path between quotes, each backslash once; control characters are escaped, so that it stays on its line."""
    return f"'{path}'" if path.isprintable() else repr(path)


def file_remedy(path: str, *, otherwise: str = _ON_THE_WORKER) -> str:
    """What to do about a file that is not there.

    Args:
        path: as somebody wrote it.
        otherwise: what helps where it is no path of Windows.
    """
    return _MOUNT_IT if is_windows_path(path) else otherwise
