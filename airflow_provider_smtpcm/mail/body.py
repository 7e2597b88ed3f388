"""Bodies in 7 bits: text as it is, quoted-printable or base64; files as base64, block by block. Knows no structure."""

from __future__ import annotations

from binascii import b2a_base64, b2a_qp
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from struct import Struct

from airflow_provider_smtpcm.errors import MessageError, Phase
from airflow_provider_smtpcm.mail.attachment import Attachment, BinaryReader

#: What every boundary begins with. No encoded line can hold it: base64 has no "_", quoted-printable no "=_".
BOUNDARY_PREFIX = "=_smtpcm_"

# RFC 5322 2.1.1 recommends 78 and allows 998. Quoted-printable is worth it beyond 78: gateways that break or cut long
# lines exist, the text then survives them, and it costs a soft line break for every 75 characters.
_PLAIN_LINE = 78
_PLAIN = bytes([0x09, 0x0A, *range(0x20, 0x7F)])
_BASE64_LINE = 76  # RFC 2045 6.8
_OCTETS_PER_LINE = 57
_LINES_PER_BLOCK = 2048
_BLOCK = _OCTETS_PER_LINE * _LINES_PER_BLOCK
_CHANGED = "Send it when whatever writes it is done: let that write to another name, and rename at the end."


def text_part(subtype: str, text: str) -> bytes:
    """The fields and the body of a text, `plain` or `html`; it ends in a line break only if the text does."""
    encoding, charset, body = _encoded_text(text)
    fields = f"Content-Type: text/{subtype}; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return fields.encode() + body


def base64_size(octets: int) -> int:
    """How long the base64 of so many octets is, with the line breaks between its lines."""
    encoded = -(-octets // 3) * 4
    return encoded + (max(encoded - 1, 0) // _BASE64_LINE) * 2


@dataclass(frozen=True, slots=True)
class EncodedFile:
    """An attachment in base64, without a line break at its end; `octets` is what it measured when it was rendered."""

    attachment: Attachment
    octets: int

    def __len__(self) -> int:
        return base64_size(self.octets)

    def __iter__(self) -> Iterator[bytes]:
        """Blocks of the base64 text.

        Raises:
            MessageError: in phase DATA, since the file is no longer what was measured, or no longer readable.
        """
        try:
            reader = self.attachment.open()
        except MessageError as error:
            raise MessageError(
                error.message, remedy=error.remedy, phase=Phase.DATA, retryable=error.retryable
            ) from error
        try:
            separator = b""
            left = self.octets
            while left:
                block = self._read(reader, min(left, _BLOCK))
                left -= len(block)
                yield separator + _base64_lines(block)
                separator = b"\r\n"
            if self._read(reader, 1, short=True):
                raise self._changed("longer")
        finally:
            reader.close()

    def _read(self, reader: BinaryReader, size: int, *, short: bool = False) -> bytes:
        """Exactly so many octets (a network's reader may hand out fewer at a time); `short` allows for the end."""
        try:
            block = reader.read(size)
            while len(block) < size:
                more = reader.read(size - len(block))
                if not more:
                    break
                block += more
        except Exception as error:  # whatever a storage's own library raises
            raise self.attachment.fault(error, phase=Phase.DATA) from error
        if len(block) < size and not short:
            raise self._changed("shorter")
        return block

    def _changed(self, how: str) -> MessageError:
        # Retryable: without its end the server discards the message, and by the next try the file may be complete.
        return MessageError(
            f"The attachment {self.attachment.name!r} has become {how} than the {self.octets} octets it had.",
            remedy=_CHANGED,
            phase=Phase.DATA,
            retryable=True,
        )


def _encoded_text(text: str) -> tuple[str, str, bytes]:
    """Content-Transfer-Encoding, charset and the body, of which no line is too long and no octet above 126."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    octets = text.encode()
    if _survives(octets):
        return "7bit", "us-ascii", octets.replace(b"\n", b"\r\n")
    # The blanks at the end of a line are encoded too; of its line breaks those that it adds itself are bare as well.
    quoted = b2a_qp(octets, quotetabs=False, istext=True).replace(b"\n", b"\r\n")
    # As with every text in base64, its own line breaks are CRLF (RFC 2046 4.1.1).
    canonical = octets.replace(b"\n", b"\r\n")
    if len(quoted) <= base64_size(len(canonical)):
        return "quoted-printable", "utf-8", quoted
    return "base64", "utf-8", _base64_lines(canonical)


def _survives(octets: bytes) -> bool:
    """Whether every server on the way hands a text on as it is: see the constants."""
    if octets.translate(None, _PLAIN) or b" \n" in octets or b"\t\n" in octets or octets.endswith((b" ", b"\t")):
        return False
    if BOUNDARY_PREFIX.encode() in octets:
        return False
    return len(octets) <= _PLAIN_LINE or max(map(len, octets.split(b"\n"))) <= _PLAIN_LINE


def _base64_lines(octets: bytes) -> bytes:
    encoded = b2a_base64(octets, newline=False)
    if len(octets) == _BLOCK:
        return b"\r\n".join(_block_of_lines().unpack(encoded))
    return b"\r\n".join([encoded[at : at + _BASE64_LINE] for at in range(0, len(encoded), _BASE64_LINE)])


@cache
def _block_of_lines() -> Struct:
    """Cuts a block into its lines in one step, in half the time that slicing takes."""
    return Struct(f"{_BASE64_LINE}s" * _LINES_PER_BLOCK)
