"""A property that is worked out once, however many threads ask for it first. Knows nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")


class once(Generic[_T]):  # noqa: N801 - it is written as `property` is
    """As `functools.cached_property`, which since Python 3.12 lets each thread work it out; needs `self.once_lock`."""

    def __init__(self, work_out: Callable[[Any], _T]) -> None:
        self._work_out = work_out
        self._name = work_out.__name__
        self.__doc__ = work_out.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> _T:
        if instance is None:
            return self  # type: ignore[return-value]  # as `property` does
        lock: threading.RLock = instance.once_lock
        with lock:
            known = vars(instance)  # from here on Python finds it there, and does not come here again
            if self._name not in known:
                known[self._name] = self._work_out(instance)
            value: _T = known[self._name]
            return value
