"""Airflow's task state store (3.3 and newer), where a ledger is kept. Knows no rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.operators.supervisor_line import LINE

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context


class TaskStateStore:
    """What Airflow keeps of one task of one run, up to an expiry that each write renews.

    Args:
        accessor: `context["task_state_store"]`.
    """

    def __init__(self, accessor: Any) -> None:
        self._accessor = accessor

    @classmethod
    def of(cls, context: Context) -> TaskStateStore | None:
        """The one of this task; None before Airflow 3.3."""
        accessor: Any = context.get("task_state_store")
        return None if accessor is None else cls(accessor)

    def get(self, key: str) -> Any:
        """The value, or None."""
        with LINE:
            return self._accessor.get(key)

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        """Write it down for so long; None: `[state_store] default_retention_days`. Deleting the run deletes it too."""
        with LINE:
            self._accessor.set(key, value, retention=retention)

    def delete(self, key: str) -> None:
        """Delete it, if it is there."""
        with LINE:
            self._accessor.delete(key)
