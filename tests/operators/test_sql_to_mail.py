"""The result of a query as a mail: a table, files, or both, and nothing where there are no rows."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openpyxl
import pyarrow.parquet as pq
import pytest
from airflow.sdk import DAG, task

from airflow_provider_smtpcm import SqlToMailOperator
from airflow_provider_smtpcm.errors import StoppedError
from airflow_provider_smtpcm.ledger import record
from airflow_provider_smtpcm.operators import sql_query
from airflow_provider_smtpcm.operators._task import AirflowException, AirflowFailException, AirflowSkipException
from airflow_provider_smtpcm.operators.mail_merge import MailMergeOperator
from airflow_provider_smtpcm.operators.sql_query import BATCH_ROWS, SqlQuery
from airflow_provider_smtpcm.smtp import retry, throttling
from airflow_provider_smtpcm.smtp.cancellation import CancellationToken
from airflow_provider_smtpcm.tables import files
from airflow_provider_smtpcm.testing import Relay
from tests.operators.merges import merge
from tests.operators.test_send_mail_tries import A, B, Behind, Kept, attempt, failure, ids, retried
from tests.smtp.server import MESSAGE, STORE_AND_HANG_UP, Server
from tests.smtp.test_retried_batches import at_first

RunDag = Callable[[DAG], Any]
ORDERS = [(1, "Anna", 12.5), (2, "Björn & Söhne", None), (3, "{{ 7 * 7 }}", -3.25)]


class Sales:
    """A database in a file, which Airflow knows as `sales`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run("CREATE TABLE orders (id INTEGER, customer TEXT, amount REAL)")
        self.insert(*ORDERS)

    def run(self, statement: str, *parameters: object) -> list[Any]:
        """Run a statement, and return its rows."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute(statement, parameters).fetchall()

    def insert(self, *rows: tuple[Any, ...]) -> None:
        """Add orders."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.executemany("INSERT INTO orders VALUES (?, ?, ?)", rows)


@pytest.fixture
def sales(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sales:
    """Three orders."""
    connection = {"conn_type": "sqlite", "host": str(tmp_path / "sales.db")}
    monkeypatch.setenv("AIRFLOW_CONN_SALES", json.dumps(connection))
    return Sales(tmp_path / "sales.db")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_RETRY_DELAYS", (0.01,))
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(throttling, "FIRST_PAUSE", 0.02)


def query(**fields: Any) -> SqlToMailOperator:
    """A task with the least that it needs."""
    least = {
        "task_id": "send",
        "sql_conn_id": "sales",
        "sql": "SELECT * FROM orders ORDER BY id",
        "from_address": "etl@corp.example",
        "to": A,
        "retry_for": 0,
    }
    return SqlToMailOperator(**{**least, **fields})


def sent(relay: Relay, run_dag: RunDag, **fields: Any) -> EmailMessage:
    """The mail that the task sends, when Airflow runs it."""
    with DAG("reports", schedule=None) as dag:
        query(**fields)
    assert str(run_dag(dag).state) == "success"
    (received,) = relay.messages
    return received.message


def body(message: EmailMessage, kind: str) -> str:
    """The text of a body."""
    part = message.get_body([kind])
    assert part is not None
    return str(part.get_content())


def attached(message: EmailMessage) -> dict[str, bytes]:
    """The attachments by name."""
    return {str(part.get_filename()): part.get_payload(decode=True) for part in message.iter_attachments()}  # type: ignore[misc]


def csv_lines(octets: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(octets.decode("utf-8-sig"), newline=""), strict=True))


# --- What is sent


def test_a_query_alone_is_a_mail_with_a_table(sales: Sales, relay: Relay, run_dag: RunDag) -> None:
    """In HTML, with what the database has escaped."""
    html = body(sent(relay, run_dag), "html")
    assert html.count("<tr>") == 4
    assert "<th" in html
    assert "Björn &amp; Söhne" in html
    assert "{{ 7 * 7 }}" in html  # data is no template
    assert "more row" not in html


def test_an_empty_body_stays_empty(sales: Sales, relay: Relay, run_dag: RunDag) -> None:
    """For a mail that is its attachment."""
    message = sent(relay, run_dag, text="", attach_as="a.csv")
    assert body(message, "plain").strip() == ""
    assert message.get_body(["html"]) is None


def test_templates_see_the_result(sales: Sales, relay: Relay, run_dag: RunDag) -> None:
    """Beside all that Airflow's templates know."""
    message = sent(
        relay,
        run_dag,
        subject="{{ result.row_count }} orders of {{ task.task_id }}",
        text="{{ result.columns | join('|') }}: {{ result.rows[0].customer }}\n{{ result.table }}",
        html="<p>{{ result.rows[1].customer }}</p>{{ result.table }}",
    )
    assert message["Subject"] == "3 orders of send"
    assert body(message, "plain").splitlines()[:3] == [
        "id|customer|amount: Anna",
        "id  customer       amount",
        "--  -------------  ------",
    ]
    assert body(message, "html").startswith("<p>Björn &amp; Söhne</p><table")


@pytest.mark.parametrize("native", [False, True])
def test_a_column_may_have_the_name_of_a_method(
    native: bool, sales: Sales, relay: Relay, run_dag: RunDag, tmp_path: Path
) -> None:
    """As in a merge; and NULL is an empty text, as in the table. A mapping's other methods remain."""
    (tmp_path / "report.txt").write_text("{{ result.rows[0].values }}, {{ result.rows[0]['get'] }}")
    first = "{% set row = result.rows[0] %}"
    loop = "{% for row in result.rows %}{% for name in row.keys() %}{{ name }}={{ row[name] }};{% endfor %}{% endfor %}"
    with DAG("reports", schedule=None, render_template_as_native_obj=native) as dag:
        query(
            sql="SELECT 3 AS items, NULL AS 'get', 'v' AS 'values', 'c' AS copy",
            subject=f"{first}{{{{ row.items }}}},{{{{ row.get }}}},{{{{ [row] | map(attribute='copy') | first }}}}",
            html=loop,
            text_file=str(tmp_path / "report.txt"),
        )
    assert str(run_dag(dag).state) == "success"
    (received,) = relay.messages
    assert received.message["Subject"] == "3,,c"
    assert body(received.message, "html").strip() == "items=3;get=;values=v;copy=c;"
    assert body(received.message, "plain").strip() == "v,"


def test_template_files_see_the_result_too(sales: Sales, relay: Relay, run_dag: RunDag, tmp_path: Path) -> None:
    """By its name."""
    (tmp_path / "report.html").write_text("<h1>{{ result.row_count }}</h1>{{ result.table }}")
    (tmp_path / "report.txt").write_text("{{ result.rows | length }} rows")
    files = {"html_file": str(tmp_path / "report.html"), "text_file": str(tmp_path / "report.txt")}
    message = sent(relay, run_dag, max_rows=2, **files)
    assert body(message, "html").startswith("<h1>3</h1><table")
    assert body(message, "html").rstrip().endswith("<p>… and 1 more row</p>")
    assert body(message, "plain").strip() == "2 rows"


def test_all_rows_are_in_the_files_beside_the_other_attachments(
    sales: Sales, relay: Relay, run_dag: RunDag, tmp_path: Path
) -> None:
    """Whatever the body shows."""
    sales.insert(*((number, "x", number / 2) for number in range(4, 2 * BATCH_ROWS + 2)))
    (tmp_path / "terms.txt").write_text("Pay.")
    names = ["{{ task.task_id }}.csv", "orders.xlsx", "orders.parquet"]
    message = sent(relay, run_dag, attach_as=names, max_rows=1, attachments=str(tmp_path / "terms.txt"))
    files = attached(message)
    assert list(files) == ["terms.txt", "send.csv", "orders.xlsx", "orders.parquet"]
    rows = sales.run("SELECT * FROM orders ORDER BY id")
    lines = csv_lines(files["send.csv"])
    assert lines[:3] == [["id", "customer", "amount"], ["1", "Anna", "12.5"], ["2", "Björn & Söhne", ""]]
    assert len(lines) == len(rows) + 1
    sheet = openpyxl.load_workbook(io.BytesIO(files["orders.xlsx"])).active
    assert list(sheet.iter_rows(min_row=2, values_only=True)) == rows
    table = pq.read_table(io.BytesIO(files["orders.parquet"]))
    assert [tuple(row.values()) for row in table.to_pylist()] == rows
    assert "… and 2,000 more rows in send.csv and orders.xlsx and orders.parquet" in body(message, "html")
    types = [part.get_content_type() for part in message.iter_attachments()]
    assert types[1:] == [
        "text/csv",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "application/vnd.apache.parquet",
    ]


def test_values_for_the_statement_are_parameters(sales: Sales, relay: Relay, run_dag: RunDag) -> None:
    """Templates, and outputs of other tasks with their types."""
    with DAG("parameters", schedule=None) as dag:

        @task
        def smallest() -> int:
            return 2

        query(
            sql="SELECT customer, typeof(?) AS kind FROM orders WHERE id >= ? AND customer <> ?",
            parameters=[smallest(), smallest(), "{{ 'it''s' if false else params.other }}"],
            params={"other": "{{ 7 * 7 }}"},
            text="{{ result.rows }}",
        )
    assert str(run_dag(dag).state) == "success"
    assert body(relay.messages[0].message, "plain").strip() == "[{'customer': 'Björn & Söhne', 'kind': 'integer'}]"


def test_a_dag_with_native_objects_keeps_the_types_of_parameters(sales: Sales, relay: Relay, run_dag: RunDag) -> None:
    """A number stays one; in the mail, text stays text."""
    with DAG("native", schedule=None, render_template_as_native_obj=True, params={"ids": [1, 2], "id": 1}) as dag:
        query(
            sql="SELECT typeof(?) AS kind, count(*) AS n FROM orders WHERE id IN (?, ?)",
            parameters=["{{ params.id }}", "{{ params.ids[0] }}", "{{ params.ids[1] }}"],
            subject="{{ result.row_count }}",
            text="{{ result.rows[0].kind }} {{ result.rows[0].n }}",
        )
    assert str(run_dag(dag).state) == "success"
    assert relay.messages[0].message["Subject"] == "1"
    assert body(relay.messages[0].message, "plain").strip() == "integer 2"


def test_a_statement_is_included_from_a_file(sales: Sales, relay: Relay, run_dag: RunDag, tmp_path: Path) -> None:
    """As SQL Server Management Studio saves it: with a byte order mark. Templates in it are rendered."""
    (tmp_path / "orders.sql").write_text("SELECT id FROM orders WHERE id > {{ params.least }};", encoding="utf-8-sig")
    with DAG("included", schedule=None, template_searchpath=str(tmp_path), params={"least": 1}) as dag:
        query(sql="{% include 'orders.sql' %}", text="{{ result.row_count }}")
    assert str(run_dag(dag).state) == "success"
    assert body(relay.messages[0].message, "plain").strip() == "2"


def test_a_task_for_each_region_is_mapped_over_parameters(sales: Sales, relay: Relay, run_dag: RunDag) -> None:
    """And what is in `partial` is a template over each one's result."""
    with DAG("mapped", schedule=None) as dag:
        query_of_each = SqlToMailOperator.partial(
            task_id="send",
            sql_conn_id="sales",
            sql="SELECT customer FROM orders WHERE id = ?",
            from_address="etl@corp.example",
            subject="For {{ result.rows[0].customer }}",
        )
        query_of_each.expand_kwargs([{"to": A, "parameters": [1]}, {"to": B, "parameters": [3]}])
    assert str(run_dag(dag).state) == "success"
    subjects = {received.recipients[0]: received.message["Subject"] for received in relay.messages}
    assert subjects == {A: "For Anna", B: "For {{ 7 * 7 }}"}


def test_what_another_task_computed_is_no_template_over_the_result(sales: Sales, relay: Relay, run_dag: RunDag) -> None:
    """Neither its output nor a mapping of it."""
    with DAG("computed", schedule=None) as dag:

        @task
        def computed() -> list[dict[str, str]]:
            return [{"subject": "{{ result.row_count }}"}]

        @task
        def text() -> str:
            return "{{ result.table }}"

        least = {"from_address": "etl@corp.example", "to": A, "sql": "SELECT 1 AS a", "sql_conn_id": "sales"}
        SqlToMailOperator.partial(task_id="send", text=text(), **least).expand_kwargs(computed())
    assert str(run_dag(dag).state) == "success"
    assert relay.messages[0].message["Subject"] == "{{ result.row_count }}"
    assert body(relay.messages[0].message, "plain").strip() == "{{ result.table }}"


# --- No rows


def test_a_query_without_rows_is_a_mail_that_says_so(sales: Sales, relay: Relay, run_dag: RunDag) -> None:
    """Unless somebody asked for something else."""
    message = sent(relay, run_dag, sql="SELECT * FROM orders WHERE id > 9", attach_as="orders.csv")
    assert "<p>No rows.</p>" in body(message, "html")
    assert csv_lines(attached(message)["orders.csv"]) == [["id", "customer", "amount"]]


def test_a_task_without_rows_is_skipped_where_somebody_asked_for_that(
    sales: Sales, relay: Relay, run_dag: RunDag
) -> None:
    """With what comes after it; and with rows it is not."""
    with DAG("skipping", schedule=None) as dag:

        @task
        def after() -> None:
            pass

        query(sql="SELECT * FROM orders WHERE id > 9", on_empty="skip") >> after()
        query(task_id="other", on_empty="skip")
    states = {instance.task_id: str(instance.state) for instance in run_dag(dag).get_task_instances()}
    assert states == {"send": "skipped", "after": "skipped", "other": "success"}
    assert len(relay.messages) == 1


# --- Several attempts


def refusing(address: str, times: int) -> Server:
    """A server that refuses this recipient at first."""
    return Server(at_first(times, "450 4.2.1 later", f"RCPT TO:<{address}>"))


def test_a_retry_does_not_ask_the_database_for_a_mail_that_everybody_has(sales: Sales, behind: Behind) -> None:
    """The attempt that sent it died before Airflow heard of it."""
    store = Kept()
    with Server() as server:
        behind(server)
        first = attempt(query(), store, max_tries=1)
        sales.run("DROP TABLE orders")
        assert attempt(query(), store, max_tries=1) == first
        assert len(server.stored) == 1


def test_a_retry_sends_the_present_result_to_those_who_lack_the_mail(sales: Sales, behind: Behind) -> None:
    """Under the same Message-ID; nobody gets both."""
    store = Kept()
    task_of_both = {"to": [A, B], "subject": "{{ result.row_count }}"}
    with refusing(B, 1) as server:
        behind(server)
        assert retried(failure(query(**task_of_both), store))
        sales.insert((4, "New", 1.0))
        assert attempt(query(**task_of_both), store)["outcome"] == "accepted"
        assert [b"Subject: 3" in stored.message for stored in server.stored] == [True, False]
        assert [b"Subject: 4" in stored.message for stored in server.stored] == [False, True]
        assert len(set(ids(server))) == 1


def test_a_retry_without_rows_is_not_skipped_once_somebody_has_the_mail(sales: Sales, behind: Behind) -> None:
    """The others would never hear of it."""
    store = Kept()
    fields = {"to": [A, B], "on_empty": "skip"}
    with refusing(B, 1) as server:
        behind(server)
        assert retried(failure(query(**fields), store))
        sales.run("DELETE FROM orders")
        error = failure(query(**fields), store)
        assert not retried(error)
        assert f"An earlier attempt delivered the mail to {A}, and not to the other recipients" in str(error)
        assert "The query returned no rows" in str(error)
        assert len(server.stored) == 1


def test_a_retry_without_rows_is_not_skipped_while_a_mail_is_in_doubt(sales: Sales, behind: Behind) -> None:
    """It may have been delivered."""
    store = Kept()
    fields = {"on_empty": "skip", "on_unknown": "retry"}
    with Server(at_first(1, STORE_AND_HANG_UP, MESSAGE)) as server:
        behind(server)
        assert retried(failure(query(**fields), store))
        sales.run("DELETE FROM orders")
        error = failure(query(**fields), store)
        assert "may have been delivered" in str(error)
        assert "The query returned no rows" in str(error)
        assert len(server.stored) == 1


def test_a_retry_without_rows_is_skipped_where_nobody_has_the_mail(sales: Sales, behind: Behind) -> None:
    """And a task that was skipped and then cleared sends what there is by then."""
    store = Kept()
    with Server(at_first(1, "451 4.3.0 later", "MAIL")) as server:
        behind(server)
        assert retried(failure(query(on_empty="skip"), store))
        sales.run("DELETE FROM orders")
        with pytest.raises(AirflowSkipException):
            attempt(query(on_empty="skip"), store)
        assert server.stored == []
        sales.insert((1, "Anna", 1.0))
        assert attempt(query(on_empty="skip"), store)["outcome"] == "accepted"


def test_a_database_that_is_away_is_retried_and_doubles_nothing(sales: Sales, behind: Behind) -> None:
    """What an earlier attempt may have delivered is named."""
    store = Kept()
    with Server(at_first(1, STORE_AND_HANG_UP, MESSAGE)) as server:
        behind(server)
        assert not retried(failure(query(), store))
        sales.run("ALTER TABLE orders RENAME TO away")
        error = failure(query(), store)
        assert "may have been delivered" in str(error)
        assert "no such table: orders" in str(error)
        assert len(server.stored) == 1


# --- Before it is sent


def test_a_preview_runs_the_query_and_has_its_files(sales: Sales, relay: Relay, tmp_path: Path) -> None:
    """Also after the operator is gone."""
    subject = "{{ result.row_count }} orders of {{ ds }}"
    mail = query(attach_as="orders.csv", subject=subject).preview({"ds": "2026-01-31"})
    assert mail.subject == "3 orders of 2026-01-31"
    mail.write_eml(tmp_path / "mail.eml")
    message = message_from_bytes((tmp_path / "mail.eml").read_bytes(), policy=default)
    assert len(csv_lines(attached(message)["orders.csv"])) == 4
    assert not relay.messages
    with pytest.raises(AirflowSkipException, match="returned no rows"):
        query(sql="SELECT * FROM orders WHERE id > 99", on_empty="skip").preview({})


def test_a_preview_of_a_merge_runs_its_query(sales: Sales, relay: Relay) -> None:
    """The statement is a template in the preview, too."""
    rows = SqlQuery(sql=PEOPLE.replace("ORDER", "WHERE id > {{ params.after }} ORDER"), sql_conn_id="sales")
    mails = people(rows=rows).preview({"params": {"after": 1}})
    assert [mail.subject for mail in mails.values()] == ["Invoice 2", "Invoice 3"]
    assert not relay.messages


# --- The rows of a merge

PEOPLE = "SELECT id, 'p' || id || '@corp.example' AS email FROM orders ORDER BY id"


def people(**fields: Any) -> MailMergeOperator:
    """A merge over a query."""
    return merge(
        **{
            "rows": SqlQuery(sql=PEOPLE, sql_conn_id="sales"),
            "row_key": "{{ row.id }}",
            "subject": "Invoice {{ row.id }}",
            **fields,
        }
    )


def test_a_merge_over_a_query_sends_what_is_pending_in_a_retry(sales: Sales, behind: Behind) -> None:
    """The query runs again, and may return more rows than before."""
    store = Kept()
    with refusing("p2@corp.example", 1) as server:
        behind(server)
        assert retried(failure(people(), store))
        sales.insert((4, "New", 1.0))
        assert attempt(people(), store)["counts"]["accepted"] == 4
        subjects = [re.findall(rb"Subject: Invoice (\d)", stored.message) for stored in server.stored]
        assert sorted(subjects) == [[b"1"], [b"2"], [b"3"], [b"4"]]


def test_rows_of_a_query_in_another_order_are_an_error_in_a_retry(sales: Sales, behind: Behind) -> None:
    """Nobody gets a second mail."""
    store = Kept()
    with refusing("p2@corp.example", 1) as server:
        behind(server)
        assert retried(failure(people(), store))
        other_order = SqlQuery(sql=f"{PEOPLE} DESC", sql_conn_id="sales")
        assert "row 1 is a different one" in str(failure(people(rows=other_order), store))
        assert len(server.stored) == 2


def test_tasks_may_share_a_query_whose_templates_each_renders_for_itself(
    sales: Sales, relay: Relay, run_dag: RunDag
) -> None:
    """The object in the DAG file is not changed."""
    shared = SqlQuery(
        sql="SELECT '{{ task.task_id }}' AS name, 'a@corp.example' AS email, ? AS id, typeof(?) AS kind",
        sql_conn_id="{{ params.database }}",
        parameters=["{{ params.id }}", 7],
    )
    with DAG("shared", schedule=None, params={"database": "sales", "id": 5}) as dag:
        one = people(task_id="one", rows=shared, subject="{{ row.name }} {{ row.id }} {{ row.kind }}")
        two = people(task_id="two", rows=shared, subject="{{ row.name }} {{ row.id }} {{ row.kind }}")
        one >> two
    assert str(run_dag(dag).state) == "success"
    assert [received.message["Subject"] for received in relay.messages] == ["one 5 integer", "two 5 integer"]
    assert shared.parameters == ["{{ params.id }}", 7]
    assert shared.sql_conn_id == "{{ params.database }}"


def test_a_query_that_fails_sends_no_mail_of_a_merge(sales: Sales, relay: Relay) -> None:
    """All rows are read before the first mail."""
    error = failure(people(rows=SqlQuery(sql="SELECT * FROM nowhere", sql_conn_id="sales")), Kept())
    assert retried(error)
    assert "no such table: nowhere" in str(error)
    assert relay.messages == []


# --- What is not possible


@pytest.mark.parametrize(
    ("fields", "said", "is_retried"),
    [
        (
            {"sql": "SELECT * FROM nowhere"},
            r"The query on 'sales' failed: OperationalError: no such table: nowhere\..*",
            True,
        ),
        ({"sql": "DELETE FROM orders"}, "returned no result set.*such as SELECT", False),
        ({"sql": " \n"}, "'sql' is empty", False),
        ({"sql": "orders.sql"}, r"'sql' is the name of a file.*\{% include 'orders\.sql' %\}", False),
        ({"sql": 5}, "'sql' has to be text, not int", False),
        ({"sql": "SELECT 1 AS a, 2 AS a"}, "The result of the query has more than one column 'a'", False),
        ({"parameters": "{{ ds }}"}, "'parameters' is str, not a list.*parameters=", False),
        (
            {"sql_conn_id": "smtpcm_default"},
            "'smtpcm', whose hook cannot be loaded.*connection of a database",
            False,
        ),
        (
            {"sql_conn_id": "unknown_kind"},
            "has the type 'nothing', whose hook cannot be loaded.*install the provider",
            False,
        ),
        ({"sql_conn_id": "folder"}, "has the type 'fs', whose hook FSHook runs no SQL", False),
        ({"subject": "{{ result.rows[0].total }}"}, "subject.*the row has no column 'total'; its columns are", False),
        ({"subject": "{{ result.total }}"}, "subject cannot be rendered.*'total'.*result.row_count", False),
        ({"html": "{{ 1 / 0 }}"}, "html cannot be rendered.*ZeroDivisionError", False),
    ],
)
def test_what_cannot_be_sent_is_an_error_that_says_what_to_do(
    fields: dict[str, Any], said: str, is_retried: bool, sales: Sales, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what the database says may be different the next time."""
    for conn_id, kind in (("UNKNOWN_KIND", "nothing"), ("FOLDER", "fs")):
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id}", json.dumps({"conn_type": kind}))
    with DAG("errors", schedule=None):
        operator = query(**fields)
    with pytest.raises(AirflowException, match=f"(?s){said}") as caught:
        attempt(operator, Kept())
    assert isinstance(caught.value, AirflowFailException) is not is_retried
    assert relay.messages == []


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("orders.doc", "'orders.doc' is not a kind of file"),
        (["a.csv", "a.csv"], "'attach_as' is.*different file names"),
    ],
)
def test_a_file_name_from_a_template_is_checked_before_the_query(
    names: object, said: str, sales: Sales, relay: Relay
) -> None:
    """Which may take an hour."""
    with DAG("errors", schedule=None):
        operator: Any = query(sql="SELECT * FROM nowhere", attach_as="{{ params.names }}")
    operator.attach_as = names  # as Airflow renders it
    with pytest.raises(AirflowFailException, match=said):
        attempt(operator, Kept())


@pytest.mark.parametrize(
    ("module", "name", "said"),
    [
        (sql_query, "a.csv", "The rows of the query cannot be written to a temporary file: "),
        (files, "a.csv", "'a.csv' cannot be written: OSError: "),
        (files, "a.xlsx", "'a.xlsx' cannot be written: FileCreateError: "),
        (files, "a.parquet", "'a.parquet' cannot be written: OSError: "),
    ],
)
def test_a_full_disk_is_a_failure_that_may_pass(
    module: Any, name: str, said: str, sales: Sales, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says which folder is meant."""

    def full(**_: object) -> Any:
        return Path("/dev/full").open("w+b")

    changed = SimpleNamespace(TemporaryFile=full, TemporaryDirectory=tempfile.TemporaryDirectory)
    monkeypatch.setattr(module, "tempfile", changed)
    with DAG("full", schedule=None):
        error = failure(query(attach_as=name), Kept())
    assert retried(error)
    assert f"{said}[Errno 28] No space left on device." in str(error)
    assert "TMPDIR" in str(error)
    assert relay.messages == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_rows": 0}, "max_rows is 0"),
        ({"on_empty": "fail"}, "on_empty is 'fail'; choose one of send, skip"),
        ({"delimiter": ";;"}, "delimiter is ';;'"),
        ({"attach_as": "orders.doc"}, "'orders.doc' is not a kind of file.*'orders.csv'"),
        ({"attach_as": "out/orders.csv"}, "'out/orders.csv' is not the name of a file"),
        ({"attach_as": ["a.csv", "a.csv"]}, "'attach_as' is.*different file names"),
        ({"attach_as": 5}, "'attach_as' is 5.*Give one file name"),
        ({"message": b"From: etl@corp.example\n\nText", "from_address": None}, "'message' is a complete message"),
    ],
)
def test_a_wrong_argument_is_an_error_of_the_dag(fields: dict[str, Any], said: str) -> None:
    """When it is parsed."""
    with pytest.raises(ValueError, match=said):
        query(**fields)


def test_its_wrong_arguments_are_in_one_error() -> None:
    """As those of the other operators are."""
    with pytest.raises(ValueError, match="has 3 wrong arguments:") as caught:
        query(max_rows=0, on_empty="fail", delimiter=";;")
    assert [part in str(caught.value) for part in ("max_rows is 0", "on_empty is 'fail'", "delimiter is ';;'")]


def test_an_image_is_no_mistake_beside_the_table(sales: Sales, relay: Relay, run_dag: RunDag, tmp_path: Path) -> None:
    """Which is HTML."""
    (tmp_path / "logo.gif").write_bytes(b"GIF89a")
    message = sent(relay, run_dag, inline_images={"logo": f"{tmp_path}/logo.gif"})
    assert "<table" in body(message, "html")


def test_a_missing_provider_for_sql_is_named(sales: Sales, relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes with Airflow, unless somebody removed it."""
    monkeypatch.setitem(__import__("sys").modules, "airflow.providers.common.sql.hooks.sql", None)
    with pytest.raises(AirflowFailException, match="pip install apache-airflow-providers-common-sql"):
        attempt(query(), Kept())


# --- The query


def test_rows_of_any_driver_are_kept(tmp_path: Path) -> None:
    """Also with values that belong to its connection: buffers, LOBs, what cannot be copied."""
    from airflow_provider_smtpcm.operators.sql_query import QueryResult

    lob = SimpleNamespace(read=lambda: "a long text")
    with closing(QueryResult(["a", "b", "c"])) as result:
        result.add([(memoryview(b"x"), lob, lambda: None)])
        result.add([{"c": 3, "a": 1, "b": 2}])
        first, second = result
        assert (first["a"], first["b"]) == (b"x", "a long text")
        assert str(first["c"]).startswith("<function")
        assert second == {"a": 1, "b": 2, "c": 3}
        assert [len(batch) for batch in result.batches()] == [1, 1]
        assert [row["a"] for row in zip(result, result, strict=True) for row in row] == [b"x", b"x", 1, 1]


def test_a_query_is_stopped_when_its_task_is(sales: Sales) -> None:
    """Between two batches of rows."""
    token = CancellationToken()
    token.cancel()
    with pytest.raises(StoppedError):
        SqlQuery(sql="SELECT * FROM orders", sql_conn_id="sales").fetch(token.raise_if_canceled)


def test_what_a_statement_writes_is_committed(sales: Sales) -> None:
    """As Airflow's own SQL operators do."""
    statement = "INSERT INTO orders VALUES (9, 'x', 1) RETURNING id"
    with closing(SqlQuery(sql=statement, sql_conn_id="sales").fetch()) as rows:
        assert list(rows) == [{"id": 9}]
    assert sales.run("SELECT count(*) FROM orders WHERE id = 9") == [(1,)]


def test_an_output_in_a_query_is_an_error_of_the_dag() -> None:
    """Airflow would not see that the task depends on the other one."""
    with DAG("outputs", schedule=None):

        @task
        def least() -> int:
            return 1

        with pytest.raises(ValueError, match=r"'parameters' has the output of another task.*xcom_pull"):
            SqlQuery(sql="SELECT ?", sql_conn_id="sales", parameters=[least()])
