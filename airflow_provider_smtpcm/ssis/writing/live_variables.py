"""Variables that tasks set while a package runs: each task pushes an XCom for what it sets, and readers pull it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from airflow_provider_smtpcm.ssis.expressions import DataType, JinjaName, quote_string
from airflow_provider_smtpcm.ssis.findings import KEEP, Findings, Question
from airflow_provider_smtpcm.ssis.model import Package, Variable, describe_kind
from airflow_provider_smtpcm.ssis.writing.flow import Flow
from airflow_provider_smtpcm.ssis.writing.python_source import quoted_list
from airflow_provider_smtpcm.ssis.writing.variable_setters import Setter, VariableSetters


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPoint:
    """Where variables are read: in an executable, or in an event handler of the package.

    Args:
        id: the id of the executable; empty for an event handler, which runs whenever its event occurs.
        name: its name in SSIS.
        where: its SSIS path.
    """

    id: str = ""
    name: str = ""
    where: str = ""


@dataclass(slots=True, kw_only=True)
class LiveVariables:
    """The variables of one package that its tasks set.

    Args:
        package: the package.
        flow: the order and the ids of the tasks.
        findings: a finding is added for each variable that is read.
    """

    package: Package
    flow: Flow
    findings: Findings
    setters: VariableSetters = field(init=False)

    def __post_init__(self) -> None:
        self.setters = VariableSetters(self.package)

    def is_live(self, variable: Variable, reader: ReadPoint) -> bool:
        """Whether a task may have set the variable when it is read."""
        return bool(self._find_tasks(variable, reader))

    def jinja_name(
        self, variable: Variable, reader: ReadPoint, data_type: DataType | None, default: object
    ) -> JinjaName | None:
        """Return the Jinja expression for a variable that tasks set; None if none sets it before it is read.

        Args:
            variable: the variable.
            reader: what reads it.
            data_type: its type; None for an object.
            default: its design-time value.
        """
        self._report_handlers(variable, reader)
        task_ids = self._find_tasks(variable, reader)
        if not task_ids:
            return None
        self._report(variable, reader)
        arguments = [
            "ti",
            quote_string(variable.qualified_name),
            f"[{', '.join(map(quote_string, task_ids))}]",
            _jinja_literal(default),
            *([quote_string(str(data_type))] if data_type is not None else []),
        ]
        return JinjaName(code=f"ssis.variable({', '.join(arguments)})", type=data_type, is_typed=True)

    def _find_tasks(self, variable: Variable, reader: ReadPoint) -> list[str]:
        """Return the ids of the tasks that may have set a variable, in the order in which they run."""
        ids = dict.fromkeys(setter.executable_id for setter in self._before(variable, reader))
        return list(dict.fromkeys(self.flow.task_ids[key] for key in self.flow.sort(list(ids))))

    def _before(self, variable: Variable, reader: ReadPoint) -> Iterator[Setter]:
        for setter in self.setters.of(variable):
            if setter.event_handler is not None or setter.executable_id not in self.flow.task_ids:
                continue
            if not reader.id:
                yield setter
            elif setter.executable_id != reader.id and not self.flow.contains(setter.executable_id, reader.id):
                order = self.flow.may_follow(reader.id, setter.executable_id)
                if order is not False or self.flow.contains(reader.id, setter.executable_id):
                    yield setter

    def _report(self, variable: Variable, reader: ReadPoint) -> None:
        setters = list(self._before(variable, reader))
        names = dict.fromkeys(f"{setter.name!r} ({describe_kind(setter.kind)})" for setter in setters)
        text = f"{', '.join(names)} {'sets' if len(names) == 1 else 'set'} {variable.qualified_name} in each run; "
        text += "the DAG reads the value from there, and has the design-time value if none of them has run."
        unordered = [
            setter.name
            for setter in setters
            if reader.id and self.flow.may_follow(reader.id, setter.executable_id) is None
        ]
        if unordered:
            text += f" The package does not say whether {reader.name!r} runs before or after {quoted_list(unordered)}: "
            text += "which value it sees is chance, in SSIS too."
        self.findings.note("variable-set-at-run-time", variable.qualified_name, text)

    def _report_handlers(self, variable: Variable, reader: ReadPoint) -> None:
        inside = [setter for setter in self.setters.of(variable) if setter.event_handler is not None]
        if inside and reader.id:
            names = dict.fromkeys(f"{setter.name!r}" for setter in inside)
            setters = quoted_list(sorted({setter.name for setter in inside}))
            self.findings.decision(
                "set-in-event-handler",
                reader.where,
                f"{', '.join(names)} in an event handler {'sets' if len(names) == 1 else 'set'} "
                f"{variable.qualified_name}, which {reader.name!r} reads. Event handlers of the DAG only send mail, so "
                "it keeps its other value.",
                "Check whether the value matters; if it does, set it in a task of the DAG.",
                Question(
                    key=f"variable {variable.qualified_name} set by {setters} in an event handler, for other tasks",
                    text=f"In SSIS, {setters} in an event handler sets {variable.qualified_name}, and a task of the "
                    f"control flow reads it. In the DAG, it keeps its other value. Answer {KEEP} if it may.",
                    guess=KEEP,
                ),
            )


def _jinja_literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    return "none" if value is None else quote_string(str(value))
