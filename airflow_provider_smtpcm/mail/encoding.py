"""Files as they stand in a message, block by block: in base64, or as they are. Knows no fields and no boundary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from binascii import b2a_qp
from collections.abc import Callable, Iterator
from functools import cache, partial
from struct import Struct

from airflow_provider_smtpcm.errors import MessageError, Phase
from airflow_provider_smtpcm.mail.attachment import Attachment, BinaryReader
from airflow_provider_smtpcm.mail.worker_files import FILE_CHANGED_REMEDY, FileState

# folded: Base64 in lines of 76, as MIME has it (RFC 2045 6.8), and how long that is. Knows no file and no header.

_LINE = 76  # RFC 2045 6.8
_OCTETS_PER_LINE = 57
_LINES_PER_BLOCK = 768
#: Octets of whole lines, so that the base64 of such blocks can be put together with CRLF between. Larger blocks can
#: take up to three times as long: from 128 KiB on, a C library hands memory back to the system and asks for it anew.
BLOCK_SIZE = _OCTETS_PER_LINE * _LINES_PER_BLOCK


def base64_length(octets: int) -> int:
    """How long the base64 of so many octets is, with the line breaks between its lines."""
    encoded = -(-octets // 3) * 4
    return encoded + (max(encoded - 1, 0) // _LINE) * 2


def encode_base64(octets: bytes, *, following: bool = False) -> bytes:
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


# folded: here began the module itself


class EncodedFile(ABC):
    """A file as it stands in a message; iterating reads it, in blocks, and anew every time.

    Raises:
        MessageError: on iteration and in phase DATA, since the file is no longer what was measured, or no longer
            readable.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def is_dot_free(self) -> bool:
        """Whether no line of it can ever begin with a dot."""

    @abstractmethod
    def __len__(self) -> int:
        """The octets that iterating yields."""

    @abstractmethod
    def __iter__(self) -> Iterator[bytes]: ...


class _StreamedFile(EncodedFile):
    """An attachment that is read again each time.

    Args:
        attachment: the file.
        state: as it was when it was rendered; a file that is in another one when it has been read fails.
    """

    __slots__ = ("attachment", "state")

    def __init__(self, attachment: Attachment, state: FileState) -> None:
        self.attachment = attachment
        self.state = state

    @property
    def octets(self) -> int:
        """How many the file had when it was rendered."""
        return self.state.size

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.attachment.name!r} of {self.octets} octets>"

    def _blocks(self) -> Iterator[bytes]:
        """The file in blocks of which all but the last have the length BLOCK."""
        try:
            reader = self.attachment.open()
        except MessageError as error:
            raise _in_phase_data(error) from error
        try:
            if not self.attachment.is_remote:  # which would cost one more request
                self._compare(reader)
            left = self.octets
            while left:
                block = self._read(reader, min(left, BLOCK_SIZE))
                left -= len(block)
                yield block
            if self._read(reader, 1, short=True):
                raise self._resized(longer=True)
            self._compare(reader)
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
            raise self._resized(longer=False)
        return block

    def _compare(self, reader: BinaryReader) -> None:
        """Fail unless the file is as it was rendered; part of what was read may be older than the rest."""
        try:
            now = self.attachment.state(reader)
        except MessageError as error:
            raise _in_phase_data(error) from error
        if now.size != self.octets:
            raise self._resized(longer=now.size > self.octets)
        if now != self.state:
            raise _changed(
                f"{self.attachment.label()} was overwritten or replaced after its {self.octets} octets were measured."
            )

    def _resized(self, *, longer: bool) -> MessageError:
        how = "longer" if longer else "shorter"
        return _changed(f"{self.attachment.label()} has become {how} than the {self.octets} octets it had.")


class Base64File(_StreamedFile):
    """An attachment in base64, without a line break at its end."""

    __slots__ = ()
    is_dot_free = True  # RFC 2045 6.8: a dot is none of the 65 characters

    def __len__(self) -> int:
        return base64_length(self.octets)

    def __iter__(self) -> Iterator[bytes]:
        following = False
        for block in self._blocks():
            yield encode_base64(block, following=following)
            following = True


class BinaryFile(_StreamedFile):
    """An attachment octet by octet as it is (RFC 3030 3)."""

    __slots__ = ()
    is_dot_free = False

    def __len__(self) -> int:
        return self.octets

    def __iter__(self) -> Iterator[bytes]:
        return self._blocks()


def _in_phase_data(error: MessageError) -> MessageError:
    return MessageError(error.message, remedy=error.remedy, phase=Phase.DATA, retryable=error.retryable)


def _changed(message: str) -> MessageError:
    # Retryable: without its end the server discards the message, and by the next try the file may be complete.
    return MessageError(message, remedy=FILE_CHANGED_REMEDY, phase=Phase.DATA, retryable=True)


# folded: Texts in 7 bits: as they are, quoted-printable or base64, whichever they survive. Knows no file and no
#   structure.

#: What every boundary begins with. No encoded line can hold it: base64 has no "_", quoted-printable no "=_".
BOUNDARY_PREFIX = "=_smtpcm_"
_PREFIX = BOUNDARY_PREFIX.encode()

# RFC 5322 2.1.1 recommends 78 and allows 998. Quoted-printable is worth it beyond 78: gateways that break or cut long
# lines exist, the text then survives them, and it costs a soft line break for every 75 characters.
_PLAIN_LINE = 78
_PLAIN = bytes([0x09, 0x0A, *range(0x20, 0x7F)])


def render_text_part(subtype: str, text: str) -> bytes:
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
    if len(quoted) <= base64_length(len(canonical)):
        return "quoted-printable", "utf-8", quoted
    return "base64", "utf-8", encode_base64(canonical)


def _survives(octets: bytes, lines: list[bytes]) -> bool:
    """Whether every server on the way hands a text on as it is: see the constants."""
    if octets.translate(None, _PLAIN) or max(map(len, lines)) > _PLAIN_LINE:
        return False
    if list(map(bytes.rstrip, lines)) != lines:  # blanks at the end of a line
        return False
    # To look for the first octet alone takes a tenth of the time, and most texts have none.
    return b"=" not in octets or _PREFIX not in octets
