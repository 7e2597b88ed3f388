"""An Airflow and a browser for all tests of the form, and the servers of its connections."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo.airflow_stack import AirflowStack
from tests.integration.connection_form.faults import Servers, running_servers, silent_kdc
from tests.integration.system_packages import skip_for_want_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="package")
def servers() -> Iterator[Servers]:
    """The servers of the form's connections."""
    with running_servers() as servers:
        yield servers


@pytest.fixture(scope="package")
def airflow(servers: Servers, airflow_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowStack]:
    """A real Airflow with two DAGs and no connections, whose KDC does not answer."""
    if shutil.which("chromium") is None:
        skip_for_want_of("chromium")
    dags = tmp_path_factory.mktemp("dags")
    shutil.copy(ROOT / "example_dags/windows_authentication.py", dags)
    shutil.copy(Path(__file__).with_name("tell_the_connection.py"), dags)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KRB5_CONFIG", str(silent_kdc(tmp_path_factory.mktemp("kerberos"), servers.silent)))
        with AirflowStack(dags, config={"core.test_connection": "Enabled"}, database=airflow_tables) as stack:
            stack.wait_until_healthy()
            yield stack


@pytest.fixture(scope="package")
def browser_page(airflow: AirflowStack) -> Iterator[Page]:
    """A browser for all tests."""
    from tests.integration.browser import open_page

    with open_page(f"{airflow.url}/connections", scale=1.5) as page:  # for the pictures; the tests see no difference
        yield page


@pytest.fixture
def page(browser_page: Page, airflow: AirflowStack) -> Page:
    """The list of connections, reloaded."""
    browser_page.goto(f"{airflow.url}/connections?limit=50")
    return browser_page
