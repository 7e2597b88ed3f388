"""Mails that were refused for now, or not sent, are tried again within a time. Knows no socket.

What nobody has (RFC 5321 4.2.1: 4yz; a server that is down; a line that broke before the final dot) goes again after a
while that doubles, with jitter, so that a thousand tasks do not come back in step. Of a mail that some have, the others
alone are asked again. What may have been delivered is never tried again here.
"""

from __future__ import annotations

import heapq
import logging
import math
import time
from collections.abc import Callable, Container, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from airflow_provider_smtpcm.errors import OutcomeUnknownError, Phase, StoppedError
from airflow_provider_smtpcm.smtp.cancellation import interrupted_by, remaining
from airflow_provider_smtpcm.smtp.delivery import Delivery, Outcome, SendRequest
from airflow_provider_smtpcm.smtp.throttling import asks_for_less, growing_wait, was_taken

log = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
# A mail that a server says it is too busy for has so many times the usual time, while it takes others.
_AT_THE_MOST = 10
# So many mails may wait for their next turn, then no further ones are begun.
MAY_WAIT = 1000


@dataclass(slots=True)
class _Turn:
    errand: SendRequest
    began: float
    tries: int = 0
    # What became of it so far.
    became: Delivery | None = None


class RetryQueue:
    """An iterator of errands: those that it is given, and those that have another turn.

    Where there is nothing to do just now it yields a number: the moment (`time.monotonic`) from which on there is, if
    no delivery comes before; infinity where there is none.

    Args:
        errands: a number from there means the same.
        seconds: how long a mail may take from its first turn to the beginning of its last. Where the server is
            too busy, twice as long from when it last took a mail, since limits count by the minute.
    """

    def __init__(self, errands: Iterator[SendRequest | float], seconds: float) -> None:
        self._errands = errands
        self._seconds = seconds
        self._exhausted = False
        self._turns: dict[int, _Turn] = {}
        # When the server last took a mail.
        self._taken_at = -math.inf
        # When its next turn is, and its index.
        self._waiting: list[tuple[float, int]] = []
        #: Those that have a turn just now.
        self.out: set[int] = set()

    def __iter__(self) -> Iterator[SendRequest | float]:
        """Go on until every errand is settled."""
        while True:
            if self._waiting and self._waiting[0][0] <= time.monotonic():
                index = self._waiting[0][1]
                self.out.add(index)
                heapq.heappop(self._waiting)
                yield self._turns[index].errand
            elif not self._exhausted and len(self._waiting) < MAY_WAIT:
                errand = next(self._errands, None)
                if errand is None:
                    self._exhausted = True
                elif isinstance(errand, SendRequest):
                    self._turns[errand.index] = _Turn(errand, time.monotonic())
                    self.out.add(errand.index)
                    yield errand
                else:
                    yield min(errand, self._next_at)
            elif self._turns:
                yield self._next_at
            else:
                return

    @property
    def _next_at(self) -> float:
        """When the next one that waits has its turn."""
        return self._waiting[0][0] if self._waiting else math.inf

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
        wait = growing_wait(turn.tries, FIRST_WAIT, LONGEST_WAIT)
        give_up_at = turn.began + self._seconds
        if asks_for_less(delivery):  # which is hardly this mail's fault, unless it goes on and on
            last = max(turn.began, self._taken_at) + 2 * self._seconds
            give_up_at = min(last, turn.began + _AT_THE_MOST * self._seconds)
        if not left or _is_the_end(delivery) or now + wait > give_up_at:
            del self._turns[delivery.index]
            return delivery
        others = set(left)
        log.info("Mail %d is tried again in %.1f seconds: %s", delivery.index, wait, delivery.error)
        turn.errand = SendRequest(
            delivery.index,
            turn.errand.mail,
            left,
            delivery.accepted,
            {address: reply for address, reply in delivery.refused.items() if address not in others},
        )
        turn.became = delivery
        heapq.heappush(self._waiting, (now + wait, delivery.index))
        return None

    def forget(self, delivery: Delivery) -> None:
        """This is how the mail ends, whatever `settle` had come to."""
        self._turns.pop(delivery.index, None)
        self.out.discard(delivery.index)

    def lost(self, on_their_way: Callable[[], Container[int]], interruption: BaseException) -> Iterator[Delivery]:
        """The deliveries of mails that an exception from elsewhere overtook between two hands: not known.

        Args:
            on_their_way: those that did get away, and have no delivery.
            interruption: the exception.
        """
        away = on_their_way()
        for index, turn in [(index, turn) for index, turn in self._turns.items() if index in away]:
            yield Delivery(
                index=index,
                message_id=turn.errand.mail.message_id or "",
                outcome=Outcome.UNKNOWN,
                accepted=turn.errand.accepted,
                refused=turn.errand.refused,
                error=OutcomeUnknownError(
                    f"While this mail was on its way {interrupted_by(interruption)}.",
                    remedy="Look for its Message-ID in the server's log.",
                ),
            )

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


def who_is_left(delivery: Delivery, errand: SendRequest) -> tuple[str, ...]:
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


# folded: A batch: errands in, one delivery for each out; what may pass is tried again, a journal is kept. Knows no
#   socket.


class Sending(Protocol):
    """What sends errands; `Mailing` does."""

    def deliveries(self) -> Generator[Delivery, None, None]:
        """One delivery for each errand, each time that it comes."""

    def wake(self) -> None:
        """Ask for errands again, from any thread: there may be some now."""


Send = Callable[[Iterator[SendRequest | float]], Sending]


class Journal(Protocol):
    """Where somebody writes down what is about to be sent, and what became of it."""

    @property
    def in_doubt(self) -> Container[int]:
        """The errands that were passed on, and of which nothing was heard."""

    def admit(self, errands: Iterator[SendRequest | float]) -> Iterator[SendRequest | float]:
        """Pass errands on once they are written down.

        A number stands for nothing before that moment (`time.monotonic`), unless a delivery comes or `wake` is called.
        """

    def wakes(self, wake: Callable[[], None]) -> None:
        """What to call, from any thread, when there may be errands to pass on again."""

    def on_result(self, delivery: Delivery, left: tuple[str, ...]) -> None:
        """This is what became of an errand; `left` are the recipients whom another try may reach."""

    def annotate(self, delivery: Delivery) -> Delivery:
        """As somebody is to be told of it who knows of no earlier try, which may have delivered it."""


def deliveries(
    errands: Iterator[SendRequest | float], send: Send, *, retry_for: float, journal: Journal | None
) -> Generator[Delivery, None, None]:
    """One delivery for each errand, once it is settled.

    Args:
        errands: by index, each once; a number stands for nothing before that moment (`time.monotonic`).
        send: sends errands, each as often as it comes.
        retry_for: seconds for which a mail that was refused for now, or not sent, is tried again.
        journal: is asked before anything is sent, and told afterwards.
    """
    patience = RetryQueue(errands, retry_for)
    sending = send(iter(patience) if journal is None else journal.admit(iter(patience)))
    if journal is not None:
        journal.wakes(sending.wake)

    def told(delivery: Delivery) -> Delivery:
        return delivery if journal is None else journal.annotate(delivery)

    unsettled: Delivery | None = None
    with closing(sending.deliveries()) as found:
        try:
            for delivery in found:
                unsettled = delivery
                left = patience.left(delivery)
                if journal is not None:
                    journal.on_result(delivery, left)
                final = patience.settle(delivery, left)
                ready = None if final is None else told(final)
                # Signal handlers run after calls: with none from here to the consumer, no exception comes between.
                unsettled = None
                if ready is not None:
                    yield ready
        except GeneratorExit:
            raise
        except BaseException as interruption:
            known = [] if unsettled is None else [unsettled]
            yield from map(
                told, _interrupted(chain(known, remaining(found, interruption)), patience, journal, interruption)
            )
            raise
    yield from map(told, patience.give_up(_on_their_way(patience, journal)))


def _interrupted(
    known: Iterable[Delivery], patience: RetryQueue, journal: Journal | None, interruption: BaseException
) -> Iterator[Delivery]:
    """The deliveries of a batch that ends here: of mails that were begun, then of those that wait for another turn."""
    lost = patience.lost(lambda: _on_their_way(patience, journal), interruption)
    for delivery in chain(known, lost):
        if journal is not None and delivery.index in journal.in_doubt:
            journal.on_result(delivery, patience.left(delivery))
        patience.forget(delivery)
        yield delivery
    yield from patience.give_up(_on_their_way(patience, journal))


def _on_their_way(patience: RetryQueue, journal: Journal | None) -> Container[int]:
    return patience.out if journal is None else journal.in_doubt
