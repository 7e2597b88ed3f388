"""The benchmarks run: one scenario with few mails and all available contenders, and the tables show its figures."""

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
from benchmarks.sending.figures import Figures, Goal, faster, memory
from benchmarks.sending.measure import Outcome
from benchmarks.sending.scenarios import OPERATOR, OURS, SCENARIOS, SOURCE
from benchmarks.sending.servers import CountError, delayed, own_sink, smtp_sink
from benchmarks.sending.single_mail import LEDGER_MERGE, SINGLE_MAIL
from tests.integration.programs import absent
from tests.integration.system_packages import skip_for_want_of

ROOT = Path(__file__).resolve().parents[1]
FIRST = SCENARIOS[0]


def make_run(seconds: float, *, sent: int = 100, peak: int | None = None) -> Run:
    """Return a run that took this long."""
    return Run(sent=sent, wall=seconds, cpu=seconds / 2, peak=peak)


def outcome(**runs: list[Run]) -> Outcome:
    """An outcome of the first scenario, for this package and one peer."""
    names = {"ours": OURS, "theirs": OPERATOR}
    return Outcome(FIRST, {names[name]: took for name, took in runs.items()}, {}, {}, {OURS: 1, OPERATOR: 1})


def send_mails(port: int, mails: int) -> None:
    """Send mails over one connection."""
    with smtplib.SMTP("127.0.0.1", port) as server:
        for _ in range(mails):
            server.sendmail("a@corp.example", ["b@corp.example"], "Subject: x\r\n\r\nx\r\n")


def test_a_goal_without_its_peer_is_not_measured_and_not_reached() -> None:
    """A contender was left out."""
    figures = outcome(ours=[make_run(1)]).figures
    assert faster(OURS, OPERATOR, 1).verdict(figures) == (None, False)
    assert memory(OURS, 4).verdict(figures) == (None, False)


def test_a_goal_is_a_ratio_of_medians() -> None:
    """One slow run among five changes nothing."""
    figures = outcome(
        ours=[make_run(1), make_run(1), make_run(60), make_run(1), make_run(1)],
        theirs=[make_run(10), make_run(10), make_run(1), make_run(10), make_run(10)],
    ).figures
    value, reached = faster(OURS, OPERATOR, 9.9).verdict(figures)
    assert value == pytest.approx(10)
    assert reached
    assert not faster(OURS, OPERATOR, 10.1).verdict(figures)[1]


def test_a_goal_may_be_an_upper_bound() -> None:
    """Memory, for example."""
    figures = outcome(ours=[make_run(1, peak=3 * 2**20)]).figures
    assert memory(OURS, 4).verdict(figures) == (3, True)
    assert memory(OURS, 2).verdict(figures) == (3, False)


def test_the_screen_lists_contenders_that_failed_or_were_left_out() -> None:
    """With the reason."""
    found = outcome(ours=[make_run(1)])
    found.failed[OPERATOR] = "9 of 10 arrived"
    found.left_out[SOURCE] = "apt-get install --yes postfix"
    shown = table.screen_table(found)
    assert f"| {OPERATOR} | FAILED: 9 of 10 arrived |" in shown
    assert f"| {SOURCE} | left out: apt-get install --yes postfix |" in shown
    assert "not measured" in shown


def test_the_table_is_the_same_from_json() -> None:
    """It has our rate, and its ratio to the other's."""
    results = json.loads(json.dumps(table.as_json([outcome(ours=[make_run(1)], theirs=[make_run(20)])], rounds=1)))
    rows = table.page_table(results).splitlines()
    assert f"| {FIRST.title} | 100 mails/s | 20.0 |" in rows[2]
    assert rows[2].count("|") == rows[0].count("|")
    assert table.summary_table(results).splitlines()[2] == f"| {FIRST.title} | 100 mails/s | 20.0 |  |"


def test_the_tables_are_written_between_the_markers_of_both_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the pages stays; without a marker, neither page is changed."""
    results = table.as_json([outcome(ours=[make_run(1)], theirs=[make_run(20)])], rounds=1)
    page, details = tmp_path / "performance.md", tmp_path / "benchmarks.md"
    monkeypatch.setattr(table, "_ROOT", tmp_path)
    monkeypatch.setattr(table, "PAGE", page)
    monkeypatch.setattr(table, "DETAILS_PAGE", details)
    page.write_text(f"Before\n{table.BEGIN}old\n{table.END}After\n")
    details.write_text(f"{table.BEGIN}{table.END}")
    with pytest.raises(ValueError, match=r"benchmarks\.md has no place for the table"):
        table.write_page(results)
    assert "old" in page.read_text()
    details.write_text(f"{table.BEGIN}{table.END}{table.BEGIN_SINGLE_MAIL}{table.END_SINGLE_MAIL}")
    table.write_page(results)
    assert page.read_text() == f"Before\n{table.BEGIN}\n{table.summary_table(results)}\n{table.END}After\n"
    assert table.page_table(results) in details.read_text()
    assert table.single_mail_tables(results) in details.read_text()


def test_the_tables_of_a_single_mail_show_ratios_round_trips_and_what_others_measured() -> None:
    """Twice the rate of the stock operator, at a quarter of its CPU, in one round trip less."""
    runs = {
        OURS: [Run(sent=1, wall=0.002, cpu=0.001, peak=None, turns=4)],
        OPERATOR: [Run(sent=1, wall=0.004, cpu=0.004, peak=None, turns=5)],
    }
    found = Outcome(SINGLE_MAIL[0], runs, {}, {}, {OURS: 1, OPERATOR: 1})
    results = table.as_json([found], rounds=1)
    results["airflow-task"] = {"this package": {"queued to success": [3.0, 1.0, 2.0]}}
    results["wake-ups"] = {"One mail": [0.0, 5.0, 0.0]}
    shown = table.single_mail_tables(json.loads(json.dumps(results)))
    assert f"| {SINGLE_MAIL[0].title} | 2.00 | 1.00 | 2.00 | 0.25 |  | 4 | 5 |  |  |" in shown
    assert "| this package | 2.00 |" in shown
    assert "| One mail | 0 |" in shown


def test_the_steps_of_the_work_are_medians_too() -> None:
    """In milliseconds, wall and CPU."""
    runs = [Run(sent=1, wall=1, cpu=1, peak=None, steps={"import": (n / 1000, n / 2000)}) for n in (1, 2, 9)]
    steps = Figures.of(runs, 1).steps
    assert steps is not None
    assert steps["import"] == pytest.approx((2, 1))


def test_every_goal_compares_with_a_contender_of_its_scenario() -> None:
    """Otherwise it would never be measured."""
    for scenario in (*SINGLE_MAIL, *SCENARIOS, LEDGER_MERGE):
        labels = {entry.label for entry in scenario.entries}
        figures = outcome(ours=[Run(sent=1, wall=1, cpu=1, peak=1, turns=1)]).figures[OURS]
        goals: tuple[Goal, ...] = scenario.goals
        assert all(goal.verdict(dict.fromkeys(labels, figures))[0] is not None for goal in goals), scenario.name


@pytest.mark.parametrize(("sent", "as_ordered"), [(1, False), (2, True), (3, False)])
def test_smtp_sink_confirms_a_number_of_mails(sent: int, as_ordered: bool) -> None:
    """It does not report its count; sending one mail more shows it."""
    if missing := absent(("smtp-sink",)):
        skip_for_want_of(missing)
    with smtp_sink(2) as server:
        with contextlib.suppress(smtplib.SMTPServerDisconnected):  # it leaves before the reply
            send_mails(server.port, sent)
        assert (server.delivered() == 2) is as_ordered


def test_our_sink_counts_mails_and_recipients() -> None:
    """So that no client is fast by sending half."""
    if missing := absent(("cc",)):
        skip_for_want_of(missing)
    with own_sink(mails=2, recipients=1) as server:
        send_mails(server.port, 2)
        assert server.delivered() == 2
    with own_sink(mails=2, recipients=1) as server:
        send_mails(server.port, 1)
        with pytest.raises(CountError, match="1 recipients arrived, not 2"):
            server.delivered()


def test_the_delaying_proxy_counts_round_trips() -> None:
    """EHLO, MAIL, RCPT, DATA, the message, QUIT; and two for the TCP connection and the greeting."""
    if missing := absent(("cc",)):
        skip_for_want_of(missing)
    with own_sink(mails=1, recipients=1) as server, delayed(server.port, 20) as (port, turns):
        began = time.monotonic()
        send_mails(port, 1)
        assert time.monotonic() - began > 8 * 0.02
        assert turns() == 6
        assert server.delivered() == 1


@pytest.mark.slow
def test_a_smoke_run_prints_ratios_and_counts_every_mail(tmp_path: Path) -> None:
    """With the peers that are installed; none is fetched."""
    if missing := absent(("smtp-sink", "smtp-source", "cc", "curl", "openssl")):
        skip_for_want_of(missing)
    results = tmp_path / "results.json"
    names = ("one-connection", "merge", "operator-5-ms", "first-plain")
    options = [word for name in names for word in ("--only", name)]
    options += ["--quick", "--fetch-nothing", "--results", str(results)]
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
    assert measured["operator-5-ms"]["figures"][OURS]["trips"] > 1
    assert {"import", "construct", "render", "execute"} == measured["first-plain"]["runs"][OURS][0]["steps"].keys()
    assert all(run["sent"] == 1200 for run in measured["one-connection"]["runs"][OURS])
