"""Chromium, driven like a user of Airflow's connection form: by what the form shows, not by how it is built.

It works with every Airflow from 3.1 on: the differences between their pages are handled here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Self

from playwright.sync_api import Locator, Page, expect, sync_playwright

CHROMIUM = "chromium"
# Chromium connects to the internet by itself, which a test machine may refuse; here it only reaches our Airflow.
FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
]
PATIENCE_MS = 90_000
TRIES = 4
SETTLE_MS = 700  # sections unfold and borders fade in an animation
NOTHING_CHOSEN = "Select Value"

AIRFLOW = tuple(int(number) for number in version("apache-airflow").split(".")[:2])
#: Whether a worker can be asked to test a connection.
WORKERS_TEST = AIRFLOW >= (3, 3)


@contextmanager
def open_page(url: str, *, width: int = 1280, height: int = 1000, scale: float = 1) -> Iterator[Page]:
    """Open a page in a new browser with an empty profile."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        # Chromium refuses to run a sandbox as root, which CI is; Playwright's default is without.
        browser = playwright.chromium.launch(executable_path=shutil.which(CHROMIUM), args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=scale, locale="en-GB")
        page.set_default_timeout(PATIENCE_MS)
        try:
            # Airflow signs everyone in; 3.1 then loses the page that was asked for.
            page.goto(url)
            expect(page.get_by_role("button", name="Admin")).to_be_visible()
            page.goto(url)
            yield page
        finally:
            browser.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the form shows of a field.

    Args:
        widget: `text`, `textarea`, `password`, `number`, `switch` or `drop-down`.
        help: the text below it.
        value: its content; `on` or `off` for a switch, the label of a choice; empty if there is none.
        placeholder: shown in the empty box.
        maximum: of the number box.
    """

    widget: str
    help: str
    value: str
    placeholder: str = ""
    maximum: str | None = None


class ConnectionForm:
    """The dialog *Add Connection* or *Edit Connection*, which shows one section at a time."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.dialog = page.get_by_role("dialog")

    @classmethod
    def add(cls, page: Page, conn_id: str) -> Self:
        """Open *Add Connection*, and fill in the id and our type."""
        page.get_by_role("button", name="Add Connection").click()
        form = cls(page)
        form.dialog.get_by_role("textbox", name="Connection ID").fill(conn_id)
        form._choose(form.dialog.get_by_role("combobox", name="Connection Type"), "SMTP Connection Manager")
        expect(form.dialog.get_by_role("button", name="Standard Fields")).to_be_visible()
        return form

    @classmethod
    def edit(cls, page: Page, conn_id: str) -> Self:
        """Open *Edit Connection* from the connection's row."""
        _press(page, conn_id, "Edit Connection")
        form = cls(page)
        expect(form.dialog.get_by_role("button", name="Standard Fields")).to_be_visible()
        return form

    def open(self, section: str) -> Locator:
        """Open *Standard Fields*, *Extra Fields* or *Advanced*, and return the section."""
        button = self.dialog.get_by_role("button", name=section, exact=True)
        if button.get_attribute("aria-expanded") != "true":
            button.click()
        expect(button).to_have_attribute("aria-expanded", "true")
        inside = self.dialog.get_by_role("region")
        expect(inside).to_have_count(1)  # the section that was open before has closed
        return inside

    def labels(self, section: str) -> list[str]:
        """Return the labels in this section, from top to bottom."""
        labels = self.open(section).locator("[data-scope=field][data-part=label]")
        return [text.strip() for text in labels.all_inner_texts()]

    def fill(self, label: str, value: str) -> None:
        """Type into the box with this label, and leave it."""
        box = self._field(label).locator("input:not([type=hidden]), textarea")
        box.fill(value)
        box.blur()

    def choose(self, label: str, option: str) -> None:
        """Choose from the drop-down with this label, until the form shows the choice.

        On a busy machine Airflow's form can lose a choice to a render that is under way.
        """
        for _ in range(TRIES):
            if self.read(label).value == option:
                return
            self._choose(self._field(label).get_by_role("combobox"), option)
            self._page.wait_for_timeout(SETTLE_MS)
        assert self.read(label).value == option, f"{label} does not show {option}"

    def clear(self, label: str) -> None:
        """Press the cross of the drop-down with this label."""
        self._field(label).locator("button[aria-label^=Clear]").click()
        self._page.wait_for_timeout(SETTLE_MS)

    def switch(self, label: str) -> None:
        """Toggle the switch with this label."""
        self._field(label).locator("[data-scope=switch][data-part=control]").click()

    def choices(self, label: str) -> list[str]:
        """Return the choices of the drop-down with this label."""
        box = self._field(label).get_by_role("combobox")
        box.click()
        options = self._page.get_by_role("option")
        expect(options.first).to_be_visible()
        offered = [text.strip() for text in options.all_inner_texts()]
        if _can_be_typed_into(box):
            box.blur()
        else:
            box.click()
        expect(options).to_have_count(0)
        return offered

    def read(self, label: str) -> Shown:
        """Return what is shown of the field with this label, in an open section."""
        field = self._field(label)
        words = field.locator("[data-part=helper-text]")
        help_text = words.inner_text().strip() if words.count() else ""
        box = field.locator("[role=combobox], textarea, input:not([type=hidden])").first
        if box.get_attribute("role") == "combobox":
            # The choice is not in the box: it is the last text, after that for screen readers.
            lines = [line.strip() for line in field.inner_text().splitlines()]
            shown = [line for line in lines if line and line not in (label, help_text)]
            value = shown[-1] if shown and shown[-1] != NOTHING_CHOSEN else ""
            return Shown(widget="drop-down", help=help_text, value=value)
        kind = box.get_attribute("type")
        if kind == "checkbox":
            return Shown(widget="switch", help=help_text, value="on" if box.is_checked() else "off")
        is_number = box.get_attribute("role") == "spinbutton" or kind == "number"
        is_textarea = box.evaluate("box => box.tagName") == "TEXTAREA"
        return Shown(
            widget="textarea" if is_textarea else "number" if is_number else kind or "text",
            help=help_text,
            value=box.input_value(),
            placeholder=box.get_attribute("placeholder") or "",
            maximum=box.get_attribute("aria-valuemax"),
        )

    def save(self) -> None:
        """Press *Save*, and wait for the dialog to close."""
        self.dialog.get_by_role("button", name="Save").click()
        expect(self.dialog).to_be_hidden()

    def close(self) -> None:
        """Close the dialog without saving."""
        self.dialog.get_by_role("button", name="Close").first.click()
        expect(self.dialog).to_be_hidden()

    def picture(self, *, since: str | None = None, until: str | None = None, until_field: str | None = None) -> bytes:
        """Return a PNG of the dialog, from the heading of the one section to that of the other, or to a field."""
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
        if until_field:
            field = self._field(until_field).bounding_box()
            assert field is not None
            bottom = field["y"]
        return self._page.screenshot(clip={"x": box["x"], "y": top, "width": box["width"], "height": bottom - top})

    def _top_of(self, section: str) -> float:
        box = self.dialog.get_by_role("button", name=section, exact=True).bounding_box()
        assert box is not None
        return box["y"]

    def _field(self, label: str) -> Locator:
        return self.dialog.get_by_role("group").filter(has=self._page.get_by_text(label, exact=True)).last

    def _choose(self, box: Locator, option: str) -> None:
        if _can_be_typed_into(box):
            box.fill(option)
        else:
            box.click()
        self._page.get_by_role("option", name=option, exact=True).click()


def _can_be_typed_into(drop_down: Locator) -> bool:
    """Return whether a drop-down has a search box; those of Airflow 3.1 have none."""
    return drop_down.evaluate("box => box.tagName") == "INPUT"


def row_of(page: Page, conn_id: str) -> Locator:
    """Return the connection's row in the list."""
    return page.get_by_role("row").filter(has=page.get_by_role("cell", name=conn_id, exact=True))


def _press(page: Page, conn_id: str, button: str) -> None:
    if page.get_by_role("status").count():  # a tooltip, which the mouse may have opened over the button
        page.reload()
    row_of(page, conn_id).get_by_role("button", name=button).click()


def press_test(page: Page, conn_id: str) -> str:
    """Press *Test Connection* in the connection's row; return the title and the text of the answer."""
    return answer_of_test(page, conn_id).inner_text()


def answer_of_test(page: Page, conn_id: str) -> Locator:
    """Press *Test Connection* in the connection's row, and wait for the answer.

    The mouse is moved onto the answer, which would otherwise disappear after two seconds.
    """
    _press(page, conn_id, "Test Connection")
    answers = answers_of_tests(page)
    expect(answers).to_be_visible()
    answers.hover()
    return answers


def answers_of_tests(page: Page) -> Locator:
    """Return the boxes that show the results of tests at the moment."""
    return page.get_by_role("status").filter(has_text="Test Connection")
