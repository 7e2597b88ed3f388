"""The failed tasks of a run: which they are, where their logs are, and the exceptions in them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from airflow_provider_smtpcm.notifications.airflow_config import build_task_url
from airflow_provider_smtpcm.notifications.exception_summary import ExceptionSummary, summarize_logged_exception
from airflow_provider_smtpcm.notifications.task_log import LogKey, read_task_logs

#: As many are described; a run may have thousands.
MAX_FAILED_TASKS = 20
_INDEXED_NAME = re.compile(r"(.+)_(\d{1,9})")
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedTask:
    """A failed task of a run.

    Args:
        task_id: its id.
        map_index: the map index of an instance of a mapped task; None for any other task.
        url: the URL of its log.
        exception: type and message of the exception that ended its last try, redacted. None if not known: Airflow
            keeps it in the task's log alone, and the process that runs a DAG's callback may not have that file.
        try_number: the try that the exception is from; None if `exception` is None.
    """

    task_id: str
    map_index: int | None
    url: str | None
    exception: ExceptionSummary | None = None
    try_number: int | None = None

    @property
    def name(self) -> str:
        """Its id, with its map index in brackets."""
        return self.task_id if self.map_index is None else f"{self.task_id} [{self.map_index}]"


def list_failed_names(states: Mapping[str, str]) -> list[str]:
    """Return the names of the tasks whose state is `failed`, in the order that a person would give them.

    Args:
        states: the states by name, as Airflow returns them: an instance of a mapped task is `load_3`.
    """
    failed = [name for name, state in states.items() if state == "failed"]
    return sorted(
        failed, key=lambda name: [(part.zfill(12) if part.isdigit() else part) for part in _DIGITS.split(name)]
    )


def describe_failed_tasks(
    names: list[str], *, task_ids: Collection[str], dag_id: str | None, run_id: str | None, run_url: str | None
) -> tuple[FailedTask, ...]:
    """Describe the first failed tasks of a run.

    Args:
        names: as `list_failed_names` returns them.
        task_ids: the ids of the DAG's tasks, which tell an instance of `load` from a task that is called `load_3`;
            empty if not known.
        run_url: the URL of the run's page.
    """
    keys = [_split_name(name, task_ids) for name in names[:MAX_FAILED_TASKS]]
    logs = read_task_logs(
        [
            LogKey(dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index, try_number=None)
            for task_id, map_index in keys
        ]
    )
    tasks = []
    for (task_id, map_index), log in zip(keys, logs, strict=True):
        raised = None if log is None else log.exception
        tasks.append(
            FailedTask(
                task_id=task_id,
                map_index=map_index,
                url=build_task_url(run_url, task_id, map_index),
                exception=None if raised is None else summarize_logged_exception(*raised),
                try_number=None if log is None or raised is None else log.try_number,
            )
        )
    return tuple(tasks)


def _split_name(name: str, task_ids: Collection[str]) -> tuple[str, int | None]:
    """Return the id and the map index of the task with this name."""
    match = _INDEXED_NAME.fullmatch(name)
    if match is None or name in task_ids or match[1] not in task_ids:
        return name, None
    return match[1], int(match[2])
