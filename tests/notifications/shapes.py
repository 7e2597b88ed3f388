"""The contexts that Airflow 3.3.2 passes to callbacks, as recorded in its own processes, including what they lack.

The DAG processor makes its task instances by `model_construct`: they have no attribute for what is unknown.
`tests/integration/test_alerts.py` checks that Airflow's contexts still make the same mails.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from airflow.sdk import DAG

RUN_ID = "scheduled__2026-11-24T22:00:00+00:00"
RUN_AFTER = datetime(2026, 11, 25, 1, 0, tzinfo=UTC)
BASE = "https://airflow.corp.example"
_LOG = f"{BASE}/dags/warehouse_load/runs/scheduled__2026-11-24T22%3A00%3A00%2B00%3A00/tasks"


class TaskInstance(SimpleNamespace):
    """A task instance. Missing attributes raise AttributeError, as Airflow's do."""

    def get_task_states(self, *, dag_id: str, run_ids: list[str]) -> dict[str, dict[str, str]]:
        """Return what Airflow's API server would."""
        if self.states is None:
            raise RuntimeError("API server gone")
        assert dag_id == self.dag_id
        return dict.fromkeys(run_ids, self.states)


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """Return the exception with a traceback of several frames."""

    def execute() -> None:
        load_orders("dbo.Orders")

    def load_orders(table: str) -> None:
        if cause is not None:
            raise error from cause
        raise error

    try:
        execute()
    except BaseException as caught:  # noqa: BLE001 - whatever was given
        return caught
    raise AssertionError


def dag_run(**changes: Any) -> SimpleNamespace:
    """A run, as tasks and the DAG processor have it."""
    facts: dict[str, Any] = {
        "dag_id": "warehouse_load",
        "run_id": RUN_ID,
        "logical_date": datetime(2026, 11, 24, 22, tzinfo=UTC),
        "run_after": RUN_AFTER,
        "start_date": RUN_AFTER + timedelta(seconds=1),
        "end_date": None,
        "state": "running",
        "run_type": "scheduled",
        "conf": {},
    }
    return SimpleNamespace(**{**facts, **changes})


def task_failed(exception: BaseException | None = None, **changes: Any) -> dict[str, Any]:
    """In the task's own process everything is known. `changes` are the task instance's."""
    start = RUN_AFTER + timedelta(minutes=2)
    facts: dict[str, Any] = {
        "dag_id": "warehouse_load",
        "task_id": "load_orders",
        "run_id": RUN_ID,
        "map_index": 3,
        "rendered_map_index": "dbo.Orders",
        "try_number": 2,
        "max_tries": 1,
        "state": "failed",
        "start_date": start,
        "end_date": start + timedelta(minutes=7, seconds=12.4),
        "hostname": "worker-2.corp.example",
        "log_url": f"{_LOG}/load_orders/mapped/3?try_number=2",
        "mark_success_url": f"{_LOG}/load_orders/mapped/3?try_number=2",
        "states": {"load_orders_3": "running"},
    }
    return {
        "dag": DAG("warehouse_load", schedule=None),
        "task": SimpleNamespace(task_id="load_orders", owner="etl", retries=1),
        "ti": TaskInstance(**{**facts, **changes}),
        "run_id": RUN_ID,
        "dag_run": dag_run(),
        "params": {},
        "exception": exception,
    }


def task_retried(exception: BaseException) -> dict[str, Any]:
    """As `task_failed`, before the first of three retries."""
    return task_failed(exception, state="up_for_retry", try_number=1, max_tries=3)


def task_succeeded() -> dict[str, Any]:
    """The key `exception` is there, and its value is None."""
    return task_failed(None, state="success")


def task_killed(states: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    """In the DAG processor: no exception, no state, no start date."""
    context = task_failed(None, state=None, map_index=-1, rendered_map_index=None, end_date=None, **changes)
    del context["exception"]
    context["ti"].states = states
    del context["ti"].start_date
    return context


def run_failed(reason: str = "task_failure", states: dict[str, str] | None = None) -> dict[str, Any]:
    """In the DAG processor: a task instance, not always one that failed, with a wrong number of retries."""
    context = task_killed(states, task_id="notify_owners", max_tries=0)
    context["reason"] = reason
    context["dag_run"] = dag_run(
        state="success" if reason == "success" else "failed", end_date=RUN_AFTER + timedelta(minutes=41)
    )
    return context


def run_failed_without_a_task(reason: str = "task_failure") -> dict[str, Any]:
    """In the DAG processor, after the DAG has changed: no task instance, no DAG run."""
    return {"dag": DAG("warehouse_load", schedule=None), "run_id": RUN_ID, "reason": reason}


def deadline_missed() -> dict[str, Any]:
    """In the triggerer: JSON, without a DAG and a task."""
    return {
        "dag_run": {
            "dag_run_id": RUN_ID,
            "dag_id": "warehouse_load",
            "logical_date": "2026-11-24T22:00:00Z",
            "queued_at": "2026-11-25T01:00:00.112223Z",
            "start_date": "2026-11-25T01:00:01.347603Z",
            "end_date": None,
            "duration": None,
            "data_interval_start": "2026-11-23T22:00:00Z",
            "data_interval_end": "2026-11-24T22:00:00Z",
            "run_after": "2026-11-25T01:00:00Z",
            "last_scheduling_decision": None,
            "run_type": "scheduled",
            "state": "running",
            "triggered_by": "timetable",
            "triggering_user_name": None,
            "conf": {},
            "note": None,
            "dag_versions": [],
            "bundle_version": None,
            "dag_display_name": "warehouse_load",
            "partition_key": None,
            "partition_date": None,
        },
        "deadline": {
            "id": "01a21261-3118-725a-ab18-c4fcf0b6a54b",
            "deadline_time": datetime(2026, 11, 25, 3, tzinfo=UTC),
        },
    }


#: Every shape, by its name.
SHAPES: dict[str, dict[str, Any]] = {
    "failure": task_failed(raised(RuntimeError("it broke"))),
    "retry": task_retried(raised(RuntimeError("it broke"))),
    "success": task_succeeded(),
    "killed": task_killed({"load_orders": "failed"}),
    "run failed": run_failed(states={"load_orders_3": "failed", "notify_owners": "success"}),
    "run timed out": run_failed("timed_out", states={"load_orders": "skipped"}),
    "run succeeded": run_failed("success", states={"load_orders": "success"}),
    "run failed, no task": run_failed_without_a_task(),
    "deadline": deadline_missed(),
    "nothing": {},
}
