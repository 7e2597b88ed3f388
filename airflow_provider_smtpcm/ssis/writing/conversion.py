"""The conversion of a package: the options of the user, the state that its parts share, and the result.

The result is the DAG module, its findings, and what became of every mail property.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from airflow_provider_smtpcm.ssis.findings import Finding, Findings
from airflow_provider_smtpcm.ssis.model import DatabaseConnection, SmtpConnection
from airflow_provider_smtpcm.ssis.windows_paths import PathMap
from airflow_provider_smtpcm.ssis.writing.symbols import SymbolTable


class WindowsAuth(StrEnum):
    """What to do with UseWindowsAuthentication=True."""

    KEEP = "keep"
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionOptions:
    r"""The decisions of the user who runs the import.

    Args:
        windows_auth: what to do with UseWindowsAuthentication=True, for every connection manager that
            `windows_auth_by_name` does not list; None: Windows Authentication is kept, and a finding asks for the
            decision.
        windows_auth_by_name: the same by the name of the connection manager, regardless of case.
        path_map: pairs of a Windows path prefix and the path on a worker: `((r"\\srv\share", "/mnt/share"),)`.
        answers: the answers of `questions.csv`, by the key of the question.
        placeholders_pass: whether placeholders succeed instead of failing, for a walk-through.
    """

    windows_auth: WindowsAuth | None = None
    windows_auth_by_name: Mapping[str, WindowsAuth] = field(default_factory=dict)
    path_map: tuple[tuple[str, str], ...] = ()
    answers: Mapping[str, str] = field(default_factory=dict, repr=False)
    placeholders_pass: bool = False


@dataclass(slots=True, kw_only=True)
class WritingContext:
    """State that is shared by the conversion of one package.

    Args:
        get_conn_id: returns the id of the Airflow connection for a connection manager.
        macros: the names of the macros that the templates use.
        imports: further names that the module imports.
        placeholders_pass: whether placeholders succeed instead of failing.
        used_connections: the ids of the connections that the mails use, in order; a dict as an ordered set.
    """

    symbols: SymbolTable
    findings: Findings
    paths: PathMap
    get_conn_id: Callable[[SmtpConnection | DatabaseConnection], str]
    macros: set[str] = field(default_factory=set)
    imports: set[str] = field(default_factory=set)
    placeholders_pass: bool = False
    used_connections: dict[str, None] = field(default_factory=dict)


class PropertyStatus(StrEnum):
    """What became of a property of a Send Mail task."""

    KEPT = "kept"  # unchanged
    TRANSLATED = "translated"  # an expression that became a template
    MAPPED = "mapped"  # another form in Airflow, with the same effect
    LOST = "lost"  # not in the DAG; `note` gives the reason
    DECISION = "decision"  # a person must complete it


@dataclass(frozen=True, slots=True, kw_only=True)
class PropertyRecord:
    r"""A property of a Send Mail task, before and after the conversion.

    Args:
        where: the SSIS path of the task, such as `Package\Sequence\Send Mail`.
        property: the name in SSIS, such as `ToLine`.
        ssis: the expression, or else the value in the package, without credentials.
        is_expression: whether `ssis` is an expression.
        became: the argument and its value in the DAG module.
        note: the reason for the status, where it is not obvious.
    """

    where: str
    property: str
    ssis: str = field(default="", repr=False)
    is_expression: bool = False
    became: str = field(default="", repr=False)
    status: PropertyStatus = PropertyStatus.KEPT
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MailRecord:
    r"""A Send Mail task, before and after the conversion.

    Args:
        where: its SSIS path.
        event: the event of the handler that contains it, such as `OnError`; empty in the control flow.
        became: what it is in the DAG, such as `task send_mail`; empty if it is not in the DAG.
        connection: the id of its Airflow connection.
        disabled_because: the path of the disabled executable: the task itself, or a container around it.
        questions: the keys of the questions on whose answers it depends, answered or not, without those about its
            connection.
        properties: every property that is set.
    """

    where: str
    event: str = ""
    became: str = ""
    connection: str = ""
    disabled_because: str = ""
    questions: tuple[str, ...] = ()
    properties: tuple[PropertyRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DagModule:
    """The DAG module of a package.

    Args:
        file_name: such as `load.py`; empty if there is no DAG.
        dag_id: the id of the DAG; empty if there is no DAG.
        source: the text of the module; empty if the package sends no mail: then there is no DAG.
        findings: those of the reader, then those of the conversion.
        mails: every Send Mail task, including those that are not in the DAG.
        connections: the ids of the Airflow connections that the mails use.
        databases: the ids of the Airflow connections that the other tasks use.
    """

    file_name: str
    dag_id: str
    source: str = field(repr=False)
    findings: tuple[Finding, ...] = ()
    mails: tuple[MailRecord, ...] = ()
    connections: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
