"""Converts OLE DB, ADO.NET and ODBC connection managers to Airflow connections of type `odbc`, one for equal settings.

The connections are for `apache-airflow-providers-odbc`, whose hook joins host, schema, login and the extra to an ODBC
connection string. Its SQL operators take the driver from the extra, under the key `driver` in lower case.

As in `connections`, an expression takes precedence over the connection string. Passwords are never written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_provider_smtpcm.ssis.model import DatabaseConnection, DatabaseKind
from airflow_provider_smtpcm.ssis.writing.connections import (
    CONNECTION_STRING,
    ConvertedConnection,
    ManagerConverter,
    only_known,
)
from airflow_provider_smtpcm.ssis.writing.python_source import slug
from airflow_provider_smtpcm.ssis.writing.secrets import sanitize_line

SQL_SERVER_DRIVER = "ODBC Driver 18 for SQL Server"
# The driver on a worker, by a word in the OLE DB provider, the .NET class or the Windows driver's name, in this order.
_DRIVERS = (
    (r"mysql", "MySQL ODBC 9.0 Unicode Driver"),
    (r"sqlncli|sqloledb|msoledbsql|sqlclient|sql server|sql native client|\Asql\Z", SQL_SERVER_DRIVER),
    (r"npgsql|postgres|pgoledb", "PostgreSQL Unicode"),
    (r"sybase|aseoledb|freetds", "FreeTDS"),
    (r"oracle|oraoledb|msdaora", "Oracle 23 ODBC driver"),
    (r"sqlite", "SQLite3"),
    (r"ibmda|db2", "IBM i Access ODBC Driver"),
)
# Files that only Windows has a driver for.
_FILE_PROVIDER = re.compile(r"jet\.oledb|ace\.oledb|excel|access", re.IGNORECASE)
# The keys of connection strings that have the same meaning, all in lower case without blanks.
_SYNONYMS = {
    **dict.fromkeys(["datasource", "server", "address", "addr", "networkaddress", "host"], "server"),
    **dict.fromkeys(["initialcatalog", "database"], "database"),
    **dict.fromkeys(["userid", "uid", "user", "username"], "user"),
    **dict.fromkeys(["password", "pwd", "accesstoken"], "password"),
    **dict.fromkeys(["integratedsecurity", "trusted_connection"], "integrated"),
    **dict.fromkeys(["encrypt", "useencryptionfordata"], "encrypt"),
    **dict.fromkeys(["applicationintent"], "intent"),
    **dict.fromkeys(["multisubnetfailover"], "failover"),
    **dict.fromkeys(["trustservercertificate"], "trust"),
    **dict.fromkeys(["provider", "driver"], "provider"),
    **dict.fromkeys(["port", "networkport"], "port"),
    "dsn": "dsn",
}
_TRUE = {"true", "yes", "sspi", "1", "mandatory", "strict"}
_LOCAL = re.compile(r"(?:tcp:|lpc:|np:)?(?:\.|\(local\)|localhost|127\.0\.0\.1|\(localdb\))(?=[\\,]|\Z)", re.IGNORECASE)
# A part of a connection string; a value in quotation marks or braces may contain semicolons.
_PART = re.compile(
    r"""\s*(?P<key>[^=;]+?)\s*=\s*(?:"(?P<double>(?:[^"]|"")*)"|'(?P<single>(?:[^']|'')*)'|\{(?P<brace>[^}]*)\}
        |(?P<plain>[^;]*))\s*(?:;|\Z)""",
    re.VERBOSE,
)
# The properties besides ConnectionString that may come from an expression. For each: the key as in `_SYNONYMS`, and the
# noun for the question.
_PROPERTIES = {
    "ServerName": ("server", "database server"),
    "InitialCatalog": ("database", "database"),
    "UserName": ("user", "login"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    r"""The settings of an Airflow connection of type `odbc`.

    Args:
        server: as ODBC writes it, such as `srv`, `srv\instance` or `srv,1433`.
        extra: further settings, by their ODBC key.
    """

    server: str = ""
    database: str = ""
    login: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for settings that mean the same; servers, databases and logins are compared without case."""
        return (self.server.lower(), self.database.lower(), self.login.lower(), tuple(sorted(self.extra.items())))

    @property
    def is_windows(self) -> bool:
        """Whether the worker's own Windows account, or Kerberos ticket, signs in."""
        return self.extra.get("Trusted_Connection") == "yes"

    @property
    def summary(self) -> str:
        """The settings on one line."""
        server = f"DSN {self.extra['dsn']}" if "dsn" in self.extra else self.server
        sign_in = "Windows Authentication" if self.is_windows else self.login or "no sign-in"
        parts = (server, self.database, sign_in, self.extra.get("driver", ""))
        return ", ".join(part for part in parts if part)

    def to_airflow(self) -> dict[str, object]:
        """Return the connection in Airflow's form, without a password."""
        parts = {"host": self.server, "schema": self.database, "login": self.login}
        return {"conn_type": "odbc", **{key: value for key, value in parts.items() if value}, "extra": dict(self.extra)}


def is_sql_server(connection: DatabaseConnection | None) -> bool:
    """Whether a connection manager is for SQL Server, by its provider; True if it was not found."""
    if connection is None:
        return True
    values = _read_string(connection.connection_string)
    return _find_driver(connection, values) == SQL_SERVER_DRIVER


class DatabaseConverter(ManagerConverter[DatabaseConnection, DatabaseSettings]):
    """Converts an OLE DB, ADO.NET or ODBC connection manager."""

    _has_password = False

    def convert(self) -> DatabaseSettings:
        values = self._read_values()
        driver = _find_driver(self._manager, values)
        extra: dict[str, str] = {}
        server = values.get("server", "")
        if dsn := values.get("dsn", ""):
            extra["dsn"] = dsn
            self._note(
                "database-dsn",
                f"{self.name!r} names the data source {sanitize_line(dsn)}, which ODBC on the worker looks "
                "up in odbc.ini.",
                "Define it there, or replace dsn in the Airflow connection by driver, host and schema.",
            )
        elif driver:
            extra["driver"] = driver
        if values.get("integrated", "").lower() in _TRUE:
            extra["Trusted_Connection"] = "yes"
        if driver == SQL_SERVER_DRIVER and not dsn:
            # Version 18 encrypts by default and checks the certificate, which the providers of SSIS do not.
            extra["Encrypt"] = "yes" if _is_encrypted(values) else "no"
            if values.get("trust", "").lower() in _TRUE:
                extra["TrustServerCertificate"] = "yes"
            if values.get("intent", "").lower() == "readonly":
                extra["ApplicationIntent"] = "ReadOnly"
            if values.get("failover", "").lower() in _TRUE:
                extra["MultiSubnetFailover"] = "Yes"
        if port := values.get("port", ""):
            if driver == SQL_SERVER_DRIVER:
                server = f"{server},{port}" if "," not in server else server
            else:
                extra["Port"] = port
        login = "" if "Trusted_Connection" in extra else values.get("user", "")
        # The hook does not quote, so a semicolon would begin another setting.
        server, database, login = (
            sanitize_line(value).partition(";")[0] for value in (server, values.get("database", ""), login)
        )
        return DatabaseSettings(server=server, database=database, login=login, extra=extra)

    def make_key(self, settings: DatabaseSettings) -> tuple[object, ...]:
        has_server = settings.server or "dsn" in settings.extra
        return settings.key if has_server else (*settings.key, self.name.lower())

    def make_conn_id(self, settings: DatabaseSettings) -> str:
        if "dsn" in settings.extra:
            parts = [settings.extra["dsn"], settings.database]
        else:
            parts = [_LOCAL.sub("localhost", settings.server) or self.name, settings.database]
        words = [slug(part, "") for part in (*parts, settings.login)]
        return "_".join(["db", *(word for word in words if word)])

    def report_became(self, converted: ConvertedConnection[DatabaseSettings]) -> None:
        name, conn_id, settings = self.name, converted.conn_id, converted.settings
        self._note(
            "database-connection-became",
            f"The {self._manager.kind} connection manager {name!r} became the Airflow connection {conn_id!r} of "
            "type odbc.",
            "Install apache-airflow-providers-odbc and the driver on the workers.",
        )
        if settings.is_windows:
            self._note(
                "database-windows-authentication",
                f"{name!r} uses Windows Authentication, so {conn_id!r} has Trusted_Connection=yes: the worker signs in "
                "with its Kerberos ticket, where SSIS signed in as the account that it ran under.",
                "Keep a ticket on the workers (kinit with a keytab), or give the connection a login and a password.",
            )
        elif settings.login or self._has_password:
            self._note(
                "database-password",
                f"{conn_id!r} has no password: SSIS stores it encrypted, or in a parameter or a configuration, and the "
                "import copies none. Until it has one, tasks that use the connection fail.",
                "Enter the password in the Airflow connection.",
            )
        driver = settings.extra.get("driver", "")
        if not driver and "dsn" not in settings.extra:
            provider = sanitize_line(_read_string(self._manager.connection_string).get("provider", ""))
            provider = provider or self._manager.provider
            self._note(
                "database-driver",
                f"The provider of {name!r} ({provider or 'none'}) has no known counterpart on Linux, so {conn_id!r} "
                "has no driver. Until it has one, tasks that use the connection fail.",
                "Set driver in the extra of the Airflow connection, or use a connection of another type.",
            )
        elif driver and driver != SQL_SERVER_DRIVER:
            self._note(
                "database-driver",
                f"{conn_id!r} has the driver {driver!r}, whose name on your workers may differ.",
                "Compare it with the output of odbcinst -q -d, and set driver in the extra of the Airflow connection.",
            )
        if _LOCAL.match(settings.server):
            self._note(
                "database-server-local",
                f"{name!r} connects to {settings.server!r}, the machine that SSIS ran on. On a worker, that is the "
                "worker itself.",
                "Enter the name of the SQL Server in the Airflow connection.",
            )

    def _read_values(self) -> dict[str, str]:
        """Return the properties by name; an expression takes precedence over the connection string."""
        stored = _read_string(self._manager.connection_string)
        values = dict(stored)
        server = stored.get("server", "")
        given = self._evaluate(CONNECTION_STRING, "database server", server, is_server=True)
        if self._needs_literals(given):
            values |= only_known(_read_string(self._read_literals())) | ({} if given is None else {"server": given})
        elif given is not None:
            values = _read_string(given)
        for name, (key, noun) in _PROPERTIES.items():
            value = self._evaluate(name, noun, stored.get(key, ""), is_server=key == "server")
            if value is not None:
                values[key] = value.strip().partition(";")[0]
        self._has_password = self._manager.has_password or bool(values.get("password"))
        for setting in self._manager.set_by:
            if setting.property not in self._manager.expressions:
                self._note(
                    "connection-parameter",
                    f"The parameter {setting.by} in {setting.source} sets {setting.property} of "
                    f"{self.name!r}; the connection has that value, not the one in the connection manager.",
                )
        return values

    def _has_server(self, connection_string: str) -> bool:
        values = _read_string(connection_string)
        return bool(values.get("server", "").strip()) or "dsn" in values


def _read_string(text: str) -> dict[str, str]:
    """Return the values of a connection string by the names in `_SYNONYMS`; if a key occurs twice, the last counts."""
    values: dict[str, str] = {}
    for part in _PART.finditer(text):
        name = _SYNONYMS.get(part["key"].replace(" ", "").lower())
        if name is None:
            continue
        quoted = part["double"], part["single"], part["brace"]
        value = next((value for value in quoted if value is not None), part["plain"] or "")
        values[name] = value.replace('""', '"') if part["double"] is not None else value.strip()
    return values


def _find_driver(connection: DatabaseConnection, values: Mapping[str, str]) -> str:
    """Return the name of the ODBC driver on a worker; empty if there is none, or a DSN names it."""
    if "dsn" in values:
        return ""
    provider = values.get("provider", "") or connection.provider
    if _FILE_PROVIDER.search(provider):
        return ""
    for pattern, driver in _DRIVERS:
        if re.search(pattern, provider, re.IGNORECASE):
            return driver
    if connection.kind is DatabaseKind.ODBC:
        return provider
    return "" if provider else SQL_SERVER_DRIVER


def _is_encrypted(values: Mapping[str, str]) -> bool:
    # MSOLEDBSQL19 encrypts by default, every earlier provider only if the string says so.
    default = "yes" if "msoledbsql19" in values.get("provider", "").lower() else "no"
    return values.get("encrypt", default).lower() in _TRUE
