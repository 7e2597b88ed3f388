"""Merges under random schedules of faults, and killed processes: each row arrives once, or is in doubt and named."""

from __future__ import annotations

import json
import os
import queue
import random
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, Phase, example, given, seed, settings
from hypothesis import strategies as st

from airflow_provider_smtpcm.ledger.merge import LARGEST_WINDOW
from airflow_provider_smtpcm.ledger.record import HEAD, RunState
from tests.torture.faulty_relay import Fault, FaultyRelay, Planned, Step, possible
from tests.torture.tally import SEED, TALLY
from tests.torture.tries import (
    RETRIES,
    Accessor,
    Ended,
    Job,
    Try,
    broken_promises,
    counts,
    in_a_hurry,
    not_mended,
    without_reason,
)

pytestmark = pytest.mark.slow

ROWS = 12
# Schedules that are run side by side, since most of them wait.
SIDE_BY_SIDE, EXAMPLES = 16, 13


@dataclass(frozen=True, slots=True)
class Schedule:
    """The task, and its faults."""

    faults: tuple[Planned, ...]
    connections: int
    pipelining: bool
    wants_any_message: bool
    retry_for: float
    ledger: bool
    ledger_window: int | None
    outage: tuple[int, int] | None
    on_refused: Literal["fail", "warn"]
    on_unknown: Literal["fail", "retry"]


# About how many times a step occurs.
TIMES = {Step.GREETING: 3, Step.EHLO: 3, Step.QUIT: 3, Step.RCPT: 2 * ROWS}
# What leads to most different ends comes more often.
WHAT = [
    (step, fault)
    for step in (*Step, Step.RCPT, Step.RCPT, Step.DOT)
    for fault in (*Fault, Fault.TRANSIENT, Fault.TRANSIENT)
    if possible(step, fault)
]
planned = st.sampled_from(WHAT).flatmap(
    lambda what: st.builds(Planned, st.just(what[0]), st.just(what[1]), st.integers(1, TIMES.get(what[0], ROWS)))
)
schedules = st.builds(
    Schedule,
    faults=st.lists(planned, min_size=1, max_size=8).map(tuple),
    connections=st.integers(1, 4),
    pipelining=st.booleans(),
    wants_any_message=st.booleans(),
    retry_for=st.sampled_from((0.0, 0.1)),
    ledger=st.sampled_from((True, True, True, False)),
    ledger_window=st.sampled_from((None, 1, 4)),
    outage=st.none() | st.none() | st.tuples(st.integers(1, 8), st.integers(1, 4)),
    on_refused=st.sampled_from(("fail", "warn")),
    on_unknown=st.sampled_from(("fail", "fail", "retry")),
)


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    in_a_hurry(monkeypatch)


def run(schedule: Schedule, folder: Path) -> list[str]:
    """Run it as many times as Airflow would, repair the relay and clear the task; return what is wrong."""
    job = Job(
        relay=FaultyRelay(
            schedule.faults, pipelining=schedule.pipelining, wants_any_message=schedule.wants_any_message
        ),
        folder=folder,
        rows=ROWS,
        store=Accessor(schedule.outage) if schedule.ledger else None,
        retry_for=schedule.retry_for,
        connections=schedule.connections,
        ledger_window=schedule.ledger_window,
        on_refused=schedule.on_refused,
        on_unknown=schedule.on_unknown,
    )
    with job.relay:
        job.run()
        wrong = broken_promises(job)
        if schedule.ledger and job.last.ended is not Ended.SUCCESS:
            job.repair()
            job.run()
            wrong += not_mended(job)
    wrong += broken_promises(job) + without_reason(job)
    TALLY.add("random schedules", counts(job, wrong))
    return [f"{one}: {schedule}" for one in wrong]


# A row of which one recipient was refused for good; and just when the cleared task begins with it once more, the store
# is away: that one is still to be asked by the next try, and the other has the mail all the while.
CLEARED_AND_BROKEN = Schedule(
    faults=(
        Planned(Step.DOT, Fault.LATE, 1),
        Planned(Step.MAIL, Fault.CLOSING, 4),
        Planned(Step.RCPT, Fault.PERMANENT, 9),
        Planned(Step.DOT, Fault.NEVER, 6),
        Planned(Step.DATA, Fault.TRANSIENT, 4),
        Planned(Step.DOT, Fault.TRANSIENT, 5),
        Planned(Step.DOT, Fault.CLOSING, 8),
    ),
    connections=3,
    pipelining=False,
    wants_any_message=False,
    retry_for=0.1,
    ledger=True,
    ledger_window=None,
    outage=(7, 4),
    on_refused="warn",
    on_unknown="fail",
)


@seed(SEED)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),  # what depends on time does not shrink: the schedule is shown as it is
)
@given(st.lists(schedules, min_size=SIDE_BY_SIDE, max_size=SIDE_BY_SIDE))
@example([replace(CLEARED_AND_BROKEN, outage=(first, 4)) for first in range(1, SIDE_BY_SIDE)])
def test_whatever_goes_wrong_together(tmp_path: Path, some: list[Schedule]) -> None:
    """Up to eight faults anywhere in a merge over up to four connections, and up to three attempts."""
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        wrong = [complaint for complaints in pool.map(run, some, [tmp_path] * len(some)) for complaint in complaints]
    assert wrong == []


# --- A process that is killed


class Moment(StrEnum):
    """When a process dies that writes to its store."""

    BEFORE = "before a write"
    AFTER = "after a write"
    #: Everything is sent and recorded, and Airflow does not know yet.
    LAST_WORDS = "after its last words"


# Rows of a task whose process is killed, how many times at each step, and in what kinds of tasks.
MANY, CRASHES = 30, 2
# What happens but once, or about once, in a task.
ONCE = (Step.GREETING, Step.EHLO, Step.QUIT, Moment.LAST_WORDS)
CRASHING: list[dict[str, Any]] = [
    {"rows": None, "recipients": 3},
    {"rows": MANY, "ledger_window": 1},
    {"rows": MANY, "ledger_window": 4, "connections": 4},
    {"rows": MANY, "connections": 2},
]


class OnDisk:
    """A task state store that outlives the process.

    Args:
        folder: where it is.
        dies: when the process does, if it does.
        nth: at which write, from 1; its last words are one.
    """

    def __init__(self, folder: Path, *, dies: Step | Moment | None = None, nth: int = 0) -> None:
        self._folder = folder
        self._folder.mkdir(exist_ok=True)
        self._writes = 0
        self._dies = dies
        self._nth = nth

    def get(self, key: str) -> Any:
        """None for what is not there."""
        path = self._path(key)
        return json.loads(path.read_text()) if path.exists() else None

    def delete(self, key: str) -> None:
        """No matter whether it is there."""
        self._path(key).unlink(missing_ok=True)

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:  # noqa: ARG002
        """All of it or nothing, as a database does."""
        self._writes += 1
        if self._dies is Moment.BEFORE and self._writes == self._nth:
            _die()
        half = self._folder / "half"
        half.write_text(json.dumps(value))
        half.replace(self._path(key))
        if self._dies is Moment.AFTER and self._writes == self._nth:
            _die()
        if self._dies is Moment.LAST_WORDS and key == HEAD and value["standing"] != RunState.UNFINISHED:
            _die()

    def _path(self, key: str) -> Path:
        return self._folder / key.replace("/", "-")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run_until_killed(job: Job) -> bool:
    """Run the task in a process of its own; whether it was killed."""
    told: queue.SimpleQueue[int] = queue.SimpleQueue()
    job.relay.kill = lambda: os.kill(told.get(), signal.SIGKILL)
    child = os.fork()
    if not child:
        signal.alarm(240)  # whatever happens, the wait for it ends
        try:
            job.run()
        finally:
            os._exit(0)
    told.put(child)
    status = os.waitpid(child, 0)[1]
    assert not os.WIFSIGNALED(status) or os.WTERMSIG(status) == signal.SIGKILL
    return os.WIFSIGNALED(status)


def crash(at: Step | Moment, nth: int, folder: Path, **settings: Any) -> list[str]:
    """Run a task until the process dies, then the attempts that are left, as Airflow would; return what is wrong."""
    relay = FaultyRelay([Planned(at, Fault.KILL, nth)] if isinstance(at, Step) else ())
    store = OnDisk(folder / "ledger", dies=at, nth=nth)
    job = Job(relay=relay, folder=folder, store=store, **settings)
    with job.relay:
        killed = run_until_killed(job)
        if killed:
            job.tries.append(Try(Ended.RETRY, None, "killed"))
            job.store = OnDisk(folder / "ledger")
            job.run(tries=RETRIES)
    wrong = _after_a_crash(job) if killed else []
    TALLY.add("killed processes", {**counts(job, wrong), "faults tried": killed})
    return [f"{one}: {nth}, {job}" for one in wrong]


def _after_a_crash(job: Job) -> list[str]:
    """Each mail arrived once, or is in doubt and named; at most the window is in doubt."""
    told = job.told()
    wrong: list[str] = []
    for recipients, one in zip(job.mails, told, strict=True):
        for to in recipients:
            copies = job.relay.copies(to)
            in_doubt = one is not None and one.outcome == "unknown"
            if copies > 1 or (copies == 0 and not in_doubt):
                wrong.append(f"{'doubled' if copies else 'lost'}: {to} has {copies} copies, {one}")
    doubts = sum(one is not None and one.outcome == "unknown" for one in told)
    window = max(job.ledger_window or LARGEST_WINDOW, job.connections) if job.rows else 1
    if doubts > window:
        wrong.append(f"{doubts} mails are in doubt, and the window is {window}")
    if (job.last.ended is Ended.SUCCESS) is (doubts > 0):
        wrong.append(f"{doubts} mails are in doubt, and the task is {job.last.ended}")
    result = job.last.result
    if job.rows and (result is None or result["counts"]["rows"] != job.rows or result["counts"]["unknown"] != doubts):
        wrong.append(f"{doubts} mails are in doubt, and the result is {result}")
    return wrong


@pytest.mark.parametrize("at", [*Step, *Moment], ids=lambda at: at.name)
@pytest.mark.parametrize("settings", CRASHING, ids=lambda settings: ", ".join(f"{k} {v}" for k, v in settings.items()))
def test_a_process_may_die_at_any_moment(at: Step | Moment, settings: dict[str, Any], tmp_path: Path) -> None:
    """By SIGKILL: no ledger is ended, and no report; not even where Airflow did not hear that all was done."""
    chance = random.Random(f"{SEED} {at} {settings}")  # noqa: S311 - no secret
    again = at not in ONCE and settings["rows"] is not None
    most = 6 if isinstance(at, Moment) else MANY
    nths = {1, *(chance.randint(2, most) for _ in range(CRASHES if again else 0))}
    wrong: list[str] = []
    for nth in sorted(nths):
        folder = tmp_path / str(nth)
        folder.mkdir()
        wrong += crash(at, nth, folder, **settings)
    assert wrong == []
