"""More than one worker: a pool that limits all of them, mapped mails on both, and one worker that is killed.

The worker is killed as by a power failure, in the middle of a merge and of mapped mails. Another merge is stopped for a
while, as on a suspended machine, and continues long after it is considered dead. Airflow notices by the missing
heartbeats, and retries on the other worker. What was sent is read from the servers' records.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from airflow_provider_smtpcm.ledger.merge import LARGEST_WINDOW
from tests.integration.celery_stack import CeleryStack
from tests.integration.killed_merge import CONN_ID, KilledMerge, KillingServer
from tests.integration.system_packages import skip_for_want_of
from tests.integration.two_workers import MAPPED, CatchingServer, MergeOnAWorker, PausedMerge, RelayWithAPool
from tests.smtp.server import Server
from tests.torture.tally import TALLY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

log = logging.getLogger(__name__)

TOPIC = "workers that die or stand still"
EXAMPLES = Path(__file__).resolve().parents[2] / "example_dags"
WORKERS, CONCURRENCY = ("one", "two"), 4
MAILS, ROWS = 120, 5000
POOL, SLOTS = "mail_relay", 3
RUN_SECONDS = 1200

#: So that a dead worker is missed soon; Airflow's own numbers are some minutes each.
IMPATIENT = {
    "scheduler.task_instance_heartbeat_timeout": "20",
    "scheduler.task_instance_heartbeat_timeout_detection_interval": "3",
    # Tasks that the dead worker had fetched, and not started.
    "scheduler.task_queued_timeout": "30",
    "scheduler.task_queued_timeout_check_interval": "5",
    "scheduler.num_stuck_in_queued_retries": "100",  # waiting for a slot is not a fault
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Aftermath:
    """What can be observed at the end.

    Args:
        states: of the runs, by DAG.
        tasks: of the mapped mails.
        logs: of those mapped mails that failed, and of each merge.
        merges: with the server that received it.
        longest: the longest key and the longest value of all ledgers, in characters.
    """

    states: dict[str, str]
    tasks: list[dict[str, Any]]
    logs: dict[str, str]
    merges: dict[str, tuple[KilledMerge, KillingServer]]
    mapped: CatchingServer
    pooled: RelayWithAPool
    longest: tuple[int, int]


def connection(server: Server) -> dict[str, Any]:
    """Return the connection as `airflow connections import` reads it."""
    return {"conn_type": "smtpcm", "host": "127.0.0.1", "port": server.port, "extra": json.dumps({"ssl_mode": "none"})}


@pytest.fixture(scope="module")
def aftermath(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aftermath]:
    """One Airflow and one dead worker for all tests of this file."""
    if missing := CeleryStack.missing():
        skip_for_want_of(missing)
    folder, dags_folder = tmp_path_factory.mktemp("celery"), tmp_path_factory.mktemp("dags")
    airflow = CeleryStack(dags_folder, workers=WORKERS, concurrency=CONCURRENCY, config=IMPATIENT)
    mapped, pooled = CatchingServer(), RelayWithAPool(SLOTS)
    work: dict[str, Any] = {
        "rows": ROWS,
        "connections": 2,
        "window": None,
        "bound": LARGEST_WINDOW,
        "moments": (ROWS // 2,),
        "retries": 1,
    }
    killed = MergeOnAWorker(
        name="killed", folder=folder / "killed", airflow=airflow, mapped=mapped, sent_before=MAILS // 3, **work
    )
    paused = PausedMerge(name="paused", folder=folder / "paused", **work)
    merges = {merge.name: (merge, KillingServer(merge)) for merge in (killed, paused)}
    with ExitStack() as running:
        servers: dict[str, Server] = {"mapped_server": mapped, "smtpcm_default": pooled}
        for name, (merge, server) in merges.items():
            merge.write(dags_folder)
            servers[f"{CONN_ID}_{name}"] = server
        (dags_folder / "mapped.py").write_text(MAPPED.substitute(mails=MAILS))
        shutil.copy(EXAMPLES / "pool.py", dags_folder)
        for server in servers.values():
            running.enter_context(server)
        running.enter_context(airflow)
        file = folder / "connections.json"
        file.write_text(json.dumps({name: connection(server) for name, server in servers.items()}))
        airflow.cli("connections", "import", str(file))
        airflow.cli("pools", "set", POOL, str(SLOTS), "Sessions that the relay takes")
        airflow.wait_until_healthy()

        states = {"pool": airflow.wait_for_run("pool", airflow.trigger("pool"), timeout=RUN_SECONDS)}
        runs = {"killed": airflow.trigger("killed")}
        airflow.wait_for(killed.is_waiting.is_set, RUN_SECONDS, "the middle of the merge")
        runs["mapped"] = airflow.trigger("mapped")
        airflow.wait_for(lambda: len(airflow.workers) == 1, RUN_SECONDS, "the death of a worker")
        runs["paused"] = airflow.trigger("paused")  # on the other worker
        states |= {dag_id: airflow.wait_for_run(dag_id, run, timeout=RUN_SECONDS) for dag_id, run in runs.items()}
        paused.wake_up()

        tasks = airflow.task_instances("mapped", runs["mapped"])
        failed = [airflow.task_log(task) for task in tasks if task["state"] == "failed"]
        yield Aftermath(
            states=states,
            tasks=tasks,
            logs={"mapped": "\n".join(failed), **{name: airflow.task_logs(name, runs[name]) for name in merges}},
            merges=merges,
            mapped=mapped,
            pooled=pooled,
            longest=longest(airflow.postgresql.dsn),
        )


def longest(dsn: str) -> tuple[int, int]:
    """Return the lengths of the longest key and the longest value that PostgreSQL has of any task."""
    with closing(psycopg2.connect(dsn)) as database, database.cursor() as cursor:
        cursor.execute("SELECT max(length(key)), max(length(value)) FROM task_state_store")
        return cursor.fetchone()


def test_a_pool_limits_the_sessions_over_all_workers(aftermath: Aftermath) -> None:
    """The server holds its replies until all slots are in use, and then for one session more, which never comes."""
    assert aftermath.states["pool"] == "success"
    assert aftermath.pooled.most == SLOTS


def test_both_workers_send_mapped_mails(aftermath: Aftermath) -> None:
    """Each mail has the name of its worker."""
    senders = Counter(stored.sender.partition("@")[0] for stored in aftermath.mapped.stored)
    log.info("Mapped mails by worker: %s", dict(senders))
    assert set(senders) == set(WORKERS)


def test_no_mapped_mail_is_lost_or_duplicated(aftermath: Aftermath) -> None:
    """One that the dead worker was about to send is reported, and not sent again; all others arrive once."""
    copies = Counter(address for stored in aftermath.mapped.stored for address in stored.recipients)
    states = {task["map_index"]: task["state"] for task in aftermath.tasks}
    in_doubt = [number for number, state in states.items() if state == "failed"]
    retried = [task["map_index"] for task in aftermath.tasks if task["try_number"] > 1]
    lost = [number for number in states if not copies[f"region{number}@corp.example"] and number not in in_doubt]
    doubled = [address for address, count in copies.items() if count > 1]
    TALLY.add(
        TOPIC,
        {"sent": copies.total(), "in doubt (mapped mails)": len(in_doubt), "lost": len(lost), "doubled": len(doubled)},
    )
    log.info("Mapped mails tried again: %s; in doubt: %s", retried, in_doubt)

    assert sorted(states) == list(range(MAILS))
    assert lost == []
    assert doubled == []
    assert set(states.values()) <= {"success", "failed"}
    # At most the mails that the dead worker was sending beside the merge.
    assert set(in_doubt) <= set(retried)
    assert 0 < len(in_doubt) < CONCURRENCY
    assert aftermath.logs["mapped"].count("ended without recording its result") == len(in_doubt)


@pytest.mark.parametrize("name", ["killed", "paused"])
def test_no_row_of_a_retried_merge_is_lost_or_duplicated(name: str, aftermath: Aftermath) -> None:
    """The rows whose outcome is unknown are listed, at most as many as the window; the second try sends the rest.

    A first try that is resumed finishes its committed mails, and starts no others.
    """
    merge, server = aftermath.merges[name]
    rows, lines, copies = range(1, ROWS + 1), merge.report(), server.copies()
    accepted = Counter(line["row"] for line in lines if line["outcome"] == "accepted")
    in_doubt = {line["row"] for line in lines if line["outcome"] == "unknown"}
    lost = [row for row in rows if not copies[row] and row not in in_doubt]
    doubled = [row for row in rows if copies[row] > 1]
    TALLY.add(
        TOPIC,
        {
            "faults tried": server.kills,
            "sent": copies.total(),
            f"in doubt ({name})": len(in_doubt),
            "lost": len(lost),
            "doubled": len(doubled),
        },
    )
    log.info("%s: %d of %d rows in doubt.", name, len(in_doubt), ROWS)

    assert server.kills == 1
    assert merge.tries == 2, aftermath.logs[name]
    assert doubled == []
    assert lost == []
    assert set(accepted) | in_doubt == set(rows)
    assert max(accepted.values()) == 1
    assert 0 < len(in_doubt) <= merge.bound
    assert aftermath.states[name] == "failed", aftermath.logs[name]
    assert f"{ROWS} rows ({ROWS - len(in_doubt)} accepted, {len(in_doubt)} unknown)" in aftermath.logs[name]


def test_the_ledger_fits_into_postgresql(aftermath: Aftermath) -> None:
    """Unlike SQLite it limits a key to 512 characters; a value above 65,535 would be a warning."""
    key, value = aftermath.longest
    assert 0 < key <= 512
    assert 0 < value < 65535
