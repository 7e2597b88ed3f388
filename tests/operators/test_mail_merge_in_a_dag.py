"""A merge in a DAG that runs: the output of other tasks is its rows or its fields, and always data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest
from airflow.sdk import DAG, ObjectStoragePath, literal, task, task_group

from airflow_provider_smtpcm.operators.mail_merge import ROW_FIELDS, MailMergeOperator
from airflow_provider_smtpcm.testing import Relay
from tests.operators.merges import ROWS, merge, subjects

RunDag = Callable[[DAG], Any]
LEAST = {"task_id": "send", "from_address": "etl@corp.example", "to": "{{ row.email }}"}


@task
def people() -> list[dict[str, str]]:
    """What would come from a query."""
    return ROWS


@task
def injected() -> str:
    """What a stranger may have typed."""
    return "{{ 7 * 7 }} {{ conn.smtpcm_default.host }}"


def serialized(dag: DAG) -> dict[str, Any]:
    """A DAG as Airflow's database has it."""
    try:
        from airflow.serialization.serialized_objects import DagSerialization as Serialization
    except ImportError:  # Airflow 3.1
        from airflow.serialization.serialized_objects import SerializedDAG as Serialization  # type: ignore[no-redef]
    return json.loads(json.dumps(Serialization.to_dict(dag)))  # type: ignore[no-any-return]


def fields_of(dag: DAG) -> dict[str, Any]:
    """The fields of the first task as the UI shows them."""
    return serialized(dag)["dag"]["tasks"][0]["__var"]  # type: ignore[no-any-return]


# --- Parsing.


def test_a_dag_is_serialised_with_its_fields_as_they_were_written() -> None:
    """The same whenever it is parsed, or each time would be a new version of the DAG."""

    def parsed() -> DAG:
        with DAG("serialised", schedule=None) as dag:
            merge(rows=iter(ROWS), cc=["{{ row.boss }}"], headers={"X-Id": "{{ row.id }}"})
        return dag

    fields = fields_of(parsed())
    assert fields["subject"] == "For {{ row.name }}"
    assert fields["to"] == "{{ row.email }}"
    assert fields["rows"] == "<list_iterator object>"
    assert fields == fields_of(parsed())
    assert set(ROW_FIELDS) <= set(MailMergeOperator.template_fields)


def test_the_output_of_another_task_sets_the_dependency_wherever_it_stands() -> None:
    """In a list too."""
    with DAG("dependencies", schedule=None) as dag:
        merge(rows=people(), attachments=["{{ row.file }}", injected()])
    assert dag.get_task("send").upstream_task_ids == {"people", "injected"}


# --- Rows.


def test_the_rows_are_another_task_s_output(relay: Relay, run_dag: RunDag) -> None:
    """An XCom; the result is one too."""
    with DAG("rows_xcom", schedule=None) as dag:

        @task
        def check(result: dict[str, Any]) -> None:
            assert result["counts"]["accepted"] == 3

        check(merge(rows=people()).output)
    assert str(run_dag(dag).state) == "success"
    assert subjects(relay) == ["For Jane", "For Jim", "For Joan"]


def test_the_rows_are_what_a_mapped_task_s_instances_returned(relay: Relay, run_dag: RunDag) -> None:
    """Airflow fetches them one by one."""
    with DAG("rows_lazy", schedule=None) as dag:

        @task
        def person(name: str) -> dict[str, str]:
            return {"email": f"{name}@corp.example", "name": name}

        merge(rows=person.expand(name=["a", "b", "c"]))
    assert str(run_dag(dag).state) == "success"
    assert subjects(relay) == ["For a", "For b", "For c"]


def test_some_cells_may_be_outputs(relay: Relay, run_dag: RunDag) -> None:
    """Among rows written in the DAG; neither are templates."""
    with DAG("rows_cells", schedule=None) as dag:
        merge(rows=[{"email": "a@corp.example", "name": injected()}, {"email": "b@corp.example", "name": "{{ ds }}"}])
    assert str(run_dag(dag).state) == "success"
    assert subjects(relay) == ["For {{ 7 * 7 }} {{ conn.smtpcm_default.host }}", "For {{ ds }}"]


def test_the_rows_are_a_data_frame(relay: Relay, run_dag: RunDag) -> None:
    """Airflow stores it as Parquet."""
    with DAG("rows_frame", schedule=None) as dag:

        @task
        def frame() -> Any:
            import pandas as pd

            return pd.DataFrame([*ROWS, {"email": "x@corp.example", "name": None}])

        merge(rows=frame())
    assert str(run_dag(dag).state) == "success"
    assert subjects(relay) == ["For", "For Jane", "For Jim", "For Joan"]


@pytest.mark.parametrize("kind", ["a path", "a URL", "a path of Airflow's"])
def test_the_path_of_the_rows_is_a_template(kind: str, relay: Relay, run_dag: RunDag, tmp_path: Path) -> None:
    """It is rendered before there are rows; and so is the report's."""
    (tmp_path / "march.csv").write_text("email,name\njane@corp.example,Jane\n")
    written = {
        "a path": f"{tmp_path}/{{{{ params.month }}}}.csv",
        "a URL": f"file://{tmp_path}/{{{{ params.month }}}}.csv",
        "a path of Airflow's": ObjectStoragePath(f"file://{tmp_path}/{{{{ params.month }}}}.csv"),
    }
    with DAG(f"rows_path_{kind.replace(' ', '_')[:10]}", schedule=None, params={"month": "march"}) as dag:
        merge(rows=written[kind], report_file=f"{tmp_path}/{{{{ params.month }}}}-{{{{ ti.try_number }}}}.jsonl")
    assert str(run_dag(dag).state) == "success"
    assert subjects(relay) == ["For Jane"]
    assert [path.name for path in tmp_path.glob("*.jsonl")] == ["march-1.jsonl"]


@pytest.mark.parametrize("native", [False, True])
def test_a_list_that_a_template_fills_in_is_a_list_if_it_is_the_whole_field(
    native: bool, relay: Relay, run_dag: RunDag
) -> None:
    """In any DAG; in a longer text it is part of the text."""
    with DAG(f"rows_{native}", schedule=None, render_template_as_native_obj=native) as dag:
        people() >> merge(rows="{{ ti.xcom_pull(task_ids='people') }}")
    assert str(run_dag(dag).state) == "success"
    assert len(relay.messages) == 3
    with DAG(f"rows_text_{native}", schedule=None, render_template_as_native_obj=native) as dag:
        people() >> merge(rows="{% if true %}{{ ti.xcom_pull(task_ids='people') }}{% endif %}")
    assert str(run_dag(dag).state) == "failed"
    assert len(relay.messages) == 3


# --- Fields.


@pytest.mark.parametrize("field", ["text", "text_file"])
def test_a_template_may_ask_airflow_in_each_row(field: str, relay: Relay, run_dag: RunDag, tmp_path: Path) -> None:
    """While another thread writes to the ledger; `dag.test()` answers one request at a time."""
    template = "{{ row.name }}: {{ ti.xcom_pull(task_ids='injected') }}"
    file = tmp_path / "body.txt"
    file.write_text(template)
    with DAG(f"rows_ask_{field}", schedule=None) as dag:
        injected() >> merge(rows=ROWS * 3, **{field: str(file) if field == "text_file" else template})
    assert str(run_dag(dag).state) == "success"
    texts = [str(each.message.get_content()).strip() for each in relay.messages]
    assert texts == [f"{row['name']}: {{{{ 7 * 7 }}}} {{{{ conn.smtpcm_default.host }}}}" for row in ROWS * 3]


def test_a_field_that_is_another_task_s_output_is_data(relay: Relay, run_dag: RunDag) -> None:
    """Only the author's text is evaluated."""
    with DAG("fields_xcom", schedule=None) as dag:

        @task
        def copies() -> list[str]:
            return ["a@corp.example", "b@corp.example"]

        merge(
            rows=ROWS[:1], subject=injected(), cc=copies(), headers={"X-Note": injected(), "X-Name": "{{ row.name }}"}
        )
    assert str(run_dag(dag).state) == "success"
    (received,) = relay.messages
    message = received.message
    assert message["Subject"] == message["X-Note"] == "{{ 7 * 7 }} {{ conn.smtpcm_default.host }}"
    assert (message["X-Name"], message["Cc"]) == ("Jane", "a@corp.example, b@corp.example")


def test_a_field_may_be_a_parameter_of_the_dag_or_a_literal(relay: Relay, run_dag: RunDag) -> None:
    """Airflow puts their values in their places."""
    with DAG("fields_param", schedule=None) as dag:  # Airflow 3.1 cannot store one that has no default
        merge(rows=ROWS[:1], cc=dag.param("cc", "boss@corp.example"), subject=literal("{{ row.name }}"))
    assert str(run_dag(dag).state) == "success"
    (received,) = relay.messages
    assert (received.message["Cc"], received.message["Subject"]) == ("boss@corp.example", "{{ row.name }}")


def test_the_dag_s_own_environment_renders_them(relay: Relay, run_dag: RunDag, tmp_path: Path) -> None:
    """Its macros, its filters, its folders; a missing column is an error even where the DAG is lenient."""
    (tmp_path / "page.html").write_text("<p>{{ greet(row.name) | shout }} {{ dag.dag_id }} {{ params.note }}</p>")
    with DAG(
        "fields_environment",
        schedule=None,
        params={"note": "<none>"},
        template_searchpath=[str(tmp_path)],
        template_undefined=jinja2.Undefined,
        user_defined_macros={"greet": lambda name: f"Hi {name}"},
        user_defined_filters={"shout": str.upper},
    ) as dag:
        send = merge(html_file="page.html")
        merge(task_id="lenient", subject="{{ row.nmae }}")
    run = run_dag(dag)
    assert {ti.task_id: str(ti.state) for ti in run.get_task_instances()} == {"send": "success", "lenient": "failed"}
    assert send.task_id == "send"
    pages = sorted(received.message.get_content().strip() for received in relay.messages)
    assert pages == [f"<p>HI {name} fields_environment &lt;none&gt;</p>" for name in ("JANE", "JIM", "JOAN")]


def test_in_a_dag_of_native_objects_a_list_in_a_row_stays_one(relay: Relay, run_dag: RunDag) -> None:
    """And a number becomes the text that a mail has."""
    rows = [{"email": ["a@corp.example", "b@corp.example"], "name": "1e3"}]
    with DAG("fields_native", schedule=None, render_template_as_native_obj=True, params={"n": 5}) as dag:
        merge(rows=rows, subject="{{ row.name }}", headers={"X-Count": "{{ params.n }}"})
    assert str(run_dag(dag).state) == "success"
    (received,) = relay.messages
    assert received.recipients == ("a@corp.example", "b@corp.example")
    assert (received.message["Subject"], received.message["X-Count"]) == ("1e3", "5")


# --- Mapped tasks.


def test_a_task_is_mapped_over_its_rows(relay: Relay, run_dag: RunDag, tmp_path: Path) -> None:
    """Lists, or files; equal rows in two instances are mails of their own."""
    (tmp_path / "rows.csv").write_text("email,name\njane@corp.example,Jane\n")
    with DAG("mapped_rows", schedule=None) as dag:
        MailMergeOperator.partial(**LEAST, subject="For {{ row.name }}").expand(
            rows=[ROWS[:1], ROWS[1:], str(tmp_path / "rows.csv")]
        )
    assert str(run_dag(dag).state) == "success"
    assert subjects(relay) == ["For Jane", "For Jane", "For Jim", "For Joan"]
    assert len({received.message["Message-ID"] for received in relay.messages}) == 4


def test_what_a_task_is_mapped_over_is_data_where_another_task_returned_it(relay: Relay, run_dag: RunDag) -> None:
    """And the author's template, as Airflow has it from the DAG."""
    with DAG("mapped_fields", schedule=None) as dag:

        @task
        def texts() -> list[str]:
            return ["{{ row.name }} {{ conn.smtpcm_default.host }}"]

        MailMergeOperator.partial(**LEAST, rows=ROWS[:1]).expand(
            subject=texts(), text=["Dear {{ row.name }}", "Hello {{ row.name }}"]
        )
    assert str(run_dag(dag).state) == "success"
    assert subjects(relay) == ["{{ row.name }} {{ conn.smtpcm_default.host }}"] * 2
    bodies = sorted(received.message.get_content().strip() for received in relay.messages)
    assert bodies == ["Dear Jane", "Hello Jane"]


def test_the_argument_of_a_mapped_group_may_be_the_rows(relay: Relay, run_dag: RunDag) -> None:
    """Which Airflow knows only when the task runs."""
    with DAG("mapped_group", schedule=None) as dag:

        @task_group
        def region(rows: Any) -> None:
            merge(rows=rows)

        region.expand(rows=[ROWS[:1], ROWS[1:]])
    assert str(run_dag(dag).state) == "success"
    assert subjects(relay) == ["For Jane", "For Jim", "For Joan"]


# --- The end.


def test_a_task_that_fails_leaves_its_result_to_the_task_that_looks_after_it(relay: Relay, run_dag: RunDag) -> None:
    """Which has to ask for it by `trigger_rule`."""
    seen: list[Any] = []
    with DAG("failing", schedule=None) as dag:

        @task(trigger_rule="all_done")
        def look_after(result: Any) -> None:
            seen.append(result)

        look_after(merge(rows=[*ROWS, {"email": "nobody", "name": "x"}], retries=3).output)
    run = run_dag(dag)
    instance = run.get_task_instance("send")
    assert instance is not None
    assert str(instance.state) == "failed"
    (result,) = seen
    assert (result["counts"]["accepted"], result["failed"][0]["row"]) == (3, 4)
    assert len(relay.messages) == 3


def test_the_ui_shows_what_a_field_was_made_of_once_it_ran(relay: Relay, run_dag: RunDag) -> None:
    """The templates as they were written, and the outputs that stood beside them."""
    with DAG("rendered", schedule=None, params={"x": "y"}) as dag:
        merge(rows=people(), cc=["{{ row.email }}", "c@corp.example"], smtpcm_conn_id="smtpcm_{{ 'default' }}")
    instance = run_dag(dag).get_task_instance("send")
    from airflow.models.renderedtifields import RenderedTaskInstanceFields

    shown = RenderedTaskInstanceFields.get_templated_fields(instance)
    assert shown is not None
    assert (shown["smtpcm_conn_id"], shown["subject"]) == ("smtpcm_default", "For {{ row.name }}")
    assert (shown["cc"], shown["rows"]) == ("['{{ row.email }}', 'c@corp.example']", ROWS)
