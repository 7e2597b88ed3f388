"""`Mail`: all that is said, checked when it is made. Knows neither how it is written down nor where it is sent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from operator import attrgetter
from typing import Any

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail.address import Address, parse_addresses
from airflow_provider_smtpcm.mail.attachment import (
    Attachment,
    AttachmentLike,
    parse_attachments,
    parse_inline_images,
)
from airflow_provider_smtpcm.mail.checks import (
    Priority,
    body,
    checked_message_id,
    header_text,
    image_faults,
    parse_headers,
    parse_priority,
    sender,
)

__all__ = ["Attachment", "Mail", "Priority"]

AddressesLike = str | Address | Iterable[str | Address] | None

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
        from_address: str | Address | None = None,
        to: AddressesLike = (),
        cc: AddressesLike = (),
        bcc: AddressesLike = (),
        reply_to: AddressesLike = (),
        subject: str = "",
        text: str | None = None,
        html: str | None = None,
        attachments: AttachmentLike | Iterable[AttachmentLike] | None = (),
        inline_images: Mapping[str, AttachmentLike] | AttachmentLike | Iterable[AttachmentLike] | None = (),
        priority: Priority | str = Priority.NORMAL,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = (),
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
        from_address: str | Address | None = None,
        reply_to: AddressesLike = None,
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
