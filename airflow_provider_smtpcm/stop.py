"""Asking a sending to end, as a signal handler may ask. Knows nothing else."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_smtpcm.errors import StoppedError


class Stop:
    """Asks a mailing to end: nothing more is begun, what was handed over has its answer heard, for a while.

    `ask` may be called from a signal handler, in any thread, and at any time.
    """

    def __init__(self) -> None:
        #: Whether somebody has asked.
        self.asked = False
        #: Why, for the errors of what was not sent.
        self.why = "the task was asked to end"
        #: Wakes whoever waits; must be safe in a signal handler.
        self.wake: Callable[[], None] | None = None

    def ask(self, why: str | None = None) -> None:
        """End it."""
        self.why = why or self.why
        self.asked = True
        wake = self.wake  # another thread may take it away
        if wake is not None:
            wake()

    def error(self) -> StoppedError:
        """Why a mail was not sent."""
        return StoppedError(f"It was not sent: {self.why}.", remedy="Run the task again.")
