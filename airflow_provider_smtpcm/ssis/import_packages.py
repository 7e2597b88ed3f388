"""The whole import: what was found becomes DAGs, connections and a report. One package at a time is in memory.

Nothing that a package holds stops the others: what nobody foresaw becomes a finding of that package. Knows no terminal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis.model import (
    REPORT_INTERNAL_ERROR,
    Container,
    ContainerKind,
    Finding,
    Package,
    Project,
    Severity,
    SmtpConnection,
    describe_internal_error,
)
from airflow_provider_smtpcm.ssis.output import Fate, OutputFolder
from airflow_provider_smtpcm.ssis.reading import ReadResult
from airflow_provider_smtpcm.ssis.report import machine, page
from airflow_provider_smtpcm.ssis.report.entries import (
    ConnectionEntry,
    PackageEntry,
    Status,
    Totals,
    Unreadable,
    status_of,
)
from airflow_provider_smtpcm.ssis.report.page import Spool, package_section
from airflow_provider_smtpcm.ssis.writing.connections import Connections
from airflow_provider_smtpcm.ssis.writing.dag_module import ModuleNames, write_package
from airflow_provider_smtpcm.ssis.writing.outcome import Findings, Options, WindowsAuth
from airflow_provider_smtpcm.ssis.writing.symbols import Names, Scope

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
    found: Iterator[ReadResult],
    converter: Converter,
    folder: OutputFolder,
    *,
    told: Callable[[Totals, str], None] = lambda _totals, _source: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Import:
    """Import all that is found.

    Args:
        found: from `reading.read_paths`.
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


def _take(one: ReadResult, converter: Converter, folder: OutputFolder, done: Import, spool: Spool) -> None:
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


def _foreseen(found: Iterator[ReadResult], done: Import) -> Iterator[ReadResult]:
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
        text=describe_internal_error(error),
        remedy=REPORT_INTERNAL_ERROR,
    )


# folded: Between the writing and the report: what belongs to a connection is told there once, not in each of 400
#   packages.

# Of one connection; what 400 packages call their connection managers says nothing more.
_FINDINGS_OF_A_CODE = 3
# All that concerns mail in a package that sends none.
_CONCERNS_MAIL = {"other-mail-task"}
# The report says it by the sources of a connection.
_SAID_OTHERWISE = {"connection-manager-became"}


def make_converter(
    *, windows_auth: Sequence[tuple[str, str | None]] = (), map_path: Sequence[tuple[str, str]] = ()
) -> PackageConverter:
    """The converter for what a person decided on the command line; of two answers to one question the last counts."""
    chosen = {name: WindowsAuth(mode) for mode, name in windows_auth}
    options = Options(
        windows_auth=chosen.get(None, WindowsAuth.KEEP),
        windows_auth_of={name: mode for name, mode in chosen.items() if name is not None},
        path_map=tuple(map_path),
    )
    return PackageConverter(options, decided={name.lower() if name else None for name in chosen})


class PackageConverter:
    """Turns packages into DAGs, and keeps the connections that they share.

    Args:
        options: what a person decided.
        decided: the connection managers, in lower case, about whose Windows Authentication somebody said something;
            None stands for all of them.
    """

    def __init__(self, options: Options, *, decided: set[str | None]) -> None:
        self._options = options
        self._connections = _Registry(options, decided)
        self._names = ModuleNames()
        self._used: Counter[str] = Counter()

    def project(self, project: Project) -> None:
        """Take a project's connection managers, whether or not a mail uses them."""
        root = Container(name=project.name, id="", path=(project.name,), kind=ContainerKind.PACKAGE)
        package = Package(name=project.name, id="", path=project.path, root=root)
        names = Names(package=package, project=project, findings=Findings())
        for one in project.connection_managers:
            self._connections.take(one, names, names.root(), names.findings)

    def package(self, package: Package, project: Project | None) -> Converted:
        """Convert one."""
        written = write_package(package, self._connections, self._options, names=self._names, project=project)
        has_mail = bool(written.mails)
        findings = written.findings
        if not has_mail and not package.connection_managers:
            findings = tuple(one for one in findings if one.code in _CONCERNS_MAIL)
        self._used.update(written.connections)
        entry = PackageEntry(
            source=package.path,
            name=package.name,
            format_version=package.format_version,
            status=status_of(findings, has_mail=has_mail),
            dag_id=written.dag_id if written.source else "",
            connections=written.connections,
            mails=written.mails,
            findings=findings,
        )
        file = f"dags/{written.file_name}" if written.source else ""
        return Converted(entry=entry, file=file, text=written.source)

    def connections_json(self) -> str:
        """All connections so far, as `airflow connections import` takes them; empty where there is none."""
        return self._connections.to_json()

    def connections(self) -> tuple[ConnectionEntry, ...]:
        """All connections so far, for the report."""
        return tuple(
            ConnectionEntry(
                conn_id=one.conn_id,
                host=one.manager.host,
                summary=f"{one.manager.host}:{one.manager.port}, {one.manager.auth_mode}, SSL {one.manager.ssl_mode}",
                sources=tuple(one.sources),
                packages=self._used[one.conn_id],
                findings=self._connections.findings_of(one.conn_id),
            )
            for one in self._connections.written
        )


class _Registry(Connections):
    """Connections, with what is to be known of each."""

    def __init__(self, options: Options, decided: set[str | None]) -> None:
        super().__init__(options)
        self._decided = decided
        self._about: dict[str, dict[Finding, None]] = {}

    def take(self, connection: SmtpConnection, names: Names, scope: Scope, findings: Findings) -> str:  # noqa: ARG002
        """As the base, but the findings are kept with the connection."""
        own = Findings()
        conn_id = super().take(connection, names, scope, own)
        about = self._about.setdefault(conn_id, {})
        for one in own.all():
            if one.code not in _SAID_OTHERWISE and sum(known.code == one.code for known in about) < _FINDINGS_OF_A_CODE:
                about[self._asked(one, connection.name)] = None
        return conn_id

    def findings_of(self, conn_id: str) -> tuple[Finding, ...]:
        """What is to be known of it."""
        return tuple(self._about.get(conn_id, ()))

    def _asked(self, finding: Finding, name: str) -> Finding:
        """What a person has decided by an option needs no other decision."""
        if finding.code == "windows-auth-kept" and self._decided & {None, name.lower()}:
            return replace(finding, severity=Severity.NOTE)
        return finding
