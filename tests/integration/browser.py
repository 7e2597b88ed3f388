"""Chromium, driven as a person would use Airflow's connection form: by what it shows, not by how it is built.

Serves every Airflow from 3.1 on: where their pages differ, this is the place that knows.
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
NOTHING_CHOSEN = "Select Value"

AIRFLOW = tuple(int(number) for number in version("apache-airflow").split(".")[:2])
#: Whether a worker can be asked to test a connection.
WORKERS_TEST = AIRFLOW >= (3, 3)


@contextmanager
def open_page(url: str, *, width: int = 1280, height: int = 1000, scale: float = 1) -> Iterator[Page]:
    """A page of a new browser with an empty profile."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        # Root, as which a CI runs, may use no sandbox; Playwright leaves it out unless told otherwise.
        browser = playwright.chromium.launch(executable_path=shutil.which(CHROMIUM), args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=scale, locale="en-GB")
        page.set_default_timeout(PATIENCE_MS)
        try:
            # Airflow signs everybody in who comes; 3.1 then forgets where he wanted to go.
            page.goto(url)
            expect(page.get_by_role("button", name="Admin")).to_be_visible()
            page.goto(url)
            yield page
        finally:
            browser.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the form shows of one field.

    Args:
        widget: `text`, `textarea`, `password`, `number`, `switch` or `drop-down`.
        help: the words below it.
        value: what is filled in; `on` or `off` of a switch, the label of a choice; empty where there is nothing.
        placeholder: what the empty box says.
        maximum: as the number box has it.
    """

    widget: str
    help: str
    value: str
    placeholder: str = ""
    maximum: str | None = None


class ConnectionForm:
    """The dialog *Add Connection* or *Edit Connection*; one section of it is open at a time."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.dialog = page.get_by_role("dialog")

    @classmethod
    def add(cls, page: Page, conn_id: str) -> Self:
        """*Add Connection*, with the id and our type filled in."""
        page.get_by_role("button", name="Add Connection").click()
        form = cls(page)
        form.dialog.get_by_role("textbox", name="Connection ID").fill(conn_id)
        form._choose(form.dialog.get_by_role("combobox", name="Connection Type"), "SMTP Connection Manager")
        expect(form.dialog.get_by_role("button", name="Standard Fields")).to_be_visible()
        return form

    @classmethod
    def edit(cls, page: Page, conn_id: str) -> Self:
        """*Edit Connection*, from the connection's row."""
        _press(page, conn_id, "Edit Connection")
        form = cls(page)
        expect(form.dialog.get_by_role("button", name="Standard Fields")).to_be_visible()
        return form

    def open(self, section: str) -> Locator:
        """Open *Standard Fields*, *Extra Fields* or *Advanced*; returns what is in it."""
        button = self.dialog.get_by_role("button", name=section, exact=True)
        if button.get_attribute("aria-expanded") != "true":
            button.click()
        expect(button).to_have_attribute("aria-expanded", "true")
        inside = self.dialog.get_by_role("region")
        expect(inside).to_have_count(1)  # the one that was open before has folded up
        return inside

    def labels(self, section: str) -> list[str]:
        """The labels in this section, from above."""
        labels = self.open(section).locator("[data-scope=field][data-part=label]")
        return [text.strip() for text in labels.all_inner_texts()]

    def fill(self, label: str, value: str) -> None:
        """Type into the box with this label, and leave it."""
        box = self._field(label).locator("input:not([type=hidden]), textarea")
        box.fill(value)
        box.blur()

    def choose(self, label: str, option: str) -> None:
        """Pick from the drop-down with this label, and again while the form does not show it.

        On a busy machine Airflow's form can lose a choice to a render that was under way, as it would a hasty person's.
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
        """Turn the switch with this label."""
        self._field(label).locator("[data-scope=switch][data-part=control]").click()

    def choices(self, label: str) -> list[str]:
        """What the drop-down with this label offers."""
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
        """The field with this label, in an open section."""
        field = self._field(label)
        words = field.locator("[data-part=helper-text]")
        help_text = words.inner_text().strip() if words.count() else ""
        box = field.locator("[role=combobox], textarea, input:not([type=hidden])").first
        if box.get_attribute("role") == "combobox":
            # What it shows is not in the box; it comes last, after what a screen reader is told.
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
        """Press *Save*; the dialog closes."""
        self.dialog.get_by_role("button", name="Save").click()
        expect(self.dialog).to_be_hidden()

    def close(self) -> None:
        """Leave it without saving."""
        self.dialog.get_by_role("button", name="Close").first.click()
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

    def _choose(self, box: Locator, option: str) -> None:
        if _can_be_typed_into(box):
            box.fill(option)
        else:
            box.click()
        self._page.get_by_role("option", name=option, exact=True).click()


def _can_be_typed_into(drop_down: Locator) -> bool:
    """To search; those of Airflow 3.1 can only be opened."""
    return drop_down.evaluate("box => box.tagName") == "INPUT"


def row_of(page: Page, conn_id: str) -> Locator:
    """The connection's row in the list."""
    return page.get_by_role("row").filter(has=page.get_by_role("cell", name=conn_id, exact=True))


def _press(page: Page, conn_id: str, button: str) -> None:
    if page.get_by_role("status").count():  # words on something earlier, which the mouse may hold over the button
        page.reload()
    row_of(page, conn_id).get_by_role("button", name=button).click()


def press_test(page: Page, conn_id: str) -> str:
    """Press *Test Connection* in the connection's row; returns the title and the text of the answer."""
    return answer_of_test(page, conn_id).inner_text()


def answer_of_test(page: Page, conn_id: str) -> Locator:
    """Press *Test Connection* in the connection's row, and wait for the answer.

    The mouse goes to it, as that of a person who wants to read it: it goes away after two seconds otherwise.
    """
    _press(page, conn_id, "Test Connection")
    answers = answers_of_tests(page)
    expect(answers).to_be_visible()
    answers.hover()
    return answers


def answers_of_tests(page: Page) -> Locator:
    """The boxes in which Airflow shows what tests said, while it shows them."""
    return page.get_by_role("status").filter(has_text="Test Connection")
