"""The retry queue: requests that were refused for now, or not sent, are sent again within a time. No sockets.

Mail that reached no one (RFC 5321 4.2.1: 4yz; a server that is down; a connection that broke before the final dot) is
retried after a wait that doubles, with jitter, so that a thousand tasks do not come back in step. If some recipients
already have it, only the rest is asked again. Mail that may have been delivered is never retried here.
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
from typing import TYPE_CHECKING, Protocol

from airflow_provider_smtpcm.errors import OutcomeUnknownError, Phase, StoppedError
from airflow_provider_smtpcm.smtp.cancellation import describe_interruption, drain_deliveries
from airflow_provider_smtpcm.smtp.delivery import Delivery, Outcome
from airflow_provider_smtpcm.smtp.queue import SendRequest
from airflow_provider_smtpcm.smtp.throttling import backoff, is_throttled

if TYPE_CHECKING:
    from airflow_provider_smtpcm.smtp.batch import BatchSender

log = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
# While the server takes other mails, one that it is too busy for is retried for at most ten times `retry_for`.
_THROTTLED_FACTOR = 10
# Mails that may wait for their next attempt before no further ones are begun.
MAX_WAITING = 1000


class Journal(Protocol):
    """A durable record of what is about to be sent, and of what became of it."""

    @property
    def in_doubt(self) -> Container[int]:
        """The indexes of requests that were passed on, and have no result yet."""

    def admit(self, requests: Iterator[SendRequest | float]) -> Iterator[SendRequest | float]:
        """Pass requests on once they are written down.

        A number means that there is none before that moment (`time.monotonic`), unless a delivery comes or the wakeup
        is called.
        """

    def set_wakeup(self, wake: Callable[[], None]) -> None:
        """Set what to call, from any thread, when there may be requests to pass on again."""

    def on_result(self, delivery: Delivery, pending: tuple[str, ...]) -> None:
        """Write down what became of a request; `pending` are the recipients that another attempt may reach."""

    def annotate(self, delivery: Delivery) -> Delivery:
        """Return the delivery adjusted for earlier attempts, which may have delivered the mail."""


@dataclass(slots=True)
class _Entry:
    request: SendRequest
    first_attempt_at: float
    attempts: int = 0
    # Of the last attempt.
    delivery: Delivery | None = None


class RetryQueue:
    """Gives out requests, those of its source and those that are to be retried, until each is settled.

    Args:
        source: each index once; a number means that there is no request before that moment (`time.monotonic`).
        retry_for: seconds from a mail's first attempt within which its last one begins; 0: one attempt. Where the
            server is too busy, twice as long from when it last took a mail, since limits count by the minute.
        journal: asked before anything is sent, and informed afterwards.
    """

    def __init__(
        self, source: Iterator[SendRequest | float], retry_for: float, *, journal: Journal | None = None
    ) -> None:
        self._source = source
        self._retry_for = retry_for
        self._journal = journal
        self._is_exhausted = False
        self._entries: dict[int, _Entry] = {}
        # When the server last took a mail.
        self._accepted_at = -math.inf
        # When the next attempt is due, and the index.
        self._waiting: list[tuple[float, int]] = []
        #: The requests that were given out, and have no result yet.
        self.in_flight: set[int] = set()

    def __iter__(self) -> Iterator[SendRequest | float]:
        """Yield requests, and where there is none just now, the moment from which on there is one; or infinity."""
        while True:
            if self._waiting and self._waiting[0][0] <= time.monotonic():
                index = self._waiting[0][1]
                self.in_flight.add(index)
                heapq.heappop(self._waiting)
                yield self._entries[index].request
            elif not self._is_exhausted and len(self._waiting) < MAX_WAITING:
                request = next(self._source, None)
                if request is None:
                    self._is_exhausted = True
                elif isinstance(request, SendRequest):
                    self._entries[request.index] = _Entry(request, time.monotonic())
                    self.in_flight.add(request.index)
                    yield request
                else:
                    yield min(request, self._next_at)
            elif self._entries:
                yield self._next_at
            else:
                return

    def admitted(self) -> Iterator[SendRequest | float]:
        """Yield the requests that may be sent, once the journal has written them down."""
        return iter(self) if self._journal is None else self._journal.admit(iter(self))

    def deliveries(self, sender: BatchSender) -> Generator[Delivery, None, None]:
        """Yield one delivery for each request of the source, once it is settled.

        Args:
            sender: of the requests that are `admitted`.
        """
        journal = self._journal
        if journal is not None:
            journal.set_wakeup(sender.wake)
        unsettled: Delivery | None = None
        with closing(sender.deliveries()) as deliveries:
            try:
                for delivery in deliveries:
                    unsettled = delivery
                    pending = self.pending_recipients(delivery)
                    if journal is not None:
                        journal.on_result(delivery, pending)
                    final = self.settle(delivery, pending)
                    if final is not None:
                        final = self._annotated(final)
                    # Signal handlers run after calls: with none from here to the consumer, no exception comes between.
                    unsettled = None
                    if final is not None:
                        yield final
            except GeneratorExit:
                raise
            except BaseException as interruption:
                known = [] if unsettled is None else [unsettled]
                rest = self._interrupted(chain(known, drain_deliveries(deliveries, interruption)), interruption)
                yield from map(self._annotated, rest)
                raise
        yield from map(self._annotated, self.abandon(self._undelivered))

    @property
    def _next_at(self) -> float:
        """When the next retry is due."""
        return self._waiting[0][0] if self._waiting else math.inf

    def pending_recipients(self, delivery: Delivery) -> tuple[str, ...]:
        """Return the recipients that another attempt may reach, and cannot reach twice."""
        return pending_recipients(delivery, self._entries[delivery.index].request)

    def settle(self, delivery: Delivery, pending: tuple[str, ...]) -> Delivery | None:
        """Return the delivery if it is final; None if the pending recipients are asked again later."""
        entry = self._entries[delivery.index]
        self.in_flight.discard(delivery.index)
        entry.attempts += 1
        now = time.monotonic()
        if delivery.was_accepted:
            self._accepted_at = now
        wait = backoff(entry.attempts, FIRST_WAIT, LONGEST_WAIT)
        give_up_at = entry.first_attempt_at + self._retry_for
        if is_throttled(delivery):  # which is hardly this mail's fault, unless it goes on and on
            last = max(entry.first_attempt_at, self._accepted_at) + 2 * self._retry_for
            give_up_at = min(last, entry.first_attempt_at + _THROTTLED_FACTOR * self._retry_for)
        if not pending or _ends_the_batch(delivery) or now + wait > give_up_at:
            del self._entries[delivery.index]
            return delivery
        asked_again = set(pending)
        log.info("Mail %d is tried again in %.1f seconds: %s", delivery.index, wait, delivery.error)
        entry.request = SendRequest(
            delivery.index,
            entry.request.mail,
            pending,
            delivery.accepted,
            {address: reply for address, reply in delivery.refused.items() if address not in asked_again},
        )
        entry.delivery = delivery
        heapq.heappush(self._waiting, (now + wait, delivery.index))
        return None

    def forget(self, delivery: Delivery) -> None:
        """Settle a mail with this delivery, whatever `settle` returned for it."""
        self._entries.pop(delivery.index, None)
        self.in_flight.discard(delivery.index)

    def abandon(self, undelivered: Container[int]) -> list[Delivery]:
        """Retry nothing any more; return the last deliveries of mails that were waiting, or not sent again after all.

        Args:
            undelivered: the requests that were sent, and whose deliveries will not come any more.
        """
        self._waiting.clear()
        known = {
            index: entry.delivery
            for index, entry in self._entries.items()
            if entry.delivery is not None and index not in undelivered
        }
        for index in known:
            del self._entries[index]
        return [known[index] for index in sorted(known)]

    @property
    def _undelivered(self) -> Container[int]:
        """The requests that were passed on for sending, and have no delivery."""
        return self.in_flight if self._journal is None else self._journal.in_doubt

    def _annotated(self, delivery: Delivery) -> Delivery:
        return delivery if self._journal is None else self._journal.annotate(delivery)

    def _interrupted(self, known: Iterable[Delivery], interruption: BaseException) -> Iterator[Delivery]:
        """Yield the deliveries of a batch that ends here: mails that were begun, then those that wait for a retry."""
        for delivery in chain(known, self._cut_off(interruption)):
            if self._journal is not None and delivery.index in self._journal.in_doubt:
                self._journal.on_result(delivery, self.pending_recipients(delivery))
            self.forget(delivery)
            yield delivery
        yield from self.abandon(self._undelivered)

    def _cut_off(self, interruption: BaseException) -> Iterator[Delivery]:
        """Yield unknown outcomes for requests that were passed on, and whose delivery the exception cut off."""
        undelivered = self._undelivered
        for index, entry in [(index, entry) for index, entry in self._entries.items() if index in undelivered]:
            error = OutcomeUnknownError(
                f"While this mail was on its way {describe_interruption(interruption)}.",
                remedy="Look for its Message-ID in the server's log.",
            )
            error.__cause__ = interruption
            yield Delivery(
                index=index,
                message_id=entry.request.mail.message_id or "",
                outcome=Outcome.UNKNOWN,
                accepted=entry.request.accepted,
                refused=entry.request.refused,
                error=error,
            )


def pending_recipients(delivery: Delivery, request: SendRequest) -> tuple[str, ...]:
    """Return the recipients that another attempt may reach, and cannot reach twice."""
    if delivery.error is None or delivery.outcome is Outcome.UNKNOWN:
        return ()
    accepted = set(delivery.accepted)
    pending = []
    for address in request.pending:
        if address in accepted:
            continue
        reply = delivery.refused.get(address)
        if delivery.error.retryable if reply is None else reply.transient:
            pending.append(address)
    return tuple(pending)


def _ends_the_batch(delivery: Delivery) -> bool:
    """Whether the server could not be reached or signed in to, which was retried already, or the task was stopped."""
    error = delivery.error
    if isinstance(error, StoppedError):
        return True
    return error is not None and error.phase in (Phase.CONNECT, Phase.TLS, Phase.AUTH, Phase.SETTINGS)
