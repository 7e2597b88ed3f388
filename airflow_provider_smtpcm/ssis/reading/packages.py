"""Reads packages and projects, from `.dtsx` files, folders and `.ispac` files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis.model import (
    Configuration,
    DatabaseConnection,
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
    ROOT,
    PropertyOverrides,
    ask_for_values,
    find_unread,
    find_values,
    read_configurations,
    read_dtsconfig,
    report_configurations,
)
from airflow_provider_smtpcm.ssis.reading.connection_managers import (
    ConnectionManager,
    ConnectionManagers,
    read_connection_manager_element,
)
from airflow_provider_smtpcm.ssis.reading.context import ReadContext
from airflow_provider_smtpcm.ssis.reading.executables import contains_mail_task, read_root
from airflow_provider_smtpcm.ssis.reading.exports import Exports
from airflow_provider_smtpcm.ssis.reading.ispac import Ispac, open_ispac
from airflow_provider_smtpcm.ssis.reading.parameters import (
    add_configured_values,
    apply_manifest,
    read_manifest,
    read_package_parameters,
    read_project_parameters,
)
from airflow_provider_smtpcm.ssis.reading.xml import (
    Document,
    Element,
    find_members,
    get_flag,
    get_integer,
    get_text,
    read_file,
    read_ids,
    unreadable_error,
)

_NAMESPACE = "sqlserver/dts"
# PackageFormatVersions of SSIS 2005, 2008, 2012 and 2014 to 2022.
_FORMATS = {2, 3, 6, 8}
# System variables that are properties of the package; dates depend on the locale of the machine that wrote the file.
_TEXT_PROPERTIES = {
    "CreatorName": "CreatorName",
    "CreatorComputerName": "CreatorComputerName",
    "VersionGUID": "VersionGUID",
    "VersionComment": "VersionComments",
}
#: What to pass to the importer.
SUPPORTED_FILES_REMEDY = "Pass .dtsx, .conmgr, .ispac or .dtsConfig files, or a folder that contains them."

# The display name of a file, and a function that reads it.
_FileReader = tuple[str, Callable[[], Document]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """The surroundings of a package.

    Args:
        project: the project of the package; None: no project.
        folder: where to search for the `.dtsConfig` files that the package refers to; None: nowhere.
        configurations: `.dtsConfig` files that apply to every package, as with `dtexec /ConfigFile`.
        exports: values from SQL Server.
        answers: the answers of `questions.csv`; some are values of configurations.
    """

    project: Project | None = None
    folder: Path | None = None
    configurations: tuple[Path, ...] = ()
    exports: Exports = field(default_factory=Exports)
    answers: Mapping[str, str] = field(default_factory=dict)


def read_package(
    path: str | Path, *, project: Project | None = None, configurations: Iterable[str | Path] = ()
) -> Package:
    """Read a `.dtsx` file.

    Args:
        path: the file.
        project: its project; None: the one in its folder (`.conmgr` files, `Project.params`, `.dtproj`).
        configurations: `.dtsConfig` files that apply besides those to which the package refers.

    Raises:
        PackageError: the file cannot be read, or is not a package.
    """
    path = Path(path)
    if path.is_dir() or path.suffix.lower() == ".ispac":
        raise PackageError(f"{path} is a project, not a package.", remedy="Read it with read_project().")
    document = read_file(path)
    options = ReadOptions(
        project=project if project is not None else read_project_folder(path.parent),
        folder=path.parent,
        configurations=tuple(map(Path, configurations)),
    )
    return build_package(document.root, str(path), options)


def read_project(path: str | Path, *, configurations: Iterable[str | Path] = ()) -> Project:
    """Read a project with all its packages. Files that cannot be read are listed in `Project.unreadable`.

    Args:
        path: a folder or an `.ispac`.
        configurations: `.dtsConfig` files that apply to every package, besides those to which a package refers.

    Raises:
        PackageError: the path is neither a folder nor an `.ispac`, or the `.ispac` cannot be read.
    """
    path = Path(path)
    common = tuple(map(Path, configurations))
    packages: list[Package] = []
    unreadable: list[tuple[str, PackageError]] = []

    def read(name: str, read_document: Callable[[], Document], options: ReadOptions) -> None:
        try:
            packages.append(build_package(read_document().root, name, options))
        except PackageError as error:
            unreadable.append((name, error))

    if path.is_dir():
        project = read_project_folder(path)
        options = ReadOptions(project=project, folder=path, configurations=common)
        for file in _list_files(path, ".dtsx"):
            read(*_file_reader(file), options)
    else:
        with open_ispac(path) as ispac:
            project = read_project_ispac(ispac)
            options = ReadOptions(project=project, configurations=common)
            for name in ispac.list_parts(".dtsx"):
                read(*_part_reader(ispac, name), options)
    return replace(project, packages=tuple(packages), unreadable=(*project.unreadable, *unreadable))


def read_connection_manager(path: str | Path) -> ConnectionManager | None:
    """Read a `.conmgr` file; return None if it is not for SMTP, files or databases.

    Raises:
        PackageError: the file cannot be read, or is not a connection manager.
    """
    path = Path(path)
    return _read_project_connection(read_file(path), str(path))


def build_package(root: Element, path: str, options: ReadOptions) -> Package:
    """Build the model of a package from its XML.

    Args:
        root: the root element.
        path: the file, or `project.ispac!Part.dtsx`.
        options: its project and configurations.

    Raises:
        PackageError: the document is not a package, or is encrypted.
    """
    _check_root(root, path, tag="Executable", kind="an SSIS package")
    declared, overrides, findings = _load_configurations(root, options)
    file = PurePath(path.rpartition("!")[2]).name
    manifest = options.project.manifest if options.project else None
    package_connections = _read_connection_managers(
        root, source=path, file=file, overrides=overrides, manifest=manifest
    )
    project_connections = ConnectionManagers()
    if options.project is not None:
        project = options.project
        connections: list[ConnectionManager] = [
            *project.connection_managers,
            *project.file_connections,
            *project.database_connections,
        ]
        for connection in connections:
            project_connections.add(connection)
    version = get_integer(root, "PackageFormatVersion") or (3 if root.find("Property") else 8)
    context = ReadContext(
        package_connections=package_connections,
        project_connections=project_connections,
        overrides=overrides,
        format_version=version,
        findings=findings,
        sends_mail=contains_mail_task(root),
    )
    if version not in _FORMATS:
        context.add_finding(
            "unknown-format-version",
            Severity.NOTE,
            (ROOT,),
            f"PackageFormatVersion {version} is unknown; the package was read as the nearest known version.",
        )
    container = read_root(root, context)
    package = Package(
        name=container.name if get_text(root, "ObjectName") else PurePath(file).stem,
        id=container.id,
        path=path,
        format_version=version,
        protection_level=get_integer(root, "ProtectionLevel"),
        root=container,
        connection_managers=tuple(package_connections.smtp),
        file_connections=tuple(package_connections.files),
        database_connections=tuple(package_connections.databases),
        parameters=options.exports.apply(add_configured_values(read_package_parameters(root), manifest, file)),
        configurations=(*declared, *overrides.applied.values()),
        properties=_read_properties(root),
    )
    is_enabled = get_flag(root, "EnableConfig")
    unread = tuple(find_unread(declared, overrides, options.exports))
    findings += report_configurations(package, unread, overrides, is_enabled=is_enabled)
    shared = {
        connection.id: connection
        for connection in context.mail_connections
        if connection is not None and connection.scope == "project"
    }
    return replace(
        package,
        connection_managers=(*package.connection_managers, *shared.values()),
        unread_configurations=tuple(
            each for each in unread if is_enabled and ask_for_values(each).key not in options.answers
        ),
        findings=tuple(findings),
    )


def _read_properties(root: Element) -> dict[str, str | int]:
    """Return the values of the System variables that are properties of the package, as far as the file has them."""
    texts = {name: get_text(root, property_name) for name, property_name in _TEXT_PROPERTIES.items()}
    numbers = {name: get_integer(root, name) for name in ("LocaleID", "VersionMajor", "VersionMinor", "VersionBuild")}
    found: dict[str, str | int] = {name: text for name, text in texts.items() if text}
    return found | {name: number for name, number in numbers.items() if number is not None}


def _read_connection_managers(
    package: Element, *, source: str, file: str, overrides: PropertyOverrides, manifest: Manifest | None
) -> ConnectionManagers:
    """Return the connection managers of a package.

    Args:
        package: the root element.
        source: the path of the file, as findings and reports show it.
        file: the file name without folders, which identifies the package in the manifest.
        overrides: values from package configurations.
        manifest: the manifest of the project.
    """
    managers = ConnectionManagers()
    for element in find_members(package, "ConnectionManagers", "ConnectionManager"):
        connection = read_connection_manager_element(element, source=source, scope="package", overrides=overrides)
        if connection is None:
            name = get_text(element, "ObjectName")
            managers.others.update(dict.fromkeys((*read_ids(element), name), name))
        else:
            managers.add(apply_manifest(connection, manifest, file), read_ids(element))
    return managers


def _load_configurations(
    root: Element, options: ReadOptions
) -> tuple[list[Configuration], PropertyOverrides, list[Finding]]:
    """Return the configurations that a package declares, the values that apply to it, and findings.

    Values in `options.configurations` take precedence over those to which the package refers, which apply in the order
    of the package, and only if EnableConfig is on.
    """
    overrides = PropertyOverrides()
    findings: list[Finding] = []
    declared = list(read_configurations(root))
    sources: list[Path | Iterable[Configuration]] = []
    if get_flag(root, "EnableConfig"):
        found = (
            find_values(each, options.folder, options.configurations, options.exports, options.answers)
            for each in declared
        )
        sources += [source for source in found if source is not None]
    for source in (*sources, *(path for path in options.configurations if path not in sources)):
        try:
            overrides.add(read_dtsconfig(source) if isinstance(source, Path) else source)
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
    return declared, overrides, findings


def read_project_folder(folder: Path, exports: Exports | None = None) -> Project:
    """Read the project files in a folder (`.conmgr`, `Project.params`, `.dtproj`), but not its packages.

    Args:
        folder: the folder.
        exports: the values of an environment of the catalog.

    Raises:
        PackageError: the folder cannot be read.
    """
    dtproj = next(iter(_list_files(folder, ".dtproj")), None)
    params = next((file for file in _list_files(folder, ".params") if file.name.lower() == "project.params"), None)
    return _read_project_files(
        name=dtproj.stem if dtproj else folder.resolve().name,
        path=str(folder),
        connections=[_file_reader(file) for file in _list_files(folder, ".conmgr")],
        parameters=_file_reader(params) if params else None,
        manifest=_file_reader(dtproj) if dtproj else None,
        exports=exports or Exports(),
    )


def read_project_ispac(ispac: Ispac, exports: Exports | None = None) -> Project:
    """Read the project files in an `.ispac` (`.conmgr`, `Project.params`, `@Project.manifest`), not its packages.

    Args:
        ispac: the open file.
        exports: the values of an environment of the catalog.
    """
    params = next((name for name in ispac.list_parts(".params") if name.lower() == "project.params"), None)
    manifest = next((name for name in ispac.list_parts(".manifest") if name.lower() == "@project.manifest"), None)
    return _read_project_files(
        name=Path(ispac.path).stem,
        path=ispac.path,
        connections=[_part_reader(ispac, name) for name in ispac.list_parts(".conmgr")],
        parameters=_part_reader(ispac, params) if params else None,
        manifest=_part_reader(ispac, manifest) if manifest else None,
        exports=exports or Exports(),
    )


def _list_files(folder: Path, suffix: str) -> list[Path]:
    """Return the files in a folder with a suffix, sorted.

    Raises:
        PackageError: the folder cannot be read.
    """
    try:
        return sorted(file for file in folder.iterdir() if file.suffix.lower() == suffix and file.is_file())
    except OSError as error:
        raise unreadable_error(str(folder), error) from error


def _file_reader(file: Path) -> _FileReader:
    return str(file), lambda: read_file(file)


def _part_reader(ispac: Ispac, name: str) -> _FileReader:
    return ispac.format_part(name), lambda: ispac.read(name)


def _read_project_files(
    *,
    name: str,
    path: str,
    connections: list[_FileReader],
    parameters: _FileReader | None,
    manifest: _FileReader | None,
    exports: Exports,
) -> Project:
    smtp: list[SmtpConnection] = []
    files: list[FileConnection] = []
    databases: list[DatabaseConnection] = []
    unreadable: list[tuple[str, PackageError]] = []
    project_manifest: Manifest | None = None
    project_parameters: tuple[Parameter, ...] = ()
    if manifest is not None:
        source, read = manifest
        try:
            project_manifest = read_manifest(read().root, source)
        except PackageError as error:
            unreadable.append((source, error))
    for source, read in connections:
        try:
            connection = _read_project_connection(read(), source)
        except PackageError as error:
            unreadable.append((source, error))
            continue
        connection = None if connection is None else apply_manifest(connection, project_manifest)
        if isinstance(connection, SmtpConnection):
            smtp.append(connection)
        elif isinstance(connection, FileConnection):
            files.append(connection)
        elif connection is not None:
            databases.append(connection)
    if parameters is not None:
        source, read = parameters
        try:
            project_parameters = add_configured_values(_read_parameters(read(), source), project_manifest)
            project_parameters = exports.apply(project_parameters)
        except PackageError as error:
            unreadable.append((source, error))
    return Project(
        name=name,
        path=path,
        connection_managers=tuple(smtp),
        file_connections=tuple(files),
        database_connections=tuple(databases),
        parameters=project_parameters,
        manifest=project_manifest,
        unreadable=tuple(unreadable),
    )


def _read_project_connection(document: Document, source: str) -> ConnectionManager | None:
    _check_root(document.root, source, tag="ConnectionManager", kind="a connection manager")
    return read_connection_manager_element(document.root, source=source, scope="project")


def _read_parameters(document: Document, source: str) -> tuple[Parameter, ...]:
    if document.root.tag == "EncryptedData":
        raise _encrypted_error(source)
    if document.root.tag != "Parameters":
        raise PackageError(
            f"{source} is not a project parameters file: its root is <{document.root.tag}>, not <Parameters>.",
            remedy="Save the project again in Visual Studio.",
        )
    return read_project_parameters(document.root)


def _encrypted_error(name: str) -> PackageError:
    """Return the error for a file that is completely encrypted."""
    return PackageError(
        f"{name} is completely encrypted (ProtectionLevel EncryptAllWithPassword or EncryptAllWithUserKey).",
        remedy="Set ProtectionLevel to DontSaveSensitive in Visual Studio and save it, or run: "
        "dtutil /FILE package.dtsx /DECRYPT password /ENCRYPT FILE;readable.dtsx;0",
    )


def _check_root(root: Element, name: str, *, tag: str, kind: str) -> None:
    """Check that a document is of the expected kind and not encrypted.

    Args:
        root: the root element.
        name: the file, for the error message.
        tag: the expected tag of the root element.
        kind: the expected kind of document, for the error message.

    Raises:
        PackageError: it is of another kind, or encrypted.
    """
    if root.tag == "EncryptedData" or root.find("EncryptedData") is not None:
        raise _encrypted_error(name)
    if root.tag != tag or _NAMESPACE not in root.namespace.lower():
        raise PackageError(
            f"{name} is not {kind}: its root is <{root.tag[:100]}>"
            + (f" of {root.namespace[:100]!r}." if root.namespace else " without a namespace."),
            remedy=SUPPORTED_FILES_REMEDY,
        )
