"""A message as octets, parsed: by the RFCs' plain words and by none of the code that wrote it.

It takes nothing that is not asked for: what is unusual is an error, and every text comes out character by character.
"""

from __future__ import annotations

import itertools
import re
from binascii import a2b_base64, a2b_qp
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

_LINE = 998  # RFC 5322 2.1.1
_FIELD = re.compile(r"([!-9;-~]+): ?(.*)", re.DOTALL)
_ENCODED_WORD = re.compile(r"=\?utf-8\?([qb])\?([^? ]*)\?=")
_BETWEEN_WORDS = re.compile(r"(=\?utf-8\?[qb]\?[^? ]*\?=) +(?==\?utf-8\?[qb]\?[^? ]*\?=)")
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_ADDR_SPEC = rf"(?:{_QUOTED}|[^\s\"<>,;:()@]+)@(?:\[[^\]\s]*\]|[^\s\"<>,;:()@]+)"
_MAILBOX = re.compile(rf"(?:({_ADDR_SPEC})|((?:{_QUOTED}|[^\"<>,@])*?) ?<({_ADDR_SPEC})>)(?:, ?|\Z)")
_PARAMETER = re.compile(rf'; *([^=\s]+)=({_QUOTED}|[^;"\s]*)')


class NotAMessageError(AssertionError):
    """What is there is not one message that was written with care."""


def demand(what: object, complaint: str) -> None:
    """It is so, or there is something wrong with the message."""
    if not what:
        raise NotAMessageError(complaint)


@dataclass(frozen=True, slots=True)
class Part:
    """One leaf of a message, or all of it: its header fields as they stand, unfolded, and its body."""

    fields: tuple[tuple[str, str], ...]
    body: bytes

    def all(self, name: str) -> list[str]:
        """What every field of that name says."""
        return [value for found, value in self.fields if found.lower() == name.lower()]

    def one(self, name: str) -> str:
        """What the only field of that name says."""
        values = self.all(name)
        demand(len(values) == 1, f"there are {len(values)} fields {name}")
        return values[0]

    @property
    def content(self) -> bytes:
        """The body as it was before it was encoded."""
        encoding = self.one("Content-Transfer-Encoding")
        decode = {"7bit": bytes, "binary": bytes, "base64": a2b_base64, "quoted-printable": a2b_qp}
        return decode[encoding](self.body)

    @property
    def text(self) -> str:
        r"""The same as text, with `\n` for each line break."""
        return self.content.decode("utf-8").replace("\r\n", "\n")


def unstuffed(wire: bytes) -> bytes:
    """The message that DATA carried, up to and without its final dot, from the octets that stood on the wire.

    RFC 5321 4.1.1.4 and 2.3.8: CR and LF come as a pair or not at all, and a dot alone on a line is the last.
    """
    demand(wire.endswith(b"\r\n.\r\n"), "it does not end in a final dot")
    demand(b"\0" not in wire, "it holds a NUL")
    demand(wire.count(b"\r") == wire.count(b"\n") == wire.count(b"\r\n"), "it holds a bare CR or LF")
    *lines, final, nothing = wire.split(b"\r\n")
    demand((final, nothing) == (b".", b""), "its last line is not the dot")
    for line in lines:
        demand(not line.startswith(b".") or line.startswith(b".."), "a dot was not doubled")
    plain = [line.removeprefix(b".") for line in lines]
    demand(max(map(len, plain)) <= _LINE, "a line is too long")
    return b"\r\n".join(plain) + b"\r\n"


def leaves(message: bytes) -> tuple[Part, list[Part]]:
    """The whole message, and its leaves in their order."""
    whole = _part(message)
    return whole, list(_leaves_of(whole))


def _part(octets: bytes) -> Part:
    """Its header ends with the first empty line; what follows is no header, whatever it looks like."""
    head, empty_line, body = octets.partition(b"\r\n\r\n")
    demand(empty_line, "there is no empty line behind the header")
    fields: list[str] = []
    for line in head.decode("utf-8").split("\r\n"):
        demand(line.strip(" \t"), "a line of the header is blank")
        if line[0] in " \t":
            demand(fields, "the first line continues nothing")
            fields[-1] += line
        else:
            fields.append(line)
    pairs: list[tuple[str, str]] = []
    for field in fields:
        found = _FIELD.fullmatch(field)
        if found is None:
            raise NotAMessageError(f"this is no header field: {field[:80]!r}")
        pairs.append((found[1], found[2]))
    return Part(tuple(pairs), body)


def _leaves_of(part: Part) -> Iterator[Part]:
    media_type = part.one("Content-Type")
    if not media_type.startswith("multipart/"):
        demand(part.body.isascii() or part.one("Content-Transfer-Encoding") == "binary", "a body is not 7-bit")
        yield part
        return
    boundary = parameters(media_type)["boundary"]
    delimiter = re.compile(rb"(?:\A|\r\n)--" + re.escape(boundary.encode()) + rb"(--)?[ \t]*(?=\r\n)")
    found = list(delimiter.finditer(part.body))
    demand([bool(one[1]) for one in found] == [False] * (len(found) - 1) + [True], "the parts are not closed once")
    demand(found[0].start() == 0, "something stands before the first part")
    demand(part.body[found[-1].end() :].strip(b"\r\n") == b"", "something stands behind the last part")
    for this, following in itertools.pairwise(found):
        yield from _leaves_of(_part(part.body[this.end() + 2 : following.start()]))


def decoded(text: str) -> str:
    """A field of free text without its encoded words (RFC 2047 6.2: blanks between two of them do not count)."""
    return _ENCODED_WORD.sub(_decoded_word, _BETWEEN_WORDS.sub(r"\1", text))


def _decoded_word(word: re.Match[str]) -> str:
    octets = a2b_base64(word[2]) if word[1] == "b" else a2b_qp(word[2].encode(), header=True)
    return octets.decode("utf-8")


def mailboxes(field: str) -> list[tuple[str, str]]:
    """Display name and addr-spec of each mailbox in a field; there is nothing else in it."""
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(field):
        mailbox = _MAILBOX.match(field, at)
        if mailbox is None:
            raise NotAMessageError(f"this is no mailbox: {field[at : at + 80]!r}")
        name = (mailbox[2] or "").strip(" ")
        found.append((_unquoted(name) if name.startswith('"') else decoded(name), mailbox[1] or mailbox[3]))
        at = mailbox.end()
    return found


def parameters(field: str) -> dict[str, str]:
    """The parameters of a Content-Type or a Content-Disposition, those of RFC 2231 put together and decoded."""
    first = field.index(";") if ";" in field else len(field)
    found = list(_PARAMETER.finditer(field, first))
    demand("".join(one[0] for one in found).replace(" ", "") == field[first:].replace(" ", ""), "odd parameters")
    plain: dict[str, str] = {}
    pieces: dict[str, list[tuple[str, bool]]] = {}
    for one in found:
        name, *number = one[1].lower().split("*")
        value = _unquoted(one[2]) if one[2].startswith('"') else one[2]
        if not number:
            demand(name not in plain, f"{name} stands there twice")
            plain[name] = value
            continue
        demand(number[0] in ("", str(len(pieces.get(name, ())))), f"the pieces of {name} are not in their order")
        pieces.setdefault(name, []).append((value, number[-1] == ""))
    for name, values in pieces.items():
        demand(name not in plain, f"{name} stands there twice")
        joined = b"".join(unquote_to_bytes(value) if encoded else value.encode() for value, encoded in values)
        plain[name] = joined.removeprefix(b"utf-8''").decode("utf-8")
    return plain


def _unquoted(text: str) -> str:
    demand(re.fullmatch(_QUOTED, text), f"this is no quoted string: {text[:80]!r}")
    return re.sub(r"\\(.)", r"\1", text[1:-1])
