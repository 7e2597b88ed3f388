"""Variables and parameters by their names: which of them is meant, what its value is, and whether that is a secret."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from airflow_provider_smtpcm.ssis.clean import holds_account
from airflow_provider_smtpcm.ssis.package import Parameter, Variable

WHOLE_NUMBERS = {2, 3, 16, 17, 18, 19, 20, 21}
# `SmtpPass` and `MAIL_PW`, and neither `Passed` nor `Bypass`.
_SECRET_NAME = re.compile(
    r"(?i:passw|pwd|secret|token|credential|apikey|kennwort)|(?:^(?i:pass|pw)|Pass|Pw|PW|_(?i:pass|pw))$"
)

Declared = Variable | Parameter
Scope = Mapping[str, Declared]


def declared(found: Iterable[Declared], outer: Scope | None = None) -> dict[str, Declared]:
    """What is visible where these are declared; an inner one hides an outer one of the same name."""
    return {**(outer or {}), **{one.qualified_name: one for one in found}}


def value_of(one: Declared) -> str | bool | int | float | None:
    """The design-time value with its type of Python; None where there is none that may be shown."""
    if one.value is None or is_secret(one):
        return None
    text = one.value.strip()
    try:
        if one.data_type == 11:
            return text.lower() in {"true", "-1", "1"}
        if one.data_type in WHOLE_NUMBERS:
            return int(text)
        if one.data_type in {4, 5}:
            return float(text)
    except ValueError:
        return None
    return one.value


def is_secret(one: Declared) -> bool:
    """Whether its value may be an account."""
    if isinstance(one, Parameter) and one.sensitive:
        return True
    texts = [one.value, one.expression] if isinstance(one, Variable) else [one.value]
    return bool(_SECRET_NAME.search(one.name) or any(holds_account(text) for text in texts if text))
