"""Outside text becomes typed settings: coerces, applies defaults, and finds every fault. Trusts nobody.

Airflow's form writes an explicit null for what was left empty, a URI brings every value as text ("false" is false
here), and some Airflow versions turn digits into numbers.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping

from airflow_provider_smtpcm.connection_manager.checks import check
from airflow_provider_smtpcm.connection_manager.coerce import coerce
from airflow_provider_smtpcm.connection_manager.fields import ALL_FIELDS, FIELDS
from airflow_provider_smtpcm.connection_manager.ssis_properties import read_properties
from airflow_provider_smtpcm.connection_manager.vocabulary import AuthMode, SslMode

Values = dict[str, object]


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
    if isinstance(extra, str | bytes):
        try:
            extra = json.loads(extra) if extra.strip() else None
        except ValueError:
            faults.append('Extra is not JSON; write a JSON object such as {"auth_mode": "windows"}.')
            return {}
    if extra is None:
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
            settled[name] = coerce(field, value, faults)
        elif str(mine).lower() != str(value).lower():
            # Of a server, what stands before an '@' may be a password.
            ours, theirs = (str(said).rpartition("@")[2] for said in (mine, value))
            faults.append(
                f"{field.title} is '{ours}', but the SSIS connection string says '{theirs}'; make them agree or leave "
                "one of them empty."
            )
