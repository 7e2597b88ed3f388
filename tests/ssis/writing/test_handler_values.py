"""Variables that tasks of event handlers set: the alert computes them if that is certain, and asks otherwise."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from airflow_provider_smtpcm.ssis.model import (
    ConstraintValue,
    Container,
    EvalOp,
    Executable,
    ExpressionTask,
    Finding,
    OtherTask,
    SendMailTask,
    Severity,
    Variable,
)
from airflow_provider_smtpcm.ssis.writing.conversion import ConversionOptions, DagModule
from tests.ssis.writing.building import constraint, handler, mail, other_task, variable, written

PLACE = ("Package.EventHandlers[OnError]",)
DESCRIPTION = "alert.exception.message if alert.exception else (alert.reason or '')"
VARIABLES = [
    variable("Text", "before"),
    variable("Other", "other"),
    variable("Count", "1", 3),
    variable("Ratio", "0.5", 5),
    variable("Done", "False", 11),
    variable("Body", "", expression='"Error: " + @[User::Text]'),
]
TO_TEXT = "(DT_WSTR,4000)@[System::ErrorDescription]"


def script(
    *assignments: tuple[str, str], name: str = "Script", place: tuple[str, ...] = PLACE, **more: Any
) -> OtherTask:
    """Return a script that sets these variables."""
    return other_task(name, place, sets=tuple(each for each, _ in assignments), assignments=assignments, **more)


def sets(name: str, *variables: str, place: tuple[str, ...] = PLACE) -> OtherTask:
    """Return a task that sets variables, and of which no more is known."""
    return other_task(name, place, sets=variables)


def expression_task(expression: str, name: str = "Compute", place: tuple[str, ...] = PLACE) -> ExpressionTask:
    """Return an Expression task."""
    return ExpressionTask(name=name, id=f"id of {name}", path=(*place, name), expression=expression)


def alert(subject: str = "@[User::Text]", **more: Any) -> SendMailTask:
    """Return a mail of the handler with this subject."""
    return mail("Alert", PLACE, expressions={"Subject": subject, **more.pop("expressions", {})}, **more)


def in_row(*executables: Executable, **more: Any) -> DagModule:
    """Return the module of a package whose OnError handler has these executables, one after the other."""
    arrows = [constraint(*pair) for pair in pairwise(executables)]
    return with_handler(*executables, constraints=tuple(arrows), **more)


def with_handler(
    *executables: Executable,
    event: str = "OnError",
    variables: list[Variable] | None = None,
    others: tuple[Any, ...] = (),
    answers: dict[str, str] | None = None,
    **more: Any,
) -> DagModule:
    """Return the module of a package with one task and this handler."""
    return written(
        other_task("Load"),
        variables=VARIABLES if variables is None else variables,
        handlers=[*others, handler(event, *executables, **more)],
        options=ConversionOptions(answers=answers or {}),
    )


def find(module: DagModule) -> list[Finding]:
    """Return the findings about variables that event handlers set."""
    return [one for one in module.findings if one.code == "set-in-event-handler"]


def is_certain(module: DagModule) -> bool:
    """Whether there is nothing to decide about such a variable."""
    return all(one.severity is Severity.NOTE for one in find(module))


def subject(module: DagModule) -> str:
    """Return the subject of the alert."""
    (line,) = [line.strip() for line in module.source.split("\n") if line.strip().startswith("subject=")]
    return line.removeprefix('subject="').removesuffix('",')


# --- What is certain


def test_the_alert_after_a_script_has_the_value() -> None:
    """A note quotes it; there is nothing to decide."""
    module = in_row(script(("User::Text", TO_TEXT)), alert())
    assert subject(module) == f"{{{{ {DESCRIPTION} }}}}"
    (found,) = find(module)
    assert found.severity is Severity.NOTE
    assert "'Script'" in found.text
    assert "@[System::ErrorDescription]" in found.text


def test_it_has_the_value_also_where_another_variable_needs_it() -> None:
    """SSIS evaluates the expression of a variable again for each reader."""
    module = in_row(script(("User::Text", TO_TEXT)), alert("@[User::Body]"))
    assert subject(module) == f"Error: {{{{ {DESCRIPTION} }}}}"
    assert is_certain(module)


def test_an_expression_task_counts_as_well() -> None:
    """Its value is converted to the type of the variable."""
    module = in_row(expression_task('@[User::Text] = "x" + @[System::SourceName]'), alert())
    assert subject(module) == "x{{ alert.task_name or alert.dag_id or '' }}"
    module = in_row(expression_task("@[User::Count] = 7"), alert("(DT_WSTR,10)@[User::Count]"))
    assert "7" in subject(module)
    assert is_certain(module)


def test_what_one_task_sets_another_one_uses() -> None:
    """Each reads the variables as they are when it begins."""
    first = script(("User::Text", '"a"'), ("User::Other", '"b"'), name="First")
    second = script(("User::Text", '@[User::Other] + @[User::Text] + "!"'), ("User::Other", '"c"'), name="Second")
    module = in_row(first, second, alert('@[User::Text] + "," + @[User::Other]'))
    assert subject(module) == "ba!,c"
    assert is_certain(module)


def test_what_an_earlier_event_may_have_left_is_not_certain() -> None:
    """The first task reads what the second one has set when the event was raised before."""
    first = script(("User::Other", '@[User::Text] + "!"'), name="First")
    module = in_row(first, script(("User::Text", '"a"'), name="Second"), alert("@[User::Other]"))
    assert not is_certain(module)


def test_what_is_added_to_a_variable_is_reported() -> None:
    """SSIS raises OnError for each error; the alert knows the last one."""
    module = in_row(script(("User::Text", f'(DT_WSTR,4000)@[User::Text] + "; " + {TO_TEXT}')), alert())
    assert subject(module) == f"{{{{ params['Text'] }}}}; {{{{ {DESCRIPTION} }}}}"
    (found,) = find(module)
    assert found.severity is Severity.NOTE
    assert "what earlier events have added" in found.text


def test_on_task_failed_has_what_on_error_has_left() -> None:
    """SSIS raises OnError first, for the same executable."""
    on_error = handler("OnError", script(("User::Text", TO_TEXT)))
    module = with_handler(alert(), event="OnTaskFailed", others=(on_error,))
    assert subject(module) == f"{{{{ {DESCRIPTION} }}}}"
    assert is_certain(module)
    for other in (replace(on_error, disabled=True), replace(on_error, expressions={"Disable": "@[User::Done]"})):
        assert not is_certain(with_handler(alert(), event="OnTaskFailed", others=(other,)))
    assert not is_certain(with_handler(alert(), event="OnPostExecute", others=(on_error,)))


def test_a_condition_on_the_way_to_the_mail_has_the_value() -> None:
    """The one after the task at which the constraint begins."""
    task, mail_ = script(("User::Count", "5")), alert()
    arrow = constraint(task, mail_, eval_op=EvalOp.EXPRESSION_AND_CONSTRAINT, expression="@[User::Count] == 5")
    module = with_handler(task, mail_, constraints=(arrow,))
    assert "5 == 5" in module.source or "only_if" not in module.source
    assert is_certain(module)


def test_a_script_in_a_sequence_before_the_mail() -> None:
    """And a mail in a sequence after the script."""
    inner = (*PLACE, "Box")
    task = script(("User::Text", '"x"'), place=inner)
    box = Container(name="Box", id="{box}", path=inner, executables=(task,))
    assert subject(in_row(box, alert())) == "x"
    box = replace(box, executables=(replace(alert(), path=(*inner, "Alert")),))
    assert subject(in_row(script(("User::Text", '"x"')), box)) == "x"


def test_what_is_set_after_the_mail_in_the_same_chain_does_not_count() -> None:
    """If the mail does not need what an earlier event has left."""
    module = in_row(script(("User::Text", '"x"')), alert(), sets("Later", "User::Text"))
    assert subject(module) == "x"
    assert is_certain(module)


# --- What is not

TASK, MAIL = script(("User::Text", '"x"')), alert()
OTHER = sets("Other", "User::Text")
FIRST = sets("First")


@pytest.mark.parametrize(
    ("executables", "arrows"),
    [
        ((TASK, MAIL), ()),
        ((TASK, OTHER, MAIL), (constraint(TASK, MAIL),)),
        ((TASK, OTHER, MAIL), (constraint(TASK, OTHER), constraint(OTHER, MAIL))),
        (
            (FIRST, TASK, MAIL),
            (
                constraint(FIRST, TASK),
                constraint(FIRST, MAIL, logical_and=False),
                constraint(TASK, MAIL, logical_and=False),
            ),
        ),
        ((MAIL, TASK), (constraint(MAIL, TASK),)),
        ((replace(TASK, expressions={"Disable": "@[User::Done]"}), MAIL), (constraint(TASK, MAIL),)),
    ],
)
def test_a_value_that_is_not_certain_is_a_decision(
    executables: tuple[Executable, ...], arrows: tuple[Any, ...]
) -> None:
    """No order, another setter, a way around the script, a script after the mail, one that may not run."""
    module = with_handler(*executables, constraints=arrows)
    assert subject(module) == "{{ params['Text'] }}"
    assert [one.severity for one in find(module)] == [Severity.DECISION]


def test_a_way_through_the_script_under_a_condition_is_certain() -> None:
    """If the mail is sent, the script has run; after its failure the mail would not be sent."""
    arrows = (
        constraint(FIRST, TASK, eval_op=EvalOp.EXPRESSION, expression="@[User::Done]"),
        constraint(TASK, MAIL, value=ConstraintValue.COMPLETION),
    )
    module = with_handler(FIRST, TASK, MAIL, constraints=arrows)
    assert subject(module) == "x"
    assert is_certain(module)


@pytest.mark.parametrize(
    ("name", "expression"),
    [
        ("User::Text", "5"),
        ("User::Text", "@[User::Count]"),
        ("User::Text", "(DT_WSTR,4000)@[User::Ratio]"),
        ("User::Text", '@[User::Count] + "x"'),
        ("User::Text", "(DT_I4)@[User::Text] + 1"),
        ("User::Text", "(DT_WSTR,4000)@[User::Missing]"),
        ("User::Missing", '"x"'),
    ],
)
def test_a_script_that_would_fail_gives_no_value(name: str, expression: str) -> None:
    """SSIS converts no type silently, and the text form of a fraction depends on the server."""
    task = script((name, expression), ("User::Other", '"y"'))
    module = in_row(task, alert("@[User::Other]"))
    assert subject(module) == "{{ params['Other'] }}"
    assert not is_certain(module)


def test_numbers_and_truth_values_become_text_as_in_net() -> None:
    """By SSIS's cast."""
    task = script(("User::Text", '(DT_WSTR,4000)@[User::Count] + "/" + (DT_WSTR,4000)@[User::Done]'))
    module = in_row(task, alert())
    assert is_certain(module)
    assert "params['Count']" in subject(module)
    assert "params['Done']" in subject(module)


# --- The question

KEY = "variable User::ErrText in event handlers"


def asked(name: str = "ErrText", *, reads: tuple[str, ...] = (), **more: Any) -> DagModule:
    """Return the module of a package in which a task before the mail sets a variable in a way that is not known."""
    task = replace(sets("Script", f"User::{name}"), reads=reads)
    return in_row(task, alert(f"@[User::{name}]"), variables=[variable(name, "before"), variable("Other")], **more)


def test_the_question_is_the_same_in_all_packages() -> None:
    """The guess is the description of the error, if the name or the task suggests that; the alert has it."""
    module = asked()
    (found,) = find(module)
    assert found.question is not None
    assert (found.question.key, found.question.guess) == (KEY, "@[System::ErrorDescription]")
    assert subject(module) == f"{{{{ {DESCRIPTION} }}}}"
    (found,) = find(asked("Detail", reads=("System::ErrorDescription",)))
    assert found.question is not None
    assert found.question.guess == "@[System::ErrorDescription]"
    module = asked("Rows")
    (found,) = find(module)
    assert found.question is not None
    assert (found.question.guess, subject(module)) == ("keep", "{{ params['Rows'] }}")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('"In " + @[System::SourceName]', "In {{ alert.task_name or alert.dag_id or '' }}"),
        ("see the log", "see the log"),
        ("keep", "{{ params['ErrText'] }}"),
    ],
)
def test_the_answer_is_an_expression_a_text_or_keep(answer: str, expected: str) -> None:
    """An answered question is a note."""
    module = asked(answers={KEY: answer})
    assert subject(module) == expected
    assert is_certain(module)


def test_a_task_of_the_control_flow_that_reads_such_a_variable_is_another_question() -> None:
    """Its key does not depend on the package, either."""
    setter = handler("OnError", sets("Script", "User::Text"))
    module = written(mail(expressions={"Subject": "@[User::Text]"}), variables=VARIABLES, handlers=[setter])
    (found,) = find(module)
    assert found.question is not None
    assert found.question.key == "variable User::Text in event handlers, for other tasks"
    assert found.question.guess == "keep"


# --- In the control flow


def in_control_flow(*assignments: tuple[str, str]) -> DagModule:
    """Return the module of a package in which a mail follows a script with these assignments."""
    task = script(*assignments, place=("Package",))
    mail_ = mail(expressions={"Subject": "@[User::Text]"})
    return written(task, mail_, variables=VARIABLES, constraints=[constraint(task, mail_)])


def test_a_script_of_the_control_flow_becomes_an_expression_operator() -> None:
    """The mail reads what it has set."""
    number = ("User::Count", "(DT_I4)@[User::Count] + 1")
    module = in_control_flow(("User::Text", '"n: " + (DT_WSTR,4000)@[User::Count]'), number)
    assert "ExpressionOperator(" in module.source
    assert "PlaceholderOperator" not in module.source
    assert "ssis.variable(ti, 'User::Text', ['script'], 'before', 'DT_WSTR')" in module.source
    assert [one.severity for one in module.findings if one.code == "script-became-expression"] == [Severity.NOTE]


def test_a_script_that_does_nothing_becomes_an_empty_operator() -> None:
    """It need not be filled in."""
    module = in_control_flow()
    assert "EmptyOperator(" in module.source
    assert "PlaceholderOperator" not in module.source


def test_a_script_of_the_control_flow_that_would_fail_is_a_placeholder() -> None:
    """Its note says why."""
    module = in_control_flow(("User::Text", "5"))
    assert "PlaceholderOperator(" in module.source
    (found,) = [one for one in module.findings if one.code == "placeholder-task"]
    assert "another type" in found.text


def test_a_script_that_only_empties_a_variable_sets_no_path() -> None:
    """Another value may be a Windows path, which is asked about."""
    for value, is_asked in (('""', False), ('"x"', True)):
        task = script(("User::Text", value), place=("Package",))
        mail_ = mail(expressions={"FileAttachments": "@[User::Text]"})
        module = written(task, mail_, variables=VARIABLES, constraints=[constraint(task, mail_)])
        assert ("unmapped-path" in {one.code for one in module.findings}) is is_asked
