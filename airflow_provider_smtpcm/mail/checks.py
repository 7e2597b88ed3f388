"""What each field of a mail may hold, and what is said of one that holds something else. Knows no mail."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail.address import ATEXT, Address, parse_address
from airflow_provider_smtpcm.mail.attachment import Attachment
from airflow_provider_smtpcm.mail.characters import forbidden_character, lone_surrogate, shown

_FIELD_NAME = re.compile(r"[!-9;-~]{1,76}")  # RFC 5322 3.6.8, and short enough for a line that is folded behind it
_VALUE_OCTETS = 100_000
_MESSAGE_ID = re.compile(rf"<{ATEXT}+(?:\.{ATEXT}+)*@(?:{ATEXT}+(?:\.{ATEXT}+)*|\[[!-Z^-~]*\])>")
_MESSAGE_ID_OCTETS = 900  # the line that it stands on cannot be folded, and ends at 998 (RFC 5322 2.1.1)
_ONCE = ("auto-submitted", "in-reply-to", "references", "sender")  # RFC 5322 3.6, RFC 3834 5
_WRITTEN = "The package writes it: leave it out."
_RESERVED = {
    "from": "Use from_address.",
    "to": "Use to.",
    "cc": "Use cc.",
    "bcc": "Use bcc: no header names these recipients.",
    "resent-bcc": "Use bcc: no header names these recipients.",
    "reply-to": "Use reply_to.",
    "subject": "Use subject.",
    "message-id": "Use message_id.",
    "importance": "Use priority.",
    "priority": "Use priority.",
    "x-priority": "Use priority.",
    "x-msmail-priority": "Use priority.",
    "date": _WRITTEN,
    "mime-version": _WRITTEN,
    "return-path": "The receiving server writes it, from from_address: leave it out.",
    "received": "The servers on the way write it: leave it out.",
    "delivered-to": "The receiving server writes it, and takes it for a loop: leave it out.",
}
# In an attribute or in CSS, so that an "Account CID:4711" in the text of a report is not taken for an image.
# Blanks are never matched by two quantifiers in a row: on a long run of them that would take the square of the time.
_CID = re.compile(
    r"""(?:=\s*(?:["']\s*)?|url\(\s*(?:(?:["']|&quot;|&\#0*3[49];)\s*)?)cid:([^"'\s<>)]+)""", re.IGNORECASE
)


class Priority(StrEnum):
    """How urgent a mail is, in SSIS's words and in any case of letters."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @classmethod
    def _missing_(cls, value: object) -> Priority | None:
        text = value.strip().lower() if isinstance(value, str) else None
        return next((priority for priority in cls if priority == text), None)


def sender(value: str | Address | None) -> Address | None:
    if value is None or (isinstance(value, str) and not value.strip(" ")):
        return None
    return parse_address(value, field="From")


def header_text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise MessageError(f"{name} is text, not {type(value).__name__}.", remedy="Pass a string.")
    if character := forbidden_character(value):
        raise MessageError(
            f"{name}: {shown(value)} holds the control character {character}.",
            remedy="Remove it: a header is one line, and a line break in it would begin another header.",
        )
    if len(value) > _VALUE_OCTETS:
        raise MessageError(f"{name} has {len(value)} characters.", remedy=f"Shorten it to {_VALUE_OCTETS}.")
    return value.strip(" ")


def body(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise MessageError(f"{name} is text, not {type(value).__name__}.", remedy="Pass a string; decode bytes first.")
    if character := lone_surrogate(value):
        raise MessageError(
            f"{name} holds {character}, half of a character, which no encoding can carry.",
            remedy="Read the file that it comes from in its own encoding.",
        )
    return value


def parse_priority(value: object) -> Priority:
    if isinstance(value, Priority):
        return value
    try:
        return Priority(value)  # type: ignore[arg-type]
    except ValueError:
        choices = ", ".join(repr(priority.value) for priority in Priority)
        raise MessageError(f"Priority cannot be {shown(value)}.", remedy=f"Choose one of {choices}.") from None


def parse_headers(value: object) -> tuple[tuple[str, str], ...]:
    if not value and (value is None or isinstance(value, tuple)):
        return ()
    pairs = value.items() if isinstance(value, Mapping) else value
    shape = MessageError(
        f"Headers are a mapping or pairs of name and value, not {type(value).__name__}.",
        remedy="Pass a dict: headers={'X-Report': 'daily'}.",
    )
    if isinstance(pairs, str | bytes) or not isinstance(pairs, Iterable):
        raise shape
    headers: list[tuple[str, str]] = []
    seen: set[str] = set()
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise shape
        name, text = pair
        if not isinstance(name, str) or not _FIELD_NAME.fullmatch(name):
            raise MessageError(
                f"{shown(name)} cannot be the name of a header.",
                remedy="A name is at most 76 ASCII characters without blanks and colons, such as X-Report.",
            )
        lowered = name.lower()
        remedy = _RESERVED.get(lowered) or (_WRITTEN if lowered.startswith("content-") else None)
        if remedy:
            raise MessageError(f"The header {name} cannot be given among headers.", remedy=remedy)
        if lowered in _ONCE and lowered in seen:
            raise MessageError(f"The header {name} is given twice.", remedy="A mail has one of it: leave one out.")
        seen.add(lowered)
        headers.append((name, header_text(name, text)))
    return tuple(headers)


def checked_message_id(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > _MESSAGE_ID_OCTETS or not _MESSAGE_ID.fullmatch(value):
        raise MessageError(
            f"The message id {shown(value)} has not the form <left@right>.",
            remedy="Write it as <20240131.4711@corp.example>, or leave it out: one is made.",
        )
    return value


def image_faults(
    html_text: str | None, images: tuple[Attachment, ...], files: tuple[Attachment, ...]
) -> Iterable[MessageError]:
    """What keeps an html and its images from meeting."""
    if images and not html_text:
        yield MessageError("There are inline images, and no html to show them.", remedy="Fill in html, or attach them.")
    known = [image.content_id for image in images]
    known_anywhere = known + [file.content_id for file in files if file.content_id]
    for content_id in sorted({cid for cid in known_anywhere if cid and known_anywhere.count(cid) > 1}):
        yield MessageError(
            f"Two images have the content id {content_id!r}.",
            remedy="Give each its own: inline_images={'logo': path}.",
        )
    if html_text and "cid:" in html_text.lower():
        from html import unescape
        from urllib.parse import unquote

        references = (unquote(unescape(reference).strip("\"'")) for reference in _CID.findall(html_text))
        for content_id in dict.fromkeys(references):
            if content_id not in known:
                yield MessageError(
                    f"The html refers to {shown(f'cid:{content_id}')}, which is not among the inline images.",
                    remedy=f"Add it: inline_images={{{shown(content_id)}: path}}.",
                )
