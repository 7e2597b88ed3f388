"""What a DAG file pays for importing the operator after airflow.sdk, beside other imports.

Every DAG parse is a fresh process. Medians of the CPU time (`time.process_time`) and the resident memory of the import
alone; the contenders take turns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile

RUNS = 7
CONTENDERS = {
    "SendMailOperator": "import airflow_provider_smtpcm.operators.send_mail",
    "stock EmailOperator": "import airflow.providers.smtp.operators.smtp",
    "spnego": "import spnego",
    "smtplib, email, ssl": "import smtplib, ssl, email.message",
}
GOAL_MS, GOAL_MIB = 5, 1
MEASURE = """
import json, time
from airflow.sdk import DAG, BaseHook, BaseOperator

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

before_memory, before = resident(), time.process_time()
{statement}
print(json.dumps([time.process_time() - before, resident() - before_memory]))
"""


def main(runs: int = RUNS) -> None:
    """Print one row for each contender."""
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        for _ in range(runs):
            for name, statement in CONTENDERS.items():
                run = subprocess.run(
                    [sys.executable, "-c", MEASURE.format(statement=statement)],
                    capture_output=True,
                    check=True,
                    env=environment,
                )
                figures[name].append(tuple(json.loads(run.stdout.splitlines()[-1])))
    medians = {name: [statistics.median(run[n] for run in took) for n in (0, 1)] for name, took in figures.items()}
    mine, memory = medians["SendMailOperator"]
    print(f"| import after airflow.sdk | CPU ms (median of {runs}) | MiB | CPU x ours |")
    print("|---|---|---|---|")
    for name, (cpu, octets) in medians.items():
        print(f"| {name} | {cpu * 1000:.1f} | {octets / 2**20:.2f} | {cpu / mine:.1f} |")
    reached = mine * 1000 < GOAL_MS and memory / 2**20 < GOAL_MIB
    print(f"  goal below {GOAL_MS} ms and {GOAL_MIB} MiB: {'reached' if reached else 'NOT REACHED'}\n")


if __name__ == "__main__":
    main()
