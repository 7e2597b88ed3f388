"""Header fields: folded, and 7-bit by RFC 2047 and RFC 2231; and Message-IDs (RFC 5322 3.6.4). Pure."""

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

_LINE = 78  # RFC 5322 2.1.1: no line should be longer
_FOLDED_LINE = 76  # RFC 2047 2: no line with an encoded word may be longer
_ENCODED_WORD = 75  # RFC 2047 2
_ENCODED_WORD_FRAME = len("=?utf-8?q??=")
_SHORTEST_ENCODED_WORD = 30  # with less space left on a line, the encoded word begins on the next one
_LONGEST_TOKEN = 900  # a longer one is encoded, since encoded words can be split; a line has 998 octets at most
_FIRST_NAME_WORD = _FOLDED_LINE - len("Reply-To: ")

_TOKEN = re.compile(" *[^ ]+")
_TYPE_PARAMETERS = re.compile(r'(?:"[^"]*"|[^";])+;?')

_ALPHANUMERIC = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
# RFC 2047 5 (3): allowed in a Q word everywhere, also before an address; a blank is "_".
_Q_PLAIN = _ALPHANUMERIC + b"!*+-/"
_Q = ["_" if octet == 0x20 else chr(octet) if octet in _Q_PLAIN else f"={octet:02X}" for octet in range(256)]
# RFC 5987 3.2.1, which leaves out a few characters of RFC 2231 7 (attribute-char).
_PARAMETER_PLAIN = _ALPHANUMERIC + b"!#$&+-.^_`|~"
_PERCENT = [chr(octet) if octet in _PARAMETER_PLAIN else f"%{octet:02X}" for octet in range(256)]

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def render_unstructured(name: str, value: str) -> bytes:
    """Render a field of free text, such as Subject.

    From the first to the last word that is not ASCII, or looks encoded, the text becomes encoded words. ASCII before
    and after them stays as it is, as the address does in `Jürgen <j@corp.example>`.

    Args:
        name: of the field.
        value: one line.
    """
    if not value:
        return f"{name}:\r\n".encode()
    if value.isascii() and len(name) + 2 + len(value) <= _LINE and "=?" not in value:
        return f"{name}: {value}\r\n".encode()
    tokens = _TOKEN.findall(value)
    unsafe = [index for index, token in enumerate(tokens) if _needs_encoding(token)]
    if unsafe:
        before, after = tokens[: unsafe[0]], tokens[unsafe[-1] + 1 :]
        # One blank separates an encoded word from the next word; further blanks are kept only inside an encoded word.
        text = "".join(tokens[unsafe[0] : unsafe[-1] + 1])[1 if before else 0 :]
        if after:
            blanks = len(after[0]) - len(after[0].lstrip(" ")) - 1
            text, after[0] = text + " " * blanks, after[0][blanks:]
        column = len(name) + 2 + len("".join(before)) + (1 if before else 0)
        words = encode_words(text, first=_FOLDED_LINE - column)
        tokens = [*before, *(f" {word}" for word in words), *after]
    return _fold(name, [f" {tokens[0].lstrip(' ')}", *tokens[1:]])


def render_mailboxes(name: str, addresses: Sequence[Address]) -> bytes:
    """Render a field of addresses, such as To."""
    tokens: list[str] = []
    for address in addresses:
        if tokens:
            tokens[-1] += ","
        tokens += _mailbox_tokens(address)
    return _fold(name, tokens)


def render_content_type(value: str) -> bytes:
    """Render the Content-Type field from a checked media type with its parameters."""
    return _fold("Content-Type", [f" {token.strip(' ')}" for token in _TYPE_PARAMETERS.findall(value)])


def render_content_disposition(disposition: str, file_name: str) -> bytes:
    """Render the Content-Disposition field: `attachment` or `inline`, and the name of the file (RFC 2183)."""
    parameters = render_parameter("filename", file_name)
    tokens = [f" {disposition};", *(f"{token};" for token in parameters[:-1]), parameters[-1]]
    return _fold("Content-Disposition", tokens)


def render_date(date: datetime | None) -> bytes:
    """Render the Date field (RFC 5322 3.3) in UTC.

    Args:
        date: with a time zone; None: now.

    Raises:
        MessageError: the date has no time zone.
    """
    if date is None:
        date = datetime.now(UTC)
    elif date.tzinfo is None:
        raise MessageError("The date of a mail has no time zone.", remedy="Give it one: datetime.now(UTC).")
    else:
        date = date.astimezone(UTC)
    # Not strftime, whose names depend on the locale.
    return (
        f"Date: {_DAYS[date.weekday()]}, {date.day:02d} {_MONTHS[date.month - 1]} {date.year:04d} "
        f"{date.hour:02d}:{date.minute:02d}:{date.second:02d} +0000\r\n"
    ).encode()


def encode_words(text: str, *, first: int = _ENCODED_WORD) -> list[str]:
    """Encode text as RFC 2047 encoded words in UTF-8, by Q or B, whichever is shorter. No character is split (5 (3)).

    Args:
        text: one line.
        first: the maximum length of the first word. If it is below 30, the first word is as long as the others.
    """
    octets = text.encode()
    plain = len(octets) - len(octets.translate(None, _Q_PLAIN + b" "))
    by_q = 3 * len(octets) - 2 * plain <= 4 * -(-len(octets) // 3)
    longest_first = min(first, _ENCODED_WORD) if first >= _SHORTEST_ENCODED_WORD else _ENCODED_WORD
    payload = longest_first - _ENCODED_WORD_FRAME
    following = _ENCODED_WORD - _ENCODED_WORD_FRAME
    if by_q:
        characters = ["".join([_Q[octet] for octet in character.encode()]) for character in text]
        return [f"=?utf-8?q?{''.join(part)}?=" for part in _group(characters, payload, following)]
    characters_octets = [character.encode() for character in text]
    return [
        f"=?utf-8?b?{b2a_base64(b''.join(part), newline=False).decode()}?="
        for part in _group(characters_octets, payload // 4 * 3, following // 4 * 3)
    ]


def render_parameter(name: str, value: str) -> list[str]:
    """Render a parameter as one token, or as several if it is long (RFC 2231 3). Each begins with a blank."""
    if value.isascii() and not any(special in value for special in ('"', "\\", "=?")):
        whole, numbered, end = f' {name}="', ' {}*{}="', '"'
        characters = list(value)
    else:
        # RFC 2231 4. Quotation marks would be legal in a quoted string, but many mail programs show them wrong.
        whole, numbered, end = f" {name}*=utf-8''", " {}*{}*=", ""
        characters = ["".join([_PERCENT[octet] for octet in character.encode()]) for character in value]
    token = f"{whole}{''.join(characters)}{end}"
    if len(token) < _FOLDED_LINE:
        return [token]
    longest = _FOLDED_LINE - len(numbered.format(name, 100)) - len(end) - 1
    charset = "" if end else "utf-8''"
    parts = _group(characters, longest - len(charset), longest)
    texts = [charset + "".join(parts[0]), *map("".join, parts[1:])]
    return [f"{numbered.format(name, index)}{text}{end}" for index, text in enumerate(texts)]


def _mailbox_tokens(address: Address) -> list[str]:
    """Return one mailbox as tokens, each with the blank before it."""
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


def _fold(name: str, tokens: Iterable[str]) -> bytes:
    """Join the tokens of a field, with line breaks before tokens that would make a line too long (RFC 5322 2.2.3)."""
    lines: list[str] = []
    line = f"{name}:"
    for token in tokens:
        # A first token that is too long even for a line of its own stays next to the name: no line is blank.
        if len(line) + len(token) > _FOLDED_LINE and (" " in line or len(token) <= _FOLDED_LINE):
            lines.append(line)
            line = token
        else:
            line += token
    return "\r\n".join([*lines, line, ""]).encode()


def _needs_encoding(token: str) -> bool:
    return not token.isascii() or "=?" in token or len(token) > _LONGEST_TOKEN


def _group(items: Sequence[_T], first: int, following: int) -> list[list[_T]]:
    """Group items so that no group is longer than `first`, or `following` after the first group."""
    groups: list[list[_T]] = [[]]
    left = first
    for item in items:
        if len(item) > left:
            groups.append([])
            left = following
        groups[-1].append(item)
        left -= len(item)
    return groups


_message_numbers = count()


def new_message_id(domain: str) -> str:
    """Make a random Message-ID.

    Args:
        domain: of the sender, as in `Address.domain`.
    """
    # One request for random octets for each process: one for each mail would cost a tenth of the time to send it.
    return f"<{_process_token()}{next(_message_numbers):08x}@{to_ascii_domain(domain)}>"


def stable_message_id(domain: str, *parts: str | int) -> str:
    """Make the Message-ID of these parts: the same for every attempt of the same mail.

    Args:
        domain: of the sender, as in `Address.domain`.
        parts: what identifies the mail, such as the DAG, the run, the task and the map index. Their order matters.

    Raises:
        ValueError: there are no parts.
    """
    import hashlib

    if not parts:
        raise ValueError("Without parts, every mail would have the same Message-ID.")
    octets = [str(part).encode("utf-8", "surrogatepass") for part in parts]
    # Each with its length, so that ("a", "bc") and ("ab", "c") differ.
    digest = hashlib.sha256(b"".join([b"%d:%b" % (len(part), part) for part in octets]))
    return f"<{digest.hexdigest()[:32]}@{to_ascii_domain(domain)}>"


@cache
def _process_token() -> str:
    return os.urandom(12).hex()


os.register_at_fork(after_in_child=_process_token.cache_clear)
