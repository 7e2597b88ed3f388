"""A merge that is killed while it runs: its DAG, the server that kills it, and the records of both."""

from __future__ import annotations

import csv
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from demo.airflow_stack import AirflowStack
from tests.smtp.server import MESSAGE, Server

CONN_ID = "merge_server"
DOMAIN = "corp.example"
RUN_SECONDS = 900

DAG_FILE = Template('''\
"""Written by a test."""

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG

from airflow_provider_smtpcm.operators.mail_merge import MailMergeOperator


def tell_who_runs_it(context):
    Path($folder, f"try-{context['ti'].try_number}.pid").write_text(str(os.getpid()))


with DAG($name, schedule=None):
    MailMergeOperator(
        task_id="send",
        rows=$rows,
        smtpcm_conn_id=$conn_id,
        from_address="etl@corp.example",
        to="{{ row.email }}",
        subject="Statement {{ row.number }}",
        text="Dear {{ row.name }}, your balance is {{ row.balance }}.",
        row_key="{{ row.number }}",
        connections=$connections,
        ledger_window=$window,
        report_file=$report,
        retries=$retries,
        retry_delay=timedelta(seconds=1),
        on_execute_callback=tell_who_runs_it,
    )
''')


@dataclass(frozen=True, slots=True, kw_only=True)
class KilledMerge:
    """A merge.

    Args:
        name: of the DAG.
        rows: their number.
        connections: of the task.
        window: the task's `ledger_window`.
        bound: the largest number of rows whose outcome may be unknown after each kill.
        moments: the numbers of the messages, over all tries, on whose arrival the task is killed.
        retries: of the task.
        folder: for its files.
    """

    name: str
    rows: int
    connections: int
    window: int | None
    bound: int
    moments: tuple[int, ...]
    retries: int
    folder: Path

    def write(self, dags_folder: Path) -> None:
        """Write its DAG, and the file of its rows."""
        self.folder.mkdir()
        with self._rows_file.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("number", "email", "name", "balance"))
            writer.writerows((n, f"row{n}@{DOMAIN}", f"Customer {n}", n * 7) for n in range(1, self.rows + 1))
        values = {
            "name": self.name,
            "folder": str(self.folder),
            "rows": str(self._rows_file),
            "conn_id": f"{CONN_ID}_{self.name}",
            "connections": self.connections,
            "window": self.window,
            "report": str(self._report_file),
            "retries": self.retries,
        }
        source = DAG_FILE.substitute({name: repr(value) for name, value in values.items()})
        (dags_folder / f"{self.name}.py").write_text(source)

    @property
    def tries(self) -> int:
        """The number of tries that have started."""
        return len(self._pids())

    def kill(self) -> None:
        """Send SIGKILL, as the out-of-memory killer does: no handler runs, nothing is saved."""
        pids = self._pids()
        with suppress(ProcessLookupError):
            os.kill(pids[max(pids)], signal.SIGKILL)

    def report(self) -> list[dict[str, Any]]:
        """Return the lines of the report, without one that a kill left incomplete."""
        lines = []
        for line in self._report_file.read_text().splitlines():
            with suppress(ValueError):
                lines.append(json.loads(line))
        return lines

    def _pids(self) -> dict[int, int]:
        """Return the process of each try."""
        files = self.folder.glob("try-*.pid")
        return {int(file.stem.removeprefix("try-")): int(file.read_text()) for file in files}

    @property
    def _rows_file(self) -> Path:
        return self.folder / "rows.csv"

    @property
    def _report_file(self) -> Path:
        return self.folder / "report.jsonl"


class KillingServer(Server):
    """Kills the sending process at the moments of the merge: the message is complete and stored, and gets no reply.

    This is the worst moment: the mail has arrived, and the sender does not learn of it.
    """

    def __init__(self, merge: KilledMerge) -> None:
        super().__init__(self._kill_in_time)
        self._merge = merge
        self._counting = threading.Lock()
        self._messages = 0
        #: How many kills there were.
        self.kills = 0

    def copies(self) -> Counter[int]:  # type: ignore[override]
        """Return how many times each row arrived."""
        return Counter(_row(address) for stored in self.stored for address in stored.recipients)

    def message_ids(self) -> dict[int, str]:
        """Return the Message-ID of each row that arrived."""
        return {_row(address): stored.message_id for stored in self.stored for address in stored.recipients}

    def _kill_in_time(self, about: str) -> None:
        if about != MESSAGE:
            return
        with self._counting:
            self._messages += 1
            if self._messages in self._merge.moments:
                self.kills += 1
                self._merge.kill()


@dataclass(frozen=True, slots=True)
class Run:
    """A running merge."""

    merge: KilledMerge
    server: KillingServer
    airflow: AirflowStack
    run_id: str

    def end(self) -> tuple[str, str]:
        """Wait for its end; return its state and the log of its last try."""
        state = self.airflow.wait_for_run(self.merge.name, self.run_id, timeout=RUN_SECONDS)
        return state, self.airflow.task_logs(self.merge.name, self.run_id)


@contextmanager
def under_way(merges: Sequence[KilledMerge], folder: Path, database: Path) -> Iterator[dict[str, Run]]:
    """Run all of them at the same time in one Airflow; yields them by name.

    Args:
        folder: an empty one.
        database: with Airflow's tables.
    """
    dags_folder = folder / "dags"
    dags_folder.mkdir()
    with ExitStack() as running:
        for merge in merges:
            merge.write(dags_folder)
        servers = [running.enter_context(KillingServer(merge)) for merge in merges]
        airflow = running.enter_context(AirflowStack(dags_folder, database=database))
        connections = {
            f"{CONN_ID}_{merge.name}": {
                "conn_type": "smtpcm",
                "host": "127.0.0.1",
                "port": server.port,
                "extra": json.dumps({"ssl_mode": "none"}),
            }
            for merge, server in zip(merges, servers, strict=True)
        }
        file = folder / "connections.json"
        file.write_text(json.dumps(connections))
        airflow.cli("connections", "import", str(file))
        airflow.wait_until_healthy()
        yield {
            merge.name: Run(merge, server, airflow, airflow.trigger(merge.name))
            for merge, server in zip(merges, servers, strict=True)
        }


def _row(address: str) -> int:
    return int(address.removeprefix("row").removesuffix(f"@{DOMAIN}"))
