r"""Values that SSIS assigns from outside a package: package configurations and project manifests.

Of the package configurations, only those in `.dtsConfig` files are applied. A case-insensitive path identifies the
property:
`\Package.Variables[User::To].Properties[Value]`, `\Package.Connections[SMTP].Properties[SmtpServer]` or
`\Package\Sequence\Send Mail.Properties[ToLine]`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PureWindowsPath
from typing import overload

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis.model import (
    Configuration,
    DatabaseConnection,
    FileConnection,
    Manifest,
    Parameter,
    ProjectSetting,
    SmtpConnection,
)
from airflow_provider_smtpcm.ssis.reading.xml import (
    Element,
    find_members,
    get_flag,
    get_text,
    is_sensitive,
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


# --- Project manifests: `@Project.manifest` in an `.ispac`, or part of a `.dtproj`. A manifest has a parameter
# --- `CM.<name>.<property>` for each property of each connection manager, in one list for the project and one for each
# --- package. A deployed project uses these values. A `.dtproj` also has configurations (`Development`, `Production`)
# --- with other values of parameters. These are reported but not applied, since no file says which was deployed.

# The properties in an SMTP connection string; a parameter can set each one separately.
CONNECTION_PROPERTIES = ("SmtpServer", "UseWindowsAuthentication", "EnableSsl", "Timeout")
_CONNECTION_STRING = "ConnectionString"
_PREFIX = "cm."
#: The properties of a database's connection manager, with the keys that they have in connection strings. The first is
#: the one of OLE DB.
DATABASE_PROPERTIES = {
    "ServerName": ("Data Source", "Server", "Address", "Addr", "Network Address", "Dsn"),
    "InitialCatalog": ("Initial Catalog", "Database"),
    "UserName": ("User ID", "Uid", "User"),
}
# A part of a connection string; a value in quotation marks may contain semicolons.
_PART = re.compile(r"""[^=;]*=\s*(?:"(?:[^"]|"")*"|'(?:[^']|'')*'|\{[^}]*\})\s*(?=;|$)|[^;]+""")
_PASSWORD_KEYS = {"password", "pwd", "access token"}


def read_manifest(root: Element, source: str) -> Manifest | None:
    """Return the manifest of an `.ispac` or a `.dtproj`; None if it has no values for connection managers.

    Args:
        root: the root element of the manifest or of the `.dtproj`.
        source: the file.
    """
    is_dtproj = not root.namespace
    project = _find_path(root, "DeploymentModelSpecificContent", "Manifest", "Project") if is_dtproj else root
    values = {}
    for parameters, package in _find_parameter_lists(_find_path(project, "DeploymentInfo")):
        if package_values := dict(_read_connection_values(parameters)):
            values[package] = package_values
    configurations = _read_configurations(root)
    return Manifest(source=source, values=values, configurations=configurations) if values or configurations else None


def apply_manifest(
    connection: SmtpConnection | FileConnection | DatabaseConnection, manifest: Manifest | None, package: str = ""
) -> SmtpConnection | FileConnection | DatabaseConnection:
    """Return a connection manager with the values from the project's manifest.

    Args:
        connection: the connection manager as its file defines it.
        manifest: the manifest of its project.
        package: the file name of its package; empty for a connection manager of the project.
    """
    if manifest is None:
        return connection
    name, scope = connection.name.lower(), _normalize_package(package)
    values = manifest.values.get(scope, {})
    properties = (_CONNECTION_STRING, *CONNECTION_PROPERTIES)
    overrides = {key: values[path] for key in properties if (path := f"{name}.{key.lower()}") in values}
    if isinstance(connection, FileConnection):
        return _apply_to_file_connection(connection, overrides, manifest)
    if isinstance(connection, DatabaseConnection):
        database = {key: values[path] for key in DATABASE_PROPERTIES if (path := f"{name}.{key.lower()}") in values}
        return _apply_to_database_connection(connection, overrides.get(_CONNECTION_STRING), database, manifest)
    string = connection.connection_string
    changed = [
        key for key in overrides if not _is_same_value(key, overrides[key], _get_connection_property(string, key))
    ]
    replaces_string = _CONNECTION_STRING in changed
    if replaces_string:
        string = overrides[_CONNECTION_STRING]
    set_by = []
    for key in changed:
        # Differs from the connection string, which the manifest may have replaced.
        differs = key != _CONNECTION_STRING and not _is_same_value(
            key, overrides[key], _get_connection_property(string, key)
        )
        if differs:
            string = set_connection_property(string, key, overrides[key])
        set_by.append(
            ProjectSetting(
                property=key,
                by=f"CM.{connection.name}.{key}",
                source=manifest.source,
                contradicted=differs and replaces_string,
            )
        )
    configured = []
    for key in properties:
        settings = manifest.configurations.get(scope, {}).get(f"{_PREFIX}{name}.{key.lower()}", {})
        current = _get_connection_property(string, key)
        names = [repr(each) for each, value in settings.items() if not _is_same_value(key, value, current)]
        if names:
            configured.append(ProjectSetting(property=key, by=", ".join(names), source=manifest.source))
    return replace(connection, connection_string=string, set_by=tuple(set_by), configured=tuple(configured))


def _apply_to_file_connection(
    connection: FileConnection, overrides: Mapping[str, str], manifest: Manifest
) -> FileConnection:
    path = overrides.get(_CONNECTION_STRING, connection.connection_string)
    if path.strip() == connection.connection_string.strip():
        return connection
    parameter = f"CM.{connection.name}.{_CONNECTION_STRING}"
    setting = ProjectSetting(property=_CONNECTION_STRING, by=parameter, source=manifest.source)
    return replace(connection, connection_string=path, set_by=(setting,))


def _apply_to_database_connection(
    connection: DatabaseConnection, replacement: str | None, values: Mapping[str, str], manifest: Manifest
) -> DatabaseConnection:
    string = connection.connection_string if replacement is None else remove_password(replacement)
    for name, value in values.items():
        if not any(
            _is_same_value(key, value, _get_connection_property(string, key)) for key in DATABASE_PROPERTIES[name]
        ):
            string = set_database_property(string, name, value)
    has_password = connection.has_password or (replacement is not None and remove_password(replacement) != replacement)
    if string.strip(" ;") == connection.connection_string.strip(" ;"):
        return replace(connection, has_password=has_password)
    parameter = f"CM.{connection.name}.{_CONNECTION_STRING}"
    setting = ProjectSetting(property=_CONNECTION_STRING, by=parameter, source=manifest.source)
    return replace(connection, connection_string=string, has_password=has_password, set_by=(setting,))


def add_configured_values(
    parameters: Iterable[Parameter], manifest: Manifest | None, package: str = ""
) -> tuple[Parameter, ...]:
    """Return parameters with their `configured_in`: the project configurations in which they have another value.

    Args:
        parameters: the parameters of a package or of the project.
        manifest: the manifest of the project.
        package: the file name of the package; empty for parameters of the project.
    """
    if manifest is None:
        return tuple(parameters)
    settings = manifest.configurations.get(_normalize_package(package), {})
    configured = []
    for parameter in parameters:
        values = {} if parameter.sensitive else settings.get(parameter.name.lower(), {})
        names = tuple(name for name, value in values.items() if value != parameter.value)
        configured.append(replace(parameter, configured_in=names))
    return tuple(configured)


def set_connection_property(connection_string: str, name: str, value: str) -> str:
    """Return a connection string with one property set."""
    others = [
        part
        for part in _split_connection_string(connection_string)
        if part.partition("=")[0].strip().lower() != name.lower()
    ]
    return "".join(f"{part};" for part in (f"{name}={value}", *others))


def set_database_property(connection_string: str, name: str, value: str) -> str:
    """Return the connection string of a database with one property set, under the key that the string has for it.

    Args:
        name: one of `DATABASE_PROPERTIES`.
    """
    keys = {key.lower(): key for key in DATABASE_PROPERTIES[name]}
    parts = _PART.findall(connection_string)
    is_own = [part.partition("=")[0].strip().lower() in keys for part in parts]
    if not any(is_own):
        return "".join(f"{part};" for part in (*parts, f"{DATABASE_PROPERTIES[name][0]}={value}"))
    return "".join(
        f"{part.partition('=')[0]}={value};" if own else f"{part};" for part, own in zip(parts, is_own, strict=True)
    )


def remove_password(connection_string: str) -> str:
    """Return the connection string of a database without the parts that hold a password."""
    parts = _PART.findall(connection_string)
    kept = [part for part in parts if not _holds_password(part)]
    return connection_string if len(kept) == len(parts) else "".join(f"{part};" for part in kept)


def _holds_password(part: str) -> bool:
    key, _, value = part.partition("=")
    return key.strip().lower() in _PASSWORD_KEYS and bool(value.strip())


def _get_connection_property(connection_string: str, name: str) -> str:
    """Return a property of a connection string, or an empty string; all of it for the name ConnectionString."""
    if name == _CONNECTION_STRING:
        return connection_string
    pairs = (part.partition("=") for part in _split_connection_string(connection_string))
    return next((value.strip() for key, _, value in pairs if key.strip().lower() == name.lower()), "")


def _split_connection_string(connection_string: str) -> list[str]:
    parts = [part for part in connection_string.split(";") if part.strip()]
    is_bare_host = len(parts) == 1 and "=" not in parts[0]
    return [f"SmtpServer={parts[0].strip()}"] if is_bare_host else parts


def _is_same_value(name: str, left: str, right: str) -> bool:
    """Whether two values of a property are equivalent.

    An empty flag is False, and the order of the properties in a connection string does not matter.
    """
    if name == _CONNECTION_STRING:
        names = {part.partition("=")[0].strip() for text in (left, right) for part in _split_connection_string(text)}
        return all(
            _is_same_value(key, _get_connection_property(left, key), _get_connection_property(right, key))
            for key in names
        )
    left, right = left.strip().lower(), right.strip().lower()
    if name.lower() in {"usewindowsauthentication", "enablessl"}:
        return (left or "false") == (right or "false")
    return left == right


def _find_path(element: Element | None, *tags: str) -> Element | None:
    for tag in tags:
        element = None if element is None else element.find(tag)
    return element


def _find_parameter_lists(info: Element | None) -> Iterator[tuple[Element, str]]:
    """Yield the lists of parameters with their package keys; the project's key is empty."""
    if project_parameters := _find_path(info, "ProjectConnectionParameters"):
        yield project_parameters, ""
    packages = _find_path(info, "PackageInfo")
    for package in packages.find_all("PackageMetaData") if packages else ():
        parameters = package.find("Parameters")
        if parameters is not None and package.attributes.get("Name"):
            yield parameters, _normalize_package(package.attributes["Name"])


def _read_connection_values(parameters: Element) -> Iterator[tuple[str, str]]:
    """Yield pairs of `name.property` and value of connection managers, without sensitive and empty values."""
    for parameter in parameters.find_all("Parameter"):
        name = parameter.attributes.get("Name", "").lower()
        properties = parameter.find("Properties")
        if not name.startswith(_PREFIX) or properties is None or get_flag(properties, "Sensitive"):
            continue
        value = next(
            (child for child in properties.find_all("Property") if child.attributes.get("Name") == "Value"), None
        )
        if value is not None and not is_sensitive(value) and value.text.strip():
            yield name.removeprefix(_PREFIX), value.text


def _read_configurations(root: Element) -> dict[str, dict[str, dict[str, str]]]:
    """Return the values of project configurations, by package, parameter and configuration."""
    values_by_package: dict[str, dict[str, dict[str, str]]] = {}
    configurations = root.find("Configurations")
    for configuration in configurations.find_all("Configuration") if configurations else ():
        name = configuration.find("Name")
        settings = _find_path(configuration, "Options", "ParameterConfigurationValues")
        for setting in settings.find_all("ConfigurationSetting") if settings else ():
            target, value = setting.find("Name"), setting.find("Value")
            scope, colons, parameter = (target.text if target else "").strip().partition("::")
            if name is None or value is None or not colons or is_sensitive(value):
                continue
            package = "" if scope.lower() == "project" else _normalize_package(scope)
            values = values_by_package.setdefault(package, {}).setdefault(parameter.lower(), {})
            values[name.text.strip()] = value.text
    return values_by_package


def _normalize_package(package: str) -> str:
    """Return the key of a package, given its name with or without `.dtsx`."""
    return package.lower().removesuffix(".dtsx")
