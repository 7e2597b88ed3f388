"""Shared by all tests: a private Airflow home, DAGs that run in the test's process, and a report of skipped tests.

Nothing here imports Airflow at the top, which takes seconds; only the fixtures that need it do.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from tests import airflow_database, airflow_dependence, parallel
from tests.integration.system_packages import INSTALL_COMMAND

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from airflow.sdk import DAG

IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")


def _private_airflow_home() -> None:
    """Point Airflow, which is imported later, at an empty home and at none of the user's settings."""
    for name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
        del os.environ[name]
    folder = Path(tempfile.mkdtemp(prefix="airflow-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    home, dags = folder / "home", folder / "dags"  # apart, so that Airflow does not find its logs among the DAGs
    home.mkdir()
    dags.mkdir()
    os.environ |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        # A worker gives up on Airflow's own API server after 5 s, which a busy machine exceeds.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
    }


_private_airflow_home()


def pytest_addoption(parser: pytest.Parser) -> None:
    airflow_dependence.add_option(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(parallel)
    config.pluginmanager.register(airflow_dependence)
    # Nothing about an example depends on time, and no worker waits for another's database of examples.
    settings.register_profile(
        "any machine",
        settings(),
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("any machine")


@pytest.fixture(scope="session")
def airflow_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database with Airflow's tables, which a test copies and does not change."""
    return airflow_database.template(tmp_path_factory)


@pytest.fixture(scope="session")
def airflow_db(airflow_tables: Path) -> None:
    """Airflow's tables in the tests' own home, when the first test needs them."""
    airflow_database.copy_to_home(airflow_tables)


@pytest.fixture
def run_dag(airflow_db: None) -> Callable[[DAG], DagRun]:
    """Return a function that runs an in-memory DAG by `dag.test()` and returns its run."""

    def run(dag: DAG) -> DagRun:
        from airflow.dag_processing.bundles.manager import DagBundlesManager

        try:
            from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
        except ImportError:  # Airflow 3.1
            from airflow.models.dagbag import DagBag, sync_bag_to_db

        # Only a DAG that is in a bundle and serialized may run.
        DagBundlesManager().sync_bundles_to_db()
        bag = DagBag(dag_folder=os.devnull)
        bag.bag_dag(dag)
        sync_bag_to_db(bag, "dags-folder", None)
        return dag.test()

    return run


@pytest.fixture
def set_connection(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Mapping[str, Any]], None]:
    """Return a function that defines an Airflow connection for one test, as JSON in the environment."""

    def define(conn_id: str, connection: Mapping[str, Any]) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))

    return define


@pytest.fixture(autouse=True)
def _no_connection_stays_behind() -> Iterator[None]:
    """Remove connections that a test, or an example that it ran, has put into the environment."""
    yield
    for name in [name for name in os.environ if name.startswith("AIRFLOW_CONN_")]:
        del os.environ[name]


# --- Skipped tests are failures in CI, and are listed with the remedy everywhere else.


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    _fail_skipped_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    report = yield
    _fail_skipped_in_ci(report)
    return report


def _fail_skipped_in_ci(report: Any) -> None:
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"CI installs everything, so nothing may be skipped. {_reason(report)}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if not skipped:
        return
    terminalreporter.section("left out", sep="-")
    for (path, reason), count in Counter(
        (report.nodeid.partition("::")[0], _reason(report)) for report in skipped
    ).items():
        terminalreporter.write_line(f"{path} ({count}): {reason}")
    if any(INSTALL_COMMAND in _reason(report) for report in skipped):
        terminalreporter.write_line(f"To run these too: {INSTALL_COMMAND}")


def _reason(report: Any) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    return str(reason).removeprefix("Skipped: ")
