"""One setting's outside value in the type of its field. Trusts nobody, and knows nothing of the other settings."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping

from airflow_provider_smtpcm.connection_manager.faults import FaultKind, Faults, shape
from airflow_provider_smtpcm.connection_manager.fields import Field, Kind

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
