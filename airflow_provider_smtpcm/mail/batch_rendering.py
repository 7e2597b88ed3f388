"""Rendering of a batch of mails: the octets are those of `render`, but what mails have in common is rendered once."""

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
from airflow_provider_smtpcm.mail.render import (
    MessageRenderer,
    measure_base64_file,
    measure_binary_file,
    render_fixed_fields,
)

_A = TypeVarTuple("_A")

# In octets of the rendered message.
_MAX_CACHED_FILE = 1024 * 1024
_MAX_FILE_CACHE = 8 * 1024 * 1024
_MAX_CACHED_PART = 1024 * 1024
_CACHE_ENTRY_OVERHEAD = 1024  # approximate memory of an entry, even for an empty file


class BatchRenderer(MessageRenderer):
    """Renders mails one after another, with the same octets as `render`, and caches what the next one may share.

    A header field or a body that is the same as in the previous mail is not rendered again. A file that takes up to
    1 MiB of the message is measured, read and encoded once, when a mail with it is first sent. Every further mail with
    the same path or content gets what was read then, even if the file has changed since. The cache has 8 MiB, and drops
    the least recently used file first. Larger files are measured and read for each mail. The memory that a batch needs
    does not depend on its number of mails.

    Thread-safe.

    Args:
        binary: whether files are sent unencoded (BINARYMIME, RFC 3030 3) instead of in base64.
    """

    def __init__(self, *, binary: bool = False) -> None:
        super().__init__(
            binary=binary,
            file=_FileCache(measure_binary_file if binary else measure_base64_file),
            date=_DateCache(),
            sender=_LastResultCache(render_mailboxes),
            cc=_LastResultCache(render_mailboxes),
            reply_to=_LastResultCache(render_mailboxes),
            subject=_LastResultCache(render_unstructured),
            fixed_fields=_LastResultCache(render_fixed_fields),
            text=_LastResultCache(render_text_part),
            html=_LastResultCache(render_text_part),
        )


class CachedFile(EncodedFile):
    """A file whose encoded content is kept after its first complete iteration."""

    __slots__ = ("_blocks", "_file", "has_failed")

    def __init__(self, file: EncodedFile) -> None:
        self._file = file
        self._blocks: tuple[bytes, ...] | None = None
        #: Whether reading it has failed, for example because it changed after it was measured.
        self.has_failed = False

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
            self.has_failed = True
            raise
        self._blocks = tuple(blocks)


class _FileCache:
    """Measures files, and returns the same `CachedFile` for the same path or content."""

    def __init__(self, measure: Callable[[Attachment], EncodedFile]) -> None:
        self._measure = measure
        self._files: OrderedDict[object, tuple[CachedFile, int]] = OrderedDict()
        self._octets = 0
        self._lock = threading.Lock()

    def __call__(self, attachment: Attachment) -> EncodedFile:
        content = attachment.content
        key: object = attachment.path if content is None else content
        if content is not None and len(content) > _MAX_CACHED_FILE:
            return self._measure(attachment)
        try:
            with self._lock:
                cached, _ = self._files[key]
                self._files.move_to_end(key)
            if not cached.has_failed:
                return cached
        except KeyError:
            pass
        except TypeError:  # a `RemotePath` that is not hashable
            return self._measure(attachment)
        file = self._measure(attachment)
        if len(file) > _MAX_CACHED_FILE:
            return file
        return self._cache_file(key, file, len(file) + len(content or b"") + _CACHE_ENTRY_OVERHEAD)

    def _cache_file(self, key: object, file: EncodedFile, octets: int) -> CachedFile:
        cached = CachedFile(file)
        with self._lock:
            self._octets += octets - self._files.pop(key, (cached, 0))[1]
            self._files[key] = cached, octets
            while self._octets > _MAX_FILE_CACHE:
                self._octets -= self._files.popitem(last=False)[1][1]
        return cached


class _LastResultCache(Generic[*_A]):
    """A function that caches its last result. Its arguments must be immutable."""

    __slots__ = ("_last", "_render")

    def __init__(self, render: Callable[[*_A], bytes]) -> None:
        self._render = render
        self._last: tuple[tuple[*_A] | None, bytes] = None, b""

    def __call__(self, *arguments: *_A) -> bytes:
        last_arguments, part = self._last
        if last_arguments == arguments:
            return part
        part = self._render(*arguments)
        self._last = (arguments, part) if len(part) <= _MAX_CACHED_PART else (None, b"")
        return part


class _DateCache:
    """Renders the Date field, and caches it for the current second, or for the date that was given last."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: tuple[datetime | int | None, bytes] = None, b""

    def __call__(self, date: datetime | None) -> bytes:
        moment = int(time()) if date is None else date
        last_moment, field = self._last
        if last_moment == moment:
            return field
        field = render_date(moment if isinstance(moment, datetime) else datetime.fromtimestamp(moment, UTC))
        self._last = moment, field
        return field
