"""What a report tells: an entry for each package and each connection, and the totals. Cleaned when it is shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

import airflow_provider_smtpcm
from airflow_provider_smtpcm.ssis.model import Finding, Severity
from airflow_provider_smtpcm.ssis.writing.outcome import MailRecord

#: Who wrote a report.
GENERATOR = f"airflow-provider-smtpcm {airflow_provider_smtpcm.__version__}"

#: So many of a kind are named in a table.
FEW = 3


class Status(StrEnum):
    """What became of a package."""

    CONVERTED = "converted"  # nothing is left to do
    DECIDE = "decide"  # a person must decide or complete something
    FAILED = "failed"  # it, or a part of it, could not be read or written
    NO_MAIL = "no mail"  # nothing in it sends mail


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageEntry:
    """A package.

    Args:
        source: its file, or `project.ispac!Part.dtsx`.
        dag_file: below the output folder; empty where none was written.
        kept: a person edited `dag_file`: it was left as it is, and the new text stands beside it, under this name.
        connections: ids of the Airflow connections that its mails use.
    """

    source: str
    name: str
    format_version: int = 0
    status: Status = Status.CONVERTED
    dag_id: str = ""
    dag_file: str = ""
    kept: str = ""
    connections: tuple[str, ...] = ()
    mails: tuple[MailRecord, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionEntry:
    """An Airflow connection, and the connection managers that it comes from, each with its file."""

    conn_id: str
    host: str = ""
    summary: str = ""
    sources: tuple[str, ...] = ()
    packages: int = 0
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """Something that is no package, or cannot be read as one."""

    source: str
    message: str
    remedy: str = ""


@dataclass(slots=True, kw_only=True)
class Totals:
    """What a run counted; small, however many packages there are."""

    statuses: Counter[Status] = field(default_factory=Counter)
    codes: Counter[tuple[Severity, str]] = field(default_factory=Counter)  # packages that have it, not occurrences
    # The first packages that have it, by source and name, and how many more there are.
    first: dict[tuple[Severity, str], list[tuple[str, str]]] = field(default_factory=dict)
    more: Counter[tuple[Severity, str]] = field(default_factory=Counter)
    findings: Counter[Severity] = field(default_factory=Counter)
    mails: int = 0
    dags: int = 0
    kept: int = 0
    connections: int = 0
    connections_to_decide: int = 0
    unreadable: int = 0
    copies: int = 0
    projects: int = 0
    interrupted: bool = False

    @property
    def packages(self) -> int:
        """All that were read, with mail or without."""
        return sum(self.statuses.values())

    @property
    def with_mail(self) -> int:
        """Those in which something is about mail."""
        return self.packages - self.statuses[Status.NO_MAIL]

    def add(self, entry: PackageEntry) -> None:
        """Count a package."""
        self.statuses[entry.status] += 1
        self.mails += len(entry.mails)
        self.dags += bool(entry.dag_file)
        self.kept += bool(entry.kept)
        self.add_findings(entry.findings)
        if entry.status is not Status.NO_MAIL:  # it has no section on the page
            for key in dict.fromkeys((finding.severity, finding.code) for finding in entry.findings):
                packages = self.first.setdefault(key, [])
                if len(packages) < FEW:
                    packages.append((entry.source, entry.name))
                else:
                    self.more[key] += 1

    def add_findings(self, findings: Iterable[Finding]) -> None:
        """Count what one package, or one connection, gave rise to."""
        findings = tuple(findings)
        self.findings.update(finding.severity for finding in findings)
        self.codes.update({(finding.severity, finding.code) for finding in findings})

    def as_json(self) -> dict[str, object]:
        """For machines."""
        return {
            "packages": self.packages,
            "converted": self.statuses[Status.CONVERTED],
            "decide": self.statuses[Status.DECIDE],
            "failed": self.statuses[Status.FAILED],
            "no_mail": self.statuses[Status.NO_MAIL],
            "copies": self.copies,
            "unreadable": self.unreadable,
            "projects": self.projects,
            "mails": self.mails,
            "dags": self.dags,
            "kept": self.kept,
            "connections": self.connections,
            "connections_to_decide": self.connections_to_decide,
            "findings": {str(severity): self.findings[severity] for severity in Severity},
        }


def status_of(findings: Iterable[Finding], *, has_mail: bool) -> Status:
    """The worst of it."""
    severities = {finding.severity for finding in findings}
    if Severity.ERROR in severities:
        return Status.FAILED
    if Severity.DECISION in severities:
        return Status.DECIDE
    return Status.CONVERTED if has_mail else Status.NO_MAIL


# folded: What each finding means, by its code: the codes are promises, and `docs/from-ssis.md` tells the same.

CODES = {
    # reading
    "configuration-applied": "A .dtsConfig file sets a value; it was used instead of the one in the package.",
    "configuration-not-read": "A package configuration has a value that is in no file here; the package's was used.",
    "configuration-switched-off": "The package names a configuration, but its configurations are switched off.",
    "configuration-unreadable": "A .dtsConfig file cannot be read.",
    "connection-manager-not-smtp": "The task refers to a connection manager of another kind; SSIS fails here, too.",
    "dangling-connection-manager": "The task refers to a connection manager that neither package nor project has.",
    "dangling-file-connection": "The text comes from a File connection manager that neither package nor project has.",
    "dangling-precedence-constraint": "A precedence constraint leads to or from something that is not there.",
    "no-connection-manager": "The task names no connection manager; SSIS fails here, too.",
    "other-mail-task": "A mail task of another maker, which is not read.",
    "unknown-format-version": "The package is of a format that is not known here; it was read as the nearest one.",
    "unknown-message-source-type": "MessageSourceType is none that SSIS knows.",
    "unknown-precedence": "A precedence constraint has a value that SSIS does not know.",
    "unreadable-mail": "The task's properties are missing or encrypted; only its expressions are known.",
    # connections
    "account-in-connection-manager": "Somebody wrote an account into the connection string; it was left out.",
    "connection-expression": "The connection comes from an expression; it has the value that the files give, or none.",
    "connection-manager-became": "Which Airflow connection a connection manager is.",
    "connection-manager-invalid": "A value of the connection manager cannot be one of a connection.",
    "connection-parameter": "A parameter of the project sets a value of the connection manager; it was used.",
    "connection-manager-property": "A property of the connection string has a strange value.",
    "no-smtp-server": "SmtpServer is empty, and SSIS fails here; the connection has to be completed.",
    "port-in-smtp-server": "SmtpServer has a port behind it, which SSIS ignores and the connection has.",
    "unknown-connection-property": "The connection string has a property that SSIS does not know.",
    "windows-auth-dropped": "Windows Authentication was ticked; the connection is anonymous, by --windows-auth.",
    "windows-auth-kept": "Windows Authentication is ticked: the connection signs in, or fails. SSIS may never have.",
    # mails
    "connection-to-choose": "Which connection manager is meant cannot be told; the mail has the default connection.",
    "expression-to-complete": "An expression is not known, has no template, or holds an account; complete the field.",
    "message-source-type": "MessageSourceType comes from an expression.",
    "message-variable-no-text": "The text comes from a variable that is no String; SSIS fails here, too.",
    "no-recipient": "The mail has nobody to go to, and SSIS fails here, too.",
    "no-sender": "FromLine is empty, and SSIS fails here; the sender of the connection is taken.",
    "param-without-value": "A variable is empty in the package or may be secret; its param of the DAG is empty.",
    "password-in-text": "A mail's own text seems to tell a password; it was kept, and stands in the DAG.",
    "project-parameter": "A parameter of the project is an Airflow Variable, with the project's value as default.",
    "project-configuration": "A configuration of the project sets another value; which one holds is to be looked up.",
    "system-variable": "A system variable has something like it in Airflow; the finding says how it differs.",
    "unmapped-path": "A path that means nothing on a worker: of Windows without a --map-path, or of no folder.",
    "variable-became-param": "A variable is a param of the DAG, with its design-time value.",
    "variable-to-set": "A parameter of the project has no value in the files; the Airflow Variable is to be set.",
    # the order of the tasks, and event handlers
    "alert-without-to": "The mail of an event handler has no To, which an alert needs.",
    "callback-without-place": "An event has no callback there in Airflow; it is defined in the DAG and not called.",
    "condition-in-handler": "A condition in an event handler decides on the mail; the alert is always sent.",
    "condition-on-variables": "A condition asks variables; the DAG asks its params, until something computes them.",
    "condition-to-complete": "A condition has no template; it is to be written, and until then its task fails.",
    "disable-expression": "An expression decides whether the mail of an event handler is sent; it always is.",
    "event-without-callback": "Airflow has nothing like the event; its mail is not in the DAG.",
    "handler-became-callback": "The mail of an event handler is a callback; the finding says how often each is called.",
    "handler-of-handler": "The mail hangs on an event of an event handler; it is not in the DAG.",
    "loop-runs-once": "What stands in a loop runs once in the DAG.",
    # the run
    "dag-id-taken": "Another package of that name was read before; this DAG has its project's name or a number, too.",
    "edited-file-kept": "You edited a file in the output folder; it stayed, and the new text is beside it.",
    "importer-failed": "The importer itself failed: please report it. Everything else was converted all the same.",
}
