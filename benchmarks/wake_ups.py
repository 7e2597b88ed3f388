"""How often a process wakes up that waits, for a mail's next try or for a reply: what Linux counts as context switches.

In the one case the server refuses the recipient for now, so the mail is tried again, later each time; in the other it
does not reply to the message. What is measured are parts of one wait.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.sending.clients.order import Order, smtpcm_environment
from tests.smtp.server import MESSAGE, Server

RUNS = 5
#: Seconds of a measurement, and from the beginning of the wait until the first one.
SECONDS, PAUSE = 0.6, 0.3
#: The wait after this try takes at least 4 s, enough for all measurements.
TRIES = 4
NEXT_TRY, REPLY = "its next try", "the reply"
WORKS = {
    f"{title}, waiting for {awaited}": (work, awaited)
    for title, work in (("One mail", "operator"), ("Merge of one row, 4 connections", "merge"))
    for awaited in (NEXT_TRY, REPLY)
}
_ROOT = Path(__file__).resolve().parents[1]
_CLIENT = """
import sys
from benchmarks.sending.clients import ours
from benchmarks.sending.clients.order import Order
ours.WORKS[sys.argv[1]](Order(work=sys.argv[1], connections=4, rows=sys.argv[2], store=0))
"""
_LIMIT = 120  # seconds for the tries


def main(runs: int = RUNS) -> dict[str, list[float]]:
    """Print the wake-ups a second; return those of every run."""
    with ThreadPoolExecutor() as threads:
        rates = dict(zip(WORKS, threads.map(lambda wait: _measure(*wait, runs), WORKS.values()), strict=True))
    print(f"| a process that waits | wake-ups a second, median of {runs} (min to max) |\n|---|---|")
    for title, found in rates.items():
        print(f"| {title} | {statistics.median(found):.1f} ({min(found):.1f} to {max(found):.1f}) |")
    reached = not any(statistics.median(found) for found in rates.values())
    print(f"  goal 0 a second: {'reached' if reached else 'NOT REACHED'}\n")
    return rates


def _measure(work: str, awaited: str, runs: int) -> list[float]:
    """Return the wake-ups a second in several parts of a wait."""
    begun, waits, over = threading.Semaphore(0), [], threading.Event()

    def decide(line: str) -> str | None:
        if line != MESSAGE if awaited == REPLY else not line.startswith("RCPT"):
            return None
        waits.append(line)
        begun.release()
        if awaited == REPLY:
            over.wait(_LIMIT)
            return None
        return "451 4.7.1 Greylisted, please try again later"

    number = 1 if awaited == REPLY else TRIES

    with Server(decide) as server, tempfile.TemporaryDirectory() as home:
        rows = Path(home) / "rows.csv"
        rows.write_text("name,address,amount\nCustomer,user@corp.example,1\n")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        environment |= {"AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        environment |= smtpcm_environment(Order(port=server.port))
        command = [sys.executable, "-c", _CLIENT, work, str(rows)]
        client = subprocess.Popen(
            command, cwd=_ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            for _ in range(number):
                if not begun.acquire(timeout=_LIMIT):
                    raise RuntimeError(f"{work}: no try within {_LIMIT} seconds")
            time.sleep(PAUSE)
            found = []
            for _ in range(runs):
                before, began = _switches(client.pid), time.monotonic()
                time.sleep(SECONDS)
                found.append((_switches(client.pid) - before) / (time.monotonic() - began))
            if client.poll() is not None:
                raise RuntimeError(f"{work}: the process ended")
            if len(waits) != number:
                raise RuntimeError(f"{work}: the next try came before the measurements were over")
            return found
        finally:
            over.set()
            client.kill()
            client.wait()


def _switches(pid: int) -> int:
    """Return how often all threads of a process have given up the processor to wait: once for each wake-up."""
    texts = (status.read_text() for status in Path(f"/proc/{pid}/task").glob("*/status"))
    return sum(
        int(line.split()[1]) for text in texts for line in text.splitlines() if line.startswith("voluntary_ctxt")
    )
