"""Replies from octets: the same in whatever pieces they arrive, and nothing but replies or a ProtocolError."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_smtpcm.errors import Phase, ProtocolError, Reply
from airflow_provider_smtpcm.smtp.replies import MAX_LINE_OCTETS, MAX_REPLY_OCTETS, ReplyParser, _parse_whole_reply

TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)
CODES = st.integers(200, 599)


def pieces_of(octets: bytes, cuts: list[int]) -> list[bytes]:
    """The octets, cut at these places."""
    borders = sorted({0, len(octets), *(min(cut, len(octets)) for cut in cuts)})
    return [octets[a:b] for a, b in itertools.pairwise(borders)]


def read(pieces: list[bytes]) -> tuple[list[Reply], str]:
    """Every reply in these pieces, and the error with which reading ended."""
    parser = ReplyParser("mail.corp.example:25")
    replies: list[Reply] = []
    for piece in pieces:
        parser.feed(piece)
        try:
            while (reply := parser.next_reply(Phase.ENVELOPE)) is not None:
                replies.append(reply)
        except ProtocolError as error:
            return replies, str(error)
    return replies, ""


@st.composite
def dialects(draw: st.DrawFn) -> bytes:
    """One reply of one to four lines, with either line end."""
    code, texts = draw(CODES), draw(st.lists(TEXTS, min_size=1, max_size=4))
    end = draw(st.sampled_from(["\r\n", "\n"]))
    lines = [f"{code}{' ' if at == len(texts) - 1 else '-'}{text}" for at, text in enumerate(texts)]
    return "".join(f"{line}{end}" for line in lines).encode()


@pytest.mark.parametrize(
    "octets",
    [
        b"hello\r\n",
        b"\r\n",
        b"25 ok\r\n",
        b"2500 ok\r\n",
        b"150 ok\r\n",
        b"600 ok\r\n",
        b"250_ok\r\n",
        b"\xff\xfe250 ok\n",
    ],
)
def test_what_is_no_reply_is_repeated_and_not_taken_for_one(octets: bytes) -> None:
    """RFC 5321 4.2: three digits, the first from 2 to 5, then a blank, a hyphen or the end."""
    assert read([octets])[0] == []
    assert "is not an SMTP reply" in read([octets])[1]


def test_a_tls_alert_is_told_apart() -> None:
    """The port speaks TLS from the start."""
    assert "'Implicit TLS'" in read([b"\x15\x03\x01\x00\x02\x02\x46\n"])[1]


def test_a_reply_that_changes_its_code_is_none() -> None:
    """RFC 5321 4.2.1: every line has the same code."""
    assert "changed the code from 250 to 550" in read([b"250-yes\r\n550 no\r\n"])[1]


@pytest.mark.parametrize(
    "pieces",
    [
        [b"2" * 1000] * (MAX_LINE_OCTETS // 1000 + 1),
        [b"250 " + b"x" * MAX_LINE_OCTETS + b"\r\n"],
        [b"250-and so on\r\n"] * (MAX_REPLY_OCTETS // 10),
        [b"250-\r\n"] * (MAX_REPLY_OCTETS + 1),
    ],
)
def test_a_reply_without_end_is_given_up(pieces: list[bytes]) -> None:
    """Whether it is one line or many."""
    assert "an endless reply" in read(pieces)[1]


def test_a_secret_is_not_repeated() -> None:
    """A challenge that is no reply could be anything; and it is not remembered."""
    parser = ReplyParser("mail.corp.example:25")
    parser.feed(b"TlRMTVNTUAAC\r\n")
    with pytest.raises(ProtocolError) as caught:
        parser.next_reply(Phase.AUTH, secret=True)
    assert "TlRM" not in str(caught.value)
    parser = ReplyParser("mail.corp.example:25")
    parser.feed(b"334 TlRMTVNTUAAC\r\n")
    remembered = _parse_whole_reply.cache_info()
    assert parser.next_reply(Phase.AUTH, secret=True)
    assert _parse_whole_reply.cache_info() == remembered


def test_controls_in_a_reply_do_not_reach_a_log() -> None:
    """Nor a terminal."""
    ((reply,), _) = read([b"550 5.1.1 \x1b[31mno\x00 \xc2\x85such\rone\r\n"])
    assert reply == Reply(code=550, enhanced="5.1.1", text="?[31mno? ?such?one")


def test_what_is_not_a_whole_reply_is_waited_for() -> None:
    """And what waits is counted, since before TLS it would be an attack (RFC 3207 6)."""
    parser = ReplyParser("mail.corp.example:25")
    assert parser.next_reply(Phase.ENVELOPE) is None
    assert parser.pending == 0
    parser.feed(b"250-mail\r\n250 SI")
    assert parser.next_reply(Phase.ENVELOPE) is None
    assert parser.pending > 0
    parser.feed(b"ZE\r\n")
    assert parser.next_reply(Phase.ENVELOPE) == Reply(code=250, text="mail\nSIZE")
    assert parser.pending == 0


def test_an_enhanced_code_is_taken_out_of_every_line() -> None:
    """RFC 2034 4: each line of a reply has it."""
    ((reply,), _) = read([b"550-5.7.1 not\r\n550-5.7.1\r\n550 5.7.1 for you\r\n"])
    assert reply == Reply(code=550, enhanced="5.7.1", text="not\n\nfor you")


def test_a_line_that_is_known_means_something_else_within_a_reply() -> None:
    """Lines that are whole replies are remembered; the last line of a longer reply may look the same."""
    replies, fault = read([b"250 ok\r\n", b"250-first\r\n250 ok\r\n", b"250 ok\r\n"])
    assert [reply.text for reply in replies] == ["ok", "first\nok", "ok"]
    assert not fault


@given(replies=st.lists(dialects(), max_size=8), cuts=st.lists(st.integers(0, 400), max_size=10))
def test_any_pieces_make_the_same_replies(replies: list[bytes], cuts: list[int]) -> None:
    """Whole, by byte, and cut anywhere."""
    octets = b"".join(replies)
    whole = read([octets])
    assert len(whole[0]) == len(replies)
    assert read([bytes((octet,)) for octet in octets]) == whole
    assert read(pieces_of(octets, cuts)) == whole


@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.sampled_from([b"2", b"50", b"250", b"550 5.1.1", b"-", b" ", b"\r", b"\n", b"\r\n", b"\xff", b"x"])
        ).map(b"".join),
    ),
    st.lists(st.integers(0, 200), max_size=5),
)
def test_arbitrary_octets_make_replies_or_one_fault(octets: bytes, cuts: list[int]) -> None:
    """Never anything else, and wherever they were cut, the same."""
    replies, fault = read([octets])
    assert all(200 <= reply.code <= 599 for reply in replies)
    assert read(pieces_of(octets, cuts)) == (replies, fault)
    assert read([bytes((octet,)) for octet in octets]) == (replies, fault)
