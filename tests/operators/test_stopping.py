"""Cancellation affects one run of a task: not later runs, and not those of its copies."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_smtpcm.errors import StoppedError
from airflow_provider_smtpcm.operators._task import AirflowException
from airflow_provider_smtpcm.operators.send_mail import SendMailOperator
from airflow_provider_smtpcm.testing import Relay
from tests.operators.merges import merge
from tests.operators.tasks import context
from tests.smtp.server import MESSAGE, Server

Behind = Callable[..., None]
RunDag = Callable[[DAG], Any]


def send(**fields: Any) -> SendMailOperator:
    """A task with the least that a mail needs."""
    return SendMailOperator(
        **{"task_id": "send", "from_address": "etl@corp.example", "to": "a@corp.example", "retry_for": 0, **fields}
    )


both = pytest.mark.parametrize("make", [send, merge])


def run(task: Any) -> Any:
    """As Airflow runs a task: a copy of the one in the DAG."""
    return task.prepare_for_execution().execute(context())


@both
def test_a_signal_that_comes_before_the_run_ends_it(make: Callable[[], Any], relay: Relay) -> None:
    """Airflow renders the fields first."""
    copied = make().prepare_for_execution()
    copied.on_kill()
    with pytest.raises(AirflowException, match="the task was asked to end"):
        copied.execute(context())
    assert relay.messages == []


@both
def test_a_signal_that_comes_before_the_copy_is_made_ends_the_copy_s_run(make: Callable[[], Any], relay: Relay) -> None:
    """It is the same task."""
    task = make()
    task.on_kill()
    with pytest.raises(AirflowException, match="the task was asked to end"):
        run(task)


@both
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda task: task.prepare_for_execution()])
def test_a_copy_of_a_task_whose_run_was_ended_sends(
    make: Callable[[], Any], duplicate: Callable[[Any], Any], behind: Behind
) -> None:
    """`dag.test()` runs one after the other in one process."""
    task = make()
    first = task.prepare_for_execution()
    killed = threading.Event()

    def kill(about: str) -> str | None:
        if about.startswith("MAIL") and not killed.is_set():
            killed.set()
            first.on_kill()
        return None

    with Server(kill, offers=("8BITMIME",)) as server:
        behind(server)
        with pytest.raises(AirflowException, match="the task was asked to end"):
            first.execute(context())
        first.on_kill()  # as Airflow does after its own time limit, when the run is over already
        count = len(server.stored)
        duplicate(task).execute(context())
        assert len(server.stored) > count
        duplicate(first).execute(context())
        first.execute(context())


@both
def test_one_of_two_copies_that_run_at_once_may_be_ended(make: Callable[[], Any], behind: Behind) -> None:
    """The other continues."""
    task = make()
    first, second = task.prepare_for_execution(), task.prepare_for_execution()
    running, go_on = threading.Event(), threading.Event()

    def wait(about: str) -> str | None:
        if about == MESSAGE:
            running.set()
            go_on.wait(60)
        return None

    with Server(wait) as server:
        behind(server, final_reply_timeout=30)
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(second.execute(context())))
        thread.start()
        assert running.wait(60)
        first.on_kill()
        go_on.set()
        thread.join()
        assert len(found) == 1


def test_a_dag_that_is_tested_again_after_it_was_ended_sends(relay: Relay, run_dag: RunDag) -> None:
    """As in a notebook, with the same DAG in memory."""
    ended: list[bool] = []

    class Ended(SendMailOperator):
        """Its first run is ended, after the mail."""

        def execute(self, context: Any) -> Any:
            result = super().execute(context)
            if not ended:
                ended.append(True)
                self.on_kill()
                raise StoppedError("as a time limit would")
            return result

    with DAG("tested_again", schedule=None) as dag:
        Ended(task_id="send", from_address="etl@corp.example", to="a@corp.example", retry_for=0)
    assert str(run_dag(dag).state) == "failed"
    assert str(dag.test().state) == "success"
    assert len(relay.messages) == 2
