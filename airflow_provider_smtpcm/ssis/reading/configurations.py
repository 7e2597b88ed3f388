r"""Package configurations: values that SSIS assigns to properties when it loads a package.

Only those in `.dtsConfig` files are applied. A case-insensitive path identifies the property:
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
        """Return the configured value of a task's property, or the default."""
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


def read_dtsconfig(path: Path, *, name: str | None = None) -> tuple[Configuration, ...]:
    """Return the configurations in a `.dtsConfig` file.

    Args:
        path: the file.
        name: the name for error messages; the path by default.

    Raises:
        PackageError: the file cannot be read, or is not a `.dtsConfig` file.
    """
    display_name = name or str(path)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise unreadable_error(display_name, error) from error
    return _read_dtsconfig(path, display_name, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)  # a file that applies to every package is parsed once
def _read_dtsconfig(path: Path, display_name: str, _modified: int, _size: int) -> tuple[Configuration, ...]:
    root = read_file(path, display_name).root
    if root.tag != "DTSConfiguration":
        raise PackageError(
            f"{display_name} is not a package configuration: its root is <{root.tag}>, not <DTSConfiguration>.",
            remedy="Pass the .dtsConfig file that SSIS wrote.",
        )
    configurations = []
    for element in root.find_all("Configuration"):
        value = element.find("ConfiguredValue")
        target = element.attributes.get("Path", "").strip()
        if target and value is not None:
            configurations.append(Configuration(kind="xml file", source=display_name, path=target, value=value.text))
    return tuple(configurations)


def find_dtsconfig(source: str, folder: Path | None, passed: Iterable[Path] = ()) -> Path | None:
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
