"""The chart of the rates: one row for each client, one mark for each round-trip time. Runs where matplotlib is.

python plot.py RESULTS.json PICTURE.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

SERIES = {
    "sixteen-connections-50-ms": ("50 ms, 16 connections", "D", "#7c3aed", 6),
    "sixteen-connections-5-ms": ("5 ms, 16 connections", "s", "#d97706", -13),
    "four-connections": ("0 ms, 4 connections", "o", "#0b6e99", 6),
}
OURS = "this package"
ORDER = (
    "C pipeliner (the limit)",
    OURS,
    "smtp-source",
    "nodemailer",
    "aiosmtplib",
    "smtplib",
    "stock EmailOperator",
)
ONE = {"smtplib", "stock EmailOperator"}  # they use one connection at a time


def main() -> None:
    """Draw the chart."""
    import matplotlib as mpl  # type: ignore[import-not-found]

    mpl.use("svg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter  # type: ignore[import-not-found]

    results = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["scenarios"]
    mpl.rcParams |= {"font.family": "sans-serif", "font.size": 10, "svg.hashsalt": "benchmark", "svg.fonttype": "path"}
    figure, axes = plt.subplots(figsize=(8.4, 4.4))
    shown = [name for name in ORDER if any(name in results[s]["figures"] for s in SERIES if s in results)]
    for height, name in enumerate(reversed(shown)):
        axes.axhline(height, color="#0b6e99" if name == OURS else "#e5e7eb", alpha=0.25 if name == OURS else 1, lw=6)
    for scenario, (label, marker, colour, above) in SERIES.items():
        figures = dict(results.get(scenario, {"figures": {}})["figures"])
        if scenario == "four-connections":  # clients with one connection were measured there
            alone = results.get("one-connection", {"figures": {}})["figures"]
            figures |= {name: alone[name] for name in ONE if name in alone and name not in figures}
        points = [(figures[n]["rate"], h, figures[n]) for h, n in enumerate(reversed(shown)) if n in figures]
        rates, heights = [rate for rate, _, _ in points], [height for _, height, _ in points]
        spread = [
            [found["rate"] - found["slowest"] for *_, found in points],
            [found["fastest"] - found["rate"] for *_, found in points],
        ]
        axes.errorbar(rates, heights, xerr=spread, fmt=marker, color=colour, ms=7, elinewidth=1.2, label=label)
        for rate, height, _ in points:
            said = f"{rate:,.0f}" if rate >= 9.95 else f"{rate:.1f}"
            axes.annotate(said, (rate, height), (0, above), textcoords="offset points", ha="center", fontsize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_yticks(range(len(shown)), [f"{n}, 1 connection" if n in ONE else n for n in reversed(shown)])
    axes.get_yticklabels()[len(shown) - 1 - shown.index(OURS)].set_fontweight("bold")
    axes.set_ylim(-0.6, len(shown) - 0.3)
    axes.set_xlabel("mails of 1 KiB a second, median and range (log)")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e5e7eb", lw=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3, frameon=False, handletextpad=0.2)
    figure.tight_layout()
    figure.savefig(sys.argv[2], metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    main()
