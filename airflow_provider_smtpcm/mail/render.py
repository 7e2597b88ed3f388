"""A mail as the octets of RFC 5322 and MIME: its size first, then the octets in chunks. Knows no server and no dots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail.address import Address
from airflow_provider_smtpcm.mail.attachment import Attachment
from airflow_provider_smtpcm.mail.body import BOUNDARY_PREFIX, EncodedFile, text_part
from airflow_provider_smtpcm.mail.headers import (
    content_disposition,
    content_type,
    date_field,
    mailboxes,
    unstructured,
)
from airflow_provider_smtpcm.mail.message import Mail, Priority, together

Piece = bytes | EncodedFile

_PRIORITY = {
    Priority.HIGH: b"Importance: high\r\nX-Priority: 1\r\nPriority: urgent\r\n",
    Priority.NORMAL: b"",
    Priority.LOW: b"Importance: low\r\nX-Priority: 5\r\nPriority: non-urgent\r\n",
}


class Rendering:
    """A message with CRLF line ends, no line over 998 octets, and lines that begin with a dot as they are.

    Iterating yields its octets in chunks, and the same ones every time; attachments are read while iterating.
    """

    __slots__ = ("_pieces", "needs_smtputf8", "size")

    def __init__(self, pieces: Iterable[Piece], *, needs_smtputf8: bool) -> None:
        self._pieces = tuple(_merged(pieces))
        #: The exact number of octets that iterating yields, for SIZE (RFC 1870).
        self.size = sum(map(len, self._pieces))
        #: Whether an address can be said only to a server with SMTPUTF8; everything else is 7-bit in any case.
        self.needs_smtputf8 = needs_smtputf8

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, bytes):
                yield piece
            else:
                yield from piece

    def __repr__(self) -> str:
        return f"<Rendering of {self.size} octets>"


def render(mail: Mail, *, date: datetime | None = None) -> Rendering:
    """Write a mail down. Its attachments are measured now and read on iteration.

    Args:
        mail: with its sender and its Message-ID filled in.
        date: for the Date field, with a time zone; now, if it is not given.

    Raises:
        MessageError: no sender, no Message-ID, or an attachment that is missing or cannot be read.
    """
    if mail.from_address is None:
        raise MessageError(
            "The mail has no sender.", remedy="Set From on the task, or 'from_address' on the connection."
        )
    if mail.message_id is None:
        raise MessageError(
            "The mail has no Message-ID.",
            remedy="Fill it in: dataclasses.replace(mail, message_id=new_message_id(mail.from_address.domain)).",
        )
    pieces: list[Piece] = [header_fields(mail, mail.from_address, mail.message_id, date)]
    pieces += _content(mail, _boundary(mail.message_id), _sizes(mail))
    last = pieces[-1]
    if not (isinstance(last, bytes) and last.endswith(b"\r\n")):
        pieces.append(b"\r\n")
    addresses = (mail.from_address, *mail.reply_to, *mail.to, *mail.cc, *mail.bcc)
    return Rendering(pieces, needs_smtputf8=any(address.needs_smtputf8 for address in addresses))


def header_fields(mail: Mail, from_address: Address, message_id: str, date: datetime | None) -> bytes:
    """All header fields but those of the content. Bcc is in none of them (RFC 5322 3.6.3)."""
    fields = [date_field(date), mailboxes("From", (from_address,))]
    if mail.to:
        fields.append(mailboxes("To", mail.to))
    elif not mail.cc:
        # An empty group (RFC 5322 3.4); some servers put every recipient into a mail that has no destination field.
        fields.append(b"To: undisclosed-recipients:;\r\n")
    if mail.cc:
        fields.append(mailboxes("Cc", mail.cc))
    if mail.reply_to:
        fields.append(mailboxes("Reply-To", mail.reply_to))
    fields.append(unstructured("Subject", mail.subject))
    fields.append(f"Message-ID: {message_id}\r\n".encode())
    if not any(name.lower() == "auto-submitted" for name, _ in mail.headers):
        fields.append(b"Auto-Submitted: auto-generated\r\n")  # RFC 3834 5: no out-of-office reply, please
    fields.append(_PRIORITY[mail.priority])
    fields += [unstructured(name, value) for name, value in mail.headers]
    fields.append(b"MIME-Version: 1.0\r\n")
    return b"".join(fields)


def _sizes(mail: Mail) -> dict[Attachment, int]:
    """What every file of the mail measures; all that cannot be measured is said at once."""
    sizes: dict[Attachment, int] = {}
    faults: list[MessageError] = []
    for attachment in (*mail.attachments, *mail.inline_images):
        try:
            sizes[attachment] = attachment.size()
        except MessageError as fault:
            faults.append(fault)
    if faults:
        raise together(faults)
    return sizes


def _content(mail: Mail, boundary: str, sizes: dict[Attachment, int]) -> list[Piece]:
    """The content fields and the body: mixed ( alternative ( text, related ( html, images ) ), attachments )."""
    body: list[Piece]
    if mail.html:
        body = [text_part("html", mail.html)]
        if mail.inline_images:
            images = [_file("inline", image, sizes[image]) for image in mail.inline_images]
            # RFC 2387 3.1 demands the type of the root.
            body = _multipart('related; type="text/html"', f"{boundary}_3", [body, *images])
        if mail.text:
            body = _multipart("alternative", f"{boundary}_2", [[text_part("plain", mail.text)], body])
    else:
        body = [text_part("plain", mail.text or "")]
    if mail.attachments:
        files = [_file("attachment", attachment, sizes[attachment]) for attachment in mail.attachments]
        body = _multipart("mixed", f"{boundary}_1", [body, *files])
    return body


def _multipart(subtype: str, boundary: str, parts: Iterable[list[Piece]]) -> list[Piece]:
    """RFC 2046 5.1.1: the line break before a delimiter belongs to the delimiter."""
    pieces: list[Piece] = [f'Content-Type: multipart/{subtype};\r\n boundary="{boundary}"\r\n'.encode()]
    for part in parts:
        pieces += [f"\r\n--{boundary}\r\n".encode(), *part]
    return [*pieces, f"\r\n--{boundary}--\r\n".encode()]


def _file(disposition: str, attachment: Attachment, size: int) -> list[Piece]:
    fields = [
        content_type(attachment.content_type),
        b"Content-Transfer-Encoding: base64\r\n",
        content_disposition(disposition, attachment.name),
    ]
    if attachment.content_id:
        fields.append(f"Content-ID: <{attachment.content_id}>\r\n".encode())
    return [b"".join([*fields, b"\r\n"]), EncodedFile(attachment, size)]


def _boundary(message_id: str) -> str:
    """The same for every rendering of the same mail."""
    import hashlib

    return BOUNDARY_PREFIX + hashlib.sha256(message_id.encode()).hexdigest()[:24]


def _merged(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Neighbouring octets in one piece, so that a mail without attachments is one chunk."""
    gathered: list[bytes] = []
    for piece in pieces:
        if isinstance(piece, bytes):
            gathered.append(piece)
        else:
            yield b"".join(gathered)
            gathered = []
            yield piece
    yield b"".join(gathered)
