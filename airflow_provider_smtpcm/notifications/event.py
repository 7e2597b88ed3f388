"""What happened, read from whatever context Airflow hands to a callback. Knows no mail, and never raises.

The contexts differ: a task's own process gives nearly everything; the DAG processor, which runs the callbacks of DAGs
and of tasks that were killed, gives no exception, no state and no start; a Deadline Alert gives a DAG run as JSON and
the deadline, and neither a DAG nor a task. So each fact is asked for by itself and may be None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from airflow_provider_smtpcm.notifications.excerpt import Excerpt, excerpt_of, masked
from airflow_provider_smtpcm.notifications.facts import (
    Facts,
    as_date,
    as_link,
    as_number,
    as_text,
    as_word,
    look,
    seconds_between,
    state_now,
    states_now,
    time_span,
)

_NAMED = 20  # tasks of a run; a run may have thousands


class Kind(StrEnum):
    """What an alert is about."""

    FAILURE = "failure"
    RETRY = "retry"
    SUCCESS = "success"
    DEADLINE = "deadline"
    OTHER = "other"


_KINDS = {
    "failed": Kind.FAILURE,
    "upstream_failed": Kind.FAILURE,
    "up_for_retry": Kind.RETRY,
    "success": Kind.SUCCESS,
}
# A task that was killed is on its way to its next try by the time that the DAG processor hears of it.
_BETWEEN_TRIES = ("up_for_retry", "scheduled", "queued", "running")
_REASONS = {
    "task_failure": "a task failed",
    "all_tasks_deadlocked": "no task can run: each waits for another that will not",
    "timed_out": "the run took longer than its dagrun_timeout",
    "success": None,
}
_NO_WORD = "nothing was reported: the task's process was killed, or could no longer reach Airflow; its log may say more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What templates know as `alert`; whatever this context does not tell is None, or empty.

    Args:
        kind: failure, retry, success, deadline, or other (a task that was skipped, or that begins).
        state: in Airflow's word, such as `up_for_retry`.
        of_dag: whether it is about a whole run.
        map_index: of a mapped task, and `map_label` what its `map_index_template` makes of it.
        started, ended, seconds: of the task, or of the whole run.
        try_number, tries: which try of how many.
        exception: its type, message and last lines of traceback, masked by Airflow's masker.
        reason: why a run failed; of a task, that nobody knows.
        failed: of a whole run, the tasks that failed, as far as they are named, and how many `failed_count` they are.
        url, run_url: the task's log, and the page of the run.
        key: what makes this event this one and no other, however often Airflow tells of it.
    """

    kind: Kind
    state: str | None
    of_dag: bool
    dag_id: str | None
    task_id: str | None
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
    exception: Excerpt | None
    reason: str | None
    failed: tuple[str, ...]
    failed_count: int
    deadline: datetime | None
    url: str | None
    run_url: str | None
    key: tuple[str, ...]

    @property
    def name(self) -> str:
        """The DAG and the task, with the map index, on one line."""
        if self.of_dag or not self.task_id:
            return self.dag_id or "an unknown DAG"
        index = self.map_label or (None if self.map_index is None else str(self.map_index))
        return f"{self.dag_id or '?'}.{self.task_id}{f' [{index}]' if index is not None else ''}"

    @property
    def duration(self) -> str | None:
        """For a person: `2 h 5 min`, `12.3 s`."""
        return None if self.seconds is None else time_span(self.seconds)


def event_of(context: Mapping[str, Any]) -> Event:
    """Read a context, of any of the callbacks."""
    facts = Facts(context)
    if facts.of("deadline") is not None:
        return _of_deadline(facts)
    if facts.of("reason") is not None or facts.of("ti") is None:
        return _of_run(facts)
    return _of_task(facts)


def _of_task(facts: Facts) -> Event:
    ti, exception = facts.of("ti"), facts.of("exception")
    state = as_word(look(ti, "state"))
    kind = _KINDS.get(state or "")
    map_index, tried, most = (as_number(look(ti, name)) for name in ("map_index", "try_number", "max_tries"))
    if map_index is not None and map_index < 0:
        map_index = None
    if kind is None and state in (None, "running") and (exception is not None or look(ti, "start_date") is None):
        # The task was killed, or this Airflow does not say. The database knows, if it can be asked.
        known = state = state_now(ti) or state
        tries_left = None if tried is None or most is None else tried <= most
        if known == "running" and tries_left is False:
            kind, state = Kind.FAILURE, "failed"  # its last; Airflow 3.1 tells of it before its database has the end
        elif known in _BETWEEN_TRIES:
            kind, state = Kind.RETRY, "up_for_retry"
        else:
            kind = Kind.RETRY if known is None and tries_left else Kind.FAILURE
    started, ended = as_date(look(ti, "start_date")), as_date(look(ti, "end_date"))
    label = as_text(look(ti, "rendered_map_index"))  # made of data, by a template
    dag_id, task_id = as_text(look(ti, "dag_id")), as_text(look(ti, "task_id"))
    return Event(
        **facts.of_the_run(dag_id=dag_id),
        kind=kind or Kind.OTHER,
        state=state,
        of_dag=False,
        task_id=task_id,
        map_index=map_index,
        map_label=None if label is None else masked(label, is_name=True),
        started=started,
        ended=ended,
        seconds=seconds_between(started, ended),
        try_number=tried,
        tries=None if most is None or tried is None else max(most + 1, tried),
        host=as_text(look(ti, "hostname")),
        owner=as_text(look(facts.of("task"), "owner")) or as_text(look(facts.of("dag"), "owner")),
        exception=excerpt_of(exception),
        reason=_NO_WORD if exception is None and started is None and kind in (Kind.FAILURE, Kind.RETRY) else None,
        failed=(),
        failed_count=0,
        deadline=None,
        url=as_link(look(ti, "log_url")),
        key=("task", kind or state or "", dag_id or "", facts.run_id or "", task_id or "", str(map_index), str(tried)),
    )


def _of_run(facts: Facts) -> Event:
    run, ti = facts.of("dag_run"), facts.of("ti")
    said = as_text(facts.of("reason"))
    state = as_word(look(run, "state"))
    kind = _KINDS.get(state or "") or (Kind.SUCCESS if said == "success" else Kind.FAILURE)
    reason = _REASONS.get(said, said) if said else None
    # The context has *a* task of the run, and not always the one that failed; Airflow can be asked which did.
    failed = sorted(name for name, state in states_now(ti).items() if state == "failed")
    started, ended = as_date(look(run, "start_date")), as_date(look(run, "end_date"))
    common = facts.of_the_run()
    return Event(
        **common,
        **_NO_TASK,
        kind=kind,
        state=state or ("success" if kind is Kind.SUCCESS else "failed"),
        started=started,
        ended=ended,
        seconds=seconds_between(started, ended),
        owner=as_text(look(facts.of("dag"), "owner")),
        exception=excerpt_of(facts.of("exception")),
        reason=None if reason is None else masked(reason),
        failed=tuple(failed[:_NAMED]) if kind is Kind.FAILURE else (),
        failed_count=len(failed) if kind is Kind.FAILURE else 0,
        deadline=None,
        url=common["run_url"],
        # A run that was cleared ends anew, at another time.
        key=("run", kind, common["dag_id"] or "", facts.run_id or "", str(ended)),
    )


def _of_deadline(facts: Facts) -> Event:
    run, deadline = facts.of("dag_run"), facts.of("deadline")
    started, ended = as_date(look(run, "start_date")), as_date(look(run, "end_date"))
    common = facts.of_the_run()
    due = as_date(look(deadline, "deadline_time"))
    return Event(
        **common,
        **_NO_TASK,
        kind=Kind.DEADLINE,
        state=as_word(look(run, "state")),
        started=started,
        ended=ended,
        seconds=seconds_between(started, ended or datetime.now(UTC)),
        owner=as_text(look(facts.of("dag"), "owner")),
        exception=None,
        reason=None,
        failed=(),
        failed_count=0,
        deadline=due,
        url=common["run_url"],
        key=("deadline", common["dag_id"] or "", facts.run_id or "", str(look(deadline, "id") or due)),
    )


_NO_TASK: dict[str, Any] = {
    "of_dag": True,
    "task_id": None,
    "map_index": None,
    "map_label": None,
    "try_number": None,
    "tries": None,
    "host": None,
}
