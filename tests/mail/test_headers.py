"""Header fields: folded, 7-bit, and the same text when they are read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from email.header import decode_header, make_header

import pytest

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail.address_list import parse_addresses
from airflow_provider_smtpcm.mail.headers import (
    encode_words,
    render_content_disposition,
    render_content_type,
    render_date,
    render_mailboxes,
    render_parameter,
    render_unstructured,
)


def lines_of(field: bytes) -> list[str]:
    assert field.endswith(b"\r\n")
    lines = field[:-2].decode("ascii").split("\r\n")
    assert all(line.startswith(" ") and line.strip() for line in lines[1:])
    return lines


def to(value: str) -> bytes:
    return render_mailboxes("To", parse_addresses(value, field="To"))


def test_a_date_without_a_time_zone_is_refused() -> None:
    """It would be a different moment on every worker."""
    with pytest.raises(MessageError, match="time zone"):
        render_date(datetime(2024, 1, 31))  # noqa: DTZ001


def test_a_date_is_written_in_utc_and_in_english() -> None:
    """RFC 5322 3.3, whatever the locale of the worker."""
    india = timezone(timedelta(hours=5, minutes=30))

    assert render_date(datetime(2024, 2, 1, 4, 7, 9, tzinfo=india)) == b"Date: Wed, 31 Jan 2024 22:37:09 +0000\r\n"
    assert abs(
        datetime.now(UTC) - datetime.strptime(render_date(None).decode().strip(), "Date: %a, %d %b %Y %H:%M:%S %z")
    ) < timedelta(minutes=1)


def test_short_ascii_stays_as_it_is() -> None:
    """The usual subject needs no encoding."""
    assert render_unstructured("Subject", "Daily report") == b"Subject: Daily report\r\n"
    assert render_unstructured("Subject", "a  b") == b"Subject: a  b\r\n"
    assert render_unstructured("Subject", "") == b"Subject:\r\n"
    assert render_unstructured("Subject", "x" * 69) == b"Subject: " + b"x" * 69 + b"\r\n"


def test_long_ascii_is_folded_at_blanks_and_loses_none() -> None:
    """RFC 5322 2.2.3: unfolding removes only the line breaks."""
    value = "  word" * 60
    lines = lines_of(render_unstructured("Subject", value.strip()))

    assert all(len(line) <= 78 for line in lines)
    assert "".join(lines) == f"Subject: {value.strip()}"


def test_a_long_word_is_left_whole_until_a_line_must_end() -> None:
    """A URL stays usable, up to the limit of 998 octets for a line."""
    url = "<https://corp.example/" + "u" * 400 + ">"
    assert render_unstructured("List-Unsubscribe", url) == f"List-Unsubscribe: {url}\r\n".encode()

    lines = lines_of(render_unstructured("X-Long", "x" * 2000))
    assert all(len(line) <= 76 for line in lines)


def test_no_field_begins_with_an_empty_line() -> None:
    """Some programs take it for an empty field. So the first word is next to the name, however long it is."""
    docx = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
    assert render_content_type(docx) == f"Content-Type: {docx}\r\n".encode()
    for length in range(60, 901):
        assert render_unstructured("Subject", "x" * length) == b"Subject: " + b"x" * length + b"\r\n"
    for length in (1, 40, 65, 70, 75, 76, 500, 900):
        for value in ("x" * length + " y", "ü" * length, "x" * length + "=?"):
            assert lines_of(render_unstructured("Subject", value))[0].removeprefix("Subject:").strip()
        for name in ("From", "Disposition-Notification-To"):
            for phrase in ("x" * length, "x, " * length + "x", "Jörg " * length + "x"):
                lines = lines_of(render_mailboxes(name, parse_addresses([f'"{phrase}" <x@corp.example>'], field="")))
                assert lines[0].removeprefix(f"{name}:").strip()
    address = "x" * 64 + "@" + "y" * 40 + ".example"
    assert render_mailboxes("Reply-To", parse_addresses(address, field="")) == f"Reply-To: {address}\r\n".encode()


def test_only_the_words_that_need_it_are_encoded() -> None:
    """An address next to a name stays readable."""
    assert (
        render_unstructured("X-Contact", "Jörg-Peter <j@x.example>")
        == b"X-Contact: =?utf-8?q?J=C3=B6rg-Peter?= <j@x.example>\r\n"
    )
    assert render_unstructured("Subject", "Re: Abläufe today") == b"Subject: Re: =?utf-8?q?Abl=C3=A4ufe?= today\r\n"


def test_the_blanks_around_an_encoded_word_survive() -> None:
    """One blank separates it; further blanks are inside of it."""
    for value in ("a  ü", "ü   b", "a  ü  ö   b", "ü", "ü  ö"):
        assert (
            str(make_header(decode_header(render_unstructured("X", value).decode()[3:-2]))).replace("\r\n ", "")
            == value
        )


def test_what_looks_encoded_is_encoded() -> None:
    """A subject with the text of an encoded word is shown as it is, not decoded."""
    value = "=?utf-8?q?=0D=0ABcc=3A_eve=40corp.example?="
    field = render_unstructured("Subject", value).decode()

    assert field.startswith("Subject: =?utf-8?b?PT91dGYtOD9")
    assert str(make_header(decode_header(field.removeprefix("Subject: ")))) == value


def test_q_or_b_whichever_is_shorter() -> None:
    """A word with an umlaut stays nearly readable; Greek grows by a third instead of threefold."""
    assert encode_words("Müller AG") == ["=?utf-8?q?M=C3=BCller_AG?="]
    assert encode_words("Ελληνικά") == ["=?utf-8?b?zpXOu867zrfOvc65zrrOrA==?="]


@pytest.mark.parametrize("text", ["🎉" * 100, "é" * 200, "a" * 300 + "ü", "日本語" * 60])
@pytest.mark.parametrize("first", [75, 60, 30, 5, -20])
def test_no_encoded_word_is_too_long_or_splits_a_character(text: str, first: int) -> None:
    """RFC 2047 2 and 5 (3): each can be decoded alone."""
    words = encode_words(text, first_length=first)

    assert all(len(word) <= 75 for word in words)
    assert len(words[0]) <= first or first < 30
    assert "".join(str(make_header(decode_header(word))) for word in words) == text


def test_names_are_plain_quoted_or_encoded() -> None:
    """Each as simple as possible."""
    assert to("Jane Doe <jane@corp.example>") == b"To: Jane Doe <jane@corp.example>\r\n"
    assert to('"Doe, Jane" <jane@corp.example>') == b'To: "Doe, Jane" <jane@corp.example>\r\n'
    assert to('"Jane \\"JD\\"" <jane@corp.example>') == b'To: "Jane \\"JD\\"" <jane@corp.example>\r\n'
    assert to("Jörg M <joerg@bücher.example>") == b"To: =?utf-8?q?J=C3=B6rg_M?= <joerg@xn--bcher-kva.example>\r\n"
    assert to('"=?utf-8?q?x?=" <x@corp.example>') == b"To: =?utf-8?b?PT91dGYtOD9xP3g/PQ==?= <x@corp.example>\r\n"


def test_a_comma_in_an_encoded_name_is_no_separator() -> None:
    """RFC 2047 5 (3): in a phrase, most characters must be encoded."""
    assert b"=2C_" in to("Müller, Jonathan <jonathan@corp.example>;")


def test_many_recipients_are_folded_between_them() -> None:
    """No line is longer than 78 octets."""
    lines = lines_of(to("; ".join(f"Recipient Number {number} <user{number}@corp.example>" for number in range(50))))

    assert all(len(line) <= 78 for line in lines)
    assert sum(line.count("@") for line in lines) == 50


def test_a_long_name_is_folded_too() -> None:
    """Plain words at their blanks; a long quoted name becomes encoded words."""
    for name in ("Word " * 40 + "End", '"' + "a, b " * 40 + '"', "x" * 950):
        assert all(len(line) <= 78 for line in lines_of(to(f"{name} <x@corp.example>")))


def test_a_non_ascii_local_part_is_written_as_it_is() -> None:
    """RFC 6532 3.2; there is no other way to write it."""
    assert to("Jörg M <jörg@bücher.example>") == "To: =?utf-8?q?J=C3=B6rg_M?= <jörg@xn--bcher-kva.example>\r\n".encode()


def test_a_short_file_name_is_a_quoted_string() -> None:
    """Every mail client supports it."""
    assert (
        render_content_disposition("attachment", "report 1.csv")
        == b'Content-Disposition: attachment; filename="report 1.csv"\r\n'
    )


def test_any_other_file_name_is_percent_encoded() -> None:
    """RFC 2231 4; even if a quoted string would need backslashes."""
    assert render_parameter("filename", "März.csv") == [" filename*=utf-8''M%C3%A4rz.csv"]
    assert render_parameter("filename", 'a"b\\c.csv') == [" filename*=utf-8''a%22b%5Cc.csv"]
    assert render_parameter("filename", "=?utf-8?q?x?=") == [" filename*=utf-8''%3D%3Futf-8%3Fq%3Fx%3F%3D"]


def test_a_long_ascii_file_name_stays_whole() -> None:
    """Many programs read no continuations; it is continued only where a line ends at 998."""
    assert render_parameter("filename", "x" * 200) == [' filename="' + "x" * 200 + '"']
    assert render_parameter("filename", "x" * 986) == [' filename="' + "x" * 986 + '"']
    tokens = render_parameter("filename", "x" * 987)
    assert tokens[:2] == [' filename*0="' + "x" * 59 + '"', ' filename*1="' + "x" * 59 + '"']
    assert lines_of(render_content_disposition("attachment", "x" * 986)) == [
        "Content-Disposition: attachment;",
        ' filename="' + "x" * 986 + '"',
    ]


def test_a_name_that_is_no_plain_quoted_string_is_also_there_for_older_programs() -> None:
    """As encoded words in the parameter `name` of Content-Type, as Outlook writes it."""
    assert render_content_type("text/csv", "report.csv") == b"Content-Type: text/csv\r\n"
    assert (
        render_content_type("text/csv; charset=utf-8", "März.csv")
        == b'Content-Type: text/csv; charset=utf-8; name="=?utf-8?b?TcOkcnouY3N2?="\r\n'
    )
    given = 'text/csv; NAME="a.csv"'
    assert render_content_type(given, "März.csv") == f"Content-Type: {given}\r\n".encode()


@pytest.mark.parametrize("name", ["日本語" * 100, "ü" * 300, "🎉" * 90, 'a"' * 100])
def test_a_long_name_for_older_programs_is_folded_between_encoded_words(name: str) -> None:
    """No line is longer than 76 (RFC 2047 2), and each word can be decoded alone."""
    lines = lines_of(render_content_type("application/pdf", name))

    assert lines[0] == "Content-Type: application/pdf;" and all(len(line) <= 76 for line in lines)
    written = "".join(lines[1:]).removeprefix(' name="').removesuffix('"')
    assert str(make_header(decode_header(written))) == name


def test_a_long_file_name_is_continued_between_characters() -> None:
    """RFC 2231 3: numbered from 0, the charset in the first one only."""
    tokens = render_parameter("filename", "ü" * 333)
    assert tokens[0].startswith(" filename*0*=utf-8''%C3%BC")
    assert all(len(token) <= 75 and token.endswith("%C3%BC") for token in tokens)
    assert len(tokens) > 10


def test_a_content_type_is_folded_between_its_parameters() -> None:
    """A semicolon in quotation marks does not end a parameter."""
    assert render_content_type("text/csv;charset=utf-8") == b"Content-Type: text/csv; charset=utf-8\r\n"
    assert lines_of(render_content_type('text/csv; title="a; b"; x=' + "y" * 70)) == [
        'Content-Type: text/csv; title="a; b";',
        " x=" + "y" * 70,
    ]
