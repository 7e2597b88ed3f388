"""Asking a sending to end, as a signal handler may ask, or a moment that has come. Knows nothing else."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from airflow_provider_smtpcm.errors import StoppedError


class Stop:
    """Asks one sending to end: nothing more is begun, what was handed over has its answer heard, for a while.

    `ask` may be called from a signal handler, in any thread, and at any time.

    Args:
        at: a moment (`time.monotonic`) from which on it is asked by itself; no thread and no timer waits for it.
        why: why at that moment, for the errors of what was not sent.
    """

    def __init__(self, *, at: float = math.inf, why: str = "the task was asked to end") -> None:
        #: From when on (`time.monotonic`) it is asked.
        self.at = at
        self._why = why
        #: Wakes whoever waits; must be safe in a signal handler.
        self.wake: Callable[[], None] | None = None

    @property
    def asked(self) -> bool:
        """Whether the sending is to end."""
        return time.monotonic() >= self.at

    def ask(self, why: str = "the task was asked to end") -> None:
        """End it now."""
        if not self.asked:
            self._why, self.at = why, -math.inf
        wake = self.wake  # another thread may take it away
        if wake is not None:
            wake()

    def error(self) -> StoppedError:
        """Why a mail was not sent."""
        return StoppedError(f"It was not sent: {self._why}.", remedy="Run the task again.")
