"""What SSIS packages and projects declare: variables, parameters, connection managers and configurations.

Part of the model in `ssis.model`. Fields that may contain credentials are not part of any `repr`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A variable of a package.

    Args:
        namespace: such as `User`.
        data_type: OLE VARTYPE: 8 is String, 3 Int32, 11 Boolean, 7 Date.
        value: the design-time value; None if it is sensitive, or an Object.
        expression: None unless EvaluateAsExpression is on.
        scope: the path of the executable that declares it.
    """

    namespace: str
    name: str
    data_type: int = 8
    value: str | None = field(default=None, repr=False)
    expression: str | None = field(default=None, repr=False)
    scope: tuple[str, ...] = ()

    @property
    def qualified_name(self) -> str:
        """The name in expressions, such as `User::Body`."""
        return f"{self.namespace}::{self.name}"

    @property
    def identity(self) -> tuple[str, tuple[str, ...]]:
        """The qualified name and the scope, which no other variable of the package has."""
        return self.qualified_name, self.scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A package or project parameter. The value of a sensitive parameter is not kept.

    Args:
        data_type: OLE VARTYPE, as in `Variable`.
        value: the design-time value.
        scope: `Package` or `Project`.
        configured_in: the project configurations, such as `Production`, in which it has another value.
        environment: the file with the environment of the SSIS catalog that sets `value`; empty if none does.
    """

    name: str
    data_type: int = 8
    value: str | None = field(default=None, repr=False)
    required: bool = False
    sensitive: bool = False
    scope: str = "Package"
    configured_in: tuple[str, ...] = ()
    environment: str = ""

    @property
    def qualified_name(self) -> str:
        """The name in expressions, such as `$Project::MailServer`."""
        return f"${self.scope}::{self.name}"

    @property
    def identity(self) -> tuple[str, tuple[str, ...]]:
        """The qualified name, in the form of `Variable.identity`."""
        return self.qualified_name, ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    r"""A package configuration: a value that SSIS assigns to a property when it loads the package.

    Args:
        kind: `xml file`, `sql server`, `environment variable`, `registry entry`, `parent variable`, `ini file` or
            `unknown`.
        source: the file, the table and filter, the variable or the key; empty if it could contain a password.
        path: the property, such as `\Package.Variables[User::To].Properties[Value]`; None if the source specifies it.
        value: None unless it was read from a `.dtsConfig` file, an export of a table or an answer.
        indirect: whether `source` is an environment variable that names the actual source.
    """

    kind: str
    source: str
    path: str | None = None
    value: str | None = field(default=None, repr=False)
    name: str = ""
    indirect: bool = False

    def may_set(self, variable: Variable) -> bool:
        """Whether this may set a variable. Without a `path`, it may set any."""
        if not self.path:
            return True
        path = self.path.strip().lstrip("\\").lower()
        return path.startswith(("\\".join(variable.scope) + f".Variables[{variable.qualified_name}].").lower())


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectSetting:
    """A property of a connection manager that the project overrides.

    Args:
        property: its name, such as `SmtpServer`.
        by: the parameter that sets it, such as `CM.Relay.SmtpServer`, or the names of the project configurations.
        source: the file of the project.
        contradicted: whether the project's ConnectionString sets the same property to another value.
    """

    property: str
    by: str
    source: str
    contradicted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionManager:
    """What connection managers of all types have.

    Args:
        connection_string: unparsed, with package configurations and project parameters applied.
        expressions: by property name, such as `ServerName`; they take precedence over the connection string.
        scope: `package` or `project`.
        set_by: the properties in `connection_string` that project parameters set.
    """

    name: str
    id: str
    connection_string: str = field(default="", repr=False)
    expressions: Mapping[str, str] = field(default_factory=dict, repr=False)
    scope: str = "package"
    set_by: tuple[ProjectSetting, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpConnection(ConnectionManager):
    """An SMTP connection manager. Its connection string may have credentials, although SSIS has no property for them.

    Args:
        source: the file that defines it.
        configured: the properties that project configurations would set; they are not applied.
    """

    description: str = ""
    source: str = ""
    delay_validation: bool = False
    configured: tuple[ProjectSetting, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileConnection(ConnectionManager):
    """A File connection manager: the file with the text of a mail. Its connection string is the path."""


class DatabaseKind(StrEnum):
    """The kind of a connection manager for a database."""

    OLE_DB = "OLE DB"
    ADO_NET = "ADO.NET"
    ODBC = "ODBC"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseConnection(ConnectionManager):
    """An OLE DB, ADO.NET or ODBC connection manager.

    Its connection string, such as `Data Source=db;Initial Catalog=sales;Provider=SQLNCLI11.1;`, has no password.

    Args:
        source: the file that defines it.
        provider: what follows `ADO.NET:` in the CreationName, such as `System.Data.SqlClient.SqlConnection`.
        has_password: whether a password belongs to it, which is not kept.
    """

    kind: DatabaseKind = DatabaseKind.OLE_DB
    source: str = ""
    provider: str = ""
    has_password: bool = False
