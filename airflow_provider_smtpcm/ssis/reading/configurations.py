r"""Package configurations: what SSIS puts into properties when it loads a package. `.dtsConfig` files are applied.

A target is written `\Package.Variables[User::To].Properties[Value]`,
`\Package.Connections[SMTP].Properties[SmtpServer]` or `\Package\Sequence\Send Mail.Properties[ToLine]`; it is compared
without regard to case.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PureWindowsPath
from typing import overload

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis.model import Configuration
from airflow_provider_smtpcm.ssis.reading.xml import Node, as_number, files_in, members, read_file, text, unreadable

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
class Overrides:
    """Values by their target, and which of them found it."""

    values: dict[str, tuple[Configuration, str]] = field(default_factory=dict)
    applied: dict[str, Configuration] = field(default_factory=dict)

    def put(self, configurations: Iterable[Configuration]) -> None:
        """A later one wins over an earlier one."""
        for one in configurations:
            if one.path and one.value is not None:
                self.values[_key(one.path)] = (one, one.value)

    @overload
    def connection(self, name: str, attribute: str, otherwise: str) -> str: ...
    @overload
    def connection(self, name: str, attribute: str, otherwise: None) -> str | None: ...
    def connection(self, name: str, attribute: str, otherwise: str | None) -> str | None:
        """A connection manager's property."""
        return self._take(f"\\Package.Connections[{name}].Properties[{attribute}]", otherwise)

    def variable(self, scope: tuple[str, ...], name: str, otherwise: str | None) -> str | None:
        """A variable's value."""
        return self._take("\\" + "\\".join(scope) + f".Variables[{name}].Properties[Value]", otherwise)

    def attribute(self, path: tuple[str, ...], attribute: str, otherwise: str) -> str:
        """A property of a task."""
        return self._take("\\" + "\\".join(path) + f".Properties[{attribute}]", otherwise) or ""

    def _take(self, target: str, otherwise: str | None) -> str | None:
        key = _key(target)
        if key not in self.values:
            return otherwise
        configuration, value = self.values[key]
        self.applied[key] = configuration
        return value


def _key(path: str) -> str:
    key = path.strip().lower().lstrip("\\").replace("connectionmanagers[", "connections[")
    return key.removesuffix(".value") + ".properties[value]" if key.endswith("].value") else key


def read_configurations(package: Node) -> tuple[Configuration, ...]:
    """The configurations that a package names; nothing is opened."""
    found = []
    for node in members(package, "Configurations", "Configuration"):
        number = as_number(text(node, "ConfigurationType"))
        found.append(
            Configuration(
                kind=_KINDS.get(-1 if number is None else number, "unknown"),
                source=_shown_source(text(node, "ConfigurationString")),
                path=text(node, "ConfigurationVariable").strip() or None,
                name=text(node, "ObjectName"),
                indirect=number in _INDIRECT,
            )
        )
    return tuple(found)


def _shown_source(source: str) -> str:
    """Without what could be an account: a SQL Server's names a connection manager, a table and a filter only."""
    return "" if "password" in source.lower() or "pwd" in source.lower() else source.strip()


def read_dtsconfig(path: Path, *, name: str | None = None) -> tuple[Configuration, ...]:
    """The values of a `.dtsConfig` file.

    Raises:
        PackageError: it cannot be read, or is none.
    """
    shown = name or str(path)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise unreadable(shown, error) from error
    return _values(path, shown, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)  # one that holds for every package is read once
def _values(path: Path, shown: str, _changed: int, _size: int) -> tuple[Configuration, ...]:
    root = read_file(path, shown).root
    if root.tag != "DTSConfiguration":
        raise PackageError(
            f"{shown} is no package configuration: its root is <{root.tag}>, not <DTSConfiguration>.",
            remedy="Pass the .dtsConfig file that SSIS wrote.",
        )
    return dtsconfig_values(root, shown)


def dtsconfig_values(root: Node, source: str) -> tuple[Configuration, ...]:
    """The values under a `DTSConfiguration`."""
    found = []
    for node in root.all("Configuration"):
        value = node.first("ConfiguredValue")
        path = node.attributes.get("Path", "").strip()
        if path and value is not None:
            found.append(Configuration(kind="xml file", source=source, path=path, value=value.text))
    return tuple(found)


def find_dtsconfig(source: str, beside: Path | None, known: Iterable[Path] = ()) -> Path | None:
    """The file that a package names by a Windows path: as it stands, beside the package, or among those known.

    Only files whose name ends in `.dtsConfig` or `.xml` are looked at: the name comes from the package.
    """
    named = PureWindowsPath(source)
    if named.suffix.lower() not in {".dtsconfig", ".xml"} or not named.name:
        return None
    for path in known:
        if path.name.lower() == named.name.lower():
            return path
    beside_it = files_in(beside) if beside is not None else ()
    return next((path for path in beside_it if path.name.lower() == named.name.lower() and path.is_file()), None)
