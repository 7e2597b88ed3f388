"""The default page: readable for every event, whatever an exception contains."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.notifications.airflow_config import find_default_timezone
from airflow_provider_smtpcm.notifications.event import read_event
from airflow_provider_smtpcm.notifications.exception_summary import ExceptionSummary
from airflow_provider_smtpcm.notifications.failed_tasks import FailedTask
from airflow_provider_smtpcm.notifications.html_page import AlertPage, render_page
from tests.notifications.shapes import (
    BASE,
    RUN_ID,
    SHAPES,
    deadline_missed,
    raised,
    run_failed,
    task_failed,
    task_retried,
    task_succeeded,
)


def make_exception(module: str, name: str, message: str) -> Exception:
    """Return an exception of a class in another module."""
    made: Exception = type(name, (Exception,), {"__module__": module})(message)
    return made


class Reader(HTMLParser):
    """Parses a page: its visible text, its links, and whether its elements are closed."""

    VOID = frozenset({"br", "meta", "img"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.links: list[str] = []
        self.outside: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name == "href"]
        self.outside += [value or "" for name, value in attrs if name in ("src", "background")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "title"} & set(self.open):
            self.seen.append(data)

    @property
    def text(self) -> str:
        """All visible text, with single spaces."""
        return " ".join(" ".join(self.seen).replace("\u00a0", " ").split())


def in_order(text: str, *parts: str) -> bool:
    """Return whether the text contains these parts one behind the other."""
    return re.search(".*?".join(map(re.escape, parts)), text, re.DOTALL) is not None


def page(exception: BaseException, **changes: object) -> AlertPage:
    """Return the page of a failed task."""
    return render_page(read_event(task_failed(exception, **changes)))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_context_makes_a_mail_that_can_be_sent(shape: str) -> None:
    """`Mail` validates it."""
    made = render_page(read_event(SHAPES[shape]))
    mail = Mail(
        from_address="a@corp.example", to="b@corp.example", subject=made.subject, text=made.text, html=made.html
    )
    assert mail.subject == made.subject
    reader = Reader(made.html)
    assert reader.open == []
    assert reader.outside == []  # no remote images
    assert "None" not in made.text
    assert "Undefined" not in made.text


@pytest.mark.parametrize(
    ("context", "subject"),
    [
        (
            task_failed(ValueError("no such column")),
            "[Airflow] Failed: warehouse_load.load_orders [dbo.Orders], try 2 of 2 – ValueError: no such column",
        ),
        (
            task_retried(ValueError()),
            "[Airflow] Will retry: warehouse_load.load_orders [dbo.Orders], try 1 of 4 – ValueError",
        ),
        (task_succeeded(), "[Airflow] Succeeded: warehouse_load.load_orders [dbo.Orders]"),
        (
            task_failed(make_exception("sqlalchemy.exc", "OperationalError", "no route")),
            "[Airflow] Failed: warehouse_load.load_orders [dbo.Orders], try 2 of 2 – OperationalError: no route",
        ),
        (run_failed(states={"a": "failed"}), "[Airflow] Failed: warehouse_load – 1 task: a"),
        (run_failed("timed_out"), "[Airflow] Failed: warehouse_load – the run took longer than its dagrun_timeout"),
        (run_failed("success"), "[Airflow] Succeeded: warehouse_load"),
        (deadline_missed(), "[Airflow] Deadline missed: warehouse_load, due 2026-11-25 03:00:00 UTC"),
    ],
)
def test_the_subject_says_what_happened(context: dict[str, object], subject: str) -> None:
    """In a list of mails nothing else is visible."""
    assert render_page(read_event(context)).subject == subject


def test_both_bodies_say_what_where_when_and_why() -> None:
    """And link to the log."""
    made = page(raised(ValueError("no such column")))
    reader = Reader(made.html)
    for text in (" ".join(made.text.split()), reader.text):
        for fact in (
            "load_orders",
            "3 (dbo.Orders)",
            RUN_ID,
            "2 of 2",
            "2026-11-24 22:00:00 UTC",
            "2026-11-25 01:02:00 UTC",
            "7 min 12 s",
            "worker-2.corp.example",
            "ValueError: no such column",
            'load_orders("dbo.Orders")',  # a line of the traceback
        ):
            assert fact in text
    log = "/tasks/load_orders/mapped/3?try_number=2"
    assert log in made.text
    assert reader.links[0].endswith(log)


def test_both_bodies_have_the_order_in_which_a_reader_needs_them() -> None:
    """Why, the link, the facts, the traceback, the log."""
    event = replace(read_event(task_failed(raised(ValueError("no such column")))), log_tail="01:02:03 Reading orders")
    made = render_page(event)
    for text in (made.text, Reader(made.html).text):
        assert in_order(
            text,
            "ask failed",
            "warehouse_load.load_orders [dbo.Orders]",
            "ValueError: no such column",
            "Open the log",
            "The whole run",
            "2 of 2",
            "Traceback (most recent call last)",
            "Last lines of the log",
            "01:02:03 Reading orders",
        )


def test_a_long_message_is_shortened_at_the_top_and_whole_further_down() -> None:
    """A phone then shows the button without scrolling."""
    made = page(raised(ValueError(" ".join(f"word{number}" for number in range(120)))))
    for text in (made.text, Reader(made.html).text):
        assert in_order(text, "word30", "Open the log", "The whole message", "word119", "Traceback")
        assert "word119" not in text.partition("Open the log")[0]
    lines = page(raised(ValueError("\n".join(f"line {number}" for number in range(40))))).text
    assert in_order(lines, "line 3\n…\n", "Open the log", "line 39")


def failed_task(name: str, error: str | None = None, *, index: int | None = None, tried: int = 1) -> FailedTask:
    """Return a failed task with a link, whose error is known or not."""
    exception = None if error is None else ExceptionSummary(type="corp.LoadError", message=error, traceback="")
    url = f"{BASE}/dags/warehouse_load/runs/1/tasks/{name}"
    return FailedTask(
        task_id=name, map_index=index, url=url, exception=exception, try_number=None if error is None else tried
    )


def test_the_page_of_a_run_lists_each_failed_task_with_its_link_and_its_error() -> None:
    """One mail tells all."""
    tasks = (failed_task("check"), failed_task("load", "<b> is locked", index=3, tried=2))
    made = render_page(replace(read_event(run_failed()), failed=("a", "b"), failed_tasks=tasks, failed_count=5))
    reader = Reader(made.html)
    for text in (made.text, reader.text):
        assert in_order(
            text,
            "DAG run failed",
            "5 tasks failed, such as load [3]: LoadError: <b> is locked",
            "Open the run",
            "Failed tasks",
            "check",
            "load [3]",
            "(try 2)",
            "LoadError: <b> is locked",
            "and 3 more",
            "Started",
        )
    for task in tasks:
        assert task.url in reader.links
        assert f"  {task.url}\n" in made.text


def test_the_subject_of_a_run_with_one_failed_task_has_its_error() -> None:
    """As that of the task's own alert."""
    tasks = (failed_task("load", "it is locked"),)
    made = render_page(replace(read_event(run_failed()), failed=("load",), failed_tasks=tasks, failed_count=1))
    assert made.subject == "[Airflow] Failed: warehouse_load – 1 task: load – LoadError: it is locked"
    assert "1 task failed – load: LoadError: it is locked" in made.text


def test_a_run_that_took_too_long_says_so_besides_its_failed_tasks() -> None:
    """Both are reasons."""
    tasks = (failed_task("load"),)
    event = replace(read_event(run_failed("timed_out")), failed=("load",), failed_tasks=tasks, failed_count=1)
    assert "The run took longer than its dagrun_timeout; 1 task failed: load" in render_page(event).text


@pytest.mark.parametrize(
    ("zone", "shown"),
    [
        (None, "2026-11-24 22:00:00 UTC\n"),
        ("Europe/Berlin", "2026-11-24 22:00:00 UTC (23:00 CET)\n"),
        ("Asia/Kolkata", "2026-11-24 22:00:00 UTC (2026-11-25 03:30 IST)\n"),
        ("America/Sao_Paulo", "2026-11-24 22:00:00 UTC (19:00 -03)\n"),
    ],
)
def test_times_are_shown_in_another_time_zone_too(zone: str | None, shown: str) -> None:
    """With the day, if it is another there."""
    made = render_page(read_event(task_failed()), timezone=ZoneInfo(zone) if zone else None)
    assert f"Logical date: {shown}" in made.text


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("utc", None), ("Etc/UTC", None), ("no/such/zone", None), ("Europe/Berlin", "Europe/Berlin")],
)
def test_the_other_time_zone_is_airflows(setting: str, expected: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """None if that is UTC, or wrong."""
    monkeypatch.setenv("AIRFLOW__CORE__DEFAULT_TIMEZONE", setting)
    found = find_default_timezone()
    assert (None if found is None else str(found)) == expected


def test_the_system_s_time_zone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Airflow's `system`."""
    monkeypatch.setenv("AIRFLOW__CORE__DEFAULT_TIMEZONE", "system")
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        made = render_page(read_event(task_failed()), timezone=find_default_timezone())
    finally:
        monkeypatch.undo()
        time.tzset()
    assert "(2026-11-25 03:30 IST)" in made.text


@pytest.mark.parametrize(
    ("base", "is_local"), [(BASE, False), ("http://localhost:8080", True), ("http://[::1]/", True)]
)
def test_links_that_lead_to_the_reader_s_own_computer_say_so(
    base: str, is_local: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until Airflow knows its own address."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base)
    made = render_page(read_event(deadline_missed()))
    assert ("base_url" in made.text) == ("base_url" in made.html) == is_local


def test_a_message_is_never_markup_nor_a_template() -> None:
    """An exception may contain whatever a server replied."""
    made = page(raised(ValueError("<script>alert(1)</script> {{ 7*7 }} {% raise %}")))
    reader = Reader(made.html)
    assert "<script" not in made.html
    assert "<script>alert(1)</script> {{ 7*7 }} {% raise %}" in reader.text
    assert "{{ 7*7 }} {% raise %}" in made.text


def test_a_message_of_several_lines_makes_a_subject_of_one_line() -> None:
    """A line break in a header would start another header."""
    made = page(raised(ValueError("first\r\nBcc: eve@corp.example\n\u2028last\x00")))
    assert "\n" not in made.subject
    assert "first Bcc: eve@corp.example \ufffdlast\ufffd" in made.subject
    assert Mail(from_address="a@corp.example", to="b@corp.example", subject=made.subject, text=made.text).subject


def test_lone_surrogates_and_control_characters_can_be_mailed() -> None:
    """A file name that is not UTF-8 has such surrogates."""
    made = page(raised(ValueError("\udcff\x1bred\x07")))
    assert Mail(from_address="a@corp.example", to="b@corp.example", text=made.text, html=made.html).text


def test_terminal_colors_are_removed() -> None:
    """The message may be the output of a program."""
    made = page(raised(ValueError("\x1b[1;31mno such\x1b[0m column \x1b]8;;https://x.example\x07here\x1b]8;;\x1b\\")))
    assert made.subject.endswith("ValueError: no such column here")


def test_megabytes_of_message_become_a_page() -> None:
    """Some database drivers repeat the whole statement."""
    made = page(raised(ValueError("SELECT " + "x, " * 3_000_000)))
    assert len(made.subject) <= 200
    assert len(made.text) < 20_000
    assert len(made.html) < 40_000


def test_a_recursion_error_shows_the_last_lines() -> None:
    """Its traceback has a thousand frames."""

    def again(n: int) -> int:
        return again(n + 1) + 1

    try:
        again(0)
    except RecursionError as error:
        made = page(error)
    assert "RecursionError" in made.subject
    assert made.text.count("\n") < 60


def test_an_exception_whose_text_cannot_be_read_is_named() -> None:
    """By its type."""

    class Mute(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise RuntimeError

    assert "Mute: (its text cannot be read)" in page(raised(Mute())).subject


def test_the_cause_is_shown_with_the_exception() -> None:
    """It is often the real reason."""
    made = page(raised(RuntimeError("the load failed"), cause=OSError("connection reset")))
    assert "OSError: connection reset" in made.text


def test_secrets_of_airflow_s_masker_are_redacted() -> None:
    """In the message, in the traceback, and in the subject."""
    from airflow.sdk.log import mask_secret

    mask_secret("correct horse battery staple")
    made = page(raised(ValueError("Login failed, PWD=correct horse battery staple;")))
    assert "correct horse" not in made.subject + made.text + made.html
    assert "PWD=***" in made.subject


def test_no_part_of_a_truncated_secret_is_shown() -> None:
    """The masker would not recognize half of it."""
    from airflow.sdk.log import mask_secret

    secret = "correct-horse-battery-staple-" * 20
    mask_secret(secret)
    for shift in range(0, 600, 37):
        made = page(raised(ValueError(secret + "y" * (100_000 - shift))))
        assert "horse-battery" not in made.text


def test_texts_are_withheld_if_the_masker_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """No text is better than a secret."""
    import airflow.sdk.log

    monkeypatch.setattr(airflow.sdk.log, "redact", None)
    made = page(raised(ValueError("a secret")))
    assert "a secret" not in made.subject + made.text + made.html
    assert "ValueError: (withheld" in made.subject


def test_a_notice_follows_what_happened_in_both_bodies() -> None:
    """It says why the mail is not the one that the author wrote, which matters less."""
    made = render_page(read_event(task_failed(ValueError("x"))), ["The notifier's 'html' could not be rendered (<b>)."])
    assert in_order(made.text, "ValueError: x", "Open the log", "NOTE: The notifier's 'html'", "Started")
    assert in_order(Reader(made.html).text, "ValueError: x", "Open the log", "rendered (<b>)", "Started")


def test_the_tracebacks_indentation_survives_html() -> None:
    """HTML drops spaces at the start of a line, and Outlook does not support `white-space`."""
    html = page(raised(ValueError("x"))).html
    assert re.search(r"(\u00a0){2}File ", html)
