"""What belongs together, and what each setting's text must look like: one sentence for each fault."""

from __future__ import annotations

import re

from airflow_provider_smtpcm.connection_manager.coerce import BASIC_REFUSED
from airflow_provider_smtpcm.connection_manager.fields import ALL_FIELDS
from airflow_provider_smtpcm.connection_manager.vocabulary import AuthMode, ChannelBinding, SslMode, WindowsProtocol

Values = dict[str, object]

# A DNS name or an IPv4 address. Underscores occur in Windows host names.
_HOST = re.compile(r"[\w.\-]+")
_HOST_AND_PORT = re.compile(r"(?:[^:]*|\[.*\]):\d+(?::.*)?")
_EHLO_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9\-]*)(\.[A-Za-z0-9\-]+)*\.?|\[[0-9A-Za-z:.]+\]")
# One address, with or without a name; whoever quotes a part of it knows what he does, and the mail checks it again.
_ADDRESS = re.compile(r"[^<>@]*<\s*[^\s<>@;,]+@[^\s<>@;,]+\s*>|[^\s<>@;,]+@[^\s<>@;,]+|.*\".*")
_LOGIN = re.compile(r"[^\\@]+|[^\\@]+\\[^\\@]+|[^\\@]+@[^\\@]+")
_SPN = re.compile(r"[A-Za-z0-9_\-]+/[A-Za-z0-9_.\-]+")


def check(settled: Values, faults: list[str]) -> None:
    """Add a sentence for each thing that does not fit; brackets around an address that is the host are taken off."""
    _check_host(settled, faults)
    _check_account(settled, faults)
    _check_addresses(settled, faults)
    _check_local_hostname(settled, faults)


def _check_host(settled: Values, faults: list[str]) -> None:
    host, title = settled["host"], ALL_FIELDS["host"].title
    if not isinstance(host, str):
        # What the SSIS connection string says of the server is not looked at where a part of it cannot be read.
        if not any(title in fault or fault.startswith(ALL_FIELDS["ssis_properties"].label) for fault in faults):
            faults.append(f"{title} is empty; enter the name of the mail server.")
        return
    settled["host"] = bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if _is_ipv6_address(bare):  # whose groups may look like a port
        return
    if "@" in host:  # what stands before it may be a password, and is not repeated
        faults.append(f"{title} holds an '@'; write the server's name alone, and the account into 'User name'.")
    elif "://" in host:
        faults.append(f"{title} is {host!r}; write the server's name alone, without {host.split('://')[0]}://.")
    elif _HOST_AND_PORT.fullmatch(host):
        faults.append(f"{title} is {host!r}; write the name alone and put the number into 'Port'.")
    elif not _HOST.fullmatch(bare):
        faults.append(f"{title} is {host!r:.80}, which is not a host name; enter the name of the mail server.")


def _is_ipv6_address(host: str) -> bool:
    if ":" not in host:
        return False
    import ipaddress

    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _check_kerberos(settled: Values, files: list[str], faults: list[str]) -> None:
    """What belongs to Kerberos alone is a fault with NTLM, and an SPN has a certain form."""
    if settled["windows_protocol"] == WindowsProtocol.NTLM:
        faults.extend(
            f"{ALL_FIELDS[name].title} is for Kerberos, but {ALL_FIELDS['windows_protocol'].title} is 'ntlm'; leave it "
            "empty or choose 'kerberos'."
            for name in (*files, *(["spn"] if settled["spn"] else []))
        )
    spn = settled["spn"]
    if isinstance(spn, str) and not _SPN.fullmatch(spn):
        faults.append(
            f"{ALL_FIELDS['spn'].title} is {spn!r:.80}; write service/host without a realm, as smtp/mail.corp.example."
        )


def _check_addresses(settled: Values, faults: list[str]) -> None:
    for name in ("from_address", "reply_to"):
        value = settled[name]
        if not isinstance(value, str):
            continue
        separator = ";" if ";" in value else "," if name == "reply_to" else None
        parts = value.split(separator) if separator and name == "reply_to" else [value]
        if not all(_ADDRESS.fullmatch(part.strip()) for part in parts if part.strip()):
            title = ALL_FIELDS[name].title
            faults.append(f"{title} is {value!r:.80}, which is no address; write etl@corp.example or ETL <etl@...>.")


def _check_account(settled: Values, faults: list[str]) -> None:
    login, password = settled["login"], settled["password"]
    files = [name for name in ("keytab", "ccache") if settled[name]]
    if settled["auth_mode"] != AuthMode.WINDOWS:
        accounts = ("login", "password", "domain", "keytab", "ccache", "spn")
        given = [ALL_FIELDS[name].title for name in accounts if settled[name]]
        if given and not any("auth_mode" in fault for fault in faults):
            faults.append(
                f"{' and '.join(given)}: given, but {ALL_FIELDS['auth_mode'].title} is 'anonymous', which signs in "
                f"nowhere; leave them empty for an anonymous server. {BASIC_REFUSED}"
            )
        return
    if len(files) + bool(password) > 1:
        given = [ALL_FIELDS[name].title for name in ("password", *files) if settled[name]]
        faults.append(f"{' and '.join(given)}: each is a credential of its own; leave one of them.")
    elif password and not login:
        faults.append(f"{ALL_FIELDS['password'].title} is given without a user name; enter the Windows account too.")
    _check_kerberos(settled, files, faults)
    if login and not (password or files):
        faults.append(
            f"{ALL_FIELDS['password'].title} is empty; enter the password of '{login}', or a keytab or credential "
            "cache, or leave the user name empty too to use the worker's own identity."
        )
    _check_names(settled, faults)


def _check_names(settled: Values, faults: list[str]) -> None:
    """How the account is written, and that nothing is said that can have no effect."""
    login, domain = settled["login"], settled["domain"]
    if isinstance(login, str) and not _LOGIN.fullmatch(login):
        faults.append(
            rf"{ALL_FIELDS['login'].title} is '{login:.80}'; write CORP\user, user@corp.example, or user with a domain."
        )
    if domain and not login:
        faults.append(f"{ALL_FIELDS['domain'].title} is {domain!r}, but there is no user name that it could belong to.")
    if settled["channel_binding"] == ChannelBinding.TLS_UNIQUE and settled["ssl_mode"] == SslMode.NONE:
        faults.append(f"{ALL_FIELDS['channel_binding'].title} is 'tls-unique', but there is no TLS to bind to.")
    if isinstance(login, str) and isinstance(domain, str):
        own = login.split("\\")[0] if "\\" in login else login.rpartition("@")[2] if "@" in login else ""
        if own and own.lower() != domain.lower():
            faults.append(
                f"{ALL_FIELDS['domain'].title} is {domain!r}, but the user name says {own!r}; name the domain once."
            )


def _check_local_hostname(settled: Values, faults: list[str]) -> None:
    name = settled["local_hostname"]
    if isinstance(name, str) and not _EHLO_NAME.fullmatch(name):
        faults.append(
            f"{ALL_FIELDS['local_hostname'].title}: {name!r} is neither a host name nor an address in brackets; "
            "write worker1.corp.example or [192.0.2.1]."
        )
