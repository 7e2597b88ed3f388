"""The small parts of a package: variables, connection managers, arrows, configurations, and what is found of them."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from airflow_provider_smtpcm.errors import PackageError


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


# folded: What runs in a package: Send Mail tasks, their neighbours, containers, and what hangs on their events.


@dataclass(frozen=True, slots=True, kw_only=True)
class SendMailTask:
    """A Send Mail task. A field beside an expression holds what the developer's machine evaluated last.

    Args:
        connection: the connection manager that `connection_reference` means; None where there is none.
        priority: as written, `High`, `Normal`, `Low` or a number.
        file_attachments: as written, with `|` between the files.
        message_file: the File connection manager, where `message_source_type` is FileConnection and it was found.
        expressions: by SSIS's property name: FromLine, ToLine, CCLine, BCCLine, Subject, MessageSource, ...
        disabled: itself or something around it, whose path is `disabled_because`. What a `Disable` expression decides,
            unless it is a literal, is not counted: the expression wins over what is written beside it.
        has_unreadable_data: the mail's own properties are missing or encrypted, so that all are empty.
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
    """A neighbour that is no mail; `kind` is its CreationName, such as `Microsoft.ExecuteSQLTask`."""

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
    """A package, a sequence or a loop, with what runs in it."""

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
    """What runs on an event of its owner and of all that the owner holds, since events bubble up.

    Args:
        event_name: `OnError`, `OnTaskFailed`, `OnPostExecute`, ...
        owner: the path of the package, container or task that it hangs on.
        propagate: the design-time value of System::Propagate; None where it is not written (it is True then).
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


# folded: A package as a whole, and a project of several.


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package. `path` is its file, or `project.ispac!Part.dtsx`.

    Args:
        connection_managers: SMTP connection managers, its own and those of the project that its mails use.
        protection_level: None where it is not written (SSIS means 1, EncryptSensitiveWithUserKey).
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

    def walk(self) -> Iterator[tuple[SendMailTask, EventHandler | None]]:
        """Every Send Mail task, disabled ones too, with the innermost event handler that it stands in."""
        for executable, handler in self.everything():
            if isinstance(executable, SendMailTask):
                yield executable, handler

    def everything(self) -> Iterator[tuple[Executable, EventHandler | None]]:
        """Every executable, depth first, what hangs on an executable after what stands in it; the root first."""
        return _descend(self.root, None)

    @property
    def send_mail_tasks(self) -> tuple[SendMailTask, ...]:
        """All of them: in containers, in event handlers, disabled ones too."""
        return tuple(task for task, _ in self.walk())

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The variables of all scopes; an inner one hides an outer one of the same name."""
        found: list[Variable] = []
        seen: set[int] = set()
        for executable, handler in self.everything():
            if handler is not None and id(handler) not in seen:
                seen.add(id(handler))
                found += handler.variables
            found += executable.variables
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a project sets besides its files, in `@Project.manifest` or in its `.dtproj`. All keys are in lower case.

    Args:
        source: the file.
        values: of connection managers, by the package that they are in (empty: they are the project's own), and then
            by `name.property`.
        configurations: by the package (empty: the project), and then by the parameter: the value that each
            configuration gives it, by its name.
    """

    source: str
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    configurations: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project: a folder with its packages, or an `.ispac`. `unreadable` are the parts that are no package."""

    name: str
    path: str
    packages: tuple[Package, ...] = ()
    connection_managers: tuple[SmtpConnection, ...] = ()
    file_connections: tuple[FileConnection, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    manifest: Manifest | None = None
    unreadable: tuple[tuple[str, PackageError], ...] = ()


def _descend(executable: Executable, handler: EventHandler | None) -> Iterator[tuple[Executable, EventHandler | None]]:
    yield executable, handler
    if isinstance(executable, Container):
        for child in executable.executables:
            yield from _descend(child, handler)
    for own in executable.event_handlers:
        yield from _descend_handler(own)


def _descend_handler(handler: EventHandler) -> Iterator[tuple[Executable, EventHandler | None]]:
    for child in handler.executables:
        yield from _descend(child, handler)
    for own in handler.event_handlers:
        yield from _descend_handler(own)


# folded: What a package says about mail, in the SSIS user's words: the model. Knows no XML, no network and no Airflow.
#   Every `id` is a GUID in upper case with braces, or the `refId` where there is none. Every `path` is SSIS's own: it
#   begins with the word Package, as `("Package", "Sequence", "Send Mail")` does, and with
#   `"Package.EventHandlers[OnError]"` in an event handler. What may hold an account (connection strings, expressions,
#   values) is left out of every `repr`.

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
    "SendMailTask",
    "SetByProject",
    "Severity",
    "SmtpConnection",
    "Variable",
]


# folded: What to say of an error that nobody foresaw: one line with its place, instead of a page of traceback.

REPORT_IT = "Please report it, with the package if you can: nothing of it is needed but what concerns the mail."
_HERE = Path(__file__).parent


def told(error: Exception) -> str:
    """The error and the line of ours that it came from: all that somebody needs who mends it."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(_HERE)
    ]
    place = f" ({Path(frames[-1].filename).relative_to(_HERE)}, line {frames[-1].lineno})" if frames else ""
    return f"The importer itself failed here: {type(error).__name__}: {error}{place}."
