"""What a project sets in its manifest: parameters of connection managers, and the values of its configurations.

`@Project.manifest` in an `.ispac`, and the same inside of a `.dtproj`, has a parameter `CM.<name>.<property>` for each
property of each connection manager: the project's own in one list, those of a package in the list of that package. A
deployed project uses these values. A configuration of a `.dtproj` (`Development`, `Production`) gives parameters other
values; no file tells which of them was deployed, so they are reported and not applied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from airflow_provider_smtpcm.ssis.model import FileConnection, Manifest, Parameter, ProjectSetting, SmtpConnection
from airflow_provider_smtpcm.ssis.reading.xml import Element, get_flag

# The properties in an SMTP connection string, each of which may be set by itself.
CONNECTION_PROPERTIES = ("SmtpServer", "UseWindowsAuthentication", "EnableSsl", "Timeout")
_CONNECTION_STRING = "ConnectionString"
_PREFIX = "cm."


def read_manifest(root: Element, source: str) -> Manifest | None:
    """Return the manifest of an `.ispac` or of a `.dtproj`; None if it sets nothing that concerns mail.

    Args:
        root: the root element.
        source: the file.
    """
    is_dtproj = not root.namespace
    project = _find_path(root, "DeploymentModelSpecificContent", "Manifest", "Project") if is_dtproj else root
    values = {}
    for parameters, package in _find_parameter_lists(_find_path(project, "DeploymentInfo")):
        if found := dict(_read_connection_values(parameters)):
            values[package] = found
    configurations = _read_configurations(root)
    return Manifest(source=source, values=values, configurations=configurations) if values or configurations else None


def apply_manifest(
    connection: SmtpConnection | FileConnection, manifest: Manifest | None, package: str = ""
) -> SmtpConnection | FileConnection:
    """Return a connection manager with the values that the project's manifest sets.

    Args:
        connection: as its file defines it.
        manifest: of its project.
        package: the file of its package; empty: it is the project's own.
    """
    if manifest is None:
        return connection
    name, scope = connection.name.lower(), _normalize_package(package)
    values = manifest.values.get(scope, {})
    names = (_CONNECTION_STRING, *CONNECTION_PROPERTIES)
    given = {one: values[key] for one in names if (key := f"{name}.{one.lower()}") in values}
    if isinstance(connection, FileConnection):
        path = given.get(_CONNECTION_STRING, connection.connection_string)
        if path.strip() == connection.connection_string.strip():
            return connection
        parameter = f"CM.{connection.name}.{_CONNECTION_STRING}"
        setting = ProjectSetting(property=_CONNECTION_STRING, by=parameter, source=manifest.source)
        return replace(connection, connection_string=path, set_by=(setting,))
    string = connection.connection_string
    changed = [one for one in given if not _is_same_value(one, given[one], _get_connection_property(string, one))]
    if _CONNECTION_STRING in changed:
        string = given[_CONNECTION_STRING]
    set_by = []
    for one in changed:
        is_contradicted = (
            one != _CONNECTION_STRING
            and _CONNECTION_STRING in changed
            and not _is_same_value(one, given[one], _get_connection_property(string, one))
        )
        parameter = f"CM.{connection.name}.{one}"
        set_by.append(ProjectSetting(property=one, by=parameter, source=manifest.source, contradicted=is_contradicted))
    for one in changed:
        if one != _CONNECTION_STRING and not _is_same_value(one, given[one], _get_connection_property(string, one)):
            string = set_connection_property(string, one, given[one])
    configured = []
    for one in names:
        settings = manifest.configurations.get(scope, {}).get(f"{_PREFIX}{name}.{one.lower()}", {})
        current = _get_connection_property(string, one)
        if others := [key for key, value in settings.items() if not _is_same_value(one, value, current)]:
            by = ", ".join(map(repr, others))
            configured.append(ProjectSetting(property=one, by=by, source=manifest.source))
    return replace(connection, connection_string=string, set_by=tuple(set_by), configured=tuple(configured))


def add_configured_values(
    parameters: Iterable[Parameter], manifest: Manifest | None, package: str = ""
) -> tuple[Parameter, ...]:
    """Return parameters with the names of the project's configurations that give them another value.

    Args:
        parameters: of a package, or of the project.
        manifest: of the project.
        package: the file of the package; empty: they are the project's own.
    """
    if manifest is None:
        return tuple(parameters)
    settings = manifest.configurations.get(_normalize_package(package), {})
    found = []
    for one in parameters:
        values = {} if one.sensitive else settings.get(one.name.lower(), {})
        names = tuple(name for name, value in values.items() if value != one.value)
        found.append(replace(one, configured_in=names))
    return tuple(found)


def set_connection_property(connection_string: str, name: str, value: str) -> str:
    """Return a connection string with one of its properties set, and the others unchanged."""
    kept = [
        part
        for part in _split_connection_string(connection_string)
        if part.partition("=")[0].strip().lower() != name.lower()
    ]
    return "".join(f"{part};" for part in (f"{name}={value}", *kept))


def _get_connection_property(connection_string: str, name: str) -> str:
    """Return a property of a connection string, or all of it; empty if it is missing."""
    if name == _CONNECTION_STRING:
        return connection_string
    pairs = (part.partition("=") for part in _split_connection_string(connection_string))
    return next((value.strip() for key, _, value in pairs if key.strip().lower() == name.lower()), "")


def _split_connection_string(connection_string: str) -> list[str]:
    parts = [part for part in connection_string.split(";") if part.strip()]
    is_bare_host = len(parts) == 1 and "=" not in parts[0]
    return [f"SmtpServer={parts[0].strip()}"] if is_bare_host else parts


def _is_same_value(name: str, one: str, other: str) -> bool:
    """Whether two values of a property are equivalent: a missing flag is False, and the order of properties is free."""
    if name == _CONNECTION_STRING:
        names = {part.partition("=")[0].strip() for text in (one, other) for part in _split_connection_string(text)}
        return all(
            _is_same_value(each, _get_connection_property(one, each), _get_connection_property(other, each))
            for each in names
        )
    one, other = one.strip().lower(), other.strip().lower()
    if name.lower() in {"usewindowsauthentication", "enablessl"}:
        return (one or "false") == (other or "false")
    return one == other


def _find_path(element: Element | None, *tags: str) -> Element | None:
    for tag in tags:
        element = None if element is None else element.find(tag)
    return element


def _find_parameter_lists(info: Element | None) -> Iterator[tuple[Element, str]]:
    """Yield the lists of parameters, each with its package; empty: the project."""
    if own := _find_path(info, "ProjectConnectionParameters"):
        yield own, ""
    packages = _find_path(info, "PackageInfo")
    for package in packages.find_all("PackageMetaData") if packages else ():
        parameters = package.find("Parameters")
        if parameters is not None and package.attributes.get("Name"):
            yield parameters, _normalize_package(package.attributes["Name"])


def _read_connection_values(parameters: Element) -> Iterator[tuple[str, str]]:
    """Yield the properties of connection managers that are neither sensitive nor empty, by `name.property`."""
    for parameter in parameters.find_all("Parameter"):
        name = parameter.attributes.get("Name", "").lower()
        properties = parameter.find("Properties")
        if not name.startswith(_PREFIX) or properties is None or get_flag(properties, "Sensitive"):
            continue
        value = next((one for one in properties.find_all("Property") if one.attributes.get("Name") == "Value"), None)
        if value is not None and not _is_secret(value) and value.text.strip():
            yield name.removeprefix(_PREFIX), value.text


def _read_configurations(root: Element) -> dict[str, dict[str, dict[str, str]]]:
    """Return the values that configurations set, by package, by parameter and by configuration."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    configurations = root.find("Configurations")
    for configuration in configurations.find_all("Configuration") if configurations else ():
        name = configuration.find("Name")
        settings = _find_path(configuration, "Options", "ParameterConfigurationValues")
        for setting in settings.find_all("ConfigurationSetting") if settings else ():
            target, value = setting.find("Name"), setting.find("Value")
            scope, colons, parameter = (target.text if target else "").strip().partition("::")
            if name is None or value is None or not colons or _is_secret(value):
                continue
            package = "" if scope.lower() == "project" else _normalize_package(scope)
            values = found.setdefault(package, {}).setdefault(parameter.lower(), {})
            values[name.text.strip()] = value.text
    return found


def _is_secret(value: Element) -> bool:
    return get_flag(value, "Sensitive") or get_flag(value, "Encrypted")


def _normalize_package(package: str) -> str:
    """Return the key of a package, which is written as its file or as its name."""
    return package.lower().removesuffix(".dtsx")
