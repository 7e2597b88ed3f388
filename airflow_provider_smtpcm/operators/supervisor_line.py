"""The one line from a task's process to its supervisor, which our threads use in turns. Knows no mail.

Airflow sees to that itself in a task, but not in `dag.test()`: while one thread asks, another finds no line at all.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

_T = TypeVar("_T")

#: Held while something is asked of Airflow or told to it; a signal's handler may do so in the midst of it.
LINE = threading.RLock()


def fetched(items: Iterable[_T]) -> Iterator[_T]:
    """The items, one after the other; those that Airflow fetches by the line are fetched in turn."""
    if not type(items).__module__.startswith("airflow."):
        yield from items
        return
    with LINE:
        iterator = iter(items)
    while True:
        with LINE:
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item
