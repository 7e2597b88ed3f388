"""What a user sees: one task in a real Airflow (LocalExecutor, SQLite), from queued to success; and a large merge.

The tasks take turns. A merge is run with the task state store of Airflow 3.3, in which the ledger is, and without. Its
memory is that of the task process over what it was when `execute` began.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.sending.servers import CountError, Server, smtp_sink
from demo.airflow_stack import AirflowStack
from demo.processes import LOOPBACK

RUNS, MERGE_RUNS = 5, 5
_SECONDS = 900  # limit for a run
TASKS = {"this package": "mail_by_this_package", "stock EmailOperator": "mail_by_stock"}
SMALL, LARGE = 1000, 100_000
GOAL_RATIO, GOAL_MIB = 0.7, 1
_ROOT = Path(__file__).resolve().parents[1]


def main(runs: int = RUNS) -> dict[str, dict[str, list[float]]]:
    """Print the seconds of one task; return those of every run."""
    phases = ("queued to success", "queued to start", "start to success")
    seconds: dict[str, dict[str, list[float]]] = {name: {phase: [] for phase in phases} for name in TASKS}
    with airflow(mails=(runs + 1) * len(TASKS)) as (stack, server):
        for number in range(runs + 1):
            for name, dag_id in TASKS.items():
                queued, started, ended = _run_task(stack, dag_id)
                if number:  # the first loads what an Airflow has loaded once
                    lasted = (ended - queued, started - queued, ended - started)
                    for phase, duration in zip(phases, lasted, strict=True):
                        seconds[name][phase].append(duration)
        _check(server, (runs + 1) * len(TASKS))
    print(f"| one task in Airflow, seconds, median of {runs} (min to max) | {' | '.join(phases)} |")
    print(f"|---|{'---|' * len(phases)}")
    for name, took in seconds.items():
        print(f"| {name} | {' | '.join(_spread(took[phase]) for phase in phases)} |")
    print()
    return seconds


def merge(runs: int = MERGE_RUNS, large: int = LARGE) -> dict[str, list[dict[str, Any]]]:
    """Print the figures of the merges; return those of every run."""
    dags = [f"merge_of_{rows}_{name}_store" for rows in (SMALL, LARGE) for name in ("with", "without")]
    figures: dict[str, list[dict[str, Any]]] = {dag_id: [] for dag_id in dags}
    with airflow(mails=2 * runs * (SMALL + large), sizes={SMALL: SMALL, LARGE: large}) as (stack, server):
        for _ in range(runs):
            for dag_id, found in figures.items():
                _run_task(stack, dag_id)
                found.append(json.loads(Path(os.environ["BENCHMARK_FOLDER"], f"{dag_id}.json").read_text()))
        _check(server, 2 * runs * (SMALL + large))
    titles = ("mails/s", "MiB", "state store, accesses", "ms each")
    print(f"| merge in Airflow, 4 connections, median of {runs} (min to max) | {' | '.join(titles)} |")
    print(f"|---|{'---|' * len(titles)}")
    rates = {dag_id: [run["sent"] / run["wall"] for run in found] for dag_id, found in figures.items()}
    peaks = {dag_id: [run["peak"] / 2**20 for run in found] for dag_id, found in figures.items()}
    for dag_id, found in figures.items():
        store = [second * 1000 for run in found for second in run["store"]]
        cells = (_spread(rates[dag_id], 0), _spread(peaks[dag_id]), _spread([len(run["store"]) for run in found], 0))
        print(f"| {dag_id} | {' | '.join(cells)} | {_spread(store, 1) if store else ''} |")
    small, _, many, without = dags
    ratio = statistics.median(rates[many]) / statistics.median(rates[without])
    more = statistics.median(peaks[many]) - statistics.median(peaks[small])
    print(f"  the rate with the state store to that without: {ratio:.2f}, {_goal('at least', GOAL_RATIO, ratio)}")
    print(f"  MiB of {large:,} rows over those of {SMALL:,}: {more:.2f}, {_goal('at most', GOAL_MIB, more)}\n")
    return figures


@contextmanager
def airflow(*, mails: int, sizes: Mapping[int, int] | None = None) -> Iterator[tuple[AirflowStack, Server]]:
    """Run a real Airflow, and a server that its connections lead to.

    Args:
        mails: that will be sent.
        sizes: the number of rows for each `<size>.csv`.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-airflow-")))
        os.environ["BENCHMARK_FOLDER"] = str(folder)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        for name, number in (sizes or {}).items():
            lines = (f"Customer {n},user{n}@corp.example,{n % 10000}.{n % 100:02d}\n" for n in range(number))
            (folder / f"{name}.csv").write_text("name,address,amount\n" + "".join(lines))
        server = stack.enter_context(smtp_sink(mails))
        running = stack.enter_context(AirflowStack(_ROOT / "benchmarks/airflow_dags"))
        common = {"host": LOOPBACK, "port": server.port}
        connections = folder / "connections.json"
        connections.write_text(
            json.dumps(
                {
                    "ours": {
                        **common,
                        "conn_type": "smtpcm",
                        "extra": _extra(ssl_mode="none", from_address="a@corp.example"),
                    },
                    "stock": {
                        **common,
                        "conn_type": "smtp",
                        "extra": _extra(disable_ssl=True, disable_tls=True, from_email="a@corp.example"),
                    },
                }
            )
        )
        running.cli("connections", "import", str(connections))
        running.wait_until_healthy()
        yield running, server


def _check(server: Server, mails: int) -> None:
    if server.delivered() != mails:
        raise CountError(f"{mails} mails were sent, and not as many arrived.")


def _extra(**values: object) -> str:
    return json.dumps(values)


def _run_task(stack: AirflowStack, dag_id: str) -> tuple[float, float, float]:
    """Run a DAG of one task; return when the task was queued, started, and ended."""
    run_id = stack.trigger(dag_id)
    if stack.wait_for_run(dag_id, run_id, timeout=_SECONDS) != "success":
        raise RuntimeError(f"{dag_id} failed:\n{stack.task_logs(dag_id, run_id)}")
    [task] = stack.task_instances(dag_id, run_id)
    queued, started, ended = (
        datetime.fromisoformat(task[moment]).timestamp() for moment in ("queued_when", "start_date", "end_date")
    )
    return queued, started, ended


def _spread(values: Sequence[float], digits: int = 2) -> str:
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def _goal(bound: str, goal: float, value: float) -> str:
    reached = value <= goal if bound == "at most" else value >= goal
    return f"goal {bound} {goal}: {'reached' if reached else 'NOT REACHED'}"
