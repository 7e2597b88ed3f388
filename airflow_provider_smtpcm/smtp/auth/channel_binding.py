"""Channel bindings (RFC 5929): what ties a Windows sign-in to the TLS line that it goes over. Knows no SMTP.

A server with Extended Protection refuses a sign-in whose binding is absent or wrong, so that nobody in between can
relay it. Where a binding cannot be computed that is an error and never silence: a wrong one is worse than none.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

from airflow_provider_smtpcm.connection_manager import ChannelBinding
from airflow_provider_smtpcm.errors import AuthenticationError

if TYPE_CHECKING:
    from spnego.channel_bindings import GssChannelBindings


_REMEDY = "Set 'Channel binding' to 'none', or to a kind that this server's TLS has."


class TlsLine(Protocol):
    """What a binding is computed from: the line as it is after the handshake."""

    @property
    def tls_version(self) -> str | None:
        """Such as `TLSv1.3`; None in clear text."""

    @property
    def server_certificate(self) -> bytes | None:
        """The server's certificate in DER."""

    @property
    def tls_unique(self) -> bytes | None:
        """The first Finished message of the handshake (RFC 5929 3)."""


def channel_bindings(kind: ChannelBinding, line: TlsLine) -> GssChannelBindings | None:
    """The binding for a sign-in over this line; None in clear text, where there is nothing to bind to.

    Raises:
        AuthenticationError: this kind is undefined for this line.
    """
    if kind is ChannelBinding.NONE or line.tls_version is None:
        return None
    from spnego.channel_bindings import GssChannelBindings

    if kind is ChannelBinding.TLS_UNIQUE:
        return GssChannelBindings(application_data=b"tls-unique:" + _tls_unique(line))
    return GssChannelBindings(application_data=b"tls-server-end-point:" + _end_point(line))


def _tls_unique(line: TlsLine) -> bytes:
    # CPython hands out octets on TLS 1.3 too, where tls-unique is not defined (RFC 9266 1).
    if line.tls_version not in ("TLSv1", "TLSv1.1", "TLSv1.2") or not line.tls_unique:
        raise AuthenticationError(
            f"The channel binding tls-unique is not defined for {line.tls_version}.",
            remedy="Set 'Channel binding' to 'tls-server-end-point'.",
        )
    return line.tls_unique


def _end_point(line: TlsLine) -> bytes:
    """The certificate's hash by its signature's own hash function, MD5 and SHA-1 replaced (RFC 5929 4.1)."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    certificate = line.server_certificate or b""
    try:
        algorithm = x509.load_der_x509_certificate(certificate).signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise AuthenticationError(
            f"No channel binding can be made of the server's certificate ({error}).", remedy=_REMEDY
        ) from None
    if algorithm is None:
        raise AuthenticationError(
            "The channel binding tls-server-end-point is not defined for the server's certificate: its signature "
            "(Ed25519 or Ed448) has no hash function of its own.",
            remedy="Set 'Channel binding' to 'none', or have the server use a certificate signed with RSA or ECDSA.",
        )
    name = "sha256" if algorithm.name in ("md5", "sha1") else algorithm.name
    return hashlib.new(name, certificate).digest()
