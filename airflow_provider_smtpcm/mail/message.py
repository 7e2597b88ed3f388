"""`Mail`: the addresses, header fields, bodies and files of one mail, checked on construction. Opens no files."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.frozen_dataclasses import Record
from airflow_provider_smtpcm.mail.address import Address
from airflow_provider_smtpcm.mail.address_list import AddressesLike, AddressLike, parse_address, parse_addresses
from airflow_provider_smtpcm.mail.structured_headers import is_message_id, parse_header_text, parse_headers
from airflow_provider_smtpcm.mail.tainted import find_unsendable_character, short_repr

if TYPE_CHECKING:
    import os

    from airflow_provider_smtpcm.mail.attachment import Attachment, AttachmentsLike, InlineImagesLike

__all__ = ["HeaderValues", "HeadersLike", "Mail", "Priority"]

#: The `envelope_from` of a mail that no server is to return (RFC 5321 4.5.5).
NULL_RETURN_PATH = "<>"
# A reference to an image is in an attribute or in CSS: "key=cid:4711" in the text of a report or an exception is none.
# Each pattern consumes what it has scanned, since it would take quadratic time otherwise. Comments are skipped, except
# for conditional ones, which Outlook reads.
_MARKUP = re.compile(
    r"""(?isx) <!--(?!\[if).*?(?:-->|\Z) | <style\b[^>]*>(?P<css>.*?)(?:</style|\Z)
    | <[a-z](?P<tag>(?:[^>=]|=\s*(?:"[^"]*(?:"|\Z)|'[^']*(?:'|\Z))?)*+)"""
)
_ATTRIBUTE = re.compile(r"""(?s)(?<=[\s"'/])([^\s"'/=]++)\s*+=\s*+(?:"([^"]*)|'([^']*)|(\S*))""")
_IMAGE_ATTRIBUTES = ("src", "srcset", "background", "poster", "data", "href")
_CID_URL = re.compile(r"(?i)\s*cid:([^\s<>]+)")
_CSS_CID_URL = re.compile(r"""(?i)url\(\s*+(?:(?:["']|&quot;|&\#0*3[49];)\s*+)?cid:([^"'\s<>)]+)""")


class Priority(StrEnum):
    """The priority of a mail, as in SSIS. Values are parsed without regard to case."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @classmethod
    def _missing_(cls, value: object) -> Priority | None:
        text = value.strip().lower() if isinstance(value, str) else None
        return next((priority for priority in cls if priority == text), None)


#: Further header fields of a `Mail`: a mapping of names to text, or pairs.
HeadersLike = Mapping[str, str] | Iterable[tuple[str, str]]
#: Further header fields of operators and notifiers, whose values may come from templates: each is converted to text.
HeaderValues = Mapping[str, object]

_set = object.__setattr__  # for mails under construction, although the class is frozen


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, init=False, eq=False, repr=False)
class Mail(Record):
    """One mail. Its addresses, headers and file names are valid; its files have not been opened."""

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
    envelope_from: str | None
    auto_generated: bool

    # Not generated, since it accepts more types than the fields have. `dataclasses.replace` works as usual.
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
        envelope_from: AddressLike | None = None,
        auto_generated: bool = True,
    ) -> None:
        """Check and normalize the fields.

        Args:
            from_address: one address; None or blank: the *From address* of the connection.
            to, cc, bcc, reply_to: one string with the addresses separated by `;` or `,`, or a list.
            subject: one line; spaces around it are removed.
            text, html: the body. With both, the mail client of the reader chooses one. None and "" mean no body.
            attachments: one string with the paths separated by `|`; a list of paths, path objects, attachments and
                `FilePattern`; or a mapping of file names to these or to contents (bytes, open binary files).
            inline_images: a mapping of content id to path or attachment; or a list of paths and attachments, whose
                content id is by default the file name.
            priority: "high", "normal" or "low".
            headers: further header fields, as a mapping or pairs of text. Fields with an argument of their own, and
                generated ones such as Date, are refused. Some fields take addresses (Sender, Errors-To,
                Disposition-Notification-To and others), message ids (In-Reply-To, References) or URIs in angle brackets
                (List-Unsubscribe), and are left out if their value is blank; any other field is free text.
            message_id: `<left@right>`; None: generated when the mail is sent.
            envelope_from: the address in MAIL FROM, to which servers return the mail if they cannot deliver it; `<>`: a
                null return path, so they return nothing. None or blank: the connection's *Envelope sender*, else From.
            auto_generated: whether the header says that a program wrote the mail (`Auto-Submitted: auto-generated` and
                `X-Auto-Response-Suppress: OOF, AutoReply`), so that no automatic replies come. Of these two fields, one
                in `headers` takes the place of its default, and an empty one is left out.

        Raises:
            MessageError: lists every fault of the mail.
        """
        faults: dict[str, MessageError] = {}
        addresses = to, cc, bcc, from_address, reply_to
        body = text, html, attachments, inline_images
        given = (*addresses, subject, *body, priority, headers, message_id, envelope_from, auto_generated)
        for (name, parse, default), set_field, value in zip(_FIELDS, _PARSED_SETTERS, given, strict=True):
            parsed = default
            if value is not default:  # most fields of most mails have their defaults
                try:
                    parsed = parse(value)
                except MessageError as fault:
                    faults[name] = fault
            set_field(self, parsed)
        if not (self.to or self.cc or self.bcc or faults.keys() & {"to", "cc", "bcc"}):
            no_recipient = MessageError("The mail has no recipient.", remedy="Fill in To, Cc or Bcc.")
            faults = {"recipients": no_recipient, **faults}
        if faults:
            raise combine_faults(list(faults.values()))
        # These checks compare fields, and so require valid ones.
        if self.html or self.inline_images or self.attachments:
            image_faults = list(_find_image_faults(self.html, self.inline_images, self.attachments))
            if image_faults:
                raise combine_faults(image_faults)

    @property
    def has_files(self) -> bool:
        """Whether any of its files is read from a path, and so may still change before the mail is rendered."""
        files = self.attachments + self.inline_images
        return bool(files) and any(file.path is not None for file in files)

    @property
    def has_remote_files(self) -> bool:
        """Whether any of its files is remote (`Attachment.is_remote`), so that rendering may take a long time."""
        files = self.attachments + self.inline_images
        return bool(files) and any(file.is_remote for file in files)

    def with_identity(
        self,
        *,
        from_address: AddressLike | None = None,
        reply_to: AddressesLike | None = None,
        message_id: str | None = None,
        envelope_from: AddressLike | None = None,
    ) -> Mail:
        """Return this mail with another sender, Reply-To, Message-ID or envelope sender.

        Only the new values are checked, which makes this much faster than `dataclasses.replace`.

        Args:
            from_address, reply_to, message_id, envelope_from: as in `Mail`; None: unchanged.

        Raises:
            MessageError: describes the first fault.
        """
        mail = object.__new__(Mail)
        for set_field, value in zip(_SETTERS, _get_fields(self), strict=True):
            set_field(mail, value)
        if from_address is not None:
            _set(mail, "from_address", _parse_sender(from_address))
        if reply_to is not None:
            _set(mail, "reply_to", parse_addresses(reply_to, field="Reply-To"))
        if message_id is not None:
            _set(mail, "message_id", _parse_message_id(message_id))
        if envelope_from is not None:
            _set(mail, "envelope_from", parse_envelope_from(envelope_from))
        return mail

    def write_eml(self, path: str | os.PathLike[str]) -> None:
        """Write the mail to a file that mail programs open: the octets that a server would receive, without Bcc.

        Args:
            path: of the file, usually `*.eml`; it is overwritten.

        Raises:
            MessageError: no sender, no Message-ID, or an attachment that is missing or cannot be read. The mail of a
                `preview` has both.
            OSError: the file cannot be written.
        """
        from airflow_provider_smtpcm.mail.render import render

        chunks = render(self)
        with Path(path).open("wb") as file:
            file.writelines(chunks)

    @property
    def envelope_sender(self) -> str:
        """The address in MAIL FROM (RFC 5321 3.3); "" for a null return path, and without a From address."""
        return get_envelope_sender(self.envelope_from, self.from_address)

    @property
    def recipients(self) -> tuple[Address, ...]:
        """The envelope recipients: To, Cc and Bcc in this order, without duplicates."""
        if len(self.to) == 1 and not self.cc and not self.bcc:
            return self.to
        return get_unique_recipients((*self.to, *self.cc, *self.bcc))


def get_unique_recipients(addresses: Iterable[Address]) -> tuple[Address, ...]:
    """Return the addresses without duplicates."""
    unique: dict[tuple[str, str], Address] = {}
    for address in addresses:
        # RFC 5321 2.4: domains are case-insensitive, local parts are not.
        unique.setdefault((address.local_part, address.address.rpartition("@")[2].lower()), address)
    return tuple(unique.values())


def combine_faults(faults: list[MessageError]) -> MessageError:
    """Combine the faults of a mail in one error, which is retryable only if each of them is."""
    if len(faults) == 1:
        return faults[0]
    return MessageError(
        "\n".join(["The mail cannot be sent as it is:", *(f"  - {fault}" for fault in faults)]),
        retryable=all(fault.retryable for fault in faults),
    )


def _parse_sender(value: AddressLike | None) -> Address | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return parse_address(value, field="From")


def parse_envelope_from(value: AddressLike | None) -> str | None:
    """Parse the envelope sender: an address, of which only `local@domain` is kept, or `<>` for a null return path.

    Raises:
        MessageError: it is not an address.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, str) and value.strip() == NULL_RETURN_PATH:
        return NULL_RETURN_PATH
    return parse_address(value, field="Envelope sender").address


def get_envelope_sender(envelope_from: str | None, from_address: Address | None) -> str:
    """Return the address in MAIL FROM; "" for a null return path, and if neither is given.

    Args:
        envelope_from: from `parse_envelope_from`.
        from_address: applies if `envelope_from` is None.
    """
    if envelope_from is None:
        return "" if from_address is None else from_address.address
    return "" if envelope_from == NULL_RETURN_PATH else envelope_from


def _parse_auto_generated(value: object) -> bool:
    if not isinstance(value, bool):
        raise MessageError(f"auto_generated cannot be {short_repr(value)}.", remedy="Pass True or False.")
    return value


def _parse_body(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise MessageError(
            f"{name} must be text, not {type(value).__name__}.", remedy="Pass a string; decode bytes first."
        )
    if character := find_unsendable_character(value):
        raise MessageError(
            f"{name} contains {character}, which no text in a mail may contain.",
            remedy="Remove it. If the text comes from a file, read the file with its encoding.",
        )
    return value


def _parse_attachments(value: AttachmentsLike | None) -> tuple[Attachment, ...]:
    if value is None:
        return ()
    from airflow_provider_smtpcm.mail.attachment import parse_attachments

    return parse_attachments(value)


def _parse_inline_images(value: InlineImagesLike | None) -> tuple[Attachment, ...]:
    if value is None:
        return ()
    from airflow_provider_smtpcm.mail.attachment import parse_inline_images

    return parse_inline_images(value)


def _parse_priority(value: object) -> Priority:
    if isinstance(value, Priority):
        return value
    try:
        return Priority(value)  # type: ignore[arg-type]
    except ValueError:
        choices = ", ".join(repr(priority.value) for priority in Priority)
        raise MessageError(f"Priority cannot be {short_repr(value)}.", remedy=f"Choose one of {choices}.") from None


def _parse_message_id(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not is_message_id(value):
        raise MessageError(
            f"The message id {short_repr(value)} does not have the form <left@right>.",
            remedy="Write it as <20240131.4711@corp.example>, or leave it out: one is generated.",
        )
    return value


def _find_image_faults(
    html_text: str | None, images: tuple[Attachment, ...], files: tuple[Attachment, ...]
) -> Iterable[MessageError]:
    """Yield faults: images without HTML, duplicate content ids, and references to missing images."""
    if images and not html_text:
        yield MessageError(
            "There are inline images but no HTML to show them.", remedy="Fill in html, or pass them as attachments."
        )
    inline = [image.content_id for image in images]
    all_ids = inline + [file.content_id for file in files if file.content_id]
    for content_id in sorted({cid for cid in all_ids if cid and all_ids.count(cid) > 1}):
        yield MessageError(
            f"Two files have the content id {content_id!r}.",
            remedy="Give each its own: inline_images={'logo': path}.",
        )
    if html_text and "cid:" in html_text.lower():
        from html import unescape
        from urllib.parse import unquote

        references = (unquote(unescape(reference).strip("\"'")) for reference in _find_cid_references(html_text))
        for content_id in dict.fromkeys(references):
            if content_id not in inline:
                yield MessageError(
                    f"The HTML refers to {short_repr(f'cid:{content_id}')}, which is not among the inline images.",
                    remedy=f"Add it: inline_images={{{short_repr(content_id)}: path}}.",
                )


def _find_cid_references(html_text: str) -> Iterable[str]:
    """Yield the content ids to which an HTML text refers, as they are written there."""
    for markup in _MARKUP.finditer(html_text):
        yield from _CSS_CID_URL.findall(markup["css"] or "")
        for name, *values in _ATTRIBUTE.findall(markup["tag"] or ""):
            value = "".join(values)
            if name.lower() == "style":
                yield from _CSS_CID_URL.findall(value)
            elif name.lower().rpartition(":")[2] in _IMAGE_ATTRIBUTES and (match := _CID_URL.match(value)):
                yield match[1]


# The parser of each field and its default, in the order in which faults are listed.
_FIELDS: tuple[tuple[str, Callable[[Any], object], object], ...] = (
    ("to", partial(parse_addresses, field="To"), ()),
    ("cc", partial(parse_addresses, field="Cc"), ()),
    ("bcc", partial(parse_addresses, field="Bcc"), ()),
    ("from_address", _parse_sender, None),
    ("reply_to", partial(parse_addresses, field="Reply-To"), ()),
    ("subject", partial(parse_header_text, "Subject"), ""),
    ("text", partial(_parse_body, "Text"), None),
    ("html", partial(_parse_body, "Html"), None),
    ("attachments", _parse_attachments, ()),
    ("inline_images", _parse_inline_images, ()),
    ("priority", _parse_priority, Priority.NORMAL),
    ("headers", parse_headers, ()),
    ("message_id", _parse_message_id, None),
    ("envelope_from", parse_envelope_from, None),
    ("auto_generated", _parse_auto_generated, True),
)
# Access to all fields at once, in half the time of access by name.
_FIELD_NAMES = tuple(field.name for field in dataclasses.fields(Mail))
_get_fields = attrgetter(*_FIELD_NAMES)
_SETTERS = tuple(getattr(Mail, name).__set__ for name in _FIELD_NAMES)
_PARSED_SETTERS = tuple(getattr(Mail, name).__set__ for name, _, _ in _FIELDS)
