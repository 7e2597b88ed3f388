"""Domains as SMTP has them: what stands behind the `@`. Knows no mailbox."""

from __future__ import annotations

import re
from functools import lru_cache

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail.characters import shown

# RFC 5321 4.1.2, and the underscore, which host names inside many a company have.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_KEPT = 1000  # characters of a domain that is remembered


def ascii_domain(domain: str) -> str:
    """A domain as SMTP has it: ASCII as written, anything else in A-labels (IDNA 2008 with the mapping of UTS 46)."""
    return _ascii_domain(domain) if len(domain) <= _KEPT else _ascii_domain.__wrapped__(domain)


@lru_cache(maxsize=1024)
def _ascii_domain(domain: str) -> str:
    if domain.startswith("["):
        return _domain_literal(domain)
    written = domain
    if not domain.isascii():
        import idna

        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except UnicodeError as error:
            raise MessageError(
                # What idna says repeats the whole domain.
                f"The domain {shown(domain)} is not an internationalised domain ({error!s:.80}).",
                remedy="Correct it.",
            ) from error
    if not _DOMAIN.fullmatch(domain):
        raise MessageError(
            f"The domain {shown(written)} is not one." if written else "There is nothing behind the '@'.",
            remedy="A domain is letters, digits and hyphens with dots between, such as corp.example, or [10.0.0.1].",
        )
    return domain


@lru_cache(maxsize=1024)
def is_plain_domain(domain: str) -> bool:
    """Whether it is ASCII, and right as it stands."""
    return _DOMAIN.fullmatch(domain) is not None


def _domain_literal(domain: str) -> str:
    """`[10.0.0.1]` or `[IPv6:2001:db8::1]` (RFC 5321 4.1.3)."""
    import ipaddress

    literal = domain[1:-1] if domain.endswith("]") else ""
    try:
        if literal[:5].lower() != "ipv6:":
            ipaddress.IPv4Address(literal)
        elif ipaddress.IPv6Address(literal[5:]).scope_id is not None:
            # A scope (fe80::1%eth0) means nothing to the other side, and may hold any character.
            raise ValueError(literal)
    except ValueError as error:
        raise MessageError(
            f"The domain {shown(domain)} is not an address literal.", remedy="Write [10.0.0.1] or [IPv6:2001:db8::1]."
        ) from error
    return domain
