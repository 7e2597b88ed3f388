"""Reads the connection managers for SMTP, files and databases, and resolves references to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from airflow_provider_smtpcm.ssis.model import (
    DatabaseConnection,
    DatabaseKind,
    FileConnection,
    Manifest,
    SmtpConnection,
)
from airflow_provider_smtpcm.ssis.reading.configurations import (
    CONNECTION_PROPERTIES,
    DATABASE_PROPERTIES,
    PropertyOverrides,
    apply_manifest,
    remove_password,
    set_connection_property,
    set_database_property,
)
from airflow_provider_smtpcm.ssis.reading.xml import (
    Element,
    find_members,
    find_object_data,
    get_flag,
    get_text,
    normalize_id,
    read_expressions,
    read_ids,
)

ConnectionManager = SmtpConnection | FileConnection | DatabaseConnection

# By what the CreationName begins with. `ADO` is the older interface, with the connection strings of OLE DB.
_DATABASES = {
    "OLEDB": DatabaseKind.OLE_DB,
    "ADO": DatabaseKind.OLE_DB,
    "ADO.NET": DatabaseKind.ADO_NET,
    "ODBC": DatabaseKind.ODBC,
}


@dataclass(slots=True, kw_only=True)
class ConnectionManagers:
    """The connection managers of a package or project, with lookup by reference.

    Args:
        smtp: the SMTP connection managers.
        files: the File connection managers.
        databases: the OLE DB, ADO.NET and ODBC connection managers.
        others: the names of connection managers of other types, by reference.
    """

    smtp: list[SmtpConnection] = field(default_factory=list)
    files: list[FileConnection] = field(default_factory=list)
    databases: list[DatabaseConnection] = field(default_factory=list)
    others: dict[str, str] = field(default_factory=dict)
    _by_reference: dict[str, ConnectionManager] = field(default_factory=dict)

    def add(self, connection: ConnectionManager, ids: Iterable[str] = ()) -> None:
        """Add a connection manager. If two share a reference, the first one keeps it.

        Args:
            connection: the connection manager.
            ids: references to it besides its id, refId and name.
        """
        if isinstance(connection, SmtpConnection):
            self.smtp.append(connection)
        elif isinstance(connection, FileConnection):
            self.files.append(connection)
        else:
            self.databases.append(connection)
        ref_id = _make_ref_id(connection.scope, connection.name)
        for reference in (*ids, connection.id, ref_id, connection.name):
            if reference:
                self._by_reference.setdefault(reference, connection)

    def find(self, reference: str) -> ConnectionManager | None:
        """Find a connection manager by its GUID (case-insensitive), its refId or its name."""
        return self._by_reference.get(normalize_id(reference)) or self._by_reference.get(reference)


def read_connection_managers(
    package: Element, *, source: str, file: str, overrides: PropertyOverrides, manifest: Manifest | None
) -> ConnectionManagers:
    """Return the connection managers of a package.

    Args:
        package: the root element.
        source: the path of the file, as findings and reports show it.
        file: the file name without folders, which identifies the package in the manifest.
        overrides: values from package configurations.
        manifest: the manifest of the project.
    """
    managers = ConnectionManagers()
    for element in find_members(package, "ConnectionManagers", "ConnectionManager"):
        connection = read_connection_manager_element(element, source=source, scope="package", overrides=overrides)
        if connection is None:
            name = get_text(element, "ObjectName")
            managers.others.update(dict.fromkeys((*read_ids(element), name), name))
        else:
            managers.add(apply_manifest(connection, manifest, file), read_ids(element))
    return managers


def read_connection_manager_element(
    element: Element, *, source: str, scope: str, overrides: PropertyOverrides | None = None
) -> ConnectionManager | None:
    """Return the connection manager of a `ConnectionManager` element; None if it is of another type.

    Args:
        element: the element.
        source: the file that defines it.
        scope: `package` or `project`.
        overrides: values from package configurations.
    """
    overrides = overrides or PropertyOverrides()
    kind = get_text(element, "CreationName").strip().upper()
    name = get_text(element, "ObjectName")
    id_ = next(iter(read_ids(element)), _make_ref_id(scope, name))
    smtp = find_object_data(element, "SmtpConnectionManager")
    if smtp is not None or kind == "SMTP":
        string = get_text(smtp, "ConnectionString") if smtp is not None else ""
        string = overrides.connection_property(name, "ConnectionString", string)
        for property_name in CONNECTION_PROPERTIES:
            if (value := overrides.connection_property(name, property_name, None)) is not None:
                string = set_connection_property(string, property_name, value)
        return SmtpConnection(
            name=name,
            id=id_,
            description=get_text(element, "Description"),
            connection_string=string,
            expressions=read_expressions(element),
            scope=scope,
            source=source,
            delay_validation=get_flag(element, "DelayValidation"),
        )
    database, _, provider = get_text(element, "CreationName").strip().partition(":")
    if database.upper() in _DATABASES:
        data = find_object_data(element, "ConnectionManager")
        string = get_text(data, "ConnectionString") if data is not None else ""
        string = overrides.connection_property(name, "ConnectionString", string)
        for property_name in DATABASE_PROPERTIES:
            if (value := overrides.connection_property(name, property_name, None)) is not None:
                string = set_database_property(string, property_name, value)
        without_password = remove_password(string)
        return DatabaseConnection(
            name=name,
            id=id_,
            kind=_DATABASES[database.upper()],
            connection_string=without_password,
            expressions=read_expressions(element),
            scope=scope,
            source=source,
            provider=provider,
            has_password=without_password != string or (data is not None and _has_encrypted_password(data)),
        )
    if kind != "FILE":
        return None
    data = find_object_data(element, "ConnectionManager")
    path = get_text(data, "ConnectionString") if data is not None else ""
    return FileConnection(
        name=name,
        id=id_,
        connection_string=overrides.connection_property(name, "ConnectionString", path),
        expressions=read_expressions(element),
        scope=scope,
    )


def _has_encrypted_password(data: Element) -> bool:
    return any(child.tag == "EncryptedData" or (child.tag == "Password" and child.text) for child in data.children)


def _make_ref_id(scope: str, name: str) -> str:
    return f"{scope.capitalize()}.ConnectionManagers[{name}]"
