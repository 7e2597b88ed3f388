"""What the ledger costs a merge: with and without it, in a real Airflow with its scheduler, into two servers.

Rows from a CSV file over four connections, into Postfix's `smtp-sink`, which costs nothing, and into a Postfix that
syncs its queue to disk (needs root and `make system-packages`). The runs take turns; each is a task of its own. Printed
are medians, with the least and the most, from `execute` to its return.
"""

from __future__ import annotations

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from string import Template
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.sending import peers, servers
from demo.airflow_stack import AirflowStack
from demo.processes import LOOPBACK, ending_on_signals, free_port

RUNS = 5
ROWS = (1000, 10_000, 100_000)
CONNECTIONS = 4
DAG_ID = "measured_merge"
RUN_SECONDS = 1200

DAG_FILE = Template('''\
"""Written by a benchmark."""

import json
import time
from pathlib import Path

from airflow.sdk import DAG

from airflow_provider_smtpcm.operators.mail_merge import MailMergeOperator


class Store:
    """The task state store, with the times of its writes."""

    def __init__(self, store):
        self.store, self.writes = store, []
        self.get = store.get

    def set(self, key, value, **options):
        self._timed(lambda: self.store.set(key, value, **options))

    def delete(self, key):
        self._timed(lambda: self.store.delete(key))

    def _timed(self, write):
        began = time.perf_counter()
        write()
        self.writes.append(time.perf_counter() - began)


def memory(name):
    status = Path("/proc/self/status").read_text()
    return int(status.split(name + ":")[1].split()[0])


class MeasuredMerge(MailMergeOperator):
    def execute(self, context):
        from airflow_provider_smtpcm.smtp.transport import Transport

        asked, first, context = context["dag_run"].conf, [], dict(context)
        store = Store(context.pop("task_state_store"))
        if asked["ledger"]:
            context["task_state_store"] = store
        send = Transport.send_some

        def send_some(transport, octets):
            if not first and b"RCPT TO" in bytes(octets):
                first.append(time.perf_counter())
                Transport.send_some = send
            return send(transport, octets)

        Transport.send_some = send_some
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now the present
        before, began = memory("VmRSS"), time.perf_counter()
        result = super().execute(context)
        figures = {
            "accepted": result["counts"]["accepted"],
            "seconds": time.perf_counter() - began,
            "first_rcpt": first[0] - began,
            "kib": memory("VmHWM") - before,
            "writes": store.writes,
        }
        Path(asked["figures"]).write_text(json.dumps(figures))
        return result


with DAG($dag_id, schedule=None):
    MeasuredMerge(
        task_id="send",
        rows="{{ dag_run.conf['rows'] }}",
        smtpcm_conn_id="{{ dag_run.conf['connection'] }}",
        from_address="etl@corp.example",
        to="{{ row.email }}",
        subject="Statement {{ row.number }}",
        text="Dear {{ row.name }}, your balance is {{ row.balance }}." + " Thank you for your business." * 32,
        connections=$connections,
    )
''')


@contextmanager
def sink() -> Iterator[int]:
    """Run `smtp-sink` and return its port."""
    port = free_port()
    user = ("-u", "nobody") if os.geteuid() == 0 else ()
    process = subprocess.Popen([peers.program("smtp-sink", "postfix"), "-4", *user, f"{LOOPBACK}:{port}", "128"])
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


def write_rows(folder: Path, rows: int) -> Path:
    """Write a CSV file of so many rows."""
    path = folder / f"{rows}.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("number", "email", "name", "balance"))
        writer.writerows((n, f"row{n}@corp.example", f"Customer {n}", n * 7) for n in range(1, rows + 1))
    return path


def run_merge(airflow: AirflowStack, folder: Path, *, server: str, rows: Path, ledger: bool) -> dict[str, Any]:
    """Have the scheduler run one merge, and return its figures."""
    figures = folder / "figures.json"
    figures.unlink(missing_ok=True)
    asked = {"connection": server, "rows": str(rows), "ledger": ledger, "figures": str(figures)}
    run_id = airflow.trigger(DAG_ID, conf=asked)
    if airflow.wait_for_run(DAG_ID, run_id, timeout=RUN_SECONDS) != "success":
        sys.exit(airflow.task_logs(DAG_ID, run_id))
    result: dict[str, Any] = json.loads(figures.read_text())
    return result


def spread(values: list[float], form: str = ",.0f") -> str:
    """Return the median, with the least and the most."""
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def main(runs: int = RUNS, sizes: tuple[int, ...] = ROWS) -> None:
    """Print a line for each server, number of rows, and with and without the ledger."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as running:
        folder, dags_folder = Path(name), Path(name, "dags")
        folder.chmod(0o755)
        dags_folder.mkdir()
        source = DAG_FILE.substitute(dag_id=repr(DAG_ID), connections=CONNECTIONS)
        (dags_folder / f"{DAG_ID}.py").write_text(source)
        ports = {"smtp-sink": running.enter_context(sink())}
        try:
            ports["Postfix"] = running.enter_context(servers.postfix())(0).port
        except peers.MissingError as missing:
            print(f"Without Postfix: {missing}")
        airflow = running.enter_context(AirflowStack(dags_folder))
        connections = {
            server: {"conn_type": "smtpcm", "host": LOOPBACK, "port": port, "extra": json.dumps({"ssl_mode": "none"})}
            for server, port in ports.items()
        }
        file = folder / "connections.json"
        file.write_text(json.dumps(connections))
        airflow.cli("connections", "import", str(file))
        airflow.wait_until_healthy()
        print("| server | rows | ledger | mails/s | first RCPT, ms | memory, MiB | writes | each, ms |")
        print("|---|---|---|---|---|---|---|---|")
        for server in ports:
            for size in sizes:
                rows = write_rows(folder, size)
                taken: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
                for _ in range(runs):
                    for ledger, found in taken.items():
                        found.append(run_merge(airflow, folder, server=server, rows=rows, ledger=ledger))
                for ledger, found in taken.items():
                    print(describe(server, size, found, ledger=ledger), flush=True)


def describe(server: str, rows: int, found: list[dict[str, Any]], *, ledger: bool) -> str:
    """Return the line of these runs."""
    assert all(run["accepted"] == rows for run in found)
    cells = [
        server,
        f"{rows:,}",
        "yes" if ledger else "no",
        spread([rows / run["seconds"] for run in found]),
        spread([1000 * run["first_rcpt"] for run in found]),
        spread([run["kib"] / 1024 for run in found], ".1f"),
    ]
    writes = [len(run["writes"]) for run in found]
    each = [1000 * seconds for run in found for seconds in run["writes"]]
    cells += [spread(list(map(float, writes))), spread(each, ".1f")] if ledger else ["", ""]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    with ending_on_signals():
        main()
