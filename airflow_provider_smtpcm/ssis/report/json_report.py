"""`report.json`: the result of an import for programs. `docs/reference/import-ssis.md` documents its fields."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import IO

from airflow_provider_smtpcm.ssis.model import Finding
from airflow_provider_smtpcm.ssis.questions import AskedQuestion
from airflow_provider_smtpcm.ssis.report.entries import (
    GENERATOR,
    ConnectionEntry,
    ImportResult,
    PackageEntry,
    Totals,
    UnreadableFile,
)
from airflow_provider_smtpcm.ssis.writing.conversion import MailRecord, PropertyRecord
from airflow_provider_smtpcm.ssis.writing.secrets import sanitize

#: The version of the format: it changes when a field is removed or changes its meaning, not when one is added.
VERSION = 1


def write_json_report(to: IO[str], result: ImportResult, packages: Iterable[str]) -> None:
    """Write the report.

    Args:
        to: the file.
        result: everything but the packages.
        packages: the output of `package_line` for each package; only one at a time is in memory.
    """
    head = {
        "version": VERSION,
        "generator": GENERATOR,
        "interrupted": result.totals.interrupted,
        "placeholders_pass": result.totals.placeholders_pass,
        "counts": _counts_json(result),
        "codes": _codes_json(result.totals),
        "questions": [_question_json(asked) for asked in result.questions.all()],
        "connections": [_connection_json(entry) for entry in result.connections],
        "findings": [_finding_json(finding) for finding in result.findings],
        "unreadable": [_unreadable_json(file) for file in result.unreadable],
        "copies": [{"source": source, "copy_of": original} for source, original in result.copies],
        "left_over": result.left_over,
    }
    to.write(_dump(head).removesuffix("}") + ', "packages": [')
    separator = "\n"
    for line in packages:
        to.write(separator + line)
        separator = ",\n"
    to.write("\n]}\n")


def package_line(entry: PackageEntry) -> str:
    """Return a package as one line of JSON."""
    return _dump(
        {
            "source": entry.source,
            "name": entry.name,
            "format_version": entry.format_version,
            "status": str(entry.status),
            "dag_id": entry.dag_id or None,
            "dag_file": entry.dag_file or None,
            "kept": entry.new_file or None,
            "connections": list(entry.connections),
            "mails": [_mail_json(mail) for mail in entry.mails],
            "findings": [_finding_json(finding) for finding in entry.findings],
        }
    )


def summary_json(result: ImportResult, *, exit_status: int, report: str) -> str:
    """Return the output of `import-ssis --json`: one object on one line.

    Args:
        exit_status: the status that the command returns.
        report: the path of `report.json`.
    """
    return _dump(
        {
            "version": VERSION,
            "exit_status": exit_status,
            "interrupted": result.totals.interrupted,
            "placeholders_pass": result.totals.placeholders_pass,
            "counts": _counts_json(result),
            "codes": _codes_json(result.totals),
            "unreadable": [_unreadable_json(file) for file in result.unreadable],
            "findings": [_finding_json(finding) for finding in result.findings],
            "left_over": result.left_over,
            "report": report,
        }
    )


def _dump(value: object) -> str:
    return json.dumps(_sanitize_strings(value), ensure_ascii=False)


def _sanitize_strings(value: object) -> object:
    if isinstance(value, str):
        return sanitize(value)
    if isinstance(value, Mapping):
        return {key: _sanitize_strings(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_sanitize_strings(inner) for inner in value]
    return value


def _counts_json(result: ImportResult) -> dict[str, object]:
    asked, unanswered = len(result.questions.all()), len(result.questions.unanswered())
    return {**result.totals.as_json(), "questions": unanswered, "answered": asked - unanswered}


def _codes_json(totals: Totals) -> list[dict[str, object]]:
    return [
        {"code": code, "severity": str(severity), "count": count}
        for (severity, code), count in sorted(totals.codes.items(), key=lambda item: (item[0][1], item[0][0]))
    ]


def _question_json(asked: AskedQuestion) -> dict[str, object]:
    return {
        "key": asked.key,
        "question": asked.text,
        "packages": asked.packages,
        "mails": asked.mails,
        "guess": asked.guess,
        "answer": asked.answer or None,
    }


def _finding_json(finding: Finding) -> dict[str, str | None]:
    return {
        "code": finding.code,
        "severity": str(finding.severity),
        "where": finding.where,
        "text": finding.text,
        "remedy": finding.remedy,
        "question": finding.question.key if finding.question else None,
    }


def _unreadable_json(file: UnreadableFile) -> dict[str, str]:
    return {"source": file.source, "message": file.message, "remedy": file.remedy}


def _mail_json(mail: MailRecord) -> dict[str, object]:
    return {
        "where": mail.where,
        "event": mail.event or None,
        "disabled_because": mail.disabled_because or None,
        "became": mail.became or None,
        "connection": mail.connection or None,
        "questions": list(mail.questions),
        "properties": [_property_json(record) for record in mail.properties],
    }


def _property_json(record: PropertyRecord) -> dict[str, object]:
    return {
        "property": record.property,
        "ssis": record.ssis,
        "is_expression": record.is_expression,
        "became": record.became,
        "how": str(record.status),
        "note": record.note,
    }


def _connection_json(entry: ConnectionEntry) -> dict[str, object]:
    return {
        "conn_id": entry.conn_id,
        "host": entry.host,
        "summary": entry.summary,
        "sources": list(entry.sources),
        "packages": entry.packages,
        "mails": entry.mails,
        "findings": [_finding_json(finding) for finding in entry.findings],
    }
