"""What a report tells: an entry for each package and each connection, and the totals. Cleaned when it is shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

import airflow_provider_smtpcm
from airflow_provider_smtpcm.ssis.package import Finding, Severity
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
