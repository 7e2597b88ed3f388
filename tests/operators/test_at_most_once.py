"""Before Airflow 3.3 nothing outlives an attempt, so none follows once mail was accepted, whatever is raised where."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import DAG, task
from airflow.sdk.execution_time import task_runner

from airflow_provider_smtpcm.operators._task import TaskStateStore
from airflow_provider_smtpcm.operators.send_mail import SendMailOperator
from airflow_provider_smtpcm.testing import Relay
from tests.operators.merges import merge

RunDag = Callable[[DAG], Any]
RETRIED = {"retries": 1, "retry_delay": timedelta(0)}


@pytest.fixture(autouse=True)
def _before_airflow_3_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TaskStateStore, "of", lambda _: None)


def send_one(**changes: Any) -> Any:
    """A mail by the operator."""
    return SendMailOperator(task_id="send", from_address="etl@corp.example", to="a@corp.example", **RETRIED, **changes)


def decorated(**changes: Any) -> Any:
    """A mail by the decorator."""

    @task.send_mail(task_id="send", from_address="etl@corp.example", to="a@corp.example", **RETRIED, **changes)  # type: ignore[attr-defined, untyped-decorator]
    def send() -> str:
        return "All is well."

    return send()


def merge_one(**changes: Any) -> Any:
    """A mail by the merge."""
    return merge(rows=[{"email": "a@corp.example", "name": "Jane"}], **RETRIED, **changes)


FACES = pytest.mark.parametrize("face", [send_one, decorated, merge_one])


@FACES
def test_a_post_execute_that_raises_sends_nothing_twice(face: Any, relay: Relay, run_dag: RunDag) -> None:
    """It comes after the task has returned."""

    def break_in(*_: object) -> None:
        raise RuntimeError("disk full")

    with DAG("post_execute", schedule=None) as dag:
        face(post_execute=break_in)
    assert str(run_dag(dag).state) == "failed"
    assert len(relay.messages) == 1


@FACES
def test_a_result_that_cannot_be_stored_sends_nothing_twice(
    face: Any, relay: Relay, run_dag: RunDag, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow stores it once the task has returned."""

    def break_in(*_: object, **__: object) -> None:
        raise RuntimeError("the XCom backend is away")

    monkeypatch.setattr(task_runner, "_xcom_push", break_in)
    with DAG("xcom", schedule=None) as dag:
        face()
    assert str(run_dag(dag).state) == "failed"
    assert len(relay.messages) == 1


@FACES
def test_a_pre_execute_that_raises_once_is_tried_again(face: Any, relay: Relay, run_dag: RunDag) -> None:
    """Nothing was sent."""
    raised: list[int] = []

    def break_in(*_: object) -> None:
        if not raised:
            raised.append(1)
            raise RuntimeError("not yet")

    with DAG("pre_execute", schedule=None) as dag:
        face(pre_execute=break_in)
    assert str(run_dag(dag).state) == "success"
    assert len(relay.messages) == 1
