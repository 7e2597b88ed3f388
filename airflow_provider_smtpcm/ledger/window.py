"""The window of a ledger: how many rows may be open at once, which is what a quarter of a second of sending takes."""

from __future__ import annotations

import math
from time import monotonic

#: The window never exceeds this many rows, nor what is sent in this many seconds.
LARGEST_WINDOW, WINDOW_SECONDS = 256, 0.25
# Time constant (s of sending) after which a result counts for a third (1/e) in the measured rate.
_MEMORY = 1.0


class Window:
    """The window, measured by the rate at which results arrive.

    A second of sending is one in which a row is open: it includes waiting for the server, its pauses and a rate limit,
    and excludes waiting for the state store or for further rows.

    Args:
        fixed: the number of rows, whatever the server takes; None: measured.
        connections: how many mails are in flight at once. The window is never smaller, and no larger until a rate was
            measured.
    """

    def __init__(self, fixed: int | None, connections: int) -> None:
        self._connections = connections
        self._is_measured = fixed is None
        #: How many rows may be open.
        self.rows = max(fixed or 1, connections)
        self._open = 0
        # Start of the current stretch of sending, as far as it is not in `_seconds`.
        self._since = 0.0
        # The first result starts the clock, since the time before it includes opening the sessions.
        self._is_running = False
        # Results and seconds since the last measurement, and the weighted totals up to it.
        self._results, self._seconds = 0, 0.0
        self._recent_results, self._recent_seconds = 0.0, 0.0

    def opened(self, rows: int) -> None:
        """Count rows that were written down as open, and may be sent."""
        if not self._open:
            self._since = monotonic()
        self._open += rows

    def closed(self) -> None:
        """Count the result of one open row."""
        self._open -= 1
        if not self._is_running:
            self._is_running = True
            self._since = monotonic()
            return
        self._results += 1
        if not self._open:
            self._seconds += monotonic() - self._since

    def measure(self) -> None:
        """Resize the window by the results since the last measurement."""
        if not (self._is_measured and self._is_running):
            return
        if self._open:
            now = monotonic()
            self._seconds += now - self._since
            self._since = now
        kept = math.exp(-self._seconds / _MEMORY)
        self._recent_results = kept * self._recent_results + self._results
        # A long pause of the server lowers the rate only for as long as `_MEMORY`.
        self._recent_seconds = kept * self._recent_seconds + min(self._seconds, _MEMORY)
        self._results, self._seconds = 0, 0.0
        # Results come in bursts of one for each connection, so that one burst too many may have been counted.
        certain = self._recent_results - self._connections
        rows = certain * WINDOW_SECONDS / max(self._recent_seconds, 0.001)
        self.rows = max(self._connections, min(LARGEST_WINDOW, int(rows)))
