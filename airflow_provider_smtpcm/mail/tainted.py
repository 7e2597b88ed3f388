"""Taint tracking: which characters of a rendered template came from data; and checks of untrusted values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Self, TypeVar

from airflow_provider_smtpcm.errors import MessageError

#: In a mask: this character came from data. A NUL is no syntax, and no address or path may contain one.
DATA = "\0"
#: In a mask: this character came from data or from the author; a filter lost the distinction.
MIXED = "\1"
BLANKS = " \t\r\n"

_SEPARATOR = r"[/\\]"
# C0, DEL and C1 controls, the two Unicode line breaks, and lone surrogates, which UTF-8 cannot encode. A line break in
# a header value would begin another header (RFC 5322 2.2); in an address, another SMTP command.
_FORBIDDEN = "[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
_UNSENDABLE = "[\0\ud800-\udfff]"
_REPR_LENGTH = 60

_Path = TypeVar("_Path")


class TaintedStr(str):
    """The text of a rendered template, with a mask of the characters that came from data.

    Separators, quotation marks and folders have a meaning only where the author of the DAG wrote them. A value that a
    template inserted can therefore never add a recipient, an attachment or a `..` to a path.

    Args:
        text: the text itself.
        mask: the same text with `DATA` in place of each character that came from data; None: all of them did.
    """

    __slots__ = ("mask",)
    mask: str

    def __new__(cls, text: str, mask: str | None = None) -> Self:
        new = super().__new__(cls, text)
        new.mask = DATA * len(text) if mask is None else mask
        return new

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        return str.__str__(self), self.mask

    def strip_slice(self, start: int, stop: int) -> TaintedStr:
        """Return a slice without the whitespace around it, and with its mask."""
        text = self[start:stop]
        first = start + len(text) - len(text.lstrip())
        end = first + len(text.strip())
        return TaintedStr(self[first:end], self.mask[first:end])

    def split_untainted(self, separator: str) -> list[TaintedStr]:
        """Split at the separators that the author wrote; strip the parts and drop empty ones."""
        parts, start = [], 0
        for masked_part in self.mask.split(separator):
            part = self.strip_slice(start, start + len(masked_part))
            start += len(masked_part) + len(separator)
            if part:
                parts.append(part)
        return parts

    @property
    def is_fully_tainted(self) -> bool:
        """Whether everything but whitespace came from data."""
        return not self.mask.strip(DATA + BLANKS)


def check_path(path: _Path, field: str) -> _Path | str:
    """Return a path as plain text after checking that no value in it leaves the folder that the author wrote.

    A path that is entirely one value may lead anywhere, since the author wrote no folder.

    Args:
        path: checked only if it is a `TaintedStr`; anything else is returned unchanged.
        field: the name of the field, for the error.

    Raises:
        MessageError: a value adds `..` or a NUL.
    """
    if not isinstance(path, TaintedStr):
        return path
    text = str.__str__(path)
    if "\0" in text:
        raise MessageError(f"{field}: {short_repr(text)} contains a NUL.", remedy="Correct the value.")
    if path.is_fully_tainted:
        return text
    if any(is_tainted and component == ".." for component, is_tainted in _split_path(path)):
        raise make_path_escape_error(text, field)
    return text


def make_path_escape_error(path: str, field: str) -> MessageError:
    """Make the error for a path to which a value added `..`."""
    return MessageError(
        f"{field}: {short_repr(path)} leads out of its folder: a value that was filled in adds '..'.",
        remedy="Correct the value. Only a field that consists of one value, such as {{ row.path }}, may name any path.",
    )


def count_parent_steps(path: object) -> int:
    """Count the `..` components of a path. Both slash and backslash separate, on every operating system."""
    return re.split(_SEPARATOR, str(path)).count("..")


def _split_path(path: TaintedStr) -> Iterable[tuple[str, bool]]:
    """Yield each component of a path, and whether it or a separator next to it is tainted."""
    text, mask = str.__str__(path), path.mask
    edges = [-1, *(match.start() for match in re.finditer(_SEPARATOR, text)), len(text)]
    for left, right in pairwise(edges):
        around = mask[max(left, 0) : right + 1]
        yield text[left + 1 : right].strip(), DATA in around or MIXED in around


def find_forbidden_character(text: str) -> str | None:
    """Return the first character that no header may contain, such as `the control character U+000A`, or None."""
    # Nearly every text is printable ASCII, which is fast to test.
    return None if text.isascii() and text.isprintable() else _describe(re.search(_FORBIDDEN, text))


def find_unsendable_character(text: str) -> str | None:
    """Return the first character that no text in a mail may contain, such as `the lone surrogate U+D800`, or None.

    That is a NUL, at which many readers end the text (RFC 5322 2.2), or a lone surrogate, which UTF-8 cannot encode.
    """
    # Searching for a NUL alone takes a tenth of the time, and most texts are ASCII.
    return None if text.isascii() and "\0" not in text else _describe(re.search(_UNSENDABLE, text))


def replace_unsendable_characters(text: str) -> str:
    """Return the text with U+FFFD for each character that no text in a mail may contain."""
    return text if find_unsendable_character(text) is None else re.sub(_UNSENDABLE, "\ufffd", text)


def is_missing(value: object) -> bool:
    """Whether a value stands for none: None, NaN (of a float, a Decimal or NumPy), or pandas' NA and NaT."""
    if value is None or isinstance(value, str):
        return value is None
    if isinstance(value, float):  # NumPy's `float64` too
        return value != value  # noqa: PLR0124 - only NaN differs from itself
    kind = type(value)
    module = kind.__module__.partition(".")[0]
    if module == "decimal":
        return bool(getattr(value, "is_nan", bool)())
    if module == "pandas":
        return kind.__name__ in ("NAType", "NaTType")
    if module == "numpy":
        return getattr(value, "shape", None) == () and bool(value != value)  # noqa: PLR0124
    return False


def short_repr(value: object) -> str:
    """Return the `repr` of a value, shortened to 60 characters, for an error message."""
    # Long text is shortened before `repr` too, which would copy all of it.
    text = repr(value[: _REPR_LENGTH * 2]) if isinstance(value, str | bytes) else repr(value)
    return text if len(text) <= _REPR_LENGTH else f"{text[: _REPR_LENGTH - 1]}…"


def _describe(match: re.Match[str] | None) -> str | None:
    if match is None:
        return None
    is_surrogate = "\ud800" <= match[0] <= "\udfff"
    return f"the {'lone surrogate' if is_surrogate else 'control character'} U+{ord(match[0]):04X}"
