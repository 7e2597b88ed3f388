"""How a path is shown to its author, and what to do where nothing is there. Opens nothing."""

from __future__ import annotations

import os
import re

# `\\server\share` and `D:\folder`; `D:/folder` is Windows' too, while `//server/share` is a path elsewhere.
_OF_WINDOWS = re.compile(r"\\\\|[A-Za-z]:[\\/]")
_ON_WINDOWS = os.name == "nt"
_ON_THE_WORKER = "The file is looked for on the worker that runs the task: check the path and its permissions there."
_MOUNT_IT = (
    "That is a path on Windows, and this worker is no Windows machine: mount the share or copy the file there, and "
    "give the path that it has on the worker, such as /mnt/loads/rows.csv."
)


def means_windows(path: str) -> bool:
    """Whether a path can only be meant for Windows, and this is none."""
    return not _ON_WINDOWS and _OF_WINDOWS.match(path.strip()) is not None


def as_written(path: str) -> str:
    """A path between quotes, each backslash once; control characters are escaped, so that it stays on its line."""
    return f"'{path}'" if path.isprintable() else repr(path)


def file_remedy(path: str, *, otherwise: str = _ON_THE_WORKER) -> str:
    """What to do about a file that is not there.

    Args:
        path: as somebody wrote it.
        otherwise: what helps where it is no path of Windows.
    """
    return _MOUNT_IT if means_windows(path) else otherwise
