"""The ledger as it lies in a store: a head, and blocks of rows. Knows no window and no thread.

A store that fails is asked again for a while, since nothing is sent that cannot be written down.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Protocol

from airflow_provider_smtpcm.errors import LedgerError
from airflow_provider_smtpcm.operators.ledger.record import Block

HEAD = "smtpcm"
#: What is written; the blocks of format 1 have shorter marks.
FORMAT = 2
_READABLE = (1, FORMAT)
# A store that fails is asked again after so many seconds, then sending stops.
_AGAIN = (0.5, 1.0, 2.0, 4.0)


class Store(Protocol):
    """What is needed of Airflow's task state store."""

    def get(self, key: str) -> Any: ...

    def set(self, key: str, value: Any) -> None: ...


class Standing(StrEnum):
    """How the try before ended."""

    #: It did not end, or Airflow tries again what is left.
    OPEN = "open"
    #: It failed for good: whoever tries again does so on purpose.
    ENDED = "ended"
    #: It was done: whoever tries again wants all of it again.
    CLOSED = "closed"


class Book:
    """What is kept of one task.

    Args:
        store: where.

    Raises:
        LedgerError: from every method: the store does not answer, or has what cannot be read.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        #: Whose blocks are meant.
        self.generation = 0

    def head(self) -> dict[str, Any]:
        """What the try before wrote by `write_head`; empty: there was none."""
        head = self._asked(lambda: self._store.get(HEAD))
        if head is None:
            return {}
        if not isinstance(head, dict) or head.get("format") not in _READABLE:
            raise LedgerError(
                f"The ledger of this task was written by another version of this package ({head!r}).",
                remedy="Finish the run with that version, or begin a new one.",
            )
        return head

    def write_head(self, standing: Standing, max_tries: int | None) -> None:
        """How the task stands."""
        head = {"format": FORMAT, "generation": self.generation, "standing": str(standing), "max_tries": max_tries}
        self._asked(lambda: self._store.set(HEAD, head))

    def blocks(self) -> dict[int, Block]:
        """Every block of this generation."""
        blocks: dict[int, Block] = {}
        while (value := self.get(str(len(blocks)))) is not None:
            try:
                blocks[len(blocks)] = Block.from_json(value)
            except (ValueError, KeyError, TypeError) as error:
                raise LedgerError(
                    f"The ledger of this task is damaged ({error}).", remedy="Begin a new run."
                ) from error
        return blocks

    def write_block(self, number: int, block: Block) -> None:
        """One block of this generation, as it is now."""
        self.set(str(number), block.to_json())

    def get(self, name: str) -> Any:
        """What `set` has kept in this generation; None: nothing."""
        key = f"{HEAD}/{self.generation}/{name}"
        return self._asked(lambda: self._store.get(key))

    def set(self, name: str, value: Any) -> None:
        """Keep something in this generation, at once."""
        key = f"{HEAD}/{self.generation}/{name}"
        self._asked(lambda: self._store.set(key, value))

    def _asked(self, ask: Callable[[], Any]) -> Any:
        waits = iter(_AGAIN)
        while True:
            try:
                return ask()
            except Exception as error:
                wait = next(waits, None)
                if wait is None:
                    raise LedgerError(
                        f"Airflow's task state store does not answer ({type(error).__name__}: {error}).",
                        remedy="Look into the API server's log; nothing is sent that cannot be written down.",
                        retryable=True,
                    ) from error
                time.sleep(wait)
