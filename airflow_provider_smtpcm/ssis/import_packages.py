"""An import: the packages that were read become DAGs, connections and a report, one package at a time.

No package stops the others: an unexpected error becomes a finding of the package that caused it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Self

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis.model import (
    REPORT_INTERNAL_ERROR,
    Container,
    ContainerKind,
    Finding,
    Package,
    Project,
    Severity,
    describe_internal_error,
)
from airflow_provider_smtpcm.ssis.output import OutputFolder, WriteResult
from airflow_provider_smtpcm.ssis.reading import ReadResult
from airflow_provider_smtpcm.ssis.report.entries import (
    ConnectionEntry,
    ImportResult,
    PackageEntry,
    PackageStatus,
    Totals,
    UnreadableFile,
    status_of,
)
from airflow_provider_smtpcm.ssis.report.html_report import package_section, write_html_report
from airflow_provider_smtpcm.ssis.report.json_report import package_line, write_json_report
from airflow_provider_smtpcm.ssis.writing.connections import ConnectionRegistry
from airflow_provider_smtpcm.ssis.writing.conversion import ConversionOptions, Findings
from airflow_provider_smtpcm.ssis.writing.dag_module import DagIds, write_package
from airflow_provider_smtpcm.ssis.writing.symbols import SymbolTable

CONNECTIONS = "connections.json"
# The only findings that concern mail in a package that neither sends any nor has a connection manager.
_WITHOUT_MAIL = {"other-mail-task"}
# A report shows the sources of each connection instead.
_NOT_REPORTED = {"connection-manager-became"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedPackage:
    """A package after its conversion.

    Args:
        file: the name of the DAG's file in the output folder; empty if there is no DAG.
        source: the text of that file.
    """

    entry: PackageEntry
    file: str = ""
    source: str = field(default="", repr=False)


class PackageConverter:
    """Converts packages, and collects the connections that they share.

    Args:
        options: of the import.
    """

    def __init__(self, options: ConversionOptions) -> None:
        self._options = options
        self._registry = ConnectionRegistry(options)
        self._dag_ids = DagIds()
        self._uses: Counter[str] = Counter()

    def add_project(self, project: Project) -> None:
        """Register the connection managers of a project, whether or not a mail uses them."""
        root = Container(name=project.name, id="", path=(project.name,), kind=ContainerKind.PACKAGE)
        package = Package(name=project.name, id="", path=project.path, root=root)
        symbols = SymbolTable(package=package, project=project, findings=Findings())
        for one in project.connection_managers:
            self._registry.register(one, symbols, symbols.root_scope())

    def convert(self, package: Package, project: Project | None) -> ConvertedPackage:
        """Convert a package.

        Args:
            project: of the package, if it has one.
        """
        module = write_package(package, self._registry, self._options, dag_ids=self._dag_ids, project=project)
        has_mail = bool(module.mails)
        findings = module.findings
        if not has_mail and not package.connection_managers:
            findings = tuple(one for one in findings if one.code in _WITHOUT_MAIL)
        self._uses.update(module.connections)
        entry = PackageEntry(
            source=package.path,
            name=package.name,
            format_version=package.format_version,
            status=status_of(findings, has_mail=has_mail),
            dag_id=module.dag_id,
            connections=module.connections,
            mails=module.mails,
            findings=findings,
        )
        file = f"dags/{module.file_name}" if module.source else ""
        return ConvertedPackage(entry=entry, file=file, source=module.source)

    def connections_json(self) -> str:
        """Return the file for `airflow connections import`; empty if there is no connection."""
        return self._registry.to_json()

    def connection_entries(self) -> tuple[ConnectionEntry, ...]:
        """Return an entry for each connection so far."""
        return tuple(
            ConnectionEntry(
                conn_id=one.conn_id,
                host=one.manager.host,
                summary=f"{one.manager.host}:{one.manager.port}, {one.manager.auth_mode}, SSL {one.manager.ssl_mode}",
                sources=tuple(one.sources),
                packages=self._uses[one.conn_id],
                findings=tuple(finding for finding in one.findings if finding.code not in _NOT_REPORTED),
            )
            for one in self._registry.connections
        )


class ReportBuffer:
    """The packages' parts of both reports, in temporary files until the counts that precede them are known."""

    _lines: IO[str]
    _sections: IO[str]

    def __enter__(self) -> Self:
        self._lines, self._sections = (
            TemporaryFile("w+", encoding="utf-8", newline="\n")  # noqa: SIM115
            for _ in range(2)
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._sections.close()

    def add(self, entry: PackageEntry) -> None:
        """Write the parts of a package."""
        self._lines.write(package_line(entry) + "\n")
        if entry.status is not PackageStatus.NO_MAIL:
            self._sections.write(package_section(entry))

    def lines(self) -> Iterator[str]:
        """Yield the line of each package for `report.json`."""
        self._lines.seek(0)
        return (line.rstrip("\n") for line in self._lines)

    def sections(self) -> Iterator[str]:
        """Yield the sections for `report.html`, in pieces of any size."""
        self._sections.seek(0)
        return iter(self._sections)


def import_packages(
    found: Iterator[ReadResult],
    converter: PackageConverter,
    folder: OutputFolder,
    *,
    on_progress: Callable[[Totals, str], None] = lambda _totals, _source: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> ImportResult:
    """Import everything that was found.

    Args:
        found: from `reading.read_everything`.
        folder: after `OutputFolder.open`.
        on_progress: called after each package with the counts so far and the source of the package.
        is_stopped: called after each package; if it returns True, the import ends in order, and the reports say so.

    Raises:
        OutputError: the folder cannot be written.
        PackageError: no package can be read, because a library is missing.
    """
    result = ImportResult()
    with ReportBuffer() as buffer:
        try:
            for one in _until_error(found, result):
                _import_one(one, converter, folder, result, buffer)
                on_progress(result.totals, one.source)
                if is_stopped():
                    result.totals.interrupted = True
                    break
            _write_connections(converter, folder, result)
        finally:
            # After an error, too: the next import has to recognize the files of this one.
            result.left_over = folder.close(complete=not result.totals.interrupted)
        folder.write_report("report.json", lambda to: write_json_report(to, result, buffer.lines()))
        folder.write_report("report.html", lambda to: write_html_report(to, result, buffer.sections()))
    return result


def _import_one(
    one: ReadResult, converter: PackageConverter, folder: OutputFolder, result: ImportResult, buffer: ReportBuffer
) -> None:
    totals = result.totals
    if one.error is not None:
        result.unreadable.append(UnreadableFile(source=one.source, message=one.error.message, remedy=one.error.remedy))
        totals.unreadable += 1
    elif one.duplicate_of is not None:
        result.copies.append((one.source, one.duplicate_of))
        totals.copies += 1
    elif one.package is not None:
        entry = _write_dag(_convert(one.package, one.project, converter), folder)
        totals.add(entry)
        buffer.add(entry)
        if entry.status is PackageStatus.NO_MAIL:
            result.without_mail.append(entry.source)
    elif one.project is not None:
        totals.projects += 1
        try:
            converter.add_project(one.project)
        except Exception as error:  # noqa: BLE001
            result.findings.append(_internal_error(error, one.source))


def _convert(package: Package, project: Project | None, converter: PackageConverter) -> ConvertedPackage:
    try:
        return converter.convert(package, project)
    except Exception as error:  # noqa: BLE001
        entry = PackageEntry(
            source=package.path,
            name=package.name,
            format_version=package.format_version,
            status=PackageStatus.FAILED,
            findings=(*package.findings, _internal_error(error, package.name)),
        )
        return ConvertedPackage(entry=entry)


def _write_dag(converted: ConvertedPackage, folder: OutputFolder) -> PackageEntry:
    """Write the file of a DAG; return the package's entry with what became of the file."""
    entry = converted.entry
    if not converted.file:
        return entry
    if folder.write(converted.file, converted.source) is not WriteResult.KEPT:
        return replace(entry, dag_file=converted.file)
    new = f"{converted.file}.new"
    findings = (*entry.findings, _edited_file_kept(converted.file, entry.name))
    status = status_of(findings, has_mail=True)
    return replace(entry, dag_file=converted.file, kept=new, findings=findings, status=status)


def _write_connections(converter: PackageConverter, folder: OutputFolder, result: ImportResult) -> None:
    totals = result.totals
    text = ""
    try:
        result.connections = converter.connection_entries()
        text = converter.connections_json()
    except Exception as error:  # noqa: BLE001
        result.connections = ()
        result.findings.append(_internal_error(error, CONNECTIONS))
    totals.connections = len(result.connections)
    for one in result.connections:
        totals.add_findings(one.findings)
        totals.connections_to_decide += any(finding.severity is not Severity.NOTE for finding in one.findings)
    if text and folder.write(CONNECTIONS, text) is WriteResult.KEPT:
        result.findings.append(_edited_file_kept(CONNECTIONS, CONNECTIONS))
        totals.kept += 1
    totals.add_findings(result.findings)


def _until_error(found: Iterator[ReadResult], result: ImportResult) -> Iterator[ReadResult]:
    """Yield what is found; an unexpected error of the reader ends it and becomes a finding."""
    try:
        yield from found
    except PackageError:
        raise
    except Exception as error:  # noqa: BLE001
        result.findings.append(_internal_error(error, "reading"))


def _edited_file_kept(file: str, where: str) -> Finding:
    return Finding(
        code="edited-file-kept",
        severity=Severity.DECISION,
        where=where,
        text=f"{file} has been edited since an import wrote it, or no import wrote it. It was kept, and the new text "
        f"is in {file}.new.",
        remedy="Copy what you need from the new file and delete it, or overwrite yours with --force.",
    )


def _internal_error(error: Exception, where: str) -> Finding:
    return Finding(
        code="importer-failed",
        severity=Severity.ERROR,
        where=where,
        text=describe_internal_error(error),
        remedy=REPORT_INTERNAL_ERROR,
    )
