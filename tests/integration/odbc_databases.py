"""Real databases through ODBC: SQLite in a file, PostgreSQL as a server of the test's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.processes import LOOPBACK
from tests.integration.celery_stack import Postgresql
from tests.integration.programs import absent

_LIBRARIES = {
    "*/odbc/libsqlite3odbc*.so": "SQLite's ODBC driver",
    "*/odbc/psqlodbcw.so": "PostgreSQL's ODBC driver",
    "postgresql/*/bin/initdb": "postgresql",
}


def missing() -> str | None:
    """Return what the databases need and this machine lacks, or None."""
    return absent(["odbcinst"], _LIBRARIES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A database.

    Args:
        connection: a connection of pyodbc, which commits each statement.
        airflow: the Airflow connection, as an environment variable has it.
        types: the column type of each kind of value: int, decimal, moment, bool, text.
    """

    connection: Any
    airflow: str
    types: dict[str, str]

    def create(self, table: str, **columns: str) -> None:
        """Create a table, without one of that name that another test left behind.

        Args:
            columns: the kind of value of each column.
        """
        self.run(f"DROP TABLE IF EXISTS {table}")
        self.run(f"CREATE TABLE {table} ({', '.join(f'{name} {self.types[kind]}' for name, kind in columns.items())})")

    def insert(self, table: str, *rows: tuple[object, ...]) -> None:
        """Insert rows."""
        for row in rows:
            self.run(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", *row)  # noqa: S608 - our own names

    def run(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement, and return its rows."""
        cursor = self.connection.execute(statement, *parameters)
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else []


@contextmanager
def open_sqlite(folder: Path) -> Iterator[Database]:
    """Open a database in a folder."""
    path = str(folder / "sales.db")
    airflow = {"conn_type": "odbc", "extra": {"driver": "SQLite3", "Database": path}}
    types = {"int": "integer", "decimal": "numeric", "moment": "text", "bool": "integer", "text": "text"}
    with _connect(f"Driver=SQLite3;Database={path}") as connection:
        yield Database(connection=connection, airflow=json.dumps(airflow), types=types)


@contextmanager
def open_postgresql(server: Postgresql) -> Iterator[Database]:
    """Open the database of a server."""
    airflow = {
        "conn_type": "odbc",
        "host": LOOPBACK,
        "port": server.port,
        "schema": "postgres",
        "login": "airflow",
        "password": server.password,
        "extra": {"driver": "PostgreSQL Unicode"},
    }
    types = {"int": "integer", "decimal": "numeric(12, 2)", "moment": "timestamp", "bool": "boolean", "text": "text"}
    string = (
        f"Driver=PostgreSQL Unicode;Server={LOOPBACK};Port={server.port};Database=postgres;Uid=airflow;"
        f"Pwd={server.password}"
    )
    with _connect(string) as connection:
        yield Database(connection=connection, airflow=json.dumps(airflow), types=types)


@contextmanager
def _connect(string: str) -> Iterator[Any]:
    import pyodbc

    connection = pyodbc.connect(string, autocommit=True)
    try:
        yield connection
    finally:
        connection.close()
