"""Precedence constraints as trigger rules, and the empty tasks that it takes where one rule cannot say it.

Airflow counts a task that could not run, because something before it failed, as failed: `all_failed` and `all_done`
hold for it. SSIS does not: what never ran has neither failed nor completed. So where that makes a difference, an empty
task stands before the one that is watched, and what watches it needs that too.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from airflow_provider_smtpcm.ssis.expressions import (
    ExpressionError,
    NotTranslatable,
    TemplateContext,
    condition_to_jinja,
    parse,
)
from airflow_provider_smtpcm.ssis.model import ConstraintValue, Container, EvalOp, Executable, PrecedenceConstraint
from airflow_provider_smtpcm.ssis.output import clean
from airflow_provider_smtpcm.ssis.writing.field_writer import Shared
from airflow_provider_smtpcm.ssis.writing.secrets import reason, shown, without_account
from airflow_provider_smtpcm.ssis.writing.source import Argument, Call, Unique, slug, variable
from airflow_provider_smtpcm.ssis.writing.symbols import Scope

ALL_SUCCESS, END_RULE = "all_success", "none_failed_min_one_success"
RULES = {
    ConstraintValue.SUCCESS: ALL_SUCCESS,
    ConstraintValue.FAILURE: "all_failed",
    ConstraintValue.COMPLETION: "all_done",
}
ANY = {ALL_SUCCESS: "one_success", "all_failed": "one_failed", "all_done": "one_done"}


# These look at their expression whether the task before succeeded or not.
_IN_ANY_CASE = {EvalOp.EXPRESSION, EvalOp.EXPRESSION_OR_CONSTRAINT}


@dataclass(slots=True, kw_only=True)
class Node:
    """Something in the DAG, or with no name a comment in its place.

    Args:
        name: of its variable.
        call: what makes it.
        comment: above it.
        before: the variables of what comes before it.
        inside: what a group holds; None where it is none.
        is_executable: whether it stands for one of the package, and is none of what the arrows need.
    """

    name: str = ""
    call: Call | None = None
    comment: str = ""
    before: list[str] = field(default_factory=list)
    inside: list[Node] | None = None
    is_executable: bool = False

    def tasks(self) -> Iterator[str]:
        """The variables of the executables of the package that it holds, or is."""
        if self.inside is not None:
            for one in self.inside:
                yield from one.tasks()
        elif self.name and self.is_executable:
            yield self.name


@dataclass(frozen=True, slots=True)
class Condition:
    """What has to be so before something runs: a rule over some tasks."""

    sources: tuple[str, ...]
    rule: str


class Arrows:
    """The constraints of one level.

    Args:
        container: whose level it is.
        kept: the executables that are in the DAG, by their ids.
        may_not_run: whether the level as a whole may be left out in a run that goes on.
    """

    def __init__(self, container: Container, kept: Mapping[str, Executable], *, may_not_run: bool) -> None:
        self.incoming: dict[str, list[PrecedenceConstraint]] = {key: [] for key in kept}
        self.followed: set[str] = set()
        for one in container.constraints:
            if one.before in kept and one.after in kept and one.before != one.after:
                self.incoming[one.after].append(one)
                self.followed.add(one.before)
        self._may_not_run = may_not_run
        #: Something goes on although they failed: of a container it must be known whether it succeeded as a whole.
        self.ends_matter = {
            one.before
            for ones in self.incoming.values()
            for one in ones
            if one.value is not ConstraintValue.SUCCESS
            or one.eval_op in _IN_ANY_CASE
            or (len(ones) > 1 and not one.logical_and)
        }
        self.watched = {key for after in kept for key in self._watched_by(after)}

    def _watched_by(self, after: str) -> Iterable[str]:
        """Those before it of which it must be known whether they ran."""
        incoming = self.incoming[after]
        sources = {one.before for one in incoming}
        plain = all(one.value is ConstraintValue.FAILURE and one.eval_op is EvalOp.CONSTRAINT for one in incoming)
        any_of = not self._may_not_run and plain and len(incoming) > 1 and not all(one.logical_and for one in incoming)
        # Where one failure of several is enough, what kept one of them from running is among them.
        closed = any_of and all(one.before in sources for source in sources for one in self.incoming[source])
        for one in incoming:
            if one.value is ConstraintValue.SUCCESS and one.eval_op in {
                EvalOp.CONSTRAINT,
                EvalOp.EXPRESSION_AND_CONSTRAINT,
            }:
                continue
            if closed:
                continue
            if self.incoming[one.before] or self._may_not_run:
                yield one.before

    def in_order(self, keys: Iterable[str]) -> list[str]:
        """Each behind what comes before it; as they stand where that leaves a choice."""
        place = {key: number for number, key in enumerate(keys)}
        waits = {key: len({one.before for one in self.incoming[key]}) for key in place}
        follows: dict[str, set[str]] = {}
        for key in place:
            for one in self.incoming[key]:
                follows.setdefault(one.before, set()).add(key)
        free = [number for key, number in place.items() if not waits[key]]
        names = list(place)
        done: dict[str, None] = {}
        rest = iter(names)
        while len(done) < len(place):
            if not free:  # SSIS allows no circle; a file may have one
                key = next(name for name in rest if name not in done)
                self.incoming[key] = [one for one in self.incoming[key] if one.before in done]
            else:
                key = names[heapq.heappop(free)]
                if key in done:
                    continue
            done[key] = None
            for after in follows.get(key, ()):
                waits[after] -= 1
                if not waits[after] and after not in done:
                    heapq.heappush(free, place[after])
        return list(done)


def can_skip(container: Container) -> bool:
    """Whether something in a container may be skipped while the container succeeds."""
    if any(
        one.value is not ConstraintValue.SUCCESS or one.eval_op is not EvalOp.CONSTRAINT or not one.logical_and
        for one in container.constraints
    ):
        return True
    return any(
        "Disable" in one.expressions or (isinstance(one, Container) and can_skip(one)) for one in container.executables
    )


# folded: What has to be so before a task runs, and the empty tasks that it takes to say it. Knows no mail.


class Tasks:
    """Makes tasks.

    Args:
        shared: of the package.
        unique: the names of the module's variables.
    """

    def __init__(self, shared: Shared, unique: Unique) -> None:
        self.shared, self.unique = shared, unique
        self.goes_on_after_failures = False
        self.operators: set[str] = set()

    def task(self, operator: str, task_id: str, name: str, arguments: Sequence[Argument] = ()) -> Call:
        """A task; its name is shown where it is not its id."""
        self.operators.add(operator)
        shown = () if name == task_id else (Argument(name="task_display_name", value=shown_name(name)),)
        return Call(name=operator, arguments=(Argument(name="task_id", value=task_id), *shown, *arguments))


class Conditions:
    """The conditions of one level, and the tasks that stand for them among its nodes."""

    def __init__(self, flow: Tasks, container: Container, scope: Scope, *, may_not_run: bool) -> None:
        self.nodes: list[Node] = []
        self._flow, self._scope, self._may_not_run = flow, scope, may_not_run
        followed = {one.before for one in container.constraints}
        self._kept = kept = {one.id: one for one in container.executables if not one.disabled or one.id in followed}
        for one in container.executables:
            if one.id not in kept:
                self.nodes.append(Node(comment=f"{one.name!r} is disabled, and nothing comes after it."))
        self._arrows = Arrows(container, kept, may_not_run=may_not_run)
        flow.goes_on_after_failures |= bool(self._arrows.ends_matter)
        self._ids = Unique()
        self._task_ids = {key: self._ids.give(slug(one.name, "task")) for key, one in kept.items()}
        self._variables = {key: flow.unique.give(variable(self._task_ids[key])) for key in kept}
        self._id_of = {self._variables[key]: task_id for key, task_id in self._task_ids.items()}
        self._ready: dict[str, str] = {}
        self._source: dict[str, str] = dict(self._variables)
        self._gates: dict[tuple[tuple[str, ...], str], str] = {}

    def _combined(self, one: Executable) -> Condition:
        incoming = self._arrows.incoming[one.id]
        conditions = [self._of(constraint, one) for constraint in incoming]
        if not conditions:
            return Condition((), ALL_SUCCESS)
        if len(conditions) == 1:
            return conditions[0]
        rules = {condition.rule for condition in conditions}
        every = all(constraint.logical_and for constraint in incoming)
        if len(rules) == 1 and (every or all(len(condition.sources) == 1 for condition in conditions)):
            rule = rules.pop()
            return Condition(_once(name for each in conditions for name in each.sources), rule if every else ANY[rule])
        gated = [
            condition
            if condition.rule == ALL_SUCCESS and (every or len(condition.sources) == 1)
            else self._gate(condition)
            for condition in conditions
        ]
        names = _once(name for each in gated for name in each.sources)
        return Condition(names, ALL_SUCCESS if every else ANY[ALL_SUCCESS])

    def _of(self, constraint: PrecedenceConstraint, one: Executable) -> Condition:
        """What one arrow asks for."""
        source = self._source[constraint.before]
        ready = self._ready.get(constraint.before)
        text = constraint.expression or ""

        def ended(rule: str) -> Condition:
            condition = Condition((source,), rule)
            if rule == ALL_SUCCESS or ready is None or constraint.before not in self._arrows.watched:
                return condition
            return Condition((ready, *self._gate(condition).sources), ALL_SUCCESS)

        by_value = ended(RULES[constraint.value])
        if constraint.eval_op is EvalOp.CONSTRAINT or not text.strip():
            return by_value
        if constraint.eval_op is EvalOp.EXPRESSION_AND_CONSTRAINT:
            return self._only_if(one, text, text, "if", by_value)
        holds = self._only_if(one, text, text, "if", ended("all_done"))
        if constraint.eval_op is EvalOp.EXPRESSION:
            return holds
        either = Condition((*self._gate(by_value).sources, *holds.sources), ANY[ALL_SUCCESS])
        return self._gate(either)

    def _gate(self, condition: Condition) -> Condition:
        """An empty task that stands for a condition."""
        key = (condition.sources, condition.rule)
        if key not in self._gates:
            words = {"all_failed": "failed", "all_done": "done", "all_success": "done_well", "one_success": "either"}
            name = f"{self._id_of[condition.sources[-1]]}_{words.get(condition.rule, 'gate')}"
            self._gates[key] = self._empty(name, condition, "").sources[0]
        return Condition((self._gates[key],), ALL_SUCCESS)

    def _empty(self, name: str, condition: Condition, comment: str) -> Condition:
        task_id = self._ids.give(name)
        rule = [] if condition.rule == ALL_SUCCESS else [Argument(name="trigger_rule", value=condition.rule)]
        call = self._flow.task("EmptyOperator", task_id, task_id, rule)
        return self._placed(task_id, call, condition, comment)

    def _only_if(self, one: Executable, text: str, original: str, word: str, condition: Condition) -> Condition:
        shared = self._flow.shared
        where = "\\".join(one.path)
        original = shown(original)
        comments: tuple[str, ...] = (f"SSIS: {original}",)
        try:
            with shared.names.params.given_up_whole():
                tree = without_account(shared.names.inlined(parse(text), self._scope))
                template = condition_to_jinja(tree, shared.names.resolver(self._scope, TemplateContext.TASK))
        except (ExpressionError, NotTranslatable) as error:
            template = "complete_me.condition"
            comments = (*comments, clean(str(error)))
            shared.findings.decision(
                "condition-to-complete",
                where,
                f"The condition {original} cannot be said as a template: {reason(error)}",
                "Write it in the DAG; until then the task that stands for it fails.",
            )
        else:
            shared.findings.decision(
                "condition-on-variables",
                where,
                f"Whether {one.name!r} runs depends on the expression {original}. The DAG asks the same of its "
                "params, which hold the design-time values until something else sets them.",
                "Put what the tasks of the package compute (an XCom, say) in the place of the params.",
            )
        if "ssis." in template:
            shared.macros.add("ssis")
        arguments = [Argument(name="condition", value=f"{{{{ {template} }}}}", comments=comments)]
        if condition.rule != ALL_SUCCESS:
            arguments.insert(0, Argument(name="trigger_rule", value=condition.rule))
        task_id = self._ids.give(f"{self._task_ids[one.id]}_{word}")
        call = self._flow.task("OnlyIfOperator", task_id, task_id, arguments)
        return self._placed(task_id, call, condition, "")

    def _placed(self, task_id: str, call: Call, condition: Condition, comment: str) -> Condition:
        name = self._flow.unique.give(variable(task_id))
        self._id_of[name] = task_id
        self.nodes.append(Node(name=name, call=call, comment=comment, before=list(condition.sources)))
        return Condition((name,), ALL_SUCCESS)


def _once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def shown_name(name: str) -> str:
    """A name as Airflow shows it."""
    return clean(name)
