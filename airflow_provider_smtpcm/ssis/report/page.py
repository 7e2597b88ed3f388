"""`report.html`: one page that asks nobody for anything. It is written as it goes: a section for each package."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Self

from airflow_provider_smtpcm.ssis.model import Finding, Severity
from airflow_provider_smtpcm.ssis.output import clean
from airflow_provider_smtpcm.ssis.report.entries import (
    CODES,
    FEW,
    GENERATOR,
    ConnectionEntry,
    PackageEntry,
    Status,
    Totals,
    Unreadable,
)
from airflow_provider_smtpcm.ssis.writing.outcome import MailRecord, PropertyRecord

# folded: The section of one package on the page: what was found, what became of each property, what a person must
#   decide.

_URGENT = (Severity.ERROR, Severity.DECISION, Severity.NOTE)
_WORDS = {"decide": "to decide", "decision": "to decide"}
# So much of a body is for reading; the DAG has all of it.
_SHOWN = 4_000


def package_section(entry: PackageEntry) -> str:
    """All about one package; folded up, until somebody opens it."""
    counts = [many(len(entry.mails), "mail")]
    for severity, word in ((Severity.ERROR, "error"), (Severity.DECISION, "decision")):
        if count := sum(finding.severity is severity for finding in entry.findings):
            counts.append(many(count, word))
    head = (
        f'<details class="package {_class(entry.status)}" id="{anchor(entry.source)}"><summary>{badge(entry.status)} '
        f"<b>{esc(entry.name)}</b> "
        f'<span class="path">{esc(entry.source)}</span> '
        f'<span class="count">{", ".join(counts)}</span></summary>\n<div>\n'
    )
    mails = "".join(_mail(mail) for mail in entry.mails)
    return head + _became(entry) + findings_list(entry.findings) + mails + "</div></details>\n"


def anchor(source: str) -> str:
    """The id of a package's section: a source may hold what no id may."""
    return f"package-{hashlib.sha256(source.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def findings_list(findings: Iterable[Finding]) -> str:
    """What asks for most first; nothing where there is none."""
    ordered = sorted(findings, key=lambda finding: _URGENT.index(finding.severity))
    items = "".join(
        f'<li class="{finding.severity}">{badge(finding.severity)} <code>{esc(finding.code)}</code> '
        f'<span class="soft">{esc(finding.where)}</span><p>{esc(finding.text)}</p>'
        + (f'<p class="remedy">{esc(finding.remedy)}</p>' if finding.remedy else "")
        + "</li>"
        for finding in ordered
    )
    return f'<ul class="findings">{items}</ul>\n' if items else ""


def esc(text: str) -> str:
    """Text of a package, as the page may hold it."""
    return html.escape(clean(text))


def badge(word: str) -> str:
    """A status or a severity, in its colour."""
    return f'<span class="badge {html.escape(_class(word))}">{html.escape(_WORDS.get(word, word))}</span>'


def many(count: int, noun: str) -> str:
    """`1 package`, `1,204 packages`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _class(word: str) -> str:
    return word.replace(" ", "-")


def _became(entry: PackageEntry) -> str:
    if not entry.dag_file:
        return '<p class="soft">No DAG was written.</p>\n' if entry.status is Status.FAILED else ""
    text = f"DAG <code>{esc(entry.dag_id)}</code> in <code>{esc(entry.dag_file)}</code>"
    if entry.kept:
        text += (
            f", which somebody edited and which was left as it is; the new text is in <code>{esc(entry.kept)}</code>"
        )
    if entry.connections:
        used = ", ".join(f'<a href="#connection-{esc(one)}"><code>{esc(one)}</code></a>' for one in entry.connections)
        text += f"; sends through {used}"
    return f"<p>{text}.</p>\n"


def _mail(mail: MailRecord) -> str:
    marks = []
    if mail.event:
        marks.append(badge(mail.event))
    if mail.disabled_because:
        marks.append(badge("disabled"))
    head = f"<h3>{esc(mail.where)} {' '.join(marks)}</h3>\n"
    through = f", through <code>{esc(mail.connection)}</code>" if mail.connection else ""
    head += f"<p>{esc(mail.became) or 'not in the DAG'}{through}</p>\n"
    if not mail.properties:
        return head
    rows = "".join(_property(one) for one in mail.properties)
    return (
        f'{head}<div class="wide mails"><table><thead><tr><th>Property</th><th>In the package</th><th>In the DAG</th>'
        f"<th></th></tr></thead><tbody>{rows}</tbody></table></div>\n"
    )


def _property(one: PropertyRecord) -> str:
    kind = ' <span class="soft">expression</span>' if one.is_expression else ""
    note = f'<br><span class="soft">{esc(one.note)}</span>' if one.note else ""
    return (
        f"<tr><th>{esc(one.property)}</th><td>{_code(one.ssis)}{kind}</td><td>{_code(one.became)}{note}</td>"
        f"<td>{badge(one.how)}</td></tr>"
    )


def _code(text: str) -> str:
    if not text:
        return '<span class="soft">empty</span>'
    text = clean(text)  # before it is cut: half an account is one still
    if len(text) > _SHOWN:
        text = f"{text[:_SHOWN]}… ({len(text):,} characters)"
    return f"<code>{html.escape(text)}</code>"


# folded: here began the module itself

_TILES = (
    (Status.CONVERTED, "Converted", "packages converted"),
    (Status.DECIDE, "To decide", "packages to decide"),
    (Status.FAILED, "Failed", "packages failed"),
)
_CODES_SHOWN = 200


def write(
    to: IO[str],
    *,
    sections: Iterable[str],
    totals: Totals,
    connections: Iterable[ConnectionEntry],
    unreadable: Iterable[Unreadable],
    copies: Iterable[tuple[str, str]],
    left_over: Iterable[str],
    findings: Iterable[Finding],
    without_mail: Iterable[str],
) -> None:
    """Write the page; only one of the `sections` (`sections.package_section`) is in memory at a time."""
    style, script = (Path(__file__).with_name(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    # Should any text of a package ever get out of its place, the browser runs and loads nothing of it.
    policy = f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    to.write(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>SSIS import</title>\n<link rel="icon" href="data:,">\n<style>{style}</style>\n</head>\n<body>\n'
    )
    to.write(_head(totals) + "<main>\n" + _what_to_do(totals))
    to.write(_findings(findings) + _codes(totals) + _connections(connections) + _unreadable(unreadable))
    to.write('<h2 id="packages">Packages</h2>\n' + (_filter(totals) if totals.with_mail else ""))
    if not totals.with_mail:
        to.write('<p class="soft">No package holds a Send Mail task.</p>\n')
    for section in sections:
        to.write(section)
    to.write(_list("without mail", "hold no Send Mail task", without_mail))
    to.write(_list("copies", "are copies, and were read once", (f"{one} = {of}" for one, of in copies)))
    to.write(_list("left over", "are left of an earlier import, and no package became them", left_over))
    to.write(f"<footer>{esc(GENERATOR)}, <code>import-ssis</code></footer>\n</main>\n")
    to.write(f"<script>{script}</script>\n</body>\n</html>\n" if totals.with_mail else "</body>\n</html>\n")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _head(totals: Totals) -> str:
    tiles = [
        f'<div class="tile {status}"><b>{totals.statuses[status]:,}</b><span>{words}</span></div>'
        for status, _, words in _TILES
    ]
    tiles += [
        f'<div class="tile"><b>{count:,}</b><span>{words}</span></div>'
        for count, words in (
            (totals.statuses[Status.NO_MAIL], "packages without mail"),
            (totals.connections, "connections"),
            (totals.connections_to_decide, "connections to decide"),
            (totals.unreadable, "files could not be read"),
            (totals.copies, "copies"),
        )
        if count
    ]
    stopped = ""
    if totals.interrupted:
        stopped = (
            '<div class="panel warning">The import was stopped before its end: this is what was done until then.</div>'
        )
    return (
        "<header><div>\n<h1>SSIS import</h1>\n"
        f'<p class="soft">{many(totals.packages, "package")} read, {totals.with_mail:,} with mail; '
        f"{many(totals.mails, 'Send Mail task')}, {many(totals.dags, 'DAG')}.</p>\n"
        f'<div class="tiles">{"".join(tiles)}</div>\n{stopped}</div></header>\n'
    )


def _what_to_do(totals: Totals) -> str:
    steps = []
    if totals.unreadable or totals.statuses[Status.FAILED]:
        steps.append("Look at what could not be read or written.")
    if totals.statuses[Status.DECIDE] or totals.statuses[Status.FAILED]:
        steps.append('Go through <a href="#packages">the packages</a> to decide, and complete their DAGs.')
    if totals.connections_to_decide:
        steps.append('Decide what is asked about <a href="#connections">the connections</a>.')
    if totals.connections:
        steps.append(
            "Put what only you know, such as a password, into <code>connections.json</code>, then "
            "<code>airflow connections import connections.json</code> and "
            "<code>python -m airflow_provider_smtpcm check CONN_ID</code> for each."
        )
    if totals.dags:
        steps.append("Look at the DAGs in <code>dags</code>, and copy them into your DAGs folder.")
    if not steps:
        return ""
    items = "".join(f"<li>{step}</li>" for step in steps)
    return f'<h2>What to do now</h2>\n<div class="panel"><ol>{items}</ol></div>\n'


def _findings(findings: Iterable[Finding]) -> str:
    told = findings_list(findings)
    return f"<h2>About the import</h2>\n{told}" if told else ""


def _codes(totals: Totals) -> str:
    """The findings by their code, those first that ask for most."""
    order = ("error", "decision", "note")
    found = sorted(totals.codes.items(), key=lambda item: (order.index(str(item[0][0])), -item[1], item[0][1]))
    if not found:
        return ""
    rows = "".join(
        f"<tr><td>{badge(severity)}</td><td><code>{esc(code)}</code></td><td>{esc(CODES.get(code, ''))}</td>"
        f'<td>{_where(totals, severity, code)}</td><td class="number">{count:,}</td></tr>'
        for (severity, code), count in found[:_CODES_SHOWN]
    )
    return (
        '<h2>Findings</h2>\n<div class="wide"><table><thead><tr><th></th><th>Finding</th><th>What it means</th>'
        f'<th>Where</th><th class="number">How many</th></tr></thead><tbody>{rows}</tbody></table></div>\n'
    )


def _where(totals: Totals, severity: Severity, code: str) -> str:
    """The first packages that have it; of connections and of the import as a whole there is none."""
    links = [
        f'<a href="#{anchor(source)}" title="{esc(source)}">{esc(name)}</a>'  # many packages have the same name
        for source, name in totals.first.get((severity, code), ())
    ]
    more = totals.more[severity, code]
    return "<br>".join(links) + (f'<br><span class="soft">and {more:,} more</span>' if more else "")


def _connections(connections: Iterable[ConnectionEntry]) -> str:
    rows = "".join(
        f'<tr id="connection-{esc(one.conn_id)}"><th><code>{esc(one.conn_id)}</code></th>'
        f"<td>{esc(one.summary)}{findings_list(one.findings)}</td>"
        f'<td class="number">{one.packages:,}</td><td>{_few(one.sources)}</td></tr>'
        for one in connections
    )
    if not rows:
        return ""
    return (
        '<h2 id="connections">Connections</h2>\n<div class="wide"><table><thead><tr>'
        '<th>Airflow connection</th><th>Settings</th><th class="number">Packages</th><th>From</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>\n"
    )


def _few(names: Sequence[str]) -> str:
    shown = "<br>".join(map(esc, names[:FEW]))
    if len(names) <= FEW:
        return shown
    rest = "<br>".join(map(esc, names[FEW:]))
    return f'{shown}<details class="more"><summary>{len(names) - FEW:,} more</summary>{rest}</details>'


def _unreadable(unreadable: Iterable[Unreadable]) -> str:
    rows = "".join(
        f"<tr><td><code>{esc(one.source)}</code></td><td>{esc(one.message)}<br><b>{esc(one.remedy)}</b></td></tr>"
        for one in unreadable
    )
    if not rows:
        return ""
    return (
        '<h2>Could not be read</h2>\n<div class="wide"><table><thead><tr><th>File</th><th>Why, and what to do</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div>\n"
    )


def _filter(totals: Totals) -> str:
    choices = [("all", "", "All", totals.with_mail)]
    choices += [(str(status), str(status), name, totals.statuses[status]) for status, name, _ in _TILES]
    chosen = "decide" if totals.statuses[Status.DECIDE] else "all"
    radios = "".join(
        f'<input type="radio" name="only" id="only-{name}" value="{value}"{" checked" if name == chosen else ""}>'
        f'<label for="only-{name}">{words} <b>{count:,}</b></label>'
        for name, value, words, count in choices
    )
    return (
        f'<form class="filter">{radios}<input type="search" id="search" class="script-only" '
        'placeholder="Words in a package, a task, an expression …" aria-label="Search">'
        '<button type="button" id="unfold" class="script-only">Open or close all</button>'
        '<span id="shown" class="soft script-only"></span></form>\n'
    )


def _list(anchor: str, what: str, names: Iterable[str]) -> str:
    items = [f"<li>{esc(name)}</li>" for name in names]
    if not items:
        return ""
    return (
        f'<details class="more" id="{anchor.replace(" ", "-")}"><summary>{len(items):,} {what}</summary>'
        f'<ul class="plain">{"".join(items)}</ul></details>\n'
    )


# folded: What is told of the packages, kept until the whole is known. Knows no format.


class Spool:
    """What is told of the packages, on the disk until the counts are known that stand above it."""

    lines: IO[str]
    sections: IO[str]

    def __enter__(self) -> Self:
        self.lines, self.sections = (TemporaryFile("w+", encoding="utf-8", newline="\n") for _ in range(2))  # noqa: SIM115
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lines.close()
        self.sections.close()

    def packages(self) -> Iterator[str]:
        """The lines."""
        self.lines.seek(0)
        return (line.rstrip("\n") for line in self.lines)

    def pieces(self) -> Iterator[str]:
        """The sections, in whatever pieces."""
        self.sections.seek(0)
        return iter(self.sections)
