"""Variables that tasks set while a package runs: each task pushes an XCom for what it sets, and readers pull it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from airflow_provider_smtpcm.ssis.expressions import DataType, JinjaName, quote_string
from airflow_provider_smtpcm.ssis.findings import KEEP, Findings, Question
from airflow_provider_smtpcm.ssis.model import ContainerKind, OtherTask, Package, Variable, describe_kind
from airflow_provider_smtpcm.ssis.writing.flow import Flow
from airflow_provider_smtpcm.ssis.writing.loops import MappedLoop, find_queries, row_field
from airflow_provider_smtpcm.ssis.writing.python_source import quoted_list
from airflow_provider_smtpcm.ssis.writing.variable_setters import Setter, SetterKind, VariableSetters

_TRANSLATED = {SetterKind.RESULT, SetterKind.OUTPUT_PARAMETER, SetterKind.EXPRESSION}


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
        loops: the loops with known iterations, by their ids.

    Attributes:
        setters: what sets each variable.
        queries: the columns that loops need of Execute SQL tasks, by the task's id and the field of a row.
    """

    package: Package
    flow: Flow
    findings: Findings
    loops: Mapping[str, MappedLoop] = field(default_factory=dict)
    setters: VariableSetters = field(init=False)
    queries: Mapping[str, Mapping[str, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.setters = VariableSetters(self.package)
        self.queries = find_queries(self.loops)

    def is_live(self, variable: Variable, reader: ReadPoint) -> bool:
        """Whether a task may have set the variable when it is read."""
        return self._find_row_field(variable, reader) is not None or bool(self._find_tasks(variable, reader))

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
        if (field_code := self._find_row_field(variable, reader)) is not None:
            # A number may come from a column of another type.
            is_text = data_type is None or data_type is DataType.WSTR
            code = field_code if is_text else f"ssis.convert({field_code}, {quote_string(str(data_type))})"
            return JinjaName(code=code, type=data_type)
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

    def is_translated(self, variable: Variable, reader: ReadPoint) -> bool:
        """Whether a task that is not a placeholder may have set the variable, not only emptied it, when it is read."""
        setters = [setter for setter in self._before(variable, reader) if setter.how in _TRANSLATED]
        ids = {setter.executable_id for setter in setters} - self._find_emptying(variable)
        return bool(ids)

    def _find_emptying(self, variable: Variable) -> set[str]:
        """Return the ids of the scripts that only empty a variable, as some do before a loop fills it."""
        names = {variable.qualified_name, variable.name}
        return {
            executable.id
            for executable, _ in self.package.walk_executables()
            if isinstance(executable, OtherTask)
            and any(name in names and value == '""' for name, value in executable.assignments or ())
        }

    def describe_setters(self, variable: Variable) -> str:
        """Return what sets a variable, such as `'Count' (Execute SQL task) sets User::Rows`; empty if nothing does."""
        setters = self.setters.of(variable)
        return _describe(variable, setters) if setters else ""

    def _find_tasks(self, variable: Variable, reader: ReadPoint) -> list[str]:
        """Return the ids of the tasks that may have set a variable, in the order in which they run."""
        ids = dict.fromkeys(setter.executable_id for setter in self._before(variable, reader))
        return list(dict.fromkeys(map(self._task_id, self.flow.sort(list(ids)))))

    def _task_id(self, executable_id: str) -> str:
        """Return the id of the task that pushes what an executable sets."""
        task_id, mapped = self.flow.task_ids[executable_id], self.loops.get(executable_id)
        return task_id if mapped is None or mapped.mail is not None else f"{task_id}.{self.flow.row_task(mapped.loop)}"

    def _find_row_field(self, variable: Variable, reader: ReadPoint) -> str | None:
        """Return the Jinja expression for a variable that the loop of a mail merge sets."""
        for mapped in self.loops.values():
            if mapped.mail is not None and mapped.mail.id == reader.id:
                name = mapped.find_field(variable)
                return None if name is None else row_field(name)
        return None

    def _before(self, variable: Variable, reader: ReadPoint) -> Iterator[Setter]:
        for setter in self.setters.of(variable):
            if setter.event_handler is not None or setter.executable_id not in self.flow.task_ids:
                continue
            mapped = self.loops.get(setter.executable_id)
            if mapped is not None and mapped.mail is not None:
                continue  # only its own mail reads what it sets
            if not reader.id or self._is_iteration(setter, reader):
                yield setter
            elif setter.executable_id != reader.id and not self.flow.contains(setter.executable_id, reader.id):
                order = self.flow.may_follow(reader.id, setter.executable_id)
                if order is not False or self.flow.contains(reader.id, setter.executable_id):
                    yield setter

    def _is_iteration(self, setter: Setter, reader: ReadPoint) -> bool:
        """Whether a setter is the mapped task group around the reader."""
        is_mapped = setter.executable_id in self.loops and setter.executable_id != reader.id
        return is_mapped and self.flow.contains(setter.executable_id, reader.id)

    def _report(self, variable: Variable, reader: ReadPoint) -> None:
        setters = list(self._before(variable, reader))
        text = f"{_describe(variable, setters)} in each run; the DAG reads the value from there, and has the "
        text += "design-time value if none of them has run."
        unordered = [
            setter.name
            for setter in setters
            if reader.id
            and not self._is_iteration(setter, reader)
            and self.flow.may_follow(reader.id, setter.executable_id) is None
        ]
        if unordered:
            text += f" The package does not say whether {reader.name!r} runs before or after {quoted_list(unordered)}: "
            text += "which value it sees is chance, in SSIS too."
        self.findings.note("variable-set-at-run-time", variable.qualified_name, text)
        if reader.id:
            self._report_race(variable, reader)

    def _report_race(self, variable: Variable, reader: ReadPoint) -> None:
        """Report setters of which the last to end counts in SSIS, and the last of the list in the DAG."""
        ids = list(dict.fromkeys(setter.executable_id for setter in self._before(variable, reader)))
        last = self.flow.sort(ids)[-1]
        names = {setter.executable_id: setter.name for setter in self._before(variable, reader)}
        rivals = [names[key] for key in ids if key != last and self.flow.may_run_together(key, last)]
        if rivals:
            self.findings.decision(
                "set-by-several-tasks",
                variable.qualified_name,
                f"{quoted_list(rivals)} and {names[last]!r} set {variable.qualified_name}, and the package does not "
                "say in which order they run. SSIS has the value of the one that ends last; the DAG has that of "
                f"{names[last]!r}, if it has run.",
                "Check which value is meant; if it is another one, put the task that sets it last in the list of tasks "
                "in the DAG.",
            )

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
                    key=f"variable {variable.qualified_name} in event handlers, for other tasks",
                    text=f"In SSIS, {setters} in an event handler sets {variable.qualified_name}, and a task of the "
                    f"control flow reads it. In the DAG, it keeps its other value. Answer {KEEP} if it may.",
                    guess=KEEP,
                    subject=variable.qualified_name,
                    shared_text="In SSIS, executables in event handlers set these variables, and tasks of the control "
                    f"flow read them. In the DAG, they keep their other values. Answer {KEEP} if they may.",
                ),
            )


def _describe(variable: Variable, setters: Iterable[Setter]) -> str:
    names = dict.fromkeys(f"{setter.name!r} ({_describe_kind(setter)})" for setter in setters)
    return f"{', '.join(names)} {'sets' if len(names) == 1 else 'set'} {variable.qualified_name}"


def _describe_kind(setter: Setter) -> str:
    return setter.kind if setter.kind in set(ContainerKind) else describe_kind(setter.kind)


def _jinja_literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    return "none" if value is None else quote_string(str(value))
