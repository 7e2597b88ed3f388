r"""Package configurations: values that SSIS assigns to properties of a package from outside.

Values in `.dtsConfig` files, in exports of the configuration table of SQL Server and in the answers of `questions.csv`
are applied. A case-insensitive path identifies the property, such as
`\Package.Variables[User::To].Properties[Value]`, `\Package.Connections[SMTP].Properties[SmtpServer]` or
`\Package\Sequence\Send Mail.Properties[ToLine]`. A configuration whose value is not in the files is reported as a
finding, which asks a question if a mail depends on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PureWindowsPath
from typing import overload

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis.findings import CONNECTION_MANAGERS, KEEP
from airflow_provider_smtpcm.ssis.model import (
    Configuration,
    Finding,
    Package,
    Question,
    Severity,
)
from airflow_provider_smtpcm.ssis.reading.exports import Exports, split_source
from airflow_provider_smtpcm.ssis.reading.xml import (
    Element,
    find_members,
    get_text,
    list_files,
    parse_integer,
    read_file,
    unreadable_error,
)
from airflow_provider_smtpcm.ssis.waiting_mails import WaitingMails

#: The first part of every path in a package, whatever the package is called.
ROOT = "Package"
# SSIS's DTSConfigurationType. The source of an indirect one is in an environment variable.
_KINDS = {
    0: "parent variable",
    1: "xml file",
    2: "environment variable",
    3: "registry entry",
    4: "parent variable",
    5: "xml file",
    6: "registry entry",
    7: "sql server",
    8: "ini file",
    9: "sql server",
    10: "ini file",
}
_INDIRECT = {4, 5, 6, 9, 10}
_WITHOUT_NAMESPACE = re.compile(r"(\.variables\[)(?![^\]]*::)", re.IGNORECASE)
_SHORT_PROPERTY = re.compile(r"(?<=\])\.(\w+)$")


@dataclass(slots=True, kw_only=True)
class PropertyOverrides:
    """Values that configurations assign to properties.

    Args:
        values: the configurations and their values by normalized path of the property.
        applied: those whose property was found in the package.
    """

    values: dict[str, tuple[Configuration, str]] = field(default_factory=dict)
    applied: dict[str, Configuration] = field(default_factory=dict)

    def add(self, configurations: Iterable[Configuration]) -> None:
        """Add the values of configurations; later ones take precedence."""
        for configuration in configurations:
            if configuration.path and configuration.value is not None:
                self.values[_normalize_path(configuration.path)] = (configuration, configuration.value)

    @overload
    def connection_property(self, name: str, property_name: str, default: str) -> str: ...
    @overload
    def connection_property(self, name: str, property_name: str, default: None) -> str | None: ...
    def connection_property(self, name: str, property_name: str, default: str | None) -> str | None:
        """Return the configured value of a connection manager's property, or the default."""
        return self._apply(f"\\Package.Connections[{name}].Properties[{property_name}]", default)

    def variable_value(self, scope: tuple[str, ...], name: str, default: str | None) -> str | None:
        """Return the configured value of a variable, or the default.

        Args:
            scope: the path of the executable that declares it.
            name: the qualified name, such as `User::To`.
            default: the value in the package.
        """
        return self._apply("\\" + "\\".join(scope) + f".Variables[{name}].Properties[Value]", default)

    def task_property(self, path: tuple[str, ...], property_name: str, default: str) -> str:
        """Return the configured value of a task's property, or the default.

        Args:
            path: the path of the task.
            property_name: such as `ToLine`.
            default: the value in the package.
        """
        if not self.values:  # most packages have no configurations, but thousands of properties
            return default
        return self._apply("\\" + "\\".join(path) + f".Properties[{property_name}]", default) or ""

    def _apply(self, path: str, default: str | None) -> str | None:
        key = _normalize_path(path)
        if key not in self.values:
            return default
        configuration, value = self.values[key]
        self.applied[key] = configuration
        return value


def _normalize_path(path: str) -> str:
    """Return a path of a property in one form: without regard to case, and with what it may leave out.

    A variable may lack its namespace, which is then User, and a property its `Properties[...]`: Microsoft's page of
    dtexec has `.Variables[myVariable].Value`.
    """
    path = path.strip().lower().lstrip("\\").replace("connectionmanagers[", "connections[")
    path = _WITHOUT_NAMESPACE.sub(r"\1user::", path)
    return _SHORT_PROPERTY.sub(r".properties[\1]", path)


def read_configurations(package: Element) -> tuple[Configuration, ...]:
    """Return the configurations that a package declares, without opening their sources."""
    configurations = []
    for element in find_members(package, "Configurations", "Configuration"):
        configuration_type = parse_integer(get_text(element, "ConfigurationType"))
        configurations.append(
            Configuration(
                kind=_KINDS.get(-1 if configuration_type is None else configuration_type, "unknown"),
                source=_remove_secrets(get_text(element, "ConfigurationString")),
                path=get_text(element, "ConfigurationVariable").strip() or None,
                name=get_text(element, "ObjectName"),
                indirect=configuration_type in _INDIRECT,
            )
        )
    return tuple(configurations)


def _remove_secrets(source: str) -> str:
    """Return a source, or an empty string if it could contain a password."""
    return "" if "password" in source.lower() or "pwd" in source.lower() else source.strip()


def read_dtsconfig(path: Path) -> tuple[Configuration, ...]:
    """Return the configurations in a `.dtsConfig` file.

    Raises:
        PackageError: the file cannot be read, or is not a `.dtsConfig` file.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise unreadable_error(str(path), error) from error
    return _read_dtsconfig(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)  # a file that applies to every package is parsed once
def _read_dtsconfig(path: Path, _modified: int, _size: int) -> tuple[Configuration, ...]:
    root = read_file(path).root
    if root.tag != "DTSConfiguration":
        raise PackageError(
            f"{path} is not a package configuration: its root is <{root.tag}>, not <DTSConfiguration>.",
            remedy="Pass the .dtsConfig file that SSIS wrote.",
        )
    configurations = []
    for element in root.find_all("Configuration"):
        value = element.find("ConfiguredValue")
        target = element.attributes.get("Path", "").strip()
        if target and value is not None:
            configurations.append(Configuration(kind="xml file", source=str(path), path=target, value=value.text))
    return tuple(configurations)


def _find_dtsconfig(source: str, folder: Path | None, passed: Iterable[Path] = ()) -> Path | None:
    """Find the `.dtsConfig` file that a package refers to, by file name without regard to case.

    The package is untrusted, so only names that end in `.dtsConfig` or `.xml` are searched for.

    Args:
        source: the Windows path in the package.
        folder: the folder of the package.
        passed: files that the caller passed; they take precedence.
    """
    windows_path = PureWindowsPath(source)
    name = windows_path.name.lower()
    if windows_path.suffix.lower() not in {".dtsconfig", ".xml"} or not name:
        return None
    for path in passed:
        if path.name.lower() == name:
            return path
    siblings = list_files(folder) if folder is not None else ()
    return next((path for path in siblings if path.name.lower() == name and path.is_file()), None)


# --- Looking up the values; findings and questions about those that are not in the files

# The names of those kinds in a sentence that are not `a` and the kind.
_CONFIGURATION_KINDS = {
    "xml file": "an XML file",
    "sql server": "a SQL Server table",
    "ini file": "an INI file",
    "environment variable": "an environment variable",
    "unknown": "a source of an unknown kind",
}


def find_values(
    configuration: Configuration,
    folder: Path | None,
    passed: Sequence[Path],
    exports: Exports,
    answers: Mapping[str, str],
) -> Path | Iterable[Configuration] | None:
    """Return the file or the rows with the values of a configuration, or the value in an answer; None if unknown.

    Args:
        configuration: one that the package declares.
        folder: the folder of the package, in which to search for `.dtsConfig` files; None: do not search.
        passed: `.dtsConfig` files that the caller passed.
        exports: values from SQL Server.
        answers: the answers of `questions.csv`.
    """
    if configuration.kind == "xml file" and not configuration.indirect:
        return _find_dtsconfig(configuration.source, folder, passed)
    if rows := exports.rows(configuration):
        return rows
    answer = answers.get(ask_for_values(configuration).key)
    if answer is None or answer.lower() == KEEP or configuration.path is None:
        return None
    return [replace(configuration, value=answer)]


def ask_for_values(configuration: Configuration) -> Question:
    """Return the question for the values of a configuration.

    Packages with the same source share one question, as do all files in a folder and all rows of a table.
    """
    kind, source = configuration.kind, configuration.source or configuration.name
    noun = _describe_kind(kind).partition(" ")[2]
    keep = f"or answer {KEEP} for the values in the packages."
    compare = (
        "Compare them with the values in the packages, change the DAGs and connections where they differ, and answer "
        f"{KEEP}."
    )
    detail = subject = shared_text = ""
    if configuration.indirect:
        key, text = source, f"Which {noun} does the environment variable {source} name? "
        if kind == "xml file":
            text += f"Give it as a further PATH and answer {KEEP}, {keep}"
        elif configuration.path and kind != "sql server":
            text += f"It has the value of {configuration.path}. Answer with that value, {keep}"
        else:
            text += compare
    elif kind == "sql server":
        table, detail = split_source(configuration)
        key = table or source
        text = (
            f"The rows of the configuration table {key} are not in the files. Export the table as CSV or as INSERT "
            f"statements and give it as a further PATH, {keep}"
        )
    elif kind == "xml file":
        path = PureWindowsPath(source)
        key, detail, subject = str(path.parent).lower(), path.name, str(path.parent)
        text = f"Configuration files in {path.parent} were not found. Give them as further PATHs, {keep}"
        shared_text = f"Configuration files were not found. Give them as further PATHs, {keep}"
    elif configuration.path:
        key = source
        text = (
            f"Which value does the {noun} {source} have in production? It is the value of {configuration.path}. "
            f"Answer with it, {keep}"
        )
    else:
        key, text = source, f"The {noun} {source} sets values that are not in the files. {compare}"
    key = f"configuration {kind} {key}"
    return Question(key=key, text=text, guess=KEEP, detail=detail, subject=subject, shared_text=shared_text)


def _describe_kind(kind: str) -> str:
    """Return a kind of package configuration with its article."""
    return _CONFIGURATION_KINDS.get(kind, f"a {kind}")


def _find_place(configuration: Configuration) -> str:
    r"""Return what a configuration sets: a variable, a connection manager or an executable; the package if unknown."""
    path = (configuration.path or "").strip().lstrip("\\")
    if match := re.search(r"\.Variables\[(.+?)\]\.", path, re.IGNORECASE):
        return match[1] if "::" in match[1] else f"User::{match[1]}"
    if match := re.search(r"\.Connections\[(.+?)\]\.", path, re.IGNORECASE):
        return f"{CONNECTION_MANAGERS}{match[1]}"
    return re.split(r"\.Properties\[", path, flags=re.IGNORECASE)[0] or ROOT


def find_unread(
    declared: Iterable[Configuration], overrides: PropertyOverrides, exports: Exports
) -> Iterator[Configuration]:
    """Yield the declared configurations whose values are not in the files."""
    read_files = {Path(configuration.source).name.lower() for configuration, _ in overrides.values.values()}
    for configuration in declared:
        file = configuration.source.replace("\\", "/").rpartition("/")[2].lower()
        is_file_read = configuration.kind == "xml file" and not configuration.indirect and file in read_files
        if not is_file_read and not exports.rows(configuration):
            yield configuration


def report_configurations(
    package: Package, unread: Iterable[Configuration], overrides: PropertyOverrides, *, is_enabled: bool
) -> Iterator[Finding]:
    """Yield a finding for each configuration that was applied, is off, or could not be read.

    Args:
        package: the package that declares them.
        unread: the configurations from `find_unread`.
        overrides: the values that were read, and those of them that were applied.
        is_enabled: whether the package's EnableConfig is on.
    """
    for configuration in overrides.applied.values():
        yield Finding(
            code="configuration-applied",
            severity=Severity.NOTE,
            where=ROOT,
            text=f"{configuration.path} is set by the package configuration {configuration.source}, whose value was "
            "used.",
        )
    waiting: WaitingMails | None = None  # most packages need none
    for configuration in unread:
        if not is_enabled:
            yield Finding(
                code="configuration-switched-off",
                severity=Severity.NOTE,
                where=ROOT,
                text=f"The package configuration {configuration.name!r} ({_describe_kind(configuration.kind)}) is not "
                "in effect: EnableConfig is off.",
            )
            continue
        target = f" for {configuration.path}" if configuration.path else ""
        kind = _describe_kind(configuration.kind)
        source = configuration.source or "(not shown)"
        source = f" that the environment variable {source} names" if configuration.indirect else f": {source}"
        if configuration.path is None:
            used = " The values in the package were used"
            used += ", unless another configuration sets them." if overrides.applied else "."
        else:
            is_set = _normalize_path(configuration.path) in overrides.applied
            used = "" if is_set else " The value in the package was used."
        place = _find_place(configuration)
        waiting = waiting or WaitingMails(package)
        concerns_mail = bool(waiting.find_at(place))
        yield Finding(
            code="configuration-not-read",
            severity=Severity.DECISION if concerns_mail else Severity.NOTE,
            where=place,
            question=ask_for_values(configuration) if concerns_mail else None,
            text=f"The package configuration {configuration.name!r} takes its value{target} from {kind}{source}.{used}",
            remedy="Import the .dtsConfig file with the package, or check the value in the DAG or the connection."
            if configuration.kind == "xml file"
            else "Import an export of the table with the package, or check the value in the DAG or the connection."
            if configuration.kind == "sql server" and not configuration.indirect
            else "Look up the value, and check the one in the DAG or the connection.",
        )
