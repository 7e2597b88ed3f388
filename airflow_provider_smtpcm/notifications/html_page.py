"""The default page of an alert: the subject, text and HTML of an event. Pure: no Airflow.

Text and HTML have the same order: what failed and why, the link to the log, the facts, the traceback, the end of the
log. The HTML is what Outlook's Word engine and Gmail show alike: tables and inline styles, nothing to load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import cache, partial
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.notifications.airflow_config import is_local
from airflow_provider_smtpcm.notifications.event import TASK_FAILED, Event, EventKind
from airflow_provider_smtpcm.notifications.redaction import strip_control_characters, to_single_line, truncate

if TYPE_CHECKING:
    import jinja2

    from airflow_provider_smtpcm.notifications.exception_summary import ExceptionSummary

_MAX_SUBJECT_LENGTH = 200  # characters; mail clients show about 60
# In characters and in lines, so that a phone shows the button below without scrolling; the rest follows further down.
_MAX_TITLE_LENGTH, _MAX_CAUSE_LENGTH, _MAX_CAUSE_LINES = 140, 280, 5
_MAX_ERROR_LENGTH = 300  # characters, for each failed task of a run
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


def render_page(event: Event, notices: Sequence[str] = (), *, timezone: tzinfo | None = None) -> AlertPage:
    """Render the default page of an event.

    Args:
        event: what happened.
        notices: why this is not the mail that the DAG's author wrote.
        timezone: in which times are shown besides UTC; None: in UTC alone.
    """
    color, dark_color = _COLORS[event.kind]
    cause = _describe_cause(event, timezone)
    shown_cause = _shorten_cause(cause)
    variables = {
        "alert": event,
        "verb": _VERBS.get(event.kind) or (event.state or "Unknown").replace("_", " ").capitalize(),
        "headline": _write_headline(event),
        "title": to_single_line(event.name, _MAX_TITLE_LENGTH),
        "cause": shown_cause,
        "failed": [
            (task, to_single_line(_format_error(task.exception), _MAX_ERROR_LENGTH)) for task in event.failed_tasks
        ],
        "more_failed": event.failed_count - len(event.failed_tasks),
        "rows": _build_rows(event, timezone),
        "sections": _build_sections(event, "" if shown_cause == cause else cause),
        "notices": [strip_control_characters(notice) for notice in notices],
        "is_local": is_local(event.url),
        "color": color,
        "dark_color": dark_color,
        "format_date": partial(_format_date, timezone=None),
    }
    subject, text, html = (_get_environment().get_template(name).render(variables) for name in _TEMPLATES)
    return AlertPage(
        subject=to_single_line(subject, _MAX_SUBJECT_LENGTH),
        text=strip_control_characters(text),
        html=strip_control_characters(html),
    )


def _describe_cause(event: Event, timezone: tzinfo | None) -> str:
    """Return why it happened; empty if not known."""
    if event.exception is not None:
        return _format_error(event.exception)
    causes = [event.reason] if event.reason and not (event.failed_count and event.reason == TASK_FAILED) else []
    if event.deadline is not None:
        causes.append(f"due {_format_date(event.deadline, timezone)}")
        if event.duration and event.ended is None:
            causes.append(f"running for {event.duration}")
    if event.failed_count:
        causes.append(_describe_failed_tasks(event))
    cause = "; ".join(causes)
    return cause[:1].upper() + cause[1:]


def _describe_failed_tasks(event: Event) -> str:
    """Return how many tasks failed, and the first error that is known, or else the names."""
    count = f"{event.failed_count} task{'s' if event.failed_count > 1 else ''} failed"
    known = next((task for task in event.failed_tasks if task.exception), None)
    if known is None:
        more = event.failed_count - len(event.failed_tasks)
        return f"{count}: {', '.join(task.name for task in event.failed_tasks)}{f' and {more} more' if more else ''}"
    return f"{count}{' – ' if event.failed_count == 1 else ', such as '}{known.name}: {_format_error(known.exception)}"


def _write_headline(event: Event) -> str:
    """Return what happened to what: `Task failed`."""
    if event.kind is EventKind.DEADLINE:
        return _VERBS[event.kind]
    if event.kind is EventKind.RETRY:
        return "Task failed, will be retried"
    verb = _VERBS.get(event.kind) or event.state or "unknown"
    return f"{'DAG run' if event.of_dag else 'Task'} {verb.replace('_', ' ').lower()}"


def _shorten_cause(cause: str) -> str:
    lines = truncate(cause, _MAX_CAUSE_LENGTH).split("\n")
    return "\n".join([*lines[: _MAX_CAUSE_LINES - 1], "…"] if len(lines) > _MAX_CAUSE_LINES else lines)


def _format_error(exception: ExceptionSummary | None) -> str:
    """Return the name of an exception's class, and its message."""
    return "" if exception is None else ": ".join(filter(None, (exception.name, exception.message)))


def _build_sections(event: Event, whole_cause: str) -> list[tuple[str, str]]:
    """Return headings and texts of several lines.

    Args:
        whole_cause: empty if it is shown at the top.
    """
    sections = [
        ("The whole message", "" if event.failed_count else whole_cause),
        ("Traceback", event.exception.traceback if event.exception else ""),
        ("Last lines of the log (times in UTC)", event.log_tail or ""),
    ]
    return [(heading, text) for heading, text in sections if text]


def _build_rows(event: Event, timezone: tzinfo | None) -> list[tuple[str, str]]:
    """Return labels and values of all that is known of an event, the most important first."""
    format_date = partial(_format_date, timezone=timezone)
    rows: list[tuple[str, str | None]] = [
        ("Try", None if event.try_number is None else f"{event.try_number} of {event.tries or '?'}"),
        ("Deadline", format_date(event.deadline)),
        ("Started", format_date(event.started)),
        ("Ended", format_date(event.ended)),
        ("Running for" if event.kind is EventKind.DEADLINE and event.ended is None else "Duration", event.duration),
        ("DAG", event.dag_id),
        ("Task", event.task_id),
        ("Map index", _format_map_index(event)),
        ("Run", event.run_id),
        ("Logical date", format_date(event.logical_date)),
        ("Run after", None if event.logical_date else format_date(event.run_after)),
        ("State", event.state if event.kind in (EventKind.DEADLINE, EventKind.OTHER) else None),
        ("Host", event.host),
        ("Owner", event.owner),
    ]
    return [(label, value) for label, value in rows if value]


def _format_map_index(event: Event) -> str | None:
    if event.map_index is None:
        return None
    return f"{event.map_index} ({event.map_label})" if event.map_label else str(event.map_index)


def _format_date(date: datetime | None, timezone: tzinfo | None) -> str | None:
    """Return a date in UTC, and behind it in another time zone, where it may be another day."""
    if date is None:
        return None
    there = ""
    if timezone is not None:
        local = date.astimezone(timezone)
        there = f" ({local:{'%H:%M' if local.date() == date.date() else '%Y-%m-%d %H:%M'} %Z})"
    return f"{date:%Y-%m-%d %H:%M:%S} UTC{there}"


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
    environment.filters["split_indentation"] = _split_indentation
    return environment
