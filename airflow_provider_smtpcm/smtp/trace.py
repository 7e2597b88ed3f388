"""The trace of a handshake, step by step: into the log, or onto the page of `check`. It holds no secret."""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from airflow_provider_smtpcm.smtp.auth.kerberos import KerberosClient

log = logging.getLogger(__name__)


class Step(StrEnum):
    """The steps of a handshake, in the order in which they can happen."""

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
    """An encrypted connection (`Transport`, which imports this module)."""

    @property
    def certificates(self) -> list[bytes]:
        """The chain that the server sent, in DER."""


class Trace:
    """Receives each step; this one writes into the log. Nothing that it receives holds a password or a token."""

    def begin(self, step: Step) -> None:
        """A step begins: what fails from here on has failed in it."""

    def tell(self, step: Step, detail: str) -> None:
        """Something was sent, received or found out in the step."""
        log.debug("%s: %s", step, detail)

    def warn(self, step: Step, detail: str) -> None:
        """The step failed, and the handshake goes on without it."""
        log.info("%s: %s", step, detail)

    def encrypted(self, line: EncryptedLine) -> None:
        """The connection is encrypted from here on; its certificates can be read now."""

    def has_ticket(self, kerberos: KerberosClient) -> None:
        """The KDC gave a ticket for the server, or the cache had one; it can be read now."""


#: The trace of sessions that nothing else traces.
LOG = Trace()
