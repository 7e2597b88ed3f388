"""Outside text becomes typed settings: coerces, applies defaults, and finds every fault. Trusts nobody.

Airflow's form writes an explicit null for what was left empty, a URI brings every value as text ("false" is false
here), and some Airflow versions turn digits into numbers.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Mapping

from airflow_provider_smtpcm.connection_manager.faults import EXTRA, FaultKind, Faults, shape
from airflow_provider_smtpcm.connection_manager.fields import (
    ALL_FIELDS,
    FIELDS,
    AuthMode,
    ChannelBinding,
    Field,
    Kind,
    SslMode,
    WindowsProtocol,
)
from airflow_provider_smtpcm.connection_manager.ssis_properties import parse_ssis_properties

# folded: One setting's outside value in the type of its field. Trusts nobody, and knows nothing of the other settings.

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


def coerce(field: Field, value: object, faults: Faults) -> object:
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


def _choice(field: Field, value: object, faults: Faults) -> object:
    word = str(value).strip().lower()
    for choice in field.choices:
        if word == choice:
            return choice
    if field.name == "auth_mode" and word in ("basic", "plain", "login", "oauth2", "xoauth2"):
        faults.add(field.name, FaultKind.BASIC, word=word)
    else:
        faults.add(field.name, FaultKind.NOT_A_CHOICE, shape=shape(value), choices=", ".join(field.choices))
    return None


def _flag(field: Field, value: object, faults: Faults) -> bool | None:
    word = str(value).strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    faults.add(field.name, FaultKind.NOT_A_FLAG, shape=shape(value))
    return None


def _number(field: Field, value: object, faults: Faults) -> float | int | None:
    text = str(value).strip()
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    if field.name == "port":
        number = number if number.is_integer() else math.nan
    low, high = field.minimum, field.maximum
    if low is not None and high is not None and low <= number <= high:
        return int(number) if field.name == "port" else number
    found = "a number" if _NUMBER.fullmatch(text) else shape(value)
    faults.add(field.name, FaultKind.NOT_A_NUMBER, shape=found, low=f"{low:g}", high=f"{high:g}")
    return None


def _text(field: Field, value: object, faults: Faults) -> str | None:
    if isinstance(value, Mapping | list | tuple | set):
        faults.add(field.name, FaultKind.NOT_TEXT, shape=shape(value))
        return None
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if field.kind is Kind.SECRET:
        return text
    text = text.strip()
    if field.kind is Kind.MULTILINE:
        return _pem_or_path(field, text, faults)
    if _CONTROL.search(text):
        faults.add(field.name, FaultKind.CONTROL_CHARACTER)
        return None
    return text


def _pem_or_path(field: Field, text: str, faults: Faults) -> str | None:
    """The certificates alone, well-formed: people paste what openssl prints, and one-line boxes eat line ends.

    The text is never repeated: people paste private keys.
    """
    if "-----BEGIN" not in text:
        if not _CONTROL.search(text):
            return text
        faults.add(field.name, FaultKind.NEITHER_PATH_NOR_PEM)
        return None
    blocks = ["".join(block.replace("\\n", "").split()) for block in _CERTIFICATE.findall(text)]
    if blocks and all(re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", block) for block in blocks):
        lines = ("\n".join(textwrap.wrap(block, 64)) for block in blocks)
        return "".join(f"-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n" for base64 in lines)
    faults.add(field.name, FaultKind.NO_CERTIFICATE)
    return None


# folded: What belongs together, and what each setting's text must look like.

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


# folded: here began the module itself


# What people bring along from SSIS's own words and from Airflow's stock provider: what it is here, in words.
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
# How Airflow wrote the keys of a form before 2.3.
_PREFIX = re.compile(r"extra__smtp(cm)?__")
_BETWEEN = re.compile(r"[-_.\s]+")
# Words with underscores between, which no generated password is; any other unknown key is not shown.
_PLAIN_KEY = re.compile(r"[a-z]{2,20}(_[a-z]{2,20}){1,3}")
_SHOWN = 5


def read_extra(extra: object, faults: Faults) -> Values:
    """The extra of an Airflow connection (JSON text, a mapping, or nothing) as known settings.

    A key that looks like a known one is a fault. Any other that is not known becomes one of the `notes`: a setting of a
    newer version of this package must not stop the workers that are updated last.
    """
    if isinstance(extra, str | bytes):
        try:
            extra = json.loads(extra) if extra.strip() else None
        except (ValueError, RecursionError):
            faults.add(EXTRA, FaultKind.NOT_JSON)
            return {}
    if extra is None:
        return {}
    if not isinstance(extra, Mapping):
        faults.add(EXTRA, FaultKind.NOT_AN_OBJECT, type=type(extra).__name__)
        return {}
    values: Values = {}
    unknown: list[str] = []
    for position, (key, value) in enumerate(extra.items(), start=1):
        name = str(key)
        lower = _PREFIX.sub("", name.lower())
        if name in _EXTRAS:
            values[name] = value
        elif lower in _FOREIGN:
            instead = _FOREIGN[lower]
            meant = "host" if lower == "smtpserver" else instead.split()[0]
            faults.add(meant, FaultKind.FOREIGN_KEY, key=lower, instead=instead)
        elif (meant_key := _meant_by(lower)) is not None:
            faults.add(meant_key, FaultKind.MISSPELLED_KEY, key=repr(name[:60]))
        else:
            unknown.append(f"'{name}'" if _PLAIN_KEY.fullmatch(name) else f"number {position} in Extra ({shape(name)})")
    if unknown:
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        note = (
            f"Unknown settings, which have no effect here: {', '.join(unknown[:_SHOWN])}{more}. If a newer version of "
            "this package knows them, update it on this worker; else remove them."
        )
        values["notes"] = (note,)
    return values


_EXTRAS = {field.name: "".join(sorted(field.name.split("_"))) for field in FIELDS}


def _meant_by(key: str) -> str | None:
    """The known key that an unknown one is a misspelling of, in lower case; None where it is a word of its own.

    Only the signs between words, their order, and a slip or two count. `client_certificate` is no `ca_certificate`,
    though difflib finds them four fifths alike.
    """
    words = _BETWEEN.split(key)
    joined, ordered = "".join(words), "".join(sorted(words))
    for name, sorted_words in _EXTRAS.items():
        known = name.replace("_", "")
        slips = 1 if len(known) < 8 else 2
        if ordered == sorted_words or (abs(len(joined) - len(known)) <= slips and _slips(joined, known) <= slips):
            return name
    return None


def _slips(one: str, other: str) -> int:
    """How many letters were added, left out, exchanged or swapped with their neighbor (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        older, before, row = before, row, [i]
        for j, wanted in enumerate(other, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
    return row[-1]


def settle(values: Mapping[str, object], faults: Faults) -> Values:
    """Coerce every value, merge the SSIS connection string, apply the defaults, and check what belongs together.

    Args:
        values: settings by name, in any type; None and blank text mean "not set".
        faults: where each fault is added.

    Returns:
        Every setting by its name, plus `unknown_properties` and `notes`.
    """
    settled: Values = {name: coerce(field, values.get(name), faults) for name, field in ALL_FIELDS.items()}
    settled["unknown_properties"] = values.get("unknown_properties") or ()
    settled["notes"] = values.get("notes") or ()
    _merge_ssis_properties(settled, faults)
    for name, field in ALL_FIELDS.items():
        if settled[name] is None:
            settled[name] = field.default
    if settled["port"] is None:
        settled["port"] = 465 if settled["ssl_mode"] == SslMode.IMPLICIT else 25
    check(settled, faults)
    return settled


def _merge_ssis_properties(settled: Values, faults: Faults) -> None:
    """Fill what the fields left empty; a contradiction is a fault."""
    text = settled["ssis_properties"]
    settled["ssis_properties"] = None  # it lives on in the fields, and is written anew from them
    if not isinstance(text, str):
        return
    found = parse_ssis_properties(text)
    faults.extend(found.faults)
    if found.faults:
        return
    settled["unknown_properties"] = found.unknown
    settled["notes"] = (*settled["notes"], *found.warnings)  # type: ignore[misc]
    windows = {True: AuthMode.WINDOWS, False: AuthMode.ANONYMOUS, None: None}[found.windows_authentication]
    ssl = {True: SslMode.STARTTLS, False: SslMode.NONE, None: None}[found.enable_ssl]
    if ssl is SslMode.STARTTLS and settled["ssl_mode"] == SslMode.IMPLICIT:
        ssl = SslMode.IMPLICIT  # SSIS's EnableSsl says that the line is encrypted, not from when on
    for name, value in (("host", found.server), ("auth_mode", windows), ("ssl_mode", ssl), ("timeout", found.timeout)):
        mine, field = settled[name], ALL_FIELDS[name]
        if value is None:
            continue
        if mine is None:
            settled[name] = coerce(field, value, faults)
        elif str(mine).lower() != str(value).lower():
            both = f" ('{mine}' here, '{value}' there)" if field.kind is Kind.CHOICE else ""
            faults.add(name, FaultKind.CONTRADICTION, values=both)
