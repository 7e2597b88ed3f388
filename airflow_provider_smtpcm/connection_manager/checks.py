"""What belongs together, and what each setting's text must look like."""

from __future__ import annotations

import re

from airflow_provider_smtpcm.connection_manager.faults import FaultKind, Faults, shape
from airflow_provider_smtpcm.connection_manager.fields import ALL_FIELDS
from airflow_provider_smtpcm.connection_manager.vocabulary import AuthMode, ChannelBinding, SslMode, WindowsProtocol

Values = dict[str, object]
Unread = frozenset[str]

# A DNS name or an IPv4 address. Underscores occur in Windows host names.
_HOST = re.compile(r"[\w.\-]+")
_HOST_AND_PORT = re.compile(r"(?:[^:]*|\[.*\]):\d+(?::.*)?")
_EHLO_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9\-]*)(\.[A-Za-z0-9\-]+)*\.?|\[[0-9A-Za-z:.]+\]")
# One address, with or without a name; whoever quotes a part of it knows what he does, and the mail checks it again.
_ADDRESS = re.compile(r"[^<>@]*<\s*[^\s<>@;,]+@[^\s<>@;,]+\s*>|[^\s<>@;,]+@[^\s<>@;,]+|.*\".*")
_LOGIN = re.compile(r"[^\\@]+|[^\\@]+\\[^\\@]+|[^\\@]+@[^\\@]+")
# What neither a DNS name nor a NetBIOS name has.
_DOMAIN = re.compile(r"[^\\/:*?\"<>|@,;=\s]+")
_SPN = re.compile(r"[A-Za-z0-9_\-]+/[A-Za-z0-9_.\-]+")
_SCHEMES = ("smtp", "smtps", "smtpcm", "http", "https")


def check(settled: Values, faults: Faults) -> None:
    """Add a fault for each thing that does not fit; brackets around an address that is the host are taken off.

    Of a setting that could not be read, for which `settled` has its default, nothing is said.
    """
    unread = faults.unread()
    _check_host(settled, unread, faults)
    _check_account(settled, unread, faults)
    _check_addresses(settled, faults)
    _check_local_hostname(settled, faults)


def _check_host(settled: Values, unread: Unread, faults: Faults) -> None:
    host = settled["host"]
    if not isinstance(host, str):
        if "host" not in unread:
            faults.add("host", FaultKind.NO_HOST)
        return
    settled["host"] = bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if _is_ipv6_address(bare):  # whose groups may look like a port
        return
    if "@" in host:
        faults.add("host", FaultKind.HOST_WITH_ACCOUNT)
    elif "://" in host:
        scheme = host.partition("://")[0].lower()
        known = f"{scheme}://" if scheme in _SCHEMES else "what ends in '://'"
        faults.add("host", FaultKind.HOST_WITH_SCHEME, scheme=known)
    elif _HOST_AND_PORT.fullmatch(host):
        faults.add("host", FaultKind.HOST_WITH_PORT)
    elif not _HOST.fullmatch(bare):
        faults.add("host", FaultKind.NOT_A_HOST, shape=shape(host))


def _is_ipv6_address(host: str) -> bool:
    if ":" not in host:
        return False
    import ipaddress

    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _check_kerberos(settled: Values, files: list[str], faults: Faults) -> None:
    """What belongs to Kerberos alone is a fault with NTLM, and an SPN has a certain form."""
    spn = settled["spn"]
    if settled["windows_protocol"] == WindowsProtocol.NTLM:
        for name in (*files, *(["spn"] if spn else [])):
            faults.add(name, FaultKind.KERBEROS_ONLY, windows_protocol=ALL_FIELDS["windows_protocol"].title)
    if isinstance(spn, str) and not _SPN.fullmatch(spn):
        faults.add("spn", FaultKind.NOT_AN_SPN)


def _check_addresses(settled: Values, faults: Faults) -> None:
    for name in ("from_address", "reply_to"):
        value = settled[name]
        if not isinstance(value, str):
            continue
        separator = ";" if ";" in value else "," if name == "reply_to" else None
        parts = value.split(separator) if separator and name == "reply_to" else [value]
        if not all(_ADDRESS.fullmatch(part.strip()) for part in parts if part.strip()):
            faults.add(name, FaultKind.NOT_AN_ADDRESS, shape=shape(value))


def _check_account(settled: Values, unread: Unread, faults: Faults) -> None:
    login, password = settled["login"], settled["password"]
    files = [name for name in ("keytab", "ccache") if settled[name]]
    if isinstance(login, str) and ":" in login:
        faults.add("login", FaultKind.LOGIN_WITH_COLON)
    if settled["auth_mode"] != AuthMode.WINDOWS:
        accounts = ("login", "password", "domain", "keytab", "ccache", "spn")
        given = [name for name in accounts if settled[name]]
        if given and "auth_mode" not in unread:
            titles, mode = _titles(given), ALL_FIELDS["auth_mode"].title
            faults.add(given[0], FaultKind.ACCOUNT_FOR_ANONYMOUS, given=titles, auth_mode=mode)
        return
    if len(files) + bool(password) > 1:
        given = [name for name in ("password", *files) if settled[name]]
        faults.add(given[0], FaultKind.TWO_CREDENTIALS, given=_titles(given))
    elif password and not login and "login" not in unread:
        faults.add("password", FaultKind.NO_LOGIN)
    _check_kerberos(settled, files, faults)
    if login and not (password or files or unread & {"password", "keytab", "ccache"}):
        faults.add("password", FaultKind.NO_PASSWORD)
    _check_names(settled, unread, faults)


def _titles(names: list[str]) -> str:
    return " and ".join(ALL_FIELDS[name].title for name in names)


def _check_names(settled: Values, unread: Unread, faults: Faults) -> None:
    """How the account is written, and that nothing is said that can have no effect."""
    login, domain = settled["login"], settled["domain"]
    if isinstance(login, str) and ":" not in login and not _LOGIN.fullmatch(login):
        faults.add("login", FaultKind.NOT_A_LOGIN)
    if isinstance(domain, str) and not _DOMAIN.fullmatch(domain):
        faults.add("domain", FaultKind.NOT_A_DOMAIN, shape=shape(domain))
    if domain and not login and "login" not in unread:
        faults.add("domain", FaultKind.DOMAIN_WITHOUT_LOGIN)
    if settled["channel_binding"] == ChannelBinding.TLS_UNIQUE and settled["ssl_mode"] == SslMode.NONE:
        faults.add("channel_binding", FaultKind.NO_TLS_TO_BIND_TO)
    if isinstance(login, str) and isinstance(domain, str):
        own = login.split("\\")[0] if "\\" in login else login.rpartition("@")[2] if "@" in login else ""
        if own and own.lower() != domain.lower():
            faults.add("domain", FaultKind.TWO_DOMAINS)


def _check_local_hostname(settled: Values, faults: Faults) -> None:
    name = settled["local_hostname"]
    if isinstance(name, str) and not _EHLO_NAME.fullmatch(name):
        faults.add("local_hostname", FaultKind.NOT_AN_EHLO_NAME)
