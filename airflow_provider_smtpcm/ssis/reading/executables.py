"""Reads the control flow of a package: tasks, containers, precedence constraints and event handlers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict, TypeVar

from airflow_provider_smtpcm.ssis.findings import Question, ask_for_connection_manager
from airflow_provider_smtpcm.ssis.model import (
    ConstraintValue,
    Container,
    ContainerKind,
    EvalOp,
    EventHandler,
    Executable,
    FileConnection,
    Finding,
    MessageSourceType,
    OtherTask,
    PrecedenceConstraint,
    SendMailTask,
    Severity,
    SmtpConnection,
    Variable,
)
from airflow_provider_smtpcm.ssis.reading.configurations import PropertyOverrides
from airflow_provider_smtpcm.ssis.reading.connection_managers import ConnectionManager, ConnectionManagers
from airflow_provider_smtpcm.ssis.reading.variables import read_propagate, read_variables
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

ROOT = "Package"

_CONTAINERS = {
    "STOCK:SEQUENCE": ContainerKind.SEQUENCE,
    "STOCK:FORLOOP": ContainerKind.FOR_LOOP,
    "STOCK:FOREACHLOOP": ContainerKind.FOREACH_LOOP,
}
# SSIS writes a name or a number. The first value of each table is the default.
_CONSTRAINT_VALUES = {
    "0": ConstraintValue.SUCCESS,
    "success": ConstraintValue.SUCCESS,
    "1": ConstraintValue.FAILURE,
    "failure": ConstraintValue.FAILURE,
    "2": ConstraintValue.COMPLETION,
    "completion": ConstraintValue.COMPLETION,
}
_EVAL_OPS = {
    "2": EvalOp.CONSTRAINT,
    "constraint": EvalOp.CONSTRAINT,
    "1": EvalOp.EXPRESSION,
    "expression": EvalOp.EXPRESSION,
    "3": EvalOp.EXPRESSION_AND_CONSTRAINT,
    "expressionandconstraint": EvalOp.EXPRESSION_AND_CONSTRAINT,
    "4": EvalOp.EXPRESSION_OR_CONSTRAINT,
    "expressionorconstraint": EvalOp.EXPRESSION_OR_CONSTRAINT,
}
_MESSAGE_SOURCES = {
    "directinput": MessageSourceType.DIRECT_INPUT,
    "fileconnection": MessageSourceType.FILE_CONNECTION,
    "variable": MessageSourceType.VARIABLE,
    "0": MessageSourceType.DIRECT_INPUT,
    "1": MessageSourceType.FILE_CONNECTION,
    "2": MessageSourceType.VARIABLE,
}
# PackageFormatVersion of SSIS 2012, the first one that omits properties with default values.
_FIRST_FORMAT_WITHOUT_DEFAULTS = 6
_MAX_FINDING_LENGTH = 500  # characters

ConstraintEnum = TypeVar("ConstraintEnum", ConstraintValue, EvalOp)


@dataclass(slots=True, kw_only=True)
class ReadContext:
    """State shared by the functions that read one package.

    Args:
        package_connections: the connection managers of the package.
        project_connections: the connection managers of its project.
        overrides: values from package configurations.
        format_version: the PackageFormatVersion.
        findings: the findings so far.
        ids: the executable ids so far.
        mail_connections: the connection manager of each Send Mail task so far; None if it was not found.
    """

    package_connections: ConnectionManagers
    project_connections: ConnectionManagers
    overrides: PropertyOverrides
    format_version: int
    findings: list[Finding] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    mail_connections: list[SmtpConnection | None] = field(default_factory=list)

    def add_finding(
        self,
        code: str,
        severity: Severity,
        path: tuple[str, ...],
        text: str,
        remedy: str = "",
        *,
        question: Question | None = None,
    ) -> None:
        """Add a finding, with its text on one line and truncated to 500 characters."""
        text = " ".join(text.split())
        text = text if len(text) <= _MAX_FINDING_LENGTH else f"{text[:_MAX_FINDING_LENGTH]}…"
        where = "\\".join(path)
        self.findings.append(
            Finding(code=code, severity=severity, where=where, text=text, remedy=remedy, question=question)
        )

    def make_unique_id(self, candidates: tuple[str, ...], path: tuple[str, ...]) -> str:
        """Return an id that no other executable has; GUIDs repeat where tasks were copied by hand.

        Args:
            candidates: the GUID and the refId in the file.
            path: the path of the executable, which becomes the id if all candidates are taken.
        """
        where = "\\".join(path)
        id_ = next((candidate for candidate in (*candidates, where) if candidate not in self.ids), None)
        count = 2
        while id_ is None:
            id_ = None if f"{where}#{count}" in self.ids else f"{where}#{count}"
            count += 1
        self.ids.add(id_)
        return id_

    def find_connection_manager(self, reference: str) -> ConnectionManager | None:
        """Find a connection manager in the package, then in its project."""
        return self.package_connections.find(reference) or self.project_connections.find(reference)


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """The path of an executable; if it is disabled, also the path of the outermost executable that disables it."""

    path: tuple[str, ...]
    disabled_because: str | None = None

    def enter(self, name: str, element: Element) -> Location:
        """Return the location of an executable inside this one."""
        return self._at((*self.path, name), element)

    def enter_handler(self, event_name: str, element: Element) -> Location:
        """Return the location of an event handler of this executable, in the form of a refId."""
        return self._at((*self.path[:-1], f"{self.path[-1]}.EventHandlers[{event_name}]"), element)

    def _at(self, path: tuple[str, ...], element: Element) -> Location:
        # An expression takes precedence over the property, but only a literal can be evaluated here.
        expression = read_expressions(element).get("Disable")
        is_disabled = (
            get_flag(element, "Disabled") if expression is None else expression.strip().lower() in {"true", "1"}
        )
        disabled_path = "\\".join(path) if is_disabled else None
        return Location(path=path, disabled_because=self.disabled_because or disabled_path)


class _CommonFields(TypedDict):
    """The fields that all executables have."""

    name: str
    id: str
    path: tuple[str, ...]
    description: str
    expressions: dict[str, str]
    disabled: bool
    disabled_because: str | None
    event_handlers: tuple[EventHandler, ...]
    variables: tuple[Variable, ...]


class _MailFields(TypedDict):
    """The fields of a `SendMailTask` from its ObjectData."""

    connection: SmtpConnection | None
    connection_reference: str
    from_line: str
    to_line: str
    cc_line: str
    bcc_line: str
    subject: str
    message_source_type: MessageSourceType
    message_source: str
    message_file: FileConnection | None
    priority: str
    file_attachments: str
    has_unreadable_data: bool


def read_root(element: Element, context: ReadContext) -> Container:
    """Return the package as a container.

    Args:
        element: the root element.
        context: collects the findings.
    """
    location = Location(path=()).enter(ROOT, element)
    executables, constraints = _read_members(element, location, context)
    return Container(
        **_read_common(element, location, context, name=get_text(element, "ObjectName") or ROOT),
        kind=ContainerKind.PACKAGE,
        executables=executables,
        constraints=constraints,
    )


def _read_executable(element: Element, parent: Location, context: ReadContext) -> Executable:
    kind = _read_kind(element)
    name = get_text(element, "ObjectName") or kind
    location = parent.enter(name, element)
    if _is_send_mail_kind(kind) or find_object_data(element, "SendMailTaskData") is not None:
        # Reserve the task's place: the Send Mail tasks in its event handlers are read first but come after it.
        index = len(context.mail_connections)
        context.mail_connections.append(None)
        common = _read_common(element, location, context, name=name)
        mail = _read_mail(element, location.path, context, common)
        context.mail_connections[index] = mail["connection"]
        return SendMailTask(**common, **mail)
    has_members = next(find_members(element, "Executables", "Executable"), None) is not None
    container = _CONTAINERS.get(kind.upper(), ContainerKind.TASK_HOST if has_members else None)
    if container is None:
        if _is_other_mail_kind(kind):
            context.add_finding(
                "other-mail-task",
                Severity.NOTE if location.disabled_because else Severity.DECISION,
                location.path,
                f"{kind} is another vendor's mail task, which is not converted.",
                "Write a SendMailOperator for it.",
            )
        return OtherTask(**_read_common(element, location, context, name=name), kind=kind)
    executables, constraints = _read_members(element, location, context)
    return Container(
        **_read_common(element, location, context, name=name),
        kind=container,
        executables=executables,
        constraints=constraints,
    )


def _read_kind(element: Element) -> str:
    """Return the CreationName or the ExecutableType: a Send Mail task or container if either names one.

    SSIS 2005 and 2008 write the ExecutableType as a .NET type name.
    """
    names = [
        get_text(element, "CreationName").strip(),
        get_text(element, "ExecutableType").partition(",")[0].strip(),
    ]
    mail_task = next((name for name in names if _is_send_mail_kind(name)), None)
    container = next((name for name in names if name.upper() in _CONTAINERS), None)
    return mail_task or container or next(filter(None, names), "")


def _is_send_mail_kind(kind: str) -> bool:
    """Whether a CreationName is that of SSIS's own Send Mail task, in any version."""
    return "sendmailtask" in kind.lower() and kind.lower().startswith(("microsoft.", "stock:"))


def _is_other_mail_kind(kind: str) -> bool:
    """Whether a CreationName looks like another vendor's mail task."""
    return any(word in kind.lower() for word in ("sendmail", "smtp", "email"))


def _read_common(element: Element, location: Location, context: ReadContext, *, name: str) -> _CommonFields:
    handlers = find_members(element, "EventHandlers", "EventHandler")
    return _CommonFields(
        name=name,
        id=context.make_unique_id(read_ids(element), location.path),
        path=location.path,
        description=get_text(element, "Description"),
        expressions=read_expressions(element),
        disabled=location.disabled_because is not None,
        disabled_because=location.disabled_because,
        event_handlers=tuple(_read_handler(handler, location, context) for handler in handlers),
        variables=read_variables(element, location.path, context.overrides),
    )


def _read_members(
    element: Element, location: Location, context: ReadContext
) -> tuple[tuple[Executable, ...], tuple[PrecedenceConstraint, ...]]:
    """Return the executables of a container, and the precedence constraints between them."""
    id_by_reference: dict[str, str] = {}
    executables = []
    for child in find_members(element, "Executables", "Executable"):
        executable = _read_executable(child, location, context)
        executables.append(executable)
        for reference in (*read_ids(child), "\\".join(executable.path), executable.name):
            if reference:
                id_by_reference.setdefault(reference, executable.id)
    return tuple(executables), _read_constraints(element, location.path, id_by_reference, context)


def _read_handler(element: Element, owner: Location, context: ReadContext) -> EventHandler:
    event_name = get_text(element, "EventName") or get_text(element, "CreationName") or get_text(element, "ObjectName")
    location = owner.enter_handler(event_name, element)
    executables, constraints = _read_members(element, location, context)
    nested = find_members(element, "EventHandlers", "EventHandler")
    return EventHandler(
        event_name=event_name,
        owner=owner.path,
        id=context.make_unique_id(read_ids(element), location.path),
        executables=executables,
        constraints=constraints,
        variables=read_variables(element, location.path, context.overrides),
        event_handlers=tuple(_read_handler(handler, location, context) for handler in nested),
        expressions=read_expressions(element),
        disabled=location.disabled_because is not None,
        disabled_because=location.disabled_because,
        propagate=read_propagate(element),
    )


# --- Precedence constraints. Their ends are refIds in attributes, or GUIDs in two child elements (2005, 2008)


def _read_constraints(
    element: Element, path: tuple[str, ...], id_by_reference: Mapping[str, str], context: ReadContext
) -> tuple[PrecedenceConstraint, ...]:
    """Return the precedence constraints of a container.

    Args:
        element: the container.
        path: the path of the container.
        id_by_reference: the ids of its executables, by every reference that a constraint may use.
        context: collects the findings.
    """
    constraints = []
    for constraint in find_members(element, "PrecedenceConstraints", "PrecedenceConstraint"):
        before, after = (id_by_reference.get(normalize_id(reference)) for reference in _read_ends(constraint))
        name = get_text(constraint, "ObjectName")
        if before is None or after is None:
            context.add_finding(
                "dangling-precedence-constraint",
                Severity.DECISION,
                path,
                f"The precedence constraint {name!r} begins or ends at a missing executable; it was left out.",
                "Check the order of the tasks around it.",
            )
            continue
        expression = get_text(constraint, "Expression")
        # A missing LogicalAnd means False in formats that omit default values, and True in older ones.
        default = context.format_version < _FIRST_FORMAT_WITHOUT_DEFAULTS
        constraints.append(
            PrecedenceConstraint(
                name=name,
                before=before,
                after=after,
                value=_read_enum(constraint, "Value", _CONSTRAINT_VALUES, path, context),
                eval_op=_read_enum(constraint, "EvalOp", _EVAL_OPS, path, context),
                expression=expression if expression.strip() else None,
                logical_and=get_flag(constraint, "LogicalAnd", default=default),
            )
        )
    return tuple(constraints)


def _read_ends(element: Element) -> tuple[str, str]:
    before, after = get_text(element, "From"), get_text(element, "To")
    for end in element.find_all("Executable"):
        if get_flag(end, "IsFrom"):
            before = end.attributes.get("IDREF", "")
        else:
            after = end.attributes.get("IDREF", "")
    return before, after


def _read_enum(
    element: Element, name: str, members: Mapping[str, ConstraintEnum], path: tuple[str, ...], context: ReadContext
) -> ConstraintEnum:
    """Return a property of a precedence constraint; the first of `members` if it is missing or unknown."""
    value = get_text(element, name).strip().lower()
    default = next(iter(members.values()))
    if value and value not in members:
        constraint = get_text(element, "ObjectName")
        context.add_finding(
            "unknown-precedence",
            Severity.DECISION,
            path,
            f"{name} of the precedence constraint {constraint!r} is {value!r}, which SSIS does not define; "
            f"{default.value!r} was used.",
            "Check the order of the tasks around it.",
        )
    return members.get(value, default)


# --- Send Mail tasks


def _read_mail(element: Element, path: tuple[str, ...], context: ReadContext, common: _CommonFields) -> _MailFields:
    data = find_object_data(element, "SendMailTaskData")
    expressions, disabled = common["expressions"], common["disabled"]
    if data is None:
        context.add_finding(
            "unreadable-mail",
            Severity.ERROR,
            path,
            "The task's own properties are missing or encrypted; only its expressions could be read.",
            "Save the package with ProtectionLevel DontSaveSensitive and import it again.",
        )

    def read(attribute: str, property_name: str, default: str = "") -> str:
        value = data.attributes.get(attribute, default) if data is not None else default
        return context.overrides.task_property(path, property_name, value)

    reference = read("SMTPServer", "SmtpConnection").strip()
    connection = context.find_connection_manager(reference)
    source_type = _read_source_type(read("MessageSourceType", "MessageSourceType"), path, context)
    source = read("MessageSource", "MessageSource")
    if not isinstance(connection, SmtpConnection) and data is not None and "SmtpConnection" not in expressions:
        _report_missing_connection(reference, path, context, disabled=disabled)
    file = None
    if source_type is MessageSourceType.FILE_CONNECTION:
        file = context.find_connection_manager(source)
        if not isinstance(file, FileConnection) and "MessageSource" not in expressions:
            context.add_finding(
                "dangling-file-connection",
                Severity.NOTE if disabled else Severity.DECISION,
                path,
                f"The text comes from the File connection manager {source!r}, which is in neither the package nor "
                "its project.",
                "Write the path of the file in the DAG.",
            )
    attachments = () if data is None else data.find_all("Attachments")
    files = "|".join(name for attachment in attachments if (name := attachment.attributes.get("FileName", "")).strip())
    return _MailFields(
        connection=connection if isinstance(connection, SmtpConnection) else None,
        connection_reference=reference,
        from_line=read("From", "FromLine"),
        to_line=read("To", "ToLine"),
        cc_line=read("CC", "CCLine"),
        bcc_line=read("BCC", "BCCLine"),
        subject=read("Subject", "Subject"),
        message_source_type=source_type,
        message_source=source,
        message_file=file if isinstance(file, FileConnection) else None,
        priority=read("Priority", "Priority", "Normal"),
        file_attachments=context.overrides.task_property(path, "FileAttachments", files),
        has_unreadable_data=data is None,
    )


def _read_source_type(value: str, path: tuple[str, ...], context: ReadContext) -> MessageSourceType:
    source_type = _MESSAGE_SOURCES.get(value.strip().lower() or "directinput")
    if source_type is None:
        context.add_finding(
            "unknown-message-source-type",
            Severity.DECISION,
            path,
            f"MessageSourceType is {value!r}, which SSIS does not define; DirectInput was used.",
            "Check where the text of the mail should come from.",
        )
    return source_type or MessageSourceType.DIRECT_INPUT


def _report_missing_connection(reference: str, path: tuple[str, ...], context: ReadContext, *, disabled: bool) -> None:
    candidates = context.package_connections.smtp or context.project_connections.smtp
    where = "package" if context.package_connections.smtp else "project"
    if len(candidates) == 1:
        name = candidates[0].name
        remedy = f"The {where} has one SMTP connection manager, {name!r}; use it if it is the intended one."
    elif candidates:
        names = ", ".join(repr(candidate.name) for candidate in candidates[:10])
        remedy = f"Choose one of the {where}'s SMTP connection managers: {names}."
    else:
        remedy = (
            "Import the package together with its project, which may contain the connection manager, or set "
            "smtpcm_conn_id in the DAG."
        )
    severity = Severity.NOTE if disabled else Severity.DECISION
    others = context.package_connections.others
    other = others.get(reference) or others.get(reference.upper())
    if not reference:
        text = "The task has no SMTP connection manager; SSIS fails here."
        context.add_finding("no-connection-manager", severity, path, text, remedy)
    elif other or context.find_connection_manager(reference):
        text = f"The task refers to {other or reference!r}, which is not an SMTP connection manager; SSIS fails here."
        context.add_finding("connection-manager-not-smtp", severity, path, text, remedy)
    else:
        text = (
            f"The task refers to the SMTP connection manager {reference}, which is in neither the package nor its "
            "project."
        )
        guess = candidates[0].name if len(candidates) == 1 else ""
        question = ask_for_connection_manager(reference, guess)
        context.add_finding("dangling-connection-manager", severity, path, text, remedy, question=question)
