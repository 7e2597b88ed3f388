"""Header fields: folding, encoded words (RFC 2047), parameters (RFC 2231), and Message-IDs (RFC 5322 3.6.4)."""

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

# Lengths in characters.
MAX_LINE = 78  # RFC 5322 2.1.1
_MAX_FOLDED_LINE = 76  # RFC 2047 2, for a line with an encoded word
_MAX_ENCODED_WORD = 75  # RFC 2047 2
_ENCODED_WORD_OVERHEAD = len("=?utf-8?q??=")
_MIN_FIRST_ENCODED_WORD = 30  # with less room left on a line, the encoded word begins on the next line
_MAX_UNFOLDED_LINE = 998  # RFC 5322 2.1.1
#: The maximum length of a word: with the longest field name before it, it fits on a line. A longer word of free text is
#: encoded, since encoded words can be split.
MAX_TOKEN = 900
# Maximum length of the first word of a display name, so that it fits on a line after most field names.
_MAX_FIRST_PHRASE_WORD = _MAX_FOLDED_LINE - len("Reply-To: ")

_SPACED_WORD = " *[^ ]+"
_TYPE_PARAMETERS = r'(?:"[^"]*"|[^";])+;?'
_NAME_PARAMETER = r"(?i); *name\*?[0-9*]*="

_ALPHANUMERIC = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
# RFC 2047 5 (3): these need no escape in a Q word, not even in a display name; a space is "_".
_Q_UNESCAPED = _ALPHANUMERIC + b"!*+-/"
# RFC 5987 3.2.1 (attr-char), a subset of RFC 2231 7 (attribute-char).
_PARAMETER_UNESCAPED = _ALPHANUMERIC + b"!#$&+-.^_`|~"

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def render_unstructured(name: str, value: str) -> bytes:
    """Render a field of free text, such as Subject.

    The text from the first to the last word that is not ASCII, or looks like an encoded word, becomes encoded words.
    ASCII before and after it stays unchanged, like the address in `Jürgen <j@corp.example>`.

    Args:
        name: the field name.
        value: one line.
    """
    if not value:
        return f"{name}:\r\n".encode()
    if value.isascii() and len(name) + 2 + len(value) <= MAX_LINE and "=?" not in value:
        return f"{name}: {value}\r\n".encode()
    tokens = re.findall(_SPACED_WORD, value)
    unsafe = [index for index, token in enumerate(tokens) if _needs_encoding(token)]
    if unsafe:
        before, after = tokens[: unsafe[0]], tokens[unsafe[-1] + 1 :]
        # One space separates an encoded word from the next word; further spaces are kept only inside an encoded word.
        text = "".join(tokens[unsafe[0] : unsafe[-1] + 1])[1 if before else 0 :]
        if after:
            spaces = len(after[0]) - len(after[0].lstrip(" ")) - 1
            text, after[0] = text + " " * spaces, after[0][spaces:]
        column = len(name) + 2 + len("".join(before)) + (1 if before else 0)
        words = encode_words(text, first_length=_MAX_FOLDED_LINE - column)
        tokens = [*before, *(f" {word}" for word in words), *after]
    return render_tokens(name, [f" {tokens[0].lstrip(' ')}", *tokens[1:]])


def render_mailboxes(name: str, addresses: Sequence[Address]) -> bytes:
    """Render a field of addresses, such as To."""
    if len(addresses) == 1 and not addresses[0].display_name:  # as in most mails
        return f"{name}: {addresses[0].address}\r\n".encode()
    tokens: list[str] = []
    for address in addresses:
        if tokens:
            tokens[-1] += ","
        if address.display_name:
            tokens += make_phrase_tokens("" if tokens else name, address.display_name)
            tokens.append(f" <{address.address}>")
        else:
            tokens.append(f" {address.address}")
    return render_tokens(name, tokens)


def render_content_type(value: str, file_name: str = "") -> bytes:
    """Render the Content-Type field.

    Args:
        value: a valid media type with its parameters.
        file_name: the name of the file in the part. If it cannot be a quoted string in Content-Disposition, it is added
            as encoded words, for older programs that do not read RFC 2231.
    """
    tokens = [f" {token.strip(' ')}" for token in re.findall(_TYPE_PARAMETERS, value)]
    if file_name and not _is_quotable(file_name) and not re.search(_NAME_PARAMETER, value):
        tokens[-1] += ";"
        tokens += _make_encoded_name_tokens(file_name)
    return render_tokens("Content-Type", tokens)


def render_content_disposition(disposition: str, file_name: str) -> bytes:
    """Render the Content-Disposition field: `attachment` or `inline`, and the name of the file (RFC 2183)."""
    parameters = render_parameter("filename", file_name)
    tokens = [f" {disposition};", *(f"{token};" for token in parameters[:-1]), parameters[-1]]
    return render_tokens("Content-Disposition", tokens)


def render_date(date: datetime | None) -> bytes:
    """Render the Date field (RFC 5322 3.3) in UTC.

    Args:
        date: a date with a time zone; None: now.

    Raises:
        MessageError: the date has no time zone.
    """
    if date is None:
        date = datetime.now(UTC)
    elif date.tzinfo is None:
        raise MessageError("The date of a mail has no time zone.", remedy="Give it one: datetime.now(UTC).")
    else:
        date = date.astimezone(UTC)
    # Not strftime, whose names of days and months depend on the locale.
    return (
        f"Date: {_DAYS[date.weekday()]}, {date.day:02d} {_MONTHS[date.month - 1]} {date.year:04d} "
        f"{date.hour:02d}:{date.minute:02d}:{date.second:02d} +0000\r\n"
    ).encode()


def encode_words(
    text: str, *, first_length: int = _MAX_ENCODED_WORD, next_length: int = _MAX_ENCODED_WORD
) -> list[str]:
    """Encode text as encoded words in UTF-8, by Q or B, whichever is shorter. No character is split (RFC 2047 5 (3)).

    Args:
        text: one line.
        first_length: the maximum length of the first word. Below 30 it is ignored: the first word begins a new line.
        next_length: the maximum length of each further word.
    """
    octets = text.encode()
    unescaped = len(octets) - len(octets.translate(None, _Q_UNESCAPED + b" "))
    is_q_shorter = 3 * len(octets) - 2 * unescaped <= 4 * -(-len(octets) // 3)
    if first_length < _MIN_FIRST_ENCODED_WORD:
        first_length = _MAX_ENCODED_WORD
    first_payload = min(first_length, _MAX_ENCODED_WORD) - _ENCODED_WORD_OVERHEAD
    next_payload = next_length - _ENCODED_WORD_OVERHEAD
    if is_q_shorter:
        q_table = _make_q_table()
        characters = ["".join([q_table[octet] for octet in character.encode()]) for character in text]
        return [f"=?utf-8?q?{''.join(part)}?=" for part in _group_by_length(characters, first_payload, next_payload)]
    encoded_characters = [character.encode() for character in text]
    return [
        f"=?utf-8?b?{b2a_base64(b''.join(part), newline=False).decode()}?="
        for part in _group_by_length(encoded_characters, first_payload // 4 * 3, next_payload // 4 * 3)
    ]


# Not made on import, since most mails need neither.
@cache
def _make_q_table() -> list[str]:
    """Return the text of each octet in a Q word."""
    return ["_" if octet == 0x20 else chr(octet) if octet in _Q_UNESCAPED else f"={octet:02X}" for octet in range(256)]


@cache
def _make_percent_table() -> list[str]:
    """Return the text of each octet in a percent-encoded parameter."""
    return [chr(octet) if octet in _PARAMETER_UNESCAPED else f"%{octet:02X}" for octet in range(256)]


def render_parameter(name: str, value: str) -> list[str]:
    """Render a parameter as one token, or as several if it is long (RFC 2231 3). Each begins with a space.

    A quoted string is continued only if it does not fit on a line of 998: many programs do not read continuations.
    """
    if _is_quotable(value):
        prefix, numbered_prefix, suffix = f' {name}="', ' {}*{}="', '"'
        max_token = _MAX_UNFOLDED_LINE
        characters = list(value)
    else:
        # RFC 2231 4. A quoted string may contain escaped quotation marks, but many mail clients show them wrong.
        prefix, numbered_prefix, suffix = f" {name}*=utf-8''", " {}*{}*=", ""
        max_token = _MAX_FOLDED_LINE - 1
        percent_table = _make_percent_table()
        characters = ["".join([percent_table[octet] for octet in character.encode()]) for character in value]
    token = f"{prefix}{''.join(characters)}{suffix}"
    if len(token) <= max_token:
        return [token]
    max_length = _MAX_FOLDED_LINE - len(numbered_prefix.format(name, 100)) - len(suffix) - 1
    charset = "" if suffix else "utf-8''"
    parts = _group_by_length(characters, max_length - len(charset), max_length)
    texts = [charset + "".join(parts[0]), *map("".join, parts[1:])]
    return [f"{numbered_prefix.format(name, index)}{text}{suffix}" for index, text in enumerate(texts)]


def _is_quotable(value: str) -> bool:
    """Whether every program reads a parameter's value as it is from a quoted string."""
    return value.isascii() and not any(special in value for special in ('"', "\\", "=?"))


def _make_encoded_name_tokens(file_name: str) -> list[str]:
    """Return the parameter `name` as tokens, in encoded words.

    RFC 2047 5 (3) forbids them in a quoted string. But RFC 2231 came later, and programs from before it, and those that
    never read it, take the name from here: Outlook, for one, in many of its versions.
    """
    prefix = ' name="'
    words = encode_words(
        file_name,
        first_length=_MAX_FOLDED_LINE - len(prefix) - 1,
        next_length=_MAX_ENCODED_WORD - 1,  # for the quotation mark at the end
    )
    tokens = [prefix + words[0], *(f" {word}" for word in words[1:])]
    tokens[-1] += '"'
    return tokens


def make_phrase_tokens(field_name: str, phrase: str) -> list[str]:
    """Return a phrase, such as a display name, as tokens: atoms, a quoted string or encoded words (RFC 5322 3.2.5).

    Args:
        field_name: the name of the field that begins with it; empty if it is further on in its field.
        phrase: the text, not empty.
    """
    is_plain = phrase.isascii() and "=?" not in phrase
    written = format_phrase(phrase) if is_plain else ""
    if is_plain and written == phrase and len(phrase) < MAX_TOKEN:
        return [f" {word}" for word in phrase.split(" ")] if " " in phrase else [f" {phrase}"]
    max_first_word = min(_MAX_FIRST_PHRASE_WORD, _MAX_FOLDED_LINE - len(field_name) - len(": "))
    if is_plain and written != phrase and len(written) < max_first_word:
        return [f" {written}"]
    return [f" {word}" for word in encode_words(phrase, first_length=max_first_word)]


def render_tokens(name: str, tokens: Iterable[str]) -> bytes:
    """Join the tokens of a field, with a line break before each that would make its line too long (RFC 5322 2.2.3).

    Args:
        name: the field name.
        tokens: each begins with a space, and has at most 900 characters.
    """
    lines: list[str] = []
    line = name_only = f"{name}:"
    for token in tokens:
        # The first token stays next to the name, since some programs take a first line without text for an empty
        # field; unless it is an encoded word, whose line has at most 76 characters (RFC 2047 2).
        must_stay = line is name_only and not token.startswith(" =?")
        if must_stay or len(line) + len(token) <= _MAX_FOLDED_LINE:
            line += token
        else:
            lines.append(line)
            line = token
    return "\r\n".join([*lines, line, ""]).encode()


def _needs_encoding(token: str) -> bool:
    return not token.isascii() or "=?" in token or len(token) > MAX_TOKEN


def _group_by_length(items: Sequence[_T], first_length: int, next_length: int) -> list[list[_T]]:
    """Group items so that the first group has at most `first_length` characters, and the others `next_length`."""
    groups: list[list[_T]] = [[]]
    remaining = first_length
    for item in items:
        if len(item) > remaining:
            groups.append([])
            remaining = next_length
        groups[-1].append(item)
        remaining -= len(item)
    return groups


_message_numbers = count()


def new_message_id(domain: str) -> str:
    """Make a random Message-ID.

    Args:
        domain: the domain of the sender, as in `Address.domain`.
    """
    # Random octets are requested once per process: once per mail would add a tenth to the time of sending it.
    return f"<{_process_token()}{next(_message_numbers):08x}@{to_ascii_domain(domain)}>"


def stable_message_id(domain: str, *parts: str | int) -> str:
    """Make a Message-ID from these parts: the same for every attempt of the same mail.

    Args:
        domain: the domain of the sender, as in `Address.domain`.
        parts: what identifies the mail, such as the DAG, the run, the task and the map index. Their order matters.

    Raises:
        ValueError: there are no parts.
    """
    if not parts:
        raise ValueError("Without parts, every mail would have the same Message-ID.")
    return f"<{_compute_local_part(parts)}@{to_ascii_domain(domain)}>"


def is_stable_message_id(message_id: str, *parts: str | int) -> bool:
    """Whether `stable_message_id` made a Message-ID from these parts, with any domain."""
    return message_id.startswith(f"<{_compute_local_part(parts)}@")


def _compute_local_part(parts: Sequence[str | int]) -> str:
    import hashlib

    octets = [str(part).encode("utf-8", "surrogatepass") for part in parts]
    # Each part with its length, so that ("a", "bc") and ("ab", "c") differ.
    return hashlib.sha256(b"".join([b"%d:%b" % (len(part), part) for part in octets])).hexdigest()[:32]


@cache
def _process_token() -> str:
    return os.urandom(12).hex()


os.register_at_fork(after_in_child=_process_token.cache_clear)
