"""Charsets of texts in files: from the byte order mark, from what an HTML file declares, or from the octets. No I/O."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable

# UTF-32 before UTF-16, whose mark its mark begins with. Each with the codec that removes the mark.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_META_CHARSET = rb"""(?i)<meta\s[^>]{0,1000}?charset\s*=\s*["']?\s*([a-z0-9._:-]{1,40})"""
_META_SEARCHED = 4096  # octets; the HTML standard says 1024, but a template may have comments before its head
# What browsers read where an HTML file declares the charset on the left (https://encoding.spec.whatwg.org/#names-and-
# labels), by Python's name of the codec.
_BROWSER_CODECS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "gb2312": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}
# ISO 2022 (RFC 1468) writes Japanese, Korean and Chinese in 7 bits, after sequences that begin so.
_ISO_2022 = re.compile(rb"\x1b\$|\x1b\(J")


def decode_file(octets: bytes, encoding: str, *, is_html: bool = False) -> str:
    r"""Decode a text file. Each CRLF and CR becomes LF.

    A byte order mark says the encoding. An HTML file that has a `<meta charset>` is read as UTF-8 if it is valid UTF-8,
    else as what it declares if that is possible. Any other file is read in `encoding`.

    Args:
        octets: the content of the file.
        encoding: a codec of Python for text.
        is_html: whether a `<meta charset>` counts.

    Raises:
        UnicodeError: the file is not in that encoding, or contains a NUL.
        LookupError: there is no such encoding.
    """
    if mark := find_mark(octets):
        encoding = mark
    text = (_decode_declared(octets) if is_html and not mark else None) or octets.decode(encoding)
    if "\0" in text:
        raise UnicodeError("it contains a NUL")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def find_mark(octets: bytes) -> str | None:
    """Return the codec that the byte order mark of a file says; None: it has no mark."""
    return next((codec for mark, codec in _MARKS if octets.startswith(mark)), None)


def _decode_declared(octets: bytes) -> str | None:
    """Decode an HTML file that declares its charset; None if it does not, or cannot be read so."""
    declared = re.search(_META_CHARSET, octets[:_META_SEARCHED])
    if declared is None:
        return None
    try:
        codec = codecs.lookup(declared[1].decode()).name
    except LookupError:
        return None
    # Text in another charset is practically never valid UTF-8, but what says otherwise may be left from a template.
    for candidate in ("utf-8", _BROWSER_CODECS.get(codec, codec)):
        if candidate == "utf-8" and octets.isascii() and codec != "utf-8":
            continue  # it may be ISO 2022, in 7 bits
        if candidate.startswith(("utf-16", "utf-32", "utf-7")):
            return None  # the declaration itself would be unreadable; UTF-7 is what no browser reads
        try:
            return octets.decode(candidate)
        except (UnicodeError, LookupError):
            continue
    return None


def detect_charset(blocks: Iterable[bytes]) -> str | None:
    """Return the charset of a text as a parameter of Content-Type; None: the octets do not tell it.

    They tell US-ASCII, UTF-8, and what has a byte order mark. Any other 8-bit charset is a guess.

    Args:
        blocks: the text; iterated only as far as necessary, one block at a time. The first has at least 4 octets if
            the text has them.
    """
    charset, decoder = "us-ascii", None
    for index, block in enumerate(blocks):
        if index == 0 and (mark := find_mark(block)):
            charset, decoder = mark.removesuffix("-sig"), codecs.getincrementaldecoder(mark)()
        if charset in ("us-ascii", "utf-8") and b"\0" in block:
            return None  # UTF-16 without a mark, or no text
        if decoder is None:
            if block.isascii():
                if _ISO_2022.search(block):
                    return None
                continue
            charset, decoder = "utf-8", codecs.getincrementaldecoder("utf-8")()
        try:
            decoder.decode(block)
        except UnicodeError:
            return None
    try:
        if decoder is not None:
            decoder.decode(b"", final=True)
    except UnicodeError:
        return None
    return charset
