"""What an Execute SQL task does with the result of its statement, for `SQLExecuteQueryOperator`.

`handler=fetch_results` reads every result of the statement, so that an error in a later one fails the task, as in SSIS.
An `output_processor` makes the values of the variables from them:

    SQLExecuteQueryOperator(
        task_id="count_rows",
        conn_id="db_sqlsrv_sales",
        sql="SELECT COUNT(*) AS n FROM dbo.Orders",
        autocommit=True,
        handler=fetch_results,
        output_processor=single_row({"User::Rows": 0}),
        multiple_outputs=True,
    )

A handler alone cannot make them, since the ODBC hook accepts only rows from a handler.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from airflow_provider_smtpcm.errors import MailError
from airflow_provider_smtpcm.ssis.live_values import to_json

__all__ = ["SqlResultError", "fetch_results", "full_result_set", "no_result_set", "result_rows", "single_row"]

Processor = Callable[[list[Any], list[Any]], Any]


class SqlResultError(MailError):
    """A statement did not return what the variables of an Execute SQL task need.

    Args:
        message: what is missing.
        remedy: what to change.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultSet:
    """The rows that one statement of a batch returned, with the names of their columns."""

    columns: list[str]
    rows: list[list[Any]]


class _ResultSets(tuple[list[ResultSet]]):
    """The result sets as a row with one column, which a hook may convert to its own type of row."""

    __slots__ = ()
    cursor_description = (("result_sets",),)


def fetch_results(cursor: Any) -> list[_ResultSets]:
    """Return all result sets of a statement, with their values as JSON.

    Args:
        cursor: a cursor (PEP 249) after `execute`.
    """
    result_sets: list[ResultSet] = []
    while True:
        if cursor.description is not None:
            columns = [str(column[0]) for column in cursor.description]
            result_sets.append(ResultSet(columns=columns, rows=[list(map(to_json, row)) for row in cursor.fetchall()]))
        if not _advance(cursor):
            return [_ResultSets((result_sets,))]


def _advance(cursor: Any) -> bool:
    """Go to the next result of a batch; return whether there is one. Raises if the statement of that result failed."""
    advance = getattr(cursor, "nextset", None)
    if advance is None:
        return False
    try:
        return bool(advance())
    except Exception as error:
        if type(error).__name__ == "NotSupportedError":  # PEP 249: the database has no batches
            return False
        raise


def single_row(
    columns: Mapping[str, int | str],
    *,
    outputs: Sequence[str] = (),
    padded: Collection[str] = (),
    nullable: Collection[str] = (),
) -> Processor:
    """Return the `output_processor` for a single-row result set: the variables from the first row.

    Args:
        columns: the column of each variable, by the variable's name: a number from 0, or a name regardless of case.
        outputs: the variables that output parameters set, in the order of the columns of the last result set.
        padded: the variables among `outputs` whose numbers have zeros at the end that mean nothing.
        nullable: the variables that may be null, which in SSIS are those of type Object.

    Raises:
        SqlResultError: when the task runs: there is no result set, no row or no such column, or the value is null.
    """

    def process(result_sets: list[ResultSet]) -> dict[str, Any]:
        result = _first(result_sets[:-1] if outputs else result_sets)
        if not result.rows:
            raise SqlResultError(
                "The statement returned no row, but it sets variables from a single row.",
                remedy="SSIS fails here too. Let the statement always return a row, as SELECT COUNT(*) does.",
            )
        return {name: result.rows[0][_find_column(result.columns, column)] for name, column in columns.items()}

    return _make_processor(process, outputs, padded, nullable)


def full_result_set(
    variable: str, *, outputs: Sequence[str] = (), padded: Collection[str] = (), nullable: Collection[str] = ()
) -> Processor:
    """Return the `output_processor` for a full result set: the variable becomes a list of rows, each a list of values.

    Args:
        variable: the name of the Object variable.
        outputs, padded, nullable: as in `single_row`.

    Raises:
        SqlResultError: when the task runs: there is no result set, or the value of an output is null.
    """

    def process(result_sets: list[ResultSet]) -> dict[str, Any]:
        return {variable: _first(result_sets[:-1] if outputs else result_sets).rows}

    return _make_processor(process, outputs, padded, nullable)


def result_rows(columns: Mapping[str, int | str]) -> Processor:
    """Return the `output_processor` that makes the rows of a loop or a merge: the task's result is a list of mappings.

    Use it without `multiple_outputs`; `task.output` is then the rows of a `MailMergeOperator`, or what `expand` takes.

    Args:
        columns: the column of each field of a row, by the name of the field, as in `single_row`.

    Raises:
        SqlResultError: when the task runs: there is no result set, or no such column.
    """

    def process(results: list[Any], descriptions: list[Any]) -> list[Any]:  # noqa: ARG001
        result = _first([result_set for each in results for result_set in each[0][0]])
        positions = {name: _find_column(result.columns, column) for name, column in columns.items()}
        rows = [{name: row[position] for name, position in positions.items()} for row in result.rows]
        return [rows] if len(results) == 1 else rows

    return process


def no_result_set(
    *, outputs: Sequence[str] = (), padded: Collection[str] = (), nullable: Collection[str] = ()
) -> Processor:
    """Return the `output_processor` for a statement whose rows are not used.

    Args:
        outputs, padded, nullable: as in `single_row`. Without `outputs`, the task pushes no XCom.
    """
    return _make_processor(lambda _: {}, outputs, padded, nullable)


def _make_processor(
    process: Callable[[list[ResultSet]], dict[str, Any]],
    outputs: Sequence[str],
    padded: Collection[str],
    nullable: Collection[str],
) -> Processor:
    def process_output(results: list[Any], descriptions: list[Any]) -> Any:  # noqa: ARG001
        result_sets: list[ResultSet] = [result_set for result in results for result_set in result[0][0]]
        values = process(result_sets)
        if outputs:
            last = _first(result_sets[-1:])
            row = zip(outputs, last.rows[0], strict=True)
            values |= {name: _without_zeros(value) if name in padded else value for name, value in row}
        for name, value in values.items():
            if value is None and name not in nullable:
                raise SqlResultError(
                    f"The value for {name} is NULL, which a variable of SSIS cannot be unless its type is Object.",
                    remedy="SSIS fails here too. Let the statement return another value: COALESCE(value, '').",
                )
        # The operator returns the last element of this list, unless it was given a list of several statements.
        return [values or None] if len(results) == 1 else values or None

    return process_output


def _without_zeros(number: Any) -> Any:
    """Return a decimal number, which is text, without the zeros at its end."""
    return to_json(Decimal(number.rstrip("0").rstrip("."))) if isinstance(number, str) and "." in number else number


def _first(result_sets: Sequence[ResultSet]) -> ResultSet:
    if not result_sets:
        raise SqlResultError(
            "The statement returned no result set, but it sets variables from one.",
            remedy="SSIS fails here too. Let the statement end in a SELECT.",
        )
    return result_sets[0]


def _find_column(columns: Sequence[str], column: int | str) -> int:
    if isinstance(column, int):
        if 0 <= column < len(columns):
            return column
    else:
        positions = [index for index, name in enumerate(columns) if name.lower() == column.lower()]
        if positions:
            return positions[0]
    raise SqlResultError(
        f"The result set has no column {column!r}; its columns are {', '.join(map(repr, columns))}.",
        remedy="Name a column so in the statement (AS), or write the number of a column, from 0, in the DAG.",
    )
