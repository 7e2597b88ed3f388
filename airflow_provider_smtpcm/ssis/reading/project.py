"""A project: a folder or an `.ispac`, with the connection managers and the parameters that its packages share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis.package import (
    FileConnection,
    Manifest,
    Package,
    Parameter,
    Project,
    SmtpConnection,
)
from airflow_provider_smtpcm.ssis.reading.connection_managers import Connection, read_connection
from airflow_provider_smtpcm.ssis.reading.ispac import Ispac, open_ispac
from airflow_provider_smtpcm.ssis.reading.manifest import read_manifest, with_configurations, with_parameters
from airflow_provider_smtpcm.ssis.reading.packages import Surroundings, build_package, check_root, encrypted
from airflow_provider_smtpcm.ssis.reading.parameters import project_parameters
from airflow_provider_smtpcm.ssis.reading.xml import Document, read_file, unreadable


def read_package(
    path: str | Path, *, project: Project | None = None, configurations: Iterable[str | Path] = ()
) -> Package:
    """Read one `.dtsx`, with the `.conmgr` files and the `Project.params` beside it.

    Args:
        path: the file.
        project: the project that it belongs to, instead of the folder that it stands in.
        configurations: `.dtsConfig` files that hold for it besides those that it names.

    Raises:
        PackageError: what was found instead of a package, and the remedy.
    """
    path = Path(path)
    if path.is_dir() or path.suffix.lower() == ".ispac":
        raise PackageError(f"{path} is a project, not a package.", remedy="Read it with read_project().")
    document = read_file(path)
    around = Surroundings(
        project=project if project is not None else shared_by_folder(path.parent),
        beside=path.parent,
        configurations=tuple(Path(one) for one in configurations),
    )
    return build_package(document.root, str(path), around)


def read_project(path: str | Path, *, configurations: Iterable[str | Path] = ()) -> Project:
    """Read a folder or an `.ispac` with all its packages; what cannot be read stands in `unreadable`.

    Raises:
        PackageError: it is neither, or the `.ispac` as a whole cannot be read.
    """
    path = Path(path)
    extra = tuple(Path(one) for one in configurations)
    packages: list[Package] = []
    unread: list[tuple[str, PackageError]] = []

    def take(name: str, read: Callable[[], Package]) -> None:
        try:
            packages.append(read())
        except PackageError as error:
            unread.append((name, error))

    if path.is_dir():
        project = shared_by_folder(path)
        around = Surroundings(project=project, beside=path, configurations=extra)
        for file in files_of(path, ".dtsx"):
            take(str(file), lambda file=file: build_package(read_file(file).root, str(file), around))  # type: ignore[misc]
    else:
        with open_ispac(path) as ispac:
            project = shared_by_ispac(ispac)
            around = Surroundings(project=project, configurations=extra)
            for name in ispac.names(".dtsx"):
                shown = ispac.shown(name)
                take(shown, lambda name=name, shown=shown: build_package(ispac.read(name).root, shown, around))  # type: ignore[misc]
    return replace(project, packages=tuple(packages), unreadable=(*project.unreadable, *unread))


def read_connection_manager(path: str | Path) -> Connection | None:
    """Read a `.conmgr` on its own; None where it is neither SMTP nor File.

    Raises:
        PackageError: it cannot be read, or is none.
    """
    path = Path(path)
    return _connection(read_file(path), str(path))


def shared_by_folder(folder: Path) -> Project:
    """What the packages of a folder share; the packages are not read."""
    projects = files_of(folder, ".dtproj")
    manifest = projects[0] if projects else None
    sources = [(str(file), _reader(file)) for file in files_of(folder, ".conmgr")]
    parameters = next((file for file in files_of(folder, ".params") if file.name.lower() == "project.params"), None)
    return _shared(
        name=projects[0].stem if projects else folder.resolve().name,
        path=str(folder),
        connections=sources,
        parameters=(str(parameters), _reader(parameters)) if parameters else None,
        manifest=(str(manifest), _reader(manifest)) if manifest else None,
    )


def shared_by_ispac(ispac: Ispac) -> Project:
    """What the packages of an `.ispac` share; the packages are not read."""
    parameters = next((name for name in ispac.names(".params") if name.lower() == "project.params"), None)
    manifest = next((name for name in ispac.names(".manifest") if name.lower() == "@project.manifest"), None)

    def reader(name: str) -> Callable[[], Document]:
        return lambda: ispac.read(name)

    return _shared(
        name=Path(ispac.path).stem,
        path=ispac.path,
        connections=[(ispac.shown(name), reader(name)) for name in ispac.names(".conmgr")],
        parameters=(ispac.shown(parameters), reader(parameters)) if parameters else None,
        manifest=(ispac.shown(manifest), reader(manifest)) if manifest else None,
    )


def files_of(folder: Path, suffix: str) -> list[Path]:
    """The files of a folder whose name ends so, in order."""
    try:
        return sorted(file for file in folder.iterdir() if file.suffix.lower() == suffix and file.is_file())
    except OSError as error:
        raise unreadable(str(folder), error) from error


def _reader(file: Path) -> Callable[[], Document]:
    return lambda: read_file(file)


def _shared(
    *,
    name: str,
    path: str,
    connections: list[tuple[str, Callable[[], Document]]],
    parameters: tuple[str, Callable[[], Document]] | None,
    manifest: tuple[str, Callable[[], Document]] | None,
) -> Project:
    smtp: list[SmtpConnection] = []
    files: list[FileConnection] = []
    unread: list[tuple[str, PackageError]] = []
    found_manifest: Manifest | None = None
    if manifest is not None:
        source, read = manifest
        try:
            found_manifest = read_manifest(read().root, source)
        except PackageError as error:
            unread.append((source, error))
    for source, read in connections:
        try:
            connection = _connection(read(), source)
        except PackageError as error:
            unread.append((source, error))
            continue
        connection = None if connection is None else with_parameters(connection, found_manifest)
        if isinstance(connection, SmtpConnection):
            smtp.append(connection)
        elif connection is not None:
            files.append(connection)
    found: tuple[Parameter, ...] = ()
    if parameters is not None:
        source, read = parameters
        try:
            found = with_configurations(_parameters(read(), source), found_manifest)
        except PackageError as error:
            unread.append((source, error))
    return Project(
        name=name,
        path=path,
        connection_managers=tuple(smtp),
        file_connections=tuple(files),
        parameters=found,
        manifest=found_manifest,
        unreadable=tuple(unread),
    )


def _connection(document: Document, source: str) -> Connection | None:
    check_root(document.root, source, tag="ConnectionManager", what="a connection manager")
    return read_connection(document.root, source=source, scope="project")


def _parameters(document: Document, source: str) -> tuple[Parameter, ...]:
    if document.root.tag == "EncryptedData":
        raise encrypted(source)
    if document.root.tag != "Parameters":
        raise PackageError(
            f"{source} holds no project parameters: its root is <{document.root.tag}>, not <Parameters>.",
            remedy="Save the project again in Visual Studio.",
        )
    return project_parameters(document.root)
