"""A server with a limit on recipients per transaction that counts errors, and hangs up, as Postfix does."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from tests.smtp.server import HANG_UP, Decide


class Limit:
    """Decides for a `Server` with one connection.

    Args:
        recipients: those that it takes in one transaction.
        overshoot: further ones that it refuses before each of them counts as an error.
        errors: after so many it closes the connection.
        says: to a recipient too many.
        refused: addresses with what is answered to them.
        also: decides first.
    """

    def __init__(
        self,
        recipients: int,
        *,
        overshoot: int = 1000,
        errors: int = 20,
        says: str = "452 4.5.3 Error: too many recipients",
        refused: Mapping[str, str] | None = None,
        also: Decide | None = None,
    ) -> None:
        self._recipients, self._overshoot, self._errors, self._says = recipients, overshoot, errors, says
        self._refused, self._also = refused or {}, also
        self._taken = self._too_many = 0
        self._lock = threading.Lock()
        #: How many RCPT commands each transaction had.
        self.asked: list[int] = []

    def __call__(self, about: str) -> str | None:
        """See `tests.smtp.server.Decide`."""
        with self._lock:
            if about.startswith("MAIL"):
                self._taken = self._too_many = 0
                self.asked.append(0)
            if self._also is not None and (decided := self._also(about)) is not None:
                return decided
            return self._recipient(about) if about.startswith("RCPT") else None

    def _recipient(self, about: str) -> str | None:
        self.asked[-1] += 1
        if self._taken >= self._recipients:
            self._too_many += 1
            if self._too_many > self._overshoot + self._errors:
                return HANG_UP if self._says == HANG_UP else "421 4.7.0 Error: too many errors"
            return self._says
        if (answer := self._refused.get(about[9:-1])) is None:
            self._taken += 1
        return answer
