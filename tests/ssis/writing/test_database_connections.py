"""Connection managers of databases as Airflow connections: one for equal settings, and never a password."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_smtpcm.ssis.findings import Findings
from airflow_provider_smtpcm.ssis.model import DatabaseConnection, DatabaseKind, Finding, ProjectSetting, Severity
from airflow_provider_smtpcm.ssis.writing.connections import ConnectionRegistry, SmtpConverter
from airflow_provider_smtpcm.ssis.writing.conversion import ConversionOptions
from airflow_provider_smtpcm.ssis.writing.database_connections import DatabaseConverter, is_sql_server
from airflow_provider_smtpcm.ssis.writing.symbols import SymbolTable
from tests.ssis.writing.building import codes, package, smtp, variable

SQL_SERVER = {"driver": "ODBC Driver 18 for SQL Server", "Encrypt": "no"}
WINDOWS = "Data Source=SQLSRV;Initial Catalog=Sales;Provider=SQLNCLI11.1;Integrated Security=SSPI;Auto Translate=False;"
LOGIN = "Data Source=sqlsrv;User ID=etl;Initial Catalog=sales;Provider=SQLNCLI10.1;Persist Security Info=True;"


def database(
    text: str, name: str = "Sales", kind: DatabaseKind = DatabaseKind.OLE_DB, **more: Any
) -> DatabaseConnection:
    """Return a connection manager with this connection string."""
    return DatabaseConnection(name=name, id="{1}", kind=kind, connection_string=text, **more)


def registered(
    *found: DatabaseConnection, answers: dict[str, str] | None = None, **variables: str
) -> tuple[dict[str, Any], tuple[Finding, ...], list[str]]:
    """Return the connections, the findings, and the connection id of each connection manager."""
    options = ConversionOptions(answers=answers or {})
    connections = ConnectionRegistry(options)
    content = package(variables=[variable(name, value) for name, value in variables.items()])
    symbols = SymbolTable(package=content, project=None, findings=Findings())
    ids = [connections.register(DatabaseConverter(one, symbols, symbols.root_scope(), options)) for one in found]
    everything = tuple(one for each in connections.connections for one in each.findings)
    return json.loads(connections.to_json()), everything, ids


def made(text: str, kind: DatabaseKind = DatabaseKind.OLE_DB, **more: Any) -> dict[str, Any]:
    """Return the one connection for a connection string."""
    [connection] = registered(database(text, kind=kind, **more))[0].values()
    return connection  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (WINDOWS, {"host": "SQLSRV", "schema": "Sales", "extra": {**SQL_SERVER, "Trusted_Connection": "yes"}}),
        (LOGIN, {"host": "sqlsrv", "schema": "sales", "login": "etl", "extra": SQL_SERVER}),
        (r"Data Source=sqlsrv\prod;Provider=SQLOLEDB.1;Trusted_Connection=yes",
         {"host": r"sqlsrv\prod", "extra": {**SQL_SERVER, "Trusted_Connection": "yes"}}),
        ("Server=tcp:sqlsrv,1434;Database=sales;Uid=etl;Provider=MSOLEDBSQL.1",
         {"host": "tcp:sqlsrv,1434", "schema": "sales", "login": "etl", "extra": SQL_SERVER}),
        ('Data Source=sqlsrv;Initial Catalog="a;b";Provider=SQLNCLI11;Network Port=1434',
         {"host": "sqlsrv,1434", "schema": "a", "extra": SQL_SERVER}),
        ("Server=srv;Provider=MSOLEDBSQL19;TrustServerCertificate=1;ApplicationIntent=ReadOnly;Multisubnetfailover=1",
         {"host": "srv", "extra": {**SQL_SERVER, "Encrypt": "yes", "TrustServerCertificate": "yes",
                                      "ApplicationIntent": "ReadOnly", "MultiSubnetFailover": "Yes"}}),
        ("Data Source=ase,5000;Provider=Sybase.ASEOLEDBProvider.2;User ID=etl",
         {"host": "ase,5000", "login": "etl", "extra": {"driver": "FreeTDS"}}),
    ],
)  # fmt: skip
def test_ole_db_strings(text: str, expected: dict[str, Any]) -> None:
    """All forms of real packages: instance, port, either kind of sign-in, other databases."""
    assert made(text) == {"conn_type": "odbc", **expected}


@pytest.mark.parametrize(
    ("text", "provider", "expected"),
    [
        ("Data Source=sqlsrv;Initial Catalog=sales;Integrated Security=True;Application Name=x;",
         "System.Data.SqlClient.SqlConnection, System.Data, Version=4.0.0.0",
         {"host": "sqlsrv", "schema": "sales", "extra": {**SQL_SERVER, "Trusted_Connection": "yes"}}),
        ("Data Source=sqlsrv;User ID=etl;Encrypt=True;", "SQL",
         {"host": "sqlsrv", "login": "etl", "extra": {**SQL_SERVER, "Encrypt": "yes"}}),
        ("server=db;user id=etl;database=sales;port=3307", "MySql.Data.MySqlClient.MySqlConnection, MySql.Data",
         {"host": "db", "schema": "sales", "login": "etl",
          "extra": {"driver": "MySQL ODBC 9.0 Unicode Driver", "Port": "3307"}}),
        ("Provider=SQLNCLI11;Data Source=sqlsrv;Integrated Security=SSPI", "System.Data.OleDb.OleDbConnection",
         {"host": "sqlsrv", "extra": {**SQL_SERVER, "Trusted_Connection": "yes"}}),
    ],
)  # fmt: skip
def test_ado_net_strings(text: str, provider: str, expected: dict[str, Any]) -> None:
    """The class after `ADO.NET:` says which database it is."""
    assert made(text, DatabaseKind.ADO_NET, provider=provider) == {"conn_type": "odbc", **expected}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("uid=etl;Dsn=Sales;", {"login": "etl", "extra": {"dsn": "Sales"}}),
        ("Dsn=Sales;Database=sales", {"schema": "sales", "extra": {"dsn": "Sales"}}),
        ("Driver={SQL Server Native Client 11.0};Server=sqlsrv;Database=sales;Trusted_Connection=Yes;",
         {"host": "sqlsrv", "schema": "sales", "extra": {**SQL_SERVER, "Trusted_Connection": "yes"}}),
        ("Driver={Teradata};Server=td", {"host": "td", "extra": {"driver": "Teradata"}}),
    ],
)  # fmt: skip
def test_odbc_strings(text: str, expected: dict[str, Any]) -> None:
    """A data source keeps its name, a driver of SQL Server is the one on Linux, another its own."""
    assert made(text, DatabaseKind.ODBC) == {"conn_type": "odbc", **expected}


def test_equal_settings_are_one_connection_and_its_name_says_which() -> None:
    """Whatever the connection managers are called, and in whatever order they are read."""
    found = (database(WINDOWS), database(WINDOWS.lower(), "Other", source="b.dtsx"), database(LOGIN))
    _, _, ids = registered(*found)
    assert ids == ["db_sqlsrv_sales", "db_sqlsrv_sales", "db_sqlsrv_sales_etl"]
    assert registered(*reversed(found))[2] == list(reversed(ids))


def test_smtp_and_databases_share_the_file() -> None:
    """`airflow connections import` takes both."""
    options = ConversionOptions()
    connections = ConnectionRegistry(options)
    symbols = SymbolTable(package=package(), project=None, findings=Findings())
    connections.register(DatabaseConverter(database(LOGIN), symbols, {}, options))
    connections.register(SmtpConverter(smtp("SmtpServer=mail.corp.example;"), symbols, {}, options))
    assert list(json.loads(connections.to_json())) == ["smtp_mail_corp_example", "db_sqlsrv_sales_etl"]


def test_a_password_is_never_written_and_reported_as_missing() -> None:
    """Whether it stands in the string or was left out by the reader."""
    for one in (database(LOGIN + "Password=Hunter2!;"), database(LOGIN, has_password=True), database(LOGIN)):
        connections, findings, _ = registered(one)
        assert "Hunter2" not in json.dumps(connections) + str(findings)
        assert codes(findings) == {"database-connection-became", "database-password"}
        assert {finding.severity for finding in findings} == {Severity.NOTE}


def test_windows_authentication_has_a_note_of_its_own() -> None:
    """It needs a ticket on the worker, no password."""
    _, findings, _ = registered(database(WINDOWS))
    assert codes(findings) == {"database-connection-became", "database-windows-authentication"}


@pytest.mark.parametrize("server", [".", "(local)", "localhost", r".\SQLEXPRESS", "localhost,1434"])
def test_a_server_that_is_the_machine_of_ssis_is_reported(server: str) -> None:
    """On a worker, it would be the worker."""
    _, findings, (conn_id,) = registered(database(f"Data Source={server};Provider=SQLNCLI11;Integrated Security=SSPI"))
    assert "database-server-local" in codes(findings)
    assert conn_id.startswith("db_localhost")


def test_a_file_of_access_or_excel_is_reported_as_without_a_driver() -> None:
    """The task fails until the connection is replaced."""
    connections, findings, (conn_id,) = registered(database(r"Data Source=C:\a.mdb;Provider=Microsoft.Jet.OLEDB.4.0;"))
    assert connections[conn_id] == {"conn_type": "odbc", "host": r"C:\a.mdb", "extra": {}}
    assert "no known counterpart on Linux" in "".join(finding.text for finding in findings)


def test_the_value_of_an_expression_counts() -> None:
    """Of the server, the database, or the whole string; the stored value is from the developer's machine."""
    by_part = {"ServerName": "@[User::Server]", "InitialCatalog": '@[User::Name] + "_live"'}
    connections, findings, ids = registered(database(WINDOWS, expressions=by_part), Server="prod", Name="sales")
    assert ids == ["db_prod_sales_live"]
    assert (connections[ids[0]]["host"], connections[ids[0]]["schema"]) == ("prod", "sales_live")
    assert {finding.severity for finding in findings} == {Severity.NOTE}
    whole = {"ConnectionString": '"Data Source=" + @[User::Server] + ";Integrated Security=SSPI;"'}
    assert registered(database(LOGIN, expressions=whole), Server="prod")[2] == ["db_prod"]


def test_an_expression_without_a_value_asks_once_and_keeps_the_stored_server() -> None:
    """Until it is answered, two connection managers are two connections."""
    one = database(WINDOWS, expressions={"ServerName": "@[User::Server]"})
    connections, findings, (conn_id,) = registered(one, Server="")
    assert connections[conn_id]["host"] == "SQLSRV"
    (question,) = [finding.question for finding in findings if finding.severity is Severity.DECISION]
    assert question is not None
    assert (question.key, question.guess) == ("server of @[User::Server], stored as SQLSRV", "SQLSRV")
    assert len(registered(one, database(WINDOWS), Server="")[0]) == 2
    for answer, host in (("keep", "SQLSRV"), ("prod", "prod")):
        connections, findings, (conn_id,) = registered(one, answers={question.key: answer}, Server="")
        assert connections[conn_id]["host"] == host
        assert {finding.severity for finding in findings} == {Severity.NOTE}


@pytest.mark.parametrize(("answer", "host"), [("prod", "prod"), ("keep", "SQLSRV")])
def test_beside_the_server_an_expression_decides_as_far_as_it_is_known(answer: str, host: str) -> None:
    """The answer is often the server alone."""
    string = '"Data Source=" + @[User::Server] + ";Initial Catalog=live;Integrated Security=SSPI;"'
    one = database(WINDOWS, expressions={"ConnectionString": string})
    _, findings, _ = registered(one)
    [key] = [finding.question.key for finding in findings if finding.question is not None]
    connections, _, (conn_id,) = registered(one, answers={key: answer})
    assert (connections[conn_id]["host"], connections[conn_id]["schema"]) == (host, "live")


def test_a_parameter_of_the_project_is_reported() -> None:
    """Its value is in the connection string already."""
    setting = ProjectSetting(property="ServerName", by="CM.Sales.ServerName", source="Load.dtproj")
    assert "connection-parameter" in codes(registered(database(WINDOWS, set_by=(setting,)))[1])


def test_what_understands_t_sql() -> None:
    """By the provider; a connection manager that is missing is most likely one for SQL Server."""
    assert is_sql_server(None)
    assert is_sql_server(database(WINDOWS))
    assert not is_sql_server(database("Data Source=x;Provider=MSDAORA.1"))
    assert not is_sql_server(database("Dsn=Sales", kind=DatabaseKind.ODBC))


def test_a_connection_keeps_each_question_however_many_there_are() -> None:
    """The report names three connection managers for each note, but `questions.csv` has every answer."""
    found = [
        database(LOGIN, f"Sales {number}", expressions={"ServerName": f"@[$Project::Db{number}]"})
        for number in range(5)
    ]
    keys = [f"server of @[$Project::Db{number}], stored as sqlsrv" for number in range(5)]
    _, findings, ids = registered(*found, answers=dict.fromkeys(keys, "sqlsrv"))
    assert set(ids) == {"db_sqlsrv_sales_etl"}
    asked = [each.question for each in findings if each.code == "connection-expression"]
    assert [each.key for each in asked if each is not None] == keys
