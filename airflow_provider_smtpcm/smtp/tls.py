"""TLS: the context of a connection manager, and what a failed handshake means."""

from __future__ import annotations

import ssl
from pathlib import Path

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.connection_manager.faults import describe_path
from airflow_provider_smtpcm.errors import ConnectionLostError, MailError, NoAnswerError, Phase, TlsError

_NOT_BY_RFC_5280 = (
    "The certificate, or its authority's, does not follow RFC 5280, on which Python 3.13 and later insist: the "
    "server's administrator must have it issued again, or this worker run Python 3.12."
)
# OpenSSL's X509_V_ERR_... codes, and the remedy.
_DISTRUSTED = (
    ((62, 64), "Set 'SMTP server' to a name that is in the certificate."),
    ((9, 10), "The server's administrator must renew it; check this worker's clock too."),
    ((18, 19), "Give that certificate, or its private authority, as 'CA certificate'."),
    ((2, 20, 21), "Give its private authority as 'CA certificate', or have the server send its whole chain."),
    # It is for another purpose, or its key or its hash is too weak.
    ((26, 66, 67, 68), "The server's administrator must have it issued again, as today's TLS demands."),
    # Checked only under X509_V_FLAG_X509_STRICT, which Python's default context has from 3.13 on.
    (range(80, 94), _NOT_BY_RFC_5280),
)
# The first octets of every certificate of more than 255 octets.
_DER = b"\x30\x82"
_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE")


def tls_context(manager: SmtpConnectionManager) -> ssl.SSLContext:
    """Return a new TLS context; keep it, since loading the system's authorities takes tens of milliseconds.

    Raises:
        TlsError: the connection's CA certificate cannot be used.
    """
    authority = manager.ca_certificate
    try:
        if authority is None:
            context = ssl.create_default_context()
        elif authority.startswith("-----BEGIN"):
            context = ssl.create_default_context(cadata=authority)
        else:
            context = _context_trusting(Path(authority))
    except (OSError, ValueError) as error:
        shown = "the PEM text" if authority and authority.startswith("-----BEGIN") else describe_path(authority or "")
        why = error.strerror if isinstance(error, FileNotFoundError | PermissionError) else "no certificate found in it"
        raise TlsError(
            f"CA certificate (ca_certificate): {shown} cannot be used ({why}).",
            remedy="Give the path of a PEM file that exists on the worker, or paste the PEM text, BEGIN and END lines "
            "included.",
        ) from error
    if not manager.verify_certificate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _context_trusting(authority: Path) -> ssl.SSLContext:
    """Return a context that trusts the authorities in a file: PEM, or DER as Windows exports it into a `.cer` file."""
    with authority.open("rb") as file:
        is_der = file.read(len(_DER)) == _DER
    if is_der:
        return ssl.create_default_context(cadata=authority.read_bytes())
    return ssl.create_default_context(cafile=authority)


def handshake_error(error: OSError, peer: str, *, implicit: bool) -> MailError:
    """Return what a failed handshake means to the person who configured the connection.

    Args:
        error: what the handshake raised.
        peer: the server, as messages name it.
        implicit: whether TLS was spoken from the start, rather than after STARTTLS.
    """
    wrong_mode = "If this port speaks plain SMTP first, set SSL to 'STARTTLS'; else look into the server's log."
    remedy_for_silence = wrong_mode if implicit else "The server's administrator must look at its TLS settings and log."
    if isinstance(error, ssl.SSLCertVerificationError):
        code = error.verify_code
        remedies = (remedy for codes, remedy in _DISTRUSTED if code in codes)
        remedy = next(remedies, "Give the certificate's authority as 'CA certificate'.")
        return TlsError(f"The certificate of {peer} is not trusted: {error.verify_message.rstrip('.')}.", remedy=remedy)
    if isinstance(error, TimeoutError):
        return NoAnswerError(
            f"{peer} did not finish the TLS handshake before the deadline.",
            remedy=remedy_for_silence,
            phase=Phase.TLS,
        )
    not_tls = isinstance(error, ssl.SSLError) and error.reason in _NOT_TLS
    if not_tls and implicit:
        return TlsError(
            f"{peer} does not speak TLS from the start on this port.",
            remedy="Set SSL to 'STARTTLS', or 'Port' to the server's implicit TLS port (usually 465).",
        )
    if not_tls:
        return TlsError(
            f"{peer} agreed to STARTTLS and then went on in clear text.",
            remedy="A firewall or proxy in between may be tampering with SMTP; its administrator must let it through.",
        )
    if isinstance(error, ssl.SSLError) and error.reason not in (None, "UNEXPECTED_EOF_WHILE_READING"):
        return TlsError(
            f"TLS with {peer} failed: {error.reason.replace('_', ' ').lower()}.",
            remedy="The server's TLS version or ciphers do not meet this worker's; its administrator must update them.",
        )
    return ConnectionLostError(
        f"{peer} hung up in the TLS handshake.",
        remedy=remedy_for_silence,
        phase=Phase.TLS,
    )
