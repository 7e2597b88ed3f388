"""Conditions on what a DAG does not have as SSIS does: the machine, the user and the clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_smtpcm.ssis.model import Container, EvalOp, Severity
from airflow_provider_smtpcm.ssis.writing.connections import ConnectionRegistry
from airflow_provider_smtpcm.ssis.writing.conversion import ConversionOptions, DagModule
from airflow_provider_smtpcm.ssis.writing.dag_module import write_package
from tests.ssis.writing.building import constraint, handler, mail, other_task, package, variable, written

MACHINE, USER = "variable System::MachineName", "variable System::UserName"
IS_PRODUCTION = '@[System::MachineName] == "SQLPROD01"'


def asked(module: DagModule) -> set[str]:
    """Return the keys of the questions that decisions of a module ask."""
    return {
        one.question.key for one in module.findings if one.severity is Severity.DECISION and one.question is not None
    }


def after_load(expression: str, answers: dict[str, str] | None = None, **more: object) -> DagModule:
    """Return a package whose mail follows a task if the expression is true."""
    load, send = other_task("Load"), mail()
    joined = constraint(load, send, eval_op=EvalOp.EXPRESSION_AND_CONSTRAINT, expression=expression)
    return written(load, send, constraints=[joined], options=ConversionOptions(answers=answers or {}), **more)


def disabled_if(expression: str, answers: dict[str, str] | None = None) -> DagModule:
    """Return a package whose mail has an expression for Disable."""
    return written(mail(expressions={"Disable": expression}), options=ConversionOptions(answers=answers or {}))


def test_the_machine_in_a_constraint_is_asked_for() -> None:
    """No worker has the name of the server that ran the package."""
    module = after_load(IS_PRODUCTION)
    assert asked(module) == {MACHINE}
    assert "condition=\"{{ ti.hostname == 'SQLPROD01' }}\"" in module.source


@pytest.mark.parametrize(
    ("expression", "key"),
    [
        ('@[System::MachineName] != "SQLPROD01"', MACHINE),
        ('UPPER(@[System::UserName]) == "CORP\\\\DEV"', USER),
        ('FINDSTRING(@MachineName, "DEV", 1) > 0', MACHINE),
        ('(LEFT(@[System::MachineName], 3) == "DEV" ? 1 : 2) == 1', MACHINE),
    ],
)
def test_the_machine_or_the_user_in_disable_is_asked_for(expression: str, key: str) -> None:
    """Whether a function reads it or the comparison itself."""
    assert asked(disabled_if(expression)) == {key}


def test_the_machine_is_asked_for_behind_a_variable_and_around_a_container() -> None:
    """The expression of a variable takes its place, and a disabled container disables its mails."""
    assert asked(after_load("@[User::On]", variables=[variable("On", "False", 11, IS_PRODUCTION)])) == {MACHINE}
    expressions = {"Disable": f"!({IS_PRODUCTION})"}
    box = Container(
        name="Box",
        id="{box}",
        path=("Package", "Box"),
        executables=(mail("m", ("Package", "Box")),),
        expressions=expressions,
    )
    assert asked(written(box)) == {MACHINE}


def test_the_answer_takes_the_place_of_the_machine_in_a_condition() -> None:
    """So the mail is sent as in production, or not sent."""
    module = after_load(IS_PRODUCTION, {MACHINE: "SQLPROD01"})
    assert asked(module) == set()
    assert 'condition="{{ true }}"' in module.source
    module = after_load(IS_PRODUCTION, {MACHINE: "SQLPROD02"})
    assert 'condition="{{ false }}"' in module.source
    module = after_load(IS_PRODUCTION, {MACHINE: "keep"})
    assert asked(module) == set()
    assert "ti.hostname" in module.source


def test_the_machine_that_decides_on_a_field_is_asked_for_and_one_in_a_text_is_not() -> None:
    """A recipient that depends on the machine goes to somebody else; a name in a subject is only another name."""
    choice = f'{IS_PRODUCTION} ? "ops@corp.example" : "dev@corp.example"'
    expressions = {"ToLine": choice, "Subject": '"Load on " + @[System::MachineName]'}
    module = written(mail(expressions=expressions))
    assert asked(module) == {MACHINE}
    answered = written(mail(expressions=expressions), options=ConversionOptions(answers={MACHINE: "SQLPROD01"}))
    assert asked(answered) == set()
    assert 'to="ops@corp.example"' in answered.source
    assert 'subject="Load on {{ ti.hostname }}"' in answered.source
    assert asked(written(mail(expressions={"Subject": '"Load on " + @[System::MachineName]'}))) == set()


def test_a_condition_in_an_event_handler_asks_the_same_question() -> None:
    """One answer holds for both."""
    alert = mail("Alert", expressions={"Disable": f"!({IS_PRODUCTION})"})
    module = written(other_task("Load"), mail(), handlers=[handler("OnError", alert)])
    assert asked(module) == {MACHINE}
    options = ConversionOptions(answers={MACHINE: "SQLPROD01"})
    module = written(other_task("Load"), mail(), handlers=[handler("OnError", alert)], options=options)
    assert asked(module) == set()
    assert "alert.host" not in module.source


@pytest.mark.parametrize(
    "expression", ['DATEPART("dw", GETDATE()) == 2', 'DATEDIFF("mi", @[System::StartTime], GETUTCDATE()) > 5']
)
def test_the_note_about_a_condition_on_the_clock_says_whose_clock_it_is(expression: str) -> None:
    """The worker's, in its time zone."""
    module = after_load(expression)
    assert asked(module) == set()
    (note,) = [one for one in module.findings if one.code == "condition-on-variables"]
    assert "the clock of the Airflow worker, often in UTC" in note.text


def test_a_variable_of_the_package_is_not_the_machine() -> None:
    """It hides the System variable."""
    module = after_load('@[User::MachineName] == "a"', variables=[variable("MachineName", "b")])
    assert asked(module) == set()


def test_another_value_that_is_not_ssis_s_in_a_condition_is_a_decision() -> None:
    """As in an event handler; the name of the mail's own task is the same."""
    assert asked(disabled_if('@[System::TaskID] == "{A}"')) == {"condition-on-variables"}
    assert asked(disabled_if('@[System::TaskName] == "Send Mail"')) == set()
    assert asked(disabled_if("@[System::InteractiveMode]")) == set()


NUMBER_AND_TEXT = [variable("n", "1", 3), variable("s", "True")]


@pytest.mark.parametrize("expression", ["@[User::n]", "@[User::n] == 1 ? 1 : 0", "@[User::s]"])
def test_disable_that_is_no_boolean_is_cast_to_one_and_a_decision(expression: str) -> None:
    """The negation of a number or a text would fail in every run."""
    module = written(mail(expressions={"Disable": expression}), variables=NUMBER_AND_TEXT)
    assert asked(module) == {"condition-on-variables"}
    assert "ssis.unary" not in module.source
    assert "'DT_BOOL'" in module.source
    alert = mail("Alert", expressions={"Disable": expression})
    handlers = [handler("OnError", alert)]
    module = written(other_task("Load"), mail(), handlers=handlers, variables=NUMBER_AND_TEXT)
    assert asked(module) == {"condition-in-handler"}
    assert "ssis.unary" not in module.source


@pytest.mark.parametrize(
    ("expression", "condition"), [('"True"', "false"), ("0", "true"), ('"False"', "true"), ("1 + 0", "false")]
)
def test_a_constant_for_disable_leaves_no_doubt(expression: str, condition: str) -> None:
    """Whatever its type."""
    module = disabled_if(expression)
    assert asked(module) == set()
    assert f'condition="{{{{ {condition} }}}}"' in module.source


def test_a_constraint_that_is_no_boolean_stays_one_that_cannot_be_translated() -> None:
    """SSIS fails there, too."""
    assert asked(after_load("@[User::n]", variables=NUMBER_AND_TEXT)) == {"condition-to-complete"}


def test_disable_of_the_package_by_expression_is_checked_before_everything_else() -> None:
    """SSIS sends nothing if it is true, also no mail about a completion."""
    content = package(mail(), variables=[variable("off", "True", 11)])
    content = replace(content, root=replace(content.root, expressions={"Disable": "@[User::off]"}))
    module = write_package(content, ConnectionRegistry(ConversionOptions()), ConversionOptions())
    assert "condition=\"{{ not params['off'] }}\"" in module.source
    assert "package_enabled >> send_mail" in module.source
