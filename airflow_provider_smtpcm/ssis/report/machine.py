"""`report.json`: what became of every package, for machines. `docs/from-ssis.md` tells what its fields mean."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import IO

from airflow_provider_smtpcm.ssis.clean import clean
from airflow_provider_smtpcm.ssis.package import Finding
from airflow_provider_smtpcm.ssis.report.entries import (
    GENERATOR,
    ConnectionEntry,
    PackageEntry,
    Totals,
    Unreadable,
)
from airflow_provider_smtpcm.ssis.writing.outcome import MailRecord, PropertyRecord

#: Of the format; it changes when a field changes its meaning or goes, not when one is added.
VERSION = 1


def package_line(entry: PackageEntry) -> str:
    """A package, as one line of JSON."""
    return dump(
        {
            "source": entry.source,
            "name": entry.name,
            "format_version": entry.format_version,
            "status": str(entry.status),
            "dag_id": entry.dag_id or None,
            "dag_file": entry.dag_file or None,
            "kept": entry.kept or None,
            "connections": list(entry.connections),
            "mails": [_mail(mail) for mail in entry.mails],
            "findings": [finding_json(finding) for finding in entry.findings],
        }
    )


def write(
    to: IO[str],
    *,
    packages: Iterable[str],
    totals: Totals,
    connections: Iterable[ConnectionEntry],
    unreadable: Iterable[Unreadable],
    copies: Iterable[tuple[str, str]],
    left_over: Iterable[str],
    findings: Iterable[Finding],
) -> None:
    """Write the whole report; `packages` are lines, and only one of them is in memory at a time."""
    head = {
        "version": VERSION,
        "generator": GENERATOR,
        "interrupted": totals.interrupted,
        "counts": totals.as_json(),
        "codes": codes_json(totals),
        "connections": [_connection(one) for one in connections],
        "findings": [finding_json(one) for one in findings],
        "unreadable": [unreadable_json(one) for one in unreadable],
        "copies": [{"source": source, "copy_of": of} for source, of in copies],
        "left_over": list(left_over),
    }
    to.write(dump(head).removesuffix("}") + ', "packages": [')
    comma = "\n"
    for line in packages:
        to.write(comma + line)
        comma = ",\n"
    to.write("\n]}\n")


def dump(value: object) -> str:
    """JSON whose texts are clean."""
    return json.dumps(_cleaned(value), ensure_ascii=False)


def finding_json(finding: Finding) -> dict[str, str]:
    """A finding."""
    return {
        "code": finding.code,
        "severity": str(finding.severity),
        "where": finding.where,
        "text": finding.text,
        "remedy": finding.remedy,
    }


def unreadable_json(one: Unreadable) -> dict[str, str]:
    """A file that could not be read."""
    return {"source": one.source, "message": one.message, "remedy": one.remedy}


def codes_json(totals: Totals) -> list[dict[str, object]]:
    """How many packages and connections have a finding of each code."""
    return [
        {"code": code, "severity": str(severity), "count": count}
        for (severity, code), count in sorted(totals.codes.items(), key=lambda item: (item[0][1], item[0][0]))
    ]


def _cleaned(value: object) -> object:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {key: _cleaned(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_cleaned(inner) for inner in value]
    return value


def _mail(mail: MailRecord) -> dict[str, object]:
    return {
        "where": mail.where,
        "event": mail.event or None,
        "disabled_because": mail.disabled_because or None,
        "became": mail.became or None,
        "connection": mail.connection or None,
        "properties": [_property(one) for one in mail.properties],
    }


def _property(one: PropertyRecord) -> dict[str, object]:
    return {
        "property": one.property,
        "ssis": one.ssis,
        "is_expression": one.is_expression,
        "became": one.became,
        "how": str(one.how),
        "note": one.note,
    }


def _connection(one: ConnectionEntry) -> dict[str, object]:
    return {
        "conn_id": one.conn_id,
        "host": one.host,
        "summary": one.summary,
        "sources": list(one.sources),
        "packages": one.packages,
        "findings": [finding_json(finding) for finding in one.findings],
    }
