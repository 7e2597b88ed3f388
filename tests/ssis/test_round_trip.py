"""Packages as DAGs that run: the mail that arrives is the mail that SSIS would have sent, and no other."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from airflow import __version__ as airflow_version
from airflow.sdk import DAG

from airflow_provider_smtpcm.operators.ssis import PlaceholderOperator
from airflow_provider_smtpcm.ssis.model import (
    ConstraintValue,
    Container,
    EvalOp,
    ExpressionTask,
    FileConnection,
    MessageSourceType,
    Parameter,
    Project,
    Severity,
)
from airflow_provider_smtpcm.ssis.writing.conversion import ConversionOptions, DagModule
from airflow_provider_smtpcm.testing import Relay
from tests.airflow_database import forget_dag
from tests.ssis.writing import building
from tests.ssis.writing.building import constraint, handler, mail, other_task, variable

RunDag = Callable[[DAG], Any]
FAILURE, COMPLETION = ConstraintValue.FAILURE, ConstraintValue.COMPLETION


class Fails(PlaceholderOperator):
    """Replaces a task that fails."""

    def execute(self, context: Any) -> None:  # noqa: ARG002
        raise RuntimeError("the source is locked")


def written(*executables: Any, options: ConversionOptions | None = None, **more: Any) -> DagModule:
    """Return the module of such a package; the tasks that the import cannot translate succeed."""
    options = replace(options or ConversionOptions(), placeholders_pass=True)
    return building.written(*executables, options=options, **more)


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """A relay for the connection that the packages use."""
    with Relay(ssl_mode="none") as relay:
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_MAIL_CORP_EXAMPLE", json.dumps(relay.airflow_connection()))
        yield relay


@pytest.fixture
def run(run_dag: RunDag, tmp_path: Path) -> Callable[..., str]:
    """Runs a module's DAG with these tasks failing; returns its state."""

    def run_module(module: DagModule, *failing: str) -> str:
        source = module.source
        for task in failing:
            placeholder = re.compile(rf'PlaceholderOperator\((\s+task_id="{task}")')
            assert placeholder.search(source), task
            source = placeholder.sub(r"Fails(\1", source)
        space: dict[str, Any] = {"Fails": Fails, "__name__": "dag_module"}
        file = tmp_path / module.file_name
        file.write_text(source, encoding="utf-8")
        exec(compile(source, file, "exec"), space)  # noqa: S102 - it is what Airflow does with a DAG's file
        forget_dag(module.dag_id)
        return str(run_dag(space["dag"]).state)

    return run_module


def subjects(relay: Relay) -> list[str]:
    """Return the subjects of the mails that arrived."""
    return sorted(str(one.message["Subject"]) for one in relay.messages)


def body(one: Any) -> str:
    """Return the text of a mail."""
    return str(one.message.get_body(("plain",)).get_content()).replace("\r\n", "\n")


def test_a_mail_with_an_untranslatable_expression_is_not_sent(relay: Relay, run: Any) -> None:
    """Not with the value either that the developer's machine evaluated last."""
    module = written(mail(subject="Stale", expressions={"Subject": "@[User::Gone]"}))
    assert run(module) == "failed"
    assert relay.messages == []


def test_a_failure_upstream_sends_one_mail_and_not_one_for_each_task_that_never_ran(relay: Relay, run: Any) -> None:
    """Airflow counts those tasks as failed; SSIS does not."""
    tasks = [other_task(name) for name in "abc"]
    mails = [mail(f"Mail {task.name}", subject=task.name) for task in tasks]
    constraints = [constraint(tasks[0], tasks[1]), constraint(tasks[1], tasks[2])]
    constraints += [constraint(task, one, value=FAILURE) for task, one in zip(tasks, mails, strict=True)]
    module = written(*tasks, *mails, constraints=constraints)
    assert run(module, "a") == "failed"
    assert subjects(relay) == ["a"]
    assert run(module, "b") == "failed"
    assert subjects(relay) == ["a", "b"]


def test_a_mail_after_any_of_several_failures_comes_once(relay: Relay, run: Any) -> None:
    """The constraints of several tasks lead to one mail, and one of them is enough."""
    tasks = [other_task(name) for name in "abc"]
    failed = mail(subject="failed")
    constraints = [constraint(tasks[0], tasks[1]), constraint(tasks[1], tasks[2])]
    constraints += [constraint(task, failed, value=FAILURE, logical_and=False) for task in tasks]
    module = written(*tasks, failed, constraints=constraints)
    assert run(module, "b") == "failed"
    assert subjects(relay) == ["failed"]
    relay.clear()
    assert run(module) == "success"
    assert relay.messages == []


def test_completion_sends_a_mail_and_a_task_that_never_ran_does_not(relay: Relay, run: Any) -> None:
    """Completion of a task that runs only after another."""
    first, second, done = other_task("first"), other_task("second"), mail(subject="second is over")
    module = written(
        first, second, done, constraints=[constraint(first, second), constraint(second, done, value=COMPLETION)]
    )
    assert run(module, "first") == "failed"
    assert relay.messages == []
    assert run(module, "second") == "failed"
    assert subjects(relay) == ["second is over"]


def test_a_container_with_a_skipped_failure_mail_has_succeeded(relay: Relay, run: Any) -> None:
    """One in which something failed has not: only its failure constraint holds."""
    load, failed = other_task("load", ("Package", "Box")), mail("failed", ("Package", "Box"), subject="load failed")
    box = Container(
        name="Box",
        id="{box}",
        path=("Package", "Box"),
        executables=(load, failed),
        constraints=(constraint(load, failed, value=FAILURE),),
    )
    well, badly = mail("well", subject="box is well"), mail("badly", subject="box failed")
    module = written(box, well, badly, constraints=[constraint(box, well), constraint(box, badly, value=FAILURE)])
    assert run(module) == "success"
    assert subjects(relay) == ["box is well"]
    relay.clear()
    assert run(module, "load") == "failed"
    assert subjects(relay) == ["box failed", "load failed"]


def test_a_failure_deep_in_containers_stops_what_comes_after_them(relay: Relay, run: Any) -> None:
    """Although the last task in them, the failure mail, succeeds; and the DAG run fails."""
    path = ("Package", "Outer", "Inner")
    load, failed = other_task("load", path), mail("failed", path, subject="load failed")
    constraints = (constraint(load, failed, value=FAILURE),)
    inner = Container(name="Inner", id="{inner}", path=path, executables=(load, failed), constraints=constraints)
    outer = Container(name="Outer", id="{outer}", path=path[:2], executables=(inner,))
    after = mail("after", subject="all is well")
    module = written(outer, after, constraints=[constraint(outer, after)])
    assert run(module) == "success"
    assert subjects(relay) == ["all is well"]
    relay.clear()
    assert run(module, "load") == "failed"
    assert subjects(relay) == ["load failed"]


def test_a_handler_of_a_package_is_called_for_tasks_deep_in_containers(relay: Relay, run: Any) -> None:
    """After that of the container in between; each once."""
    path = ("Package", "Outer", "Inner")
    inner = Container(name="Inner", id="{inner}", path=path, executables=(other_task("load", path),))
    of_outer = handler("OnError", mail("outer", (*path[:2], "h"), subject="outer"), owner=path[:2])
    outer = Container(name="Outer", id="{outer}", path=path[:2], executables=(inner,), event_handlers=(of_outer,))
    of_load = handler("OnTaskFailed", mail("own", ("Package", "h"), subject="own"), owner=("Package", "second"))
    second = other_task("second", event_handlers=(of_load,))
    module = written(outer, second, handlers=[handler("OnError", mail("package", ("Package", "h"), subject="package"))])
    assert run(module, "second") == "failed"
    assert subjects(relay) == ["own", "package"]
    relay.clear()
    assert run(module, "load") == "failed"
    assert subjects(relay) == ["outer", "package"]


def test_a_condition_on_a_constraint_decides(relay: Relay, run: Any) -> None:
    """By the value of the param; the mail with the other condition is skipped."""
    load, some, none = other_task("load"), mail("some", subject="rows"), mail("none", subject="no rows")
    both = EvalOp.EXPRESSION_AND_CONSTRAINT
    module = written(
        load,
        some,
        none,
        variables=[variable("Rows", "3", 3)],
        constraints=[
            constraint(load, some, eval_op=both, expression="@[User::Rows] > 0"),
            constraint(load, none, eval_op=both, expression="@[User::Rows] == 0"),
        ],
    )
    assert run(module) == "success"
    assert subjects(relay) == ["rows"]


def test_a_mail_that_an_expression_disables_is_skipped(relay: Relay, run: Any) -> None:
    """What follows it runs, as in SSIS."""
    off = mail("off", subject="off", expressions={"Disable": "!@[User::Send]"})
    after = mail("after", subject="after")
    for value, expected in (("False", ["after"]), ("True", ["after", "off"])):
        module = written(off, after, variables=[variable("Send", value, 11)], constraints=[constraint(off, after)])
        assert run(module) == "success"
        assert subjects(relay) == expected
        relay.clear()


def test_a_disabled_mail_sends_nothing_and_what_follows_runs(relay: Relay, run: Any) -> None:
    """It is an empty task in its place."""
    off, after = mail("off", disabled=True, disabled_because="Package\\off"), mail("after", subject="after")
    assert run(written(off, after, constraints=[constraint(off, after)])) == "success"
    assert subjects(relay) == ["after"]


def test_an_error_handler_of_the_package_sends_a_mail_for_each_failed_task(relay: Relay, run: Any) -> None:
    """With the task's name and the message of its exception; a mail without text has none."""
    alert = mail(
        "Alert",
        ("Package.EventHandlers[OnError]",),
        expressions={
            "Subject": '@[System::PackageName] + ": " + @[System::SourceName] + " failed"',
            "MessageSource": "@[System::ErrorDescription]",
        },
    )
    plain = mail("Plain", ("Package.EventHandlers[OnError]",), subject="Without text", message_source="")
    module = written(other_task("a"), other_task("b"), handlers=[handler("OnError", alert, plain)])
    assert run(module, "a", "b") == "failed"
    assert subjects(relay) == ["Load: a failed", "Load: b failed", "Without text", "Without text"]
    texts = {str(one.message["Subject"]): body(one).strip() for one in relay.messages}
    # Before 3.3, `dag.test()` does not tell a callback of the exception; an alert without a text is the default page.
    expected = "Task failed: Load.a" if airflow_version.startswith(("3.1.", "3.2.")) else "the source is locked"
    assert texts["Load: a failed"].startswith(expected)
    assert texts["Without text"] == ""


def test_the_conditions_of_an_event_handler_decide_which_alerts_are_sent(relay: Relay, run: Any) -> None:
    """By the name of the task, which is in a group; by a variable; and what a script copied is in the mail."""
    place = ("Package.EventHandlers[OnError]",)
    script = other_task("Script", place, sets=("User::Who",), assignments=(("User::Who", "@[System::SourceName]"),))
    named = mail("named", place, subject="named", expressions={"Disable": '@[System::SourceName] != "Copy all"'})
    copied = mail("copied", place, expressions={"Subject": '"failed: " + @[User::Who]'})
    off = mail("off", place, subject="off", expressions={"Disable": "@[User::Off]"})
    tasks = (other_task("Copy all", ("Package", "Box")), other_task("clean", ("Package", "Box")))
    module = written(
        Container(name="Box", id="{box}", path=("Package", "Box"), executables=tasks),
        variables=[variable("Who", ""), variable("Off", "True", 11)],
        handlers=[handler("OnError", script, named, copied, off, constraints=(constraint(script, copied),))],
    )
    assert run(module, "copy_all", "clean") == "failed"
    assert subjects(relay) == ["failed: Copy all", "failed: clean", "named"]


def test_every_property_of_a_mail_arrives(relay: Relay, run: Any, tmp_path: Path) -> None:
    """Sender, recipients of each kind, subject, text, priority and files."""
    (tmp_path / "a.csv").write_text("1;2\n")
    (tmp_path / "b.html").write_text("{{ not a template }}")
    text = 'Dear "all",\n\n{{ this }} is {% no %} template: {# at all #} 100 %\n' + "long " * 60 + "\nÄnderung — ok\n"
    module = written(
        mail(
            from_line="Nightly Load <etl@corp.example>",
            to_line="ops@corp.example; dba@corp.example;",
            cc_line="boss@corp.example",
            bcc_line="audit@corp.example",
            subject="Übersicht {{ 1 }}",
            message_source=text.replace("\n", "\r\n"),
            priority="High",
            file_attachments="\\\\SRV\\Share\\a.csv|\\\\srv\\share\\b.html||",
        ),
        options=ConversionOptions(path_map=((r"\\srv\share", str(tmp_path)),)),
    )
    assert run(module) == "success"
    (one,) = relay.messages
    message = one.message
    assert one.mail_from == "etl@corp.example"
    assert set(one.recipients) == {f"{who}@corp.example" for who in ("ops", "dba", "boss", "audit")}
    assert str(message["From"]) == "Nightly Load <etl@corp.example>"
    assert (message["Cc"], message["Bcc"]) == ("boss@corp.example", None)
    assert message["Subject"] == "Übersicht {{ 1 }}"
    assert body(one) == text
    # .NET's headers for High
    assert (message["X-Priority"], message["Priority"], message["Importance"]) == ("1", "urgent", "high")
    files = {part.get_filename(): part.get_content() for part in message.iter_attachments()}
    assert set(files) == {"a.csv", "b.html"}
    assert "{{ not a template }}" in str(files["b.html"])


@pytest.mark.parametrize(("written_as", "expected"), [("Low", "5"), ("Normal", None), ("0", None), ("1", "1")])
def test_a_priority_has_the_headers_of_dotnet(relay: Relay, run: Any, written_as: str, expected: str | None) -> None:
    """Normal has none; SSIS's designer writes 0 if there is an expression."""
    assert run(written(mail(priority=written_as))) == "success"
    assert relay.messages[0].message["X-Priority"] == expected


def test_expressions_are_evaluated_at_run_time(relay: Relay, run: Any, tmp_path: Path) -> None:
    """Not on the developer's machine: variables of variables, parameters, a path, a list of recipients."""
    (tmp_path / "rows.csv").write_text("1")
    module = written(
        mail(
            to_line="stale@corp.example",
            subject="Stale",
            message_source="Stale",
            file_attachments="C:\\stale.csv",
            expressions={
                "ToLine": "@[User::To]",
                "Subject": '"Failed: " + @[System::PackageName] + " (" + @[System::TaskName] + ")"',
                "MessageSource": '@[User::Greeting] + "\\n" + (DT_WSTR, 10)@[User::Rows] + " rows from " '
                "+ @[$Project::Source]",
                "Priority": "@[User::Rows] > 5 ? 1 : 3",
                "FileAttachments": '"D:\\\\Out\\\\" + @[User::File]',
            },
        ),
        name="Load – all",
        variables=[
            variable("To", "ops@corp.example;dba@corp.example"),
            variable("Greeting", "stale", expression='"Dear " + @[User::Who]'),
            variable("Who", "all"),
            variable("Rows", "12", 3),
            variable("File", "rows.csv"),
        ],
        project=Project(
            name="Nightly",
            path="/packages",
            parameters=(Parameter(name="Source", value="the warehouse", scope="Project"),),
        ),
        options=ConversionOptions(path_map=(("d:/out", str(tmp_path)),)),
    )
    assert "tale" not in module.source
    assert run(module) == "success"
    (one,) = relay.messages
    assert set(one.recipients) == {"ops@corp.example", "dba@corp.example"}
    assert one.message["Subject"] == "Failed: Load – all (Send Mail)"
    assert body(one) == "Dear all\n12 rows from the warehouse"
    assert one.message["X-Priority"] == "1"
    assert [part.get_filename() for part in one.message.iter_attachments()] == ["rows.csv"]


def test_a_value_beside_a_separator_may_hold_several_as_in_ssis(relay: Relay, run: Any, tmp_path: Path) -> None:
    """SSIS splits the value of the whole expression, for recipients and for files."""
    for name in ("a.csv", "b.csv", "c.csv"):
        (tmp_path / name).write_text("1")
    module = written(
        mail(
            expressions={
                "ToLine": '@[User::Ops] + ";boss@corp.example"',
                "CCLine": '@[User::Ops] == "" ? "none@corp.example" : "cc@corp.example," + @[User::More]',
                "FileAttachments": '"D:\\\\Out\\\\c.csv|" + @[User::Files]',
            },
        ),
        variables=[
            variable("Ops", "ops@corp.example;dba@corp.example"),
            variable("More", "d@corp.example,e@corp.example"),
            variable("Files", f"{tmp_path}/a.csv|{tmp_path}/b.csv"),
        ],
        options=ConversionOptions(path_map=(("d:/out", str(tmp_path)),)),
    )
    assert run(module) == "success"
    (one,) = relay.messages
    names = ("ops", "dba", "boss", "cc", "d", "e")
    assert list(one.recipients) == [f"{name}@corp.example" for name in names]
    assert [part.get_filename() for part in one.message.iter_attachments()] == ["c.csv", "a.csv", "b.csv"]


def test_a_text_comes_from_a_variable_or_from_a_file_as_it_is(relay: Relay, run: Any, tmp_path: Path) -> None:
    """Neither is a template; a mail without any text is sent all the same."""
    (tmp_path / "body.txt").write_bytes("Grüße {{ 1 }}".encode("cp1252"))
    source = MessageSourceType.VARIABLE
    of_variable = mail("variable", subject="1", message_source_type=source, message_source="User::Body")
    file = FileConnection(name="Body", id="{body}", connection_string="C:\\Texts\\body.txt")
    of_file = mail(
        "file",
        subject="2",
        message_source_type=MessageSourceType.FILE_CONNECTION,
        message_source="Body",
        message_file=file,
    )
    module = written(
        of_variable,
        of_file,
        mail("empty", subject="3", message_source=""),
        variables=[variable("Body", "From {{ a }} variable")],
        options=ConversionOptions(path_map=(("C:\\Texts", str(tmp_path)),)),
    )
    assert run(module) == "success"
    texts = {str(one.message["Subject"]): body(one).strip() for one in relay.messages}
    assert texts == {"1": "From {{ a }} variable", "2": "Grüße {{ 1 }}", "3": ""}


@pytest.mark.parametrize(
    "attachments", ["@[User::Files]", '@[User::Folder] + "\\\\rows.csv|" + @[User::Folder] + "\\\\b.csv"']
)
@pytest.mark.parametrize("answered", [True, False])
def test_a_path_that_an_expression_sets_is_mapped_in_each_run(
    attachments: str, answered: bool, tmp_path: Path, relay: Relay, run: Any
) -> None:
    """By an option or by an answer; several paths, each of them."""
    for name in ("rows.csv", "b.csv"):
        (tmp_path / name).write_text("1\n", encoding="utf-8")
    share = r"\\files\loads"
    options = (
        ConversionOptions(answers={f"path {share}": str(tmp_path)})
        if answered
        else ConversionOptions(path_map=((share, str(tmp_path)),))
    )
    paths = r"\\\\FILES\\loads\\rows.csv|\\\\files\\loads\\b.csv"
    folder = ExpressionTask(
        name="Folder", id="{1}", path=("Package", "Folder"), expression=r'@[User::Folder] = "\\\\files\\loads"'
    )
    files = ExpressionTask(name="Files", id="{2}", path=("Package", "Files"), expression=f'@[User::Files] = "{paths}"')
    mailing = mail(expressions={"FileAttachments": attachments})
    module = written(
        folder,
        files,
        mailing,
        variables=[variable("Folder", ""), variable("Files", "")],
        constraints=[constraint(folder, files), constraint(files, mailing)],
        options=options,
    )
    assert {each.severity for each in module.findings} == {Severity.NOTE}
    assert run(module) == "success"
    [sent] = relay.messages
    assert [part.get_filename() for part in sent.message.iter_attachments()] == ["rows.csv", "b.csv"]
