"""Reads Execute SQL tasks and Expression tasks."""

from __future__ import annotations

from typing import TypedDict

from airflow_provider_smtpcm.ssis.model import (
    DatabaseConnection,
    ExpressionTask,
    FileConnection,
    ResultSetType,
    SqlParameter,
    SqlResult,
    SqlSourceType,
    SqlTask,
)
from airflow_provider_smtpcm.ssis.reading.context import CommonFields, ReadContext
from airflow_provider_smtpcm.ssis.reading.xml import Element, find_object_data, is_true, parse_integer

# SSIS writes the name; a configuration may set the number of the enumeration SqlStatementSourceType or ResultSetType.
_SOURCE_TYPES = {
    "directinput": SqlSourceType.DIRECT_INPUT,
    "fileconnection": SqlSourceType.FILE_CONNECTION,
    "variable": SqlSourceType.VARIABLE,
    "1": SqlSourceType.DIRECT_INPUT,
    "2": SqlSourceType.FILE_CONNECTION,
    "3": SqlSourceType.VARIABLE,
}
_RESULT_SETS = {
    "resultsettype_none": ResultSetType.NONE,
    "resultsettype_singlerow": ResultSetType.SINGLE_ROW,
    "resultsettype_rowset": ResultSetType.FULL,
    "resultsettype_xml": ResultSetType.XML,
    "1": ResultSetType.NONE,
    "2": ResultSetType.SINGLE_ROW,
    "3": ResultSetType.FULL,
    "4": ResultSetType.XML,
}
_DIRECTIONS = {"input": "Input", "output": "Output", "returnvalue": "ReturnValue"}


class _SqlFields(TypedDict):
    """The fields of a `SqlTask` from its ObjectData."""

    connection: DatabaseConnection | None
    connection_reference: str
    source_type: SqlSourceType
    statement: str
    statement_file: FileConnection | None
    result_set: ResultSetType
    results: tuple[SqlResult, ...]
    parameters: tuple[SqlParameter, ...]
    is_stored_procedure: bool
    timeout: int


def is_sql_kind(kind: str) -> bool:
    """Whether a CreationName is that of the Execute SQL task; maintenance tasks have the same kind of data."""
    return "executesqltask" in kind.lower() or kind.upper() == "STOCK:SQLTASK"


def is_expression_kind(kind: str) -> bool:
    """Whether a CreationName is that of the Expression task."""
    return kind.lower().endswith((".expressiontask", ":expressiontask"))


def read_sql_task(data: Element, kind: str, context: ReadContext, common: CommonFields) -> SqlTask:
    """Return an Execute SQL task.

    Args:
        data: its `SqlTaskData`.
        kind: its CreationName.
        context: the connection managers and the configurations.
        common: the fields that all executables have.
    """
    return SqlTask(**common, kind=kind, **_read_sql(data, common["path"], context))


def read_expression_task(element: Element, kind: str, context: ReadContext, common: CommonFields) -> ExpressionTask:
    """Return an Expression task."""
    data = find_object_data(element, "ExpressionTask")
    expression = data.attributes.get("Expression", "") if data is not None else ""
    expression = context.overrides.task_property(common["path"], "Expression", expression)
    return ExpressionTask(**common, kind=kind, expression=expression)


def _read_sql(data: Element, path: tuple[str, ...], context: ReadContext) -> _SqlFields:
    def read(attribute: str, property_name: str = "") -> str:
        return context.overrides.task_property(path, property_name or attribute, data.attributes.get(attribute, ""))

    reference = read("Connection").strip()
    connection = context.find_connection_manager(reference)
    source_type = _SOURCE_TYPES.get(
        read("SqlStmtSourceType", "SqlStatementSourceType").strip().lower(), SqlSourceType.DIRECT_INPUT
    )
    statement = read("SqlStatementSource")
    file = context.find_connection_manager(statement) if source_type is SqlSourceType.FILE_CONNECTION else None
    return _SqlFields(
        connection=connection if isinstance(connection, DatabaseConnection) else None,
        connection_reference=reference,
        source_type=source_type,
        statement=statement,
        statement_file=file if isinstance(file, FileConnection) else None,
        result_set=_RESULT_SETS.get(read("ResultType", "ResultSetType").strip().lower(), ResultSetType.NONE),
        results=tuple(_read_results(data)),
        parameters=tuple(_read_parameters(data)),
        is_stored_procedure=is_true(read("IsStoredProc", "IsStoredProcedure")),
        timeout=parse_integer(read("TimeOut")) or 0,
    )


def _read_results(data: Element) -> list[SqlResult]:
    return [
        SqlResult(name=binding.attributes.get("ResultName", "").strip(), variable=variable)
        for binding in data.find_all("ResultBinding")
        if (variable := binding.attributes.get("DtsVariableName", "").strip())
    ]


def _read_parameters(data: Element) -> list[SqlParameter]:
    parameters = []
    for binding in data.find_all("ParameterBinding"):
        attributes = binding.attributes
        size = parse_integer(attributes.get("ParameterSize"))
        parameters.append(
            SqlParameter(
                name=attributes.get("ParameterName", "").strip(),
                variable=attributes.get("DtsVariableName", "").strip(),
                direction=_DIRECTIONS.get(attributes.get("ParameterDirection", "").strip().lower(), "Input"),
                data_type=parse_integer(attributes.get("DataType")) or 0,
                size=-1 if size is None else size,
            )
        )
    return parameters
