"""One setting's outside value in the type of its field. Trusts nobody, and knows nothing of the other settings."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping

from airflow_provider_smtpcm.connection_manager.fields import Field, Kind

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)

BASIC_REFUSED = (
    "Basic authentication (sending a password) is not supported, as in SSIS; choose 'Windows Authentication' for a "
    "Windows account, or use the provider apache-airflow-providers-smtp for servers that want PLAIN, LOGIN or OAuth."
)


def coerce(field: Field, value: object, faults: list[str]) -> object:
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
