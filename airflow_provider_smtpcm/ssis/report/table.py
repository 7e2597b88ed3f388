"""What an import did, on the terminal: a line for each thing that was counted, and what to do next."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from airflow_provider_smtpcm.ssis.clean import on_one_line
from airflow_provider_smtpcm.ssis.package import Finding, Severity
from airflow_provider_smtpcm.ssis.report.entries import Status, Totals, Unreadable

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
