"""An exception as text: the author's frames of its traceback, and how many of others are left out."""

from __future__ import annotations

import json
import linecache
import sysconfig
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import airflow.sdk
import pytest

from airflow_provider_smtpcm.notifications import send_mail
from airflow_provider_smtpcm.notifications.exception_summary import ExceptionSummary, summarize_exception

SITE_PACKAGES = sysconfig.get_path("purelib")
AIRFLOW = f"{airflow.sdk.__path__[0]}/bases/operator.py"
PYTHON = json.__file__
PANDAS = f"{SITE_PACKAGES}/pandas/io/parsers/readers.py"
OURS = send_mail.__file__
DAG = "/opt/airflow/dags/warehouse_load.py"
LIBRARY = f"{SITE_PACKAGES}/corp_tables/orders.py"


@pytest.fixture(autouse=True)
def _own_line_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other readers of the lines of these files get the real ones."""
    monkeypatch.setattr(linecache, "cache", dict(linecache.cache))


def frame(path: str, function: str) -> Callable[[Callable[[], Any]], Any]:
    """Return a function whose frame is in this file, and that calls another."""
    code = f"def {function}(call):\n    return call()\n"
    linecache.cache[path] = (len(code), None, code.splitlines(keepends=True), path)
    names: dict[str, Any] = {"__name__": "any"}
    exec(compile(code, path, "exec"), names)  # noqa: S102 - our own
    return names[function]  # type: ignore[no-any-return]


def raise_through(*frames: tuple[str, str], error: BaseException | None = None) -> BaseException:
    """Return an exception that was raised behind these frames; the innermost has no line of this test."""

    def fail() -> None:
        raise error or ValueError("it broke")

    call: Callable[[], Any] = fail
    for path, function in reversed(frames):
        call = partial(frame(path, function), call)
    try:
        call()
    except BaseException as caught:  # noqa: BLE001 - whatever was given
        return without_frames_of_this_test(caught)
    raise AssertionError


def without_frames_of_this_test(error: BaseException) -> BaseException:
    """Drop this file's frames from a traceback."""
    kept = []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename != __file__:
            kept.append(trace)
        trace = trace.tb_next
    for outer, inner in zip(kept, [*kept[1:], None], strict=True):
        outer.tb_next = inner
    return error.with_traceback(kept[0] if kept else None)


def traceback_of(error: BaseException) -> list[str]:
    """Return the lines of the summary's traceback."""
    summary = summarize_exception(error)
    assert summary is not None
    return summary.traceback.splitlines()


def test_airflows_frames_are_left_out_and_counted() -> None:
    """Above the author's frames, and between them."""
    error = raise_through((AIRFLOW, "run"), (AIRFLOW, "execute"), (DAG, "load"), (PYTHON, "loads"), (DAG, "parse"))
    assert traceback_of(error) == [
        "Traceback (most recent call last):",
        "  … 2 frames of Airflow left out",
        f'  File "{DAG}", line 2, in load',
        "    return call()",
        "  … 1 frame of Python left out",
        f'  File "{DAG}", line 2, in parse',
        "    return call()",
        "ValueError: it broke",
    ]


@pytest.mark.parametrize("path", [AIRFLOW, PYTHON, OURS, PANDAS, "<frozen importlib._bootstrap>"])
def test_the_frame_that_raised_the_exception_is_shown(path: str) -> None:
    """Without it nothing says where."""
    lines = traceback_of(raise_through((AIRFLOW, "run"), (OURS, "execute"), (path, "fail")))
    assert lines[1] == "  … 2 frames of Airflow and airflow-provider-smtpcm left out"
    assert lines[2] == f'  File "{path}", line 2, in fail'
    assert lines[-1] == "ValueError: it broke"


def test_of_a_library_the_first_and_the_last_frame_are_shown() -> None:
    """What the author called, and what failed in it; a few frames may be a company's own package."""
    many = traceback_of(raise_through((DAG, "load"), *[(PANDAS, f"f{n}") for n in range(9)]))
    assert many[3:6] == [f'  File "{PANDAS}", line 2, in f0', "    return call()", "  … 7 frames of pandas left out"]
    assert many[6] == f'  File "{PANDAS}", line 2, in f8'
    few = traceback_of(raise_through((DAG, "load"), *[(LIBRARY, f"f{n}") for n in range(3)], (DAG, "back")))
    assert [line for line in few if "left out" in line] == []


def test_every_exception_of_a_chain_is_shortened() -> None:
    """The cause is often the real reason."""
    cause = raise_through((AIRFLOW, "run"), (DAG, "connect"), error=OSError("connection reset"))
    error = RuntimeError("the load failed")
    error.__cause__ = cause
    lines = traceback_of(raise_through((AIRFLOW, "run"), (DAG, "load"), error=error))
    assert lines.count("  … 1 frame of Airflow left out") == 2
    assert lines.index("OSError: connection reset") < lines.index("RuntimeError: the load failed")
    assert "The above exception was the direct cause of the following exception:" in lines


def test_the_exceptions_of_a_group_are_shortened() -> None:
    """As of `asyncio.TaskGroup`."""
    inner = raise_through((AIRFLOW, "run"), (DAG, "connect"), error=OSError("connection reset"))
    text = "\n".join(traceback_of(raise_through((DAG, "load"), error=ExceptionGroup("two", [inner, ValueError("x")]))))
    assert "… 1 frame of Airflow left out" in text
    assert "OSError: connection reset" in text


def test_a_chain_that_is_a_circle_ends() -> None:
    """Code that sets `__context__` itself can make one."""
    error = raise_through((DAG, "load"))
    other = OSError("other")
    error.__cause__, other.__cause__ = other, error
    assert traceback_of(error)[-1] == "ValueError: it broke"


def test_carets_are_left_out() -> None:
    """They stand below other characters as soon as a line is wrapped."""
    code = "def load(x):\n    return x['a'] + x['no']['such']\n"
    linecache.cache[DAG] = (len(code), None, code.splitlines(keepends=True), DAG)
    names: dict[str, Any] = {"__name__": "any"}
    exec(compile(code, DAG, "exec"), names)  # noqa: S102 - our own
    try:
        names["load"]({"a": 1})
    except KeyError as caught:
        lines = traceback_of(caught)
    assert not any("^" in line for line in lines)
    assert "    return x['a'] + x['no']['such']" in lines


@pytest.mark.parametrize(
    ("type_name", "name"),
    [
        ("ValueError", "ValueError"),
        ("sqlalchemy.exc.OperationalError", "OperationalError"),
        ("load.<locals>.E", "E"),
        ("", ""),
    ],
)
def test_the_name_of_an_exception_is_without_its_module(type_name: str, name: str) -> None:
    """As the subject has it."""
    assert ExceptionSummary(type=type_name, message="", traceback="").name == name


def test_a_dag_in_airflows_home_is_the_author_s(tmp_path: Path) -> None:
    """Though its folder is called `airflow`."""
    lines = traceback_of(raise_through((str(tmp_path / "airflow/dags/load.py"), "load")))
    assert not any("left out" in line for line in lines)
