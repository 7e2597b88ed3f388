"""Precedence constraints as trigger rules, with empty tasks where one rule cannot express them.

Airflow counts a task that could not run because one before it failed as failed: `all_failed` and `all_done` hold for
it. In SSIS an executable that never ran has neither failed nor completed. Where this makes a difference, an empty task
before the executable in question shows that it was reached, and the constraint requires that task as well.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from airflow_provider_smtpcm.ssis.expressions import (
    ExpressionError,
    NotTranslatable,
)
from airflow_provider_smtpcm.ssis.model import ConstraintValue, Container, EvalOp, Executable, PrecedenceConstraint
from airflow_provider_smtpcm.ssis.writing.python_source import (
    FunctionCall,
    KeywordArgument,
    UniqueNames,
    slug,
    variable_name,
)
from airflow_provider_smtpcm.ssis.writing.secrets import sanitize
from airflow_provider_smtpcm.ssis.writing.symbols import Scope
from airflow_provider_smtpcm.ssis.writing.templates import (
    WritingContext,
    display_expression,
    error_summary,
    translate_condition,
)

ALL_SUCCESS, ALL_FAILED, ALL_DONE = "all_success", "all_failed", "all_done"
#: For the task at the end of a container: it runs unless something in the container failed or all was skipped.
END_RULE = "none_failed_min_one_success"
_RULES = {
    ConstraintValue.SUCCESS: ALL_SUCCESS,
    ConstraintValue.FAILURE: ALL_FAILED,
    ConstraintValue.COMPLETION: ALL_DONE,
}
_ANY_OF = {ALL_SUCCESS: "one_success", ALL_FAILED: "one_failed", ALL_DONE: "one_done"}
_GATE_SUFFIXES = {ALL_FAILED: "failed", ALL_DONE: "done", ALL_SUCCESS: "done_well", "one_success": "either"}
# These evaluate their expression whether the executable before them succeeded or not.
_EXPRESSION_ALWAYS = {EvalOp.EXPRESSION, EvalOp.EXPRESSION_OR_CONSTRAINT}


@dataclass(slots=True, kw_only=True)
class DagNode:
    """A task or a task group of the DAG; without a variable, a comment in its place.

    Args:
        variable: the name of its Python variable.
        call: what creates it.
        comment: written above it.
        upstream: the variables of the nodes directly before it.
        children: the nodes of a task group; None for a task.
        is_executable: whether it is an executable of the package, and not a task that a precedence constraint needs.
    """

    variable: str = ""
    call: FunctionCall | None = None
    comment: str = ""
    upstream: list[str] = field(default_factory=list)
    children: list[DagNode] | None = None
    is_executable: bool = False

    def executable_variables(self) -> Iterator[str]:
        """Yield the variables of the package's executables in this node, or of the node itself."""
        if self.children is not None:
            for child in self.children:
                yield from child.executable_variables()
        elif self.variable and self.is_executable:
            yield self.variable


@dataclass(frozen=True, slots=True)
class TriggerCondition:
    """The condition on which a task runs: a trigger rule over the variables of its upstream tasks."""

    upstream: tuple[str, ...]
    rule: str


class PrecedenceGraph:
    """The precedence constraints between the executables of one container.

    Args:
        container: whose constraints they are.
        kept: the executables that are in the DAG, by their ids.
        may_be_skipped: whether the container as a whole may not run although the DAG run goes on.

    Attributes:
        incoming: the constraints that lead to an executable, by its id.
        with_downstream: the ids of the executables that something follows.
        outcome_matters: the ids of the executables after which something runs although they failed. Of a container
            among them the DAG has to know whether it succeeded as a whole.
        reach_matters: the ids of the executables of which a constraint has to know whether they were reached.
    """

    def __init__(self, container: Container, kept: Mapping[str, Executable], *, may_be_skipped: bool) -> None:
        self.incoming: dict[str, list[PrecedenceConstraint]] = {key: [] for key in kept}
        self.with_downstream: set[str] = set()
        for one in container.constraints:
            if one.before in kept and one.after in kept and one.before != one.after:
                self.incoming[one.after].append(one)
                self.with_downstream.add(one.before)
        self._may_be_skipped = may_be_skipped
        self.outcome_matters = {
            one.before
            for constraints in self.incoming.values()
            for one in constraints
            if one.value is not ConstraintValue.SUCCESS
            or one.eval_op in _EXPRESSION_ALWAYS
            or (len(constraints) > 1 and not one.logical_and)
        }
        self.reach_matters = {before for after in kept for before in self._reach_matters_to(after)}

    def _reach_matters_to(self, after: str) -> Iterable[str]:
        incoming = self.incoming[after]
        sources = {one.before for one in incoming}
        plain = all(one.value is ConstraintValue.FAILURE and one.eval_op is EvalOp.CONSTRAINT for one in incoming)
        any_of = len(incoming) > 1 and plain and not all(one.logical_and for one in incoming)
        # With `one_failed`, a source that never ran does no harm if only other sources can have stopped it: then one
        # of them has failed itself.
        is_closed = (
            any_of
            and not self._may_be_skipped
            and all(one.before in sources for source in sources for one in self.incoming[source])
        )
        for one in incoming:
            if one.value is ConstraintValue.SUCCESS and one.eval_op in {
                EvalOp.CONSTRAINT,
                EvalOp.EXPRESSION_AND_CONSTRAINT,
            }:
                continue
            if is_closed:
                continue
            if self.incoming[one.before] or self._may_be_skipped:
                yield one.before

    def topological_order(self, keys: Iterable[str]) -> list[str]:
        """Return the ids so that each follows those before it; where there is a choice, in the given order."""
        rank = {key: number for number, key in enumerate(keys)}
        waiting_for = {key: len({one.before for one in self.incoming[key]}) for key in rank}
        downstream: dict[str, set[str]] = {}
        for key in rank:
            for one in self.incoming[key]:
                downstream.setdefault(one.before, set()).add(key)
        ready = [number for key, number in rank.items() if not waiting_for[key]]
        ids = list(rank)
        done: dict[str, None] = {}
        remaining = iter(ids)
        while len(done) < len(rank):
            if not ready:  # SSIS allows no cycle, but a file may have one: break it
                key = next(each for each in remaining if each not in done)
                self.incoming[key] = [one for one in self.incoming[key] if one.before in done]
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


def can_skip_inside(container: Container) -> bool:
    """Whether something in a container may be skipped while the container succeeds."""
    if any(
        one.value is not ConstraintValue.SUCCESS or one.eval_op is not EvalOp.CONSTRAINT or not one.logical_and
        for one in container.constraints
    ):
        return True
    return any(
        "Disable" in one.expressions or (isinstance(one, Container) and can_skip_inside(one))
        for one in container.executables
    )


class TaskFactory:
    """Creates the tasks of one DAG.

    Args:
        context: of the package.
        unique: gives the names of the module's variables.

    Attributes:
        operators: the names of the operators that the DAG uses.
        runs_after_failures: whether a task of the DAG runs although one before it failed.
    """

    def __init__(self, context: WritingContext, unique: UniqueNames) -> None:
        self.context, self.unique = context, unique
        self.runs_after_failures = False
        self.operators: set[str] = set()

    def create_task(
        self, operator: str, task_id: str, name: str, arguments: Sequence[KeywordArgument] = ()
    ) -> FunctionCall:
        """Return the call that creates a task; a name that is not the id becomes the display name."""
        self.operators.add(operator)
        display = () if name == task_id else (KeywordArgument(name="task_display_name", value=sanitize(name)),)
        identity = KeywordArgument(name="task_id", value=task_id)
        return FunctionCall(name=operator, arguments=(identity, *display, *arguments))


class ContainerConditions:
    """The trigger conditions of the executables in one container, and the extra tasks that they need.

    Args:
        factory: creates the extra tasks.
        container: whose executables they are.
        scope: what the names in the constraints' expressions refer to.
        may_be_skipped: whether the container as a whole may not run although the DAG run goes on.

    Attributes:
        nodes: the nodes of the container so far.
    """

    def __init__(self, factory: TaskFactory, container: Container, scope: Scope, *, may_be_skipped: bool) -> None:
        self.nodes: list[DagNode] = []
        self._factory, self._scope, self._may_be_skipped = factory, scope, may_be_skipped
        followed = {one.before for one in container.constraints}
        self._kept = kept = {one.id: one for one in container.executables if not one.disabled or one.id in followed}
        for one in container.executables:
            if one.id not in kept:
                self.nodes.append(DagNode(comment=f"{one.name!r} is disabled, and nothing comes after it."))
        self._graph = PrecedenceGraph(container, kept, may_be_skipped=may_be_skipped)
        factory.runs_after_failures |= bool(self._graph.outcome_matters)
        self._ids = UniqueNames()
        self._task_ids = {key: self._ids.give(slug(one.name, "task")) for key, one in kept.items()}
        self._variables = {key: factory.unique.give(variable_name(self._task_ids[key])) for key in kept}
        self._task_id_of = {self._variables[key]: task_id for key, task_id in self._task_ids.items()}
        # By an executable's id: the variable of the task that shows that it was reached, and of the one that ends it.
        self._reached: dict[str, str] = {}
        self._end: dict[str, str] = dict(self._variables)
        self._gates: dict[TriggerCondition, str] = {}

    def _condition_of(self, executable: Executable) -> TriggerCondition:
        """Return the condition on which an executable runs: that of all constraints that lead to it."""
        incoming = self._graph.incoming[executable.id]
        conditions = [self._condition_of_constraint(constraint, executable) for constraint in incoming]
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
            else self._gate(condition)
            for condition in conditions
        ]
        return TriggerCondition(_all_upstream(gated), ALL_SUCCESS if all_of else _ANY_OF[ALL_SUCCESS])

    def _condition_of_constraint(self, constraint: PrecedenceConstraint, executable: Executable) -> TriggerCondition:
        source = self._end[constraint.before]
        reached = self._reached.get(constraint.before)
        expression = constraint.expression or ""

        def after_source(rule: str) -> TriggerCondition:
            condition = TriggerCondition((source,), rule)
            if rule == ALL_SUCCESS or reached is None or constraint.before not in self._graph.reach_matters:
                return condition
            return TriggerCondition((reached, *self._gate(condition).upstream), ALL_SUCCESS)

        by_value = after_source(_RULES[constraint.value])
        if constraint.eval_op is EvalOp.CONSTRAINT or not expression.strip():
            return by_value
        if constraint.eval_op is EvalOp.EXPRESSION_AND_CONSTRAINT:
            return self._only_if(executable, expression, expression, "if", by_value)
        by_expression = self._only_if(executable, expression, expression, "if", after_source(ALL_DONE))
        if constraint.eval_op is EvalOp.EXPRESSION:
            return by_expression
        either = (*self._gate(by_value).upstream, *by_expression.upstream)
        return self._gate(TriggerCondition(either, _ANY_OF[ALL_SUCCESS]))

    def _gate(self, condition: TriggerCondition) -> TriggerCondition:
        """Return the success of an empty task that runs on a condition; equal conditions share one."""
        if condition not in self._gates:
            suffix = _GATE_SUFFIXES.get(condition.rule, "gate")
            name = f"{self._task_id_of[condition.upstream[-1]]}_{suffix}"
            self._gates[condition] = self._add_empty(name, condition, "").upstream[0]
        return TriggerCondition((self._gates[condition],), ALL_SUCCESS)

    def _add_empty(self, name: str, condition: TriggerCondition, comment: str) -> TriggerCondition:
        """Add an empty task; return its success."""
        task_id = self._ids.give(name)
        rule = [] if condition.rule == ALL_SUCCESS else [KeywordArgument(name="trigger_rule", value=condition.rule)]
        call = self._factory.create_task("EmptyOperator", task_id, task_id, rule)
        return self._add_task(task_id, call, condition, comment)

    def _only_if(
        self, executable: Executable, expression: str, original: str, suffix: str, condition: TriggerCondition
    ) -> TriggerCondition:
        """Add a task that skips what follows unless an expression is true; return its success.

        Args:
            executable: that depends on the expression.
            original: the expression as the package has it.
            suffix: of the task's id.
            condition: on which the task runs.
        """
        findings = self._factory.context.findings
        where = "\\".join(executable.path)
        original = display_expression(original)
        comments: tuple[str, ...] = (f"SSIS: {original}",)
        try:
            template = translate_condition(self._factory.context, expression, self._scope)
        except (ExpressionError, NotTranslatable) as error:
            template = "complete_me.condition"
            comments = (*comments, sanitize(str(error)))
            findings.decision(
                "condition-to-complete",
                where,
                f"The condition {original} cannot be said as a template: {error_summary(error)}",
                "Write it in the DAG; until then the task that stands for it fails.",
            )
        else:
            findings.decision(
                "condition-on-variables",
                where,
                f"Whether {executable.name!r} runs depends on the expression {original}. The DAG asks the same of its "
                "params, which hold the design-time values until something else sets them.",
                "Put what the tasks of the package compute (an XCom, say) in the place of the params.",
            )
        arguments = [KeywordArgument(name="condition", value=f"{{{{ {template} }}}}", comments=comments)]
        if condition.rule != ALL_SUCCESS:
            arguments.insert(0, KeywordArgument(name="trigger_rule", value=condition.rule))
        task_id = self._ids.give(f"{self._task_ids[executable.id]}_{suffix}")
        call = self._factory.create_task("OnlyIfOperator", task_id, task_id, arguments)
        return self._add_task(task_id, call, condition, "")

    def _add_task(
        self, task_id: str, call: FunctionCall, condition: TriggerCondition, comment: str
    ) -> TriggerCondition:
        variable = self._factory.unique.give(variable_name(task_id))
        self._task_id_of[variable] = task_id
        self.nodes.append(DagNode(variable=variable, call=call, comment=comment, upstream=list(condition.upstream)))
        return TriggerCondition((variable,), ALL_SUCCESS)


def _all_upstream(conditions: Iterable[TriggerCondition]) -> tuple[str, ...]:
    """Return the upstream tasks of all conditions, each once."""
    return tuple(dict.fromkeys(variable for condition in conditions for variable in condition.upstream))
