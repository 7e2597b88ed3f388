"""Outside text becomes typed settings: coerces, applies defaults, and finds every fault. Trusts nobody.

Airflow's form writes an explicit null for what was left empty, a URI brings every value as text ("false" is false
here), and some Airflow versions turn digits into numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from airflow_provider_smtpcm.connection_manager.checks import check
from airflow_provider_smtpcm.connection_manager.coerce import coerce
from airflow_provider_smtpcm.connection_manager.faults import EXTRA, FaultKind, Faults, shape
from airflow_provider_smtpcm.connection_manager.fields import ALL_FIELDS, FIELDS, Kind
from airflow_provider_smtpcm.connection_manager.ssis_properties import read_properties
from airflow_provider_smtpcm.connection_manager.vocabulary import AuthMode, SslMode

Values = dict[str, object]

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
    found = read_properties(text)
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
