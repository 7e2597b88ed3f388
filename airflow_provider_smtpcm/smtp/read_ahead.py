"""Content that comes from afar, read in a thread, so that nobody else's mail waits for it. Knows no socket."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

from airflow_provider_smtpcm.errors import MailError, MessageError, Phase

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
