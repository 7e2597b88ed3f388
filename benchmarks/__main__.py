"""All benchmarks: importing the operator, signing in, importing SSIS packages, a merge in Airflow, and sending.

Ratios are of medians from one run, in which the contenders take turns. Each run of a contender is a process of its own.
Its start and its imports are not counted, its connections are, and the server's count confirms that every mail arrived.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import import_cost, import_ssis, merge_in_airflow, sign_in_cost
from benchmarks.sending import table
from benchmarks.sending.contenders import Contenders
from benchmarks.sending.measure import Course, Files, Outcome
from benchmarks.sending.peers import MissingError, plotting
from benchmarks.sending.scenarios import SCENARIOS
from benchmarks.sending.servers import Certificates
from demo.processes import ending_on_signals

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs/images/benchmark.svg"
OTHERS = ("import", "sign-in", "import-ssis", "merge-in-airflow")


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    names = [*OTHERS, *(scenario.name for scenario in SCENARIOS)]
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="one round of few mails: does everything run?")
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=f"one of {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each contender (5)")
    parser.add_argument("--write", action="store_true", help="write table and picture into the documents")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results.json", help="every figure, as JSON")
    parser.add_argument("--fetch-nothing", action="store_true", help="use only the peers that are installed already")
    asked = parser.parse_args()
    if asked.write and (asked.quick or asked.only):
        parser.error("--write takes the figures of a whole run: leave out --quick and --only")
    return asked


def run_scenarios(asked: argparse.Namespace, names: list[str]) -> list[Outcome]:
    """Run the scenarios of these names."""
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        home = Path(folder)
        certificates = Certificates.write(home)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        environment |= {
            "AIRFLOW_HOME": folder,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            "SSL_CERT_FILE": str(certificates.authorities),
        }
        with Contenders(environment, install=not asked.fetch_nothing) as contenders:
            course = Course(
                contenders=contenders,
                certificates=certificates,
                files=Files(home, quick=asked.quick),
                rounds=1 if asked.quick else asked.rounds,
                quick=asked.quick,
            )
            for scenario in SCENARIOS:
                if scenario.name in names:
                    outcome = course.run(scenario)
                    print("\n" + table.screen_table(outcome), flush=True)
                    outcomes.append(outcome)
    return outcomes


def main() -> None:
    """Run the benchmarks that the command line names; without names, all."""
    asked, began = parse_arguments(), time.monotonic()
    names = asked.only or [*OTHERS, *(scenario.name for scenario in SCENARIOS)]
    if "import" in names:
        import_cost.main(runs=1 if asked.quick else import_cost.RUNS)
    if "sign-in" in names:
        sign_in_cost.main(runs=1 if asked.quick else sign_in_cost.RUNS)
    if "import-ssis" in names:
        import_ssis.main(runs=1 if asked.quick else import_ssis.RUNS, sizes={100: 1} if asked.quick else None)
    if "merge-in-airflow" in names:
        sizes = (1000,) if asked.quick else merge_in_airflow.ROWS
        merge_in_airflow.main(runs=1 if asked.quick else asked.rounds, sizes=sizes)
    outcomes = run_scenarios(asked, names)
    if not outcomes:
        return
    results = table.as_json(outcomes, rounds=1 if asked.quick else asked.rounds)
    table.save(results, asked.results)
    print(f"\nThe servers counted every mail of these figures; every run is in {asked.results}.")
    print(f"{time.monotonic() - began:.0f} seconds.")
    if asked.write:
        write(asked.results, results)
    if any(outcome.failed for outcome in outcomes):
        sys.exit("Some failed: see FAILED above.")


def write(path: Path, results: dict[str, object]) -> None:
    """The table and the picture."""
    try:
        table.write_pages(results)
    except ValueError as error:
        print(f"{error}\nHere it is:\n\n{table.page_block(results)}")
    try:
        PICTURE.parent.mkdir(exist_ok=True)
        script = str(ROOT / "benchmarks/sending/plot.py")
        subprocess.run([plotting(), script, str(path), str(PICTURE)], check=True)
    except MissingError as missing:
        sys.exit(f"No picture: {missing}")


if __name__ == "__main__":
    with ending_on_signals():
        main()
