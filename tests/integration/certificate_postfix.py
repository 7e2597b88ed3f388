"""Postfix that recognizes its clients by their TLS certificates."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from tests.client_certificates import Clients
from tests.integration.loopback_postfix import ANONYMOUS, IMPLICIT_TLS, LoopbackPostfix

# Mail for any other domain is relayed: into the same mailbox, so that it does not leave the machine.
_MORE_OF_MAIN_CF = """
virtual_mailbox_domains = $mydomain
default_transport = virtual
smtpd_sasl_auth_enable = no
smtpd_tls_fingerprint_digest = sha256
"""
_KNOWN_BY_FINGERPRINT = (
    "smtpd_tls_ask_ccert=yes",
    "relay_clientcerts=texthash:$config_directory/relay_clientcerts",
)
_RELAYS = (
    "smtpd_relay_restrictions=permit_tls_clientcerts,reject_unauth_destination",
    "smtpd_recipient_restrictions=permit_tls_clientcerts,reject_unauth_destination",
)
_TAKES_ALL = ANONYMOUS[2:]
_DEMANDS_ONE = (
    "smtpd_tls_req_ccert=yes",
    "smtpd_tls_CAfile=$config_directory/clients.pem",
    *_TAKES_ALL,
)


class CertificatePostfix(LoopbackPostfix):
    """The server as a context manager; nobody signs in.

    `relay_port` relays for the clients whose fingerprints it has, `client_port` accepts a connection of theirs only,
    `demanding_port` and `demanding_implicit_port` demand a certificate of the clients' authority in the handshake, and
    `not_asking_port` is as `relay_port`, but asks for none.
    """

    relay_port: int
    client_port: int
    demanding_port: int
    demanding_implicit_port: int
    not_asking_port: int
    services: ClassVar = {
        "relay_port": (*_KNOWN_BY_FINGERPRINT, *_RELAYS),
        "client_port": (*_KNOWN_BY_FINGERPRINT, *_TAKES_ALL, "smtpd_client_restrictions=permit_tls_clientcerts,reject"),
        "demanding_port": _DEMANDS_ONE,
        "demanding_implicit_port": (*_DEMANDS_ONE, *IMPLICIT_TLS),
        "not_asking_port": (*_KNOWN_BY_FINGERPRINT[1:], *_RELAYS),
    }

    def __init__(self) -> None:
        super().__init__()
        self.clients = Clients(self.folder)
        #: Whose fingerprint the server has.
        self.known = self.clients.issue("known.pem")
        #: Of the same authority, but with a fingerprint that the server does not have.
        self.unknown = self.clients.issue("unknown.pem")

    def _configure_sasl(self) -> Mapping[str, str]:
        (self._etc / "clients.pem").write_text(self.clients.authority_pem)
        (self._etc / "relay_clientcerts").write_text(f"{get_fingerprint(self.known)} etl.corp.example\n")
        return {}

    def _configure(self) -> None:
        super()._configure()
        with (self._etc / "main.cf").open("a") as main_cf:
            main_cf.write(_MORE_OF_MAIN_CF)


def get_fingerprint(certificate: str) -> str:
    """Return the SHA-256 fingerprint of the first certificate in a file, as Postfix writes it."""
    pem = Path(certificate).read_text().partition("-----BEGIN CERTIFICATE-----")
    der = ssl.PEM_cert_to_DER_cert("".join(pem[1:]).partition("-----END CERTIFICATE-----")[0] + ssl.PEM_FOOTER)
    return hashlib.sha256(der).digest().hex(":").upper()
