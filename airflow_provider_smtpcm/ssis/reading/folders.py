"""Folders of SSIS projects: their order, which of them is build output, and to which project one belongs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from airflow_provider_smtpcm.ssis.reading.xml import files_in

_OUTPUT = {"bin", "obj"}
_NOT_ENTERED = {".git", ".svn", ".vs", "node_modules"}
_PROJECT_FILES = (".conmgr", ".dtproj", ".params")


def folders(top: Path) -> Iterator[Path]:
    """All folders, build output after what it was built from."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        yield folder
        try:
            with os.scandir(folder) as entries:
                inner = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue  # told by who reads the folder
        inner = [name for name in inner if name.lower() not in _NOT_ENTERED]
        inner.sort(key=lambda name: (name.lower() in _OUTPUT, name.lower(), name), reverse=True)
        waiting += [folder / name for name in inner]


def source_folder(folder: Path, top: Path) -> Path | None:
    """The folder of the project that a folder under `bin` or `obj` was built from."""
    parts = folder.relative_to(top).parts
    for depth, part in enumerate(parts):
        if part.lower() in _OUTPUT:
            home = top.joinpath(*parts[:depth])
            if any(file.suffix.lower() in _PROJECT_FILES for file in files_in(home)):
                return home
    return None


def original_of(name: str, built_from: Path | None) -> Path | None:
    """What a package in the build output was built from: the package of that name, however old the output is."""
    files = files_in(built_from) if built_from else ()
    return next((file for file in files if file.name.lower() == name.lower()), None)


def home_of(folder: Path, top: Path) -> Path | None:
    """The nearest folder, from here up to the one that was given, that has the files of a project."""
    for place in (folder, *folder.parents):
        if any(file.suffix.lower() in _PROJECT_FILES for file in files_in(place)):
            return place
        if place == top:
            return None
    return None
