"""Runs the task of an operator as Airflow's task runner does, without a scheduler."""

from __future__ import annotations

import contextvars
import json
import os
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.bases.operator import ExecutorSafeguard

from benchmarks.sending.clients.order import Order


def execute(task: BaseOperator, order: Order) -> Any:
    """Return what the task's `execute` returns."""
    ti = SimpleNamespace(dag_id="monthly", run_id="bench", task_id=task.task_id, map_index=-1, try_number=1)
    context: dict[str, Any] = {"ti": ti}
    running = contextvars.copy_context()
    running.run(ExecutorSafeguard.tracker.set, task)
    if order.store is not None:
        context["task_state_store"] = StateStore(order.store / 1000)
    return running.run(task.execute, context=context)  # type: ignore[arg-type]


class StateStore:
    """Stands in for Airflow's task state store. Its values need none of the task's memory, as Airflow's.

    They are in a file of the kernel (memfd): creating and removing one on a disk takes longer than sending a mail.

    Args:
        seconds: of each access.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._file = os.fdopen(os.memfd_create("state-store"), "r+b", buffering=0)
        self._places: dict[str, tuple[int, int]] = {}
        self._end = 0

    def _wait(self) -> None:
        if self._seconds:
            time.sleep(self._seconds)

    def get(self, key: str) -> Any:
        """Return a value, or None."""
        self._wait()
        if key not in self._places:
            return None
        at, octets = self._places[key]
        return json.loads(os.pread(self._file.fileno(), octets, at))

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:  # noqa: ARG002 - all are kept
        """Write a value."""
        self._wait()
        written = self._file.write(json.dumps(value).encode())
        self._places[key] = self._end, written
        self._end += written

    def delete(self, key: str) -> None:
        """Delete a value, if there is one."""
        self._wait()
        self._places.pop(key, None)
