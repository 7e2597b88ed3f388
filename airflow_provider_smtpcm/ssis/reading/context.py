"""What every part of a package is read with: what it may refer to, and where findings go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_provider_smtpcm.ssis.model import Finding, Severity, Variable
from airflow_provider_smtpcm.ssis.reading.configurations import Overrides
from airflow_provider_smtpcm.ssis.reading.connection_managers import Connections
from airflow_provider_smtpcm.ssis.reading.xml import Node, as_number, expressions, flag, members, text

_LONGEST = 500
_STRING = 8
_NOT_SIMPLE = {12, 13}  # OLE's Variant and Object: what stands there is no text


@dataclass(slots=True, kw_only=True)
class Reading:
    """One package being read.

    Args:
        own: the package's own connection managers; `project` are those beside it.
        ids: every id that was given, so that none is given twice.
    """

    own: Connections
    project: Connections
    overrides: Overrides
    format_version: int
    findings: list[Finding] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)

    def find(self, code: str, severity: Severity, path: tuple[str, ...], said: str, remedy: str = "") -> None:
        """Note something."""
        said = " ".join(said.split())  # it may repeat what a stranger wrote
        said = said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…"
        where = "\\".join(path)
        self.findings.append(Finding(code=code, severity=severity, where=where, text=said, remedy=remedy))

    def unique(self, candidates: tuple[str, ...], path: tuple[str, ...]) -> str:
        """An id that nobody else has: packages that were copied by hand repeat GUIDs."""
        whole = "\\".join(path)
        given = next((one for one in (*candidates, whole) if one not in self.ids), None)
        count = 2
        while given is None:
            given = None if f"{whole}#{count}" in self.ids else f"{whole}#{count}"
            count += 1
        self.ids.add(given)
        return given


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something stands: its path, and what around it is disabled."""

    path: tuple[str, ...]
    disabled_because: str | None = None

    def inside(self, name: str, node: Node) -> Place:
        """The place of something that stands here."""
        path = (*self.path, name)
        return Place(path=path, disabled_because=self.disabled_because or own_switch(node, path))

    def handler(self, event_name: str, node: Node) -> Place:
        """The place of what an event handler of this executable holds, as SSIS writes it in a refId."""
        path = (*self.path[:-1], f"{self.path[-1]}.EventHandlers[{event_name}]")
        return Place(path=path, disabled_because=self.disabled_because or own_switch(node, path))


def own_switch(node: Node, path: tuple[str, ...]) -> str | None:
    """The path of what is disabled by itself. An expression wins over the property, so only a literal one is taken."""
    literal = expressions(node).get("Disable")
    disabled = flag(node, "Disabled") if literal is None else literal.strip().lower() in {"true", "1"}
    return "\\".join(path) if disabled else None


def read_variables(node: Node, scope: tuple[str, ...], overrides: Overrides) -> tuple[Variable, ...]:
    """The variables that an executable declares; SSIS's own ones are no declarations."""
    found = []
    for one in members(node, "Variables", "Variable"):
        namespace = text(one, "Namespace", "User")
        name = text(one, "ObjectName")
        if namespace == "System" or not name:
            continue
        holder = one.first("VariableValue")
        attributes: Mapping[str, str] = holder.attributes if holder is not None else {}
        data_type = as_number(attributes.get("DataType"))
        expression = text(one, "Expression")
        secret = holder is not None and (flag(holder, "Sensitive") or flag(holder, "Encrypted"))
        simple = not secret and data_type not in _NOT_SIMPLE and not (holder is not None and holder.children)
        value = holder.text if holder is not None and simple else None
        found.append(
            Variable(
                namespace=namespace,
                name=name,
                data_type=_STRING if data_type is None else data_type,
                value=overrides.variable(scope, f"{namespace}::{name}", value) if not secret else None,
                expression=expression if expression.strip() and flag(one, "EvaluateAsExpression") else None,
                scope=scope,
            )
        )
    return tuple(found)


def read_propagate(node: Node) -> bool | None:
    """The design-time value of System::Propagate in an event handler."""
    for one in members(node, "Variables", "Variable"):
        if text(one, "Namespace") == "System" and text(one, "ObjectName") == "Propagate":
            holder = one.first("VariableValue")
            return None if holder is None else holder.text.strip().lower() in {"true", "-1", "1"}
    return None
