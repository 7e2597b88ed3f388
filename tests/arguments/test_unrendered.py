"""Values are kept from Airflow's rendering, but the outputs of other tasks in them are resolved."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import DAG, ObjectStoragePath, XComArg, literal, task

from airflow_provider_smtpcm.arguments.values import Unrendered, keep_unrendered, unwrap_unrendered


@pytest.fixture
def output() -> XComArg:
    """The output of another task."""
    with DAG("unrendered", schedule=None):

        @task
        def other() -> str:
            return "x"

        return other()  # type: ignore[no-any-return]


def test_what_airflow_puts_in_its_place_is_left_to_it(output: XComArg) -> None:
    """Outputs, a DAG's parameter, a literal, None, and a wrapped value."""
    with DAG("params", schedule=None, params={"cc": "x"}) as dag:
        values: list[Any] = [output, output["email"], dag.param("cc"), literal("{{ x }}"), None, Unrendered("x")]
    assert all(keep_unrendered(value) is value for value in values)


def test_all_else_is_wrapped_whole() -> None:
    """Text, lists, paths, numbers."""
    values: list[Any] = ["{{ row.x }}", ["a", {"b": "c"}], {"a": 1}, 5, "", ObjectStoragePath("file:///tmp/x"), {"a"}]
    for value in values:
        wrapped = keep_unrendered(value)
        assert isinstance(wrapped, Unrendered)
        assert unwrap_unrendered(wrapped) is value


def test_a_list_or_a_mapping_with_an_output_in_it_is_wrapped_around_it(output: XComArg) -> None:
    """At any depth, so that Airflow finds the output."""
    value = {"a": [output, "{{ row.x }}", ("b", output)], "c": "d"}
    wrapped = keep_unrendered(value)
    assert wrapped == {
        "a": [output, Unrendered("{{ row.x }}"), [Unrendered("b"), output]],
        "c": Unrendered("d"),
    }
    assert len(list(XComArg.iter_xcom_references(wrapped))) == 2
    assert unwrap_unrendered(wrapped) == {"a": [output, "{{ row.x }}", ["b", output]], "c": "d"}


def test_the_ui_shows_what_was_written() -> None:
    """Without memory addresses, which would make a new version of the DAG at each parse."""
    assert str(Unrendered("Dear {{ row.name }}")) == "Dear {{ row.name }}"
    assert str(Unrendered(["a", 1])) == "['a', 1]"
    assert str(Unrendered(iter(()))) == "<tuple_iterator object>"
