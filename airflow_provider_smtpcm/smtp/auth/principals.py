"""Kerberos names: the server's SPNs, the account's principal, and the realms that this worker's krb5.conf defines."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import AuthenticationError, is_callers_timeout

_NETBIOS = re.compile(r"([^\\]+)\\(.+)")
_MAX_CONFIGURATION_FILES = 100


def list_service_names(manager: SmtpConnectionManager) -> list[str]:
    """Return the SPNs that the server may have, the most likely first.

    Raises:
        AuthenticationError: the server is given by its IP address, and Kerberos needs a name.
    """
    if manager.spn:
        return [manager.spn]
    try:
        ipaddress.ip_address(manager.host)
    except ValueError:
        return [f"smtp/{manager.server_name}", f"SMTPSVC/{manager.server_name}"]
    raise AuthenticationError(
        f"Kerberos needs the server's name, and 'SMTP server' is the address {manager.host}: a ticket is issued for a "
        "name, such as smtp/mail.corp.example.",
        remedy="Enter the server's name, or set 'SPN'.",
    )


def get_principal_name(manager: SmtpConnectionManager) -> str:
    r"""Return the account as a Kerberos principal: `alice@CORP.EXAMPLE`, however the login is written.

    Raises:
        AuthenticationError: the login is `CORP\alice`, and this worker knows no realm for `CORP`.
    """
    login = manager.login or ""
    netbios = _NETBIOS.fullmatch(login)
    user, domain = (netbios[2], netbios[1]) if netbios else (login, manager.domain or "")
    if not netbios and "@" in login:
        user, _, domain = login.rpartition("@")
    if not domain:
        return user
    realm = find_realm(domain)
    if realm is None:
        raise AuthenticationError(
            "Kerberos: the domain of the user name is not a realm that this worker knows (its default realm: "
            f"{get_default_realm() or 'none'}).",
            remedy="Write the user name with its realm, as user@corp.example, or set 'Windows protocol' to 'ntlm'.",
        )
    return f"{user}@{realm}"


def find_realm(domain: str) -> str | None:
    """Return the realm of a Windows domain.

    Args:
        domain: a DNS name, whose realm is the same name in capitals; or a NetBIOS name, which stands for the default
            realm if it is that realm's first label.
    """
    if "." in domain:
        return domain.upper()
    default = get_default_realm()
    if default and domain.upper() in (default.upper(), default.upper().split(".")[0]):
        return default
    return None


def get_default_realm() -> str | None:
    """Return the default realm of krb5.conf; None if there is none."""
    try:
        import krb5

        realm = krb5.get_default_realm(krb5.init_context())
    except Exception:  # noqa: BLE001 - krb5 is not installed, or has no default realm
        return None
    return realm.decode()


def is_realm_configured(realm: str) -> bool:
    """Return whether krb5.conf defines a realm. Its KDC is not looked up in DNS, which could take long."""
    if realm == get_default_realm():
        return True
    entry = re.compile(rf"^\s*{re.escape(realm)}\s*=\s*\{{", re.MULTILINE)
    return any(entry.search(text) for text in _read_configuration())


def _read_configuration() -> list[str]:
    """Return the text of krb5.conf and of the files that it includes."""
    paths = [Path(path) for path in os.environ.get("KRB5_CONFIG", "/etc/krb5.conf").split(":") if path]
    texts: list[str] = []
    while paths and len(texts) < _MAX_CONFIGURATION_FILES:
        path = paths.pop()
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            if is_callers_timeout(error):
                raise
            continue
        texts.append(text)
        for directive, included in re.findall(r"^\s*(include|includedir)\s+(\S+)", text, re.MULTILINE):
            paths += sorted(Path(included).glob("*")) if directive == "includedir" else [Path(included)]
    return texts
