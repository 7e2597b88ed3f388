"""Waiting for what another thread or process does, however busy the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable

#: The maximum wait, in seconds: what has not happened by then never will.
PATIENCE = 60.0


def wait_until(condition: Callable[[], object], *, seconds: float = PATIENCE) -> None:
    """Return once the condition is true.

    Args:
        condition: checked every few milliseconds; it depends on another thread or process, which gives no notice.
        seconds: after this many the test fails.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"It did not happen within {seconds:g} s."
        time.sleep(0.002)
