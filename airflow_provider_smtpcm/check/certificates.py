"""Describes a server's certificates, and their faults, for the report. Only the TLS library decides on trust."""

from __future__ import annotations

import ipaddress
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

# A certificate that expires within fewer days is a warning.
_MIN_DAYS_LEFT = 14
# A shared certificate may have hundreds of names.
_MAX_SHOWN_NAMES = 8


def describe_chain(chain: list[bytes], *, host: str | None, authority_known: bool) -> tuple[list[str], list[str]]:
    """Return lines that describe each certificate, and a sentence for each fault.

    Args:
        chain: the certificates in DER, the server's own first.
        host: the name for which the first must be valid; None if the TLS library has verified it.
        authority_known: whether the chain ends in an authority that this worker trusts.
    """
    from cryptography import x509

    lines: list[str] = []
    certificates: list[Certificate] = []
    for number, der in enumerate(chain, start=1):
        try:
            certificate = x509.load_der_x509_certificate(der)
            lines += _describe_certificate(certificate, number)
        except (ValueError, x509.InvalidVersion):
            lines.append(f"{number}. ({len(der)} octets that cannot be read as a certificate)")
        else:
            certificates.append(certificate)
    if not certificates:
        return lines, ["The server sent no readable certificate."]
    problems = _find_validity_problems(certificates)
    if host is not None and not any(_matches(host, name) for name in _get_names(certificates[0])):
        problems.append(f"Certificate 1 is not issued for {host}.")
    if not authority_known:
        problems.append(_describe_unknown_authority(certificates))
    return lines, problems


def _describe_certificate(certificate: Certificate, number: int) -> list[str]:
    names = _get_names(certificate) if number == 1 else []
    more = f" and {len(names) - _MAX_SHOWN_NAMES} more" if len(names) > _MAX_SHOWN_NAMES else ""
    shown_names = f"; names: {', '.join(names[:_MAX_SHOWN_NAMES])}{more}" if names else ""
    issuer = "itself" if certificate.issuer == certificate.subject else certificate.issuer.rfc4514_string()
    return [
        f"{number}. {certificate.subject.rfc4514_string() or '(no subject)'}{shown_names}",
        f"   issued by {issuer}; valid until {format_time(certificate.not_valid_after_utc.timestamp())}",
    ]


def _get_names(certificate: Certificate) -> list[str]:
    from cryptography import x509

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return []
    return [
        *extension.get_values_for_type(x509.DNSName),
        *(str(address) for address in extension.get_values_for_type(x509.IPAddress)),
    ]


def _find_validity_problems(chain: list[Certificate]) -> list[str]:
    problems: list[str] = []
    for number, certificate in enumerate(chain, start=1):
        seconds_left = certificate.not_valid_after_utc.timestamp() - time.time()
        if certificate.not_valid_before_utc.timestamp() > time.time():
            start = format_time(certificate.not_valid_before_utc.timestamp())
            problems.append(f"Certificate {number} is not valid before {start}; check this worker's clock too.")
        elif seconds_left < 0:
            problems.append(f"Certificate {number} has expired: {format_time_left(seconds_left)}.")
        elif seconds_left < _MIN_DAYS_LEFT * 86400:
            problems.append(f"Certificate {number} expires soon: {format_time_left(seconds_left)}.")
    return problems


def _describe_unknown_authority(chain: list[Certificate]) -> str:
    last = chain[-1]
    if last.issuer != last.subject:
        return (
            f"The last certificate that the server sends was issued by {last.issuer.rfc4514_string()}, which this "
            "worker does not trust: give that authority as 'CA certificate'."
        )
    if len(chain) == 1:
        return "The certificate is self-signed."
    return "The chain ends in a private authority, which this worker does not trust: give it as 'CA certificate'."


def _matches(host: str, name: str) -> bool:
    """Return whether a certificate's name covers a host; only its first label may be a wildcard (RFC 6125 6.4)."""
    try:
        return ipaddress.ip_address(host) == ipaddress.ip_address(name)
    except ValueError:
        pass
    host, name = host.lower().rstrip("."), name.lower()
    return host == name or (name.startswith("*.") and host.partition(".")[2] == name[2:])


def format_time(seconds: float) -> str:
    """Format a time in seconds since 1970, such as `2026-01-31 12:00 UTC (41 days left)`."""
    left = seconds - time.time()
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC ({format_time_left(left)})"


def format_time_left(seconds: float) -> str:
    """Format a duration in seconds, such as `41 days left`; a negative one such as `3 hours ago`."""
    duration = abs(seconds)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if duration >= 2 * length or unit == "minute":
            count = int(duration // length)
            break
    return f"{count} {unit}{'' if count == 1 else 's'} {'left' if seconds >= 0 else 'ago'}"
