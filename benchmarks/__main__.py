"""All benchmarks: importing the operator, signing in, importing SSIS packages, a task, sending. `make bench` runs all.

Ratios are of medians from one run, in which the contenders take turns. Each run of a contender is a process of its own.
Its start and its imports are not counted, its connections are, and the server's count confirms that every mail arrived.
"""

from __future__ import annotations

import argparse
import compileall
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from benchmarks import airflow_task, import_cost, import_ssis, merge_in_airflow, sign_in_cost, wake_ups
from benchmarks.sending import table
from benchmarks.sending.contenders import Contenders
from benchmarks.sending.measure import Course, Files, Outcome
from benchmarks.sending.peers import MissingError, plotting
from benchmarks.sending.scenarios import SCENARIOS
from benchmarks.sending.servers import Certificates
from benchmarks.sending.single_mail import LEDGER_MERGE, SINGLE_MAIL
from demo.processes import ending_on_signals

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs/images/benchmark.svg"
OTHERS = ("import", "sign-in", "import-ssis", "airflow-task", "merge-in-airflow", "wake-ups")
ALL = (*SINGLE_MAIL, *SCENARIOS, LEDGER_MERGE)
#: The names that `--only single` stands for.
SINGLE = ("airflow-task", "wake-ups", *(scenario.name for scenario in SINGLE_MAIL))


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    names = ["single", *OTHERS, *(scenario.name for scenario in ALL)]
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="one round of few mails: does everything run?")
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each contender (5)")
    parser.add_argument("--write", action="store_true", help="write table and picture into the documents")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results.json", help="every figure, as JSON")
    parser.add_argument("--fetch-nothing", action="store_true", help="use only the peers that are installed already")
    asked = parser.parse_args()
    asked.only = asked.only and tuple(asked.only)
    if asked.write and (asked.quick or asked.only not in {None, ("single",)}):
        parser.error("--write takes the figures of a whole run, or of --only single: leave out --quick and other names")
    return asked


def run_scenarios(asked: argparse.Namespace, names: Collection[str]) -> list[Outcome]:
    """Run the scenarios of these names."""
    outcomes: list[Outcome] = []
    if not any(scenario.name in names for scenario in ALL):
        return outcomes
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        home = Path(folder)
        certificates = Certificates.write(home)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        environment |= {
            "AIRFLOW_HOME": folder,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            "SSL_CERT_FILE": str(certificates.authorities),
            "SSL_CERT_DIR": certificates.folders,
        }
        with Contenders(environment, install=not asked.fetch_nothing) as contenders:
            course = Course(
                contenders=contenders,
                certificates=certificates,
                files=Files(home, quick=asked.quick),
                rounds=1 if asked.quick else asked.rounds,
                quick=asked.quick,
            )
            for scenario in ALL:
                if scenario.name in names:
                    outcome = course.run(scenario)
                    print("\n" + table.screen_table(outcome), flush=True)
                    outcomes.append(outcome)
    return outcomes


def run_others(asked: argparse.Namespace, names: Collection[str]) -> dict[str, Any]:
    """Run the other benchmarks of these names; return the figures of those that keep theirs."""
    if "import" in names:
        import_cost.main(runs=1 if asked.quick else import_cost.RUNS)
    if "sign-in" in names:
        sign_in_cost.main(runs=1 if asked.quick else sign_in_cost.RUNS)
    if "import-ssis" in names:
        import_ssis.main(runs=1 if asked.quick else import_ssis.RUNS, sizes={100: 1} if asked.quick else None)
    figures: dict[str, Any] = {}
    if "airflow-task" in names:
        figures["airflow-task"] = airflow_task.main(runs=1 if asked.quick else airflow_task.RUNS)
    if "wake-ups" in names:
        figures["wake-ups"] = wake_ups.main(runs=1 if asked.quick else wake_ups.RUNS)
    if "merge-in-airflow" in names:
        sizes = (1000,) if asked.quick else merge_in_airflow.ROWS
        merge_in_airflow.main(runs=1 if asked.quick else asked.rounds, sizes=sizes)
    return figures


def main() -> None:
    """Run the benchmarks that the command line names; without names, all."""
    asked, began = parse_arguments(), time.monotonic()
    names = set(asked.only or [*OTHERS, *(scenario.name for scenario in ALL)])
    if "single" in names:
        names.update(SINGLE)
    # As pip does. With PYTHONDONTWRITEBYTECODE set, every process would compile the package again.
    compileall.compile_dir(ROOT / "airflow_provider_smtpcm", quiet=1)
    figures = run_others(asked, names)
    outcomes = run_scenarios(asked, names)
    if not outcomes and not figures:
        return
    results = table.as_json(outcomes, rounds=1 if asked.quick else asked.rounds) | figures
    table.save(results, asked.results)
    print(f"\nThe servers counted every mail of these figures; every run is in {asked.results}.")
    print(f"{time.monotonic() - began:.0f} seconds.")
    if asked.write and asked.only:
        table.write_page(results, single_mail_only=True)
    elif asked.write:
        write(asked.results, results)
    if any(outcome.failed for outcome in outcomes):
        sys.exit("Some failed: see FAILED above.")


def write(path: Path, results: dict[str, object]) -> None:
    """The tables and the picture."""
    try:
        table.write_page(results)
    except ValueError as error:
        print(error)
    try:
        PICTURE.parent.mkdir(exist_ok=True)
        script = str(ROOT / "benchmarks/sending/plot.py")
        subprocess.run([plotting(), script, str(path), str(PICTURE)], check=True)
    except MissingError as missing:
        sys.exit(f"No picture: {missing}")


if __name__ == "__main__":
    with ending_on_signals():
        main()
