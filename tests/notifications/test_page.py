"""The default mail: of every event one that can be read at three in the morning, whatever stands in an exception."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.notifications.event import read_event
from airflow_provider_smtpcm.notifications.page import AlertPage, render_page
from tests.notifications.shapes import (
    RUN_ID,
    SHAPES,
    deadline_missed,
    raised,
    run_failed,
    task_failed,
    task_retried,
    task_succeeded,
)


class Reader(HTMLParser):
    """What a person sees of a page, and whether its elements are closed."""

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
        """All of it, with single blanks."""
        return " ".join(" ".join(self.seen).replace("\u00a0", " ").split())


def page(exception: BaseException, **changes: object) -> AlertPage:
    """The page of a failed task."""
    return render_page(read_event(task_failed(exception, **changes)))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_makes_a_mail_that_can_be_sent(shape: str) -> None:
    """The mail itself checks what it is given."""
    made = render_page(read_event(SHAPES[shape]))
    mail = Mail(
        from_address="a@corp.example", to="b@corp.example", subject=made.subject, text=made.text, html=made.html
    )
    assert mail.subject == made.subject
    reader = Reader(made.html)
    assert reader.open == []
    assert reader.outside == []  # no image from elsewhere
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
        (run_failed(states={"a": "failed"}), "[Airflow] Failed: warehouse_load – 1 task: a"),
        (run_failed("timed_out"), "[Airflow] Failed: warehouse_load – the run took longer than its dagrun_timeout"),
        (run_failed("success"), "[Airflow] Succeeded: warehouse_load"),
        (deadline_missed(), "[Airflow] Deadline missed: warehouse_load, due 2026-11-25 03:00:00 UTC"),
    ],
)
def test_the_subject_says_what_happened(context: dict[str, object], subject: str) -> None:
    """In a list of mails that is all that one sees."""
    assert render_page(read_event(context)).subject == subject


def test_both_bodies_say_what_where_when_and_why() -> None:
    """And lead to the log."""
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


def test_a_message_is_never_markup_nor_a_template() -> None:
    """An exception may hold whatever a server answered."""
    made = page(raised(ValueError("<script>alert(1)</script> {{ 7*7 }} {% raise %}")))
    reader = Reader(made.html)
    assert "<script" not in made.html
    assert "<script>alert(1)</script> {{ 7*7 }} {% raise %}" in reader.text
    assert "{{ 7*7 }} {% raise %}" in made.text


def test_a_message_of_several_lines_leaves_the_subject_on_one() -> None:
    """A line break in a header would begin another one."""
    made = page(raised(ValueError("first\r\nBcc: eve@corp.example\n\u2028last\x00")))
    assert "\n" not in made.subject
    assert "first Bcc: eve@corp.example \ufffdlast\ufffd" in made.subject
    assert Mail(from_address="a@corp.example", to="b@corp.example", subject=made.subject, text=made.text).subject


def test_half_a_character_and_control_characters_can_be_mailed() -> None:
    """A file name that is no UTF-8 has such."""
    made = page(raised(ValueError("\udcff\x1bred\x07")))
    assert Mail(from_address="a@corp.example", to="b@corp.example", text=made.text, html=made.html).text


def test_a_terminal_s_colours_leave_nothing_behind() -> None:
    """Of a program whose output is the message."""
    made = page(raised(ValueError("\x1b[1;31mno such\x1b[0m column \x1b]8;;https://x.example\x07here\x1b]8;;\x1b\\")))
    assert made.subject.endswith("ValueError: no such column here")


def test_megabytes_of_message_become_a_page() -> None:
    """As a database driver that repeats the whole statement writes."""
    made = page(raised(ValueError("SELECT " + "x, " * 3_000_000)))
    assert len(made.subject) <= 200
    assert len(made.text) < 20_000
    assert len(made.html) < 40_000


def test_a_recursion_without_end_becomes_its_last_lines() -> None:
    """Its traceback has a thousand frames."""

    def again(n: int) -> int:
        return again(n + 1) + 1

    try:
        again(0)
    except RecursionError as error:
        made = page(error)
    assert "RecursionError" in made.subject
    assert made.text.count("\n") < 60


def test_an_exception_whose_text_cannot_be_had_is_named() -> None:
    """By its type."""

    class Mute(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise RuntimeError

    assert "Mute: (its text cannot be read)" in page(raised(Mute())).subject


def test_the_cause_is_shown_with_the_exception() -> None:
    """Which is often what one has to know."""
    made = page(raised(RuntimeError("the load failed"), cause=OSError("connection reset")))
    assert "OSError: connection reset" in made.text


def test_what_airflow_knows_as_a_secret_is_masked() -> None:
    """In the message, in the traceback, and in the subject."""
    from airflow.sdk.log import mask_secret

    mask_secret("correct horse battery staple")
    made = page(raised(ValueError("Login failed, PWD=correct horse battery staple;")))
    assert "correct horse" not in made.subject + made.text + made.html
    assert "PWD=***" in made.subject


def test_a_secret_that_a_cut_would_halve_is_not_shown_in_part() -> None:
    """The masker would not know the half of it."""
    from airflow.sdk.log import mask_secret

    secret = "correct-horse-battery-staple-" * 20
    mask_secret(secret)
    for shift in range(0, 600, 37):
        made = page(raised(ValueError(secret + "y" * (100_000 - shift))))
        assert "horse-battery" not in made.text


def test_a_masker_that_cannot_be_asked_lets_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather no text than a secret."""
    import airflow.sdk.log

    monkeypatch.setattr(airflow.sdk.log, "redact", None)
    made = page(raised(ValueError("a secret")))
    assert "a secret" not in made.subject + made.text + made.html
    assert "ValueError: (withheld" in made.subject


def test_a_notice_stands_above_everything_in_both_bodies() -> None:
    """It says why the mail is not the one that somebody wrote."""
    made = render_page(read_event(task_failed(ValueError("x"))), ["The notifier's 'html' could not be rendered (<b>)."])
    assert made.text.index("NOTE: The notifier's 'html'") < made.text.index("ValueError")
    assert "(<b>)" in Reader(made.html).text


def test_the_tracebacks_indentation_survives_html() -> None:
    """Blanks at the beginning of a line would be dropped; Outlook knows no `white-space`."""
    html = page(raised(ValueError("x"))).html
    assert re.search(r"(\u00a0){2}File ", html)
