"""What sets a variable when a package runs is what a mail reads it from, whatever stands between them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_smtpcm.ssis.findings import Severity
from airflow_provider_smtpcm.ssis.model import (
    ConstraintValue,
    Container,
    ContainerKind,
    EvalOp,
    Executable,
    ExpressionTask,
    MessageSourceType,
    ResultSetType,
    SqlResult,
    SqlTask,
)
from airflow_provider_smtpcm.ssis.writing.connections import ConnectionRegistry
from airflow_provider_smtpcm.ssis.writing.conversion import ConversionOptions
from airflow_provider_smtpcm.ssis.writing.dag_module import write_package
from tests.ssis.writing.building import (
    RELAY,
    codes,
    constraint,
    handler,
    mail,
    other_task,
    package,
    smtp,
    variable,
    written,
)

ROWS = variable("Rows", "7", 3)
SELECT: dict[str, Any] = {
    "statement": "SELECT MAX(file) FROM files",
    "result_set": ResultSetType.SINGLE_ROW,
    "results": (SqlResult(name="0", variable="User::File"),),
}


def script(name: str, *sets: str, path: tuple[str, ...] = ("Package",), **more: Any) -> Executable:
    """Return a Script task that sets these variables."""
    return other_task(name, path, sets=tuple(f"User::{each}" for each in sets), **more)


def count_mail(name: str = "Send Mail", **more: Any) -> Executable:
    """Return a mail with the variable in its subject."""
    return mail(name, expressions={"Subject": '"Rows: " + (DT_WSTR, 10)@[User::Rows]'}, **more)


def reading(*task_ids: str) -> str:
    """Return the call that reads the variable from these tasks."""
    return f"ssis.variable(ti, 'User::Rows', [{', '.join(map(repr, task_ids))}], 7, 'DT_I4')"


def test_a_name_without_a_namespace_is_found_in_any_namespace() -> None:
    """By the mail as by the task that sets it."""
    custom = replace(variable("Text", "old"), namespace="Custom")
    task = ExpressionTask(name="Set", id="{set}", path=("Package", "Set"), expression='@[Text] = "new"')
    mailing = mail(expressions={"Subject": "@[Text]"})
    module = written(task, mailing, variables=[custom], constraints=[constraint(task, mailing)])
    assert "ssis.variable(ti, 'Custom::Text', ['set']" in module.source
    assert {each.severity for each in module.findings} == {Severity.NOTE}


@pytest.mark.parametrize(
    ("name", "namespaces", "is_ambiguous"),
    [
        ("PackageName", ("User",), True),
        ("TaskName", ("User",), True),
        ("Text", ("User", "Custom"), True),
        ("Text", ("User",), False),
        ("ErrorCode", ("User",), False),
    ],
)
@pytest.mark.parametrize("expression", [None, '"x"'])
def test_a_name_in_several_namespaces_is_ambiguous(
    name: str, namespaces: tuple[str, ...], expression: str | None, *, is_ambiguous: bool
) -> None:
    """SSIS does not choose between them, and fails."""
    variables = [replace(variable(name, "x", expression=expression), namespace=each) for each in namespaces]
    module = written(mail(expressions={"Subject": f"@[{name}]"}), variables=variables)
    assert ("expression-to-complete" in codes(module.findings)) is is_ambiguous
    module = written(mail(expressions={"Subject": f"@[User::{name}]"}), variables=variables)
    assert "expression-to-complete" not in codes(module.findings)


def test_a_variable_of_an_event_makes_a_name_ambiguous_in_its_handlers() -> None:
    """There the System variable exists."""
    alert = mail(expressions={"Subject": "@[ErrorDescription]"})
    module = written(mail(), handlers=[handler("OnError", alert)], variables=[variable("ErrorDescription", "x")])
    (found,) = [one for one in module.findings if one.code == "expression-to-complete"]
    assert "User::ErrorDescription and System::ErrorDescription" in found.text


def test_a_mail_reads_a_variable_from_the_task_that_sets_it() -> None:
    """The design-time value counts only if that task has not run."""
    load, mailing = script("Load", "Rows"), count_mail()
    module = written(load, mailing, variables=[ROWS], constraints=[constraint(load, mailing)])
    assert reading("load") in module.source
    assert "params" not in module.source
    assert {each.severity for each in module.findings} == {Severity.NOTE}
    assert "variable-set-at-run-time" in codes(module.findings)


def test_of_several_tasks_the_last_that_ran_counts() -> None:
    """They are in the order in which they run, whatever their order in the file."""
    first, second, mailing = script("First", "Rows"), script("Second", "Rows"), count_mail()
    module = written(
        mailing,
        second,
        first,
        variables=[ROWS],
        constraints=[constraint(first, second), constraint(second, mailing)],
    )
    assert reading("first", "second") in module.source


def test_a_task_that_runs_after_the_mail_has_set_nothing_yet() -> None:
    """And one that is disabled never sets anything."""
    mailing, later = count_mail(), script("Later", "Rows")
    off = script("Off", "Rows", disabled=True)
    module = written(off, mailing, later, variables=[ROWS], constraints=[constraint(mailing, later)])
    assert "ssis.variable" not in module.source
    assert '"Rows": 7,' in module.source


def test_a_task_beside_the_mail_may_or_may_not_have_run() -> None:
    """SSIS runs both at once, and the finding says so."""
    module = written(script("Beside", "Rows"), count_mail(), variables=[ROWS])
    assert reading("beside") in module.source
    (found,) = [each for each in module.findings if each.code == "variable-set-at-run-time"]
    assert "depends on timing" in found.text


def test_a_task_in_a_container_has_the_id_of_the_group_in_front() -> None:
    """XCom knows it by that."""
    inner = script("Load", "Rows", path=("Package", "Box"))
    box = Container(name="Box", id="{box}", path=("Package", "Box"), executables=(inner,))
    mailing = count_mail()
    module = written(box, mailing, variables=[ROWS], constraints=[constraint(box, mailing)])
    assert reading("box.load") in module.source


def test_a_loop_without_mail_is_one_placeholder_that_sets_what_its_tasks_set() -> None:
    """It fails until a task with the same work takes its place, and says what that has to set and for whom."""
    inner = script("Load", "Rows", path=("Package", "Each"))
    loop = Container(
        name="Each", id="{each}", path=("Package", "Each"), kind=ContainerKind.FOREACH_LOOP, executables=(inner,)
    )
    mailing = count_mail()
    module = written(loop, mailing, variables=[ROWS], constraints=[constraint(loop, mailing)])
    assert reading("each") in module.source
    placeholder = module.source.partition("PlaceholderOperator(\n")[2].partition("\n    )")[0]
    assert '"User::Rows"' in placeholder
    assert '"Send Mail"' in placeholder
    assert "passes" not in placeholder


def test_an_inner_variable_of_the_same_name_is_another_one() -> None:
    """The task in the container sets its container's variable; the mail outside reads the package's."""
    inner = script("Load", "Rows", path=("Package", "Box"))
    hidden = variable("Rows", "1", 3)
    box = Container(
        name="Box",
        id="{box}",
        path=("Package", "Box"),
        executables=(inner,),
        variables=(type(hidden)(namespace="User", name="Rows", data_type=3, value="1", scope=("Package", "Box")),),
    )
    mailing = count_mail()
    module = written(box, mailing, variables=[ROWS], constraints=[constraint(box, mailing)])
    assert "ssis.variable" not in module.source


def test_a_condition_reads_it_too_and_leaves_nothing_to_decide() -> None:
    """As does an expression for Disable."""
    load, mailing = script("Load", "Rows"), mail(expressions={"Disable": "@[User::Rows] == 0"})
    module = written(load, mailing, variables=[ROWS], constraints=[constraint(load, mailing)])
    assert f'condition="{{{{ not ({reading("load")} == 0) }}}}"' in module.source
    assert {each.severity for each in module.findings} == {Severity.NOTE}


def test_the_alert_of_an_event_handler_reads_what_had_been_set_by_then() -> None:
    """Its event may occur at any time."""
    alert = mail("Alert", ("Package.EventHandlers[OnError]",), expressions={"Subject": "(DT_WSTR, 9)@[User::Rows]"})
    module = written(script("Load", "Rows"), count_mail(), variables=[ROWS], handlers=[handler("OnError", alert)])
    notifier = module.source.partition("SendMailNotifier(")[2].partition("\n)")[0]
    assert reading("load") in notifier


def test_an_expression_task_pushes_its_value_with_its_type() -> None:
    """It reads what others set, and mails read it."""
    load = script("Load", "Rows")
    double = ExpressionTask(
        name="Double",
        id="{double}",
        path=("Package", "Double"),
        expression="@[User::Rows] = @[User::Rows] * 2",
    )
    mailing = count_mail()
    module = written(
        load, double, mailing, variables=[ROWS], constraints=[constraint(load, double), constraint(double, mailing)]
    )
    assert f"{{{{ ssis.calc({reading('load')}, '*', 2) }}}}" in module.source
    assert 'data_type="DT_I4"' in module.source
    assert reading("load", "double") in module.source


@pytest.mark.parametrize("expression", ["1 + 1", "@[User::Gone] = 1", "@[User::Rows] = TOKEN(", ""])
def test_an_expression_task_that_cannot_be_translated_is_a_placeholder(expression: str) -> None:
    """With the reason."""
    task = ExpressionTask(name="Set", id="{set}", path=("Package", "Set"), expression=expression)
    module = written(task, mail(), variables=[ROWS])
    assert 'ssis_kind="Expression task"' in module.source
    assert "placeholder-task" in codes(module.findings)


def test_placeholders_pass_for_a_walk_through() -> None:
    """And the finding says that they do nothing."""
    module = written(script("Load", "Rows"), mail(), options=ConversionOptions(placeholders_pass=True))
    assert "passes=True" in module.source
    (found,) = [each for each in module.findings if each.code == "placeholder-task"]
    assert "does nothing" in found.text


def test_the_report_names_a_mail_by_the_id_that_its_task_has_in_airflow() -> None:
    """With the groups around it."""
    inner = mail(path=("Package", "Box"))
    box = Container(name="Box", id="{box}", path=("Package", "Box"), executables=(inner,))
    assert [each.became for each in written(box).mails] == ["task box.send_mail"]


@pytest.mark.parametrize("name", ["SmtpServer", "ConnectionString"])
def test_the_server_that_a_task_sets_is_asked_for(name: str) -> None:
    """The design-time value is that of the developer's machine; a connection has one server in all runs."""
    value = "dev.corp.example" if name == "SmtpServer" else "SmtpServer=dev.corp.example;"
    relay = smtp("SmtpServer=stored.corp.example;", expressions={name: "@[User::Server]"})
    find = script("Find server", "Server")
    options = ConversionOptions()
    registry = ConnectionRegistry(options)
    content = package(find, mail(connection=relay), variables=[variable("Server", value)], connection_managers=(relay,))
    write_package(content, registry, options)
    (connection,) = registry.connections
    assert connection.settings.host == "stored.corp.example"
    (found,) = [each for each in connection.findings if each.code == "connection-expression"]
    assert found.severity is Severity.DECISION
    assert "'Find server'" in found.text


def test_the_connection_manager_that_a_task_chooses_is_to_be_chosen_in_the_dag() -> None:
    """No file says which one it is in a run."""
    mailing = mail(expressions={"SmtpConnection": "@[User::Which]"})
    load = script("Load", "Which")
    module = written(load, mailing, variables=[variable("Which", RELAY.name)], constraints=[constraint(load, mailing)])
    assert "connection-to-choose" in {each.code for each in module.findings if each.severity is Severity.DECISION}


@pytest.mark.parametrize("name", ["MessageSource", "MessageSourceType"])
def test_where_the_text_comes_from_is_to_be_decided_if_a_task_sets_it(name: str) -> None:
    """Not from where it came on the developer's machine."""
    names = {"MessageSource": variable("Which", "User::Text"), "MessageSourceType": variable("Which", "2", 3)}
    mailing = mail(message_source_type=MessageSourceType.VARIABLE, message_source="User::Text")
    mailing = replace(mailing, expressions={name: "@[User::Which]"})
    load = script("Load", "Which")
    module = written(
        load, mailing, variables=[names[name], variable("Text", "old")], constraints=[constraint(load, mailing)]
    )
    assert Severity.DECISION in {each.severity for each in module.findings}


@pytest.mark.parametrize(
    ("name", "expression"),
    [
        ("SmtpConnection", f'MONTH(GETDATE()) > 6 ? "{RELAY.name}" : "Other"'),
        ("MessageSourceType", "MONTH(GETUTCDATE()) > 6 ? 2 : 0"),
        ("MessageSource", 'DAY(@[User::Now]) == 1 ? "User::Text" : "User::Other"'),
    ],
)
def test_what_the_clock_decides_in_each_run_is_not_decided_on_the_day_of_the_import(name: str, expression: str) -> None:
    """Neither the connection nor where the text comes from; a variable may be what reads the clock."""
    mailing = mail(message_source_type=MessageSourceType.VARIABLE, message_source="User::Text")
    mailing = replace(mailing, expressions={name: expression})
    variables = [variable("Text", "text"), variable("Other", "other")]
    module = written(mailing, variables=[*variables, variable("Now", "", 7, expression="GETDATE()")])
    assert Severity.DECISION in {each.severity for each in module.findings}


def test_a_server_that_the_clock_chooses_is_asked_for() -> None:
    """The connection would have the server of the day of the import."""
    relay = smtp("SmtpServer=stored.corp.example;", expressions={"SmtpServer": 'DAY(GETDATE()) == 1 ? "a" : "b"'})
    options = ConversionOptions()
    registry = ConnectionRegistry(options)
    write_package(package(mail(connection=relay), connection_managers=(relay,)), registry, options)
    (connection,) = registry.connections
    assert connection.settings.host == "stored.corp.example"
    (found,) = [each for each in connection.findings if each.code == "connection-expression"]
    assert found.severity is Severity.DECISION
    assert "It reads the clock in each run." in found.text


@pytest.mark.parametrize(
    ("name", "expression", "value"),
    [
        ("SmtpConnection", '@[User::Which] == "a" ? "Other" : "Relay"', "Relay"),
        ("MessageSourceType", '@[User::Which] == "a" ? 0 : 2', "2"),
        ("MessageSource", '@[User::Which] == "a" ? "User::Other" : "User::Text"', "User::Text"),
    ],
)
def test_a_note_says_which_value_the_dag_has_where_no_run_evaluates_an_expression(
    name: str, expression: str, value: str
) -> None:
    """An environment of the catalog, or whoever runs the package, may set another one."""
    mailing = mail(message_source_type=MessageSourceType.VARIABLE, message_source="User::Text")
    mailing = replace(mailing, expressions={name: expression})
    variables = [variable("Text", "text"), variable("Other", "other"), variable("Which", "b")]
    relay = smtp("SmtpServer=relay.corp.example;UseWindowsAuthentication=False;EnableSsl=False;", name="Relay")
    module = written(mailing, variables=variables, connection_managers=(RELAY, relay))
    (found,) = [each for each in module.findings if each.code == "property-evaluated"]
    assert (
        f"{name} comes from the expression {expression}; the DAG has its value from the files: {value}." in found.text
    )


@pytest.mark.parametrize("value", [RELAY.name, RELAY.id, RELAY.id.lower()])
def test_an_expression_may_give_the_name_or_the_id_of_a_connection_manager(value: str) -> None:
    """As the property itself may have either."""
    module = written(mail(connection=None, expressions={"SmtpConnection": f'"{value}"'}))
    assert "connection-to-choose" not in codes(module.findings)
    assert 'smtpcm_conn_id="smtp_mail_corp_example"' in module.source


@pytest.mark.parametrize(
    ("attachments", "asks"),
    [("@[User::File]", True), ('"/out/" + @[User::File]', False)],
)
def test_a_path_that_an_expression_sets_in_each_run_is_asked_about(attachments: str, asks: bool) -> None:
    r"""No option maps a `D:\` that is only known in a run; the mail would fail for lack of its file."""
    task = ExpressionTask(name="Set", id="{set}", path=("Package", "Set"), expression='@[User::File] = "D:\\\\a.csv"')
    mailing = mail(expressions={"FileAttachments": attachments})
    module = written(task, mailing, variables=[variable("File", "")], constraints=[constraint(task, mailing)])
    assert ("unmapped-path" in codes(module.findings)) is asks
    # What takes the place of a placeholder sets a path of the workers.
    load = script("Load", "File")
    module = written(load, mailing, variables=[variable("File", "")], constraints=[constraint(load, mailing)])
    assert "unmapped-path" not in codes(module.findings)


@pytest.mark.parametrize(
    ("setter", "value"),
    [
        (SqlTask(name="Set", id="{set}", path=("Package", "Set"), **SELECT), "D:\\\\out\\\\old.csv"),
        (ExpressionTask(name="Set", id="{set}", path=("Package", "Set"), expression='@[File] = "D:\\\\a.csv"'), ""),
        (ExpressionTask(name="Set", id="{set}", path=("Package", "Set"), expression='@[File] = @[Folder] + "a"'), ""),
    ],
)
def test_the_root_of_a_path_that_a_task_sets_is_asked_for(setter: Executable, value: str) -> None:
    """If the package tells it: by the value of the developer, by a literal; also if another root is mapped."""
    mailing = mail(expressions={"FileAttachments": "@[User::File]"})
    variables = [variable("File", value.replace("\\\\", "\\")), variable("Folder", "D:\\out\\")]
    for path_map in ((), ((r"E:\in", "/srv/in"),)):
        module = written(
            setter,
            mailing,
            variables=variables,
            constraints=[constraint(setter, mailing)],
            options=ConversionOptions(path_map=path_map),
        )
        (found,) = [one for one in module.findings if one.code == "unmapped-path"]
        assert found.question is not None
        assert found.question.key == "path D:\\"
        assert "'User::File') | safe }}" in re.sub(r'"\s+"', "", module.source)


@pytest.mark.parametrize("sets", [("Word",), ()])
def test_a_value_that_any_expression_uses_as_a_password_is_written_nowhere(sets: tuple[str, ...]) -> None:
    """Not by a mail either that was converted before it, nor as the default of a variable that a task sets."""
    load = script("Load", *sets)
    first = mail("First", expressions={"Subject": "@[User::Word]"})
    second = mail("Second", expressions={"MessageSource": '"Your password: " + @[User::Word]'})
    login = replace(RELAY, expressions={"ConnectionString": '"SmtpServer=x;Password=" + @[User::Word]'})
    constraints = [constraint(load, first), constraint(first, second)]
    everything: dict[str, Any] = {"variables": [variable("Word", "hunter2")], "constraints": constraints}
    assert "hunter2" not in written(load, first, second, **everything).source
    assert "hunter2" not in written(load, first, connection_managers=(RELAY, login), **everything).source


def race(*constraints_of: Any) -> set[str]:
    """Return the codes of the decisions about two setters, under constraints that a function of the tasks returns."""
    first, left, right, mailing = other_task("First"), script("Left", "Rows"), script("Right", "Rows"), count_mail()
    (make,) = constraints_of
    everything = make(first, left, right, mailing)
    module = written(first, left, right, mailing, variables=[ROWS], constraints=everything)
    return {each.code for each in module.findings if each.severity is Severity.DECISION}


def test_which_of_two_tasks_at_the_same_time_counts_is_a_question() -> None:
    """SSIS uses the value of the one that ends last, which is always the slow one."""
    assert race(lambda _, left, right, mailing: [constraint(left, mailing), constraint(right, mailing)]) == {
        "set-by-several-tasks"
    }


@pytest.mark.parametrize(
    ("to_left", "to_right"),
    [
        ({}, {"value": ConstraintValue.FAILURE}),
        (
            {"eval_op": EvalOp.EXPRESSION_AND_CONSTRAINT, "expression": "@[User::Rows] == 7"},
            {"eval_op": EvalOp.EXPRESSION_AND_CONSTRAINT, "expression": "@[User::Rows] != 7"},
        ),
    ],
)
def test_of_two_branches_only_one_runs(to_left: dict[str, Any], to_right: dict[str, Any]) -> None:
    """Success and failure of one task, or two expressions: then there is no race."""
    assert not race(
        lambda first, left, right, mailing: [
            constraint(first, left, **to_left),
            constraint(first, right, **to_right),
            constraint(left, mailing, logical_and=False),
            constraint(right, mailing, logical_and=False),
        ]
    )


@pytest.mark.parametrize("passes", [False, True])
def test_the_module_says_what_its_placeholders_do(passes: bool) -> None:
    """On its first lines, where a reader who knows neither package nor option looks."""
    module = written(script("Load"), mail(), options=ConversionOptions(placeholders_pass=passes))
    head = " ".join(module.source.partition("import")[0].split())
    assert ("A PlaceholderOperator fails until a task with the same work takes its place." in head) is not passes
    assert ("A PlaceholderOperator succeeds and does nothing (--placeholders pass)" in head) is passes
