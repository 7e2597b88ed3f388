"""How fast a server is sent to, and asked for sessions: slower when it says that it is busy, then faster again."""

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

# A server that cannot be reached so many times in a row, where nobody waits for it, is not asked again.
OPENINGS_BEFORE_GIVING_UP = 3
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
# So many acceptances for each connection, then there may be one connection more.
_RECOVERY, _LONGEST_RECOVERY = 10, 1000
# A server that takes a mail in fewer seconds than these is not sent to by the clock.
_WORTH_LEARNING = 0.05
# Fewer mails teach nothing, and limits count by the minute: a longer silence was none.
_TEACHING, _LONGEST_WINDOW = 3, 60.0
# Always about the server, or about all that we send to it (RFC 5321 4.2.3, RFC 4954 6; 432 is Exchange Online's).
_BUSY = (421, 432, 454)
# About one mailbox or about the server: the enhanced code (RFC 3463) tells, else the words.
_PERHAPS_BUSY = (450, 451, 452)
_OF_THE_MAILBOX = re.compile(r"4\.[12]\.|4\.5\.3")
_OF_THE_SYSTEM = re.compile(r"4\.3\.|4\.4\.5")
_GREYLISTED = re.compile("gr[ae]y-?list", re.IGNORECASE)
# Exchange's and others' words for it, whatever the code.
_THROTTLED = re.compile(
    "throttl|submission rate|rate limit|concurrent|too (?:many (?:connections|messages)|fast|busy)|insufficient system",
    re.IGNORECASE,
)


def is_busy(reply: Reply, phase: Phase | None) -> bool:
    """Whether a server asks for less, rather than refusing this one mail or mailbox.

    Args:
        reply: what it said.
        phase: how far the mail had come; in the envelope most of what is said is about one recipient.
    """
    if not reply.transient:
        return False
    if reply.code in _BUSY or _THROTTLED.search(reply.text):
        return True
    if reply.code not in _PERHAPS_BUSY or _GREYLISTED.search(reply.text):
        return False
    if phase is Phase.ENVELOPE:
        return reply.enhanced is not None and _OF_THE_SYSTEM.match(reply.enhanced) is not None
    return reply.enhanced is None or _OF_THE_MAILBOX.match(reply.enhanced) is None


def asks_for_less(delivery: Delivery) -> bool:
    """Whether it was the server's state, or all that we send, on account of which a mail was not taken."""
    error = delivery.error
    return error is not None and any(is_busy(reply, error.phase) for reply in delivery.replies)


def was_taken(delivery: Delivery) -> bool:
    """Whether the server took the mail this time, if not for everybody."""
    return delivery.outcome in ("accepted", "partial") and delivery.reply is not None and delivery.reply.positive


def growing_wait(failures: int, first: float, longest: float) -> float:
    """Seconds to wait after so many failures in a row: twice as long each time, with jitter.

    Args:
        failures: from 1; after enough of them a power of two would no longer fit into a number.
        first, longest: seconds.
    """
    doubled = first * 2.0 ** min(failures - 1, 32)
    return min(longest, doubled) * random.uniform(0.5, 1)  # noqa: S311 - no secret


class RateController:
    """When the next mail may be begun, and how many connections there may be.

    A server that complains is given a pause, longer each time. One that takes some mails between its complaints has a
    limit (Exchange's MessageRateLimit counts by the minute): what it was found to take is then sent, mail by mail, and
    slowly more.

    Args:
        connections: at the most.
        rate_limit: mails a minute at the most; None: any number.
    """

    def __init__(self, connections: int, rate_limit: float | None) -> None:
        self._most = connections
        #: How many connections there may be now.
        self.connections = connections
        self._rate_limit = 60 / rate_limit if rate_limit else 0.0
        # Seconds from the beginning of a mail to that of the next.
        self._between = self._rate_limit
        self._next_at = -math.inf
        self._pause = FIRST_PAUSE
        self._paused_until = -math.inf
        self._accepted = 0
        self._needed = _RECOVERY
        self._busy_since: float | None = None
        # Since when how many mails were taken, and how often that has taught us something.
        self._counted_since: float | None = None
        self._counted = 0
        self._lessons = 0

    def due(self) -> bool:
        """Whether a mail may be begun."""
        return self._next_at == -math.inf or time.monotonic() >= self._next_at

    @property
    def limited(self) -> bool:
        """Whether there is a rate that mails are held to, one by one."""
        return bool(self._between)

    @property
    def next_at(self) -> float:
        """When (`time.monotonic`) the next mail may be begun."""
        return self._next_at

    @property
    def busy_for(self) -> float:
        """Seconds for which the server has asked for less, and taken nothing."""
        return 0.0 if self._busy_since is None else time.monotonic() - self._busy_since

    def begun(self) -> None:
        """A mail is begun."""
        if self._between:
            self._next_at = time.monotonic() + self._between
        if self._counted_since is None:
            self._counted_since = time.monotonic()

    def busy(self) -> float | None:
        """The server asks for less: seconds for which nothing is begun; None: it was about what went before a pause."""
        now = time.monotonic()
        self._busy_since = now if self._busy_since is None else self._busy_since
        if now < self._paused_until:
            return None
        wait = self._pause * random.uniform(0.5, 1)  # noqa: S311 - no secret
        self._paused_until = now + wait
        self._next_at = max(self._next_at, self._paused_until)
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)
        self.fewer(self.connections // 2)
        return wait

    def fewer(self, connections: int) -> None:
        """The server does not let us have more than these; it is asked for more each time after a longer while."""
        self.connections = max(1, connections)
        self._accepted = 0
        self._needed = min(_LONGEST_RECOVERY, 2 * self._needed)

    def accepted(self) -> None:
        """The server has taken a mail."""
        if self._busy_since is not None:
            self._learn(self._busy_since)
        self._counted += 1
        if self.connections == self._most and self._pause == FIRST_PAUSE and self._between == self._rate_limit:
            return
        self._accepted += 1
        if self._accepted % _RECOVERY == 0:  # a complaint now and then is no reason to pause for longer each time
            self._pause = max(FIRST_PAUSE, self._pause / 2)
        if self._accepted >= self._needed * self.connections:
            self._accepted = 0
            self.connections = min(self._most, self.connections + 1)
        self._quicken()

    def _learn(self, busy_since: float) -> None:
        """It takes mails again: what it took from the time before to this one, in how long, is what it can take."""
        now = time.monotonic()
        self._busy_since = None
        self._pause = max(FIRST_PAUSE, self._pause / 2)
        if self._counted >= _TEACHING and self._counted_since is not None:
            silence = min(_LONGEST_WINDOW, now - busy_since)
            found = (busy_since - self._counted_since + silence) / self._counted
            if found >= _WORTH_LEARNING and found > self._rate_limit:
                self._between = found
                self._next_at = max(self._next_at, now + found)
                self._pause = max(FIRST_PAUSE, min(self._pause, 2 * found))
                self._lessons += 1
                log.info(
                    "The server was found to take %s mails a minute; it is sent so many.", f"{round(60 / found, 2):g}"
                )
        self._counted_since, self._counted = now, 0

    def _quicken(self) -> None:
        """Perhaps it takes more by now; one that has complained again and again is asked for it more slowly."""
        between = self._between * (1 - 1 / (_RECOVERY * 2 ** min(self._lessons, 4)))
        self._between = between if between >= _WORTH_LEARNING and between > self._rate_limit else self._rate_limit


class Openings:
    """What is done about a server that cannot be reached.

    Args:
        seconds: for which it is tried again, from the first failure in a row.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._failures = 0
        self._first_at = 0.0
        #: When (`time.monotonic`) it is tried again.
        self.next_at = -math.inf

    @property
    def at_once(self) -> bool:
        """Whether it is tried again without a wait, at the cost of a mail for each try."""
        return not self._seconds

    def due(self) -> bool:
        """Whether it may be tried."""
        return self.next_at == -math.inf or time.monotonic() >= self.next_at

    def succeeded(self) -> None:
        """It was reached."""
        self._failures = 0
        self.next_at = -math.inf

    def failed(self, problem: MailError) -> bool:
        """It was not; whether that is the end."""
        now = time.monotonic()
        self._first_at = self._first_at if self._failures else now
        self._failures += 1
        if not problem.retryable:
            return True
        if self.at_once:
            return self._failures >= OPENINGS_BEFORE_GIVING_UP
        wait = growing_wait(self._failures, FIRST_PAUSE, LONGEST_PAUSE)
        if now + wait - self._first_at > self._seconds:
            return True
        log.info("The server is tried again in %.1f seconds: %s", wait, problem)
        self.next_at = now + wait
        return False


# folded: What was learnt of a server by talking to it, kept from one batch to the next. Knows no server.

#: Every server takes so many recipients in one transaction (RFC 5321 4.5.3.1.8).
RECIPIENTS_ASSUMED = 100


@dataclass(slots=True)
class ServerProfile:
    """How a server behaves."""

    #: Whether it is taken at its word when it offers PIPELINING (RFC 2920).
    pipelining: bool = True
    #: Whether it has kept that word: an envelope on the heels of a message had its answers.
    pipelining_works: bool = False
    #: Recipients that it takes in one transaction, as it was found to have a limit; None: no limit was met.
    recipient_limit: int | None = None
    #: Recipients that are asked for in one group. At first two groups are a little more than what Postfix takes, so
    #: that few are too many; once it has taken more, as many.
    recipients_at_once: int = 550
    # A limit that was met once and is not believed yet.
    _doubtful_limit: int | None = None

    def found_limit(self, asked: int) -> bool:
        """It took so many recipients in a transaction, and said that the next one was too many; whether that is new.

        A number that every server has to take may also be what is left of a quota, so it is a limit once it is met
        twice in a row; else each mail of a long batch would go to one recipient at a time.
        """
        believed = asked >= RECIPIENTS_ASSUMED or asked == self._doubtful_limit
        self._doubtful_limit = asked
        if not believed or (self.recipient_limit is not None and self.recipient_limit <= asked):
            return False
        self.recipient_limit = asked
        return True

    def took(self, recipients: int) -> None:
        """It took a mail for so many."""
        self.recipients_at_once = max(self.recipients_at_once, recipients)
