"""Content-Transfer-Encoding (RFC 2045 6): text in 7 bits, and files block by block in base64 or binary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from binascii import b2a_qp
from collections.abc import Callable, Iterator
from functools import cache, partial
from struct import Struct
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import MessageError, Phase

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail.attachment import Attachment
    from airflow_provider_smtpcm.mail.files import BinaryReader, FileState

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


class EncodedFile(ABC):
    """A file in the form in which a message contains it. Iterating yields its octets in blocks.

    Raises:
        MessageError: on iteration, in phase DATA: the file changed after it was measured, or can no longer be read.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def is_dot_free(self) -> bool:
        """Whether no line of it can begin with a dot, so that it needs no dot-stuffing (RFC 5321 4.5.2)."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of octets that an iteration yields."""

    @abstractmethod
    def __iter__(self) -> Iterator[bytes]: ...


class _StreamedFile(EncodedFile):
    """An attachment that every iteration reads again.

    Args:
        attachment: the file.
        state: its state when the message was rendered. Reading fails if the state of the file differs.
    """

    __slots__ = ("attachment", "state")

    def __init__(self, attachment: Attachment, state: FileState) -> None:
        self.attachment = attachment
        self.state = state

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.attachment.name!r} of {self.state.size} octets>"

    def _read_blocks(self) -> Iterator[bytes]:
        """Yield the file in blocks of `BLOCK_SIZE`; the last may be shorter."""
        try:
            reader = self.attachment.open()
        except MessageError as error:
            raise _move_to_data_phase(error) from error
        try:
            if not self.attachment.is_remote:  # in object storage the check would cost another request
                self._check_unchanged(reader)
            remaining = self.state.size
            while remaining:
                block = self._read(reader, min(remaining, BLOCK_SIZE))
                remaining -= len(block)
                yield block
            if self._read(reader, 1, at_end=True):
                raise self._make_size_error(longer=True)
            self._check_unchanged(reader)
        finally:
            reader.close()

    def _read(self, reader: BinaryReader, size: int, *, at_end: bool = False) -> bytes:
        """Read exactly `size` octets, in several calls if a remote reader returns fewer.

        Args:
            reader: the open file.
            size: number of octets, at least 1.
            at_end: whether the file may end before; then fewer octets are returned.

        Raises:
            MessageError: the file ends before and `at_end` is False, or it cannot be read.
        """
        try:
            block = reader.read(size)
            while len(block) < size:
                more = reader.read(size - len(block))
                if not more:
                    break
                block += more
        except Exception as error:  # an object storage library may raise any class
            raise self.attachment.make_read_error(error, phase=Phase.DATA) from error
        if len(block) < size and not at_end:
            raise self._make_size_error(longer=False)
        return block

    def _check_unchanged(self, reader: BinaryReader) -> None:
        """Raise if the file has changed since the message was rendered."""
        try:
            now = self.attachment.state(reader)
        except MessageError as error:
            raise _move_to_data_phase(error) from error
        if now.size != self.state.size:
            raise self._make_size_error(longer=now.size > self.state.size)
        if now != self.state:
            raise _make_change_error(
                f"{self.attachment.describe()} was overwritten or replaced after its {self.state.size} octets were "
                "measured."
            )

    def _make_size_error(self, *, longer: bool) -> MessageError:
        comparative = "longer" if longer else "shorter"
        return _make_change_error(
            f"{self.attachment.describe()} is {comparative} than the {self.state.size} octets that were measured."
        )


class Base64File(_StreamedFile):
    """An attachment in base64, without a final line break."""

    __slots__ = ()
    is_dot_free = True  # RFC 2045 6.8: the dot is not in the alphabet

    def __len__(self) -> int:
        return base64_length(self.state.size)

    def __iter__(self) -> Iterator[bytes]:
        leading_crlf = False
        for block in self._read_blocks():
            yield encode_base64(block, leading_crlf=leading_crlf)
            leading_crlf = True


class BinaryFile(_StreamedFile):
    """An attachment without an encoding (BINARYMIME, RFC 3030 3)."""

    __slots__ = ()
    is_dot_free = False

    def __len__(self) -> int:
        return self.state.size

    def __iter__(self) -> Iterator[bytes]:
        return self._read_blocks()


def _move_to_data_phase(error: MessageError) -> MessageError:
    return MessageError(error.message, remedy=error.remedy, phase=Phase.DATA, retryable=error.retryable)


def _make_change_error(message: str) -> MessageError:
    from airflow_provider_smtpcm.mail.files import FILE_CHANGED_REMEDY

    # Retryable, since the server discards an incomplete message, and the file may be complete by the next attempt.
    return MessageError(message, remedy=FILE_CHANGED_REMEDY, phase=Phase.DATA, retryable=True)


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
