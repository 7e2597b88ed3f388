"""Text that remembers which of its characters are data (taint tracking). Pure: no files, no templates."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Self, TypeVar

from airflow_provider_smtpcm.errors import MessageError

# folded: Which characters may stand in a header, and how an offending text is shown in an error. Knows no header by
#   name.

# C0, DEL and C1 controls, the two Unicode line breaks, and lone surrogates, which have no encoding at all. A line
# break in a header value would begin a header of its own (RFC 5322 2.2), in an address an SMTP command.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHOWN = 60


def find_forbidden_character(text: str) -> str | None:
    """The first character that no header may hold, as `U+000A`; None where there is none."""
    # The first question has a quick answer, and it is the usual one.
    return None if text.isascii() and text.isprintable() else _named(_FORBIDDEN.search(text))


def find_lone_surrogate(text: str) -> str | None:
    """The first character that UTF-8 cannot encode, as `U+D800`; None where there is none."""
    return None if text.isascii() else _named(_SURROGATE.search(text))


def short_repr(value: object) -> str:
    """The `repr` of what is at fault, shortened, so that an error stays one readable line."""
    # Cut before the repr as well: it would be as long as the value.
    text = repr(value[: _SHOWN * 2]) if isinstance(value, str | bytes) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _named(found: re.Match[str] | None) -> str | None:
    return f"U+{ord(found[0]):04X}" if found else None


# folded: here began the module itself

#: Stands for one character of data in a mask. No address and no path may hold it, so it is never mistaken for syntax.
DATA = "\0"
#: Stands for one character that either a value or the author wrote: a filter has changed what both wrote together.
MIXED = "\1"
BLANKS = " \t\r\n"
_SEPARATOR = re.compile(r"[/\\]")


class TaintedStr(str):
    """A rendered template: the text, and which of it a value filled in.

    Separators, quotation marks and folders count only where the author of the DAG wrote them. What a value filled in
    can therefore never add a recipient, an attachment or a step up in a path.

    Args:
        text: the whole text.
        mask: the same text with `DATA` in place of each character that came from a value; None: all of it did.
    """

    __slots__ = ("mask",)
    mask: str

    def __new__(cls, text: str, mask: str | None = None) -> Self:
        new = super().__new__(cls, text)
        new.mask = DATA * len(text) if mask is None else mask
        return new

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        return str.__str__(self), self.mask

    @classmethod
    def of_parts(cls, parts: Iterable[tuple[str, bool]]) -> TaintedStr:
        """Join pieces of text, each with whether the author wrote it."""
        parts = list(parts)
        text = "".join(part for part, _ in parts)
        return cls(text, "".join(part if written else DATA * len(part) for part, written in parts))

    def cut(self, start: int, stop: int) -> TaintedStr:
        """A slice of the text without the blanks around it, with its taint."""
        piece = self[start:stop]
        begins = start + len(piece) - len(piece.lstrip())
        ends = begins + len(piece.strip())
        return TaintedStr(self[begins:ends], self.mask[begins:ends])

    def split_written(self, separator: str) -> list[TaintedStr]:
        """The pieces between the separators that the author wrote; blank ones are left out."""
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


_Path = TypeVar("_Path")


def check_path(path: _Path, what: str) -> _Path | str:
    """The path as plain text, if no value in it leads out of the folder that the author wrote.

    A path that is data alone may lead anywhere: then the author let the value choose.

    Args:
        path: only a `TaintedStr` can be at fault.
        what: the field, for the reader of an error.

    Raises:
        MessageError: a value adds a step up (`..`) or a NUL.
    """
    if not isinstance(path, TaintedStr):
        return path
    text = str.__str__(path)
    if "\0" in text:
        raise MessageError(f"{what}: {short_repr(text)} holds a NUL.", remedy="Correct the value that was filled in.")
    if not path.is_data_alone and any(tainted and step == ".." for step, tainted in _steps(path)):
        raise path_escape_error(text, what)
    return text


def path_escape_error(path: str, what: str) -> MessageError:
    """The error for a path into which a value brought a step up."""
    return MessageError(
        f"{what}: {short_repr(path)} leads out of its folder, since a value that was filled in adds a '..'.",
        remedy="Correct the value. Only a field that is one value alone, such as {{ row.path }}, may name any path.",
    )


def count_parent_steps(path: object) -> int:
    """How many steps up (`..`) a path has; both slashes separate, whatever the worker's system is."""
    return _SEPARATOR.split(str(path)).count("..")


def _steps(path: TaintedStr) -> Iterable[tuple[str, bool]]:
    """The components of a path, each with whether a value is part of it or of a separator beside it."""
    text, mask = str.__str__(path), path.mask
    edges = [-1, *(found.start() for found in _SEPARATOR.finditer(text)), len(text)]
    for left, right in pairwise(edges):
        around = mask[max(left, 0) : right + 1]
        yield text[left + 1 : right].strip(), DATA in around or MIXED in around
