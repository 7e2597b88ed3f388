"""What the server and the account are called in Kerberos, and which realms this worker knows. Gets no tickets."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import AuthenticationError

_NETBIOS = re.compile(r"([^\\]+)\\(.+)")


def service_names(manager: SmtpConnectionManager) -> list[str]:
    """The names that the server may have in Kerberos, the likeliest first.

    Raises:
        AuthenticationError: the server is given by its address, which is nobody's name in Kerberos.
    """
    if manager.spn:
        return [manager.spn]
    try:
        ipaddress.ip_address(manager.host)
    except ValueError:
        return [f"smtp/{manager.server_name}", f"SMTPSVC/{manager.server_name}"]
    raise AuthenticationError(
        f"Kerberos needs the server's name, and 'SMTP server' is the address {manager.host}: a ticket is made out to a "
        "name, such as smtp/mail.corp.example.",
        remedy="Enter the server's name, or spell it out as 'SPN'.",
    )


def principal_name(manager: SmtpConnectionManager) -> str:
    r"""The account as a Kerberos principal: `alice@CORP.EXAMPLE` for any of the ways in which a login is written.

    Raises:
        AuthenticationError: `CORP\alice`, and no realm of that name is known here.
    """
    login = manager.login or ""
    named = _NETBIOS.fullmatch(login)
    user, domain = (named[2], named[1]) if named else (login, manager.domain or "")
    if not named and "@" in login:
        user, _, domain = login.rpartition("@")
    if not domain:
        return user
    realm = realm_of(domain)
    if realm is None:
        raise AuthenticationError(
            "Kerberos: the domain of the user name is no realm that this worker knows (its default is "
            f"{default_realm() or 'none'}).",
            remedy="Write the user name with its realm, as user@corp.example, or set 'Windows protocol' to 'ntlm'.",
        )
    return f"{user}@{realm}"


def realm_of(domain: str) -> str | None:
    """The realm of a Windows domain: its DNS name in capitals; for a NetBIOS name the default realm that begins so."""
    if "." in domain:
        return domain.upper()
    default = default_realm()
    if default and domain.upper() in (default.upper(), default.upper().split(".")[0]):
        return default
    return None


def default_realm() -> str | None:
    """The realm of krb5.conf; None where there is none."""
    try:
        import krb5

        realm = krb5.get_default_realm(krb5.init_context())
    except Exception:  # noqa: BLE001 - not installed, or not configured: either way there is none
        return None
    return realm.decode()


def realm_is_configured(realm: str) -> bool:
    """Whether this worker's krb5.conf speaks of a realm; one that it has to search for by DNS is not waited for."""
    if realm == default_realm():
        return True
    entry = re.compile(rf"^\s*{re.escape(realm)}\s*=\s*\{{", re.MULTILINE)
    return any(entry.search(text) for text in _configuration())


def _configuration() -> list[str]:
    """The text of krb5.conf and of what it includes."""
    paths = [Path(path) for path in os.environ.get("KRB5_CONFIG", "/etc/krb5.conf").split(":") if path]
    texts: list[str] = []
    while paths and len(texts) < 100:
        path = paths.pop()
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        texts.append(text)
        for word, included in re.findall(r"^\s*(include|includedir)\s+(\S+)", text, re.MULTILINE):
            paths += sorted(Path(included).glob("*")) if word == "includedir" else [Path(included)]
    return texts
