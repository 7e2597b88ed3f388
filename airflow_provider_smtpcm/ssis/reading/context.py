"""What the readers of one package share: its connection managers, configurations, findings and ids."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypedDict

from airflow_provider_smtpcm.ssis.model import EventHandler, Finding, Question, Severity, SmtpConnection, Variable
from airflow_provider_smtpcm.ssis.reading.configurations import PropertyOverrides
from airflow_provider_smtpcm.ssis.reading.connection_managers import ConnectionManager, ConnectionManagers
from airflow_provider_smtpcm.ssis.reading.xml import Element, get_text, is_true, read_expressions

_MAX_FINDING_LENGTH = 500  # characters


@dataclass(slots=True, kw_only=True)
class ReadContext:
    """State shared by the functions that read one package.

    Args:
        package_connections: the connection managers of the package.
        project_connections: the connection managers of its project.
        overrides: values from package configurations.
        format_version: the PackageFormatVersion.
        findings: the findings so far.
        ids: the executable ids so far.
        mail_connections: the connection manager of each Send Mail task so far; None if it was not found.
        sends_mail: whether the package has a Send Mail task; if not, its scripts are not analyzed, which takes time.
    """

    package_connections: ConnectionManagers
    project_connections: ConnectionManagers
    overrides: PropertyOverrides
    format_version: int
    findings: list[Finding] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    mail_connections: list[SmtpConnection | None] = field(default_factory=list)
    sends_mail: bool = True

    def add_finding(
        self,
        code: str,
        severity: Severity,
        path: tuple[str, ...],
        text: str,
        remedy: str = "",
        *,
        question: Question | None = None,
    ) -> None:
        """Add a finding, with its text on one line and truncated to 500 characters.

        Args:
            code, severity, text, remedy, question: as in `Finding`.
            path: the path of the executable that it is about.
        """
        text = " ".join(text.split())
        text = text if len(text) <= _MAX_FINDING_LENGTH else f"{text[:_MAX_FINDING_LENGTH]}…"
        where = "\\".join(path)
        self.findings.append(
            Finding(code=code, severity=severity, where=where, text=text, remedy=remedy, question=question)
        )

    def make_unique_id(self, candidates: tuple[str, ...], path: tuple[str, ...]) -> str:
        """Return an id that no other executable has; GUIDs repeat where tasks were copied by hand.

        Args:
            candidates: the GUID and the refId in the file.
            path: the path of the executable, which becomes the id if all candidates are taken.
        """
        where = "\\".join(path)
        id_ = next((candidate for candidate in (*candidates, where) if candidate not in self.ids), None)
        count = 2
        while id_ is None:
            id_ = None if f"{where}#{count}" in self.ids else f"{where}#{count}"
            count += 1
        self.ids.add(id_)
        return id_

    def find_connection_manager(self, reference: str) -> ConnectionManager | None:
        """Find a connection manager in the package, then in its project."""
        return self.package_connections.find(reference) or self.project_connections.find(reference)


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where an executable is.

    Args:
        path: its path.
        overrides: values from package configurations.
        disabled_because: if it is disabled, the path of the outermost executable that disables it.
    """

    path: tuple[str, ...]
    overrides: PropertyOverrides
    disabled_because: str | None = None

    def enter(self, name: str, element: Element) -> Location:
        """Return the location of an executable inside this one."""
        return self._at((*self.path, name), element)

    def enter_handler(self, event_name: str, element: Element) -> Location:
        """Return the location of an event handler of this executable, in the form of a refId."""
        return self._at((*self.path[:-1], f"{self.path[-1]}.EventHandlers[{event_name}]"), element)

    def for_handlers(self, element: Element) -> Location:
        """Return the location from which to enter the event handlers; DisableEventHandlers disables them all."""
        value = self.overrides.task_property(
            self.path, "DisableEventHandlers", get_text(element, "DisableEventHandlers")
        )
        return replace(self, disabled_because=self.disabled_because or "\\".join(self.path)) if is_true(value) else self

    def _at(self, path: tuple[str, ...], element: Element) -> Location:
        # An expression takes precedence over the property, but only a literal can be evaluated here.
        expression = read_expressions(element).get("Disable")
        is_disabled = (
            is_true(self.overrides.task_property(path, "Disable", get_text(element, "Disabled")))
            if expression is None
            else expression.strip().lower() in {"true", "1"}
        )
        disabled_path = "\\".join(path) if is_disabled else None
        return Location(path=path, overrides=self.overrides, disabled_because=self.disabled_because or disabled_path)


class CommonFields(TypedDict):
    """The fields that all executables have."""

    name: str
    id: str
    path: tuple[str, ...]
    description: str
    expressions: dict[str, str]
    disabled: bool
    disabled_because: str | None
    force_result: str
    maximum_errors: int
    event_handlers: tuple[EventHandler, ...]
    variables: tuple[Variable, ...]
