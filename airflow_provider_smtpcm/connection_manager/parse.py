"""Parses a connection's fields and extra into typed settings: coerces, merges, applies defaults, collects all faults.

Airflow's form writes an explicit null for an empty field. In a URI every value is text, so "false" is read as false.
Some Airflow versions convert text that consists of digits to a number.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Mapping

from airflow_provider_smtpcm.connection_manager.faults import EXTRA, FaultCode, Faults, describe_value
from airflow_provider_smtpcm.connection_manager.fields import (
    ALL_FIELDS,
    FIELDS,
    AuthMode,
    ChannelBinding,
    Field,
    FieldType,
    SslMode,
    WindowsProtocol,
)

Settings = dict[str, object]

# --- The keys of the extra.

# Keys of SSIS and of Airflow's own SMTP provider, and what to use instead, as worded in the fault.
_FOREIGN_KEYS = {
    "connection_string": "ssis_properties (Airflow masks an extra of that name, so it could not be read back)",
    "connectionstring": "ssis_properties",
    "enablessl": "ssl_mode",
    "enable_ssl": "ssl_mode",
    "disable_ssl": "ssl_mode",
    "disable_tls": "ssl_mode",
    "usewindowsauthentication": "auth_mode",
    "auth": "auth_mode",
    "auth_type": "auth_mode",
    "from_email": "from_address",
    "envelope_sender": "envelope_from",
    "ssl_context": "verify_certificate or ca_certificate",
    "client_cert": "client_certificate",
    "certfile": "client_certificate",
    "keyfile": "client_key",
    "subject_template": "subject_file",
    "html_content_template": "html_file",
    "smtpserver": "the field 'SMTP server'",
}
# Airflow before 2.3 prefixed the keys of a form.
_LEGACY_PREFIX = r"extra__smtp(cm)?__"
_WORD_SEPARATOR = r"[-_.\s]+"
# An unknown key of this form cannot be a generated password, so it may be shown; any other is only described.
_PLAIN_KEY = r"[a-z]{2,20}(_[a-z]{2,20}){1,3}"
_MAX_SHOWN_KEYS = 5
# The known keys, each with its words sorted and joined.
_EXTRA_KEYS = {field.name: "".join(sorted(field.name.split("_"))) for field in FIELDS}


def parse_extra(extra: object, faults: Faults) -> Settings:
    """Return the known settings in the extra of an Airflow connection.

    A key that looks like a known one is a fault. Other unknown keys only add a note: they may be settings of a newer
    version of this package that this worker does not have yet.

    Args:
        extra: JSON text, a mapping, or None.
        faults: collects the faults.
    """
    if isinstance(extra, str | bytes):
        try:
            extra = json.loads(extra) if extra.strip() else None
        except (ValueError, RecursionError):
            faults.add(EXTRA, FaultCode.NOT_JSON)
            return {}
    if extra is None:
        return {}
    if not isinstance(extra, Mapping):
        faults.add(EXTRA, FaultCode.NOT_AN_OBJECT, type=type(extra).__name__)
        return {}
    values: Settings = {}
    unknown: list[str] = []
    for position, (key, value) in enumerate(extra.items(), start=1):
        name = str(key)
        if name in _EXTRA_KEYS:
            values[name] = value
            continue
        lower = re.sub(_LEGACY_PREFIX, "", name.lower())
        if lower in _FOREIGN_KEYS:
            instead = _FOREIGN_KEYS[lower]
            target = "host" if lower == "smtpserver" else instead.split()[0]
            faults.add(target, FaultCode.FOREIGN_KEY, key=lower, instead=instead)
        elif (similar := _find_similar_key(lower)) is not None:
            faults.add(similar, FaultCode.MISSPELLED_KEY, key=repr(name[:60]))
        else:
            is_plain = re.fullmatch(_PLAIN_KEY, name) is not None
            unknown.append(f"'{name}'" if is_plain else f"number {position} in Extra ({describe_value(name)})")
    if unknown:
        more = f" and {len(unknown) - _MAX_SHOWN_KEYS} more" if len(unknown) > _MAX_SHOWN_KEYS else ""
        note = (
            f"Unknown settings, which have no effect here: {', '.join(unknown[:_MAX_SHOWN_KEYS])}{more}. If a newer "
            "version of this package has them, update it on this worker; otherwise remove them."
        )
        values["notes"] = (note,)
    return values


def _find_similar_key(key: str) -> str | None:
    """Return the known key that a lower-case key misspells; None if it resembles none.

    A misspelling has different separators, words in a different order, or one or two typos. difflib is too tolerant: it
    rates `client_certificate` and `ca_certificate` as 80% similar.
    """
    words = re.split(_WORD_SEPARATOR, key)
    joined, sorted_words = "".join(words), "".join(sorted(words))
    for name, sorted_name in _EXTRA_KEYS.items():
        known = name.replace("_", "")
        max_typos = 1 if len(known) < 8 else 2
        if sorted_words == sorted_name or (
            abs(len(joined) - len(known)) <= max_typos and _edit_distance(joined, known) <= max_typos
        ):
            return name
    return None


def _edit_distance(first: str, second: str) -> int:
    """Return the optimal string alignment distance.

    It is the number of insertions, deletions, replacements and swaps of neighbors that turn one text into the other.
    """
    above: list[int] = []
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, start=1):
        two_above, above, row = above, row, [i]
        for j, b in enumerate(second, start=1):
            cost = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b))
            if i > 1 and j > 1 and a == second[j - 2] and first[i - 2] == b:
                cost = min(cost, two_above[j - 2] + 1)
            row.append(cost)
    return row[-1]


# --- All settings.


def parse_settings(values: Mapping[str, object], faults: Faults) -> Settings:
    """Coerce every value, merge the SSIS connection string, apply the defaults and check the combinations.

    Args:
        values: settings by key, of any type; None and blank text mean "not set", except that a password may be blank.
        faults: collects the faults.

    Returns:
        Every setting by its key, plus `unknown_properties`, `notes` and `is_binding_required`, but without
        `ssis_properties`.
    """
    settings: Settings = dict.fromkeys(ALL_FIELDS)
    for name, field in ALL_FIELDS.items():  # faults are reported in the order of the form
        if (value := values.get(name)) is not None:
            settings[name] = coerce(field, value, faults)
    settings["unknown_properties"] = values.get("unknown_properties") or ()
    settings["notes"] = values.get("notes") or ()
    is_required = values.get("is_binding_required")
    settings["is_binding_required"] = settings["channel_binding"] is not None if is_required is None else is_required
    _merge_ssis_properties(settings, faults)
    for name, field in ALL_FIELDS.items():
        if name in settings and settings[name] is None:
            settings[name] = field.default
    if settings["port"] is None:
        settings["port"] = 465 if settings["ssl_mode"] == SslMode.IMPLICIT else 25
    _check_combinations(settings, faults)
    return settings


def _merge_ssis_properties(settings: Settings, faults: Faults) -> None:
    """Fill the empty settings from the SSIS connection string; a contradiction is a fault."""
    connection_string = settings.pop("ssis_properties")
    if not isinstance(connection_string, str):
        return
    from airflow_provider_smtpcm.connection_manager.ssis_properties import parse_ssis_properties

    properties = parse_ssis_properties(connection_string)
    faults.extend(properties.faults)
    if properties.faults:
        return
    settings["unknown_properties"] = properties.unknown
    settings["notes"] = (*settings["notes"], *properties.warnings)  # type: ignore[misc]
    auth_mode = {True: AuthMode.WINDOWS, False: AuthMode.ANONYMOUS, None: None}[properties.windows_authentication]
    ssl_mode = {True: SslMode.STARTTLS, False: SslMode.NONE, None: None}[properties.enable_ssl]
    if ssl_mode is SslMode.STARTTLS and settings["ssl_mode"] == SslMode.IMPLICIT:
        ssl_mode = SslMode.IMPLICIT  # SSIS's EnableSsl requires encryption, of either kind
    from_ssis = {"host": properties.server, "auth_mode": auth_mode, "ssl_mode": ssl_mode, "timeout": properties.timeout}
    for name, value in from_ssis.items():
        own, field = settings[name], ALL_FIELDS[name]
        if value is None:
            continue
        if own is None:
            settings[name] = coerce(field, value, faults)
        elif str(own).lower() != str(value).lower():
            values = f" ('{own}' here, '{value}' in the string)" if field.type is FieldType.CHOICE else ""
            faults.add(name, FaultCode.CONTRADICTION, values=values)


# --- One value.

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_NUMBER = r"[+-]?[0-9]+(\.[0-9]+)?"
_CONTROL = r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
_CERTIFICATE = r"(?s)-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----"


def coerce(field: Field, value: object, faults: Faults) -> object:
    """Convert a value to the type of its field.

    Returns:
        The converted value. None: it is not set (blank text, except for a secret), or cannot be read; only the latter
        adds a fault.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return value if field.type is FieldType.SECRET and value else None
    match field.type:
        case FieldType.CHOICE:
            return _coerce_choice(field, value, faults)
        case FieldType.BOOLEAN:
            return _coerce_boolean(field, value, faults)
        case FieldType.NUMBER:
            return _coerce_number(field, value, faults)
    return _coerce_text(field, value, faults)


def _coerce_choice(field: Field, value: object, faults: Faults) -> object:
    word = str(value).strip().lower()
    for choice in field.choices:
        if word == choice:
            return choice
    if field.name == "auth_mode" and word in ("basic", "plain", "login", "oauth2", "xoauth2"):
        faults.add(field.name, FaultCode.BASIC, word=word)
    else:
        choices = ", ".join(field.choices)
        faults.add(field.name, FaultCode.NOT_A_CHOICE, value=describe_value(value), choices=choices)
    return None


def _coerce_boolean(field: Field, value: object, faults: Faults) -> bool | None:
    word = str(value).strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    faults.add(field.name, FaultCode.NOT_A_BOOLEAN, value=describe_value(value))
    return None


def _coerce_number(field: Field, value: object, faults: Faults) -> float | int | None:
    text = str(value).strip()
    number = float(text) if type(value) is int or re.fullmatch(_NUMBER, text) else math.nan
    if field.name == "port":
        number = number if number.is_integer() else math.nan
    low, high = field.minimum, field.maximum
    if low is not None and high is not None and low <= number <= high:
        return int(number) if field.name == "port" else number
    described = "a number" if re.fullmatch(_NUMBER, text) else describe_value(value)
    faults.add(field.name, FaultCode.NOT_A_NUMBER, value=described, low=f"{low:g}", high=f"{high:g}")
    return None


def _coerce_text(field: Field, value: object, faults: Faults) -> str | None:
    # Text first, since `isinstance(value, Mapping)` is slow.
    if not isinstance(value, str) and isinstance(value, Mapping | list | tuple | set):
        faults.add(field.name, FaultCode.NOT_TEXT, value=describe_value(value))
        return None
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if field.type is FieldType.SECRET:
        return text
    text = text.strip()
    if field.type is FieldType.MULTILINE:
        return _coerce_path_or_pem(field, text, faults)
    if field.name in ("client_certificate", "client_key") and "-----BEGIN" in text:
        faults.add(field.name, FaultCode.PEM_INSTEAD_OF_PATH)
        return None
    if field.name == "reply_to" and ":" not in text:  # a line with a colon may be meant as a header
        separator = ";" if ";" in text else ","
        text = re.sub(r"[;,\s]*[\r\n][;,\s]*", f"{separator} ", text)
    if _has_control_character(text):
        faults.add(field.name, FaultCode.CONTROL_CHARACTER)
        return None
    return text


def _has_control_character(text: str) -> bool:
    # Printable text has none, and needs no pattern, which would take a long time to compile.
    return not text.isprintable() and re.search(_CONTROL, text) is not None


def _coerce_path_or_pem(field: Field, text: str, faults: Faults) -> str | None:
    """Return a path, or the certificates in PEM text, reformatted and without anything around them.

    Users paste the whole output of openssl, and single-line inputs drop its line breaks. Some also paste private keys,
    so no fault repeats the text.

    Returns:
        None if it is neither, which adds a fault.
    """
    if "-----BEGIN" not in text:
        if not _has_control_character(text):
            return text
        faults.add(field.name, FaultCode.NEITHER_PATH_NOR_PEM)
        return None
    blocks = ["".join(block.replace("\\n", "").split()) for block in re.findall(_CERTIFICATE, text)]
    if blocks and all(re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", block) for block in blocks):
        lines = ("\n".join(textwrap.wrap(block, 64)) for block in blocks)
        return "".join(f"-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n" for base64 in lines)
    faults.add(field.name, FaultCode.NO_CERTIFICATE)
    return None


# --- The syntax of single settings, and combinations of several.

# A DNS name or an IPv4 address. Windows host names may have underscores.
_HOST = r"[\w.\-]+"
# `mail:25` or `[::1]:25`, with or without a further colon and text, such as `mail:25:user`.
_HOST_AND_PORT = r"(?:[^:]*|\[.*\]):\d+(?::.*)?"
_EHLO_NAME = r"[A-Za-z0-9]([A-Za-z0-9\-]*)(\.[A-Za-z0-9\-]+)*\.?|\[[0-9A-Za-z:.]+\]"
# One address, with or without a display name, which may repeat the address. Quoted parts are checked only when a mail
# uses the address.
_ADDR_SPEC = r"[^\s<>@;,]+@[^\s<>@;,]+"
_ADDRESS = rf"[^<>@]*<\s*{_ADDR_SPEC}\s*>|{_ADDR_SPEC}|'?({_ADDR_SPEC}?)'?\s*<\s*(?i:\1)\s*>|.*\".*"
# A group (RFC 5322 3.4).
_GROUP = r"(?:^|(?<=;))[^<>@:;,\"]+:([^:;]*);"
_NULL_RETURN_PATH = "<>"
_LOGIN = r"[^\\@]+|[^\\@]+\\[^\\@]+|[^\\@]+@[^\\@]+"
# Excludes the characters that are allowed in neither DNS names nor NetBIOS names.
_DOMAIN = r"[^\\/:*?\"<>|@,;=\s]+"
_SPN = r"[A-Za-z0-9_\-]+/[A-Za-z0-9_.\-]+"
_SCHEMES = ("smtp", "smtps", "smtpcm", "http", "https")


def _check_combinations(settings: Settings, faults: Faults) -> None:
    """Add a fault for each setting, or combination of settings, that cannot work.

    A setting that could not be read has its default in `settings`, which must not cause a second fault.
    """
    unreadable = faults.unreadable_settings()
    _check_host(settings, unreadable, faults)
    _check_fallback_hosts(settings, faults)
    _check_account(settings, unreadable, faults)
    _check_client_certificate(settings, unreadable, faults)
    _check_addresses(settings, faults)
    _check_local_hostname(settings, faults)


def _check_host(settings: Settings, unreadable: frozenset[str], faults: Faults) -> None:
    """Check the host, and remove the brackets around an IPv6 address."""
    host = settings["host"]
    if not isinstance(host, str):
        if "host" not in unreadable:
            faults.add("host", FaultCode.NO_HOST)
        return
    settings["host"] = bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if _is_ipv6_address(bare):  # checked before the port, since the last group may look like one
        return
    if "@" in host:
        faults.add("host", FaultCode.HOST_WITH_ACCOUNT)
    elif "://" in host:
        scheme = host.partition("://")[0].lower()
        shown = f"{scheme}://" if scheme in _SCHEMES else "the part up to '://'"
        faults.add("host", FaultCode.HOST_WITH_SCHEME, scheme=shown)
    elif ":" in host and re.fullmatch(_HOST_AND_PORT, host):
        faults.add("host", FaultCode.HOST_WITH_PORT)
    elif not re.fullmatch(_HOST, bare):
        faults.add("host", FaultCode.NOT_A_HOST, value=describe_value(host))


def _check_fallback_hosts(settings: Settings, faults: Faults) -> None:
    """Check each entry, and remove what separates nothing."""
    text = settings["fallback_hosts"]
    if not isinstance(text, str):
        return
    entries = [entry.strip() for entry in text.split(";") if entry.strip()]
    settings["fallback_hosts"] = ";".join(entries) or None
    known = {(str(settings["host"]).rstrip(".").lower(), settings["port"]): "the SMTP server itself"}
    for position, entry in enumerate(entries, start=1):
        if _is_ipv6_address(entry):
            faults.add("fallback_hosts", FaultCode.FALLBACK_WITHOUT_BRACKETS, position=position)
            continue
        host, port = split_host_and_port(entry)
        if not (_is_ipv6_address(host) if entry.startswith("[") else re.fullmatch(_HOST, host)):
            faults.add("fallback_hosts", FaultCode.NOT_A_FALLBACK_HOST, position=position)
        elif port is not None and not (re.fullmatch("[0-9]{1,5}", port) and 1 <= int(port) <= 65535):
            faults.add("fallback_hosts", FaultCode.FALLBACK_PORT, position=position)
        else:
            server = host.rstrip(".").lower(), settings["port"] if port is None else int(port)
            if server in known:
                faults.add("fallback_hosts", FaultCode.DUPLICATE_FALLBACK, position=position, same=known[server])
            known.setdefault(server, f"the same server as entry {position}")


def split_host_and_port(entry: str) -> tuple[str, str | None]:
    """Split `host`, `host:port`, `[IPv6]` or `[IPv6]:port`; return the host without brackets, and the port's text."""
    if entry.startswith("["):
        match = re.fullmatch(r"\[([^\[\]]*)\](?::(.*))?", entry)
        return (match[1], match[2]) if match else (entry, None)
    host, colon, port = entry.partition(":")
    return host, port if colon else None


def _is_ipv6_address(host: str) -> bool:
    if ":" not in host:
        return False
    import ipaddress

    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _check_account(settings: Settings, unreadable: frozenset[str], faults: Faults) -> None:
    login, password = settings["login"], settings["password"]
    files = [name for name in ("keytab", "ccache") if settings[name]]
    if isinstance(login, str) and ":" in login:
        faults.add("login", FaultCode.LOGIN_WITH_COLON)
    if settings["auth_mode"] != AuthMode.WINDOWS:
        given = [name for name in ("login", "password", "domain", "keytab", "ccache", "spn") if settings[name]]
        if given and "auth_mode" not in unreadable:
            titles, auth_mode = _join_titles(given), ALL_FIELDS["auth_mode"].title
            faults.add(given[0], FaultCode.ACCOUNT_FOR_ANONYMOUS, given=titles, auth_mode=auth_mode)
        return
    if len(files) + bool(password) > 1:
        given = [name for name in ("password", *files) if settings[name]]
        faults.add(given[0], FaultCode.TWO_CREDENTIALS, given=_join_titles(given))
    elif password and not login and "login" not in unreadable:
        faults.add("password", FaultCode.NO_LOGIN)
    _check_kerberos(settings, files, faults)
    if login and not (password or files or unreadable & {"password", "keytab", "ccache"}):
        faults.add("password", FaultCode.NO_PASSWORD)
    _check_account_name(settings, unreadable, faults)
    if settings["channel_binding"] == ChannelBinding.TLS_UNIQUE and settings["ssl_mode"] == SslMode.NONE:
        faults.add("channel_binding", FaultCode.NO_TLS_TO_BIND_TO, ssl_mode=ALL_FIELDS["ssl_mode"].title)


def _join_titles(names: list[str]) -> str:
    return " and ".join(ALL_FIELDS[name].title for name in names)


def _check_kerberos(settings: Settings, files: list[str], faults: Faults) -> None:
    """Check the syntax of the SPN, and that no Kerberos setting is combined with NTLM."""
    spn = settings["spn"]
    if settings["windows_protocol"] == WindowsProtocol.NTLM:
        for name in (*files, *(["spn"] if spn else [])):
            faults.add(name, FaultCode.KERBEROS_ONLY, windows_protocol=ALL_FIELDS["windows_protocol"].title)
    if isinstance(spn, str) and not re.fullmatch(_SPN, spn):
        faults.add("spn", FaultCode.NOT_AN_SPN)


def _check_account_name(settings: Settings, unreadable: frozenset[str], faults: Faults) -> None:
    """Check the syntax of the login and the domain, and that they do not name different domains."""
    login, domain = settings["login"], settings["domain"]
    if isinstance(login, str) and ":" not in login and not re.fullmatch(_LOGIN, login):
        faults.add("login", FaultCode.NOT_A_LOGIN)
    if isinstance(domain, str) and not re.fullmatch(_DOMAIN, domain):
        faults.add("domain", FaultCode.NOT_A_DOMAIN, value=describe_value(domain))
    if domain and not login and "login" not in unreadable:
        faults.add("domain", FaultCode.DOMAIN_WITHOUT_LOGIN)
    if isinstance(login, str) and isinstance(domain, str):
        in_login = login.split("\\")[0] if "\\" in login else login.rpartition("@")[2] if "@" in login else ""
        if in_login and not _may_be_same_domain(in_login, domain):
            faults.add("domain", FaultCode.TWO_DOMAINS)


def _may_be_same_domain(one: str, other: str) -> bool:
    """Return whether two names may be those of one domain: the same, or `CORP` and `corp.example`.

    Which NetBIOS name a domain has, only the domain knows; it usually is the first label of its DNS name.
    """
    one, other = one.lower(), other.lower()
    return one == other or (("." in one) is not ("." in other) and one.split(".")[0] == other.split(".")[0])


def _check_client_certificate(settings: Settings, unreadable: frozenset[str], faults: Faults) -> None:
    """Check that the client certificate will be sent, and that a key has a certificate."""
    name = "client_certificate" if settings["client_certificate"] else "client_key"
    if not settings[name]:
        return
    if settings["ssl_mode"] == SslMode.NONE:
        faults.add(name, FaultCode.NO_TLS_FOR_CERTIFICATE, ssl_mode=ALL_FIELDS["ssl_mode"].title)
    elif name == "client_key" and "client_certificate" not in unreadable:
        certificate = ALL_FIELDS["client_certificate"].title
        faults.add(name, FaultCode.KEY_WITHOUT_CERTIFICATE, client_certificate=certificate)


def _check_addresses(settings: Settings, faults: Faults) -> None:
    for name in ("from_address", "reply_to", "envelope_from"):
        value = settings[name]
        if not isinstance(value, str) or (name == "envelope_from" and value == _NULL_RETURN_PATH):
            continue
        parts = [value]
        if name == "reply_to":
            value = re.sub(_GROUP, lambda group: group[1].replace(",", ";") + ";", value)
            parts = value.split(";" if ";" in value else ",")
        if not all(re.fullmatch(_ADDRESS, part.strip()) for part in parts if part.strip()):
            faults.add(name, FaultCode.NOT_AN_ADDRESS, value=describe_value(value))


def _check_local_hostname(settings: Settings, faults: Faults) -> None:
    name = settings["local_hostname"]
    if isinstance(name, str) and not re.fullmatch(_EHLO_NAME, name):
        faults.add("local_hostname", FaultCode.NOT_AN_EHLO_NAME)
