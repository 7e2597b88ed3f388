"""What the author wrote is hidden from Airflow's rendering; outputs that Airflow resolves are not."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import DAG, ObjectStoragePath, XComArg, literal, task

from airflow_provider_smtpcm.merge.templates import DeferredTemplate, defer_templates, undefer_templates


@pytest.fixture
def output() -> XComArg:
    """The output of another task."""
    with DAG("deferred", schedule=None):

        @task
        def other() -> str:
            return "x"

        return other()  # type: ignore[no-any-return]


def test_what_airflow_puts_in_its_place_is_left_to_it(output: XComArg) -> None:
    """An output, a DAG's parameter, a literal; none; and what is wrapped already."""
    with DAG("params", schedule=None, params={"cc": "x"}) as dag:
        values: list[Any] = [output, output["email"], dag.param("cc"), literal("{{ x }}"), None, DeferredTemplate("x")]
    assert all(defer_templates(value) is value for value in values)


def test_all_else_is_wrapped_whole() -> None:
    """Text, lists, paths, numbers."""
    values: list[Any] = ["{{ row.x }}", ["a", {"b": "c"}], {"a": 1}, 5, "", ObjectStoragePath("file:///tmp/x"), {"a"}]
    for value in values:
        wrapped = defer_templates(value)
        assert isinstance(wrapped, DeferredTemplate)
        assert undefer_templates(wrapped) is value


def test_a_list_or_a_mapping_with_an_output_in_it_is_wrapped_around_it(output: XComArg) -> None:
    """At any depth, so that Airflow finds it."""
    value = {"a": [output, "{{ row.x }}", ("b", output)], "c": "d"}
    wrapped = defer_templates(value)
    assert wrapped == {
        "a": [output, DeferredTemplate("{{ row.x }}"), [DeferredTemplate("b"), output]],
        "c": DeferredTemplate("d"),
    }
    assert len(list(XComArg.iter_xcom_references(wrapped))) == 2
    assert undefer_templates(wrapped) == {"a": [output, "{{ row.x }}", ["b", output]], "c": "d"}


def test_a_key_that_is_a_template_is_wrapped_beside_an_output(output: XComArg) -> None:
    """It is told from a key of the data of that output."""
    value = {"{{ row.x }}.csv": output, "b": "c"}
    wrapped = defer_templates(value)
    assert wrapped == {DeferredTemplate("{{ row.x }}.csv"): output, "b": DeferredTemplate("c")}
    assert undefer_templates(wrapped) == value


def test_the_ui_shows_what_wundeferred() -> None:
    """Without addresses in memory, with which each parse of a DAG would make a new version of it."""
    assert str(DeferredTemplate("Dear {{ row.name }}")) == "Dear {{ row.name }}"
    assert str(DeferredTemplate(["a", 1])) == "['a', 1]"
    assert str(DeferredTemplate(iter(()))) == "<tuple_iterator object>"
