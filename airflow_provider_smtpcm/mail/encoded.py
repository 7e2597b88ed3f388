"""Files as they stand in a message, block by block: in base64, or as they are. Knows no fields and no boundary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from airflow_provider_smtpcm.errors import MessageError, Phase
from airflow_provider_smtpcm.file_state import WRITTEN_TO, FileState
from airflow_provider_smtpcm.mail.attachment import Attachment, BinaryReader
from airflow_provider_smtpcm.mail.base64_lines import BLOCK, base64_lines, base64_size


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
            if not self.attachment.remote:  # which would cost one more request
                self._compare(reader)
            left = self.octets
            while left:
                block = self._read(reader, min(left, BLOCK))
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


def _in_phase_data(error: MessageError) -> MessageError:
    return MessageError(error.message, remedy=error.remedy, phase=Phase.DATA, retryable=error.retryable)


def _changed(message: str) -> MessageError:
    # Retryable: without its end the server discards the message, and by the next try the file may be complete.
    return MessageError(message, remedy=WRITTEN_TO, phase=Phase.DATA, retryable=True)
