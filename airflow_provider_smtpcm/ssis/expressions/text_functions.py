"""The text functions of the expression language, on Python's texts. Microsoft: the page of each.

A character is a code point here; to SSIS, one beyond U+FFFF counts as two.
"""

from __future__ import annotations

import re

from airflow_provider_smtpcm.ssis.expressions.errors import ExpressionError

# What REPLICATE may make: more is a mistake, and would fill a worker's memory.
_LONGEST = 10_000_000


def refuse_below(function: str, number: int, least: int = 0) -> None:
    if number < least:
        wanted = "greater than zero" if least else "zero or more"
        raise ExpressionError(f"{function} was given {number}.", remedy=f"That argument is {wanted}.")


def codepoint(text: str) -> int | None:
    # DT_UI2: of a character beyond U+FFFF, the first of the two that UTF-16 makes of it.
    return int.from_bytes(text[0].encode("utf-16-be", "surrogatepass")[:2]) if text else None


def findstring(text: str, searched: str, occurrence: int) -> int:
    refuse_below("FINDSTRING", occurrence, 1)
    if not searched:
        return 0
    at = -1
    for _ in range(occurrence):
        at = text.find(searched, at + 1)
        if at < 0:
            return 0
    return at + 1


def left(text: str, count: int) -> str:
    refuse_below("LEFT", count)
    return text[:count]


def right(text: str, count: int) -> str:
    refuse_below("RIGHT", count)
    return text[max(0, len(text) - count) :]


def replace(text: str, searched: str, replacement: str) -> str:
    if not searched:
        raise ExpressionError("REPLACE was given an empty text to search for.", remedy="Give at least one character.")
    return text.replace(searched, replacement)


def replicate(text: str, times: int) -> str:
    refuse_below("REPLICATE", times)
    if len(text) * times > _LONGEST:
        raise ExpressionError(f"REPLICATE would make {len(text) * times} characters.", remedy="Give a smaller number.")
    return text * times


def substring(text: str, position: int, length: int) -> str:
    refuse_below("SUBSTRING", position, 1)
    refuse_below("SUBSTRING", length)
    return text[position - 1 : position - 1 + length]


def split(text: str, delimiters: str) -> list[str]:
    if not delimiters:
        return [text] if text else []
    return [word for word in re.split(f"[{re.escape(delimiters)}]", text) if word]


def token(text: str, delimiters: str, occurrence: int) -> str:
    refuse_below("TOKEN", occurrence, 1)
    words = split(text, delimiters)
    # The page says null in its remarks and an empty text in its example; the example is what SSIS does.
    return words[occurrence - 1] if occurrence <= len(words) else ""
