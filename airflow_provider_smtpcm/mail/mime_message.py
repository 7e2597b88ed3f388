"""`MimeMessage`: a complete message that was made elsewhere, such as a signed one. Its octets are sent unchanged.

Only header fields that a signature of the body does not cover change: Bcc is removed, and a missing Date or Message-ID
is added.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeGuard

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.frozen_dataclasses import Record
from airflow_provider_smtpcm.mail.address import Address
from airflow_provider_smtpcm.mail.address_list import AddressesLike, AddressLike, parse_addresses
from airflow_provider_smtpcm.mail.files import (
    FILE_CHANGED_REMEDY,
    FileChangedError,
    RemotePath,
    UnchangedFile,
    is_local_path,
    make_read_error,
    quote_path,
)
from airflow_provider_smtpcm.mail.headers import render_date
from airflow_provider_smtpcm.mail.message import (
    Mail,
    get_envelope_sender,
    get_unique_recipients,
    parse_envelope_from,
)
from airflow_provider_smtpcm.mail.render import Rendering
from airflow_provider_smtpcm.mail.tainted import short_repr

_MAX_LINE = 998  # RFC 5322 2.1.1, without the CRLF
_BARE_LINE_END = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)\r\n")
_RECIPIENT_FIELDS = ("to", "cc", "bcc")
# Fields that are not sent (RFC 5322 3.6.3, 3.6.6).
_HIDDEN_FIELDS = ("bcc", "resent-bcc")
# RFC 6376 3.5, RFC 8617 4.1.2: the tag `h` lists the header fields that the signature covers, also absent ones.
_SIGNATURE_FIELDS = ("dkim-signature", "arc-message-signature")
_SIGNED_FIELDS = r"(?:^|;)\s*h\s*=([^;]*)"
_USAGE_REMEDY = "Pass a Mail, an EmailMessage, the octets of a message, or the path of an .eml file as a Path."


#: A complete message in memory.
MessageInMemory = Message | bytes | bytearray | memoryview


class _HeaderField(NamedTuple):
    """A header field: its lower-case name, its value without line breaks, and its position in the message."""

    name: str
    value: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True, init=False, eq=False, repr=False)
class MimeMessage(Record):
    """A complete message that was made elsewhere: signed, encrypted, an invitation, or an .eml file.

    Its octets are sent as they are, except that Bcc is removed, and a missing Date or Message-ID is added. Line ends
    that are all LF, as in files on Linux, become CRLF, which is the form that signatures cover. What SMTP cannot
    transport is refused: a line of more than 998 octets, a NUL, or a bare CR or LF. A message with octets beyond ASCII
    requires a server with 8BITMIME, and in its header, one with SMTPUTF8.
    """

    content: bytes = field(repr=False)
    recipients: tuple[Address, ...]
    envelope_from: str | None
    from_address: Address
    sender: Address
    subject: str
    message_id: str | None
    has_date: bool = field(repr=False)
    path: str | os.PathLike[str] | RemotePath | None

    def __init__(
        self,
        source: MessageInMemory | str | os.PathLike[str] | RemotePath,
        /,
        *,
        recipients: AddressesLike | None = None,
        envelope_from: AddressLike | None = None,
    ) -> None:
        """Read a message.

        Args:
            source: a message of Python's `email`, its octets, or the path of a file with them on the worker or in
                object storage. It is read at once, and kept in memory.
            recipients: who receives it, whatever its header says; None: the addresses in To, Cc and Bcc, or in
                Resent-To, Resent-Cc and Resent-Bcc if it has any of these.
            envelope_from: the address in MAIL FROM; `<>`: a null return path. None: the connection's *Envelope sender*,
                else the address in Sender, else that in From.

        Raises:
            MessageError: it cannot be read, or cannot be sent as it is.
        """
        is_in_memory = isinstance(source, MessageInMemory)
        content = _check_octets(_serialize(source) if isinstance(source, MessageInMemory) else _read(source))
        fields = list(_parse_header(content))
        values: dict[str, list[str]] = {}
        for header_field in fields:
            values.setdefault(header_field.name, []).append(header_field.value)
        is_resent = any(f"resent-{name}" in values for name in _RECIPIENT_FIELDS)
        prefix = "resent-" if is_resent else ""
        senders = _parse_header_addresses(values, "from")
        if not senders:
            raise MessageError("The message has no From address.", remedy="Add the header From.")
        authors = _parse_header_addresses(values, f"{prefix}sender") or _parse_header_addresses(values, f"{prefix}from")
        if recipients is not None:
            given = parse_addresses(recipients, field="Recipients")
        elif len(values.get("resent-date", ())) > 1 and is_resent:
            raise MessageError(
                "The message was resent more than once, so its header does not tell to whom it goes now.",
                remedy="Give the recipients.",
            )
        else:
            given = tuple(
                address for name in _RECIPIENT_FIELDS for address in _parse_header_addresses(values, prefix + name)
            )
        message_ids = [value.strip() for value in values.get("message-id", ())]
        if len(message_ids) > 1 or "" in message_ids:
            raise MessageError(
                f"The message has {'an empty' if '' in message_ids else 'more than one'} Message-ID.",
                remedy="Leave one out, or all: it is then added.",
            )
        set_field = object.__setattr__
        set_field(self, "content", _remove_hidden_fields(content, fields, values))
        set_field(self, "recipients", get_unique_recipients(given))
        set_field(self, "envelope_from", parse_envelope_from(envelope_from))
        set_field(self, "from_address", senders[0])
        set_field(self, "sender", authors[0] if authors else senders[0])
        set_field(self, "subject", _decode_text(values.get("subject", [""])[0]))
        set_field(self, "message_id", message_ids[0] if message_ids else None)
        set_field(self, "has_date", "date" in values)
        set_field(self, "path", None if is_in_memory else source)

    # What a `Mail` has too. Files are part of the octets here.
    has_files: ClassVar[bool] = False
    has_remote_files: ClassVar[bool] = False
    attachments: ClassVar[tuple[Any, ...]] = ()
    inline_images: ClassVar[tuple[Any, ...]] = ()
    reply_to: ClassVar[tuple[Address, ...]] = ()

    def __repr__(self) -> str:
        return f"<MimeMessage {self.subject!r} from {self.from_address.address}>"

    @property
    def envelope_sender(self) -> str:
        """The address in MAIL FROM (RFC 5321 3.3); "" for a null return path."""
        return get_envelope_sender(self.envelope_from, self.sender)

    def with_envelope(
        self, *, recipients: AddressesLike | None = None, envelope_from: AddressLike | None = None
    ) -> MimeMessage:
        """Return this message with another envelope.

        Args:
            recipients, envelope_from: as in `MimeMessage`; None, or a blank `envelope_from`: unchanged.

        Raises:
            MessageError: an address is invalid.
        """
        changes: dict[str, object] = {}
        if recipients is not None:
            changes["recipients"] = get_unique_recipients(parse_addresses(recipients, field="Recipients"))
        if (parsed := parse_envelope_from(envelope_from)) is not None:
            changes["envelope_from"] = parsed
        return self._copy(changes)

    def complete(self, *, envelope_from: str | None, make_message_id: Callable[[str], str]) -> MimeMessage:
        """Return this message with a Date, a Message-ID and an envelope sender.

        Args:
            envelope_from: the connection's default.
            make_message_id: returns a Message-ID for the domain of the From address.

        Raises:
            MessageError: it has no recipient, or a DKIM signature covers the absence of a field that it needs.
        """
        if not self.recipients:
            raise MessageError(
                "The message has no recipient: its header has no address in To, Cc or Bcc.",
                remedy="Give the recipients, or add them to its header.",
            )
        changes: dict[str, object] = {}
        added = b""
        if self.message_id is None:
            changes["message_id"] = message_id = make_message_id(self.from_address.domain)
            added += f"Message-ID: {message_id}\r\n".encode()
        if not self.has_date:
            changes["has_date"] = True
            added += render_date(None)
        if added:
            fields = list(_parse_header(self.content))
            lacking = [name for name in ("message-id", "date") if f"{name}:".encode() in added.lower()]
            _check_not_signed(fields, lacking, "lacks")
            end = fields[-1].end  # below the fields that servers have added at the top
            changes["content"] = self.content[:end] + added + self.content[end:]
        if self.envelope_from is None and envelope_from:
            changes["envelope_from"] = parse_envelope_from(envelope_from)
        return self._copy(changes)

    def render(self) -> Rendering:
        """Return the message for the server."""
        header, _, body = self.content.partition(b"\r\n\r\n")
        addresses = (self.envelope_sender, *(address.address for address in self.recipients))
        return Rendering(
            (self.content,),
            needs_smtputf8=not (header.isascii() and all(map(str.isascii, addresses))),
            is_8bit=not body.isascii(),
        )

    def write_eml(self, path: str | os.PathLike[str]) -> None:
        """Write the message to a file that mail programs open: the octets that a server would receive.

        Args:
            path: of the file, usually `*.eml`; it is overwritten.

        Raises:
            OSError: the file cannot be written.
        """
        Path(path).write_bytes(self.content)

    def _copy(self, changes: dict[str, object]) -> MimeMessage:
        if not changes:
            return self
        copy = object.__new__(MimeMessage)
        for name in self.__slots__:
            object.__setattr__(copy, name, changes.get(name, getattr(self, name)))
        return copy


#: What `hook.send` accepts as a complete message.
MessageLike = MimeMessage | MessageInMemory | os.PathLike[str] | RemotePath
#: What is sent: a mail that is rendered, or a complete message.
AnyMail = Mail | MimeMessage


def is_message_like(value: object) -> TypeGuard[MessageLike]:
    """Whether a value is a complete message, or the path of one as an object."""
    return isinstance(value, MimeMessage | MessageInMemory | os.PathLike | RemotePath) and not isinstance(value, str)


def as_mail(value: Mail | MessageLike) -> AnyMail:
    """Return a mail or message unchanged, and anything else as a `MimeMessage`.

    Raises:
        MessageError: it is not a message, or cannot be sent as it is.
    """
    if isinstance(value, Mail | MimeMessage):
        return value
    if isinstance(value, str):  # the text of a mail, more likely than a path
        raise MessageError("A str is neither a mail nor a message.", remedy=_USAGE_REMEDY)
    return MimeMessage(value)


# --- Octets


def _serialize(source: MessageInMemory) -> bytes:
    """Return the octets of a message in memory."""
    if not isinstance(source, Message):
        return bytes(source)
    from email.generator import BytesGenerator
    from email.policy import EmailPolicy

    policy = source.policy.clone(linesep="\r\n")
    if isinstance(policy, EmailPolicy):
        # A header that was parsed stays as it was. An address cannot be encoded (RFC 6532).
        is_ascii = all(map(str.isascii, _list_addresses(source)))
        policy = policy.clone(refold_source="none", utf8=policy.utf8 or not is_ascii)
    buffer = io.BytesIO()
    try:
        BytesGenerator(buffer, mangle_from_=False, policy=policy).flatten(source)
    except Exception as error:  # the classes differ between versions of Python
        raise MessageError(
            f"The message cannot be written ({type(error).__name__}: {error}).", remedy="Correct how it is made."
        ) from error
    return buffer.getvalue()


def _list_addresses(message: Message) -> Iterator[str]:
    for name, value in message.items():
        if name.lower().removeprefix("resent-") in ("from", "sender", *_RECIPIENT_FIELDS):
            for address in getattr(value, "addresses", ()):
                yield address.addr_spec


def _read(path: Any) -> bytes:
    """Read a file in the worker's file system or in object storage."""
    is_path = isinstance(path, str | os.PathLike | RemotePath)
    name = str(path)
    if not is_path or "\n" in name:
        what = f"The text {short_repr(name)}" if is_path else f"An object of type {type(path).__name__}"
        raise MessageError(f"{what} is neither a message nor the path of one.", remedy=_USAGE_REMEDY)
    try:
        return _read_local(path) if is_local_path(path) else _read_remote(path)
    except FileChangedError as error:
        raise MessageError(
            f"The message {quote_path(name)} cannot be read: {error}.", remedy=FILE_CHANGED_REMEDY, retryable=True
        ) from None
    except Exception as error:  # an object storage library may raise any class
        raise make_read_error(f"The message {quote_path(name)}", name, error) from error


def _read_local(path: str | os.PathLike[str]) -> bytes:
    with UnchangedFile(path) as file:
        return file.readall()


def _read_remote(path: RemotePath) -> bytes:
    with path.open("rb") as file:
        return bytes(file.read())


def _check_octets(content: bytes) -> bytes:
    """Return the content with CRLF at the end of each line.

    Raises:
        MessageError: it is empty, or SMTP cannot transport it unchanged.
    """
    if not content.strip():
        raise MessageError("The message is empty.", remedy=_USAGE_REMEDY)
    if b"\r" not in content:
        content = content.replace(b"\n", b"\r\n")
    is_uniform = content.count(b"\r\n") == content.count(b"\r") == content.count(b"\n")
    if not is_uniform and (bare := _BARE_LINE_END.search(content)):
        name = "CR" if bare[0] == b"\r" else "LF"
        raise MessageError(
            f"Line {_count_lines(content, bare.start())} of the message ends in a bare {name}, and other lines do not. "
            "SMTP cannot transport it unchanged.",
            remedy="Write CRLF at the end of every line, or LF at the end of every line. openssl mixes them: "
            r"sed 's/\r$//' makes them all LF, and its signature stays valid.",
        )
    if b"\0" in content:
        raise MessageError(
            f"Line {_count_lines(content, content.index(0))} of the message contains a NUL.",
            remedy="Encode that part in base64.",
        )
    lines = content.split(b"\r\n")
    if (longest := max(map(len, lines))) > _MAX_LINE:
        number = next(number for number, line in enumerate(lines, start=1) if len(line) > _MAX_LINE)
        raise MessageError(
            f"Line {number} of the message is too long: the longest line has {longest:,} octets, and SMTP allows "
            f"{_MAX_LINE}.",
            remedy="Encode that part in quoted-printable or base64, before it is signed.",
        )
    return content if not lines[-1] else content + b"\r\n"  # as it would be in DATA


def _count_lines(content: bytes, position: int) -> int:
    return len(re.findall(rb"\r\n|\r|\n", content[:position])) + 1


# --- The header


def _parse_header(content: bytes) -> Iterator[_HeaderField]:
    position = 0
    while position < len(content) and not content.startswith(b"\r\n", position):
        match = _FIELD.match(content, position)
        if match is None:
            line = content[position : content.index(b"\r\n", position)]
            is_mailbox = line.startswith((b"From ", b">From "))
            raise MessageError(
                f"Line {_count_lines(content, position)} of the message is not a header field: {short_repr(line)}.",
                remedy="Remove it: it belongs to a mailbox file, not to the message."
                if is_mailbox
                else "A message begins with its header, such as 'From: etl@corp.example'.",
            )
        try:
            value = match[2].decode().replace("\r\n", "")
        except UnicodeDecodeError:
            raise MessageError(
                f"The header {match[1].decode()} of the message has octets that are neither ASCII nor UTF-8.",
                remedy="Encode it (RFC 2047).",
            ) from None
        yield _HeaderField(match[1].decode().lower(), value, match.start(), match.end())
        position = match.end()


def _parse_header_addresses(values: dict[str, list[str]], name: str) -> tuple[Address, ...]:
    """Return the addresses of all fields with a name. Groups are expanded, and comments are ignored (RFC 5322 3.4)."""
    if name not in values:
        return ()
    from email.headerregistry import AddressHeader, HeaderRegistry

    label = "-".join(map(str.capitalize, name.split("-")))
    parse = HeaderRegistry(default_class=AddressHeader, use_default_map=False)
    addresses: list[Address] = []
    for value in values[name]:
        try:
            header: Any = parse(name, value)
            # The parser leaves out what it cannot read, such as everything behind a ';'.
            problems = [str(one) for one in header.defects if _loses_addresses(one)]
            found = [Address(local_part=one.username, domain=one.domain) for one in header.addresses]
        except Exception as error:  # noqa: BLE001 - the parser of Python's `email` may raise anything
            problems, found = [getattr(error, "message", "") or str(error) or type(error).__name__], []
        if problems:
            raise MessageError(
                f"{label} of the message, {short_repr(value.strip())}, cannot be read ({problems[0].rstrip('.')}).",
                remedy="Separate addresses by commas, put names with special characters into quotation marks, or give "
                "the recipients.",
            )
        addresses += found
    return tuple(addresses)


def _loses_addresses(defect: object) -> bool:
    from email.errors import InvalidHeaderDefect

    return type(defect) is InvalidHeaderDefect and "encoded" not in str(defect)  # which is about a display name


def _decode_text(value: str) -> str:
    """Return a header of free text without its encoded words, for the log."""
    text = value.strip()
    if "=?" not in text:
        return text
    from email.header import decode_header, make_header

    try:
        return str(make_header(decode_header(text)))
    except (ValueError, LookupError):
        return text


def _remove_hidden_fields(content: bytes, fields: Iterable[_HeaderField], values: dict[str, list[str]]) -> bytes:
    hidden = [one for one in fields if one.name in _HIDDEN_FIELDS]
    if not hidden:
        return content
    _check_not_signed(fields, [name for name in _HIDDEN_FIELDS if name in values], "has")
    for one in reversed(hidden):
        content = content[: one.start] + content[one.end :]
    return content


def _check_not_signed(fields: Iterable[_HeaderField], names: Iterable[str], verb: str) -> None:
    """Check that no DKIM signature covers a field that is added or removed.

    Args:
        fields: the header of the message.
        names: the names of the fields that are added or removed.
        verb: `has` or `lacks`.
    """
    covered = {
        name.strip().lower()
        for one in fields
        if one.name in _SIGNATURE_FIELDS
        for tag in re.findall(_SIGNED_FIELDS, one.value)
        for name in tag.split(":")
    }
    for name in names:
        if name in covered:
            label = {"message-id": "Message-ID"}.get(name, "-".join(map(str.capitalize, name.split("-"))))
            change = "added" if verb == "lacks" else "removed"
            raise MessageError(
                f"The message {verb} the header {label}, which its DKIM signature covers: it cannot be {change}.",
                remedy=f"{'Add' if verb == 'lacks' else 'Remove'} it before the message is signed.",
            )
