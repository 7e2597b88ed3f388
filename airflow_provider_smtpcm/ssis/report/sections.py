"""The section of one package on the page: what was found, what became of each property, what a person must decide."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Iterable

from airflow_provider_smtpcm.ssis.clean import clean
from airflow_provider_smtpcm.ssis.package import Finding, Severity
from airflow_provider_smtpcm.ssis.report.entries import PackageEntry, Status
from airflow_provider_smtpcm.ssis.writing.outcome import MailRecord, PropertyRecord

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
