"""Pitfalls of real packages, from the file to the DAG; other cases are in the tests of the modules."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import pytest
from jinja2 import Environment

from airflow_provider_smtpcm.cli import main
from airflow_provider_smtpcm.ssis import macros

DTS = "www.microsoft.com/SqlServer/Dts"
MAIL = "www.microsoft.com/sqlserver/dts/tasks/sendmailtask"
GUID = "{4F2A0B8E-3C1D-4B6A-9E57-000000000001}"


def package(
    *, expressions: dict[str, str] | None = None, files: str = "", extra: str = "", name: str = "Send Mail", **mail: str
) -> str:
    """Return a package of SSIS 2014 with one connection manager and one mail; everything else is the default."""
    attributes = {"SMTPServer": GUID.lower(), "From": "etl@corp.example", "To": "ops@corp.example", **mail}
    written = " ".join(f"M:{key}={quoteattr(value)}" for key, value in attributes.items())
    computed = "".join(
        f'<DTS:PropertyExpression DTS:Name="{key}">{escape(text)}</DTS:PropertyExpression>'
        for key, text in (expressions or {}).items()
    )
    attached = f"<M:Attachments M:FileName={quoteattr(files)}/>" if files else ""
    return (
        f'<DTS:Executable xmlns:DTS="{DTS}" DTS:refId="Package" DTS:ExecutableType="Microsoft.Package"'
        f' DTS:ObjectName="Load"><DTS:Property DTS:Name="PackageFormatVersion">8</DTS:Property>{extra}'
        f'<DTS:ConnectionManagers><DTS:ConnectionManager DTS:CreationName="SMTP" DTS:ObjectName="Mail Server"'
        f' DTS:DTSID="{GUID}"><DTS:ObjectData><SmtpConnectionManager ConnectionString='
        '"SmtpServer=mail.corp.example;UseWindowsAuthentication=False;EnableSsl=False;"/></DTS:ObjectData>'
        "</DTS:ConnectionManager></DTS:ConnectionManagers><DTS:Variables>"
        '<DTS:Variable DTS:Namespace="User" DTS:ObjectName="File"><DTS:VariableValue DTS:DataType="8">rows.csv'
        "</DTS:VariableValue></DTS:Variable></DTS:Variables><DTS:Executables>"
        f"<DTS:Executable DTS:refId={quoteattr('Package' + chr(92) + name)} DTS:ObjectName={quoteattr(name)}"
        f' DTS:ExecutableType="Microsoft.SendMailTask">{computed}<DTS:ObjectData><M:SendMailTaskData xmlns:M="{MAIL}"'
        f" {written}>{attached}</M:SendMailTaskData></DTS:ObjectData></DTS:Executable>"
        "</DTS:Executables></DTS:Executable>"
    )


class Imported:
    """The result of an import."""

    def __init__(self, folder: Path, status: int) -> None:
        self.status = status
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        [self.package] = report["packages"]
        self.findings = {one["code"]: one for one in self.package["findings"]}
        self.source = (folder / self.package["dag_file"]).read_text(encoding="utf-8")
        calls = [node for node in ast.walk(ast.parse(self.source)) if isinstance(node, ast.Call)]
        [self.mail] = [
            {key.arg: ast.literal_eval(key.value) for key in call.keywords if key.arg}
            for call in calls
            if isinstance(call.func, ast.Name) and call.func.id == "SendMailOperator"
        ]

    def rendered(self, argument: str, **params: Any) -> str:
        """Render an argument of the mail as Airflow does."""
        template = Environment(autoescape=False).from_string(self.mail[argument])  # noqa: S701
        return template.render(params=params, ssis=macros)


@pytest.fixture
def run_import(tmp_path: Path) -> Any:
    """Imports a package with these arguments of the command."""

    def run(text: str, *words: str, file: str = "load.dtsx") -> Imported:
        (tmp_path / file).write_text(text, encoding="utf-8")
        status = main(["import-ssis", str(tmp_path / file), "--out", str(tmp_path / "out"), *words])
        return Imported(tmp_path / "out", status)

    return run


@pytest.mark.parametrize(
    ("kind", "source", "target", "intro"),
    [
        (7, '"Config";"[dbo].[SSIS Configurations]";"Mail";', "", "from a SQL Server table: "),
        (3, r"Mail\Server", r"\Package.Connections[Mail Server].Properties[SmtpServer]", "from a registry entry: "),
        (2, "MAIL_TO", r"\Package\Send Mail.Properties[ToLine]", "from an environment variable: "),
        (0, "Parent", r"\Package.Variables[User::File].Properties[Value]", "from a parent variable: "),
    ],
)
def test_a_configuration_outside_of_the_files_is_reported_and_changes_nothing(
    run_import: Any, kind: int, source: str, target: str, intro: str
) -> None:
    """In SQL Server, the registry, the environment, or the parent package."""
    extra = (
        '<DTS:Property DTS:Name="EnableConfig">1</DTS:Property><DTS:Configurations><DTS:Configuration'
        f' DTS:ConfigurationType="{kind}" DTS:ConfigurationString={quoteattr(source)} DTS:ObjectName="Mail"'
        f" DTS:ConfigurationVariable={quoteattr(target)}/></DTS:Configurations>"
    )
    done = run_import(package(extra=extra))
    finding = done.findings["configuration-not-read"]
    is_used = "User::File" not in target  # no mail uses that variable
    assert (done.status, finding["severity"]) == ((3, "decision") if is_used else (0, "note"))
    assert intro + source in finding["text"]
    assert target in finding["text"]
    assert done.mail["to"] == "ops@corp.example"
    assert done.mail["smtpcm_conn_id"] == "smtp_mail_corp_example"


@pytest.mark.parametrize(
    ("expression", "path"),
    [
        (r'"\\\\files\\loads\\" + @[User::File]', "/srv/loads/rows.csv"),
        (r'"\\\\FILES\\Loads" + "\\" + @[User::File]', "/srv/loads/rows.csv"),
        (r'"\\\\" + "files\\" + "loads\\out\\" + @[User::File]', "/srv/loads/out/rows.csv"),
        (
            r'@[User::File] == "" ? "" : "\\\\files\\loads\\" + @[User::File] + "|C:\\x\\a.csv"',
            "/srv/loads/rows.csv|/c/a.csv",
        ),
        (r'(DT_WSTR, 50)("\\\\files\\loads\\" + @[User::File])', "/srv/loads/rows.csv"),
    ],
)
def test_a_share_in_an_expression_is_mapped(run_import: Any, expression: str, path: str) -> None:
    """In one literal, in several, in a conditional, in a list."""
    words = ("--map-path", r"\\files\loads=/srv/loads", "--map-path", r"C:\x=/c")
    done = run_import(package(expressions={"FileAttachments": expression}), *words)
    assert "unmapped-path" not in done.findings
    assert done.rendered("attachments", File="rows.csv") == path


@pytest.mark.parametrize("path", [r"reports\today.csv", "today.csv", r"..\out\a.csv", r"%TEMP%\a.csv"])
@pytest.mark.parametrize("computed", [True, False])
def test_a_relative_path_is_reported(run_import: Any, path: str, computed: bool) -> None:
    """It depends on the folder in which SSIS happens to run."""
    escaped = path.replace("\\", "\\\\")
    given: Any = {"expressions": {"FileAttachments": f'"{escaped}"'}} if computed else {"files": path}
    finding = run_import(package(**given)).findings["unmapped-path"]
    assert finding["text"].startswith(f"{path} is a relative path")


@pytest.mark.parametrize("to", ["", " ", " ; ;"])
def test_a_blank_recipient_list_is_empty(run_import: Any, to: str) -> None:
    """An expression for the list counts as a recipient."""
    assert "no-recipient" in run_import(package(To=to)).findings
    done = run_import(package(To=to, expressions={"ToLine": '"dba@corp.example"'}))
    assert "no-recipient" not in done.findings
    assert done.mail["to"] == "dba@corp.example"


@pytest.mark.parametrize("to", ["", "operations", "a@corp.example; operations"])
def test_a_mail_without_a_valid_recipient_does_not_keep_its_dag_from_loading(run_import: Any, to: str) -> None:
    """Its constructor would refuse it; as a placeholder it fails when it is sent, as in SSIS."""
    done = run_import(package(To=to))
    assert done.mail["to"] == "{{ complete_me.to }}"
    assert ("expression-to-complete" if to else "no-recipient") in done.findings


def test_a_list_of_recipients_over_several_lines_is_one_line(run_import: Any) -> None:
    """A header field is one line."""
    assert (
        run_import(package(To="a@corp.example;\r\n b@corp.example;\n")).mail["to"] == "a@corp.example; b@corp.example;"
    )


RECIPIENTS = "a@corp.example; b@corp.example; c@corp.example"


def test_recipients_on_lines_of_their_own_are_recipients(run_import: Any) -> None:
    """Who types a list into SSIS's editor presses Enter and forgets the semicolon."""
    lines = "a@corp.example\r\nb@corp.example ;\n\n c@corp.example"
    assert run_import(package(To=lines)).mail["to"] == RECIPIENTS
    assert run_import(package(expressions={"ToLine": f'"{lines}"'})).mail["to"] == RECIPIENTS


def test_recipients_on_the_lines_of_a_variable_are_recipients(run_import: Any) -> None:
    """A header field is one line, so the default of the param is."""
    text = (
        package(expressions={"CCLine": "@[User::File]"})
        .replace(">rows.csv\n", ">")
        .replace(">rows.csv", ">a@corp.example\nb@corp.example;\nc@corp.example")
    )
    assert f'"File": "{RECIPIENTS}"' in run_import(text).source


def test_each_path_in_a_variable_is_mapped(run_import: Any) -> None:
    """`|` separates them, as in the property itself."""
    text = package(expressions={"FileAttachments": "@[User::File]"}).replace(
        ">rows.csv", r">\\files\loads\a.csv|C:\x\b.csv"
    )
    done = run_import(text, "--map-path", r"\\files\loads=/srv/loads", "--map-path", r"C:\x=/c")
    assert "unmapped-path" not in done.findings
    assert done.rendered("attachments", File=r"\\files\loads\a.csv|C:\x\b.csv") == "/srv/loads/a.csv|/c/b.csv"


def test_a_dag_is_named_after_the_file_of_the_package(run_import: Any) -> None:
    """Copies keep the name of their original; the catalog and dtexec know the file's name."""
    text = package(expressions={"Subject": "@[System::PackageName]"}).replace(
        'DTS:ObjectName="Load"', 'DTS:ObjectName="Copied Name"'
    )
    done = run_import(text)
    assert (done.package["dag_id"], done.package["dag_file"]) == ("load", "dags/load.py")
    assert done.mail["subject"] == "Copied Name"
    assert done.findings["package-name-differs"]["severity"] == "note"


def test_a_text_in_place_of_a_variable_s_name_is_explained(run_import: Any) -> None:
    """MessageSourceType is Variable, and the expression gives the text itself."""
    given: Any = {"MessageSourceType": "Variable", "MessageSource": "User::File"}
    finding = run_import(package(expressions={"MessageSource": '"Load failed: see the log"'}, **given)).findings[
        "expression-to-complete"
    ]
    assert "gives a text and not the name of a variable; SSIS fails here" in finding["text"] + finding["remedy"]
    assert "DirectInput" in finding["text"] + finding["remedy"]


def test_the_name_of_a_type_is_not_a_secret(run_import: Any) -> None:
    """`PublicKeyToken=` is part of every .NET type; what follows it is ours."""
    kind = "Microsoft.SqlServer.Dts.Tasks.ScriptTask.ScriptTask, Microsoft.SqlServer.ScriptTask, PublicKeyToken=89845d"
    task = (
        f'<DTS:Executable DTS:refId="Package\\Script" DTS:ObjectName="Script" DTS:ExecutableType="{kind}"/>'
        "</DTS:Executables>"
    )
    done = run_import(package().replace("</DTS:Executables>", task))
    assert "(removed)" not in done.source
    assert "Script task" in done.source


def test_html_in_a_text_is_sent_as_ssis_sends_it_and_the_report_suggests_html(run_import: Any) -> None:
    """SSIS has plain text only."""
    done = run_import(package(MessageSource="<html><body><b>Done</b></body></html>"))
    assert done.mail["text"] == "<html><body><b>Done</b></body></html>"
    assert done.findings["html-in-text"]["severity"] == "note"
    assert "html-in-text" not in run_import(package(MessageSource="a < b and c > d")).findings


@pytest.mark.parametrize(
    ("written", "priority"),
    [("High", "high"), ("1", "high"), ("Low", "low"), ("5", "low"), ("Normal", None), ("3", None), ("0", None)],
)
def test_a_priority_is_a_word_or_dotnet_s_number(run_import: Any, written: str, priority: str | None) -> None:
    """SSIS's designer writes 0 if there is an expression."""
    assert run_import(package(Priority=written)).mail.get("priority") == priority


@pytest.mark.parametrize(
    ("name", "task_id"),
    [
        ("Laden/Prüfen", "laden_prufen"),
        ("メール", "meru"),
        ("Отправка почты", "otpravka_pochty"),
        ("发送邮件", "fa_song_you_jian"),
        ("☎", "task"),
        ("class", "class"),
        ("DAG", "dag"),
        ("1st / 2nd", "1st_2nd"),
    ],
)
def test_a_task_of_any_name_has_an_id_and_is_shown_by_its_name(run_import: Any, name: str, task_id: str) -> None:
    """Airflow's ids are ASCII without spaces."""
    done = run_import(package(name=name))
    assert done.mail["task_id"] == task_id
    assert done.mail.get("task_display_name", task_id) == name


def test_a_name_in_the_wrong_case_is_unknown_and_the_right_one_is_suggested(run_import: Any) -> None:
    """SSIS distinguishes case, and fails here, too."""
    finding = run_import(package(expressions={"Subject": "@[user::file]"})).findings["expression-to-complete"]
    assert "user::file is not in the package, but User::File is" in finding["text"]


def test_the_place_of_a_syntax_error_is_in_the_comment_and_not_in_the_finding(run_import: Any) -> None:
    """The caret needs a line of its own."""
    done = run_import(package(expressions={"Subject": '"unfinished " + @[User::File'}))
    assert "^" not in done.findings["expression-to-complete"]["text"]
    assert '        #     "unfinished " + @[User::File\n' in done.source


@pytest.mark.parametrize(
    ("name", "file"), [("email", "email_package"), ("calendar", "calendar_package"), ("Email", "Email")]
)
def test_the_file_of_a_dag_hides_no_module_of_python(run_import: Any, name: str, file: str) -> None:
    """A script in the DAGs folder imports the files next to it."""
    done = run_import(package(), file=f"{name}.dtsx")
    assert (done.package["dag_id"], done.package["dag_file"]) == (name, f"dags/{file}.py")


def test_a_system_variable_that_is_in_the_file_has_its_value(run_import: Any) -> None:
    """Who made the package, and which version it is; a date depends on the locale of the machine that wrote it."""
    expression = '@[System::CreatorName] + " " + (DT_WSTR, 9)@[System::VersionBuild] + " " + (DT_WSTR, 9)@[LocaleID]'
    properties = r'DTS:CreatorName="CORP\anna" DTS:VersionBuild="7" DTS:LocaleID="1031" DTS:CreationDate="1/2/2020"'
    text = package(expressions={"Subject": expression}).replace("<DTS:Executable ", f"<DTS:Executable {properties} ", 1)
    done = run_import(text)
    assert "expression-to-complete" not in done.findings
    assert done.rendered("subject") == r"CORP\anna 7 1031"
    version = "(DT_WSTR, 9)@[System::VersionMajor] + @[System::VersionComment]"
    assert run_import(text.replace("@[System::CreatorName]", version)).rendered("subject") == "1 7 1031"
    done = run_import(text.replace("System::CreatorName", "System::CreatorComputerName"))
    assert "expression-to-complete" in done.findings  # not in the file
    done = run_import(text.replace("@[System::CreatorName]", "(DT_WSTR, 30)@[System::CreationDate]"))
    assert "expression-to-complete" in done.findings
