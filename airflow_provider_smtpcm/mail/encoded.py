"""Files as they stand in a message, block by block: in base64, or as they are. Knows no fields and no boundary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from airflow_provider_smtpcm.errors import MessageError, Phase
from airflow_provider_smtpcm.mail.attachment import Attachment, BinaryReader
from airflow_provider_smtpcm.mail.base64_lines import BLOCK, base64_lines, base64_size

_CHANGED = "Send it when whatever writes it is done: let that write to another name, and rename at the end."


class Encoded(ABC):
    """A file as it stands in a message; iterating reads it, in blocks, and anew every time.

    Raises:
        MessageError: on iteration and in phase DATA, since the file is no longer what was measured, or no longer
            readable.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def dot_free(self) -> bool:
        """Whether no line of it can ever begin with a dot."""

    @abstractmethod
    def __len__(self) -> int:
        """The octets that iterating yields."""

    @abstractmethod
    def __iter__(self) -> Iterator[bytes]: ...


class _StreamedFile(Encoded):
    """An attachment that is read each time anew; `octets` is what it measured when it was rendered."""

    __slots__ = ("attachment", "octets")

    def __init__(self, attachment: Attachment, octets: int) -> None:
        self.attachment = attachment
        self.octets = octets

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.attachment.name!r} of {self.octets} octets>"

    def _blocks(self) -> Iterator[bytes]:
        """The file in blocks of which all but the last have the length BLOCK."""
        try:
            reader = self.attachment.open()
        except MessageError as error:
            raise MessageError(
                error.message, remedy=error.remedy, phase=Phase.DATA, retryable=error.retryable
            ) from error
        try:
            left = self.octets
            while left:
                block = self._read(reader, min(left, BLOCK))
                left -= len(block)
                yield block
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


class Base64File(_StreamedFile):
    """An attachment in base64, without a line break at its end."""

    __slots__ = ()
    dot_free = True  # RFC 2045 6.8: a dot is none of the 65 characters

    def __len__(self) -> int:
        return base64_size(self.octets)

    def __iter__(self) -> Iterator[bytes]:
        following = False
        for block in self._blocks():
            yield base64_lines(block, following=following)
            following = True


class BinaryFile(_StreamedFile):
    """An attachment octet by octet as it is (RFC 3030 3)."""

    __slots__ = ()
    dot_free = False

    def __len__(self) -> int:
        return self.octets

    def __iter__(self) -> Iterator[bytes]:
        return self._blocks()
