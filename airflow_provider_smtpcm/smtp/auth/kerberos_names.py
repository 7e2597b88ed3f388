"""Kerberos names: the server's SPNs, the account's principals, and the realms that this worker's krb5.conf defines.

No KDC is asked here, and no name is looked up in DNS.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.connection_manager.manager import LOCAL_DOMAIN
from airflow_provider_smtpcm.errors import AuthenticationError, is_callers_timeout

_NETBIOS = re.compile(r"([^\\]+)\\(.+)")
_MAX_CONFIGURATION_FILES = 100


# --- The server.


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


# --- The account.


class ClientName(NamedTuple):
    """A name by which a KDC may know an account.

    Args:
        name: `alice@CORP.EXAMPLE`; for an enterprise name `alice@brand.example`, with the realm behind it or without.
        realm: the realm whose KDC is asked; None: there is no default realm.
        is_enterprise: whether it is an enterprise name (RFC 6806 5). A KDC of Active Directory finds a UPN by it, also
            where the suffix is no realm, and returns the account's principal.
    """

    name: str
    realm: str | None
    is_enterprise: bool = False

    def parse(self, krb5_context: Any) -> Any:
        """Return python-krb5's principal."""
        import krb5

        flags = krb5.PrincipalParseFlags.enterprise if self.is_enterprise else krb5.PrincipalParseFlags.none
        return krb5.parse_name_flags(krb5_context, self.name.encode(), flags)


def list_client_names(manager: SmtpConnectionManager) -> list[ClientName]:
    r"""Return the names by which a KDC may know the account, in the order in which they are tried.

    Args:
        manager: has a login.

    Raises:
        AuthenticationError: the login is `CORP\alice`, and this worker's krb5.conf has no realm for `CORP`; or it is
            `.\alice`, an account of the mail server itself.
    """
    login = manager.login or ""
    netbios = _NETBIOS.fullmatch(login)
    user, domain = (netbios[2], netbios[1]) if netbios else (login, manager.domain or "")
    is_upn = not netbios and "@" in login
    if is_upn:
        user, _, domain = login.rpartition("@")
    if domain == LOCAL_DOMAIN:
        raise AuthenticationError(
            r"Kerberos: a user name with the domain '.' (.\user) is a local account of the mail server, which no KDC "
            "knows.",
            remedy=r"Write an account of the domain as CORP\user or user@corp.example; for a local account of the "
            "server, enter its password and set 'Windows protocol' to 'negotiate' or 'ntlm'.",
        )
    default = get_default_realm()
    if not domain:
        return [ClientName(user, default)]
    realm = find_realm(domain)
    names = [ClientName(f"{user}@{realm}", realm)] if realm else []
    if is_upn or "." in domain:
        if is_realm_configured(realm):
            names.append(ClientName(f"{user}@{domain}@{realm}", realm, is_enterprise=True))
        if default and realm != default:  # the realm to which UPNs with other suffixes belong
            names.append(ClientName(f"{user}@{domain}", default, is_enterprise=True))
    if not names:
        raise AuthenticationError(
            "Kerberos: the domain of the user name is not a realm that this worker knows (its default realm: "
            f"{default or 'none'}).",
            remedy="Write the user name with its realm, as user@corp.example, or set 'Windows protocol' to 'ntlm'.",
        )
    return names


# --- Realms.


def find_realm(domain: str) -> str | None:
    """Return the realm of a Windows domain.

    Args:
        domain: a DNS name, whose realm is the same name in capitals; or a NetBIOS name, which stands for the realm that
            krb5.conf has by that name, or whose first label it is. The default realm comes first.
    """
    if "." in domain:
        return domain.upper()
    default = get_default_realm()
    realms = [*([default] if default else []), *_list_realms()]
    if same := [realm for realm in realms if realm.upper() == domain.upper()]:
        return same[0]
    beginning = list(dict.fromkeys(realm for realm in realms if realm.upper().split(".")[0] == domain.upper()))
    return beginning[0] if len(beginning) == 1 or default in beginning else None


def find_host_realm(host: str) -> str:
    """Return the realm that [domain_realm] in krb5.conf gives a server; "" if none: then the KDC finds it (RFC 6806).

    As in MIT's library, a host's own entry comes first, then those of its domains, with a leading period or without.
    """
    realms: dict[str, str] = {}
    for text in _read_configuration():
        for section in re.findall(r"(?ms)^\s*\[domain_realm\](.*?)(?=^\s*\[|\Z)", text):
            for domain, realm in re.findall(r"(?m)^\s*([^\s#;=]+)\s*=\s*(\S+)", section):
                realms.setdefault(domain.lower(), realm)
    labels = host.lower().rstrip(".").split(".")
    domains = (".".join(labels[start:]) for start in range(1, len(labels)))
    names = [".".join(labels), *(name for domain in domains for name in (f".{domain}", domain))]
    return next((realms[name] for name in names if name in realms), "")


def get_default_realm() -> str | None:
    """Return the default realm of krb5.conf; None if there is none."""
    try:
        import krb5

        realm = krb5.get_default_realm(krb5.init_context())
    except Exception:  # noqa: BLE001 - krb5 is not installed, or has no default realm
        return None
    return realm.decode()


def is_realm_configured(realm: str | None) -> bool:
    """Return whether krb5.conf defines a realm. Its KDC is not looked up in DNS, which could take a long time."""
    return realm is not None and (realm == get_default_realm() or realm in _list_realms())


def _list_realms() -> list[str]:
    """Return the names in the [realms] sections of krb5.conf."""
    sections = (section for text in _read_configuration() for section in re.split(r"(?m)^\s*\[", text))
    realms = (section for section in sections if re.match(r"realms\]", section))
    return [realm for section in realms for realm in re.findall(r"(?m)^\s*(\S+)\s*=\s*\{", section)]


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
