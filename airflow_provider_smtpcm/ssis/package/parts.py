"""The small parts of a package: variables, connection managers, arrows, configurations, and what is found of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class MessageSourceType(StrEnum):
    """Where the text of a mail comes from; SSIS's own words."""

    DIRECT_INPUT = "DirectInput"
    FILE_CONNECTION = "FileConnection"
    VARIABLE = "Variable"


class ConstraintValue(StrEnum):
    """What must have become of the task before."""

    SUCCESS = "success"
    FAILURE = "failure"
    COMPLETION = "completion"


class EvalOp(StrEnum):
    """What a precedence constraint looks at."""

    EXPRESSION = "expression"
    CONSTRAINT = "constraint"
    EXPRESSION_AND_CONSTRAINT = "expression and constraint"
    EXPRESSION_OR_CONSTRAINT = "expression or constraint"


class ContainerKind(StrEnum):
    """The containers of a control flow; `TASK_HOST` is any other executable that holds executables."""

    PACKAGE = "package"
    SEQUENCE = "sequence"
    FOR_LOOP = "for loop"
    FOREACH_LOOP = "foreach loop"
    TASK_HOST = "task host"


class Severity(StrEnum):
    """What a finding asks of the reader."""

    NOTE = "note"  # done, good to know
    DECISION = "decision"  # a person must decide or complete something
    ERROR = "error"  # could not be read or written


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    r"""Something to know or to decide.

    Args:
        code: stable, such as `dangling-connection-manager`.
        where: the SSIS path, such as `Package\Sequence\Send Mail`.
    """

    code: str
    severity: Severity
    where: str
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A variable in its scope. `data_type` is OLE's number (8 is String, 3 Int32, 11 Boolean, 7 Date)."""

    namespace: str
    name: str
    data_type: int = 8
    value: str | None = field(default=None, repr=False)  # the design-time value; None where it is not kept
    expression: str | None = field(default=None, repr=False)  # None where it is not evaluated as one
    scope: tuple[str, ...] = ()

    @property
    def qualified_name(self) -> str:
        """As expressions write it: `User::Body`."""
        return f"{self.namespace}::{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of the project or of the package. The value of a sensitive one is never kept.

    Args:
        configured_in: the configurations of the project, such as `Production`, that give it another value.
    """

    name: str
    data_type: int = 8  # OLE's number, as of a variable
    value: str | None = field(default=None, repr=False)
    required: bool = False
    sensitive: bool = False
    scope: str = "Package"  # or "Project"
    configured_in: tuple[str, ...] = ()

    @property
    def qualified_name(self) -> str:
        """As expressions write it: `$Project::MailServer`."""
        return f"${self.scope}::{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetByProject:
    """A property of a connection manager that the project sets to another value than the connection manager itself.

    Args:
        property: such as `SmtpServer`.
        by: the parameter, `CM.Relay.SmtpServer`, or the configurations that hold it.
        source: the file.
        contradicted: another parameter says something else about the same property.
    """

    property: str
    by: str
    source: str
    contradicted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpConnection:
    """An SSIS SMTP connection manager as it stands in a package, a project or a `.conmgr`; not interpreted.

    Args:
        connection_string: with package configurations and the project's parameters applied. It may hold an account,
            although SSIS has none.
        expressions: by property name, such as `SmtpServer`; they win over the connection string.
        scope: `package` or `project`.
        source: the file that it stands in.
        set_by: what of the connection string is a parameter's of the project.
        configured: what a configuration of the project would set; it is not applied.
    """

    name: str
    id: str
    description: str = ""
    connection_string: str = field(default="", repr=False)
    expressions: Mapping[str, str] = field(default_factory=dict, repr=False)
    scope: str = "package"
    source: str = ""
    delay_validation: bool = False
    set_by: tuple[SetByProject, ...] = ()
    configured: tuple[SetByProject, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileConnection:
    """A File connection manager: a path, which a Send Mail task may take its text from; `set_by` as of an SMTP one."""

    name: str
    id: str
    connection_string: str = field(default="", repr=False)
    expressions: Mapping[str, str] = field(default_factory=dict, repr=False)
    scope: str = "package"
    set_by: tuple[SetByProject, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecedenceConstraint:
    """An arrow between two executables of one container, by their ids."""

    before: str
    after: str
    name: str = ""
    value: ConstraintValue = ConstraintValue.SUCCESS
    eval_op: EvalOp = EvalOp.CONSTRAINT
    expression: str | None = field(default=None, repr=False)
    logical_and: bool = True  # False: one of the constraints that lead into `after` is enough


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    r"""A package configuration: a value that SSIS puts into a property when the package is loaded.

    Args:
        kind: `xml file`, `sql server`, `environment variable`, `registry entry`, `parent variable`, `ini file`.
        source: the file, the table and filter, the variable or the key; of a SQL Server one without its secrets.
        path: the property, such as `\Package.Variables[User::To].Properties[Value]`, where the package tells it.
        value: where it is known, which is where a `.dtsConfig` was found.
        indirect: `source` is an environment variable that holds the source.
    """

    kind: str
    source: str
    path: str | None = None
    value: str | None = field(default=None, repr=False)
    name: str = ""
    indirect: bool = False
