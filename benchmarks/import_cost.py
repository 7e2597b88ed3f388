"""What a DAG file pays for importing the operator, after airflow.sdk; beside what people import instead.

Every DAG parse is a fresh process. CPU time (`time.process_time`) and resident memory around the import alone, median
of 20 fresh processes each, contenders in turn.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile

RUNS = 20
CONTENDERS = {
    "SendMailOperator": "import airflow_provider_smtpcm.operators.send_mail",
    "stock EmailOperator": "import airflow.providers.smtp.operators.smtp",
    "spnego": "import spnego",
    "smtplib, email, ssl": "import smtplib, ssl, email.message",
}
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


def main() -> None:
    """Print one row for each contender."""
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        for _ in range(RUNS):
            for name, statement in CONTENDERS.items():
                run = subprocess.run(
                    [sys.executable, "-c", MEASURE.format(statement=statement)],
                    capture_output=True,
                    check=True,
                    env=environment,
                )
                figures[name].append(tuple(json.loads(run.stdout.splitlines()[-1])))
    mine = statistics.median(cpu for cpu, _ in figures["SendMailOperator"])
    print(f"| import after airflow.sdk | CPU ms (median of {RUNS}) | MiB | CPU x ours |")
    print("|---|---|---|---|")
    for name, runs in figures.items():
        cpu = statistics.median(cpu for cpu, _ in runs)
        memory = statistics.median(memory for _, memory in runs)
        print(f"| {name} | {cpu * 1000:.1f} | {memory / 2**20:.2f} | {cpu / mine:.1f} |")


if __name__ == "__main__":
    main()
