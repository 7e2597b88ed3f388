"""Windows paths, and where they are on a worker."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from airflow_provider_smtpcm.ssis.expressions import ExpressionError

_WINDOWS_PATH = re.compile(r"\\\\[^\\]|//[^/]|[A-Za-z]:(?:[\\/]|\Z)")


class PathMap:
    r"""Maps Windows paths to paths of a worker by their prefixes; the longest prefix takes precedence.

    A prefix is a drive or a UNC path, with either kind of slash, in upper or lower case. It ends where a folder ends:
    `\\srv\share` is not a prefix of `\\srv\share2`.

    Args:
        pairs: pairs of a Windows path prefix and the path on a worker.

    Attributes:
        pairs: as given.
        unused: the prefixes that have matched no path so far.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        pairs = tuple(pairs)
        self.unused = {_normalize(windows).rstrip("/"): windows for windows, _ in pairs}
        known = {_normalize(windows).rstrip("/"): worker.rstrip("/") for windows, worker in pairs}
        self._pairs = sorted(known.items(), key=lambda pair: (-len(pair[0]), pair[0]))
        self.pairs = pairs

    def map(self, path: str) -> str | None:
        """Return the path on a worker, or None if no prefix matches."""
        normalized = _normalize(path)
        for windows, worker in self._pairs:
            if normalized.startswith(windows) and normalized[len(windows) : len(windows) + 1] in ("", "/"):
                self.unused.pop(windows, None)
                return worker + path.replace("\\", "/")[len(windows) :] or "/"
        return None


def is_windows_path(path: str) -> bool:
    """Whether a text begins like an absolute Windows path."""
    return _WINDOWS_PATH.match(path) is not None


def map_paths(paths: object, pairs: Mapping[str, str], variables: str = "") -> str:
    """Return Windows paths as paths of a worker.

    Args:
        paths: one path, or several with `|` between. One that is no Windows path is not changed.
        pairs: the path on a worker for each prefix, as in `PathMap`.
        variables: the names of the variables that the paths come from, for the error.

    Raises:
        ExpressionError: no prefix matches a Windows path, which no worker has.
    """
    known = PathMap(pairs.items())
    return "|".join(_map_or_fail(known, path, variables) for path in str(paths).split("|"))


def _map_or_fail(known: PathMap, path: str, variables: str) -> str:
    mapped = known.map(path.strip())
    if mapped is None and (is_windows_path(path.strip()) or path.strip().startswith("\\")):
        root = path_root(path)
        raise ExpressionError(
            f"{path.strip()!r} is a Windows path{f' from {variables}' if variables else ''}, and the DAG does not know "
            "where it is on a worker.",
            remedy=f"Import again with --map-path '{root}=/mnt/folder', or add {root!r} to ssis.worker_paths in the "
            "DAG.",
        )
    return mapped or path


def path_root(path: str) -> str:
    r"""Return the root of a Windows path: a drive such as `D:\`, or a share such as `\\srv\share` in lower case."""
    path = path.strip().replace("/", "\\")
    if path.startswith("\\\\"):
        return "\\".join(path.split("\\")[:4]).lower()
    return f"{path[0].upper()}:\\" if path[1:2] == ":" else "\\"


def _normalize(path: str) -> str:
    # Letter by letter: the result is as long as the path, also with an İ.
    return "".join(small if len(small := letter.lower()) == 1 else letter for letter in path.replace("\\", "/"))
