"""Rendering of one mail or a batch as RFC 5322 and MIME messages: the size beforehand, then the octets in chunks."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import cache, lru_cache
from time import time
from typing import TYPE_CHECKING, Generic, TypeVarTuple

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail.address import Address
from airflow_provider_smtpcm.mail.encoding import BOUNDARY_PREFIX, render_text_part
from airflow_provider_smtpcm.mail.file_encoding import (
    EncodedFile,
    find_media_type,
    measure_base64_file,
    measure_binary_file,
)
from airflow_provider_smtpcm.mail.headers import (
    render_content_disposition,
    render_content_type,
    render_date,
    render_mailboxes,
    render_unstructured,
)
from airflow_provider_smtpcm.mail.message import Mail, Priority, combine_faults
from airflow_provider_smtpcm.mail.structured_headers import render_header

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail.attachment import Attachment

__all__ = ["BatchRenderer", "Rendering", "render"]

Segment = bytes | EncodedFile

_BASE64 = frozenset(("base64",))

_PRIORITY = {
    Priority.HIGH: b"Importance: high\r\nX-Priority: 1\r\nPriority: urgent\r\n",
    Priority.NORMAL: b"",
    Priority.LOW: b"Importance: low\r\nX-Priority: 5\r\nPriority: non-urgent\r\n",
}

#: The fields of a mail that a program wrote, by lower-case name. The second is Exchange's (MS-OXCMAIL 2.1.3.2.20). Its
#: value "All" would also suppress non-delivery reports: nobody would notice that an address is misspelled.
AUTO_GENERATED_FIELDS = {
    "auto-submitted": b"Auto-Submitted: auto-generated\r\n",  # RFC 3834 5
    "x-auto-response-suppress": b"X-Auto-Response-Suppress: OOF, AutoReply\r\n",
}


class Rendering:
    """A message with CRLF line ends, no line over 998 octets (except in files, if `binary`), and no dot-stuffing.

    Every iteration yields the same octets, in chunks, and reads the attachments while it does.

    Args:
        segments: octets and files, in order. Any line in the octets may begin with a dot.
        needs_smtputf8: whether an address in it needs a server with SMTPUTF8 (RFC 6531). Everything else is 7-bit.
        binary: whether it contains binary files, so that it needs BDAT and BODY=BINARYMIME (RFC 3030 3).
        is_8bit: whether it contains text of 8 bits, so that it needs BODY=8BITMIME (RFC 6152).
    """

    __slots__ = ("binary", "is_8bit", "needs_smtputf8", "segments", "size")

    def __init__(
        self, segments: tuple[Segment, ...], *, needs_smtputf8: bool, binary: bool = False, is_8bit: bool = False
    ) -> None:
        self.segments = segments
        #: The exact number of octets that an iteration yields, for SIZE (RFC 1870).
        self.size = sum(map(len, segments))
        self.needs_smtputf8 = needs_smtputf8
        self.binary = binary
        self.is_8bit = is_8bit

    def __iter__(self) -> Iterator[bytes]:
        for segment in self.segments:
            if isinstance(segment, bytes):
                yield segment
            else:
                yield from segment

    def __repr__(self) -> str:
        return f"<Rendering of {self.size} octets>"


def render(mail: Mail, *, date: datetime | None = None, binary: bool = False) -> Rendering:
    """Render a mail. Its attachments are measured now and read on iteration.

    Args:
        mail: must have a sender and a Message-ID.
        date: the date of the mail, with a time zone; default: now.
        binary: whether files are sent unencoded (BINARYMIME, RFC 3030 3) instead of in base64.

    Raises:
        MessageError: no sender, no Message-ID, or an attachment that is missing or cannot be read.
    """
    return (_BINARY_RENDERER if binary else _BASE64_RENDERER).render(mail, date=date)


def render_fixed_fields(
    priority: Priority,
    headers: tuple[tuple[str, str], ...],
    auto_generated: bool,  # noqa: FBT001 - `_LastResultCache` takes positional arguments
) -> bytes:
    """Render the header fields between Message-ID and Content-Type."""
    given = {name.lower() for name, _ in headers}
    fields = [field for name, field in AUTO_GENERATED_FIELDS.items() if auto_generated and name not in given]
    fields.append(_PRIORITY[priority])
    for name, value in headers:
        if value or name.lower() not in AUTO_GENERATED_FIELDS:
            fields.append(render_header(name, value))
    return b"".join([*fields, b"MIME-Version: 1.0\r\n"])


@lru_cache(maxsize=128)
def _render_file_fields(disposition: str, name: str, media_type: str, content_id: str | None, encoding: str) -> bytes:
    """Render the header fields of the body part of a file, and the empty line after them."""
    fields = [
        render_content_type(media_type, name),
        f"Content-Transfer-Encoding: {encoding}\r\n".encode(),
        render_content_disposition(disposition, name),
    ]
    if content_id:
        fields.append(f"Content-ID: <{content_id}>\r\n".encode())
    return b"".join([*fields, b"\r\n"])


class MessageRenderer:
    """Renders mails.

    Args:
        file: measures a file, and so chooses its encoding.
        date, sender, to, cc, reply_to, subject, fixed_fields, text, html: render a part; `BatchRenderer` passes
            variants with a cache.
    """

    def __init__(
        self,
        *,
        file: Callable[[Attachment], EncodedFile],
        date: Callable[[datetime | None], bytes] = render_date,
        sender: Callable[[str, tuple[Address, ...]], bytes] = render_mailboxes,
        to: Callable[[str, tuple[Address, ...]], bytes] = render_mailboxes,
        cc: Callable[[str, tuple[Address, ...]], bytes] = render_mailboxes,
        reply_to: Callable[[str, tuple[Address, ...]], bytes] = render_mailboxes,
        subject: Callable[[str, str], bytes] = render_unstructured,
        fixed_fields: Callable[[Priority, tuple[tuple[str, str], ...], bool], bytes] = render_fixed_fields,
        text: Callable[[str, str], bytes] = render_text_part,
        html: Callable[[str, str], bytes] = render_text_part,
    ) -> None:
        self._measure_file = file
        self._render_date = date
        self._render_sender = sender
        self._render_to = to
        self._render_cc = cc
        self._render_reply_to = reply_to
        self._render_subject = subject
        self._render_fixed_fields = fixed_fields
        self._render_text = text
        self._render_html = html

    def render(self, mail: Mail, *, date: datetime | None = None) -> Rendering:
        """Render a mail. Its attachments are measured now and read on iteration.

        Args:
            mail: must have a sender and a Message-ID.
            date: the date of the mail, with a time zone; default: now.

        Raises:
            MessageError: no sender, no Message-ID, or an attachment that is missing or cannot be read.
        """
        if mail.from_address is None:
            raise MessageError(
                "The mail has no From address.",
                remedy="Set 'from_address' on the task, or 'From address' on the connection.",
            )
        if mail.message_id is None:
            raise MessageError(
                "The mail has no Message-ID.",
                remedy="Add one: mail.with_identity(message_id=new_message_id(mail.from_address.domain)).",
            )
        header = self._render_header(mail, mail.from_address, mail.message_id, date)
        # Only addresses may be rendered in non-ASCII characters, and Bcc is not rendered.
        needs_smtputf8 = (
            not header.isascii()
            or not (mail.envelope_from or "").isascii()
            or any(address.needs_smtputf8 for address in mail.bcc)
        )
        if not (mail.attachments or mail.inline_images or (mail.text and mail.html)):  # as in most mails
            body = self._render_body(mail)
            message = header + body if body.endswith(b"\r\n") else b"%b%b\r\n" % (header, body)
            return Rendering((message,), needs_smtputf8=needs_smtputf8)
        files = self._measure_files(mail)
        encodings = {file.transfer_encoding for file in files}
        binary = "binary" in encodings
        boundary = _make_boundary(mail.message_id) if encodings <= _BASE64 else _make_secret_boundary(mail.message_id)
        segments: list[Segment] = [header, *self._render_multipart(mail, boundary, files, binary=binary)]
        last = segments[-1]
        if not (isinstance(last, bytes) and last.endswith(b"\r\n")):
            segments.append(b"\r\n")
        return Rendering(_join_adjacent_octets(segments), needs_smtputf8=needs_smtputf8, binary=binary)

    def _render_header(self, mail: Mail, from_address: Address, message_id: str, date: datetime | None) -> bytes:
        """Render all header fields except those of the content. None of them names Bcc (RFC 5322 3.6.3)."""
        fields = [self._render_date(date), self._render_sender("From", (from_address,))]
        if mail.to:
            fields.append(self._render_to("To", mail.to))
        elif not mail.cc:
            # An empty group (RFC 5322 3.4): some servers add a header with every recipient to a mail without To and Cc.
            fields.append(b"To: undisclosed-recipients:;\r\n")
        if mail.cc:
            fields.append(self._render_cc("Cc", mail.cc))
        if mail.reply_to:
            fields.append(self._render_reply_to("Reply-To", mail.reply_to))
        fields += (
            self._render_subject("Subject", mail.subject),
            f"Message-ID: {message_id}\r\n".encode(),
            self._render_fixed_fields(mail.priority, mail.headers, mail.auto_generated),
        )
        return b"".join(fields)

    def _render_body(self, mail: Mail) -> bytes:
        """Render the HTML body, or the text body if there is none."""
        return self._render_html("html", mail.html) if mail.html else self._render_text("plain", mail.text or "")

    def _render_multipart(self, mail: Mail, boundary: str, files: list[EncodedFile], *, binary: bool) -> list[Segment]:
        """Render a multipart body: mixed ( alternative ( text, related ( html, images ) ), attachments ).

        Args:
            mail: the mail.
            boundary: what its boundaries begin with.
            files: the attachments, then the inline images.
            binary: whether any of the files is binary.
        """
        attached, images = files[: len(mail.attachments)], files[len(mail.attachments) :]
        body: list[Segment] = [self._render_body(mail)]
        has_binary_image = binary and any(image.transfer_encoding == "binary" for image in images)
        if images:
            related = _render_file_parts("inline", mail.inline_images, images)
            # RFC 2387 3.1 requires the type of the root part.
            body = _join_parts('related; type="text/html"', f"{boundary}_3", [body, *related], binary=has_binary_image)
        if mail.text and mail.html:
            texts: list[list[Segment]] = [[self._render_text("plain", mail.text)], body]
            body = _join_parts("alternative", f"{boundary}_2", texts, binary=has_binary_image)
        if attached:
            attached_parts = _render_file_parts("attachment", mail.attachments, attached)
            body = _join_parts("mixed", f"{boundary}_1", [body, *attached_parts], binary=binary)
        return body

    def _measure_files(self, mail: Mail) -> list[EncodedFile]:
        """Measure the files of a mail, attachments first; raise one error for all that cannot be measured."""
        files: list[EncodedFile] = []
        faults: list[MessageError] = []
        for attachment in (*mail.attachments, *mail.inline_images):
            try:
                files.append(self._measure_file(attachment))
            except MessageError as fault:
                faults.append(fault)
        if faults:
            raise combine_faults(faults)
        return files


_BASE64_RENDERER = MessageRenderer(file=measure_base64_file)
_BINARY_RENDERER = MessageRenderer(file=measure_binary_file)


def _render_file_parts(
    disposition: str, attachments: tuple[Attachment, ...], files: list[EncodedFile]
) -> list[list[Segment]]:
    return [
        [
            _render_file_fields(
                disposition,
                attachment.name,
                find_media_type(attachment, file),
                attachment.content_id,
                file.transfer_encoding,
            ),
            file,
        ]
        for attachment, file in zip(attachments, files, strict=True)
    ]


def _join_parts(subtype: str, boundary: str, parts: Iterable[list[Segment]], *, binary: bool) -> list[Segment]:
    """Join body parts with delimiters, each with the line break before it (RFC 2046 5.1.1)."""
    # RFC 2045 6.4: a multipart with a binary part is binary too.
    encoding = "Content-Transfer-Encoding: binary\r\n" if binary else ""
    segments: list[Segment] = [f'Content-Type: multipart/{subtype};\r\n boundary="{boundary}"\r\n{encoding}'.encode()]
    delimiter = f"\r\n--{boundary}\r\n".encode()
    for part in parts:
        segments.append(delimiter)
        segments += part
    segments.append(f"\r\n--{boundary}--\r\n".encode())
    return segments


def _make_boundary(message_id: str) -> str:
    """Make a boundary, the same for every rendering of a mail. No part contains it: see `BOUNDARY_PREFIX`."""
    import hashlib

    return BOUNDARY_PREFIX + hashlib.sha256(message_id.encode()).hexdigest()[:24]


def _make_secret_boundary(message_id: str) -> str:
    """Make a boundary for a mail with unencoded files, the same for every rendering of the mail by this process.

    Such a file (binary, or a mail) may contain any text, but 192 bits do not occur by chance. Since a Message-ID may be
    predictable (`stable_message_id`), the boundary depends on a secret of the process: otherwise, the author of a file
    could write the boundary into it and so add parts to the mail.
    """
    import hashlib

    digest = hashlib.blake2b(message_id.encode(), key=_boundary_key(), digest_size=24)
    return BOUNDARY_PREFIX + digest.hexdigest()


@cache
def _boundary_key() -> bytes:
    return os.urandom(32)


def _join_adjacent_octets(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """Join adjacent octets, so that a mail without attachments is one chunk."""
    joined: list[Segment] = []
    adjacent: list[bytes] = []
    for segment in segments:
        if isinstance(segment, bytes):
            adjacent.append(segment)
        else:
            joined += (b"".join(adjacent), segment)
            adjacent = []
    joined.append(b"".join(adjacent))
    return tuple(joined)


# --- Batches: the octets are those of `render`, but what mails have in common is rendered once.

_A = TypeVarTuple("_A")

# In octets of the rendered message.
_MAX_CACHED_FILE = 1024 * 1024
_MAX_FILE_CACHE = 8 * 1024 * 1024
_MAX_CACHED_PART = 1024 * 1024
_CACHE_ENTRY_OVERHEAD = 1024  # approximate memory of an entry, even for an empty file


class BatchRenderer(MessageRenderer):
    """Renders mails one after another, with the same octets as `render`, and caches what the next one may share.

    A header field or a body that is the same as in the previous mail is not rendered again. A file that takes up to
    1 MiB of the message is measured, read and encoded once, when a mail with it is first sent. Every further mail with
    the same path or content gets what was read then, even if the file has changed since. The cache has 8 MiB, and drops
    the least recently used file first. Larger files are measured and read for each mail. The memory that a batch needs
    does not depend on its number of mails.

    Thread-safe.

    Args:
        binary: whether files are sent unencoded (BINARYMIME, RFC 3030 3) instead of in base64.
    """

    def __init__(self, *, binary: bool = False) -> None:
        super().__init__(
            file=_FileCache(measure_binary_file if binary else measure_base64_file),
            date=_DateCache(),
            sender=_LastResultCache(render_mailboxes),
            cc=_LastResultCache(render_mailboxes),
            reply_to=_LastResultCache(render_mailboxes),
            subject=_LastResultCache(render_unstructured),
            fixed_fields=_LastResultCache(render_fixed_fields),
            text=_LastResultCache(render_text_part),
            html=_LastResultCache(render_text_part),
        )


class CachedFile(EncodedFile):
    """A file whose encoded content is kept after its first complete iteration."""

    __slots__ = ("_blocks", "_file", "has_failed", "is_dot_free", "transfer_encoding")

    def __init__(self, file: EncodedFile) -> None:
        self._file = file
        self.transfer_encoding = file.transfer_encoding
        self.is_dot_free = file.is_dot_free
        self._blocks: tuple[bytes, ...] | None = None
        #: Whether reading it has failed, for example because it changed after it was measured.
        self.has_failed = False

    @property
    def charset(self) -> str | None:
        """See `EncodedFile`."""
        return self._file.charset

    def __len__(self) -> int:
        return len(self._file)

    def __iter__(self) -> Iterator[bytes]:
        return self._read() if self._blocks is None else iter(self._blocks)

    def _read(self) -> Iterator[bytes]:
        blocks: list[bytes] = []
        try:
            for block in self._file:
                blocks.append(block)
                yield block
        except MessageError:
            self.has_failed = True
            raise
        self._blocks = tuple(blocks)


class _FileCache:
    """Measures files, and returns the same `CachedFile` for the same path or content."""

    def __init__(self, measure: Callable[[Attachment], EncodedFile]) -> None:
        self._measure = measure
        self._files: OrderedDict[object, tuple[CachedFile, int]] = OrderedDict()
        self._octets = 0
        self._lock = threading.Lock()

    def __call__(self, attachment: Attachment) -> EncodedFile:
        content = attachment.octets
        # A mail is encoded otherwise than the same octets of another type.
        key: object = (attachment.path if content is None else content, attachment.is_message)
        if content is not None and len(content) > _MAX_CACHED_FILE:
            return self._measure(attachment)
        try:
            with self._lock:
                cached, _ = self._files[key]
                self._files.move_to_end(key)
            if not cached.has_failed:
                return cached
        except KeyError:
            pass
        except TypeError:  # a `RemotePath` that is not hashable
            return self._measure(attachment)
        file = self._measure(attachment)
        if len(file) > _MAX_CACHED_FILE:
            return file
        return self._cache_file(key, file, len(file) + len(content or b"") + _CACHE_ENTRY_OVERHEAD)

    def _cache_file(self, key: object, file: EncodedFile, octets: int) -> CachedFile:
        cached = CachedFile(file)
        with self._lock:
            self._octets += octets - self._files.pop(key, (cached, 0))[1]
            self._files[key] = cached, octets
            while self._octets > _MAX_FILE_CACHE:
                self._octets -= self._files.popitem(last=False)[1][1]
        return cached


class _LastResultCache(Generic[*_A]):
    """A function that caches its last result. Its arguments must be immutable."""

    __slots__ = ("_last", "_render")

    def __init__(self, render: Callable[[*_A], bytes]) -> None:
        self._render = render
        self._last: tuple[tuple[*_A] | None, bytes] = None, b""

    def __call__(self, *arguments: *_A) -> bytes:
        last_arguments, part = self._last
        if last_arguments == arguments:
            return part
        part = self._render(*arguments)
        self._last = (arguments, part) if len(part) <= _MAX_CACHED_PART else (None, b"")
        return part


class _DateCache:
    """Renders the Date field, and caches it for the current second, or for the date that was given last."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: tuple[datetime | int | None, bytes] = None, b""

    def __call__(self, date: datetime | None) -> bytes:
        moment = int(time()) if date is None else date
        last_moment, field = self._last
        if last_moment == moment:
            return field
        field = render_date(moment if isinstance(moment, datetime) else datetime.fromtimestamp(moment, UTC))
        self._last = moment, field
        return field
