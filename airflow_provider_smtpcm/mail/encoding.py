"""Content-Transfer-Encoding (RFC 2045 6): texts in 7 bits, and files block by block in base64 or binary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from binascii import b2a_qp
from collections.abc import Callable, Iterator
from functools import cache, partial
from struct import Struct

from airflow_provider_smtpcm.errors import MessageError, Phase
from airflow_provider_smtpcm.mail.attachment import Attachment, BinaryReader
from airflow_provider_smtpcm.mail.worker_files import FILE_CHANGED_REMEDY, FileState

#: The beginning of every boundary. No encoded line can contain it: base64 has no "_", quoted-printable no "=_".
BOUNDARY_PREFIX = "=_smtpcm_"
_BOUNDARY_PREFIX = BOUNDARY_PREFIX.encode()

# RFC 5322 2.1.1 recommends 78 and allows 998. Longer lines are sent as quoted-printable, which costs a soft line break
# for every 75 characters: some gateways break or cut long lines.
_TEXT_LINE_OCTETS = 78
_PLAIN = bytes([0x09, 0x0A, *range(0x20, 0x7F)])

_BASE64_LINE = 76  # RFC 2045 6.8
_OCTETS_PER_LINE = 57
_LINES_PER_BLOCK = 768
#: Octets of whole lines, so that the base64 of such blocks can be joined by CRLF. Larger blocks can take up to three
#: times as long: from 128 KiB on, the C library returns memory to the system and requests it again.
BLOCK_SIZE = _OCTETS_PER_LINE * _LINES_PER_BLOCK


def render_text_part(subtype: str, text: str) -> bytes:
    """Render the header fields and the body of a text part. It ends in a line break only if the text does.

    Args:
        subtype: `plain` or `html`.
        text: with line breaks of any kind.
    """
    encoding, charset, body = _encode_text(text)
    return _render_text_fields(subtype, encoding, charset) + body


@cache
def _render_text_fields(subtype: str, encoding: str, charset: str) -> bytes:
    return f"Content-Type: text/{subtype}; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode()


def _encode_text(text: str) -> tuple[str, str, bytes]:
    """Return the encoding, the charset and the body, which has no line too long and no octet above 126."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    octets = text.encode()
    lines = octets.split(b"\n")
    # The line breaks of every text are CRLF, in base64 too (RFC 2046 4.1.1).
    canonical = b"\r\n".join(lines)
    if _is_7bit_safe(octets, lines):
        return "7bit", "us-ascii", canonical
    # b2a_qp also encodes blanks at the end of a line. Its soft line breaks are bare LF, as those of the text.
    quoted = b2a_qp(octets, quotetabs=False, istext=True).replace(b"\n", b"\r\n")
    if len(quoted) <= base64_length(len(canonical)):
        return "quoted-printable", "utf-8", quoted
    return "base64", "utf-8", encode_base64(canonical)


def _is_7bit_safe(octets: bytes, lines: list[bytes]) -> bool:
    """Whether every server passes a text on unchanged without an encoding."""
    if octets.translate(None, _PLAIN) or max(map(len, lines)) > _TEXT_LINE_OCTETS:
        return False
    if list(map(bytes.rstrip, lines)) != lines:  # some servers remove blanks at the end of a line
        return False
    # To search for the first octet alone takes a tenth of the time, and most texts do not contain it.
    return b"=" not in octets or _BOUNDARY_PREFIX not in octets


class EncodedFile(ABC):
    """A file as the message contains it. Every iteration reads the file again, in blocks.

    Raises:
        MessageError: on iteration, in phase DATA: the file changed since it was measured, or can no longer be read.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def is_dot_free(self) -> bool:
        """Whether no line of it can begin with a dot."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of octets that an iteration yields."""

    @abstractmethod
    def __iter__(self) -> Iterator[bytes]: ...


class _StreamedFile(EncodedFile):
    """An attachment that is read again each time.

    Args:
        attachment: the file.
        state: its state when the message was rendered. Reading fails if the file has another state at its end.
    """

    __slots__ = ("attachment", "state")

    def __init__(self, attachment: Attachment, state: FileState) -> None:
        self.attachment = attachment
        self.state = state

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.attachment.name!r} of {self.state.size} octets>"

    def _read_blocks(self) -> Iterator[bytes]:
        """Yield the file in blocks; all but the last have the length BLOCK_SIZE."""
        try:
            reader = self.attachment.open()
        except MessageError as error:
            raise _in_phase_data(error) from error
        try:
            if not self.attachment.is_remote:  # it would cost another request there
                self._check_unchanged(reader)
            left = self.state.size
            while left:
                block = self._read(reader, min(left, BLOCK_SIZE))
                left -= len(block)
                yield block
            if self._read(reader, 1, at_end=True):
                raise self._size_error(longer=True)
            self._check_unchanged(reader)
        finally:
            reader.close()

    def _read(self, reader: BinaryReader, size: int, *, at_end: bool = False) -> bytes:
        """Read exactly `size` octets, or fewer `at_end`. A reader of remote files may return fewer at a time."""
        try:
            block = reader.read(size)
            while len(block) < size:
                more = reader.read(size - len(block))
                if not more:
                    break
                block += more
        except Exception as error:  # a storage's library may raise any class
            raise self.attachment.read_error(error, phase=Phase.DATA) from error
        if len(block) < size and not at_end:
            raise self._size_error(longer=False)
        return block

    def _check_unchanged(self, reader: BinaryReader) -> None:
        """Fail unless the file has the state it had when the message was rendered."""
        try:
            now = self.attachment.state(reader)
        except MessageError as error:
            raise _in_phase_data(error) from error
        if now.size != self.state.size:
            raise self._size_error(longer=now.size > self.state.size)
        if now != self.state:
            raise _change_error(
                f"{self.attachment.describe()} was overwritten or replaced after its {self.state.size} octets were "
                "measured."
            )

    def _size_error(self, *, longer: bool) -> MessageError:
        how = "longer" if longer else "shorter"
        return _change_error(f"{self.attachment.describe()} has become {how} than the {self.state.size} octets it had.")


class Base64File(_StreamedFile):
    """An attachment in base64, without a line break at its end."""

    __slots__ = ()
    is_dot_free = True  # RFC 2045 6.8: the dot is not in the alphabet

    def __len__(self) -> int:
        return base64_length(self.state.size)

    def __iter__(self) -> Iterator[bytes]:
        following = False
        for block in self._read_blocks():
            yield encode_base64(block, following=following)
            following = True


class BinaryFile(_StreamedFile):
    """An attachment without an encoding (BINARYMIME, RFC 3030 3)."""

    __slots__ = ()
    is_dot_free = False

    def __len__(self) -> int:
        return self.state.size

    def __iter__(self) -> Iterator[bytes]:
        return self._read_blocks()


def _in_phase_data(error: MessageError) -> MessageError:
    return MessageError(error.message, remedy=error.remedy, phase=Phase.DATA, retryable=error.retryable)


def _change_error(message: str) -> MessageError:
    # Retryable: the server discards a message without its end, and the file may be complete by the next attempt.
    return MessageError(message, remedy=FILE_CHANGED_REMEDY, phase=Phase.DATA, retryable=True)


def base64_length(octets: int) -> int:
    """Return the length of the base64 of this many octets, with the line breaks between its lines."""
    encoded = -(-octets // 3) * 4
    return encoded + (max(encoded - 1, 0) // _BASE64_LINE) * 2


def encode_base64(octets: bytes, *, following: bool = False) -> bytes:
    """Encode octets in base64, in lines of 76 (RFC 2045 6.8) with CRLF between them and none at the end.

    Args:
        octets: what to encode.
        following: whether it follows other lines, and so begins with CRLF.
    """
    encoded = _base64_encoder()(octets)
    lines = [b""] if following else []
    at = 0
    for size, split in _line_splitters():
        while len(encoded) - at >= size:
            lines += split(encoded, at)
            at += size
    if at < len(encoded):
        lines.append(encoded[at:])
    return b"\r\n".join(lines)


@cache
def _base64_encoder() -> Callable[[bytes], bytes]:
    """Return a function that encodes without line breaks: pybase64's (extra `fast`) if it is installed."""
    try:
        from pybase64 import b64encode
    except ImportError:
        from binascii import b2a_base64

        return partial(b2a_base64, newline=False)
    return b64encode


@cache
def _line_splitters() -> list[tuple[int, Callable[[bytes, int], tuple[bytes, ...]]]]:
    """Return functions that split a number of octets at a position into lines, with that number; the largest first.

    A `Struct` splits many lines in a fifth of the time that slicing takes. Powers of two make up every number of lines.
    """
    numbers = [1 << bit for bit in reversed(range(_LINES_PER_BLOCK.bit_length()))]
    return [(lines * _BASE64_LINE, Struct(f"{_BASE64_LINE}s" * lines).unpack_from) for lines in numbers]
