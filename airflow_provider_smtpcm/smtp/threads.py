"""What waits for others, in threads, while `poll` waits for sockets: each result rings a bell. Knows no mail."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from airflow_provider_smtpcm.errors import MailError, MessageError, Phase
from airflow_provider_smtpcm.smtp.cancellation import let_go

_T = TypeVar("_T")


class Background(Generic[_T]):
    """Runs functions in threads of their own, and hands over what each returned.

    Args:
        unwanted: takes, in its own thread, what is returned after the caller has given up.
    """

    def __init__(self, unwanted: Callable[[_T], None]) -> None:
        self._unwanted = unwanted
        self._results: queue.SimpleQueue[_T] = queue.SimpleQueue()
        # Reentrant, since a signal handler that rings may have broken into a thread that holds it.
        self._lock = threading.RLock()
        self._closed = False
        self._bell, self._ringer = os.pipe()
        os.set_blocking(self._bell, False)
        os.set_blocking(self._ringer, False)

    def fileno(self) -> int:
        """Readable when there is something to take, or when somebody rang."""
        return self._bell

    def run(self, function: Callable[[], _T]) -> None:
        """Begin with something; the function must not raise."""

        def work() -> None:
            result = function()
            if not self._closed:
                with self._lock:
                    if not self._closed:
                        self._results.put(result)
                        self._ring()
                        return
            self._unwanted(result)

        try:
            threading.Thread(target=work, name="smtpcm-background", daemon=True).start()
        except RuntimeError:  # no further thread is to be had: then others wait, and nothing is lost
            work()

    def ring(self) -> None:
        """Wake the waiting thread, from any thread and from a signal handler.

        Under the lock, since after `close` the pipe's number may belong to somebody's socket. The lock is not waited
        for after `close`, which may have been interrupted with the lock held.
        """
        if self._closed:
            return
        with self._lock:
            if not self._closed:
                self._ring()

    def results(self) -> Iterator[_T]:
        """What has come back since the last time; what is not taken stays."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._bell, 4096):
                pass
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._results.get_nowait()

    def close(self) -> list[_T]:
        """Nobody asks any more; what has come back and was not taken. What comes later is unwanted."""
        self._closed = True  # first: a signal handler may ring between any two of these lines
        let_go(self._lock)
        with self._lock:
            os.close(self._bell)
            os.close(self._ringer)
        return [self._results.get_nowait() for _ in range(self._results.qsize())]

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it rings already
            os.write(self._ringer, b"!")


# folded: Content that comes from afar, read in a thread, so that nobody else's mail waits for it. Knows no socket.

# Blocks that are read before they are wanted.
_AHEAD = 2


class ReadAhead(Iterator[bytes | None]):
    """Blocks as they come; None instead of a block that is not there yet.

    Args:
        content: what to read, in a thread of its own.
        wake: called from that thread when there is something again.
    """

    def __init__(self, content: Iterator[bytes], wake: Callable[[], None]) -> None:
        self._wake = wake
        self._blocks: queue.SimpleQueue[bytes | MailError | None] = queue.SimpleQueue()
        # One entry for each block that may be read ahead; as a queue, since an interruption cannot leave it locked.
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(_AHEAD):
            self._room.put(None)
        self._closed = False
        # The thread alone has the content, so that with its end an open file is closed.
        threading.Thread(target=self._read, args=(content,), name="smtpcm-read-ahead", daemon=True).start()

    def __next__(self) -> bytes | None:
        """The next block.

        Raises:
            MessageError: the file could not be read to its end.
        """
        try:
            block = self._blocks.get_nowait()
        except queue.Empty:
            return None
        self._room.put(None)
        if block is None:
            raise StopIteration
        if isinstance(block, MailError):
            raise block
        return block

    def close(self) -> None:
        """Nobody wants the rest."""
        self._closed = True
        self._room.put(None)  # the thread may wait for it

    def _read(self, content: Iterator[bytes]) -> None:
        try:
            for block in content:
                self._hand_over(block)
            self._hand_over(None)
        except _NobodyWantsItError:
            return
        except MailError as error:
            self._hand_over_error(error)
        except Exception as error:  # noqa: BLE001 - whatever a storage's own library raises
            self._hand_over_error(MessageError(f"The message could not be read: {error!r}.", phase=Phase.DATA))

    def _hand_over(self, block: bytes | MailError | None) -> None:
        self._room.get()
        if self._closed:
            raise _NobodyWantsItError
        self._blocks.put(block)
        self._wake()

    def _hand_over_error(self, error: MailError) -> None:
        try:
            self._hand_over(error)
        except _NobodyWantsItError:
            return


class _NobodyWantsItError(Exception):
    """The line broke."""
