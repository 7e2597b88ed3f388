"""When SSIS sends the mails of an event handler: by its precedence constraints and `Disable` expressions.

The DAG runs no task of an event handler but its mails. So each of the others is taken to succeed: a mail that follows
its success is sent, one that follows only its failure never.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from airflow_provider_smtpcm.ssis.expressions import NotTranslatable
from airflow_provider_smtpcm.ssis.model import (
    ConstraintValue,
    Container,
    ContainerKind,
    EvalOp,
    EventHandler,
    Executable,
    PrecedenceConstraint,
    SendMailTask,
    walk_executables,
)
from airflow_provider_smtpcm.ssis.writing.conditions import Condition, Test, combine, make_test
from airflow_provider_smtpcm.ssis.writing.flow import find_incoming
from airflow_provider_smtpcm.ssis.writing.handler_values import HandlerValues
from airflow_provider_smtpcm.ssis.writing.symbols import Scope, SymbolTable, open_scope

_LOOPS = {ContainerKind.FOR_LOOP, ContainerKind.FOREACH_LOOP}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """When an executable of an event handler runs, as far as the DAG can know.

    Args:
        condition: its condition, if no task of the handler fails.
        assumed: the tasks that must not fail, by path.
        lost: the tasks whose failure would make it run as well, by path.
        forced: the executables with a result that SSIS forces, and that makes their container fail or not, by path.
    """

    condition: Condition = True
    assumed: Mapping[tuple[str, ...], Executable] = field(default_factory=dict)
    lost: Mapping[tuple[str, ...], Executable] = field(default_factory=dict)
    forced: Mapping[tuple[str, ...], Executable] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerMail:
    """A Send Mail task in an event handler.

    Args:
        scope: its variables, and those around it; what tasks before it set is defined by an expression.
        values: what is known of those.
        run: when SSIS sends it.
        loops: the loops around it.
        error: why its condition cannot be computed.
    """

    task: SendMailTask
    scope: Scope
    run: Run
    values: HandlerValues
    loops: tuple[Container, ...] = ()
    error: NotTranslatable | None = None


def find_handler_mails(handler: EventHandler, scope: Scope, symbols: SymbolTable) -> list[HandlerMail]:
    """Return the Send Mail tasks of an event handler in the order in which SSIS runs them, including disabled ones.

    Args:
        scope: the handler's own variables, and those around it.
        symbols: resolves the names in expressions.
    """
    disable = handler.expressions.get("Disable")
    run = Run(condition=_disable_test(disable, scope, symbols)) if disable and not handler.disabled else Run()
    values = HandlerValues(handler, symbols)
    return list(_Flow(handler, run, scope=scope, symbols=symbols, loops=(), values=values).find_mails())


def find_other_tasks(executables: Iterable[Executable]) -> Iterator[Executable]:
    """Yield the enabled tasks among these executables, and inside them, that are not Send Mail tasks."""
    for executable in walk_executables(executables):
        if not executable.disabled and not isinstance(executable, Container | SendMailTask):
            yield executable


class _Flow:
    """The executables of an event handler, or of a container in it.

    Args:
        container: the handler or the container.
        entered: when the executables without precedence constraints run.
        loops: the loops around them.
        values: the variables at each point of the event handler.
    """

    def __init__(
        self,
        container: EventHandler | Container,
        entered: Run,
        *,
        scope: Scope,
        symbols: SymbolTable,
        loops: tuple[Container, ...],
        values: HandlerValues,
    ) -> None:
        self._container, self._entered, self._loops = container, entered, loops
        self._scope, self._symbols, self._values = scope, symbols, values
        self._members = {executable.id: executable for executable in container.executables}
        self._incoming = find_incoming(container.constraints, self._members)
        # None while it is computed: SSIS allows no cycle, but a file may contain one.
        self._runs: dict[str, Run | NotTranslatable | None] = {}

    def find_mails(self) -> Iterator[HandlerMail]:
        for key in self._members:
            self._find_run(key)
        for key, run in self._runs.items():  # each after its predecessors
            yield from self._find_mails_in(self._members[key], run)

    def _find_mails_in(self, executable: Executable, run: Run | NotTranslatable | None) -> Iterator[HandlerMail]:
        declared = open_scope(executable.variables, self._scope)
        scope = self._values.before(executable, declared)
        error = run if isinstance(run, NotTranslatable) else None
        run = run if isinstance(run, Run) else Run()
        if (disable := executable.expressions.get("Disable")) and not executable.disabled and error is None:
            test = _disable_test(disable, scope, self._symbols, executable.name)
            try:
                run = replace(run, condition=combine("and", [run.condition, test]))
            except NotTranslatable as too_large:
                error = too_large
        if isinstance(executable, SendMailTask):
            yield HandlerMail(
                task=executable, scope=scope, run=run, values=self._values, loops=self._loops, error=error
            )
        elif isinstance(executable, Container):
            loops = (*self._loops, executable) if executable.kind in _LOOPS else self._loops
            flow = _Flow(
                executable,
                run,
                scope=declared,
                symbols=self._symbols,
                loops=loops,
                values=self._values,
            )
            for mail in flow.find_mails():
                yield replace(mail, error=error or mail.error)

    def _find_run(self, key: str) -> Run | NotTranslatable | None:
        if key in self._runs:
            return self._runs[key]
        self._runs[key] = None
        try:
            found: Run | NotTranslatable = self._make_run(key)
        except NotTranslatable as error:
            found = error
        del self._runs[key]  # so that the order is that of the ends
        self._runs[key] = found
        return found

    def _make_run(self, key: str) -> Run:
        runs = []
        for constraint in self._incoming[key]:
            before = self._find_run(constraint.before)
            if isinstance(before, NotTranslatable):
                raise before
            if before is not None:
                runs.append(self._follow(constraint, before))
        if not runs:
            return self._entered
        all_of = len(runs) == 1 or all(constraint.logical_and for constraint in self._incoming[key])
        condition = combine("and" if all_of else "or", [run.condition for run in runs])
        # Of a conjunction that is never true, only what makes it so counts.
        runs = [run for run in runs if condition is not False or run.condition is False]
        return Run(
            condition=condition,
            assumed={path: task for run in runs for path, task in run.assumed.items()},
            lost={path: task for run in runs for path, task in run.lost.items()},
            forced={path: task for run in runs for path, task in run.forced.items()},
        )

    def _follow(self, constraint: PrecedenceConstraint, before: Run) -> Run:
        """Return when a constraint is satisfied.

        Args:
            before: when the preceding executable runs.
        """
        scope = self._values.after(self._members[constraint.before], self._scope)
        test = make_test(constraint.expression or "", scope, self._symbols)
        if constraint.eval_op is EvalOp.EXPRESSION or (
            constraint.eval_op is EvalOp.EXPRESSION_OR_CONSTRAINT and constraint.value is ConstraintValue.FAILURE
        ):
            run = replace(before, condition=combine("and", [before.condition, test]))
            if constraint.eval_op is EvalOp.EXPRESSION_OR_CONSTRAINT:
                run = replace(run, lost={**run.lost, **_fallible(self._members[constraint.before])})
            return run
        run = self._apply_value(constraint.value, before, self._members[constraint.before])
        if constraint.eval_op is EvalOp.EXPRESSION_AND_CONSTRAINT:
            run = replace(run, condition=combine("and", [run.condition, test]))
        return run

    @staticmethod
    def _apply_value(value: ConstraintValue, before: Run, executable: Executable) -> Run:
        if value is ConstraintValue.COMPLETION:
            return before
        if executable.force_result and not executable.disabled:
            return before if executable.force_result == value else Run(condition=False)
        fallible = _fallible(executable)
        forced = {**before.forced, **_find_forced(executable)}
        if value is ConstraintValue.FAILURE:
            return Run(condition=False, lost={**before.lost, **fallible}, forced=forced)
        return replace(before, assumed={**before.assumed, **fallible}, forced=forced)


def _fallible(executable: Executable) -> dict[tuple[str, ...], Executable]:
    """Return the tasks whose failure makes an executable fail in SSIS, by path."""
    if executable.disabled or executable.force_result == "success":
        return {}
    if not isinstance(executable, Container):
        return {executable.path: executable}
    return {path: task for child in executable.executables for path, task in _fallible(child).items()}


def _find_forced(executable: Executable) -> dict[tuple[str, ...], Executable]:
    """Return the executables in a container whose result SSIS forces, by path."""
    found: dict[tuple[str, ...], Executable] = {}
    for child in executable.executables if isinstance(executable, Container) else ():
        if not child.disabled:
            found |= {child.path: child} if child.force_result else _find_forced(child)
    return found


def _disable_test(expression: str, scope: Scope, symbols: SymbolTable, task_name: str | None = None) -> Test:
    return make_test(f"!({expression})", scope, symbols, task_name)
