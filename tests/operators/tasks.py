"""What stands around a task, as far as the operators look at it, and the environments of its templates."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2


def context(**changes: object) -> Any:
    """The part of Airflow's context that a task's identity is made of; what the task pushes is in `ti.pushed`."""
    place = {"dag_id": "d", "run_id": "r", "task_id": "send", "map_index": -1, "try_number": 1, **changes}
    pushed: dict[str, Any] = {}
    return {"ti": SimpleNamespace(**place, pushed=pushed, xcom_push=lambda key, value: pushed.update({key: value}))}


def environment(**settings: Any) -> jinja2.Environment:
    """The environment of a task in a DAG with these settings."""
    from airflow.sdk import DAG

    return DAG("templates", schedule=None, **settings).get_template_env()
