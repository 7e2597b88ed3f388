"""Waiting for what another thread or process does, however busy the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable

#: How long in vain, in seconds: what does not happen by then does not happen at all.
PATIENCE = 60.0


def wait_until(condition: Callable[[], object], *, seconds: float = PATIENCE) -> None:
    """Return once the condition is true.

    Args:
        condition: asked every few milliseconds; of another thread or process, which tells nobody of it.
        seconds: after so many it is a failure.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"It did not happen within {seconds:g} s."
        time.sleep(0.002)
