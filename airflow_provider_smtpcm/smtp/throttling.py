"""Throttling: the sending rate, the number of sessions, the backoff, and a profile of the server. No sockets."""

from __future__ import annotations

import logging
import math
import random
import re
import time
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import MailError, Phase, RefusedError, Reply

if TYPE_CHECKING:
    from airflow_provider_smtpcm.smtp.outcome import Delivery

log = logging.getLogger(__name__)

#: After this many consecutive failures to connect, the batch fails, if connecting is not retried (`retry_for` is 0).
MAX_CONNECT_FAILURES = 3
# The first and the longest pause of the backoff, in seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
# After `_RECOVERY` accepted mails per connection, another connection is allowed. Each time the server throttles, the
# number is doubled, up to `_LONGEST_RECOVERY`.
_RECOVERY, _LONGEST_RECOVERY = 10, 1000
# The fastest rate that is learned is one mail in this many seconds.
_MIN_LEARNED_INTERVAL = 0.05
# A rate is learned from at least `_MIN_SAMPLE` mails. The time in which the server accepted none counts for at most
# `_MAX_SILENCE` seconds, since limits are per minute.
_MIN_SAMPLE, _MAX_SILENCE = 3, 60.0
# Every server accepts this many recipients per transaction (RFC 5321 4.5.3.1.8).
_RECIPIENTS_GUARANTEED = 100

# Codes that always concern the server or the client (RFC 5321 4.2.3, RFC 4954 6; 432 is Exchange Online's).
_THROTTLING_CODES = (421, 432, 454)
# Codes that concern one mailbox or the server, depending on the enhanced code (RFC 3463) or the text.
_AMBIGUOUS_CODES = (450, 451, 452)
_MAILBOX_STATUS = r"4\.[12]\.|4\.5\.3"
_SYSTEM_STATUS = r"4\.3\.|4\.4\.5"
_GREYLISTED = "(?i)gr[ae]y-?list"
# Texts of Exchange, Exim (`451 Sender rate overlimit`), Postfix (`450 4.7.1 Error: too many recipients from 192.0.2.1`)
# and others, with various codes.
_THROTTLING_TEXT = (
    "(?i)throttl|submission rate|rate (?:over)?limit|concurrent|insufficient system|per session|per connection"
    "|too (?:many (?:connections|messages|recipients from)|much mail|fast|busy)"
)


def is_throttling_reply(reply: Reply, phase: Phase | None, *, is_about_recipient: bool = True) -> bool:
    """Return whether a reply throttles the client, rather than refusing one mail or recipient.

    Args:
        reply: the server's reply.
        phase: how far the mail had got. None: not known.
        is_about_recipient: whether a reply in the envelope is to RCPT; most of these concern only the recipient.
    """
    if not reply.transient:
        return False
    if reply.code in _THROTTLING_CODES or re.search(_THROTTLING_TEXT, reply.text):
        return True
    if reply.code not in _AMBIGUOUS_CODES or re.search(_GREYLISTED, reply.text):
        return False
    if phase is Phase.ENVELOPE and is_about_recipient:
        return reply.enhanced is not None and re.match(_SYSTEM_STATUS, reply.enhanced) is not None
    return reply.enhanced is None or re.match(_MAILBOX_STATUS, reply.enhanced) is None


def is_throttled(delivery: Delivery) -> bool:
    """Return whether a mail was refused because the server throttles the client, or is busy."""
    error = delivery.error
    if error is None:
        return False
    is_about_mail = isinstance(error, RefusedError) and not error.is_about_recipients
    return any(
        is_throttling_reply(reply, error.phase, is_about_recipient=not is_about_mail or reply != delivery.reply)
        for reply in delivery.replies
    )


def backoff(failures: int, first: float, longest: float) -> float:
    """Return the seconds to wait after a failure: exponential, with jitter.

    Args:
        failures: consecutive failures, from 1.
        first: maximum seconds after the first failure.
        longest: maximum seconds.
    """
    doubled = first * 2.0 ** min(failures - 1, 32)  # bounded, since a large power overflows a float
    return min(longest, doubled) * random.uniform(0.5, 1)  # noqa: S311 - no secret


class RateController:
    """Decides when the next mail may be started, and how many connections may be open.

    When the server throttles, sending pauses, longer each time. A server that accepts some mails in between has a rate
    limit (Exchange's MessageRateLimit is per minute): mails are then sent one by one at the rate measured, which is
    raised slowly.

    Args:
        connections: maximum number of connections.
        rate_limit: maximum mails per minute; None: no limit.
    """

    def __init__(self, connections: int, rate_limit: float | None) -> None:
        self._max_connections = connections
        #: The number of connections allowed now.
        self.connections = connections
        self._min_interval = 60 / rate_limit if rate_limit else 0.0
        # Seconds between the beginnings of two mails.
        self._interval = self._min_interval
        #: When (`time.monotonic`) the next mail may be started.
        self.next_at = -math.inf
        self._pause = FIRST_PAUSE
        self._paused_until = -math.inf
        self._accepted_count = 0
        self._recovery = _RECOVERY
        self._throttled_since: float | None = None
        # The sample for the rate: when it began, and the number of mails accepted since.
        self._sample_since: float | None = None
        self._sample_size = 0
        self._rates_learned = 0

    def is_due(self) -> bool:
        """Return whether a mail may be started."""
        return self.next_at == -math.inf or time.monotonic() >= self.next_at

    @property
    def has_rate(self) -> bool:
        """Whether the rate is limited, so that mails are sent one by one."""
        return bool(self._interval)

    @property
    def throttled_for(self) -> float:
        """Seconds since the server began to throttle without accepting a mail; 0 if it does not throttle."""
        return 0.0 if self._throttled_since is None else time.monotonic() - self._throttled_since

    def on_begin(self) -> None:
        """Record that a mail is started."""
        if self._interval:
            self.next_at = time.monotonic() + self._interval
        if self._sample_since is None:
            self._sample_since = time.monotonic()

    def on_throttled(self) -> float | None:
        """Record that the server throttles.

        Returns:
            Seconds until the next mail is started; None if the reply is to a mail that was started before the current
            pause.
        """
        now = time.monotonic()
        self._throttled_since = now if self._throttled_since is None else self._throttled_since
        if now < self._paused_until:
            return None
        wait = self._pause * random.uniform(0.5, 1)  # noqa: S311 - no secret
        self._paused_until = now + wait
        self.next_at = max(self.next_at, self._paused_until)
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)
        self.limit_connections(self.connections // 2)
        return wait

    def limit_connections(self, connections: int) -> None:
        """Reduce the allowed connections; they are raised one by one, after more accepted mails each time."""
        self.connections = max(1, connections)
        self._accepted_count = 0
        self._recovery = min(_LONGEST_RECOVERY, 2 * self._recovery)

    def on_accepted(self) -> None:
        """Record that the server has accepted a mail."""
        if self._throttled_since is not None:
            self._learn_rate(self._throttled_since)
        self._sample_size += 1
        if (
            self.connections == self._max_connections
            and self._pause == FIRST_PAUSE
            and self._interval == self._min_interval
        ):
            return
        self._accepted_count += 1
        if self._accepted_count % _RECOVERY == 0:  # occasional throttling must not lengthen the pause forever
            self._pause = max(FIRST_PAUSE, self._pause / 2)
        if self._accepted_count >= self._recovery * self.connections:
            self._accepted_count = 0
            self.connections = min(self._max_connections, self.connections + 1)
        self._raise_rate()

    def _learn_rate(self, throttled_since: float) -> None:
        """Learn the rate when the server accepts mails again: from the mails accepted since throttling last ended."""
        now = time.monotonic()
        self._throttled_since = None
        self._pause = max(FIRST_PAUSE, self._pause / 2)
        if self._sample_size >= _MIN_SAMPLE and self._sample_since is not None:
            silence = min(_MAX_SILENCE, now - throttled_since)
            interval = (throttled_since - self._sample_since + silence) / self._sample_size
            if interval >= _MIN_LEARNED_INTERVAL and interval > self._min_interval:
                self._interval = interval
                self.next_at = max(self.next_at, now + interval)
                self._pause = max(FIRST_PAUSE, min(self._pause, 2 * interval))
                self._rates_learned += 1
                rate = 60 / interval
                log.info(
                    "The server accepts about %.*f mails a minute; mails are now sent at this rate.",
                    0 if rate >= 10 else 1,
                    rate,
                )
        self._sample_since, self._sample_size = now, 0

    def _raise_rate(self) -> None:
        """Raise the rate slightly, in case the limit was raised; by less with each rate learned."""
        interval = self._interval * (1 - 1 / (_RECOVERY * 2 ** min(self._rates_learned, 4)))
        is_rate = interval >= _MIN_LEARNED_INTERVAL and interval > self._min_interval
        self._interval = interval if is_rate else self._min_interval


class ConnectBackoff:
    """Decides when connecting is retried, and when to stop.

    Args:
        retry_for: seconds of retries after the first of consecutive failures; 0: three attempts in all, without waits.
    """

    def __init__(self, retry_for: float) -> None:
        self._retry_for = retry_for
        self._failures = 0
        self._first_failure_at = 0.0
        #: When (`time.monotonic`) to connect next.
        self.next_at = -math.inf

    @property
    def is_immediate(self) -> bool:
        """Whether retries do not wait; each failure then fails one mail."""
        return not self._retry_for

    def is_due(self) -> bool:
        """Return whether connecting may be tried now."""
        return self.next_at == -math.inf or time.monotonic() >= self.next_at

    def on_success(self) -> None:
        """Record a successful connection."""
        self._failures = 0
        self.next_at = -math.inf

    def on_failure(self, error: MailError) -> bool:
        """Record a failed connection; return whether to stop."""
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
        log.info("Retrying to connect in %.1f seconds: %s", wait, error)
        self.next_at = now + wait
        return False


class ServerProfile:
    """What was learned about a server; shared by the batches of a hook.

    Args:
        pipelining_works, recipient_limit, recipients_at_once: see the attributes.
    """

    def __init__(
        self, *, pipelining_works: bool = False, recipient_limit: int | None = None, recipients_at_once: int = 550
    ) -> None:
        #: Whether to send commands in groups if the server offers PIPELINING (RFC 2920).
        self.pipelining = True
        #: Whether that has worked: the server has replied to an envelope sent before the previous mail's final reply.
        self.pipelining_works = pipelining_works
        #: Maximum recipients per transaction, as learned from refusals; None: none is known.
        self.recipient_limit = recipient_limit
        #: RCPT commands per group; raised to the most recipients accepted at once. Two groups of the initial size
        #: slightly exceed Postfix's limit of 1,000, so that it refuses only a few.
        self.recipients_at_once = recipients_at_once
        # A limit below the guaranteed 100 that was met once.
        self._unconfirmed_limit: int | None = None

    def on_limit(self, recipients: int) -> bool:
        """Record that the server refused further recipients of a transaction; return whether that is a new limit.

        A number below the guaranteed 100 may be the remainder of a quota, so it counts as a limit only when met twice
        in a row; otherwise one exhausted quota would reduce all later transactions to a few recipients.

        Args:
            recipients: recipients accepted or refused for other reasons before.
        """
        is_confirmed = recipients >= _RECIPIENTS_GUARANTEED or recipients == self._unconfirmed_limit
        self._unconfirmed_limit = recipients
        if not is_confirmed or (self.recipient_limit is not None and self.recipient_limit <= recipients):
            return False
        self.recipient_limit = recipients
        return True

    def on_accepted(self, recipients: int) -> None:
        """Record the number of recipients accepted in one transaction."""
        self.recipients_at_once = max(self.recipients_at_once, recipients)
