"""Mails that were refused for now, or not sent, are tried again within a time. Knows no socket.

What nobody has (RFC 5321 4.2.1: 4yz; a server that is down; a line that broke before the final dot) goes again after a
while that doubles, with jitter, so that a thousand tasks do not come back in step. Of a mail that some have, the others
alone are asked again. What may have been delivered is never tried again here.
"""

from __future__ import annotations

import heapq
import logging
import math
import random
import time
from collections.abc import Container, Iterator
from dataclasses import dataclass

from airflow_provider_smtpcm.errors import Phase, StoppedError
from airflow_provider_smtpcm.mail.errand import Errand
from airflow_provider_smtpcm.smtp.delivery import Delivery, Outcome
from airflow_provider_smtpcm.smtp.pace import asks_for_less, was_taken

log = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
# A mail that a server says it is too busy for has so many times the usual time, while it takes others.
_AT_THE_MOST = 10
# So many mails may wait for their next turn, then no further ones are begun.
MAY_WAIT = 1000


@dataclass(slots=True)
class _Turn:
    errand: Errand
    began: float
    tries: int = 0
    # What became of it so far.
    became: Delivery | None = None


class Patience:
    """An iterator of errands: those that it is given, and those that have another turn.

    It yields None where there is nothing to do just now.

    Args:
        errands: None from there means the same.
        seconds: how long a mail may take from its first turn to the beginning of its last. Where the server is
            too busy, twice as long from when it last took a mail, since limits count by the minute.
    """

    def __init__(self, errands: Iterator[Errand | None], seconds: float) -> None:
        self._errands = errands
        self._seconds = seconds
        self._exhausted = False
        self._turns: dict[int, _Turn] = {}
        # When the server last took a mail.
        self._taken_at = -math.inf
        # When its next turn is, and its index.
        self._waiting: list[tuple[float, int]] = []
        #: Those that have another turn just now.
        self.out: set[int] = set()

    def __iter__(self) -> Iterator[Errand | None]:
        """Go on until every errand is settled."""
        while True:
            if self._waiting and self._waiting[0][0] <= time.monotonic():
                index = self._waiting[0][1]
                self.out.add(index)
                heapq.heappop(self._waiting)
                yield self._turns[index].errand
            elif not self._exhausted and len(self._waiting) < MAY_WAIT:
                errand = next(self._errands, self)
                if errand is self:
                    self._exhausted = True
                    continue
                if isinstance(errand, Errand):
                    self._turns[errand.index] = _Turn(errand, time.monotonic())
                yield errand  # type: ignore[misc]
            elif self._turns:
                yield None
            else:
                return

    def left(self, delivery: Delivery) -> tuple[str, ...]:
        """The recipients whom another try may reach, and cannot reach twice."""
        return who_is_left(delivery, self._turns[delivery.index].errand)

    def settle(self, delivery: Delivery, left: tuple[str, ...]) -> Delivery | None:
        """The delivery, if that is how it ends; None: it has another turn, with those who are left."""
        turn = self._turns[delivery.index]
        self.out.discard(delivery.index)
        turn.tries += 1
        now = time.monotonic()
        if was_taken(delivery):
            self._taken_at = now
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (turn.tries - 1)) * random.uniform(0.5, 1)  # noqa: S311 - no secret
        give_up_at = turn.began + self._seconds
        if asks_for_less(delivery):  # which is hardly this mail's fault, unless it goes on and on
            last = max(turn.began, self._taken_at) + 2 * self._seconds
            give_up_at = min(last, turn.began + _AT_THE_MOST * self._seconds)
        if not left or _is_the_end(delivery) or now + wait > give_up_at:
            del self._turns[delivery.index]
            return delivery
        others = set(left)
        log.info("Mail %d is tried again in %.1f seconds: %s", delivery.index, wait, delivery.error)
        turn.errand = Errand(
            delivery.index,
            turn.errand.mail,
            left,
            delivery.accepted,
            {address: reply for address, reply in delivery.refused.items() if address not in others},
        )
        turn.became = delivery
        heapq.heappush(self._waiting, (now + wait, delivery.index))
        return None

    def give_up(self, on_their_way: Container[int]) -> list[Delivery]:
        """Nobody has another turn: what became so far of those that waited for one, or had it and never got away.

        Args:
            on_their_way: those that did get away, and whose deliveries will not come any more.
        """
        self._waiting.clear()
        known = {
            index: turn.became
            for index, turn in self._turns.items()
            if turn.became is not None and index not in on_their_way
        }
        for index in known:
            del self._turns[index]
        return [known[index] for index in sorted(known)]


def who_is_left(delivery: Delivery, errand: Errand) -> tuple[str, ...]:
    """The recipients whom another try may reach, and cannot reach twice."""
    if delivery.error is None or delivery.outcome is Outcome.UNKNOWN:
        return ()
    asked = errand.recipients
    if asked is None:
        asked = tuple(address.address for address in errand.mail.recipients)
    accepted = set(delivery.accepted)
    rest = []
    for address in asked:
        if address in accepted:
            continue
        reply = delivery.refused.get(address)
        if delivery.error.retryable if reply is None else reply.transient:
            rest.append(address)
    return tuple(rest)


def _is_the_end(delivery: Delivery) -> bool:
    """Whether the server could not be reached, or signed in to, which was tried for long enough; or we were stopped."""
    error = delivery.error
    if isinstance(error, StoppedError):
        return True
    return error is not None and error.phase in (Phase.CONNECT, Phase.TLS, Phase.AUTH, Phase.SETTINGS)
