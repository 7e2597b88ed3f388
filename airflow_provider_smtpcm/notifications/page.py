"""The default mail of an alert: subject, text and HTML of one event, whatever its kind. Knows no Airflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.notifications.event import Event, Kind, time_span
from airflow_provider_smtpcm.notifications.redaction import cleaned, one_line

if TYPE_CHECKING:
    import jinja2

_SUBJECT = 200  # characters; mail programs show some 60
_VERBS = {
    Kind.FAILURE: "Failed",
    Kind.RETRY: "Will retry",
    Kind.SUCCESS: "Succeeded",
    Kind.DEADLINE: "Deadline missed",
}
# Of the bar, in light and in dark surroundings.
_COLOURS = {
    Kind.FAILURE: ("#b42318", "#f97066"),
    Kind.RETRY: ("#b54708", "#fdb022"),
    Kind.SUCCESS: ("#067647", "#47cd89"),
    Kind.DEADLINE: ("#5925dc", "#a48afb"),
    Kind.OTHER: ("#344054", "#98a2b3"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The words of a mail."""

    subject: str
    text: str
    html: str


def page_of(event: Event, notices: Sequence[str] = ()) -> Page:
    """The default mail.

    Args:
        event: what happened.
        notices: what went wrong with the mail that somebody else had thought of, for its reader.
    """
    colour, colour_in_the_dark = _COLOURS[event.kind]
    words = {
        "alert": event,
        "verb": _verb(event),
        "what": "DAG run" if event.of_dag else "Task",
        "rows": _rows(event),
        "notices": [cleaned(notice) for notice in notices],
        "colour": colour,
        "colour_in_the_dark": colour_in_the_dark,
    }
    subject, text, html = (_templates().get_template(name).render(words) for name in _FILES)
    return Page(subject=one_line(subject, _SUBJECT), text=cleaned(text), html=cleaned(html))


_FILES = ("alert_subject.txt", "alert.txt", "alert.html")


def _verb(event: Event) -> str:
    return _VERBS.get(event.kind) or (event.state or "Unknown").replace("_", " ").capitalize()


def _rows(event: Event) -> list[tuple[str, str]]:
    """What is known, by its label, in the order in which one wants to know it."""
    rows: list[tuple[str, str | None]] = [
        ("DAG", event.dag_id),
        ("Task", event.task_id),
        ("Map index", _map_index(event)),
        ("Run", event.run_id),
        ("State", event.state),
        ("Try", None if event.try_number is None else f"{event.try_number} of {event.tries or '?'}"),
        ("Reason", event.reason),
        ("Failed tasks", _failed(event)),
        ("Deadline", _when(event.deadline)),
        ("Logical date", _when(event.logical_date)),
        ("Run after", None if event.logical_date else _when(event.run_after)),
        ("Started", _when(event.started)),
        ("Ended", _when(event.ended)),
        ("Running for" if event.kind is Kind.DEADLINE and event.ended is None else "Duration", event.duration),
        ("Host", event.host),
        ("Owner", event.owner),
    ]
    return [(label, value) for label, value in rows if value]


def _map_index(event: Event) -> str | None:
    if event.map_index is None:
        return None
    return f"{event.map_index} ({event.map_label})" if event.map_label else str(event.map_index)


def _failed(event: Event) -> str | None:
    if not event.failed:
        return None
    more = event.failed_count - len(event.failed)
    return ", ".join(event.failed) + (f" and {more} more" if more else "")


def _when(date: datetime | None) -> str | None:
    return None if date is None else f"{date:%Y-%m-%d %H:%M:%S} UTC"


def _lines_of_code(text: str) -> list[tuple[str, str]]:
    """Each line as the blanks before it, which HTML would drop, and the rest; Outlook knows no `white-space`."""
    lines = text.expandtabs(4).split("\n")
    return [("\u00a0" * (len(line) - len(line.lstrip(" "))), line.lstrip(" ")) for line in lines]


@cache
def _templates() -> jinja2.Environment:
    from jinja2 import ChainableUndefined, Environment, PackageLoader, select_autoescape

    environment = Environment(
        loader=PackageLoader(__package__ or "", "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"lines_of_code": _lines_of_code, "when": _when, "time_span": time_span}
    return environment
