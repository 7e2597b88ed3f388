"""The documents' pictures of Airflow's pages: taken in the browser, with a company's names instead of the test's."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

from playwright.sync_api import Locator, Page

IMAGES = Path(__file__).parents[3] / "docs/images"
MARGIN = 12
SETTLE_MS = 700  # an answer slides in

_PUT_NAMES = """names => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    while (texts.nextNode())
        for (const [ours, theirs] of Object.entries(names))
            texts.currentNode.data = texts.currentNode.data.replaceAll(ours, theirs)
}"""


def put_names(page: Page, names: Mapping[str, str]) -> None:
    """Replace this machine's names in the page with a company's."""
    page.evaluate(_PUT_NAMES, dict(names))


def picture_of_answer(page: Page, row: Locator, answer: Locator) -> bytes:
    """Return a picture of the answer of a test, and of the connection's row above it."""
    page.wait_for_timeout(SETTLE_MS)
    first, last = row.bounding_box(), answer.bounding_box()
    assert first is not None
    assert last is not None
    bottom = last["y"] + last["height"] + MARGIN
    return page.screenshot(clip={**first, "height": bottom - first["y"]})


def stacked(page: Page, *pictures: bytes) -> bytes:
    """Stack PNGs, since the form shows one section at a time."""
    images = "".join(
        f'<img style="display: block" src="data:image/png;base64,{b64encode(png).decode()}">' for png in pictures
    )
    page.set_content(f'<div style="position: absolute; top: 0; left: 0">{images}</div>')
    return page.locator("div").screenshot()
