"""Access to the context of a callback, whose entries and attributes may be missing, lazy, of another type, or raise.

A value that cannot be read is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from airflow_provider_smtpcm.notifications.airflow_config import build_run_url
from airflow_provider_smtpcm.notifications.redaction import to_single_line

_MAX_NAME_LENGTH = 300  # characters; Airflow's own limit for its ids is 250


class CallbackContext:
    """A callback's context, whose entries and attributes may be missing or raise."""

    def __init__(self, context: Mapping[str, Any]) -> None:
        self._context = context

    def get(self, name: str) -> Any:
        """Return an entry; None if there is none."""
        return get(self._context, name)

    @property
    def run_id(self) -> str | None:
        """The run's id, from the first entry that has it; None if none has."""
        run = self.get("dag_run")
        candidates = (self.get("run_id"), get(self.get("ti"), "run_id"), get(run, "run_id"), get(run, "dag_run_id"))
        return next((name for candidate in candidates if (name := read_name(candidate))), None)

    def read_run_fields(self, *, dag_id: str | None = None) -> dict[str, Any]:
        """Return the fields of an event that describe its run.

        Args:
            dag_id: the DAG id, if it is known; None: it is read from the context.
        """
        run = self.get("dag_run")
        candidates = (dag_id, get(self.get("dag"), "dag_id"), get(run, "dag_id"), get(self.get("ti"), "dag_id"))
        dag_id = next((name for candidate in candidates if (name := read_name(candidate))), None)
        return {
            "dag_id": dag_id,
            "run_id": self.run_id,
            "logical_date": read_date(get(run, "logical_date")),
            "run_after": read_date(get(run, "run_after")),
            "run_url": build_run_url(dag_id, self.run_id),
        }


def get(container: object, name: str) -> Any:
    """Return an entry of a mapping or an attribute of anything else; None if it is missing or raises."""
    if container is None:
        return None
    try:
        return container.get(name) if isinstance(container, Mapping) else getattr(container, name, None)
    except Exception:  # noqa: BLE001 - properties and lazy proxies call Airflow's API, and may raise anything
        return None


def read_name(value: object) -> str | None:
    """Return a name on one line, shortened and without credentials, since a user may give a run any name.

    Returns None for a blank name, or one that cannot be read.
    """
    if value is None:
        return None
    from airflow_provider_smtpcm.notifications.credential_patterns import redact_credentials  # compiling takes 15 ms

    try:
        return to_single_line(redact_credentials(str(value)[: _MAX_NAME_LENGTH * 20]), _MAX_NAME_LENGTH) or None
    except Exception:  # noqa: BLE001 - a user's own __str__ may raise anything
        return None


def read_state(value: object) -> str | None:
    """Return a state, which is text or an enum member; None if it is missing or cannot be read."""
    member_value = get(value, "value")
    return read_name(value if member_value is None else member_value)


def read_int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_date(value: object) -> datetime | None:
    """Return a date in UTC, from a datetime or from ISO 8601 text, as in JSON; None for anything else."""
    try:
        date = datetime.fromisoformat(value) if isinstance(value, str) else value
        if not isinstance(date, datetime):
            return None
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except Exception:  # noqa: BLE001 - a lazy proxy of Airflow's may fail to fetch the date
        return None


def fetch_task_states(ti: object) -> dict[str, str]:
    """Fetch the current states of all tasks of the run from Airflow; empty if that fails.

    Returns:
        The states by task id; for a mapped task, with an underscore and its index: `load_3`.
    """
    get_task_states, run_id = get(ti, "get_task_states"), get(ti, "run_id")
    if not callable(get_task_states):
        return {}
    try:
        states = get_task_states(dag_id=get(ti, "dag_id"), run_ids=[run_id]).get(run_id) or {}
        return {str(name): read_state(state) or "" for name, state in states.items()}
    except Exception:  # noqa: BLE001 - as in `get`
        return {}


def fetch_task_state(ti: object) -> str | None:
    """Fetch the current state of the task from Airflow; None if that fails."""
    index = read_int(get(ti, "map_index"))
    name = read_name(get(ti, "task_id")) or ""
    states = fetch_task_states(ti)
    return states.get(name if index is None or index < 0 else f"{name}_{index}") or None


def read_task_ids(dag: object) -> frozenset[str]:
    """Return the ids of the DAG's tasks; empty if they are not known."""
    try:
        return frozenset(map(str, get(dag, "task_ids") or ()))
    except Exception:  # noqa: BLE001 - as in `get`
        return frozenset()
