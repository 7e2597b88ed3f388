"""Files in a message: in base64, 7bit or binary, with their media type and charset, read block by block."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from functools import lru_cache
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import MessageError, Phase
from airflow_provider_smtpcm.mail.encoding import BLOCK_SIZE, base64_length, encode_base64

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail.attachment import Attachment
    from airflow_provider_smtpcm.mail.files import BinaryReader, FileState

_MAX_LINE = 998  # RFC 5322 2.1.1
_FIELD_NAME_AND_COLON = rb"[!-9;-~]+[ \t]*:"  # RFC 5322 3.6.8; obsolete messages may have a space before the colon


def measure_base64_file(attachment: Attachment) -> EncodedFile:
    """Measure a file that will be sent in base64; or without an encoding, if it is a mail that needs none.

    Raises:
        MessageError: the file is missing, or cannot be read.
    """
    return _measure(attachment, Base64File)


def measure_binary_file(attachment: Attachment) -> EncodedFile:
    """Measure a file that will be sent unencoded; raises as `measure_base64_file`."""
    return _measure(attachment, BinaryFile)


def _measure(attachment: Attachment, kind: type[Base64File | BinaryFile]) -> EncodedFile:
    state = attachment.state()
    message = MessageFile.measure(attachment, state) if attachment.is_message else None
    return kind(attachment, state) if message is None else message


def find_media_type(attachment: Attachment, file: EncodedFile) -> str:
    """Return the value of Content-Type for a file.

    Args:
        attachment: the file.
        file: the same, measured.

    Raises:
        MessageError: it is a text, and cannot be read.
    """
    media_type = attachment.content_type
    if attachment.is_message and file.transfer_encoding != MessageFile.transfer_encoding:
        # Not re-encoded part by part, which would break its signatures. Mail programs open it by its name.
        return "application/octet-stream"
    if media_type[:5].lower() == "text/" and "charset=" not in media_type.lower() and file.charset:
        return f"{media_type}; charset={file.charset}"
    return media_type


class EncodedFile(ABC):
    """A file in the form in which a message contains it. Iterating yields its octets in blocks.

    Raises:
        MessageError: on iteration, in phase DATA: the file changed after it was measured, or can no longer be read.
    """

    __slots__ = ()

    #: The Content-Transfer-Encoding: `base64`, `7bit` or `binary`.
    transfer_encoding: str
    #: Whether no line of it can begin with a dot, so that it needs no dot-stuffing (RFC 5321 4.5.2).
    is_dot_free: bool

    @property
    @abstractmethod
    def charset(self) -> str | None:
        """The charset of the file, if it is a text and its octets tell it; see `detect_charset`.

        The file is read for it, once. A remote file is not, since that would be another download.
        """

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

    __slots__ = ("_charset", "attachment", "state")

    def __init__(self, attachment: Attachment, state: FileState) -> None:
        self.attachment = attachment
        self.state = state
        self._charset: str | None = ""  # not yet known

    @property
    def charset(self) -> str | None:
        """See `EncodedFile`.

        Raises:
            MessageError: the file cannot be read, or has changed since it was measured.
        """
        if self._charset == "":
            path = self.attachment.path
            if self.attachment.is_remote:
                self._charset = None
            elif path is None:
                self._charset = _detect_charset(self)
            else:
                self._charset = _detect_local_charset(os.fspath(path), self.state)  # type: ignore[arg-type]
        return self._charset

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.attachment.name!r} of {self.state.size} octets>"

    def read_blocks(self) -> Generator[bytes, None, None]:
        """Yield the file in blocks of `BLOCK_SIZE`; the last may be shorter."""
        try:
            reader = self.attachment.open()
        except MessageError as error:
            raise _move_to_phase(error, Phase.DATA) from error
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
            raise _move_to_phase(error, Phase.DATA) from error
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
    transfer_encoding = "base64"
    is_dot_free = True  # RFC 2045 6.8: the dot is not in the alphabet

    def __len__(self) -> int:
        return base64_length(self.state.size)

    def __iter__(self) -> Iterator[bytes]:
        leading_crlf = False
        for block in self.read_blocks():
            yield encode_base64(block, leading_crlf=leading_crlf)
            leading_crlf = True


class BinaryFile(_StreamedFile):
    """An attachment without an encoding (BINARYMIME, RFC 3030 3)."""

    __slots__ = ()
    transfer_encoding = "binary"
    is_dot_free = False

    def __len__(self) -> int:
        return self.state.size

    def __iter__(self) -> Iterator[bytes]:
        return self.read_blocks()


class MessageFile(_StreamedFile):
    """A mail as an attachment (message/rfc822), without an encoding: RFC 2046 5.2.1 allows neither base64 nor
    quoted-printable. Its line ends become CRLF.

    Args:
        attachment: the file.
        state: its state when the message was rendered.
        length: the number of octets with those line ends.
    """

    __slots__ = ("_length",)
    transfer_encoding = "7bit"
    is_dot_free = False

    def __init__(self, attachment: Attachment, state: FileState, length: int) -> None:
        super().__init__(attachment, state)
        self._length = length

    @classmethod
    def measure(cls, attachment: Attachment, state: FileState) -> MessageFile | None:
        """Read a mail once to measure it; return None if it needs an encoding, or is not a mail.

        Raises:
            MessageError: the file cannot be read, or has changed since it was measured.
        """
        if attachment.is_remote or attachment.path is None:
            length = _measure_message(Base64File(attachment, state))
        else:
            length = _measure_local_message(os.fspath(attachment.path), state)  # type: ignore[arg-type]
        return None if length is None else cls(attachment, state, length)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        remaining = self._length
        try:
            for octets in _canonicalize_message(self.read_blocks()):
                remaining -= len(octets)
                if remaining < 0:
                    break
                yield octets
        except _NeedsEncodingError:
            remaining = -1
        if remaining:
            raise _make_change_error(f"{self.attachment.describe()} was changed after it was measured.")


class _NeedsEncodingError(ValueError):
    """A message cannot be sent as `7bit`."""


def _canonicalize_message(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a message with CRLF line ends, block by block.

    Raises:
        _NeedsEncodingError: it contains a non-ASCII character, a NUL, a line of more than 998 octets or a CR that ends
            no line; or it does not begin with a header field.
    """
    line_length, pending, is_first = 0, b"", True
    for block in blocks:
        if is_first and not re.match(_FIELD_NAME_AND_COLON, block):
            raise _NeedsEncodingError
        is_first = False
        octets = pending + block if pending else block
        pending = b"\r" if octets.endswith(b"\r") else b""  # its LF may be in the next block
        lines = octets[: len(octets) - len(pending)].replace(b"\r\n", b"\n").split(b"\n")
        longest = max(line_length + len(lines[0]), *map(len, lines))
        line_length = len(lines[-1]) + (line_length if len(lines) == 1 else 0)
        canonical = b"\r\n".join(lines)
        if (
            longest > _MAX_LINE
            or not canonical.isascii()
            or b"\0" in canonical
            or canonical.count(b"\r") != len(lines) - 1
        ):
            raise _NeedsEncodingError
        yield canonical
    if is_first or pending:
        raise _NeedsEncodingError


def _measure_message(file: _StreamedFile) -> int | None:
    """Return the length of a mail with CRLF line ends; None if it cannot be sent as `7bit`."""
    try:
        with closing(file.read_blocks()) as blocks:
            return sum(map(len, _canonicalize_message(blocks)))
    except _NeedsEncodingError:
        return None
    except MessageError as error:
        raise _move_to_phase(error, Phase.MESSAGE) from error


def _detect_charset(file: _StreamedFile) -> str | None:
    """Return the charset of a text, which is read in blocks; None if its octets do not tell it."""
    from airflow_provider_smtpcm.mail.charset import detect_charset

    try:
        with closing(file.read_blocks()) as blocks:
            return detect_charset(blocks)
    except MessageError as error:
        raise _move_to_phase(error, Phase.MESSAGE) from error


# Cached, since a merge may send the same large file with each mail. Equal states mean equal content (`FileState`).


@lru_cache(maxsize=256)
def _measure_local_message(path: str, state: FileState) -> int | None:
    return _measure_message(_open_local(path, state))


@lru_cache(maxsize=256)
def _detect_local_charset(path: str, state: FileState) -> str | None:
    return _detect_charset(_open_local(path, state))


def _open_local(path: str, state: FileState) -> _StreamedFile:
    from airflow_provider_smtpcm.mail.attachment import Attachment

    return Base64File(Attachment(path, name="file"), state)


def _move_to_phase(error: MessageError, phase: Phase) -> MessageError:
    return MessageError(error.message, remedy=error.remedy, phase=phase, retryable=error.retryable)


def _make_change_error(message: str) -> MessageError:
    from airflow_provider_smtpcm.mail.files import FILE_CHANGED_REMEDY

    # Retryable, since the server discards an incomplete message, and the file may be complete by the next attempt.
    return MessageError(message, remedy=FILE_CHANGED_REMEDY, phase=Phase.DATA, retryable=True)
