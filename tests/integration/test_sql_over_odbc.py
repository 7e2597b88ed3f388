"""Execute SQL tasks as imported DAGs have them, against real databases: SQLite and PostgreSQL through ODBC.

The forms are those that the import writes. Values flow from a query to a variable, from there to the parameter of a
statement, to a condition and to a mail.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import DAG

from airflow_provider_smtpcm.operators.mail_merge import MailMergeOperator
from airflow_provider_smtpcm.operators.only_if import OnlyIfOperator
from airflow_provider_smtpcm.operators.send_mail import SendMailOperator
from airflow_provider_smtpcm.operators.ssis import ExpressionOperator
from airflow_provider_smtpcm.ssis import macros
from airflow_provider_smtpcm.ssis.live_values import TypedTemplate
from airflow_provider_smtpcm.ssis.model import (
    Container,
    ContainerKind,
    DatabaseConnection,
    DatabaseKind,
    ForeachLoop,
    ResultSetType,
    Severity,
    SqlResult,
    SqlTask,
)
from airflow_provider_smtpcm.ssis.sql_results import (
    fetch_results,
    full_result_set,
    no_result_set,
    result_rows,
    single_row,
)
from airflow_provider_smtpcm.ssis.writing.conversion import ConversionOptions
from airflow_provider_smtpcm.testing import Relay
from tests.integration.odbc_databases import Database
from tests.ssis.writing.building import constraint, mail, other_task, variable, written

pytestmark = pytest.mark.slow

RunDag = Callable[[DAG], Any]
NOTE = 'O\'Brien says "50 % {{ off }}"; Jürgen – ?'


@pytest.fixture(autouse=True)
def _connection(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Airflow know the database as `db_sales`."""
    monkeypatch.setenv("AIRFLOW_CONN_DB_SALES", database.airflow)


@pytest.fixture
def orders(database: Database) -> Database:
    """Two orders, and an empty log."""
    database.create("orders", id="int", amount="decimal", placed="moment", note="text")
    database.create(
        "log", counted="int", amount="decimal", latest="moment", note="text", complete="bool", missing="text"
    )
    database.insert("orders", (1, "10.50", "2026-11-28 09:00:00", "zero"), (2, "2.25", "2026-11-29 10:57:48.123", NOTE))
    return database


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """A relay behind the default connection."""
    with Relay(ssl_mode="none") as relay:
        monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(relay.airflow_connection()))
        yield relay


def query(task_id: str, sql: str, *parameters: object, **more: Any) -> SQLExecuteQueryOperator:
    """Return an Execute SQL task as the import writes it."""
    more.setdefault("output_processor", no_result_set())
    return SQLExecuteQueryOperator(
        task_id=task_id,
        conn_id="db_sales",
        sql=sql,
        parameters=list(parameters) or None,
        autocommit=True,
        handler=fetch_results,
        **more,
    )


def read(name: str, task_id: str, data_type: str) -> str:
    """Return the Jinja expression that reads a variable."""
    return f"ssis.variable(ti, 'User::{name}', ['{task_id}'], params['{name}'], '{data_type}')"


def parameter(name: str, task_id: str, data_type: str) -> TypedTemplate:
    """Return a parameter of a statement that reads a variable."""
    return TypedTemplate(f"{{{{ {read(name, task_id, data_type)} }}}}", data_type)


PARAMS = {"Rows": 0, "Amount": "0", "Latest": "2000-01-01", "Note": "", "Since": "2026-11-01", "Empty": ""}


def load_dag(since: str = "2026-11-01") -> DAG:
    """Return a DAG that counts the new orders, logs and reports them."""
    with DAG("load", schedule=None, params={**PARAMS, "Since": since}, user_defined_macros={"ssis": macros}) as dag:
        count = query(
            "count",
            "SELECT COUNT(*) AS n, MAX(amount) AS amount, MAX(placed) AS latest, MIN(note) AS note FROM orders "
            "WHERE placed >= ? HAVING COUNT(*) > 0",
            TypedTemplate("{{ params['Since'] }}", "DT_WSTR"),
            output_processor=single_row(
                {"User::Rows": 0, "User::Amount": "AMOUNT", "User::Latest": 2, "User::Note": "note"}
            ),
            multiple_outputs=True,
        )
        log = query(
            "log",
            "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)",
            parameter("Rows", "count", "DT_I4"),
            parameter("Amount", "count", "DT_DECIMAL"),
            parameter("Latest", "count", "DT_DBTIMESTAMP"),
            parameter("Note", "count", "DT_WSTR"),
            TypedTemplate(f"{{{{ {read('Rows', 'count', 'DT_I4')} == 2 }}}}", "DT_BOOL"),
            TypedTemplate("{{ ssis.null('DT_WSTR') }}", "DT_WSTR"),
        )
        doubled = ExpressionOperator(
            task_id="double",
            variables={"User::Rows": TypedTemplate(f"{{{{ {read('Rows', 'count', 'DT_I4')} * 2 }}}}", "DT_I4")},
        )
        both = "ssis.variable(ti, 'User::Rows', ['count', 'double'], params['Rows'], 'DT_I4')"
        if_any = OnlyIfOperator(task_id="if_any", condition=f"{{{{ {both} > 0 }}}}")
        latest, note = read("Latest", "count", "DT_DATE"), read("Note", "count", "DT_WSTR")
        mail = SendMailOperator(
            task_id="mail",
            from_address="etl@corp.example",
            to="ops@corp.example",
            subject=f"{{{{ {both} // 2 }}}} orders",
            text=f"{{{{ {latest} }}}}\n{{{{ {note} }}}}",
        )
        count >> log >> doubled >> if_any >> mail
    return dag


def test_a_query_s_result_reaches_a_statement_a_condition_and_a_mail(
    orders: Database, relay: Relay, run_dag: RunDag
) -> None:
    """With its types: numbers, a decimal number, a moment, a text with all kinds of signs, a Boolean, a NULL."""
    assert str(run_dag(load_dag()).state) == "success"
    [(counted, amount, latest, note, complete, missing)] = orders.run("SELECT * FROM log")
    assert (counted, Decimal(amount), note, missing) == (2, Decimal("10.50"), NOTE, None)
    assert dt.datetime.fromisoformat(str(latest)) == dt.datetime(2026, 11, 29, 10, 57, 48, 123000)  # noqa: DTZ001
    assert str(complete) in {"1", "True"}
    [mail] = relay.messages
    assert mail.message["Subject"] == "2 orders"
    assert mail.message.get_content().splitlines() == ["11/29/2026 10:57:48 AM", NOTE]


def test_without_a_row_the_task_fails_and_no_mail_is_sent(orders: Database, relay: Relay, run_dag: RunDag) -> None:
    """As in SSIS: a stale count is not reported."""
    run = run_dag(load_dag(since="2027-01-01"))
    states = {instance.task_id: str(instance.state) for instance in run.get_task_instances()}
    assert states["count"] == "failed"
    assert {state for task_id, state in states.items() if task_id != "count"} == {"upstream_failed"}
    assert relay.messages == []
    assert orders.run("SELECT * FROM log") == []


def test_each_row_of_a_full_result_set_is_a_mail(database: Database, relay: Relay, run_dag: RunDag) -> None:
    """As a Send Mail task in a Foreach loop over the rows."""
    database.create("people", address="text", owed="decimal")
    database.insert("people", ("a@corp.example", "1.75"), ("b@corp.example", "0.25"))
    sql = "SELECT address, owed FROM people ORDER BY address"
    with DAG("people", schedule=None, user_defined_macros={"ssis": macros}) as dag:
        rows = query("rows", sql, output_processor=result_rows({"Address": 0, "Owed": "owed"}))
        MailMergeOperator(
            task_id="merge",
            rows=rows.output,
            from_address="etl@corp.example",
            to="{{ row.Address }}",
            subject="You owe {{ row.Owed }}",
            text="Pay.",
        )
        listed = query("list", sql, output_processor=full_result_set("User::People"), multiple_outputs=True)
        listed >> SendMailOperator(
            task_id="mail",
            from_address="etl@corp.example",
            to="ops@corp.example",
            subject="{{ ssis.variable(ti, 'User::People', ['list']) | length }} people",
            text="{{ ssis.variable(ti, 'User::People', ['list'])[0][1] }}",
        )
    assert str(run_dag(dag).state) == "success"
    found = {mail.recipients[0]: mail for mail in relay.messages}
    assert {to: mail.message["Subject"] for to, mail in found.items()} == {
        "a@corp.example": "You owe 1.75",
        "b@corp.example": "You owe 0.25",
        "ops@corp.example": "2 people",
    }
    assert found["ops@corp.example"].message.get_content().strip() == "1.75"


def test_several_statements_run_one_after_the_other(orders: Database, run_dag: RunDag) -> None:
    """Those that GO divides are a list; what succeeded before an error stays, since SSIS commits each statement."""
    with DAG("batches", schedule=None) as dag:
        query(
            "all",
            ["DELETE FROM orders WHERE id = 1", "SELECT COUNT(*) FROM orders"],  # type: ignore[arg-type]
            output_processor=single_row({"User::Rows": 0}),
            multiple_outputs=True,
        ) >> query("fail", ["DELETE FROM orders", "SELECT * FROM no_such_table"])  # type: ignore[arg-type]
    run = run_dag(dag)
    states = {instance.task_id: str(instance.state) for instance in run.get_task_instances()}
    assert states == {"all": "success", "fail": "failed"}
    assert orders.run("SELECT * FROM orders") == []


def imported(*executables: Any, constraints: list[Any], folder: Path) -> DAG:
    """Return the DAG of a package."""
    module = written(
        *executables,
        constraints=constraints,
        variables=[variable("People", None, 13), variable("Address"), variable("Owed", "0", 5)],
        options=ConversionOptions(placeholders_pass=True),
    )
    assert all(finding.severity is Severity.NOTE for finding in module.findings)
    file = folder / module.file_name
    file.write_text(module.source, encoding="utf-8")
    space: dict[str, Any] = {"__name__": "dag_module"}
    exec(compile(module.source, file, "exec"), space)  # noqa: S102 - it is what Airflow does
    dag: DAG = space["dag"]
    return dag


@pytest.mark.parametrize("rows", [[("a@corp.example", "1.75"), ("b@corp.example;c@corp.example", "0.25")], []])
@pytest.mark.parametrize("holds_another_task", [False, True])
def test_an_imported_loop_over_a_query_sends_a_mail_for_each_row(
    database: Database,
    relay: Relay,
    run_dag: RunDag,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    rows: list[tuple[str, str]],
    holds_another_task: bool,
) -> None:
    """As a merge, or as a mapped group; what follows the loop runs, even if there is no row."""
    database.create("people", address="text", owed="decimal")
    database.insert("people", *rows)
    query_task = SqlTask(
        name="List people",
        id="{query}",
        path=("Package", "List people"),
        connection=DatabaseConnection(name="Sales", id="{db}", kind=DatabaseKind.ODBC, connection_string="Dsn=sales;"),
        statement="SELECT address, owed FROM people ORDER BY address",
        result_set=ResultSetType.FULL,
        results=(SqlResult(name="0", variable="User::People"),),
    )
    path = ("Package", "Each")
    script = other_task("Script", path)
    expressions = {"ToLine": "@[User::Address]", "Subject": '"You owe " + (DT_WSTR, 9)@[User::Owed]'}
    remind = mail("Remind", path, expressions=expressions)
    each = Container(
        name="Each",
        id="{each}",
        path=path,
        kind=ContainerKind.FOREACH_LOOP,
        foreach_loop=ForeachLoop(
            enumerator="ADO", variable="User::People", mappings=((0, "User::Address"), (1, "User::Owed"))
        ),
        executables=(script, remind) if holds_another_task else (remind,),
        constraints=(constraint(script, remind),) if holds_another_task else (),
    )
    after = mail("After", subject="done")
    constraints = [constraint(query_task, each), constraint(each, after)]
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_MAIL_CORP_EXAMPLE", json.dumps(relay.airflow_connection()))
    dag = imported(query_task, each, after, constraints=constraints, folder=tmp_path)
    assert str(run_dag(dag).state) == "success"
    *mails, last = [(str(one.message["Subject"]), list(one.recipients)) for one in relay.messages]
    assert last == ("done", ["ops@corp.example"])
    expected = [("You owe 1.75", ["a@corp.example"]), ("You owe 0.25", ["b@corp.example", "c@corp.example"])]
    # Of a mapped group, Airflow's `dag.test` takes any instance first.
    assert (sorted(mails) if holds_another_task else mails[::-1]) == (sorted(expected) if rows else [])
