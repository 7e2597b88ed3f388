"""Reads the parameters of packages and projects, and the project manifests that set them.

A manifest is `@Project.manifest` in an `.ispac`, or part of a `.dtproj`. It has a parameter `CM.<name>.<property>` for
each property of each connection manager, in one list for the project and one for each package. A deployed project uses
these values. A `.dtproj` also has configurations (`Development`, `Production`) with other values of parameters. These
are reported but not applied, since no file says which was deployed. Sensitive values are not kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from airflow_provider_smtpcm.ssis.model import (
    DatabaseConnection,
    FileConnection,
    Manifest,
    Parameter,
    ProjectSetting,
    SmtpConnection,
)
from airflow_provider_smtpcm.ssis.reading.connection_managers import (
    CONNECTION_PROPERTIES,
    CONNECTION_STRING,
    DATABASE_PROPERTIES,
    get_connection_property,
    is_same_value,
    remove_password,
    set_connection_property,
    set_database_property,
)
from airflow_provider_smtpcm.ssis.reading.xml import (
    Element,
    find_members,
    get_flag,
    get_integer,
    get_text,
    is_sensitive,
    parse_integer,
)

_STRING = 8  # VT_BSTR
# Packages use VARTYPEs, as the model does; projects use .NET TypeCodes.
_VARTYPE_BY_TYPECODE = {3: 11, 5: 16, 6: 17, 7: 2, 8: 18, 9: 3, 10: 19, 11: 20, 12: 21, 13: 4, 14: 5, 15: 14, 16: 7}
_TYPECODE_STRING = 18
_PREFIX = "cm."


def read_package_parameters(package: Element) -> tuple[Parameter, ...]:
    """Return the parameters of a package."""
    parameters = []
    for element in find_members(package, "PackageParameters", "PackageParameter"):
        data_type = get_integer(element, "DataType")
        parameters.append(
            _read_parameter(
                element,
                name=get_text(element, "ObjectName"),
                data_type=_STRING if data_type is None else data_type,
                value_property="ParameterValue",
                scope="Package",
            )
        )
    return tuple(parameters)


def read_project_parameters(root: Element) -> tuple[Parameter, ...]:
    """Return the parameters in a `Project.params` file."""
    parameters = []
    for element in root.find_all("Parameter"):
        properties = element.find("Properties") or Element(tag="Properties")
        typecode = parse_integer(get_text(properties, "DataType")) or _TYPECODE_STRING
        parameters.append(
            _read_parameter(
                properties,
                name=element.attributes.get("Name", ""),
                data_type=_VARTYPE_BY_TYPECODE.get(typecode, _STRING),
                value_property="Value",
                scope="Project",
            )
        )
    return tuple(parameters)


def _read_parameter(properties: Element, *, name: str, data_type: int, value_property: str, scope: str) -> Parameter:
    sensitive = get_flag(properties, "Sensitive")
    return Parameter(
        name=name,
        data_type=data_type,
        value=None if sensitive else _read_value(properties, value_property),
        required=get_flag(properties, "Required"),
        sensitive=sensitive,
        scope=scope,
    )


def _read_value(properties: Element, name: str) -> str | None:
    for child in properties.find_all("Property"):
        # An encrypted value is sensitive even if the parameter does not say so.
        if child.attributes.get("Name") == name:
            return None if is_sensitive(child) else child.text
    return None


# --- Project manifests


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
    configurations = _read_project_configurations(root)
    return Manifest(source=source, values=values, configurations=configurations) if values or configurations else None


def apply_manifest(
    connection: SmtpConnection | FileConnection | DatabaseConnection, manifest: Manifest | None, package: str = ""
) -> SmtpConnection | FileConnection | DatabaseConnection:
    """Return a connection manager with the values from the project's manifest.

    Args:
        connection: the connection manager as its file defines it.
        manifest: the manifest of its project; None: it has none, or no project.
        package: the file name of its package; empty for a connection manager of the project.
    """
    if manifest is None:
        return connection
    name, scope = connection.name.lower(), _normalize_package(package)
    values = manifest.values.get(scope, {})
    properties = (CONNECTION_STRING, *CONNECTION_PROPERTIES)
    overrides = {key: values[path] for key in properties if (path := f"{name}.{key.lower()}") in values}
    if isinstance(connection, FileConnection):
        return _apply_to_file_connection(connection, overrides, manifest)
    if isinstance(connection, DatabaseConnection):
        database = {key: values[path] for key in DATABASE_PROPERTIES if (path := f"{name}.{key.lower()}") in values}
        return _apply_to_database_connection(connection, overrides.get(CONNECTION_STRING), database, manifest)
    string = connection.connection_string
    changed = [key for key in overrides if not is_same_value(key, overrides[key], get_connection_property(string, key))]
    replaces_string = CONNECTION_STRING in changed
    if replaces_string:
        string = overrides[CONNECTION_STRING]
    set_by = []
    for key in changed:
        # Compared again, since the manifest may have replaced the connection string.
        differs = key != CONNECTION_STRING and not is_same_value(
            key, overrides[key], get_connection_property(string, key)
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
        current = get_connection_property(string, key)
        names = [repr(each) for each, value in settings.items() if not is_same_value(key, value, current)]
        if names:
            configured.append(ProjectSetting(property=key, by=", ".join(names), source=manifest.source))
    return replace(connection, connection_string=string, set_by=tuple(set_by), configured=tuple(configured))


def _apply_to_file_connection(
    connection: FileConnection, overrides: Mapping[str, str], manifest: Manifest
) -> FileConnection:
    path = overrides.get(CONNECTION_STRING, connection.connection_string)
    if path.strip() == connection.connection_string.strip():
        return connection
    parameter = f"CM.{connection.name}.{CONNECTION_STRING}"
    setting = ProjectSetting(property=CONNECTION_STRING, by=parameter, source=manifest.source)
    return replace(connection, connection_string=path, set_by=(setting,))


def _apply_to_database_connection(
    connection: DatabaseConnection, replacement: str | None, values: Mapping[str, str], manifest: Manifest
) -> DatabaseConnection:
    string = connection.connection_string if replacement is None else remove_password(replacement)
    for name, value in values.items():
        if not any(
            is_same_value(key, value, get_connection_property(string, key)) for key in DATABASE_PROPERTIES[name]
        ):
            string = set_database_property(string, name, value)
    has_password = connection.has_password or (replacement is not None and remove_password(replacement) != replacement)
    if string.strip(" ;") == connection.connection_string.strip(" ;"):
        return replace(connection, has_password=has_password)
    parameter = f"CM.{connection.name}.{CONNECTION_STRING}"
    setting = ProjectSetting(property=CONNECTION_STRING, by=parameter, source=manifest.source)
    return replace(connection, connection_string=string, has_password=has_password, set_by=(setting,))


def add_configured_values(
    parameters: Iterable[Parameter], manifest: Manifest | None, package: str = ""
) -> tuple[Parameter, ...]:
    """Return parameters with their `configured_in`: the project configurations in which they have another value.

    Args:
        parameters: the parameters of a package or of the project.
        manifest: the manifest of the project; None: it has none.
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


def _read_project_configurations(root: Element) -> dict[str, dict[str, dict[str, str]]]:
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
