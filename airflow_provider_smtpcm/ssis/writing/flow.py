"""The control flow of a package as a whole: the id of each task, the order of the executables, and what loops become.

It is computed before the first task is written, because a task that reads a variable names the tasks that set it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from airflow_provider_smtpcm.ssis.expressions import quote_string
from airflow_provider_smtpcm.ssis.model import (
    ConstraintValue,
    Container,
    ContainerKind,
    EvalOp,
    EventHandler,
    Executable,
    ForeachLoop,
    Package,
    PrecedenceConstraint,
    SendMailTask,
    SqlTask,
    Variable,
    walk_executables,
)
from airflow_provider_smtpcm.ssis.writing.python_source import UniqueNames, slug
from airflow_provider_smtpcm.ssis.writing.secrets import name_for_id

# Who sets a MaximumErrorCount such as 9999 wants the container never to fail.
_NEVER_REACHED = 100


def find_incoming(
    constraints: Iterable[PrecedenceConstraint], ids: Collection[str]
) -> dict[str, list[PrecedenceConstraint]]:
    """Return the constraints between executables with these ids, by the id of the constrained one."""
    incoming: dict[str, list[PrecedenceConstraint]] = {key: [] for key in ids}
    for constraint in constraints:
        before, after = constraint.before, constraint.after
        if before in incoming and after in incoming and before != after:
            incoming[after].append(constraint)
    return incoming


def find_upstream(incoming: Mapping[str, Sequence[PrecedenceConstraint]], key: str) -> set[str]:
    """Return the ids of all executables that precede another one of their container, directly or indirectly.

    Args:
        incoming: the constraints on each executable, by its id.
        key: the id of the other one.
    """
    found: set[str] = set()
    pending = [key]
    while pending:
        for constraint in incoming.get(pending.pop(), ()):
            if constraint.before not in found:
                found.add(constraint.before)
                pending.append(constraint.before)
    return found


def find_fork(chain: Sequence[str], other: Sequence[str]) -> int | None:
    """Return the index at which two chains of containers part; None if one contains the other."""
    return next((index for index, pair in enumerate(zip(chain, other, strict=False)) if pair[0] != pair[1]), None)


def sends_mail(executable: Executable) -> bool:
    """Whether an executable is or contains a Send Mail task that is not disabled, also in event handlers."""
    if executable.disabled:
        return False
    if isinstance(executable, SendMailTask) or any(map(handler_sends_mail, executable.event_handlers)):
        return True
    return isinstance(executable, Container) and any(map(sends_mail, executable.executables))


def handler_sends_mail(handler: EventHandler) -> bool:
    """Whether an event handler contains a Send Mail task that is not disabled, except in handlers of its own."""
    return any(isinstance(each, SendMailTask) and not each.disabled for each in walk_executables(handler.executables))


def get_forced_result(executable: Executable) -> str:
    """Return the result that an executable always has; empty if the result depends on its work.

    A container with a MaximumErrorCount above 1 counts as successful until it has so many errors. The result may still
    depend on its work if `is_limit_within_reach`.
    """
    if executable.force_result:
        return executable.force_result
    # SSIS counts the errors of everything in a container. A task that fails does so at any count.
    return "success" if isinstance(executable, Container) and executable.maximum_errors != 1 else ""


def is_limit_within_reach(executable: Executable) -> bool:
    """Whether a container succeeds after some failures, and fails after more of them.

    One task that fails may raise several errors, so their number is not known before a run.
    """
    is_forced = executable.force_result or not isinstance(executable, Container)
    return not is_forced and 1 < executable.maximum_errors < _NEVER_REACHED


def succeeds_despite_failures(container: Container) -> bool:
    """Whether an executable in a container may fail while what follows its success still runs."""
    return any(
        get_forced_result(child) or (isinstance(child, Container) and succeeds_despite_failures(child))
        for child in container.executables
        if not child.disabled
    )


def can_skip_inside(container: Container) -> bool:
    """Whether an executable in a container may be skipped while the container succeeds."""
    if any(
        constraint.value is not ConstraintValue.SUCCESS
        or constraint.eval_op is not EvalOp.CONSTRAINT
        or not constraint.logical_and
        for constraint in container.constraints
    ):
        return True
    return any(
        "Disable" in child.expressions or (isinstance(child, Container) and can_skip_inside(child))
        for child in container.executables
    )


def select_included(container: Container) -> dict[str, Executable]:
    """Return the executables of a container that are in the DAG, by id: a disabled one only if another follows it."""
    followed = {constraint.before for constraint in container.constraints}
    return {child.id: child for child in container.executables if not child.disabled or child.id in followed}


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedLoop:
    """A loop with known iterations.

    Args:
        loop: the container.
        mail: its only executable, if it becomes a mail merge; None for a mapped task group.
        query: the Execute SQL task with the rows; None if there is none.
        files: the enumerator of files; None if there is none.
        columns: the number of the column, from 0, for each field of a row, if there is a query.
        rows: the values of each iteration by field, if neither a query nor an enumerator yields them.
        fields: the field of each variable that the loop sets.
        next_fields: the field with the value that the end of an iteration gives to each counter that something besides
            the loop may read.
    """

    loop: Container
    mail: SendMailTask | None
    query: SqlTask | None = None
    files: ForeachLoop | None = None
    columns: Mapping[str, int] = field(default_factory=dict)
    rows: tuple[Mapping[str, object], ...] = ()
    fields: tuple[tuple[Variable, str], ...] = ()
    next_fields: tuple[tuple[Variable, str], ...] = ()

    @property
    def yields_paths(self) -> bool:
        """Whether it gives its variable the whole path of a file."""
        return self.files is not None and self.files.file_name_retrieval == 0

    def find_field(self, variable: Variable) -> str | None:
        """Return the field of a row with the value of a variable; None if the loop does not set it."""
        return next((name for known, name in self.fields if known == variable), None)


def find_queries(loops: Mapping[str, MappedLoop]) -> dict[str, dict[str, int]]:
    """Return the columns that loops need of each Execute SQL task, by the task's id and the field of a row."""
    found: dict[str, dict[str, int]] = {}
    for mapped in loops.values():
        if mapped.query is not None:
            found.setdefault(mapped.query.id, {}).update(mapped.columns)
    return found


def row_field(name: str) -> str:
    """Return the Jinja expression for a field of the row of a merge."""
    return f"row.{name}" if name.isascii() and name.isidentifier() else f"row[{quote_string(name)}]"


# What must happen before an executable runs: pairs of the id of another one and its result; None if an expression
# decides instead.
_Needs = frozenset[tuple[str, ConstraintValue | None]]


class Flow:
    """The control flow of one package.

    Args:
        package: the package.
        merges: the ids of the loops that become a single task, a mail merge.

    Attributes:
        local_ids: the id of each task or group within its own group, by the id of the executable.
        task_ids: the same with the ids of the groups around it, as XCom has it.
        free_ids: allocates further ids in a container, by the id of the container.
    """

    def __init__(self, package: Package, merges: Collection[str] = ()) -> None:
        self._merges = merges
        self.local_ids: dict[str, str] = {}
        self.task_ids: dict[str, str] = {}
        self.free_ids: dict[str, UniqueNames] = {}
        # The ids of the containers around each executable, from the outside, and its own.
        self._chains: dict[str, tuple[str, ...]] = {}
        self._executables: dict[str, Executable] = {}
        # The constraints on each executable, by its id.
        self._incoming: dict[str, list[PrecedenceConstraint]] = {}
        self._upstream: dict[str, set[str]] = {}
        self._needs: dict[str, _Needs] = {}
        # The ids of the first and the last tasks of mapped task groups, by the id of the loop.
        self._row_tasks: dict[str, str] = {}
        self._end_tasks: dict[str, str] = {}
        self._assign(package.root, "", (package.root.id,))

    def is_group(self, executable: Executable) -> bool:
        """Whether an executable becomes a task group; any other one becomes a single task.

        A loop without mail becomes a single task, since its iterations are not known before a run; so does a loop that
        becomes a mail merge.
        """
        if not isinstance(executable, Container) or executable.disabled or not executable.executables:
            return False
        if executable.kind in {ContainerKind.SEQUENCE, ContainerKind.PACKAGE}:
            return True
        return executable.id not in self._merges and sends_mail(executable)

    def row_task(self, loop: Container) -> str:
        """Return the id, in its group, of the task that sets the variables of a loop in each iteration."""
        if loop.id not in self._row_tasks:
            self._row_tasks[loop.id] = self.free_ids[loop.id].allocate("row")
        return self._row_tasks[loop.id]

    def end_task(self, loop: Container) -> str:
        """Return the id, in its group, of the task that ends each iteration of a loop."""
        if loop.id not in self._end_tasks:
            self._end_tasks[loop.id] = self.free_ids[loop.id].allocate("iteration_end")
        return self._end_tasks[loop.id]

    def _assign(self, container: Container, prefix: str, chain: tuple[str, ...]) -> None:
        names = self.free_ids[container.id] = UniqueNames()
        for key, child in select_included(container).items():
            self.local_ids[key] = names.allocate(slug(name_for_id(child.name), "task"))
            self._enter(child, f"{prefix}{self.local_ids[key]}", (*chain, key))
        for constraint in container.constraints:
            self._incoming.setdefault(constraint.after, []).append(constraint)

    def _enter(self, executable: Executable, task_id: str, chain: tuple[str, ...]) -> None:
        self.task_ids[executable.id], self._chains[executable.id] = task_id, chain
        self._executables[executable.id] = executable
        if isinstance(executable, Container) and self.is_group(executable):
            self._assign(executable, f"{task_id}.", chain)
        elif isinstance(executable, Container):
            # The executables inside have no tasks of their own; the task of the container replaces them.
            for child in executable.executables:
                if not child.disabled:
                    self._enter(child, task_id, (*chain, child.id))

    def contains(self, outer: str, inner: str) -> bool:
        """Whether the executable with the first id is, or contains, the one with the second id."""
        return outer in self._chains.get(inner, ())

    def may_follow(self, after: str, before: str) -> bool | None:
        """Whether an executable runs after another one if both run.

        Returns:
            True: always after it. False: always before it, or one of them is not in the control flow. None: the package
            does not say, or one contains the other.
        """
        left, right = self._chains.get(after, ()), self._chains.get(before, ())
        if not left or not right:
            return False
        level = find_fork(left, right)
        if level is None:
            return None
        if right[level] in self._find_upstream(left[level]):
            return True
        return False if left[level] in self._find_upstream(right[level]) else None

    def requires(self, after: str, before: str) -> bool:
        """Whether an executable never runs unless another one has run before it."""
        left, right = self._chains.get(after, ()), self._chains.get(before, ())
        level = find_fork(left, right)
        if level is None:
            return False
        for key in right[level:]:
            executable = self._executables[key]
            if "Disable" in executable.expressions:
                return False
            if isinstance(executable, Container) and key != before and can_skip_inside(executable):
                return False
        return self._depends(left[level], right[level], {})

    def _depends(self, key: str, target: str, known: dict[str, bool]) -> bool:
        """Whether, in one container, an executable runs only if the target has run."""
        if key not in known:
            known[key] = False  # in a cycle
            incoming = [one for one in self._incoming.get(key, ()) if one.before in self._chains]
            found = [one.before == target or self._depends(one.before, target, known) for one in incoming]
            all_of = all(one.logical_and for one in incoming)
            known[key] = any(found) if all_of else all(found)
        return known[key]

    def may_run_together(self, one: str, other: str) -> bool:
        """Whether the constraints allow two executables to run in the same run of the package, in either order.

        False also if one of them depends on an expression, which may decide that only one of them runs.
        """
        left, right = self._chains.get(one, ()), self._chains.get(other, ())
        level = find_fork(left, right)
        if level is None or self.may_follow(one, other) is not None:
            return False
        values: dict[str, set[ConstraintValue | None]] = {}
        for before, value in self._find_needs(left[level]) | self._find_needs(right[level]):
            values.setdefault(before, set()).add(value)
        return not any(
            {ConstraintValue.SUCCESS, ConstraintValue.FAILURE} <= found or None in found for found in values.values()
        )

    def _find_needs(self, key: str) -> _Needs:
        """Return which executables need to have which results before an executable runs."""
        if key not in self._needs:
            self._needs[key] = frozenset()  # for a cycle
            incoming = self._incoming.get(key, [])
            needs = [
                self._find_needs(each.before)
                | {(each.before, each.value if each.eval_op is EvalOp.CONSTRAINT else None)}
                for each in incoming
            ]
            if needs:
                all_of = all(constraint.logical_and for constraint in incoming)
                self._needs[key] = frozenset.union(*needs) if all_of else frozenset.intersection(*needs)
        return self._needs[key]

    def sort(self, ids: list[str]) -> list[str]:
        """Return the ids of executables in an order in which they may run; the given one where there is a choice."""
        done: list[str] = []
        for key in ids:
            index = next((place for place, other in enumerate(done) if self.may_follow(other, key) is True), len(done))
            done.insert(index, key)
        return done

    def _find_upstream(self, key: str) -> set[str]:
        if key not in self._upstream:
            self._upstream[key] = find_upstream(self._incoming, key)
        return self._upstream[key]
