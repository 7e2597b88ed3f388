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
from urllib.parse import quote

from airflow_provider_smtpcm.hooks.smtpcm import get_configuration
from airflow_provider_smtpcm.notifications.redaction import (
    ExceptionSummary,
    redact_text,
    summarize_exception,
    to_single_line,
)

_MAX_FAILED_TASKS = 20  # listed by name; a run may have thousands
_MAX_NAME_LENGTH = 300  # characters; Airflow's own limit for its ids is 250


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
_REASONS = {
    "task_failure": "a task failed",
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
        reason: why a run failed. For a task, set only if its process was killed, which leaves no exception.
        failed: for a whole run, the ids of the first 20 failed tasks.
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
    reason: str | None
    failed: tuple[str, ...]
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


def read_event(context: Mapping[str, Any]) -> Event:
    """Read the event from a callback's context.

    Args:
        context: the context of any callback; every key may be missing.
    """
    reader = _ContextReader(context)
    if reader.get("deadline") is not None:
        return _read_deadline_event(reader)
    if reader.get("reason") is not None or reader.get("ti") is None:
        return _read_run_event(reader)
    return _read_task_event(reader)


def _read_task_event(reader: _ContextReader) -> Event:
    ti, exception = reader.get("ti"), reader.get("exception")
    state = _read_state(_get(ti, "state"))
    kind = _KIND_BY_STATE.get(state or "")
    map_index, try_number, max_tries = (_read_int(_get(ti, name)) for name in ("map_index", "try_number", "max_tries"))
    if map_index is not None and map_index < 0:
        map_index = None
    if kind is None and state in (None, "running") and (exception is not None or _get(ti, "start_date") is None):
        # The task was killed, or this Airflow version does not pass the state. Airflow's API may still have it.
        current = state = _fetch_task_state(ti) or state
        has_tries = None if try_number is None or max_tries is None else try_number <= max_tries
        if current == "running" and has_tries is False:
            # The last try: Airflow 3.1 runs the callback before its database has the final state.
            kind, state = EventKind.FAILURE, "failed"
        elif current in _RETRY_STATES:
            kind, state = EventKind.RETRY, "up_for_retry"
        else:
            kind = EventKind.RETRY if current is None and has_tries else EventKind.FAILURE
    started, ended = _read_date(_get(ti, "start_date")), _read_date(_get(ti, "end_date"))
    map_label = _read_name(_get(ti, "rendered_map_index"))
    dag_id, task_id = _read_name(_get(ti, "dag_id")), _read_name(_get(ti, "task_id"))
    is_killed = exception is None and started is None and kind in (EventKind.FAILURE, EventKind.RETRY)
    key = (kind or state or "", dag_id or "", reader.run_id or "", task_id or "", str(map_index), str(try_number))
    return Event(
        **reader.read_run_fields(dag_id=dag_id),
        kind=kind or EventKind.OTHER,
        state=state,
        of_dag=False,
        task_id=task_id,
        task_name=_read_name(_get(reader.get("task"), "label")) or task_id,
        map_index=map_index,
        map_label=None if map_label is None else redact_text(map_label, is_name=True),
        started=started,
        ended=ended,
        seconds=_measure_seconds(started, ended),
        try_number=try_number,
        tries=None if max_tries is None or try_number is None else max(max_tries + 1, try_number),
        host=_read_name(_get(ti, "hostname")),
        owner=_read_name(_get(reader.get("task"), "owner")) or _read_name(_get(reader.get("dag"), "owner")),
        exception=summarize_exception(exception),
        reason=_KILLED if is_killed else None,
        failed=(),
        failed_count=0,
        deadline=None,
        url=_read_url(_get(ti, "log_url")),
        key=("task", *key),
    )


def _read_run_event(reader: _ContextReader) -> Event:
    run, ti = reader.get("dag_run"), reader.get("ti")
    code = _read_name(reader.get("reason"))
    state = _read_state(_get(run, "state"))
    kind = _KIND_BY_STATE.get(state or "") or (EventKind.SUCCESS if code == "success" else EventKind.FAILURE)
    reason = _REASONS.get(code, code) if code else None
    # The context has an arbitrary task instance of the run, so the failed ones are fetched.
    failed = sorted(name for name, state in _fetch_task_states(ti).items() if state == "failed")
    started, ended = _read_date(_get(run, "start_date")), _read_date(_get(run, "end_date"))
    run_fields = reader.read_run_fields()
    return Event(
        **run_fields,
        **_NO_TASK_FIELDS,
        kind=kind,
        state=state or ("success" if kind is EventKind.SUCCESS else "failed"),
        started=started,
        ended=ended,
        seconds=_measure_seconds(started, ended),
        owner=_read_name(_get(reader.get("dag"), "owner")),
        exception=summarize_exception(reader.get("exception")),
        reason=None if reason is None else redact_text(reason),
        failed=tuple(failed[:_MAX_FAILED_TASKS]) if kind is EventKind.FAILURE else (),
        failed_count=len(failed) if kind is EventKind.FAILURE else 0,
        deadline=None,
        url=run_fields["run_url"],
        # With the end date, since a run that is cleared ends again, which is another event.
        key=("run", kind, run_fields["dag_id"] or "", reader.run_id or "", str(ended)),
    )


def _read_deadline_event(reader: _ContextReader) -> Event:
    run, deadline = reader.get("dag_run"), reader.get("deadline")
    started, ended = _read_date(_get(run, "start_date")), _read_date(_get(run, "end_date"))
    run_fields = reader.read_run_fields()
    due = _read_date(_get(deadline, "deadline_time"))
    return Event(
        **run_fields,
        **_NO_TASK_FIELDS,
        kind=EventKind.DEADLINE,
        state=_read_state(_get(run, "state")),
        started=started,
        ended=ended,
        seconds=_measure_seconds(started, ended or datetime.now(UTC)),
        owner=_read_name(_get(reader.get("dag"), "owner")),
        exception=None,
        reason=None,
        failed=(),
        failed_count=0,
        deadline=due,
        url=run_fields["run_url"],
        key=("deadline", run_fields["dag_id"] or "", reader.run_id or "", str(_get(deadline, "id") or due)),
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
}


class _ContextReader:
    """A callback's context, whose entries and attributes may be missing or raise."""

    def __init__(self, context: Mapping[str, Any]) -> None:
        self._context = context

    def get(self, name: str) -> Any:
        """Return an entry; None if there is none."""
        return _get(self._context, name)

    @property
    def run_id(self) -> str | None:
        """The run's id, from the first entry that has it; None if none has."""
        run = self.get("dag_run")
        candidates = (self.get("run_id"), _get(self.get("ti"), "run_id"), _get(run, "run_id"), _get(run, "dag_run_id"))
        return next((name for candidate in candidates if (name := _read_name(candidate))), None)

    def read_run_fields(self, *, dag_id: str | None = None) -> dict[str, Any]:
        """Return the fields of an event that describe its run.

        Args:
            dag_id: the DAG id, if it is known; None: it is read from the context.
        """
        run = self.get("dag_run")
        candidates = (dag_id, _get(self.get("dag"), "dag_id"), _get(run, "dag_id"), _get(self.get("ti"), "dag_id"))
        dag_id = next((name for candidate in candidates if (name := _read_name(candidate))), None)
        return {
            "dag_id": dag_id,
            "run_id": self.run_id,
            "logical_date": _read_date(_get(run, "logical_date")),
            "run_after": _read_date(_get(run, "run_after")),
            "run_url": _build_run_url(dag_id, self.run_id),
        }


def _get(container: object, name: str) -> Any:
    """Return an entry of a mapping or an attribute of anything else; None if it is missing or raises."""
    if container is None:
        return None
    try:
        return container.get(name) if isinstance(container, Mapping) else getattr(container, name, None)
    except Exception:  # noqa: BLE001 - properties and lazy proxies call Airflow's API, and may raise anything
        return None


def _read_name(value: object) -> str | None:
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


def _read_state(value: object) -> str | None:
    """Return a state, which is text or an enum member; None if it is missing or cannot be read."""
    member_value = _get(value, "value")
    return _read_name(value if member_value is None else member_value)


def _read_int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _read_date(value: object) -> datetime | None:
    """Return a date in UTC, from a datetime or from ISO 8601 text, as in JSON; None for anything else."""
    try:
        date = datetime.fromisoformat(value) if isinstance(value, str) else value
        if not isinstance(date, datetime):
            return None
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except Exception:  # noqa: BLE001 - a lazy proxy of Airflow's may fail to fetch the date
        return None


def _read_url(value: object) -> str | None:
    """Return an http(s) URL; None for any other scheme, which a mail client might execute."""
    return value if isinstance(value, str) and value.startswith(("https://", "http://")) else None


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


def _fetch_task_states(ti: object) -> dict[str, str]:
    """Fetch the current states of all tasks of the run from Airflow; empty if that fails.

    Returns:
        The states by task id; for a mapped task, with an underscore and its index: `load_3`.
    """
    get_task_states, run_id = _get(ti, "get_task_states"), _get(ti, "run_id")
    if not callable(get_task_states):
        return {}
    try:
        states = get_task_states(dag_id=_get(ti, "dag_id"), run_ids=[run_id]).get(run_id) or {}
        return {str(name): _read_state(state) or "" for name, state in states.items()}
    except Exception:  # noqa: BLE001 - as in `_get`
        return {}


def _fetch_task_state(ti: object) -> str | None:
    """Fetch the current state of the task from Airflow; None if that fails."""
    index = _read_int(_get(ti, "map_index"))
    name = _read_name(_get(ti, "task_id")) or ""
    states = _fetch_task_states(ti)
    return states.get(name if index is None or index < 0 else f"{name}_{index}") or None


def _build_run_url(dag_id: str | None, run_id: str | None) -> str | None:
    """Build the URL of the run's page, which no context has; None if an id or Airflow's web address is missing."""
    if not dag_id or not run_id:
        return None
    try:
        base = get_configuration("api", "base_url") or ""
    except Exception:  # noqa: BLE001 - an alert without a link is better than none
        return None
    return _read_url(f"{base.rstrip('/')}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}")
