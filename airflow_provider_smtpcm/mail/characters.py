"""Which characters may stand in a header, and how an offending text is shown in an error. Knows no header by name."""

from __future__ import annotations

import re

# C0, DEL and C1 controls, the two Unicode line breaks, and lone surrogates, which have no encoding at all. A line
# break in a header value would begin a header of its own (RFC 5322 2.2), in an address an SMTP command.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHOWN = 60


def forbidden_character(text: str) -> str | None:
    """The first character that no header may hold, as `U+000A`; None where there is none."""
    # The first question has a quick answer, and it is the usual one.
    return None if text.isascii() and text.isprintable() else _named(_FORBIDDEN.search(text))


def lone_surrogate(text: str) -> str | None:
    """The first character that UTF-8 cannot encode, as `U+D800`; None where there is none."""
    return None if text.isascii() else _named(_SURROGATE.search(text))


def shown(value: object) -> str:
    """The `repr` of what is at fault, shortened, so that an error stays one readable line."""
    # Cut before the repr as well: it would be as long as the value.
    text = repr(value[: _SHOWN * 2]) if isinstance(value, str | bytes) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _named(found: re.Match[str] | None) -> str | None:
    return f"U+{ord(found[0]):04X}" if found else None
