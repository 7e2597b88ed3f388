"""Base64 in lines of 76, as MIME has it (RFC 2045 6.8), and how long that is. Knows no file and no header."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from struct import Struct

_LINE = 76  # RFC 2045 6.8
_OCTETS_PER_LINE = 57
_LINES_PER_BLOCK = 768
#: Octets of whole lines, so that the base64 of such blocks can be put together with CRLF between. Larger blocks can
#: take up to three times as long: from 128 KiB on, a C library hands memory back to the system and asks for it anew.
BLOCK = _OCTETS_PER_LINE * _LINES_PER_BLOCK


def base64_size(octets: int) -> int:
    """How long the base64 of so many octets is, with the line breaks between its lines."""
    encoded = -(-octets // 3) * 4
    return encoded + (max(encoded - 1, 0) // _LINE) * 2


def base64_lines(octets: bytes, *, following: bool = False) -> bytes:
    """The base64 of the octets, in lines with CRLF between them and none at the end.

    Args:
        following: whether it stands behind other lines, and so begins with CRLF.
    """
    encoded = _encoder()(octets)
    lines = [b""] if following else []
    at = 0
    for size, cut in _cuts():
        while len(encoded) - at >= size:
            lines += cut(encoded, at)
            at += size
    if at < len(encoded):
        lines.append(encoded[at:])
    return b"\r\n".join(lines)


@cache
def _encoder() -> Callable[[bytes], bytes]:
    """What turns octets into base64 without line breaks: pybase64 (extra `fast`) where it is there, else Python's."""
    try:
        from pybase64 import b64encode
    except ImportError:
        from binascii import b2a_base64

        return partial(b2a_base64, newline=False)
    return b64encode


@cache
def _cuts() -> list[tuple[int, Callable[[bytes, int], tuple[bytes, ...]]]]:
    """What cuts so many octets at a position into lines, the largest first.

    One `Struct` cuts many lines in a fifth of the time that slicing takes; some for fewer lines make up every number.
    """
    numbers = [1 << bit for bit in reversed(range(_LINES_PER_BLOCK.bit_length()))]
    return [(lines * _LINE, Struct(f"{_LINE}s" * lines).unpack_from) for lines in numbers]
