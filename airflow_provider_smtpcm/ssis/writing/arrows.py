"""Precedence constraints as trigger rules, and the empty tasks that it takes where one rule cannot say it.

Airflow counts a task that could not run, because something before it failed, as failed: `all_failed` and `all_done`
hold for it. SSIS does not: what never ran has neither failed nor completed. So where that makes a difference, an empty
task stands before the one that is watched, and what watches it needs that too.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from airflow_provider_smtpcm.ssis.package import ConstraintValue, Container, EvalOp, Executable, PrecedenceConstraint
from airflow_provider_smtpcm.ssis.writing.source import Call

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
