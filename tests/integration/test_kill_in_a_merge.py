"""`kill -9` of the task's process, under Airflow's own scheduler, in the middle of a merge; Airflow retries it.

Each row arrives once. The outcome of the mails that were being sent when the process died is unknown: the report lists
these rows, and there are never more than the ledger's window.
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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

log = logging.getLogger(__name__)

TOPIC = "tasks killed by SIGKILL"
CONNECTIONS = 2


def merges(folder: Path) -> tuple[KilledMerge, ...]:
    """One with the default window, one with the smallest; each is killed twice, at arbitrary moments."""
    chance = random.Random(SEED)  # noqa: S311 - no secret
    return (
        KilledMerge(
            name="window_of_its_own",
            rows=5000,
            connections=CONNECTIONS,
            window=None,
            bound=LARGEST_WINDOW,
            moments=(chance.randint(500, 2400), chance.randint(2700, 4500)),
            retries=2,
            folder=folder / "window_of_its_own",
        ),
        KilledMerge(
            name="window_of_one",
            rows=300,
            connections=CONNECTIONS,
            window=1,
            bound=CONNECTIONS,
            moments=(chance.randint(20, 130), chance.randint(150, 280)),
            retries=2,
            folder=folder / "window_of_one",
        ),
    )


@pytest.fixture(scope="module")
def runs(airflow_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """Run all of them at the same time in one Airflow."""
    folder = tmp_path_factory.mktemp("merges")
    with under_way(merges(folder), folder, airflow_tables) as runs:
        yield runs


@pytest.mark.parametrize("name", ["window_of_its_own", "window_of_one"])
def test_each_row_arrives_once_and_unknown_outcomes_are_listed(name: str, runs: dict[str, Run]) -> None:
    """No row twice, none missing without a report, at most a window of unknown ones; and the task logs the counts."""
    run = runs[name]
    merge, rows = run.merge, range(1, run.merge.rows + 1)
    told = f"TORTURE_SEED={SEED}, killed at messages {merge.moments}"
    state, task_log = run.end()
    lines, copies, message_ids = merge.report(), run.server.copies(), run.server.message_ids()

    assert run.server.kills == len(merge.moments), f"{told}\n{task_log}"
    assert merge.tries == len(merge.moments) + 1, told
    in_doubt = {line["row"] for line in lines if line["outcome"] == "unknown"}
    accepted = Counter(line["row"] for line in lines if line["outcome"] == "accepted")
    lost = [row for row in rows if not copies[row] and row not in in_doubt]
    doubled = [row for row in rows if copies[row] > 1]
    arrived = sum(copies[row] for row in in_doubt)
    TALLY.add(
        TOPIC,
        {
            "faults tried": run.server.kills,
            "sent": copies.total(),
            f"in doubt ({name})": len(in_doubt),
            "lost": len(lost),
            "doubled": len(doubled),
        },
    )
    log.info("%s: %s; %d of %d rows in doubt, of which %d arrived.", name, told, len(in_doubt), merge.rows, arrived)

    assert doubled == [], told
    assert lost == [], told
    assert {line["outcome"] for line in lines} == {"accepted", "unknown"}, told
    assert set(accepted) | in_doubt == set(rows), told
    assert max(accepted.values()) == 1, told
    assert all(copies[row] == 1 for row in accepted), told
    for number in range(2, merge.tries + 1):
        flagged = [line["row"] for line in lines if (line["try_number"], line["outcome"]) == (number, "unknown")]
        assert 0 < len(flagged) <= merge.bound, f"{len(flagged)} in try {number}; {told}"
        assert len(flagged) == len(set(flagged)), told
    assert [line for line in lines if line["try_number"] == 1 and line["outcome"] != "accepted"] == [], told
    assert all(line["message_id"] == message_ids[line["row"]] for line in lines if line["outcome"] == "accepted"), told
    # It ends as failed and is not retried: a person has to check these rows.
    assert state == "failed", f"{told}\n{task_log}"
    assert f"{merge.rows} rows ({merge.rows - len(in_doubt)} accepted, {len(in_doubt)} unknown)" in task_log, (
        f"{told}\n{task_log}"
    )
