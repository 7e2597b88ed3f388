"""The client certificate in the report of a check: its files, what the server asked for, and what was sent."""

from __future__ import annotations

import hashlib
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.check.report import describe_chain
from airflow_provider_smtpcm.connection_manager.faults import describe_path

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager

# RFC 8446 4, 4.2
_CLIENT_HELLO, _CERTIFICATE, _CERTIFICATE_REQUEST = 1, 11, 13
_CERTIFICATE_AUTHORITIES = 47
_HANDSHAKE = 22
_TLS_1_2, _TLS_1_3 = 0x0303, 0x0304


def describe_client_certificate(certificate: str, key: str | None) -> tuple[list[str], list[str]]:
    """Return lines about a client certificate that can be used, and a sentence for each of its faults.

    Args:
        certificate: the path of the certificate.
        key: the path of its key; None: it is in the certificate's file.
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    lines = ["OpenSSL takes the certificates in this file, but their content cannot be shown"]
    problems: list[str] = []
    chain = _read_chain(certificate)
    if chain:
        ders = [one.public_bytes(Encoding.DER) for one in chain]
        lines, problems = describe_chain(ders, host=None, authority_known=True)
        lines.insert(2, f"   SHA-256 fingerprint {hashlib.sha256(ders[0]).digest().hex(':').upper()}")
    if chain and not _is_for_clients(chain[0]):
        problems.append(
            "Certificate 1 is not issued for TLS clients (extended key usage clientAuth), so a server that verifies it "
            "refuses it."
        )
    path = certificate if key is None else key
    mode = Path(path).stat().st_mode
    if mode & stat.S_IROTH:
        lines.append(
            f"Note: every user of this worker may read the private key ({describe_path(path)} has mode "
            f"{stat.S_IMODE(mode):04o})."
        )
    return lines, problems


def _read_chain(certificate: str) -> list[Certificate]:
    """Return the certificates in a file; none if `cryptography` cannot read them, or if they are being replaced."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(Path(certificate).read_bytes())
    except (OSError, ValueError, x509.InvalidVersion):
        return []


def _is_for_clients(certificate: Certificate) -> bool:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return True  # for any purpose (RFC 5280 4.2.1.12)
    return bool({ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(usages))


class CertificateRequestWatch:
    """Watches the TLS handshakes of a context for the server's request for a client certificate, and for the answer.

    Only OpenSSL's messages tell: Python's `ssl` has no public method for either.

    Args:
        context: the context of the check.
        manager: the connection.
    """

    def __init__(self, context: ssl.SSLContext, manager: SmtpConnectionManager) -> None:
        self._manager = manager
        self._is_requested = self._is_sent = False
        self._authorities: list[bytes] = []
        self._is_possible = hasattr(context, "_msg_callback")
        context._msg_callback = self._on_message  # type: ignore[attr-defined]  # noqa: SLF001

    def describe(self) -> tuple[list[str], list[str]]:
        """Return lines about the last handshake, none if the server asked for nothing; and what is doubtful."""
        has_certificate = self._manager.client_certificate is not None
        if not self._is_possible:
            return [], []
        if not self._is_requested:
            doubt = "The server asked for no client certificate, so none was sent."
            return [], [doubt] if has_certificate else []
        asked = "the server asked for a client certificate"
        if self._is_sent:
            return [f"{asked}, and it was sent"], self._find_unknown_issuer()
        if has_certificate:
            return [], [f"{asked.capitalize()}, and none was sent: it takes no certificate with this kind of key."]
        return [f"{asked}; the connection has none"], []

    def _find_unknown_issuer(self) -> list[str]:
        """Return a warning if the server names the authorities that it accepts, and none of them is an issuer."""
        chain = _read_chain(self._manager.client_certificate or "") if self._authorities else []
        if not chain or any(certificate.issuer.public_bytes() in self._authorities for certificate in chain):
            return []
        issuer = chain[-1].issuer.rfc4514_string()
        number = len(self._authorities)
        return [f"The server names {number} accepted authorities of client certificates; {issuer} is none of them."]

    def _on_message(self, _: object, direction: str, version: int, content_type: int, kind: int, data: bytes) -> None:
        """Note a handshake message: its type, length and body (RFC 8446 4)."""
        if content_type != _HANDSHAKE:
            return
        body = data[4:]
        if kind == _CLIENT_HELLO and direction == "write":
            self._is_requested = self._is_sent = False
        elif kind == _CERTIFICATE_REQUEST and direction == "read":
            self._is_requested = True
            self._authorities = _read_authorities(body, version)
        elif kind == _CERTIFICATE and direction == "write":
            if version == _TLS_1_3:
                body = body[1 + body[0] :]  # the request's context
            self._is_sent = any(body[:3])  # the length of the list


def _read_authorities(body: bytes, version: int) -> list[bytes]:
    """Return the names, in DER, of the authorities in a request (RFC 8446 4.3.2 and 4.2.4, RFC 5246 7.4.4)."""
    if version != _TLS_1_3:
        lists = body[1 + body[0] :]  # the certificate types
        if version == _TLS_1_2:
            lists = _split(lists)[1]  # the signature algorithms
        return list(_read_list(_split(lists)[0]))
    extensions = _split(body[1 + body[0] :])[0]
    while len(extensions) >= 4:
        kind = int.from_bytes(extensions[:2], "big")
        content, extensions = _split(extensions[2:])
        if kind == _CERTIFICATE_AUTHORITIES:
            return list(_read_list(_split(content)[0]))
    return []


def _read_list(octets: bytes) -> Iterator[bytes]:
    while octets:
        item, octets = _split(octets)
        yield item


def _split(octets: bytes) -> tuple[bytes, bytes]:
    """Return what follows a length of two octets, and the rest."""
    end = 2 + int.from_bytes(octets[:2], "big")
    return octets[2:end], octets[end:]
