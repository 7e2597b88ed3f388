"""`kill -9` of the task's process in the middle of a merge, on Airflow 3.1 and 3.2, where nothing outlives an attempt.

So the task must not be retried (`retries=0`): it ends as failed, no row arrives twice, and the report lists the
accepted rows. A person has to find the others.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_smtpcm.ledger.merge import LARGEST_WINDOW
from tests.integration.killed_merge import KilledMerge, Run, under_way
from tests.torture.tally import SEED, TALLY

pytestmark = [pytest.mark.slow, pytest.mark.every_airflow, pytest.mark.timeout(1800)]

log = logging.getLogger(__name__)

TOPIC = "tasks killed by SIGKILL, without a ledger"
ROWS, CONNECTIONS = 5000, 2


@pytest.fixture(scope="module")
def run(airflow_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """It is killed once, at an arbitrary moment."""
    folder = tmp_path_factory.mktemp("merge")
    merge = KilledMerge(
        name="killed",
        rows=ROWS,
        connections=CONNECTIONS,
        window=None,
        bound=LARGEST_WINDOW,
        moments=(random.Random(SEED).randint(500, 4500),),  # noqa: S311 - no secret
        retries=0,
        folder=folder / "killed",
    )
    with under_way([merge], folder, airflow_tables) as runs:
        yield runs[merge.name]


def test_no_row_arrives_twice_and_the_report_lists_the_accepted_rows(run: Run) -> None:
    """Only rows that were being sent when it died are not in it, at most as many as a ledger's window."""
    told = f"TORTURE_SEED={SEED}, killed at message {run.merge.moments}"
    state, task_log = run.end()
    lines, copies, message_ids = run.merge.report(), run.server.copies(), run.server.message_ids()
    accepted = Counter(line["row"] for line in lines)
    untold = set(copies) - set(accepted)
    doubled = [row for row, count in copies.items() if count > 1]
    lost = [row for row in accepted if not copies[row]]
    TALLY.add(
        TOPIC,
        {"faults tried": run.server.kills, "sent": copies.total(), "lost": len(lost), "doubled": len(doubled)},
    )
    log.info("%s: %d rows arrived, %d of them in no line.", told, len(copies), len(untold))

    assert (run.server.kills, run.merge.tries) == (1, 1), f"{told}\n{task_log}"
    assert state == "failed", f"{told}\n{task_log}"
    assert doubled == [], told
    assert lost == [], told
    assert {line["outcome"] for line in lines} == {"accepted"}, told
    assert max(accepted.values()) == 1, told
    assert all(line["message_id"] == message_ids[line["row"]] for line in lines), told
    assert 0 < len(untold) <= run.merge.bound, told
    # It ended where it was killed.
    assert len(copies) < ROWS, told
