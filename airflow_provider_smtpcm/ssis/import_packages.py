"""The whole import: what was found becomes DAGs, connections and a report. One package at a time is in memory.

Nothing that a package holds stops the others: what nobody foresaw becomes a finding of that package. Knows no terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis import unforeseen
from airflow_provider_smtpcm.ssis.output import Fate, OutputFolder
from airflow_provider_smtpcm.ssis.package import Finding, Package, Project, Severity
from airflow_provider_smtpcm.ssis.reading import Found
from airflow_provider_smtpcm.ssis.report import machine, page
from airflow_provider_smtpcm.ssis.report.entries import (
    ConnectionEntry,
    PackageEntry,
    Status,
    Totals,
    Unreadable,
    status_of,
)
from airflow_provider_smtpcm.ssis.report.sections import package_section
from airflow_provider_smtpcm.ssis.report.spool import Spool

CONNECTIONS = "connections.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A package, converted. `file` is the DAG's name below the output folder, `text` is the module; empty: no DAG."""

    entry: PackageEntry
    file: str = ""
    text: str = field(default="", repr=False)


class Converter(Protocol):
    """Turns packages into DAGs, and keeps the connections that they share."""

    def project(self, project: Project) -> None:
        """Take a project's connection managers, whether or not a mail uses them."""

    def package(self, package: Package, project: Project | None) -> Converted:
        """Convert one."""

    def connections_json(self) -> str:
        """All connections so far, as `airflow connections import` takes them; empty where there is none."""

    def connections(self) -> tuple[ConnectionEntry, ...]:
        """All connections so far, for the report."""


@dataclass(slots=True, kw_only=True)
class Import:
    """What an import did. `left_over` are files of an earlier import that this one did not write."""

    totals: Totals = field(default_factory=Totals)
    unreadable: list[Unreadable] = field(default_factory=list)
    copies: list[tuple[str, str]] = field(default_factory=list)
    without_mail: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)

    @property
    def needs_a_person(self) -> bool:
        """Whether something is to be decided, to be completed, or could not be read."""
        findings = self.totals.findings
        return bool(self.unreadable or findings[Severity.DECISION] or findings[Severity.ERROR])


def import_packages(
    found: Iterator[Found],
    converter: Converter,
    folder: OutputFolder,
    *,
    told: Callable[[Totals, str], None] = lambda _totals, _source: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Import:
    """Import all that is found.

    Args:
        found: from `reading.read_everything`.
        folder: opened.
        told: hears what was counted so far, and what was found last.
        is_stopped: asked after each package; where it says so, the import ends in order, and its report says so.

    Raises:
        OutputError: the folder cannot be written into.
        PackageError: nothing can be read here at all, since a library is missing.
    """
    done = Import()
    with Spool() as spool:
        try:
            for one in _foreseen(found, done):
                _take(one, converter, folder, done, spool)
                told(done.totals, one.source)
                if is_stopped():
                    done.totals.interrupted = True
                    break
            connections = _write_connections(converter, folder, done)
        finally:
            # Even where this is left by an error: what was written is ours.
            done.left_over = folder.close(whole=not done.totals.interrupted)
        _write_reports(folder, done, spool, connections)
    return done


def _take(one: Found, converter: Converter, folder: OutputFolder, done: Import, spool: Spool) -> None:
    if one.error is not None:
        done.unreadable.append(Unreadable(source=one.source, message=one.error.message, remedy=one.error.remedy))
        done.totals.unreadable += 1
    elif one.duplicate_of is not None:
        done.copies.append((one.source, one.duplicate_of))
        done.totals.copies += 1
    elif one.package is not None:
        _add(_written(_converted(one.package, one.project, converter), folder), done, spool)
    elif one.project is not None:
        done.totals.projects += 1
        try:
            converter.project(one.project)
        except Exception as error:  # noqa: BLE001
            done.findings.append(_unforeseen(error, one.source))


def _converted(package: Package, project: Project | None, converter: Converter) -> Converted:
    try:
        return converter.package(package, project)
    except Exception as error:  # noqa: BLE001
        finding = _unforeseen(error, package.name)
        entry = PackageEntry(
            source=package.path,
            name=package.name,
            format_version=package.format_version,
            status=Status.FAILED,
            findings=(*package.findings, finding),
        )
        return Converted(entry=entry)


def _written(converted: Converted, folder: OutputFolder) -> PackageEntry:
    entry = converted.entry
    if not converted.file:
        return entry
    if folder.write(converted.file, converted.text) is not Fate.KEPT:
        return replace(entry, dag_file=converted.file)
    beside = f"{converted.file}.new"
    findings = (*entry.findings, _kept(converted.file, beside, entry.name))
    status = status_of(findings, has_mail=True)
    return replace(entry, dag_file=converted.file, kept=beside, findings=findings, status=status)


def _kept(file: str, beside: str, where: str) -> Finding:
    return Finding(
        code="edited-file-kept",
        severity=Severity.DECISION,
        where=where,
        text=f"{file} was edited since an import wrote it, or no import wrote it. It was left as it is; what it would "
        f"be now is in {beside}.",
        remedy="Take over what you need and delete that file, or overwrite yours with --force.",
    )


def _add(entry: PackageEntry, done: Import, spool: Spool) -> None:
    done.totals.add(entry)
    spool.lines.write(machine.package_line(entry) + "\n")
    if entry.status is Status.NO_MAIL:  # it has notes at the most
        done.without_mail.append(entry.source)
    else:
        spool.sections.write(package_section(entry))


def _write_connections(converter: Converter, folder: OutputFolder, done: Import) -> tuple[ConnectionEntry, ...]:
    connections: tuple[ConnectionEntry, ...]
    try:
        connections = converter.connections()
        text = converter.connections_json()
    except Exception as error:  # noqa: BLE001
        connections, text = (), ""
        done.findings.append(_unforeseen(error, CONNECTIONS))
    done.totals.connections = len(connections)
    for one in connections:
        done.totals.add_findings(one.findings)
        asks = any(finding.severity is not Severity.NOTE for finding in one.findings)
        done.totals.connections_to_decide += asks
    if text and folder.write(CONNECTIONS, text) is Fate.KEPT:
        done.findings.append(_kept(CONNECTIONS, f"{CONNECTIONS}.new", CONNECTIONS))
        done.totals.kept += 1
    done.totals.add_findings(done.findings)
    return connections


def _write_reports(folder: OutputFolder, done: Import, spool: Spool, connections: tuple[ConnectionEntry, ...]) -> None:
    told = {
        "totals": done.totals,
        "connections": connections,
        "unreadable": done.unreadable,
        "copies": done.copies,
        "left_over": done.left_over,
        "findings": done.findings,
    }
    folder.report("report.json", lambda to: machine.write(to, packages=spool.packages(), **told))  # type: ignore[arg-type]
    folder.report(
        "report.html",
        lambda to: page.write(to, sections=spool.pieces(), without_mail=done.without_mail, **told),  # type: ignore[arg-type]
    )


def _foreseen(found: Iterator[Found], done: Import) -> Iterator[Found]:
    """What is found, until something happens in the reading that nobody foresaw."""
    try:
        yield from found
    except PackageError:
        raise
    except Exception as error:  # noqa: BLE001
        done.findings.append(_unforeseen(error, "reading"))


def _unforeseen(error: Exception, where: str) -> Finding:
    return Finding(
        code="importer-failed",
        severity=Severity.ERROR,
        where=where,
        text=unforeseen.told(error),
        remedy=unforeseen.REPORT_IT,
    )
