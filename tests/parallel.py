"""How the tests are divided among the workers of pytest-xdist, and which of them a run leaves out.

A file's tests run in one worker, so that it starts the servers of its fixtures once. Nothing is shared between
workers: each has an Airflow home, ports and temporary folders of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytest

from tests.torture.tally import TALLY

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling
    from xdist.workermanage import WorkerController

#: Folders whose tests share an Airflow, and go to one worker.
TOGETHER = ("tests/integration/connection_form/",)
#: The longest tests start first: otherwise, at the end, one worker would still be busy with one.
LONG = (
    "tests/integration/test_celery.py",
    "tests/integration/test_release.py",
    "tests/integration/test_quick_start.py",
    "tests/integration/connection_form/",
    "tests/integration/test_demo.py",
    "tests/integration/test_alerts.py",
    "tests/integration/test_kill_in_a_merge.py",
    "tests/integration/test_kill_without_a_ledger.py",
    "tests/integration/test_import_ssis.py",
    "tests/integration/test_rendered_templates.py",
    "tests/integration/test_check.py",
    "tests/test_benchmarks.py",
    "tests/integration/test_connections_command.py",
    "tests/ssis/test_command.py",
    "tests/ssis/report/test_html_report.py",
    "tests/documents/test_commands.py",
    "tests/documents/test_python.py",
    "tests/torture/test_garbled_replies.py",
    "tests/torture/test_every_step_and_fault.py",
    "tests/torture/test_injection.py",
    "tests/torture/test_random_schedules.py",
    "tests/torture/test_interrupted_anywhere.py",
    "tests/integration/test_postfix_faults.py",
    "tests/operators/test_data_is_data.py",
    "tests/ssis/expressions/test_properties.py",
)

_LEFT_OUT = pytest.StashKey[Counter[str]]()


def scope_of(nodeid: str) -> str:
    """Return what is not divided: the file of a test, or its folder."""
    file = nodeid.partition("::")[0]
    return next((folder for folder in TOGETHER if file.startswith(folder)), file)


def rank(nodeid: str) -> int:
    """Return the place of a test's file or folder in `LONG`; those that are not in it come last."""
    scope = scope_of(nodeid)
    return LONG.index(scope) if scope in LONG else len(LONG)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_LEFT_OUT] = Counter()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: rank(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        """Hands out files and folders in the order of the tests."""

        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

    config.option.loadscopereorder = False
    return ByFile(config, log)  # type: ignore[arg-type]


# --- What each worker reports when it ends, and the summary of it.


def pytest_deselected(items: Iterable[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow"):
            item.config.stash[_LEFT_OUT][item.nodeid.partition("::")[0]] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput"):
        report = {"left out": dict(session.config.stash[_LEFT_OUT]), "tally": TALLY.counts()}
        session.config.workeroutput.update(report)  # type: ignore[attr-defined]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController, error: object) -> None:
    report = getattr(node, "workeroutput", {})
    # Each worker has collected all tests and left out the same.
    node.config.stash[_LEFT_OUT] |= Counter(report.get("left out", {}))
    for topic, counts in report.get("tally", {}).items():
        TALLY.add(topic, counts)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was tortured, and name the slow tests that were left out, with the command that runs them."""
    for line in TALLY.lines():
        terminalreporter.write_line(line)
    if left_out := config.stash[_LEFT_OUT]:
        terminalreporter.section("left out: real servers, whole Airflows, browsers", sep="-")
        for file, count in sorted(left_out.items()):
            terminalreporter.write_line(f"{file} ({count})")
        terminalreporter.write_line(f"To run these too ({left_out.total()}): make test-all")
