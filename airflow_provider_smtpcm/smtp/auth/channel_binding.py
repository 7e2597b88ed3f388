"""TLS channel bindings (RFC 5929), which tie a Windows sign-in to the TLS connection that carries it.

A server with Extended Protection rejects a sign-in whose binding is absent or wrong: that is what a relayed sign-in
looks like. So a binding that cannot be computed is an error, and is never left out silently.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.connection_manager import ChannelBinding
from airflow_provider_smtpcm.errors import AuthenticationError

if TYPE_CHECKING:
    from spnego.channel_bindings import GssChannelBindings

    from airflow_provider_smtpcm.smtp.transport import Transport


def compute_channel_bindings(channel_binding: ChannelBinding, transport: Transport) -> GssChannelBindings | None:
    """Return the binding for a sign-in over this connection; None for `ChannelBinding.NONE`, and without TLS.

    Raises:
        AuthenticationError: this channel binding is not defined for this TLS version or certificate.
    """
    if channel_binding is ChannelBinding.NONE or transport.tls_version is None:
        return None
    from spnego.channel_bindings import GssChannelBindings

    if channel_binding is ChannelBinding.TLS_UNIQUE:
        return GssChannelBindings(application_data=b"tls-unique:" + _get_tls_unique(transport))
    return GssChannelBindings(application_data=b"tls-server-end-point:" + _compute_tls_server_end_point(transport))


def _get_tls_unique(transport: Transport) -> bytes:
    # CPython returns a value for TLS 1.3 too, where tls-unique is not defined (RFC 9266 1).
    if transport.tls_version not in ("TLSv1", "TLSv1.1", "TLSv1.2") or not transport.tls_unique:
        raise AuthenticationError(
            f"The channel binding tls-unique is not defined for {transport.tls_version}.",
            remedy="Set 'Channel binding' to 'tls-server-end-point'.",
        )
    return transport.tls_unique


def _compute_tls_server_end_point(transport: Transport) -> bytes:
    """Hash the certificate with its signature's hash function, or SHA-256 for MD5 and SHA-1 (RFC 5929 4.1)."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    certificate = transport.server_certificate or b""
    try:
        algorithm = x509.load_der_x509_certificate(certificate).signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise AuthenticationError(
            f"The channel binding cannot be computed from the server's certificate ({error}).",
            remedy="Set 'Channel binding' to 'none' or, up to TLS 1.2, to 'tls-unique'.",
        ) from None
    if algorithm is None:
        raise AuthenticationError(
            "The channel binding tls-server-end-point is not defined for the server's certificate: its signature "
            "(Ed25519 or Ed448) defines no hash function.",
            remedy="Set 'Channel binding' to 'none', or have the server use a certificate signed with RSA or ECDSA.",
        )
    hash_name = "sha256" if algorithm.name in ("md5", "sha1") else algorithm.name
    return hashlib.new(hash_name, certificate).digest()
