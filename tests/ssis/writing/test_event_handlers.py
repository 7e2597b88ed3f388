"""The mails of event handlers: on what condition an alert is sent, for which tasks, and what is reported instead."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_smtpcm.ssis.model import (
    ConstraintValue,
    Container,
    ContainerKind,
    EvalOp,
    EventHandler,
    Executable,
    FileConnection,
    Finding,
    MessageSourceType,
    OtherTask,
    ResultSetType,
    SendMailTask,
    Severity,
    SqlResult,
    SqlTask,
)
from airflow_provider_smtpcm.ssis.writing.conversion import DagModule
from tests.ssis.writing.building import codes, constraint, handler, mail, other_task, variable, written

SUCCESS, FAILURE, COMPLETION = ConstraintValue.SUCCESS, ConstraintValue.FAILURE, ConstraintValue.COMPLETION
BOTH, EITHER, EXPRESSION = EvalOp.EXPRESSION_AND_CONSTRAINT, EvalOp.EXPRESSION_OR_CONSTRAINT, EvalOp.EXPRESSION
PLACE = ("Package.EventHandlers[OnError]",)
ON = [variable("On", "Y"), variable("Also", "False", 11)]


def alert(name: str = "Alert", place: tuple[str, ...] = PLACE, **more: Any) -> SendMailTask:
    """Return a mail in the package's OnError handler."""
    return mail(name, place, **more)


def log(name: str = "Log", place: tuple[str, ...] = PLACE, **more: Any) -> OtherTask:
    """Return another task there."""
    return other_task(name, place, **more)


def box(name: str, *executables: Executable, place: tuple[str, ...] = PLACE, **more: Any) -> Container:
    """Return a container there."""
    return Container(name=name, id=f"{{{name}}}", path=(*place, name), executables=executables, **more)


def with_handler(*executables: Executable, event: str = "OnError", **more: Any) -> DagModule:
    """Return the module of a package with one task and this handler."""
    load = more.pop("load", other_task("Load"))
    variables = more.pop("variables", ON)
    return written(load, variables=variables, handlers=[handler(event, *executables, **more)])


def condition(module: DagModule, name: str = "on_error_alert") -> str | None:
    """Return the alert's `only_if`; None if it has none."""
    source = module.source
    assert f"{name} = SendMailNotifier(" in source, source
    call = source.partition(f"{name} = SendMailNotifier(")[2].partition("\n)")[0]
    lines = call.partition("only_if=")[2]
    if not lines:
        return None
    value = lines.strip().removesuffix(",").strip("()")
    return "".join(json.loads(line.strip()) for line in value.split("\n") if line.strip())


def find(module: DagModule, code: str) -> list[Finding]:
    """Return the findings of a code."""
    return [one for one in module.findings if one.code == code]


def decisions(module: DagModule) -> set[str]:
    """Return the codes of the decisions."""
    return codes([one for one in module.findings if one.severity is Severity.DECISION])


# --- Expressions


def test_an_expression_for_disable_is_the_condition_of_the_alert() -> None:
    """Nothing sets the variable, so there is nothing to decide."""
    module = with_handler(alert(expressions={"Disable": '@[User::On] != "Y"'}))
    assert condition(module) == "{{ not (params['On'] != 'Y') }}"
    (found,) = find(module, "condition-in-handler")
    assert found.severity is Severity.NOTE
    assert decisions(module) == set()
    (record,) = [one for one in module.mails if one.event]
    assert [one.became for one in record.properties if one.property == "Disable"] == [
        "only_if={{ not (params['On'] != 'Y') }}"
    ]


def test_the_conditions_of_containers_and_of_the_handler_count() -> None:
    """Of any depth, with their constraints, directly and indirectly upstream."""
    inner = box("Inner", alert(place=(*PLACE, "Outer", "Inner")), place=(*PLACE, "Outer"))
    first, second = log("First", (*PLACE, "Outer")), log("Second", (*PLACE, "Outer"))
    outer = box(
        "Outer",
        first,
        second,
        inner,
        constraints=(
            constraint(first, second, eval_op=BOTH, expression='@[User::On] == "a"'),
            constraint(second, inner, value=COMPLETION),
        ),
        expressions={"Disable": '@[User::On] == "b"'},
    )
    module = with_handler(outer, expressions={"Disable": '@[User::On] == "c"'})
    code = condition(module)
    assert code is not None
    parts = {"params['On'] == 'a'", "not (params['On'] == 'b')", "not (params['On'] == 'c')"}
    assert set(code.removeprefix("{{ (").removesuffix(") }}").split(") and (")) == parts
    assert decisions(module) == set()


def test_one_of_several_constraints_is_enough_without_logical_and() -> None:
    """With it, all of them are required."""
    tasks = log("a"), log("b")
    for logical_and, word in ((False, "or"), (True, "and")):
        mail_ = alert()
        arrows = [
            constraint(
                task, mail_, eval_op=EXPRESSION, expression=f'@[User::On] == "{task.name}"', logical_and=logical_and
            )
            for task in tasks
        ]
        module = with_handler(*tasks, mail_, constraints=tuple(arrows))
        assert condition(module) == f"{{{{ (params['On'] == 'a') {word} (params['On'] == 'b') }}}}"


def test_a_condition_that_cannot_be_translated_sends_the_alert_until_it_is_written() -> None:
    """The original stands above it."""
    module = with_handler(alert(expressions={"Disable": "@[User::Gone]"}))
    assert condition(module) == "{{ complete_me.only_if }}"
    assert "# SSIS: !(@[User::Gone])" in module.source
    assert decisions(module) == {"condition-to-complete"}


def test_a_variable_that_a_task_of_the_control_flow_sets_is_read_from_it() -> None:
    """By the alert, whenever its event occurs."""
    mail_ = alert(expressions={"Disable": '@[User::On] == "Y"'})
    module = with_handler(mail_, load=other_task("Load", sets=("User::On",)))
    assert decisions(module) == set()
    assert "ssis.variable(ti, 'User::On', ['load'], " in str(condition(module))


def test_a_variable_that_a_task_of_a_handler_sets_is_a_decision() -> None:
    """It is reported even if only the mail's text uses it."""
    mail_ = alert(expressions={"Disable": '@[User::On] == "Y"'})
    setter = log("Get settings", sets=("User::On",))
    assert "set-in-event-handler" in decisions(with_handler(setter, mail_))
    module = with_handler(setter, alert(expressions={"Subject": "@[User::On]"}))
    (found,) = find(module, "set-in-event-handler")
    assert "'Get settings'" in found.text
    assert "User::On" in found.text


def test_a_variable_that_tasks_of_the_control_flow_set_is_read_where_they_leave_it() -> None:
    """Exactly as in SSIS, so that there is nothing to decide."""
    module = with_handler(
        alert(expressions={"Disable": '@[User::On] == "Y"'}), load=other_task("Load", sets=("User::On",))
    )
    assert condition(module) == "{{ not (ssis.variable(ti, 'User::On', ['load'], 'Y', 'DT_WSTR') == 'Y') }}"
    assert decisions(module) == set()


def test_what_a_script_in_the_handler_copies_is_what_the_alert_has() -> None:
    """If the script runs before the mail in any case; otherwise it is a decision."""
    script = log("Script", sets=("User::On",), assignments=(("User::On", "@[System::ErrorDescription]"),))
    mail_ = alert(expressions={"MessageSource": '"Error: " + @[User::On]'})
    module = with_handler(script, mail_, constraints=(constraint(script, mail_),))
    assert "text=\"Error: {{ alert.exception.message if alert.exception else (alert.reason or '') }}\"" in module.source
    (found,) = find(module, "set-in-event-handler")
    assert found.severity is Severity.NOTE
    assert "'Script'" in found.text
    other = log("Other", sets=("User::On",))
    sometimes = constraint(script, mail_, eval_op=EXPRESSION, expression="@[User::Also]")
    for module in (
        with_handler(script, mail_),
        with_handler(script, other, mail_, constraints=(constraint(script, mail_),)),
        with_handler(replace(script, expressions={"Disable": "@[User::Also]"}), mail_, constraints=(sometimes,)),
        with_handler(log(), script, mail_, constraints=(replace(sometimes, before=log().id, after=script.id),)),
    ):
        assert "set-in-event-handler" in decisions(module)
    before = (constraint(other, script), constraint(script, mail_))
    assert decisions(with_handler(other, script, mail_, constraints=before)) == set()
    inside = box("Inner", replace(mail_, path=(*PLACE, "Inner", "Alert")))
    assert decisions(with_handler(script, inside, constraints=(constraint(script, inside),))) == set()
    as_source = alert(message_source_type=MessageSourceType.VARIABLE, message_source="User::On")
    assert decisions(with_handler(script, as_source, constraints=(constraint(script, as_source),))) == set()


# --- Tasks that the DAG does not run


def test_a_mail_after_the_success_of_a_task_is_sent_and_the_task_is_named() -> None:
    """After its completion, only the task itself is named."""
    task, mail_ = log(), alert()
    for value, where in ((SUCCESS, "Package.EventHandlers[OnError]\\Alert"), (COMPLETION, PLACE[0])):
        module = with_handler(task, mail_, constraints=(constraint(task, mail_, value=value),))
        assert condition(module) is None
        (found,) = find(module, "handler-task-not-run")
        assert (found.where, found.severity) == (where, Severity.NOTE)
        assert "'Log' (Execute SQL task)" in found.text
        assert decisions(module) == set()


def test_a_mail_after_the_failure_of_a_task_is_not_in_the_dag() -> None:
    """Not even a mail that follows that one."""
    task, mail_, second = log(), alert(), alert("Second")
    arrows = (constraint(task, mail_, value=FAILURE), constraint(mail_, second))
    module = with_handler(task, mail_, second, constraints=arrows)
    assert "SendMailNotifier(" not in module.source
    assert [one.where for one in find(module, "handler-task-failure")] == [
        "\\".join((*PLACE, "Alert")),
        "\\".join((*PLACE, "Second")),
    ]
    assert [one.became for one in module.mails] == ["", ""]


def test_a_mail_with_several_constraints_says_when_it_is_not_sent() -> None:
    """The alert is sent in the other cases."""
    task, other, mail_ = log(), log("Other"), alert()
    arrows = [constraint(task, mail_, value=FAILURE, logical_and=False)]
    arrows += [constraint(other, mail_, eval_op=BOTH, expression='@[User::On] == "Y"', logical_and=False)]
    module = with_handler(task, other, mail_, constraints=tuple(arrows))
    assert condition(module) == "{{ params['On'] == 'Y' }}"
    (found,) = find(module, "handler-task-failure")
    assert "also if 'Log'" in found.text
    either = constraint(task, mail_, value=FAILURE, eval_op=EITHER, expression='@[User::On] == "Y"')
    module = with_handler(task, mail_, constraints=(either,))
    assert condition(module) == "{{ params['On'] == 'Y' }}"
    assert decisions(module) == {"handler-task-failure"}


def test_several_mails_come_in_the_order_of_their_constraints() -> None:
    """A mail that is sent if another fails is left out; one after its success is reported."""
    last, first, fallback = alert("Last"), alert("First"), alert("Fallback")
    arrows = (constraint(first, last), constraint(first, fallback, value=FAILURE))
    module = with_handler(last, first, fallback, constraints=arrows)
    assert module.source.index("on_error_first = ") < module.source.index("on_error_last = ")
    assert "on_error_fallback" not in module.source
    assert decisions(module) == {"handler-task-failure"}
    (found,) = find(module, "handler-task-not-run")
    assert "'First'" in found.text


def test_a_disabled_task_in_a_handler_has_succeeded() -> None:
    """Its failure never comes, in SSIS either; what is upstream of it counts."""
    start, off, mail_, never = log("Start"), log("Off", disabled=True), alert(), alert("Never")
    arrows = (
        constraint(start, off, eval_op=EXPRESSION, expression='@[User::On] == "Y"'),
        constraint(off, mail_),
        constraint(off, never, value=FAILURE),
    )
    module = with_handler(start, off, mail_, never, constraints=arrows)
    assert condition(module) == "{{ params['On'] == 'Y' }}"
    assert "on_error_never" not in module.source
    assert decisions(module) == set()
    assert "Never" in "".join(one.where for one in find(module, "condition-in-handler"))


def test_a_result_that_ssis_forces_decides() -> None:
    """Whatever the task does."""
    for forced, value, is_sent in (
        ("success", SUCCESS, True),
        ("success", FAILURE, False),
        ("failure", FAILURE, True),
        ("failure", SUCCESS, False),
        ("failure", COMPLETION, True),
    ):
        task, mail_ = log(force_result=forced), alert()
        module = with_handler(task, mail_, constraints=(constraint(task, mail_, value=value),))
        assert ("SendMailNotifier(" in module.source) is is_sent
        assert decisions(module) == set()


def test_a_cycle_of_constraints_ends() -> None:
    """SSIS allows none, but a file may contain one."""
    a, b, mail_ = log("a"), log("b"), alert()
    arrows = (constraint(a, b), constraint(b, a), constraint(b, mail_), constraint(mail_, b))
    assert condition(with_handler(a, b, mail_, constraints=arrows)) is None


def test_a_condition_does_not_grow_where_constraints_branch_and_join() -> None:
    """Each diamond would double the condition."""
    tasks: list[Executable] = [log("t0")]
    arrows = []
    for number in range(12):
        left, right, end = log(f"l{number}"), log(f"r{number}"), log(f"t{number + 1}")
        for side, text in ((left, "l"), (right, "r")):
            test = f'@[User::On] == "{text}{number}"'
            arrows.append(constraint(tasks[-1], side, eval_op=EXPRESSION, expression=test))
            arrows.append(constraint(side, end, value=COMPLETION, logical_and=False))
        tasks += [left, right, end]
    mail_ = alert()
    module = with_handler(*tasks, mail_, constraints=(*arrows, constraint(tasks[-1], mail_)))
    assert decisions(module) == {"condition-to-complete"}


@pytest.mark.parametrize("kind", [ContainerKind.FOR_LOOP, ContainerKind.FOREACH_LOOP, ContainerKind.TASK_HOST])
def test_a_loop_in_a_handler_is_reported(kind: ContainerKind) -> None:
    """As one in the control flow is."""
    module = with_handler(box("Each", box("In", alert(place=(*PLACE, "Each", "In"))), kind=kind))
    (found,) = find(module, "loop-runs-once")
    assert found.where == "Package.EventHandlers[OnError]\\Each"


# --- The source of the event


@pytest.mark.parametrize(
    "expression",
    [
        "@[System::SourceName]==@[System::PackageName]",
        "@[System::PackageName] == @[System::SourceName]",
        "@SourceName == @PackageName",
        "(DT_WSTR,100)@[System::SourceName] == (DT_WSTR, 100)@PackageName",
        "UPPER(TRIM(@[System::SourceName])) == UPPER(@[System::PackageName])",
        "@[System::SourceID] == @[System::PackageID]",
        '@[System::SourceName] == "Load"',
        "!(@[System::SourceName] != @[System::PackageName])",
    ],
)
@pytest.mark.parametrize("as_disable", [True, False])
def test_on_post_execute_of_the_package_itself_is_a_callback_of_the_dag(expression: str, *, as_disable: bool) -> None:
    """In any spelling, on a constraint or in `Disable`; the test itself is not needed there."""
    task, name = other_task("a task"), "on_postexecute_alert"
    place = ("Package.EventHandlers[OnPostExecute]",)
    if as_disable:
        members: tuple[Executable, ...] = (alert(place=place, expressions={"Disable": f"!({expression})"}),)
        module = with_handler(*members, event="OnPostExecute", load=task)
    else:
        start, end = log(place=place), alert(place=place)
        arrow = constraint(start, end, eval_op=BOTH, expression=expression)
        module = with_handler(start, end, event="OnPostExecute", load=task, constraints=(arrow,))
    assert condition(module, name) is None
    dag = module.source.partition("with DAG(")[2].partition(") as dag")[0]
    assert dag.count(name) == 2
    assert module.source.partition(") as dag")[2].count(name) == 0
    assert decisions(module) == set()


def test_on_post_execute_of_one_task_by_its_name_is_a_callback_of_that_task() -> None:
    """In any container."""
    inner = other_task("Copy", ("Package", "Box"))
    load = Container(
        name="Box", id="{box}", path=("Package", "Box"), executables=(inner, mail("In", ("Package", "Box")))
    )
    mail_ = alert(expressions={"Disable": '@[System::SourceName] != "Copy"'})
    module = with_handler(mail_, event="OnPostExecute", load=load)
    assert module.source.count("on_postexecute_alert,") == 2
    copy = module.source.partition('task_id="copy"')[2].partition("\n        )\n")[0]
    assert "on_success_callback=" in copy
    assert "on_failure_callback=" in copy
    assert decisions(module) == set()


def test_on_post_execute_of_everything_is_a_callback_of_everything() -> None:
    """Of the tasks and of the DAG; a group has none, which is reported."""
    module = with_handler(alert(), event="OnPostExecute")
    assert module.source.count("on_postexecute_alert,") == 4
    assert decisions(module) == set()
    box_ = Container(name="Box", id="{box}", path=("Package", "Box"), executables=(mail("In", ("Package", "Box")),))
    module = with_handler(alert(), event="OnPostExecute", load=box_)
    assert module.source.count("on_postexecute_alert,") == 4
    found = find(module, "callback-without-place")
    assert {one.where for one in found} == {alert().where}
    assert [one.text.rpartition(" for ")[2] for one in found] == ["Package\\Box.", "Package\\Box."]


def test_on_pre_execute_of_a_task_is_exact_and_of_the_package_reported() -> None:
    """A DAG has no callback for its start."""
    of_task = handler("OnPreExecute", mail("Alert", ("Package", "h")), owner=("Package", "Load"))
    module = written(other_task("Load", event_handlers=(of_task,)))
    assert module.source.count("on_preexecute_alert,") == 1
    assert decisions(module) == set()
    module = with_handler(alert(), event="OnPreExecute")
    [found] = find(module, "callback-without-place")
    assert found.where == alert().where  # no other mail of the package waits for it
    assert found.text == "A DAG has no callback for its start, so 'on_preexecute_alert' is not called for Package."


def test_on_error_of_a_task_by_its_name_depends_on_the_display_name() -> None:
    """A task of that name has it as its display name."""
    inner = [other_task("Copy all", ("Package", "Box")), other_task("Other", ("Package", "Box"))]
    load = Container(name="Box", id="{box}", path=("Package", "Box"), executables=tuple(inner))
    module = with_handler(alert(expressions={"Disable": '@[System::SourceName] != "Copy all"'}), load=load)
    code = "{{ not ((alert.task_name or alert.dag_id or '') != 'Copy all') }}"
    assert condition(module) == code
    assert decisions(module) == set()
    by_id = alert(expressions={"Disable": f'@[System::SourceID] != "{inner[0].id}"'})
    module = with_handler(by_id, load=load)
    assert condition(module) == "{{ (alert.task_name or alert.dag_id or '') == 'Copy all' }}"
    assert decisions(module) == set()


def test_on_error_of_the_package_itself_comes_from_no_task() -> None:
    """The mail is left out, with the reason."""
    module = with_handler(alert(expressions={"Disable": "@SourceName != @PackageName"}), load=other_task("a task"))
    assert "SendMailNotifier(" not in module.source
    (found,) = find(module, "condition-in-handler")
    assert found.severity is Severity.DECISION


@pytest.mark.parametrize("name", ["ErrorCode", "ErrorDescription", "MachineName", "StartTime", "SourceDescription"])
def test_a_value_that_is_not_ssis_s_in_a_callback_is_a_decision(name: str) -> None:
    """The condition may be true where it is not in SSIS."""
    load = Container(
        name="Box",
        id="{box}",
        path=("Package", "Box"),
        executables=tuple(other_task(text, ("Package", "Box"), description="same") for text in ("a", "a", "b")),
    )
    load = Container(
        name="Box",
        id="{box}",
        path=("Package", "Box"),
        executables=(*load.executables[:1], other_task("a", ("Package", "Box", "x"), description="other")),
    )
    test = f'(DT_WSTR, 50)@[System::{name}] == "same"'
    module = with_handler(alert(expressions={"Disable": test}), load=load)
    assert decisions(module) == {"condition-in-handler"}


def test_the_clock_in_a_condition_is_a_decision() -> None:
    """A worker is often in another time zone."""
    module = with_handler(alert(expressions={"Disable": 'DATEPART("hh", GETDATE()) < 8'}))
    assert decisions(module) == {"condition-in-handler"}


@pytest.mark.parametrize(
    ("limit", "value", "is_sent", "found"),
    [
        (0, ConstraintValue.FAILURE, False, set()),
        (0, ConstraintValue.SUCCESS, True, set()),
        (9999, ConstraintValue.FAILURE, False, set()),
        (5, ConstraintValue.SUCCESS, True, {"forced-result"}),
        (5, ConstraintValue.FAILURE, False, {"forced-result"}),
        (1, ConstraintValue.FAILURE, False, {"handler-task-failure"}),
    ],
)
def test_maximum_error_count_of_a_container_in_a_handler_is_honored(
    limit: int, value: ConstraintValue, is_sent: bool, found: set[str]
) -> None:
    """A container that never fails has nothing after its failure, and nothing is asked."""
    where = ("Package.EventHandlers[OnError]", "Box")
    work = Container(name="Box", id="{w}", path=where, executables=(log("Log"),), maximum_errors=limit)
    last = alert()
    on_error = handler("OnError", work, last, constraints=(constraint(work, last, value=value),))
    module = written(other_task("Load"), mail("After"), handlers=[on_error], variables=ON)
    assert ("SendMailNotifier(" in module.source) is is_sent
    assert decisions(module) == found


# --- How far events reach


def _nested(inner_handler: EventHandler, *more: EventHandler) -> DagModule:
    load = other_task("Load", ("Package", "Box"))
    box_ = Container(
        name="Box", id="{box}", path=("Package", "Box"), executables=(load,), event_handlers=(inner_handler,)
    )
    return written(box_, mail("After"), handlers=[handler("OnError", alert()), *more], variables=ON)


def test_propagate_stops_an_event_even_without_a_mail_in_the_handler() -> None:
    """The tasks inside get no callback of that event; other events go on."""
    quiet = handler("OnError", log("Log"), owner=("Package", "Box"), propagate=False)
    task_failed = handler("OnTaskFailed", alert("Failed"))
    module = _nested(quiet, task_failed)
    callbacks = module.source.partition("with DAG(")[2]
    assert callbacks.count("on_error_alert,") == 1
    assert callbacks.count("on_taskfailed_failed,") == 2
    module = _nested(quiet)
    assert '"on_failure_callback": []' in module.source or "on_failure_callback=[]" in module.source
    assert module.source.partition("with DAG(")[2].count("on_error_alert,") == 1


def test_propagate_of_a_task_stops_the_event_of_that_task() -> None:
    """Which has an empty list of its own, since the DAG's default_args would count otherwise."""
    quiet = handler("OnError", log("Log"), owner=("Package", "Load"), propagate=False)
    module = written(other_task("Load", event_handlers=(quiet,)), mail("After"), handlers=[handler("OnError", alert())])
    assert module.source.count("on_failure_callback=[]") == 1
    off = handler("OnError", log("Log"), owner=("Package", "Load"), propagate=False, disabled=True)
    module = written(other_task("Load", event_handlers=(off,)), mail("After"), handlers=[handler("OnError", alert())])
    assert module.source.count("on_failure_callback=[]") == 0


def test_propagate_in_a_loop_that_is_one_task_is_reported() -> None:
    """Its task has the alerts of all that is in it."""
    quiet = handler("OnError", log("Log"), owner=("Package", "Each", "Load"), propagate=False)
    load = other_task("Load", ("Package", "Each"), event_handlers=(quiet,))
    each = Container(
        name="Each", id="{each}", path=("Package", "Each"), kind=ContainerKind.FOREACH_LOOP, executables=(load,)
    )
    assert "propagate-at-run-time" in decisions(with_handler(alert(), load=each))
    named = alert(expressions={"Disable": '@[System::SourceName] == "Load" && @[User::On] == "Y"'})
    each = replace(each, executables=(replace(load, event_handlers=()), other_task("b", ("Package", "Each"))))
    assert "condition-in-handler" in decisions(with_handler(named, load=each))


def test_propagate_that_is_known_only_at_run_time_is_reported() -> None:
    """Set by a task in the handler, or by a handler that an expression disables."""
    by_task = handler("OnError", log("Stop", sets=("System::Propagate",)), owner=("Package", "Box"))
    assert "propagate-at-run-time" in decisions(_nested(by_task))
    by_disable = handler(
        "OnError", log(), owner=("Package", "Box"), propagate=False, expressions={"Disable": "@[User::Also]"}
    )
    assert "propagate-at-run-time" in decisions(_nested(by_disable))


@pytest.mark.parametrize(
    "event", ["OnWarning", "OnInformation", "OnProgress", "OnVariableValueChanged", "OnQueryCancel"]
)
def test_an_event_that_airflow_does_not_have_is_reported_for_each_mail(event: str) -> None:
    """Their mails are not in the DAG."""
    module = with_handler(alert("One"), alert("Two"), event=event)
    assert len(find(module, "event-without-callback")) == 2


@pytest.mark.parametrize("is_alone", [True, False])
def test_a_mail_in_a_handler_of_anything_in_a_handler_is_reported(*, is_alone: bool) -> None:
    """Even if the package sends no other mail, and gets no DAG."""
    deep = handler("OnError", mail("Deep", (f"{PLACE[0]}\\Log.EventHandlers[OnError]",)), owner=(*PLACE, "Log"))
    members = [log(event_handlers=(deep,)), *([] if is_alone else [alert()])]
    module = with_handler(*members)
    assert [one.severity for one in find(module, "handler-of-handler")] == [Severity.DECISION]
    assert bool(module.source) is not is_alone


# --- Recipients


def test_cc_stands_in_for_a_missing_to_with_a_note() -> None:
    """Once; the hidden recipients of Bcc would see each other, which is a decision."""
    module = with_handler(alert(to_line="", cc_line="boss@corp.example", bcc_line="audit@corp.example"))
    assert 'to="boss@corp.example"' in module.source
    assert "    cc=" not in module.source
    assert 'bcc="audit@corp.example"' in module.source
    assert decisions(module) == set()
    module = with_handler(alert(to_line="", bcc_line="audit@corp.example"))
    assert decisions(module) == {"alert-without-to"}
    assert decisions(with_handler(alert(to_line=""))) == {"no-recipient"}


@pytest.mark.parametrize("is_file", [False, True])
def test_what_a_query_in_the_handler_sets_is_asked_for(is_file: bool) -> None:
    """The alert would have the value of the developer, also for the path of its text."""
    query = SqlTask(
        name="Find",
        id="{find}",
        path=(*PLACE, "Find"),
        statement="SELECT MAX(name) FROM files",
        result_set=ResultSetType.SINGLE_ROW,
        results=(SqlResult(name="0", variable="User::Text"),),
    )
    file = FileConnection(name="F", id="{f}", connection_string="", expressions={"ConnectionString": "@[User::Text]"})
    from_file: dict[str, Any] = {"message_source_type": MessageSourceType.FILE_CONNECTION, "message_file": file}
    mail_ = alert(**(from_file if is_file else {"expressions": {"Subject": "@[User::Text]"}}))
    module = written(
        mail(),
        variables=[variable("Text", "old")],
        handlers=[handler("OnError", query, mail_, constraints=(constraint(query, mail_),))],
    )
    (found,) = find(module, "set-in-event-handler")
    assert found.severity is Severity.DECISION
    assert "'Find'" in found.text
    assert "User::Text" in found.text


@pytest.mark.parametrize("files", ["", "/srv/log.txt"])
def test_a_task_before_an_alert_with_files_may_write_them(files: str) -> None:
    """Without that task, the file is missing or old; without files, nothing in the alert depends on it."""
    export, mail_ = log("Export"), alert(file_attachments=files)
    module = written(mail(), handlers=[handler("OnError", export, mail_, constraints=(constraint(export, mail_),))])
    (found,) = find(module, "handler-task-not-run")
    assert found.severity is (Severity.DECISION if files else Severity.NOTE)
