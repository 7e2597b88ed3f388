"""Content-Transfer-Encoding (RFC 2045 6): text as a body part in 7 bits, and base64 in lines."""

from __future__ import annotations

from binascii import b2a_qp
from collections.abc import Callable
from functools import cache, partial
from struct import Struct

#: The prefix of every boundary. No encoded line can contain it: base64 has no "_", quoted-printable no "=_".
BOUNDARY_PREFIX = "=_smtpcm_"
_BOUNDARY_PREFIX = BOUNDARY_PREFIX.encode()

# RFC 5322 2.1.1 allows lines of 998 octets and recommends at most 78. Some gateways break or cut long lines, so a text
# with a line of more than 78 is encoded.
_MAX_TEXT_LINE = 78
_SAFE_OCTETS = bytes([0x09, 0x0A, *range(0x20, 0x7F)])


_BASE64_LINE = 76  # RFC 2045 6.8
_OCTETS_PER_BASE64_LINE = 57
_LINES_PER_BLOCK = 768
#: The octets of a file that are read and encoded at once: a whole number of base64 lines, so that encoded blocks can be
#: joined by CRLF. Much larger blocks take up to three times as long to encode: the C library returns a freed block of
#: 128 KiB or more to the system, and requests the memory again for the next.
BLOCK_SIZE = _OCTETS_PER_BASE64_LINE * _LINES_PER_BLOCK


def render_text_part(subtype: str, text: str) -> bytes:
    """Render the header fields and the body of a text part. The body ends in a line break only if the text does.

    Args:
        subtype: `plain` or `html`.
        text: the text, with any of CRLF, LF and CR as line breaks.
    """
    encoding, charset, body = _encode_text(text)
    return _render_text_fields(subtype, encoding, charset) + body


@cache
def _render_text_fields(subtype: str, encoding: str, charset: str) -> bytes:
    return f"Content-Type: text/{subtype}; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode()


def _encode_text(text: str) -> tuple[str, str, bytes]:
    """Return the encoding, the charset and the 7-bit body."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    octets = text.encode()
    lines = octets.split(b"\n")
    # RFC 2046 4.1.1: the line breaks of a text are CRLF, before base64 too.
    canonical = b"\r\n".join(lines)
    if _is_7bit_safe(octets, lines):
        return "7bit", "us-ascii", canonical
    # b2a_qp also encodes trailing whitespace of a line. Its soft line breaks are LF, like the line breaks of its input.
    quoted = b2a_qp(octets, quotetabs=False, istext=True).replace(b"\n", b"\r\n")
    if len(quoted) <= base64_length(len(canonical)):
        return "quoted-printable", "utf-8", quoted
    return "base64", "utf-8", encode_base64(canonical)


def _is_7bit_safe(octets: bytes, lines: list[bytes]) -> bool:
    """Whether a text can be sent as `7bit`: servers relay it unchanged, and it contains no boundary."""
    if octets.translate(None, _SAFE_OCTETS) or max(map(len, lines)) > _MAX_TEXT_LINE:
        return False
    if list(map(bytes.rstrip, lines)) != lines:  # some servers remove trailing whitespace
        return False
    # Searching for "=" first takes a tenth of the time, and most texts do not contain it.
    return b"=" not in octets or _BOUNDARY_PREFIX not in octets


def base64_length(octets: int) -> int:
    """Return the length of this many octets in base64, with CRLF between the lines and none at the end."""
    encoded = -(-octets // 3) * 4
    return encoded + (max(encoded - 1, 0) // _BASE64_LINE) * 2


def encode_base64(octets: bytes, *, leading_crlf: bool = False) -> bytes:
    """Encode octets in base64, in lines of 76 (RFC 2045 6.8) with CRLF between them and none at the end.

    Args:
        octets: what to encode.
        leading_crlf: whether to begin with CRLF, since other lines precede it.
    """
    encoded = _base64_encoder()(octets)
    lines = [b""] if leading_crlf else []
    offset = 0
    for size, split in _line_splitters():
        while len(encoded) - offset >= size:
            lines += split(encoded, offset)
            offset += size
    if offset < len(encoded):
        lines.append(encoded[offset:])
    return b"\r\n".join(lines)


@cache
def _base64_encoder() -> Callable[[bytes], bytes]:
    """Return a base64 encoder without line breaks: that of pybase64 (extra `fast`) if it is installed."""
    try:
        from pybase64 import b64encode
    except ImportError:
        from binascii import b2a_base64

        return partial(b2a_base64, newline=False)
    return b64encode


@cache
def _line_splitters() -> list[tuple[int, Callable[[bytes, int], tuple[bytes, ...]]]]:
    """Return functions that split base64 into lines, each after the number of octets that it splits; the largest first.

    They split 1, 2, 4, 8... lines, which add up to any number. A `Struct` takes a fifth of the time of slicing.
    """
    numbers = [1 << bit for bit in reversed(range(_LINES_PER_BLOCK.bit_length()))]
    return [(lines * _BASE64_LINE, Struct(f"{_BASE64_LINE}s" * lines).unpack_from) for lines in numbers]
