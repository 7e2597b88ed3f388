"""`report.json`: what became of every package, for machines. `docs/from-ssis.md` tells what its fields mean."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

from airflow_provider_smtpcm.ssis.model import Finding, Severity
from airflow_provider_smtpcm.ssis.output import clean, on_one_line
from airflow_provider_smtpcm.ssis.report.entries import (
    GENERATOR,
    ConnectionEntry,
    PackageEntry,
    Status,
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


# folded: What an import did, on the terminal: a line for each thing that was counted, and what to do next.

_WIDTH = 110
# The rest stands in the report.
_SHOWN = 10
_FEW = 5  # these take several lines each


def lines(
    totals: Totals,
    *,
    out: Path,
    unreadable: Sequence[Unreadable],
    findings: Iterable[Finding],
    left_over: Sequence[str],
) -> list[str]:
    """The summary, line by line."""
    rows = [
        (totals.packages, "package", "read"),
        (totals.statuses[Status.CONVERTED], "", "converted, nothing to decide"),
        (totals.statuses[Status.DECIDE], "", "converted, with something to decide or to complete"),
        (totals.statuses[Status.FAILED], "", "failed"),
        (totals.statuses[Status.NO_MAIL], "", "without mail"),
        (totals.copies, "copy", "of a package, read once"),
        (totals.unreadable, "file", "that could not be read"),
        (totals.mails, "Send Mail task", ""),
        (totals.dags, "DAG", ""),
        (totals.connections, "connection", ""),
        (totals.connections_to_decide, "", "of them with something to decide"),
    ]
    told = [
        f"{count:>9,}  {_plural(noun, count)}{' ' if noun and words else ''}{words}".rstrip()
        for count, noun, words in rows
        if count or noun in {"package", "connection", "DAG"}
    ]
    asked = [
        (code, severity, count) for (severity, code), count in totals.codes.items() if severity is not Severity.NOTE
    ]
    if asked:
        told += ["", "What a person has to look at, and in how many packages or connections:"]
        width = max(len(code) for code, _, _ in asked)
        asked.sort(key=lambda one: (one[1] is not Severity.ERROR, -one[2], one[0]))
        told += [f"{count:>9,}  {code:<{width}}  {severity}" for code, severity, count in asked[:_SHOWN]]
        told += _and_more(len(asked))
    if unreadable:
        told += ["", "Could not be read:"]
        for one in unreadable[:_FEW]:
            text = on_one_line(f"{one.message} {one.remedy}")
            told += textwrap.wrap(
                text if one.source in one.message else f"{on_one_line(one.source)}: {text}",
                _WIDTH,
                initial_indent="  ",
                subsequent_indent="    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
        told += _and_more(len(unreadable), _FEW)
    for finding in findings:
        text = on_one_line(f"{finding.text} {finding.remedy}")
        told += ["", *textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)]
    if left_over:
        told += ["", f"{len(left_over):,} of an earlier import, which no package became now:"]
        told += [f"  {name}" for name in left_over[:_SHOWN]]
        told += _and_more(len(left_over))
    return [*told, "", *_next(totals, out)]


def say(text: str) -> None:
    """Print, whatever the terminal can show of it."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))  # noqa: T201


def _next(totals: Totals, out: Path) -> list[str]:
    if totals.interrupted:
        yet = f"Stopped before the end. What was done until then is whole, and told in {out / 'report.html'}."
        return [yet, "Run the same command again to go through all of it."]
    told = [f"All of it is told in {out / 'report.html'}, and for machines in {out / 'report.json'}."]
    if totals.connections:
        told.append(f"The connections: airflow connections import {out / 'connections.json'}")
    if totals.dags:
        told.append(f"The DAGs are in {out / 'dags'}.")
    return told


def _and_more(count: int, shown: int = _SHOWN) -> list[str]:
    return [f"  ... and {count - shown:,} more"] if count > shown else []


def _plural(noun: str, count: int) -> str:
    if count == 1 or not noun:
        return noun
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
