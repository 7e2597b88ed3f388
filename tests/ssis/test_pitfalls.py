"""What goes wrong with real packages, from the file to the DAG by the command; the rest is beside its module."""

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
    """A package of SSIS 2014 with one connection manager and one mail, of which everything else is the default."""
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
    """What became of it."""

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
        """A template of the mail, as Airflow works it out."""
        template = Environment(autoescape=False).from_string(self.mail[argument])  # noqa: S701
        return template.render(params=params, ssis=macros)


@pytest.fixture
def bring_over(tmp_path: Path) -> Any:
    """Imports a package with these words behind the command."""

    def run(text: str, *words: str) -> Imported:
        (tmp_path / "load.dtsx").write_text(text, encoding="utf-8")
        status = main(["import-ssis", str(tmp_path / "load.dtsx"), "--out", str(tmp_path / "out"), *words])
        return Imported(tmp_path / "out", status)

    return run


@pytest.mark.parametrize(
    ("kind", "source", "target", "told"),
    [
        (7, '"Config";"[dbo].[SSIS Configurations]";"Mail";', "", "from a sql server: "),
        (3, r"Mail\Server", r"\Package.Connections[Mail Server].Properties[SmtpServer]", "from a registry entry: "),
        (2, "MAIL_TO", r"\Package\Send Mail.Properties[ToLine]", "from an environment variable: "),
        (0, "Parent", r"\Package.Variables[User::File].Properties[Value]", "from a parent variable: "),
    ],
)
def test_a_configuration_that_is_in_no_file_is_told_and_changes_nothing(
    bring_over: Any, kind: int, source: str, target: str, told: str
) -> None:
    """In SQL Server, in the registry, in the environment, in the package that calls: a person looks it up."""
    extra = (
        '<DTS:Property DTS:Name="EnableConfig">1</DTS:Property><DTS:Configurations><DTS:Configuration'
        f' DTS:ConfigurationType="{kind}" DTS:ConfigurationString={quoteattr(source)} DTS:ObjectName="Mail"'
        f" DTS:ConfigurationVariable={quoteattr(target)}/></DTS:Configurations>"
    )
    done = bring_over(package(extra=extra))
    finding = done.findings["configuration-not-read"]
    assert done.status == 3
    assert finding["severity"] == "decision"
    assert told + source in finding["text"]
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
def test_a_share_in_an_expression_is_where_the_mapping_says(bring_over: Any, expression: str, path: str) -> None:
    """Whole, in pieces, in a choice, in a list."""
    words = ("--map-path", r"\\files\loads=/srv/loads", "--map-path", r"C:\x=/c")
    done = bring_over(package(expressions={"FileAttachments": expression}), *words)
    assert "unmapped-path" not in done.findings
    assert done.rendered("attachments", File="rows.csv") == path


@pytest.mark.parametrize("path", [r"reports\today.csv", "today.csv", r"..\out\a.csv", r"%TEMP%\a.csv"])
@pytest.mark.parametrize("computed", [True, False])
def test_a_path_of_no_drive_and_no_share_is_told(bring_over: Any, path: str, computed: bool) -> None:
    """It leads somewhere only where SSIS happens to run."""
    escaped = path.replace("\\", "\\\\")
    given: Any = {"expressions": {"FileAttachments": f'"{escaped}"'}} if computed else {"files": path}
    finding = bring_over(package(**given)).findings["unmapped-path"]
    assert finding["text"].startswith(f"{path} does not begin with a drive or a share")


@pytest.mark.parametrize("to", ["", " ", " ; ;"])
def test_nobody_is_nobody_however_it_is_written(bring_over: Any, to: str) -> None:
    """And an expression beside it is somebody."""
    assert "no-recipient" in bring_over(package(To=to)).findings
    done = bring_over(package(To=to, expressions={"ToLine": '"dba@corp.example"'}))
    assert "no-recipient" not in done.findings
    assert done.mail["to"] == "dba@corp.example"


def test_a_list_of_recipients_over_several_lines_is_one_line(bring_over: Any) -> None:
    """A header has none."""
    assert (
        bring_over(package(To="a@corp.example;\r\n b@corp.example;\n")).mail["to"] == "a@corp.example; b@corp.example;"
    )


@pytest.mark.parametrize(
    ("written", "priority"),
    [("High", "high"), ("1", "high"), ("Low", "low"), ("5", "low"), ("Normal", None), ("3", None), ("0", None)],
)
def test_a_priority_is_a_word_or_dotnet_s_number(bring_over: Any, written: str, priority: str | None) -> None:
    """0 is what a designer leaves beside an expression."""
    assert bring_over(package(Priority=written)).mail.get("priority") == priority


@pytest.mark.parametrize(
    ("name", "task_id"),
    [
        ("Laden/Prüfen", "laden_prufen"),
        ("メール", "task"),
        ("class", "class"),
        ("DAG", "dag"),
        ("1st / 2nd", "1st_2nd"),
    ],
)
def test_a_task_of_any_name_has_an_id_and_is_shown_by_its_name(bring_over: Any, name: str, task_id: str) -> None:
    """Airflow's ids are ASCII, without blanks."""
    done = bring_over(package(name=name))
    assert done.mail["task_id"] == task_id
    assert done.mail.get("task_display_name", task_id) == name


def test_a_name_in_the_wrong_case_is_none_and_the_right_one_is_told(bring_over: Any) -> None:
    """SSIS tells capitals from small letters, and fails here too."""
    finding = bring_over(package(expressions={"Subject": "@[user::file]"})).findings["expression-to-complete"]
    assert "user::file is not in the package; User::File is" in finding["text"]


def test_where_an_expression_is_wrong_is_shown_in_the_dag_and_not_in_a_sentence(bring_over: Any) -> None:
    """The caret needs a line of its own."""
    done = bring_over(package(expressions={"Subject": '"unfinished " + @[User::File'}))
    assert "^" not in done.findings["expression-to-complete"]["text"]
    assert '        #     "unfinished " + @[User::File\n' in done.source


@pytest.mark.parametrize(
    ("name", "file"), [("email", "email_package"), ("calendar", "calendar_package"), ("Email", "Email")]
)
def test_the_file_of_a_dag_hides_no_module_of_python(bring_over: Any, name: str, file: str) -> None:
    """Who runs another DAG's file in that folder imports what is beside it."""
    done = bring_over(package().replace('DTS:ObjectName="Load"', f'DTS:ObjectName="{name}"'))
    assert (done.package["dag_id"], done.package["dag_file"]) == (name, f"dags/{file}.py")
