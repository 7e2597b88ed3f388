"""A set of digests in 18 to 27 octets each, where `set` takes about 100. No store, no rows.

A merge has to know every row that it has met. Hash tables of numbers hold 96 bits of each digest, side by side: that
two of a million rows share these is as likely as 1 in 10^17, of a hundred million 1 in 10^13.
"""

from __future__ import annotations

from array import array
from struct import Struct

# Many small tables, since a table that grows is filled again, while the mails wait.
_TABLES = 64
_FIRST_SLOTS = 8
_NUMBERS = Struct(">QI")
#: So many are held of each digest, which has no fewer.
DIGEST_OCTETS = _NUMBERS.size


class DigestSet:
    """Digests, each held by its first `DIGEST_OCTETS`."""

    def __init__(self) -> None:
        self._tables = [_Table() for _ in range(_TABLES)]

    def add(self, digest: bytes) -> bool:
        """Add a digest; whether it is new."""
        high, low = _numbers(digest)
        return self._tables[high % _TABLES].add(high, low)

    def __contains__(self, digest: bytes) -> bool:
        high, low = _numbers(digest)
        return self._tables[high % _TABLES].slot(high, low) < 0


class _Table:
    """A hash table with linear probing (Knuth, TAOCP 6.4, algorithm L), at most two thirds full."""

    __slots__ = ("_high", "_left", "_low", "_slots")

    def __init__(self) -> None:
        self._allocate(_FIRST_SLOTS)

    def _allocate(self, slots: int) -> None:
        self._slots = slots
        self._left = 2 * slots // 3
        # Two zeros are an empty slot.
        self._high = array("Q", bytes(8 * slots))
        self._low = array("I", bytes(4 * slots))

    def slot(self, high: int, low: int) -> int:
        """The slot where these numbers belong; where they are there already, its complement, which is negative."""
        highs, lows, slots = self._high, self._low, self._slots
        at = high // _TABLES % slots
        while True:
            there = highs[at]
            if there == high and lows[at] == low:
                return ~at
            if not there and not lows[at]:
                return at
            at = at + 1 if at + 1 < slots else 0

    def add(self, high: int, low: int) -> bool:
        at = self.slot(high, low)
        if at < 0:
            return False
        self._high[at] = high
        self._low[at] = low
        self._left -= 1
        if not self._left:
            self._grow()
        return True

    def _grow(self) -> None:
        highs, lows = self._high, self._low
        self._allocate(3 * self._slots // 2)
        for high, low in zip(highs, lows, strict=True):
            if high or low:
                at = self.slot(high, low)
                self._high[at] = high
                self._low[at] = low
                self._left -= 1


def _numbers(digest: bytes) -> tuple[int, int]:
    high, low = _NUMBERS.unpack_from(digest)
    return (high, low) if high or low else (1, 0)  # zeros are an empty slot
