"""Simulators of SSIS and of a generated DAG, which say which mails of event handlers are sent, and for which source.

`SsisRun` follows SSIS's documented rules and knows nothing of the importer: an executable raises OnPreExecute, then, if
it is a task that fails, OnError and OnTaskFailed, then OnPostExecute. An event goes from its source to the handlers of
every container around it until System::Propagate is False. Events in an event handler stay in it. `run_dag` loads the
module, computes the state of every task by its trigger rule, and calls the callbacks that Airflow would.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from airflow.sdk import DAG

from airflow_provider_smtpcm.notifications.event import read_event
from airflow_provider_smtpcm.notifications.send_mail import SendMailNotifier
from airflow_provider_smtpcm.ssis.expressions import evaluate, to_bool
from airflow_provider_smtpcm.ssis.model import (
    ConstraintValue,
    Container,
    ContainerKind,
    EvalOp,
    EventHandler,
    Executable,
    OtherTask,
    Package,
    PrecedenceConstraint,
    SendMailTask,
)
from airflow_provider_smtpcm.ssis.writing.conversion import DagModule
from airflow_provider_smtpcm.ssis.writing.python_source import slug
from tests.ssis.writing.test_control_flow import FAILED, SKIPPED, SUCCESS, _state

Path = tuple[str, ...]
Sent = Counter[tuple[str, Path]]  # by the path of the mail, and of the source of the event
_RUNS = itertools.count()  # `ssis.variable` caches what it has read in a run
_START = dt.datetime(2026, 11, 29, tzinfo=dt.UTC)


@dataclass(slots=True)
class SsisRun:
    """A run of a package.

    Args:
        fails: the paths of the tasks that fail, in the control flow and in event handlers.
        sets: the value that a task gives the variables that it sets, by its path. `System::Propagate` becomes False.
        times: how often a loop repeats.

    Attributes:
        sent: the mails of event handlers that ran, even if the server refused them.
        log: the starts and the ends of the executables of the control flow, in order.
        failed: those of them that failed.
    """

    package: Package
    fails: frozenset[Path] = frozenset()
    sets: Mapping[Path, object] = field(default_factory=dict)
    times: int = 2
    sent: Sent = field(default_factory=Counter)
    log: list[tuple[str, Path]] = field(default_factory=list)
    failed: set[Path] = field(default_factory=set)
    _variables: dict[str, object] = field(default_factory=dict)

    def start(self) -> SsisRun:
        """Run the package."""
        root = self.package.root
        read: dict[int, Callable[[str], object]] = {3: int, 11: lambda text: text == "True"}
        self._variables = {one.qualified_name: read.get(one.data_type, str)(one.value or "") for one in root.variables}
        self._variables |= {"System::PackageName": root.name, "System::PackageID": self.package.id}
        self._run(root, (), None)
        return self

    def _run(self, executable: Executable, around: tuple[Executable | EventHandler, ...], source: Path | None) -> bool:
        """Run an executable; return whether it succeeded.

        Args:
            around: the containers around it, from the outside; the innermost event handler, if any, is the first.
            source: the source of the event that is handled; None in the control flow.
        """
        inside = (*around, executable)
        if source is None:
            self.log.append(("start", executable.path))
        self._raise("OnPreExecute", inside)
        if isinstance(executable, Container):
            repeats = executable.kind in {ContainerKind.FOR_LOOP, ContainerKind.FOREACH_LOOP}
            succeeded = True
            for _ in range(self.times if repeats else 1):
                succeeded = self._run_members(executable, inside, source) and succeeded
        else:
            succeeded = executable.path not in self.fails
            if isinstance(executable, OtherTask) and succeeded:
                self._set_variables(executable)
            if isinstance(executable, SendMailTask) and source is not None:
                self.sent["\\".join(executable.path), source] += 1
            for event in () if succeeded else ("OnError", "OnTaskFailed"):
                self._raise(event, inside)
        if executable.force_result:
            succeeded = executable.force_result == "success"
        if source is None:
            self.log.append(("end", executable.path))
            if not succeeded:
                self.failed.add(executable.path)
        self._raise("OnPostExecute", inside)
        return succeeded

    def _set_variables(self, task: OtherTask) -> None:
        if task.assignments is not None:
            values = {name: evaluate(expression, self._variables) for name, expression in task.assignments}
            self._variables |= {name: value.data for name, value in values.items()}
            return
        for name in task.sets:
            self._variables[name] = self.sets.get(task.path, self._variables.get(name))

    def _run_members(
        self,
        container: Container | EventHandler,
        inside: tuple[Executable | EventHandler, ...],
        source: Path | None,
    ) -> bool:
        """Run the executables of a container in the order of their constraints; return whether all succeeded."""
        results: dict[str, bool] = {}
        never: set[str] = set()
        members = {one.id: one for one in container.executables}
        while len(results) + len(never) < len(members):
            for key, one in members.items():
                incoming = [each for each in container.constraints if each.after == key]
                if key in results or key in never or any(not {each.before} & {*results, *never} for each in incoming):
                    continue
                met = [self._is_met(each, results) for each in incoming]
                if met and not (all(met) if all(each.logical_and for each in incoming) else any(met)):
                    never.add(key)
                elif one.disabled or self._is_disabled(one, one.name):
                    results[key] = True
                else:
                    results[key] = self._run(one, inside, source)
        return all(results.values())

    def _is_met(self, constraint: PrecedenceConstraint, results: Mapping[str, bool]) -> bool:
        if constraint.before not in results:
            return False
        succeeded = results[constraint.before]
        by_value = constraint.value is ConstraintValue.COMPLETION or succeeded is (
            constraint.value is ConstraintValue.SUCCESS
        )
        if constraint.eval_op is EvalOp.CONSTRAINT:
            return by_value
        by_expression = self._evaluate(constraint.expression or "", None)
        if constraint.eval_op is EvalOp.EXPRESSION:
            return by_expression
        both = constraint.eval_op is EvalOp.EXPRESSION_AND_CONSTRAINT
        return (by_value and by_expression) if both else (by_value or by_expression)

    def _is_disabled(self, one: Executable | EventHandler, name: str | None) -> bool:
        return "Disable" in one.expressions and self._evaluate(one.expressions["Disable"], name)

    def _evaluate(self, expression: str, task_name: str | None) -> bool:
        more = {} if task_name is None else {"System::TaskName": task_name}
        return to_bool(evaluate(expression, {**self._variables, **more}))

    def _raise(self, event: str, inside: tuple[Executable | EventHandler, ...]) -> None:
        source = inside[-1]
        assert not isinstance(source, EventHandler)
        id_ = self.package.id if source is self.package.root else source.id
        of_source: dict[str, object] = {
            "System::SourceName": source.name,
            "System::SourceID": id_,
            "System::SourceDescription": source.description,
            "System::ErrorCode": "-1071636471",
            "System::Propagate": "True",  # a variable of each handler, and so of no other
        }
        before = {name: self._variables.get(name) for name in of_source}
        for handler in (one for owner in reversed(inside) for one in owner.event_handlers if one.event_name == event):
            self._variables |= of_source
            is_off = handler.disabled or self._is_disabled(handler, None)
            if not is_off:
                self._run_members(handler, (handler,), source.path)
            is_stopped = handler.propagate is False or self._variables["System::Propagate"] != "True"
            self._variables |= before
            if not is_off and is_stopped:
                return


def walk_control_flow(executable: Executable) -> Iterator[Executable]:
    """Yield an executable and all in it that are not in event handlers."""
    yield executable
    if isinstance(executable, Container):
        for child in executable.executables:
            yield from walk_control_flow(child)


@dataclass(frozen=True, slots=True, kw_only=True)
class DagRun:
    """What a run of the DAG does.

    Args:
        sent: the mails of event handlers, by the path of the mail; an extra task of the DAG is its own source.
        states: the state of each task.
    """

    sent: Sent
    states: Mapping[str, str]


def load_dag(module: DagModule) -> DAG:
    """Return the DAG of a module."""
    space: dict[str, Any] = {"__name__": "dag_module"}
    exec(compile(module.source, module.file_name, "exec"), space)  # noqa: S102 - it is what Airflow does with a file
    dag = space["dag"]
    assert isinstance(dag, DAG)
    return dag


def run_dag(
    dag: DAG, package: Package, ssis: SsisRun, values: Mapping[Path, object], mail_of: Callable[[str], str]
) -> DagRun:
    """Simulate a run of the DAG, in which all placeholders have been replaced.

    Args:
        ssis: the run of the package: the same tasks fail, and callbacks are called in the same order.
        values: the value that a task gives the variables that it sets.
        mail_of: returns the path of a mail by the subject of its notifier.
    """
    executables = {
        ".".join(slug(name, "task") for name in one.path[1:]): one for one in walk_control_flow(package.root)
    }
    failing = {task_id for task_id, one in executables.items() if one.path in ssis.failed and not one.disabled}
    states = _find_states(dag, failing)
    sent: Sent = Counter()
    pushed: dict[str, object] = {}

    def call(callbacks: Sequence[SendMailNotifier] | SendMailNotifier | None, context: Any, source: Path) -> None:
        for notifier in callbacks if isinstance(callbacks, list | tuple) else [callbacks] if callbacks else []:
            _, render = notifier._make_renderer(context, read_event(context))
            if notifier._is_wanted(render):
                sent[mail_of(str(notifier.subject)), source] += 1

    params = {name: param.value for name, param in dag.params.items()} if dag.params else {}
    ids = {one.path: task_id for task_id, one in executables.items() if task_id in states}
    log = [(what, ids[path]) for what, path in ssis.log if path in ids]
    # What SSIS did not run, and the tasks that only the DAG has, come last.
    log += [(what, task_id) for task_id in states for what in ("start", "end") if ("end", task_id) not in log]
    for what, task_id in dict.fromkeys(log):
        state, task = states[task_id], dag.task_dict[task_id]
        if state not in {SUCCESS, FAILED}:
            continue
        one = executables.get(task_id)
        source = ("DAG", task_id) if one is None else one.path
        if what == "end" and state == SUCCESS and isinstance(one, OtherTask) and not one.disabled:
            pushed[task_id] = values.get(one.path)
        context = _make_context(dag, task, state, params, dict(pushed))
        if what == "start":
            call(task.on_execute_callback, context, source)
        else:
            call(task.on_success_callback if state == SUCCESS else task.on_failure_callback, context, source)
    leaves = [states[task.task_id] for task in dag.leaves]
    failed = any(state not in {SUCCESS, SKIPPED} for state in leaves)
    first = next(iter(dag.task_dict.values()))
    context = {**_make_context(dag, first, None, params, pushed), "reason": "task_failure" if failed else "success"}
    call(dag.on_failure_callback if failed else dag.on_success_callback, context, ("Package",))
    return DagRun(sent=sent, states=states)


def _find_states(dag: DAG, failing: set[str]) -> dict[str, str]:
    """Return the state of each task by its trigger rule."""
    states: dict[str, str] = {}
    while len(states) < len(dag.task_dict):
        for task_id, task in dag.task_dict.items():
            if task_id not in states and task.upstream_task_ids <= states.keys():
                found = [states[each] for each in task.upstream_task_ids]
                state = _state(str(getattr(task.trigger_rule, "value", task.trigger_rule)), found)
                states[task_id] = FAILED if state == SUCCESS and task_id in failing else state
    return states


class _TaskInstance(SimpleNamespace):
    """A task instance with the XComs of the run."""

    def xcom_pull(self, *, task_ids: list[str] | str, key: str, map_indexes: object = None) -> object:  # noqa: ARG002
        """Return the value that a task has pushed for every variable that it sets."""
        assert key.startswith("User::")
        return [self.pushed.get(each) for each in task_ids] if isinstance(task_ids, list) else self.pushed.get(task_ids)

    def get_task_states(self, **_: object) -> dict[str, dict[str, str]]:
        """Return nothing: conditions do not depend on it."""
        return {}


def _make_context(
    dag: DAG, task: Any, state: str | None, params: Mapping[str, object], pushed: Mapping[str, object]
) -> dict[str, Any]:
    ti = _TaskInstance(
        dag_id=dag.dag_id,
        task_id=task.task_id,
        run_id=f"manual {next(_RUNS)}",
        map_index=-1,
        try_number=1,
        max_tries=0,
        state=state,
        start_date=_START,
        end_date=_START,
        hostname="worker",
        log_url="https://airflow.corp.example/log",
        pushed=pushed,
        task=task,
    )
    run = SimpleNamespace(dag_id=dag.dag_id, run_id=ti.run_id, start_date=_START, state=state or "success", conf={})
    return {"dag": dag, "task": task, "ti": ti, "run_id": ti.run_id, "dag_run": run, "params": dict(params)}
