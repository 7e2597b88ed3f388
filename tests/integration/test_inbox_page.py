"""The relay's inbox in a browser: mails appear by themselves, look as in a mail program, and do no harm."""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.mail.render import render
from airflow_provider_smtpcm.notifications.event import read_event
from airflow_provider_smtpcm.notifications.html_page import render_page
from airflow_provider_smtpcm.testing import inbox as inbox_module
from airflow_provider_smtpcm.testing.inbox import Inbox
from tests.documents.pages import DOCS
from tests.integration.pictures import save_picture
from tests.integration.system_packages import skip_for_want_of
from tests.integration.test_alert_page import WEAKEST_CONTRAST, airflow_at_corp, dag_of_the_page
from tests.notifications.shapes import BASE, dag_run, task_failed
from tests.testing.test_inbox import received

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

__all__ = ["airflow_at_corp"]  # a fixture: the alert's links

QUICK_START = DOCS / "quick-start.md"
RED_DOT = b"iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAYAAACNMs+9AAAAFUlEQVR42mP8z8BQz0AEYBxVSF+FABJADveWkH6oAAAAAElFTkSuQmCC"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser."""
    if shutil.which("chromium") is None:
        skip_for_want_of("chromium")
    from playwright.sync_api import sync_playwright

    from tests.integration.browser import CHROMIUM, FLAGS

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=shutil.which(CHROMIUM), args=FLAGS)
        try:
            yield started
        finally:
            started.close()


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with Inbox() as inbox:
        yield inbox


@contextmanager
def showing(browser: Browser, url: str, *, width: int = 1200, errors: bool = False, **options: Any) -> Iterator[Page]:
    """Open a page; an error on its console fails the test, unless `errors` are part of it."""
    context = browser.new_context(viewport={"width": width, "height": 800}, locale="en-GB", **options)
    try:
        page = context.new_page()
        page.set_default_timeout(90_000)
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        page.get_by_role("status").get_by_text("mail").wait_for()
        yield page
        assert errors or complaints == []
    finally:
        context.close()


def html_mail(html: bytes, subject: bytes = b"A page", more: bytes = b"") -> bytes:
    """Return a mail with HTML, a red dot as its inline image, and an attachment."""
    return (
        b"Subject: " + subject + b"\r\n" + more + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: text/plain\r\n\r\nThe same as text.\r\n"
        b"--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + html + b"\r\n"
        b"--b\r\nContent-Type: image/png\r\nContent-ID: <dot>\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + RED_DOT
        + b"\r\n--b\r\nContent-Type: text/html\r\n"
        b'Content-Disposition: attachment; filename="../r\xc3\xa9sum\xc3\xa9.html"\r\n\r\n'
        b"<script>document.title = 'taken'</script>\r\n--b--\r\n"
    )


def test_a_mail_appears_by_itself_and_the_newest_is_shown(browser: Browser, inbox: Inbox) -> None:
    """Until somebody chooses one, which then stays."""
    with showing(browser, inbox.url) as page:
        assert page.get_by_text("Mails appear here").is_visible()
        inbox.add(received(b"Subject: First\r\n\r\nOne."))
        page.get_by_role("heading", name="First").wait_for()
        inbox.add(received(b"Subject: Second\r\n\r\nTwo.", authenticated_as=None, mechanism=None, tls_version=None))
        page.get_by_role("heading", name="Second").wait_for()
        links = page.get_by_role("navigation").get_by_role("link")
        second, first = links.all_inner_texts()
        assert "Second" in second
        assert "anonymous, no TLS" in second
        assert "First" in first
        assert "alice@corp.example → bob@corp.example" in first
        assert r"CORP\alice (NTLM), TLSv1.3" in first
        links.nth(1).click()
        page.get_by_role("heading", name="First").wait_for()
        inbox.add(received(b"Subject: Third\r\n\r\nThree."))
        page.get_by_role("status").get_by_text("3 mails").wait_for()
        assert page.get_by_role("heading", name="First").is_visible()
        assert page.get_by_text("One.").is_visible()


def test_a_mail_is_shown_as_html_text_headers_and_source(browser: Browser, inbox: Inbox) -> None:
    """With its inline image; its attachments are downloaded under safe names."""
    inbox.add(received(html_mail(b'<p style="color: #ff0000">Red</p><img src="cid:dot" width="20">')))
    with showing(browser, inbox.url) as page:
        html = page.frame_locator("iframe")
        assert html.get_by_text("Red").evaluate("e => getComputedStyle(e).color") == "rgb(255, 0, 0)"
        html.locator("img").evaluate("e => e.decode()")
        attachments = page.get_by_role("definition").filter(has=page.get_by_role("link", name="résumé.html"))
        assert attachments.locator("xpath=preceding-sibling::dt[1]").inner_text() == "Attachments"
        bullets = attachments.locator("li").evaluate_all("all => all.map(e => getComputedStyle(e).listStyleType)")
        assert set(bullets) == {"none"}  # one would stand on the text before it
        assert html.locator("img").evaluate("e => e.naturalWidth") == 10
        page.get_by_role("radio", name="Text").check()
        page.get_by_text("The same as text.").wait_for()
        page.get_by_role("radio", name="Headers").check()
        page.get_by_text("multipart/mixed; boundary=b").wait_for()
        page.get_by_role("radio", name="Source").check()
        page.get_by_text("--b--").wait_for()
        for name, content in (
            ("résumé.html", b"<script>document.title = 'taken'</script>"),
            ("Download as .eml", None),
        ):
            with page.expect_download() as downloading:
                page.get_by_role("link", name=name).click()
            saved = Path(downloading.value.path()).read_bytes()
            assert downloading.value.suggested_filename == ("0001.eml" if content is None else name)
            assert saved == content or saved.startswith(b"Subject: A page")
        assert page.title() == "Inbox (1)"


@contextmanager
def listening() -> Iterator[tuple[int, list[socket.socket]]]:
    """Another host, as it were: yields its port, and the connections to it."""
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as afterwards:
        connections: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    connections.append(afterwards.enter_context(server.accept()[0]))
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1], connections
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def received_by(connection: socket.socket) -> bytes:
    """Return what a client has sent, if it has ended or sends nothing for a second."""
    connection.settimeout(1)
    try:
        return connection.recv(1000)
    except TimeoutError:
        return b""


HOSTILE_HTML = """
<html><head><base href="//HOST/"><meta http-equiv="refresh" content="0; url=//HOST/refresh">
<meta http-equiv="Content-Security-Policy" content="default-src *">
<link rel="preconnect" href="//HOST/"><LINK rel="dns-prefetch" href="//HOST/"><link rel="prefetch" href="//HOST/a">
<link rel="stylesheet" href="//HOST/b"><style>@import "//HOST/c"; body { background: url(//HOST/d) }
@font-face { font-family: f; src: url(//HOST/e) } p { font-family: f }</style></head>
<body onload="top.document.title='taken'" background="//HOST/f"><p>Shown.</p>
<script>top.document.title='taken'</script><script src="//HOST/g"></script>
<img src=x onerror="top.document.title='taken'"><img src="//HOST/h" srcset="//HOST/i 2x"><img src="/mails/1/source">
<iframe src="//HOST/j"></iframe><object data="//HOST/k"></object><embed src="//HOST/l">
<video src="//HOST/m" poster="//HOST/n"></video>
<svg><image href="//HOST/o"/><script>top.document.title='taken'</script></svg>
<form action="//HOST/p"><button id="send" autofocus>Send</button></form>
<a id="run" href="javascript:top.document.title='taken'">Run</a> <a id="top" target="_top" href="//HOST/q">Top</a>
</body></html>
"""


@pytest.mark.parametrize("tab", ["", "mails/1/html"], ids=["in the page", "in a tab of its own"])
def test_hostile_html_runs_nothing_and_contacts_no_other_host(browser: Browser, inbox: Inbox, tab: str) -> None:
    """Nor does it leave its frame, whatever is clicked in it."""
    with listening() as (port, connections):
        html = HOSTILE_HTML.replace("HOST", f"127.0.0.1:{port}").encode()
        inbox.add(received(html_mail(html, subject=b"<img src=x onerror=\"document.title='taken'\">")))
        with showing(browser, inbox.url, errors=True) as page:
            page.get_by_role("heading", name="<img src=x").wait_for()
            if tab:
                page.goto(f"{inbox.url}{tab}", wait_until="networkidle")
            shown = page if tab else page.frame_locator("#shown iframe")
            shown.get_by_text("Shown.").wait_for()
            shown.locator("body").evaluate(
                "() => Promise.all([...document.images].map(i => i.decode().catch(() => 0)))"
            )
            assert connections == []
            title = page.title()
            for clicked in ("#send", "#run", *([] if tab else ["#top"])):
                shown.locator(clicked).click()
            assert shown.get_by_text("Shown.").is_visible()
            assert page.title() == title != "taken"
            assert page.url == f"{inbox.url}{tab}"
        # Chromium connects when a link is pressed; it asks for nothing where it does not follow it.
        assert [received_by(connection) for connection in connections] == [b""] * len(connections)
        with socket.create_connection(("127.0.0.1", port)) as other:  # which would have been seen
            other.sendall(b"GET /")
            assert received_by(other) == b""
        assert b"GET /" in map(received_by, connections)


def test_a_link_opens_in_a_tab_that_works_and_knows_nothing_of_the_inbox(browser: Browser, inbox: Inbox) -> None:
    """As the alert's link to a log: with scripts there, without a referrer, and without a way back."""
    inbox.add(received(html_mail(b'<a href="/target" rel="opener">Log</a>')))
    with showing(browser, inbox.url) as page:
        page.context.route(
            "**/target",
            lambda route: route.fulfill(
                content_type="text/html", body="<script>document.title = `${document.referrer}|${opener}`</script>"
            ),
        )
        with page.context.expect_page() as opening:
            page.frame_locator("iframe").get_by_role("link", name="Log").click()
        opening.value.wait_for_load_state()
        assert opening.value.title() == "|null"
        assert page.url == inbox.url


def test_no_text_of_a_mail_becomes_markup(browser: Browser, inbox: Inbox) -> None:
    """Wherever it is shown."""
    bad = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
    octets = bad.encode()
    content = (
        b"Subject: "
        + octets
        + b"\r\n"
        + octets
        + b": x\r\nX: "
        + octets
        + b"\r\nContent-Type: multipart/mixed; boundary=b"
        b"\r\n\r\n--b\r\n\r\n" + octets + b'\r\n--b\r\nContent-Disposition: attachment; filename="'
        b"<img src=x onerror='document.title=1'>\"\r\n\r\nx\r\n--b--\r\n"
    )
    inbox.add(received(content, mail_from=bad, recipients=(bad,), helo_name=bad, authenticated_as=bad, tls_version=bad))
    with showing(browser, inbox.url) as page:
        for view in ("Text", "Headers", "Source"):
            page.get_by_role("radio", name=view).check()
            page.locator("#shown").get_by_text(bad).first.wait_for()
        assert page.locator("img").count() == 0
        assert page.title() == "Inbox (1)"


def test_it_is_used_by_the_keyboard_alone(browser: Browser, inbox: Inbox) -> None:
    """Tab and Enter choose a mail, which gets the focus; the arrow keys choose what is shown of it."""
    inbox.add(received(b"Subject: First\r\n\r\nOne."))
    inbox.add(received(html_mail(b"<p>Two.</p>", subject=b"Second")))
    with showing(browser, inbox.url) as page:
        page.get_by_role("heading", name="Second").wait_for()
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="First").wait_for()
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Second").wait_for()
        page.wait_for_function("document.activeElement.id === 'subject'")
        for _ in range(3):  # two attachments, then the views
            page.keyboard.press("Tab")
        page.keyboard.press("ArrowRight")
        page.get_by_text("The same as text.").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1200])
def test_it_fits_its_window_and_can_be_read(browser: Browser, inbox: Inbox, width: int, scheme: Any) -> None:
    """On a phone the list and the mail are each a page, and the way back is a link. With endless words, too."""
    word = b"a-word-without-any-blank" * 30
    inbox.add(received(html_mail(b"<p>Hello.</p>", subject=word, more=b"X-" + word + b": " + word + b"\r\n")))
    inbox.add(received(b"Subject: Short\r\n\r\n" + word))
    with showing(browser, inbox.url, width=width, color_scheme=scheme) as page:
        page.get_by_role("status").get_by_text("2 mails").wait_for()
        assert page.get_by_role("main").is_visible() == (width > 320)
        page.get_by_role("navigation").get_by_role("link").nth(1).click()
        page.frame_locator("iframe").get_by_text("Hello.").wait_for()
        for view in ("HTML", "Text", "Headers", "Source"):
            page.get_by_role("radio", name=view).check()
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("document.querySelector('main').scrollWidth") <= width
            assert page.evaluate(WEAKEST_CONTRAST) >= 4.5  # WCAG 2 AA
        if width == 320:
            page.get_by_role("link", name="All mails").click()
            page.get_by_role("navigation").wait_for()
            assert not page.get_by_role("main").is_visible()
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background))) < 300) == (scheme == "dark")


def test_thousands_of_mails_leave_a_list_of_the_newest(browser: Browser, inbox: Inbox) -> None:
    """Also if they arrive while the page is open; what was dropped can no longer be opened, and says so."""
    inbox.add(received(b"Subject: First\r\n\r\n"))
    with showing(browser, f"{inbox.url}#mail-1") as page:
        page.get_by_role("heading", name="First").wait_for()
        for number in range(2, 3001):
            inbox.add(received(b"Subject: Number %d\r\n\r\n" % number))
        page.get_by_role("navigation").get_by_text("Number 3000").wait_for()
        links = page.get_by_role("navigation").get_by_role("link")
        assert links.count() == 1000
        assert "Number 3000" in links.first.inner_text()
        assert "Number 2001" in links.last.inner_text()
    with showing(browser, f"{inbox.url}#mail-1", errors=True) as page:
        page.get_by_text("The relay does not keep this mail.").wait_for()


def test_it_says_so_when_the_relay_has_stopped_and_goes_on_with_the_next_one(browser: Browser) -> None:
    """At the same address; the mails of the old relay are gone."""
    with Inbox() as inbox:
        inbox.add(received(b"Subject: Old\r\n\r\n"))
        context = browser.new_context()
        page = context.new_page()
        page.goto(inbox.url)
        page.get_by_role("heading", name="Old").wait_for()
    page.get_by_text("The relay does not answer.").wait_for()
    with Inbox(int(inbox.url.rpartition(":")[2].strip("/"))) as inbox:
        inbox.add(received(b"Subject: New\r\n\r\n"))
        page.get_by_role("heading", name="New").wait_for()
        assert page.get_by_role("status").inner_text() == "1 mail"
        assert page.get_by_role("navigation").get_by_role("link").count() == 1
        context.close()


def as_sent(mail: Mail) -> bytes:
    """Return the message as a server receives it."""
    known = mail.with_identity(message_id=f"<{'0' * 32}@corp.example>")
    return b"".join(render(known, date=datetime(2026, 11, 25, 9, 30, 52, tzinfo=UTC)))


def mails_of_the_quick_start() -> tuple[bytes, bytes]:
    """Return the mail of its first DAG, and the alert of its second, in a run that was triggered by hand."""
    dag = dag_of_the_page(QUICK_START, "first_mail")
    sent = dag.get_task("send")
    addresses: Any = {"from_address": "ETL <etl@corp.example>", "to": "operations@corp.example"}
    hello = as_sent(Mail(**addresses, subject=sent.subject, text=sent.text))
    dag = dag_of_the_page(QUICK_START, "nightly_load")
    task = dag.get_task("load")
    with pytest.raises(FileNotFoundError) as caught:
        task.python_callable()
    where = {"dag_id": dag.dag_id, "run_id": "manual__2026-11-25T09:30:40.118262+00:00"}
    start = datetime(2026, 11, 25, 9, 30, 44, tzinfo=UTC)
    failed = task_failed(
        caught.value,
        **where,
        task_id="load",
        map_index=-1,
        rendered_map_index=None,
        try_number=1,
        max_tries=0,
        start_date=start,
        end_date=start + timedelta(seconds=0.4),
        hostname="laptop",
        log_url=f"{BASE}/log",
    )
    asked = start - timedelta(seconds=4)
    run = dag_run(**where, logical_date=asked, run_after=asked, run_type="manual")
    page = render_page(read_event(failed | {"dag": dag, "task": task, "dag_run": run, "run_id": run.run_id}))
    alert = Mail(**addresses, subject=page.subject, text=page.text, html=page.html)
    return hello, as_sent(alert)


def test_an_alert_is_on_the_screen(browser: Browser, inbox: Inbox) -> None:
    """As the quick start ends: with what failed, and the link to its log."""
    _, alert = mails_of_the_quick_start()
    inbox.add(received(alert))
    with showing(browser, inbox.url) as page:
        shown = page.frame_locator("iframe")
        shown.get_by_text("orders.csv is not there").locator("visible=true").first.wait_for()
        assert shown.get_by_role("link").count() > 0


if os.environ.get("SCREENSHOTS"):

    def test_the_documents_picture_of_the_inbox(
        browser: Browser, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As the quick start ends: with its two mails."""
        hello, alert = mails_of_the_quick_start()
        for second, mail in ((5, hello), (52, alert)):
            clock = SimpleNamespace(
                now=lambda _timezone, second=second: datetime(2026, 11, 25, 9, 30, second, tzinfo=UTC)
            )
            monkeypatch.setattr(inbox_module, "datetime", clock)
            inbox.add(
                received(
                    mail, mail_from="etl@corp.example", recipients=("operations@corp.example",), helo_name="[127.0.0.1]"
                )
            )
        from tests.integration.browser import FLAGS

        # In a process of its own, a frame would be shown in the resolution of the screen, not of the picture.
        same_process = "--disable-features=IsolateSandboxedIframes"
        sharp = browser.browser_type.launch(executable_path=shutil.which("chromium"), args=[*FLAGS, same_process])
        with (
            closing(sharp),
            showing(sharp, inbox.url, width=1000, device_scale_factor=1.5, timezone_id="UTC") as page,
        ):
            page.frame_locator("iframe").get_by_text("is not there").locator("visible=true").first.wait_for()
            save_picture(page, "inbox.png", page.screenshot())
