"""Connection managers as Airflow connections: one for each server and its settings."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.ssis.findings import Findings
from airflow_provider_smtpcm.ssis.model import Finding, Package, Parameter, Project, Severity, SmtpConnection
from airflow_provider_smtpcm.ssis.writing.connections import ConnectionRegistry, SmtpConverter
from airflow_provider_smtpcm.ssis.writing.conversion import ConversionOptions, WindowsAuth
from airflow_provider_smtpcm.ssis.writing.symbols import SymbolTable
from tests.ssis.writing.building import codes, package, smtp, variable

WINDOWS = "SmtpServer=mail.corp.example;UseWindowsAuthentication=True;EnableSsl=False;"


def registered(
    *found: SmtpConnection,
    options: ConversionOptions | None = None,
    content: Package | None = None,
    project: Project | None = None,
) -> tuple[dict[str, Any], tuple[Finding, ...], list[str]]:
    """Return the connections, the findings, and the connection id of each connection manager."""
    options = options or ConversionOptions()
    connections, findings = ConnectionRegistry(options), Findings()
    symbols = SymbolTable(package=content or package(), project=project, findings=findings)
    ids = [connections.register(SmtpConverter(one, symbols, symbols.root_scope(), options)) for one in found]
    everything = (*findings.all(), *(one for each in connections.connections for one in each.findings))
    return json.loads(connections.to_json()), everything, ids


SERVER_OF = "server of @[$Project::MailServer], stored as stored.corp.example"


def test_an_expression_whose_value_is_not_known_asks_and_meanwhile_has_the_stored_server() -> None:
    """SSIS does not fail: something sets the value in each run. The stored server is the best guess there is."""
    one = smtp("SmtpServer=stored.corp.example;EnableSsl=True;", expressions={"SmtpServer": "@[$Project::MailServer]"})
    made, findings, (conn_id,) = registered(one)
    assert made[conn_id]["host"] == "stored.corp.example"
    assert made[conn_id]["extra"]["ssl_mode"] == "starttls"
    (found,) = [each for each in findings if each.code == "connection-expression"]
    assert found.severity is Severity.DECISION
    assert found.question is not None
    assert (found.question.key, found.question.guess) == (SERVER_OF, "stored.corp.example")


@pytest.mark.parametrize(
    ("answer", "host", "tls"),
    [
        ("keep", "stored.corp.example", "starttls"),
        ("relay.corp.example", "relay.corp.example", "starttls"),
        ("SmtpServer=relay.corp.example;EnableSsl=False;", "relay.corp.example", "none"),
    ],
)
@pytest.mark.parametrize("name", ["ConnectionString", "SmtpServer"])
def test_the_answer_is_the_server_and_leaves_nothing_to_decide(name: str, answer: str, host: str, tls: str) -> None:
    """`keep` accepts the stored one; a connection string is only one where SSIS takes one."""
    if name == "SmtpServer" and "=" in answer:
        return
    one = smtp("SmtpServer=stored.corp.example;EnableSsl=True;", expressions={name: "@[$Project::MailServer]"})
    made, findings, (conn_id,) = registered(one, options=ConversionOptions(answers={SERVER_OF: answer}))
    assert made[conn_id]["host"] == host
    assert made[conn_id]["extra"]["ssl_mode"] == tls
    assert not [each for each in findings if each.severity is not Severity.NOTE]


@pytest.mark.parametrize(
    ("expression", "tls", "timeout"),
    [
        ('"SmtpServer=" + @[$Project::S] + ";EnableSsl=True;Timeout=" + "50000"', "starttls", 50),
        ('"SmtpServer=" + @[$Project::S] + ";EnableSsl=" + @[$Project::Tls] + ";Timeout=50000"', "none", 50),
        ('"EnableSsl=True;SmtpServer=old.corp.example" + @[$Project::S]', "starttls", 40),
        ("@[User::Given]", "starttls", 40),
        ('@[$Project::S] + ";EnableSsl=True"', "starttls", 40),
        ("UPPER(@[$Project::S])", "none", 40),
    ],
)
@pytest.mark.parametrize("answer", ["relay.corp.example", "keep", None])
def test_beside_the_server_an_expression_decides_as_far_as_it_is_known(
    expression: str, tls: str, timeout: int, answer: str | None
) -> None:
    """The answer is often the server alone; what the expression does not tell is stored in the package."""
    one = smtp(
        "SmtpServer=stored.corp.example;EnableSsl=False;Timeout=40000;", expressions={"ConnectionString": expression}
    )
    given = variable("Given", None, expression='"EnableSsl=True;SmtpServer=" + @[$Project::S]')
    content = package(variables=[given])
    _, asked, _ = registered(one, content=content)
    [key] = [each.question.key for each in asked if each.question is not None]
    answers = {} if answer is None else {key: answer}
    made, _, (conn_id,) = registered(one, content=content, options=ConversionOptions(answers=answers))
    host = "relay.corp.example" if answer == "relay.corp.example" else "stored.corp.example"
    assert (made[conn_id]["host"], made[conn_id]["extra"]["ssl_mode"]) == (host, tls)
    assert made[conn_id]["extra"]["timeout"] == timeout


def test_a_variable_that_is_empty_until_a_run_sets_it_asks_too() -> None:
    """The connection string of the package has a server that would otherwise be lost."""
    one = smtp("SmtpServer=stored.corp.example;", expressions={"ConnectionString": "@[User::Conn]"})
    made, findings, (conn_id,) = registered(one, content=package(variables=[variable("Conn", "")]))
    assert made[conn_id]["host"] == "stored.corp.example"
    assert Severity.DECISION in {each.severity for each in findings if each.code == "connection-expression"}


def test_two_managers_whose_servers_are_only_known_at_run_time_never_share_a_connection() -> None:
    """Both have the developer's machine stored; in production they are two servers."""
    found = [
        smtp("SmtpServer=localhost;", name=name, expressions={"SmtpServer": f"@[$Project::{name}]"})
        for name in ("Internal", "External")
    ]
    made, _, ids = registered(*found)
    assert len(made) == len(set(ids)) == 2


def test_a_timeout_that_is_too_long_costs_neither_the_server_nor_the_sign_in() -> None:
    """SSIS may wait for hours; a connection waits for at most one."""
    made, findings, (conn_id,) = registered(
        smtp("SmtpServer=mail.corp.example;UseWindowsAuthentication=True;EnableSsl=True;Timeout=7200000;")
    )
    extra = made[conn_id]["extra"]
    assert (made[conn_id]["host"], extra["auth_mode"], extra["ssl_mode"]) == (
        "mail.corp.example",
        "windows",
        "starttls",
    )
    assert extra["timeout"] == 3600
    assert "connection-manager-invalid" in {each.code for each in findings}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("SmtpServer=;EnableSsl=False;", "no-smtp-server"),
        ("", "no-smtp-server"),
        ("SmtpServer=two words;", "connection-manager-invalid"),
        ("SmtpServer=m.example;EnableSsl=perhaps;", "connection-manager-property"),
        ("SmtpServer=m.example;Timeout=never;", "connection-manager-property"),
        ("SmtpServer=m.example;UserName=joe;Password=a;b;EnableSsl=True", "account-in-connection-manager"),
        ("SmtpServer=m.example:465:1;", "port-in-smtp-server"),
    ],
)
def test_a_faulty_connection_manager_is_reported_and_still_becomes_a_connection(text: str, code: str) -> None:
    """The hook accepts the connection, and it contains no credentials."""
    made, findings, (conn_id,) = registered(smtp(text))
    assert code in codes([one for one in findings if one.severity is Severity.DECISION])
    connection = type("Connection", (), {**made[conn_id], "login": None, "password": None})
    SmtpConnectionManager.from_airflow(connection)
    assert "joe" not in json.dumps(made) + repr(findings)


def test_an_account_in_an_expression_is_never_repeated() -> None:
    """Not in the connection and not in a finding."""
    text = '"SmtpServer=m.example;UserName=joe;Password=hunter2;EnableSsl=True;"'
    made, findings, (conn_id,) = registered(smtp("", expressions={"ConnectionString": text}))
    assert (made[conn_id]["host"], made[conn_id]["extra"]["ssl_mode"]) == ("m.example", "starttls")
    assert "hunter2" not in json.dumps(made) + repr(findings)
    assert "joe" not in json.dumps(made) + repr(findings)


def test_the_same_settings_are_one_connection_whatever_they_are_called() -> None:
    """In any order of the packages."""
    _, _, ids = registered(smtp(WINDOWS, "a"), smtp("smtpserver=MAIL.corp.example; usewindowsauthentication=true", "b"))
    assert ids == ["smtp_mail_corp_example_windows"] * 2


def test_other_settings_of_one_server_are_other_connections() -> None:
    """Their ids show the difference."""
    texts = [WINDOWS, WINDOWS.replace("True", "False"), WINDOWS.replace("EnableSsl=False", "EnableSsl=True")]
    texts.append("SmtpServer=mail-corp.example;")
    _, _, ids = registered(*[smtp(text) for text in texts])
    assert ids == [
        "smtp_mail_corp_example_windows",
        "smtp_mail_corp_example",
        "smtp_mail_corp_example_windows_ssl",
        "smtp_mail_corp_example_2",
    ]


def test_windows_authentication_is_kept_and_reported() -> None:
    """With the command that shows what the server offers. Without SSL in the package there is no TLS."""
    made, findings, (conn_id,) = registered(smtp(WINDOWS))
    assert made[conn_id]["extra"] == {"auth_mode": "windows", "ssl_mode": "none"}
    (found,) = [one for one in findings if one.code == "windows-auth-kept"]
    assert f"check {conn_id}" in found.remedy


def test_a_name_is_one_word_of_the_advised_command() -> None:
    """People paste it into a shell."""
    name = "Relay's; touch x; '"
    _, findings, _ = registered(smtp(WINDOWS, name))
    (found,) = [one for one in findings if one.code == "windows-auth-kept"]
    command = found.remedy.partition("--windows-auth ")[2].rpartition(", or set")[0]
    assert shlex.split(command) == [f"anonymous={name}"]


def test_windows_authentication_is_dropped_for_all_or_for_one_by_name() -> None:
    """By the options of the import."""
    every = ConversionOptions(windows_auth=WindowsAuth.ANONYMOUS)
    made, _, (conn_id,) = registered(smtp(WINDOWS), options=every)
    assert made[conn_id]["extra"]["auth_mode"] == "anonymous"
    one = ConversionOptions(windows_auth_by_name={"relay": WindowsAuth.ANONYMOUS})
    made, _, ids = registered(smtp(WINDOWS, "Relay"), smtp(WINDOWS, "Exchange"), options=one)
    assert [made[conn_id]["extra"]["auth_mode"] for conn_id in ids] == ["anonymous", "windows"]


def test_a_bare_host_and_a_timeout_in_either_unit_are_understood() -> None:
    """A timeout below 1000 is taken as seconds, with a finding."""
    made, _, ids = registered(smtp("smtphost"), smtp("SmtpServer=m.example;Timeout=10000;"))
    assert [made[one]["host"] for one in ids] == ["smtphost", "m.example"]
    assert made[ids[1]]["extra"]["timeout"] == 10
    made, findings, (conn_id,) = registered(smtp("SmtpServer=m.example;Timeout=20;Colour=red"))
    assert made[conn_id]["extra"]["timeout"] == 20
    assert {"connection-manager-property", "unknown-connection-property"} <= codes(findings)


def test_an_expression_wins_with_the_values_of_the_project_and_of_variables() -> None:
    """With their design-time values in the files."""
    one = smtp(
        "SmtpServer=stale;EnableSsl=False;",
        expressions={"SmtpServer": '@[User::Host] + "." + @[$Project::Domain]', "EnableSsl": "@[$Project::Tls]"},
    )
    project = Project(
        name="P",
        path="/p",
        parameters=(
            Parameter(name="Domain", value="corp.example", scope="Project"),
            Parameter(name="Tls", value="True", data_type=11, scope="Project"),
        ),
    )
    made, _, (conn_id,) = registered(one, content=package(variables=[variable("Host", "relay")]), project=project)
    assert (made[conn_id]["host"], made[conn_id]["extra"]["ssl_mode"]) == ("relay.corp.example", "starttls")


@pytest.mark.parametrize(
    "text",
    [
        "SmtpServer=h;Hunter2x=1",
        "SmtpServer=h;x=Hunter2x;Hunter2x",
        "SmtpServer=h;PassHunter2x=1;Hunter2x=2",
        "SmtpServer=h;Timeout=Hunter2x",
        "SmtpServer=h;EnableSsl=Hunter2x;UseWindowsAuthentication=Hunter2x",
        "SmtpServer=etl:Hunter2x@h",
        "SmtpServer=Hunter2x@h:25",
        "SmtpServer=smtp://Hunter2x",
        "SmtpServer=Hunter2x!",
    ],
)
def test_what_may_be_a_password_in_the_wrong_place_is_not_repeated(text: str) -> None:
    """Reports are passed around."""
    made, findings, _ = registered(smtp(text))
    assert "hunter2x" not in (repr(findings) + json.dumps(made)).lower()
