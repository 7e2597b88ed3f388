"""Precedence constraints as trigger rules, with empty tasks where one rule cannot express them.

Airflow sets a task whose upstream failed to `upstream_failed`, which is a failure for `all_failed`, and done for
`all_done`. In SSIS an executable that never ran has neither failed nor completed. Where this makes a difference, an
empty task is added before the executable (`load_ready`): its success shows that the executable was due to run, and the
constraint requires that task as well.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from airflow_provider_smtpcm.ssis.expressions import ExpressionError, NotTranslatable
from airflow_provider_smtpcm.ssis.findings import Findings
from airflow_provider_smtpcm.ssis.model import (
    ConstraintValue,
    Container,
    ContainerKind,
    EvalOp,
    Executable,
    PrecedenceConstraint,
)
from airflow_provider_smtpcm.ssis.writing.conditions import ConditionTranslator
from airflow_provider_smtpcm.ssis.writing.conversion import WritingContext
from airflow_provider_smtpcm.ssis.writing.flow import (
    find_incoming,
    get_forced_result,
    is_limit_within_reach,
    select_included,
)
from airflow_provider_smtpcm.ssis.writing.live_variables import ReadPoint
from airflow_provider_smtpcm.ssis.writing.python_source import (
    FunctionCall,
    KeywordArgument,
    UniqueNames,
    keywords,
    variable_name,
)
from airflow_provider_smtpcm.ssis.writing.secrets import display_expression, sanitize
from airflow_provider_smtpcm.ssis.writing.symbols import Scope
from airflow_provider_smtpcm.ssis.writing.templates import COMPLETE_ME, error_summary

ALL_SUCCESS, ALL_FAILED, ALL_DONE = "all_success", "all_failed", "all_done"
#: For the task at the end of a container: it runs if nothing in the container failed and not everything was skipped.
END_RULE = "none_failed_min_one_success"
_RULES = {
    ConstraintValue.SUCCESS: ALL_SUCCESS,
    ConstraintValue.FAILURE: ALL_FAILED,
    ConstraintValue.COMPLETION: ALL_DONE,
}
_ANY_OF = {ALL_SUCCESS: "one_success", ALL_FAILED: "one_failed", ALL_DONE: "one_done"}
_GATE_SUFFIXES = {ALL_FAILED: "failed", ALL_DONE: "done", ALL_SUCCESS: "done_well", "one_success": "either"}
# The expression alone can satisfy these, even if the preceding executable failed.
_EXPRESSION_SUFFICES = {EvalOp.EXPRESSION, EvalOp.EXPRESSION_OR_CONSTRAINT}


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedGroup:
    """The iterations of a mapped task group, which is written as a function with `@task_group`.

    Args:
        function: the name of the function.
        parameters: the names of its parameters: the fields of a row.
        rows: the source of the rows.
    """

    function: str
    parameters: tuple[str, ...]
    rows: object


@dataclass(slots=True, kw_only=True)
class DagNode:
    """A task, a task group, or only a comment (then it has no variable and no call).

    Args:
        variable: the name of its Python variable.
        call: creates the task or the task group.
        comment: written above the call.
        upstream: the variables of the nodes directly upstream.
        uses: the variables of other nodes that the call needs.
        children: the nodes of a task group; None for a task.
        mapped: the iterations of a mapped task group; None for any other node.
        is_executable: True for an executable of the package, False for a task that was added for a precedence
            constraint.
    """

    variable: str = ""
    call: FunctionCall | None = None
    comment: str = ""
    upstream: list[str] = field(default_factory=list)
    uses: list[str] = field(default_factory=list)
    children: list[DagNode] | None = None
    mapped: MappedGroup | None = None
    is_executable: bool = False

    def executable_variables(self) -> Iterator[str]:
        """Yield the variables of the executables in this node; a task yields its own, and so does a mapped group."""
        if self.mapped is not None:
            yield self.variable
        elif self.children is not None:
            for child in self.children:
                yield from child.executable_variables()
        elif self.variable and self.is_executable:
            yield self.variable


@dataclass(frozen=True, slots=True)
class TriggerCondition:
    """When a task runs: the variables of its upstream tasks, and the trigger rule."""

    upstream: tuple[str, ...]
    rule: str

    def as_arguments(self) -> list[KeywordArgument]:
        """Return the argument for the rule, unless it is Airflow's default."""
        return [] if self.rule == ALL_SUCCESS else keywords(trigger_rule=self.rule)


class PrecedenceGraph:
    """The precedence constraints between the executables of one container.

    Args:
        container: the container.
        included: the executables that are in the DAG, by id.
        may_be_skipped: whether the container as a whole may be skipped while the DAG run continues.

    Attributes:
        incoming: the constraints on an executable, by its id.
        with_downstream: the ids of the executables that precede another one.
        followed_on_failure: the ids of the executables that may be followed by another one even if they fail. If one
            of them is a container, the DAG needs a task that shows whether it succeeded as a whole.
        needs_ready_task: the ids of the executables for which a constraint must tell "failed" from "never ran".
    """

    def __init__(self, container: Container, included: Mapping[str, Executable], *, may_be_skipped: bool) -> None:
        self.incoming = find_incoming(container.constraints, included)
        self.with_downstream = {each.before for constraints in self.incoming.values() for each in constraints}
        self._may_be_skipped = may_be_skipped
        self.followed_on_failure = {
            constraint.before
            for constraints in self.incoming.values()
            for constraint in constraints
            if constraint.value is not ConstraintValue.SUCCESS
            or constraint.eval_op in _EXPRESSION_SUFFICES
            or (len(constraints) > 1 and not constraint.logical_and)
        }
        self.needs_ready_task = {before for after in included for before in self._needing_ready_task(after)}

    def _needing_ready_task(self, after: str) -> Iterable[str]:
        """Yield the ids of the predecessors of an executable that need a `_ready` task because of its constraints."""
        incoming = self.incoming[after]
        predecessors = {constraint.before for constraint in incoming}
        only_failures = all(
            constraint.value is ConstraintValue.FAILURE and constraint.eval_op is EvalOp.CONSTRAINT
            for constraint in incoming
        )
        any_failure = len(incoming) > 1 and only_failures and not all(constraint.logical_and for constraint in incoming)
        # For `one_failed`, a predecessor that never ran counts as failed; for SSIS it does not. There is no difference
        # if only the failure of another predecessor can have kept it from running.
        if (
            any_failure
            and not self._may_be_skipped
            and all(constraint.before in predecessors for key in predecessors for constraint in self.incoming[key])
        ):
            return
        for constraint in incoming:
            requires_success = constraint.value is ConstraintValue.SUCCESS and constraint.eval_op in {
                EvalOp.CONSTRAINT,
                EvalOp.EXPRESSION_AND_CONSTRAINT,
            }
            if not requires_success and (self.incoming[constraint.before] or self._may_be_skipped):
                yield constraint.before

    def topological_order(self, keys: Iterable[str]) -> list[str]:
        """Return the ids, each after its predecessors; where there is a choice, in the given order.

        SSIS allows no cycle, but a file may contain one: the constraints that close it are dropped.
        """
        rank = {key: number for number, key in enumerate(keys)}
        waiting_for = {key: len({constraint.before for constraint in self.incoming[key]}) for key in rank}
        downstream: dict[str, set[str]] = {}
        for key in rank:
            for constraint in self.incoming[key]:
                downstream.setdefault(constraint.before, set()).add(key)
        ready = [number for key, number in rank.items() if not waiting_for[key]]
        ids = list(rank)
        done: dict[str, None] = {}
        remaining = iter(ids)
        while len(done) < len(rank):
            if not ready:  # a cycle
                key = next(candidate for candidate in remaining if candidate not in done)
                self.incoming[key] = [constraint for constraint in self.incoming[key] if constraint.before in done]
            else:
                key = ids[heapq.heappop(ready)]
                if key in done:
                    continue
            done[key] = None
            for after in downstream.get(key, ()):
                waiting_for[after] -= 1
                if not waiting_for[after] and after not in done:
                    heapq.heappush(ready, rank[after])
        return list(done)


def honor_forced_results(container: Container, findings: Findings) -> Container:
    """Return a container whose constraints allow for ForceExecutionResult and MaximumErrorCount.

    Args:
        findings: a finding is added for each executable with such a property that influences what follows it, or the
            result of its container.
    """
    by_id = {child.id: child for child in container.executables}
    constraints: list[PrecedenceConstraint] = []
    for constraint in container.constraints:
        before = by_id.get(constraint.before)
        forced = "" if before is None else get_forced_result(before)
        if before is None or not forced or constraint.value is ConstraintValue.COMPLETION:
            constraints.append(constraint)
            continue
        is_always_met = forced == constraint.value
        constraints.append(replace(constraint, value=ConstraintValue.COMPLETION) if is_always_met else constraint)
        if is_limit_within_reach(before):
            findings.decision(
                "forced-result",
                before.where,
                f"SSIS counts {before.name!r} as a success until it has {before.maximum_errors} errors "
                "(MaximumErrorCount); a task that fails may raise several. In the DAG, what depends on its "
                f"{constraint.value} {'always runs' if is_always_met else 'runs after the first failure'}.",
                "Check whether it is meant to run.",
            )
        elif is_always_met:
            findings.note(
                "forced-result",
                before.where,
                f"SSIS counts {before.name!r} as a {forced} whatever happens in it, so what follows it always runs, in "
                "the DAG as well. A task that fails still fails the DAG run.",
            )
        else:
            findings.decision(
                "forced-result",
                before.where,
                f"SSIS never counts {before.name!r} as a {constraint.value}, because of its ForceExecutionResult or "
                f"MaximumErrorCount, so what depends on its {constraint.value} never runs. In the DAG, it runs after "
                f"a real {constraint.value}.",
                "Check whether it is meant to run.",
            )
    if container.kind is not ContainerKind.PACKAGE:
        for child in container.executables:
            # The errors in an executable count for the containers around it, even if it is forced to succeed itself.
            if child.force_result in {"failure", "completion"} and not child.disabled:
                findings.decision(
                    "forced-result",
                    child.where,
                    f"SSIS counts {child.name!r} as a {child.force_result} whatever happens in it, but adds its errors "
                    f"to those of {container.name!r}. In the DAG, the result of {container.name!r} depends on its "
                    "tasks alone.",
                    f"Check what runs after {container.name!r}.",
                )
    return replace(container, constraints=tuple(constraints))


class TaskFactory:
    """Creates the tasks of one DAG.

    Args:
        context: the package's context.
        variable_names: allocates the names of the module's variables.

    Attributes:
        operators: the class names of the operators that the DAG uses.
        runs_after_failures: whether a task of the DAG may run after an upstream task has failed.
    """

    def __init__(self, context: WritingContext, variable_names: UniqueNames) -> None:
        self.context, self.variable_names = context, variable_names
        self.runs_after_failures = False
        self.operators: set[str] = set()

    def create_task(
        self, operator: str, task_id: str, name: str, arguments: Sequence[KeywordArgument] = ()
    ) -> FunctionCall:
        """Return the call that creates a task.

        Args:
            operator: the class name.
            name: the name in SSIS; it becomes the display name if it is not the id.
            arguments: all other arguments.
        """
        self.operators.add(operator)
        display = [] if name == task_id else keywords(task_display_name=sanitize(name))
        return FunctionCall(operator, [*keywords(task_id=task_id), *display, *arguments])


class ContainerConditions:
    """The trigger conditions of the executables in one container, and the extra tasks that they need.

    Args:
        factory: creates the extra tasks.
        container: the container.
        scope: resolves the names in the constraints' expressions.
        may_be_skipped: whether the container as a whole may be skipped while the DAG run continues.

    Attributes:
        nodes: the nodes of the container so far.
    """

    def __init__(self, factory: TaskFactory, container: Container, scope: Scope, *, may_be_skipped: bool) -> None:
        container = honor_forced_results(container, factory.context.findings)
        self.nodes: list[DagNode] = []
        self._factory, self._scope, self._may_be_skipped = factory, scope, may_be_skipped
        self._included = included = select_included(container)
        for child in container.executables:
            if child.id not in included:
                self.nodes.append(
                    DagNode(comment=f"{child.name!r} is disabled and nothing follows it, so it is not in the DAG.")
                )
        self._graph = PrecedenceGraph(container, included, may_be_skipped=may_be_skipped)
        factory.runs_after_failures |= bool(self._graph.followed_on_failure)
        flow = factory.context.symbols.flow
        self._free_task_ids = flow.free_ids[container.id]
        # The task id of each executable, by the executable's id.
        self._task_ids = {key: flow.local_ids[key] for key in included}
        # The variable of its task, by the executable's id.
        self._variables = {key: factory.variable_names.allocate(variable_name(self._task_ids[key])) for key in included}
        self._task_id_by_variable = {self._variables[key]: task_id for key, task_id in self._task_ids.items()}
        # The variable of an executable's `_ready` task, by the id of the executable.
        self._ready_tasks: dict[str, str] = {}
        # The variable of the task that shows the outcome of an executable, by the id of the executable.
        self._end_tasks: dict[str, str] = dict(self._variables)
        self._gates: dict[TriggerCondition, str] = {}

    def _make_condition(self, executable: Executable) -> TriggerCondition:
        """Return when an executable runs, by all constraints on it."""
        incoming = self._graph.incoming[executable.id]
        conditions = [self._make_constraint_condition(constraint, executable) for constraint in incoming]
        if not conditions:
            return TriggerCondition((), ALL_SUCCESS)
        if len(conditions) == 1:
            return conditions[0]
        rules = {condition.rule for condition in conditions}
        all_of = all(constraint.logical_and for constraint in incoming)
        if len(rules) == 1 and (all_of or all(len(condition.upstream) == 1 for condition in conditions)):
            rule = rules.pop()
            return TriggerCondition(_all_upstream(conditions), rule if all_of else _ANY_OF[rule])
        gated = [
            condition
            if condition.rule == ALL_SUCCESS and (all_of or len(condition.upstream) == 1)
            else self._add_gate(condition)
            for condition in conditions
        ]
        return TriggerCondition(_all_upstream(gated), ALL_SUCCESS if all_of else _ANY_OF[ALL_SUCCESS])

    def _make_constraint_condition(self, constraint: PrecedenceConstraint, executable: Executable) -> TriggerCondition:
        outcome_task = self._end_tasks[constraint.before]
        ready_task = self._ready_tasks.get(constraint.before)
        expression = constraint.expression or ""

        def after_predecessor(rule: str) -> TriggerCondition:
            condition = TriggerCondition((outcome_task,), rule)
            if rule == ALL_SUCCESS or ready_task is None or constraint.before not in self._graph.needs_ready_task:
                return condition
            return TriggerCondition((ready_task, *self._add_gate(condition).upstream), ALL_SUCCESS)

        by_value = after_predecessor(_RULES[constraint.value])
        if constraint.eval_op is EvalOp.CONSTRAINT or not expression.strip():
            return by_value
        if constraint.eval_op is EvalOp.EXPRESSION_AND_CONSTRAINT:
            return self._add_only_if(executable, expression, expression, "if", by_value)
        by_expression = self._add_only_if(executable, expression, expression, "if", after_predecessor(ALL_DONE))
        if constraint.eval_op is EvalOp.EXPRESSION:
            return by_expression
        either = (*self._add_gate(by_value).upstream, *by_expression.upstream)
        return self._add_gate(TriggerCondition(either, _ANY_OF[ALL_SUCCESS]))

    def _add_gate(self, condition: TriggerCondition) -> TriggerCondition:
        """Return the condition that an empty task succeeded; the task runs on `condition`, and equal ones share it."""
        if condition not in self._gates:
            suffix = _GATE_SUFFIXES.get(condition.rule, "gate")
            name = f"{self._task_id_by_variable[condition.upstream[-1]]}_{suffix}"
            self._gates[condition] = self._add_empty(name, condition, "").upstream[0]
        return TriggerCondition((self._gates[condition],), ALL_SUCCESS)

    def _add_empty(self, name: str, condition: TriggerCondition, comment: str) -> TriggerCondition:
        """Add an empty task; return the condition that it succeeded."""
        task_id = self._free_task_ids.allocate(name)
        call = self._factory.create_task("EmptyOperator", task_id, task_id, condition.as_arguments())
        return self._add_task(task_id, call, condition, comment)

    def _add_only_if(
        self, executable: Executable, expression: str, original: str, suffix: str, condition: TriggerCondition
    ) -> TriggerCondition:
        """Add an `OnlyIfOperator`, which skips its downstream tasks; return the condition that it succeeded.

        Args:
            executable: depends on the expression.
            original: the expression as it is in the package.
            suffix: the end of the task id.
            condition: when the task runs.
        """
        findings = self._factory.context.findings
        where = executable.where
        original = display_expression(original)
        comments: tuple[str, ...] = (f"SSIS: {original}",)
        try:
            translator = ConditionTranslator(self._factory.context, ReadPoint.inside(executable))
            is_disable = suffix == "enabled"
            task_name = executable.name if is_disable else None
            template = translator.translate(expression, self._scope, task_name, is_disable=is_disable)
        except (ExpressionError, NotTranslatable) as error:
            template = f"{COMPLETE_ME}.condition"
            comments = (*comments, sanitize(str(error)))
            findings.decision(
                "condition-to-complete",
                where,
                f"The condition {original} cannot be translated to a template: {error_summary(error)}",
                "Write it in the DAG; until then, the task that checks it fails.",
            )
        else:
            translator.add_findings(
                "condition-on-variables",
                where,
                f"As in SSIS, whether {executable.name!r} runs depends on the expression {original}; a task of the DAG "
                "checks it.",
                f"Whether {executable.name!r} runs depends on the expression {original}.",
                "Correct the condition in the DAG.",
            )
        arguments = [
            *condition.as_arguments(),
            KeywordArgument("condition", f"{{{{ {template} }}}}", comments=comments),
        ]
        task_id = self._free_task_ids.allocate(f"{self._task_ids[executable.id]}_{suffix}")
        call = self._factory.create_task("OnlyIfOperator", task_id, task_id, arguments)
        return self._add_task(task_id, call, condition, "")

    def _add_task(
        self, task_id: str, call: FunctionCall, condition: TriggerCondition, comment: str
    ) -> TriggerCondition:
        variable = self._factory.variable_names.allocate(variable_name(task_id))
        self._task_id_by_variable[variable] = task_id
        self.nodes.append(DagNode(variable=variable, call=call, comment=comment, upstream=list(condition.upstream)))
        return TriggerCondition((variable,), ALL_SUCCESS)


def _all_upstream(conditions: Iterable[TriggerCondition]) -> tuple[str, ...]:
    """Return the upstream tasks of all conditions, each once."""
    return tuple(dict.fromkeys(variable for condition in conditions for variable in condition.upstream))
