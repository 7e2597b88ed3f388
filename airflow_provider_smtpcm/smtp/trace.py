"""The trace of a handshake: its steps, written to the log or to the report of `check`. It contains no secrets."""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from airflow_provider_smtpcm.smtp.auth.kerberos import KerberosClient

    class EncryptedConnection(Protocol):
        """An encrypted connection: `Transport`, which cannot be imported here, since it imports this module."""

        @property
        def certificates(self) -> list[bytes]:
            """The certificate chain that the server sent, in DER."""


log = logging.getLogger(__name__)


class Step(StrEnum):
    """The steps of a handshake, in order."""

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


class Trace:
    """Receives the steps of a handshake, and logs them. No argument contains a password or a token."""

    @property
    def records_info(self) -> bool:
        """Whether `info` does anything; if not, its callers need not format what happened."""
        return log.isEnabledFor(logging.DEBUG)

    def begin(self, step: Step) -> None:
        """A step begins; an error raised before the next call belongs to it."""

    def info(self, step: Step, detail: str) -> None:
        """Something was sent, received or detected in the step."""
        log.debug("%s: %s", step, detail)

    def warn(self, step: Step, detail: str) -> None:
        """The step failed, and the handshake continues without it."""
        log.info("%s: %s", step, detail)

    def on_encrypted(self, connection: EncryptedConnection) -> None:
        """The connection is encrypted from now on."""

    def on_ticket(self, kerberos: KerberosClient) -> None:
        """A service ticket was obtained from the KDC or the cache."""


#: The default trace.
LOG = Trace()
