"""What waits for others, in threads, while `poll` waits for sockets: each result rings a bell. Knows no mail."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from airflow_provider_smtpcm.smtp.interruption import let_go

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
