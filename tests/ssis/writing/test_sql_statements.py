"""Statements of Execute SQL tasks for ODBC: markers, names, output parameters, procedures and GO."""

from __future__ import annotations

import pytest

from airflow_provider_smtpcm.ssis.expressions import NotTranslatable
from airflow_provider_smtpcm.ssis.model import DatabaseKind, SqlParameter
from airflow_provider_smtpcm.ssis.writing.sql_task import SqlStatement, split_batches, translate_statement

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


def test_a_question_mark_in_a_comment_is_no_marker_and_goes() -> None:
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
    with pytest.raises(NotTranslatable, match=r"parameter markers \(\?\), and the task binds"):
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
    """A placeholder stands there, and fails."""
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
