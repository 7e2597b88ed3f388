"""An import: converts SSIS packages into DAGs, connections and reports, one package at a time.

An unexpected error in one package does not stop the import: it becomes a finding of that package.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Any, Self

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis.findings import Findings
from airflow_provider_smtpcm.ssis.model import (
    REPORT_INTERNAL_ERROR,
    Container,
    ContainerKind,
    Finding,
    OtherTask,
    Package,
    Project,
    Severity,
    SmtpConnection,
    describe_internal_error,
    describe_kind,
)
from airflow_provider_smtpcm.ssis.output_folder import NEW_SUFFIX, OutputFolder, WriteResult
from airflow_provider_smtpcm.ssis.questions import (
    QUESTIONS,
    Answers,
    QuestionList,
    describe_keys,
    is_replaceable,
)
from airflow_provider_smtpcm.ssis.reading import ReadResult
from airflow_provider_smtpcm.ssis.report.entries import (
    ConnectionEntry,
    ImportResult,
    PackageEntry,
    PackageStatus,
    Totals,
    UnreadableFile,
    count_noun,
    get_status,
)
from airflow_provider_smtpcm.ssis.report.html_report import package_section, write_html_report
from airflow_provider_smtpcm.ssis.report.json_report import package_line, write_json_report
from airflow_provider_smtpcm.ssis.waiting_mails import WaitingMails
from airflow_provider_smtpcm.ssis.windows_paths import PathMap
from airflow_provider_smtpcm.ssis.writing.connections import (
    ConnectionRegistry,
    ConvertedConnection,
    SmtpConverter,
    known_properties,
)
from airflow_provider_smtpcm.ssis.writing.conversion import ConversionOptions, MailRecord
from airflow_provider_smtpcm.ssis.writing.dag_module import DagIds, write_package
from airflow_provider_smtpcm.ssis.writing.database_connections import DatabaseSettings
from airflow_provider_smtpcm.ssis.writing.live_variables import VariableSetters
from airflow_provider_smtpcm.ssis.writing.symbols import SymbolTable

CONNECTIONS = "connections.json"
# A package with neither a Send Mail task nor an SMTP connection manager gets only findings with these codes.
_CODES_WITHOUT_MAIL = {"other-mail-task"}
# Findings with these codes are not reported for a connection: the reports list its sources instead.
_UNREPORTED_CODES = {"connection-manager-became", "database-connection-became"}


def _child_key(name: str) -> str:
    """Return the name by which an Execute Package task is matched with a package: without folder and suffix."""
    return name.replace("\\", "/").rpartition("/")[2].lower().removesuffix(".dtsx")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedPackage:
    """A converted package.

    Args:
        entry: what the reports say about the package.
        file: the name of the DAG file, relative to the output folder; empty if there is no DAG.
        source: the text of that file.
    """

    entry: PackageEntry
    file: str = ""
    source: str = field(default="", repr=False)


class PackageConverter:
    """Converts packages, and collects their connections.

    Args:
        options: the options of the import.
    """

    def __init__(self, options: ConversionOptions) -> None:
        self._options = options
        self._registry = ConnectionRegistry(options)
        self._dag_ids = DagIds()
        self._paths = PathMap(options.path_map)
        # The packages that use a connection, by their number.
        self._users_by_conn_id: defaultdict[str, array[int]] = defaultdict(lambda: array("L"))
        self._packages = count()
        self._mails_by_conn_id: Counter[str] = Counter()
        self._has_packages = False
        # The settings of the SMTP connection managers, by GUID, for tasks that refer to one in another package.
        self._managers: dict[str, tuple[str, str]] = {}
        # The packages that set variables of their parents: by name, the path and the tasks with the variables.
        self._children: defaultdict[str, list[tuple[str, tuple[tuple[str, str], ...]]]] = defaultdict(list)
        # The Execute Package tasks: the path of the package, the name, the child, and the variables that are read.
        self._parents: list[tuple[str, str, str, frozenset[str]]] = []

    @property
    def placeholders_pass(self) -> bool:
        """Whether placeholders succeed instead of failing."""
        return self._options.placeholders_pass

    def add_project(self, project: Project) -> None:
        """Register the connection managers of a project, whether or not a mail uses them."""
        root = Container(name=project.name, id="", path=(project.name,), kind=ContainerKind.PACKAGE)
        package = Package(name=project.name, id="", path=project.path, root=root)
        symbols = SymbolTable(package=package, project=project, findings=Findings(self._options.answers))
        self._remember(project.connection_managers)
        for manager in project.connection_managers:
            self._registry.register(SmtpConverter(manager, symbols, symbols.root_scope(), self._options))

    def convert(self, package: Package, project: Project | None) -> ConvertedPackage:
        """Convert a package.

        Args:
            project: the project of the package; None if it has none.
        """
        self._has_packages = True
        module = write_package(
            package, self._registry, self._options, dag_ids=self._dag_ids, project=project, paths=self._paths
        )
        self._remember(package.connection_managers)
        self._remember_variables(package)
        has_mail = bool(module.mails)
        findings = module.findings
        if not has_mail and not package.connection_managers:
            findings = tuple(finding for finding in findings if finding.code in _CODES_WITHOUT_MAIL)
        if all(mail.disabled_because for mail in module.mails):
            findings = tuple(_as_note(finding) for finding in findings)
        enabled = [mail for mail in module.mails if not mail.disabled_because]
        number = next(self._packages)
        for conn_id in {*module.connections, *module.databases}:
            self._users_by_conn_id[conn_id].append(number)
        self._mails_by_conn_id.update(mail.connection for mail in enabled)
        # All mails of a package count as users of its databases: any of them may contain or depend on their data.
        self._mails_by_conn_id.update({conn_id: len(enabled) for conn_id in module.databases})
        entry = PackageEntry(
            source=package.path,
            name=package.name,
            format_version=package.format_version,
            status=get_status(findings, has_mail=has_mail),
            dag_id=module.dag_id,
            connections=module.connections,
            mails=_add_questions(module.mails, findings, package),
            findings=findings,
        )
        file = f"dags/{module.file_name}" if module.source else ""
        return ConvertedPackage(entry=entry, file=file, source=module.source)

    def _remember(self, managers: Iterable[SmtpConnection]) -> None:
        for manager in managers:
            place = f"{manager.name!r} in {manager.source}" if manager.source else repr(manager.name)
            self._managers.setdefault(manager.id.upper(), (place, known_properties(manager.connection_string)))

    def _remember_variables(self, package: Package) -> None:
        """Remember what a package sets of its parents, and which variables its mails may read from its children."""
        setters = VariableSetters(package)
        if undeclared := setters.find_undeclared():
            named = [
                (f"{executable.name!r} ({describe_kind(executable.kind)})", name) for executable, name in undeclared
            ]
            self._children[_child_key(package.file_stem)].append((package.path, tuple(dict.fromkeys(named))))
        if not any(not task.disabled for task in package.send_mail_tasks):
            return
        for executable, _ in package.walk_executables():
            if isinstance(executable, OtherTask) and executable.child_package and not executable.disabled:
                read = setters.find_read(executable)
                self._parents.append((package.path, executable.name, _child_key(executable.child_package), read))

    def child_setters(self) -> Iterator[Finding]:
        """Yield a note for each variable of a package that tasks of a child package set, and that the parent reads."""
        for path, task, key, read in self._parents:
            for child, named in self._children.get(key, ()):
                for setter, name in named:
                    if name in read:
                        yield Finding(
                            code="set-by-child-package",
                            severity=Severity.NOTE,
                            where=path,
                            text=f"{task!r} executes {child}, whose {setter} sets {name} of this package, which reads "
                            "it. The DAGs share no variables, so the reader has the design-time value.",
                            remedy=f"Let the task that replaces {task!r} push the value as an XCom with the key "
                            f"{name}, and read it with ssis.variable.",
                        )

    def suggest(self, questions: QuestionList) -> None:
        """Suggest an answer where another package or project has the connection manager that a task refers to."""
        for key in questions.unanswered_keys():
            prefix, _, guid = key.rpartition(" ")
            if prefix == "connection manager" and (found := self._managers.get(guid)):
                place, settings = found
                questions.suggest(key, f"{place} has this GUID", settings)

    def unused_options(self) -> Iterator[Finding]:
        """Yield a note for each option that names something that the packages do not have."""
        for name in self._registry.unknown_names.values():
            yield Finding(
                code="option-without-effect",
                severity=Severity.NOTE,
                where="--windows-auth",
                text=f"--windows-auth names {name!r}, but no connection manager has that name.",
                remedy="The report lists the connection managers with their names.",
            )
        for prefix in self._paths.unused.values():
            yield Finding(
                code="option-without-effect",
                severity=Severity.NOTE,
                where="--map-path",
                text=f"--map-path maps {prefix}, but no path of a mail begins with it.",
                remedy="The findings 'unmapped-path' in the report show how the paths begin.",
            )

    def connections_json(self) -> str:
        """Return the text of the file for `airflow connections import`; empty if there is no connection."""
        return self._registry.to_json()

    def connection_entries(self) -> tuple[ConnectionEntry, ...]:
        """Return an entry for each connection so far.

        If packages were imported, the decisions about a connection that no mail uses are only notes.
        """
        entries = [
            _connection_entry(
                connection,
                users=self._users_by_conn_id[connection.conn_id],
                mails=self._mails_by_conn_id[connection.conn_id],
            )
            for connection in self._registry.connections
        ]
        return tuple(
            replace(entry, findings=tuple(map(_as_note, entry.findings)))
            if self._has_packages and not entry.mails
            else entry
            for entry in entries
        )


def _as_note(finding: Finding) -> Finding:
    """Return the finding; as a note, if it is a decision that matters only to mails."""
    if finding.severity is not Severity.DECISION or finding.code in _CODES_WITHOUT_MAIL:
        return finding
    return replace(finding, severity=Severity.NOTE, question=None)


def _add_questions(
    mails: tuple[MailRecord, ...], findings: Iterable[Finding], package: Package
) -> tuple[MailRecord, ...]:
    """Return the mails with the keys of the questions that concern them, answered or not."""
    asking = [(finding, finding.question.key) for finding in findings if finding.question is not None]
    if not asking:
        return mails
    waiting = WaitingMails(package)
    keys: dict[str, dict[str, None]] = {}
    for finding, key in asking:
        for path in waiting.find(finding):
            keys.setdefault(path, {})[key] = None
    return tuple(
        mail if mail.disabled_because else replace(mail, questions=tuple(keys.get(mail.where, ()))) for mail in mails
    )


def _connection_entry(connection: ConvertedConnection[Any], *, users: Sequence[int], mails: int) -> ConnectionEntry:
    settings = connection.settings
    if isinstance(settings, DatabaseSettings):
        host, summary = settings.server, settings.summary
    else:
        host, summary = settings.host, f"{settings.host}:{settings.port}, {settings.auth_mode}, SSL {settings.ssl_mode}"
    return ConnectionEntry(
        conn_id=connection.conn_id,
        host=host,
        summary=summary,
        sources=tuple(connection.sources),
        users=users,
        mails=mails,
        findings=tuple(finding for finding in connection.findings if finding.code not in _UNREPORTED_CODES),
    )


class ReportBuffer:
    """Buffers the packages' parts of both reports in temporary files, since a report begins with the final counts."""

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
        """Add a package."""
        self._lines.write(package_line(entry) + "\n")
        if entry.status is not PackageStatus.NO_MAIL:
            self._sections.write(package_section(entry))

    def lines(self) -> Iterator[str]:
        """Yield the line of each package for `report.json`."""
        self._lines.seek(0)
        return (line.rstrip("\n") for line in self._lines)

    def sections(self) -> Iterator[str]:
        """Yield the sections for `report.html`, line by line."""
        self._sections.seek(0)
        return iter(self._sections)


def import_packages(
    results: Iterator[ReadResult],
    converter: PackageConverter,
    output: OutputFolder,
    *,
    answers: Answers | None = None,
    on_progress: Callable[[Totals, str], None] = lambda _totals, _source: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> ImportResult:
    """Convert what the reader yields, and write DAGs, connections and reports.

    Args:
        results: the output of `reading.read_paths`.
        output: the output folder, already open.
        answers: those that `converter` uses; the next `questions.csv` contains them. None: no answers.
        on_progress: called after each result, with the counts so far and the source of the result.
        is_stopped: called after each result; if it returns True, the import stops, and the reports are marked as
            interrupted.

    Raises:
        OutputError: the output folder cannot be written.
        PackageError: no package can be read, because a library is missing.
    """
    result = ImportResult()
    result.totals.placeholders_pass = converter.placeholders_pass
    with ReportBuffer() as buffer:
        try:
            for read in _until_error(results, result):
                _import_one(read, converter, output, result, buffer)
                on_progress(result.totals, read.source)
                if is_stopped():
                    result.totals.interrupted = True
                    break
            if not result.totals.interrupted:
                result.findings += [*converter.unused_options(), *converter.child_setters()]
            _write_connections(converter, output, result)
            converter.suggest(result.questions)
            _write_questions(answers or Answers(), output, result)
            result.totals.add_findings(result.findings)
        finally:
            # Also after an error: the next import must recognize the files of this one.
            result.left_over = output.close(complete=not result.totals.interrupted)
        output.write_report("report.json", lambda to: write_json_report(to, result, buffer.lines()))
        output.write_report("report.html", lambda to: write_html_report(to, result, buffer.sections()))
    return result


def _import_one(
    read: ReadResult, converter: PackageConverter, output: OutputFolder, result: ImportResult, buffer: ReportBuffer
) -> None:
    totals = result.totals
    if read.error is not None:
        result.unreadable.append(
            UnreadableFile(source=read.source, message=read.error.message, remedy=read.error.remedy)
        )
        totals.unreadable += 1
    elif read.duplicate_of is not None:
        result.copies.append((read.source, read.duplicate_of))
        totals.copies += 1
    elif read.package is not None:
        entry = _write_dag(_convert(read.package, read.project, converter), output)
        result.add_package(entry)
        buffer.add(entry)
        if entry.status is PackageStatus.NO_MAIL:
            result.without_mail.append(entry.source)
    elif read.project is not None:
        totals.projects += 1
        try:
            converter.add_project(read.project)
        except Exception as error:  # noqa: BLE001
            result.findings.append(_internal_error(error, read.source))


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


def _write_dag(converted: ConvertedPackage, output: OutputFolder) -> PackageEntry:
    """Write the DAG file of a package, if it has one; return the package's entry with the result."""
    entry = converted.entry
    if not converted.file:
        return entry
    if output.write(converted.file, converted.source) is not WriteResult.KEPT:
        return replace(entry, dag_file=converted.file)
    findings = (*entry.findings, _edited_file_kept(converted.file, entry.name))
    status = get_status(findings, has_mail=True)
    return replace(
        entry, dag_file=converted.file, new_file=converted.file + NEW_SUFFIX, findings=findings, status=status
    )


def _write_connections(converter: PackageConverter, output: OutputFolder, result: ImportResult) -> None:
    text = ""
    try:
        entries = converter.connection_entries()
        text = converter.connections_json()
        result.add_connections(entries)
    except Exception as error:  # noqa: BLE001
        result.findings.append(_internal_error(error, CONNECTIONS))
    if text and output.write(CONNECTIONS, text) is WriteResult.KEPT:
        result.findings.append(_edited_file_kept(CONNECTIONS, CONNECTIONS))
        result.totals.kept += 1


def _write_questions(answers: Answers, output: OutputFolder, result: ImportResult) -> None:
    """Write `questions.csv`, unless there is no question, or the file has answers that were not given to this import.

    Even `--force` does not overwrite answers.
    """
    not_asked = answers.not_asked()
    result.questions.carry_over(answers.all())
    if not_asked and not result.totals.interrupted:
        result.findings.append(
            Finding(
                code="answer-not-asked",
                severity=Severity.NOTE,
                where=QUESTIONS,
                text=f"{count_noun(len(not_asked), 'answer')} given with --answers "
                f"{'belongs to a question' if len(not_asked) == 1 else 'belong to questions'} that this import does "
                f"not ask: {describe_keys(not_asked)}. {QUESTIONS} still has "
                f"{'it' if len(not_asked) == 1 else 'them'}.",
            )
        )
    text = result.questions.to_csv()
    if not text:
        output.remove(QUESTIONS)
        return
    path = output.path / QUESTIONS
    can_replace = is_replaceable(path, answers)
    if output.write(QUESTIONS, text, replace=can_replace) is WriteResult.KEPT:
        finding = _edited_file_kept(QUESTIONS, QUESTIONS)
        remedy = finding.remedy if can_replace is None else f"Import again with --answers {path}."
        result.findings.append(replace(finding, remedy=remedy))
        result.totals.kept += 1


def _until_error(results: Iterator[ReadResult], result: ImportResult) -> Iterator[ReadResult]:
    """Yield the results until an unexpected error of the reader, which becomes a finding of the import."""
    try:
        yield from results
    except PackageError:
        raise
    except Exception as error:  # noqa: BLE001
        result.findings.append(_internal_error(error, "reading"))


def _edited_file_kept(file: str, where: str) -> Finding:
    return Finding(
        code="edited-file-kept",
        severity=Severity.DECISION,
        where=where,
        text=f"{file} was edited after an import, or not written by one. It was kept, and the new text is in "
        f"{file}{NEW_SUFFIX}.",
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
