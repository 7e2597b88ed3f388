r"""Values that SSIS has in SQL Server, exported: the configuration table and the environments of the catalog."""

# ruff: noqa: S608  the statements are test data

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis.model import Package, Project, Severity
from airflow_provider_smtpcm.ssis.reading import read_paths
from airflow_provider_smtpcm.ssis.reading.exports import Exports

PACKAGES = Path(__file__).parent.parent / "packages"
TO = r"\Package.Variables[User::To].Properties[Value]"
SERVER = r"\Package.Connections[Relay].Properties[SmtpServer]"
HEADER = "ConfigurationFilter,ConfiguredValue,PackagePath,ConfiguredValueType\n"
INSERT = "INSERT INTO [dbo].[SSIS Configurations] ([ConfigurationFilter], [ConfiguredValue], [PackagePath]) "


def rows_of(text: str, tmp_path: Path, *, name: str = "table.sql", encoding: str = "utf-8") -> list[tuple[str, ...]]:
    """Return the filter, the path and the value of each row in a file."""
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    exports = Exports()
    exports.read(path)
    return [(row.name, row.path or "", row.value or "") for rows in exports.configurations.values() for row in rows]


def imported(path: Path, *more: Path) -> tuple[Package, list[str]]:
    """Read one package with further paths; return it, and the errors."""
    results = list(read_paths([path, *more]))
    [package] = [result.package for result in results if result.package is not None]
    return package, [result.error.message for result in results if result.error is not None]


def project_of(*paths: Path) -> Project:
    """Read a project."""
    [project] = [result.project for result in read_paths(paths) if result.project and not result.package]
    return project


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("table.csv", f"{HEADER}Mail,ops@corp.example,{TO},String\n"),
        ("table.csv", f"\ufeffPackagePath;ConfiguredValue;ConfigurationFilter\r\n{TO};ops@corp.example;Mail\r\n"),
        ("table.csv", f"Mail,ops@corp.example,{TO},String\n"),
        ("table.sql", f"{INSERT}VALUES (N'Mail', N'ops@corp.example', N'{TO}')\nGO\n"),
        ("table.sql", f"insert dbo.SSISConfigurations values ('Mail','ops@corp.example','{TO}','String');"),
        ("table.sql", f"{INSERT}SELECT 'Mail', 'ops@' + 'corp.example' AS v, N'{TO}' WHERE NOT EXISTS (SELECT 1)"),
        (
            "table.sql",
            (
                f"-- INSERT (\n/* '\n*/ DECLARE @x int = 1; {INSERT}\nVALUES (CAST(N'Mail' AS NVARCHAR(255)),"
                f"CAST ('ops@corp.example' AS nvarchar (255)), '{TO}')"
            ),
        ),
        (
            "table.sql",
            (
                "INSERT [SSIS Configurations] (PackagePath, ConfiguredValueType, ConfiguredValue, ConfigurationFilter) "
                f"VALUES ('{TO}', 'String', 'ops@corp.example', 'Mail')"
            ),
        ),
        ("table.sql", f"INSERT INTO t (a) VALUES (1)\n{INSERT}VALUES ('Mail','ops@corp.example','{TO}')"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_row_of_the_configuration_table_is_read(name: str, text: str, encoding: str, tmp_path: Path) -> None:
    """From a CSV file with or without header, and from each form of INSERT; Management Studio saves UTF-16."""
    assert rows_of(text, tmp_path, name=name, encoding=encoding) == [("Mail", TO, "ops@corp.example")]


def test_several_rows_quotation_marks_and_nulls_are_read(tmp_path: Path) -> None:
    """Of one statement, and of several."""
    text = (
        f"{INSERT}VALUES (N'Mail', N'Ops'' list <ops@corp.example>', '{TO}'), ('Mail', NULL, '{SERVER}'),\n"
        f"('Number', -25, '{SERVER}')\n"
        f"{INSERT}SELECT 'A', 'x; y', '{TO}' UNION ALL\nSELECT 'B', 'z\n2', '{TO}'\nUPDATE t SET a = 'b'"
    )
    assert rows_of(text, tmp_path) == [
        ("Mail", TO, "Ops' list <ops@corp.example>"),
        ("Number", SERVER, "-25"),
        ("A", TO, "x; y"),
        ("B", TO, "z\n2"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("t.csv", b"a,b\n1,2\n", "is neither an export of the SSIS configuration table"),
        ("t.csv", b"", "is neither an export of the SSIS configuration table"),
        ("t.csv", b"key,answer\na,b\n", "contains answers to questions"),
        ("t.csv", b"name,value\n\xe4,x\n", "is not in UTF-8"),
        (
            "t.csv",
            b"environment,name,value\nTest,To,a\nProduction,To,b\n",
            "several environments: 'Production', 'Test'",
        ),
        ("t.csv", b"name,value\nTo,a\nTo,b\n", "line 3, gives 'To' a different value"),
        ("t.sql", b"SELECT 1", "has no INSERT statement"),
        ("t.sql", b"", "has no INSERT statement"),
        ("t.sql", b"INSERT", "has no INSERT statement"),
        ("t.sql", b"INSERT INTO t (", "has no INSERT statement"),
        ("t.sql", b"INSERT SSISConfigurations VALUES ('Mail', @value, 'x', 's'), ('a', 'b', 'c', 's'", "1 of 2 rows"),
    ],
)
def test_a_file_that_cannot_be_used_is_reported(name: str, content: bytes, complaint: str, tmp_path: Path) -> None:
    """With the reason; the packages are read nevertheless."""
    export = tmp_path / name
    export.write_bytes(content)
    with pytest.raises(PackageError, match=complaint):
        Exports().read(export)
    package, errors = imported(Path(shutil.copy(PACKAGES / "configured.dtsx", tmp_path)), export)
    assert package.send_mail_tasks
    assert len(errors) == 1


def test_rows_apply_to_packages_with_their_filter_alone(tmp_path: Path) -> None:
    """As the values of a .dtsConfig file do, with the same note."""
    path = Path(shutil.copy(PACKAGES / "configured.dtsx", tmp_path))
    export = tmp_path / "table.csv"
    export.write_text(f"{HEADER}mail,relay2.corp.example,{SERVER},String\nOther,x,{TO},String\n", encoding="utf-8")
    package, errors = imported(path, export)
    assert errors == []
    assert "SmtpServer=relay2.corp.example;" in package.connection_managers[0].connection_string
    assert package.variables[0].value == "developer@corp.example"
    applied = [one for one in package.findings if one.code == "configuration-applied"]
    assert [str(export) in one.text for one in applied] == [True]
    assert not any("'Table'" in one.text for one in package.findings if one.code == "configuration-not-read")
    switched_off = path.read_text(encoding="utf-8").replace('DTS:EnableConfig="True"', "")
    path.write_text(switched_off, encoding="utf-8")
    package, _ = imported(path, export)
    assert "relay2" not in package.connection_managers[0].connection_string


def test_later_configurations_of_a_package_take_precedence(tmp_path: Path) -> None:
    """The file comes before the table; one that is passed as a PATH takes precedence over both."""
    shutil.copy(PACKAGES / "mail.dtsConfig", tmp_path)
    path = Path(shutil.copy(PACKAGES / "configured.dtsx", tmp_path))
    export = tmp_path / "table.csv"
    export.write_text(f"{HEADER}Mail,table@corp.example,{TO},String\n", encoding="utf-8")
    assert imported(path)[0].variables[0].value == "ops@corp.example"
    assert imported(path, export)[0].variables[0].value == "table@corp.example"
    passed = tmp_path / "passed.dtsConfig"
    passed.write_text(
        f'<DTSConfiguration><Configuration Path="{TO}"><ConfiguredValue>passed@corp.example</ConfiguredValue>'
        "</Configuration></DTSConfiguration>",
        encoding="utf-8",
    )
    assert imported(path, export, passed)[0].variables[0].value == "passed@corp.example"


def test_a_configuration_file_may_have_the_suffix_xml(tmp_path: Path) -> None:
    """As in many packages."""
    path = Path(shutil.copy(PACKAGES / "configured.dtsx", tmp_path))
    text = path.read_text(encoding="utf-8").replace(r"D:\SSIS\Mail.dtsConfig", r"D:\SSIS\Mail.XML")
    path.write_text(text, encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    config = shutil.copy(PACKAGES / "mail.dtsConfig", tmp_path / "elsewhere/mail.xml")
    assert imported(path, Path(config))[0].variables[0].value == "ops@corp.example"


def test_an_answer_is_the_value_of_a_single_property(tmp_path: Path) -> None:
    """Such as an environment variable; `keep` leaves the value in the package."""
    path = Path(shutil.copy(PACKAGES / "configured.dtsx", tmp_path))
    key = "configuration environment variable MAIL_TO"
    [result] = [one for one in read_paths([path], answers={key: "answered@corp.example"}) if one.package]
    assert result.package is not None
    assert result.package.variables[0].value == "answered@corp.example"
    [kept] = [one for one in read_paths([path], answers={key: "keep"}) if one.package]
    assert kept.package is not None
    assert kept.package.variables[0].value == "developer@corp.example"
    for package in (result.package, kept.package):
        assert "Environment" not in {configuration.name for configuration in package.unread_configurations}
        [told] = [one.text for one in package.findings if "'Environment' takes its value" in one.text]
        assert ("The value in the package was used" in told) is (package is kept.package)


def test_the_questions_are_one_for_each_table_folder_or_variable(tmp_path: Path) -> None:
    """What they set and a mail uses is where they are; what no mail uses is a note."""
    text = (PACKAGES / "configured.dtsx").read_text(encoding="utf-8")
    expression = '<DTS:PropertyExpression DTS:Name="ToLine">@[User::To]</DTS:PropertyExpression>'
    changed = re.sub(r'(DTS:ExecutableType="Microsoft.SendMailTask"[^>]*>)', lambda found: found[1] + expression, text)
    (tmp_path / "configured.dtsx").write_text(changed, encoding="utf-8")
    package, _ = imported(tmp_path / "configured.dtsx")
    found = {one.text.split("'")[1]: one for one in package.findings if one.code == "configuration-not-read"}
    questions = {name: one.question for name, one in found.items()}
    assert {name: question and question.key for name, question in questions.items()} == {
        "File": "configuration xml file d:\\ssis",
        "Table": "configuration sql server [dbo].[SSIS Configurations]",
        "Environment": "configuration environment variable MAIL_TO",
        "Registry": None,
        "Parent": "configuration parent variable User::Parent",
        "Indirect": "configuration xml file CONFIG_FILE",
    }
    assert found["Registry"].severity is Severity.NOTE
    table = questions["Table"]
    assert table is not None
    assert table.detail == "Mail"
    assert "Export the table" in table.text
    indirect = questions["Indirect"]
    assert indirect is not None
    assert "Give it as a further PATH and answer keep" in indirect.text
    assert found["Environment"].where == "User::To"
    assert found["Parent"].where == r"Connection managers\Relay"
    unchanged, _ = imported(PACKAGES / "configured.dtsx")
    [environment] = [one for one in unchanged.findings if "'Environment'" in one.text]
    assert environment.severity is Severity.NOTE


def test_an_environment_gives_parameters_their_values(tmp_path: Path) -> None:
    """Of the project and of the package; a sensitive one is left alone."""
    shutil.copytree(PACKAGES / "project", tmp_path / "project")
    project = project_of(tmp_path / "project")
    name = next(parameter.name for parameter in project.parameters if not parameter.sensitive)
    secret = [parameter.name for parameter in project.parameters if parameter.sensitive]
    export = tmp_path / "environment.csv"
    lines = [f"Production,{name.upper()},deployed", *(f"Production,{one},hush" for one in secret)]
    export.write_text("environment,name,value\n" + "\n".join(lines), encoding="utf-8")
    values = {parameter.name: parameter for parameter in project_of(tmp_path / "project", export).parameters}
    assert (values[name].value, values[name].environment, values[name].configured_in) == ("deployed", str(export), ())
    assert all(values[one].value is None for one in secret)
