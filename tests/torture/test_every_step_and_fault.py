"""Every fault at every step, one mail and many: nothing is lost, nothing is sent twice, every report is true."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.torture.faulty_relay import Fault, FaultyRelay, Planned, Step, possible
from tests.torture.tally import SEED, TALLY
from tests.torture.tries import Accessor, Ended, Job, broken_promises, counts, in_a_hurry, not_mended, without_reason

pytestmark = pytest.mark.slow

TOPIC = "every fault at every step"
# Most of the time is spent waiting for a relay that says nothing.
AT_ONCE = 32
KINDS: dict[str, dict[str, Any]] = {
    "single": {"rows": None, "recipients": 3},
    "merge over 1": {"rows": 3, "connections": 1},
    "merge over 4": {"rows": 4, "connections": 4},
}

# Longer than a connection's buffers: it can be refused before all of it is sent.
LONG = "All work and no play makes Jack a dull boy.\n" * 15_000


def schedules(step: Step, *, single: bool) -> Iterator[Planned]:
    """One fault each: once, at one mail or another, at one recipient or another; or each time."""
    if step is Step.RCPT:
        nths = [0, 1, 2, 3]
    else:
        nths = [0, 1] if single or step in (Step.GREETING, Step.EHLO, Step.QUIT) else [0, 1, 3]
    for fault, nth in itertools.product(Fault, nths):
        if possible(step, fault):
            yield Planned(step, fault, nth)


def run(planned: Planned, kind: str, folder: Path, *, ledger: bool, long: bool = False) -> list[str]:
    """Run a task as many times as Airflow would; with a ledger, repair the relay and clear it; return what is wrong."""
    chance = random.Random(f"{SEED} {planned} {kind} {ledger}")  # noqa: S311 - no secret
    store = Accessor() if ledger else None
    relay = FaultyRelay([planned], pipelining=chance.random() < 0.5, small_buffers=long)
    job = Job(
        relay=relay,
        folder=folder,
        store=store,
        retry_for=chance.choice((0.0, 0.1)),
        text=LONG if long else "x",
        **KINDS[kind],
    )
    with relay:
        job.run()
        wrong = broken_promises(job)
        if ledger and job.last.ended is not Ended.SUCCESS:
            job.repair()
            job.run()
            wrong += not_mended(job)
    wrong += broken_promises(job) + without_reason(job)
    TALLY.add(TOPIC, counts(job, wrong))
    return [f"{one}: {relay.happened}, {replace(job, text='')}" for one in wrong]


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[Step, str], list[str]]:
    """What is wrong, by the step and the kind of task; all are run side by side."""
    folder = tmp_path_factory.mktemp("reports")
    with pytest.MonkeyPatch.context() as monkeypatch, ThreadPoolExecutor(AT_ONCE) as pool:
        in_a_hurry(monkeypatch)
        runs = [
            (step, kind, pool.submit(run, planned, kind, folder, ledger=ledger))
            for step, kind, ledger in itertools.product(Step, KINDS, (True, False))
            for planned in schedules(step, single=kind == "single")
        ]
        found: dict[tuple[Step, str], list[str]] = {}
        for step, kind, done in runs:
            found.setdefault((step, kind), []).extend(done.result())
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", Step, ids=lambda step: step.name)
def test_whatever_goes_wrong_at_a_step(step: Step, kind: str, complaints: Mapping[tuple[Step, str], list[str]]) -> None:
    """With a ledger and without; with retries within a try, and pipelining, or without, as the seed has it."""
    assert complaints[step, kind] == []


@pytest.mark.parametrize("kind", ["single", "merge over 1"])
def test_whatever_goes_wrong_in_the_middle_of_a_long_message(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client may not have sent all of it when the reply comes or the connection breaks."""
    in_a_hurry(monkeypatch)
    planned = [Planned(Step.MESSAGE, fault) for fault in Fault if possible(Step.MESSAGE, fault)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = [pool.submit(run, one, kind, tmp_path, ledger=True, long=True) for one in planned]
        assert [complaint for done in runs for complaint in done.result()] == []
