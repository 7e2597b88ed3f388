"""What the operators' arguments have in common: choices, text, and a short list of addresses. Knows no mail."""

from __future__ import annotations

from collections.abc import Sequence

_NAMED = 10


def as_text(value: object) -> str | None:
    """Native rendering turns text that looks like a number into one; this turns it back. None stays None."""
    return value if value is None or isinstance(value, str) else str(value)


def first_of(addresses: Sequence[str]) -> str:
    """The first addresses and how many more there are: a log line is for reading, the XCom holds all of them."""
    more = len(addresses) - _NAMED
    return ", ".join(addresses[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Hold an argument to the values that exist.

    Raises:
        ValueError: names the argument, what it is and what it may be.
    """
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(allowed)}.")
