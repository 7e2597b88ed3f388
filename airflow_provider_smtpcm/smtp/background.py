"""What waits for others, in threads, while `poll` waits for sockets: each result rings a bell. Knows no mail."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Background(Generic[_T]):
    """Runs functions in threads of their own, and hands over what each returned.

    Args:
        unwanted: takes what is returned when nobody asks any more.
    """

    def __init__(self, unwanted: Callable[[_T], None]) -> None:
        self._unwanted = unwanted
        self._results: queue.SimpleQueue[_T] = queue.SimpleQueue()
        self._lock = threading.Lock()
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
            with self._lock:
                if not self._closed:
                    self._results.put(result)
                    self._ring()
                    return
            self._unwanted(result)

        threading.Thread(target=work, name="smtpcm-background", daemon=True).start()

    def ring(self) -> None:
        """Wake whoever waits, from any thread."""
        with self._lock:
            if not self._closed:
                self._ring()

    def ring_at_once(self) -> None:
        """The same from a signal handler, which may have broken into a thread that holds the lock."""
        if not self._closed:
            with contextlib.suppress(OSError):
                self._ring()

    def results(self) -> Iterator[_T]:
        """What has come back since the last time; what is not taken stays."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._bell, 4096):
                pass
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._results.get_nowait()

    def close(self) -> None:
        """Nobody asks any more; what has come back, or comes later, is unwanted."""
        with self._lock:
            self._closed = True
            os.close(self._bell)
            os.close(self._ringer)
        with contextlib.suppress(queue.Empty):
            while True:
                self._unwanted(self._results.get_nowait())

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it rings already
            os.write(self._ringer, b"!")
