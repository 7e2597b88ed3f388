"""Tasks and containers of all kinds, nested, with what hangs on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict, TypeVar

from airflow_provider_smtpcm.ssis.model import (
    ConstraintValue,
    Container,
    ContainerKind,
    EvalOp,
    EventHandler,
    Executable,
    FileConnection,
    MessageSourceType,
    OtherTask,
    PrecedenceConstraint,
    SendMailTask,
    Severity,
    SmtpConnection,
    Variable,
)
from airflow_provider_smtpcm.ssis.reading.context import Place, Reading, read_propagate, read_variables
from airflow_provider_smtpcm.ssis.reading.xml import Node, expressions, flag, ids, members, normal_id, object_data, text

# folded: Precedence constraints, in both dialects: by refId in attributes, or by GUID in two child elements.

_VALUES = {
    "0": ConstraintValue.SUCCESS,
    "success": ConstraintValue.SUCCESS,
    "1": ConstraintValue.FAILURE,
    "failure": ConstraintValue.FAILURE,
    "2": ConstraintValue.COMPLETION,
    "completion": ConstraintValue.COMPLETION,
}
_OPERATIONS = {
    "2": EvalOp.CONSTRAINT,
    "constraint": EvalOp.CONSTRAINT,
    "1": EvalOp.EXPRESSION,
    "expression": EvalOp.EXPRESSION,
    "3": EvalOp.EXPRESSION_AND_CONSTRAINT,
    "expressionandconstraint": EvalOp.EXPRESSION_AND_CONSTRAINT,
    "4": EvalOp.EXPRESSION_OR_CONSTRAINT,
    "expressionorconstraint": EvalOp.EXPRESSION_OR_CONSTRAINT,
}
_FIRST_WITH_ATTRIBUTES = 6

T = TypeVar("T", ConstraintValue, EvalOp)


def read_constraints(
    node: Node, path: tuple[str, ...], known: Mapping[str, str], reading: Reading
) -> tuple[PrecedenceConstraint, ...]:
    """The constraints of a container.

    Args:
        known: the ids of what runs in it, by all that a constraint may call it.
    """
    found = []
    for one in members(node, "PrecedenceConstraints", "PrecedenceConstraint"):
        before, after = (known.get(normal_id(reference)) for reference in _ends(one))
        name = text(one, "ObjectName")
        if before is None or after is None:
            reading.find(
                "dangling-precedence-constraint",
                Severity.DECISION,
                path,
                f"The precedence constraint {name!r} leads to or from something that is not there; left out.",
                "Look at the order of the tasks around it.",
            )
            continue
        expression = text(one, "Expression")
        # From 2012 on False is not written; before, everything is.
        lenient = reading.format_version < _FIRST_WITH_ATTRIBUTES
        found.append(
            PrecedenceConstraint(
                name=name,
                before=before,
                after=after,
                value=_word(one, "Value", _VALUES, path, reading),
                eval_op=_word(one, "EvalOp", _OPERATIONS, path, reading),
                expression=expression if expression.strip() else None,
                logical_and=flag(one, "LogicalAnd", default=lenient),
            )
        )
    return tuple(found)


def _ends(node: Node) -> tuple[str, str]:
    before, after = text(node, "From"), text(node, "To")
    for end in node.all("Executable"):
        if flag(end, "IsFrom"):
            before = end.attributes.get("IDREF", "")
        else:
            after = end.attributes.get("IDREF", "")
    return before, after


def _word(node: Node, name: str, words: Mapping[str, T], path: tuple[str, ...], reading: Reading) -> T:
    """A word or its number; the first of the words is the default."""
    value = text(node, name).strip().lower()
    if value and value not in words:
        reading.find(
            "unknown-precedence",
            Severity.DECISION,
            path,
            f"{name} of the precedence constraint {text(node, 'ObjectName')!r} is {value!r}, which SSIS does not know.",
            "Look at the order of the tasks around it.",
        )
    return words.get(value) or next(iter(words.values()))


# folded: A Send Mail task: its properties and what it refers to.

_SOURCES = {
    "directinput": MessageSourceType.DIRECT_INPUT,
    "fileconnection": MessageSourceType.FILE_CONNECTION,
    "variable": MessageSourceType.VARIABLE,
    "0": MessageSourceType.DIRECT_INPUT,
    "1": MessageSourceType.FILE_CONNECTION,
    "2": MessageSourceType.VARIABLE,
}


class MailFields(TypedDict):
    """The part of a `SendMailTask` that stands in its data."""

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


def is_send_mail(node: Node, kind: str) -> bool:
    """By what it calls itself, which each version of SSIS does in its own way, or by its data."""
    return is_send_mail_kind(kind) or object_data(node, "SendMailTaskData") is not None


def is_send_mail_kind(kind: str) -> bool:
    """SSIS's own task, not one of another vendor that is called alike."""
    return "sendmailtask" in kind.lower() and kind.lower().startswith(("microsoft.", "stock:"))


def looks_like_mail(kind: str) -> bool:
    """A task of another vendor that sends mail."""
    return any(word in kind.lower() for word in ("sendmail", "smtp", "email"))


def read_mail(node: Node, path: tuple[str, ...], reading: Reading, *, disabled: bool, computed: set[str]) -> MailFields:
    """The mail of a task. What `computed` names comes from an expression when it runs."""
    data = object_data(node, "SendMailTaskData")
    if data is None:
        reading.find(
            "unreadable-mail",
            Severity.ERROR,
            path,
            "The task's own properties are missing or encrypted, so that nothing but its expressions is known.",
            "Save the package with ProtectionLevel DontSaveSensitive and import it again.",
        )

    def attribute(name: str, ssis_property: str, default: str = "") -> str:
        value = data.attributes.get(name, default) if data is not None else default
        return reading.overrides.attribute(path, ssis_property, value)

    reference = attribute("SMTPServer", "SmtpConnection").strip()
    connection = reading.own.find(reference) or reading.project.find(reference)
    source_type = _source_type(attribute("MessageSourceType", "MessageSourceType"), path, reading)
    source = attribute("MessageSource", "MessageSource")
    if not isinstance(connection, SmtpConnection) and data is not None and "SmtpConnection" not in computed:
        _without_connection(reference, path, reading, disabled=disabled)
    file = None
    if source_type is MessageSourceType.FILE_CONNECTION:
        file = reading.own.find(source) or reading.project.find(source)
        if not isinstance(file, FileConnection) and "MessageSource" not in computed:
            reading.find(
                "dangling-file-connection",
                Severity.NOTE if disabled else Severity.DECISION,
                path,
                f"The text comes from the File connection manager {source!r}, which neither package nor project has.",
                "Give the path of the file.",
            )
    written = () if data is None else data.all("Attachments")
    files = "|".join(name for one in written if (name := one.attributes.get("FileName", "")).strip())
    return MailFields(
        connection=connection if isinstance(connection, SmtpConnection) else None,
        connection_reference=reference,
        from_line=attribute("From", "FromLine"),
        to_line=attribute("To", "ToLine"),
        cc_line=attribute("CC", "CCLine"),
        bcc_line=attribute("BCC", "BCCLine"),
        subject=attribute("Subject", "Subject"),
        message_source_type=source_type,
        message_source=source,
        message_file=file if isinstance(file, FileConnection) else None,
        priority=attribute("Priority", "Priority", "Normal"),
        file_attachments=reading.overrides.attribute(path, "FileAttachments", files),
        has_unreadable_data=data is None,
    )


def _source_type(value: str, path: tuple[str, ...], reading: Reading) -> MessageSourceType:
    known = _SOURCES.get(value.strip().lower() or "directinput")
    if known is None:
        reading.find(
            "unknown-message-source-type",
            Severity.DECISION,
            path,
            f"MessageSourceType is {value!r}, which SSIS does not know; taken as DirectInput.",
            "Look at where the text should come from.",
        )
    return known or MessageSourceType.DIRECT_INPUT


def _without_connection(reference: str, path: tuple[str, ...], reading: Reading, *, disabled: bool) -> None:
    severity = Severity.NOTE if disabled else Severity.DECISION
    reach = reading.own.smtp or reading.project.smtp
    where = "package" if reading.own.smtp else "project"
    if len(reach) == 1:
        remedy = f"The {where} has exactly one SMTP connection manager, {reach[0].name!r}; take it if it is meant."
    elif reach:
        names = ", ".join(repr(one.name) for one in reach[:10])
        remedy = f"Choose among the SMTP connection managers of the {where}: {names}."
    else:
        remedy = "Import it together with its project, which may hold the connection manager, or name a connection."
    if not reference:
        reading.find(
            "no-connection-manager", severity, path, "No SMTP connection manager is set; SSIS fails here.", remedy
        )
        return
    other = reading.own.others.get(reference) or reading.own.others.get(reference.upper())
    if other or reading.own.find(reference) or reading.project.find(reference):
        said = f"The task refers to {other or reference!r}, which is no SMTP connection manager; SSIS fails here."
        reading.find("connection-manager-not-smtp", severity, path, said, remedy)
        return
    said = f"The task refers to the SMTP connection manager {reference}, which is not in the package or its project."
    reading.find("dangling-connection-manager", severity, path, said, remedy)


# folded: here began the module itself

_CONTAINERS = {
    "STOCK:SEQUENCE": ContainerKind.SEQUENCE,
    "STOCK:FORLOOP": ContainerKind.FOR_LOOP,
    "STOCK:FOREACHLOOP": ContainerKind.FOREACH_LOOP,
}
ROOT = "Package"


class _Common(TypedDict):
    """What every executable has."""

    name: str
    id: str
    path: tuple[str, ...]
    description: str
    expressions: dict[str, str]
    disabled: bool
    disabled_because: str | None
    event_handlers: tuple[EventHandler, ...]
    variables: tuple[Variable, ...]


def read_root(node: Node, reading: Reading) -> Container:
    """The package itself, as a container."""
    place = Place(path=()).inside(ROOT, node)
    executables, constraints = _inside(node, place, reading)
    return Container(
        **_common(node, place, reading, name=text(node, "ObjectName") or ROOT),
        kind=ContainerKind.PACKAGE,
        executables=executables,
        constraints=constraints,
    )


def _executable(node: Node, around: Place, reading: Reading) -> Executable:
    kind = _kind(node)
    name = text(node, "ObjectName") or kind
    place = around.inside(name, node)
    if is_send_mail(node, kind):
        common = _common(node, place, reading, name=name)
        computed = set(common["expressions"])
        return SendMailTask(
            **common, **read_mail(node, place.path, reading, disabled=common["disabled"], computed=computed)
        )
    nested = next(members(node, "Executables", "Executable"), None) is not None
    container = _CONTAINERS.get(kind.upper(), ContainerKind.TASK_HOST if nested else None)
    if container is None:
        if looks_like_mail(kind):
            reading.find(
                "other-mail-task",
                Severity.NOTE if place.disabled_because else Severity.DECISION,
                place.path,
                f"{kind} is a mail task that did not come with SSIS; it is not read.",
                "Write a SendMailOperator for it.",
            )
        return OtherTask(**_common(node, place, reading, name=name), kind=kind)
    executables, constraints = _inside(node, place, reading)
    return Container(
        **_common(node, place, reading, name=name), kind=container, executables=executables, constraints=constraints
    )


def _kind(node: Node) -> str:
    """Its CreationName, or its ExecutableType, which in 2005 and 2008 is a .NET name with its assembly."""
    names = [text(node, "CreationName").strip(), text(node, "ExecutableType").partition(",")[0].strip()]
    mail = next((name for name in names if is_send_mail_kind(name)), None)
    stock = next((name for name in names if name.upper() in _CONTAINERS), None)
    return mail or stock or next(filter(None, names), "")


def _common(node: Node, place: Place, reading: Reading, *, name: str) -> _Common:
    return _Common(
        name=name,
        id=reading.unique(ids(node), place.path),
        path=place.path,
        description=text(node, "Description"),
        expressions=expressions(node),
        disabled=place.disabled_because is not None,
        disabled_because=place.disabled_because,
        event_handlers=tuple(_handler(one, place, reading) for one in members(node, "EventHandlers", "EventHandler")),
        variables=read_variables(node, place.path, reading.overrides),
    )


def _inside(
    node: Node, place: Place, reading: Reading
) -> tuple[tuple[Executable, ...], tuple[PrecedenceConstraint, ...]]:
    """What runs in it, and the arrows between."""
    known: dict[str, str] = {}
    executables = []
    for child in members(node, "Executables", "Executable"):
        one = _executable(child, place, reading)
        executables.append(one)
        for reference in (*ids(child), "\\".join(one.path), one.name):
            if reference:
                known.setdefault(reference, one.id)
    return tuple(executables), read_constraints(node, place.path, known, reading)


def _handler(node: Node, owner: Place, reading: Reading) -> EventHandler:
    event_name = text(node, "EventName") or text(node, "CreationName") or text(node, "ObjectName")
    place = owner.handler(event_name, node)
    executables, constraints = _inside(node, place, reading)
    nested = members(node, "EventHandlers", "EventHandler")
    return EventHandler(
        event_name=event_name,
        owner=owner.path,
        id=reading.unique(ids(node), place.path),
        executables=executables,
        constraints=constraints,
        variables=read_variables(node, place.path, reading.overrides),
        event_handlers=tuple(_handler(one, place, reading) for one in nested),
        expressions=expressions(node),
        disabled=place.disabled_because is not None,
        disabled_because=place.disabled_because,
        propagate=read_propagate(node),
    )
