"""Reads Send Mail tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from airflow_provider_smtpcm.ssis.findings import ask_for_connection_manager
from airflow_provider_smtpcm.ssis.model import FileConnection, MessageSourceType, Severity, SmtpConnection
from airflow_provider_smtpcm.ssis.reading.context import CommonFields, ReadContext
from airflow_provider_smtpcm.ssis.reading.xml import Element, find_object_data

_MESSAGE_SOURCES = {
    "directinput": MessageSourceType.DIRECT_INPUT,
    "fileconnection": MessageSourceType.FILE_CONNECTION,
    "variable": MessageSourceType.VARIABLE,
    "0": MessageSourceType.DIRECT_INPUT,
    "1": MessageSourceType.FILE_CONNECTION,
    "2": MessageSourceType.VARIABLE,
}
# If one of these properties has an expression, the task was configured, even if all of its values are empty.
_MAIL_EXPRESSIONS = {
    "SmtpConnection",
    "FromLine",
    "ToLine",
    "CCLine",
    "BCCLine",
    "Subject",
    "MessageSource",
    "FileAttachments",
}


class MailFields(TypedDict):
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
    is_unconfigured: bool


def read_mail(element: Element, path: tuple[str, ...], context: ReadContext, common: CommonFields) -> MailFields:
    """Return the properties of a Send Mail task.

    Findings report properties that cannot be read or were never filled in, and missing connection managers.

    Args:
        element: the task.
        path: its path.
        context: resolves references, and collects the findings.
        common: the fields that all executables have.
    """
    data = _find_data(element)
    expressions, disabled = common["expressions"], common["disabled"]
    if data is None:
        context.add_finding(
            "unreadable-mail",
            Severity.NOTE if disabled else Severity.ERROR,
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
    file = None
    if source_type is MessageSourceType.FILE_CONNECTION:
        file = context.find_connection_manager(source)
        if not isinstance(file, FileConnection) and "MessageSource" not in expressions:
            context.add_finding(
                "dangling-file-connection",
                Severity.NOTE if disabled else Severity.DECISION,
                path,
                "The text comes from a file, but neither the package nor its project has a File connection manager "
                f"{source!r}.",
                "Write the path of the file in the DAG.",
            )
    attachments = () if data is None else data.find_all("Attachments")
    files = "|".join(name for attachment in attachments if (name := attachment.attributes.get("FileName", "")).strip())
    fields = MailFields(
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
        is_unconfigured=False,
    )
    if data is not None and _is_unconfigured(fields, expressions):
        context.add_finding(
            "unconfigured-mail",
            Severity.NOTE if disabled else Severity.DECISION,
            path,
            "The Send Mail task was never configured: it has no connection manager, addresses, subject or text. SSIS "
            "fails here.",
            "Delete its task from the DAG, or complete it.",
        )
        return {**fields, "is_unconfigured": True}
    if not isinstance(connection, SmtpConnection) and data is not None and "SmtpConnection" not in expressions:
        _report_missing_connection(reference, path, context, disabled=disabled)
    return fields


def _find_data(element: Element) -> Element | None:
    """Return the `SendMailTaskData`; None if it is missing or encrypted.

    The ObjectData of a task that was dropped on the designer and never opened can be empty.
    """
    object_data = element.find("ObjectData")
    if object_data is not None and not object_data.children and not object_data.text.strip():
        return Element(tag="SendMailTaskData")
    return find_object_data(element, "SendMailTaskData")


def _is_unconfigured(fields: MailFields, expressions: Mapping[str, str]) -> bool:
    values = (
        fields["connection_reference"],
        fields["from_line"],
        fields["to_line"],
        fields["cc_line"],
        fields["bcc_line"],
        fields["subject"],
        fields["message_source"],
        fields["file_attachments"],
    )
    return not any(value.strip() for value in values) and _MAIL_EXPRESSIONS.isdisjoint(expressions)


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
        question = ask_for_connection_manager(reference, candidates[0].name if len(candidates) == 1 else "")
        context.add_finding("dangling-connection-manager", severity, path, text, remedy, question=question)
