"""What a user sees: one task in a real Airflow (LocalExecutor, SQLite), from queued to success.

The tasks take turns.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from benchmarks.sending.servers import CountError, Server, smtp_sink
from demo.airflow_stack import AirflowStack
from demo.processes import LOOPBACK

RUNS = 5
_SECONDS = 900  # limit for a run
TASKS = {"this package": "mail_by_this_package", "stock EmailOperator": "mail_by_stock"}
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


@contextmanager
def airflow(*, mails: int) -> Iterator[tuple[AirflowStack, Server]]:
    """Run a real Airflow, and a server that its connections lead to.

    Args:
        mails: the number of mails that will be sent.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-airflow-")))
        os.environ["BENCHMARK_FOLDER"] = str(folder)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
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
