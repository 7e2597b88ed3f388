"""The site is built without a warning, and loads nothing from other hosts."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.documents.pages import DOCS, PAGES, README, ROOT, blocks_of, commands_of
from tests.integration.browser import CHROMIUM, FLAGS
from tests.integration.system_packages import skip_for_want_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as by `make docs`, in another folder."""
    folder = tmp_path_factory.mktemp("site")
    ended = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


def test_every_page_is_there_and_can_be_found(site: Path) -> None:
    """By the search, too."""
    names = {str(page.relative_to(DOCS).with_suffix(".html")) for page in PAGES if page != README}
    assert names <= {str(path.relative_to(site)) for path in site.rglob("*.html")}
    index = json.loads((site / "search/search_index.json").read_text(encoding="utf-8"))
    assert names <= {entry["location"].partition("#")[0] or "index.html" for entry in index["docs"]}


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    """No script, no style, no font, no picture."""
    loaded = []
    elsewhere = r"""["']?((?:https?:)?//[^"'>)]+)"""
    for page in site.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        loaded += re.findall(rf"<(?:script|img|iframe)[^>]+src={elsewhere}", html)
        loaded += re.findall(rf'<link[^>]+rel="?(?:stylesheet|preconnect|icon)"?[^>]+href={elsewhere}', html)
    for style in site.rglob("*.css"):
        loaded += re.findall(rf"url\({elsewhere}", style.read_text(encoding="utf-8"))
    assert loaded == []


def test_the_changelog_is_the_file_of_the_repository(site: Path) -> None:
    """Completely, and not a copy."""
    html = (site / "changelog.html").read_text(encoding="utf-8")
    sections = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sections
    for words in (*sections, "Keep a Changelog", "MailMergeOperator"):
        assert words in html
    assert "--8&lt;--" not in html


def test_the_reference_has_the_docstrings(site: Path) -> None:
    """And the signatures."""
    for name, word in {
        "hook": "send_many",
        "operators": "ledger_window",
        "notifier": "retry_for",
        "mail": "inline_images",
        "delivery": "message_id",
        "errors": "OutcomeUnknownError",
        "ssis": "read_project",
        "connection-manager": "from_connection_string",
        "testing": "wait_for_messages",
    }.items():
        assert word in (site / f"api/{name}.html").read_text(encoding="utf-8"), name


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    """The site, served on this machine."""
    if shutil.which(CHROMIUM) is None:
        skip_for_want_of(CHROMIUM)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def open_page(url: str, *, width: int = 1280) -> Iterator[Page]:
    """Open a page in a new browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which(CHROMIUM), args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": 844})
        try:
            page.goto(url)
            yield page
        finally:
            browser.close()


def test_the_button_copies_the_commands(url: str) -> None:
    """Without the prompt, and without the title."""
    with open_page(f"{url}/quick-start.html") as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.locator(".highlight").first.hover()
        page.get_by_title("Copy to clipboard").first.click()
        page.get_by_text("Copied to clipboard").wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")
    first = next(blocks_of(DOCS / "quick-start.md"))
    assert copied == "\n".join(commands_of(first))


@pytest.mark.parametrize("reached_by", ["http", "file"])
def test_the_search_finds_an_error_by_its_words(url: str, site: Path, reached_by: str) -> None:
    """And leads to the troubleshooting page; from a server, and from a folder."""
    with open_page(f"{url}/index.html" if reached_by == "http" else f"{site.as_uri()}/index.html") as page:
        box = page.get_by_role("textbox", name="Search")
        box.click()
        box.press_sequentially("does not offer STARTTLS")
        found = page.locator(".md-search-result__link[href*='troubleshooting.html']").first
        found.wait_for()
        found.click()
        page.get_by_role("heading", name="Troubleshooting").wait_for()


# The page and the tables whose content is wider than they are; a code block may be.
SCROLLING_SIDEWAYS = """() => [document.documentElement, ...document.querySelectorAll(".md-content table"),
    ...document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset__table")]
  .filter(element => element.scrollWidth > element.clientWidth)
  .map(element => (element.querySelector("thead") ?? element).textContent.trim().slice(0, 80))"""


def test_no_page_and_no_table_scrolls_sideways_on_a_phone(url: str, site: Path) -> None:
    """A block of code may; and scripts contact no other host either."""
    scrolling: list[tuple[str, list[str]]] = []
    with open_page(f"{url}/index.html", width=360) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        for path in sorted(site.rglob("*.html")):
            page.goto(f"{url}/{path.relative_to(site)}")
            assert page.locator("[data-column]").count() or not page.locator("tbody td:nth-child(3)").count(), path
            if found := page.evaluate(SCROLLING_SIDEWAYS):
                scrolling.append((path.name, found))
    assert scrolling == []
    assert [url_ for url_ in asked if not url_.startswith((url, "data:"))] == []
