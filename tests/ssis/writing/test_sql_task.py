"""An Execute SQL task becomes a query over ODBC, with parameters, results and all that SSIS does around it."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_smtpcm.ssis.findings import Severity
from airflow_provider_smtpcm.ssis.model import (
    DatabaseConnection,
    DatabaseKind,
    FileConnection,
    ResultSetType,
    SqlParameter,
    SqlResult,
    SqlSourceType,
    SqlTask,
)
from airflow_provider_smtpcm.ssis.writing.conversion import ConversionOptions, DagModule
from tests.ssis.writing.building import codes, constraint, mail, variable, written
from tests.ssis.writing.test_dag_module import lint

SALES = DatabaseConnection(
    name="Sales",
    id="{sales}",
    connection_string="Data Source=sqlsrv;Initial Catalog=sales;Provider=SQLNCLI11.1;Integrated Security=SSPI;",
)
VARIABLES = [variable("Rows", "0", 3), variable("Day", "2026-11-29"), variable("Sql", ""), variable("People", None, 13)]
VARIABLES.append(variable("Login", "ALTER USER svc IDENTIFIED BY Hunter2!"))


def sql_task(statement: str = "SELECT COUNT(*) FROM dbo.Orders", **more: Any) -> SqlTask:
    """Return an Execute SQL task."""
    more.setdefault("connection", SALES)
    return SqlTask(name="Count", id="{count}", path=("Package", "Count"), statement=statement, **more)


def converted(task: SqlTask, **more: Any) -> DagModule:
    """Return the module of a package with the task and a mail after it that reports the rows."""
    mailing = mail(expressions={"Subject": '"Rows: " + (DT_WSTR, 10)@[User::Rows]'})
    return written(task, mailing, variables=VARIABLES, constraints=[constraint(task, mailing)], **more)


def operator(module: DagModule) -> str:
    """Return the call of the operator."""
    return module.source.partition("SQLExecuteQueryOperator(\n")[2].partition("\n    )")[0]


SINGLE_ROW: dict[str, Any] = {
    "result_set": ResultSetType.SINGLE_ROW,
    "results": (SqlResult(name="0", variable="User::Rows"),),
}


def test_a_single_row_sets_variables_that_mails_read() -> None:
    """There is nothing to decide: the mail reports the count of this run."""
    module = converted(sql_task(**SINGLE_ROW))
    call = operator(module)
    assert 'sql="SELECT COUNT(*) FROM dbo.Orders"' in call
    assert 'conn_id="db_sqlsrv_sales"' in call
    assert '"User::Rows": 0,' in call
    assert "multiple_outputs=True" in call
    assert "ssis.variable(ti, 'User::Rows', ['count'], 0, 'DT_I4')" in module.source
    assert {each.severity for each in module.findings} == {Severity.NOTE}


def test_the_longest_import_is_as_a_linter_wants_it() -> None:
    """A task with a result and one without import more names than fit on a line of 88 characters."""
    counting = sql_task(**SINGLE_ROW)
    cleaning = SqlTask(name="Clean", id="{clean}", path=("Package", "Clean"), statement="DELETE t", connection=SALES)
    assert lint(written(counting, cleaning, mail(), variables=VARIABLES)) == ""


def test_a_column_may_be_bound_by_its_name() -> None:
    """Any name that is no number."""
    by_name = {**SINGLE_ROW, "results": (SqlResult(name="n", variable="User::Rows"),)}
    assert '"User::Rows": "n",' in operator(converted(sql_task(**by_name)))


def test_parameters_are_in_order_and_keep_their_types() -> None:
    """By number, whatever their order in the file."""
    parameters = (
        SqlParameter(name="1", variable="User::Rows"),
        SqlParameter(name="0", variable="User::Day"),
    )
    call = operator(converted(sql_task("DELETE FROM t WHERE d = ? AND n = ?", parameters=parameters)))
    assert call.index("params['Day']") < call.index("params['Rows']")
    assert 'data_type="DT_I4"' in call
    assert "output_processor=no_result_set()" in call
    assert "multiple_outputs" not in call


def test_a_full_result_set_is_a_list_of_rows() -> None:
    """In the object variable."""
    task = sql_task(result_set=ResultSetType.FULL, results=(SqlResult(name="0", variable="User::People"),))
    assert 'variable="User::People"' in operator(converted(task))


def test_a_statement_is_data_and_neither_a_template_nor_the_name_of_a_file() -> None:
    """Airflow renders the field, and reads the files whose names end in .sql."""
    call = operator(converted(sql_task("SELECT '{{ x }}' AS a -- see load.sql")))
    assert "{{ '{{' }} x }}" in call
    assert ".sql\\n" in call


def test_a_statement_in_a_variable_or_an_expression_is_computed_in_the_run() -> None:
    """The value in the task is the last one of the developer's machine."""
    by_variable = converted(sql_task("User::Sql", source_type=SqlSourceType.VARIABLE))
    assert "sql=\"{{ params['Sql'] }}\"" in operator(by_variable)
    expression = {"SqlStatementSource": '"SELECT COUNT(*) FROM t WHERE d = \'" + @[User::Day] + "\'"'}
    call = operator(converted(sql_task("SELECT 1", expressions=expression)))
    assert "SELECT COUNT(*) FROM t WHERE d = '{{ params['Day'] }}'" in call
    assert "SELECT 1" not in call


def test_a_statement_in_a_file_is_read_on_the_worker() -> None:
    """By its mapped path."""
    file = FileConnection(name="Script", id="{script}", connection_string=r"\\srv\sql\count.sql")
    task = sql_task("Script", source_type=SqlSourceType.FILE_CONNECTION, statement_file=file)
    module = converted(task, options=ConversionOptions(path_map=((r"\\srv\sql", "/srv/sql"),)))
    assert "{{ read_message_file('/srv/sql/count.sql') }}" in operator(module)
    assert '"read_message_file": read_message_file,' in module.source


def test_a_time_limit_stays_one() -> None:
    """In seconds; 0 is none."""
    module = converted(sql_task(timeout=30))
    assert "execution_timeout=timedelta(seconds=30)" in operator(module)
    assert "from datetime import timedelta" in module.source
    assert "timedelta" not in converted(sql_task()).source


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (sql_task(result_set=ResultSetType.XML), "XML"),
        (sql_task(expressions={"Connection": '"Other"'}), "Connection comes from an expression"),
        (sql_task("SELECT ?, ?", parameters=(SqlParameter(name="0", variable="User::Day"),)), "2 parameter markers"),
        (sql_task("", source_type=SqlSourceType.FILE_CONNECTION), "file with its statement is not known"),
        (sql_task(**{**SINGLE_ROW, "results": (SqlResult(name="0", variable="User::Gone"),)}), "User::Gone"),
        (sql_task("EXEC p 'Password=Hunter2!'"), "credentials"),
        (sql_task("EXEC xp_cmdshell 'sqlcmd -U svc -P Hunter2!'"), "credentials"),
        (sql_task("User::Login", source_type=SqlSourceType.VARIABLE), "credentials"),
        (sql_task(expressions={"SqlStatementSource": "\"EXEC xp_cmdshell 'bcp t out f -P Hunter2!'\""}), "credentials"),
    ],
)
def test_what_the_operator_cannot_do_is_a_placeholder_with_the_reason(task: SqlTask, reason: str) -> None:
    """It fails in a run until somebody has written the task."""
    module = converted(task)
    assert "SQLExecuteQueryOperator(" not in module.source
    (found,) = [each for each in module.findings if each.code == "placeholder-task"]
    assert reason in found.text
    assert "Hunter2" not in module.source + found.text


def test_without_its_connection_manager_the_task_names_what_is_to_be_defined() -> None:
    """It fails until then; two that are missing are two."""
    module = converted(sql_task(connection=None, connection_reference="{0A1B2C3D-0000-0000-0000-000000000001}"))
    assert 'conn_id="db_0a1b2c3d"' in operator(module) or 'conn_id="db_0a1b2c3d_000"' in operator(module)
    assert "database-connection-missing" in codes(module.findings)


def test_an_output_parameter_of_sql_server_comes_back_as_a_row() -> None:
    """ODBC has none that Airflow's hook could read."""
    parameters = (SqlParameter(name="0", variable="User::Rows", direction="Output", data_type=3),)
    task = sql_task("EXEC dbo.CountOrders ? OUTPUT", connection=SALES, parameters=parameters)
    call = operator(converted(task))
    assert "DECLARE @out_1 int;" in call
    assert "SELECT @out_1;" in call
    assert DatabaseKind.OLE_DB is SALES.kind
    assert "outputs=[" in call
