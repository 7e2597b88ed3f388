"""One fact at a time out of what Airflow hands over: an object, JSON, a proxy, or nothing at all. Never raises."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from airflow_provider_smtpcm.notifications.excerpt import one_line

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
    from airflow_provider_smtpcm.notifications.credentials import without_credentials  # its patterns cost 15 ms

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
