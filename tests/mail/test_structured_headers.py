"""Header fields that are not free text: addresses, message ids and URIs are refused, or written as what they are."""

from __future__ import annotations

import email.policy
from contextlib import suppress
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage

import pytest

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.mail.render import render
from airflow_provider_smtpcm.mail.structured_headers import parse_headers, render_header
from airflow_provider_smtpcm.mail.tainted import DATA, TaintedStr

ADDRESS_FIELDS = [
    *("Sender", "Author", "Errors-To", "Return-Receipt-To", "Read-Receipt-To", "Disposition-Notification-To"),
    *("X-Confirm-Reading-To", "Mail-Followup-To", "Mail-Reply-To", "Apparently-To"),
    *("Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc", "resent-reply-to"),
]
ID_FIELDS = ["In-Reply-To", "References", "Resent-Message-ID", "Supersedes", "Obsoletes"]
URI_FIELDS = [
    *("List-Archive", "List-Help", "List-Owner", "List-Post", "List-Subscribe", "List-Unsubscribe", "Archived-At"),
]


def fault(name: str, value: str) -> str:
    with pytest.raises(MessageError) as caught:
        parse_headers({name: value})
    assert caught.value.remedy
    return str(caught.value)


def field(name: str, value: str) -> bytes:
    [(name, parsed)] = parse_headers({name: value})
    rendered = render_header(name, parsed)
    assert parse_headers({name: parsed}) == ((name, parsed),)
    assert max(map(len, rendered.split(b"\r\n"))) <= 998
    return rendered


def filled_in(template: str, value: str) -> TaintedStr:
    before, _, after = template.partition("{}")
    return TaintedStr(before + value + after, before + DATA * len(value) + after)


@pytest.mark.parametrize("name", ADDRESS_FIELDS)
def test_what_is_no_address_is_refused_by_the_name_of_the_header(name: str) -> None:
    """A server or a reader would answer to something else."""
    for value in ("jane", "Jane <jane>", "<>", "jane@", "jane@corp.example bob@corp.example", "jane@-.example"):
        assert fault(name, value).startswith(f"{name}")


@pytest.mark.parametrize("name", ["Sender", "Resent-Sender"])
def test_a_sender_is_one(name: str) -> None:
    """RFC 5322 3.6.2."""
    assert "exactly one address" in fault(name, "a@corp.example; b@corp.example")


@pytest.mark.parametrize("name", ADDRESS_FIELDS)
def test_an_address_has_its_name_encoded_and_its_domain_in_a_labels(name: str) -> None:
    """As in To: an encoded word inside an address would make another one of it."""
    assert (
        field(name, "Jörg <joerg@bücher.example>").replace(b"\r\n ", b" ")
        == f"{name}: =?utf-8?b?SsO2cmc=?= <joerg@xn--bcher-kva.example>\r\n".encode()
    )


def test_several_addresses_are_separated_as_in_to() -> None:
    """By a semicolon or a comma; a name with a comma is quoted."""
    expected = b'Disposition-Notification-To: "Doe, Jane" <jane@corp.example>,\r\n bob@corp.example\r\n'

    assert field("Disposition-Notification-To", "Doe, Jane <jane@corp.example>; bob@corp.example") == expected
    assert field("Disposition-Notification-To", '"Doe, Jane" <jane@corp.example>, bob@corp.example') == expected


def test_a_local_part_beyond_ascii_needs_smtputf8_in_any_header() -> None:
    """RFC 6532 3.2; there is no other way to write it."""
    for headers, needed in (({"Sender": "jörg@corp.example"}, True), ({"Sender": "Jörg <j@bücher.example>"}, False)):
        mail = Mail(from_address="a@corp.example", to="b@corp.example", message_id="<1@a>", headers=headers)
        assert render(mail).needs_smtputf8 is needed


@pytest.mark.parametrize("name", ID_FIELDS)
@pytest.mark.parametrize("value", ["1@corp.example", "<1>", "<ü@corp.example>", "<a b@c>", "<a@b>, <c@d>", "Ihr Brief"])
def test_what_is_no_message_id_is_refused(name: str, value: str) -> None:
    """It would be encoded, or shown as text, and match no mail."""
    assert fault(name, value).startswith(f"{name}: ")


def test_message_ids_are_folded_between_them_and_never_encoded() -> None:
    """Even one that looks like an encoded word, which the syntax allows."""
    ids = [f"<{'x' * number}.{number}@corp.example>" for number in range(1, 60)]
    rendered = field("References", "  ".join(ids)).decode()

    assert rendered.replace("\r\n ", " ") == f"References: {' '.join(ids)}\r\n"
    assert all(line.count("<") == line.count(">") for line in rendered.split("\r\n"))
    long = f"<{'x' * 800}@corp.example>"
    assert field("In-Reply-To", long) == f"In-Reply-To: {long}\r\n".encode()
    foreign = "<20240101..a,b:[c]@x@y.>"  # some programs write such ids
    assert field("In-Reply-To", foreign) == f"In-Reply-To: {foreign}\r\n".encode()
    assert field("In-Reply-To", "<=?utf-8?q?x?=@b><c@d>") == b"In-Reply-To: <=?utf-8?q?x?=@b> <c@d>\r\n"
    assert "not a message id" in fault("References", f"<{'x' * 900}@b>")
    assert "exactly one" in fault("Resent-Message-ID", "<a@b> <c@d>")


@pytest.mark.parametrize("name", URI_FIELDS)
@pytest.mark.parametrize(
    "value",
    [
        "https://corp.example",
        "<https://corp.example/ü>",
        "<https://bücher.example>",
        "<https://corp.example/a b>",
        "<jane@corp.example>",
        "<https://corp.example> <mailto:jane@corp.example>",
        "<https://corp.example>, ",
        "<https://corp.example> (täglich)",
        f"<https://corp.example/{'x' * 900}>",
        "siehe <https://corp.example>",
    ],
)
def test_what_is_no_uri_in_angle_brackets_is_refused(name: str, value: str) -> None:
    """RFC 2369 2: a program ignores it, and an encoded word in it leads nowhere."""
    assert fault(name, value).startswith(f"{name}: ")


def test_uris_are_folded_between_them_and_never_encoded() -> None:
    """With the comma after them; a comma inside of one does not separate."""
    first, second = f"<https://corp.example/{'u' * 400}>", "<mailto:a@corp.example?subject=a,b=?>"
    rendered = field("List-Unsubscribe", f"{first} ,{second} (by mail, please) ")

    assert rendered == f"List-Unsubscribe: {first},\r\n {second} (by mail, please)\r\n".encode()
    assert field("List-Post", "NO (posting is not allowed)") == b"List-Post: NO (posting is not allowed)\r\n"
    assert field("List-Unsubscribe-Post", "List-Unsubscribe=One-Click").endswith(b": List-Unsubscribe=One-Click\r\n")


def test_the_id_of_a_list_has_a_description_in_any_language() -> None:
    """RFC 2919 3: a phrase, and the id in angle brackets."""
    assert field("List-Id", "Tägliche Berichte <reports.corp.example>") == (
        b"List-Id: =?utf-8?q?T=C3=A4gliche_Berichte?= <reports.corp.example>\r\n"
    )
    assert field("List-ID", '"Berichte, alle" <r.corp.example>') == b'List-ID: "Berichte, alle" <r.corp.example>\r\n'
    assert field("List-ID", "<r.corp.example>") == b"List-ID: <r.corp.example>\r\n"
    for value in ("reports.corp.example", "Reports", "Reports <reports>", "<bücher.corp.example>", "<a.b> x"):
        assert fault("List-Id", value).startswith("List-Id: ")


@pytest.mark.parametrize("name", ["Content-Language", "Auto-Submitted", "Resent-Date", "Content-Location", "Expires"])
def test_a_value_that_must_be_ascii_is_never_encoded(name: str) -> None:
    """It has a syntax of its own, in which an encoded word has no meaning."""
    assert "not ASCII" in fault(name, "täglich")
    assert "900" in fault(name, "x" * 901)
    assert field(name, "de,   " * 40 + "en").replace(b"\r\n ", b" ") == f"{name}: {'de, ' * 40}en\r\n".encode()


def test_a_content_header_that_the_package_does_not_write_may_be_set() -> None:
    """The language of the text, for one."""
    headers = {"Content-Language": "de", "Content-Description": "Tägliche Zahlen"}
    mail = Mail(from_address="a@corp.example", to="b@corp.example", message_id="<1@a>", text="x", headers=headers)
    message = message_from_bytes(b"".join(render(mail)), EmailMessage, policy=email.policy.default)

    assert (message["Content-Language"], message["Content-Description"]) == ("de", "Tägliche Zahlen")
    assert message.get_content_type() == "text/plain"


def test_a_blank_value_leaves_such_a_header_out() -> None:
    """A template that renders to nothing asks for none; a header of free text is written without text."""
    blank = {"Disposition-Notification-To": " ", "References": "", "Errors-To": " ; ", "X-Report": ""}
    assert parse_headers(blank) == (("X-Report", ""),)
    assert "not ASCII" in fault("Content-Language", "\xa0")


def test_what_a_mail_has_once_is_given_once() -> None:
    """RFC 2369 2, RFC 8098 2.1; the fields of another resending may be repeated."""
    for name, value in (("List-Help", "<https://a.example>"), ("Disposition-Notification-To", "a@corp.example")):
        with pytest.raises(MessageError, match="twice"):
            parse_headers([(name, value), (name.lower(), value)])
    assert len(parse_headers([("Resent-To", "a@corp.example"), ("Resent-To", "b@corp.example")])) == 2


@pytest.mark.parametrize(
    ("name", "template", "value"),
    [
        ("Disposition-Notification-To", "{} <jane@corp.example>", "M <m@evil.example>, Jane"),
        ("Errors-To", "{}@corp.example", "m@evil.example; jane"),
        ("Return-Receipt-To", "boss@corp.example; {}", "jane@corp.example; m@evil.example"),
        ("List-Unsubscribe", "<https://corp.example/{}>", "x>, <https://evil.example"),
        ("List-Unsubscribe", "<https://corp.example/{}>", "a b"),
        ("List-Help", "<https://corp.example> ({})", "x), <https://evil.example> ("),
    ],
)
def test_a_value_that_is_filled_in_adds_no_address_and_no_uri(name: str, template: str, value: str) -> None:
    """It is one part of what the author wrote, or refused."""
    try:
        [(_, parsed)] = parse_headers({name: filled_in(template, value)})
    except MessageError:
        return
    message = message_from_bytes(render_header(name, parsed).replace(name.encode(), b"To"), policy=email.policy.default)
    [mailbox] = message["To"].addresses
    assert mailbox.addr_spec == "jane@corp.example"


def test_values_are_filled_in_where_the_author_wants_them() -> None:
    """Inside a URI, an address or a description."""
    for name, template, value, expected in (
        ("List-Unsubscribe", " <https://corp.example/{}>, <mailto:a@corp.example> ", "a,(b)", None),
        ("Sender", "{} <jane@corp.example>", "Doe, Jane", b'Sender: "Doe, Jane" <jane@corp.example>\r\n'),
        ("List-Id", "{} <a.corp.example>", "A, B <x", b'List-Id: "A, B <x" <a.corp.example>\r\n'),
    ):
        [(_, parsed)] = parse_headers({name: filled_in(template, value)})
        assert type(parsed) is str
        assert render_header(name, parsed) == (expected or f"{name}: {parsed}\r\n".encode())


def test_hostile_values_take_no_time() -> None:
    """No pattern is quadratic in the length of a value."""
    begun = datetime.now(UTC)
    for name in ("Sender", "References", "List-Help", "List-Id", "Content-Language"):
        for value in ("<" * 90_000, "<a:b> " * 15_000, " (" * 45_000, "<a:b>" + " " * 90_000 + "x", "<a@b>" * 18_000):
            with suppress(MessageError):
                field(name, value)
    assert (datetime.now(UTC) - begun).total_seconds() < 5
