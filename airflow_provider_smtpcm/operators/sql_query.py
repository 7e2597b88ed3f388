"""A query through any database hook of Airflow: the rows of a merge, or the result that a mail reports."""

from __future__ import annotations

import logging
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, ClassVar

from airflow_provider_smtpcm.errors import MailError, MessageError
from airflow_provider_smtpcm.frozen_dataclasses import Record
from airflow_provider_smtpcm.merge.rows import check_columns
from airflow_provider_smtpcm.operators._task import AirflowException, supervisor_lock

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

log = logging.getLogger(__name__)

#: Rows that are fetched, and held in memory, at once.
BATCH_ROWS = 1000
_RESULT_NAME = "The result of the query"
_SQL_REMEDY = "Give a statement that returns rows, such as SELECT."
_POSTGRESQL_DRIVERS = {"psycopg", "psycopg2"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SqlQuery(Record):
    """A query as the rows of a merge: `MailMergeOperator(rows=SqlQuery(...), ...)`.

    The task runs the query before the first mail, and keeps the rows in a temporary file: memory does not grow with
    their number, and the database is not kept waiting for the mail server. A retry runs the query again and resumes
    after the rows that were sent, so the query has to return them in the same order: `ORDER BY` a unique column.

    All arguments are templates. They do not take the output of another task; `{{ ti.xcom_pull(...) }}` does.

    Args:
        sql: one statement that returns rows; of several result sets, the first counts. `{% include 'invoices.sql' %}`
            reads it from a file beside the DAG or in `template_searchpath`.
        sql_conn_id: the Airflow connection of the database, of any type whose hook is a `DbApiHook`.
        parameters: the values of the placeholders in `sql`, in the style of the database's driver (`?`, `%s`, `:name`).
            Pass values here rather than in the text of the statement, since the driver quotes them.
        sql_hook_params: arguments for the hook, such as `{"driver": "ODBC Driver 18 for SQL Server"}`.

    Raises:
        ValueError: an argument is the output of another task.
    """

    template_fields: ClassVar[Sequence[str]] = ("sql", "sql_conn_id", "parameters", "sql_hook_params")

    sql: str
    sql_conn_id: str
    parameters: Sequence[Any] | Mapping[str, Any] | None = None
    sql_hook_params: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in self.template_fields:
            value = getattr(self, name)
            items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
            if any(hasattr(type(item), "iter_references") for item in (value, *items)):
                raise ValueError(
                    f"SqlQuery: '{name}' has the output of another task, which Airflow would not resolve here; "
                    "write {{ ti.xcom_pull(task_ids='...') }} instead, and make the task depend on the other one."
                )

    def fetch(self, check: Callable[[], None] = lambda: None) -> QueryResult:
        """Run the query, and return its rows once all of them have been read.

        Args:
            check: called before each batch of rows; raises a `MailError` to stop the query.

        Raises:
            MessageError: the query cannot be run or returns no result set, or a column has no name or that of another.
        """
        from airflow_provider_smtpcm.merge.result import format_count

        sql = self._check_arguments()
        hook = self._get_hook()
        try:
            with supervisor_lock:
                connection = hook.get_conn()  # it asks Airflow for the connection
            with closing(connection):
                result = self._read(hook, connection, sql, check)
                if not hook.get_autocommit(connection):
                    connection.commit()  # of a procedure that also writes
        except MailError:
            raise
        except Exception as error:  # each driver raises errors of its own
            raise MessageError(
                f"The query on '{self.sql_conn_id}' failed: {type(error).__name__}: {str(error).strip()}.",
                remedy="Correct the statement, or the connection of the database, and run the task again.",
                retryable=True,
            ) from error
        log.info("The query on '%s' returned %s.", self.sql_conn_id, format_count(len(result), "row"))
        return result

    def _check_arguments(self) -> str:
        """Return the statement, without a byte order mark."""
        if not isinstance(self.sql, str):  # the output of another task
            raise MessageError(f"'sql' has to be text, not {type(self.sql).__name__}.", remedy=_SQL_REMEDY)
        sql = self.sql.removeprefix("\ufeff")  # SQL Server Management Studio begins files with it
        if not sql.strip():
            raise MessageError("'sql' is empty.", remedy=_SQL_REMEDY)
        if len(sql.split()) == 1 and sql.strip().lower().endswith(".sql"):
            raise MessageError(
                f"'sql' is the name of a file, {sql.strip()!r}.",
                remedy=f"Include the file: sql=\"{{% include '{sql.strip()}' %}}\".",
            )
        if isinstance(self.parameters, str | bytes) or not isinstance(self.parameters, Sequence | Mapping | None):
            raise MessageError(
                f"'parameters' is {type(self.parameters).__name__}, not a list or a mapping.",
                remedy="Write the template of each value in a list: parameters=['{{ ds }}'].",
            )
        return sql

    def _get_hook(self) -> DbApiHook:
        try:
            from airflow.providers.common.sql.hooks.sql import DbApiHook
        except ImportError as error:
            raise MessageError(
                f"A query needs Airflow's provider for SQL, which cannot be imported ({error}).",
                remedy="Install it on the workers: pip install apache-airflow-providers-common-sql.",
            ) from error
        from airflow.sdk import BaseHook

        with supervisor_lock:
            connection: Any = BaseHook.get_connection(self.sql_conn_id)
        # As in Airflow's own SQL operators, an extra of the connection is an argument of the hook.
        arguments = {**connection.extra_dejson, **(self.sql_hook_params or {})}
        try:
            hook = connection.get_hook(hook_params=arguments)
        except (AirflowException, ImportError, TypeError) as error:
            raise MessageError(
                f"Connection '{self.sql_conn_id}' has the type '{connection.conn_type}', whose hook cannot be loaded "
                f"({error}).",
                remedy="Give the connection of a database, and install the provider for it, and the driver, on the "
                "workers.",
            ) from error
        if not isinstance(hook, DbApiHook):
            raise MessageError(
                f"Connection '{self.sql_conn_id}' has the type '{connection.conn_type}', whose hook "
                f"{type(hook).__name__} runs no SQL.",
                remedy="Give the connection of a database.",
            )
        return hook

    def _read(self, hook: DbApiHook, connection: Any, sql: str, check: Callable[[], None]) -> QueryResult:
        with closing(self._execute(connection, sql)) as cursor:
            _report_lineage(hook, sql, self.parameters, cursor)
            while cursor.description is None:  # of a statement before the query, such as DECLARE or INSERT
                if not _advance(cursor):
                    raise MessageError(
                        f"The query on '{self.sql_conn_id}' returned no result set.",
                        remedy=_SQL_REMEDY,
                    )
            result = QueryResult(check_columns([_to_name(column[0]) for column in cursor.description], _RESULT_NAME))
            try:
                while rows := cursor.fetchmany(BATCH_ROWS):
                    check()
                    result.add(rows)
                while _advance(cursor):  # raises if a later part of the statement failed
                    pass
            except BaseException:
                result.close()
                raise
            return result

    def _execute(self, connection: Any, sql: str) -> Any:
        """Return a cursor that has executed the statement."""
        # The ordinary cursor of PostgreSQL's drivers reads all rows into memory.
        if type(connection).__module__.partition(".")[0] in _POSTGRESQL_DRIVERS and ";" not in sql.strip().rstrip(";"):
            try:
                cursor = connection.cursor(name="smtpcm_query")
                self._execute_with(cursor, sql)
                if cursor.description is None:
                    cursor.fetchmany(0)  # psycopg2 describes the columns only then; in psycopg 3, 0 would be 1
                return cursor
            except Exception:  # noqa: BLE001 - an error of the statement itself is raised again below
                # A statement such as EXPLAIN has no cursor; declaring one has not executed it.
                connection.rollback()
        cursor = connection.cursor()
        self._execute_with(cursor, sql)
        return cursor

    def _execute_with(self, cursor: Any, sql: str) -> None:
        parameters = self.parameters
        if not parameters:
            cursor.execute(sql)  # without parameters, a `%` in the statement is not a placeholder
        elif isinstance(parameters, Mapping):
            cursor.execute(sql, dict(parameters))
        else:
            # Drivers take a tuple or a list, and no other sequence, such as the outputs of a mapped task.
            cursor.execute(sql, parameters if isinstance(parameters, tuple) else list(parameters))


class QueryResult:
    """The rows of a query, in a temporary file without a name. Iterating yields each row as a mapping.

    Args:
        columns: the names of the columns.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="smtpcm-")  # noqa: SIM115 - closed by `close`
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for rows in self.batches():
            for row in rows:
                yield dict(zip(self.columns, row, strict=True))

    def add(self, rows: Sequence[Any]) -> None:
        """Add rows as a driver returns them: tuples, or mappings if the connection asks for them.

        Raises:
            MessageError: the temporary file cannot be written.
        """
        plain = [tuple(map(row.__getitem__, self.columns)) if isinstance(row, Mapping) else tuple(row) for row in rows]
        try:
            octets = pickle.dumps(plain, protocol=pickle.HIGHEST_PROTOCOL)
        except Exception:  # noqa: BLE001 - objects of the driver, which may raise anything
            octets = pickle.dumps([tuple(map(_to_picklable, row)) for row in plain], protocol=pickle.HIGHEST_PROTOCOL)
        try:
            self._file.write(octets)
            self._file.flush()
        except OSError as error:
            raise MessageError(
                f"The rows of the query cannot be written to a temporary file: {error}.",
                remedy="Make room in the worker's temporary folder (TMPDIR).",
                retryable=True,
            ) from error
        self._count += len(plain)

    def batches(self) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows in lists of at most `BATCH_ROWS`."""
        position, done = 0, 0
        while done < self._count:
            self._file.seek(position)  # another iteration may have moved it
            rows: list[tuple[Any, ...]] = pickle.load(self._file)  # noqa: S301 - no one else can write to this file
            position, done = self._file.tell(), done + len(rows)
            yield rows

    def close(self) -> None:
        """Delete the rows."""
        with suppress(OSError):  # what could not be written
            self._file.close()


def _to_picklable(value: Any) -> Any:
    """Return a value without what belongs to the driver or the connection: a buffer, a LOB."""
    if isinstance(value, memoryview | bytearray):
        return bytes(value)
    if callable(getattr(value, "read", None)):
        return value.read()
    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001 - as in `add`
        return str(value)
    return value


def _to_name(name: object) -> str:
    return name.decode() if isinstance(name, bytes) else str(name or "")


def _advance(cursor: Any) -> bool:
    """Go to the next result of the statement; return whether there is one."""
    try:
        return bool(cursor.nextset())
    except Exception as error:
        # PEP 249: the method is optional, and raises if the database has no batches.
        if isinstance(error, AttributeError) or type(error).__name__ == "NotSupportedError":
            return False
        raise


def _report_lineage(hook: DbApiHook, sql: str, parameters: Any, cursor: Any) -> None:
    """Report the query to Airflow's lineage, as Airflow's SQL operators do."""
    try:
        from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage
    except ImportError:  # an older provider
        return
    send_sql_hook_lineage(context=hook, sql=sql, sql_parameters=parameters, cur=cursor)
