"""Credentials that nobody has told Airflow's masker of, known by how they are written. Knows no context.

A mail goes further than a log. What is withheld here is what drivers and clients repeat in their errors: addresses with
a password in them, `Authorization` headers, `name=value` of connection strings, and the same as JSON.
"""

from __future__ import annotations

import re

_NAMES = (
    "pass(?:word|wd|phrase)|pwd|secret|token|(?:api|access|account|private|shared|secret)[_-]?(?:access)?[_-]?key"
    r"|\bsig(?:nature)?"
)
# Every repetition has an end or one way to match: the text may be megabytes of anything.
_QUOTED = r"""'[^'\n]{0,1000}'|"[^"\n]{0,1000}\""""
_BRACED, _BARE = r"\{[^}\n]{0,1000}\}", r"[^\s'\"&;,)\]}]+"  # as ODBC has it
_PATTERNS = (
    # scheme://user:password@host, to the last @ before a blank or a quote; not scheme://host:8443/path?to=user@host.
    (re.compile(r"(://[^\s/:@'\"<>]{0,256}:)(?!\d{1,5}[/?#])[^\s'\"<>]{1,512}@(?=[\w.\[-])"), r"\1***@"),
    (re.compile(r"(?i)(authorization['\"]?\s{0,3}[:=]\s{0,3}['\"]?)(?:[a-z]{1,20} )?[^\s'\",;]{4,}"), r"\1***"),
    (re.compile(r"(?i)(\bbearer )(?=[^\s]{0,512}[\d._~+/=])[\w.~+/=-]{8,}"), r"\1***"),
    # name=value, as it is or in quotes.
    (re.compile(rf"(?i)((?:{_NAMES})\s{{0,3}}=\s{{0,3}})(?:{_QUOTED}|{_BRACED}|{_BARE})"), r"\1***"),
    # 'name': 'value'. Without quotes it is a sentence: `password: authentication failed`.
    (re.compile(rf"(?i)((?:{_NAMES})['\"]\s{{0,3}}:\s{{0,3}})(?:{_QUOTED})"), r"\1***"),
)


def without_credentials(text: str) -> str:
    """The text with `***` where a credential stood; servers, users and everything else stay."""
    for pattern, shown in _PATTERNS:
        text = pattern.sub(shown, text)
    return text
