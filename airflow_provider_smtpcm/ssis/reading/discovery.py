"""Finds and reads packages in files and folders, with their projects. Only one package at a time is in memory.

A copy of a package, and one in the build output of its project, is reported as a duplicate.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis.model import (
    REPORT_INTERNAL_ERROR,
    Package,
    Project,
    SmtpConnection,
    describe_internal_error,
)
from airflow_provider_smtpcm.ssis.reading.configurations import read_dtsconfig
from airflow_provider_smtpcm.ssis.reading.exports import SUFFIXES as EXPORT_SUFFIXES
from airflow_provider_smtpcm.ssis.reading.exports import Exports
from airflow_provider_smtpcm.ssis.reading.ispac import open_ispac
from airflow_provider_smtpcm.ssis.reading.packages import (
    SUPPORTED_FILES_REMEDY,
    ReadOptions,
    build_package,
    read_connection_manager,
    read_project_folder,
    read_project_ispac,
)
from airflow_provider_smtpcm.ssis.reading.xml import (
    Document,
    list_files,
    read_file,
    require_defusedxml,
    unreadable_error,
)

_SUFFIXES = (".dtsx", ".ispac", ".conmgr")
# Files with values, which are read only if they are passed themselves.
_VALUE_SUFFIXES = {".dtsconfig", ".xml", *EXPORT_SUFFIXES}
_BUILD_FOLDERS = {"bin", "obj"}
_SKIPPED_FOLDERS = {".git", ".svn", ".vs", "node_modules"}
_PROJECT_SUFFIXES = (".conmgr", ".dtproj", ".params")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadResult:
    """A package, a project, an error or a duplicate. Fields that do not apply are None.

    A project comes before its packages and does not contain them. A single `.conmgr` file is a project with one
    connection manager.

    Args:
        source: the file, the folder, or `project.ispac!Part.dtsx`.
        package: the package.
        project: the project, or the project of `package`.
        error: why the source could not be read.
        duplicate_of: the source of the original, if this is a copy, or build output under `bin` or `obj`.
    """

    source: str
    package: Package | None = None
    project: Project | None = None
    error: PackageError | None = None
    duplicate_of: str | None = None


def read_paths(
    paths: Iterable[str | os.PathLike[str]], *, answers: Mapping[str, str] | None = None
) -> Iterator[ReadResult]:
    """Read packages, projects and connection managers.

    Args:
        paths: files and folders; folders are searched recursively. A `.dtsConfig` file applies to every package, and so
            do exports of values from SQL Server (`.csv`, `.sql`).
        answers: the answers of `questions.csv`; some are values of configurations.

    Yields:
        One result for each package, project and unreadable file. An error never ends the iteration.

    Raises:
        PackageError: defusedxml is not installed.
    """
    require_defusedxml()
    inputs = [Path(path) for path in paths]
    reader = _PathReader(answers=answers or {})
    values = [path for path in inputs if path.suffix.lower() in _VALUE_SUFFIXES and not path.is_dir()]
    for path in values:
        try:
            if path.suffix.lower() in EXPORT_SUFFIXES:
                reader.exports.read(path)
            else:
                read_dtsconfig(path)
                reader.configurations.append(path)
        except PackageError as error:
            yield ReadResult(source=str(path), error=error)
    for path in inputs:
        if path.is_dir():
            yield from reader.read_tree(path)
        elif path.suffix.lower() == ".dtproj" and path.is_file():
            yield from reader.read_tree(path.parent)
        elif path not in values:
            yield from reader.read_single_file(path)


def check_paths(paths: Iterable[Path]) -> None:
    """Check that every path exists, before anything is written.

    Raises:
        PackageError: a path does not exist.
    """
    missing = [path for path in paths if not path.exists()]
    if missing:
        names = ", ".join(map(str, missing))
        raise PackageError(
            f"{names} {'does' if len(missing) == 1 else 'do'} not exist; nothing was imported.",
            remedy="Check the spelling; a path with blanks needs quotation marks.",
        )


@dataclass(slots=True, kw_only=True)
class _PathReader:
    """Reads paths and detects duplicates.

    Args:
        configurations: `.dtsConfig` files that apply to every package.
        exports: values from SQL Server.
        answers: the answers of `questions.csv`.
    """

    configurations: list[Path] = field(default_factory=list)
    exports: Exports = field(default_factory=Exports)
    answers: Mapping[str, str] = field(default_factory=dict)
    # The first source of each package, by digest.
    _first_sources: dict[str, str] = field(default_factory=dict)
    _read_files: set[Path] = field(default_factory=set)
    _reported_projects: set[str] = field(default_factory=set)
    # Number of files that were found again, because the given paths overlap.
    _repeated: int = 0
    # Packages are read folder by folder, so caching the last lookup is enough.
    _cached_project: tuple[Path, Project] | None = None
    _cached_folder: tuple[tuple[Path, Path], Path | None] | None = None

    def read_tree(self, top: Path) -> Iterator[ReadResult]:
        """Read a folder recursively."""
        count, repeated = 0, self._repeated
        for folder in _walk_folders(top):
            for result in self._read_folder(folder, top):
                count += 1
                yield result
        if not count and self._repeated == repeated:
            yield ReadResult(
                source=str(top), error=PackageError(f"{top} contains no SSIS package.", remedy=SUPPORTED_FILES_REMEDY)
            )

    def _read_folder(self, folder: Path, top: Path) -> Iterator[ReadResult]:
        try:
            paths = sorted(folder.iterdir(), key=lambda path: (path.name.lower(), path.name))
        except OSError as error:
            yield ReadResult(source=str(folder), error=unreadable_error(str(folder), error))
            return
        paths = [path for path in paths if path.suffix.lower() in _SUFFIXES and not path.is_dir()]
        if not paths:
            return
        built_from = _find_source_folder(folder, top)
        if built_from is None:
            yield from self._report_project(folder, top)
        # The .conmgr files were read as part of the project.
        for path in sorted(paths, key=lambda path: _SUFFIXES.index(path.suffix.lower())):
            if path.suffix.lower() == ".ispac":
                yield from self._read_ispac(path, built_from)
            elif path.suffix.lower() == ".dtsx":
                if original := _find_original(path.name, built_from):
                    yield ReadResult(source=str(path), duplicate_of=str(original))
                else:
                    yield from self._read_package(path, self._find_project(folder, top))

    def _find_project(self, folder: Path, top: Path) -> Project | None:
        """Return the project of a folder, or None."""
        if self._cached_folder is None or self._cached_folder[0] != (folder, top):
            self._cached_folder = (folder, top), _find_project_folder(folder, top)
        project_folder = self._cached_folder[1]
        if project_folder is None:
            return None
        if self._cached_project is None or self._cached_project[0] != project_folder:
            try:
                self._cached_project = project_folder, read_project_folder(project_folder, self.exports)
            except PackageError:
                return None  # `_read_folder` reports it
        return self._cached_project[1]

    def _report_project(self, folder: Path, top: Path) -> Iterator[ReadResult]:
        project = self._find_project(folder, top)
        if project is None or project.path in self._reported_projects:
            return
        self._reported_projects.add(project.path)
        yield ReadResult(source=project.path, project=project)
        for source, error in project.unreadable:
            yield ReadResult(source=source, error=error)

    def read_single_file(self, path: Path) -> Iterator[ReadResult]:
        """Read a file. A file with an unknown suffix is read as a package."""
        if path.suffix.lower() == ".ispac":
            yield from self._read_ispac(path)
        elif path.suffix.lower() == ".conmgr":
            yield from self._read_connection_manager(path)
        else:
            yield from self._report_project(path.parent, path.parent)
            yield from self._read_package(path, self._find_project(path.parent, path.parent))

    def _read_package(self, path: Path, project: Project | None) -> Iterator[ReadResult]:
        if self._mark_read(path):
            return
        try:
            yield self._build(read_file(path), str(path), project, path.parent)
        except PackageError as error:
            yield ReadResult(source=str(path), error=error)

    def _read_ispac(self, path: Path, built_from: Path | None = None) -> Iterator[ReadResult]:
        if self._mark_read(path):
            return
        try:
            with open_ispac(path) as ispac:
                project = read_project_ispac(ispac, self.exports)
                if built_from is None:
                    yield ReadResult(source=str(path), project=project)
                    for source, unreadable in project.unreadable:
                        yield ReadResult(source=source, error=unreadable)
                for name in ispac.list_parts(".dtsx"):
                    display_name = ispac.format_part(name)
                    if original := _find_original(name, built_from):
                        yield ReadResult(source=display_name, duplicate_of=str(original))
                        continue
                    try:
                        yield self._build(ispac.read(name), display_name, project, None)
                    except PackageError as error:
                        yield ReadResult(source=display_name, error=error)
        except PackageError as error:
            yield ReadResult(source=str(path), error=error)

    def _read_connection_manager(self, path: Path) -> Iterator[ReadResult]:
        if self._mark_read(path):
            return
        try:
            connection = read_connection_manager(path)
        except PackageError as error:
            yield ReadResult(source=str(path), error=error)
            return
        smtp = (connection,) if isinstance(connection, SmtpConnection) else ()
        yield ReadResult(source=str(path), project=Project(name=path.stem, path=str(path), connection_managers=smtp))

    def _build(self, document: Document, source: str, project: Project | None, folder: Path | None) -> ReadResult:
        options = ReadOptions(
            project=project,
            folder=folder,
            configurations=tuple(self.configurations),
            exports=self.exports,
            answers=self.answers,
        )
        try:
            package = build_package(document.root, source, options)
        except PackageError:
            raise
        except Exception as error:  # an internal error must not prevent reading the other packages
            message = f"{source}: {describe_internal_error(error)}"
            raise PackageError(message, remedy=REPORT_INTERNAL_ERROR) from error
        first = self._first_sources.setdefault(_make_digest(document, package, project), source)
        if first != source:
            return ReadResult(source=source, duplicate_of=first)
        return ReadResult(source=source, package=package, project=project)

    def _mark_read(self, path: Path) -> bool:
        """Mark a file as read, and return whether it already was."""
        resolved = path.resolve()
        is_repeated = resolved in self._read_files
        self._repeated += is_repeated
        self._read_files.add(resolved)
        return is_repeated


def _make_digest(document: Document, package: Package, project: Project | None) -> str:
    """Return a digest of a package file and of the external values that it uses; duplicates have equal digests."""
    digest = hashlib.sha256(document.digest.encode())
    for connection in package.connection_managers:
        fields = (
            connection.id,
            connection.name,
            connection.connection_string,
            sorted(connection.expressions.items()),
            connection.configured,
        )
        digest.update(repr(fields).encode())
    for file in package.file_connections:
        digest.update(repr((file.id, file.connection_string)).encode())
    for configuration in package.configurations:
        digest.update(repr((configuration.path, configuration.value)).encode())
    if project is not None and _uses_project_parameters(package):
        parameters = [(each.name, each.value, each.configured_in) for each in project.parameters]
        digest.update(repr(parameters).encode())
    return digest.hexdigest()


def _uses_project_parameters(package: Package) -> bool:
    owners = [*(executable for executable, _ in package.walk_executables()), *package.connection_managers]
    expressions = [text for owner in owners for text in owner.expressions.values()]
    expressions += [variable.expression or "" for variable in package.variables]
    return any("$Project::" in text for text in expressions)


def _walk_folders(top: Path) -> Iterator[Path]:
    """Yield a folder and all folders in it, build output after its sources."""
    pending = [top]
    while pending:
        folder = pending.pop()
        yield folder
        try:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue  # `_read_folder` reports it
        names = [name for name in names if name.lower() not in _SKIPPED_FOLDERS]
        names.sort(key=lambda name: (name.lower() in _BUILD_FOLDERS, name.lower(), name), reverse=True)
        pending += [folder / name for name in names]


def _find_source_folder(folder: Path, top: Path) -> Path | None:
    """Return the project folder that a folder under `bin` or `obj` was built from; None for any other folder."""
    parts = folder.relative_to(top).parts
    for depth, part in enumerate(parts):
        if part.lower() in _BUILD_FOLDERS:
            source = top.joinpath(*parts[:depth])
            if _is_project_folder(source):
                return source
    return None


def _find_original(name: str, built_from: Path | None) -> Path | None:
    """Return the source of a package in build output: the file with the same name in the project folder."""
    files = list_files(built_from) if built_from else ()
    return next((file for file in files if file.name.lower() == name.lower()), None)


def _find_project_folder(folder: Path, top: Path) -> Path | None:
    """Return the nearest folder with project files, from `folder` up to `top`."""
    for candidate in (folder, *folder.parents):
        if _is_project_folder(candidate):
            return candidate
        if candidate == top:
            return None
    return None


def _is_project_folder(folder: Path) -> bool:
    return any(file.suffix.lower() in _PROJECT_SUFFIXES for file in list_files(folder))
