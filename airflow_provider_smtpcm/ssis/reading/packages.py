"""A document becomes a package: its connection managers, parameters, configurations and all that runs in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis.model import (
    Configuration,
    FileConnection,
    Finding,
    Manifest,
    Package,
    Parameter,
    Project,
    Severity,
    SmtpConnection,
)
from airflow_provider_smtpcm.ssis.reading.configurations import (
    Overrides,
    find_dtsconfig,
    read_configurations,
    read_dtsconfig,
)
from airflow_provider_smtpcm.ssis.reading.connection_managers import (
    Connection,
    Connections,
    package_parameters,
    project_parameters,
    read_connection,
    read_connections,
)
from airflow_provider_smtpcm.ssis.reading.context import Reading
from airflow_provider_smtpcm.ssis.reading.executables import ROOT, read_root
from airflow_provider_smtpcm.ssis.reading.ispac import (
    Ispac,
    open_ispac,
    read_manifest,
    with_configurations,
    with_parameters,
)
from airflow_provider_smtpcm.ssis.reading.xml import Document, Node, flag, number, read_file, text, unreadable

_NAMESPACE = "sqlserver/dts"
_FORMATS = {2, 3, 6, 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a package is read with besides itself.

    Args:
        project: what its tasks may refer to.
        beside: the folder in which a `.dtsConfig` that it names is looked for.
        configurations: `.dtsConfig` files that hold for every package, as those of `dtexec /ConfigFile` do.
    """

    project: Project | None = None
    beside: Path | None = None
    configurations: tuple[Path, ...] = ()


def encrypted(name: str) -> PackageError:
    """The error for a package that is encrypted whole."""
    return PackageError(
        f"{name} is encrypted whole (ProtectionLevel EncryptAllWithPassword or EncryptAllWithUserKey).",
        remedy="Set ProtectionLevel to DontSaveSensitive in Visual Studio and save it, or run: "
        "dtutil /FILE package.dtsx /DECRYPT password /ENCRYPT FILE;readable.dtsx;0",
    )


def check_root(root: Node, name: str, *, tag: str, what: str) -> None:
    """Refuse what is not a document of that kind.

    Raises:
        PackageError: says what was found instead.
    """
    if root.tag == "EncryptedData" or root.first("EncryptedData") is not None:
        raise encrypted(name)
    if root.tag != tag or _NAMESPACE not in root.namespace.lower():
        raise PackageError(
            f"{name} is not {what}: its root is <{root.tag[:100]}>"
            + (f" of {root.namespace[:100]!r}." if root.namespace else " without a namespace."),
            remedy="Pass .dtsx, .conmgr, .ispac or .dtsConfig files, or a folder that holds them.",
        )


def build_package(root: Node, path: str, around: Surroundings) -> Package:
    """The model of a package.

    Raises:
        PackageError: it is none, or encrypted.
    """
    check_root(root, path, tag="Executable", what="an SSIS package")
    level = number(root, "ProtectionLevel")
    configurations, overrides, findings = _configurations(root, around)
    file = PurePath(path.rpartition("!")[2]).name
    manifest = around.project.manifest if around.project else None
    own = read_connections(root, source=path, file=file, overrides=overrides, manifest=manifest)
    project = Connections()
    for connection in (around.project.connection_managers, around.project.file_connections) if around.project else ():
        for one in connection:
            project.add(one)
    version = number(root, "PackageFormatVersion") or (3 if root.first("Property") else 8)
    reading = Reading(own=own, project=project, overrides=overrides, format_version=version, findings=findings)
    if version not in _FORMATS:
        reading.find(
            "unknown-format-version",
            Severity.NOTE,
            (ROOT,),
            f"PackageFormatVersion is {version}, which is not known here; read as the nearest one.",
        )
    container = read_root(root, reading)
    package = Package(
        name=container.name if text(root, "ObjectName") else PurePath(file).stem,
        id=container.id,
        path=path,
        format_version=version,
        protection_level=level,
        root=container,
        connection_managers=tuple(own.smtp),
        file_connections=tuple(own.files),
        parameters=with_configurations(package_parameters(root), manifest, file),
        configurations=(*configurations, *overrides.applied.values()),
    )
    used = _used_of_project(package)
    findings += _about_configurations(package, configurations, overrides, active=flag(root, "EnableConfig"))
    return replace(package, connection_managers=(*package.connection_managers, *used), findings=tuple(reading.findings))


def _configurations(root: Node, around: Surroundings) -> tuple[list[Configuration], Overrides, list[Finding]]:
    """What a package names and, where it is switched on and can be read, its values; then those for every package."""
    overrides = Overrides()
    findings: list[Finding] = []
    named = list(read_configurations(root))
    paths = []
    if flag(root, "EnableConfig"):
        for one in named:
            if one.kind == "xml file" and not one.indirect:
                path = find_dtsconfig(one.source, around.beside, around.configurations)
                if path is not None:
                    paths.append(path)
    for path in (*paths, *(one for one in around.configurations if one not in paths)):
        try:
            overrides.put(read_dtsconfig(path))
        except PackageError as error:
            findings.append(
                Finding(
                    code="configuration-unreadable",
                    severity=Severity.ERROR,
                    where=ROOT,
                    text=error.message,
                    remedy=error.remedy,
                )
            )
    return named, overrides, findings


def _about_configurations(
    package: Package, named: list[Configuration], overrides: Overrides, *, active: bool
) -> Iterator[Finding]:
    """What was applied, and what SSIS would have put in that is not known here."""
    for one in overrides.applied.values():
        yield Finding(
            code="configuration-applied",
            severity=Severity.NOTE,
            where=ROOT,
            text=f"{one.path} is set by the package configuration {one.source}; its value is used.",
        )
    read = {Path(configuration.source).name.lower() for configuration, _ in overrides.values.values()}
    mail = bool(package.connection_managers) or any(True for _ in package.walk())
    for one in named:
        file = one.source.replace("\\", "/").rpartition("/")[2].lower()
        if one.kind == "xml file" and not one.indirect and file in read:
            continue
        target = f" for {one.path}" if one.path else ""
        source = f"the environment variable {one.source} that names it" if one.indirect else one.source or "(not shown)"
        article = "an" if one.kind[0] in "eixu" else "a"
        if not active:
            yield Finding(
                code="configuration-switched-off",
                severity=Severity.NOTE,
                where=ROOT,
                text=f"The package configuration {one.name!r} ({one.kind}) is not in effect: EnableConfig is off.",
            )
            continue
        yield Finding(
            code="configuration-not-read",
            severity=Severity.DECISION if mail and _concerns_mail(one, package) else Severity.NOTE,
            where=ROOT,
            text=f"The package configuration {one.name!r} takes its value{target} from {article} {one.kind}: {source}. "
            "What stands in the package is used.",
            remedy="Pass the .dtsConfig file along, or check the connection and the variables."
            if one.kind == "xml file"
            else "Look up its values and check the connection and the variables.",
        )


def _concerns_mail(configuration: Configuration, package: Package) -> bool:
    path = (configuration.path or "").lower()
    if not path or ".variables[" in path:
        return True
    names = [f".connections[{one.name.lower()}]" for one in package.connection_managers]
    names += [f".connections[{one.name.lower()}]" for one in package.file_connections]
    tasks = ["\\".join(task.path).lower() + ".properties[" for task in package.send_mail_tasks]
    return any(name in path for name in (*names, *tasks))


def _used_of_project(package: Package) -> tuple[SmtpConnection, ...]:
    used: dict[str, SmtpConnection] = {}
    for task, _ in package.walk():
        connection = task.connection
        if connection is not None and connection.scope == "project":
            used.setdefault(connection.id, connection)
    return tuple(used.values())


# folded: A project: a folder or an `.ispac`, with the connection managers and the parameters that its packages share.


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
