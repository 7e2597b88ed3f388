"""The default page of an alert: the subject, text and HTML of an event. Pure: no Airflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.notifications.event import Event, EventKind
from airflow_provider_smtpcm.notifications.redaction import strip_control_characters, to_single_line

if TYPE_CHECKING:
    import jinja2

_MAX_SUBJECT_LENGTH = 200  # characters; mail clients show about 60
_TEMPLATES = ("alert_subject.txt", "alert.txt", "alert.html")
_VERBS = {
    EventKind.FAILURE: "Failed",
    EventKind.RETRY: "Will retry",
    EventKind.SUCCESS: "Succeeded",
    EventKind.DEADLINE: "Deadline missed",
}
# Accent colors, for light and for dark mode.
_COLORS = {
    EventKind.FAILURE: ("#b42318", "#f97066"),
    EventKind.RETRY: ("#b54708", "#fdb022"),
    EventKind.SUCCESS: ("#067647", "#47cd89"),
    EventKind.DEADLINE: ("#5925dc", "#a48afb"),
    EventKind.OTHER: ("#344054", "#98a2b3"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertPage:
    """The rendered default page of an alert."""

    subject: str
    text: str
    html: str


def render_page(event: Event, notices: Sequence[str] = ()) -> AlertPage:
    """Render the default page of an event.

    Args:
        event: what happened.
        notices: shown at the top: why this is not the mail that the DAG's author wrote.
    """
    color, dark_color = _COLORS[event.kind]
    variables = {
        "alert": event,
        "verb": _VERBS.get(event.kind) or (event.state or "Unknown").replace("_", " ").capitalize(),
        "what": "DAG run" if event.of_dag else "Task",
        "rows": _build_rows(event),
        "notices": [strip_control_characters(notice) for notice in notices],
        "color": color,
        "dark_color": dark_color,
    }
    subject, text, html = (_get_environment().get_template(name).render(variables) for name in _TEMPLATES)
    return AlertPage(
        subject=to_single_line(subject, _MAX_SUBJECT_LENGTH),
        text=strip_control_characters(text),
        html=strip_control_characters(html),
    )


def _build_rows(event: Event) -> list[tuple[str, str]]:
    """Return labels and values of all that is known of an event, the most important first."""
    rows: list[tuple[str, str | None]] = [
        ("DAG", event.dag_id),
        ("Task", event.task_id),
        ("Map index", _format_map_index(event)),
        ("Run", event.run_id),
        ("State", event.state),
        ("Try", None if event.try_number is None else f"{event.try_number} of {event.tries or '?'}"),
        ("Reason", event.reason),
        ("Failed tasks", _format_failed_tasks(event)),
        ("Deadline", _format_date(event.deadline)),
        ("Logical date", _format_date(event.logical_date)),
        ("Run after", None if event.logical_date else _format_date(event.run_after)),
        ("Started", _format_date(event.started)),
        ("Ended", _format_date(event.ended)),
        ("Running for" if event.kind is EventKind.DEADLINE and event.ended is None else "Duration", event.duration),
        ("Host", event.host),
        ("Owner", event.owner),
    ]
    return [(label, value) for label, value in rows if value]


def _format_map_index(event: Event) -> str | None:
    if event.map_index is None:
        return None
    return f"{event.map_index} ({event.map_label})" if event.map_label else str(event.map_index)


def _format_failed_tasks(event: Event) -> str | None:
    if not event.failed:
        return None
    more = event.failed_count - len(event.failed)
    return ", ".join(event.failed) + (f" and {more} more" if more else "")


def _format_date(date: datetime | None) -> str | None:
    return None if date is None else f"{date:%Y-%m-%d %H:%M:%S} UTC"


def _split_indentation(text: str) -> list[tuple[str, str]]:
    """Return for each line its indentation, as no-break spaces, and its text.

    HTML collapses spaces at the start of a line, and Outlook does not support CSS `white-space`.
    """
    lines = text.expandtabs(4).split("\n")
    return [("\u00a0" * (len(line) - len(line.lstrip(" "))), line.lstrip(" ")) for line in lines]


@cache
def _get_environment() -> jinja2.Environment:
    from jinja2 import ChainableUndefined, Environment, PackageLoader, select_autoescape

    environment = Environment(
        loader=PackageLoader(__package__ or "", "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"split_indentation": _split_indentation, "format_date": _format_date}
    return environment
