"""A message that was made elsewhere: its octets stay as they are, and what SMTP cannot transport is refused."""

from __future__ import annotations

import copy
import os
import pickle
from email.message import EmailMessage, Message
from email.mime.text import MIMEText
from email.policy import SMTP
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail import MimeMessage
from tests.mail.test_attachment import StoredObject

PLAIN = (
    b"From: ETL <etl@corp.example>\r\nTo: a@corp.example\r\nSubject: Rows\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\n"
)
WHOLE = PLAIN + b"Message-ID: <1@corp.example>\r\n\r\nThree rows.\r\n"


class Unreadable(StoredObject):
    """A path in object storage that may not be read."""

    def open(self, mode: str) -> NoReturn:  # noqa: ARG002 - as of any path
        raise PermissionError("denied")


def with_header(*lines: str) -> bytes:
    """Return a message with further header fields."""
    return PLAIN + "".join(f"{line}\r\n" for line in lines).encode() + b"\r\nThree rows.\r\n"


def completed(source: object, **envelope: object) -> MimeMessage:
    """Return a message as it is sent."""
    message = MimeMessage(source, **envelope)  # type: ignore[arg-type]
    return message.complete(envelope_from=None, make_message_id=lambda domain: f"<new@{domain}>")


def octets(source: object, **envelope: object) -> bytes:
    """Return the octets that are sent."""
    return b"".join(completed(source, **envelope).render())


def recipients(source: object, **envelope: object) -> list[str]:
    """Return the addresses of the envelope."""
    return [address.address for address in completed(source, **envelope).recipients]


def fault(source: object, **envelope: object) -> str:
    """Return why a message is not sent."""
    with pytest.raises(MessageError) as caught:
        completed(source, **envelope)
    assert caught.value.remedy
    return str(caught.value)


@pytest.mark.parametrize(
    "message",
    [
        WHOLE,
        WHOLE.replace(b"Three rows.", b"\xc3\xa4\xc3\xb6 8-bit"),
        WHOLE.replace(b"Subject: Rows", b"Subject: folded\r\n\t here  \r\nX-Odd:no blank\r\nx-odd: twice"),
        WHOLE.replace(b"Three rows.\r\n", b".\r\n..\r\n.dots\r\n \r\n"),
        WHOLE.replace(b"Three rows.", b"x" * 998),
        WHOLE.replace(b"\r\n\r\nThree rows.\r\n", b"\r\n"),
    ],
)
def test_the_octets_of_a_complete_message_stay_as_they_are(message: bytes) -> None:
    """A signature covers each of them."""
    assert octets(message) == message
    assert octets(bytearray(message)) == octets(memoryview(message)) == message


def test_line_ends_of_linux_become_those_of_smtp() -> None:
    """As any mail program does; signatures are made over CRLF (RFC 8551 3.1.1, RFC 3156 5)."""
    assert octets(WHOLE.replace(b"\r\n", b"\n")) == WHOLE


def test_a_message_of_pythons_email_is_written_with_crlf() -> None:
    """Whatever its policy says; a line that begins with From is not changed, as it would be in a mailbox file."""
    message = MIMEText("From here on\n")
    message["From"], message["To"], message["Subject"] = "etl@corp.example", "a@corp.example", "Rows"
    sent = octets(message)
    assert b"\r\n\r\nFrom here on\r\n" in sent
    assert sent.count(b"\n") == sent.count(b"\r\n")


def test_a_parsed_message_keeps_the_folding_of_its_header() -> None:
    """Python would fold it again, and a DKIM signature would not hold."""
    from email import message_from_bytes, policy

    long = WHOLE.replace(b"Subject: Rows", b"Subject: " + b"word " * 30 + b"end")
    assert octets(message_from_bytes(long, policy=policy.default)) == long


@pytest.mark.parametrize("kind", ["Path", "str", "object storage"])
def test_a_file_is_read(kind: str, tmp_path: Path) -> None:
    """From the worker, or from object storage."""
    path = tmp_path / "mail.eml"
    path.write_bytes(WHOLE)
    source = {"Path": path, "str": str(path), "object storage": StoredObject(WHOLE)}[kind]
    assert octets(source) == WHOLE
    assert MimeMessage(source).path is source  # type: ignore[arg-type]


def test_what_is_no_message_is_refused(tmp_path: Path) -> None:
    """With what to pass instead."""
    os.mkfifo(tmp_path / "fifo")
    assert "No such file" in fault(tmp_path / "none.eml")
    assert "not a regular file" in fault(tmp_path / "fifo")
    assert "not a regular file" in fault(tmp_path)
    assert "denied" in fault(Unreadable(b""))
    assert "type int" in fault(5)
    assert "the text" in fault("From: etl@corp.example\n\nHello").lower()
    assert "empty" in fault(b"\r\n \r\n")
    assert "Line 1 of the message is not a header field" in fault(b"Hello,\r\n\r\nworld\r\n")
    assert "mailbox" in fault(b"From etl@corp.example Mon Jan  1\n" + WHOLE.replace(b"\r\n", b"\n"))


# --- What SMTP cannot transport.


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ((b"Three rows.\r\n", b"Three rows.\n"), ("Line 7", "bare LF", "openssl")),
        ((b"Three rows.", b"Three\rrows."), ("Line 7", "bare CR")),
        ((b"Three", b"Thr\0ee"), ("Line 7", "NUL")),
        ((b"Three rows.", b"x" * 999), ("Line 7", "999 octets", "998")),
        ((b"Subject: Rows", b"Subject: \xe4"), ("subject", "neither ASCII nor UTF-8")),
        ((b"Three rows.\r\n", b"Three rows.\r"), ("bare CR",)),
    ],
)
def test_what_cannot_travel_unchanged_is_refused_with_its_line(
    change: tuple[bytes, bytes], told: tuple[str, ...]
) -> None:
    """Rather than changed on the way, which would break a signature."""
    message = fault(WHOLE.replace(*change)).lower()
    assert [word for word in told if word.lower() not in message] == []


def test_a_message_of_8_bits_says_so_and_one_of_7_does_not() -> None:
    """For BODY=8BITMIME; a header beyond ASCII needs SMTPUTF8, and so does an address."""
    umlaut = "ä".encode()
    body = completed(WHOLE.replace(b"Three", umlaut)).render()
    header = completed(WHOLE.replace(b"Rows", umlaut)).render()
    address = completed(WHOLE, recipients=["jürgen@corp.example"]).render()
    plain = completed(WHOLE).render()
    told = [(one.is_8bit, one.needs_smtputf8) for one in (plain, body, header, address)]
    assert told == [(False, False), (True, False), (False, True), (False, True)]
    assert completed(WHOLE, envelope_from="jürgen@corp.example").render().needs_smtputf8


def test_a_non_ascii_address_in_a_message_of_pythons_email_is_written_in_utf_8() -> None:
    """Python's default would write an encoded word into the address, which is not allowed (RFC 2047 5)."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "etl@corp.example", "jürgen@corp.example", "Grüße"
    message.set_content("x")
    assert recipients(message) == ["jürgen@corp.example"]
    assert "jürgen@corp.example".encode() in octets(message)
    assert completed(message).render().needs_smtputf8
    del message["To"]
    message["To"] = "Jürgen <j@corp.example>"
    assert not completed(message).render().needs_smtputf8


# --- The envelope.


@pytest.mark.parametrize(
    ("fields", "meant"),
    [
        (["Cc: b@corp.example, Doe <c@corp.example>"], ["a@corp.example", "b@corp.example", "c@corp.example"]),
        (["Cc: A@CORP.EXAMPLE, a@Corp.Example"], ["a@corp.example", "A@CORP.EXAMPLE"]),
        (["Cc: Team: b@corp.example, c@corp.example;"], ["a@corp.example", "b@corp.example", "c@corp.example"]),
        (["Cc: undisclosed-recipients:;"], ["a@corp.example"]),
        (['Cc: "x, y@z.example" <b@corp.example> (d@corp.example)'], ["a@corp.example", "b@corp.example"]),
        (["Cc: =?utf-8?q?x=40y=2Eexample=2C?= <b@corp.example>"], ["a@corp.example", "b@corp.example"]),
        (
            ["Cc: b@corp.example,\r\n c@corp.example", "To: d@corp.example"],
            ["a@corp.example", "d@corp.example", "b@corp.example", "c@corp.example"],
        ),
        (["Bcc: b@corp.example"], ["a@corp.example", "b@corp.example"]),
        (["Resent-To: b@corp.example", "Resent-Bcc: c@corp.example"], ["b@corp.example", "c@corp.example"]),
    ],
)
def test_the_recipients_are_those_of_its_header(fields: list[str], meant: list[str]) -> None:
    """To, Cc and Bcc; of a message that was resent, those of the resending (RFC 5322 3.6.6)."""
    assert recipients(with_header(*fields)) == meant


def test_given_recipients_take_the_place_of_those_in_the_header() -> None:
    """And the header stays."""
    message = completed(WHOLE, recipients="x@corp.example; y@corp.example")
    assert [address.address for address in message.recipients] == ["x@corp.example", "y@corp.example"]
    assert b"".join(message.render()) == WHOLE
    assert recipients(
        with_header("Resent-To: b@x.example", "Resent-Date: x", "Resent-Date: y"), recipients="c@x.example"
    ) == ["c@x.example"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ((b"To: a@corp.example\r\n", b""), "no recipient"),
        ((b"To: a@corp.example", b"To: nobody"), "To of the message"),
        ((b"To: a@corp.example", b"To: a@corp.example, Doe, b@corp.example"), "To of the message"),
        ((b"To: a@corp.example", b"To: <a@corp.example>\r\n\t<b@corp.example"), "To of the message"),
        ((b"To: a@corp.example", b"To: a@corp.example; b@corp.example"), "by commas"),
        ((b"From: ETL <etl@corp.example>\r\n", b""), "no From"),
        ((b"From: ETL <etl@corp.example>", b"From: ETL"), "From of the message"),
        ((b"Message-ID: <1@corp.example>", b"Message-ID: "), "empty Message-ID"),
        ((b"Message-ID: <1@corp.example>", b"Message-ID: <1@x>\r\nMessage-ID: <2@x>"), "more than one Message-ID"),
        ((b"To: a@corp.example", b"Resent-To: a@x.example\r\nResent-Date: x\r\nResent-Date: y"), "more than once"),
    ],
)
def test_a_header_that_leaves_the_envelope_open_is_refused(change: tuple[bytes, bytes], told: str) -> None:
    """Nothing is guessed."""
    assert told in fault(WHOLE.replace(*change))


@pytest.mark.parametrize(
    ("fields", "given", "sender"),
    [
        ([], None, "etl@corp.example"),
        (["Sender: robot@corp.example"], None, "robot@corp.example"),
        (["Resent-To: b@x.example", "Resent-From: r@x.example", "Sender: robot@corp.example"], None, "r@x.example"),
        (["Sender: robot@corp.example"], "Bounces <bounces@corp.example>", "bounces@corp.example"),
        ([], "<>", ""),
        (["Return-Path: <other@x.example>"], None, "etl@corp.example"),
    ],
)
def test_the_envelope_sender_is_that_of_its_header_or_the_given_one(
    fields: list[str], given: str | None, sender: str
) -> None:
    """Sender before From, since it sent the message (RFC 5322 3.6.2)."""
    assert completed(with_header(*fields), envelope_from=given).envelope_sender == sender


def test_the_envelope_sender_of_the_connection_comes_before_that_of_the_header() -> None:
    """And after a given one."""
    default = {"envelope_from": "bounces@corp.example", "make_message_id": lambda _: "<n@x>"}
    assert MimeMessage(WHOLE).complete(**default).envelope_sender == "bounces@corp.example"  # type: ignore[arg-type]
    assert MimeMessage(WHOLE, envelope_from="<>").complete(**default).envelope_sender == ""  # type: ignore[arg-type]
    moved = MimeMessage(WHOLE).with_envelope(recipients="b@x.example", envelope_from="<>")
    assert ([one.address for one in moved.recipients], moved.envelope_sender) == (["b@x.example"], "")


# --- What is changed nevertheless.


@pytest.mark.parametrize(
    "field", ["Bcc: b@corp.example", "bcc:\r\n b@corp.example,\r\n\tc@corp.example", "Resent-Bcc: b@corp.example"]
)
def test_bcc_is_not_in_what_is_sent(field: str) -> None:
    """The other fields stay as they are."""
    assert octets(with_header(field, "Message-ID: <1@corp.example>")) == with_header("Message-ID: <1@corp.example>")


def test_a_missing_message_id_and_date_are_added_below_the_header() -> None:
    """A signature of the body does not cover them; the marks of servers stay on top."""
    bare = b"Received: by x\r\nFrom: etl@corp.example\r\nTo: a@corp.example\r\n\r\nx\r\n"
    sent = octets(bare)
    top, _, body = sent.partition(b"\r\n\r\n")
    assert body == b"x\r\n"
    lines = top.split(b"\r\n")
    assert lines[:4] == [*bare.split(b"\r\n")[:3], b"Message-ID: <new@corp.example>"]
    assert lines[4].startswith(b"Date: ")
    assert completed(bare).message_id == "<new@corp.example>"
    assert b"x\r\nMessage-ID" in octets(b"To: a@corp.example\r\nFrom: etl@corp.example\r\nX: x")


SIGNED = "DKIM-Signature: v=1; a=rsa-sha256; d=corp.example;\r\n h=from:to:{};\r\n\tbh=x; b=y"


def test_what_a_dkim_signature_covers_is_neither_added_nor_removed() -> None:
    """It covers the absence of a field that it lists (RFC 6376 5.4.2)."""
    assert "Message-ID" in fault(with_header(SIGNED.format("message-id")))
    assert "Bcc" in fault(with_header(SIGNED.format("Bcc"), "Bcc: b@x.example", "Message-ID: <1@x>"))
    assert "Date" in fault(with_header(SIGNED.format("date")).replace(b"Date: Mon", b"X-Date: Mon"))
    assert b"<new@corp.example>" in octets(with_header(SIGNED.format("subject")))
    unchanged = with_header(SIGNED.format("message-id:date"), "Message-ID: <1@x>")
    assert octets(unchanged) == unchanged


# --- The object itself.


def test_it_is_copied_compared_and_told_without_its_content() -> None:
    """Airflow copies operators, and shows their fields."""
    message = MimeMessage(WHOLE.replace(b"Rows", b"=?utf-8?q?Gr=C3=BC=C3=9Fe?="))
    for copied in (copy.deepcopy(message), pickle.loads(pickle.dumps(message))):  # noqa: S301
        assert copied == message
    assert repr(message) == str(message) == "<MimeMessage 'Grüße' from etl@corp.example>"
    assert len({repr(MimeMessage(_multipart())) for _ in range(2)}) == 1


def _multipart() -> Message:
    message = EmailMessage()
    message["From"], message["To"] = "etl@corp.example", "a@corp.example"
    message.set_content("x")
    message.add_attachment(b"x", maintype="application", subtype="x", filename="x")
    return message


@given(
    st.lists(st.sampled_from(["to", "cc", "bcc"]), min_size=1, max_size=4).flatmap(
        lambda names: st.tuples(
            st.just(names), st.lists(st.text(max_size=30), min_size=len(names), max_size=len(names))
        )
    )
)
def test_whatever_a_header_says_it_is_sent_or_refused_with_an_error(drawn: tuple[list[str], list[str]]) -> None:
    """The parser of Python's `email` raises many kinds of errors for odd addresses."""
    names, values = drawn
    lines = [f"{name}: {value}".replace("\r", "").replace("\n", "") for name, value in zip(names, values, strict=True)]
    try:
        sent = octets(b"From: etl@corp.example\r\n" + "\r\n".join(lines).encode("utf-8", "replace") + b"\r\n\r\nx\r\n")
    except MessageError:
        return
    assert b"\nbcc" not in sent.lower()


@given(st.binary(max_size=300))
def test_no_octets_make_it_fail_otherwise(body: bytes) -> None:
    """A message is sent with exactly these octets, or refused."""
    try:
        sent = octets(PLAIN + b"Message-ID: <1@x>\r\n\r\n" + body)
    except MessageError:
        return
    assert sent.removesuffix(b"\r\n") == (PLAIN + b"Message-ID: <1@x>\r\n\r\n" + body).removesuffix(b"\r\n")


def test_a_message_written_by_pythons_smtp_policy_is_sent_unchanged() -> None:
    """Octets and object are the same."""
    message = _multipart()
    message["Message-ID"], message["Date"] = "<1@x>", "Mon, 1 Jan 2024 00:00:00 +0000"
    assert octets(message.as_bytes(policy=SMTP)) == octets(message)
