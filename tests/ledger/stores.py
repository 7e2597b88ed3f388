"""Stands in for Airflow's task state store, at Airflow's edge: JSON in, JSON out, slow or broken if asked."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

from airflow_provider_smtpcm.ledger.record import HEAD, RunState


class Memory:
    """A store that lives as long as the test; every value goes through JSON, as in Airflow.

    Args:
        seconds: how long each write takes.
        failures: how many writes fail before one succeeds.
    """

    def __init__(self, *, seconds: float = 0, failures: int = 0) -> None:
        self.values: dict[str, str] = {}
        self.writes: list[str] = []
        #: For how long each was to be kept; None: as Airflow is configured.
        self.retentions: dict[str, timedelta | None] = {}
        #: What a process that is killed before it writes how the task ended leaves.
        self.before_the_end: dict[str, str] = {}
        self.failures = failures
        self._seconds = seconds

    def copy(self) -> Memory:
        """Return a store with the same values: what another process finds, which then writes elsewhere."""
        copy = Memory()
        copy.values = dict(self.values)
        return copy

    def get(self, key: str) -> Any:
        """None for what is not there."""
        return json.loads(self.values[key]) if key in self.values else None

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        """As `TaskStateStoreAccessor.set` has it."""
        time.sleep(self._seconds)
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the API server is away")
        self.writes.append(key)
        if key == HEAD and isinstance(value, dict) and value.get("standing") in (RunState.FAILED, RunState.SUCCEEDED):
            self.before_the_end = dict(self.values)
        self.values[key] = json.dumps(value)
        self.retentions[key] = retention

    def delete(self, key: str) -> None:
        """No matter whether it is there."""
        self.values.pop(key, None)
