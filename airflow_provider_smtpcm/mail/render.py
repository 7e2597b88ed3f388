"""A mail as the octets of RFC 5322 and MIME: its size first, then the octets in chunks. Knows no server and no dots."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail.address import Address
from airflow_provider_smtpcm.mail.attachment import Attachment
from airflow_provider_smtpcm.mail.encoding import BOUNDARY_PREFIX, Base64File, BinaryFile, EncodedFile, render_text_part
from airflow_provider_smtpcm.mail.headers import (
    render_content_disposition,
    render_content_type,
    render_date,
    render_mailboxes,
    render_unstructured,
)
from airflow_provider_smtpcm.mail.message import Mail, Priority, combine_faults

__all__ = ["EncodedFile", "Rendering", "render"]

Piece = bytes | EncodedFile

_PRIORITY = {
    Priority.HIGH: b"Importance: high\r\nX-Priority: 1\r\nPriority: urgent\r\n",
    Priority.NORMAL: b"",
    Priority.LOW: b"Importance: low\r\nX-Priority: 5\r\nPriority: non-urgent\r\n",
}


class Rendering:
    """A message with CRLF line ends, no line over 998 octets, and lines that begin with a dot as they are.

    Iterating yields its octets in chunks, and the same ones every time; attachments are read while iterating. Where it
    is `binary`, what is said of lines does not hold for its files.

    Args:
        pieces: octets, of which any line may begin with a dot, and files, in their order.
    """

    __slots__ = ("binary", "needs_smtputf8", "pieces", "size")

    def __init__(self, pieces: tuple[Piece, ...], *, needs_smtputf8: bool, binary: bool = False) -> None:
        self.pieces = pieces
        #: The exact number of octets that iterating yields, for SIZE (RFC 1870).
        self.size = sum(map(len, pieces))
        #: Whether an address can be said only to a server with SMTPUTF8; everything else is 7-bit in any case.
        self.needs_smtputf8 = needs_smtputf8
        #: Whether it holds files as they are, so that only BDAT with BODY=BINARYMIME can carry it (RFC 3030 3).
        self.binary = binary

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, bytes):
                yield piece
            else:
                yield from piece

    def __repr__(self) -> str:
        return f"<Rendering of {self.size} octets>"


def render(mail: Mail, *, date: datetime | None = None, binary: bool = False) -> Rendering:
    """Write a mail down. Its attachments are measured now and read on iteration.

    Args:
        mail: with its sender and its Message-ID filled in.
        date: for the Date field, with a time zone; now, if it is not given.
        binary: whether its files go as they are (BINARYMIME, RFC 3030 3) instead of in base64.

    Raises:
        MessageError: no sender, no Message-ID, or an attachment that is missing or cannot be read.
    """
    return compose(mail, date, _BINARY if binary else _BASE64, binary=binary)


def render_fixed_fields(priority: Priority, headers: tuple[tuple[str, str], ...]) -> bytes:
    """The header fields behind the Message-ID, without those of the content."""
    fields = [_PRIORITY[priority], *(render_unstructured(name, value) for name, value in headers)]
    if not any(name.lower() == "auto-submitted" for name, _ in headers):
        fields.insert(0, b"Auto-Submitted: auto-generated\r\n")  # RFC 3834 5: no out-of-office reply, please
    return b"".join([*fields, b"MIME-Version: 1.0\r\n"])


@lru_cache(maxsize=128)
def _file_fields(disposition: str, name: str, media_type: str, content_id: str | None, encoding: str) -> bytes:
    """The fields of a file's part, with the empty line behind them."""
    fields = [
        render_content_type(media_type),
        f"Content-Transfer-Encoding: {encoding}\r\n".encode(),
        render_content_disposition(disposition, name),
    ]
    if content_id:
        fields.append(f"Content-ID: <{content_id}>\r\n".encode())
    return b"".join([*fields, b"\r\n"])


@dataclass(slots=True, kw_only=True)
class PartRenderers:
    """How each part of a message is written: here, every time anew. `merge` has others, which remember."""

    file: Callable[[Attachment], EncodedFile]
    date: Callable[[datetime | None], bytes] = render_date
    sender: Callable[[str, tuple[Address, ...]], bytes] = render_mailboxes
    to: Callable[[str, tuple[Address, ...]], bytes] = render_mailboxes
    cc: Callable[[str, tuple[Address, ...]], bytes] = render_mailboxes
    reply_to: Callable[[str, tuple[Address, ...]], bytes] = render_mailboxes
    subject: Callable[[str, str], bytes] = render_unstructured
    fixed: Callable[[Priority, tuple[tuple[str, str], ...]], bytes] = render_fixed_fields
    text: Callable[[str, str], bytes] = render_text_part
    html: Callable[[str, str], bytes] = render_text_part


def measure_base64_file(attachment: Attachment) -> Base64File:
    """A file that goes in base64."""
    return Base64File(attachment, attachment.state())


def measure_binary_file(attachment: Attachment) -> BinaryFile:
    """A file that goes as it is."""
    return BinaryFile(attachment, attachment.state())


_BASE64 = PartRenderers(file=measure_base64_file)
_BINARY = PartRenderers(file=measure_binary_file)


def compose(mail: Mail, date: datetime | None, parts: PartRenderers, *, binary: bool) -> Rendering:
    """Put a message together from its parts; see `render`."""
    if mail.from_address is None:
        raise MessageError(
            "The mail has no sender.", remedy="Set From on the task, or 'from_address' on the connection."
        )
    if mail.message_id is None:
        raise MessageError(
            "The mail has no Message-ID.",
            remedy="Fill it in: mail.with_identity(message_id=new_message_id(mail.from_address.domain)).",
        )
    head = _header_fields(mail, mail.from_address, mail.message_id, date, parts)
    # Only addresses are ever written in more than ASCII; those of Bcc are not written at all.
    needs_smtputf8 = not head.isascii() or any(address.needs_smtputf8 for address in mail.bcc)
    if not (mail.attachments or mail.inline_images or (mail.text and mail.html)):  # most mails
        body = _only_text(mail, parts)
        whole = head + body if body.endswith(b"\r\n") else b"%b%b\r\n" % (head, body)
        return Rendering((whole,), needs_smtputf8=needs_smtputf8)
    files = _measured(mail, parts)
    binary = binary and bool(files)
    pieces: list[Piece] = [head, *_content(mail, mail.message_id, files, parts, binary=binary)]
    last = pieces[-1]
    if not (isinstance(last, bytes) and last.endswith(b"\r\n")):
        pieces.append(b"\r\n")
    return Rendering(_merged(pieces), needs_smtputf8=needs_smtputf8, binary=binary)


def _header_fields(
    mail: Mail, from_address: Address, message_id: str, date: datetime | None, parts: PartRenderers
) -> bytes:
    """All header fields but those of the content. Bcc is in none of them (RFC 5322 3.6.3)."""
    fields = [parts.date(date), parts.sender("From", (from_address,))]
    if mail.to:
        fields.append(parts.to("To", mail.to))
    elif not mail.cc:
        # An empty group (RFC 5322 3.4); some servers put every recipient into a mail that has no destination field.
        fields.append(b"To: undisclosed-recipients:;\r\n")
    if mail.cc:
        fields.append(parts.cc("Cc", mail.cc))
    if mail.reply_to:
        fields.append(parts.reply_to("Reply-To", mail.reply_to))
    fields += (
        parts.subject("Subject", mail.subject),
        f"Message-ID: {message_id}\r\n".encode(),
        parts.fixed(mail.priority, mail.headers),
    )
    return b"".join(fields)


def _only_text(mail: Mail, parts: PartRenderers) -> bytes:
    """The html, or else the text."""
    return parts.html("html", mail.html) if mail.html else parts.text("plain", mail.text or "")


def _content(
    mail: Mail, message_id: str, files: list[EncodedFile], parts: PartRenderers, *, binary: bool
) -> list[Piece]:
    """The content fields and the body of several parts.

    They are mixed ( alternative ( text, related ( html, images ) ), attachments ).

    Args:
        files: of the attachments, then of the inline images.
    """
    boundary = _unforeseeable_boundary(message_id) if binary else _boundary(message_id)
    attached, images = files[: len(mail.attachments)], files[len(mail.attachments) :]
    body: list[Piece] = [_only_text(mail, parts)]
    if images:
        shown = _file_parts("inline", mail.inline_images, images, binary=binary)
        # RFC 2387 3.1 demands the type of the root.
        body = _multipart('related; type="text/html"', f"{boundary}_3", [body, *shown], binary=binary)
    if mail.text and mail.html:
        texts: list[list[Piece]] = [[parts.text("plain", mail.text)], body]
        body = _multipart("alternative", f"{boundary}_2", texts, binary=binary and bool(images))
    if attached:
        added = _file_parts("attachment", mail.attachments, attached, binary=binary)
        body = _multipart("mixed", f"{boundary}_1", [body, *added], binary=binary)
    return body


def _file_parts(
    disposition: str, attachments: tuple[Attachment, ...], files: list[EncodedFile], *, binary: bool
) -> list[list[Piece]]:
    encoding = "binary" if binary else "base64"
    return [
        [_file_fields(disposition, attachment.name, attachment.content_type, attachment.content_id, encoding), file]
        for attachment, file in zip(attachments, files, strict=True)
    ]


def _measured(mail: Mail, parts: PartRenderers) -> list[EncodedFile]:
    """The files of the mail, attachments first; all that cannot be measured is said at once."""
    files: list[EncodedFile] = []
    faults: list[MessageError] = []
    for attachment in (*mail.attachments, *mail.inline_images):
        try:
            files.append(parts.file(attachment))
        except MessageError as fault:
            faults.append(fault)
    if faults:
        raise combine_faults(faults)
    return files


def _multipart(subtype: str, boundary: str, parts: Iterable[list[Piece]], *, binary: bool) -> list[Piece]:
    """RFC 2046 5.1.1: the line break before a delimiter belongs to the delimiter."""
    # RFC 2045 6.4: what holds a binary part is called binary itself.
    encoding = "Content-Transfer-Encoding: binary\r\n" if binary else ""
    pieces: list[Piece] = [f'Content-Type: multipart/{subtype};\r\n boundary="{boundary}"\r\n{encoding}'.encode()]
    delimiter = f"\r\n--{boundary}\r\n".encode()
    for part in parts:
        pieces.append(delimiter)
        pieces += part
    pieces.append(f"\r\n--{boundary}--\r\n".encode())
    return pieces


def _boundary(message_id: str) -> str:
    """The same for every rendering of the same mail; no part can hold it, since all are encoded."""
    import hashlib

    return BOUNDARY_PREFIX + hashlib.sha256(message_id.encode()).hexdigest()[:24]


def _unforeseeable_boundary(message_id: str) -> str:
    """The same for every rendering of the same mail by this process, where a file goes as it is and could hold it.

    That cannot be ruled out without reading the file first. 192 bits do not occur by chance; and since a Message-ID may
    be known beforehand (`identity.stable_message_id`), a secret of the process goes in, so that nobody who writes a
    file for the mail can put the boundary into it, and with it parts of his own into the mail.
    """
    import hashlib

    digest = hashlib.blake2b(message_id.encode(), key=_boundary_key(), digest_size=24)
    return BOUNDARY_PREFIX + digest.hexdigest()


@cache
def _boundary_key() -> bytes:
    return os.urandom(32)


def _merged(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    """Neighbouring octets in one piece, so that a mail without attachments is one chunk."""
    merged: list[Piece] = []
    gathered: list[bytes] = []
    for piece in pieces:
        if isinstance(piece, bytes):
            gathered.append(piece)
        else:
            merged += (b"".join(gathered), piece)
            gathered = []
    merged.append(b"".join(gathered))
    return tuple(merged)
