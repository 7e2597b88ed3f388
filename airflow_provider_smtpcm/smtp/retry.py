"""The retry queue: sends requests again after transient failures, for a limited time. No sockets.

Mail that reached no one (a 4yz reply, RFC 5321 4.2.1; a connection that broke before the final dot) is retried with
exponential backoff, with jitter so that many tasks do not retry in step. If some recipients already have it, only the
rest get it. Mail that may have been delivered is never retried.
"""

from __future__ import annotations

import heapq
import logging
import math
import time
from collections.abc import Callable, Container, Generator, Iterable, Iterator
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from airflow_provider_smtpcm.errors import OutcomeUnknownError, Phase, StoppedError
from airflow_provider_smtpcm.smtp.cancellation import describe_interruption, drain_deliveries
from airflow_provider_smtpcm.smtp.outcome import Delivery, Outcome, format_addresses
from airflow_provider_smtpcm.smtp.queue import SendRequest
from airflow_provider_smtpcm.smtp.throttling import backoff, is_throttled

if TYPE_CHECKING:
    from airflow_provider_smtpcm.smtp.connection_pool import BatchSender

    class Journal(Protocol):
        """A durable record of requests about to be sent, and of their results."""

        @property
        def in_doubt(self) -> Container[int]:
            """The indexes of admitted requests without a result."""

        def admit(self, requests: Iterator[SendRequest | float]) -> Iterator[SendRequest | float]:
            """Yield requests after recording them.

            A float instead of a request means that there is none before this time (`time.monotonic`), unless a delivery
            or a wakeup comes first.
            """

        def set_wakeup(self, wake: Callable[[], None]) -> None:
            """Set the function to call, from any thread, when further requests may be admitted."""

        def on_result(self, delivery: Delivery, pending: tuple[str, ...]) -> None:
            """Record the result of a request; `pending` are the recipients to retry."""

        def annotate(self, delivery: Delivery) -> Delivery:
            """Return the delivery adjusted for earlier attempts of the task."""


log = logging.getLogger(__name__)

# The first and the longest wait of the backoff, in seconds.
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
# The longest time that a throttled mail is retried while the server accepts other mails, as a multiple of `retry_for`.
_THROTTLED_FACTOR = 10
# When this many mails wait for a retry, no further mails are taken from the source.
MAX_WAITING = 1000


class _Entry:
    __slots__ = ("attempts", "delivery", "first_attempt_at", "request")

    def __init__(self, request: SendRequest, first_attempt_at: float) -> None:
        self.request = request
        self.first_attempt_at = first_attempt_at
        self.attempts = 0
        # The result of the last attempt.
        self.delivery: Delivery | None = None


class RetryQueue:
    """Provides the requests of its source, and those to retry, until each has a final delivery.

    Args:
        source: requests with distinct indexes. A float instead of a request means that there is none before
            this time (`time.monotonic`).
        retry_for: seconds after a mail's first attempt during which it may be retried; 0: no retries. Throttled mail
            may be retried for twice as many seconds after the server last accepted any mail, since rate limits are
            usually per minute.
        journal: records requests before they are sent, and their results; None: no record.
    """

    def __init__(
        self, source: Iterator[SendRequest | float], retry_for: float, *, journal: Journal | None = None
    ) -> None:
        self._source = source
        self._retry_for = retry_for
        self._journal = journal
        self._is_exhausted = False
        self._entries: dict[int, _Entry] = {}
        # When the server last accepted a mail.
        self._accepted_at = -math.inf
        # A heap of (when the retry is due, index).
        self._waiting: list[tuple[float, int]] = []
        #: The indexes of requests that were yielded and have no result yet.
        self.in_flight: set[int] = set()

    def __iter__(self) -> Iterator[SendRequest | float]:
        """Yield requests; while there is none to send, the time of the next retry (infinity: no retry is waiting)."""
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

    def admit_requests(self) -> Iterator[SendRequest | float]:
        """Yield the requests that may be sent: with a journal, those that it admits."""
        return iter(self) if self._journal is None else self._journal.admit(iter(self))

    def deliveries(self, sender: BatchSender) -> Generator[Delivery, None, None]:
        """Yield one final delivery for each request of the source.

        Args:
            sender: the batch sender whose source is `admit_requests`.
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
                        final = self._annotate(final)
                    # CPython runs signal handlers after calls. From here to `yield` there is no call, so no signal
                    # handler can lose the delivery.
                    unsettled = None
                    if final is not None:
                        yield final
            except GeneratorExit:
                raise
            except BaseException as interruption:
                known = [] if unsettled is None else [unsettled]
                rest = self._finish_interrupted(chain(known, drain_deliveries(deliveries, interruption)), interruption)
                yield from map(self._annotate, rest)
                raise
        yield from map(self._annotate, self.abandon(self._unresolved))

    @property
    def _next_at(self) -> float:
        """When the next retry is due."""
        return self._waiting[0][0] if self._waiting else math.inf

    def pending_recipients(self, delivery: Delivery) -> tuple[str, ...]:
        """Return the recipients to retry; see the module's `pending_recipients`."""
        return pending_recipients(delivery, self._entries[delivery.index].request)

    def settle(self, delivery: Delivery, pending: tuple[str, ...]) -> Delivery | None:
        """Return the delivery if it is final; None if the mail will be retried for the pending recipients."""
        entry = self._entries[delivery.index]
        self.in_flight.discard(delivery.index)
        entry.attempts += 1
        now = time.monotonic()
        if delivery.was_accepted:
            self._accepted_at = now
        wait = backoff(entry.attempts, FIRST_WAIT, LONGEST_WAIT)
        give_up_at = entry.first_attempt_at + self._retry_for
        if is_throttled(delivery):  # this mail is probably not the cause, unless the throttling lasts a very long time
            last = max(entry.first_attempt_at, self._accepted_at) + 2 * self._retry_for
            give_up_at = min(last, entry.first_attempt_at + _THROTTLED_FACTOR * self._retry_for)
        if not pending or _ends_the_batch(delivery) or now + wait > give_up_at:
            del self._entries[delivery.index]
            return delivery
        retried = set(pending)
        log.info("Retrying mail %d in %.1f seconds: %s", delivery.index, wait, delivery.error)
        entry.request = SendRequest(
            delivery.index,
            entry.request.mail,
            pending,
            delivery.accepted,
            {address: reply for address, reply in delivery.refused.items() if address not in retried},
            is_last=entry.request.is_last,
        )
        entry.delivery = delivery
        heapq.heappush(self._waiting, (now + wait, delivery.index))
        return None

    def forget(self, delivery: Delivery) -> None:
        """Stop tracking a mail, whose delivery is final."""
        self._entries.pop(delivery.index, None)
        self.in_flight.discard(delivery.index)

    def abandon(self, unresolved: Container[int]) -> list[Delivery]:
        """Cancel all retries; return the last deliveries of the mails that were to be retried.

        Args:
            unresolved: the indexes of requests that were sent again and have no result yet; their last delivery is
                outdated.
        """
        self._waiting.clear()
        known = {
            index: entry.delivery
            for index, entry in self._entries.items()
            if entry.delivery is not None and index not in unresolved
        }
        for index in known:
            del self._entries[index]
        return [known[index] for index in sorted(known)]

    @property
    def _unresolved(self) -> Container[int]:
        """The indexes of requests that were passed on for sending and have no result yet."""
        return self.in_flight if self._journal is None else self._journal.in_doubt

    def _annotate(self, delivery: Delivery) -> Delivery:
        return delivery if self._journal is None else self._journal.annotate(delivery)

    def _finish_interrupted(self, known: Iterable[Delivery], interruption: BaseException) -> Iterator[Delivery]:
        """Yield the final deliveries of an interrupted batch: the mails in flight, then those waiting for a retry."""
        for delivery in chain(known, self._unknown_deliveries(interruption)):
            if self._journal is not None and delivery.index in self._journal.in_doubt:
                self._journal.on_result(delivery, self.pending_recipients(delivery))
            self.forget(delivery)
            yield delivery
        yield from self.abandon(self._unresolved)

    def _unknown_deliveries(self, interruption: BaseException) -> Iterator[Delivery]:
        """Yield an unknown outcome for each request in flight that the interruption left without a delivery."""
        unresolved = self._unresolved
        for index, entry in [(index, entry) for index, entry in self._entries.items() if index in unresolved]:
            names, accepted = format_addresses(entry.request.pending), format_addresses(entry.request.accepted)
            error = OutcomeUnknownError(
                f"While this mail was in flight to {names}, {describe_interruption(interruption)}."
                f"{f' It was accepted for {accepted}.' if accepted else ''}",
                remedy=f"Look for its Message-ID and {names} in the server's log before sending it again.",
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
    """Return the recipients to retry: those who failed transiently and cannot have received the mail."""
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
    """Return whether the task is stopping, or the handshake failed, which the batch sender has already retried."""
    error = delivery.error
    if isinstance(error, StoppedError):
        return True
    return error is not None and error.phase in (Phase.CONNECT, Phase.TLS, Phase.AUTH, Phase.SETTINGS)
