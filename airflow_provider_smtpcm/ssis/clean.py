"""What packages hold, made fit to be shown: without accounts, without control characters, without half characters."""

from __future__ import annotations

import re

# SSIS knows no account in an SMTP connection manager, but people wrote some into its string and into expressions. The
# value ends at a semicolon, at a quotation mark or at the end of the line; it may stand in quotation marks of its own.
_ACCOUNT = re.compile(
    r"""(?P<key>(?:password|passwd|pwd|secret|token|(?<![a-z0-9])(?:uid|login|user(?:\s?name|\s?id)?))\s*+=(?!=)\s*+)
        (?:["']\s*+\+\s*+(?:\([^()]*+\)\s*+)*+(?=["']))?
        (?:\\?["'](?=[^\s+;"']))?
        [^;"'\r\n]*[^;"'\r\n\s]""",
    re.IGNORECASE | re.VERBOSE,
)
# Stricter, for what is left out where it would be missed: a mail may well say `user = somebody`.
_HELD = re.compile(
    r"""(?:password|passwd|pwd)\s*+=(?!=)\s*+[^;]
        |(?:^|[;"'\n])[^\S\n]*+(?:uid|user\s?id|user\s?name)\s*+=(?!=)\s*+[^;]""",
    re.IGNORECASE | re.VERBOSE,
)
_REMOVED = "(removed)"
_SURROGATES = re.compile(r"[\ud800-\udfff]")
# Python calls what cannot be seen not printable, the marks that turn the direction of writing too.
_LINES = "\n\t"


def clean(text: str) -> str:
    """For a report: lines stay lines."""
    text = _ACCOUNT.sub(lambda found: found["key"] + _REMOVED, text)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in _LINES else "\ufffd" for one in _SURROGATES.sub("\ufffd", text))


def holds_account(text: str) -> bool:
    """Whether a text is, or has in it, the account of a connection string."""
    return bool(_HELD.search(text))


def on_one_line(text: str) -> str:
    """For a terminal, and for a name."""
    return " ".join(clean(text).split())
