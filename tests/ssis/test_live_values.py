"""Variables that tasks of a DAG set, read by later ones with the types that they have in SSIS."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from airflow.sdk import DAG, task, task_group

from airflow_provider_smtpcm.operators.only_if import OnlyIfOperator
from airflow_provider_smtpcm.operators.ssis import ExpressionOperator
from airflow_provider_smtpcm.ssis import macros
from airflow_provider_smtpcm.ssis.expressions import ExpressionError
from airflow_provider_smtpcm.ssis.live_values import TypedTemplate, convert, read_variable

RunDag = Callable[[DAG], Any]
MOMENT = dt.datetime(2026, 11, 29, 10, 57, 48, 123000)  # noqa: DTZ001 - SSIS has no time zones


@pytest.mark.parametrize(
    ("value", "data_type", "expected"),
    [
        ("12", "DT_I4", 12),
        ("12.00", "DT_I4", 12),
        (12.0, "DT_I8", 12),
        ("12.50", "DT_DECIMAL", Decimal("12.5")),
        ("12.50", "DT_NUMERIC", Decimal("12.5")),
        ("12.5", "DT_R8", 12.5),
        (1, "DT_BOOL", True),
        ("False", "DT_BOOL", False),
        (True, "DT_WSTR", "True"),
        (12, "DT_WSTR", "12"),
        ("O'Brien", "DT_WSTR", "O'Brien"),
        (None, "DT_I4", None),
        (MOMENT.isoformat(sep=" "), "DT_DATE", MOMENT),
        ("11/29/2026 10:57:48 AM", "DT_DATE", MOMENT.replace(microsecond=0)),
        ("29/11/2026 10:57:48", "DT_DATE", MOMENT.replace(microsecond=0)),
        ("29.11.2026 10:57:48", "DT_DATE", MOMENT.replace(microsecond=0)),
        ("2026-11-29", "DT_DBDATE", MOMENT.date()),
        (MOMENT, "DT_DBTIMESTAMP", MOMENT),
    ],
)
def test_a_value_has_the_type_of_its_variable(value: object, data_type: str, expected: object) -> None:
    """Whether an XCom, a param or a macro gave it."""
    found = convert(value, data_type).data
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "data_type"), [("12.5", "DT_I4"), ("", "DT_I4"), ("soon", "DT_DATE"), (300, "DT_UI1")]
)
def test_a_value_that_does_not_fit_fails(value: object, data_type: str) -> None:
    """SSIS would not assign it either."""
    with pytest.raises(ExpressionError):
        convert(value, data_type)


class Ti:
    """A task instance outside of a run, with the XComs of others."""

    dag_id, run_id, task_id, map_index, task = "load", "run", "mail", -1, None

    def __init__(self, try_number: int = 1, **pushed: Any) -> None:
        self.pushed, self.try_number, self.requests = pushed, try_number, 0

    def xcom_pull(self, task_ids: str, key: str, map_indexes: int) -> Any:
        assert (key, map_indexes) == ("User::Rows", -1)
        self.requests += 1
        return self.pushed.get(task_ids)


def test_the_last_task_that_pushed_a_value_counts() -> None:
    """One that was skipped is passed over; if all were, the design-time value stands."""
    ti = Ti(1, count=3, recount=5)
    assert read_variable(ti, "User::Rows", ["count", "recount", "skipped"], 0) == 5
    assert ti.requests == 2
    assert read_variable(Ti(2), "User::Rows", ["count", "recount"], 7) == 7
    assert read_variable(Ti(3, count=0), "User::Rows", ["count"], 7) == 0


def test_several_templates_of_a_task_request_an_xcom_once() -> None:
    """Subject, text and addresses of a mail use the same variable; the next attempt reads it again."""
    ti = Ti(4, count=3)
    assert [read_variable(ti, "User::Rows", ["count", "skipped"], 0) for _ in range(3)] == [3, 3, 3]
    assert ti.requests == 2
    assert read_variable(Ti(5, count=4), "User::Rows", ["count"], 0) == 4


@pytest.mark.parametrize(
    ("pushed", "data_type", "text"),
    [
        ("2026-11-29 10:57:48.123000", "DT_DATE", "11/29/2026 10:57:48 AM"),
        ("1.50", "DT_DECIMAL", "1.50"),
        (1.5, "DT_DECIMAL", "1.5"),
        (str(2**96 - 1), "DT_DECIMAL", str(2**96 - 1)),
        (12, "DT_NUMERIC", "12"),
        ("1.50", "DT_CY", "1.5000"),
        ("12.00", "DT_I4", "12"),
        (True, "DT_BOOL", "True"),
    ],
)
def test_a_value_in_a_mail_is_written_as_ssis_writes_its_type(pushed: Any, data_type: str, text: str) -> None:
    """XCom has it as text; neither the fraction of a second nor further zeros are in the mail."""
    value = read_variable(Ti(hash(pushed), count=pushed), "User::Rows", ["count"], None, data_type)
    assert macros.text(value, 30) == text


def test_a_callback_without_a_task_instance_has_the_design_time_value() -> None:
    """An alert is sent all the same."""
    from jinja2 import Undefined

    assert read_variable(Undefined(name="ti"), "User::Rows", ["count"], "3", "DT_I4") == 3


def test_what_tasks_set_flows_through_a_dag(run_dag: RunDag) -> None:
    """From an expression to a condition, a further expression and a task, with its type; skipped tasks set nothing."""
    seen: dict[str, Any] = {}
    rows = "ssis.variable(ti, 'User::Rows', ['set', 'never'], params['Rows'], 'DT_I4')"
    with DAG("live_values", schedule=None, params={"Rows": 0}, user_defined_macros={"ssis": macros}) as dag:
        first = ExpressionOperator(
            task_id="set",
            variables={
                "User::Rows": TypedTemplate("{{ params['Rows'] + 12 }}", "DT_I4"),
                "User::Day": TypedTemplate("{{ ssis.cast('2026-11-29 10:57:48', 'DT_DBTIMESTAMP') }}", "DT_DATE"),
                "User::Text": TypedTemplate("{% if params['Rows'] %}rows{% else %}00{% endif %}", "DT_WSTR"),
                "User::Plain": "{{ params['Rows'] }} rows",
            },
        )
        condition = OnlyIfOperator(task_id="if_none", condition=f"{{{{ {rows} == 0 }}}}")
        never = ExpressionOperator(task_id="never", variables={"User::Rows": TypedTemplate("99", "DT_I4")})

        @task(trigger_rule="none_failed", templates_dict={"rows": TypedTemplate(f"{{{{ {rows} }}}}", "DT_I4")})
        def read(templates_dict: Any = None, ti: Any = None) -> None:
            names = ("User::Rows", "User::Day", "User::Text", "User::Plain")
            seen.update({name: read_variable(ti, name, ["set"]) for name in names}, template=templates_dict["rows"])

        first >> condition >> never >> read()
    run = run_dag(dag)
    assert str(run.state) == "success"
    assert seen == {
        "User::Rows": 12,
        "User::Day": "2026-11-29 10:57:48",
        "User::Text": "00",
        "User::Plain": "0 rows",
        "template": 12,
    }


def test_a_loop_reads_what_the_same_iteration_set(run_dag: RunDag) -> None:
    """After the loop, the value of the last iteration counts."""
    seen: dict[str, Any] = {}
    with DAG("live_loop", schedule=None) as dag:

        @task
        def set_name(item: str, ti: Any = None) -> None:
            ti.xcom_push(key="User::Name", value=item)

        @task
        def read_name(number: str, ti: Any = None) -> None:
            seen[number] = read_variable(ti, "User::Name", ["loop.set_name"], "none")

        @task_group
        def loop(item: str) -> None:
            set_name(item) >> read_name(item)

        @task
        def alone(item: str, ti: Any = None) -> None:
            ti.xcom_push(key="User::Alone", value=[item, item])

        @task
        def after(ti: Any = None) -> None:
            seen["after"] = read_variable(ti, "User::Name", ["loop.set_name"], "none")
            seen["alone"] = read_variable(ti, "User::Alone", ["alone"], "none")

        [loop.expand(item=["a", "b", "c"]), alone.expand(item=["x", "y"])] >> after()
    assert str(run_dag(dag).state) == "success"
    assert seen == {"a": "a", "b": "b", "c": "c", "after": "c", "alone": ["y", "y"]}


def test_a_typed_template_is_stable_in_a_serialized_dag() -> None:
    """Airflow stores its text; an address in memory would make a new version of the DAG with each parse."""
    assert str([TypedTemplate("{{ ds }}", "DT_DATE")]) == "[TypedTemplate(template='{{ ds }}', data_type='DT_DATE')]"
