"""`report.html`: one page without external resources, on which no text of a package becomes markup."""

from __future__ import annotations

import io
import os
import re
import shutil
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from airflow_provider_smtpcm.cli import main
from airflow_provider_smtpcm.ssis.model import Severity
from airflow_provider_smtpcm.ssis.report.entries import (
    PackageEntry,
    PackageStatus,
    UnreadableFile,
)
from airflow_provider_smtpcm.ssis.report.html_report import package_section, write_html_report
from tests.documents.pages import DOCS, blocks_of
from tests.integration.browser import CHROMIUM, FLAGS
from tests.integration.pictures import save_picture
from tests.integration.system_packages import skip_for_want_of
from tests.ssis.report.entries import connection, finding, package, result_of

HOSTILE = (
    "</script></style><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">&amp;'\""
)


def written(entries: list[PackageEntry], *, text: str = "mail.corp.example", interrupted: bool = False) -> str:
    """Return the page; `text` is in every place outside of the packages that can contain one of their texts."""
    to = io.StringIO()
    result = result_of(entries, connection(text))
    result.unreadable = [UnreadableFile(source=text, message=text, remedy=text)]
    result.copies = [(text, text)]
    result.left_over = [text]
    result.findings = [finding(text)]
    result.without_mail = [text]
    result.totals.interrupted = interrupted
    write_html_report(to, result, map(package_section, entries))
    return to.getvalue()


class PageContent(HTMLParser):
    """Collects the elements, attributes and texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_no_text_of_a_package_becomes_an_element() -> None:
    """In any place."""
    plain, hostile = (
        PageContent(written([package(text="x")], text="x")),
        PageContent(written([package(text=HOSTILE)], text=HOSTILE)),
    )
    assert hostile.elements == plain.elements
    assert hostile.attributes == plain.attributes
    assert HOSTILE in hostile.text


def test_no_credentials_are_on_the_page() -> None:
    """From any text."""
    text = "UserName=svc-etl;Password=hush1;"
    assert "hush1" not in written([package(text=text)], text=text)


def test_a_very_long_text_is_cut() -> None:
    """The DAG contains all of it."""
    html = written([package(text="x" * 100_000)])
    assert "(100,000 characters)" in html


def test_the_page_loads_nothing() -> None:
    """It has no external address, and a policy that forbids loading."""
    html = written([package()])
    assert re.findall(r'(?:src|href)="(?!#|data:,")', html) == []
    assert "url(" not in html
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'' in html


def test_an_interrupted_import_is_marked() -> None:
    """In the header."""
    assert "The import was interrupted" in written([], interrupted=True)
    assert "The import was interrupted" not in written([])


def test_each_property_is_shown_with_what_became_of_it() -> None:
    """The original next to the result, with the remedies."""
    seen = PageContent(written([package()])).text
    for text in (
        "Load of {{ ds }}",
        "dags/load_1.py",
        "dangling-connection-manager",
        "Name one.",
        "OnError",
        "disabled",
    ):
        assert text in seen


def test_a_finding_links_to_packages_that_have_it() -> None:
    """To the first ones; the search finds the others."""
    without = PackageEntry(
        source="/packages/quiet.dtsx",
        name="Quiet",
        status=PackageStatus.NO_MAIL,
        findings=(finding(severity=Severity.NOTE),),
    )
    html = written([without, *(package(number, text=HOSTILE if number == 1 else "Load") for number in range(1, 6))])
    table = html[html.index('<h2 id="questions">') : html.index('<h2 id="connections">')]
    targets = re.findall(r'<a href="#(package-\w+)" title="/packages/[^"]+">', table)
    assert len(targets) == 6  # three of the question, three of the note
    assert all(html.count(f'id="{target}"') == 1 for target in targets)
    assert "Quiet" not in table, "it has no section"
    assert html.count('class="package decide" id="package-') == 5
    assert "and 2 more" in table


def test_the_command_on_the_page_is_airflow_s() -> None:
    """The README says how it is called on Airflow 3.1, which has no `airflow smtpcm`."""
    html = written([package()])
    assert "<code>airflow smtpcm check CONN_ID</code>" in html
    assert "python -m" not in html


def test_many_packages_are_never_in_memory_together() -> None:
    """One section at a time."""

    class Discard(io.StringIO):
        def write(self, text: str) -> int:
            return len(text)

    text = "x" * 2_000
    tracemalloc.start()
    try:
        write_html_report(
            Discard(),
            result_of([package()]),
            (package_section(package(number, text=text)) for number in range(2_000)),
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


@contextmanager
def browser_page(
    path: Path, *, scheme: str = "light", width: int = 1280, scale: float = 1, scripts: bool = True
) -> Iterator[Page]:
    """Open the file in a browser; an error on its console fails the test."""
    if shutil.which(CHROMIUM) is None:
        skip_for_want_of(CHROMIUM)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which(CHROMIUM), args=FLAGS)
        context = browser.new_context(
            viewport={"width": width, "height": 844},
            device_scale_factor=scale,
            color_scheme=scheme,  # type: ignore[arg-type]
            java_script_enabled=scripts,
        )
        opened = context.new_page()
        errors: list[str] = []
        opened.on("console", lambda message: errors.append(message.text))
        opened.on("pageerror", lambda error: errors.append(str(error)))
        try:
            opened.goto(path.as_uri())
            yield opened
            assert errors == []
        finally:
            browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 500 packages, of which every tenth needs a decision."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    entries = [
        package(
            number,
            status=PackageStatus.CONVERTED if number % 10 else PackageStatus.DECIDE,
            text=HOSTILE if number == 7 else "Load",
        )
        for number in range(500)
    ]
    path.write_text(written(entries, text=HOSTILE), encoding="utf-8")
    return path


@pytest.mark.slow
def test_it_starts_with_the_decisions_and_finds_a_package_by_its_words(report: Path) -> None:
    """And no text of a package is executed."""
    with browser_page(report) as opened:
        visible = opened.locator(".package:visible")
        assert visible.count() == 50
        opened.get_by_text("All 500").click()
        opened.get_by_role("searchbox").fill("load 499")
        opened.get_by_text("1 shown", exact=True).wait_for()
        visible.locator("summary").click()
        visible.get_by_role("rowheader", name="Subject").wait_for()
        assert opened.title() == "SSIS import"


@pytest.mark.slow
def test_a_link_to_a_package_that_the_filter_hides_shows_it(report: Path) -> None:
    """The section is opened, whatever the filter and the search are."""
    with browser_page(report) as opened:
        opened.get_by_text("Converted 450").click()
        opened.get_by_role("searchbox").fill("nothing like it")
        opened.locator('td a[href^="#package-"]').first.click()
        opened.locator(".package[open]:visible").get_by_role("rowheader", name="Subject").wait_for()


@pytest.mark.slow
def test_its_filter_works_without_a_script(report: Path) -> None:
    """Some mail programs and policies block scripts."""
    with browser_page(report, scripts=False) as opened:
        assert opened.locator(".package:visible").count() == 50
        opened.get_by_text("Converted 450").click()
        assert opened.locator(".package:visible").count() == 450
        assert opened.get_by_role("searchbox").count() == 0


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_on_a_phone_and_in_dark_mode(report: Path, scheme: str) -> None:
    """Nothing is wider than the screen, and text and background differ enough."""
    with browser_page(report, scheme=scheme, width=390) as opened:
        opened.locator(".package:visible summary").first.click()
        assert opened.evaluate("document.documentElement.scrollWidth") == 390
        text, background = (
            sum(map(int, re.findall(r"\d+", opened.evaluate(f"getComputedStyle(document.body).{name}"))[:3]))
            for name in ("color", "backgroundColor")
        )
        assert (text > background) == (scheme == "dark")
        assert abs(text - background) > 500


if os.environ.get("SCREENSHOTS"):

    @pytest.mark.slow
    def test_the_documents_picture_of_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of the import of the package that the guide shows; its upper half, up to the connections."""
        monkeypatch.chdir(tmp_path)
        [package] = [block for block in blocks_of(DOCS / "from-ssis.md") if block.language == "xml"]
        path = Path(package.title)
        path.parent.mkdir()
        path.write_text(package.code, encoding="utf-8")
        main(["import-ssis", str(path.parent), "--out", "airflow"])
        with browser_page(tmp_path / "airflow/report.html", width=1000, scale=1.5) as opened:
            below = opened.get_by_role("heading", name="Connections").bounding_box()
            assert below is not None
            png = opened.screenshot(clip={"x": 0, "y": 0, "width": 1000, "height": below["y"]}, full_page=True)
            save_picture(opened, "import-report.png", png)
