"""What became of a package: the module, what is to be known of it, and the fate of every property."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from airflow_provider_smtpcm.ssis.model import Finding, Severity


class How(StrEnum):
    """What became of a property."""

    KEPT = "kept"  # as it is
    TRANSLATED = "translated"  # an expression that became a template
    MAPPED = "mapped"  # said in Airflow's way, and it does the same
    LOST = "lost"  # not in the DAG; `note` says why
    DECISION = "decision"  # a person must complete it


@dataclass(frozen=True, slots=True, kw_only=True)
class PropertyRecord:
    r"""A property of a Send Mail task, or of a connection manager.

    Args:
        where: the SSIS path, such as `Package\Sequence\Send Mail`.
        property: SSIS's name, such as `ToLine`.
        ssis: the expression where there is one, or else what is written; without secrets.
        is_expression: which of the two.
        became: the argument and its value, as it stands in the module.
        how: kept, translated, mapped, lost, or a decision.
        note: why, where that is not plain.
    """

    where: str
    property: str
    ssis: str = field(default="", repr=False)
    is_expression: bool = False
    became: str = field(default="", repr=False)
    how: How = How.KEPT
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MailRecord:
    r"""A Send Mail task.

    Args:
        where: its SSIS path.
        event: of the handler that it stands in, such as `OnError`; empty in the control flow.
        became: what it is in the DAG, in words, such as `task send_mail`; empty where it is not in there.
        connection: the id of its Airflow connection.
        disabled_because: the path of what is disabled: itself, or something around it.
        properties: all that are set.
    """

    where: str
    event: str = ""
    became: str = ""
    connection: str = ""
    disabled_because: str = ""
    properties: tuple[PropertyRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenModule:
    """A package for Airflow. `source` is empty where nothing in it sends mail: there is no DAG then.

    Args:
        file_name: such as `load.py`.
        dag_id: of the DAG in it.
        source: the text of the module, which ends in a new line.
        findings: the package's own and those of the writing.
        mails: every Send Mail task, those too that are left out.
        connections: the ids of the Airflow connections that it uses.
    """

    file_name: str
    dag_id: str
    source: str = field(repr=False)
    findings: tuple[Finding, ...] = ()
    mails: tuple[MailRecord, ...] = ()
    connections: tuple[str, ...] = ()


class Findings:
    """Findings as they are made; each is told once."""

    def __init__(self) -> None:
        self._all: dict[Finding, None] = {}

    def note(self, code: str, where: str, text: str, remedy: str = "") -> None:
        """Done, and good to know."""
        self._add(code, Severity.NOTE, where, text, remedy)

    def decision(self, code: str, where: str, text: str, remedy: str) -> None:
        """A person must decide or complete something."""
        self._add(code, Severity.DECISION, where, text, remedy)

    def _add(self, code: str, severity: Severity, where: str, text: str, remedy: str) -> None:
        self._all[Finding(code=code, severity=severity, where=where, text=text, remedy=remedy)] = None

    def __len__(self) -> int:
        return len(self._all)

    def forget(self, length: int) -> None:
        """Take back all but so many: those of something that was given up."""
        self._all = dict(list(self._all.items())[:length])

    def all(self) -> tuple[Finding, ...]:
        """In the order in which they were made."""
        return tuple(self._all)


# folded: What a person decides about the writing, for all packages or for one connection manager.


class WindowsAuth(StrEnum):
    """What becomes of UseWindowsAuthentication=True."""

    KEEP = "keep"
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    r"""What a person decides.

    Args:
        windows_auth: for every connection manager.
        windows_auth_of: for single ones, by their name in any case.
        path_map: the beginning of a path in Windows, and what it is on a worker: `((r"\\srv\share", "/mnt/share"),)`.
    """

    windows_auth: WindowsAuth = WindowsAuth.KEEP
    windows_auth_of: Mapping[str, WindowsAuth] = field(default_factory=dict)
    path_map: tuple[tuple[str, str], ...] = ()
