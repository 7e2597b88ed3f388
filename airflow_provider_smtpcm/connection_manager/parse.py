"""Outside text becomes typed settings: coerces, applies defaults, and finds every fault. Trusts nobody.

Airflow's form writes an explicit null for what was left empty, a URI brings every value as text ("false" is false
here), and some Airflow versions turn digits into numbers.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import textwrap
from collections.abc import Mapping

from airflow_provider_smtpcm.connection_manager.fields import ALL_FIELDS, FIELDS, AuthMode, Field, Kind, SslMode
from airflow_provider_smtpcm.connection_manager.ssis_properties import read_properties

Values = dict[str, object]

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
# A DNS name, an IPv4 address, or an IPv6 address without its brackets. Underscores occur in Windows host names.
_HOST = re.compile(r"[\w.\-]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.%\w]*")
_EHLO_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9\-]*)(\.[A-Za-z0-9\-]+)*\.?|\[[0-9A-Za-z:.]+\]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

BASIC_REFUSED = (
    "Basic authentication (sending a password) is not supported, as in SSIS; choose 'Windows Authentication' for a "
    "Windows account, or use the provider apache-airflow-providers-smtp for servers that want PLAIN, LOGIN or OAuth."
)

# One address, with or without a name; whoever quotes a part of it knows what he does, and the mail checks it again.
_ADDRESS = re.compile(r"[^<>@]*<\s*[^\s<>@;,]+@[^\s<>@;,]+\s*>|[^\s<>@;,]+@[^\s<>@;,]+|.*\".*")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")

# What people bring along from SSIS's own words and from Airflow's stock provider.
_FOREIGN = {
    "connection_string": "ssis_properties (Airflow masks an extra of that name, so that it could never be read again)",
    "connectionstring": "ssis_properties",
    "enablessl": "ssl_mode",
    "enable_ssl": "ssl_mode",
    "disable_ssl": "ssl_mode",
    "disable_tls": "ssl_mode",
    "usewindowsauthentication": "auth_mode",
    "auth": "auth_mode",
    "auth_type": "auth_mode",
    "from_email": "from_address",
    "ssl_context": "verify_certificate or ca_certificate",
    "smtpserver": "the field 'SMTP server'",
}


def read_extra(extra: object, faults: list[str]) -> Values:
    """The extra of an Airflow connection (JSON text, a mapping, or nothing) as known settings; the rest are faults."""
    if extra is None or extra == "":
        return {}
    if isinstance(extra, str | bytes):
        try:
            extra = json.loads(extra)
        except ValueError:
            faults.append('Extra is not JSON; write a JSON object such as {"auth_mode": "windows"}.')
            return {}
    if not isinstance(extra, Mapping):
        faults.append(f"Extra is a JSON {type(extra).__name__}; write a JSON object with one key for each setting.")
        return {}
    known = {field.name for field in FIELDS}
    faults.extend(_unknown_setting(str(key), known) for key in extra if key not in known)
    return {key: value for key, value in extra.items() if key in known}


def _unknown_setting(key: str, known: set[str]) -> str:
    if key.lower() in _FOREIGN:
        return f"Unknown setting '{key}'; use {_FOREIGN[key.lower()]}."
    close = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.75)
    remedy = f"did you mean '{close[0]}'?" if close else f"remove it, or use one of {', '.join(sorted(known))}."
    return f"Unknown setting '{key}'; {remedy}"


def settle(values: Mapping[str, object], faults: list[str]) -> Values:
    """Coerce every value, merge the SSIS connection string, apply the defaults, and check what belongs together.

    Args:
        values: settings by name, in any type; None and blank text mean "not set".
        faults: where one sentence for each fault is added.

    Returns:
        Every setting by its name, plus `unknown_properties` and `notes` from the SSIS connection string.
    """
    settled: Values = {name: _coerce(field, values.get(name), faults) for name, field in ALL_FIELDS.items()}
    settled["unknown_properties"] = values.get("unknown_properties") or ()
    settled["notes"] = values.get("notes") or ()
    _merge_ssis_properties(settled, faults)
    for name, field in ALL_FIELDS.items():
        if settled[name] is None:
            settled[name] = field.default
    if settled["port"] is None:
        settled["port"] = 465 if settled["ssl_mode"] == SslMode.IMPLICIT else 25
    _check_host(settled, faults)
    _check_account(settled, faults)
    _check_addresses(settled, faults)
    ehlo = settled["local_hostname"]
    if isinstance(ehlo, str) and not _EHLO_NAME.fullmatch(ehlo):
        faults.append(
            f"{ALL_FIELDS['local_hostname'].title}: {ehlo!r} is neither a host name nor an address in brackets; "
            "write worker1.corp.example or [192.0.2.1]."
        )
    return settled


def _coerce(field: Field, value: object, faults: list[str]) -> object:
    """One value in the type of its field; None where it is not set or cannot be read (which is then a fault)."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return value if field.kind is Kind.SECRET and value else None
    match field.kind:
        case Kind.CHOICE:
            return _choice(field, value, faults)
        case Kind.FLAG:
            return _flag(field, value, faults)
        case Kind.NUMBER:
            return _number(field, value, faults)
    return _text(field, value, faults)


def _choice(field: Field, value: object, faults: list[str]) -> object:
    word = str(value).strip().lower()
    for choice in field.choices:
        if word == choice:
            return choice
    if field.name == "auth_mode" and word in ("basic", "plain", "login", "oauth2", "xoauth2"):
        faults.append(f"{field.title} is {word!r}. {BASIC_REFUSED}")
    else:
        faults.append(f"{field.title} is {str(value)!r:.60}; choose one of {', '.join(field.choices)}.")
    return None


def _flag(field: Field, value: object, faults: list[str]) -> bool | None:
    word = str(value).strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    faults.append(f"{field.title} is {str(value)!r:.60}; write true or false.")
    return None


def _number(field: Field, value: object, faults: list[str]) -> float | int | None:
    text = str(value).strip()
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    if field.name == "port":
        number = number if number.is_integer() else math.nan
    low, high = field.minimum, field.maximum
    if low is not None and high is not None and low <= number <= high:
        return int(number) if field.name == "port" else number
    faults.append(f"{field.title} is {str(value)!r:.60}; write a number from {low:g} to {high:g}.")
    return None


def _text(field: Field, value: object, faults: list[str]) -> str | None:
    if isinstance(value, Mapping | list | tuple | set):
        faults.append(f"{field.title} is a {type(value).__name__}; write text.")
        return None
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if field.kind is Kind.SECRET:
        return text
    text = text.strip()
    if field.kind is Kind.MULTILINE:
        return _pem_or_path(field, text, faults)
    if _CONTROL.search(text):
        faults.append(f"{field.title} holds a control character; remove it.")
        return None
    return text


def _pem_or_path(field: Field, text: str, faults: list[str]) -> str | None:
    """The certificates alone, well-formed: people paste what openssl prints, and one-line boxes eat line ends.

    The text is never repeated: people paste private keys.
    """
    if "-----BEGIN" not in text:
        if not _CONTROL.search(text):
            return text
        faults.append(f"{field.title} is neither a path nor PEM text; paste it with its BEGIN and END lines.")
        return None
    blocks = ["".join(block.replace("\\n", "").split()) for block in _CERTIFICATE.findall(text)]
    if blocks and all(re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", block) for block in blocks):
        lines = ("\n".join(textwrap.wrap(block, 64)) for block in blocks)
        return "".join(f"-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n" for base64 in lines)
    faults.append(
        f"{field.title} holds no whole certificate; paste it from '-----BEGIN CERTIFICATE-----' to "
        "'-----END CERTIFICATE-----'."
    )
    return None


def _merge_ssis_properties(settled: Values, faults: list[str]) -> None:
    """Fill what the fields left empty; a contradiction is a fault."""
    text = settled["ssis_properties"]
    settled["ssis_properties"] = None  # it lives on in the fields, and is written anew from them
    if not isinstance(text, str):
        return
    found = read_properties(text)
    faults.extend(f"SSIS connection string: {fault}" for fault in found.faults)
    if found.faults:
        return
    settled["unknown_properties"] = found.unknown
    settled["notes"] = tuple(found.warnings)
    windows = {True: AuthMode.WINDOWS, False: AuthMode.ANONYMOUS, None: None}[found.windows_authentication]
    ssl = {True: SslMode.STARTTLS, False: SslMode.NONE, None: None}[found.enable_ssl]
    if ssl is SslMode.STARTTLS and settled["ssl_mode"] == SslMode.IMPLICIT:
        ssl = SslMode.IMPLICIT  # SSIS's EnableSsl says that the line is encrypted, not from when on
    for name, value in (("host", found.server), ("auth_mode", windows), ("ssl_mode", ssl), ("timeout", found.timeout)):
        mine, field = settled[name], ALL_FIELDS[name]
        if value is None:
            continue
        if mine is None:
            settled[name] = _coerce(field, value, faults)
        elif str(mine).lower() != str(value).lower():
            faults.append(
                f"{field.title} is '{mine}', but the SSIS connection string says '{value}'; make them agree or leave "
                "one of them empty."
            )


def _check_host(settled: Values, faults: list[str]) -> None:
    host, title = settled["host"], ALL_FIELDS["host"].title
    if not isinstance(host, str):
        if not any(title in fault for fault in faults):
            faults.append(f"{title} is empty; enter the name of the mail server.")
        return
    settled["host"] = bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if "://" in host:
        faults.append(f"{title} is {host!r}; write the server's name alone, without {host.split('://')[0]}://.")
    elif re.fullmatch(r"[^:]+:\d+(:.*)?", host):
        faults.append(f"{title} is {host!r}; write the name alone and put the number into 'Port'.")
    elif not _HOST.fullmatch(bare):
        faults.append(f"{title} is {host!r:.80}, which is not a host name; enter the name of the mail server.")


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
    login, password, domain = settled["login"], settled["password"], settled["domain"]
    if settled["auth_mode"] != AuthMode.WINDOWS:
        given = [ALL_FIELDS[name].title for name in ("login", "password") if settled[name]]
        if given and not any("auth_mode" in fault for fault in faults):
            faults.append(
                f"{' and '.join(given)}: given, but {ALL_FIELDS['auth_mode'].title} is 'anonymous', which signs in "
                f"nowhere; leave them empty for an anonymous server. {BASIC_REFUSED}"
            )
        return
    if password and not login:
        faults.append(f"{ALL_FIELDS['password'].title} is given without a user name; enter the Windows account too.")
    if login and not password:
        faults.append(
            f"{ALL_FIELDS['password'].title} is empty; enter the password of {login!r}, or leave the user name empty "
            "too to use the worker's own identity."
        )
    if isinstance(login, str) and isinstance(domain, str):
        own = login.split("\\")[0] if "\\" in login else login.rpartition("@")[2] if "@" in login else ""
        if own and own.lower() != domain.lower():
            faults.append(
                f"{ALL_FIELDS['domain'].title} is {domain!r}, but the user name says {own!r}; name the domain once."
            )
