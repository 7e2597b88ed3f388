"""Texts in 7 bits: as they are, quoted-printable or base64, whichever they survive. Knows no file and no structure."""

from __future__ import annotations

from binascii import b2a_qp
from functools import cache

from airflow_provider_smtpcm.mail.base64_lines import base64_lines, base64_size

#: What every boundary begins with. No encoded line can hold it: base64 has no "_", quoted-printable no "=_".
BOUNDARY_PREFIX = "=_smtpcm_"
_PREFIX = BOUNDARY_PREFIX.encode()

# RFC 5322 2.1.1 recommends 78 and allows 998. Quoted-printable is worth it beyond 78: gateways that break or cut long
# lines exist, the text then survives them, and it costs a soft line break for every 75 characters.
_PLAIN_LINE = 78
_PLAIN = bytes([0x09, 0x0A, *range(0x20, 0x7F)])


def text_part(subtype: str, text: str) -> bytes:
    """The fields and the body of a text, `plain` or `html`; it ends in a line break only if the text does."""
    encoding, charset, body = _encoded_text(text)
    return _fields(subtype, encoding, charset) + body


@cache
def _fields(subtype: str, encoding: str, charset: str) -> bytes:
    return f"Content-Type: text/{subtype}; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode()


def _encoded_text(text: str) -> tuple[str, str, bytes]:
    """Content-Transfer-Encoding, charset and the body, of which no line is too long and no octet above 126."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    octets = text.encode()
    lines = octets.split(b"\n")
    # As with every text, its line breaks are CRLF, in base64 too (RFC 2046 4.1.1).
    canonical = b"\r\n".join(lines)
    if _survives(octets, lines):
        return "7bit", "us-ascii", canonical
    # The blanks at the end of a line are encoded too; of its line breaks those that it adds itself are bare as well.
    quoted = b2a_qp(octets, quotetabs=False, istext=True).replace(b"\n", b"\r\n")
    if len(quoted) <= base64_size(len(canonical)):
        return "quoted-printable", "utf-8", quoted
    return "base64", "utf-8", base64_lines(canonical)


def _survives(octets: bytes, lines: list[bytes]) -> bool:
    """Whether every server on the way hands a text on as it is: see the constants."""
    if octets.translate(None, _PLAIN) or max(map(len, lines)) > _PLAIN_LINE:
        return False
    if list(map(bytes.rstrip, lines)) != lines:  # blanks at the end of a line
        return False
    # To look for the first octet alone takes a tenth of the time, and most texts have none.
    return b"=" not in octets or _PREFIX not in octets
