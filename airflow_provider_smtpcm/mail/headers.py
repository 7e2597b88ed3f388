"""Header fields as octets: folded, and 7-bit by RFC 2047 and RFC 2231. Knows what a field looks like, not what for."""

from __future__ import annotations

import os
import re
from binascii import b2a_base64
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import count
from typing import TypeVar

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail.address import Address, format_phrase, to_ascii_domain

_T = TypeVar("_T", str, bytes)

_LINE = 78  # RFC 5322 2.1.1: lines should be no longer,
_FOLDED_LINE = 76  # and those with an encoded word must be no longer than this (RFC 2047 2)
_ENCODED_WORD = 75  # RFC 2047 2
_ENCODED_WORD_FRAME = len("=?utf-8?q??=")
_LEAST_ROOM = 30  # an encoded word shorter than this is not worth the rest of a line
_LONGEST_TOKEN = 900  # anything longer is encoded, where encoded words may be split: a line ends at 998
_FIRST_NAME_WORD = _FOLDED_LINE - len("Reply-To: ")

_TOKEN = re.compile(" *[^ ]+")
_TYPE_PARAMETERS = re.compile(r'(?:"[^"]*"|[^";])+;?')

_ALPHANUMERIC = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
# RFC 2047 5 (3): what a Q word may hold everywhere, before an address as well; a blank is "_".
_Q_PLAIN = _ALPHANUMERIC + b"!*+-/"
_Q = ["_" if octet == 0x20 else chr(octet) if octet in _Q_PLAIN else f"={octet:02X}" for octet in range(256)]
# RFC 2231 7, attribute-char; RFC 5987 3.2.1 has the same without the characters that a URL would not carry either.
_PARAMETER_PLAIN = _ALPHANUMERIC + b"!#$&+-.^_`|~"
_PERCENT = [chr(octet) if octet in _PARAMETER_PLAIN else f"%{octet:02X}" for octet in range(256)]

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def render_unstructured(name: str, value: str) -> bytes:
    """A field of free text, such as Subject; what is not ASCII, or looks encoded, goes in encoded words.

    Words of ASCII before and after the encoded ones stay as they are: in `Jürgen <j@corp.example>`, the address does.
    """
    if not value:
        return f"{name}:\r\n".encode()
    if value.isascii() and len(name) + 2 + len(value) <= _LINE and "=?" not in value:
        return f"{name}: {value}\r\n".encode()
    tokens = _TOKEN.findall(value)
    strange = [index for index, token in enumerate(tokens) if _must_be_encoded(token)]
    if strange:
        before, after = tokens[: strange[0]], tokens[strange[-1] + 1 :]
        # One blank separates an encoded word from its neighbour; more of them can only stand inside of it.
        text = "".join(tokens[strange[0] : strange[-1] + 1])[1 if before else 0 :]
        if after:
            blanks = len(after[0]) - len(after[0].lstrip(" ")) - 1
            text, after[0] = text + " " * blanks, after[0][blanks:]
        column = len(name) + 2 + len("".join(before)) + (1 if before else 0)
        words = encode_words(text, first=_FOLDED_LINE - column)
        tokens = [*before, *(f" {word}" for word in words), *after]
    return _folded(name, [f" {tokens[0].lstrip(' ')}", *tokens[1:]])


def render_mailboxes(name: str, addresses: Sequence[Address]) -> bytes:
    """A field of addresses, such as To."""
    tokens: list[str] = []
    for address in addresses:
        if tokens:
            tokens[-1] += ","
        tokens += _mailbox(address)
    return _folded(name, tokens)


def render_content_type(value: str) -> bytes:
    """The Content-Type field from a checked media type with its parameters."""
    return _folded("Content-Type", [f" {token.strip(' ')}" for token in _TYPE_PARAMETERS.findall(value)])


def render_content_disposition(disposition: str, file_name: str) -> bytes:
    """The Content-Disposition field: `attachment` or `inline`, and the name of the file (RFC 2183)."""
    parameters = render_parameter("filename", file_name)
    tokens = [f" {disposition};", *(f"{token};" for token in parameters[:-1]), parameters[-1]]
    return _folded("Content-Disposition", tokens)


def render_date(date: datetime | None) -> bytes:
    """The Date field (RFC 5322 3.3) in UTC; now, if there is no date."""
    if date is None:
        date = datetime.now(UTC)
    elif date.tzinfo is None:
        raise MessageError("The date of a mail has no time zone.", remedy="Give it one: datetime.now(UTC).")
    else:
        date = date.astimezone(UTC)
    # Not strftime: its names follow the locale.
    return (
        f"Date: {_DAYS[date.weekday()]}, {date.day:02d} {_MONTHS[date.month - 1]} {date.year:04d} "
        f"{date.hour:02d}:{date.minute:02d}:{date.second:02d} +0000\r\n"
    ).encode()


def encode_words(text: str, *, first: int = _ENCODED_WORD) -> list[str]:
    """The text as RFC 2047 encoded words in UTF-8, by Q or B, whichever is shorter; no character is split (5, 3).

    Args:
        first: the room for the first of them; where that is hardly any, the first one is as long as the others.
    """
    octets = text.encode()
    plain = len(octets) - len(octets.translate(None, _Q_PLAIN + b" "))
    by_q = 3 * len(octets) - 2 * plain <= 4 * -(-len(octets) // 3)
    room = min(first, _ENCODED_WORD) if first >= _LEAST_ROOM else _ENCODED_WORD
    payload = room - _ENCODED_WORD_FRAME
    following = _ENCODED_WORD - _ENCODED_WORD_FRAME
    if by_q:
        characters = ["".join([_Q[octet] for octet in character.encode()]) for character in text]
        return [f"=?utf-8?q?{''.join(part)}?=" for part in _parts(characters, payload, following)]
    characters_octets = [character.encode() for character in text]
    return [
        f"=?utf-8?b?{b2a_base64(b''.join(part), newline=False).decode()}?="
        for part in _parts(characters_octets, payload // 4 * 3, following // 4 * 3)
    ]


def render_parameter(name: str, value: str) -> list[str]:
    """A parameter as one token, or as several where it is long (RFC 2231 3); each begins with its blank."""
    if value.isascii() and not any(special in value for special in ('"', "\\", "=?")):
        whole, numbered, end = f' {name}="', ' {}*{}="', '"'
        characters = list(value)
    else:
        # RFC 2231 4. Quotation marks would be legal in a quoted string, and come out wrong in many a reader.
        whole, numbered, end = f" {name}*=utf-8''", " {}*{}*=", ""
        characters = ["".join([_PERCENT[octet] for octet in character.encode()]) for character in value]
    token = f"{whole}{''.join(characters)}{end}"
    if len(token) < _FOLDED_LINE:
        return [token]
    room = _FOLDED_LINE - len(numbered.format(name, 100)) - len(end) - 1
    charset = "" if end else "utf-8''"
    parts = _parts(characters, room - len(charset), room)
    texts = [charset + "".join(parts[0]), *map("".join, parts[1:])]
    return [f"{numbered.format(name, index)}{text}{end}" for index, text in enumerate(texts)]


def _mailbox(address: Address) -> list[str]:
    """One mailbox as tokens, each with the blank before it."""
    name = address.display_name
    if not name:
        return [f" {address.address}"]
    if name.isascii() and "=?" not in name:
        written = format_phrase(name)
        if written != name and len(written) < _FIRST_NAME_WORD:
            return [f" {written}", f" <{address.address}>"]
        if written == name and len(name) < _LONGEST_TOKEN:
            return [*(f" {word}" for word in name.split(" ")), f" <{address.address}>"]
    words = encode_words(name, first=_FIRST_NAME_WORD)
    return [*(f" {word}" for word in words), f" <{address.address}>"]


def _folded(name: str, tokens: Iterable[str]) -> bytes:
    """The field in lines that are as long as they should be, if the tokens let them (RFC 5322 2.2.3)."""
    lines: list[str] = []
    line = f"{name}:"
    for token in tokens:
        # A first token that would fill a line of its own stays beside the name: a line of blanks helps nobody.
        if len(line) + len(token) > _FOLDED_LINE and (" " in line or len(token) <= _FOLDED_LINE):
            lines.append(line)
            line = token
        else:
            line += token
    return "\r\n".join([*lines, line, ""]).encode()


def _must_be_encoded(token: str) -> bool:
    return not token.isascii() or "=?" in token or len(token) > _LONGEST_TOKEN


def _parts(items: Sequence[_T], first: int, following: int) -> list[list[_T]]:
    """The items in groups whose lengths together do not exceed the room."""
    groups: list[list[_T]] = [[]]
    room = first
    for item in items:
        if len(item) > room:
            groups.append([])
            room = following
        groups[-1].append(item)
        room -= len(item)
    return groups


# folded: Message-IDs (RFC 5322 3.6.4): a random one, and one that every try of the same mail bears.

_made = count()


def new_message_id(domain: str) -> str:
    """A Message-ID that nobody has used.

    Args:
        domain: the sender's, as `Address.domain` has it.
    """
    # The system is asked for random octets once for each process: for each mail it would cost a tenth of sending it.
    return f"<{_of_this_process()}{next(_made):08x}@{to_ascii_domain(domain)}>"


def stable_message_id(domain: str, *parts: str | int) -> str:
    """The Message-ID that these parts, in this order, always have.

    Args:
        domain: the sender's, as `Address.domain` has it.
        parts: what makes the mail this one and no other, such as the DAG, the run, the task and the map index.
    """
    import hashlib

    if not parts:
        raise ValueError("Without parts every mail would have the same Message-ID.")
    octets = [str(part).encode("utf-8", "surrogatepass") for part in parts]
    # With its length before it, ("a", "bc") is not ("ab", "c").
    digest = hashlib.sha256(b"".join([b"%d:%b" % (len(part), part) for part in octets]))
    return f"<{digest.hexdigest()[:32]}@{to_ascii_domain(domain)}>"


@cache
def _of_this_process() -> str:
    return os.urandom(12).hex()


os.register_at_fork(after_in_child=_of_this_process.cache_clear)
