"""Further header fields of a mail: which ones `headers` may set, and the syntax of those that are not free text.

An encoded word (RFC 2047 5) or a fold inside an address, a message id or a URI would make another one of it. Postfix
takes an encoded word in Sender for a local part, and appends its own domain to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail.address import ATEXT, is_plain_addr_spec
from airflow_provider_smtpcm.mail.address_list import parse_address, parse_addresses
from airflow_provider_smtpcm.mail.headers import (
    MAX_LINE,
    MAX_TOKEN,
    make_phrase_tokens,
    render_mailboxes,
    render_tokens,
    render_unstructured,
)
from airflow_provider_smtpcm.mail.tainted import TaintedStr, find_forbidden_character, short_repr

_FIELD_NAME = r"[!-9;-~]{1,76}"  # RFC 5322 3.6.8; at most 76 characters, so that the field can be folded
_MAX_VALUE_LENGTH = 100_000
_MESSAGE_ID = rf"<{ATEXT}+(?:\.{ATEXT}+)*@(?:{ATEXT}+(?:\.{ATEXT}+)*|\[[!-Z^-~]*\])>"
# The id of another program's mail has to be repeated as it is, even if that program does not keep to RFC 5322.
_FOREIGN_MESSAGE_ID = r"<[!-;=?-~]+@[!-;=?-~]+>"
_LIST_ID = rf"{ATEXT}+(?:\.{ATEXT}+)+"  # RFC 2919 2
_MAX_LIST_ID_OCTETS = 255
# RFC 2369 2: URIs in angle brackets, each with any number of comments, separated by commas. Matched with the mask of a
# `TaintedStr`, in which data has no syntax.
_URI_ITEM = r"<[^<>\s]*>(?: *\([^()]*\))*"
_URI_LIST = rf"{_URI_ITEM}(?: *, *{_URI_ITEM})*"
_URI_OR_COMMENT = r"<[^<>\s]*>|\([^()]*\)"
_URI = r"<[A-Za-z][A-Za-z0-9+.-]*:[!-;=?-~]+>"
_PLAIN_URI_LIST = rf"{_URI}(?:, {_URI})*"
_COMMENT = r"\([ -'*-~]*\)"
_CLOSED_LIST = r"NO(?: *\([ -'*-~]*\))?"  # RFC 2369 3.4: nobody may post to the list
_EXAMPLE_URI = "<https://corp.example/reports> or <mailto:reports@corp.example>"

_GENERATED = "It is generated: leave it out."
_USE_BCC = "Use bcc. Its recipients appear in no header."
# The remedy for each field that `headers` cannot set.
_RESERVED_FIELDS = {
    "from": "Use from_address.",
    "to": "Use to.",
    "cc": "Use cc.",
    "bcc": _USE_BCC,
    "resent-bcc": _USE_BCC,
    "reply-to": "Use reply_to.",
    "subject": "Use subject.",
    "message-id": "Use message_id.",
    "importance": "Use priority.",
    "priority": "Use priority.",
    "x-priority": "Use priority.",
    "x-msmail-priority": "Use priority.",
    "date": _GENERATED,
    "mime-version": _GENERATED,
    "content-type": _GENERATED,
    "content-transfer-encoding": _GENERATED,
    "content-disposition": _GENERATED,
    "content-id": _GENERATED,
    "content-length": "Servers that use it compute it, and change the message before that: leave it out.",
    "return-path": "Use envelope_from. The receiving server writes it into this header.",
    "received": "Every server on the way adds it: leave it out.",
    "delivered-to": "The receiving server adds it, and takes one that is already there for a mail loop: leave it out.",
}


def parse_headers(value: object) -> tuple[tuple[str, str], ...]:
    """Parse further header fields. A field that is not free text is left out if its value is blank.

    Args:
        value: a mapping of names to text, or pairs. In the values of structured fields, data in a `TaintedStr` has no
            syntax.

    Raises:
        MessageError: a name is not one, or is reserved; or a value does not have the syntax of its field.
    """
    if value is None or (isinstance(value, tuple) and not value):
        return ()
    pairs = value.items() if isinstance(value, Mapping) else value
    if isinstance(pairs, str | bytes) or not isinstance(pairs, Iterable):
        raise _headers_type_error(value)
    headers: list[tuple[str, str]] = []
    seen: set[str] = set()
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise _headers_type_error(value)
        name, text = pair
        if not isinstance(name, str) or not re.fullmatch(_FIELD_NAME, name):
            raise MessageError(
                f"{short_repr(name)} cannot be the name of a header.",
                remedy="A name has at most 76 ASCII characters, without spaces and colons, such as X-Report.",
            )
        lowered = name.lower()
        if is_reserved(lowered):
            raise MessageError(f"'headers' cannot set {name}.", remedy=_RESERVED_FIELDS[lowered])
        stripped = parse_header_text(name, text)
        syntax = _SYNTAX.get(lowered)
        if syntax is not None:
            parse, _ = syntax
            # Not the stripped text, which would have no mask.
            stripped = stripped and parse(name, text)
            if not stripped:
                continue  # RFC 5322 3.6: such a field has at least one address, id or URI
        if lowered in _SINGLE_FIELDS and lowered in seen:
            raise MessageError(f"The header {name} is given twice.", remedy="A mail may have only one: leave one out.")
        seen.add(lowered)
        headers.append((name, stripped))
    return tuple(headers)


def parse_header_text(name: str, value: object) -> str:
    """Return the text of a field without the spaces around it.

    Args:
        name: the field name, for the error.
        value: the text.

    Raises:
        MessageError: it is not text, too long, or contains a character that no header may contain.
    """
    if not isinstance(value, str):
        raise MessageError(f"{name} must be text, not {type(value).__name__}.", remedy="Pass a string.")
    if character := find_forbidden_character(value):
        raise MessageError(
            f"{name}: {short_repr(value)} contains {character}.",
            remedy="Remove it: a header is one line, and a line break in it would begin another header.",
        )
    if len(value) > _MAX_VALUE_LENGTH:
        raise MessageError(f"{name} has {len(value):,} characters.", remedy=f"Shorten it to {_MAX_VALUE_LENGTH:,}.")
    return value.strip(" ")


def render_header(name: str, value: str) -> bytes:
    """Render a field that `parse_headers` returned."""
    syntax = _SYNTAX.get(name.lower())
    if syntax is None:
        return render_unstructured(name, value)
    _, render = syntax
    return render(name, value)


def is_reserved(lowered_name: str) -> bool:
    """Whether `headers` cannot set a field."""
    return lowered_name in _RESERVED_FIELDS


def is_structured(name: object) -> bool:
    """Whether a field is not free text, so that data in it must not act as syntax."""
    return isinstance(name, str) and name.lower() in _SYNTAX


def is_message_id(text: str) -> bool:
    """Whether a text is a message id, `<left@right>` (RFC 5322 3.6.4), and fits on a line."""
    if len(text) > MAX_TOKEN:
        return False
    # The generated ones match the pattern of a plain address, which is compiled already.
    return (text[:1] == "<" and text[-1:] == ">" and is_plain_addr_spec(text[1:-1])) or bool(
        re.fullmatch(_MESSAGE_ID, text)
    )


def _headers_type_error(value: object) -> MessageError:
    return MessageError(
        f"Headers must be a mapping or pairs of name and value, not {type(value).__name__}.",
        remedy="Pass a dict: headers={'X-Report': 'daily'}.",
    )


# --- The syntaxes. Parsers return the text in the form that the renderer reads.


def _parse_mailbox(name: str, value: str) -> str:
    return str(parse_address(value, field=name))


def _parse_mailboxes(name: str, value: str) -> str:
    # A comma, since a text with a semicolon would be read differently.
    return ", ".join(map(str, parse_addresses(value, field=name)))


def _render_mailboxes(name: str, value: str) -> bytes:
    return render_mailboxes(name, parse_addresses(value, field=name))


def _parse_message_ids(name: str, value: str) -> str:
    ids = _split_message_ids(value)
    for message_id in ids:
        if len(message_id) > MAX_TOKEN or not re.fullmatch(_FOREIGN_MESSAGE_ID, message_id):
            raise MessageError(
                f"{name}: {short_repr(message_id)} is not a message id of at most {MAX_TOKEN} characters.",
                remedy="Write it as <20240131.4711@corp.example>, with spaces between several.",
            )
    if len(ids) > 1 and name.lower() in _SINGLE_ID_FIELDS:
        raise MessageError(f"{name} takes exactly one message id, not {len(ids)}.", remedy="Leave the others out.")
    return " ".join(ids)


def _split_message_ids(value: str) -> list[str]:
    return value.replace("><", "> <").split()


def _parse_uris(name: str, value: str) -> str:
    text = str.__str__(value).strip(" ")
    if not isinstance(value, TaintedStr) and len(text) <= MAX_TOKEN and re.fullmatch(_PLAIN_URI_LIST, text):
        return text  # as nearly every value
    if name.lower() == "list-post" and re.fullmatch(_CLOSED_LIST, text):
        return text
    masked = str.__str__(value.mask) if isinstance(value, TaintedStr) else value
    masked = masked[len(value) - len(value.lstrip(" ")) :][: len(text)]
    if not re.fullmatch(_URI_LIST, masked):
        raise MessageError(
            f"{name}: {short_repr(text)} is not a list of URIs in angle brackets.",
            remedy=f"Write it as {_EXAMPLE_URI}, with commas between several and '%20' for a space.",
        )
    for match in re.finditer(_URI_OR_COMMENT, masked):
        part = text[match.start() : match.end()]
        if part[0] == "<" and not part.isascii():
            raise MessageError(
                f"{name}: the URI {short_repr(part)} is not ASCII, and cannot be encoded in a header.",
                remedy="Percent-encode its path and query (urllib.parse.quote); write its domain in A-labels (xn--).",
            )
        if not re.fullmatch(_URI if part[0] == "<" else _COMMENT, part) or len(part) > MAX_TOKEN:
            raise MessageError(
                f"{name}: {short_repr(part)} is not a URI in angle brackets of at most {MAX_TOKEN} characters, or an "
                "ASCII comment in parentheses.",
                remedy=f"Write it as {_EXAMPLE_URI}.",
            )
    return text


def _make_uri_tokens(value: str) -> Iterator[str]:
    """Yield each URI with the comma after it, and each word of a comment."""
    end = 0
    for match in re.finditer(_URI_OR_COMMENT, value):
        between = value[end : match.start()].strip(" ")
        end = match.end()
        comma = "," if value[end:].lstrip(" ")[:1] == "," else ""
        if between not in ("", ","):
            yield f" {between}"
        yield from (f" {word}" for word in f"{match[0]}{comma}".split(" ") if word)
    if end == 0:
        yield f" {value}"


def _render_uris(name: str, value: str) -> bytes:
    if len(name) + len(": ") + len(value) <= MAX_LINE:
        return f"{name}: {value}\r\n".encode()
    return render_tokens(name, _make_uri_tokens(value))


def _parse_list_id(name: str, value: str) -> str:
    text = str.__str__(value).strip(" ")
    phrase, bracket, list_id = text.rpartition("<")
    if not bracket or not re.fullmatch(_LIST_ID, list_id[:-1]) or list_id[-1:] != ">":
        raise MessageError(
            f"{name}: {short_repr(text)} does not end in the id of a list.",
            remedy="Write it as Daily reports <reports.corp.example>, in ASCII between the angle brackets.",
        )
    if len(list_id) > _MAX_LIST_ID_OCTETS:
        raise MessageError(f"{name} is longer than {_MAX_LIST_ID_OCTETS} octets.", remedy="Shorten it.")
    return f"{phrase.strip(' ')} <{list_id}".lstrip(" ")


def _render_list_id(name: str, value: str) -> bytes:
    phrase, _, list_id = value.rpartition("<")
    phrase = phrase.strip(" ")
    if len(phrase) > 1 and phrase[0] == phrase[-1] == '"':
        phrase = re.sub(r"\\(.)", r"\1", phrase[1:-1])
    tokens = make_phrase_tokens(name, phrase) if phrase else []
    return render_tokens(name, [*tokens, f" <{list_id}"])


def _parse_ascii(name: str, value: str) -> str:
    words = value.split()
    text = " ".join(words)
    if not value.isascii() or max(map(len, words)) > MAX_TOKEN:
        problem = f"has a word of more than {MAX_TOKEN} characters" if value.isascii() else "is not ASCII"
        raise MessageError(
            f"{name}: {short_repr(text)} {problem}.",
            remedy="Write it as the standard of that header says: it is not free text, and cannot be encoded.",
        )
    return text


def _render_ascii(name: str, value: str) -> bytes:
    if len(name) + len(": ") + len(value) <= MAX_LINE:
        return f"{name}: {value}\r\n".encode()
    return render_tokens(name, [f" {word}" for word in value.split(" ")])


_SINGLE_ID_FIELDS = ("resent-message-id",)
_MAILBOX_FIELDS = ("sender", "resent-sender")  # RFC 5322 3.6.2, 3.6.6
_MAILBOXES_FIELDS = (
    *("resent-from", "resent-to", "resent-cc", "resent-reply-to"),  # RFC 5322 3.6.6
    "author",  # RFC 9057
    "disposition-notification-to",  # RFC 8098 2.1
    *("return-receipt-to", "read-receipt-to", "x-confirm-reading-to", "errors-to"),
    *("mail-followup-to", "mail-reply-to", "apparently-to"),
)
_MESSAGE_ID_FIELDS = (
    *("in-reply-to", "references", "resent-message-id"),  # RFC 5322 3.6.4, 3.6.6
    *("supersedes", "obsoletes"),  # RFC 4021 2.1
)
_URI_FIELDS = (
    *("list-archive", "list-help", "list-owner", "list-post", "list-subscribe", "list-unsubscribe"),  # RFC 2369
    "archived-at",  # RFC 5064
)
_ASCII_FIELDS = (
    "auto-submitted",  # RFC 3834 5
    "list-unsubscribe-post",  # RFC 8058
    *("resent-date", "expires", "expiry-date", "reply-by", "deferred-delivery"),
    *("accept-language", "sensitivity", "precedence"),
    *("content-language", "content-location", "content-base", "content-md5", "content-duration", "content-features"),
    *("disposition-notification-options", "original-recipient", "require-recipient-valid-since"),
    *("mt-priority", "tls-required"),
)
# For each field: a function that checks a value, given the name of the field and the value; and one that renders the
# field from what the first returned.
_SYNTAX: dict[str, tuple[Callable[[str, str], str], Callable[[str, str], bytes]]] = {
    **dict.fromkeys(_MAILBOX_FIELDS, (_parse_mailbox, _render_mailboxes)),
    **dict.fromkeys(_MAILBOXES_FIELDS, (_parse_mailboxes, _render_mailboxes)),
    **dict.fromkeys(_MESSAGE_ID_FIELDS, (_parse_message_ids, _render_ascii)),
    **dict.fromkeys(_URI_FIELDS, (_parse_uris, _render_uris)),
    "list-id": (_parse_list_id, _render_list_id),
    **dict.fromkeys(_ASCII_FIELDS, (_parse_ascii, _render_ascii)),
}
# Fields that a mail may have only once: RFC 5322 3.6, RFC 3834 5, RFC 2369 2, RFC 8098 2.1.
_SINGLE_FIELDS = frozenset(
    (
        *("auto-submitted", "in-reply-to", "references", "sender", "disposition-notification-to", "content-language"),
        "x-auto-response-suppress",
        *("list-id", "list-unsubscribe-post", *_URI_FIELDS[:-1]),
    )
)
