"""Threads beside the event loop: opening sessions, and reading remote files, while `poll` waits for sockets."""

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

# Blocks of a remote file that are read before they are needed.
_BLOCKS_AHEAD = 2


class BackgroundTasks(Generic[_T]):
    """Runs functions in threads of their own, and hands their results to the thread that polls.

    Args:
        discard: called, in the worker thread, with each result that comes after `close`.
    """

    def __init__(self, discard: Callable[[_T], None]) -> None:
        self._discard = discard
        self._results: queue.SimpleQueue[_T] = queue.SimpleQueue()
        # Reentrant, since a signal handler that wakes may have broken into a thread that holds it.
        self._lock = threading.RLock()
        self._closed = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def fileno(self) -> int:
        """Return the descriptor that is readable once there is a result, or `wake` was called."""
        return self._reader

    def run(self, function: Callable[[], _T]) -> None:
        """Run a function in a thread; it must not raise."""

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
        except RuntimeError:  # the system gives no further thread: then the sessions wait, and nothing is lost
            work()

    def wake(self) -> None:
        """Wake the thread that polls, from any thread and from a signal handler.

        Under the lock, since after `close` the pipe's descriptor may belong to another file. The lock is not waited
        for after `close`, which may have been interrupted with the lock held.
        """
        if self._closed:
            return
        with self._lock:
            if not self._closed:
                self._signal()

    def results(self) -> Iterator[_T]:
        """Yield the results since the last call; one that is not taken stays for the next call."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._reader, 4096):
                pass
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._results.get_nowait()

    def close(self) -> list[_T]:
        """Take no further results; return those that have come and were not taken. Later ones are discarded."""
        self._closed = True  # first: a signal handler may call `wake` between any two of these lines
        release_fully(self._lock)
        with self._lock:
            os.close(self._reader)
            os.close(self._writer)
        return [self._results.get_nowait() for _ in range(self._results.qsize())]

    def _signal(self) -> None:
        with contextlib.suppress(BlockingIOError):  # the pipe is full: it is readable already
            os.write(self._writer, b"!")


class ReadAhead(Iterator[bytes | None]):
    """Iterates over content that a thread reads a few blocks ahead; yields None where the next block is not there yet.

    Args:
        content: what to read, in a thread of its own.
        wake: called from that thread when the next block is there.
    """

    def __init__(self, content: Iterator[bytes], wake: Callable[[], None]) -> None:
        self._wake = wake
        self._blocks: queue.SimpleQueue[bytes | MailError | None] = queue.SimpleQueue()
        # One entry for each block that may be read ahead; as a queue, since an interruption cannot leave it locked.
        self._slots: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(_BLOCKS_AHEAD):
            self._slots.put(None)
        self._closed = False
        # The thread alone has the content, so that an open file is closed with its end.
        threading.Thread(target=self._read, args=(content,), name="smtpcm-read-ahead", daemon=True).start()

    def __next__(self) -> bytes | None:
        """Return the next block, or None.

        Raises:
            MessageError: the file could not be read to its end.
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
        """Stop reading; the remaining content is not needed."""
        self._closed = True
        self._slots.put(None)  # the thread may wait for it

    def _read(self, content: Iterator[bytes]) -> None:
        try:
            for block in content:
                self._put(block)
            self._put(None)
        except _ClosedError:
            return
        except MailError as error:
            self._put_error(error)
        except Exception as error:  # noqa: BLE001 - a storage's own library may raise anything
            failure = MessageError(f"The message could not be read: {error!r}.", phase=Phase.DATA)
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
    """The session broke, and its content is not needed any more."""
