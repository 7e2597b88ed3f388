"""Task logs: their last lines and the exceptions that ended the tasks, or None where there is no such file."""

from __future__ import annotations

import json
import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from airflow_provider_smtpcm.notifications import task_log
from airflow_provider_smtpcm.notifications.event import read_event
from airflow_provider_smtpcm.notifications.task_log import LogKey, TaskLog, read_task_logs
from tests.notifications.shapes import RUN_ID, raised, run_failed, task_failed, task_killed, task_succeeded

KEY = LogKey(dag_id="warehouse_load", run_id=RUN_ID, task_id="load_orders", map_index=3, try_number=2)
RECORDED = Path(__file__).parent / "logs"


def line(time: str, event: str, level: str = "info", logger: str = "warehouse", **more: object) -> str:
    """Return a line of a log, as Airflow writes it."""
    entry = {"timestamp": f"2026-11-25T{time}.250000Z", "level": level, "event": event, "logger": logger, **more}
    return json.dumps(entry) + "\n"


def raised_as(name: str, message: str) -> dict[str, object]:
    """Return an exception of a chain, as Airflow writes it."""
    return {"exc_type": name, "exc_value": message, "exc_notes": [], "is_cause": False, "frames": []}


# A task that logs, prints, logs an exception of its own, and fails; then the notifier has a warning.
LINES = (
    line("01:02:00", "::group::Pre Execute", logger="task")
    + line("01:02:00", "Setting email on a task is deprecated", "warning", "py.warnings")
    + line("01:02:01", "::endgroup::", logger="task")
    + line("01:02:02", "Stats instance was created", logger="airflow.stats")
    + line("01:02:03", "Reading orders")
    + line("01:02:04", "120,000 rows", logger="task.stdout")
    + line("01:05:09", "Waiting for a lock\nheld by session 4711", "warning")
    + line("01:06:09", "Cannot roll back", "error", error_detail=[raised_as("OSError", "connection reset")])
    + line(
        "01:09:12",
        "Task failed with exception",
        "error",
        "task",
        error_detail=[raised_as("LoadError", "dbo.Orders is locked"), raised_as("OSError", "the cause")],
    )
    + line("01:09:12", "::group::Post Execute", logger="task")
    + line("01:09:12", "'html' could not be rendered", "warning", "airflow_provider_smtpcm.notifications.send_mail")
)
TAIL = [
    "01:02:03 Reading orders",
    "01:02:04 120,000 rows",
    "01:05:09 WARNING Waiting for a lock held by session 4711",
    "01:06:09 ERROR Cannot roll back (OSError: connection reset)",
]


def write_log(
    folder: Path,
    text: str = LINES,
    *,
    dag: str = "warehouse_load",
    run: str = RUN_ID,
    task: str = "load_orders",
    mapped: str = "map_index=3",
    attempt: int = 2,
) -> Path:
    """Write a log where Airflow's default `log_filename_template` has it."""
    path = folder / f"dag_id={dag}/run_id={run}/task_id={task}" / mapped / f"attempt={attempt}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def read(key: LogKey = KEY) -> TaskLog | None:
    """Read one log."""
    (log,) = read_task_logs([key])
    return log


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        LogKey(dag_id=None, run_id=RUN_ID, task_id="load_orders", map_index=3, try_number=2),
        LogKey(dag_id="warehouse_load", run_id="../..", task_id="load_orders", map_index=None, try_number=1),
        LogKey(dag_id="warehouse_load", run_id=RUN_ID, task_id="a/../../b", map_index=None, try_number=None),
        LogKey(dag_id="warehouse_load", run_id=RUN_ID, task_id="load\0orders", map_index=None, try_number=None),
    ],
)
def test_without_a_file_there_is_no_log(key: LogKey) -> None:
    """A worker's log is not on the machine of the DAG processor; no name leads out of the folder."""
    assert read(key) is None


@pytest.mark.parametrize("try_number", [1, None])
def test_a_name_leads_to_no_file_outside_the_folder(
    try_number: int | None, log_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user may give a run any name."""
    monkeypatch.setenv("AIRFLOW__LOGGING__LOG_FILENAME_TEMPLATE", "{{ ti.run_id }}{{ ti.try_number }}.log")
    outside = log_folder.parent / "secret1.log"
    outside.write_text(LINES)
    for name in ("../secret", str(outside.with_name("secret"))):
        key = LogKey(dag_id="any", run_id=name, task_id="any", map_index=None, try_number=try_number)
        assert read(key) is None


@pytest.mark.parametrize(
    "template",
    ["{{ no.such.thing }}.log", "{{", "{no_such_key}.log", "/abs/{{ ti.task_id }}.log", "../{{ ti.task_id }}"],
)
def test_a_template_that_cannot_be_used_is_no_log(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is Airflow's to complain about it."""
    monkeypatch.setenv("AIRFLOW__LOGGING__LOG_FILENAME_TEMPLATE", template)
    assert read() is None


def test_a_pipe_is_not_read(log_folder: Path) -> None:
    """Opening one waits for a writer."""
    path = write_log(log_folder)
    path.unlink()
    os.mkfifo(path)
    log = read()
    assert log is None or not log.entries


def test_a_folder_that_does_not_answer_is_not_waited_for(log_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system whose server is gone: what was read in time is there; the next alert does not wait."""
    write_log(log_folder)
    write_log(log_folder, task="slow", mapped="")
    answers, read_end = threading.Event(), task_log._read_end

    def hang(path: Path) -> list[bytes]:
        if "slow" in str(path):
            answers.wait()
        return read_end(path)

    monkeypatch.setattr(task_log, "_read_end", hang)
    slow = LogKey(dag_id="warehouse_load", run_id=RUN_ID, task_id="slow", map_index=None, try_number=2)
    try:
        first, *others = read_task_logs([KEY, slow, KEY], seconds=0.5)
        started_at = time.monotonic()
        assert read_task_logs([KEY, slow], seconds=3600) == [None, None]
        assert time.monotonic() - started_at < 60
    finally:
        answers.set()
    assert first is not None
    assert others == [None, None]
    (hanging,) = task_log._hanging
    hanging.join()
    assert read() is not None


def test_the_last_lines_are_what_the_task_wrote(log_folder: Path) -> None:
    """On one line each, with time and level, without what Airflow's task runner and the notifier say."""
    write_log(log_folder)
    log = read()
    assert log is not None
    assert log.format_tail(100).splitlines() == TAIL
    assert log.format_tail(2).splitlines() == TAIL[-2:]
    assert log.exception == ("LoadError", "dbo.Orders is locked")


@pytest.mark.parametrize(
    ("version", "tail"),
    [
        # What a task prints comes by another way than what it logs, and may be later.
        ("3.3.2", ["12:00:49 WARNING Waiting for a lock; PWD=***;", "12:00:49 Reading dbo.Orders"]),
        ("3.1.8", ["12:08:14 Reading dbo.Orders", "12:08:14 WARNING Waiting for a lock; PWD=***;"]),
    ],
)
def test_the_logs_of_every_airflow_are_understood(version: str, tail: list[str], log_folder: Path) -> None:
    """As recorded, with other paths."""
    write_log(log_folder, (RECORDED / f"airflow-{version}.jsonl").read_text(encoding="utf-8"))
    log = read()
    assert log is not None
    assert log.format_tail(100).splitlines() == tail
    assert log.exception == ("RuntimeError", "dbo.Orders is locked by <spid 4711>\nand stays so")


def test_sys_exit_is_the_exception_that_ended_the_task(log_folder: Path) -> None:
    """Airflow logs its code alone."""
    write_log(log_folder, '{"level":"error","event":"Task exited","exit_code":3,"logger":"task"}\n')
    log = read()
    assert log is not None
    assert log.exception == ("SystemExit", "3")


@pytest.mark.parametrize(
    "line",
    ["plain text", "[1, 2]", '"text"', '{"event":', "\ufffd\x00", '{"event": 7, "error_detail": [1], "timestamp": 3}'],
)
def test_a_line_that_is_no_object_is_text(line: str, log_folder: Path) -> None:
    """A worker that is killed leaves half a line."""
    write_log(log_folder, f"{line}\n")
    log = read()
    assert log is not None
    assert log.exception is None
    assert len(log.format_tail(10).splitlines()) == 1


def test_of_a_large_file_only_the_end_is_read(log_folder: Path) -> None:
    """A log may have gigabytes."""
    path = write_log(log_folder, '{"event":"noise"}\n' * 10)
    with path.open("ab") as file:
        file.truncate(5_000_000_000)  # sparse
        file.write(b"\n" + LINES.encode())
    log = read()
    assert log is not None
    assert log.format_tail(4).splitlines() == TAIL


def test_credentials_are_redacted_before_a_line_is_cut(log_folder: Path) -> None:
    """No pattern matches half of an address."""
    write_log(log_folder, '{"event":"' + "x" * 270 + ' postgresql://etl:hunter2hunter2hunter2@db.corp.example/dwh"}\n')
    log = read()
    assert log is not None
    assert "hunter2" not in log.format_tail(1)


def test_the_last_try_is_that_of_the_highest_number(log_folder: Path) -> None:
    """The DAG processor is not told the number; the tenth try comes after the ninth."""
    for attempt in (1, 9, 10):
        write_log(log_folder, f'{{"event":"try {attempt}"}}\n', mapped="", attempt=attempt)
    log = read(LogKey(dag_id="warehouse_load", run_id=RUN_ID, task_id="load_orders", map_index=None, try_number=None))
    assert log is not None
    assert (log.try_number, log.format_tail(1)) == (10, "try 10")


def test_an_old_template_in_braces_is_understood(log_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Airflow's executors still do."""
    monkeypatch.setenv("AIRFLOW__LOGGING__LOG_FILENAME_TEMPLATE", "{dag_id}/{task_id}/{logical_date}/{try_number}.log")
    path = log_folder / "warehouse_load/load_orders/2026-11-24T22:00:00+00:00/2.log"
    path.parent.mkdir(parents=True)
    path.write_text(LINES)
    date = datetime(2026, 11, 24, 22, tzinfo=UTC)
    key = LogKey(
        dag_id="warehouse_load", run_id=RUN_ID, task_id="load_orders", map_index=3, try_number=2, logical_date=date
    )
    assert read(key) is not None


# --- In events


def test_a_failed_task_has_the_end_of_its_log(log_folder: Path) -> None:
    """Of this try; as many lines as asked for."""
    write_log(log_folder)
    write_log(log_folder, '{"event":"another try"}\n', attempt=1)
    context = task_failed(raised(ValueError("x")))
    assert read_event(context).log_tail == "\n".join(TAIL)
    assert read_event(context, log_lines=1).log_tail == TAIL[-1]
    assert read_event(context, log_lines=0).log_tail is None
    assert read_event(task_succeeded()).log_tail is None


def test_a_killed_task_has_the_end_of_its_log(log_folder: Path) -> None:
    """It is all that says why, if the DAG processor has it."""
    write_log(log_folder, mapped="")
    assert read_event(task_killed({"load_orders": "failed"})).log_tail == "\n".join(TAIL)


def test_a_failed_run_has_the_exceptions_of_its_tasks(log_folder: Path) -> None:
    """Of their last tries, redacted, as far as the logs are there."""
    write_log(log_folder, LINES.replace("is locked", "is locked; PWD=hunter2;"), mapped="", attempt=1)
    write_log(log_folder, LINES.replace("is locked", "is locked; PWD=hunter2;"), mapped="", attempt=2)
    event = read_event(run_failed(states={"load_orders": "failed", "elsewhere": "failed"}))
    elsewhere, here = event.failed_tasks
    assert (elsewhere.exception, elsewhere.try_number) == (None, None)
    assert here.exception is not None
    assert (here.exception.name, here.exception.message) == ("LoadError", "dbo.Orders is locked; PWD=***;")
    assert here.try_number == 2
