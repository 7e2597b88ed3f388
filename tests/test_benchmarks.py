"""The benchmarks run: one scenario of few mails with everybody at hand, and the tables say what was measured."""

from __future__ import annotations

import contextlib
import json
import smtplib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.sending import table
from benchmarks.sending.clients.order import Run
from benchmarks.sending.figures import Goal, faster, memory
from benchmarks.sending.measure import Outcome
from benchmarks.sending.scenarios import OPERATOR, OURS, SCENARIOS, SOURCE
from benchmarks.sending.servers import CountError, delayed, own_sink, smtp_sink
from tests.integration.programs import absent
from tests.integration.system_packages import skip_for_want_of

ROOT = Path(__file__).resolve().parents[1]
FIRST = SCENARIOS[0]


def ran(seconds: float, *, sent: int = 100, peak: int | None = None) -> Run:
    """A run that took so long."""
    return Run(sent=sent, wall=seconds, cpu=seconds / 2, peak=peak)


def outcome(**runs: list[Run]) -> Outcome:
    """What came of the first scenario, with ours and theirs."""
    names = {"ours": OURS, "theirs": OPERATOR}
    return Outcome(FIRST, {names[name]: took for name, took in runs.items()}, {}, {}, {OURS: 1, OPERATOR: 1})


def post(port: int, mails: int) -> None:
    """Send so many mails over one connection."""
    with smtplib.SMTP("127.0.0.1", port) as server:
        for _ in range(mails):
            server.sendmail("a@corp.example", ["b@corp.example"], "Subject: x\r\n\r\nx\r\n")


def test_a_goal_without_its_peer_is_not_measured_and_not_reached() -> None:
    """Somebody was left out."""
    figures = outcome(ours=[ran(1)]).figures
    assert faster(OURS, OPERATOR, 1).verdict(figures) == (None, False)
    assert memory(OURS, 4).verdict(figures) == (None, False)


def test_a_goal_is_a_ratio_of_medians() -> None:
    """One slow run among five changes nothing."""
    figures = outcome(
        ours=[ran(1), ran(1), ran(60), ran(1), ran(1)], theirs=[ran(10), ran(10), ran(1), ran(10), ran(10)]
    ).figures
    value, reached = faster(OURS, OPERATOR, 9.9).verdict(figures)
    assert value == pytest.approx(10)
    assert reached
    assert not faster(OURS, OPERATOR, 10.1).verdict(figures)[1]


def test_a_goal_may_be_an_upper_bound() -> None:
    """Memory, say."""
    figures = outcome(ours=[ran(1, peak=3 * 2**20)]).figures
    assert memory(OURS, 4).verdict(figures) == (3, True)
    assert memory(OURS, 2).verdict(figures) == (3, False)


def test_the_screen_says_who_failed_and_who_was_left_out() -> None:
    """And why."""
    found = outcome(ours=[ran(1)])
    found.failed[OPERATOR] = "9 of 10 arrived"
    found.left_out[SOURCE] = "apt-get install --yes postfix"
    shown = table.screen_table(found)
    assert f"| {OPERATOR} | FAILED: 9 of 10 arrived |" in shown
    assert f"| {SOURCE} | left out: apt-get install --yes postfix |" in shown
    assert "not measured" in shown


def test_the_page_s_table_survives_the_way_through_json() -> None:
    """It has our rate, and how many times the other's it is."""
    results = json.loads(json.dumps(table.as_json([outcome(ours=[ran(1)], theirs=[ran(20)])], rounds=1)))
    rows = table.page_table(results).splitlines()
    assert f"| {FIRST.title} | 100 mails/s | 20.0 |" in rows[2]
    assert rows[2].count("|") == rows[0].count("|")


def test_every_goal_names_somebody_who_takes_part() -> None:
    """Else it would never be measured."""
    for scenario in SCENARIOS:
        labels = {entry.label for entry in scenario.entries}
        figures = outcome(ours=[Run(sent=1, wall=1, cpu=1, peak=1, turns=1)]).figures[OURS]
        goals: tuple[Goal, ...] = scenario.goals
        assert all(goal.verdict(dict.fromkeys(labels, figures))[0] is not None for goal in goals), scenario.name


@pytest.mark.parametrize(("sent", "as_ordered"), [(1, False), (2, True), (3, False)])
def test_smtp_sink_tells_whether_so_many_mails_came(sent: int, as_ordered: bool) -> None:
    """It says nothing by itself; one more mail shows it."""
    if missing := absent(("smtp-sink",)):
        skip_for_want_of(missing)
    with smtp_sink(2) as server:
        with contextlib.suppress(smtplib.SMTPServerDisconnected):  # it does not stay for more
            post(server.port, sent)
        assert (server.delivered() == 2) is as_ordered


def test_our_sink_counts_mails_and_recipients() -> None:
    """So that nobody is fast who sends half."""
    if missing := absent(("cc",)):
        skip_for_want_of(missing)
    with own_sink(mails=2, recipients=1) as server:
        post(server.port, 2)
        assert server.delivered() == 2
    with own_sink(mails=2, recipients=1) as server:
        post(server.port, 1)
        with pytest.raises(CountError, match="1 recipients arrived, not 2"):
            server.delivered()


def test_a_delayed_line_counts_how_often_the_client_waited() -> None:
    """EHLO, MAIL, RCPT, DATA, the message, QUIT; and the greeting takes two round trips, as with any TCP."""
    if missing := absent(("cc",)):
        skip_for_want_of(missing)
    with own_sink(mails=1, recipients=1) as server, delayed(server.port, 20) as (port, turns):
        began = time.monotonic()
        post(port, 1)
        assert time.monotonic() - began > 8 * 0.02
        assert turns() == 6
        assert server.delivered() == 1


@pytest.mark.slow
def test_a_smoke_run_prints_ratios_and_counts_every_mail(tmp_path: Path) -> None:
    """With the peers that are at hand; nothing is fetched."""
    if missing := absent(("smtp-sink", "smtp-source", "cc")):
        skip_for_want_of(missing)
    results = tmp_path / "results.json"
    options = ["--quick", "--fetch-nothing", "--only", "one-connection", "--only", "merge", "--results", str(results)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the rate, this package to stock EmailOperator: " in done.stdout
    assert "The servers counted every mail" in done.stdout
    measured = json.loads(results.read_text())["scenarios"]
    assert {"this package", "stock EmailOperator", "smtplib", "aiosmtplib", "smtp-source"} <= measured[
        "one-connection"
    ]["figures"].keys()
    assert all(run["sent"] == 1200 for run in measured["one-connection"]["runs"][OURS])
