"""Queries against real databases, by Airflow's own hooks: PostgreSQL by both of its drivers, and databases over ODBC.

Values of each type come from the server, and many rows do not fill the memory.
"""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.util import find_spec
from typing import Any

import openpyxl
import psycopg2
import pyarrow.parquet as pq
import pytest
from airflow.sdk import DAG

from airflow_provider_smtpcm import MailMergeOperator, SqlQuery, SqlToMailOperator
from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.testing import Relay
from demo.processes import LOOPBACK
from tests.integration.celery_stack import Postgresql
from tests.integration.odbc_databases import Database

pytestmark = pytest.mark.slow

RunDag = Callable[[DAG], Any]
#: The drivers of PostgreSQL that its hook uses. The newer one is part of the provider from version 7 on.
DRIVERS = ["psycopg2", "psycopg"]
# The most that a process may need beyond what Airflow itself does, in MiB, whatever the number of rows.
MOST_MEBIBYTES = 60
VALUES = """
    SELECT * FROM (VALUES
        (1, 'Jürgen', 12.50::numeric(10, 2), 0.5::float8, date '2026-11-30', timestamp '2026-11-30 08:15:00',
         timestamptz '2026-11-30 08:15:00+01', true, '\\x1f2e'::bytea, '{"a": 1}'::jsonb,
         interval '26 hours 15 minutes'),
        (2, NULL, 'NaN'::numeric, 'NaN'::float8, NULL, NULL, NULL, NULL, NULL, NULL, NULL)
    ) AS orders (id, name, amount, rate, day, moment, instant, flag, octets, document, duration)
    ORDER BY id
"""


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """A relay behind the default connection."""
    with Relay(ssl_mode="none") as relay:
        monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(relay.airflow_connection()))
        yield relay


def airflow_connection(server: Postgresql, **extra: object) -> str:
    """The connection of a server, as an environment variable has it."""
    place = {"conn_type": "postgres", "host": LOOPBACK, "port": server.port, "schema": "postgres"}
    return json.dumps({**place, "login": "airflow", "password": server.password, "extra": extra})


@pytest.fixture(params=DRIVERS)
def postgresql(
    request: pytest.FixtureRequest, running_postgresql: Postgresql, monkeypatch: pytest.MonkeyPatch
) -> Postgresql:
    """A server that Airflow knows as `sales`, by each driver."""
    from airflow.providers.postgres.hooks import postgres

    if request.param == "psycopg" and not getattr(postgres, "USE_PSYCOPG3", False):
        pytest.skip("psycopg 3 missing, which the hook of this version does not need")
    monkeypatch.setattr(postgres, "USE_PSYCOPG3", request.param == "psycopg", raising=False)
    monkeypatch.setenv("AIRFLOW_CONN_SALES", airflow_connection(running_postgresql))
    return running_postgresql


def fetched(sql: str, *parameters: object) -> list[dict[str, Any]]:
    with closing(SqlQuery(sql=sql, sql_conn_id="sales", parameters=list(parameters)).fetch()) as rows:
        return list(rows)


def run_on(server: Postgresql, statement: str) -> list[tuple[Any, ...]]:
    """Run a statement beside Airflow, and return its rows."""
    with closing(psycopg2.connect(server.dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_every_type_of_postgresql_arrives_in_the_table_and_the_files(
    postgresql: Postgresql, relay: Relay, run_dag: RunDag
) -> None:
    """By a real run, and readers that did not write the files."""
    with DAG("types", schedule=None) as dag:
        SqlToMailOperator(
            task_id="send",
            sql=VALUES,
            sql_conn_id="sales",
            from_address="etl@corp.example",
            to="a@corp.example",
            text="{{ result.table }}",
            attach_as=["a.csv", "a.xlsx", "a.parquet"],
        )
    assert str(run_dag(dag).state) == "success"
    message = relay.messages[0].message
    files = {str(part.get_filename()): part.get_payload(decode=True) for part in message.iter_attachments()}
    header, first, second = csv.reader(io.StringIO(files["a.csv"].decode("utf-8-sig")))  # type: ignore[union-attr]
    assert header == "id name amount rate day moment instant flag octets document duration".split()  # noqa: SIM905
    assert first[:6] == ["1", "Jürgen", "12.50", "0.5", "2026-11-30", "2026-11-30 08:15:00"]
    assert first[6] in ("2026-11-30 07:15:00+00:00", "2026-11-30 08:15:00+01:00")  # by the session's zone
    assert first[7:] == ["true", "0x1F2E", '{"a": 1}', "26:15:00"]
    assert second == ["2", "", "NaN", "NaN", *[""] * 7]
    sheet = openpyxl.load_workbook(io.BytesIO(files["a.xlsx"])).active  # type: ignore[arg-type]
    cells = [[cell.value for cell in row] for row in sheet.iter_rows(min_row=2)]
    assert cells[0][:4] == [1, "Jürgen", 12.5, 0.5]
    assert cells[1][:5] == [2, None, "NaN", "NaN", None]
    table = pq.read_table(io.BytesIO(files["a.parquet"]))  # type: ignore[arg-type]
    assert str(table.schema.field("instant").type) == "timestamp[us, tz=UTC]"
    assert table.column("octets").to_pylist() == [b"\x1f\x2e", None]
    plain = message.get_body(["plain"])
    assert plain is not None
    assert "2026-11-30 08:15:00" in plain.get_content()


@pytest.mark.parametrize("cursor", ["dictcursor", "namedtuplecursor"])
def test_rows_have_the_same_columns_however_the_connection_wants_its_rows(
    cursor: str, postgresql: Postgresql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an extra of Airflow's connection."""
    monkeypatch.setenv("AIRFLOW_CONN_SALES", airflow_connection(postgresql, cursor=cursor))
    assert fetched("SELECT 1 AS a, 'x' AS b") == [{"a": 1, "b": "x"}]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT n FROM generate_series(1, 2500) AS n;", [{"n": number} for number in range(1, 2501)]),
        ("SELECT 1 AS n WHERE false", []),
        ("WITH a AS (SELECT 1 AS n) SELECT n FROM a", [{"n": 1}]),
        ("VALUES (1)", [{"column1": 1}]),
        ("SELECT ';' AS n", [{"n": ";"}]),
        ("SELECT 1 % 2 AS n", [{"n": 1}]),
        ("SHOW server_encoding", [{"server_encoding": "UTF8"}]),
        ("SET LOCAL TIME ZONE 'UTC'; SELECT 7 AS n", [{"n": 7}]),
        ("INSERT INTO written VALUES (1) RETURNING n", [{"n": 1}]),
        ("WITH a AS (INSERT INTO written VALUES (1) RETURNING n) SELECT n FROM a", [{"n": 1}]),
    ],
)
def test_every_statement_that_returns_rows_is_a_query(
    sql: str, expected: list[dict[str, Any]], postgresql: Postgresql
) -> None:
    """Also one that PostgreSQL has no cursor for; what it writes is there once, and stays."""
    run_on(postgresql, "DROP TABLE IF EXISTS written; CREATE TABLE written (n int)")
    assert fetched(sql) == expected
    assert len(run_on(postgresql, "SELECT n FROM written")) == ("INSERT" in sql)


def test_a_connection_that_commits_each_statement_has_no_cursor_on_the_server(
    running_postgresql: Postgresql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are read without it."""
    if find_spec("psycopg") is None:
        pytest.skip("psycopg 3 missing, which the hook of this version does not need")
    monkeypatch.setenv("AIRFLOW_CONN_SALES", airflow_connection(running_postgresql, autocommit=True))
    assert fetched("SELECT 1 AS a") == [{"a": 1}]


def test_values_for_placeholders_are_quoted_by_the_driver(postgresql: Postgresql) -> None:
    """Whatever is in them."""
    text = "'; DROP TABLE orders; -- %s"
    assert fetched("SELECT %s AS a, %s::int + 1 AS b", text, 5) == [{"a": text, "b": 6}]
    query = SqlQuery(sql="SELECT %(a)s::text AS a", sql_conn_id="sales", parameters={"a": text})
    with closing(query.fetch()) as rows:
        assert list(rows) == [{"a": text}]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELEKT 1", 'failed: SyntaxError: syntax error at or near "SELEKT"'),
        ("SELECT 1 / (n - 2000) AS a FROM generate_series(1, 3000) AS n", "failed: DivisionByZero"),
        ("SELECT 1, 2", r"more than one column '\?column\?'"),
        ("CREATE TEMP TABLE t (n int)", "returned no result set"),
    ],
)
def test_what_the_server_objects_to_is_in_the_error(sql: str, said: str, postgresql: Postgresql) -> None:
    """Also what it notices after the first thousand rows."""
    with pytest.raises(MessageError, match=said):
        fetched(sql)


def test_an_unreachable_server_is_a_failure_that_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for Airflow's own operators."""
    place = {"conn_type": "postgres", "host": LOOPBACK, "port": 1, "schema": "postgres", "login": "a", "password": "b"}
    monkeypatch.setenv("AIRFLOW_CONN_SALES", json.dumps(place))
    with pytest.raises(MessageError, match="failed: OperationalError") as caught:
        fetched("SELECT 1 AS a")
    assert caught.value.retryable


def test_a_merge_sends_a_mail_for_each_row_of_a_query(postgresql: Postgresql, relay: Relay, run_dag: RunDag) -> None:
    """More than are read at once; the database is free before the first mail."""
    with DAG("merge", schedule=None) as dag:
        MailMergeOperator(
            task_id="send",
            rows=SqlQuery(
                sql="SELECT n, 'p' || n || '@corp.example' AS email FROM generate_series(%s, 1500) AS n ORDER BY n",
                sql_conn_id="{{ params.database }}",
                parameters=["{{ params.first }}"],
            ),
            params={"database": "sales", "first": 1},
            row_key="{{ row.n }}",
            from_address="etl@corp.example",
            to="{{ row.email }}",
            subject="{{ row.n }}",
            text="x",
        )
    run = run_dag(dag)
    assert str(run.state) == "success"
    (instance,) = run.get_task_instances()
    assert instance.xcom_pull(task_ids="send")["counts"]["accepted"] == 1500
    assert {received.recipients[0] for received in relay.messages} == {f"p{n}@corp.example" for n in range(1, 1501)}


# --- Over ODBC, as databases of SSIS packages are reached


def test_a_query_over_odbc_is_a_mail(
    database: Database, relay: Relay, run_dag: RunDag, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver in the extra of the connection is an argument of the hook, as in Airflow's own operators."""
    monkeypatch.setenv("AIRFLOW_CONN_SALES", database.airflow)
    database.create("orders", id="int", note="text")
    database.insert("orders", *((number, f"Jürgen {number}") for number in range(1, 2002)))
    with DAG("odbc", schedule=None) as dag:
        SqlToMailOperator(
            task_id="send",
            sql="SELECT id, note FROM orders WHERE id > ? ORDER BY id",
            parameters=[1],
            sql_conn_id="sales",
            from_address="etl@corp.example",
            to="a@corp.example",
            subject="{{ result.row_count }}",
            attach_as="a.csv",
        )
    assert str(run_dag(dag).state) == "success"
    message = relay.messages[0].message
    assert message["Subject"] == "2000"
    (part,) = message.iter_attachments()
    lines = list(csv.reader(io.StringIO(part.get_payload(decode=True).decode("utf-8-sig"))))  # type: ignore[union-attr]
    assert (lines[0], lines[-1], len(lines)) == (["id", "note"], ["2001", "Jürgen 2001"], 2001)


# --- Many rows

# Prints the octets of a file with so many rows, and the memory (MiB) that it takes beyond a file with a few.
PROGRAM = """
import json, resource, sys
from contextlib import closing
from airflow.providers.postgres.hooks import postgres
from airflow_provider_smtpcm.operators.sql_query import SqlQuery
from airflow_provider_smtpcm.tables.files import TemporaryResultFile, write_file

driver, name, number = sys.argv[1:]
postgres.USE_PSYCOPG3 = driver == "psycopg"
SQL = "SELECT n AS id, 'Customer ' || n AS name, n / 7.0 AS amount, now() AS at FROM generate_series(1, %s) AS n"

def write(rows):
    with closing(SqlQuery(sql=SQL % rows, sql_conn_id="sales").fetch()) as result:
        with closing(TemporaryResultFile(name)) as path:
            write_file(result, name, path.file)
            return path.stat().st_size

def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

write(2000)
before = most()
size = write(int(number))
print(json.dumps([size, most() - before]))
"""


@pytest.mark.parametrize(
    ("driver", "name", "rows"),
    [
        ("psycopg2", "a.csv", 1_000_000),
        ("psycopg", "a.csv", 1_000_000),
        ("psycopg2", "a.parquet", 500_000),
        ("psycopg2", "a.xlsx", 100_000),
    ],
)
def test_a_million_rows_take_no_more_memory_than_a_thousand(
    driver: str, name: str, rows: int, running_postgresql: Postgresql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the process that reads and writes them."""
    if driver == "psycopg" and find_spec("psycopg") is None:
        pytest.skip("psycopg 3 missing, which the hook of this version does not need")
    monkeypatch.setenv("AIRFLOW_CONN_SALES", airflow_connection(running_postgresql))
    command = [sys.executable, "-c", PROGRAM, driver, name, str(rows)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert ended.returncode == 0, ended.stderr
    size, mebibytes = json.loads(ended.stdout.splitlines()[-1])
    assert size > rows * 20
    assert mebibytes < MOST_MEBIBYTES
