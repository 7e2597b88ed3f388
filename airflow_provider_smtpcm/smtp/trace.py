"""What a conversation tells while it goes on, to whoever looks over its shoulder. Knows no socket, and no secret."""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from airflow_provider_smtpcm.smtp.auth.kerberos import KerberosClient

log = logging.getLogger(__name__)


class Step(StrEnum):
    """The steps of a conversation before the first mail, in the order in which they can happen."""

    NAME = "name resolution"
    TCP = "TCP"
    GREETING = "greeting"
    HELLO = "EHLO"
    TLS = "TLS"
    HELLO_AFTER_TLS = "EHLO after TLS"
    MECHANISMS = "mechanisms"
    BINDING = "channel binding"
    TICKET = "Kerberos ticket"
    CHOICE = "chosen mechanism"
    SIGN_IN = "sign-in"


class EncryptedLine(Protocol):
    """What can be looked at once the line is encrypted."""

    @property
    def certificates(self) -> list[bytes]:
        """The chain that the server sent, in DER."""


class Trace:
    """Hears of each step; this one writes into the log. Nothing that it hears shows a password or a token."""

    def begin(self, step: Step) -> None:
        """A step begins: what fails from here on has failed in it."""

    def tell(self, step: Step, detail: str) -> None:
        """Something that was said or found out."""
        log.debug("%s: %s", step, detail)

    def warn(self, step: Step, detail: str) -> None:
        """The step came to nothing, and the conversation goes on without it."""
        log.info("%s: %s", step, detail)

    def encrypted(self, line: EncryptedLine) -> None:
        """The line is encrypted from here on; its certificates can be looked at now."""

    def has_ticket(self, kerberos: KerberosClient) -> None:
        """The KDC gave a ticket for the server, or the cache had one; it can be looked at now."""


#: For whoever has no listener of his own.
LOG = Trace()
