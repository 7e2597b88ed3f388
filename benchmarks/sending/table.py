"""The figures as tables: one for each scenario on the screen, one of all scenarios for the documents."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.sending.figures import Figures
from benchmarks.sending.measure import Outcome
from benchmarks.sending.scenarios import (
    CURL,
    FAST,
    HOOK,
    MSMTP,
    NODEMAILER,
    OPERATOR,
    OURS,
    PIPELINER,
    SCENARIOS,
    SOURCE,
    Scenario,
)
from benchmarks.sending.single_mail import NO_LEDGER, OURS_HOOK, SINGLE_MAIL

_ROOT = Path(__file__).resolve().parents[2]
#: The page with the comparison to Airflow's own SMTP provider.
PAGE = _ROOT / "docs/performance.md"
#: The page with all contenders, and with the tables of a single mail.
DETAILS_PAGE = _ROOT / "docs/reference/benchmarks.md"
BEGIN = "<!-- benchmark table: written from a run; `make bench ARGS=--write` measures and updates it -->\n"
END = "<!-- end of the benchmark table -->\n"
BEGIN_SINGLE_MAIL = (
    '<!-- tables of a single mail: `make bench ARGS="--only single --write"` measures and updates them -->\n'
)
END_SINGLE_MAIL = "<!-- end of the tables of a single mail -->\n"
# The contenders that have a column in the documents, by its title.
_PEERS = {"stock": (OPERATOR, HOOK), "`smtp-source`": (SOURCE,), "nodemailer": (NODEMAILER,)}
_PEERS |= {"aiosmtplib": ("aiosmtplib",), "smtplib": ("smtplib",), "C pipeliner": (PIPELINER,)}


def screen_table(outcome: Outcome) -> str:
    """Print the figures of a scenario's contenders, and which goals were reached."""
    scenario, figures = outcome.scenario, outcome.figures
    first = next(iter(figures.values()), None)
    one = scenario.units.removesuffix("/s").removesuffix("s")
    steps = next((found.steps for found in figures.values() if found.steps), {})
    rate = f"ms a {one}" if steps else scenario.units
    titles = [scenario.title, "mails a run", f"{rate} (min to max)", "ours is × its rate", f"CPU µs a {one}"]
    titles += ["MiB over its baseline", "round trips a mail"]
    titles += [f"{step}, ms (CPU)" for step in steps]
    lines = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    for label, found in figures.items():
        assert first is not None
        cells = (
            label,
            f"{outcome.runs[label][0].sent:,}",
            f"{number(found.wall * 1000)} ({number(1000 / found.fastest)} to {number(1000 / found.slowest)})"
            if steps
            else f"{number(found.rate)} ({number(found.slowest)} to {number(found.fastest)})",
            number(first.rate / found.rate),
            number(found.cpu),
            "" if found.peak is None else f"{found.peak:.1f}",
            "" if found.trips is None else f"{found.trips:.2f}",
            *("" if not found.steps else "{:.1f} ({:.1f})".format(*found.steps[step]) for step in steps),
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"| {label} | left out: {why} |" for label, why in outcome.left_out.items()]
    lines += [f"| {label} | FAILED: {why.splitlines()[-1]} |" for label, why in outcome.failed.items()]
    for goal in scenario.goals:
        value, reached = goal.verdict(figures)
        bound = f"{'at most' if goal.at_most else 'at least'} {goal.bound:g}{goal.unit}"
        said = "not measured" if value is None else "reached" if reached else "NOT REACHED"
        lines.append(f"  {goal.text}: {'' if value is None else f'{number(value)}{goal.unit}, '}goal {bound}: {said}")
    return "\n".join(lines)


def number(value: float) -> str:
    """Format a number with at least three digits and no exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    digits = 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:.{digits}f}"


def as_json(outcomes: Iterable[Outcome], *, rounds: int) -> dict[str, Any]:
    """Return the medians and every single run, for the chart and the table."""
    return {
        "rounds": rounds,
        "scenarios": {
            outcome.scenario.name: {
                "title": outcome.scenario.title,
                "figures": {label: dataclasses.asdict(found) for label, found in outcome.figures.items()},
                "runs": {label: [dataclasses.asdict(run) for run in runs] for label, runs in outcome.runs.items()},
                "left_out": outcome.left_out,
            }
            for outcome in outcomes
        },
    }


def summary_table(results: Mapping[str, Any]) -> str:
    """Return one row for each scenario: our rate, and its ratio to that of Airflow's own SMTP provider."""
    return _comparison(results, {"Airflow's SMTP provider": _PEERS["stock"]})


def page_table(results: Mapping[str, Any]) -> str:
    """Return one row for each scenario: our rate, and its ratio to those of the others."""
    return _comparison(results, _PEERS)


def _comparison(results: Mapping[str, Any], peers: Mapping[str, tuple[str, ...]]) -> str:
    rows = [
        f"| work | this package | {' | '.join(f'× {title}' for title in peers)} | memory |",
        f"|---|---|{'---|' * len(peers)}---|",
    ]
    for scenario in SCENARIOS:
        found = results["scenarios"].get(scenario.name, {"figures": {}})["figures"]
        figures = {label: Figures(**values) for label, values in found.items()}
        for title, ours in _ours(scenario, figures):
            theirs = [next((figures[who] for who in labels if who in figures), None) for labels in peers.values()]
            ratios = ["" if peer is None else number(ours.rate / peer.rate) for peer in theirs]
            peak = "" if ours.peak is None else f"{ours.peak:.1f} MiB"
            rows.append(f"| {title} | {number(ours.rate)} {scenario.units} | {' | '.join(ratios)} | {peak} |")
    return "\n".join(rows) + "\n"


def _ours(scenario: Scenario, figures: Mapping[str, Figures]) -> list[tuple[str, Figures]]:
    """Return the rows of a scenario in the documents."""
    if scenario.name == "attachment-sizes":
        sizes = {"10 MiB": "", "1 GiB": "", "1 GiB, BINARYMIME": ", BINARYMIME"}
        return [
            (f"{label.partition(',')[0]} attachment{more}", figures[label])
            for label, more in sizes.items()
            if label in figures
        ]
    rows = {OURS: "", FAST: ", extra `fast`"}
    return [(f"{scenario.title}{more}", figures[label]) for label, more in rows.items() if label in figures]


def single_mail_tables(results: Mapping[str, Any]) -> str:
    """Return the tables of a single mail: the scenarios, a task in Airflow, and a process that waits."""
    rows = [
        "| work | ms | CPU ms | × stock | CPU × stock | × curl | round trips | of stock | of curl | of msmtp |",
        f"|---|{'---|' * 9}",
    ]
    for scenario in SINGLE_MAIL:
        found = results["scenarios"].get(scenario.name, {"figures": {}})["figures"]
        figures = {label: Figures(**values) for label, values in found.items()}
        stock, curl, msmtp = figures.get(OPERATOR) or figures.get(HOOK), figures.get(CURL), figures.get(MSMTP)
        for label, more in {OURS: "", OURS_HOOK: "", NO_LEDGER: ", no state store"}.items():
            if (ours := figures.get(label)) is not None:
                cells = [f"{scenario.title}{more}", number(ours.wall * 1000), number(ours.cpu / 1000)]
                cells += ["", ""] if stock is None else [number(ours.rate / stock.rate), number(ours.cpu / stock.cpu)]
                cells += ["" if curl is None else number(ours.rate / curl.rate)]
                trips = (None if who is None else who.trips for who in (ours, stock, curl, msmtp))
                cells += ["" if many is None else f"{many:g}" for many in trips]
                rows.append(f"| {' | '.join(cells)} |")
    if task := results.get("airflow-task"):
        phases = next(iter(task.values())).keys()
        rows += ["", f"| a task in Airflow, seconds | {' | '.join(phases)} |", f"|---|{'---|' * len(phases)}"]
        rows += [f"| {who} | {' | '.join(_median(took[phase]) for phase in phases)} |" for who, took in task.items()]
    if waits := results.get("wake-ups"):
        rows += ["", "| a process that waits | wake-ups a second |", "|---|---|"]
        rows += [f"| {what} | {statistics.median(rates):g} |" for what, rates in waits.items()]
    return "\n".join(rows) + "\n"


def _median(seconds: list[float]) -> str:
    return number(statistics.median(seconds))


def write_page(results: Mapping[str, Any], *, single_mail_only: bool = False) -> None:
    """Write the tables into the pages.

    Args:
        results: see `as_json`.
        single_mail_only: whether the results are those of a single mail alone.

    Raises:
        ValueError: a page lacks a marker; no page is changed then.
    """
    blocks = [(DETAILS_PAGE, BEGIN_SINGLE_MAIL, END_SINGLE_MAIL, single_mail_tables(results))]
    if not single_mail_only:
        blocks.append((DETAILS_PAGE, BEGIN, END, page_table(results)))
        blocks.append((PAGE, BEGIN, END, summary_table(results)))
    texts = {page: page.read_text(encoding="utf-8") for page, *_ in blocks}
    for page, begin, end, block in blocks:
        if begin not in texts[page] or end not in texts[page]:
            raise ValueError(
                f"{page.relative_to(_ROOT)} has no place for the table: put back the lines {begin}{end}\n"
                f"Here it is:\n\n{block}"
            )
        before, rest = texts[page].split(begin)
        _, after = rest.split(end)
        texts[page] = f"{before}{begin}\n{block}\n{end}{after}"
    for page, text in texts.items():
        page.write_text(text, encoding="utf-8")


def save(results: Mapping[str, Any], path: Path) -> None:
    """Write the results as JSON, without those of earlier runs."""
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
