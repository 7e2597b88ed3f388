r"""Package configurations: values that SSIS assigns to properties when it loads a package.

Those in `.dtsConfig` files are applied. A property is named by a path, compared without regard to case:
`\Package.Variables[User::To].Properties[Value]`, `\Package.Connections[SMTP].Properties[SmtpServer]` or
`\Package\Sequence\Send Mail.Properties[ToLine]`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PureWindowsPath
from typing import overload

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis.model import Configuration
from airflow_provider_smtpcm.ssis.reading.xml import (
    Element,
    find_members,
    get_text,
    list_files,
    parse_integer,
    read_file,
    unreadable_error,
)

# SSIS's DTSConfigurationType. An indirect one is an environment variable that holds the source.
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


@dataclass(slots=True, kw_only=True)
class PropertyOverrides:
    """The values that configurations assign, by the path of the property.

    Args:
        values: the configurations with their values.
        applied: the configurations whose property was found in the package.
    """

    values: dict[str, tuple[Configuration, str]] = field(default_factory=dict)
    applied: dict[str, Configuration] = field(default_factory=dict)

    def add(self, configurations: Iterable[Configuration]) -> None:
        """Add the values of configurations; a later one takes precedence over an earlier one."""
        for one in configurations:
            if one.path and one.value is not None:
                self.values[_normalize_path(one.path)] = (one, one.value)

    @overload
    def connection_property(self, name: str, property_name: str, default: str) -> str: ...
    @overload
    def connection_property(self, name: str, property_name: str, default: None) -> str | None: ...
    def connection_property(self, name: str, property_name: str, default: str | None) -> str | None:
        """Return the value of a connection manager's property, or the default."""
        return self._apply(f"\\Package.Connections[{name}].Properties[{property_name}]", default)

    def variable_value(self, scope: tuple[str, ...], name: str, default: str | None) -> str | None:
        """Return the value of a variable, or the default.

        Args:
            scope: the path of the executable that declares it.
            name: with its namespace.
            default: the value in the package.
        """
        return self._apply("\\" + "\\".join(scope) + f".Variables[{name}].Properties[Value]", default)

    def task_property(self, path: tuple[str, ...], property_name: str, default: str) -> str:
        """Return the value of a task's property, or the default."""
        return self._apply("\\" + "\\".join(path) + f".Properties[{property_name}]", default) or ""

    def _apply(self, path: str, default: str | None) -> str | None:
        key = _normalize_path(path)
        if key not in self.values:
            return default
        configuration, value = self.values[key]
        self.applied[key] = configuration
        return value


def _normalize_path(path: str) -> str:
    path = path.strip().lower().lstrip("\\").replace("connectionmanagers[", "connections[")
    return path.removesuffix(".value") + ".properties[value]" if path.endswith("].value") else path


def read_configurations(package: Element) -> tuple[Configuration, ...]:
    """Return the configurations that a package declares; no file is opened."""
    found = []
    for element in find_members(package, "Configurations", "Configuration"):
        type_ = parse_integer(get_text(element, "ConfigurationType"))
        found.append(
            Configuration(
                kind=_KINDS.get(-1 if type_ is None else type_, "unknown"),
                source=_remove_secrets(get_text(element, "ConfigurationString")),
                path=get_text(element, "ConfigurationVariable").strip() or None,
                name=get_text(element, "ObjectName"),
                indirect=type_ in _INDIRECT,
            )
        )
    return tuple(found)


def _remove_secrets(source: str) -> str:
    """Return a source, or an empty text where it could hold an account."""
    return "" if "password" in source.lower() or "pwd" in source.lower() else source.strip()


def read_dtsconfig(path: Path, *, name: str | None = None) -> tuple[Configuration, ...]:
    """Return the configurations in a `.dtsConfig` file.

    Args:
        path: the file.
        name: what errors call it; the path by default.

    Raises:
        PackageError: it cannot be read, or is no `.dtsConfig` file.
    """
    shown = name or str(path)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise unreadable_error(shown, error) from error
    return _read_dtsconfig(path, shown, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)  # a file that applies to every package is read once
def _read_dtsconfig(path: Path, shown: str, _modified: int, _size: int) -> tuple[Configuration, ...]:
    root = read_file(path, shown).root
    if root.tag != "DTSConfiguration":
        raise PackageError(
            f"{shown} is no package configuration: its root is <{root.tag}>, not <DTSConfiguration>.",
            remedy="Pass the .dtsConfig file that SSIS wrote.",
        )
    found = []
    for element in root.find_all("Configuration"):
        value = element.find("ConfiguredValue")
        target = element.attributes.get("Path", "").strip()
        if target and value is not None:
            found.append(Configuration(kind="xml file", source=shown, path=target, value=value.text))
    return tuple(found)


def find_dtsconfig(source: str, folder: Path | None, passed: Iterable[Path] = ()) -> Path | None:
    """Find the `.dtsConfig` file that a package names by its Windows path, by the file's name in any case.

    Only names that end in `.dtsConfig` or `.xml` are looked for: an untrusted package chooses them.

    Args:
        source: the path in the package.
        folder: the package's own folder.
        passed: files that the caller passed; they take precedence.
    """
    named = PureWindowsPath(source)
    if named.suffix.lower() not in {".dtsconfig", ".xml"} or not named.name:
        return None
    for path in passed:
        if path.name.lower() == named.name.lower():
            return path
    siblings = list_files(folder) if folder is not None else ()
    return next((path for path in siblings if path.name.lower() == named.name.lower() and path.is_file()), None)
