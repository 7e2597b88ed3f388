"""For random packages and failures: the alerts of the DAG are the mails of SSIS, or a finding says how they differ."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import pytest

from airflow_provider_smtpcm.ssis.model import (
    ConstraintValue,
    Container,
    ContainerKind,
    EvalOp,
    EventHandler,
    Executable,
    Finding,
    Package,
    PrecedenceConstraint,
    SendMailTask,
    Severity,
)
from airflow_provider_smtpcm.ssis.writing.connections import ConnectionRegistry
from airflow_provider_smtpcm.ssis.writing.conversion import ConversionOptions
from airflow_provider_smtpcm.ssis.writing.dag_module import write_package
from tests.ssis.handler_simulators import Path, Sent, SsisRun, load_dag, run_dag, walk_control_flow
from tests.ssis.writing.building import constraint, mail, other_task, package, variable

_EVENTS = ("OnError", "OnError", "OnError", "OnError", "OnTaskFailed", "OnPostExecute", "OnPreExecute", "OnWarning")
_TESTS = (
    '@[User::Mode] == "a"',
    '@[User::Mode] != "a"',
    "@[User::Rows] > 3",
    "@[User::Rows] < 3 || @[User::Flag]",
    "@[User::Flag]",
    "!@Flag",
    "@[User::Flag] && @[System::SourceName] == @[System::PackageName]",
    "@[System::SourceName] == @[System::PackageName]",
    "@SourceName != @PackageName",
    "(DT_WSTR, 100)@[System::PackageID] == @[System::SourceID]",
    '@[System::SourceName] == "t1"',
    '@[System::SourceName] == "c2" || @[User::Rows] > 3',
    'UPPER(@[System::SourceName]) != "T2"',
    "LEN(@[System::SourceName]) > 2 ? @[User::Flag] : TRUE",
    '@[System::ErrorCode] == "-1071636471"',
    '@[User::Copy] == "t1" || @[User::Rows] > 3',
    '@[User::Copy] != "t2"',
    "1 == 2",
    "TRUE",
)


class Generator:
    """Draws a package.

    Args:
        seed: equal seeds give equal packages. Every other package has only what an alert can do exactly as SSIS does.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - for tests
        self._is_plain = seed % 2 == 1
        self._count = 0
        self.subjects: dict[str, str] = {}

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _pick(self, values: Iterable[object]) -> object:
        return self._random.choice(list(values))

    def package(self) -> Package:
        """Return a package with handlers on every level."""
        variables = [
            variable("Mode", self._random.choice("ab")),
            variable("Rows", self._random.choice("15"), 3),
            variable("Copy", ""),
            variable("Flag", self._random.choice(("True", "False")), 11),
        ]
        executables, constraints = self._flow(("Package",), 2, None)
        drawn = package(
            *executables,
            name="p",
            constraints=constraints,
            variables=variables,
            handlers=self._handlers(("Package",), 0.9),
        )
        root = _pass_on_disabled(drawn.root, None)
        assert isinstance(root, Container)
        return replace(drawn, root=root)

    def _flow(
        self, path: Path, depth: int, handler: str | None
    ) -> tuple[tuple[Executable, ...], tuple[PrecedenceConstraint, ...]]:
        """Return executables and their constraints.

        Args:
            handler: the event of the handler that contains them; None in the control flow.
        """
        count = self._random.randint(1, 4 if depth else 2)
        executables = [self._executable(path, depth, handler, number) for number in range(count)]
        if not (handler is None and self._chance(0.5)) and not any(
            isinstance(one, SendMailTask) for one in executables
        ):
            executables.append(self._mail(path, handler))
        self._random.shuffle(executables)
        constraints = []
        for after in range(1, len(executables)):
            logical_and = self._chance(0.6)
            constraints += [
                self._constraint(before, executables[after], handler, logical_and=logical_and)
                for before in executables[:after]
                if self._chance(0.35)
            ]
        return tuple(executables), tuple(constraints)

    def _executable(self, path: Path, depth: int, handler: str | None, number: int) -> Executable:
        kind = self._random.random()
        if self._is_plain and handler is not None:
            kind = min(kind, 0.6)  # no task but mails and scripts that copy variables
        if kind < 0.3 and depth:
            return self._container(path, depth, handler, number)
        if kind < 0.55 and handler is not None:
            return self._mail(path, handler)
        name = f"t{number}" if handler is None else self._name("log")
        more = self._common((*path, name), handler)
        if handler is None and self._chance(0.15):
            more["sets"] = ("User::Mode",)
        elif handler is not None and self._is_plain:
            more = {"sets": ("User::Copy",), "assignments": (("User::Copy", "@[System::SourceName]"),)}
        elif handler is not None and self._chance(0.06) and not self._is_plain:
            more["sets"] = (self._random.choice(("User::Mode", "System::Propagate", "User::Unused")),)
        return other_task(name, path, **more)

    def _container(self, path: Path, depth: int, handler: str | None, number: int) -> Container:
        name = f"c{number}" if handler is None else self._name("box")
        is_loop = not self._is_plain and self._chance(0.2)
        executables, constraints = self._flow((*path, name), depth - 1, handler)
        return Container(
            name=name,
            id="/".join((*path, name)),
            path=(*path, name),
            kind=ContainerKind.FOREACH_LOOP if is_loop else ContainerKind.SEQUENCE,
            executables=executables,
            constraints=constraints,
            **self._common((*path, name), handler),
        )

    def _common(self, path: Path, handler: str | None, *, may_be_disabled: bool = True) -> dict[str, object]:
        more: dict[str, object] = {"event_handlers": self._handlers(path, 0.25 if handler is None else 0.04)}
        if may_be_disabled and self._chance(0.05):
            more |= {"disabled": True, "disabled_because": "\\".join(path)}
        elif handler is not None and self._chance(0.1):
            more["force_result"] = self._random.choice(("success", "failure"))
        elif handler is not None and self._chance(0.15):
            more["expressions"] = {"Disable": self._test(handler)}
        return more

    def _mail(self, path: Path, handler: str | None) -> SendMailTask:
        name = self._name("mail")
        subject = f"subject of {name}"
        self.subjects[subject] = "\\".join((*path, name))
        more = self._common((*path, name), handler, may_be_disabled=handler is not None)
        if handler is not None and self._chance(0.1):
            more |= {"to_line": "", "cc_line": "boss@corp.example"}
        return mail(name, path, subject=subject, **more)

    def _name(self, word: str) -> str:
        self._count += 1
        return f"{word}{self._count}"

    def _test(self, event: str) -> str:
        is_exact = self._is_plain or event not in {"OnError", "OnTaskFailed"}
        tests = [test for test in _TESTS if not (is_exact and "ErrorCode" in test)]
        return self._random.choice(tests)

    def _constraint(
        self, before: Executable, after: Executable, handler: str | None, *, logical_and: bool
    ) -> PrecedenceConstraint:
        value = self._random.choices(list(ConstraintValue), (6, 2, 2))[0]
        if self._is_plain and handler is not None:
            value = ConstraintValue.COMPLETION
        eval_op = EvalOp.CONSTRAINT if handler is None or self._chance(0.6) else self._random.choice(list(EvalOp))
        expression = None if eval_op is EvalOp.CONSTRAINT else self._test(handler or "")
        return constraint(before, after, value=value, eval_op=eval_op, expression=expression, logical_and=logical_and)

    def _handlers(self, path: Path, probability: float) -> tuple[EventHandler, ...]:
        events: dict[str, None] = {}
        is_nested = any(".EventHandlers[" in name for name in path)
        while self._chance(probability) and len(events) < 3 and not (is_nested and self._is_plain):
            events[self._random.choice(_EVENTS[:5] if self._is_plain else _EVENTS)] = None
            probability /= 2
        return tuple(self._handler(path, event, 0 if is_nested else 1) for event in events)

    def _handler(self, path: Path, event: str, depth: int) -> EventHandler:
        place = (*path[:-1], f"{path[-1]}.EventHandlers[{event}]")
        is_quiet = self._chance(0.15)
        executables, constraints = self._flow(place, depth, event)
        if is_quiet:
            kept = [one for one in executables if not isinstance(one, SendMailTask | Container)]
            executables, constraints = tuple(kept), ()
        more: dict[str, object] = {}
        if self._chance(0.06):
            more |= {"disabled": True, "disabled_because": "\\".join(path)}
        propagate = False if self._chance(0.15) else None
        if self._chance(0.1) and not (self._is_plain and propagate is False):
            more["expressions"] = {"Disable": self._test(event)}
        return EventHandler(
            event_name=event,
            owner=path,
            id="/".join(place),
            executables=executables,
            constraints=constraints,
            propagate=propagate,
            **more,  # type: ignore[arg-type]
        )

    def failures(self, of: Package) -> frozenset[Path]:
        """Return tasks that fail: in the control flow often, in event handlers seldom."""
        in_handlers = self._random.choice((0.0, 0.0, 0.15))
        return frozenset(
            one.path
            for one, handler in of.walk_executables()
            if not isinstance(one, Container) and self._chance(0.3 if handler is None else in_handlers)
        )


def _pass_on_disabled(executable: Executable, because: str | None) -> Executable:
    """Return an executable with everything in it disabled by what is disabled around it, as the reader does."""
    because = because or executable.disabled_because
    more: dict[str, object] = {}
    if isinstance(executable, Container):
        more["executables"] = tuple(_pass_on_disabled(one, because) for one in executable.executables)
    handlers = []
    for handler in executable.event_handlers:
        inner = because or handler.disabled_because
        members = tuple(_pass_on_disabled(one, inner) for one in handler.executables)
        handlers.append(replace(handler, executables=members, disabled=inner is not None, disabled_because=inner))
    return replace(
        executable,
        disabled=because is not None,
        disabled_because=because,
        event_handlers=tuple(handlers),
        **more,  # type: ignore[arg-type]
    )


# Findings at the place of the mail that explain any difference; and a note that explains one if a task in an event
# handler failed.
_DECISIONS = {
    "callback-without-place",
    "condition-in-handler",
    "condition-to-complete",
    "event-without-callback",
    "forced-result",
    "handler-of-handler",
    "handler-task-failure",
    "set-in-event-handler",
}
# Those at the place of something else.
_AROUND = {"loop-runs-once", "propagate-at-run-time"}


@dataclass(slots=True)
class Tally:
    """How many scenarios there were of each kind."""

    scenarios: int = 0
    without_any_finding: int = 0
    without_decision: int = 0
    mails: int = 0
    differences: Counter[str] = field(default_factory=Counter)


def explain(mail_path: str, source: Path, findings: Iterable[Finding], *, has_failed: bool) -> str | None:
    """Return the code of the finding that explains why a mail is not the same; None if there is none.

    Args:
        source: the source of the event.
        has_failed: whether a task in an event handler failed.
    """
    path = "\\".join(source)
    for one in findings:
        if one.severity is Severity.DECISION:
            is_other = " is not called for " in one.text and not one.text.endswith(f" is not called for {path}.")
            if one.code in _DECISIONS and one.where == mail_path and not is_other:
                return one.code
            if one.code == "loop-runs-once" and mail_path.startswith(f"{one.where}\\"):
                return one.code
            owner = one.where.partition(".EventHandlers[")[0]
            if one.code == "propagate-at-run-time" and f"{path}\\".startswith(f"{owner}\\"):
                return one.code
        elif one.code == "handler-task-not-run" and one.where == mail_path and has_failed:
            return f"note {one.code}"
    return None


def run_scenario(seed: int, runs: int, tally: Tally) -> None:
    """Compare several runs of one package."""
    drawn = Generator(seed)
    of = drawn.package()
    options = ConversionOptions()
    module = write_package(of, ConnectionRegistry(options), options)
    dag = load_dag(module) if module.source else None
    explained = [one for one in module.findings if one.code in _DECISIONS | _AROUND | {"handler-task-not-run"}]
    loops = {one.path: _sends_mail(one) for one in walk_control_flow(of.root) if _is_loop(one)}
    in_handlers = {"\\".join(task.path) for task, handler in of.walk_mail_tasks() if handler is not None}
    for _ in range(runs):
        fails = drawn.failures(of)
        in_ssis = SsisRun(of, fails=fails, sets=_VALUES).start()
        in_dag = Counter() if dag is None else run_dag(dag, of, in_ssis, _VALUES, drawn.subjects.__getitem__).sent
        has_failed = any(".EventHandlers[" in name for path in fails for name in path)
        tally.scenarios += 1
        tally.mails += len(in_handlers)
        tally.without_any_finding += not explained
        tally.without_decision += all(one.severity is Severity.NOTE for one in explained)
        for path in in_handlers:
            expected, found = (_of(sent, path, loops) for sent in (in_ssis.sent, in_dag))
            for source in expected.keys() | found.keys():
                if expected.get(source) != found.get(source):
                    code = explain(path, source, module.findings, has_failed=has_failed)
                    assert code is not None, (seed, path, expected, found, fails, module.source)
                    tally.differences[code] += 1


def _of(sent: Sent, mail_path: str, loops: dict[Path, bool]) -> dict[Path, int]:
    """Return how often a mail was sent, by the source of the event.

    In the DAG, a loop without mail is one task, which replaces all in it; a loop with mail runs once.
    """
    found: dict[Path, int] = {}
    for (path, source), count in sent.items():
        if path != mail_path:
            continue
        around = [loop for loop in loops if loop == source[: len(loop)] and loop != source]
        single = next((loop for loop in around if not loops[loop] and "Execute]" not in mail_path), source)
        found[single] = 1 if around else count
    return found


def _is_loop(executable: Executable) -> bool:
    return isinstance(executable, Container) and executable.kind is ContainerKind.FOREACH_LOOP


def _sends_mail(container: Container) -> bool:
    """Whether a container has an enabled mail, also in an event handler of what is in it."""
    return any(
        isinstance(one, SendMailTask) and not one.disabled
        for each in walk_control_flow(container)
        for one in (each, *_members(each.event_handlers))
    )


def _members(handlers: Iterable[EventHandler]) -> Iterator[Executable]:
    for handler in handlers:
        for one in handler.executables:
            yield from walk_control_flow(one)


class _Values(dict[Path, object]):
    """Every task that sets a variable gives it a different value from the one in the package."""

    def get(self, key: Path, default: object = None) -> object:  # noqa: ARG002
        return "set"


_VALUES = _Values()


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_every_difference_from_ssis_has_a_finding(first: int) -> None:
    """Hundreds of scenarios."""
    tally = Tally()
    for seed in range(first, first + 25):
        run_scenario(seed, 4, tally)
    print(tally)  # noqa: T201 - for `pytest -s`
    assert tally.scenarios == 100


@pytest.mark.slow
def test_every_difference_from_ssis_has_a_finding_in_thousands_of_scenarios() -> None:
    """The same, with other packages."""
    tally = Tally()
    for seed in range(1000, 2100):
        run_scenario(seed, 4, tally)
    print(tally)  # noqa: T201 - for `pytest -s`
    assert tally.scenarios == 4400
