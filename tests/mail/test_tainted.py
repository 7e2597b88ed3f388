"""Taint tracking: only what the author wrote separates, quotes and names folders."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail.address import Address
from airflow_provider_smtpcm.mail.address_list import parse_address, parse_addresses
from airflow_provider_smtpcm.mail.attachment import parse_attachments, parse_inline_images
from airflow_provider_smtpcm.mail.tainted import DATA, MIXED, TaintedStr


def rendered(template: str, *values: str) -> TaintedStr:
    """A template with `{}` for each value that is filled in."""
    parts: list[tuple[str, bool]] = []
    for number, text in enumerate(template.split("{}")):
        if number:
            parts.append((values[number - 1], False))
        parts.append((text, True))
    mask = "".join(part if written else DATA * len(part) for part, written in parts)
    return TaintedStr("".join(part for part, _ in parts), mask)


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ('"N" <{}>', "jane@corp.example> <m@evil.example"),
        ('"N" <{}>', "Mallory <m@evil.example>"),
        ('"N" <{}>', "jane@corp.example, m@evil.example"),
        ("{}@corp.example", "m@evil.example; jane"),
        ("{}@corp.example", "m@evil.example"),
        ("{}@corp.example", "Mallory <m@evil.example>; jane"),
        ("boss@corp.example; {}", "jane@corp.example; m@evil.example"),
        ("boss@corp.example, {}", "jane@corp.example, m@evil.example"),
        ("{}; boss@corp.example", "jane@corp.example\r\nBcc: m@evil.example"),
    ],
)
def test_a_value_that_is_no_part_of_one_address_is_a_fault(template: str, value: str) -> None:
    """The error names the field, and no recipient is added."""
    with pytest.raises(MessageError, match=r"To:|To takes"):
        parse_addresses(rendered(template, value), field="To")


@pytest.mark.parametrize("name", ["Doe, Jane", 'Jane "JD" Doe', "Jane\\", "<m@evil.example>", "a; b", "Jürgen: x@y"])
@pytest.mark.parametrize("template", ['"{}" <jane@corp.example>', "{} <jane@corp.example>"])
def test_a_name_is_shown_as_it_is(name: str, template: str) -> None:
    """With and without quotation marks around it, alone and beside others."""
    jane = Address(display_name=name, local_part="jane", domain="corp.example")
    assert parse_address(rendered(template, name), field="From") == jane
    boss = Address(local_part="boss", domain="corp.example")
    assert parse_addresses(rendered(f"{template}; boss@corp.example", name), field="To") == (jane, boss)


def test_quotation_marks_and_backslashes_of_the_author_mean_what_they_mean() -> None:
    """Next to a value that contains some too."""
    (jane,) = parse_addresses(rendered(r'"the \"{}\", \\ {}" <jane@corp.example>', '"\\', "x"), field="To")
    assert jane.display_name == r'the ""\", \ x'


def test_an_empty_value_leaves_a_recipient_out() -> None:
    """As a superfluous separator does."""
    assert len(parse_addresses(rendered("boss@corp.example; {}; {}", "", " "), field="To")) == 1
    assert parse_addresses(rendered("{}", ""), field="To") == ()


def test_a_comma_of_the_author_in_a_name_says_where_quotation_marks_go() -> None:
    """As without values."""
    with pytest.raises(MessageError, match="does the comma belong to a name"):
        parse_addresses(rendered("Doe, {} <jane@corp.example>", "Jane"), field="To")


@pytest.mark.parametrize(
    ("template", "values"),
    [
        ("/srv/{}/x.pdf", ("..",)),
        ("/srv/{}", ("a/../../x",)),
        ("/srv/{}", ("..\\x",)),
        ("/srv/.{}/x", (".",)),
        ("/srv/{}{}/x", (".", ".")),
        ("/srv/{}../x", ("a/",)),
        ("{}.pdf", ("../x",)),
        ("{}/x.pdf", ("..",)),
    ],
)
def test_a_parent_step_that_a_value_adds_is_a_fault(template: str, values: tuple[str, ...]) -> None:
    """As a whole or in parts, with either slash."""
    with pytest.raises(MessageError, match="leads out of its folder"):
        parse_attachments(rendered(template, *values))
    with pytest.raises(MessageError, match="leads out of its folder"):
        parse_attachments([rendered(template, *values)])
    with pytest.raises(MessageError, match="leads out of its folder"):
        parse_inline_images({"logo": rendered(template, *values)})


def test_the_author_may_write_parent_steps() -> None:
    """The same for dots in a name, folders below, and a path that is one value alone."""
    for template, value in (("/srv/../{}.pdf", "a"), ("/srv/{}", "a..b/...c"), ("{}", "../x"), (" {} ", "../x")):
        assert parse_attachments(rendered(template, value))


def test_text_of_mixed_origin_is_one_address_and_one_path() -> None:
    """For example, after a filter changed what the author and a value wrote together."""
    for text, faulty in (("Jane <jane@corp.example>", False), ("a@corp.example; m@evil.example", True)):
        mixed = TaintedStr(text, MIXED * len(text))
        if faulty:
            with pytest.raises(MessageError, match="exactly one address"):
                parse_addresses(mixed, field="To")
        else:
            assert [address.address for address in parse_addresses(mixed, field="To")] == ["jane@corp.example"]
    assert len(parse_attachments(TaintedStr("/srv/a|b", MIXED * 8))) == 1
    with pytest.raises(MessageError, match="leads out of its folder"):
        parse_attachments(TaintedStr("/srv/../b", MIXED * 9))


def test_an_address_is_plain_text() -> None:
    """Results and logs need no marks."""
    (jane,) = parse_addresses(rendered("{}@corp.example", "jane"), field="To")
    assert type(jane.address) is str


def test_a_list_s_item_is_one_file_whatever_it_holds() -> None:
    """A `|` in it is part of its name."""
    (file,) = parse_attachments([TaintedStr("a|b")])
    assert file.path == "a|b"


def test_a_copy_keeps_the_mask() -> None:
    """Airflow copies and pickles what a task holds."""
    text = rendered("a; {}", "b; c")
    for copied in (copy.copy(text), copy.deepcopy(text), pickle.loads(pickle.dumps(text))):  # noqa: S301 - our own
        assert (copied, copied.mask, type(copied)) == (text, text.mask, TaintedStr)
    assert type(str(text)) is str


SPECIAL = st.sampled_from([*'";,<>@|\\/.: ', "..", "/../", "m@evil.example", "<m@evil.example>"])
values = st.lists(SPECIAL | st.text(max_size=3), max_size=6).map("".join)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(values, values)
def test_whatever_the_values_are_nothing_is_added(name: str, address: str) -> None:
    """Two recipients stay at most two, and two files two."""
    for template in ('"{}" <{}>; boss@corp.example', "{} <{}>; boss@corp.example", "{}{}; boss@corp.example"):
        try:
            found = parse_addresses(rendered(template, name, address), field="To")
        except MessageError:
            continue
        assert found[-1].address == "boss@corp.example"
        assert len(found) <= 2
        if "<" in template and len(found) == 2:
            assert found[0].address == parse_address(address, field="To").address
            assert found[0].display_name == name.strip()
    try:
        files = parse_attachments(rendered("/srv/a.pdf|/srv/b/{}-{}", name, address))
    except MessageError:
        return
    assert [str(file.path)[:7] for file in files] == ["/srv/a.", "/srv/b/"]
    assert ".." not in str(files[1].path).replace("\\", "/").split("/")
