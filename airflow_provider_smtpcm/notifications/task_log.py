"""The log file of a task's try on this machine: its last lines, and the exception that ended the try.

Airflow writes one JSON object a line. A worker has the files of the tasks that it runs. The DAG processor has them if
it shares `[logging] base_log_folder` with the workers, as with LocalExecutor on one machine. Nothing else is asked,
neither a worker's log server nor remote storage, since an alert must not wait for either.
"""

from __future__ import annotations

import glob
import json
import re
import stat
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow_provider_smtpcm.notifications.airflow_config import read_option
from airflow_provider_smtpcm.notifications.redaction import redact_text, to_single_line

#: Seconds for reading logs, all together: a folder on a network file system may not answer at all.
READ_SECONDS = 3.0
_MAX_LINE_LENGTH = 300  # characters
_MAX_READ = 256 * 1024  # octets at the end of a file; an entry with a traceback of 100 frames has about 20,000
# Stands for the number of a try in a rendered path, to be searched for; no task has so many tries.
_ANY_TRY = 987_654_321
# What Airflow's task runner logs of itself, by the groups of Airflow's page and, before Airflow 3.3, by loggers.
_RUNNER_GROUPS = ("Log message source details", "Pre Execute", "Post Execute")
_RUNNER_LOGGERS = (
    "airflow.sdk.",
    "airflow.dag_processing.",
    "airflow.models.dagbag",
    "airflow.observability.",
    "airflow.plugins_manager",
    "airflow.stats",
)
# What the task has printed; Airflow may write it behind the end of the task.
_OUTPUT_LOGGERS = ("task.stdout", "task.stderr")
_GROUP, _END_OF_GROUP = "::group::", "::endgroup::"
# Threads whose folder did not answer in time. Until one does, no other alert of this process waits for it.
_hanging: list[threading.Thread] = []
# The last entry of a task that raised an exception, and of one that called `sys.exit`.
_TASK_FAILED, _TASK_EXITED = "Task failed with exception", "Task exited"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogKey:
    """Identifies a log.

    Args:
        map_index: None for a task that is not mapped.
        try_number: the try; None: the last try that has a file.
        logical_date: of the run, which an old `log_filename_template` may contain.
    """

    dag_id: str | None
    run_id: str | None
    task_id: str | None
    map_index: int | None
    try_number: int | None
    logical_date: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLog:
    """The end of a try's log.

    Args:
        try_number: the try.
        entries: Airflow's JSON objects of what the task itself wrote, oldest first, not redacted beyond what Airflow
            has redacted.
        exception: type and message of the exception that ended the try; None if there is none in the log.
    """

    try_number: int | None
    entries: Sequence[dict[str, Any]]
    exception: tuple[str, str] | None

    def format_tail(self, count: int) -> str:
        """Return the last lines, redacted, each with its time in UTC, and its level if that is above `info`."""
        return "\n".join(_format_entry(entry) for entry in self.entries[-count:])


def read_task_logs(keys: Sequence[LogKey], seconds: float = READ_SECONDS) -> list[TaskLog | None]:
    """Read the ends of logs, as many as can be read in time.

    What takes longer goes on in a thread that ends with the process: a read from a network file system cannot be
    interrupted. Nothing is read while an earlier one hangs.

    Args:
        seconds: for all of them together.

    Returns:
        A log for each of the keys; None if this machine has no such file, or if it cannot be read.
    """
    if any(thread.is_alive() for thread in _hanging):
        return [None] * len(keys)
    _hanging.clear()
    logs: list[TaskLog | None] = []
    deadline = time.monotonic() + seconds

    def read() -> None:
        for key in keys:
            if time.monotonic() >= deadline:
                return
            logs.append(_read_task_log(key))

    thread = threading.Thread(target=read, name="read-task-logs", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        _hanging.append(thread)
    in_time = logs[:]
    return in_time + [None] * (len(keys) - len(in_time))


def _read_task_log(key: LogKey) -> TaskLog | None:
    folder, template = read_option("logging", "base_log_folder"), read_option("logging", "log_filename_template")
    if not (folder and template and key.dag_id and key.run_id and key.task_id):
        return None
    try:
        name = _render_template(template, key)
        if ".." in Path(name).parts or Path(name).is_absolute():
            return None
        try_number, path = key.try_number, Path(folder, name)
        if try_number is None:
            try_number, path = _find_last_try(Path(folder), name)
        return _parse_log(_read_end(path), try_number)
    except Exception:  # noqa: BLE001 - there may be no file, and a template of the configuration may be anything
        return None


def _render_template(template: str, key: LogKey) -> str:
    """Return the path of a try's log in the folder of logs, as Airflow's executors do."""
    try_number = _ANY_TRY if key.try_number is None else key.try_number
    if "{{" in template:
        import jinja2

        ti = SimpleNamespace(
            dag_id=key.dag_id,
            run_id=key.run_id,
            task_id=key.task_id,
            map_index=-1 if key.map_index is None else key.map_index,
            try_number=try_number,
        )
        return str(jinja2.Template(template).render(ti=ti))
    date = key.logical_date.isoformat() if key.logical_date else ""
    return template.format(
        dag_id=key.dag_id, run_id=key.run_id, task_id=key.task_id, logical_date=date, try_number=try_number
    )


def _find_last_try(folder: Path, name: str) -> tuple[int, Path]:
    """Return the last try that has a file, and the file.

    Args:
        name: the path in the folder, with `_ANY_TRY` as the number of the try.

    Raises:
        ValueError: there is none.
    """
    parts = name.split(str(_ANY_TRY))
    pattern = re.compile(r"(\d{1,6})".join(map(re.escape, parts)))
    paths = folder.glob("*".join(map(glob.escape, parts)))
    matches = [(pattern.fullmatch(path.relative_to(folder).as_posix()), path) for path in paths]
    return max((int(match[1]), path) for match, path in matches if match)


def _read_end(path: Path) -> list[bytes]:
    """Return the lines at the end of a file; none if it is not a regular file."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        return []
    with path.open("rb") as file:
        file.seek(max(0, status.st_size - _MAX_READ))
        lines = file.read(_MAX_READ).split(b"\n")
    return lines[1:] if status.st_size > _MAX_READ else lines  # the first one may be a part of a line


def _parse_log(lines: Sequence[bytes], try_number: int | None) -> TaskLog:
    entries, exception, group, has_ended = [], None, "", False
    for entry in map(_parse_line, lines):
        event, logger = str(entry.get("event") or "").strip(), str(entry.get("logger") or "")
        if event.startswith(_GROUP):
            group = event.removeprefix(_GROUP)
        elif event.startswith(_END_OF_GROUP):
            group = ""
        elif event in (_TASK_FAILED, _TASK_EXITED):
            has_ended = True
            exited = "SystemExit", str(entry.get("exit_code", ""))
            exception = exited if event == _TASK_EXITED else _parse_exception(entry)
        elif event and (
            logger in _OUTPUT_LOGGERS
            or not (has_ended or group in _RUNNER_GROUPS or logger.startswith(_RUNNER_LOGGERS))
        ):
            entries.append(entry)
    return TaskLog(try_number=try_number, entries=entries, exception=exception)


def _parse_line(line: bytes) -> dict[str, Any]:
    """Return the JSON object on a line; any other line as the text of an entry."""
    text = line.decode("utf-8", "replace")
    try:
        entry = json.loads(text)
    except ValueError:
        entry = None
    return entry if isinstance(entry, dict) else {"event": text}


def _parse_exception(entry: dict[str, Any]) -> tuple[str, str] | None:
    """Return type and message of an entry's exception; the first one of a chain is the one that was raised last."""
    details = entry.get("error_detail")
    first = details[0] if isinstance(details, list) and details else None
    return (str(first.get("exc_type") or ""), str(first.get("exc_value") or "")) if isinstance(first, dict) else None


def _format_entry(entry: dict[str, Any]) -> str:
    text = str(entry["event"])
    if exception := _parse_exception(entry):
        text += f" ({': '.join(filter(None, exception))})"
    level = str(entry.get("level") or "info")
    prefix = "" if level in ("info", "debug", "notset") else f"{level.upper()} "
    try:
        time_of_day = f"{datetime.fromisoformat(str(entry.get('timestamp'))).astimezone(UTC):%H:%M:%S} "
    except ValueError:
        time_of_day = ""
    # Redacted before it is cut, since no pattern matches half of a credential.
    return to_single_line(f"{time_of_day}{prefix}{redact_text(text)}", _MAX_LINE_LENGTH)
