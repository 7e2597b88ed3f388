"""Connection managers: SMTP ones, the File ones that a mail's text may come from, and who is meant by a reference."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from airflow_provider_smtpcm.ssis.model import FileConnection, Manifest, Parameter, SmtpConnection
from airflow_provider_smtpcm.ssis.reading.configurations import Overrides
from airflow_provider_smtpcm.ssis.reading.ispac import PARTS, with_parameters, with_part
from airflow_provider_smtpcm.ssis.reading.xml import (
    Node,
    as_number,
    expressions,
    flag,
    ids,
    members,
    normal_id,
    number,
    object_data,
    text,
)

Connection = SmtpConnection | FileConnection


@dataclass(slots=True, kw_only=True)
class Connections:
    """The connection managers in reach of a package, and the names under which they are referred to.

    Args:
        others: the names of connection managers that are neither SMTP nor File.
    """

    smtp: list[SmtpConnection] = field(default_factory=list)
    files: list[FileConnection] = field(default_factory=list)
    others: dict[str, str] = field(default_factory=dict)
    _known: dict[str, Connection] = field(default_factory=dict)

    def add(self, connection: Connection, names: Iterable[str] = ()) -> None:
        """Take one in; who comes first keeps a name that two claim."""
        if isinstance(connection, SmtpConnection):
            self.smtp.append(connection)
        else:
            self.files.append(connection)
        owner = connection.scope.capitalize()
        for name in (*names, connection.id, f"{owner}.ConnectionManagers[{connection.name}]", connection.name):
            if name:
                self._known.setdefault(name, connection)

    def find(self, reference: str) -> Connection | None:
        """By GUID without regard to case, by refId, or by name."""
        return self._known.get(normal_id(reference)) or self._known.get(reference)


def read_connections(
    package: Node, *, source: str, file: str, overrides: Overrides, manifest: Manifest | None
) -> Connections:
    """The connection managers of a package.

    Args:
        source: where they are said to stand; `file` is the package's own name.
    """
    found = Connections()
    for node in members(package, "ConnectionManagers", "ConnectionManager"):
        connection = read_connection(node, source=source, scope="package", overrides=overrides)
        if connection is None:
            name = text(node, "ObjectName")
            found.others.update(dict.fromkeys((*ids(node), name), name))
        else:
            found.add(with_parameters(connection, manifest, file), ids(node))
    return found


def read_connection(node: Node, *, source: str, scope: str, overrides: Overrides | None = None) -> Connection | None:
    """A `ConnectionManager` element; None where it is neither SMTP nor File."""
    overrides = overrides or Overrides()
    kind = text(node, "CreationName").strip().upper()
    name = text(node, "ObjectName")
    own_ids = ids(node)
    own_id = own_ids[0] if own_ids else f"{scope.capitalize()}.ConnectionManagers[{name}]"
    smtp = object_data(node, "SmtpConnectionManager")
    if smtp is not None or kind == "SMTP":
        string = text(smtp, "ConnectionString") if smtp is not None else ""
        string = overrides.connection(name, "ConnectionString", string)
        for part in PARTS:
            if (value := overrides.connection(name, part, None)) is not None:
                string = with_part(string, part, value)
        return SmtpConnection(
            name=name,
            id=own_id,
            description=text(node, "Description"),
            connection_string=string,
            expressions=expressions(node),
            scope=scope,
            source=source,
            delay_validation=flag(node, "DelayValidation"),
        )
    if kind != "FILE":
        return None
    inner = object_data(node, "ConnectionManager")
    path = text(inner, "ConnectionString") if inner is not None else ""
    return FileConnection(
        name=name,
        id=own_id,
        connection_string=overrides.connection(name, "ConnectionString", path),
        expressions=expressions(node),
        scope=scope,
    )


# folded: Parameters of a package and of a project. The value of a sensitive one is never kept.

# A project writes .NET's TypeCode where a package writes OLE's VARTYPE; here it is OLE's everywhere.
_OLE = {3: 11, 5: 16, 6: 17, 7: 2, 8: 18, 9: 3, 10: 19, 11: 20, 12: 21, 13: 4, 14: 5, 15: 14, 16: 7, 18: 8}
_STRING = 8


def package_parameters(package: Node) -> tuple[Parameter, ...]:
    """The `PackageParameters` of a package."""
    found = []
    for node in members(package, "PackageParameters", "PackageParameter"):
        sensitive = flag(node, "Sensitive")
        data_type = number(node, "DataType")
        found.append(
            Parameter(
                name=text(node, "ObjectName"),
                data_type=_STRING if data_type is None else data_type,
                value=None if sensitive else _value(node, "ParameterValue"),
                required=flag(node, "Required"),
                sensitive=sensitive,
                scope="Package",
            )
        )
    return tuple(found)


def project_parameters(root: Node) -> tuple[Parameter, ...]:
    """The parameters of a `Project.params`."""
    found = []
    for node in root.all("Parameter"):
        properties = node.first("Properties") or Node(tag="Properties")
        sensitive = flag(properties, "Sensitive")
        data_type = as_number(text(properties, "DataType")) or 18
        found.append(
            Parameter(
                name=node.attributes.get("Name", ""),
                data_type=_OLE.get(data_type, _STRING),
                value=None if sensitive else _value(properties, "Value"),
                required=flag(properties, "Required"),
                sensitive=sensitive,
                scope="Project",
            )
        )
    return tuple(found)


def _value(node: Node, name: str) -> str | None:
    for child in node.all("Property"):
        # An encrypted one is sensitive, whatever else is written.
        if child.attributes.get("Name") == name:
            return None if flag(child, "Encrypted") or flag(child, "Sensitive") else child.text
    return None
