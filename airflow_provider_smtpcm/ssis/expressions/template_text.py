r"""Text in a Jinja template: what of it has to be protected, and how a string is written inside `{{ }}`.

Jinja drops one new line at the end of a template and turns every kind of line end into `\n`; the first is undone here,
and `\r\n` becomes `\n`: in a mail a line end is a line end.
"""

from __future__ import annotations

import re

_DELIMITER = re.compile(r"\{[{%#]|\{\Z|\r(?!\n)|[\x00\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\xa0\u2028\u2029\ufeff]")
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def protected(text: str, *, ends: bool = True) -> str:
    """Text that comes out of a template as it is.

    Args:
        text: what is to come out.
        ends: whether the template ends with it.
    """
    text = _DELIMITER.sub(lambda found: f"{{{{ {quoted(found[0])} }}}}", text).replace("\r\n", "\n")
    if ends and text.endswith("\n"):
        text = f"{text[:-1]}{{{{ '\\n' }}}}"
    return text


def quoted(text: str) -> str:
    """A string of Jinja's language, on one line."""
    text = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{_CONTROL.sub(_escape, text)}'"


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return _NAMED.get(found[0]) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")
