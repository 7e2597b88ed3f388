"""The default alert in a browser: it fits a wide window and a phone, in light and dark mode, without remote content."""

from __future__ import annotations

import linecache
import os
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_smtpcm.notifications.event import read_event
from airflow_provider_smtpcm.notifications.html_page import render_page
from tests.documents.pages import DOCS, README, blocks_of
from tests.integration.pictures import save_picture
from tests.integration.system_packages import skip_for_want_of
from tests.notifications.shapes import BASE, SHAPES, dag_run, run_failed, task_failed
from tests.notifications.test_task_log import line, raised_as, write_log
from tests.operators.tasks import context

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

# A DAG on a company's worker, as it fails there.
DAG_FILE = "/opt/airflow/dags/warehouse_load.py"
DAG_CODE = """\
class LoadError(Exception): ...

def load_orders(table):
    rows = copy(table, since="2026-11-24")
    return len(rows)

def copy(table, since):
    raise LoadError(f"{table} is locked by session 4711 (sp_reindex); waited 420 s")
"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """An empty page of a browser that records its requests."""
    if shutil.which("chromium") is None:
        skip_for_want_of("chromium")
    from playwright.sync_api import sync_playwright

    from tests.integration.browser import CHROMIUM, FLAGS

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which(CHROMIUM), args=FLAGS)
        try:
            yield browser.new_page(device_scale_factor=2)
        finally:
            browser.close()


@pytest.fixture(autouse=True)
def airflow_at_corp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the web address that links begin with."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", BASE)


@pytest.fixture
def log_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Airflow's folder of task logs."""
    monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(tmp_path))
    return tmp_path


def failure(log_folder: Path) -> str:
    """Return the page of a failed load, with the traceback of a DAG in Airflow instead of the test's."""
    from airflow.providers.standard.operators.python import PythonOperator

    linecache.cache[DAG_FILE] = (len(DAG_CODE), None, DAG_CODE.splitlines(keepends=True), DAG_FILE)
    names: dict[str, object] = {"__name__": "warehouse_load"}
    exec(compile(DAG_CODE, DAG_FILE, "exec"), names)  # noqa: S102 - our own
    load_orders = PythonOperator(task_id="load_orders", python_callable=names["load_orders"], op_args=["dbo.Orders"])  # type: ignore[arg-type]
    with pytest.raises(Exception, match="is locked") as caught:
        load_orders.execute({})
    frames_of_airflow = caught.value.__traceback__ and caught.value.__traceback__.tb_next
    write_log(
        log_folder,
        line("01:02:03", "Copying dbo.Orders since 2026-11-24")
        + line("01:02:11", "120,000 rows read", logger="task.stdout")
        + line("01:05:09", "dbo.Orders is locked by session 4711 (sp_reindex)", "warning"),
    )
    return render(task_failed(caught.value.with_traceback(frames_of_airflow)))


def failed_run(log_folder: Path) -> str:
    """Return the page of a run in which three tasks failed, two of them with a log on this machine."""
    locked = [raised_as("LoadError", "dbo.Customers is locked by session 4711 (sp_reindex); waited 420 s")]
    missing = [raised_as("FileNotFoundError", "/mnt/exports/2026-11-24/orders_3.csv is not there")]
    end = "01:09:12", "Task failed with exception", "error", "task"
    write_log(log_folder, line(*end, error_detail=locked), task="load_customers", mapped="", attempt=3)
    write_log(log_folder, line(*end, error_detail=missing), task="load_files", attempt=1)
    context = run_failed(states={"load_customers": "failed", "load_files_3": "failed", "load_files_7": "failed"})
    context["dag"] = SimpleNamespace(dag_id="warehouse_load", task_ids=["load_customers", "load_files"])
    return render(context)


def dag_of_the_page(page: Path, dag_id: str) -> Any:
    """Return a DAG that a code block of a page defines, as if its file were on a company's worker."""
    from airflow.sdk.definitions._internal.contextmanager import DagContext

    [code] = [block.code for block in blocks_of(page) if block.language == "python" and f'"{dag_id}"' in block.code]
    path = f"/opt/airflow/dags/{dag_id}.py"
    linecache.cache[path] = (len(code), None, code.splitlines(keepends=True), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DagContext, "autoregistered_dags", set())
        patch.setattr(DagContext, "current_autoregister_module_name", __name__)
        exec(compile(code, path, "exec"), {"__name__": dag_id})  # noqa: S102 - our own
        [(dag, _)] = DagContext.autoregistered_dags
    return dag


def failed_files(log_folder: Path) -> str:
    """Return the page of a run of the guide's DAG whose mapped task failed three times."""
    dag = dag_of_the_page(DOCS / "alerts.md", "thousand_files")
    errors = [raised_as("FileNotFoundError", f"orders_{number}.csv is not there") for number in (1, 2, 3)]
    return failed_run_of_the_page(log_folder, dag, {f"load_{index}": error for index, error in enumerate(errors)})


def failed_mail(log_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the page of a run of the README's DAG, to whose worker the last file had not come."""
    dag = dag_of_the_page(README, "nightly_load")
    monkeypatch.setenv(
        "AIRFLOW_CONN_SMTPCM_DEFAULT",
        '{"conn_type": "smtpcm", "host": "exchange.corp.example", "extra": {"from_address": "etl@corp.example"}}',
    )
    task = dag.get_task("mail_the_report")
    task.attachments = task.attachments.rpartition("|")[2]
    with pytest.raises(Exception, match=r"\.log") as caught:
        task.execute(context(dag_id=dag.dag_id, task_id=task.task_id))
    error = raised_as(caught.type.__name__, str(caught.value))
    return failed_run_of_the_page(log_folder, dag, {task.task_id: error})


def failed_run_of_the_page(log_folder: Path, dag: Any, errors: Mapping[str, dict[str, object]]) -> str:
    """Return the page of a failed run of a DAG, with the errors of its tasks from their logs."""
    midnight = datetime(2026, 11, 25, tzinfo=UTC)
    run_id = f"{'scheduled' if dag.schedule else 'manual'}__{midnight.isoformat()}"
    for name, error in errors.items():
        task, _, index = name.rpartition("_") if name[-1].isdigit() else (name, "", "")
        text = line("00:00:04", "Task failed with exception", "error", "task", error_detail=[error])
        place = {"dag": dag.dag_id, "run": run_id, "task": task, "mapped": f"map_index={index}" if index else ""}
        write_log(log_folder, text, **place, attempt=1)
    failed = run_failed(states=dict.fromkeys(errors, "failed"))
    times = {"logical_date": midnight, "run_after": midnight, "start_date": midnight + timedelta(seconds=1)}
    ended = {"state": "failed", "end_date": midnight + timedelta(seconds=5)}
    failed |= {"dag": dag, "run_id": run_id, "dag_run": dag_run(dag_id=dag.dag_id, run_id=run_id, **times, **ended)}
    failed["ti"].dag_id, failed["ti"].run_id = dag.dag_id, run_id
    return render(failed)


def render(context: dict[str, Any]) -> str:
    """Return the HTML of an alert in Berlin."""
    return render_page(read_event(context), timezone=ZoneInfo("Europe/Berlin")).html


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_page_fits_its_window_and_can_be_read(page: Page, shape: str, width: int, scheme: str) -> None:
    """Nothing overflows, every text has enough contrast, and no other host is contacted."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_viewport_size({"width": width, "height": 600})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.set_content(render_page(read_event(SHAPES[shape]), ["a-word-without-any-blank-" * 20]).html)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(WEAKEST_CONTRAST) >= 4.5  # WCAG 2 AA
    assert asked == []


@pytest.mark.parametrize("shape", [*SHAPES, "long message"])
def test_a_phone_shows_the_button_without_scrolling(page: Page, shape: str) -> None:
    """However long the name and the message are; a phone's mail program shows about 600 pixels of a mail."""
    long_message = task_failed(RuntimeError("The warehouse does not answer.\n" * 200), task_id="t" * 250)
    context = SHAPES.get(shape, long_message)
    page.set_viewport_size({"width": 390, "height": 600})
    page.set_content(render_page(read_event(context), ["a-word-without-any-blank-" * 20]).html)
    button = page.locator("a").first
    if shape == "nothing":
        assert button.count() == 0
        return
    box = button.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] <= 600


# The lowest contrast (WCAG 2, 1.4.3) between a text and its background.
WEAKEST_CONTRAST = """() => {
  const channels = color => color.match(/[\\d.]+/g).map(Number)
  const luminance = color => channels(color).slice(0, 3)
    .map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0)
  const behind = element => {
    const color = getComputedStyle(element).backgroundColor
    return channels(color)[3] === 0 && element.parentElement ? behind(element.parentElement) : color
  }
  const contrast = element => {
    const [a, b] = [luminance(getComputedStyle(element).color), luminance(behind(element))]
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
  }
  const written = [...document.body.querySelectorAll("*")].filter(element => element.offsetHeight > 0
    && [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()))
  return Math.min(...written.map(contrast))
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["failure", "failed run"])
def test_the_longest_pages_fit_their_windows(
    page: Page, name: str, width: int, scheme: Literal["light", "dark"], log_folder: Path
) -> None:
    """With a traceback and the lines of a log, and with a list of tasks."""
    show(page, failure(log_folder) if name == "failure" else failed_run(log_folder), width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(WEAKEST_CONTRAST) >= 4.5
    text = page.inner_text("body")
    assert ("frames of Airflow left out" in text) == ("120,000 rows read" in text) == (name == "failure")
    assert ("orders_3.csv is not there" in text) == (name == "failed run")


def show(page: Page, html: str, width: int, scheme: Literal["light", "dark"]) -> None:
    """Show a mail in a window of this width."""
    page.set_viewport_size({"width": width, "height": 600})
    page.emulate_media(color_scheme=scheme)
    page.set_content(html)


if os.environ.get("SCREENSHOTS"):

    def test_the_documents_pictures_of_alerts(page: Page, log_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A failed task on a desktop, and failed runs on a phone at night."""
        show(page, failure(log_folder), 700, "light")
        save_picture(page, "failure-alert.png", page.screenshot(full_page=True))
        show(page, failed_files(log_folder), 390, "dark")
        save_picture(page, "failed-tasks-alert.png", page.locator(".card").first.screenshot())
        show(page, failed_mail(log_folder, monkeypatch), 390, "dark")
        save_picture(page, "failed-run-alert.png", page.locator(".card").first.screenshot())
