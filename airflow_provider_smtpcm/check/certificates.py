"""What a server's certificates say, in words. For display alone: whether to trust them is for the TLS library."""

from __future__ import annotations

import ipaddress
import time
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.check.words import distance, moment

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

# From here on somebody should know of it.
_DAYS_LEFT = 14
# A certificate for a whole farm has hundreds.
_NAMES_SHOWN = 8


def describe_chain(chain: list[bytes], *, host: str | None, authority_known: bool) -> tuple[list[str], list[str]]:
    """Lines about each certificate, and what is wrong with them.

    Args:
        chain: in DER, the server's own first.
        host: the name that the first must bear; None where nobody asks.
        authority_known: whether the chain ends in somebody who is trusted.
    """
    lines: list[str] = []
    read: list[Certificate] = []
    from cryptography import x509

    for number, der in enumerate(chain, start=1):
        try:
            certificate = x509.load_der_x509_certificate(der)
            lines += _describe(certificate, number)
        except (ValueError, x509.InvalidVersion):
            lines.append(f"{number}. ({len(der)} octets that cannot be read as a certificate)")
        else:
            read.append(certificate)
    if not read:
        return lines, ["The server showed no certificate that can be read."]
    complaints = _age(read)
    if host is not None and not any(_fits(host, name) for name in _names(read[0])):
        complaints.append(f"It is not made out to {host}.")
    if not authority_known:
        complaints.append(_ends_in(read))
    return lines, complaints


def _describe(certificate: Certificate, number: int) -> list[str]:
    names = _names(certificate) if number == 1 else []
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    bears = f"; names: {', '.join(names[:_NAMES_SHOWN])}{more}" if names else ""
    issuer = "itself" if certificate.issuer == certificate.subject else certificate.issuer.rfc4514_string()
    return [
        f"{number}. {certificate.subject.rfc4514_string() or '(no subject)'}{bears}",
        f"   issued by {issuer}; valid until {moment(certificate.not_valid_after_utc.timestamp())}",
    ]


def _names(certificate: Certificate) -> list[str]:
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return []
    return [
        *found.get_values_for_type(x509.DNSName),
        *(str(address) for address in found.get_values_for_type(x509.IPAddress)),
    ]


def _age(chain: list[Certificate]) -> list[str]:
    complaints: list[str] = []
    for number, certificate in enumerate(chain, start=1):
        left = certificate.not_valid_after_utc.timestamp() - time.time()
        if certificate.not_valid_before_utc.timestamp() > time.time():
            begins = moment(certificate.not_valid_before_utc.timestamp())
            complaints.append(f"Certificate {number} is not valid before {begins}; check this worker's clock too.")
        elif left < 0:
            complaints.append(f"Certificate {number} has expired: {distance(left)}.")
        elif left < _DAYS_LEFT * 86400:
            complaints.append(f"Certificate {number} expires soon: {distance(left)}.")
    return complaints


def _ends_in(chain: list[Certificate]) -> str:
    """Whom this worker would have to trust."""
    last = chain[-1]
    if last.issuer != last.subject:
        return (
            f"The last certificate that the server sends was issued by {last.issuer.rfc4514_string()}: that authority "
            "must be among those that this worker trusts, or stand in 'CA certificate'."
        )
    if len(chain) == 1:
        return "It was issued by nobody but itself."
    return "The chain ends in an authority of its own, which this worker must be told to trust ('CA certificate')."


def _fits(host: str, name: str) -> bool:
    """RFC 6125 6.4: one label of a name may be a wildcard, the leftmost."""
    try:
        return ipaddress.ip_address(host) == ipaddress.ip_address(name)
    except ValueError:
        pass
    host, name = host.lower().rstrip("."), name.lower()
    return host == name or (name.startswith("*.") and host.partition(".")[2] == name[2:])
