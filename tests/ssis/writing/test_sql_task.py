"""An Execute SQL task becomes a query over ODBC, with parameters, results and all that SSIS does around it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_smtpcm.ssis.expressions import NotTranslatable
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
from airflow_provider_smtpcm.ssis.writing.sql_task import SqlStatement, split_batches, translate_statement
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
    """Any name that is not a number."""
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


def test_a_statement_is_read_from_a_file_that_a_task_names() -> None:
    """The path is mapped in each run."""
    file = FileConnection(
        name="Script", id="{script}", connection_string="", expressions={"ConnectionString": "@[User::Sql]"}
    )
    find = replace(sql_task(), name="Find", id="{find}", path=("Package", "Find"), result_set=ResultSetType.SINGLE_ROW)
    find = replace(find, results=(SqlResult(name="0", variable="User::Sql"),))
    task = sql_task("Script", source_type=SqlSourceType.FILE_CONNECTION, statement_file=file)
    sending = mail()
    constraints = [constraint(find, task), constraint(task, sending)]
    module = written(find, task, sending, variables=VARIABLES, constraints=constraints)
    assert "PlaceholderOperator" not in module.source
    assert "{% endset %}{{ read_message_file(path) }}" in re.sub(r'"\s+"', "", module.source)


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
        (sql_task(row_count="User::Rows"), "User::Rows gets the number of rows that its statement changes"),
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
    """It fails in a run until the task has been written."""
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


@pytest.mark.parametrize(
    ("number", "type_"), [(131, "DT_NUMERIC"), (14, "DT_NUMERIC"), (139, "DT_NUMERIC"), (6, "DT_CY"), (3, "DT_I4")]
)
def test_a_text_is_bound_as_the_number_that_the_parameter_is(number: int, type_: str) -> None:
    """SSIS converts it; a database other than SQL Server may not compare a text with a number."""
    bound = (SqlParameter(name="0", variable="User::Day", data_type=number),)
    call = operator(converted(sql_task("SELECT COUNT(*) FROM t WHERE amount > ?", parameters=bound)))
    assert f'data_type="{type_}"' in call
    text = (SqlParameter(name="0", variable="User::Day", data_type=129),)
    assert "data_type" not in operator(converted(sql_task("SELECT COUNT(*) FROM t WHERE a > ?", parameters=text)))


@pytest.mark.parametrize("number", [131, 14, 139])
def test_an_output_parameter_with_decimals_has_the_digits_of_the_database(number: int) -> None:
    """A variable of the batch has ten after the point."""
    bound = (SqlParameter(name="0", variable="User::Rows", direction="Output", data_type=number),)
    call = operator(converted(sql_task("EXEC dbo.Sum ? OUTPUT", parameters=bound)))
    assert "DECLARE @out_1 decimal(38, 10);" in call
    assert 'padded=[\n                "User::Rows",' in call


# --- The statement alone: markers, names, output parameters, procedures and GO

OLE_DB, ADO_NET, ODBC = DatabaseKind.OLE_DB, DatabaseKind.ADO_NET, DatabaseKind.ODBC


def parameter(name: str, variable: str, direction: str = "Input", data_type: int = 3) -> SqlParameter:
    """Return a parameter binding."""
    return SqlParameter(name=name, variable=f"User::{variable}", direction=direction, data_type=data_type)


def statement(text: str, inputs: list[str] | None = None, outputs: list[str] | None = None) -> SqlStatement:
    """Return what a statement of one batch becomes."""
    named = [tuple(f"User::{name}" for name in names or ()) for names in (inputs, outputs)]
    return SqlStatement(batches=(text,), inputs=named[0], outputs=named[1])


def test_markers_get_their_values_by_number() -> None:
    """Whatever order the package lists them in, from 0 or from 1; ten comes after nine."""
    text = "SELECT ?, '?', [a?], \"b?\" FROM t WHERE a = ?"
    bound = [parameter("1", "Second"), parameter("0", "First")]
    assert translate_statement(text, bound, OLE_DB) == statement(text, ["First", "Second"])
    bound = [parameter(str(number), str(number)) for number in (10, 9, 8, 7, 6, 5, 4, 3, 2, 1)]
    text = f"VALUES ({', '.join('?' * 10)})"
    assert translate_statement(text, bound, ODBC) == statement(text, list(map(str, range(1, 11))))


def test_a_question_mark_in_a_comment_is_not_a_marker_and_is_removed() -> None:
    """SQLite's driver would count it."""
    text = "SELECT ? -- why?\n/* ?\n? */ FROM t"
    expected = "SELECT ? -- why\n/* \n */ FROM t"
    assert translate_statement(text, [parameter("0", "A")], OLE_DB) == statement(expected, ["A"])


def test_inputs_that_the_statement_no_longer_has_are_left_out() -> None:
    """The first ones are those of its markers."""
    bound = [parameter("1", "B"), parameter("0", "A")]
    assert translate_statement("SELECT ?", bound, OLE_DB) == statement("SELECT ?", ["A"])
    assert translate_statement("SELECT 1", bound, OLE_DB) == statement("SELECT 1")


@pytest.mark.parametrize(
    ("text", "bound"),
    [("SELECT ?, ?", [parameter("0", "A")]), ("EXEC p ?", [parameter("0", "A"), parameter("1", "B", "Output")])],
)
def test_too_few_inputs_and_outputs_without_a_place_are_not_translated(text: str, bound: list[SqlParameter]) -> None:
    """A variable that nothing sets would keep its value."""
    with pytest.raises(NotTranslatable, match=r"parameter markers \(\?\), but the task binds"):
        translate_statement(text, bound, OLE_DB)


def test_output_parameters_become_the_last_result_set() -> None:
    """The values of the others stay in order."""
    bound = [
        parameter("0", "Day", data_type=135),
        parameter("1", "Rows", "Output"),
        parameter("2", "Name", "Output", 130),
    ]
    assert translate_statement("EXEC dbo.load ?, ? OUTPUT, ? OUTPUT -- done", bound, OLE_DB) == statement(
        "DECLARE @out_1 int;\nDECLARE @out_2 nvarchar(max);\n"
        "EXEC dbo.load ?, @out_1 OUTPUT, @out_2 OUTPUT -- done\n;\nSELECT @out_1, @out_2;",
        ["Day"],
        ["Rows", "Name"],
    )


def test_a_return_value_is_an_output() -> None:
    """And a name that the batch uses already is not taken."""
    bound = [parameter("0", "Code", "ReturnValue"), parameter("1", "Day")]
    assert translate_statement("DECLARE @out_1 int; EXEC ? = dbo.load ?;", bound, OLE_DB) == statement(
        "DECLARE @out_2 int;\nDECLARE @out_1 int; EXEC @out_2 = dbo.load ?;\nSELECT @out_2;", ["Day"], ["Code"]
    )


def test_named_parameters_are_variables_of_the_batch() -> None:
    """As ADO.NET sends them, so that the statement itself stays as it is."""
    bound = [parameter("@day", "Day", data_type=6), parameter("@n", "Rows", "Output", 11)]
    text = "SELECT @n = COUNT(*) FROM t WHERE a >= @day AND b <= @day"
    assert translate_statement(text, bound, ADO_NET) == statement(
        f"DECLARE @day datetime2 = ?;\nDECLARE @n int;\n{text}\n;\nSELECT @n;", ["Day"], ["Rows"]
    )


def test_for_another_database_each_name_is_a_marker() -> None:
    """With its value each time."""
    text = "SELECT '@day', @@x, @day FROM t WHERE a >= @DAY AND b = @other"
    assert translate_statement(text, [parameter("@day", "Day")], ADO_NET, is_sql_server=False) == statement(
        "SELECT '@day', @@x, ? FROM t WHERE a >= ? AND b = @other", ["Day", "Day"]
    )


def test_the_name_of_a_procedure_becomes_a_call() -> None:
    """With named arguments, outputs and the return value."""
    bound = [
        parameter("@RETURN_VALUE", "Code", "ReturnValue", 11),
        parameter("day", "Day", data_type=6),
        parameter("@rows", "Rows", "Output", 11),
    ]
    assert translate_statement(" dbo.load ", bound, ADO_NET, is_stored_procedure=True) == statement(
        "DECLARE @out_1 int;\nDECLARE @out_2 int;\nEXEC @out_1 = dbo.load @day = ?, @rows = @out_2 OUTPUT;\n"
        "SELECT @out_1, @out_2;",
        ["Day"],
        ["Code", "Rows"],
    )
    assert translate_statement("dbo.load", [], ADO_NET, is_stored_procedure=True) == statement("EXEC dbo.load;")


@pytest.mark.parametrize(
    ("text", "bound", "is_stored_procedure"),
    [("EXEC p ? OUTPUT", [parameter("0", "A", "Output")], False), ("p", [], True)],
)
def test_what_only_t_sql_can_do_is_not_translated_for_others(
    text: str, bound: list[SqlParameter], is_stored_procedure: bool
) -> None:
    """They become a placeholder, which fails."""
    with pytest.raises(NotTranslatable, match="for SQL Server only"):
        translate_statement(text, bound, OLE_DB, is_sql_server=False, is_stored_procedure=is_stored_procedure)


def test_a_call_escape_with_outputs_is_not_translated() -> None:
    """Inputs alone are: ODBC itself understands it."""
    text = "{call dbo.load(?)}"
    assert translate_statement(text, [parameter("1", "Day")], ODBC) == statement(text, ["Day"])
    with pytest.raises(NotTranslatable, match="call"):
        translate_statement(text, [parameter("1", "Rows", "Output")], ODBC)


def test_go_divides_a_script() -> None:
    """In any case, with a count; not in a comment, a string or a name."""
    script = "DELETE FROM a\r\nGO\r\n/*\nGO\n*/ INSERT b VALUES ('\nGO\n')\n  go 2 \nSELECT 1 AS go\n"
    parts = ("DELETE FROM a", "/*\nGO\n*/ INSERT b VALUES ('\nGO\n')")
    assert split_batches(script) == (parts[0], parts[1], parts[1], "SELECT 1 AS go")
    assert translate_statement(script, [], OLE_DB).batches == split_batches(script)
    assert translate_statement("SELECT 1\nGO\n", [], OLE_DB) == statement("SELECT 1")
    with pytest.raises(NotTranslatable, match="GO divides it"):
        translate_statement("SELECT ?\nGO\nSELECT 1", [parameter("0", "A")], OLE_DB)
