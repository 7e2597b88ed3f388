"""Text becomes addresses, or an error that says how to write them."""

from __future__ import annotations

import email
import email.policy
import math
import pickle
import re
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from airflow_provider_smtpcm.errors import MessageError, Phase
from airflow_provider_smtpcm.mail import Address
from airflow_provider_smtpcm.mail.address import to_ascii_domain
from airflow_provider_smtpcm.mail.address_list import parse_address, parse_addresses, parse_valid_addresses
from airflow_provider_smtpcm.mail.tainted import TaintedStr


def to(value: object) -> list[str]:
    return [str(address) for address in parse_addresses(value, field="To")]  # type: ignore[arg-type]


def fault(value: object) -> str:
    with pytest.raises(MessageError) as caught:
        to(value)
    assert caught.value.phase is Phase.MESSAGE
    assert caught.value.remedy and str(caught.value).endswith(caught.value.remedy)
    return str(caught.value)


def test_a_comma_that_may_belong_to_a_name_is_an_error_that_says_how_to_write_it() -> None:
    """'Doe' may be half a name or an address without a domain: the parser does not guess."""
    message = fault("Doe, Jane <jane@corp.example>")

    assert "To" in message and "'Doe'" in message
    assert '"Doe, Jane" <jane@corp.example>' in message and "';'" in message


@pytest.mark.parametrize(
    "value",
    [
        "jane",
        "jane@",
        "@corp.example",
        "@",
        "<>",
        "<jane@corp.example",
        "jane@corp.example>",
        "<<jane@corp.example>>",
        "<jane@corp.example> Jane",
        "<jane@corp.example> <roe@corp.example>",
        "jane@corp.example (Jane)",
        "jane@corp.example <roe@corp.example>",
        "Team: jane@corp.example",
        "Team: jane; roe@corp.example",
        "Bcc: jane@corp.example;",
        "jane@corp@example",
        "jane doe@corp.example",
        "jane@corp example",
        "jane@corp..example",
        "jane@.corp.example",
        "jane@corp.example.",
        "jane@-corp.example",
        "jane@corp:25",
        ".jane@corp.example",
        "jane.@corp.example",
        "ja..ne@corp.example",
        '"jane@corp.example',
        '"jane"doe@corp.example',
        '""@corp.example',
        '"a>b"@corp.example',
        "=?utf-8?q?eve=40evil.example=3E?=@corp.example",
        '"a<b"@corp.example',
        "jane\u200b@corp.example",
        "jane\u00a0doe@corp.example",
        "jane@corp\u00a0.example",
        "jane@＞.example",
        "jane@☃.example",
        "jane@[10.0.0]",
        "jane@[10.0.0.1",
        "jane@[IPv6:fe80::1%eth0]",
        "jane@[IPv6:nonsense]",
        "jane@[x-tag:anything]",
        "jane@" + "a" * 64 + ".example",
        "a@corp.example, Jane <jane@corp.example>; c@corp.example",
        "a@corp.example, b@corp.example; c@corp.example",
        "Doe, Jane <j@corp.example>, b@corp.example; c@corp.example",
    ],
)
def test_what_is_not_an_address_is_refused_by_field_and_text(value: str) -> None:
    """The error names the field and the text."""
    message = fault(value)

    assert "To" in message
    assert "'" in message


@pytest.mark.parametrize("character", ["\0", "\x0b", "\x1b", "\x1c", "\x7f", "\x85", "\u2028", "\u2029", "\ud800"])
@pytest.mark.parametrize(
    "template",
    [
        "jane@corp.example{}",
        "{}jane@corp.example",
        "ja{}ne@corp.example",
        "Jane{} <jane@corp.example>",
        '"{}"@x.example',
    ],
)
def test_a_control_character_is_refused_anywhere(character: str, template: str) -> None:
    """Some programs take it for a line break, which would begin another SMTP command."""
    message = fault(template.format(character))

    assert ("lone surrogate" if character == "\ud800" else "control character") in message
    assert character not in message


@pytest.mark.parametrize("character", ["\r\n", "\n", "\r", "\t"])
@pytest.mark.parametrize(
    "template",
    [
        "ja{}ne@corp.example",
        "jane@{}corp.example",
        "Jane{} <jane@corp.example>",
        '"Ja{}ne" <a@x.example>',
        '"{}"@x.example',
    ],
)
def test_a_line_break_or_a_tab_within_an_address_is_refused(character: str, template: str) -> None:
    """Only around an address it is white space (RFC 5322 2.2.3)."""
    assert character not in fault(template.format(character))


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
@pytest.mark.parametrize(
    "header", ["Bcc: eve@corp.example", "Bcc: eve@corp.example;", "X: <eve@corp.example>", "\tX: e@x.y, f@x.y;"]
)
@pytest.mark.parametrize("first", ["jane@corp.example", "jane@corp.example,", "Jane <jane@corp.example>;", ""])
def test_a_line_that_looks_like_a_header_is_no_address(end: str, header: str, first: str) -> None:
    """Neither a header of the mail nor, silently, a recipient."""
    fault(f"jane@corp.example{end}{first}{end}{header}")
    with pytest.raises(MessageError):
        parse_address(f"{first}{end}{header}{end}", field="From")


def test_an_injected_command_is_refused() -> None:
    """The text after the line break is shown in the error, and never sent."""
    assert r"\r\nBcc:" in fault("jane@corp.example\r\nBcc: eve@corp.example")
    fault("jane@corp.example> SIZE=1")
    fault("<jane@corp.example> BODY=8BITMIME")


@pytest.mark.parametrize(
    "parts",
    [
        {"local_part": "jane>", "domain": "corp.example"},
        {"local_part": "jane\r\n", "domain": "corp.example"},
        {"local_part": "jane", "domain": "corp.example> x"},
        {"local_part": "jane", "domain": "corp.example\r\nDATA"},
        {"local_part": "jane", "domain": "[10.0.0.1]> x"},
        {"local_part": "", "domain": "corp.example"},
        {"local_part": "jane", "domain": ""},
        {"local_part": "jane", "domain": None},
        {"local_part": "jane", "domain": "corp.example", "display_name": "Jane\nBcc: x"},
    ],
)
def test_an_address_that_is_made_by_hand_is_checked_as_well(parts: dict[str, str]) -> None:
    """No constructor bypasses the checks."""
    with pytest.raises(MessageError):
        Address(**parts)


@pytest.mark.parametrize("value", ["[a@x.example, b@x.example]", "('a@x.example', nan)", "[" * 10_000 + "]"])
def test_what_only_looks_like_the_text_of_a_list_is_recognized(value: str) -> None:
    """The error has the remedy."""
    message = fault(value)

    assert "the list as the whole field" in message
    assert "';'" in message


@pytest.mark.parametrize(
    "value", [7, b"jane@corp.example", {"jane@corp.example": "Jane"}, [7], [b"x"], [["a@x.example", 7]], [[7]], [[]]]
)
def test_other_types_are_refused_with_a_message_error(value: object) -> None:
    """A TypeError would not name the field."""
    assert fault(value).startswith(("To takes", "To: item 1 is a row of"))


def test_local_part_and_address_have_the_maximum_length_of_smtp() -> None:
    """RFC 5321 4.5.3.1: 64 octets and 254, counted in UTF-8."""
    assert "64 octets" in fault("j" * 65 + "@corp.example")
    assert "64 octets" in fault("ü" * 33 + "@corp.example")
    assert "254 octets" in fault("j" * 64 + "@" + ".".join(["a" * 47] * 4))

    to("j" * 64 + "@corp.example")
    to("ü" * 32 + "@corp.example")
    longest = parse_address("j" * 64 + "@" + ".".join(["a" * 46] * 3 + ["a" * 48]), field="To")
    assert len(longest.address) == 254


def test_from_takes_exactly_one() -> None:
    """The error has the number of addresses."""
    for value, found in (("", "no address"), (" ; ", "no address"), ("a@x.example; b@x.example", "2 addresses")):
        with pytest.raises(MessageError, match=f"From takes exactly one address.*{found}"):
            parse_address(value, field="From")
    with pytest.raises(MessageError, match="more than one address"):
        parse_address("a@x.example, b@x.example", field="From")

    jane = parse_address("Doe, Jane <jane@corp.example>;", field="From")
    assert (jane.display_name, jane.address) == ("Doe, Jane", "jane@corp.example")
    assert parse_address(jane, field="From") is jane


@pytest.mark.parametrize(
    "value",
    [None, "", "  ", ";", " ; , ;; ", "\n\t\r\n", [], [""], ["  ", ";"], (), [None, math.nan, (None,)], "[]", "Team:;"],
)
def test_blank_text_names_no_recipient(value: object) -> None:
    """Blanks and separators alone name no recipient."""
    assert to(value) == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("jane@corp.example", ["jane@corp.example"]),
        (";; a@x.example;b@x.example ; ;", ["a@x.example", "b@x.example"]),
        ("a@x.example,b@x.example,,", ["a@x.example", "b@x.example"]),
        ("a@x.example,; b@x.example", ["a@x.example", "b@x.example"]),
        ("Doe, Jane <jane@corp.example>;", ['"Doe, Jane" <jane@corp.example>']),
        (
            "Doe, Jane <j@x.example>; Roe, Rich <r@x.example>",
            ['"Doe, Jane" <j@x.example>', '"Roe, Rich" <r@x.example>'],
        ),
        ('"Doe, Jane" <j@x.example>, b@x.example', ['"Doe, Jane" <j@x.example>', "b@x.example"]),
        ('"Doe; Jane" <j@x.example>, b@x.example', ['"Doe; Jane" <j@x.example>', "b@x.example"]),
        ('"J. \\"JD\\" Doe" <j@x.example>', ['"J. \\"JD\\" Doe" <j@x.example>']),
        ("<jane@corp.example>", ["jane@corp.example"]),
        ("Jane (IT) <jane@corp.example>", ['"Jane (IT)" <jane@corp.example>']),
        ("[Ops] Team <ops@corp.example>", ['"[Ops] Team" <ops@corp.example>']),
        ("O'Brien <o'brien@corp.example>", ["O'Brien <o'brien@corp.example>"]),
        ("Jörg Müller <joerg@corp.example>", ["Jörg Müller <joerg@corp.example>"]),
        ('"john doe"@corp.example', ['"john doe"@corp.example']),
        ('"a,b;c@d"@corp.example; x@y.example', ['"a,b;c@d"@corp.example', "x@y.example"]),
        ('"jane"@corp.example', ["jane@corp.example"]),
        ("jane@[10.0.0.1]", ["jane@[10.0.0.1]"]),
        ("jane@[IPv6:2001:db8::1]", ["jane@[IPv6:2001:db8::1]"]),
        ("jane@localhost", ["jane@localhost"]),
        ("jane@my_host.corp.example", ["jane@my_host.corp.example"]),
        (
            ["Doe, Jane <jane@corp.example>", "a@x.example; b@x.example"],
            ['"Doe, Jane" <jane@corp.example>', "a@x.example", "b@x.example"],
        ),
        (Address(local_part="jane", domain="corp.example"), ["jane@corp.example"]),
        ((Address(local_part="jane", domain="corp.example"), "a@x.example"), ["jane@corp.example", "a@x.example"]),
        (iter(["a@x.example"]), ["a@x.example"]),
        ("a@x.example,\n b@x.example", ["a@x.example", "b@x.example"]),
        ("a@x.example\t;\r\n\tb@x.example", ["a@x.example", "b@x.example"]),
        ("\n    a@x.example\n    Bo <b@x.example>\n\n", ["a@x.example", "Bo <b@x.example>"]),
        ("a@x.example\r\nb@x.example\rc@[IPv6:::1]", ["a@x.example", "b@x.example", "c@[IPv6:::1]"]),
        (
            "Doe, Jane <j@x.example>;\nRoe, Rich <r@x.example>",
            ['"Doe, Jane" <j@x.example>', '"Roe, Rich" <r@x.example>'],
        ),
        (["a@x.example\n", "b@x.example\r\n"], ["a@x.example", "b@x.example"]),
        ("a@x.example <a@x.example>, 'B@x.example' <b@x.example>", ["a@x.example", "b@x.example"]),
        ("Team: jane@corp.example;", ["jane@corp.example"]),
        ("Team: A <a@x.example>,\n b@x.example; c@x.example", ["A <a@x.example>", "b@x.example", "c@x.example"]),
        ("a@x.example, Team: b@x.example, c@x.example;, d@x.example", [f"{name}@x.example" for name in "abcd"]),
        ('"A; B": a@x.example;', ["a@x.example"]),
        (
            "Doe, Jane <j@x.example>; Team: a@x.example, b@x.example;",
            ['"Doe, Jane" <j@x.example>', "a@x.example", "b@x.example"],
        ),
        ("['a@x.example', 'Bo <b@x.example>']", ["a@x.example", "Bo <b@x.example>"]),
        ("('a@x.example',)", ["a@x.example"]),
        ('["a@x.example", null]', ["a@x.example"]),
        ([("a@x.example",), ["b@x.example"], {"email": "c@x.example"}, None], [f"{name}@x.example" for name in "abc"]),
        (
            [Address(local_part="jane", domain="corp.example"), (None,), ("a@x.example",)],
            ["jane@corp.example", "a@x.example"],
        ),
    ],
)
def test_addresses_are_read_as_people_write_them(value: object, expected: list[str]) -> None:
    """Semicolons as in SSIS or commas, and superfluous ones are ignored."""
    assert to(value) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a@x.example,\r\n b@x.example",
        "Jane <a@x.example>,\r\n\tb@x.example",
        "Team: a@x.example, b@x.example;",
        '"Doe, Jane" <a@x.example>, Team: b@x.example, "C; D" <c@x.example>;, d@x.example',
    ],
)
def test_an_address_list_of_rfc_5322_means_what_python_s_parser_reads(text: str) -> None:
    """An independent parser of the header field, folded as RFC 5322 2.2.3 allows."""
    message = email.message_from_string(f"To: {text}\r\n\r\n", policy=email.policy.default)
    theirs = [(address.display_name, address.addr_spec) for address in message["To"].addresses]

    assert [(address.display_name, address.address) for address in parse_addresses(text, field="To")] == theirs


def test_rows_of_a_database_are_addresses_if_they_have_one_column() -> None:
    """As a driver returns them, NULL among them; more columns are named."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.row_factory = sqlite3.Row
        rows = database.execute("SELECT 'a@x.example' AS email UNION ALL SELECT NULL ORDER BY 1").fetchall()
        assert to(rows) == ["a@x.example"]
        database.row_factory = None
        assert to(database.execute("SELECT 'a@x.example'")) == ["a@x.example"]
        two = database.execute("SELECT 1, 'a@x.example'").fetchall()
    assert "item 1 is a row of 2 columns" in fault(two)
    assert "2 columns (id, email)" in fault([{"id": 1, "email": "a@x.example"}])


@pytest.mark.parametrize(
    ("value", "expected", "faults"),
    [
        ("dba; a@x.example, b@x.example", ["a@x.example", "b@x.example"], ["'dba'"]),
        ("a@x.example, b@x.example; c@x.example", ["a@x.example", "b@x.example", "c@x.example"], []),
        ('"Ops <ops@x.example>; a@x.example', ["a@x.example"], ["not closed"]),
        ("Team: a@x.example, dba;", ["a@x.example"], ["'dba'"]),
        ("a@x.example\nBcc: b@x.example, c@x.example", ["a@x.example"], ["control character"]),
        ("a@x.example\nX: b@x.example, c@x.example;", ["a@x.example"], ["control character"]),
        ("Bcc: a@x.example, b@x.example;", [], ["':' before the address"]),
        (["a@x.example", "dba", None, 7], ["a@x.example"], ["'dba'", "not int"]),
        (iter(["dba", "a@x.example"]), ["a@x.example"], ["'dba'"]),
        ("['a@x.example', 'dba']", ["a@x.example"], ["'dba'"]),
        (TaintedStr("a@x.example; b@x.example, dba"), [], ["2 addresses"]),
        (7, [], ["not int"]),
        (None, [], []),
    ],
)
def test_of_an_alert_s_addresses_only_the_faulty_ones_are_left_out(
    value: Any, expected: list[str], faults: list[str]
) -> None:
    """Each fault is returned."""
    addresses, found = parse_valid_addresses(value, field="To")
    assert [str(address) for address in addresses] == expected
    assert len(found) == len(faults)
    assert all(part in str(error) for part, error in zip(faults, found, strict=True))


def test_an_address_as_text_parses_to_itself() -> None:
    """`str` of an address can be parsed again."""
    for text in (
        '"Doe, Jane" <jane@corp.example>',
        "Jörg <jörg@bücher.example>",
        '" x " <"a b"@corp.example>',
        '"a\\\\b" <j@x.example>',
    ):
        address = parse_address(text, field="To")
        assert parse_address(str(address), field="To") == address


def test_an_internationalized_domain_is_sent_in_a_labels() -> None:
    """IDNA 2008: `ß` does not become `ss`; only the local part may need SMTPUTF8."""
    address = parse_address("jane@Straße.example", field="To")

    assert address.address == "jane@xn--strae-oqa.example"
    assert address.domain == "Straße.example"
    assert not address.needs_smtputf8


def test_an_ascii_domain_is_kept_as_written() -> None:
    """The case of letters is kept."""
    assert parse_address("Jane@Corp.EXAMPLE", field="To").address == "Jane@Corp.EXAMPLE"
    assert to_ascii_domain("XN--bcher-kva.example") == "XN--bcher-kva.example"


def test_only_a_local_part_beyond_ascii_needs_smtputf8() -> None:
    """RFC 6531 3.2."""
    assert parse_address("jürgen@corp.example", field="To").needs_smtputf8
    assert not parse_address("Jürgen <jurgen@bücher.example>", field="To").needs_smtputf8


def test_a_local_part_is_quoted_only_where_it_must_be() -> None:
    """Two spellings of one mailbox are one mailbox."""
    assert Address(local_part="a b", domain="x.example").address == '"a b"@x.example'
    assert Address(local_part='a"\\b', domain="x.example").address == '"a\\"\\\\b"@x.example'
    assert Address(local_part="a..b", domain="x.example").address == '"a..b"@x.example'
    assert parse_address('"jane"@x.example', field="To") == parse_address("jane@x.example", field="To")


def test_an_address_travels_between_processes() -> None:
    """Airflow pickles what it maps over."""
    address = parse_address("Jörg <jörg@bücher.example>", field="To")

    assert pickle.loads(pickle.dumps(address)) == address  # noqa: S301
    assert pickle.loads(pickle.dumps(address)).address == address.address  # noqa: S301


def test_an_error_stays_short_whatever_was_pasted() -> None:
    """A megabyte in a field does not become a megabyte in a log."""
    assert len(fault("x" * 1_000_000)) < 400
    assert len(fault("jane@" + "ü" * 2_000)) < 600
    assert not re.search(r"[\x00-\x1f]", fault("\x00" * 1_000))
