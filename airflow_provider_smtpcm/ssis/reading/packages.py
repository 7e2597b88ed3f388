"""A document becomes a package: its connection managers, parameters, configurations and all that runs in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis.package import (
    Configuration,
    Finding,
    Package,
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
from airflow_provider_smtpcm.ssis.reading.connection_managers import Connections, read_connections
from airflow_provider_smtpcm.ssis.reading.dialect import flag, number, text
from airflow_provider_smtpcm.ssis.reading.executables import ROOT, read_root
from airflow_provider_smtpcm.ssis.reading.manifest import with_configurations
from airflow_provider_smtpcm.ssis.reading.nodes import Node
from airflow_provider_smtpcm.ssis.reading.parameters import package_parameters
from airflow_provider_smtpcm.ssis.reading.scope import Reading

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
