"""The data of the reports: an entry for each package and connection, the counts, and the meaning of each finding.

The texts of packages in it are not sanitized: that is done where they are written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import airflow_provider_smtpcm
from airflow_provider_smtpcm.ssis.findings import KEEP, quote_answer
from airflow_provider_smtpcm.ssis.model import Finding, Question, Severity
from airflow_provider_smtpcm.ssis.questions import MAX_NAMED, PackageQuestion, QuestionList
from airflow_provider_smtpcm.ssis.writing.conversion import MailRecord

#: The program and release that wrote a report.
GENERATOR = f"airflow-provider-smtpcm {airflow_provider_smtpcm.__version__}"

#: The code of the note about each placeholder in a DAG.
PLACEHOLDER = "placeholder-task"
#: The first line of reports of an import with `--placeholders pass`.
WALK_THROUGH_NOTICE = (
    "Placeholders pass (--placeholders pass): the DAGs succeed and send mail, although nothing does the work of these "
    "tasks. For a walk-through only."
)

#: The meaning of each finding, by its code. Codes are stable; `docs/reference/ssis-findings.md` has the same table.
FINDING_MEANINGS = {
    # from the reader
    "configuration-applied": "A package configuration sets a value, which was used instead of the one in the package.",
    "configuration-not-read": "The value of a package configuration is not in the files; the package's value was used.",
    "configuration-switched-off": "The package has a configuration, but package configurations are switched off.",
    "configuration-unreadable": "A .dtsConfig file cannot be read.",
    "connection-manager-not-smtp": "The task refers to a connection manager of another type; SSIS fails here, too.",
    "dangling-connection-manager": "The connection manager of the task is in neither the package nor the project.",
    "dangling-file-connection": "The File connection manager of the text is in neither the package nor the project.",
    "dangling-precedence-constraint": "A precedence constraint refers to an executable that does not exist.",
    "no-connection-manager": "The task names no connection manager; SSIS fails here, too.",
    "other-mail-task": "A mail task of another vendor, which is not converted.",
    "unconfigured-mail": "The Send Mail task was never configured; SSIS fails here, too.",
    "unknown-format-version": "The package has an unknown format version; it was read as the nearest known version.",
    "unknown-message-source-type": "MessageSourceType has a value that SSIS does not define; DirectInput was used.",
    "unknown-precedence": "A precedence constraint has a value that SSIS does not define; the default was used.",
    "unreadable-mail": "The task's properties are missing or encrypted; only its expressions can be read.",
    # connections
    "account-in-connection-manager": "The connection string contains credentials, which were not copied.",
    "connection-expression": "A property of the connection comes from an expression; check its value.",
    "connection-manager-became": "The Airflow connection that a connection manager became.",
    "connection-manager-invalid": "The settings of the connection manager are not valid.",
    "connection-parameter": "A project parameter sets a property of the connection manager; its value was used.",
    "connection-manager-property": "A property of the connection string has an invalid or ambiguous value.",
    "no-smtp-server": "SmtpServer is empty, and SSIS fails here; complete the connection.",
    "port-in-smtp-server": "SmtpServer has a port after the name. SSIS always uses 25; the connection has that port.",
    "database-connection-became": "The Airflow connection that the connection manager of a database became.",
    "database-connection-missing": "The connection manager of a database was not found; define the connection.",
    "database-driver": "Check or choose the ODBC driver of a database.",
    "database-dsn": "A connection names a data source; define it on the workers.",
    "database-password": "The connection to a database needs its password.",
    "database-server-local": "A database connection means the machine that SSIS ran on; enter that machine's name.",
    "database-windows-authentication": "The worker signs in to the database with its Kerberos ticket.",
    "unknown-connection-property": "The connection string has a property that SSIS does not define.",
    "windows-auth-dropped": "Windows Authentication is on in SSIS; an option or an answer turned it off.",
    "windows-auth-kept": "Windows Authentication is on: the connection signs in or fails. SSIS may send without it.",
    # mails
    "connection-to-choose": "The connection manager cannot be determined; the mail uses the default connection.",
    "date-format": "A DateTime as text is in US English; the package has another locale, or none.",
    "expression-to-complete": "A field cannot be translated or sent, or contains credentials; complete it.",
    "html-in-text": "The text of a mail contains HTML, which SSIS and the DAG send as plain text.",
    "message-source-type": "MessageSourceType comes from an expression without a known value; DirectInput was used.",
    "message-variable-no-text": "The text comes from a variable that is not a String; SSIS fails here, too.",
    "no-recipient": "The mail has no recipient; SSIS fails here, too.",
    "no-sender": "FromLine is empty, and SSIS fails here; the DAG uses the connection's default sender.",
    "param-without-value": "A variable is empty or unreadable in the package, or may be secret; set its param.",
    "password-in-text": "The text of a mail seems to contain a password; it was kept, so the DAG contains it.",
    "project-parameter": "A project parameter became an Airflow Variable, with the project's value as its default.",
    "project-configuration": "A project configuration sets another value; check which configuration is deployed.",
    "system-variable": "A system variable has a counterpart in Airflow; the finding explains the difference.",
    "path-mapped-in-each-run": "A query, a loop or an expression sets a path; the DAG maps it when it has the value.",
    "unmapped-path": "A path that does not exist on a worker: a Windows path without --map-path, or a relative one.",
    "variable-set-at-run-time": "Tasks set the variable in each run; the DAG reads it from them.",
    "variable-became-param": "A variable became a param of the DAG, with its design-time value.",
    "variable-to-set": "A project parameter has no value in the files, or may be secret; set the Airflow Variable.",
    # the order of the tasks, and event handlers
    "alert-without-to": "The mail of an event handler has no To recipients; the alert goes to those of Cc or Bcc.",
    "callback-without-place": "Airflow has no callback for this event of this executable, so no alert is sent for it.",
    "condition-in-handler": "A condition decides whether a handler's mail is sent; the alert has it, or is left out.",
    "condition-on-variables": "A condition decides whether a task runs; the finding says if it may differ from SSIS.",
    "condition-to-complete": "A condition cannot be translated; write it in the DAG.",
    "event-without-callback": "Airflow has no such event; its mail is not in the DAG.",
    "forced-result": "ForceExecutionResult or MaximumErrorCount decides whether an executable counts as failed.",
    "handler-became-callback": "The mail of an event handler is a callback; the finding says how often it is called.",
    "handler-of-handler": "The mail belongs to an event of an event handler; it is not in the DAG.",
    "handler-task-failure": "The mail is also sent if a task in its handler fails; the DAG does not run that task.",
    "handler-task-not-run": "A task in an event handler that sends no mail; the DAG does not run it.",
    "placeholder-task": "A task that the import cannot translate is a placeholder until you replace it.",
    "loop-became-group": "The tasks in a loop run for each row, file or value: the loop is a mapped task group.",
    "loop-became-merge": "A loop that only sends a mail is a mail merge: one mail for each row, file or value.",
    "loop-runs-once": "The iterations of a loop or of a vendor's container are not known; its tasks run once.",
    "property-evaluated": "The DAG has the value that a property expression has in the files; no run evaluates it.",
    "propagate-at-run-time": "Which alerts of outer containers are sent depends on System::Propagate; check them.",
    "set-by-child-package": "A child package sets a variable of its parent package; the DAGs share no variables.",
    "set-by-several-tasks": "Tasks that may run at the same time set a variable; the DAG reads it from one of them.",
    "script-became-expression": "A script does nothing but set variables; the DAG computes the same values.",
    "set-in-event-handler": "A task in an event handler sets a variable that is read; the DAG does not run that task.",
    # the import
    "answer-as-server": "An answer names no connection manager of the package, so it is used as a mail server.",
    "answer-not-asked": "An answer in a file of --answers belongs to a question that this import does not ask.",
    "dag-id-taken": "Another package has the same name; the project's name or a number was added to the DAG id.",
    "option-without-effect": "An option names a connection manager or a path that no package has.",
    "package-name-differs": "The package's own name is not that of its file; the DAG is named after the file.",
    "edited-file-kept": "You edited a file in the output folder; it was kept, and the new text is next to it.",
    "importer-failed": "The importer itself failed: please report it. Everything else was converted.",
}


class PackageStatus(StrEnum):
    """What became of a package."""

    CONVERTED = "converted"  # completely
    DECIDE = "decide"  # there is something to decide or complete
    FAILED = "failed"  # the package, or a part of it, could not be read or written
    NO_MAIL = "no mail"  # the package sends no mail


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageEntry:
    """A package in the reports.

    Args:
        source: its file, or `project.ispac!Part.dtsx`.
        dag_file: relative to the output folder; empty if there is no DAG.
        new_file: the file with the new text, if `dag_file` was edited and therefore kept; otherwise empty.
        connections: the ids of the Airflow connections that its mails use.
    """

    source: str
    name: str
    format_version: int = 0
    status: PackageStatus = PackageStatus.CONVERTED
    dag_id: str = ""
    dag_file: str = ""
    new_file: str = ""
    connections: tuple[str, ...] = ()
    mails: tuple[MailRecord, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionEntry:
    """An Airflow connection in the reports.

    Args:
        summary: its settings on one line.
        sources: its connection managers, each with its file.
        users: the number of each package that uses it.
        mails: the number of enabled mails that use it.
    """

    conn_id: str
    host: str = ""
    summary: str = ""
    sources: tuple[str, ...] = ()
    users: Sequence[int] = ()
    mails: int = 0
    findings: tuple[Finding, ...] = ()

    @property
    def packages(self) -> int:
        """The number of packages that use it."""
        return len(self.users)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableFile:
    """A file that is not a package, or cannot be read as one."""

    source: str
    message: str
    remedy: str = ""


@dataclass(slots=True, kw_only=True)
class Totals:
    """The counts of an import. Their size does not depend on the number of packages.

    Args:
        codes: the number of packages and connections with a finding of this severity and code.
        first: the source and name of the first packages with such a finding.
        more: the number of further packages with such a finding.
        placeholders: the number of placeholders in the DAGs.
        placeholders_pass: whether they pass.
        kept: the number of files that were edited, and therefore kept.
    """

    statuses: Counter[PackageStatus] = field(default_factory=Counter)
    codes: Counter[tuple[Severity, str]] = field(default_factory=Counter)
    first: dict[tuple[Severity, str], list[tuple[str, str]]] = field(default_factory=dict)
    more: Counter[tuple[Severity, str]] = field(default_factory=Counter)
    findings: Counter[Severity] = field(default_factory=Counter)
    mails: int = 0
    dags: int = 0
    placeholders: int = 0
    placeholders_pass: bool = False
    kept: int = 0
    connections: int = 0
    connections_to_decide: int = 0
    unreadable: int = 0
    copies: int = 0
    projects: int = 0
    interrupted: bool = False

    @property
    def packages(self) -> int:
        """The number of packages that were read."""
        return sum(self.statuses.values())

    @property
    def with_mail(self) -> int:
        """The number of packages in the reports: those with mail or with a finding about it."""
        return self.packages - self.statuses[PackageStatus.NO_MAIL]

    def add(self, entry: PackageEntry) -> None:
        """Count a package."""
        self.statuses[entry.status] += 1
        self.mails += len(entry.mails)
        self.dags += bool(entry.dag_file)
        if entry.dag_file:
            self.placeholders += sum(finding.code == PLACEHOLDER for finding in entry.findings)
        self.kept += bool(entry.new_file)
        self.add_findings(entry.findings)
        if entry.status is not PackageStatus.NO_MAIL:  # others have no section in report.html to link to
            for key in dict.fromkeys((finding.severity, finding.code) for finding in entry.findings):
                packages = self.first.setdefault(key, [])
                if len(packages) < MAX_NAMED:
                    packages.append((entry.source, entry.name))
                else:
                    self.more[key] += 1

    def add_findings(self, findings: Iterable[Finding]) -> None:
        """Count the findings of one package, of one connection, or of the import as a whole."""
        findings = tuple(findings)
        self.findings.update(finding.severity for finding in findings)
        self.codes.update({(finding.severity, finding.code) for finding in findings})

    def as_json(self) -> dict[str, object]:
        """Return the counts for `report.json`."""
        return {
            "packages": self.packages,
            "converted": self.statuses[PackageStatus.CONVERTED],
            "decide": self.statuses[PackageStatus.DECIDE],
            "failed": self.statuses[PackageStatus.FAILED],
            "no_mail": self.statuses[PackageStatus.NO_MAIL],
            "copies": self.copies,
            "unreadable": self.unreadable,
            "projects": self.projects,
            "mails": self.mails,
            "dags": self.dags,
            "placeholders": self.placeholders,
            "kept": self.kept,
            "connections": self.connections,
            "connections_to_decide": self.connections_to_decide,
            "findings": {str(severity): self.findings[severity] for severity in Severity},
        }


@dataclass(slots=True, kw_only=True)
class ImportResult:
    """The result of an import.

    Args:
        copies: the source of each copy, and the source of its original.
        without_mail: the sources of the packages without mail.
        findings: about the import as a whole.
        questions: the questions of all packages and connections, and the answers.
        connections: all connections, whether or not a mail uses them.
        left_over: the files of earlier imports that this one did not write, in the output folder.
    """

    totals: Totals = field(default_factory=Totals)
    unreadable: list[UnreadableFile] = field(default_factory=list)
    copies: list[tuple[str, str]] = field(default_factory=list)
    without_mail: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    questions: QuestionList = field(default_factory=QuestionList)
    connections: tuple[ConnectionEntry, ...] = ()
    left_over: list[str] = field(default_factory=list)

    def add_package(self, entry: PackageEntry) -> None:
        """Count a package and its questions."""
        self.totals.add(entry)
        mails: dict[str, list[int]] = {}
        for index, mail in enumerate(entry.mails):
            for key in mail.questions:
                mails.setdefault(key, []).append(index)
        self.questions.add_package((entry.source, entry.name), _find_questions(entry.findings, mails))

    def add_connections(self, entries: tuple[ConnectionEntry, ...]) -> None:
        """Add all connections, and count their questions."""
        self.connections = entries
        self.totals.connections = len(entries)
        for entry in entries:
            self.totals.add_findings(entry.findings)
            self.totals.connections_to_decide += any(
                finding.severity is not Severity.NOTE for finding in entry.findings
            )
            self.questions.add_connection(_find_questions(entry.findings), users=entry.users, mails=entry.mails)

    @property
    def needs_attention(self) -> bool:
        """Whether there is something to decide or complete, or something could not be read."""
        findings = self.totals.findings
        return bool(self.unreadable or findings[Severity.DECISION] or findings[Severity.ERROR])


def _find_questions(
    findings: Iterable[Finding], mails: Mapping[str, Sequence[int]] | None = None
) -> Iterator[PackageQuestion]:
    """Yield each question of these findings once.

    Args:
        mails: the positions of the package's mails that wait for a question, by its key; None: no package's findings.
    """
    by_key: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.question is not None:
            by_key.setdefault(finding.question.key, []).append(finding)
    for asking in by_key.values():
        questions = [finding.question for finding in asking if finding.question is not None]
        details = tuple(dict.fromkeys(question.detail for question in questions if question.detail))
        yield PackageQuestion(
            question=_with_text(questions[0], asking[0]),
            details=details,
            answer=asking[0].answer,
            mails=tuple((mails or {}).get(questions[0].key, ())),
        )


def _with_text(question: Question, finding: Finding) -> Question:
    """Return the question that asks whether the DAGs may stay as they are, with the text of its first finding."""
    if question.text:
        return question
    text = finding.text.removesuffix(quote_answer(finding.answer))
    return replace(
        question,
        text=f"{finding.where}: {text} {finding.remedy} Answer {KEEP} to leave it as it is, here and everywhere else "
        "the report asks this.",
    )


def get_status(findings: Iterable[Finding], *, has_mail: bool) -> PackageStatus:
    """Return the status of a package, by its most severe finding."""
    severities = {finding.severity for finding in findings}
    if Severity.ERROR in severities:
        return PackageStatus.FAILED
    if Severity.DECISION in severities:
        return PackageStatus.DECIDE
    return PackageStatus.CONVERTED if has_mail else PackageStatus.NO_MAIL


def count_noun(count: int, noun: str) -> str:
    """Return `1 package`, `1,204 packages`, or `2 copies`."""
    return f"{count:,} {plural(count, noun)}"


def plural(count: int, noun: str) -> str:
    """Return an English noun in the singular or the plural."""
    if count == 1:
        return noun
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
