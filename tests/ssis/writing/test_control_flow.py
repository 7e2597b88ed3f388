"""For any control flow and any failures: what runs in Airflow is what runs in SSIS.

Both are simulated by their rules, fast enough for many flows; `test_round_trip` runs some in Airflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_smtpcm.ssis.findings import Findings, Severity
from airflow_provider_smtpcm.ssis.model import ConstraintValue, Container, Executable, Package, PrecedenceConstraint
from airflow_provider_smtpcm.ssis.windows_paths import PathMap
from airflow_provider_smtpcm.ssis.writing.control_flow import ControlFlowWriter
from airflow_provider_smtpcm.ssis.writing.conversion import WritingContext
from airflow_provider_smtpcm.ssis.writing.event_handlers import Callbacks, EventHandlerWriter
from airflow_provider_smtpcm.ssis.writing.precedence import DagNode
from airflow_provider_smtpcm.ssis.writing.python_source import UniqueNames
from airflow_provider_smtpcm.ssis.writing.symbols import SymbolTable
from tests.ssis.writing.building import constraint, mail, other_task, package, written

SUCCESS, FAILED, SKIPPED, UPSTREAM_FAILED = "success", "failed", "skipped", "upstream_failed"


@st.composite
def flows(
    draw: st.DrawFn, path: tuple[str, ...] = ("Package",), depth: int = 2
) -> tuple[tuple[Executable, ...], tuple[PrecedenceConstraint, ...]]:
    """Draw tasks and containers, with constraints that lead forward."""
    count = draw(st.integers(1, 5 if depth == 2 else 3))
    executables: list[Executable] = []
    for number in range(count):
        name = f"{'abc'[2 - depth]}{number}"
        if depth and draw(st.integers(0, 3)) == 0:
            inner = draw(flows((*path, name), depth - 1))
            key = "/".join((*path, name))
            box = Container(
                name=name,
                id=key,
                path=(*path, name),
                executables=inner[0],
                constraints=inner[1],
                maximum_errors=draw(st.sampled_from([1, 1, 1, 0, 2, 1000])),
            )
            executables.append(box)
        else:
            disabled = draw(st.integers(0, 9)) == 0
            forced = "" if disabled else draw(st.sampled_from(["", "", "", "success", "failure"]))
            because = name if disabled else None
            executables.append(mail(name, path, disabled=disabled, disabled_because=because, force_result=forced))
    constraints = []
    for after in range(1, count):
        logical_and = draw(st.booleans())
        for before in range(after):
            if draw(st.booleans()):
                value = draw(st.sampled_from(ConstraintValue))
                one = constraint(executables[before], executables[after], value=value, logical_and=logical_and)
                constraints.append(one)
    return tuple(executables), tuple(constraints)


def run_in_ssis(
    executables: Sequence[Executable], constraints: Sequence[PrecedenceConstraint], fails: set[str], ran: set[str]
) -> int:
    """Simulate a container by SSIS's rules; return the number of errors in it. Mails that are sent are added to `ran`.

    A result that is forced does not take back the errors, which count in all containers around.
    """
    succeeded: dict[str, bool] = {}
    errors = 0
    for one in executables:
        incoming = [each for each in constraints if each.after == one.id]
        holds = [
            each.before in succeeded
            and (
                each.value is ConstraintValue.COMPLETION
                or succeeded[each.before] is (each.value is ConstraintValue.SUCCESS)
            )
            for each in incoming
        ]
        if incoming and not (all(holds) if incoming[0].logical_and else any(holds)):
            continue
        if isinstance(one, Container):
            inside = run_in_ssis(one.executables, one.constraints, fails, ran)
            succeeded[one.id] = one.maximum_errors == 0 or inside < one.maximum_errors
            errors += inside
        elif one.disabled:
            succeeded[one.id] = True
        else:
            ran.add("/".join(one.path))
            done = "/".join(one.path) not in fails
            succeeded[one.id] = one.force_result == "success" if one.force_result else done
            errors += not done
    return errors


def run_in_airflow(nodes: Sequence[DagNode], fails: set[str]) -> set[str]:
    """Simulate the nodes by Airflow's trigger rules; return the ids of the mails that ran.

    All conditions are taken to be false.
    """
    tasks: dict[str, tuple[str, DagNode]] = {}
    groups: dict[str, DagNode] = {}
    before: dict[str, set[str]] = {}
    _flatten(nodes, "", tasks, groups)
    for _, node in tasks.values():
        before[node.variable] = {name for each in node.upstream for name in _leaves(each, groups)}
    for group in groups.values():
        inside = set(_names(group))
        upstream = {name for each in group.upstream for name in _leaves(each, groups)}
        for name in inside:
            if not before[name] & inside:
                before[name] |= upstream
    states: dict[str, str] = {}
    while len(states) < len(tasks):
        for name, (path, node) in tasks.items():
            if name not in states and before[name] <= states.keys():
                rule = next(
                    (str(each.value) for each in _arguments(node) if each.name == "trigger_rule"), "all_success"
                )
                state = _state(rule, [states[each] for each in before[name]])
                if state == SUCCESS and node.call is not None and node.call.name == "OnlyIfOperator":
                    state = SKIPPED
                states[name] = FAILED if state == SUCCESS and path in fails else state
    return {
        path
        for name, (path, node) in tasks.items()
        if states[name] in {SUCCESS, FAILED} and node.call is not None and node.call.name == "SendMailOperator"
    }


def _arguments(node: DagNode) -> Sequence[object]:
    return () if node.call is None else node.call.arguments


def _flatten(
    nodes: Sequence[DagNode], path: str, tasks: dict[str, tuple[str, DagNode]], groups: dict[str, DagNode]
) -> None:
    for node in nodes:
        if node.call is None:
            continue
        own = f"{path}/{node.call.arguments[0].value}"
        if node.children is None:
            tasks[node.variable] = own, node
        else:
            groups[node.variable] = node
            _flatten(node.children, own, tasks, groups)


def _names(group: DagNode) -> list[str]:
    return [
        name
        for node in group.children or ()
        if node.call is not None
        for name in (_names(node) if node.children is not None else [node.variable])
    ]


def _leaves(name: str, groups: Mapping[str, DagNode]) -> list[str]:
    if name not in groups:
        return [name]
    names = _names(groups[name])
    followed: set[str] = set()

    def follow(nodes: Sequence[DagNode]) -> None:
        for node in nodes:
            followed.update(leaf for each in node.upstream for leaf in _leaves(each, groups))
            follow(node.children or ())

    follow(groups[name].children or ())
    return [each for each in names if each not in followed]


def _state(rule: str, found: Sequence[str]) -> str:  # noqa: PLR0911 - one for each rule
    failed = sum(one in {FAILED, UPSTREAM_FAILED} for one in found)
    succeeded, skipped = found.count(SUCCESS), found.count(SKIPPED)
    if not found:
        return SUCCESS
    match rule:
        case "all_success":
            return UPSTREAM_FAILED if failed else SKIPPED if skipped else SUCCESS
        case "all_failed":
            return SKIPPED if succeeded or skipped else SUCCESS
        case "all_done":
            return SUCCESS
        case "one_success":
            return SUCCESS if succeeded else SKIPPED if skipped == len(found) else UPSTREAM_FAILED
        case "one_failed":
            return SUCCESS if failed else SKIPPED
        case "one_done":
            return SUCCESS if succeeded or found.count(FAILED) else SKIPPED
        case "none_failed":
            return UPSTREAM_FAILED if failed else SUCCESS
        case "none_failed_min_one_success":
            return UPSTREAM_FAILED if failed else SKIPPED if skipped == len(found) else SUCCESS
    raise AssertionError(rule)


@settings(max_examples=400, deadline=None)
@given(flows(), st.data())
def test_what_runs_in_airflow_is_what_runs_in_ssis(
    flow: tuple[tuple[Executable, ...], tuple[PrecedenceConstraint, ...]], data: st.DataObject
) -> None:
    """Every mail, whichever of them fail."""
    executables, constraints = flow
    content = package(*executables, constraints=constraints)
    nodes, findings = convert(content)
    enabled = sorted("/".join(one.path) for one in content.send_mail_tasks if not one.disabled)
    fails = data.draw(st.sets(st.sampled_from(enabled))) if enabled else set()
    if any(finding.severity is Severity.DECISION for finding in findings.all()):
        return  # reported: a result is forced, and the constraint requires another one
    ran: set[str] = set()
    run_in_ssis(executables, constraints, fails, ran)
    assert run_in_airflow(nodes, {one.removeprefix("Package") for one in fails}) == {
        one.removeprefix("Package") for one in ran
    }


@settings(max_examples=100, deadline=None)
@given(flows())
def test_a_package_that_an_expression_disables_sends_no_mail(
    flow: tuple[tuple[Executable, ...], tuple[PrecedenceConstraint, ...]],
) -> None:
    """Whatever follows a completion or a failure."""
    executables, constraints = flow
    content = package(*executables, constraints=constraints)
    content = replace(content, root=replace(content.root, expressions={"Disable": "@[System::InteractiveMode]"}))
    nodes, _ = convert(content)
    assert run_in_airflow(nodes, set()) == set()


def convert(content: Package) -> tuple[list[DagNode], Findings]:
    """Return the nodes of a package, and the findings."""
    findings = Findings()
    context = WritingContext(
        symbols=SymbolTable(package=content, project=None, findings=findings),
        paths=PathMap(()),
        findings=findings,
        get_conn_id=lambda connection: connection.name,
    )
    unique = UniqueNames.for_variables()
    writer = ControlFlowWriter(context, unique, EventHandlerWriter(context, unique))
    return writer.convert(content.root, {}, Callbacks(), may_be_skipped=False), findings


def box(name: str, *inside: Executable, **more: Any) -> Container:
    """Return a Sequence container."""
    return Container(name=name, id=f"{{{name}}}", path=("Package", name), executables=inside, **more)


@pytest.mark.parametrize(
    ("more", "value", "rule", "severity"),
    [
        ({"force_result": "success"}, ConstraintValue.SUCCESS, "all_done", Severity.NOTE),
        ({"maximum_errors": 0}, ConstraintValue.SUCCESS, "all_done", Severity.NOTE),
        ({"force_result": "failure"}, ConstraintValue.FAILURE, "all_done", Severity.NOTE),
        ({"force_result": "success"}, ConstraintValue.FAILURE, "all_failed", Severity.DECISION),
        ({"force_result": "failure"}, ConstraintValue.SUCCESS, None, Severity.DECISION),
        ({"maximum_errors": 10_000}, ConstraintValue.SUCCESS, "all_done", Severity.NOTE),
        ({"maximum_errors": 10_000}, ConstraintValue.FAILURE, "all_failed", Severity.DECISION),
        ({"maximum_errors": 5}, ConstraintValue.SUCCESS, "all_done", Severity.DECISION),
        ({"maximum_errors": 5}, ConstraintValue.FAILURE, "all_failed", Severity.DECISION),
        ({"maximum_errors": 5}, ConstraintValue.COMPLETION, "all_done", None),
        ({}, ConstraintValue.SUCCESS, None, None),
    ],
)
def test_a_forced_result_is_honored_or_reported(
    more: dict[str, Any], value: ConstraintValue, rule: str | None, severity: Severity | None
) -> None:
    """SSIS counts the container as its property says, whatever the results of its tasks."""
    before = box("Load", other_task("work", ("Package", "Load")), **more)
    after = mail("after")
    module = written(before, after, constraints=[constraint(before, after, value=value)])
    found = [each.severity for each in module.findings if each.code == "forced-result"]
    assert found == ([] if severity is None else [severity])
    mail_call = module.source.partition("SendMailOperator(")[2].partition(")")[0]
    assert (f'trigger_rule="{rule}"' in mail_call) is (rule is not None)


def test_an_error_in_a_container_that_cannot_fail_counts_for_the_containers_around_it() -> None:
    """So the outer container fails, without a question."""
    inner = Container(
        name="Inner",
        id="{Inner}",
        path=("Package", "Load", "Inner"),
        executables=(other_task("work", ("Package", "Load", "Inner")),),
        maximum_errors=0,
    )
    last = other_task("last", ("Package", "Load"))
    outer, after = box("Load", inner, last, constraints=(constraint(inner, last),)), mail("after")
    module = written(outer, after, constraints=[constraint(outer, after)])
    assert {one.severity for one in module.findings if one.code == "forced-result"} == {Severity.NOTE}
    assert 'task_id="load_end"' in module.source
    assert "load_end >> after" in module.source
