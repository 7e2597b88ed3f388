"""Chromium, driven as a person would use Airflow's connection form: by what it shows, not by how it is built."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Locator, Page, expect, sync_playwright

CHROMIUM = "chromium"
# Chromium has errands of its own on the internet, which a test machine may refuse; here it only sees our Airflow.
FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
]
PATIENCE_MS = 30_000
TRIES = 4
SETTLE_MS = 700  # sections unfold and borders fade in an animation


@contextmanager
def open_page(url: str, *, width: int = 1280, height: int = 1000, scale: float = 1) -> Iterator[Page]:
    """A page of a new browser with an empty profile."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        # Root, as which a CI runs, may use no sandbox; Playwright leaves it out unless told otherwise.
        browser = playwright.chromium.launch(executable_path=shutil.which(CHROMIUM), args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=scale, locale="en-GB")
        page.set_default_timeout(PATIENCE_MS)
        page.goto(url)
        try:
            yield page
        finally:
            browser.close()


class ConnectionForm:
    """The dialog *Add Connection* for a connection of our type; one section of it is open at a time."""

    def __init__(self, page: Page, conn_id: str) -> None:
        page.get_by_role("button", name="Add Connection").click()
        self._page = page
        self.dialog = page.get_by_role("dialog")
        self.dialog.get_by_role("textbox", name="Connection ID").fill(conn_id)
        self._choose("Connection Type", "SMTP Connection Manager")
        expect(self.dialog.get_by_role("button", name="Standard Fields")).to_be_visible()

    def open(self, section: str) -> None:
        """Open *Standard Fields*, *Extra Fields* or *Advanced*."""
        button = self.dialog.get_by_role("button", name=section, exact=True)
        if button.get_attribute("aria-expanded") != "true":
            button.click()
        expect(button).to_have_attribute("aria-expanded", "true")

    def fill(self, label: str, value: str) -> None:
        """Type into the box with this label."""
        self._field(label).locator("input:not([type=hidden]), textarea").fill(value)

    def choose(self, label: str, option: str) -> None:
        """Pick from the drop-down with this label, and again while the form does not show it.

        On a busy machine Airflow's form can lose a choice to a render that was under way, as it would a hasty person's.
        """
        for _ in range(TRIES):
            if self.shows(label, option):
                return
            self._choose(label, option)
            self._page.wait_for_timeout(SETTLE_MS)
        assert self.shows(label, option), f"{label} does not show {option}"

    def shows(self, label: str, option: str) -> bool:
        """Whether the drop-down with this label shows this choice."""
        # On a line of its own: the help below may well use the same words.
        return option in map(str.strip, self._field(label).inner_text().splitlines())

    def save(self) -> None:
        """Press *Save*; the dialog closes."""
        self.dialog.get_by_role("button", name="Save").click()
        expect(self.dialog).to_be_hidden()

    def picture(self, *, since: str | None = None, until: str | None = None) -> bytes:
        """A PNG of the dialog, of what lies between the headings of these two sections."""
        self._page.evaluate(
            "document.activeElement.blur(); document.querySelectorAll('textarea').forEach(t => t.scrollTop = 0)"
        )
        self._page.add_style_tag(content="[role=dialog] { border-radius: 0 !important }")
        self._page.wait_for_timeout(SETTLE_MS)
        box = self.dialog.bounding_box()
        assert box is not None
        top, bottom = box["y"], box["y"] + box["height"]
        top = self._top_of(since) if since else top
        bottom = self._top_of(until) if until else bottom
        return self._page.screenshot(clip={"x": box["x"], "y": top, "width": box["width"], "height": bottom - top})

    def _top_of(self, section: str) -> float:
        box = self.dialog.get_by_role("button", name=section, exact=True).bounding_box()
        assert box is not None
        return box["y"]

    def _field(self, label: str) -> Locator:
        return self.dialog.get_by_role("group").filter(has=self._page.get_by_text(label, exact=True)).last

    def _choose(self, label: str, option: str) -> None:
        self.dialog.get_by_role("combobox", name=label).fill(option)
        self._page.get_by_role("option", name=option, exact=True).click()


def press_test(page: Page, conn_id: str) -> str:
    """Press *Test Connection* in the connection's row; returns the title and the text of the answer."""
    page.get_by_role("row").filter(has_text=conn_id).get_by_role("button", name="Test Connection").click()
    answer = page.get_by_role("status").filter(has_text="Test Connection")
    expect(answer).to_be_visible()
    return answer.inner_text()
