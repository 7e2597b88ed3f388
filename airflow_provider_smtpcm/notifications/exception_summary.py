"""`ExceptionSummary`: an exception as redacted text, with the frames of its traceback that its reader can act upon.

Between the author's function and Airflow's task runner lie a dozen frames that are the same for every failure. They are
left out, and counted; the task's log has them all.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from airflow_provider_smtpcm.notifications.redaction import (
    MAX_REDACTED_LENGTH,
    redact_text,
    to_single_line,
    truncate,
)

_MAX_MESSAGE_LENGTH = 1000
_MAX_LINES, _MAX_LINE_LENGTH, _MAX_TRACEBACK_LENGTH = 25, 300, 6000
_MAX_SECRET_LENGTH = 5000
# Frames are read from the end of a traceback; a RecursionError has a thousand.
_MAX_FRAMES = 200
# More frames in a row of one library than these are replaced by the first and the last of them.
_MAX_LIBRARY_FRAMES = 3
_AIRFLOW, _PYTHON, _THIS_PACKAGE = "Airflow", "Python", "airflow-provider-smtpcm"
_FRAMEWORKS = (_AIRFLOW, _PYTHON, _THIS_PACKAGE)
_SITE_PACKAGES = re.compile(r".*[\\/](?:site|dist)-packages[\\/]([^\\/.]+)")
# The function of a frame that stands for those that are left out; no function can have this name.
_OMITTED = " omitted"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExceptionSummary:
    """An exception as text, redacted.

    Args:
        type: the name of its class, with the module unless that is `builtins` or `__main__`.
        message: at most 1000 characters.
        traceback: its last lines, without the frames of Airflow, of this package and of Python's standard library,
            except for the last one; the last line repeats type and message. Empty if there is none.
    """

    type: str
    message: str
    traceback: str

    @property
    def name(self) -> str:
        """The name of its class alone: `OperationalError`; empty if not known."""
        return self.type.rpartition(".")[2]


def summarize_exception(exception: object) -> ExceptionSummary | None:
    """Summarize an exception as redacted text.

    Args:
        exception: an exception, or its text, which some callbacks have instead; None returns None.
    """
    if exception is None:
        return None
    message = truncate(redact_text(_read_text(exception)), _MAX_MESSAGE_LENGTH)
    if not isinstance(exception, BaseException):
        return ExceptionSummary(type="", message=message, traceback="")
    cls = type(exception)
    module = "" if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}."
    return ExceptionSummary(
        type=to_single_line(f"{module}{cls.__qualname__}", _MAX_LINE_LENGTH),
        message=message,
        traceback=_format_traceback(exception),
    )


def summarize_logged_exception(type_name: str, message: str) -> ExceptionSummary:
    """Summarize an exception of which only the name of its class and its text are known, as from a task's log."""
    return ExceptionSummary(
        type=to_single_line(redact_text(type_name, is_name=True), _MAX_LINE_LENGTH),
        message=truncate(redact_text(message), _MAX_MESSAGE_LENGTH),
        traceback="",
    )


def _read_text(exception: object) -> str:
    try:
        return str(exception)[:MAX_REDACTED_LENGTH]
    except Exception:  # noqa: BLE001 - a user's own __str__ may raise anything
        return "(its text cannot be read)"


def _format_traceback(exception: BaseException) -> str:
    if exception.__traceback__ is None and exception.__cause__ is None and exception.__context__ is None:
        return ""
    try:
        # A negative limit keeps the frames next to the error, for every exception of the chain.
        summary = traceback.TracebackException.from_exception(exception, limit=-_MAX_FRAMES)
        _omit_frames(summary)
        text = "".join(summary.format())
    except Exception:  # noqa: BLE001 - as in `_read_text`
        return ""
    # The end matters most. Cutting may leave a part of a secret, which the masker does not recognize, so the first
    # characters after the cut, as many as in the longest secret, are dropped as well.
    end = redact_text(text[-MAX_REDACTED_LENGTH:])[_MAX_SECRET_LENGTH if len(text) > MAX_REDACTED_LENGTH else 0 :]
    lines = end.rstrip("\n").split("\n")
    shown = [truncate(line, _MAX_LINE_LENGTH) for line in lines[-_MAX_LINES:]]
    while len(shown) > 1 and sum(map(len, shown)) > _MAX_TRACEBACK_LENGTH:
        del shown[0]
    if len(shown) < len(lines):
        shown.insert(0, "…")
    return "\n".join(shown)


class _ShortStack(traceback.StackSummary):
    """A stack in which one frame may stand for several that are left out."""

    def format_frame_summary(self, frame_summary: traceback.FrameSummary, **options: bool) -> str:
        """Return the lines of a frame."""
        if frame_summary.name == _OMITTED:
            return f"  {frame_summary.filename}\n"
        return super().format_frame_summary(frame_summary, **options)


def _omit_frames(summary: traceback.TracebackException) -> None:
    """Replace the frames that the reader cannot act upon, for every exception of the chain and of a group."""
    pending, seen = [summary], set()
    while pending:
        each = pending.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        each.stack = _ShortStack(_shorten(each.stack))
        pending += [other for other in (each.__cause__, each.__context__, *(each.exceptions or ())) if other]


def _shorten(frames: list[traceback.FrameSummary]) -> Iterator[traceback.FrameSummary]:
    """Yield the frames to show, and one in place of each row of others.

    The frame that raised the exception is shown in any case.
    """
    # Without the positions that Python marks by carets, which only fit lines that are not wrapped.
    plain = [traceback.FrameSummary(each.filename, each.lineno, each.name, line=each.line) for each in frames]
    rows = [(owner, list(row)) for owner, row in groupby(plain, key=lambda frame: _find_owner(frame.filename))]
    omitted: list[str] = []
    for number, (owner, row) in enumerate(rows):
        is_last = number == len(rows) - 1
        if owner is None or (owner not in _FRAMEWORKS and len(row) <= _MAX_LIBRARY_FRAMES):
            first, left_out, last = row, [], []
        elif owner in _FRAMEWORKS:
            first, left_out, last = [], row[:-1] if is_last else row, row[-1:] if is_last else []
        else:
            first, left_out, last = row[:1], row[1:-1], row[-1:]
        if first and omitted:
            yield _make_placeholder(omitted)
            omitted = []
        yield from first
        omitted += [owner or ""] * len(left_out)
        if last and omitted:
            yield _make_placeholder(omitted)
            omitted = []
        yield from last
    if omitted:
        yield _make_placeholder(omitted)


def _make_placeholder(owners: list[str]) -> traceback.FrameSummary:
    """Return a frame that stands for those of these owners."""
    names = list(dict.fromkeys(owners))
    listed = ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]
    text = f"… {len(owners)} frame{'s' if len(owners) > 1 else ''} of {listed} left out"
    return traceback.FrameSummary(text, None, _OMITTED, lookup_line=False, line="")


def _find_owner(path: str) -> str | None:
    """Return whose code a file is: a framework's, a library's, or None for that of the DAG's author."""
    if path.startswith("<frozen "):
        return _PYTHON
    for folder, owner in _list_framework_folders():
        if path.startswith(folder):
            return owner
    if match := _SITE_PACKAGES.match(path):
        return _AIRFLOW if match[1] == "airflow" else match[1]
    return _PYTHON if path.startswith(_find_standard_library()) else None


@cache
def _list_framework_folders() -> tuple[tuple[str, str], ...]:
    """Return the folders of Airflow and of this package, wherever they are installed."""
    folders = [(str(Path(__file__).parent.parent), _THIS_PACKAGE)]
    for name in ("airflow", "airflow.sdk"):
        folders += [(str(folder), _AIRFLOW) for folder in getattr(sys.modules.get(name), "__path__", ())]
    return tuple((folder + os.sep, owner) for folder, owner in folders)


@cache
def _find_standard_library() -> str:
    return str(Path(os.__file__).parent) + os.sep
