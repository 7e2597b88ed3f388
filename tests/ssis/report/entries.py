"""Entries like those of an import, for the tests of the reports."""

from __future__ import annotations

from airflow_provider_smtpcm.ssis.findings import Finding, Severity, apply_answer
from airflow_provider_smtpcm.ssis.report.entries import (
    ConnectionEntry,
    ImportResult,
    PackageEntry,
    PackageStatus,
)
from airflow_provider_smtpcm.ssis.writing.conversion import MailRecord, PropertyRecord, PropertyStatus


def finding(text: str = "The reference leads nowhere.", *, severity: Severity = Severity.DECISION) -> Finding:
    """Return a finding about a task."""
    code = "dangling-connection-manager"
    found = Finding(code=code, severity=severity, where=r"Package\Send Mail", text=text, remedy="Name one.")
    return apply_answer(found, {})


def package(
    number: int = 1, *, status: PackageStatus = PackageStatus.DECIDE, text: str = "Load of {{ ds }}"
) -> PackageEntry:
    """Return a package with one mail; `text` is in every place that can contain a text of the package."""
    mail = MailRecord(
        where=rf"Package\{text}",
        event="OnError",
        disabled_because="Package",
        questions=(question.key,) if (question := finding(text).question) is not None else (),
        became=text,
        connection=text,
        properties=(
            PropertyRecord(
                where=text,
                property="Subject",
                ssis=text,
                is_expression=True,
                became=text,
                status=PropertyStatus.TRANSLATED,
                note=text,
            ),
            PropertyRecord(where=text, property="CCLine"),
        ),
    )
    return PackageEntry(
        source=f"/packages/{text}/{number}.dtsx",
        name=f"{text} {number}",
        format_version=8,
        status=status,
        dag_id=text,
        dag_file=f"dags/load_{number}.py",
        connections=(text,),
        mails=(mail,),
        findings=(finding(text), finding(severity=Severity.NOTE)) if status is PackageStatus.DECIDE else (),
    )


def connection(text: str = "mail.corp.example") -> ConnectionEntry:
    """Return a connection."""
    return ConnectionEntry(
        conn_id="mail", host=text, summary=text, sources=(text,), users=(0, 1, 2), findings=(finding(text),)
    )


def result_of(entries: list[PackageEntry], *connections: ConnectionEntry) -> ImportResult:
    """Return the result of an import of these packages and connections."""
    result = ImportResult()
    for entry in entries:
        result.add_package(entry)
    result.add_connections(connections)
    return result
