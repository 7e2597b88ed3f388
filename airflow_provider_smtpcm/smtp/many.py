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
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import ConnectError, MailError, OutcomeUnknownError
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.mail.merge import MergeRenderer
from airflow_provider_smtpcm.mail.render import Rendering, render
from airflow_provider_smtpcm.smtp.background import Background
from airflow_provider_smtpcm.smtp.complete import complete
from airflow_provider_smtpcm.smtp.delivery import Delivery
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
# How long what was begun may take when nobody waits for its delivery any more, if 'Timeout' is not shorter.
_FINISHING = 30.0

OpenSession = Callable[[], "Session"]


@dataclass(slots=True)
class Manners:
    """What was learnt of a server by talking to it, kept from one batch to the next."""

    #: Whether it does what it offers as PIPELINING (RFC 2920).
    pipelining: bool = True


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
        self.pipelining = manners is None or manners.pipelining
        #: Whether nothing more is begun.
        self.closing = False
        self._manners = manners
        self._manager = manager
        self._source = enumerate(mails, first_index)
        self._exhausted = False
        self._source_failed: Exception | None = None
        self._renderer = MergeRenderer()
        self._ready: deque[Outgoing] = deque()
        self._finished: deque[Delivery] = deque()
        self._preparing = 0
        self._seconds_between = 60 / rate_limit if rate_limit else 0.0
        self._next_at = 0.0
        self._open_session = open_session
        self._wanted = self._connections = connections
        self._opening = 0
        self._failed_openings = 0
        self._given_up: MailError | None = None
        self._lent = session
        self._lanes: dict[int, Lane] = {}
        self._poll = select.poll()
        self._background: Background[Callable[[], None] | Session] = Background(_close)
        self._poll.register(self._background, select.POLLIN)

    # --- What a lane asks of its traffic

    def next_outgoing(self) -> Outgoing | None:
        """A mail that is ready to be sent, if there is one."""
        return self._ready.popleft() if self._ready else None

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
        try:
            if self._lent is not None and self._lent.usable:
                self._add(self._lent)
            while True:
                self._prepare_some()
                self._open_some()
                if self._ready:
                    self._feed()
                while finished:
                    yield finished.popleft()
                if self._done:
                    break
                self._wait(self._patience())
        except GeneratorExit:
            self._finish_what_was_begun()
            raise
        except BaseException as interruption:
            handed_over = [lane.handed_over for lane in self._lanes.values()]
            self._abandon_all()
            if not isinstance(interruption, KeyboardInterrupt | SystemExit):
                # Whoever set the time limit would retry, and these mails may have been delivered.
                _raise_unknown([flying for flying in handed_over if flying is not None], interruption)
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
        if self._ready and any(lane.hungry for lane in self._lanes.values()):
            return 0.0
        moment = min((lane.deadline for lane in self._lanes.values()), default=math.inf)
        if not self._exhausted and len(self._ready) + self._preparing < self._wanted:
            moment = min(moment, self._next_at)
        return moment if moment == math.inf else max(0.0, moment - time.monotonic())

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
        for number, lane in list(self._lanes.items()):
            if lane.hungry and self._ready:
                lane.speak()
                self._after(number, lane)

    # --- Mails

    def _prepare_some(self) -> None:
        if self._exhausted or len(self._ready) + self._preparing >= self._wanted:
            return
        now = time.monotonic()
        until = now + _PREPARING
        while len(self._ready) + self._preparing < self._wanted and now < until:
            if self._seconds_between:
                if now < self._next_at:
                    return
                self._next_at = max(now, self._next_at + self._seconds_between)
            try:
                item = next(self._source, None)
            except Exception as error:  # noqa: BLE001 - the consumer hears of it once the mails before it are settled
                self._source_failed, item = error, None
            if item is None:
                self._exhausted = True
                return
            self._prepare(*item)
            now = time.monotonic()

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
            if rendering.size <= _HELD_READY:
                outgoing.message = b"".join((*dot_stuffed(rendering), FINAL_DOT))
        except MailError as error:
            self.delivered(not_prepared(index, mail, error))
            return
        self._ready.append(outgoing)

    def _prepared_afar(self, index: int, mail: Mail) -> Callable[[], None]:
        """Measure files that may take long to answer; in a thread."""
        rendering: Rendering | MailError
        try:
            rendering = render(mail)
        except MailError as error:
            rendering = error

        def arrived() -> None:
            self._preparing -= 1
            if isinstance(rendering, MailError):
                self.delivered(not_prepared(index, mail, rendering))
            else:
                self._ready.append(Outgoing(index, mail, rendering, self._manager))

        return arrived

    # --- Sessions

    def _open_some(self) -> None:
        if self._open_session is None:
            if not self._lanes and self._given_up is None:
                self._give_up(ConnectError("The session is closed.", remedy="Open another one."))
            return
        hungry = sum(lane.hungry for lane in self._lanes.values())
        while len(self._ready) > hungry + self._opening and len(self._lanes) + self._opening < self._connections:
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
        if self._manners is not None:
            self._manners.pipelining = self.pipelining
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


def _raise_unknown(handed_over: list[Transaction], interruption: BaseException) -> None:
    if not handed_over:
        return
    errors = [flying.interrupted(interruption) for flying in handed_over]
    if len(errors) == 1:
        raise errors[0] from interruption
    raise OutcomeUnknownError(
        "\n".join([f"{len(errors)} mails were handed over without an answer:", *(f"  - {e.message}" for e in errors)]),
        remedy=errors[0].remedy,
    ) from interruption
