"""`Mail`: all that is said, checked when it is made. Knows neither how it is written down nor where it is sent."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from functools import partial
from operator import attrgetter
from typing import Any

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail.address import (
    ATEXT,
    Address,
    AddressesLike,
    AddressLike,
    parse_address,
    parse_addresses,
)
from airflow_provider_smtpcm.mail.attachment import (
    Attachment,
    AttachmentsLike,
    InlineImagesLike,
    parse_attachments,
    parse_inline_images,
)
from airflow_provider_smtpcm.mail.tainted import forbidden_character, lone_surrogate, shown

# folded: What each field of a mail may hold, and what is said of one that holds something else. Knows no mail.

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


def sender(value: AddressLike | None) -> Address | None:
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


# folded: here began the module itself

__all__ = ["Attachment", "Mail", "Priority"]

#: Further header fields of a `Mail`: text by name, or pairs.
HeadersLike = Mapping[str, str] | Iterable[tuple[str, str]]
#: Further header fields where a template may fill them in: every value is turned into text.
HeaderValues = Mapping[str, object]

_TO, _CC, _BCC, _REPLY_TO = (partial(parse_addresses, field=field) for field in ("To", "Cc", "Bcc", "Reply-To"))
_SUBJECT, _TEXT, _HTML = partial(header_text, "Subject"), partial(body, "Text"), partial(body, "Html")
_set = object.__setattr__  # a frozen mail is written by its own class alone
# How each field is read, and what it is where it says nothing; in the order in which faults are told.
_FIELDS: tuple[tuple[str, Callable[[Any], object], object], ...] = (
    ("to", _TO, ()),
    ("cc", _CC, ()),
    ("bcc", _BCC, ()),
    ("from_address", sender, None),
    ("reply_to", _REPLY_TO, ()),
    ("subject", _SUBJECT, ""),
    ("text", _TEXT, None),
    ("html", _HTML, None),
    ("attachments", parse_attachments, ()),
    ("inline_images", parse_inline_images, ()),
    ("priority", parse_priority, Priority.NORMAL),
    ("headers", parse_headers, ()),
    ("message_id", checked_message_id, None),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, init=False)
class Mail:
    """One mail. Every address, header and name in it has been checked; its files have not been looked at yet."""

    from_address: Address | None
    to: tuple[Address, ...]
    cc: tuple[Address, ...]
    bcc: tuple[Address, ...]
    reply_to: tuple[Address, ...]
    subject: str
    text: str | None
    html: str | None
    attachments: tuple[Attachment, ...]
    inline_images: tuple[Attachment, ...]
    priority: Priority
    headers: tuple[tuple[str, str], ...]
    message_id: str | None

    # Written out, because it takes more than what the fields hold afterwards; `dataclasses.replace` works as ever.
    def __init__(
        self,
        *,
        from_address: AddressLike | None = None,
        to: AddressesLike | None = (),
        cc: AddressesLike | None = (),
        bcc: AddressesLike | None = (),
        reply_to: AddressesLike | None = (),
        subject: str = "",
        text: str | None = None,
        html: str | None = None,
        attachments: AttachmentsLike | None = (),
        inline_images: InlineImagesLike | None = (),
        priority: Priority | str = Priority.NORMAL,
        headers: HeadersLike | None = (),
        message_id: str | None = None,
    ) -> None:
        """Check and normalise.

        Args:
            from_address: one address; None or a blank leaves it to the connection.
            to, cc, bcc, reply_to: one string with `;` or `,` between, or a list.
            subject: text; blanks around it are dropped.
            text, html: the body; both make a mail whose reader chooses. None and "" are no body.
            attachments: one string with `|` between, or a list of paths and attachments.
            inline_images: a mapping of content id to path or attachment, a list of attachments that have a content id,
                or a list of paths, whose content ids are their file names.
            priority: "high", "normal" or "low".
            headers: further header fields, a mapping or pairs; those that the package writes have arguments instead.
            message_id: `<left@right>`; None leaves it to whoever sends the mail.

        Raises:
            MessageError: with every fault of the mail in it.
        """
        faults: dict[str, MessageError] = {}
        addresses = to, cc, bcc, from_address, reply_to
        given = (*addresses, subject, text, html, attachments, inline_images, priority, headers, message_id)
        for (name, parse, otherwise), write, value in zip(_FIELDS, _WRITE_PARSED, given, strict=True):
            parsed = otherwise
            if value is not otherwise:  # most fields of most mails
                try:
                    parsed = parse(value)
                except MessageError as fault:
                    faults[name] = fault
            write(self, parsed)
        if not (self.to or self.cc or self.bcc or faults.keys() & {"to", "cc", "bcc"}):
            nobody = MessageError("The mail has no recipient.", remedy="Fill in To, Cc or Bcc.")
            faults = {"recipients": nobody, **faults}
        if faults:
            raise together(list(faults.values()))
        # What does not fit together can be told only of parts that are right in themselves.
        if self.html or self.inline_images or self.attachments:
            unfit = list(image_faults(self.html, self.inline_images, self.attachments))
            if unfit:
                raise together(unfit)

    @property
    def reads_remote_files(self) -> bool:
        """Whether a file of it is `Attachment.remote`, so that measuring and reading it may take long."""
        files = self.attachments + self.inline_images
        return bool(files) and any(file.remote for file in files)

    def with_identity(
        self,
        *,
        from_address: AddressLike | None = None,
        reply_to: AddressesLike | None = None,
        message_id: str | None = None,
    ) -> Mail:
        """This mail with another sender, Reply-To or Message-ID; what is None stays as it is.

        Only what is given is checked, which makes this much cheaper than `dataclasses.replace`.

        Args:
            from_address, reply_to, message_id: as in `Mail`.

        Raises:
            MessageError: with the first fault.
        """
        mail = object.__new__(Mail)
        for write, value in zip(_WRITE, _READ(self), strict=True):
            write(mail, value)
        if from_address is not None:
            _set(mail, "from_address", sender(from_address))
        if reply_to is not None:
            _set(mail, "reply_to", parse_addresses(reply_to, field="Reply-To"))
        if message_id is not None:
            _set(mail, "message_id", checked_message_id(message_id))
        return mail

    @property
    def recipients(self) -> tuple[Address, ...]:
        """Whom the envelope names: To, Cc and Bcc in this order, each mailbox once."""
        if len(self.to) == 1 and not self.cc and not self.bcc:
            return self.to
        unique: dict[tuple[str, str], Address] = {}
        for address in (*self.to, *self.cc, *self.bcc):
            # RFC 5321 2.4: only the domain is the same in any case of letters.
            unique.setdefault((address.local_part, address.address.rpartition("@")[2].lower()), address)
        return tuple(unique.values())


# All fields at once, to copy a mail in half the time that it takes by their names.
_NAMES = tuple(field.name for field in dataclasses.fields(Mail))
_READ = attrgetter(*_NAMES)
_WRITE = tuple(getattr(Mail, name).__set__ for name in _NAMES)
_WRITE_PARSED = tuple(getattr(Mail, name).__set__ for name, _, _ in _FIELDS)


def together(faults: list[MessageError]) -> MessageError:
    """Every fault of one mail in one error; retryable only where all of them may pass."""
    if len(faults) == 1:
        return faults[0]
    return MessageError(
        "\n".join(["The mail cannot be sent as it is:", *(f"  - {fault}" for fault in faults)]),
        retryable=all(fault.retryable for fault in faults),
    )
