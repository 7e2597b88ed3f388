"""Exceptions from signal handlers at chosen moments, as Airflow's time limit raises them."""

from __future__ import annotations

import inspect
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

OURS = tuple(f"/airflow_provider_smtpcm/{folder}/" for folder in ("operators", "merge", "ledger", "smtp", "hooks"))


class TimeLimit(BaseException):
    """Like Airflow's, not an Exception."""


class Moments:
    """Count the moments at which a signal handler may run in the package's code, and raise at one of them."""

    def __init__(self, at: int | None, since: Callable[[], bool], *, places: tuple[str, ...] = OURS) -> None:
        self.passed = 0
        self.raised = False
        self._at = at
        self._since = since
        self._places = places

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        """Profile, as for `sys.setprofile`."""
        if event not in ("call", "c_return", "return"):
            return
        if not any(place in frame.f_code.co_filename for place in self._places):
            return
        if event == "return" and frame.f_code.co_flags & inspect.CO_GENERATOR:
            return  # a generator that yields: no code of it runs
        if not self._since():
            return
        self.passed += 1
        if self.passed == self._at:
            self.raised = True
            sys.setprofile(None)
            raise TimeLimit


@contextmanager
def watched(moments: Moments) -> Iterator[None]:
    """Run a block under `Moments`."""
    sys.setprofile(moments)
    try:
        yield
    finally:
        sys.setprofile(None)


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fail if a block takes longer."""

    def time_is_up(_number: int, _frame: object) -> None:
        raise AssertionError("it waits forever")

    before = signal.signal(signal.SIGALRM, time_is_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
