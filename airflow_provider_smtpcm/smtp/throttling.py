"""Throttling: how fast a server is sent to, over how many sessions, and what is remembered of it. No sockets."""

from __future__ import annotations

import logging
import math
import random
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import MailError, Phase, Reply

if TYPE_CHECKING:
    from airflow_provider_smtpcm.smtp.delivery import Delivery

log = logging.getLogger(__name__)

#: Failures in a row after which a server that cannot be reached is given up, where there is no time for retries.
MAX_CONNECT_FAILURES = 3
# Seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
# Acceptances for each connection after which one more connection is allowed; it doubles with each complaint.
_RECOVERY, _LONGEST_RECOVERY = 10, 1000
# A server that takes a mail in fewer seconds than these is not held to a rate.
_MIN_LEARNED_INTERVAL = 0.05
# Fewer mails than these show no rate, and limits count by the minute, so that a longer silence is not one of a limit.
_MIN_SAMPLE, _MAX_SILENCE = 3, 60.0
# Every server takes this many recipients in one transaction (RFC 5321 4.5.3.1.8).
_RECIPIENTS_GUARANTEED = 100

# Always about the server, or about all that we send to it (RFC 5321 4.2.3, RFC 4954 6; 432 is Exchange Online's).
_BUSY = (421, 432, 454)
# About one mailbox or about the server: the enhanced code (RFC 3463) tells, else the text.
_AMBIGUOUS = (450, 451, 452)
_MAILBOX_STATUS = re.compile(r"4\.[12]\.|4\.5\.3")
_SYSTEM_STATUS = re.compile(r"4\.3\.|4\.4\.5")
_GREYLISTED = re.compile("gr[ae]y-?list", re.IGNORECASE)
# The texts of Exchange and others for it, whatever the code.
_THROTTLED = re.compile(
    "throttl|submission rate|rate limit|concurrent|too (?:many (?:connections|messages)|fast|busy)|insufficient system",
    re.IGNORECASE,
)


def is_busy(reply: Reply, phase: Phase | None) -> bool:
    """Return whether a server asks for less, rather than refusing this one mail or mailbox.

    Args:
        reply: its reply.
        phase: how far the mail had come; in the envelope most replies are about one recipient.
    """
    if not reply.transient:
        return False
    if reply.code in _BUSY or _THROTTLED.search(reply.text):
        return True
    if reply.code not in _AMBIGUOUS or _GREYLISTED.search(reply.text):
        return False
    if phase is Phase.ENVELOPE:
        return reply.enhanced is not None and _SYSTEM_STATUS.match(reply.enhanced) is not None
    return reply.enhanced is None or _MAILBOX_STATUS.match(reply.enhanced) is None


def is_throttled(delivery: Delivery) -> bool:
    """Return whether a mail was refused for the server's state, or for all that we send, and not for itself."""
    error = delivery.error
    return error is not None and any(is_busy(reply, error.phase) for reply in delivery.replies)


def backoff(failures: int, first: float, longest: float) -> float:
    """Return the seconds to wait after a failure: twice as long each time, with jitter.

    Args:
        failures: in a row, from 1; the exponent is bounded, since a large power of two does not fit into a float.
        first, longest: seconds.
    """
    doubled = first * 2.0 ** min(failures - 1, 32)
    return min(longest, doubled) * random.uniform(0.5, 1)  # noqa: S311 - no secret


class RateController:
    """Decides when the next mail may be begun, and how many connections there may be.

    A server that complains is given a pause, longer each time. One that takes some mails between its complaints has a
    limit (Exchange's MessageRateLimit counts by the minute): mails are then sent one by one at the rate that it was
    found to take, which rises slowly.

    Args:
        connections: at most.
        rate_limit: mails a minute at most; None: no limit.
    """

    def __init__(self, connections: int, rate_limit: float | None) -> None:
        self._max_connections = connections
        #: How many connections there may be now.
        self.connections = connections
        self._min_interval = 60 / rate_limit if rate_limit else 0.0
        # Seconds from the beginning of a mail to that of the next.
        self._interval = self._min_interval
        #: When (`time.monotonic`) the next mail may be begun.
        self.next_at = -math.inf
        self._pause = FIRST_PAUSE
        self._paused_until = -math.inf
        self._accepted_count = 0
        self._recovery = _RECOVERY
        self._busy_since: float | None = None
        # The sample: since when how many mails were accepted; and how often a rate was learned from one.
        self._sample_since: float | None = None
        self._sample_size = 0
        self._rates_learned = 0

    def is_due(self) -> bool:
        """Return whether a mail may be begun."""
        return self.next_at == -math.inf or time.monotonic() >= self.next_at

    @property
    def has_rate(self) -> bool:
        """Whether mails are sent one by one, at a rate."""
        return bool(self._interval)

    @property
    def busy_for(self) -> float:
        """Seconds for which the server has asked for less, and accepted nothing."""
        return 0.0 if self._busy_since is None else time.monotonic() - self._busy_since

    def on_begin(self) -> None:
        """Note that a mail is begun."""
        if self._interval:
            self.next_at = time.monotonic() + self._interval
        if self._sample_since is None:
            self._sample_since = time.monotonic()

    def on_busy(self) -> float | None:
        """Note that the server asks for less.

        Returns:
            Seconds for which nothing is begun; None if it was about mails from before a pause.
        """
        now = time.monotonic()
        self._busy_since = now if self._busy_since is None else self._busy_since
        if now < self._paused_until:
            return None
        wait = self._pause * random.uniform(0.5, 1)  # noqa: S311 - no secret
        self._paused_until = now + wait
        self.next_at = max(self.next_at, self._paused_until)
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)
        self.limit_connections(self.connections // 2)
        return wait

    def limit_connections(self, connections: int) -> None:
        """Allow no more connections than these; one more is tried after a while, longer each time."""
        self.connections = max(1, connections)
        self._accepted_count = 0
        self._recovery = min(_LONGEST_RECOVERY, 2 * self._recovery)

    def on_accepted(self) -> None:
        """Note that the server has accepted a mail."""
        if self._busy_since is not None:
            self._learn_rate(self._busy_since)
        self._sample_size += 1
        if (
            self.connections == self._max_connections
            and self._pause == FIRST_PAUSE
            and self._interval == self._min_interval
        ):
            return
        self._accepted_count += 1
        if self._accepted_count % _RECOVERY == 0:  # a complaint now and then is no reason to pause for longer each time
            self._pause = max(FIRST_PAUSE, self._pause / 2)
        if self._accepted_count >= self._recovery * self.connections:
            self._accepted_count = 0
            self.connections = min(self._max_connections, self.connections + 1)
        self._raise_rate()

    def _learn_rate(self, busy_since: float) -> None:
        """The server accepts mails again: what it accepted since the last such moment, and in how long, is its rate."""
        now = time.monotonic()
        self._busy_since = None
        self._pause = max(FIRST_PAUSE, self._pause / 2)
        if self._sample_size >= _MIN_SAMPLE and self._sample_since is not None:
            silence = min(_MAX_SILENCE, now - busy_since)
            interval = (busy_since - self._sample_since + silence) / self._sample_size
            if interval >= _MIN_LEARNED_INTERVAL and interval > self._min_interval:
                self._interval = interval
                self.next_at = max(self.next_at, now + interval)
                self._pause = max(FIRST_PAUSE, min(self._pause, 2 * interval))
                self._rates_learned += 1
                log.info(
                    "The server was found to take %s mails a minute; mails are sent at this rate.",
                    f"{round(60 / interval, 2):g}",
                )
        self._sample_since, self._sample_size = now, 0

    def _raise_rate(self) -> None:
        """Raise the rate a little: the server may take more by now; more slowly if it has complained repeatedly."""
        interval = self._interval * (1 - 1 / (_RECOVERY * 2 ** min(self._rates_learned, 4)))
        is_rate = interval >= _MIN_LEARNED_INTERVAL and interval > self._min_interval
        self._interval = interval if is_rate else self._min_interval


class ConnectBackoff:
    """Decides when a server that cannot be reached is tried again, and when it is given up.

    Args:
        retry_for: seconds for which it is tried again, from the first failure in a row; 0: it is tried three times in
            all, without a wait.
    """

    def __init__(self, retry_for: float) -> None:
        self._retry_for = retry_for
        self._failures = 0
        self._first_failure_at = 0.0
        #: When (`time.monotonic`) it is tried again.
        self.next_at = -math.inf

    @property
    def is_immediate(self) -> bool:
        """Whether it is tried again without a wait, at the cost of one mail for each failure."""
        return not self._retry_for

    def is_due(self) -> bool:
        """Return whether it may be tried."""
        return self.next_at == -math.inf or time.monotonic() >= self.next_at

    def on_success(self) -> None:
        """Note that it was reached."""
        self._failures = 0
        self.next_at = -math.inf

    def on_failure(self, error: MailError) -> bool:
        """Note that it was not reached; return whether it is given up."""
        now = time.monotonic()
        self._first_failure_at = self._first_failure_at if self._failures else now
        self._failures += 1
        if not error.retryable:
            return True
        if self.is_immediate:
            return self._failures >= MAX_CONNECT_FAILURES
        wait = backoff(self._failures, FIRST_PAUSE, LONGEST_PAUSE)
        if now + wait - self._first_failure_at > self._retry_for:
            return True
        log.info("The server is tried again in %.1f seconds: %s", wait, error)
        self.next_at = now + wait
        return False


@dataclass(slots=True)
class ServerProfile:
    """What was learned of a server, kept from one batch to the next."""

    #: Whether commands are sent in groups where it offers PIPELINING (RFC 2920).
    pipelining: bool = True
    #: Whether that has worked: an envelope that was sent right behind a message had its replies.
    pipelining_works: bool = False
    #: Recipients that it takes in one transaction, where it was found to have a limit; None: no limit was met.
    recipient_limit: int | None = None
    #: Recipients that are asked for in one group. At first two groups are a little more than what Postfix takes, so
    #: that few are too many; once it has taken more at once, as many.
    recipients_at_once: int = 550
    # A limit that was met once and is not trusted yet.
    _unconfirmed_limit: int | None = None

    def on_limit(self, asked: int) -> bool:
        """Note that it refused further recipients of a transaction as too many; return whether the limit is new.

        Below what every server has to take it may also be the rest of a quota, so it is a limit once it is met twice in
        a row; else each mail of a long batch would be sent to one recipient at a time.

        Args:
            asked: recipients that it had taken or refused before.
        """
        is_confirmed = asked >= _RECIPIENTS_GUARANTEED or asked == self._unconfirmed_limit
        self._unconfirmed_limit = asked
        if not is_confirmed or (self.recipient_limit is not None and self.recipient_limit <= asked):
            return False
        self.recipient_limit = asked
        return True

    def on_accepted(self, recipients: int) -> None:
        """Note for how many recipients it accepted a mail at once."""
        self.recipients_at_once = max(self.recipients_at_once, recipients)
