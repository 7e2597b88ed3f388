r"""Data model of SSIS packages and projects, in SSIS's own terms. Pure: no XML, no file access.

What a package declares (variables, connection managers, ...) is defined in `ssis.declarations` and re-exported here.

An `id` is a GUID in upper case with braces, or the `refId` if there is no GUID. The `path` of an executable is the one
that SSIS shows, such as `("Package", "Sequence", "Send Mail")`; in an event handler it begins with
`"Package.EventHandlers[OnError]"`. Fields that may contain credentials (connection strings, expressions, values) are
not part of any `repr`.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PureWindowsPath

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis.declarations import (
    Configuration,
    ConnectionManager,
    DatabaseConnection,
    DatabaseKind,
    FileConnection,
    Parameter,
    ProjectSetting,
    SmtpConnection,
    Variable,
)
from airflow_provider_smtpcm.ssis.findings import Finding, Question, Severity

__all__ = [
    "FORCED_RESULTS",
    "Configuration",
    "ConnectionManager",
    "ConstraintValue",
    "Container",
    "ContainerKind",
    "DatabaseConnection",
    "DatabaseKind",
    "DtsContainer",
    "EvalOp",
    "EventHandler",
    "Executable",
    "ExecutableBase",
    "ExpressionTask",
    "FileConnection",
    "Finding",
    "ForLoop",
    "ForeachLoop",
    "Manifest",
    "MessageSourceType",
    "OtherTask",
    "Package",
    "Parameter",
    "PrecedenceConstraint",
    "Project",
    "ProjectSetting",
    "Question",
    "ResultSetType",
    "SendMailTask",
    "Severity",
    "SmtpConnection",
    "SqlParameter",
    "SqlResult",
    "SqlSourceType",
    "SqlTask",
    "Variable",
]

#: The values of ForceExecutionResult in a file, in lower case; empty: nothing is forced.
FORCED_RESULTS = {
    "-1": "",
    "none": "",
    "0": "success",
    "success": "success",
    "1": "failure",
    "failure": "failure",
    "2": "completion",
    "completion": "completion",
}
#: The remedy of an internal error.
REPORT_INTERNAL_ERROR = "Please report it, if possible with the package; only the parts about mail are needed."
_SOURCES = Path(__file__).parent
# The names of the Data Flow task: `Microsoft.Pipeline` since 2012, `SSIS.Pipeline.2` in 2008, and its GUIDs in 2008 and
# 2005.
_DATA_FLOWS = {"PIPELINE", "{5918251B-2970-45A4-AB5F-01C3C588FE5A}", "{C3BF9DC1-4715-4694-936F-D3CFDA9E42C5}"}
_WORDS = re.compile(r"ActiveX|[A-Z]+(?![a-z])|[A-Z][a-z]+|[a-z]+|\d+")
_SPELLINGS = {"Ftp": "FTP", "Wmi": "WMI", "Xml": "XML", "Sql": "SQL", "Exec": "Execute", "80": "DTS 2000"}


class MessageSourceType(StrEnum):
    """The source of a mail's text."""

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
    """Kinds of containers; `TASK_HOST` is an executable of any other type that contains executables."""

    PACKAGE = "package"
    SEQUENCE = "sequence"
    FOR_LOOP = "for loop"
    FOREACH_LOOP = "foreach loop"
    TASK_HOST = "container of another vendor"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecedenceConstraint:
    """A precedence constraint between two executables of one container.

    Args:
        before: the id of the preceding executable.
        after: the id of the constrained executable.
        logical_and: whether all constraints on `after` must be met; otherwise one is enough.
    """

    before: str
    after: str
    name: str = ""
    value: ConstraintValue = ConstraintValue.SUCCESS
    eval_op: EvalOp = EvalOp.CONSTRAINT
    expression: str | None = field(default=None, repr=False)
    logical_and: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class DtsContainer:
    """What tasks, containers and event handlers have in common; SSIS's base class of them has the same name.

    Args:
        variables: those that it declares.
        expressions: by property. A property with an expression has a value as well: the result of its last evaluation
            at design time.
        disabled: whether it or an executable that contains it is disabled. An expression for `Disable` takes precedence
            over the property: the literal True disables it here, and the DAG evaluates any other expression.
        disabled_because: the path of the outermost disabled executable, if `disabled`.
        force_result: the ForceExecutionResult: `success`, `failure` or `completion`; empty for None.
        maximum_errors: the MaximumErrorCount; the executable fails at this number of errors; 0: it never fails.
    """

    variables: tuple[Variable, ...] = ()
    event_handlers: tuple[EventHandler, ...] = ()
    expressions: Mapping[str, str] = field(default_factory=dict, repr=False)
    disabled: bool = False
    disabled_because: str | None = None
    force_result: str = ""
    maximum_errors: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutableBase(DtsContainer):
    """What containers and tasks of all types have in common.

    Args:
        path: as SSIS shows it, such as `("Package", "Sequence", "Send Mail")`.
        kind: the CreationName, such as `Microsoft.Pipeline`; of a container, its `ContainerKind`.
    """

    name: str
    id: str
    path: tuple[str, ...]
    kind: str = ""
    description: str = ""

    @property
    def where(self) -> str:
        r"""The path as text, such as `Package\Sequence\Send Mail`."""
        return "\\".join(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class SendMailTask(ExecutableBase):
    """A Send Mail task.

    Args:
        connection: the connection manager that `connection_reference` names; None if it was not found.
        message_file: the File connection manager, if `message_source_type` is FileConnection and it was found.
        priority: `High`, `Normal`, `Low` or a number, as in the file.
        file_attachments: paths separated by `|`, as in the file.
        has_unreadable_data: whether the task's own properties are missing or encrypted, and so empty here.
        is_unconfigured: whether its properties have never been set.
    """

    kind: str = "Microsoft.SendMailTask"
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
    has_unreadable_data: bool = False
    is_unconfigured: bool = False


class SqlSourceType(StrEnum):
    """Where the statement of an Execute SQL task comes from."""

    DIRECT_INPUT = "DirectInput"
    VARIABLE = "Variable"
    FILE_CONNECTION = "FileConnection"


class ResultSetType(StrEnum):
    """What an Execute SQL task does with the rows of its statement."""

    NONE = "none"
    SINGLE_ROW = "single row"
    FULL = "full result set"
    XML = "XML"


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlResult:
    """A result binding: the column or result set that sets a variable.

    Args:
        name: the name of a column, or its number from 0; `0` for a full result set.
        variable: the qualified name of the variable.
    """

    name: str
    variable: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlParameter:
    """A parameter binding.

    Args:
        name: a number from 0 for a `?` (OLE DB; from 1 for ODBC), or a name such as `@day` (ADO.NET).
        variable: the qualified name of the variable.
        direction: `Input`, `Output` or `ReturnValue`.
        data_type: the number in the package: an OLE DB type, an ODBC type or a .NET `DbType`, depending on the
            kind of the connection manager.
        size: the ParameterSize; -1 if it has none.
    """

    name: str
    variable: str
    direction: str = "Input"
    data_type: int = 0
    size: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlTask(ExecutableBase):
    """An Execute SQL task.

    Args:
        connection: the connection manager that `connection_reference` names; None if it was not found.
        source_type: where the statement comes from.
        statement: the statement, or the name of a variable or File connection manager, by `source_type`.
        statement_file: the File connection manager, if `source_type` is FileConnection and it was found.
        is_stored_procedure: whether the statement is the name of a procedure (ADO.NET).
        timeout: in seconds; 0: no limit.
        row_count: the variable that gets the number of rows that the statement changes (ExecValueVariable), or empty.
    """

    kind: str = "Microsoft.ExecuteSQLTask"
    connection: DatabaseConnection | None = None
    connection_reference: str = ""
    source_type: SqlSourceType = SqlSourceType.DIRECT_INPUT
    statement: str = field(default="", repr=False)
    statement_file: FileConnection | None = None
    result_set: ResultSetType = ResultSetType.NONE
    results: tuple[SqlResult, ...] = ()
    parameters: tuple[SqlParameter, ...] = ()
    is_stored_procedure: bool = False
    timeout: int = 0
    row_count: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpressionTask(ExecutableBase):
    """An Expression task.

    Args:
        expression: an assignment, such as `@[User::Total] = @[User::A] + 1`.
    """

    kind: str = "Microsoft.ExpressionTask"
    expression: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherTask(ExecutableBase):
    """A task of any other type.

    Args:
        sets: the names of the variables that it may set, as the package has them: `User::Rows`, or `Rows` alone.
        reads: the names of the variables that it reads, besides those in its expressions.
        updates: of `sets`, those of which it may use the value that they have before it.
        assignments: pairs of a variable and the expression of its value, if the task is a script that only sets
            variables; empty if the script does nothing; None for any other task. The expressions read the variables as
            they are before the task.
        child_package: the package that it executes, as the package has it.
        child_parameters: pairs of a parameter of `child_package`, and the variable or parameter with its value.
    """

    sets: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    updates: tuple[str, ...] = ()
    assignments: tuple[tuple[str, str], ...] | None = field(default=None, repr=False)
    child_package: str = ""
    child_parameters: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ForLoop:
    """The expressions of a For loop, such as `@i = 0`, `@i < 3` and `@i = @i + 1`; empty if the package has none."""

    initialize: str = ""
    condition: str = ""
    assign: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeachLoop:
    """The enumerator of a Foreach loop, and the variables that it sets for each item.

    Args:
        enumerator: `ADO`, `File`, `Item`, `Variable`, `NodeList`, `SMO`, `SchemaRowset`, or the CreationName of
            another one.
        mappings: pairs of the index of a value and the name of the variable that it sets, as the package has it.
        variable: the name of the variable that holds what it enumerates (`ADO`, `Variable`, `NodeList`).
        enumeration: the EnumType (`ADO`), such as `EnumerateRowsInFirstTable`, or the EnumerationType (`NodeList`).
        folder: the folder (`File`).
        file_spec: the pattern of file names, such as `*.csv` (`File`).
        recurse: whether subfolders count (`File`).
        file_name_retrieval: 0 for the full path, 1 for the name and the extension, 2 for the name alone (`File`).
        items: the rows of values (`Item`).
        expressions: by property of the enumerator, such as `Directory`.
    """

    enumerator: str = ""
    mappings: tuple[tuple[int, str], ...] = ()
    variable: str = ""
    enumeration: str = ""
    folder: str = ""
    file_spec: str = ""
    recurse: bool = False
    file_name_retrieval: int = 0
    items: tuple[tuple[str, ...], ...] = ()
    expressions: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Container(ExecutableBase):
    """A package, a sequence or a loop, with its executables.

    Args:
        for_loop: the expressions, if it is a For loop.
        foreach_loop: the enumerator, if it is a Foreach loop.
    """

    kind: ContainerKind = ContainerKind.SEQUENCE
    executables: tuple[Executable, ...] = ()
    constraints: tuple[PrecedenceConstraint, ...] = ()
    for_loop: ForLoop | None = None
    foreach_loop: ForeachLoop | None = None


Executable = SendMailTask | SqlTask | ExpressionTask | OtherTask | Container


@dataclass(frozen=True, slots=True, kw_only=True)
class EventHandler(DtsContainer):
    """The executables that run on an event of the owner, or of an executable in it, since events bubble up.

    Args:
        event_name: `OnError`, `OnTaskFailed`, `OnPostExecute`, ...
        owner: the path of the package, container or task.
        propagate: the design-time value of System::Propagate; None means True.
    """

    event_name: str
    owner: tuple[str, ...]
    id: str = ""
    executables: tuple[Executable, ...] = ()
    constraints: tuple[PrecedenceConstraint, ...] = ()
    propagate: bool | None = None

    @property
    def where(self) -> str:
        r"""The path as text, such as `Package\Load.EventHandlers[OnError]`."""
        return "\\".join(self.owner) + f".EventHandlers[{self.event_name}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package.

    Args:
        name: its own name, which System::PackageName gives; copies often keep that of their original.
        path: the file, or `project.ispac!Part.dtsx`.
        root: the package itself as a container.
        protection_level: SSIS's number; None means the default, 1 (EncryptSensitiveWithUserKey).
        connection_managers: its own SMTP connection managers, and those of the project that its mails use.
        database_connections: its own OLE DB, ADO.NET and ODBC connection managers.
        configurations: those that it declares, and those whose values were applied.
        unread_configurations: those in effect whose values are neither in the files nor in the answers.
        properties: the values of System variables that the file has, by name: `{"VersionBuild": 7}`.
    """

    name: str
    id: str
    path: str
    root: Container
    format_version: int = 8
    protection_level: int | None = None
    connection_managers: tuple[SmtpConnection, ...] = ()
    file_connections: tuple[FileConnection, ...] = ()
    database_connections: tuple[DatabaseConnection, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    configurations: tuple[Configuration, ...] = ()
    unread_configurations: tuple[Configuration, ...] = ()
    findings: tuple[Finding, ...] = ()
    properties: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def file_stem(self) -> str:
        """The file name without its extension: the package's name in the catalog, dtexec and Execute Package tasks."""
        return PureWindowsPath(self.path.rpartition("!")[2]).stem or self.name

    def walk_mail_tasks(self) -> Iterator[tuple[SendMailTask, EventHandler | None]]:
        """Yield every Send Mail task, including disabled ones, with the innermost event handler that contains it."""
        for executable, handler in self.walk_executables():
            if isinstance(executable, SendMailTask):
                yield executable, handler

    def walk_executables(self) -> Iterator[tuple[Executable, EventHandler | None]]:
        """Yield every executable with the innermost event handler that contains it.

        Depth-first from the root; the executables of a container come before those of its event handlers.
        """
        return _walk(self.root, None)

    @property
    def send_mail_tasks(self) -> tuple[SendMailTask, ...]:
        """All Send Mail tasks, including those in event handlers and disabled ones."""
        return tuple(task for task, _ in self.walk_mail_tasks())

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The variables of all scopes, including those that an inner variable of the same name hides."""
        variables: list[Variable] = []
        seen_handlers: set[int] = set()
        for executable, handler in self.walk_executables():
            if handler is not None and id(handler) not in seen_handlers:
                seen_handlers.add(id(handler))
                variables += handler.variables
            variables += executable.variables
        return tuple(variables)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Values from the `@Project.manifest` of an `.ispac`, or from a `.dtproj`.

    The keys are in lower case, except the names of configurations. The key of the project itself, in place of a
    package, is an empty string.

    Args:
        source: the file.
        values: properties of connection managers, by package and `name.property`.
        configurations: values of parameters, by package, parameter and configuration.
    """

    source: str
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    configurations: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project.

    Args:
        path: a folder, or an `.ispac`.
        unreadable: the files that could not be read, with their errors.
    """

    name: str
    path: str
    packages: tuple[Package, ...] = ()
    connection_managers: tuple[SmtpConnection, ...] = ()
    file_connections: tuple[FileConnection, ...] = ()
    database_connections: tuple[DatabaseConnection, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    manifest: Manifest | None = None
    unreadable: tuple[tuple[str, PackageError], ...] = ()


def walk_executables(executables: Iterable[Executable]) -> Iterator[Executable]:
    """Yield executables, each followed by those that it contains, but not those of event handlers."""
    for executable in executables:
        yield executable
        if isinstance(executable, Container):
            yield from walk_executables(executable.executables)


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


def describe_kind(kind: str) -> str:
    """Return the name that the designer shows for a kind of task, such as `Execute SQL task`.

    Args:
        kind: a CreationName: `Microsoft.ExecuteSQLTask`, `SSIS.Pipeline.3`, a GUID, or a .NET type name. A
            `ContainerKind` is returned as it is.
    """
    if isinstance(kind, ContainerKind):
        return kind
    name = re.split(r"[.:]", re.sub(r"\.\d+$", "", kind.partition(",")[0].strip()))[-1]
    if name.upper() in _DATA_FLOWS:
        return "Data Flow task"
    words = [_SPELLINGS.get(word, word) for word in _WORDS.findall(name) if word != "Task"]
    return f"{' '.join(words)} task" if words and not name.startswith("{") else f"task {name}".rstrip()


def describe_internal_error(error: Exception) -> str:
    """Return a message for an exception that the importer should not raise, with the source line that raised it."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(_SOURCES)
    ]
    location = f" ({Path(frames[-1].filename).relative_to(_SOURCES)}, line {frames[-1].lineno})" if frames else ""
    return f"The importer itself failed here: {type(error).__name__}: {error}{location}."
