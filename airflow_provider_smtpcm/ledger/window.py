"""The window of a ledger: how many rows may be open (reserved, without a result), and so in doubt after a crash."""

from __future__ import annotations

import math
import time

#: The window is the number of rows that are sent in `WINDOW_SECONDS`, but at most `LARGEST_WINDOW` rows.
LARGEST_WINDOW, WINDOW_SECONDS = 256, 0.25
# Time constant (s) of the measured rate: after this much time spent sending, a result has a weight of 1/e.
_DECAY_SECONDS = 1.0


class Window:
    """The window, adapted to the rate at which results arrive.

    Only time in which a row is open counts as sending. It includes waiting for the server and for a rate limit, and
    excludes waiting for the state store or for further rows.

    Args:
        fixed: a fixed number of rows; None: adapted to the rate.
        connections: how many mails are in flight at once. The window starts at this size and is never smaller.
    """

    def __init__(self, fixed: int | None, connections: int) -> None:
        self._connections = connections
        self._is_measured = fixed is None
        #: How many rows may be open.
        self.rows = max(fixed or 1, connections)
        #: Results per second of sending.
        self.rate = 0.0
        self._open = 0
        # The start (`time.monotonic`) of the sending time that is not yet included in `_seconds`.
        self._since = 0.0
        # Whether a result has arrived. The time before the first one does not count: it includes opening the sessions.
        self._has_result = False
        # Results, and seconds of sending, since the last measurement.
        self._results, self._seconds = 0, 0.0
        # Their weighted totals before the last measurement.
        self._recent_results, self._recent_seconds = 0.0, 0.0

    def on_rows_opened(self, rows: int) -> None:
        """Count rows that are recorded as open, and may be sent."""
        if not self._open:
            self._since = time.monotonic()
        self._open += rows

    def on_row_closed(self) -> None:
        """Count the result of one open row."""
        self._open -= 1
        if not self._has_result:
            self._has_result = True
            self._since = time.monotonic()
            return
        self._results += 1
        if not self._open:
            self._seconds += time.monotonic() - self._since

    def measure(self) -> None:
        """Adapt the window to the results since the last measurement."""
        if not self._has_result:
            return
        if self._open:
            now = time.monotonic()
            self._seconds += now - self._since
            self._since = now
        decay = math.exp(-self._seconds / _DECAY_SECONDS)
        self._recent_results = decay * self._recent_results + self._results
        # Capped: a long pause of the server lowers the rate for no longer than `_DECAY_SECONDS`.
        self._recent_seconds = decay * self._recent_seconds + min(self._seconds, _DECAY_SECONDS)
        self._results, self._seconds = 0, 0.0
        # Results arrive in bursts, one per connection; counting the last burst would overestimate the rate.
        results = max(0.0, self._recent_results - self._connections)
        self.rate = results / max(self._recent_seconds, 0.001)
        if self._is_measured:
            self.rows = max(self._connections, min(LARGEST_WINDOW, int(self.rate * WINDOW_SECONDS)))
