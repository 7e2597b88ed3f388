"""The ledger as it lies in a store: a head, and blocks of rows. Knows no window and no thread.

A store that fails is asked again for a while, since nothing is sent that cannot be written down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
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

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None: ...

    def delete(self, key: str) -> None: ...


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

    def write_head(
        self, standing: Standing, max_tries: int | None, blocks: int, done: Mapping[str, Any] | None = None
    ) -> None:
        """How the task stands.

        Args:
            standing: that.
            max_tries: Airflow's number.
            blocks: how many there are, so that a part of them that has expired is missed.
            done: what the task came to, without an address, once it is done.
        """
        head = {
            "format": FORMAT,
            "generation": self.generation,
            "standing": str(standing),
            "max_tries": max_tries,
            "blocks": blocks,
            **({} if done is None else {"done": dict(done)}),
        }
        self._asked(lambda: self._store.set(HEAD, head))

    def blocks(self, expected: int) -> dict[int, Block]:
        """Every block of this generation; `expected` is how many there were at least."""
        blocks: dict[int, Block] = {}
        while (value := self.get(str(len(blocks)))) is not None:
            try:
                blocks[len(blocks)] = Block.from_json(value)
            except (ValueError, KeyError, TypeError) as error:
                raise LedgerError(
                    f"The ledger of this task is damaged ({error}).", remedy="Begin a new run."
                ) from error
        if len(blocks) < expected:
            raise LedgerError(
                "A part of the ledger of this task has expired ([state_store] default_retention_days), so that it is "
                "not known who has the mail.",
                remedy="Look into the report of the merge, or the server's log, and begin a new run for those who lack "
                "it.",
            )
        return blocks

    def write_block(self, number: int, block: Block) -> None:
        """One block of this generation, as it is now."""
        self.set(str(number), block.to_json())

    def get(self, name: str) -> Any:
        """What `set` has kept in this generation; None: nothing."""
        key = f"{HEAD}/{self.generation}/{name}"
        return self._asked(lambda: self._store.get(key))

    def set(self, name: str, value: Any) -> None:
        """Keep something in this generation, at once, for as long as Airflow is configured to."""
        key = f"{HEAD}/{self.generation}/{name}"
        self._asked(lambda: self._store.set(key, value))

    def set_shortly(self, name: str, value: Any, retention: timedelta) -> None:
        """Keep something in this generation for so long."""
        key = f"{HEAD}/{self.generation}/{name}"
        self._asked(lambda: self._store.set(key, value, retention=retention))

    def drop(self, generation: int, blocks: int) -> None:
        """Delete the blocks of a generation that serve no more. What a store that fails keeps of them expires."""
        with suppress(LedgerError):
            for number in range(blocks):
                key = f"{HEAD}/{generation}/{number}"
                self._asked(lambda key=key: self._store.delete(key))  # type: ignore[misc]

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
