"""`report.html`: the result of an import for people, on one page without external resources.

The section of a package is created once the package has been converted; the page is written at the end of the import.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

from airflow_provider_smtpcm.ssis.model import Finding, Severity
from airflow_provider_smtpcm.ssis.questions import MAX_NAMED, QUESTIONS, AskedQuestion
from airflow_provider_smtpcm.ssis.report.entries import (
    FINDING_MEANINGS,
    GENERATOR,
    WALK_THROUGH_NOTICE,
    ConnectionEntry,
    ImportResult,
    PackageEntry,
    PackageStatus,
    Totals,
    UnreadableFile,
    count_noun,
    plural,
)
from airflow_provider_smtpcm.ssis.writing.conversion import MailRecord, PropertyRecord
from airflow_provider_smtpcm.ssis.writing.secrets import sanitize, sanitize_line

_STATUS_LABELS = {
    PackageStatus.CONVERTED: "Converted",
    PackageStatus.DECIDE: "To decide",
    PackageStatus.FAILED: "Failed",
}
_BY_SEVERITY = (Severity.ERROR, Severity.DECISION, Severity.NOTE)
_BADGES = {"decide": "to decide", "decision": "to decide"}
_KEPT = "edited-file-kept"
_MAX_CODES = 200  # rows of the table of findings
_MAX_VALUE = 4_000  # characters of a property, such as a mail's text; the DAG has all of it


def write_html_report(to: IO[str], result: ImportResult, sections: Iterable[str]) -> None:
    """Write the page.

    Args:
        to: the file.
        result: everything but the packages.
        sections: the output of `package_section`, in pieces of any length; only one piece at a time is in memory.
    """
    totals = result.totals
    style, script = (
        Path(__file__).with_name(f"html_report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")
    )
    # A second defense: even if markup from a package got onto the page, the browser would neither run nor load it.
    policy = f"default-src 'none'; img-src data:; style-src '{_csp_hash(style)}'; script-src '{_csp_hash(script)}'"
    to.write(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>SSIS import</title>\n<link rel="icon" href="data:,">\n<style>{style}</style>\n</head>\n<body>\n'
    )
    to.write(_header(totals) + "<main>\n" + _next_steps(result))
    to.write(_questions_table(result.questions.all()))
    to.write(_import_findings(result.findings) + _codes_table(totals))
    to.write(_connections_table(result.connections) + _unreadable_table(result.unreadable))
    to.write('<h2 id="packages">Packages</h2>\n' + (_filter_form(totals) if totals.with_mail else ""))
    if not totals.with_mail:
        to.write('<p class="soft">No package contains a Send Mail task.</p>\n')
    for section in sections:
        to.write(section)
    without_mail, left_over = len(result.without_mail), len(result.left_over)
    to.write(
        _collapsed_list(
            "without-mail", f"{count_noun(without_mail, 'package')} without a Send Mail task", result.without_mail
        )
    )
    copies = [f"{source} is a copy of {original}" for source, original in result.copies]
    to.write(_collapsed_list("copies", f"{count_noun(len(copies), 'copy')} of packages, not converted again", copies))
    to.write(
        _collapsed_list(
            "left-over",
            f"{count_noun(left_over, 'file')} of an earlier import that this one did not write",
            result.left_over,
        )
    )
    to.write(f"<footer>{_escape(GENERATOR)}, <code>import-ssis</code></footer>\n</main>\n")
    to.write(f"<script>{script}</script>\n</body>\n</html>\n" if totals.with_mail else "</body>\n</html>\n")


def package_section(entry: PackageEntry) -> str:
    """Return the section of one package, collapsed: its DAG, its findings, and what became of every property."""
    counts = [count_noun(len(entry.mails), "mail")]
    for severity, noun in ((Severity.ERROR, "error"), (Severity.DECISION, "decision")):
        if count := sum(finding.severity is severity for finding in entry.findings):
            counts.append(count_noun(count, noun))
    head = (
        f'<details class="package {_css_class(entry.status)}" id="{_anchor(entry.source)}"><summary>'
        f"{_badge(entry.status)} <b>{_escape(entry.name)}</b> "
        f'<span class="path">{_escape(entry.source)}</span> '
        f'<span class="count">{", ".join(counts)}</span></summary>\n<div>\n'
    )
    mails = "".join(_mail(mail) for mail in entry.mails)
    return head + _dag_line(entry) + _findings_list(entry.findings) + mails + "</div></details>\n"


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _anchor(source: str) -> str:
    """Return the id of a package's section: a hash, since a source may contain any characters."""
    return f"package-{hashlib.sha256(source.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def _escape(text: str) -> str:
    """Return a text of a package as HTML, sanitized."""
    return html.escape(sanitize(text))


def _css_class(word: str) -> str:
    return word.replace(" ", "-")


def _badge(word: str) -> str:
    """Return a status, a severity or an event as a colored label."""
    return f'<span class="badge {html.escape(_css_class(word))}">{html.escape(_BADGES.get(word, word))}</span>'


def _header(totals: Totals) -> str:
    tiles = [
        f'<div class="tile {status}"><b>{count:,}</b><span>{plural(count, "package")} {label.lower()}</span></div>'
        for status, label in _STATUS_LABELS.items()
        for count in [totals.statuses[status]]
    ]
    tiles += [
        f'<div class="tile"><b>{count:,}</b><span>{plural(count, noun)}{suffix}</span></div>'
        for count, noun, suffix in (
            (totals.statuses[PackageStatus.NO_MAIL], "package", " without mail"),
            (totals.connections, "connection", ""),
            (totals.connections_to_decide, "connection", " to decide"),
            (totals.placeholders, "placeholder", ""),
            (totals.unreadable, "file", " could not be read"),
            (totals.copies, "copy", ""),
        )
        if count
    ]
    passing = f'<div class="panel warning">{WALK_THROUGH_NOTICE}</div>\n' if totals.placeholders_pass else ""
    interrupted = ""
    if totals.interrupted:
        interrupted = (
            '<div class="panel warning">The import was interrupted. This report covers the packages that were '
            "imported before that.</div>"
        )
    return (
        f"<header><div>\n<h1>SSIS import</h1>\n{passing}"
        f'<p class="soft">{count_noun(totals.packages, "package")} read, {totals.with_mail:,} with mail; '
        f"{count_noun(totals.mails, 'Send Mail task')}, {count_noun(totals.dags, 'DAG')}.</p>\n"
        f'<div class="tiles">{"".join(tiles)}</div>\n{interrupted}</div></header>\n'
    )


def _next_steps(result: ImportResult) -> str:
    totals, unanswered = result.totals, len(result.questions.unanswered())
    steps = []
    if totals.unreadable or totals.statuses[PackageStatus.FAILED]:
        steps.append("Check what could not be read or written.")
    if unanswered:
        steps.append(
            f'Answer <a href="#questions">{count_noun(unanswered, "question")}</a> in <code>{QUESTIONS}</code>, and '
            f"import again with <code>--answers {QUESTIONS}</code>."
        )
    if totals.connections:
        steps.append(
            "Add what the packages do not contain, such as passwords, to <code>connections.json</code>. Then run "
            "<code>airflow connections import connections.json</code>, and "
            "<code>airflow smtpcm check CONN_ID</code> for each connection."
        )
    if totals.dags:
        if totals.placeholders:
            steps.append(
                f"Replace each placeholder in the DAGs ({totals.placeholders:,}) by a task that does the same work. "
                "The findings of each package name its placeholders."
            )
        steps.append("Review the DAGs in <code>dags</code>, and copy them into your DAGs folder.")
    if not steps:
        return ""
    items = "".join(f"<li>{step}</li>" for step in steps)
    return f'<h2>What to do now</h2>\n<div class="panel"><ol>{items}</ol></div>\n'


def _number(count: int, noun: str) -> str:
    """Return a cell with a number; the noun is shown where a phone has no room for the header."""
    return f'<td class="number" data-noun="{plural(count, noun)}">{count:,}</td>'


def _questions_table(questions: Iterable[AskedQuestion]) -> str:
    rows = "".join(
        f"<tr>{_number(asked.mails, 'mail')}{_number(asked.packages, 'package')}"
        f"<td>{_question_anchors(asked)}{_escape(asked.text)}</td>"
        f'<td>{_package_links(asked)}</td><td class="guess">{_escape(asked.guess)}</td>'
        f"<td>{f'<b>{_escape(asked.answer)}</b>' if asked.answer else _badge('decision')}</td></tr>"
        for asked in questions
    )
    if not rows:
        return ""
    return (
        '<h2 id="questions">Questions</h2>\n<div class="wide"><table><thead><tr><th class="number">Mails</th>'
        '<th class="number">Packages</th><th>Question</th><th>Where</th><th>Guess</th><th>Answer</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>\n"
    )


def _import_findings(findings: Iterable[Finding]) -> str:
    items = _findings_list(findings)
    return f"<h2>About the import</h2>\n{items}" if items else ""


def _codes_table(totals: Totals) -> str:
    """Return the table of findings by code, the most severe first, without those in the table of questions."""
    # An edited file is the only decision that asks no question.
    rest = [item for item in totals.codes.items() if item[0][0] is not Severity.DECISION or item[0][1] == _KEPT]
    ordered = sorted(rest, key=lambda item: (_BY_SEVERITY.index(item[0][0]), -item[1], item[0][1]))
    if not ordered:
        return ""
    rows = "".join(
        f"<tr><td>{_badge(severity)}</td><td><code>{_escape(code)}</code></td>"
        f"<td>{_escape(FINDING_MEANINGS.get(code, ''))}</td>"
        f"<td>{_links(totals.first.get((severity, code), ()), totals.more[severity, code])}</td>"
        f"{_number(count, 'case')}</tr>"
        for (severity, code), count in ordered[:_MAX_CODES]
    )
    return (
        '<h2>Findings</h2>\n<div class="wide"><table><thead><tr><th></th><th>Finding</th><th>What it means</th>'
        f'<th>Where</th><th class="number">Count</th></tr></thead><tbody>{rows}</tbody></table></div>\n'
    )


def _package_links(asked: AskedQuestion) -> str:
    """Return links to the first packages that ask a question; none if only connections do."""
    return _links(asked.first, asked.packages - len(asked.first)) if asked.first else ""


def _links(packages: Iterable[tuple[str, str]], more: int) -> str:
    """Return links to packages, given their sources and names, and the number of further ones."""
    links = [
        f'<a href="#{_anchor(source)}" title="{_escape(source)}">{_escape(name)}</a>'  # packages may have the same name
        for source, name in packages
    ]
    return "<br>".join(links) + (f'<br><span class="soft">and {more:,} more</span>' if more else "")


def _connections_table(connections: Iterable[ConnectionEntry]) -> str:
    rows = "".join(
        f'<tr id="connection-{_escape(entry.conn_id)}"><th><code>{_escape(entry.conn_id)}</code></th>'
        f"<td>{_escape(entry.summary)}{_findings_list(entry.findings)}</td>"
        f"{_number(entry.packages, 'package')}<td>{_sources(entry.sources)}</td></tr>"
        for entry in connections
    )
    if not rows:
        return ""
    return (
        '<h2 id="connections">Connections</h2>\n<div class="wide"><table><thead><tr>'
        '<th>Airflow connection</th><th>Settings</th><th class="number">Packages</th><th>From</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>\n"
    )


def _sources(sources: Sequence[str]) -> str:
    shown = "<br>".join(map(_escape, sources[:MAX_NAMED]))
    if len(sources) <= MAX_NAMED:
        return shown
    others = "<br>".join(map(_escape, sources[MAX_NAMED:]))
    return f'{shown}<details class="more"><summary>{len(sources) - MAX_NAMED:,} more</summary>{others}</details>'


def _unreadable_table(unreadable: Iterable[UnreadableFile]) -> str:
    rows = "".join(
        f"<tr><td><code>{_escape(file.source)}</code></td>"
        f"<td>{_escape(file.message)}<br><b>{_escape(file.remedy)}</b></td></tr>"
        for file in unreadable
    )
    if not rows:
        return ""
    return (
        '<h2>Could not be read</h2>\n<div class="wide"><table><thead><tr><th>File</th><th>Why, and what to do</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div>\n"
    )


def _filter_form(totals: Totals) -> str:
    choices = [("all", "", "All", totals.with_mail)]
    choices += [(str(status), str(status), label, totals.statuses[status]) for status, label in _STATUS_LABELS.items()]
    chosen = "decide" if totals.statuses[PackageStatus.DECIDE] else "all"
    radios = "".join(
        f'<input type="radio" name="only" id="only-{name}" value="{value}"{" checked" if name == chosen else ""}>'
        f'<label for="only-{name}">{label} <b>{count:,}</b></label>'
        for name, value, label, count in choices
    )
    return (
        f'<form class="filter">{radios}<input type="search" id="search" class="script-only" '
        'placeholder="Search packages, tasks and expressions" aria-label="Search">'
        '<button type="button" id="toggle-all" class="script-only">Open or close all</button>'
        '<span id="shown" class="soft script-only"></span></form>\n'
    )


def _collapsed_list(anchor: str, summary: str, names: Iterable[str]) -> str:
    items = [f"<li>{_escape(name)}</li>" for name in names]
    if not items:
        return ""
    return (
        f'<details class="more" id="{anchor}"><summary>{summary}</summary>'
        f'<ul class="plain">{"".join(items)}</ul></details>\n'
    )


def _findings_list(findings: Iterable[Finding]) -> str:
    """Return the findings as a list, the most severe first; empty if there is none.

    A finding at several places is one item. What to do about a decision is with its question.
    """
    places: dict[Finding, list[str]] = {}
    for finding in sorted(findings, key=lambda finding: _BY_SEVERITY.index(finding.severity)):
        places.setdefault(replace(finding, where=""), []).append(finding.where)
    items = "".join(
        f'<li class="{finding.severity}">{_badge(finding.severity)} <code>{_escape(finding.code)}</code> '
        f'<span class="soft">{"<br>".join(map(_escape, where))}</span><p>{_escape(finding.text)}</p>'
        f"{_what_to_do(finding)}</li>"
        for finding, where in places.items()
    )
    return f'<ul class="findings">{items}</ul>\n' if items else ""


def _what_to_do(finding: Finding) -> str:
    if finding.question is not None and finding.severity is Severity.DECISION:
        return f'<p class="remedy"><a href="#{_question_anchor(finding.question.key)}">Question</a></p>'
    return f'<p class="remedy">{_escape(finding.remedy)}</p>' if finding.remedy else ""


def _question_anchors(asked: AskedQuestion) -> str:
    """Return a target for the links to each question of a row."""
    return "".join(f'<a id="{_question_anchor(key)}"></a>' for key in asked.keys)


def _question_anchor(key: str) -> str:
    """Return the id of a question: a hash, since a key may contain any characters."""
    return f"question-{hashlib.sha256(sanitize_line(key).encode()).hexdigest()[:16]}"


def _dag_line(entry: PackageEntry) -> str:
    if not entry.dag_file:
        return '<p class="soft">No DAG was written.</p>\n' if entry.status is PackageStatus.FAILED else ""
    text = f"DAG <code>{_escape(entry.dag_id)}</code> in <code>{_escape(entry.dag_file)}</code>"
    if entry.new_file:
        text += f", which was edited and therefore kept; the new text is in <code>{_escape(entry.new_file)}</code>"
    if entry.connections:
        used = ", ".join(
            f'<a href="#connection-{_escape(conn_id)}"><code>{_escape(conn_id)}</code></a>'
            for conn_id in entry.connections
        )
        text += f"; sends through {used}"
    return f"<p>{text}.</p>\n"


def _mail(mail: MailRecord) -> str:
    badges = []
    if mail.event:
        badges.append(_badge(mail.event))
    if mail.disabled_because:
        badges.append(_badge("disabled"))
    head = f"<h3>{_escape(mail.where)} {' '.join(badges)}</h3>\n"
    through = f", through <code>{_escape(mail.connection)}</code>" if mail.connection else ""
    head += f"<p>{_escape(mail.became) or 'not in the DAG'}{through}</p>\n"
    if not mail.properties:
        return head
    rows = "".join(map(_property_row, mail.properties))
    return (
        f'{head}<div class="wide mails"><table><thead><tr><th>Property</th><th>In the package</th><th>In the DAG</th>'
        f"<th></th></tr></thead><tbody>{rows}</tbody></table></div>\n"
    )


def _property_row(record: PropertyRecord) -> str:
    label = ' <span class="soft">expression</span>' if record.is_expression else ""
    note = f'<br><span class="soft">{_escape(record.note)}</span>' if record.note else ""
    return (
        f"<tr><th>{_escape(record.property)}</th><td>{_value(record.ssis)}{label}</td>"
        f"<td>{_value(record.became)}{note}</td><td>{_badge(record.status)}</td></tr>"
    )


def _value(text: str) -> str:
    if not text:
        return '<span class="soft">empty</span>'
    text = sanitize(text)  # before it is cut: half of a credential would not be recognized
    if len(text) > _MAX_VALUE:
        text = f"{text[:_MAX_VALUE]}… ({len(text):,} characters)"
    return f"<code>{html.escape(text)}</code>"
