r"""Data model of SSIS packages and projects, in SSIS's own terms. Pure: no XML, no files.

Every `id` is a GUID in upper case with braces, or the `refId` where there is none. Every `path` is the one that SSIS
shows: it begins with `Package`, as `("Package", "Sequence", "Send Mail")` does, and with
`"Package.EventHandlers[OnError]"` in an event handler. Fields that may hold an account (connection strings,
expressions, values) are left out of every `repr`.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from airflow_provider_smtpcm.errors import PackageError

__all__ = [
    "Configuration",
    "ConstraintValue",
    "Container",
    "ContainerKind",
    "EvalOp",
    "EventHandler",
    "Executable",
    "FileConnection",
    "Finding",
    "Manifest",
    "MessageSourceType",
    "OtherTask",
    "Package",
    "Parameter",
    "PrecedenceConstraint",
    "Project",
    "ProjectSetting",
    "SendMailTask",
    "Severity",
    "SmtpConnection",
    "Variable",
]

#: The remedy of an internal error.
REPORT_INTERNAL_ERROR = (
    "Please report it, with the package if you can: nothing of it is needed but what concerns the mail."
)
_SOURCES = Path(__file__).parent


class MessageSourceType(StrEnum):
    """Where the text of a mail comes from."""

    DIRECT_INPUT = "DirectInput"
    FILE_CONNECTION = "FileConnection"
    VARIABLE = "Variable"


class ConstraintValue(StrEnum):
    """The result of the preceding executable that a precedence constraint requires."""

    SUCCESS = "success"
    FAILURE = "failure"
    COMPLETION = "completion"


class EvalOp(StrEnum):
    """What a precedence constraint evaluates: the result of the preceding executable, an expression, or both."""

    EXPRESSION = "expression"
    CONSTRAINT = "constraint"
    EXPRESSION_AND_CONSTRAINT = "expression and constraint"
    EXPRESSION_OR_CONSTRAINT = "expression or constraint"


class ContainerKind(StrEnum):
    """Kinds of containers in a control flow; `TASK_HOST` is any other executable that holds executables."""

    PACKAGE = "package"
    SEQUENCE = "sequence"
    FOR_LOOP = "for loop"
    FOREACH_LOOP = "foreach loop"
    TASK_HOST = "task host"


class Severity(StrEnum):
    """How urgent a finding is."""

    NOTE = "note"  # for information
    DECISION = "decision"  # a person must decide or complete something
    ERROR = "error"  # could not be read or written


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    r"""Something that a person should know, decide or fix.

    Args:
        code: stable, such as `dangling-connection-manager`.
        where: the SSIS path, such as `Package\Sequence\Send Mail`.
        text: what was found.
        remedy: what to do.
    """

    code: str
    severity: Severity
    where: str
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A variable.

    Args:
        data_type: OLE's VARTYPE: 8 is String, 3 Int32, 11 Boolean, 7 Date.
        value: the design-time value; None if it is a secret, or no text.
        expression: None if the variable is not evaluated as one.
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
        """The name in expressions: `User::Body`."""
        return f"{self.namespace}::{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of the project or of the package. The value of a sensitive parameter is never kept.

    Args:
        data_type: OLE's VARTYPE, as of a variable.
        value: the design-time value.
        scope: `Package` or `Project`.
        configured_in: the project's configurations, such as `Production`, that give it another value.
    """

    name: str
    data_type: int = 8
    value: str | None = field(default=None, repr=False)
    required: bool = False
    sensitive: bool = False
    scope: str = "Package"
    configured_in: tuple[str, ...] = ()

    @property
    def qualified_name(self) -> str:
        """The name in expressions: `$Project::MailServer`."""
        return f"${self.scope}::{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectSetting:
    """A property of a connection manager to which its project gives another value.

    Args:
        property: such as `SmtpServer`.
        by: the parameter, such as `CM.Relay.SmtpServer`, or the names of the configurations.
        source: the project's file.
        contradicted: whether another parameter sets the same property to something else.
    """

    property: str
    by: str
    source: str
    contradicted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpConnection:
    """An SMTP connection manager of a package, a project or a `.conmgr` file; its properties are not interpreted.

    Args:
        connection_string: with package configurations and the project's parameters applied. It may hold an account,
            although SSIS has no property for one.
        expressions: by property name, such as `SmtpServer`; they take precedence over the connection string.
        scope: `package` or `project`.
        source: the file that it is defined in.
        set_by: the properties in the connection string that come from parameters of the project.
        configured: the properties that the project's configurations would set; they are not applied.
    """

    name: str
    id: str
    description: str = ""
    connection_string: str = field(default="", repr=False)
    expressions: Mapping[str, str] = field(default_factory=dict, repr=False)
    scope: str = "package"
    source: str = ""
    delay_validation: bool = False
    set_by: tuple[ProjectSetting, ...] = ()
    configured: tuple[ProjectSetting, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileConnection:
    """A File connection manager, whose file a Send Mail task may read its text from.

    Args:
        connection_string: the path of the file.
        set_by: as of `SmtpConnection`.
    """

    name: str
    id: str
    connection_string: str = field(default="", repr=False)
    expressions: Mapping[str, str] = field(default_factory=dict, repr=False)
    scope: str = "package"
    set_by: tuple[ProjectSetting, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecedenceConstraint:
    """A precedence constraint between two executables of one container.

    Args:
        before: the id of the preceding executable.
        after: the id of the constrained executable.
        logical_and: whether all constraints on `after` have to be met; False: one of them is enough.
    """

    before: str
    after: str
    name: str = ""
    value: ConstraintValue = ConstraintValue.SUCCESS
    eval_op: EvalOp = EvalOp.CONSTRAINT
    expression: str | None = field(default=None, repr=False)
    logical_and: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    r"""A package configuration: a value that SSIS assigns to a property when it loads the package.

    Args:
        kind: `xml file`, `sql server`, `environment variable`, `registry entry`, `parent variable`, `ini file`.
        source: the file, the table and filter, the variable or the key; empty where it could hold a password.
        path: the property, such as `\Package.Variables[User::To].Properties[Value]`; None if only the source tells.
        value: None unless the `.dtsConfig` file was found.
        indirect: whether `source` is an environment variable that holds the source.
    """

    kind: str
    source: str
    path: str | None = None
    value: str | None = field(default=None, repr=False)
    name: str = ""
    indirect: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SendMailTask:
    """A Send Mail task.

    A property that has an expression also has a value: the one that the developer's machine evaluated last.

    Args:
        connection: the connection manager with the id `connection_reference`; None if it was not found.
        message_file: the File connection manager, if `message_source_type` is FileConnection and it was found.
        priority: `High`, `Normal`, `Low` or a number, as it is in the file.
        file_attachments: separated by `|`, as in the file.
        expressions: by SSIS's property name: FromLine, ToLine, CCLine, BCCLine, Subject, MessageSource, ...
        disabled: whether it, or a container around it, is disabled. A `Disable` expression counts only if it is a
            literal; it takes precedence over the property.
        disabled_because: the path of the disabled executable.
        has_unreadable_data: whether the task's own properties are missing or encrypted; they are all empty then.
    """

    name: str
    id: str
    path: tuple[str, ...]
    description: str = ""
    connection: SmtpConnection | None = None
    connection_reference: str = ""
    from_line: str = ""
    to_line: str = ""
    cc_line: str = ""
    bcc_line: str = ""
    subject: str = ""
    message_source_type: MessageSourceType = MessageSourceType.DIRECT_INPUT
    message_source: str = field(default="", repr=False)
    message_file: FileConnection | None = None
    priority: str = "Normal"
    file_attachments: str = ""
    expressions: Mapping[str, str] = field(default_factory=dict, repr=False)
    disabled: bool = False
    disabled_because: str | None = None
    event_handlers: tuple[EventHandler, ...] = ()
    variables: tuple[Variable, ...] = ()
    has_unreadable_data: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherTask:
    """A task of any other kind.

    Args:
        kind: its CreationName, such as `Microsoft.ExecuteSQLTask`.
    """

    name: str
    id: str
    path: tuple[str, ...]
    kind: str = ""
    description: str = ""
    disabled: bool = False
    disabled_because: str | None = None
    expressions: Mapping[str, str] = field(default_factory=dict, repr=False)
    event_handlers: tuple[EventHandler, ...] = ()
    variables: tuple[Variable, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A package, a sequence or a loop, with its executables."""

    name: str
    id: str
    path: tuple[str, ...]
    kind: ContainerKind = ContainerKind.SEQUENCE
    description: str = ""
    executables: tuple[Executable, ...] = ()
    constraints: tuple[PrecedenceConstraint, ...] = ()
    variables: tuple[Variable, ...] = ()
    event_handlers: tuple[EventHandler, ...] = ()
    expressions: Mapping[str, str] = field(default_factory=dict, repr=False)
    disabled: bool = False
    disabled_because: str | None = None


Executable = SendMailTask | OtherTask | Container


@dataclass(frozen=True, slots=True, kw_only=True)
class EventHandler:
    """The executables that run on an event of their owner, or of anything inside of it: events bubble up.

    Args:
        event_name: `OnError`, `OnTaskFailed`, `OnPostExecute`, ...
        owner: the path of the package, container or task that has the event handler.
        propagate: the design-time value of System::Propagate; None means True.
    """

    event_name: str
    owner: tuple[str, ...]
    id: str = ""
    executables: tuple[Executable, ...] = ()
    constraints: tuple[PrecedenceConstraint, ...] = ()
    variables: tuple[Variable, ...] = ()
    event_handlers: tuple[EventHandler, ...] = ()
    expressions: Mapping[str, str] = field(default_factory=dict, repr=False)
    disabled: bool = False
    disabled_because: str | None = None
    propagate: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package.

    Args:
        path: its file, or `project.ispac!Part.dtsx`.
        root: the package itself, as a container.
        protection_level: None means SSIS's default of 1, EncryptSensitiveWithUserKey.
        connection_managers: its own SMTP connection managers, and those of the project that its mails use.
    """

    name: str
    id: str
    path: str
    root: Container
    format_version: int = 8
    protection_level: int | None = None
    connection_managers: tuple[SmtpConnection, ...] = ()
    file_connections: tuple[FileConnection, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    configurations: tuple[Configuration, ...] = ()
    findings: tuple[Finding, ...] = ()

    def walk_mail_tasks(self) -> Iterator[tuple[SendMailTask, EventHandler | None]]:
        """Yield every Send Mail task, also disabled ones, with the innermost event handler that contains it."""
        for executable, handler in self.walk_executables():
            if isinstance(executable, SendMailTask):
                yield executable, handler

    def walk_executables(self) -> Iterator[tuple[Executable, EventHandler | None]]:
        """Yield every executable with the innermost event handler that contains it.

        Depth first, beginning with the root; the executables of a container come before those of its event handlers.
        """
        return _walk(self.root, None)

    @property
    def send_mail_tasks(self) -> tuple[SendMailTask, ...]:
        """All Send Mail tasks: in containers, in event handlers, also disabled ones."""
        return tuple(task for task, _ in self.walk_mail_tasks())

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The variables of all scopes; an inner variable hides an outer one of the same name."""
        found: list[Variable] = []
        seen: set[int] = set()
        for executable, handler in self.walk_executables():
            if handler is not None and id(handler) not in seen:
                seen.add(id(handler))
                found += handler.variables
            found += executable.variables
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a project sets in `@Project.manifest`, or in its `.dtproj`. All keys are in lower case.

    Args:
        source: the file.
        values: properties of connection managers, by package (empty: the project's own) and by `name.property`.
        configurations: values of parameters, by package (empty: the project's own), by parameter and by the name of
            the configuration.
    """

    source: str
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    configurations: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project.

    Args:
        path: a folder, or an `.ispac`.
        unreadable: the files that could not be read, each with its error.
    """

    name: str
    path: str
    packages: tuple[Package, ...] = ()
    connection_managers: tuple[SmtpConnection, ...] = ()
    file_connections: tuple[FileConnection, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    manifest: Manifest | None = None
    unreadable: tuple[tuple[str, PackageError], ...] = ()


def _walk(executable: Executable, handler: EventHandler | None) -> Iterator[tuple[Executable, EventHandler | None]]:
    yield executable, handler
    if isinstance(executable, Container):
        for child in executable.executables:
            yield from _walk(child, handler)
    for nested in executable.event_handlers:
        yield from _walk_handler(nested)


def _walk_handler(handler: EventHandler) -> Iterator[tuple[Executable, EventHandler | None]]:
    for child in handler.executables:
        yield from _walk(child, handler)
    for nested in handler.event_handlers:
        yield from _walk_handler(nested)


def describe_internal_error(error: Exception) -> str:
    """Return a message for an error in this package itself, with the source line that raised it."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(_SOURCES)
    ]
    location = f" ({Path(frames[-1].filename).relative_to(_SOURCES)}, line {frames[-1].lineno})" if frames else ""
    return f"The importer itself failed here: {type(error).__name__}: {error}{location}."
