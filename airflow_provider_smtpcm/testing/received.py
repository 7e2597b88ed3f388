"""A mail as the relay took it: who said what to whom, and how they proved who they are. Knows no server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from email.message import EmailMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedMail:
    r"""One mail that the relay has accepted.

    Args:
        mail_from: the envelope's sender; empty for the null sender `<>`.
        recipients: the envelope's accepted recipients, Bcc among them, in the order they were named.
        content: the message, octet by octet as it came, without the dots that SMTP adds (RFC 5321 4.5.2).
        authenticated_as: the user as the relay's table spells it, such as `CORP\alice`; None if nobody logged in.
        mechanism: `NTLM`, or None if nobody logged in.
        tls_version: such as `TLSv1.3`; None if it came in clear.
        helo_name: what the client called itself in EHLO or HELO.
    """

    mail_from: str
    recipients: tuple[str, ...]
    content: bytes = field(repr=False)
    authenticated_as: str | None
    mechanism: str | None
    tls_version: str | None
    helo_name: str

    @property
    def message(self) -> EmailMessage:
        """The content, parsed anew at each call: `mail.message["Subject"]`, `mail.message.get_body()`."""
        from email import message_from_bytes, policy

        return message_from_bytes(self.content, policy=policy.default)
