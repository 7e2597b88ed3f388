"""What a project sets besides its files: parameters of connection managers, and what its configurations set otherwise.

`@Project.manifest` in an `.ispac`, and the same inside a `.dtproj`, has a parameter `CM.<name>.<property>` for each
property of each connection manager: the project's own in one list, those of a package in the list of that package. What
is built or deployed has these values. A configuration of a `.dtproj` (`Development`, `Production`) gives parameters
other values; which of them was deployed is in no file, so they are told and not applied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from airflow_provider_smtpcm.ssis.package import FileConnection, Manifest, Parameter, SetByProject, SmtpConnection
from airflow_provider_smtpcm.ssis.reading.dialect import flag
from airflow_provider_smtpcm.ssis.reading.nodes import Node

# SSIS's own names for the parts of the connection string, which may be set one by one.
PARTS = ("SmtpServer", "UseWindowsAuthentication", "EnableSsl", "Timeout")
_WHOLE = "ConnectionString"
_PREFIX = "cm."


def read_manifest(root: Node, source: str) -> Manifest | None:
    """The manifest of an `.ispac`, or of a `.dtproj`; None where it says nothing of use here."""
    project = _below(root, "DeploymentModelSpecificContent", "Manifest", "Project") if _is_dtproj(root) else root
    info = _below(project, "DeploymentInfo")
    values = {}
    for parameters, package in _lists(info):
        if found := dict(_values(parameters)):
            values[package] = found
    configurations = _configurations(root)
    return Manifest(source=source, values=values, configurations=configurations) if values or configurations else None


def with_parameters(
    connection: SmtpConnection | FileConnection, manifest: Manifest | None, package: str = ""
) -> SmtpConnection | FileConnection:
    """A connection manager as the manifest sets it.

    Args:
        connection: as it stands in its file.
        manifest: of its project.
        package: the file that it is in; empty: it is the project's own.
    """
    if manifest is None:
        return connection
    name, scope = connection.name.lower(), _scope(package)
    values = manifest.values.get(scope, {})
    given = {one: values[key] for one in (_WHOLE, *PARTS) if (key := f"{name}.{one.lower()}") in values}
    if isinstance(connection, FileConnection):
        path = given.get(_WHOLE, connection.connection_string)
        if path.strip() == connection.connection_string.strip():
            return connection
        of_file = SetByProject(property=_WHOLE, by=f"CM.{connection.name}.{_WHOLE}", source=manifest.source)
        return replace(connection, connection_string=path, set_by=(of_file,))
    changed = [one for one in given if not _is_same(one, given[one], _part(connection.connection_string, one))]
    string = given[_WHOLE] if _WHOLE in changed else connection.connection_string
    set_by = []
    for one in changed:
        contradicted = one != _WHOLE and _WHOLE in changed and not _is_same(one, given[one], _part(string, one))
        parameter = f"CM.{connection.name}.{one}"
        set_by.append(SetByProject(property=one, by=parameter, source=manifest.source, contradicted=contradicted))
    for one in changed:
        if one != _WHOLE and not _is_same(one, given[one], _part(string, one)):
            string = with_part(string, one, given[one])
    configured = []
    for one in (_WHOLE, *PARTS):
        settings = manifest.configurations.get(scope, {}).get(f"{_PREFIX}{name}.{one.lower()}", {})
        if names := [key for key, value in settings.items() if not _is_same(one, value, _part(string, one))]:
            configured.append(SetByProject(property=one, by=_listed(names), source=manifest.source))
    return replace(connection, connection_string=string, set_by=tuple(set_by), configured=tuple(configured))


def with_configurations(
    parameters: Iterable[Parameter], manifest: Manifest | None, package: str = ""
) -> tuple[Parameter, ...]:
    """Parameters with the names of the configurations that give them another value."""
    if manifest is None:
        return tuple(parameters)
    settings = manifest.configurations.get(_scope(package), {})
    found = []
    for one in parameters:
        others = {} if one.sensitive else settings.get(one.name.lower(), {})
        names = tuple(name for name, value in others.items() if value != one.value)
        found.append(replace(one, configured_in=names))
    return tuple(found)


def with_part(connection_string: str, key: str, value: str) -> str:
    """A connection string with one of its parts set, the others as they were."""
    parts = _split(connection_string)
    kept = [part for part in parts if part.partition("=")[0].strip().lower() != key.lower()]
    return "".join(f"{part};" for part in (f"{key}={value}", *kept))


def _split(connection_string: str) -> list[str]:
    parts = [part for part in connection_string.split(";") if part.strip()]
    return [f"SmtpServer={parts[0].strip()}"] if len(parts) == 1 and "=" not in parts[0] else parts  # a bare host


def _part(connection_string: str, key: str) -> str:
    """A part of a connection string, or the whole; empty where it is not there."""
    if key == _WHOLE:
        return connection_string
    pairs = (part.partition("=") for part in _split(connection_string))
    return next((value.strip() for name, _, value in pairs if name.strip().lower() == key.lower()), "")


def _is_same(key: str, one: str, other: str) -> bool:
    """Whether two values mean the same: a missing flag is False, and the order of parts says nothing."""
    if key == _WHOLE:
        keys = {part.partition("=")[0].strip() for text in (one, other) for part in _split(text)}
        return all(_is_same(name, _part(one, name), _part(other, name)) for name in keys)
    one, other = one.strip().lower(), other.strip().lower()
    if key.lower() in {"usewindowsauthentication", "enablessl"}:
        return (one or "false") == (other or "false")
    return one == other


def _is_dtproj(root: Node) -> bool:
    return not root.namespace


def _below(node: Node | None, *tags: str) -> Node | None:
    for tag in tags:
        node = None if node is None else node.first(tag)
    return node


def _lists(info: Node | None) -> Iterator[tuple[Node, str]]:
    """The lists of parameters, each with the package that it is of."""
    if own := _below(info, "ProjectConnectionParameters"):
        yield own, ""
    packages = _below(info, "PackageInfo")
    for one in packages.all("PackageMetaData") if packages else ():
        parameters = one.first("Parameters")
        if parameters is not None and one.attributes.get("Name"):
            yield parameters, _scope(one.attributes["Name"])


def _values(parameters: Node) -> Iterator[tuple[str, str]]:
    """The values of connection managers; a sensitive one is not read, and an empty one says nothing."""
    for one in parameters.all("Parameter"):
        name = one.attributes.get("Name", "").lower()
        properties = one.first("Properties")
        if not name.startswith(_PREFIX) or properties is None or flag(properties, "Sensitive"):
            continue
        value = next((each for each in properties.all("Property") if each.attributes.get("Name") == "Value"), None)
        hidden = value is None or flag(value, "Sensitive") or flag(value, "Encrypted")
        if value is not None and not hidden and value.text.strip():
            yield name.removeprefix(_PREFIX), value.text


def _configurations(root: Node) -> dict[str, dict[str, dict[str, str]]]:
    """The values that configurations give: by package, by parameter, by configuration."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    configurations = root.first("Configurations")
    for one in configurations.all("Configuration") if configurations else ():
        name = _below(one, "Name")
        settings = _below(one, "Options", "ParameterConfigurationValues")
        for setting in settings.all("ConfigurationSetting") if settings else ():
            target, value = setting.first("Name"), setting.first("Value")
            scope, colons, parameter = (target.text if target else "").strip().partition("::")
            if name is None or value is None or not colons or flag(value, "Sensitive") or flag(value, "Encrypted"):
                continue
            known = found.setdefault("" if scope.lower() == "project" else _scope(scope), {})
            known.setdefault(parameter.lower(), {})[name.text.strip()] = value.text
    return found


def _scope(package: str) -> str:
    """A package by its file or by its name, whichever is written."""
    return package.lower().removesuffix(".dtsx")


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)
