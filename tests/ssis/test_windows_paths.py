"""Windows paths on a worker."""

from __future__ import annotations

import pytest

from airflow_provider_smtpcm.ssis.expressions import ExpressionError
from airflow_provider_smtpcm.ssis.windows_paths import PathMap, is_windows_path, map_paths

MAP = PathMap(
    [
        (r"\\srv\share", "/mnt/share"),
        ("D:\\", "/data/"),
        (r"\\srv\share\deep", "/deep"),
        ("e:", "/e"),
        ("F:\\\u0130x", "/i"),
    ]
)


@pytest.mark.parametrize("path", [r"\\srv\share2\a", r"C:\a", "a.txt", "/mnt/share/a", ""])
def test_a_path_with_another_prefix_is_not_mapped(path: str) -> None:
    """A prefix ends where a folder ends."""
    assert MAP.map(path) is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (r"\\SRV\Share\Sub\A.csv", "/mnt/share/Sub/A.csv"),
        ("//srv/share/a", "/mnt/share/a"),
        (r"\\srv\share\deep\a", "/deep/a"),
        (r"\\srv\share\deeper\a", "/mnt/share/deeper/a"),
        (r"d:\x\y.txt", "/data/x/y.txt"),
        (r"E:\x", "/e/x"),
        (r"\\srv\share", "/mnt/share"),
        ("F:\\\u0130x\\a", "/i/a"),
    ],
)
def test_the_longest_prefix_wins_in_any_case_with_either_slash(path: str, expected: str) -> None:
    """The rest of the path keeps its case."""
    assert MAP.map(path) == expected


@pytest.mark.parametrize(("path", "expected"), [(r"\\s\x", True), ("c:/x", True), ("c:x", False), ("mailto:a", False)])
def test_an_absolute_windows_path_is_recognized(path: str, *, expected: bool) -> None:
    """By its drive or its server."""
    assert is_windows_path(path) is expected


@pytest.mark.parametrize("paths", ["D:\\out\\a.csv", "/srv/b.csv| d:/out/a.csv", r"\\srv\out\a.csv", r"\out\a.csv"])
def test_a_windows_path_that_a_run_yields_and_nothing_maps_fails(paths: str) -> None:
    """The error names the variable, the path and the option."""
    with pytest.raises(ExpressionError, match=r"a\.csv' is a Windows path from User::File.* --map-path '") as caught:
        map_paths(paths, {r"E:\in": "/srv/in"}, "User::File")
    assert repr(paths.rsplit("|", maxsplit=1)[-1].strip()) in str(caught.value)


def test_other_paths_of_a_run_are_not_changed() -> None:
    """Those of workers, and none."""
    assert map_paths("/srv/a.csv|", {}) == "/srv/a.csv|"
