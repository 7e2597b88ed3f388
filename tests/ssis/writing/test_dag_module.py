"""DAG modules as source text: stable under formatters and linters, reproducible, and without secrets."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jinja2 import Environment

from airflow_provider_smtpcm.ssis import macros, read_package
from airflow_provider_smtpcm.ssis.model import (
    ConstraintValue,
    Container,
    ContainerKind,
    EvalOp,
    MessageSourceType,
    Parameter,
    Project,
    Severity,
    Variable,
)
from airflow_provider_smtpcm.ssis.writing.connections import ConnectionRegistry
from airflow_provider_smtpcm.ssis.writing.conversion import ConversionOptions, DagModule, PropertyStatus
from airflow_provider_smtpcm.ssis.writing.dag_module import DagIds, write_package
from tests.ssis.writing.building import codes, constraint, handler, mail, other_task, package, smtp, variable, written

PACKAGES = sorted((Path(__file__).parent.parent / "packages").rglob("*.dtsx"))
RUFF = shutil.which("ruff") or str(Path(sys.executable).with_name("ruff"))
MADE = variable("Made", "", expression='"Pwd: " + "Hunter2"')
TRICKY = ['"', "'", "\\", "\n", "\r\n", "{{", "%}", "#", "\x00", "\u2028", "\u202e", "\f", "é", "`", '"""', " ", "a b"]
texts = st.lists(st.sampled_from(TRICKY) | st.text(max_size=8), max_size=40).map("".join)


def lint(*modules: DagModule) -> str:
    """Return the output of ruff, also about imports, and at two line lengths; empty if nothing is wrong."""
    output = ""
    for module in modules:
        commands: list[list[str]] = [["check", "--quiet", "--select", "E,F,I,W", "--ignore", "E501"]]
        commands += [["format", "--diff", "--quiet", "--line-length", length] for length in ("88", "120")]
        for command in commands:
            done = subprocess.run(
                [RUFF, *command, "--isolated", "--stdin-filename", module.file_name, "-"],
                input=module.source,
                capture_output=True,
                text=True,
                encoding="utf-8",
                check=False,
                cwd=tempfile.gettempdir(),  # outside of this project, so that its package counts as third-party
            )
            output += done.stdout + done.stderr
    return output


def arguments(module: DagModule, operator: str = "SendMailOperator") -> list[dict[str, Any]]:
    """Return the literal arguments of each call of an operator."""
    return [
        {key.arg: ast.literal_eval(key.value) for key in node.keywords if key.arg and _is_literal(key.value)}
        for node in ast.walk(ast.parse(module.source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == operator
    ]


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def package_with_everything() -> DagModule:
    """Return the module of a package that uses every feature."""
    path = ("Package", "Outer", "Inner")
    one, two = other_task("Laden/Prüfen", path), mail("Laden/Prüfen ", path, subject="x" * 300)
    inner = Container(
        name="Inner", id="{inner}", path=path, executables=(one, two), constraints=(constraint(one, two),)
    )
    loop = Container(
        name="Outer",
        id="{outer}",
        path=path[:2],
        kind=ContainerKind.FOREACH_LOOP,
        executables=(inner,),
        event_handlers=(handler("OnTaskFailed", mail("Alert", (*path, "x")), owner=path[:2]),),
    )
    names = [f"A rather long name of a task, number {number}, of which there are many" for number in range(6)]
    tasks = [other_task(name) for name in names]
    alert = mail("alert", message_source="\n".join(f"line {number} " * 9 for number in range(20)))
    maybe = mail("maybe", expressions={"Disable": '@[User::X] == "quiet"', "Subject": '"It\'s \\"" + @[User::X]'})
    constraints = [constraint(task, alert, value=ConstraintValue.FAILURE, logical_and=False) for task in tasks]
    constraints += [
        constraint(loop, maybe, value=ConstraintValue.COMPLETION),
        constraint(tasks[0], loop),
        constraint(maybe, tasks[5]),
    ]
    constraints.append(
        constraint(tasks[1], maybe, eval_op=EvalOp.EXPRESSION_OR_CONSTRAINT, expression='@[User::X] == "a"')
    )
    return written(
        loop,
        *tasks,
        alert,
        maybe,
        constraints=constraints,
        variables=[variable("X", "some\ntext")],
        handlers=[
            handler("OnError", mail("Alert", ("Package", "y"))),
            handler("OnPostExecute", mail("Over", ("Package", "z"))),
        ],
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts, texts, texts)
def test_no_text_of_a_package_breaks_its_module_or_makes_it_untidy(name: str, text: str, value: str) -> None:
    """Names, texts, variables and unreadable expressions with any characters."""
    module = written(
        mail(name, subject=text, message_source=value, description=text),
        other_task(name + text),
        mail("x", expressions={"Subject": text, "MessageSource": "@[User::V]"}),
        name=name,
        variables=[variable("V", value)],
        handlers=[handler("OnError", mail(name, ("Package", "handler"), subject=text))],
    )
    compile(module.source, module.file_name, "exec")
    assert lint(module) == ""


def test_every_package_becomes_a_tidy_module() -> None:
    """The packages of the reader's tests, and one that uses every feature."""
    options = ConversionOptions()
    modules = [
        write_package(read_package(path), ConnectionRegistry(options), options)
        for path in PACKAGES
        if path.stem != "encrypted"
    ]
    modules = [*(one for one in modules if one.source), package_with_everything()]
    assert len(modules) > 8
    assert lint(*modules) == ""


def test_the_same_package_gives_the_same_bytes() -> None:
    """At every run and in every process."""
    assert package_with_everything() == package_with_everything()


def test_no_secret_is_in_a_module_or_a_connection() -> None:
    """Not the account of a connection string, a secret variable or a sensitive parameter."""
    relay = smtp("SmtpServer=mail.corp.example;UserName=joe;Password=hunter2;EnableSsl=True;")
    options = ConversionOptions()
    connections = ConnectionRegistry(options)
    content = package(
        mail(
            connection=relay,
            expressions={
                "Subject": "@[User::DbPassword] + @[User::Db] + @[$Package::Key] + @[User::Made]",
                "CCLine": '@[User::Gone] + "Password=hunter4;"',
            },
        ),
        connection_managers=(relay,),
        parameters=(Parameter(name="Key", value=None, sensitive=True),),
        variables=[
            variable("DbPassword", "hunter3"),
            variable("Db", "Data Source=x;Password=hunter3;"),
            variable("Made", "", expression='"Pwd=hunter3;"'),
        ],
    )
    module = write_package(content, connections, options)
    everything = module.source + connections.to_json() + repr(module.findings) + repr(module.mails)
    everything += repr(connections.connections)
    everything += "".join(one.ssis + one.became for each in module.mails for one in each.properties)
    assert "hunter" not in everything
    assert "joe" not in everything
    about = [finding for one in connections.connections for finding in one.findings]
    assert "account-in-connection-manager" in codes(about)
    assert "param-without-value" in codes(module.findings)


@pytest.mark.parametrize(
    "mail_of",
    [
        {"subject": "Server=x;Password=hunter1;"},
        {"message_source": "The job signs in with\nUser ID=hunter1; Pwd = hunter1"},
        {"description": "with Password=hunter1"},
        {"expressions": {"Subject": '"Password=hunter1;" + @[System::PackageName]'}},
        {"expressions": {"Subject": '"Server=x;User ID=" + "hunter1" + ";Password=" + "hunter1"'}},
        {"expressions": {"Subject": '"Pass" + "word=hunter1;" + @[System::PackageName]'}},
        {"expressions": {"Subject": '"Password=" + (@[User::Db] == "" ? "hunter1" : "hunter1")'}},
        {"expressions": {"Subject": '"a" + (@[User::Kind] == "Password=hunter1;" ? "b" : "c")'}},
        {"expressions": {"Subject": 'UPPER("Pass" + "word=" + (DT_WSTR, 9)"hunter1")'}},
        {"expressions": {"Subject": "@[User::Plain]", "MessageSource": '"Pwd=" + @[User::Plain]'}},
        {"expressions": {"Subject": '"Pwd: " + @[User::Plain]', "MessageSource": "@[User::Plain]"}},
        {"expressions": {"MessageSource": "@[User::Db]"}},
        {"expressions": {"MessageSource": "@[User::SmtpPass] + @[User::Pw] + @[User::MAIL_PASS] + @[User::Kennwort]"}},
    ],
)
def test_an_account_in_a_mail_is_not_repeated(mail_of: dict[str, Any]) -> None:
    """Whether it is in a text or in a variable of any name."""
    names = ("SmtpPass", "Pw", "MAIL_PASS", "Kennwort")
    values = [
        variable("Db", "Data Source=x;User ID=hunter1"),
        variable("Kind", "x"),
        variable("Plain", "hunter1"),
        *(variable(one, "hunter1") for one in names),
    ]
    module = written(mail(**mail_of), variables=values)
    compile(module.source, module.file_name, "exec")
    records = [one.ssis + one.became + one.note for each in module.mails for one in each.properties]
    assert "hunter1" not in module.source + repr(module.findings) + "".join(records)


@pytest.mark.parametrize(
    "mail_of",
    [
        {"subject": "Your password: Hunter2"},
        {"message_source": "Sign in as etl.\nPassword: Hunter2"},
        {"expressions": {"MessageSource": '"Pass" + "word: " + "Hunter2"'}},
        {"expressions": {"MessageSource": "@[User::Greeting]"}},
        {"expressions": {"MessageSource": "@[User::Made]"}},
    ],
)
def test_a_mail_with_a_password_is_kept_and_reported(mail_of: dict[str, Any]) -> None:
    """It is the author's text. The finding does not repeat the password."""
    module = written(mail(**mail_of), variables=[variable("Greeting", "Password: Hunter2"), MADE])
    assert "Hunter2" in module.source
    assert "complete_me" not in module.source
    (found,) = [one for one in module.findings if one.code == "password-in-text"]
    assert found.severity is Severity.DECISION
    assert found.where in {"Package\\Send Mail", "User::Greeting"}
    assert "Hunter2" not in found.text


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("data_type", [8, 3])
def test_a_project_parameter_that_ssis_requires_is_asked_for(data_type: int, *, required: bool) -> None:
    """Without a value in the files; an optional one is empty in SSIS, too."""
    parameter = Parameter(name="Team", value="", data_type=data_type, required=required, scope="Project")
    project = Project(name="Sales", path="/p", parameters=(parameter,))
    subject = "(DT_WSTR, 9)@[$Project::Team]"
    module = written(mail(expressions={"Subject": subject}), project=project)
    found = [one for one in module.findings if one.code == "variable-to-set"]
    assert bool(found) is (required or data_type == 3)  # an empty text is no number
    assert ("get('Sales_Team')" in module.source) is bool(found)
    if required:
        assert "SSIS requires one" in found[0].text
        assert found[0].question is not None


def test_a_mail_about_a_password_is_not_reported() -> None:
    """Neither a text nor an expression whose value is unknown."""
    expressions = {"Subject": '"Password: " + @[$Package::Hint]'}
    hint = Parameter(name="Hint", value="", sensitive=False)
    module = written(mail(message_source="Password: see the vault", expressions=expressions), parameters=(hint,))
    assert "password-in-text" not in codes(module.findings)


@pytest.mark.parametrize("text", ['"x;Password=hunter1;"', '"x;Pass" + "word=hunter1;"'])
def test_an_account_in_a_condition_is_not_repeated(text: str) -> None:
    """The task of the condition fails until a person writes it."""
    one, two, text = other_task("a"), mail("b"), f"@[User::C] == {text}"
    constraints = [constraint(one, two, eval_op=EvalOp.EXPRESSION, expression=text)]
    module = written(one, two, constraints=constraints, variables=[variable("C", "x")])
    assert "hunter1" not in module.source + repr(module.findings)
    assert "complete_me.condition" in module.source
    assert "condition-to-complete" in codes(module.findings)


@pytest.mark.parametrize(("name", "value"), [("Passed", "12"), ("BypassCount", "3"), ("Text", "user = the one who")])
def test_a_harmless_variable_is_a_param_with_its_value(name: str, value: str) -> None:
    """Although its name or its value looks a little like a secret."""
    module = written(mail(expressions={"Subject": f"@[User::{name}]"}), variables=[variable(name, value)])
    assert f'"{name}": "{value}"' in module.source


def test_two_packages_of_one_name_are_two_files() -> None:
    """Also if the names differ only in case, which some file systems ignore."""
    dag_ids, options = DagIds(), ConversionOptions()
    made = [
        write_package(package(mail(), name=name), ConnectionRegistry(options), options, dag_ids=dag_ids)
        for name in ("Load", "load", "Load")
    ]
    assert [one.file_name for one in made] == ["Load.py", "load_2.py", "Load_3.py"]
    assert ["dag-id-taken" in codes(one.findings) for one in made] == [False, True, True]


def test_a_second_package_of_one_name_gets_the_name_of_its_project() -> None:
    """A number would not tell them apart."""
    dag_ids, options = DagIds(), ConversionOptions()
    made = [
        write_package(
            package(mail(), name="Load"),
            ConnectionRegistry(options),
            options,
            dag_ids=dag_ids,
            project=Project(name=name, path=f"{name}/{name}.dtproj"),
        )
        for name in ("Sales", "Billing", "Billing")
    ]
    assert [one.dag_id for one in made] == ["Load", "Billing_Load", "Billing_Load_2"]


def test_a_package_whose_mails_are_all_disabled_has_no_dag() -> None:
    """The report lists them all the same."""
    off = mail(disabled=True, disabled_because="Package")
    module = written(off)
    assert module.source == ""
    assert [one.disabled_because for one in module.mails] == ["Package"]


def test_a_value_beside_an_expression_is_never_written() -> None:
    """Whether the expression is translated or not."""
    stale = dict.fromkeys(
        ("from_line", "to_line", "cc_line", "bcc_line", "subject", "message_source"), "stale@x.example"
    )
    names = ("FromLine", "ToLine", "CCLine", "BCCLine", "Subject", "MessageSource", "FileAttachments", "Priority")
    for text in ("@[User::X]", "@[User::Gone]", "1 +"):
        one = mail(**stale, file_attachments="stale", priority="High", expressions=dict.fromkeys(names, text))
        module = written(one, variables=[variable("X", "5", 3)])
        assert "stale" not in module.source
        assert ("expression-to-complete" in codes(module.findings)) is (text != "@[User::X]")


def test_every_property_has_a_record_of_what_became_of_it() -> None:
    """Kept, translated, mapped, or to be completed."""
    one = mail(priority="High", file_attachments="C:\\a.txt", expressions={"Subject": "@[User::X]", "CCLine": "1 +"})
    module = written(one, variables=[variable("X", "5")])
    (record,) = module.mails
    assert (record.became, record.connection) == ("task send_mail", "smtp_mail_corp_example")
    statuses = {each.property: each.status for each in record.properties}
    assert statuses == {
        "SmtpConnection": PropertyStatus.MAPPED,
        "FromLine": PropertyStatus.KEPT,
        "ToLine": PropertyStatus.KEPT,
        "CCLine": PropertyStatus.DECISION,
        "Subject": PropertyStatus.TRANSLATED,
        "MessageSource": PropertyStatus.KEPT,
        "Priority": PropertyStatus.MAPPED,
        "FileAttachments": PropertyStatus.KEPT,
    }
    (path,) = [each for each in module.findings if each.code == "unmapped-path"]
    assert path.severity is Severity.DECISION
    assert "C:\\a.txt" in path.text


def test_only_params_that_a_template_uses_are_written_each_with_its_type() -> None:
    """One that is empty in the package, and that no task sets, is empty in SSIS too: there is nothing to decide."""
    one = mail(expressions={"Subject": "(DT_WSTR, 9)@[User::N] + @[User::S] + (DT_WSTR, 9)@[User::B]"})
    variables = [variable("N", "7", 3), variable("S"), variable("B", "-1", 11), variable("Unused", "x")]
    module = written(one, variables=variables)
    (dag,) = arguments(module, "DAG")
    assert dag["params"] == {"N": 7, "S": "", "B": True}
    assert {each.where for each in module.findings if each.code == "variable-became-param"} == {
        "User::N",
        "User::S",
        "User::B",
    }
    assert {each.severity for each in module.findings} == {Severity.NOTE}


@pytest.mark.parametrize(
    ("value", "type_", "text"),
    [
        ("1. 2. 2023", 7, "2/1/2023"),
        ("1/2/23", 7, "1/2/2023"),
        ("", 7, "12/30/1899"),
        (None, 7, "12/30/1899"),
        ("", 14, "0"),
        ("", 6, "0.0000"),
    ],
)
def test_a_design_time_value_is_read_as_ssis_reads_it(value: str | None, type_: int, text: str) -> None:
    """Dates in the forms of OLE Automation; what is empty is its day 0, or 0."""
    one = mail(expressions={"Subject": "(DT_WSTR, 30)@[User::Value]"})
    module = written(one, variables=[variable("Value", value, type_)])
    params, (given,) = arguments(module, "DAG")[0]["params"], arguments(module)
    rendered = Environment(autoescape=False).from_string(given["subject"])  # noqa: S701
    assert rendered.render(params=params, ssis=macros) == text
    assert {each.severity for each in module.findings} == {Severity.NOTE}


@pytest.mark.parametrize(("value", "type_"), [("leden 2023", 7), ("44927", 7), ("1,5", 14), ("1,5", 5), ("x", 3)])
def test_a_design_time_value_in_no_known_form_is_asked_for(value: str, type_: int) -> None:
    """The mail would fail in a run; if a task sets the variable, it may never need it."""
    one = mail(expressions={"Subject": "(DT_WSTR, 30)@[User::Value]"})
    module = written(one, variables=[variable("Value", value, type_)])
    (found,) = [each for each in module.findings if each.severity is Severity.DECISION]
    assert (found.code, found.question and found.question.key) == ("param-without-value", "variable User::Value")
    assert repr(value) in found.text
    load = other_task("Load", sets=("User::Value",))
    module = written(load, one, variables=[variable("Value", value, type_)], constraints=[constraint(load, one)])
    assert {each.severity for each in module.findings} == {Severity.NOTE}
    assert any(repr(value) in each.text for each in module.findings)


def test_a_template_that_fails_leaves_no_params_and_no_findings_about_them() -> None:
    """Neither of a property nor of a condition."""
    one = mail(expressions={"Subject": "@[User::Used] + @[User::Gone]", "Disable": "@[User::Used] == @[User::Gone]"})
    module = written(one, variables=[variable("Used")])
    assert "params" not in arguments(module, "DAG")[0]
    assert {"expression-to-complete", "condition-to-complete"} <= codes(module.findings)
    assert "param-without-value" not in codes(module.findings)


def test_a_path_that_a_variable_holds_is_mapped_too() -> None:
    """The folder is in a variable, the file name in a literal; the subject shows the path that the package has."""
    one = mail(expressions={"FileAttachments": '@[User::Folder] + "\\\\a.csv"', "Subject": "@[User::Folder]"})
    options = ConversionOptions(path_map=((r"\\srv\out", "/mnt/out"),))
    module = written(one, variables=[variable("Folder", r"\\SRV\out\daily")], options=options)
    (dag,) = arguments(module, "DAG")
    assert dag["params"] == {"Folder": r"\\SRV\out\daily"}
    (given,) = arguments(module)
    assert given["subject"] == "{{ params['Folder'] }}"
    rendered = Environment(autoescape=False).from_string(given["attachments"])  # noqa: S701
    assert rendered.render(params=dag["params"], ssis=macros) == "/mnt/out/daily/a.csv"
    assert "unmapped-path" not in codes(module.findings)


def test_a_variable_s_expression_is_bound_where_it_is_declared() -> None:
    """Not to an inner variable of the same name in the scope of the task."""
    path = ("Package", "Box")
    inner = Variable(namespace="User", name="Who", value="inner", scope=path)
    task = mail("m", path, expressions={"Subject": "@[User::Who] + @[User::Built]", "SmtpConnection": "@[User::Cm]"})
    box = Container(name="Box", id="{box}", path=path, executables=(task,), variables=(inner,))
    relay = smtp("SmtpServer=mail.corp.example;", name="outer")
    module = written(
        box,
        variables=[
            variable("Who", "outer"),
            variable("Built", "", expression='" for " + @[User::Who]'),
            variable("Cm", "", expression="@[User::Who]"),
        ],
        connection_managers=(relay,),
    )
    [given] = arguments(module)
    assert given["subject"] == "{{ params['Who'] }} for {{ params['Who_2'] }}"
    assert '"Who": "inner"' in module.source
    assert '"Who_2": "outer"' in module.source
    assert given["smtpcm_conn_id"] == "smtp_mail_corp_example"


def test_inlining_is_limited() -> None:
    """Twenty variables that each use another one twice would make a million."""
    values = [variable(f"V{one}", "", expression=f"@[User::V{one - 1}] + @[User::V{one - 1}]") for one in range(1, 20)]
    module = written(mail(expressions={"Subject": "@[User::V19]"}), variables=[variable("V0", "x"), *values])
    assert "complete_me.subject" in module.source


def test_tasks_of_one_name_in_many_containers_have_their_own_ids() -> None:
    """A number within one container, the group's id in another; the SSIS name is the display name."""
    path = ("Package", "Box")
    box = Container(name="Box", id="{box}", path=path, executables=(mail("通知", path), mail("通知!", path)))
    module = written(mail("a/b"), mail("a b"), box)
    assert [(one["task_id"], one["task_display_name"]) for one in arguments(module)] == [
        ("a_b", "a/b"),
        ("a_b_2", "a b"),
        ("tong_zhi", "通知"),
        ("tong_zhi_2", "通知!"),
    ]


def test_handlers_reach_what_is_in_their_containers() -> None:
    """The container's comes before the package's, and Propagate = False suppresses the package's."""
    path = ("Package", "Box")
    for propagate, expected in ((None, ["on_error_inner", "on_error_outer"]), (False, ["on_error_inner"])):
        box = Container(
            name="Box",
            id="{box}",
            path=path,
            executables=(other_task("load", path),),
            event_handlers=(handler("OnError", mail("Inner", (*path, "h")), owner=path, propagate=propagate),),
        )
        module = written(box, handlers=[handler("OnError", mail("Outer", ("Package", "h")))])
        group = module.source[module.source.index("TaskGroup(") :]
        found = [name for name in ("on_error_inner", "on_error_outer") if name in group]
        assert found == expected


def test_an_event_that_airflow_does_not_have_is_reported() -> None:
    """Its mail is not in the DAG."""
    module = written(mail(), handlers=[handler("OnProgress", mail("Progress", ("Package", "h")))])
    assert "event-without-callback" in codes(module.findings)
    assert "Progress" not in module.source.partition('"""\n\n')[2]


def test_a_message_variable_that_is_not_a_string_is_reported() -> None:
    """SSIS fails there."""
    one = mail(message_source_type=MessageSourceType.VARIABLE, message_source="User::N")
    assert "message-variable-no-text" in codes(written(one, variables=[variable("N", "1", 3)]).findings)


def test_a_path_prefix_in_an_expression_is_mapped_too() -> None:
    """A literal has the prefix and a variable the rest; in any case and with either slash."""
    attached = mail(expressions={"FileAttachments": r'"\\\\SRV\\Out\\" + @[User::Day] + ".csv|//srv/out/log.txt"'})
    options = ConversionOptions(path_map=((r"\\srv\out", "/mnt/out"),))

    module = written(attached, options=options, variables=[variable("Day", "2026-11-25")])

    [given] = arguments(module)
    assert "/mnt/out/{{ params['Day'] }}.csv" in str(given["attachments"])
    assert "/mnt/out/log.txt" in str(given["attachments"])
    assert "unmapped-path" not in codes(module.findings)


@pytest.mark.parametrize(
    ("expression", "is_noted"),
    [
        ("(DT_WSTR, 30)@[User::Day]", True),
        ("(DT_WSTR, 30)(DT_DATE)GETDATE()", True),
        ('(DT_STR, 30, 1252)DATEADD("d", 1, @[User::Day])', True),
        ("(DT_WSTR, 30)(ISNULL(@[User::Day]) ? @[User::Day] : (DT_DATE)GETDATE())", True),
        ("(DT_WSTR, 30)@[System::ContainerStartTime]", True),
        ("(DT_WSTR, 30)@[System::StartTime]", False),
        ("(DT_WSTR, 30)GETDATE()", False),
        ("(DT_WSTR, 30)(DT_DBDATE)@[User::Day]", False),
        ("(DT_WSTR, 4)YEAR(@[User::Day])", False),
    ],
)
def test_a_date_as_text_is_in_us_english_and_a_package_of_another_locale_gets_a_note(
    expression: str, is_noted: bool
) -> None:
    """The text of the other date types is the same everywhere."""
    day = variable("Day", "1/31/2026", 7)
    dated = mail(expressions={"Subject": expression})
    for properties, of_another_locale in (({}, True), ({"LocaleID": 1031}, True), ({"LocaleID": 1033}, False)):
        found = codes(written(dated, variables=[day], properties=properties).findings)
        assert ("date-format" in found) is (is_noted and of_another_locale)
