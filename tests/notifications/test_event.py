"""Events are read from every context that Airflow passes to callbacks; missing values are None, and nothing raises."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_smtpcm.notifications.event import EventKind, format_duration, read_event
from tests.notifications.shapes import (
    BASE,
    RUN_ID,
    SHAPES,
    TaskInstance,
    dag_run,
    deadline_missed,
    raised,
    run_failed,
    run_failed_without_a_task,
    task_failed,
    task_killed,
    task_retried,
    task_succeeded,
)

RUN_URL = f"{BASE}/dags/warehouse_load/runs/scheduled__2026-11-24T22%3A00%3A00%2B00%3A00"


class Hostile:
    """Raises on any access."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return object.__getattribute__(self, name)
        raise RuntimeError(name)

    def __str__(self) -> str:
        raise RuntimeError


def test_an_empty_context_is_an_event_of_an_unknown_dag() -> None:
    """So there is still a mail."""
    event = read_event({})
    assert (event.kind, event.name, event.url) == (EventKind.FAILURE, "an unknown DAG", None)


@pytest.mark.parametrize("name", ["ti", "task", "dag", "dag_run", "deadline", "exception", "reason", "run_id"])
@pytest.mark.parametrize("value", [None, Hostile(), 7, {}, "x"], ids=["None", "hostile", "number", "empty", "text"])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_entry_of_a_context_can_prevent_an_event(shape: str, name: str, value: object) -> None:
    """Whether it is missing, of another type, or raises."""
    event = read_event({**SHAPES[shape], name: value})
    assert event.name
    assert all(isinstance(part, str) for part in event.key)


@pytest.mark.parametrize("attribute", [*vars(task_failed()["ti"])])
@pytest.mark.parametrize("value", [None, Hostile(), "x", -1, object()], ids=["None", "hostile", "text", "-1", "object"])
def test_no_attribute_of_a_task_instance_can_prevent_an_event(attribute: str, value: object) -> None:
    """Nor can a missing one."""
    assert read_event(task_failed(**{attribute: value})).name
    context = task_failed()
    delattr(context["ti"], attribute)
    assert read_event(context).name


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min"),
        (60, "1 min"),
        (119.6, "2 min"),
        (3599.7, "1 h"),
        (3660, "1 h 1 min"),
        (86399.8, "1 d"),
        (90000, "1 d 1 h"),
    ],
)
def test_a_duration_is_formatted_in_the_unit_that_it_rounds_to(seconds: float, said: str) -> None:
    """There is no "60.0 s"."""
    assert format_duration(seconds) == said


def test_a_failed_task_has_every_value() -> None:
    """In its own process."""
    event = read_event(task_failed(raised(ValueError("no such column"))))
    assert (event.kind, event.state, event.of_dag) == (EventKind.FAILURE, "failed", False)
    assert (event.dag_id, event.task_id, event.run_id) == ("warehouse_load", "load_orders", RUN_ID)
    assert (event.map_index, event.map_label, event.name) == (
        3,
        "dbo.Orders",
        "warehouse_load.load_orders [dbo.Orders]",
    )
    assert (event.try_number, event.tries, event.duration) == (2, 2, "7 min 12 s")
    assert (event.host, event.owner) == ("worker-2.corp.example", "etl")
    assert event.logical_date == datetime(2026, 11, 24, 22, tzinfo=UTC)
    assert event.exception is not None
    assert (event.exception.type, event.exception.message) == ("ValueError", "no such column")
    assert event.url == f"{RUN_URL}/tasks/load_orders/mapped/3?try_number=2"
    assert event.run_url == RUN_URL


def test_the_state_distinguishes_a_retry_from_a_success() -> None:
    """Airflow does not say which callback it runs."""
    retry, success = read_event(task_retried(raised(ValueError("x")))), read_event(task_succeeded())
    assert (retry.kind, retry.try_number, retry.tries) == (EventKind.RETRY, 1, 4)
    assert (success.kind, success.exception, success.reason) == (EventKind.SUCCESS, None, None)


@pytest.mark.parametrize("state", ["skipped", "running"])
def test_any_other_state_is_an_event_of_kind_other(state: str) -> None:
    """on_skipped_callback and on_execute_callback may mail too."""
    event = read_event(task_failed(None, state=state))
    assert (event.kind, event.state) == (EventKind.OTHER, state)


@pytest.mark.parametrize(
    ("states", "kind"),
    [
        ({"load_orders": "failed"}, EventKind.FAILURE),
        ({"load_orders": "up_for_retry"}, EventKind.RETRY),
        ({"load_orders": "queued"}, EventKind.RETRY),
        ({}, EventKind.FAILURE),
        (None, EventKind.FAILURE),
    ],
)
def test_the_state_of_a_killed_task_is_looked_up(states: dict[str, str] | None, kind: EventKind) -> None:
    """The DAG processor does not have it; if Airflow cannot be asked, the number of the try decides."""
    event = read_event(task_killed(states))
    assert event.kind == kind
    assert event.reason is not None
    assert "killed" in event.reason
    assert (event.started, event.exception) == (None, None)


def test_a_task_that_is_killed_in_its_last_try_has_failed_while_its_state_is_running() -> None:
    """Airflow 3.1 runs the callback before its database has the final state, and once more afterward."""
    early = read_event(task_killed({"load_orders": "running"}, try_number=3, max_tries=2))
    late = read_event(task_killed({"load_orders": "failed"}, try_number=3, max_tries=2))
    assert (early.kind, early.state, early.key) == (EventKind.FAILURE, "failed", late.key)
    assert read_event(task_killed({"load_orders": "running"}, try_number=2, max_tries=2)).kind == EventKind.RETRY


def test_a_killed_task_with_tries_left_will_be_retried() -> None:
    """If Airflow cannot be asked."""
    assert read_event(task_killed(None, try_number=1, max_tries=2)).kind == EventKind.RETRY


def test_a_failed_run_names_the_failed_tasks_and_not_the_one_of_its_context() -> None:
    """Which may have succeeded."""
    event = read_event(run_failed(states={"load_orders_3": "failed", "a": "failed", "notify_owners": "success"}))
    assert (event.kind, event.of_dag, event.task_id, event.try_number) == (EventKind.FAILURE, True, None, None)
    assert event.failed == ("a", "load_orders_3")
    assert (event.reason, event.url) == ("a task failed", RUN_URL)


def test_only_twenty_failed_tasks_are_named() -> None:
    """And all are counted."""
    event = read_event(run_failed(states={f"load_{n}": "failed" for n in range(3000)}))
    assert (len(event.failed), len(event.failed_tasks), event.failed_count) == (20, 20, 3000)
    assert event.failed[-1] == "load_19"


def test_each_failed_task_has_the_link_to_its_log() -> None:
    """An instance of a mapped task is told from a task whose id ends in a number."""
    states = {"load_3": "failed", "load_10": "failed", "check_2": "failed", "group.send": "failed", "fine": "success"}
    context = run_failed(states=states)
    context["dag"] = SimpleNamespace(dag_id="warehouse_load", task_ids=["load", "check_2", "group.send", "fine"])
    event = read_event(context)
    assert [(task.name, task.url) for task in event.failed_tasks] == [
        ("check_2", f"{RUN_URL}/tasks/check_2"),
        ("group.send", f"{RUN_URL}/tasks/group.send"),
        ("load [3]", f"{RUN_URL}/tasks/load/mapped/3"),
        ("load [10]", f"{RUN_URL}/tasks/load/mapped/10"),
    ]
    assert all(task.exception is None for task in event.failed_tasks)


@pytest.mark.parametrize("base", [None, ""])
@pytest.mark.parametrize("context", [run_failed(states={"a": "failed"}), deadline_missed()], ids=["run", "deadline"])
def test_links_lead_to_localhost_until_airflow_knows_its_address(
    context: dict[str, Any], base: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the links of task instances do, which Airflow makes."""
    monkeypatch.delenv("AIRFLOW__API__BASE_URL")
    if base is not None:
        monkeypatch.setenv("AIRFLOW__API__BASE_URL", base)
    event = read_event(context)
    assert event.url == RUN_URL.replace(BASE, "http://localhost:8080")
    assert [task.url for task in event.failed_tasks] == [f"{event.url}/tasks/{name}" for name in event.failed]


@pytest.mark.parametrize(
    ("reason", "kind", "said"),
    [
        ("success", EventKind.SUCCESS, None),
        ("timed_out", EventKind.FAILURE, "the run took longer than its dagrun_timeout"),
        ("something new", EventKind.FAILURE, "something new"),
    ],
)
def test_a_run_s_reason_is_explained(reason: str, kind: EventKind, said: str | None) -> None:
    """An unknown reason is Airflow's own word."""
    event = read_event(run_failed(reason))
    assert (event.kind, event.reason) == (kind, said)


def test_a_failed_run_of_a_changed_dag_has_its_id() -> None:
    """And the link to it."""
    event = read_event(run_failed_without_a_task())
    assert (event.kind, event.name, event.run_id) == (EventKind.FAILURE, "warehouse_load", RUN_ID)
    assert event.url == RUN_URL


def test_a_missed_deadline_is_read_from_json() -> None:
    """In the triggerer, without a DAG and a task."""
    event = read_event(deadline_missed())
    assert (event.kind, event.name, event.run_id, event.state) == (
        EventKind.DEADLINE,
        "warehouse_load",
        RUN_ID,
        "running",
    )
    assert event.deadline == datetime(2026, 11, 25, 3, tzinfo=UTC)
    assert event.logical_date == datetime(2026, 11, 24, 22, tzinfo=UTC)
    assert (event.url, event.duration is None) == (RUN_URL, False)


def test_a_deadline_may_be_text() -> None:
    """As other serializers might write it."""
    context = deadline_missed()
    context["deadline"]["deadline_time"] = "2026-11-25T03:00:00Z"
    assert read_event(context).deadline == datetime(2026, 11, 25, 3, tzinfo=UTC)


@pytest.mark.parametrize("url", ["javascript:alert(1)", "/dags/warehouse_load", None, 7])
def test_a_link_that_is_no_web_address_is_replaced(url: object) -> None:
    """A mail client might run any other scheme."""
    assert read_event(task_failed(log_url=url)).url == f"{RUN_URL}/tasks/load_orders/mapped/3"


def test_a_link_is_a_web_address_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the configuration says."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "javascript:alert(1)//")
    event = read_event(task_failed(log_url="javascript:alert(1)"))
    assert (event.url, event.run_url) == (None, None)


def test_the_same_event_has_the_same_key_and_others_differ() -> None:
    """The DAG processor sometimes reports a killed task twice."""
    events = [
        task_killed({"load_orders": "failed"}),
        task_killed({"load_orders": "failed"}),
        task_failed(),
        task_failed(map_index=4),
        task_failed(try_number=3),
        task_failed(task_id="other"),
        task_failed(run_id="other") | {"run_id": "other"},
        task_retried(ValueError()),
        task_succeeded(),
        run_failed(),
        run_failed() | {"dag_run": dag_run(state="failed", end_date=datetime(2026, 12, 1, tzinfo=UTC))},
        deadline_missed(),
    ]
    keys = [read_event(context).key for context in events]
    assert keys[0] == keys[1]
    assert len(set(keys)) == len(events) - 1


def test_a_run_without_a_logical_date_has_its_other_dates() -> None:
    """A run that was triggered by hand has none."""
    context = task_failed()
    context["dag_run"] = dag_run(logical_date=None)
    event = read_event(context)
    assert event.logical_date is None
    assert event.run_after is not None


def test_proxies_and_enumerations_of_airflow_are_read() -> None:
    """A state may be a member of an enumeration; a date may be naive."""
    ti = TaskInstance(state=SimpleNamespace(value="failed"), start_date=datetime(2026, 1, 1), end_date=None)  # noqa: DTZ001
    event = read_event({"ti": ti})
    assert (event.kind, event.started) == (EventKind.FAILURE, datetime(2026, 1, 1, tzinfo=UTC))
