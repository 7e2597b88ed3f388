"""A Send Mail task: its properties and what it refers to."""

from __future__ import annotations

from typing import TypedDict

from airflow_provider_smtpcm.ssis.package import FileConnection, MessageSourceType, Severity, SmtpConnection
from airflow_provider_smtpcm.ssis.reading.dialect import object_data
from airflow_provider_smtpcm.ssis.reading.nodes import Node
from airflow_provider_smtpcm.ssis.reading.scope import Reading

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
