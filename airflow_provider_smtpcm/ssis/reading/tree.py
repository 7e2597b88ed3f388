"""Everything under some paths, one package at a time, each with its project; copies and build output only once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis import model as unforeseen
from airflow_provider_smtpcm.ssis.model import Package, Project, SmtpConnection
from airflow_provider_smtpcm.ssis.reading.configurations import read_dtsconfig
from airflow_provider_smtpcm.ssis.reading.ispac import open_ispac
from airflow_provider_smtpcm.ssis.reading.packages import (
    Surroundings,
    build_package,
    read_connection_manager,
    shared_by_folder,
    shared_by_ispac,
)
from airflow_provider_smtpcm.ssis.reading.xml import Document, files_in, read_file, require_defusedxml, unreadable

# folded: Folders of SSIS projects: their order, which of them is build output, and to which project one belongs.

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


# folded: here began the module itself

_KINDS = (".dtsx", ".ispac", ".conmgr")
_REMEDY = "Pass .dtsx, .conmgr, .ispac or .dtsConfig files, or a folder that holds them."


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One thing that was found.

    A package has `package`, and `project` where it belongs to one. A project comes before its packages, with `project`
    alone and no packages in it; a `.conmgr` that was given by itself comes as a project of one connection manager. What
    cannot be read has `error`. A copy, or build output under `bin` or `obj`, has `duplicate_of` alone.
    """

    source: str
    package: Package | None = None
    project: Project | None = None
    error: PackageError | None = None
    duplicate_of: str | None = None


def read_everything(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Found]:
    """Read packages, projects, connection managers and whole trees, one after the other.

    Args:
        paths: files and folders. A `.dtsConfig` among them holds for every package.

    Raises:
        PackageError: defusedxml is not installed; nothing else ends it.
    """
    require_defusedxml()
    given = [Path(path) for path in paths]
    walk = _Walk()
    for path in given:
        if path.suffix.lower() == ".dtsconfig" and not path.is_dir():
            try:
                read_dtsconfig(path)
                walk.configurations.append(path)
            except PackageError as error:
                yield Found(source=str(path), error=error)
    for path in given:
        if path.is_dir():
            yield from walk.folder(path)
        elif path.suffix.lower() == ".dtproj" and path.is_file():
            yield from walk.folder(path.parent)
        elif path.suffix.lower() != ".dtsconfig":
            yield from walk.file(path)


@dataclass(slots=True, kw_only=True)
class _Walk:
    """What was seen so far."""

    configurations: list[Path] = field(default_factory=list)
    # Keys are digests: the packages themselves are forgotten.
    _seen: dict[str, str] = field(default_factory=dict)
    _paths: set[Path] = field(default_factory=set)
    _projects: set[str] = field(default_factory=set)
    # Packages come folder by folder, so the last answer is the next one.
    _last: tuple[Path, Project] | None = None
    _overlapping: int = 0  # files that were come across a second time
    _last_home: tuple[tuple[Path, Path], Path | None] | None = None

    def folder(self, top: Path) -> Iterator[Found]:
        count, before = 0, self._overlapping
        for folder in folders(top):
            for one in self._one_folder(folder, top):
                count += 1
                yield one
        if not count and self._overlapping == before:
            yield Found(source=str(top), error=PackageError(f"{top} holds no SSIS package.", remedy=_REMEDY))

    def _one_folder(self, folder: Path, top: Path) -> Iterator[Found]:
        try:
            paths = sorted(folder.iterdir(), key=lambda path: (path.name.lower(), path.name))
        except OSError as error:
            yield Found(source=str(folder), error=unreadable(str(folder), error))
            return
        paths = [path for path in paths if path.suffix.lower() in _KINDS and not path.is_dir()]
        if not paths:
            return
        built_from = source_folder(folder, top)
        if built_from is None:
            yield from self._tell_project(folder, top)
        for path in sorted(paths, key=lambda path: _KINDS.index(path.suffix.lower())):
            if path.suffix.lower() == ".ispac":
                yield from self._ispac(path, built_from)
            elif path.suffix.lower() == ".dtsx":
                if original := original_of(path.name, built_from):
                    yield Found(source=str(path), duplicate_of=str(original))
                else:
                    yield from self._package(path, self._project(folder, top))

    def _project(self, folder: Path, top: Path) -> Project | None:
        """The project that a folder belongs to; the last one is remembered, since its packages come together."""
        if self._last_home is None or self._last_home[0] != (folder, top):
            self._last_home = (folder, top), home_of(folder, top)
        home = self._last_home[1]
        if home is None:
            return None
        if self._last is None or self._last[0] != home:
            try:
                self._last = home, shared_by_folder(home)
            except PackageError:
                return None  # told by who reads the folder
        return self._last[1]

    def _tell_project(self, folder: Path, top: Path) -> Iterator[Found]:
        project = self._project(folder, top)
        if project is None or project.path in self._projects:
            return
        self._projects.add(project.path)
        yield Found(source=project.path, project=project)
        for source, fault in project.unreadable:
            yield Found(source=source, error=fault)

    def file(self, path: Path) -> Iterator[Found]:
        """A file that was given by its name, whatever it is called."""
        if path.suffix.lower() == ".ispac":
            yield from self._ispac(path)
        elif path.suffix.lower() == ".conmgr":
            yield from self._connection_manager(path)
        else:
            yield from self._tell_project(path.parent, path.parent)
            yield from self._package(path, self._project(path.parent, path.parent))

    def _package(self, path: Path, project: Project | None) -> Iterator[Found]:
        if self._again(path):
            return
        try:
            yield self._built(read_file(path), str(path), project, path.parent)
        except PackageError as error:
            yield Found(source=str(path), error=error)

    def _ispac(self, path: Path, built_from: Path | None = None) -> Iterator[Found]:
        if self._again(path):
            return
        try:
            with open_ispac(path) as ispac:
                project = shared_by_ispac(ispac)
                if built_from is None:
                    yield Found(source=str(path), project=project)
                    for source, fault in project.unreadable:
                        yield Found(source=source, error=fault)
                for name in ispac.names(".dtsx"):
                    shown = ispac.shown(name)
                    if original := original_of(name, built_from):
                        yield Found(source=shown, duplicate_of=str(original))
                        continue
                    try:
                        yield self._built(ispac.read(name), shown, project, None)
                    except PackageError as error:
                        yield Found(source=shown, error=error)
        except PackageError as error:
            yield Found(source=str(path), error=error)

    def _connection_manager(self, path: Path) -> Iterator[Found]:
        if self._again(path):
            return
        try:
            connection = read_connection_manager(path)
        except PackageError as error:
            yield Found(source=str(path), error=error)
            return
        smtp = (connection,) if isinstance(connection, SmtpConnection) else ()
        yield Found(source=str(path), project=Project(name=path.stem, path=str(path), connection_managers=smtp))

    def _built(self, document: Document, source: str, project: Project | None, beside: Path | None) -> Found:
        around = Surroundings(project=project, beside=beside, configurations=tuple(self.configurations))
        try:
            package = build_package(document.root, source, around)
        except PackageError:
            raise
        except Exception as error:  # what nobody foresaw in one package stops no other
            raise PackageError(f"{source}: {unforeseen.told(error)}", remedy=unforeseen.REPORT_IT) from error
        first = self._seen.setdefault(_identity(document, package, project), source)
        if first != source:
            return Found(source=source, duplicate_of=first)
        return Found(source=source, package=package, project=project)

    def _again(self, path: Path) -> bool:
        """Whether this very file was read before: paths may overlap."""
        real = path.resolve()
        known = real in self._paths
        self._overlapping += known
        self._paths.add(real)
        return known


def _identity(document: Document, package: Package, project: Project | None) -> str:
    """Equal for packages that are the same to the last octet and mean the same things of their projects."""
    digest = hashlib.sha256(document.digest.encode())
    for one in package.connection_managers:
        said = (one.id, one.name, one.connection_string, sorted(one.expressions.items()), one.configured)
        digest.update(repr(said).encode())
    for file in package.file_connections:
        digest.update(repr((file.id, file.connection_string)).encode())
    for configuration in package.configurations:
        digest.update(repr((configuration.path, configuration.value)).encode())
    if project is not None and b"$Project::" in _expressions(package):
        said_of_project = [(one.name, one.value, one.configured_in) for one in project.parameters]
        digest.update(repr(said_of_project).encode())
    return digest.hexdigest()


def _expressions(package: Package) -> bytes:
    texts = [text for one, _ in package.everything() for text in one.expressions.values()]
    texts += [variable.expression or "" for variable in package.variables]
    texts += [text for one in package.connection_managers for text in one.expressions.values()]
    return "\n".join(texts).encode("utf-8", "replace")
