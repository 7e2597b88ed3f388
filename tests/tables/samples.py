"""Results of queries, as the tests write them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A table in memory."""

    columns: Sequence[str]
    rows: Sequence[tuple[Any, ...]]
    batch_rows: int = 2

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows, two at a time."""
        for start in range(0, len(self.rows), self.batch_rows):
            yield list(self.rows[start : start + self.batch_rows])


def column(*values: Any) -> Sample:
    """Return a table with the column `value`."""
    return Sample(columns=["value"], rows=[(value,) for value in values])
