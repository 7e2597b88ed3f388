"""Connection managers: SMTP ones, the File ones that a mail's text may come from, and who is meant by a reference."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from airflow_provider_smtpcm.ssis.package import FileConnection, Manifest, SmtpConnection
from airflow_provider_smtpcm.ssis.reading.configurations import Overrides
from airflow_provider_smtpcm.ssis.reading.dialect import expressions, flag, ids, members, normal_id, object_data, text
from airflow_provider_smtpcm.ssis.reading.manifest import PARTS, with_parameters, with_part
from airflow_provider_smtpcm.ssis.reading.nodes import Node

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
