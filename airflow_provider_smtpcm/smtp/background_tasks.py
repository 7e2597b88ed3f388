"""The background threads of a batch: they open sessions and read remote files while the event loop is in `poll`."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from airflow_provider_smtpcm.errors import MailError, MessageError, Phase
from airflow_provider_smtpcm.smtp.cancellation import release_fully

_T = TypeVar("_T")

# Maximum blocks of a remote file that are read ahead.
_BLOCKS_AHEAD = 2


class BackgroundTasks(Generic[_T]):
    """Runs each function in its own thread, and queues the results for the event loop.

    Args:
        discard: called in the function's thread with a result that comes after `close`.
    """

    def __init__(self, discard: Callable[[_T], None]) -> None:
        self._discard = discard
        self._results: queue.SimpleQueue[_T] = queue.SimpleQueue()
        # Reentrant: a signal handler that calls `wake` may interrupt a thread that holds it.
        self._lock = threading.RLock()
        self._closed = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def fileno(self) -> int:
        """Return a descriptor that becomes readable with each result and each call of `wake`."""
        return self._reader

    def run(self, function: Callable[[], _T]) -> None:
        """Run a function in a thread. The function must not raise."""

        def work() -> None:
            result = function()
            if not self._closed:
                with self._lock:
                    if not self._closed:
                        self._results.put(result)
                        self._signal()
                        return
            self._discard(result)

        try:
            threading.Thread(target=work, name="smtpcm-background", daemon=True).start()
        except RuntimeError:  # too many threads: run it here, which blocks the event loop
            work()

    def wake(self) -> None:
        """Wake the event loop. May be called in any thread and from a signal handler.

        The lock is held while the pipe is written to: after `close`, its descriptor may belong to another file. Once
        `close` has begun, the lock is not acquired, since a `close` that was interrupted may never release it.
        """
        if self._closed:
            return
        with self._lock:
            if not self._closed:
                self._signal()

    def results(self) -> Iterator[_T]:
        """Yield the queued results; those that the caller does not consume stay queued."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._reader, 4096):
                pass
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._results.get_nowait()

    def close(self) -> list[_T]:
        """Return the queued results; later ones are discarded."""
        self._closed = True  # first: a signal handler may call `wake` between any two of these lines
        release_fully(self._lock)
        with self._lock:
            os.close(self._reader)
            os.close(self._writer)
        return [self._results.get_nowait() for _ in range(self._results.qsize())]

    def _signal(self) -> None:
        with contextlib.suppress(BlockingIOError):  # the pipe is full, and so already readable
            os.write(self._writer, b"!")


class ReadAhead(Iterator[bytes | None]):
    """Iterates over content that a thread reads ahead; yields None while the next block is not available.

    Args:
        content: the blocks, read in a separate thread.
        wake: called from that thread whenever a block has become available.
    """

    def __init__(self, content: Iterator[bytes], wake: Callable[[], None]) -> None:
        self._wake = wake
        self._blocks: queue.SimpleQueue[bytes | MailError | None] = queue.SimpleQueue()
        # Used as a semaphore, with an entry for each block that may be read ahead. Unlike a `threading.Semaphore`, it
        # cannot be left locked by an exception from a signal handler.
        self._slots: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(_BLOCKS_AHEAD):
            self._slots.put(None)
        self._closed = False
        # Only the thread holds a reference to the content, so that its files are closed when the thread ends.
        threading.Thread(target=self._read, args=(content,), name="smtpcm-read-ahead", daemon=True).start()

    def __next__(self) -> bytes | None:
        """Return the next block; None if it is not available yet.

        Raises:
            MailError: the content could not be read.
        """
        try:
            block = self._blocks.get_nowait()
        except queue.Empty:
            return None
        self._slots.put(None)
        if block is None:
            raise StopIteration
        if isinstance(block, MailError):
            raise block
        return block

    def close(self) -> None:
        """Stop reading."""
        self._closed = True
        self._slots.put(None)  # the thread may be waiting for a slot

    def _read(self, content: Iterator[bytes]) -> None:
        try:
            for block in content:
                self._put(block)
            self._put(None)
        except _ClosedError:
            return
        except MailError as error:
            self._put_error(error)
        except Exception as error:  # noqa: BLE001 - a storage library may raise anything
            failure = MessageError(
                f"The message could not be read: {error!r}.",
                remedy="Check the storage of its attachments.",
                phase=Phase.DATA,
            )
            failure.__cause__ = error
            self._put_error(failure)

    def _put(self, block: bytes | MailError | None) -> None:
        self._slots.get()
        if self._closed:
            raise _ClosedError
        self._blocks.put(block)
        self._wake()

    def _put_error(self, error: MailError) -> None:
        try:
            self._put(error)
        except _ClosedError:
            return


class _ClosedError(Exception):
    """`close` was called."""
