"""TLS: contexts, errors for failed TLS handshakes, and channel bindings (RFC 5929)."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import ssl
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.connection_manager import ChannelBinding, SmtpConnectionManager
from airflow_provider_smtpcm.connection_manager.faults import describe_path
from airflow_provider_smtpcm.errors import (
    AuthenticationError,
    ConnectionLostError,
    MailError,
    NoAnswerError,
    Phase,
    TlsError,
    is_callers_timeout,
)

if TYPE_CHECKING:
    from spnego.channel_bindings import GssChannelBindings

    from airflow_provider_smtpcm.smtp.transport import Transport

log = logging.getLogger(__name__)

_RFC_5280_REMEDY = (
    "The certificate, or its authority's, does not comply with RFC 5280, which Python 3.13 and later enforce: the "
    "server's administrator must have it reissued, or this worker must run Python 3.12."
)
# OpenSSL's X509_V_ERR_* codes, and the remedy.
_VERIFY_REMEDIES = (
    ((62, 64), "Set 'SMTP server', or this fallback host, to a name that is in the certificate."),
    ((9, 10), "The server's administrator must renew it; check this worker's clock too."),
    ((18, 19), "Give that certificate, or its private authority, as 'CA certificate'."),
    ((2, 20, 21), "Give its private authority as 'CA certificate', or have the server send its whole chain."),
    # Issued for another purpose, or its key or hash is too weak.
    (
        (26, 66, 67, 68),
        "The server's administrator must have it reissued for TLS servers, with a current key size and hash.",
    ),
    # Checked only with X509_V_FLAG_X509_STRICT, which Python's default context sets from 3.13 on.
    (range(80, 94), _RFC_5280_REMEDY),
)
# How a DER certificate begins: a SEQUENCE (0x30) whose length is in the next two octets (0x82: 256 octets or more).
_DER_PREFIX = b"\x30\x82"
# So often files that are replaced while they are read are read in a row.
_MAX_READS = 3
# OpenSSL's reasons for octets that are not TLS.
_NOT_TLS_REASONS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE")


def create_tls_context(authority: str | None, *, verify: bool) -> ssl.SSLContext:
    """Create a TLS context. Reuse it: loading the system's authorities takes tens of milliseconds.

    Args:
        authority: the path or PEM text of the CA certificate; None: the system's authorities.
        verify: whether the server's certificate is verified.

    Raises:
        TlsError: the connection's CA certificate cannot be used.
    """
    try:
        if authority is None:
            context = ssl.create_default_context()
        elif authority.startswith("-----BEGIN"):
            context = ssl.create_default_context(cadata=authority)
        else:
            context = _create_context_trusting(Path(authority))
    except (OSError, ValueError) as error:
        if is_callers_timeout(error):
            raise
        shown = "the PEM text" if authority and authority.startswith("-----BEGIN") else describe_path(authority or "")
        why = "no certificate found in it"
        if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
            why = error.strerror or why
        raise TlsError(
            f"CA certificate (ca_certificate): {shown} cannot be used ({why}).",
            remedy="Give the path of a PEM file that exists on the worker, or paste the PEM text, BEGIN and END lines "
            "included.",
        ) from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _create_context_trusting(authority: Path) -> ssl.SSLContext:
    """Create a context that trusts the authorities in a file: PEM, or DER as in a `.cer` file exported by Windows."""
    check_is_file(str(authority))
    with authority.open("rb") as file:
        is_der = file.read(len(_DER_PREFIX)) == _DER_PREFIX
    if is_der:
        return ssl.create_default_context(cadata=authority.read_bytes())
    return ssl.create_default_context(cafile=authority)


def check_is_file(path: str) -> None:
    """Check that a path leads to a file, before it is opened: opening a named pipe may block forever.

    Raises:
        OSError: there is no such file, or it is a directory, a pipe or a device. It does not repeat the path, which may
            be a password in the wrong field.
        ValueError: the path is none.
    """
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        if is_callers_timeout(error):
            raise
        raise OSError(error.errno, error.strerror) from None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file")


def create_context_of(manager: SmtpConnectionManager) -> ssl.SSLContext:
    """Create the TLS context of a connection, with its client certificate.

    Raises:
        TlsError: the connection's CA certificate or client certificate cannot be used.
    """
    context = create_tls_context(manager.ca_certificate, verify=manager.verify_certificate)
    if manager.client_certificate is not None:
        from airflow_provider_smtpcm.smtp.client_certificate import load_client_certificate

        load_client_certificate(context, manager.client_certificate, manager.client_key)
    return context


class TlsContextCache:
    """The TLS context of a connection. It is created again when one of the connection's files has been replaced.

    Not thread-safe: `get` is called with a lock held.

    Args:
        manager: a connection that uses TLS.

    Raises:
        TlsError: a file of the connection cannot be used.
    """

    def __init__(self, manager: SmtpConnectionManager) -> None:
        self._manager = manager
        authority = manager.ca_certificate
        paths = (
            None if authority is None or authority.startswith("-----BEGIN") else authority,
            manager.client_certificate,
            manager.client_key,
        )
        self._paths = tuple(path for path in paths if path is not None)
        # The context of the files that can be used, and the versions of the files that were read last, perhaps in vain.
        self._context: ssl.SSLContext | None = None
        self._versions: list[tuple[int, ...] | None] = []
        self.get()

    def get(self) -> ssl.SSLContext:
        """Return the context. If a replaced file cannot be used, perhaps since it is being written, the old one.

        Raises:
            TlsError: a file cannot be used, and there is no old one.
        """
        for attempts_left in reversed(range(_MAX_READS)):
            # Before the files are read: if they are replaced meanwhile, they are read again.
            versions = self._get_versions()
            if self._context is not None and versions == self._versions:
                break
            self._versions = versions
            try:
                self._context = create_context_of(self._manager)
            except TlsError as error:
                # A certificate and the key of another one are read if they are exchanged in between.
                if attempts_left and self._get_versions() != versions:
                    continue
                if self._context is None:
                    raise
                log.warning("%s The files as they were before are still used.", error.message)
            break
        assert self._context is not None
        return self._context

    def _get_versions(self) -> list[tuple[int, ...] | None]:
        """Return what identifies the content of each file, without reading it; None for a missing file."""
        return [_get_version(path) for path in self._paths]


def _get_version(path: str) -> tuple[int, ...] | None:
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    # The last one changes with the permissions too, which may be why a file cannot be read.
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def handshake_error(error: OSError, peer: str, *, implicit: bool) -> MailError:
    """Return the error for a failed TLS handshake, with a remedy in terms of the connection form.

    Args:
        error: the exception that the handshake raised.
        peer: the server's name in messages (`host:port`).
        implicit: whether TLS starts with the connection (implicit TLS) rather than with STARTTLS.
    """
    if implicit:
        server_remedy = (
            "If this port speaks SMTP in clear text first, set SSL to 'STARTTLS'; otherwise see the server's log."
        )
    else:
        server_remedy = "The server's administrator must check its TLS settings and log."
    if isinstance(error, ssl.SSLCertVerificationError):
        code = error.verify_code
        remedies = (remedy for codes, remedy in _VERIFY_REMEDIES if code in codes)
        remedy = next(remedies, "Give the certificate's authority as 'CA certificate'.")
        return TlsError(f"The certificate of {peer} is not trusted: {error.verify_message.rstrip('.')}.", remedy=remedy)
    if isinstance(error, TimeoutError):
        return NoAnswerError(
            f"{peer} did not finish the TLS handshake before the deadline.",
            remedy=server_remedy,
            phase=Phase.TLS,
        )
    not_tls = isinstance(error, ssl.SSLError) and error.reason in _NOT_TLS_REASONS
    if not_tls and implicit:
        return TlsError(
            f"{peer} does not speak TLS from the start on this port.",
            remedy="Set SSL to 'STARTTLS', or 'Port' to the server's implicit TLS port (usually 465).",
        )
    if not_tls:
        return TlsError(
            f"{peer} agreed to STARTTLS and then continued in clear text.",
            remedy="A firewall or proxy in between may be rewriting SMTP; its administrator must let STARTTLS pass.",
        )
    if isinstance(error, ssl.SSLError) and error.reason not in (None, "UNEXPECTED_EOF_WHILE_READING"):
        remedy = "The server and this worker may have no TLS version or cipher in common; update the server."
        if error.reason.endswith("ALERT_HANDSHAKE_FAILURE"):
            # Up to TLS 1.2 this alert also means that the client certificate is missing (RFC 5246 7.4.6).
            remedy += " Or it demands a client certificate, and got none that it takes: see 'Client certificate'."
        return TlsError(f"TLS with {peer} failed: {error.reason.replace('_', ' ').lower()}.", remedy=remedy)
    return ConnectionLostError(
        f"{peer} closed the connection during the TLS handshake.",
        remedy=server_remedy,
        phase=Phase.TLS,
    )


# --- Client certificates. In TLS 1.3 the server judges the client's certificate when the client's handshake is over, so
# --- that its alert arrives in place of the first reply (RFC 8446 4.4.2.4).

_CHECK_SHOWS = "'check' shows its dates, issuer and fingerprint."
# The end of OpenSSL's reason for an alert (RFC 8446 6.2), and the remedy.
_CERTIFICATE_ALERTS = {
    # Exim sends this one whatever is wrong.
    "BAD_CERTIFICATE": "The server's log says why: it may have expired, its authority may be one that the server does "
    f"not trust, or its issuers may be missing behind it in the file; {_CHECK_SHOWS}",
    "UNSUPPORTED_CERTIFICATE": "Have it issued for TLS clients (extended key usage clientAuth), with an RSA or ECDSA "
    "key.",
    "CERTIFICATE_REVOKED": "Its authority has revoked it: have another one issued.",
    "CERTIFICATE_EXPIRED": "Renew it; if it is valid, have the server's clock checked.",
    "CERTIFICATE_UNKNOWN": "The server's administrator must accept it, and the server's log says why not; "
    f"{_CHECK_SHOWS}",
    "UNKNOWN_CA": "Add its issuers' certificates to the file of 'Client certificate', behind it; or have the server's "
    "administrator trust its authority.",
    "ACCESS_DENIED": f"The server's administrator must allow it; {_CHECK_SHOWS}",
    "CERTIFICATE_REQUIRED": "The server takes no certificate with this kind of key: have one issued with an RSA or "
    "ECDSA key.",
}


def client_certificate_refusal(error: OSError | None, peer: str, *, has_client_certificate: bool) -> TlsError | None:
    """Return the error for a TLS alert by which the server refuses the client's certificate; None for other errors.

    Args:
        error: the exception that the handshake, or the first read after it, raised.
        peer: the server's name in messages (`host:port`).
        has_client_certificate: whether the connection has a client certificate.
    """
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    alert = (reason or "").partition("_ALERT_")[2]
    if alert not in _CERTIFICATE_ALERTS:
        return None
    words = alert.replace("_", " ").lower().replace(" ca", " CA")
    if not has_client_certificate:
        message = f"{peer} demands a client certificate, and the connection has none (TLS alert: {words})."
        return TlsError(message, remedy="Give the path of one that the server accepts as 'Client certificate'.")
    message = f"{peer} refused the client certificate (TLS alert: {words})."
    if alert == "CERTIFICATE_REQUIRED":
        message = f"{peer} did not get the client certificate that it demands (TLS alert: {words})."
    return TlsError(message, remedy=_CERTIFICATE_ALERTS[alert])


# --- Channel bindings (RFC 5929), which tie a Windows sign-in to the TLS connection that carries it. A server with
# --- Extended Protection rejects a sign-in whose binding is absent or wrong: that is what a relayed sign-in looks like.
# --- So a binding that cannot be computed is an error. Only one that is not defined, so that no server could check it
# --- (RFC 5929 4.1), is left out, unless the connection spells it out.


#: Why a sign-in has no binding although the connection has the default one.
UNDEFINED_END_POINT = (
    "tls-server-end-point is not defined for the server's certificate: its signature (such as Ed25519) has no hash "
    "function"
)


def compute_channel_bindings(
    channel_binding: ChannelBinding, transport: Transport, *, is_required: bool = True
) -> GssChannelBindings | None:
    """Return the binding for a sign-in over this connection; None for `ChannelBinding.NONE`, and without TLS.

    Args:
        channel_binding: the kind.
        transport: a transport after the TLS handshake, or without TLS.
        is_required: whether a binding that is not defined for the server's certificate is an error; if not, the result
            is None.

    Raises:
        AuthenticationError: this channel binding is not defined for this TLS version or certificate.
    """
    if channel_binding is ChannelBinding.NONE or transport.tls_version is None:
        return None
    from spnego.channel_bindings import GssChannelBindings

    if channel_binding is ChannelBinding.TLS_UNIQUE:
        return GssChannelBindings(application_data=b"tls-unique:" + _get_tls_unique(transport))
    certificate = transport.server_certificate or b""
    hash_name = _find_signature_hash(certificate)
    if hash_name is not None:
        digest = hashlib.new(hash_name, certificate).digest()
        return GssChannelBindings(application_data=b"tls-server-end-point:" + digest)
    if is_required:
        raise AuthenticationError(
            f"The channel binding {UNDEFINED_END_POINT}.",
            remedy="Leave 'Channel binding' empty or set it to 'none', or have the server use a certificate that is "
            "signed with RSA or ECDSA.",
        )
    return None


def _get_tls_unique(transport: Transport) -> bytes:
    # CPython returns a value for TLS 1.3 too, where tls-unique is not defined (RFC 9266 1).
    if transport.tls_version not in ("TLSv1", "TLSv1.1", "TLSv1.2") or not transport.tls_unique:
        raise AuthenticationError(
            f"The channel binding tls-unique is not defined for {transport.tls_version}.",
            remedy="Set 'Channel binding' to 'tls-server-end-point'.",
        )
    return transport.tls_unique


def _find_signature_hash(certificate: bytes) -> str | None:
    """Return the hash function of a certificate's signature, SHA-256 for MD5 and SHA-1; None without (RFC 5929 4.1)."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        algorithm = x509.load_der_x509_certificate(certificate).signature_hash_algorithm
    except UnsupportedAlgorithm:  # newer than this worker's libraries, as those of post-quantum cryptography
        return None
    except (ValueError, x509.InvalidVersion) as error:
        raise AuthenticationError(
            f"The channel binding cannot be computed from the server's certificate ({error}).",
            remedy="Set 'Channel binding' to 'none' or, up to TLS 1.2, to 'tls-unique'.",
        ) from None
    if algorithm is None:
        return None
    return "sha256" if algorithm.name in ("md5", "sha1") else algorithm.name
