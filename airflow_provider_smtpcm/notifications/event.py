"""`Event`: the success, failure or deadline that an alert reports, read from the context of any Airflow callback.

The contexts differ. In a task's own process, a callback gets nearly everything. In the DAG processor, which runs the
callbacks of DAGs and of killed tasks, it gets no exception, no state and no start date. A Deadline Alert gets the
deadline and the run as JSON, but neither a DAG nor a task. So each value is read separately and may be None; reading
never raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from airflow_provider_smtpcm.notifications.airflow_config import build_task_url, check_url
from airflow_provider_smtpcm.notifications.callback_context import (
    CallbackContext,
    fetch_task_state,
    fetch_task_states,
    get,
    read_date,
    read_int,
    read_name,
    read_state,
    read_task_ids,
)
from airflow_provider_smtpcm.notifications.exception_summary import ExceptionSummary, summarize_exception
from airflow_provider_smtpcm.notifications.failed_tasks import FailedTask, describe_failed_tasks, list_failed_names
from airflow_provider_smtpcm.notifications.redaction import redact_text
from airflow_provider_smtpcm.notifications.task_log import LogKey, read_task_logs

#: The default of `log_lines` for an alert.
DEFAULT_LOG_LINES = 10


class EventKind(StrEnum):
    """What an alert is about."""

    FAILURE = "failure"
    RETRY = "retry"
    SUCCESS = "success"
    DEADLINE = "deadline"
    OTHER = "other"


_KIND_BY_STATE = {
    "failed": EventKind.FAILURE,
    "upstream_failed": EventKind.FAILURE,
    "up_for_retry": EventKind.RETRY,
    "success": EventKind.SUCCESS,
}
# When the DAG processor runs the callback of a killed task, the task may already be in one of these states.
_RETRY_STATES = ("up_for_retry", "scheduled", "queued", "running")
#: The reason of a run whose failed tasks say why.
TASK_FAILED = "a task failed"
_REASONS = {
    "task_failure": TASK_FAILED,
    "all_tasks_deadlocked": "no task can run: each waits for another that cannot run",
    "timed_out": "the run took longer than its dagrun_timeout",
    "success": None,
}
_KILLED = "no error was reported: the task's process was killed, or lost contact with Airflow; its log may say more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event, available in templates as `alert`. A value that the context does not have is None or empty.

    Args:
        kind: failure, retry, success, deadline, or other (such as a skipped or a starting task).
        state: Airflow's state of the task or the run, such as `up_for_retry`.
        of_dag: whether the event is about a whole run.
        dag_id: the DAG.
        task_id: the task; None for a whole run.
        task_name: its name in the Airflow UI: its `task_display_name`, or else its id without its groups' prefix.
        map_index: the map index of a mapped task.
        map_label: the label of a mapped task, rendered from its `map_index_template`.
        run_id: the run.
        logical_date: the logical date of the run; a manually triggered run may have none.
        run_after: the earliest date at which Airflow could start the run.
        started: the start of the task, or of the whole run.
        ended: its end.
        seconds: the time from start to end; if a deadline was missed and the run has not ended, from start to now.
        try_number: the number of the task's try, from 1.
        tries: the task's maximum number of tries.
        host: the worker.
        owner: the owner of the task or of the DAG.
        exception: the type, the message and the last lines of the traceback, redacted.
        log_tail: the last lines of the log of a task that failed or will be retried, redacted; None if the process that
            runs the callback does not have the log's file.
        reason: why a run failed. For a task, set only if its process was killed, which leaves no exception.
        failed: for a whole run, the ids of the first 20 failed tasks.
        failed_tasks: the same tasks, each with `name`, `task_id`, `map_index`, `url`, `exception` and `try_number`.
        failed_count: for a whole run, the number of failed tasks.
        deadline: the deadline that was missed.
        url: the URL of the task's log; for a whole run, of its page.
        run_url: the URL of the run's page.
        key: identifies the event; an event that Airflow reports twice has the same key both times.
    """

    kind: EventKind
    state: str | None
    of_dag: bool
    dag_id: str | None
    task_id: str | None
    task_name: str | None
    map_index: int | None
    map_label: str | None
    run_id: str | None
    logical_date: datetime | None
    run_after: datetime | None
    started: datetime | None
    ended: datetime | None
    seconds: float | None
    try_number: int | None
    tries: int | None
    host: str | None
    owner: str | None
    exception: ExceptionSummary | None
    log_tail: str | None
    reason: str | None
    failed: tuple[str, ...]
    failed_tasks: tuple[FailedTask, ...]
    failed_count: int
    deadline: datetime | None
    url: str | None
    run_url: str | None
    key: tuple[str, ...]

    @property
    def name(self) -> str:
        """The DAG and the task on one line; for a mapped task, with its label or else its map index."""
        if self.of_dag or not self.task_id:
            return self.dag_id or "an unknown DAG"
        index = self.map_label or (None if self.map_index is None else str(self.map_index))
        return f"{self.dag_id or '?'}.{self.task_id}{f' [{index}]' if index is not None else ''}"

    @property
    def duration(self) -> str | None:
        """`seconds` in readable units: `2 h 5 min`, `12.3 s`; None if not known."""
        return None if self.seconds is None else format_duration(self.seconds)


def read_event(context: Mapping[str, Any], *, log_lines: int = DEFAULT_LOG_LINES) -> Event:
    """Read the event from a callback's context.

    Args:
        context: the context of any callback; every key may be missing.
        log_lines: how many lines of the task's log to read; 0: none.
    """
    reader = CallbackContext(context)
    if reader.get("deadline") is not None:
        return _read_deadline_event(reader)
    if reader.get("reason") is not None or reader.get("ti") is None:
        return _read_run_event(reader)
    return _read_task_event(reader, log_lines)


def _read_task_event(reader: CallbackContext, log_lines: int) -> Event:
    ti, exception = reader.get("ti"), reader.get("exception")
    state = read_state(get(ti, "state"))
    kind = _KIND_BY_STATE.get(state or "")
    map_index, try_number, max_tries = (read_int(get(ti, name)) for name in ("map_index", "try_number", "max_tries"))
    if map_index is not None and map_index < 0:
        map_index = None
    if kind is None and state in (None, "running") and (exception is not None or get(ti, "start_date") is None):
        # The task was killed, or this Airflow version does not pass the state. Airflow's API may still have it.
        current = state = fetch_task_state(ti) or state
        has_tries = None if try_number is None or max_tries is None else try_number <= max_tries
        if current == "running" and has_tries is False:
            # The last try: Airflow 3.1 runs the callback before its database has the final state.
            kind, state = EventKind.FAILURE, "failed"
        elif current in _RETRY_STATES:
            kind, state = EventKind.RETRY, "up_for_retry"
        else:
            kind = EventKind.RETRY if current is None and has_tries else EventKind.FAILURE
    started, ended = read_date(get(ti, "start_date")), read_date(get(ti, "end_date"))
    map_label = read_name(get(ti, "rendered_map_index"))
    dag_id, task_id = read_name(get(ti, "dag_id")), read_name(get(ti, "task_id"))
    key = (kind or state or "", dag_id or "", reader.run_id or "", task_id or "", str(map_index), str(try_number))
    run_fields = reader.read_run_fields(dag_id=dag_id)
    has_failed = kind in (EventKind.FAILURE, EventKind.RETRY)
    return Event(
        **run_fields,
        kind=kind or EventKind.OTHER,
        state=state,
        of_dag=False,
        task_id=task_id,
        task_name=read_name(get(reader.get("task"), "label")) or task_id,
        map_index=map_index,
        map_label=None if map_label is None else redact_text(map_label, is_name=True),
        started=started,
        ended=ended,
        seconds=_measure_seconds(started, ended),
        try_number=try_number,
        tries=None if max_tries is None or try_number is None else max(max_tries + 1, try_number),
        host=read_name(get(ti, "hostname")),
        owner=read_name(get(reader.get("task"), "owner")) or read_name(get(reader.get("dag"), "owner")),
        exception=summarize_exception(exception),
        log_tail=_read_log_tail(ti, map_index, run_fields, log_lines) if has_failed and log_lines > 0 else None,
        reason=_KILLED if has_failed and exception is None and started is None else None,
        failed=(),
        failed_tasks=(),
        failed_count=0,
        deadline=None,
        url=check_url(get(ti, "log_url")) or build_task_url(run_fields["run_url"], task_id, map_index),
        key=("task", *key),
    )


def _read_run_event(reader: CallbackContext) -> Event:
    run, ti = reader.get("dag_run"), reader.get("ti")
    code = read_name(reader.get("reason"))
    state = read_state(get(run, "state"))
    kind = _KIND_BY_STATE.get(state or "") or (EventKind.SUCCESS if code == "success" else EventKind.FAILURE)
    reason = _REASONS.get(code, code) if code else None
    # The context has an arbitrary task instance of the run, so the failed ones are fetched.
    failed = list_failed_names(fetch_task_states(ti)) if kind is EventKind.FAILURE else []
    started, ended = read_date(get(run, "start_date")), read_date(get(run, "end_date"))
    run_fields = reader.read_run_fields()
    failed_tasks = describe_failed_tasks(
        failed,
        task_ids=read_task_ids(reader.get("dag")),
        dag_id=run_fields["dag_id"],
        run_id=run_fields["run_id"],
        run_url=run_fields["run_url"],
    )
    return Event(
        **run_fields,
        **_NO_TASK_FIELDS,
        kind=kind,
        state=state or ("success" if kind is EventKind.SUCCESS else "failed"),
        started=started,
        ended=ended,
        seconds=_measure_seconds(started, ended),
        owner=read_name(get(reader.get("dag"), "owner")),
        exception=summarize_exception(reader.get("exception")),
        reason=None if reason is None else redact_text(reason),
        failed=tuple(failed[: len(failed_tasks)]),
        failed_tasks=failed_tasks,
        failed_count=len(failed),
        deadline=None,
        url=run_fields["run_url"],
        # With the end date, since a run that is cleared ends again, which is another event.
        key=("run", kind, run_fields["dag_id"] or "", reader.run_id or "", str(ended)),
    )


def _read_deadline_event(reader: CallbackContext) -> Event:
    run, deadline = reader.get("dag_run"), reader.get("deadline")
    started, ended = read_date(get(run, "start_date")), read_date(get(run, "end_date"))
    run_fields = reader.read_run_fields()
    due = read_date(get(deadline, "deadline_time"))
    return Event(
        **run_fields,
        **_NO_TASK_FIELDS,
        kind=EventKind.DEADLINE,
        state=read_state(get(run, "state")),
        started=started,
        ended=ended,
        seconds=_measure_seconds(started, ended or datetime.now(UTC)),
        owner=read_name(get(reader.get("dag"), "owner")),
        exception=None,
        reason=None,
        failed=(),
        failed_tasks=(),
        failed_count=0,
        deadline=due,
        url=run_fields["run_url"],
        key=("deadline", run_fields["dag_id"] or "", reader.run_id or "", str(get(deadline, "id") or due)),
    )


_NO_TASK_FIELDS: dict[str, Any] = {
    "of_dag": True,
    "task_id": None,
    "task_name": None,
    "map_index": None,
    "map_label": None,
    "try_number": None,
    "tries": None,
    "host": None,
    "log_tail": None,
}


def _measure_seconds(started: datetime | None, ended: datetime | None) -> float | None:
    return None if started is None or ended is None else max((ended - started).total_seconds(), 0.0)


def format_duration(seconds: float) -> str:
    """Return a duration in its two largest units: `2 h 5 min`, `3 min 20 s`, `12.3 s`."""
    if round(seconds, 1) < 60:  # rounded as in the result, so that there is no "60.0 s"
        return f"{seconds:.1f} s"
    minutes, whole_seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = ((days, "d"), (hours, "h"), (minutes, "min"), (whole_seconds, "s"))
    first = next(index for index, (number, _) in enumerate(units) if number)
    return " ".join(f"{number} {unit}" for number, unit in units[first : first + 2] if number)


def _read_log_tail(ti: object, map_index: int | None, run_fields: Mapping[str, Any], log_lines: int) -> str | None:
    """Return the last lines of the log of a task's try; None if there are none, or if this machine has no such file."""
    key = LogKey(
        dag_id=run_fields["dag_id"],
        run_id=run_fields["run_id"],
        task_id=read_name(get(ti, "task_id")),
        map_index=map_index,
        try_number=read_int(get(ti, "try_number")),
        logical_date=run_fields["logical_date"],
    )
    (log,) = read_task_logs([key])
    return None if log is None else log.format_tail(log_lines) or None
