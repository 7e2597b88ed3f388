"""What a server receives is, octet by octet, what `render` produces, however it is sent."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_smtpcm.mail import Attachment, Mail
from airflow_provider_smtpcm.mail.render import render
from airflow_provider_smtpcm.smtp.session import Session
from tests.smtp.connection_pool.batches import send_many
from tests.smtp.server import Server

DATE = re.compile(rb"^Date: (.*)\r\n")
WAYS = {
    "one by one": ("SIZE 0",),
    "pipelined": ("SIZE 0", "PIPELINING"),
    "by BDAT": ("SIZE 0", "PIPELINING", "8BITMIME", "CHUNKING", "BINARYMIME"),
    "by BDAT, one by one": ("8BITMIME", "CHUNKING", "BINARYMIME"),
}
LINES = st.one_of(
    st.sampled_from(["", ".", "..", ".\r", "\r", "\r.", "\x01", "=", " ", "From me", "é", "x" * 999, "." * 2000]),
    st.text(alphabet=".\r\n =-a\x01ü", max_size=12),
)
TEXTS = st.lists(LINES, max_size=6).flatmap(
    lambda lines: st.sampled_from(["\n", "\r\n", "\r", "\n.\n"]).map(lambda end: end.join(lines))
)
# Long ones go block by block; the dots wander over the borders of the blocks.
LONG_TEXTS = st.tuples(st.integers(0, 5), st.sampled_from([".\n", "..\n", "a\n.\n", "x" * 70 + "\n."])).map(
    lambda drawn: "x" * drawn[0] + "\n" + drawn[1] * (140_000 // len(drawn[1]))
)
# A mail that needs no encoding is sent as it is, so that lines of it begin with dots.
MESSAGE = b"Subject: x\n\n"
MESSAGES = st.one_of(
    TEXTS.map(lambda text: MESSAGE + text.encode()),
    st.tuples(st.integers(0, 5), st.sampled_from([b".\n", b"..\r\n", b"a\r\n.\n"])).map(
        lambda drawn: MESSAGE + b"x" * drawn[0] + b"\n" + drawn[1] * 50_000
    ),
)
FILES = st.lists(
    st.one_of(
        MESSAGES,
        st.binary(max_size=60),
        st.sampled_from([b"\r\n.\r\n", b".", b"\n.\n", b"\r", b"." * 43_776, b"\r\n." * 40_000, b"x" * 43_777]),
    ),
    max_size=2,
)


def assert_arrives_as_written(mails: list[Mail], offers: tuple[str, ...]) -> None:
    """Send them all over one connection, and compare."""
    with Server(offers=offers) as server:
        manager = server.manager(binary_mime=True)
        found = list(send_many(mails, manager, lambda: Session(manager)))
    assert [str(delivery.error) for delivery in found if delivery.error] == []
    for mail, stored in zip(mails, server.stored, strict=True):
        date = DATE.match(stored.message)
        assert date is not None
        binary = "BINARYMIME" in offers
        written = render(mail, date=parsedate_to_datetime(date[1].decode()), binary=binary)
        assert stored.message == b"".join(written)
        assert len(stored.message) == written.size
        if not binary:
            assert stored.message.isascii()
            assert max(map(len, stored.message.split(b"\r\n"))) <= 998
            assert b"\x00" not in stored.message
            assert not re.search(rb"\r(?!\n)|(?<!\r)\n", stored.message)


def letters(bodies: list[tuple[str, str, list[bytes]]]) -> list[Mail]:
    """A mail for each text, html and files."""
    return [
        Mail(
            from_address="etl@corp.example",
            to="a@corp.example",
            subject=".",
            text=text or None,
            html=html or None,
            attachments=[
                Attachment(content=file, name="mail.eml" if file.startswith(MESSAGE) else "report.bin")
                for file in files
            ],
            message_id=f"<{number}@corp.example>",
        )
        for number, (text, html, files) in enumerate(bodies)
    ]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "text", ["", ".", ".\n", "\n.\n", "\n", "\r", "a\rb\nc\r\n.\r\nd", "\x01", "x" * 3000, "x" * 998 + "\n.", "=2E\n."]
)
def test_a_body_that_is_hard_on_a_line_arrives_as_it_was_written(text: str, way: str) -> None:
    """A dot alone, none at all, bare CR and LF, a control character, lines over 998 octets."""
    assert_arrives_as_written(letters([(text, "", []), (text, text, [text.encode()])]), WAYS[way])


@pytest.mark.parametrize("way", WAYS)
@given(bodies=st.lists(st.tuples(TEXTS, TEXTS, FILES), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_mails_arrive_as_they_were_written(way: str, bodies: list[tuple[str, str, list[bytes]]]) -> None:
    """One after the other."""
    assert_arrives_as_written(letters(bodies), WAYS[way])


@pytest.mark.parametrize("way", WAYS)
@given(text=LONG_TEXTS, files=FILES)
@settings(max_examples=6, deadline=None)
def test_long_texts_arrive_as_they_were_written(way: str, text: str, files: list[bytes]) -> None:
    """With dots at the start of lines at the borders of blocks."""
    assert_arrives_as_written(letters([(text, "", []), (text, "", files), (".", "", [])]), WAYS[way])
