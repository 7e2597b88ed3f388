"""The default alert in a browser: it fits a wide window and a phone, in light and dark mode, without remote content."""

from __future__ import annotations

import linecache
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_smtpcm.notifications.event import read_event
from airflow_provider_smtpcm.notifications.html_page import render_page
from tests.integration.system_packages import skip_for_want_of
from tests.notifications.shapes import BASE, SHAPES, task_failed

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

PICTURE = Path(__file__).parents[2] / "docs/images/failure-alert.png"
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


def failure() -> str:
    """Return the page of a failed load, with the traceback of a DAG instead of the test's."""
    linecache.cache[DAG_FILE] = (len(DAG_CODE), None, DAG_CODE.splitlines(keepends=True), DAG_FILE)
    names: dict[str, object] = {"__name__": "warehouse_load"}
    exec(compile(DAG_CODE, DAG_FILE, "exec"), names)  # noqa: S102 - our own
    with pytest.raises(Exception, match="is locked") as caught:
        names["load_orders"]("dbo.Orders")  # type: ignore[operator]
    own_frames = caught.value.__traceback__ and caught.value.__traceback__.tb_next
    return render_page(read_event(task_failed(caught.value.with_traceback(own_frames)))).html


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
    context = SHAPES.get(shape) or task_failed(
        RuntimeError("The warehouse does not answer.\n" * 200), task_id="t" * 250
    )
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


if os.environ.get("SCREENSHOTS"):

    def test_the_documents_picture_of_a_failure(page: Page) -> None:
        """`make screenshots` writes it; it shows a company's DAG."""
        page.set_viewport_size({"width": 700, "height": 600})
        page.emulate_media(color_scheme="light")
        page.set_content(failure())
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=PICTURE, full_page=True)
