"""Untrusted text: which characters came from data (taint tracking), and which no header may contain. Pure: no files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Self, TypeVar

from airflow_provider_smtpcm.errors import MessageError

#: In a mask: this character came from data. No address or path may contain a NUL, so it is never mistaken for syntax.
DATA = "\0"
#: In a mask: this character came from data or from the author; a filter changed what both wrote together.
MIXED = "\1"
BLANKS = " \t\r\n"

_SEPARATOR = re.compile(r"[/\\]")
# C0, DEL and C1 controls, the two Unicode line breaks, and lone surrogates, which cannot be encoded at all. A line
# break in a header value would begin another header (RFC 5322 2.2), and in an address another SMTP command.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPR_LENGTH = 60

_Path = TypeVar("_Path")


class TaintedStr(str):
    """The text of a rendered template, with the characters that came from data marked.

    Separators, quotation marks and folders count only where the author of the DAG wrote them. A value that a template
    filled in can therefore never add a recipient, an attachment or a `..` to a path.

    Args:
        text: the whole text.
        mask: the same text with `DATA` in place of each character that came from data; None: all of it did.
    """

    __slots__ = ("mask",)
    mask: str

    def __new__(cls, text: str, mask: str | None = None) -> Self:
        new = super().__new__(cls, text)
        new.mask = DATA * len(text) if mask is None else mask
        return new

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        return str.__str__(self), self.mask

    def cut(self, start: int, stop: int) -> TaintedStr:
        """Return a slice, without the blanks around it and with its marks."""
        piece = self[start:stop]
        begin = start + len(piece) - len(piece.lstrip())
        end = begin + len(piece.strip())
        return TaintedStr(self[begin:end], self.mask[begin:end])

    def split_written(self, separator: str) -> list[TaintedStr]:
        """Split at the separators that the author wrote; blank parts are left out."""
        pieces, start = [], 0
        for part in self.mask.split(separator):
            piece = self.cut(start, start + len(part))
            start += len(part) + len(separator)
            if piece:
                pieces.append(piece)
        return pieces

    @property
    def is_data_alone(self) -> bool:
        """Whether the author wrote nothing of it but blanks."""
        return not self.mask.strip(DATA + BLANKS)


def check_path(path: _Path, field: str) -> _Path | str:
    """Return a path as plain text if no value in it leads out of the folder that the author wrote.

    A path that is one value alone may lead anywhere: its author let the value choose.

    Args:
        path: checked only if it is a `TaintedStr`.
        field: the name of the field, for the error.

    Raises:
        MessageError: a value adds `..` or a NUL.
    """
    if not isinstance(path, TaintedStr):
        return path
    text = str.__str__(path)
    if "\0" in text:
        raise MessageError(f"{field}: {short_repr(text)} contains a NUL.", remedy="Correct the value.")
    if not path.is_data_alone and any(tainted and step == ".." for step, tainted in _split_path(path)):
        raise path_escape_error(text, field)
    return text


def path_escape_error(path: str, field: str) -> MessageError:
    """Make the error for a path to which a value added `..`."""
    return MessageError(
        f"{field}: {short_repr(path)} leads out of its folder: a value that was filled in adds '..'.",
        remedy="Correct the value. Only a field that is one value alone, such as {{ row.path }}, may name any path.",
    )


def count_parent_steps(path: object) -> int:
    """Count the `..` in a path. Slash and backslash both separate, whatever the worker's system is."""
    return _SEPARATOR.split(str(path)).count("..")


def _split_path(path: TaintedStr) -> Iterable[tuple[str, bool]]:
    """Split a path into components, each with whether data is part of it or of a separator next to it."""
    text, mask = str.__str__(path), path.mask
    edges = [-1, *(found.start() for found in _SEPARATOR.finditer(text)), len(text)]
    for left, right in pairwise(edges):
        around = mask[max(left, 0) : right + 1]
        yield text[left + 1 : right].strip(), DATA in around or MIXED in around


def find_forbidden_character(text: str) -> str | None:
    """Return the first character that no header may contain, as `U+000A`, or None."""
    # Nearly every text passes the first test, which is fast.
    return None if text.isascii() and text.isprintable() else _code_point(_FORBIDDEN.search(text))


def find_lone_surrogate(text: str) -> str | None:
    """Return the first character that UTF-8 cannot encode, as `U+D800`, or None."""
    return None if text.isascii() else _code_point(_SURROGATE.search(text))


def short_repr(value: object) -> str:
    """Return the `repr` of a value, shortened, so that an error message stays one readable line."""
    # A long text is cut before `repr` too, which would copy all of it.
    text = repr(value[: _REPR_LENGTH * 2]) if isinstance(value, str | bytes) else repr(value)
    return text if len(text) <= _REPR_LENGTH else f"{text[: _REPR_LENGTH - 1]}…"


def _code_point(found: re.Match[str] | None) -> str | None:
    return f"U+{ord(found[0]):04X}" if found else None
