"""What importing SSIS packages costs: packages a second and peak memory, for a department and for a whole company.

The tree is made from a seed (`ssis_tree`): all formats, one package in eight with mail, some of 4 MB, builds beside
their sources. Each run is the command itself, in a process of its own whose start is counted.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.ssis_tree import Tree, make_tree

RUNS = 3
SIZES = {500: 5, 6800: 20}  # packages: how many of them have 4 MB
GOAL_MIB = 100
GOAL_SECONDS = 60
_COMMAND = """
import pathlib, re, sys
from airflow_provider_smtpcm.cli import main
status = main(sys.argv[1:])
# Not getrusage, which counts what the process was forked from, too.
print(int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) // 1024)
sys.exit(status)
"""


def run(tree: Tree, out: Path) -> tuple[float, int, dict[str, int]]:
    """One import; its seconds, its peak memory in MiB, and what it counted."""
    shutil.rmtree(out, ignore_errors=True)
    words = [sys.executable, "-c", _COMMAND, "import-ssis", str(tree.folder), "--out", str(out), "--json"]
    began = time.monotonic()
    ended = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ})
    took = time.monotonic() - began
    if ended.returncode not in {0, 3}:
        sys.exit(f"The import ended with {ended.returncode}:\n{ended.stderr}")
    summary, peak = ended.stdout.splitlines()
    counts: dict[str, int] = json.loads(summary)["counts"]
    if counts["packages"] != tree.packages or counts["dags"] == 0:
        sys.exit(f"{tree.packages} packages were made, and this was counted: {counts}")
    return took, int(peak), counts


def main(runs: int = RUNS, sizes: dict[int, int] | None = None) -> None:
    """Print one row for each tree."""
    print(f"| import-ssis (median of {runs}) | MB | with mail | DAGs | seconds | packages/s | peak MiB |")
    print("|---|---|---|---|---|---|---|")
    reached = True
    for count, big in (sizes or SIZES).items():
        with tempfile.TemporaryDirectory(prefix="bench-ssis-") as folder:
            tree = make_tree(Path(folder) / "packages", count, big=big)
            took, peaks, counted = zip(*(run(tree, Path(folder) / "out") for _ in range(runs)), strict=True)
        seconds, peak, counts = statistics.median(took), max(peaks), counted[0]
        reached = reached and peak < GOAL_MIB and seconds < GOAL_SECONDS
        print(
            f"| {count:,} packages | {tree.octets / 1e6:.0f} | {tree.with_mail:,} | {counts['dags']:,} | "
            f"{seconds:.1f} | {count / seconds:.0f} | {peak} |",
            flush=True,
        )
    print(f"  goal below {GOAL_SECONDS} s and {GOAL_MIB} MiB: {'reached' if reached else 'NOT REACHED'}\n")


if __name__ == "__main__":
    main()
