"""TLS client certificates (RFC 8446 4.4.2): loading one, and saying why its files cannot be used. No network.

Whether a certificate is valid now is for the server to judge: one that recognizes a fingerprint, as Postfix's
`relay_clientcerts` does, looks at no date. `check` warns before a certificate expires.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_smtpcm.connection_manager.faults import describe_path
from airflow_provider_smtpcm.connection_manager.fields import ALL_FIELDS
from airflow_provider_smtpcm.errors import TlsError, is_callers_timeout
from airflow_provider_smtpcm.smtp.tls import check_is_file

# More than any chain of certificates with a key, and not more than can be read at once.
_MAX_OCTETS = 1 << 20
# How DER begins: a SEQUENCE with its length in the next two octets. `.cer`, `.pfx` and `.p12` files of Windows hold it.
_DER_PREFIX = b"\x30\x82"
# OpenSSL's reasons for a certificate below its security level.
_WEAK_REASONS = {
    "EE_KEY_TOO_SMALL": "its key is too small",
    "CA_KEY_TOO_SMALL": "the key of its issuer is too small",
    "CA_MD_TOO_WEAK": "its signature's hash is too weak",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fault:
    field: str
    path: str
    found: str
    remedy: str


def load_client_certificate(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    """Load a client certificate and its private key into a TLS context.

    Args:
        context: the context.
        certificate: the path of the certificate, as PEM, perhaps with its issuers and its key.
        key: the path of the key, as PEM; None: it is in the certificate's file.

    Raises:
        TlsError: the files cannot be used; it names the setting, what was found, and the remedy.
    """
    is_encrypted = False

    def note_encryption() -> str:
        nonlocal is_encrypted
        is_encrypted = True
        return ""

    try:
        for path in (certificate, key):
            if path is not None:
                check_is_file(path)
        # Without a password function OpenSSL would ask on the terminal, if there is one.
        context.load_cert_chain(certificate, key, password=note_encryption)
    except (OSError, ValueError) as error:
        if is_callers_timeout(error):
            raise
        fault = _find_fault(certificate, key, error, is_encrypted=is_encrypted)
        raise TlsError(
            f"{ALL_FIELDS[fault.field].title}: {describe_path(fault.path)} cannot be used ({fault.found}).",
            remedy=fault.remedy,
        ) from (error if isinstance(error, OSError) else None)


def _find_fault(certificate: str, key: str | None, error: OSError | ValueError, *, is_encrypted: bool) -> _Fault:
    key_field, key_path = ("client_certificate", certificate) if key is None else ("client_key", key)
    fault = _find_fault_of_file("client_certificate", certificate, b"-----BEGIN CERTIFICATE-----", "certificate")
    fault = fault or _find_fault_of_file(key_field, key_path, b"PRIVATE KEY-----", "private key")
    if fault is not None:
        return fault
    if is_encrypted:
        return _Fault(
            field=key_field,
            path=key_path,
            found="its private key is encrypted",
            remedy="Nobody can type its password when a task runs: write the key without one, by 'openssl pkey -in "
            "encrypted.pem -out client.key', to a file that only the worker's user may read.",
        )
    reason = getattr(error, "reason", None) or ""
    if reason == "KEY_VALUES_MISMATCH":
        return _Fault(
            field=key_field,
            path=key_path,
            found="its private key is not that of the first certificate in the client certificate's file",
            remedy="Give the key with which the certificate was requested; in the file, the certificate comes before "
            "its issuers.",
        )
    if reason in _WEAK_REASONS:
        return _Fault(
            field="client_certificate",
            path=certificate,
            found=_WEAK_REASONS[reason],
            remedy="Have it issued again, with a current key size and hash; this worker's OpenSSL takes no weaker one.",
        )
    return _Fault(
        field="client_certificate",
        path=certificate,
        found=reason.replace("_", " ").lower() or "it cannot be read as PEM",
        remedy="Have a complete certificate and its key written to it again, as PEM.",
    )


def _find_fault_of_file(field: str, path: str, begin: bytes, noun: str) -> _Fault | None:
    """Return why a file cannot be read or holds no PEM block of that kind; None if it does."""
    try:
        check_is_file(path)
        with Path(path).open("rb") as file:
            octets = file.read(_MAX_OCTETS)
    except (OSError, ValueError) as error:
        found = getattr(error, "strerror", None) or "it cannot be read"
        remedy = "Give the path of a file that exists on the worker, and that the worker's user may read."
        return _Fault(field=field, path=path, found=found, remedy=remedy)
    if begin in octets:
        return None
    if octets.startswith(_DER_PREFIX):
        found = "it is not PEM, but DER, as .pfx and .cer files of Windows are"
        remedy = (
            "Convert it: 'openssl pkcs12 -in client.pfx -nodes -out client.pem' for a .pfx file, which holds both, and "
            "'openssl x509 -inform der -in client.cer -out client.pem' for a .cer file."
        )
        return _Fault(field=field, path=path, found=found, remedy=remedy)
    remedy = f"Give the path of a PEM file with the {noun}, BEGIN and END lines included."
    if noun == "private key" and field == "client_certificate":
        remedy = "Give the path of its private key as 'Client key', or add the key to this file."
    return _Fault(field=field, path=path, found=f"no {noun} found in it", remedy=remedy)
