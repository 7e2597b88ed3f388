"""What the torture tests have tried and what came of it: named counters, which are printed at the end of the run."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from random import SystemRandom

_VARIABLE = "TORTURE_SEED"
# In this order; any other counter follows them.
_FIRST = ("schedules run", "faults tried", "inputs tried", "refused", "sent")
# These must be 0, and are printed nevertheless.
_PROMISED = ("lost", "doubled")


def _seed() -> int:
    given = os.environ.get(_VARIABLE, "20240131")
    return SystemRandom().getrandbits(32) if given == "fresh" else int(given)


#: What everything random in this folder begins with: the number in TORTURE_SEED, another one each time for "fresh".
SEED = _seed()
os.environ[_VARIABLE] = str(SEED)  # the workers of pytest-xdist begin with the same


class Tally:
    """Counters by name, for one topic or another; threads may share it."""

    def __init__(self) -> None:
        self._topics: dict[str, Counter[str]] = {}
        self._lock = threading.Lock()

    def add(self, topic: str, counts: Mapping[str, int]) -> None:
        """Count more of something.

        Args:
            topic: what was tortured, such as "hostile mails".
            counts: by the counter's name: "schedules run", "faults tried", "inputs tried", "lost", "doubled", ...
        """
        with self._lock:
            self._topics.setdefault(topic, Counter()).update(counts)

    def counts(self) -> dict[str, dict[str, int]]:
        """The counters of each topic, as they are added to another tally."""
        return {topic: dict(counters) for topic, counters in self._topics.items()}

    def lines(self) -> Iterator[str]:
        """A line for each topic, and one for all of them; none where nothing was tried."""
        if not self._topics:
            return
        for topic, counters in self._topics.items():
            yield f"torture, {topic}: {_said(counters)}"
        yield f"torture: {_said(sum(self._topics.values(), Counter()))}"
        yield f"torture: {_VARIABLE}={SEED} does the same again, {_VARIABLE}=fresh something else"


def _said(counters: Mapping[str, int]) -> str:
    others = [name for name in counters if name not in (*_FIRST, *_PROMISED)]
    names = [name for name in (*_FIRST, *others) if name in counters]
    return ", ".join(f"{name} {counters.get(name, 0):,}" for name in (*names, *_PROMISED))


#: The one that is printed.
TALLY = Tally()
