"""Reads connection managers for SMTP, files and databases, and their connection strings; finds them by reference."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from airflow_provider_smtpcm.ssis.model import (
    DatabaseConnection,
    DatabaseKind,
    FileConnection,
    SmtpConnection,
)
from airflow_provider_smtpcm.ssis.reading.configurations import (
    PropertyOverrides,
)
from airflow_provider_smtpcm.ssis.reading.xml import (
    Element,
    find_object_data,
    get_flag,
    get_text,
    normalize_id,
    read_expressions,
    read_ids,
)

ConnectionManager = SmtpConnection | FileConnection | DatabaseConnection

# By the beginning of the CreationName. `ADO` is the older interface, with the connection strings of OLE DB.
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


# --- Connection strings

# The properties in an SMTP connection string; a parameter can set each one separately.
CONNECTION_PROPERTIES = ("SmtpServer", "UseWindowsAuthentication", "EnableSsl", "Timeout")
#: The property that is all of it.
CONNECTION_STRING = "ConnectionString"
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


def get_connection_property(connection_string: str, name: str) -> str:
    """Return a property of a connection string, or an empty string; all of it for the name ConnectionString."""
    if name == CONNECTION_STRING:
        return connection_string
    pairs = (part.partition("=") for part in _split_connection_string(connection_string))
    return next((value.strip() for key, _, value in pairs if key.strip().lower() == name.lower()), "")


def _split_connection_string(connection_string: str) -> list[str]:
    parts = [part for part in connection_string.split(";") if part.strip()]
    is_bare_host = len(parts) == 1 and "=" not in parts[0]
    return [f"SmtpServer={parts[0].strip()}"] if is_bare_host else parts


def is_same_value(name: str, left: str, right: str) -> bool:
    """Whether two values of a property are equivalent.

    An empty flag is False, and the order of the properties in a connection string does not matter.
    """
    if name == CONNECTION_STRING:
        names = {part.partition("=")[0].strip() for text in (left, right) for part in _split_connection_string(text)}
        return all(
            is_same_value(key, get_connection_property(left, key), get_connection_property(right, key)) for key in names
        )
    left, right = left.strip().lower(), right.strip().lower()
    if name.lower() in {"usewindowsauthentication", "enablessl"}:
        return (left or "false") == (right or "false")
    return left == right
