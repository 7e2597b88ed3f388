r"""Paths of Windows as paths of a worker, by a mapping of their beginnings.

Either kind of slash, any case, drive letters and UNC paths; the longest beginning wins. It ends where a folder ends:
`\\srv\share` is no beginning of `\\srv\share2`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_WINDOWS = re.compile(r"\\\\[^\\]|//[^/]|[A-Za-z]:(?:[\\/]|\Z)")


class PathMap:
    """The mapping.

    Args:
        pairs: the beginning of a path in Windows, and what it is on a worker.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        known = {_key(windows).rstrip("/"): worker.rstrip("/") for windows, worker in pairs}
        self._pairs = sorted(known.items(), key=lambda pair: (-len(pair[0]), pair[0]))

    def map(self, path: str) -> str | None:
        """The path on a worker; None where no beginning fits."""
        key = _key(path)
        for windows, worker in self._pairs:
            if key.startswith(windows) and key[len(windows) : len(windows) + 1] in ("", "/"):
                return worker + path.replace("\\", "/")[len(windows) :] or "/"
        return None


def is_windows(path: str) -> bool:
    """Whether a text begins like an absolute path of Windows."""
    return _WINDOWS.match(path) is not None


def _key(path: str) -> str:
    return path.replace("\\", "/").lower()
