"""Reads packages and projects: a `.dtsx` file, a folder or an `.ispac`, with what its packages share."""

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
    PropertyOverrides,
    find_dtsconfig,
    read_configurations,
    read_dtsconfig,
)
from airflow_provider_smtpcm.ssis.reading.connection_managers import (
    ConnectionManager,
    ConnectionManagers,
    read_connection_manager_element,
    read_connection_managers,
)
from airflow_provider_smtpcm.ssis.reading.executables import ROOT, ReadContext, read_root
from airflow_provider_smtpcm.ssis.reading.ispac import Ispac, open_ispac
from airflow_provider_smtpcm.ssis.reading.manifest import add_configured_values, apply_manifest, read_manifest
from airflow_provider_smtpcm.ssis.reading.variables import read_package_parameters, read_project_parameters
from airflow_provider_smtpcm.ssis.reading.xml import (
    Document,
    Element,
    get_flag,
    get_integer,
    get_text,
    read_file,
    unreadable_error,
)

_NAMESPACE = "sqlserver/dts"
# PackageFormatVersion of SSIS 2005, 2008, 2012 and 2014 to 2022.
_FORMATS = {2, 3, 6, 8}

# A file of a project: its name, and a function that reads it.
_Source = tuple[str, Callable[[], Document]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What a package is read with.

    Args:
        project: whose connection managers its tasks may refer to.
        folder: in which the `.dtsConfig` files that it names are looked for.
        configurations: `.dtsConfig` files that apply to every package, as those of `dtexec /ConfigFile` do.
    """

    project: Project | None = None
    folder: Path | None = None
    configurations: tuple[Path, ...] = ()


def read_package(
    path: str | Path, *, project: Project | None = None, configurations: Iterable[str | Path] = ()
) -> Package:
    """Read one `.dtsx` file, with the `.conmgr` files and the `Project.params` in its folder.

    Args:
        path: the file.
        project: the project that it belongs to; the one in its folder by default.
        configurations: `.dtsConfig` files that apply to it, besides those that it names.

    Raises:
        PackageError: it cannot be read, or is no package.
    """
    path = Path(path)
    if path.is_dir() or path.suffix.lower() == ".ispac":
        raise PackageError(f"{path} is a project, not a package.", remedy="Read it with read_project().")
    document = read_file(path)
    options = ReadOptions(
        project=project if project is not None else read_project_folder(path.parent),
        folder=path.parent,
        configurations=tuple(Path(one) for one in configurations),
    )
    return build_package(document.root, str(path), options)


def read_project(path: str | Path, *, configurations: Iterable[str | Path] = ()) -> Project:
    """Read a project with all its packages. Files that cannot be read are in its `unreadable`.

    Args:
        path: a folder, or an `.ispac`.
        configurations: `.dtsConfig` files that apply to every package, besides those that the package names.

    Raises:
        PackageError: it is neither a folder nor an `.ispac`, or the `.ispac` itself cannot be read.
    """
    path = Path(path)
    applied = tuple(Path(one) for one in configurations)
    packages: list[Package] = []
    unreadable: list[tuple[str, PackageError]] = []

    def read(name: str, read_document: Callable[[], Document], options: ReadOptions) -> None:
        try:
            packages.append(build_package(read_document().root, name, options))
        except PackageError as error:
            unreadable.append((name, error))

    if path.is_dir():
        project = read_project_folder(path)
        options = ReadOptions(project=project, folder=path, configurations=applied)
        for file in _list_files(path, ".dtsx"):
            read(*_source_of_file(file), options)
    else:
        with open_ispac(path) as ispac:
            project = read_project_ispac(ispac)
            options = ReadOptions(project=project, configurations=applied)
            for name in ispac.list_parts(".dtsx"):
                read(*_source_of_part(ispac, name), options)
    return replace(project, packages=tuple(packages), unreadable=(*project.unreadable, *unreadable))


def read_connection_manager(path: str | Path) -> ConnectionManager | None:
    """Read a `.conmgr` file; None if it is neither an SMTP nor a File connection manager.

    Raises:
        PackageError: it cannot be read, or is no connection manager.
    """
    path = Path(path)
    return _read_project_connection(read_file(path), str(path))


def build_package(root: Element, path: str, options: ReadOptions) -> Package:
    """Build the model of a package.

    Args:
        root: the root element.
        path: its file, or `project.ispac!Part.dtsx`.
        options: its project and configurations.

    Raises:
        PackageError: it is no package, or is encrypted.
    """
    _check_root(root, path, tag="Executable", what="an SSIS package")
    declared, overrides, findings = _load_configurations(root, options)
    file = PurePath(path.rpartition("!")[2]).name
    manifest = options.project.manifest if options.project else None
    own = read_connection_managers(root, source=path, file=file, overrides=overrides, manifest=manifest)
    project = ConnectionManagers()
    if options.project is not None:
        for smtp in options.project.connection_managers:
            project.add(smtp)
        for file_connection in options.project.file_connections:
            project.add(file_connection)
    version = get_integer(root, "PackageFormatVersion") or (3 if root.find("Property") else 8)
    context = ReadContext(
        package_connections=own,
        project_connections=project,
        overrides=overrides,
        format_version=version,
        findings=findings,
    )
    if version not in _FORMATS:
        context.add_finding(
            "unknown-format-version",
            Severity.NOTE,
            (ROOT,),
            f"PackageFormatVersion is {version}, which is not known here; read as the nearest one.",
        )
    container = read_root(root, context)
    package = Package(
        name=container.name if get_text(root, "ObjectName") else PurePath(file).stem,
        id=container.id,
        path=path,
        format_version=version,
        protection_level=get_integer(root, "ProtectionLevel"),
        root=container,
        connection_managers=tuple(own.smtp),
        file_connections=tuple(own.files),
        parameters=add_configured_values(read_package_parameters(root), manifest, file),
        configurations=(*declared, *overrides.applied.values()),
    )
    is_enabled = get_flag(root, "EnableConfig")
    findings += _report_configurations(package, declared, overrides, is_enabled=is_enabled)
    shared = {one.id: one for one in context.mail_connections if one is not None and one.scope == "project"}
    managers = (*package.connection_managers, *shared.values())
    return replace(package, connection_managers=managers, findings=tuple(findings))


def _load_configurations(
    root: Element, options: ReadOptions
) -> tuple[list[Configuration], PropertyOverrides, list[Finding]]:
    """Return the configurations that a package declares, all values that apply to it, and findings.

    The values come from the files that the package names, if it enables configurations, and then from those in
    `options`.
    """
    overrides = PropertyOverrides()
    findings: list[Finding] = []
    declared = list(read_configurations(root))
    paths = []
    if get_flag(root, "EnableConfig"):
        for one in declared:
            if one.kind == "xml file" and not one.indirect:
                path = find_dtsconfig(one.source, options.folder, options.configurations)
                if path is not None:
                    paths.append(path)
    for path in (*paths, *(one for one in options.configurations if one not in paths)):
        try:
            overrides.add(read_dtsconfig(path))
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


def _report_configurations(
    package: Package, declared: list[Configuration], overrides: PropertyOverrides, *, is_enabled: bool
) -> Iterator[Finding]:
    """Yield the configurations that were applied, and those whose values are unknown here."""
    for one in overrides.applied.values():
        yield Finding(
            code="configuration-applied",
            severity=Severity.NOTE,
            where=ROOT,
            text=f"{one.path} is set by the package configuration {one.source}; its value is used.",
        )
    read = {Path(configuration.source).name.lower() for configuration, _ in overrides.values.values()}
    for one in declared:
        file = one.source.replace("\\", "/").rpartition("/")[2].lower()
        if one.kind == "xml file" and not one.indirect and file in read:
            continue
        if not is_enabled:
            yield Finding(
                code="configuration-switched-off",
                severity=Severity.NOTE,
                where=ROOT,
                text=f"The package configuration {one.name!r} ({one.kind}) is not in effect: EnableConfig is off.",
            )
            continue
        target = f" for {one.path}" if one.path else ""
        source = f"the environment variable {one.source} that names it" if one.indirect else one.source or "(not shown)"
        article = "an" if one.kind[0] in "eixu" else "a"
        yield Finding(
            code="configuration-not-read",
            severity=Severity.DECISION if _concerns_mail(one, package) else Severity.NOTE,
            where=ROOT,
            text=f"The package configuration {one.name!r} takes its value{target} from {article} {one.kind}: {source}. "
            "What stands in the package is used.",
            remedy="Pass the .dtsConfig file along, or check the connection and the variables."
            if one.kind == "xml file"
            else "Look up its values and check the connection and the variables.",
        )


def _concerns_mail(configuration: Configuration, package: Package) -> bool:
    """Whether a configuration may set a variable, a connection manager or a mail of a package that sends mail."""
    if not package.connection_managers and not package.send_mail_tasks:
        return False
    path = (configuration.path or "").lower()
    if not path or ".variables[" in path:
        return True
    names = [*(one.name for one in package.connection_managers), *(one.name for one in package.file_connections)]
    targets = [f".connections[{name.lower()}]" for name in names]
    targets += ["\\".join(task.path).lower() + ".properties[" for task in package.send_mail_tasks]
    return any(target in path for target in targets)


def read_project_folder(folder: Path) -> Project:
    """Read what the packages in a folder share, but not the packages.

    Raises:
        PackageError: the folder cannot be read.
    """
    dtproj = next(iter(_list_files(folder, ".dtproj")), None)
    params = next((file for file in _list_files(folder, ".params") if file.name.lower() == "project.params"), None)
    return _read_shared(
        name=dtproj.stem if dtproj else folder.resolve().name,
        path=str(folder),
        connections=[_source_of_file(file) for file in _list_files(folder, ".conmgr")],
        parameters=_source_of_file(params) if params else None,
        manifest=_source_of_file(dtproj) if dtproj else None,
    )


def read_project_ispac(ispac: Ispac) -> Project:
    """Read what the packages in an `.ispac` share, but not the packages."""
    params = next((name for name in ispac.list_parts(".params") if name.lower() == "project.params"), None)
    manifest = next((name for name in ispac.list_parts(".manifest") if name.lower() == "@project.manifest"), None)
    return _read_shared(
        name=Path(ispac.path).stem,
        path=ispac.path,
        connections=[_source_of_part(ispac, name) for name in ispac.list_parts(".conmgr")],
        parameters=_source_of_part(ispac, params) if params else None,
        manifest=_source_of_part(ispac, manifest) if manifest else None,
    )


def _list_files(folder: Path, suffix: str) -> list[Path]:
    """Return the files in a folder with a suffix, sorted."""
    try:
        return sorted(file for file in folder.iterdir() if file.suffix.lower() == suffix and file.is_file())
    except OSError as error:
        raise unreadable_error(str(folder), error) from error


def _source_of_file(file: Path) -> _Source:
    return str(file), lambda: read_file(file)


def _source_of_part(ispac: Ispac, name: str) -> _Source:
    return ispac.format_part(name), lambda: ispac.read(name)


def _read_shared(
    *,
    name: str,
    path: str,
    connections: list[_Source],
    parameters: _Source | None,
    manifest: _Source | None,
) -> Project:
    smtp: list[SmtpConnection] = []
    files: list[FileConnection] = []
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
        elif connection is not None:
            files.append(connection)
    if parameters is not None:
        source, read = parameters
        try:
            project_parameters = add_configured_values(_read_parameters(read(), source), project_manifest)
        except PackageError as error:
            unreadable.append((source, error))
    return Project(
        name=name,
        path=path,
        connection_managers=tuple(smtp),
        file_connections=tuple(files),
        parameters=project_parameters,
        manifest=project_manifest,
        unreadable=tuple(unreadable),
    )


def _read_project_connection(document: Document, source: str) -> ConnectionManager | None:
    _check_root(document.root, source, tag="ConnectionManager", what="a connection manager")
    return read_connection_manager_element(document.root, source=source, scope="project")


def _read_parameters(document: Document, source: str) -> tuple[Parameter, ...]:
    if document.root.tag == "EncryptedData":
        raise _encrypted_error(source)
    if document.root.tag != "Parameters":
        raise PackageError(
            f"{source} holds no project parameters: its root is <{document.root.tag}>, not <Parameters>.",
            remedy="Save the project again in Visual Studio.",
        )
    return read_project_parameters(document.root)


def _encrypted_error(name: str) -> PackageError:
    """Return the error for a file that is encrypted as a whole."""
    return PackageError(
        f"{name} is encrypted whole (ProtectionLevel EncryptAllWithPassword or EncryptAllWithUserKey).",
        remedy="Set ProtectionLevel to DontSaveSensitive in Visual Studio and save it, or run: "
        "dtutil /FILE package.dtsx /DECRYPT password /ENCRYPT FILE;readable.dtsx;0",
    )


def _check_root(root: Element, name: str, *, tag: str, what: str) -> None:
    """Refuse a document of another kind, or an encrypted one.

    Args:
        root: the root element.
        name: the file, for the error.
        tag: the expected tag.
        what: what is expected, for the error.

    Raises:
        PackageError: it is of another kind, or encrypted.
    """
    if root.tag == "EncryptedData" or root.find("EncryptedData") is not None:
        raise _encrypted_error(name)
    if root.tag != tag or _NAMESPACE not in root.namespace.lower():
        raise PackageError(
            f"{name} is not {what}: its root is <{root.tag[:100]}>"
            + (f" of {root.namespace[:100]!r}." if root.namespace else " without a namespace."),
            remedy="Pass .dtsx, .conmgr, .ispac or .dtsConfig files, or a folder that holds them.",
        )
