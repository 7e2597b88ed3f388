"""Airflow's task state store (3.3 and newer), where a ledger is kept. Knows no rows."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.operators.supervisor_line import LINE

if TYPE_CHECKING:
    from airflow.sdk import Context

# What Airflow calls NEVER_EXPIRE, and looks at by identity; spelled out, since Airflow 3.1 and 3.2 lack the name.
_NEVER_EXPIRE = timedelta.max


class TaskStateStore:
    """What Airflow keeps of one task of one run, for as long as it keeps the run.

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

    def set(self, key: str, value: Any) -> None:
        """Write it down; whoever deletes the run deletes it too."""
        with LINE:
            self._accessor.set(key, value, retention=_NEVER_EXPIRE)
