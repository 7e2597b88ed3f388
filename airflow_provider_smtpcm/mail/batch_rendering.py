"""The mails of a batch as octets, where what they share is written once. Knows no server and no dots."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from time import time
from typing import Generic, TypeVarTuple

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail.attachment import Attachment
from airflow_provider_smtpcm.mail.encoding import EncodedFile, render_text_part
from airflow_provider_smtpcm.mail.headers import render_date, render_mailboxes, render_unstructured
from airflow_provider_smtpcm.mail.message import Mail
from airflow_provider_smtpcm.mail.render import (
    PartRenderers,
    Rendering,
    compose,
    measure_base64_file,
    measure_binary_file,
    render_fixed_fields,
)

_A = TypeVarTuple("_A")

# Octets, as they stand in a message.
_LARGEST_KEPT_FILE = 1024 * 1024
_ALL_KEPT_FILES = 8 * 1024 * 1024
_LARGEST_KEPT_PART = 1024 * 1024
_KEPT_FILE_ITSELF = 1024  # what keeping even an empty one costs


class BatchRenderer:
    """Writes down mail after mail, with the same octets as `render`, and remembers what the next one may share.

    A header field or a text that is the same as in the mail before is not written again. A file of up to 1 MiB in the
    message (8 MiB for all of them; the least recently used goes first) is measured, read and encoded once, when a mail
    with it is first sent, and every further mail with the same path, or the same content, carries what was read then,
    whatever has become of the file since. Larger ones are measured and read for each mail. So a batch needs the same
    memory however many mails it has.

    It may be called from several threads.

    Args:
        binary: whether files go as they are (BINARYMIME, RFC 3030 3) instead of in base64.
    """

    def __init__(self, *, binary: bool = False) -> None:
        self._binary = binary
        self._parts = PartRenderers(
            file=_KeptFiles(measure_binary_file if binary else measure_base64_file),
            date=_Dates(),
            sender=_Latest(render_mailboxes),
            cc=_Latest(render_mailboxes),
            reply_to=_Latest(render_mailboxes),
            subject=_Latest(render_unstructured),
            fixed=_Latest(render_fixed_fields),
            text=_Latest(render_text_part),
            html=_Latest(render_text_part),
        )

    def render(self, mail: Mail, *, date: datetime | None = None) -> Rendering:
        """Write a mail down.

        Args:
            mail: with its sender and its Message-ID filled in.
            date: for the Date field, with a time zone; now, if it is not given.

        Raises:
            MessageError: no sender, no Message-ID, or an attachment that is missing or cannot be read.
        """
        return compose(mail, date, self._parts, binary=self._binary)


class CachedFile(EncodedFile):
    """A file that is read once, when it is first wanted."""

    __slots__ = ("_blocks", "_file", "broken")

    def __init__(self, file: EncodedFile) -> None:
        self._file = file
        self._blocks: tuple[bytes, ...] | None = None
        #: Whether it could not be read as it was measured.
        self.broken = False

    @property
    def is_dot_free(self) -> bool:
        """See `EncodedFile`."""
        return self._file.is_dot_free

    def __len__(self) -> int:
        return len(self._file)

    def __iter__(self) -> Iterator[bytes]:
        return self._read() if self._blocks is None else iter(self._blocks)

    def _read(self) -> Iterator[bytes]:
        blocks: list[bytes] = []
        try:
            for block in self._file:
                blocks.append(block)
                yield block
        except MessageError:
            self.broken = True
            raise
        self._blocks = tuple(blocks)


class _KeptFiles:
    """Measures files, and has one `CachedFile` for all that are the same."""

    def __init__(self, measure: Callable[[Attachment], EncodedFile]) -> None:
        self._measure = measure
        self._files: OrderedDict[object, tuple[CachedFile, int]] = OrderedDict()
        self._octets = 0
        self._lock = threading.Lock()

    def __call__(self, attachment: Attachment) -> EncodedFile:
        content = attachment.content
        key: object = attachment.path if content is None else content
        if content is not None and len(content) > _LARGEST_KEPT_FILE:
            return self._measure(attachment)
        try:
            with self._lock:
                kept, _ = self._files[key]
                self._files.move_to_end(key)
            if not kept.broken:
                return kept
        except KeyError:
            pass
        except TypeError:  # a store's path that cannot be a key
            return self._measure(attachment)
        file = self._measure(attachment)
        if len(file) > _LARGEST_KEPT_FILE:
            return file
        return self._keep(key, file, len(file) + len(content or b"") + _KEPT_FILE_ITSELF)

    def _keep(self, key: object, file: EncodedFile, octets: int) -> CachedFile:
        kept = CachedFile(file)
        with self._lock:
            self._octets += octets - self._files.pop(key, (kept, 0))[1]
            self._files[key] = kept, octets
            while self._octets > _ALL_KEPT_FILES:
                self._octets -= self._files.popitem(last=False)[1][1]
        return kept


class _Latest(Generic[*_A]):
    """A function that remembers its latest result; what it is called with must not change."""

    __slots__ = ("_latest", "_write")

    def __init__(self, write: Callable[[*_A], bytes]) -> None:
        self._write = write
        self._latest: tuple[tuple[*_A] | None, bytes] = None, b""

    def __call__(self, *arguments: *_A) -> bytes:
        known, part = self._latest
        if known == arguments:
            return part
        part = self._write(*arguments)
        self._latest = (arguments, part) if len(part) <= _LARGEST_KEPT_PART else (None, b"")
        return part


class _Dates:
    """The Date field, written anew when a second has passed or another date is given."""

    __slots__ = ("_latest",)

    def __init__(self) -> None:
        self._latest: tuple[datetime | int | None, bytes] = None, b""

    def __call__(self, date: datetime | None) -> bytes:
        moment = int(time()) if date is None else date
        known, field = self._latest
        if known == moment:
            return field
        field = render_date(moment if isinstance(moment, datetime) else datetime.fromtimestamp(moment, UTC))
        self._latest = moment, field
        return field
