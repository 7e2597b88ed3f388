"""Calls into the Kerberos library, which has no deadline of its own: each runs in a thread, and is waited for so long.

A call that was given up cannot be ended. MIT's library asks a KDC that is silent for about half a minute.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from airflow_provider_smtpcm.errors import AuthenticationError

#: A call that takes longer has hung, whatever the KDC does: it no longer says anything about the next one.
STUCK_SECONDS = 90.0

T = TypeVar("T")


class KerberosCalls:
    """Makes calls, and remembers the one that was given up last. Threads may share it.

    Args:
        source: where the tickets come from, for the error.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        # Its thread, and when it began.
        self._given_up: tuple[threading.Thread, float] | None = None

    def within(self, seconds: float, call: Callable[[], T]) -> T:
        """The result of a call.

        As long as one that was given up goes on, a further one would wait for the same KDC, and is refused at once: the
        sessions of a batch wait for a silent KDC once, and not one after the other.

        Args:
            seconds: how long it is waited for.
            call: what to do; it goes on when it was given up.

        Raises:
            AuthenticationError: it did not come to its end, or whatever it raised.
        """
        began = time.monotonic()
        if self._given_up is not None:
            thread, since = self._given_up
            if thread.is_alive() and began - since < STUCK_SECONDS:
                raise self._no_answer(began - since)
        outcome: list[Any] = []

        def run() -> None:
            try:
                outcome.append((call(), None))
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                outcome.append((None, error))

        thread = threading.Thread(target=run, daemon=True, name="smtpcm-kerberos")
        thread.start()
        thread.join(seconds)
        if not outcome:
            self._given_up = thread, began
            raise self._no_answer(seconds)
        result, error = outcome[0]
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def _no_answer(self, seconds: float) -> AuthenticationError:
        return AuthenticationError(
            f"Kerberos ({self._source}): no KDC answered within {round(seconds, 1):g} seconds.",
            remedy="Check krb5.conf, the network and the firewall between this worker and the KDC (port 88).",
            retryable=True,
        )
