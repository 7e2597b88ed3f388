"""How many rows of a ledger may be open at once: as many as are sent in a quarter of a second. No store, no rows."""

from __future__ import annotations

import math
from time import monotonic

#: The window is never larger, and never more than so many seconds of sending.
LARGEST_WINDOW, WINDOW_SECONDS = 256, 0.25
# Answers count less the older they are: a third of what they did after so many seconds of sending.
_MEMORY = 1.0


class Window:
    """The window, measured by the answers that come in.

    A second of sending is one in which a row is open: waiting for the server is part of it, and so are its pauses and a
    rate limit; waiting for the store or for further rows is not.

    Args:
        fixed: so many rows, whatever the server takes; None: as measured.
        connections: how many mails are in flight at once. The window is never smaller, and it is no larger before there
            is something to measure it by.
    """

    def __init__(self, fixed: int | None, connections: int) -> None:
        self._connections = connections
        self._measured = fixed is None
        #: How many rows may be open.
        self.rows = max(fixed or 1, connections)
        self._open = 0
        # Since when the present stretch of sending lasts, as far as it is not in `_seconds`.
        self._since = 0.0
        # The first answer starts the clock: what came before it was the opening of the sessions, too.
        self._is_running = False
        # What came in since the last measurement, and what counts of it and all before.
        self._answers, self._seconds = 0, 0.0
        self._recent_answers, self._recent_seconds = 0.0, 0.0

    def opened(self, rows: int) -> None:
        """So many rows were written down, and may be sent."""
        if not self._open:
            self._since = monotonic()
        self._open += rows

    def closed(self) -> None:
        """It is known what became of one of them."""
        self._open -= 1
        if not self._is_running:
            self._is_running = True
            self._since = monotonic()
            return
        self._answers += 1
        if not self._open:
            self._seconds += monotonic() - self._since

    def measure(self) -> None:
        """Take into account what came in."""
        if not (self._measured and self._is_running):
            return
        if self._open:
            now = monotonic()
            self._seconds += now - self._since
            self._since = now
        kept = math.exp(-self._seconds / _MEMORY)
        self._recent_answers = kept * self._recent_answers + self._answers
        # A long silence is not held against a server for as long again.
        self._recent_seconds = kept * self._recent_seconds + min(self._seconds, _MEMORY)
        self._answers, self._seconds = 0, 0.0
        # Answers come in bursts, of one for each connection: in any time there may be one burst too many.
        certain = self._recent_answers - self._connections
        rows = certain * WINDOW_SECONDS / max(self._recent_seconds, 0.001)
        self.rows = max(self._connections, min(LARGEST_WINDOW, int(rows)))
