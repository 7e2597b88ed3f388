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
from urllib.parse import quote

from airflow_provider_smtpcm.notifications.redaction import Excerpt, excerpt_of, masked, one_line

# folded: One fact at a time out of what Airflow hands over: an object, JSON, a proxy, or nothing at all. Never raises.

_LONGEST = 300  # characters of a name; Airflow's own limit for its ids is 250


def look(thing: object, name: str) -> Any:
    """An attribute, or an entry of JSON; None where there is none, or where asking for it fails."""
    if thing is None:
        return None
    try:
        return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)
    except Exception:  # noqa: BLE001 - properties and proxies ask Airflow's servers, and can fail in any way
        return None


def as_text(value: object) -> str | None:
    """On one line, not longer than a name is, and without credentials: who triggers a run may name it as he likes."""
    if value is None:
        return None
    from airflow_provider_smtpcm.notifications.redaction import without_credentials  # its patterns cost 15 ms

    try:
        return one_line(without_credentials(str(value)[: _LONGEST * 20]), _LONGEST) or None
    except Exception:  # noqa: BLE001 - somebody's own __str__
        return None


def as_word(value: object) -> str | None:
    """A state; it comes as text or as a member of an enumeration."""
    named = look(value, "value")
    return as_text(value if named is None else named)


def as_number(value: object) -> int | None:
    """A whole number."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def as_date(value: object) -> datetime | None:
    """With a time zone; from JSON it comes as text."""
    try:
        date = datetime.fromisoformat(value) if isinstance(value, str) else value
        if not isinstance(date, datetime):
            return None
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except Exception:  # noqa: BLE001 - a lazy proxy of Airflow's is a datetime only when it can be fetched
        return None


def as_link(value: object) -> str | None:
    """A web address, and nothing that a mail program would run."""
    return value if isinstance(value, str) and value.startswith(("https://", "http://")) else None


def seconds_between(started: datetime | None, ended: datetime | None) -> float | None:
    """None where one of them is not known."""
    return None if started is None or ended is None else max((ended - started).total_seconds(), 0.0)


def time_span(seconds: float) -> str:
    """In the two largest units: `2 h 5 min`, `3 min 20 s`, `12.3 s`."""
    if round(seconds, 1) < 60:  # as it is written
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    first = next(index for index, (number, _) in enumerate(units) if number)
    return " ".join(f"{number} {unit}" for number, unit in units[first : first + 2] if number)


def states_now(ti: object) -> dict[str, str]:
    """The state of each task of the same run, as Airflow knows it now; empty where it cannot be asked.

    A mapped task has its index behind an underscore, `load_3`.
    """
    ask, run_id = look(ti, "get_task_states"), look(ti, "run_id")
    if not callable(ask):
        return {}
    try:
        found = ask(dag_id=look(ti, "dag_id"), run_ids=[run_id]).get(run_id) or {}
        return {str(name): as_word(state) or "" for name, state in found.items()}
    except Exception:  # noqa: BLE001 - as in `look`
        return {}


def state_now(ti: object) -> str | None:
    """The state of the task, as Airflow knows it now."""
    index = as_number(look(ti, "map_index"))
    name = as_text(look(ti, "task_id")) or ""
    states = states_now(ti)
    return states.get(name if index is None or index < 0 else f"{name}_{index}") or None


class Facts:
    """A context, asked by name.

    Args:
        context: of any callback; the keys that Airflow promises may be missing.
    """

    def __init__(self, context: Mapping[str, Any]) -> None:
        self._context = context

    def of(self, name: str) -> Any:
        """An entry; None where there is none."""
        return look(self._context, name)

    @property
    def run_id(self) -> str | None:
        """The run's id, from wherever it stands."""
        run = self.of("dag_run")
        places = (self.of("run_id"), look(self.of("ti"), "run_id"), look(run, "run_id"), look(run, "dag_run_id"))
        return next((text for place in places if (text := as_text(place))), None)

    def of_the_run(self, *, dag_id: str | None = None) -> dict[str, Any]:
        """What an event of any kind says of its run.

        Args:
            dag_id: where the caller knows it better.
        """
        run = self.of("dag_run")
        places = (dag_id, look(self.of("dag"), "dag_id"), look(run, "dag_id"), look(self.of("ti"), "dag_id"))
        dag_id = next((text for place in places if (text := as_text(place))), None)
        return {
            "dag_id": dag_id,
            "run_id": self.run_id,
            "logical_date": as_date(look(run, "logical_date")),
            "run_after": as_date(look(run, "run_after")),
            "run_url": _run_url(dag_id, self.run_id),
        }


def _run_url(dag_id: str | None, run_id: str | None) -> str | None:
    """The page of a run, which no context has."""
    if not dag_id or not run_id:
        return None
    try:
        try:
            from airflow.sdk import conf
        except ImportError:  # Airflow 3.1 has it elsewhere
            from airflow.configuration import conf  # type: ignore[assignment]
        base = conf.get("api", "base_url", fallback="") or ""
    except Exception:  # noqa: BLE001 - an alert without a link is better than none
        return None
    return as_link(f"{base.rstrip('/')}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}")


# folded: here began the module itself

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
