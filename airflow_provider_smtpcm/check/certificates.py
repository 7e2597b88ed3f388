"""What a server's certificates say, in words. For display alone: whether to trust them is for the TLS library."""

from __future__ import annotations

import ipaddress
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.connection_manager import FIELDS, STANDARD_FIELDS, AuthMode, SmtpConnectionManager
from airflow_provider_smtpcm.connection_manager.faults import describe_path

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


# folded: How the check words a moment and a connection's settings. Knows which settings are secret.

# Without these nobody understands the rest, whether or not somebody set them.
_ALWAYS = ("host", "port", "auth_mode", "ssl_mode")
_ALWAYS_WITH_WINDOWS = ("login", "windows_protocol", "channel_binding")
_SECRET = ("password",)
_PATHS = ("ca_certificate", "keytab", "ccache")


def moment(seconds: float) -> str:
    """A moment (seconds since 1970), and how far away it is."""
    left = seconds - time.time()
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC ({distance(left)})"


def distance(seconds: float) -> str:
    """Such as `41 days left` or `3 hours ago`."""
    size = abs(seconds)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if size >= 2 * length or unit == "minute":
            count = int(size // length)
            break
    return f"{count} {unit}{'' if count == 1 else 's'} {'left' if seconds >= 0 else 'ago'}"


def settings(manager: SmtpConnectionManager) -> str:
    """What the connection says, by the names of its fields; what stands at its default is left out."""
    windows = manager.auth_mode is AuthMode.WINDOWS
    told: list[str] = []
    for field in (*STANDARD_FIELDS, *FIELDS):
        value = getattr(manager, field.name, None)
        always = field.name in _ALWAYS or (windows and field.name in _ALWAYS_WITH_WINDOWS)
        if field.name == "login" and (manager.keytab or manager.ccache):
            always = False  # they say who it is
        if value in (None, field.default) and not always:
            continue
        told.append(f"{field.name}={_shown(field.name, value)}")
    return ", ".join(told)


def _shown(name: str, value: object) -> str:
    if name in _SECRET:
        return "(set)"
    if value is None:
        return "(empty: the worker's own identity)" if name == "login" else "(empty)"
    if name == "ca_certificate" and str(value).startswith("-----BEGIN"):
        return "(PEM text)"
    if name in _PATHS:
        return describe_path(str(value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


# folded: here began the module itself

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
