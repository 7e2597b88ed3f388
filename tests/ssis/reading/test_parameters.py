"""What a project sets besides its files: parameters of connection managers, and values of its configurations."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

import pytest

from airflow_provider_smtpcm.cli import main
from airflow_provider_smtpcm.ssis import read_project
from airflow_provider_smtpcm.ssis.model import Package, Project, ProjectSetting, SmtpConnection
from airflow_provider_smtpcm.ssis.reading import read_paths

NAMESPACE = 'xmlns:SSIS="www.microsoft.com/SqlServer/SSIS"'
DTS = 'xmlns:DTS="www.microsoft.com/SqlServer/Dts"'
RELAY, OWN = "{AAAAAAAA-0000-0000-0000-000000000001}", "{AAAAAAAA-0000-0000-0000-000000000002}"
#: As a developer left it.
DESIGNED = "SmtpServer=dev.corp.example;UseWindowsAuthentication=False;EnableSsl=False;"


def connection(name: str, guid: str, string: str = DESIGNED, expression: str = "") -> str:
    """A connection manager."""
    inner = f'<DTS:PropertyExpression DTS:Name="SmtpServer">{escape(expression)}</DTS:PropertyExpression>'
    return (
        f'<DTS:ConnectionManager {DTS} DTS:CreationName="SMTP" DTS:ObjectName={quoteattr(name)} DTS:DTSID="{guid}">'
        f"{inner if expression else ''}<DTS:ObjectData><SmtpConnectionManager ConnectionString={quoteattr(string)}/>"
        "</DTS:ObjectData></DTS:ConnectionManager>"
    )


def package(name: str = "Load", through: str = RELAY, connections: str = "", subject: str = "Done") -> str:
    """A package with one mail."""
    return (
        f'<DTS:Executable {DTS} DTS:refId="Package" DTS:ExecutableType="Microsoft.Package" DTS:ObjectName="{name}">'
        '<DTS:Property DTS:Name="PackageFormatVersion">8</DTS:Property>'
        f"<DTS:ConnectionManagers>{connections}</DTS:ConnectionManagers><DTS:Executables>"
        '<DTS:Executable DTS:refId="Package\\Mail" DTS:ExecutableType="Microsoft.SendMailTask" DTS:ObjectName="Mail">'
        f'<DTS:PropertyExpression DTS:Name="Subject">{escape(subject)}</DTS:PropertyExpression><DTS:ObjectData>'
        f'<M:SendMailTaskData xmlns:M="www.microsoft.com/sqlserver/dts/tasks/sendmailtask" M:SMTPServer="{through}"'
        ' M:From="etl@corp.example" M:To="ops@corp.example" M:MessageSource="Done."/>'
        "</DTS:ObjectData></DTS:Executable></DTS:Executables></DTS:Executable>"
    )


def parameters(values: Mapping[str, str], sensitive: bool = False) -> str:  # noqa: FBT002
    """A list of them, as a manifest and `Project.params` have it."""
    return "".join(
        f"<SSIS:Parameter SSIS:Name={quoteattr(name)}><SSIS:Properties>"
        '<SSIS:Property SSIS:Name="Required">0</SSIS:Property>'
        f'<SSIS:Property SSIS:Name="Sensitive">{int(sensitive)}</SSIS:Property>'
        f'<SSIS:Property SSIS:Name="Value">{escape(value)}</SSIS:Property>'
        '<SSIS:Property SSIS:Name="DataType">18</SSIS:Property></SSIS:Properties></SSIS:Parameter>'
        for name, value in values.items()
    )


def manifest(shared: str = "", of_packages: Mapping[str, str] | None = None) -> str:
    """`@Project.manifest`."""
    packages = "".join(
        f'<SSIS:PackageMetaData SSIS:Name="{name}"><SSIS:Properties/><SSIS:Parameters>{inner}</SSIS:Parameters>'
        "</SSIS:PackageMetaData>"
        for name, inner in (of_packages or {}).items()
    )
    return (
        f'<SSIS:Project SSIS:ProtectionLevel="DontSaveSensitive" {NAMESPACE}><SSIS:DeploymentInfo>'
        f"<SSIS:ProjectConnectionParameters>{shared}</SSIS:ProjectConnectionParameters>"
        f"<SSIS:PackageInfo>{packages}</SSIS:PackageInfo></SSIS:DeploymentInfo></SSIS:Project>"
    )


def dtproj(inner: str, configurations: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """A project file with a manifest in it, and configurations."""
    written = "".join(
        f"<Configuration><Name>{name}</Name><Options><OutputPath>bin</OutputPath><ParameterConfigurationValues>"
        + "".join(
            f"<ConfigurationSetting><Id>{key}</Id><Name>{key}</Name><Value>{escape(value)}</Value></ConfigurationSetting>"
            for key, value in {"LastModifiedTime": "2026-11-25T00:00:00Z", **settings}.items()
        )
        + "</ParameterConfigurationValues></Options></Configuration>"
        for name, settings in (configurations or {}).items()
    )
    return (
        "<Project><DeploymentModel>Project</DeploymentModel><DeploymentModelSpecificContent><Manifest>"
        f"{inner}</Manifest></DeploymentModelSpecificContent><Configurations>{written}</Configurations></Project>"
    )


def ispac(folder: Path, **parts: str) -> Path:
    """A built project of these parts."""
    path = folder / "Nightly.ispac"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in parts.items():
            archive.writestr(quote(name, safe="@"), text)
    return path


def folder(top: Path, **parts: str) -> Path:
    """The same as a folder."""
    top.mkdir(exist_ok=True)
    for name, text in parts.items():
        (top / name).write_text(text, encoding="utf-8")
    return top


def relay(project: Project) -> SmtpConnection:
    """The project's connection manager."""
    (one,) = project.connection_managers
    return one


def built(folder_: Path, values: Mapping[str, str], **more: Any) -> SmtpConnection:
    """The project's connection manager, in an `.ispac` whose manifest sets these values."""
    parts = {"@Project.manifest": manifest(parameters(values, **more)), "Relay.conmgr": connection("Relay", RELAY)}
    return relay(read_project(ispac(folder_, **parts, **{"Load.dtsx": package()})))


@pytest.mark.parametrize(
    "text",
    [
        "<SSIS:Project",
        f"<SSIS:Project {NAMESPACE}/>",
        "<Other/>",
        (
            f"<SSIS:Project {NAMESPACE}><SSIS:DeploymentInfo><SSIS:PackageInfo><SSIS:PackageMetaData/>"
            "</SSIS:PackageInfo></SSIS:DeploymentInfo></SSIS:Project>"
        ),
    ],
)
def test_a_manifest_that_says_nothing_leaves_everything_as_it_is(tmp_path: Path, text: str) -> None:
    """An unreadable one is reported; the packages are read nevertheless."""
    parts = {"@Project.manifest": text, "Relay.conmgr": connection("Relay", RELAY), "Load.dtsx": package()}
    project = read_project(ispac(tmp_path, **parts))
    assert relay(project).connection_string == DESIGNED
    assert len(project.packages) == 1
    assert [name.rpartition("!")[2] for name, _ in project.unreadable] == (
        ["@Project.manifest"] if text == "<SSIS:Project" else []
    )


def test_a_sensitive_value_is_not_read(tmp_path: Path) -> None:
    """Only SSIS can decrypt it."""
    assert built(tmp_path, {"CM.Relay.SmtpServer": "hush"}, sensitive=True).connection_string == DESIGNED


def test_an_empty_value_does_not_remove_the_server(tmp_path: Path) -> None:
    """It means that none was set."""
    assert built(tmp_path, {"CM.Relay.SmtpServer": " ", "CM.Relay.ConnectionString": ""}).connection_string == DESIGNED


def test_values_of_another_connection_manager_are_not_taken(tmp_path: Path) -> None:
    """Nor those of a property that has nothing to do with mail."""
    values = {"CM.Relay2.SmtpServer": "other", "CM.Relay.SmtpServer.More": "x", "CM.Relay.TargetServerVersion": "160"}
    one = built(tmp_path, values)
    assert (one.connection_string, one.set_by) == (DESIGNED, ())


def test_the_same_value_in_another_form_is_not_a_change(tmp_path: Path) -> None:
    """A manifest writes its flags in lower case, and a connection string may have another order."""
    one = built(
        tmp_path,
        {
            "CM.Relay.ConnectionString": "EnableSsl=false;SmtpServer=DEV.corp.example;UseWindowsAuthentication=False",
            "CM.Relay.EnableSsl": "false",
            "CM.Relay.UseWindowsAuthentication": "false",
            "CM.Relay.SmtpServer": "dev.corp.example",
        },
    )
    assert (one.connection_string, one.set_by) == (DESIGNED, ())


def test_where_two_parameters_contradict_each_other_a_person_is_asked(tmp_path: Path) -> None:
    """The single property is taken; SSIS's own order is not documented."""
    values = {"CM.Relay.ConnectionString": "SmtpServer=a.corp.example;", "CM.Relay.SmtpServer": "b.corp.example"}
    one = built(tmp_path, values)
    assert one.connection_string == "SmtpServer=b.corp.example;"
    assert [(each.property, each.contradicted) for each in one.set_by] == [
        ("ConnectionString", False),
        ("SmtpServer", True),
    ]


@pytest.mark.parametrize(
    ("values", "string"),
    [
        (
            {"CM.Relay.SmtpServer": "mail.corp.example", "CM.Relay.ConnectionString": DESIGNED},
            "SmtpServer=mail.corp.example;UseWindowsAuthentication=False;EnableSsl=False;",
        ),
        (
            {"CM.Relay.EnableSsl": "true", "CM.Relay.UseWindowsAuthentication": "true"},
            "EnableSsl=true;UseWindowsAuthentication=true;SmtpServer=dev.corp.example;",
        ),
        # The single properties are there too, with their design-time values.
        (
            {"CM.Relay.ConnectionString": "SmtpServer=mail.corp.example;", "CM.Relay.SmtpServer": "dev.corp.example"},
            "SmtpServer=mail.corp.example;",
        ),
    ],
)
def test_a_value_that_was_deployed_wins_over_the_connection_manager_s(
    tmp_path: Path, values: Mapping[str, str], string: str
) -> None:
    """And it is known which parameter it came from."""
    one = built(tmp_path, values)
    assert one.connection_string == string
    assert one.set_by
    assert {each.source for each in one.set_by} == {f"{tmp_path / 'Nightly.ispac'}!@Project.manifest"}
    assert {each.by for each in one.set_by} <= set(values)


def test_a_package_s_own_connection_manager_has_its_own_list(tmp_path: Path) -> None:
    """Two packages may each have one of the same name; and a name may have dots in it."""
    own = connection("SMTP v1.0", OWN)
    parts = {name: package(name.removesuffix(".dtsx"), OWN, own) for name in ("Load – all.dtsx", "Other.dtsx")}
    text = manifest(
        parameters({"CM.SMTP v1.0.SmtpServer": "no"}),
        {"Load – all.dtsx": parameters({"CM.SMTP v1.0.SmtpServer": "mail.corp.example"})},
    )
    project = read_project(ispac(tmp_path, **{"@Project.manifest": text}, **parts))

    def server(one: Package) -> str:
        return one.connection_managers[0].connection_string.partition(";")[0]

    assert [server(one) for one in project.packages] == ["SmtpServer=mail.corp.example", "SmtpServer=dev.corp.example"]


def test_the_file_of_a_text_is_the_one_that_was_deployed(tmp_path: Path) -> None:
    """Of a File connection manager the path is a parameter, too."""
    of_file = connection("Body", OWN).replace('"SMTP"', '"FILE"')
    data = "<DTS:ConnectionManager DTS:ConnectionString='C:\\dev\\body.txt'/>"
    of_file = re.sub(r"<SmtpConnectionManager [^>]*>", lambda _: data, of_file)
    load = package().replace('M:MessageSource="Done."', 'M:MessageSourceType="FileConnection" M:MessageSource="Body"')
    parts = {
        "@Project.manifest": manifest(parameters({"CM.Body.ConnectionString": r"\\files\texts\body.txt"})),
        "Relay.conmgr": connection("Relay", RELAY),
        "Body.conmgr": of_file,
        "Load.dtsx": load,
    }
    out = tmp_path / "out"
    words = ("--map-path", r"\\files\texts=/srv/texts", "--json")
    main(["import-ssis", str(ispac(tmp_path, **parts)), "--out", str(out), *words])
    assert "read_message_file('/srv/texts/body.txt')" in (out / "dags/Load.py").read_text(encoding="utf-8")
    (load_,) = json.loads((out / "report.json").read_text(encoding="utf-8"))["packages"]
    (finding,) = [one["text"] for one in load_["findings"] if one["code"] == "connection-parameter"]
    assert "CM.Body.ConnectionString" in finding


def test_the_same_octets_under_another_manifest_are_another_package(tmp_path: Path) -> None:
    """Two environments, each with its build."""
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        values = {"Load.dtsx": parameters({"CM.SMTP.SmtpServer": f"{place}.corp.example"})}
        load = package("Load", OWN, connection("SMTP", OWN))
        ispac(tmp_path / place, **{"@Project.manifest": manifest("", values), "Load.dtsx": load})
    found = [one for one in read_paths([tmp_path]) if one.package is not None]
    assert len(found) == 2


def test_a_project_file_says_the_same_and_names_its_configurations(tmp_path: Path) -> None:
    """Those that would give another value; what they would give is not applied."""
    text = dtproj(
        manifest(parameters({"CM.Relay.SmtpServer": "mail.corp.example"})),
        {
            "Development": {"Project::CM.Relay.SmtpServer": "mail.corp.example", "Project::Server": "a.corp.example"},
            "Production": {"Project::CM.Relay.SmtpServer": "prod.corp.example", "Project::Server": "b.corp.example"},
            "Test": {"Project::CM.Relay.SmtpServer": "test.corp.example"},
        },
    )
    params = f"<SSIS:Parameters {NAMESPACE}>{parameters({'Server': 'a.corp.example'})}</SSIS:Parameters>"
    parts = {"Nightly.dtproj": text, "Relay.conmgr": connection("Relay", RELAY), "Project.params": params}
    project = read_project(folder(tmp_path / "p", **parts, **{"Load.dtsx": package()}))
    one = relay(project)
    source = str(tmp_path / "p/Nightly.dtproj")
    assert one.connection_string.startswith("SmtpServer=mail.corp.example;")
    assert one.set_by == (ProjectSetting(property="SmtpServer", by="CM.Relay.SmtpServer", source=source),)
    assert one.configured == (ProjectSetting(property="SmtpServer", by="'Production', 'Test'", source=source),)
    assert [each.configured_in for each in project.parameters] == [("Production",)]


def test_a_manifest_of_thousands_of_connection_managers_is_read(tmp_path: Path) -> None:
    """Each has some twenty parameters; none but those of mail are kept."""
    useless = parameters({f"CM.DB{one}.{key}": "x" for one in range(3000) for key in "ABCDEFGHIJKLMNOPQRST"})
    parts = {"Nightly.dtproj": dtproj(manifest(useless + parameters({"CM.Relay.SmtpServer": "mail.corp.example"})))}
    parts |= {"Relay.conmgr": connection("Relay", RELAY), "Load.dtsx": package()}
    project = read_project(folder(tmp_path / "p", **parts))
    assert project.unreadable == ()
    assert relay(project).connection_string.startswith("SmtpServer=mail.corp.example;")


def test_the_report_says_where_a_value_comes_from_and_which_other_value_exists(tmp_path: Path) -> None:
    """In the report: a note about the parameter, a decision for a configuration; and the connection has the value."""
    text = dtproj(
        manifest(parameters({"CM.Relay.SmtpServer": "mail.corp.example"})),
        {
            "Production": {
                "Project::CM.Relay.EnableSsl": "true",
                "Project::Team": "Operations",
                "Project::Server": "other.corp.example",
            }
        },
    )
    params = parameters({"Team": "Development", "Server": "by-expression.corp.example"})
    parts = {
        "Nightly.dtproj": text,
        "Relay.conmgr": connection("Relay", RELAY),
        "Second.conmgr": connection("Second", OWN, expression="@[$Project::Server]"),
        "Project.params": f"<SSIS:Parameters {NAMESPACE}>{params}</SSIS:Parameters>",
        "Load.dtsx": package(subject='"Load for " + @[$Project::Team]'),
    }
    out = tmp_path / "out"
    assert main(["import-ssis", str(folder(tmp_path / "p", **parts)), "--out", str(out), "--json"]) == 3
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    about = {
        one["host"]: [(each["code"], each["severity"]) for each in one["findings"]] for one in report["connections"]
    }
    assert about == {
        "mail.corp.example": [("connection-parameter", "note"), ("project-configuration", "decision")],
        # A note, since no mail uses this connection.
        "by-expression.corp.example": [("connection-expression", "note"), ("project-configuration", "note")],
    }
    (load,) = report["packages"]
    (finding,) = [one for one in load["findings"] if one["code"] == "project-configuration"]
    assert (finding["where"], finding["severity"]) == ("$Project::Team", "decision")
    assert "'Production'" in finding["text"]
