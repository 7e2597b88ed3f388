"""Many mails over a few sessions: an iterator in, exactly one delivery for each mail out. Knows no Airflow.

One thread serves all sessions by `poll`, so that at line speed nobody waits for anybody's lock; opening a session, and
reading files from afar, happen in threads beside it. Memory does not grow with the number of mails.
"""

from __future__ import annotations

import contextlib
import logging
import math
import select
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import ConnectError, MailError, MessageError, OutcomeUnknownError
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.mail.merge import MergeRenderer
from airflow_provider_smtpcm.mail.render import render
from airflow_provider_smtpcm.smtp.background import Background
from airflow_provider_smtpcm.smtp.complete import complete
from airflow_provider_smtpcm.smtp.delivery import Delivery, Outcome
from airflow_provider_smtpcm.smtp.dot_stuffing import dot_stuffed
from airflow_provider_smtpcm.smtp.lane import FINAL_DOT, Lane
from airflow_provider_smtpcm.smtp.outgoing import Outgoing, not_prepared
from airflow_provider_smtpcm.smtp.transaction import Transaction

if TYPE_CHECKING:
    from airflow_provider_smtpcm.smtp.session import Session

log = logging.getLogger(__name__)

# A server that cannot be reached so many times in a row is not asked again for the mails that remain.
OPENINGS_BEFORE_GIVING_UP = 3
# A message up to so many octets is held ready in one piece while its envelope is on the way.
_HELD_READY = 65536
# Mails are prepared for so many seconds at a time, then the sessions have their turn.
_PREPARING = 0.002
# A source that took longer for one of its last two mails may take very long for the next one. While it is asked nobody
# serves the sessions, and a server that waits for a message gives up.
_QUICK = 0.05
# How long what was begun may take when nobody waits for its delivery any more, if 'Timeout' is not shorter.
_FINISHING = 30.0

_MAY_HAVE_ARRIVED = (Outcome.ACCEPTED, Outcome.PARTIAL, Outcome.UNKNOWN)

OpenSession = Callable[[], "Session"]


@dataclass(slots=True)
class Manners:
    """What was learnt of a server by talking to it, kept from one batch to the next."""

    #: Whether it is taken at its word when it offers PIPELINING (RFC 2920).
    pipelining: bool = True
    #: Whether it has kept that word: an envelope on the heels of a message had its answers.
    pipelining_works: bool = False


def send_many(
    mails: Iterable[Mail],
    manager: SmtpConnectionManager,
    open_session: OpenSession,
    *,
    connections: int = 1,
    rate_limit: float | None = None,
    manners: Manners | None = None,
) -> Generator[Delivery, None, None]:
    """Send every mail, and yield one delivery for each, in the order in which they finish.

    Args:
        mails: taken as they are needed, a few ahead of the deliveries. If it raises, what it gave before is sent first.
        manager: the server, and what a mail lacks.
        open_session: makes an open session, or raises MailError; called in threads.
        connections: how many sessions at the most.
        rate_limit: mails a minute at the most, over all sessions; None: no limit.
        manners: what is known of the server.
    """
    if connections < 1:
        raise ValueError(f"connections is {connections}; give a number from 1")
    if rate_limit is not None and not rate_limit > 0:
        raise ValueError(f"rate_limit is {rate_limit}; give messages per minute, or None for no limit")
    return Mailing(
        mails, manager, open_session, connections=connections, rate_limit=rate_limit, manners=manners
    ).deliveries()


class Mailing:
    """One batch on its way.

    Args:
        mails, manager, open_session, connections, rate_limit, manners: see `send_many`; without `open_session` there is
            no second session.
        session: one that is open already; it stays open afterwards.
        first_index: the number of the first mail.
    """

    def __init__(
        self,
        mails: Iterable[Mail],
        manager: SmtpConnectionManager,
        open_session: OpenSession | None,
        *,
        connections: int = 1,
        rate_limit: float | None = None,
        manners: Manners | None = None,
        session: Session | None = None,
        first_index: int = 0,
    ) -> None:
        self.manners = manners or Manners()
        #: Whether nothing more is begun.
        self.closing = False
        self._manager = manager
        self._source = enumerate(mails, first_index)
        self._quick_in_a_row = 2 if isinstance(mails, Sequence) else 0
        self._exhausted = False
        self._source_failed: Exception | None = None
        self._renderer = MergeRenderer()
        self._binary_renderer = MergeRenderer(binary=True) if manager.binary_mime else None
        self._ready: deque[Outgoing] = deque()
        self._finished: deque[Delivery] = deque()
        self._preparing = 0
        self._seconds_between = 60 / rate_limit if rate_limit else 0.0
        self._next_at = 0.0
        # Whether the mails that are ready wait for that moment alone.
        self._too_early = False
        self._open_session = open_session
        self._wanted = self._connections = connections
        self._opening = 0
        self._failed_openings = 0
        self._given_up: MailError | None = None
        self._lent = session
        self._lanes: dict[int, Lane] = {}
        self._poll = select.poll()
        self._background: Background[Callable[[], None] | Session]  # from the first delivery that is asked for on

    # --- What a lane asks of its traffic

    @property
    def quick(self) -> bool:
        """Whether the source has been quick lately, so that it can be asked while a server waits."""
        return self._quick_in_a_row >= 2

    def next_outgoing(self) -> Outgoing | None:
        """A mail that is ready to be sent, if there is one, and if it may be sent already."""
        if not self._due():
            return None
        if self._seconds_between:
            self._next_at = time.monotonic() + self._seconds_between
        return self._ready.popleft()

    def again(self, outgoing: Outgoing) -> None:
        """This one goes first into whatever lane is free."""
        self._ready.appendleft(outgoing)

    def delivered(self, delivery: Delivery) -> None:
        """This is what became of a mail."""
        self._finished.append(delivery)

    def wake(self) -> None:
        """Look again at what lanes have to say."""
        self._background.ring()

    # --- The loop

    def deliveries(self) -> Generator[Delivery, None, None]:
        """Run the batch."""
        finished = self._finished
        self._background = Background(_close)
        try:
            self._poll.register(self._background, select.POLLIN)
            if self._lent is not None and self._lent.usable:
                self._add(self._lent)
            while True:
                self._prepare_some()
                if self._ready:
                    self._feed()
                    self._open_some()
                while finished:
                    yield finished.popleft()
                if self._done:
                    break
                self._wait(self._patience())
        except GeneratorExit:
            self._finish_what_was_begun()
            raise
        except BaseException as interruption:
            handed_over = [flying for lane in self._lanes.values() if (flying := lane.handed_over) is not None]
            self._abandon_all()
            if not isinstance(interruption, KeyboardInterrupt | SystemExit):
                # Whoever set the time limit would retry, and these mails may have been delivered.
                untold = [delivery for delivery in self._finished if delivery.outcome in _MAY_HAVE_ARRIVED]
                _raise_unknown(handed_over, untold, interruption)
            raise
        finally:
            self._close()
        if self._source_failed is not None:
            raise self._source_failed

    @property
    def _done(self) -> bool:
        if not self._exhausted or self._ready or self._preparing or self._finished:
            return False
        return not any(lane.busy for lane in self._lanes.values())

    def _patience(self) -> float:
        """Seconds until something has to be done whether or not anybody says anything."""
        if self._room() > 0:
            return 0.0
        if self._due() and any(lane.hungry for lane in self._lanes.values()):
            return 0.0
        moment = min((lane.deadline for lane in self._lanes.values()), default=math.inf)
        if self._too_early and self._ready:
            moment = min(moment, self._next_at)
        return moment if moment == math.inf else max(0.0, moment - time.monotonic())

    def _due(self) -> int:
        """How many of the mails that are ready may be begun with now."""
        if not self._seconds_between or not self._ready:
            return len(self._ready)
        return int(time.monotonic() >= self._next_at)

    def _wait(self, seconds: float) -> None:
        """Serve whoever has something to say or to hear; then look whose time has passed."""
        # Rounded up, since a deadline is looked at once it has passed.
        events = self._poll.poll(None if seconds == math.inf else math.ceil(seconds * 1000))
        for number, event in events:
            lane = self._lanes.get(number)
            if lane is None:
                self._take_results()
                continue
            if event & ~select.POLLOUT:
                lane.listen()
            else:
                lane.speak()
            self._after(number, lane)
        if not events or seconds == 0:
            now = time.monotonic()
            for number, lane in list(self._lanes.items()):
                lane.check_deadline(now)
                self._after(number, lane)

    def _after(self, number: int, lane: Lane) -> None:
        """Wait for what the lane now waits for."""
        if lane.dead:
            self._poll.unregister(number)
            del self._lanes[number]
        elif lane.wants_write is not lane.write_awaited:
            lane.write_awaited = lane.wants_write
            self._poll.modify(number, select.POLLIN | (select.POLLOUT if lane.wants_write else 0))

    def _take_results(self) -> None:
        for result in self._background.results():
            if callable(result):
                result()
            else:
                self._opening -= 1
                self._failed_openings = 0
                self._add(result)
        for number, lane in list(self._lanes.items()):
            lane.speak()  # what it was reading may have arrived
            self._after(number, lane)

    def _feed(self) -> None:
        if not self._due():
            return
        for number, lane in list(self._lanes.items()):
            if lane.hungry:
                if self._open_session is None:
                    lane.speak()
                else:
                    lane.listen()  # a server that closed the line while it was idle said so there
                self._after(number, lane)

    # --- Mails

    def _room(self) -> int:
        """How many mails may be asked for now."""
        if self._exhausted or (not self.quick and any(lane.at_work for lane in self._lanes.values())):
            return 0
        return self._wanted - len(self._ready) - self._preparing

    def _prepare_some(self) -> None:
        room = self._room()
        if room <= 0:
            return
        now = time.monotonic()
        until = now + _PREPARING
        for _ in range(room):
            try:
                item = next(self._source, None)
            except Exception as error:  # noqa: BLE001 - the consumer hears of it once the mails before it are settled
                self._source_failed, item = error, None
            if item is None:
                self._exhausted = True
                return
            self._prepare(*item)
            asked, now = now, time.monotonic()
            self._quick_in_a_row = self._quick_in_a_row + 1 if now - asked < _QUICK else 0
            if now > until:
                return

    def _prepare(self, index: int, mail: Mail) -> None:
        if self._given_up is not None:
            self.delivered(not_prepared(index, mail, self._given_up))
            return
        try:
            mail = complete(mail, self._manager)
            if mail.reads_remote_files:
                self._preparing += 1
                self._background.run(lambda: self._prepared_afar(index, mail))
                return
            rendering = self._renderer.render(mail)
            outgoing = Outgoing(index, mail, rendering, self._manager)
            if self._binary_renderer is not None and (mail.attachments or mail.inline_images):
                outgoing.binary = self._binary_renderer.render(mail)
            elif rendering.size <= _HELD_READY:
                outgoing.message = b"".join((*dot_stuffed(rendering), FINAL_DOT))
        except MailError as error:
            self.delivered(not_prepared(index, mail, error))
            return
        self._ready.append(outgoing)

    def _prepared_afar(self, index: int, mail: Mail) -> Callable[[], None]:
        """Measure files that may take long to answer; in a thread."""
        outgoing: Outgoing | MailError
        try:
            outgoing = Outgoing(index, mail, render(mail), self._manager)
            if self._manager.binary_mime:
                outgoing.binary = render(mail, binary=True)
        except MailError as error:
            outgoing = error
        except Exception as error:  # noqa: BLE001 - whatever a storage makes of it
            outgoing = MessageError(f"The message could not be measured: {error!r}.")

        def arrived() -> None:
            self._preparing -= 1
            if isinstance(outgoing, MailError):
                self.delivered(not_prepared(index, mail, outgoing))
            elif self._given_up is not None:
                self.delivered(outgoing.not_sent(self._given_up))
            else:
                self._ready.append(outgoing)

        return arrived

    # --- Sessions

    def _open_some(self) -> None:
        due = self._due()
        self._too_early = bool(self._ready) and not due
        if not due:
            return
        if self._open_session is None:
            if not self._lanes:
                self._give_up(ConnectError("The session is closed.", remedy="Open another one."))
            return
        hungry = sum(lane.hungry for lane in self._lanes.values())
        while due > hungry + self._opening and len(self._lanes) + self._opening < self._connections:
            self._opening += 1
            self._background.run(self._opened)

    def _opened(self) -> Session | Callable[[], None]:
        """A session, or what to do for want of one; in a thread."""
        assert self._open_session is not None
        try:
            return self._open_session()
        except MailError as error:
            problem: Exception = error
        except Exception as error:  # noqa: BLE001 - raised where somebody listens
            problem = error
        return lambda: self._opening_failed(problem)

    def _opening_failed(self, problem: Exception) -> None:
        self._opening -= 1
        if not isinstance(problem, MailError):
            raise problem
        if self._lanes or self._opening:
            # The others go on; a server that is short of connections is not asked for as many again.
            self._connections = max(1, len(self._lanes) + self._opening)
            log.warning("Going on with %d connections: %s", self._connections, problem)
            return
        self._connections = self._wanted
        self._failed_openings += 1
        if not problem.retryable or self._failed_openings >= OPENINGS_BEFORE_GIVING_UP:
            self._give_up(problem)
        elif self._ready:
            self.delivered(self._ready.popleft().not_sent(problem))

    def _give_up(self, error: MailError) -> None:
        self._given_up = error
        while self._ready:
            self.delivered(self._ready.popleft().not_sent(error))

    def _add(self, session: Session) -> None:
        lane = Lane(session, self, keep=self._open_session is not None)
        number = lane.fileno()
        self._lanes[number] = lane
        self._poll.register(number, select.POLLIN)
        lane.speak()
        self._after(number, lane)

    # --- The end

    def _finish_what_was_begun(self) -> None:
        """Nobody waits for deliveries any more; what is being handed over still is, and its answer is heard."""
        self.closing = True
        until = time.monotonic() + min(self._manager.timeout, _FINISHING)
        while (left := until - time.monotonic()) > 0:
            for number, lane in list(self._lanes.items()):
                if lane.busy and not lane.past_the_envelope:
                    lane.abandon()
                    self._after(number, lane)
            if not any(lane.busy for lane in self._lanes.values()):
                return
            self._wait(min(left, self._patience()))

    def _abandon_all(self) -> None:
        for number, lane in list(self._lanes.items()):
            lane.abandon()
            self._after(number, lane)

    def _close(self) -> None:
        """Say good-bye on every line at once, and wait for the answers."""
        self._background.close()
        sessions = [lane.session for lane in self._lanes.values() if lane.session is not self._lent]
        for lane in list(self._lanes.values()):
            if lane.busy:
                lane.abandon()
        for session in sessions:
            session.say_quit()
        for session in sessions:
            session.close()


def _close(result: Callable[[], None] | Session) -> None:
    if not callable(result):
        with contextlib.suppress(MailError):
            result.close()


def _raise_unknown(handed_over: list[Transaction], untold: list[Delivery], interruption: BaseException) -> None:
    errors = [flying.interrupted(interruption) for flying in handed_over]
    errors += [_never_told(delivery, interruption) for delivery in untold]
    if not errors:
        return
    if len(errors) == 1:
        raise errors[0] from interruption
    raise OutcomeUnknownError(
        "\n".join([f"{len(errors)} mails were handed over without an answer:", *(f"  - {e.message}" for e in errors)]),
        remedy=errors[0].remedy,
    ) from interruption


def _never_told(delivery: Delivery, interruption: BaseException) -> MailError:
    return OutcomeUnknownError(
        f"{delivery.message_id} was handed over (it is {delivery.outcome}), and the task was interrupted "
        f"({type(interruption).__name__}) before it could be told so.",
        remedy="Do not send it again.",
    )
