"""Many mails over a few sessions: errands in, exactly one delivery for each out. Knows no Airflow.

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
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import ConnectError, MailError
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.smtp.cancellation import Stop, not_sent_for
from airflow_provider_smtpcm.smtp.delivery import Delivery, SendRequest, in_order
from airflow_provider_smtpcm.smtp.outgoing import Outgoing
from airflow_provider_smtpcm.smtp.pipelining import Line, PipelinedSession
from airflow_provider_smtpcm.smtp.queue import PrefetchQueue
from airflow_provider_smtpcm.smtp.threads import Background
from airflow_provider_smtpcm.smtp.throttling import Openings, RateController, ServerProfile, asks_for_less, was_taken

log = logging.getLogger(__name__)

# How long what was begun may take when nobody waits for its delivery any more, if 'Timeout' is not shorter.
_FINISHING = 30.0
# A server that says for so many seconds that it is busy, and takes nothing, is left alone.
_ENDURANCE = 60.0
# How often, at least, somebody looks whose time has passed while others have much to say.
_LOOK_AROUND = 0.05
# `poll` takes no more milliseconds than an int holds.
_LONGEST_POLL = 2_000_000.0
# How long answers are waited for when somebody asked to end: Airflow kills a task five seconds after it asked.
_WINDING_UP = 3.0
# How long the answers to the good-byes are then waited for.
_GOOD_BYE = 0.5

OpenSession = Callable[[], Line]


def send_many(
    mails: Iterable[Mail],
    manager: SmtpConnectionManager,
    open_session: OpenSession,
    *,
    connections: int = 1,
    rate_limit: float | None = None,
    manners: ServerProfile | None = None,
) -> Generator[Delivery, None, None]:
    """Send every mail, and yield one delivery for each, in the order in which they finish.

    If an exception from elsewhere (a time limit) breaks in, each mail that was begun has its delivery before that
    exception is raised.

    Args:
        mails: taken as they are needed, a few ahead of the deliveries. If it raises, what it gave before is sent first.
        manager, open_session, connections, rate_limit, manners: see `Mailing`.
    """
    return BatchSender(
        in_order(mails),
        manager,
        open_session,
        connections=connections,
        rate_limit=rate_limit,
        manners=manners,
        at_hand=isinstance(mails, Sequence),
    ).deliveries()


class BatchSender:
    """One batch on its way.

    Args:
        errands: taken as they are needed, a few ahead of the deliveries; a number stands for nothing before that moment
            (`time.monotonic`), unless a delivery comes or `wake` is called. If it raises, what it gave before is sent
            first.
        manager: the server, and what a mail lacks.
        open_session: makes an open session, or raises MailError; called in threads. None: there is no second session.
        connections: how many sessions at the most.
        rate_limit: mails a minute at the most, over all sessions; None: no limit.
        manners: what is known of the server.
        open_for: seconds for which a server that cannot be reached is tried again, before its mails are given up.
        stop: asks to end; see there.
        at_hand: whether errands are there as soon as they are asked for.
        session: one that is open already; it stays open afterwards.
    """

    def __init__(
        self,
        errands: Iterator[SendRequest | float],
        manager: SmtpConnectionManager,
        open_session: OpenSession | None,
        *,
        connections: int = 1,
        rate_limit: float | None = None,
        manners: ServerProfile | None = None,
        open_for: float = 0.0,
        stop: Stop | None = None,
        at_hand: bool = False,
        session: Line | None = None,
    ) -> None:
        if connections < 1:
            raise ValueError(f"connections is {connections}; give a number from 1")
        if rate_limit is not None and not rate_limit > 0:
            raise ValueError(f"rate_limit is {rate_limit}; give messages per minute, or None for no limit")
        self.manners = manners or ServerProfile()
        #: Whether nothing more is begun.
        self.closing = False
        self._manager = manager
        self._supply = PrefetchQueue(
            errands,
            manager,
            ahead=connections,
            in_background=self._run,
            delivered=self.delivered,
            at_hand=at_hand,
        )
        self._finished: deque[Delivery] = deque()
        self._pace = RateController(connections, rate_limit)
        self._open_session = open_session
        self._opening = 0
        self._open_for = open_for
        self._openings = Openings(open_for)
        self._stop = stop or Stop()
        self._end_by = math.inf
        self._looked_at = 0.0
        self._lent = session
        self._lanes: dict[int, PipelinedSession] = {}
        self._poll = select.poll()
        self._background: Background[Callable[[], None] | Line]  # from the first delivery that is asked for on

    # --- What a lane asks of its traffic

    @property
    def quick(self) -> bool:
        """Whether nobody has to wait long for the next mail."""
        return self._supply.quick

    def next_outgoing(self, *, on_heels: bool) -> Outgoing | None:
        """A mail that is ready to be sent, if there is one, and if it may be sent already."""
        if not self._supply.ready or not self._pace.due() or (on_heels and not self._enough_for_all):
            return None
        self._pace.begun()
        return self._supply.ready.popleft()

    def again(self, outgoing: Outgoing, *, taken: bool = False) -> None:
        """This one goes first into whatever lane is free, for those who do not have it."""
        if taken:
            self._pace.accepted()
        if self.closing:
            self.delivered(outgoing.not_sent(self._stop.error()))
        else:
            self._supply.ready.appendleft(outgoing)

    def delivered(self, delivery: Delivery) -> None:
        """This is what became of a mail."""
        self._finished.append(delivery)
        if delivery.error is None or was_taken(delivery):
            self._pace.accepted()
        if delivery.error is not None and asks_for_less(delivery):
            self._asked_for_less(delivery)

    def wake(self) -> None:
        """Look again at what lanes have to say, and ask for errands again."""
        self._background.ring()

    # --- The loop

    def deliveries(self) -> Generator[Delivery, None, None]:
        """Run the batch."""
        self._background = Background(_close)
        self._stop.wake = self._background.ring
        try:
            self._poll.register(self._background, select.POLLIN)
            if self._lent is not None and self._lent.usable:
                self._add(self._lent)
            while True:
                if self._stop.asked:
                    self._wind_up()
                else:
                    self._take_more()
                yield from self._what_finished()
                if self._done:
                    break
                self._wait(self._patience())
        except GeneratorExit:
            self._finish_what_was_begun()
            raise
        except BaseException as interruption:
            self._account_for(interruption)
            yield from self._taken_out()
            raise
        finally:
            self._stop.wake = None
            self._close()
        if self._supply.failure is not None:
            raise self._supply.failure

    def _what_finished(self) -> Iterator[Delivery]:
        if self._finished:
            yield from self._taken_out()
            self._supply.ask_again()  # a mail may have another turn now, or the journal room for more

    def _taken_out(self) -> Iterator[Delivery]:
        while self._finished:
            # Signal handlers run after calls: with none in between, no exception finds a delivery in neither place.
            delivery = self._finished[0]
            del self._finished[0]
            yield delivery

    def _run(self, function: Callable[[], Callable[[], None]]) -> None:
        self._background.run(function)

    def _take_more(self) -> None:
        if self._may_ask:
            self._supply.fill()
        if len(self._lanes) > self._pace.connections:
            self._retire()
        if self._supply.ready:
            if hungry := self._hungry:
                self._feed(hungry)
            if len(self._lanes) + self._opening < self._pace.connections:
                self._open_some()

    @property
    def _hungry(self) -> list[int]:
        """The lanes that could do with a mail, and may have one."""
        enough = self._enough_for_all
        return [number for number, lane in self._lanes.items() if lane.hungry and (enough or not lane.busy)]

    @property
    def _enough_for_all(self) -> bool:
        """Whether more mails are ready than there are sessions that are free, or not open yet.

        The others go on the heels of those before them. Where few mails are ready, each is answered sooner on a session
        of its own: a ledger admits no more of a slow server's mails than there are connections.
        """
        free = sum(not lane.busy for lane in self._lanes.values())
        if self._open_session is not None:
            free += max(0, self._pace.connections - len(self._lanes))
        return len(self._supply.ready) > free

    @property
    def _done(self) -> bool:
        if not self._supply.ended or self._finished:
            return False
        return not any(lane.busy for lane in self._lanes.values())

    @property
    def _may_ask(self) -> bool:
        """Whether there is time to ask for more: while somebody slow is asked, nobody serves the sessions."""
        return self._supply.quick or not any(lane.at_work for lane in self._lanes.values())

    def _patience(self) -> float:
        """Seconds until something has to be done whether or not anybody says anything."""
        moment = min([self._end_by, *[lane.deadline for lane in self._lanes.values()]])
        if not self.closing:
            moment = min(moment, self._stop.at)
            ask_at = self._supply.ask_at
            if ask_at is not None and self._may_ask:
                moment = min(moment, ask_at)
            if self._supply.ready:
                if self._hungry:
                    moment = min(moment, self._pace.next_at)
                elif not self._opening and len(self._lanes) < self._pace.connections:
                    moment = min(moment, max(self._pace.next_at, self._openings.next_at))
        return moment if moment == math.inf else max(0.0, moment - time.monotonic())

    def _wait(self, seconds: float) -> None:
        """Serve whoever has something to say or to hear; then look whose time has passed."""
        # Rounded up, since a deadline is looked at once it has passed.
        events = self._poll.poll(None if seconds == math.inf else math.ceil(min(seconds, _LONGEST_POLL) * 1000))
        for number, event in events:
            lane = self._lanes.get(number)
            if lane is None:
                self._take_results()
                continue
            if event & ~select.POLLOUT:
                lane.listen()
            else:
                lane.speak()
            if lane.dead or lane.wants_write is not lane.write_awaited:
                self._after(number, lane)
        now = time.monotonic()
        if not events or now > self._looked_at + _LOOK_AROUND:
            self._looked_at = now
            for number, lane in list(self._lanes.items()):
                lane.check_deadline(now)
                self._after(number, lane)

    def _after(self, number: int, lane: PipelinedSession) -> None:
        """Wait for what the lane now waits for."""
        if lane.dead:
            self._poll.unregister(number)
            del self._lanes[number]
        elif lane.wants_write is not lane.write_awaited:
            lane.write_awaited = lane.wants_write
            self._poll.modify(number, select.POLLIN | (select.POLLOUT if lane.wants_write else 0))

    def _take_results(self) -> None:
        self._supply.ask_again()
        for result in self._background.results():
            if callable(result):
                result()
            else:
                self._opening -= 1
                self._openings.succeeded()
                self._add(result)
        for number, lane in list(self._lanes.items()):
            lane.speak()  # what it was reading may have arrived
            self._after(number, lane)

    def _feed(self, hungry: list[int]) -> None:
        """Have these lanes ask for a mail, if one may be begun."""
        if not self._pace.due():
            return
        for number in hungry:
            lane = self._lanes[number]
            if self._open_session is None:
                lane.speak()
            else:
                lane.listen()  # a server that closed the line while it was idle said so there
            self._after(number, lane)

    def _asked_for_less(self, delivery: Delivery) -> None:
        """The server is busy: pause, or, where it has taken nothing for long, leave the rest to another try."""
        if self._pace.busy_for > max(2 * self._open_for, _ENDURANCE):  # as long as a mail is tried again for it
            self._supply.give_up(
                ConnectError(
                    f"The server has taken no mail for {self._pace.busy_for:.0f} seconds, and asks for less: "
                    f"'{delivery.reply}'.",
                    remedy="Try again later, or ask its administrator what limits it has.",
                    reply=delivery.reply,
                )
            )
            return
        wait = self._pace.busy()
        if wait is not None:
            log.info(
                "The server asks for less ('%s'): going on in %.1f seconds, with %d connections.",
                delivery.reply,
                wait,
                self._pace.connections,
            )

    # --- Sessions

    def _open_some(self) -> None:
        if not self._supply.ready or not self._pace.due() or not self._openings.due():
            return
        if self._open_session is None:
            if not self._lanes:
                self._supply.give_up(ConnectError("The session is closed.", remedy="Open another one."))
            return
        due = 1 if self._pace.limited else len(self._supply.ready)
        hungry = len(self._hungry)
        while due > hungry + self._opening and len(self._lanes) + self._opening < self._pace.connections:
            self._opening += 1
            self._background.run(self._opened)

    def _opened(self) -> Line | Callable[[], None]:
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
            # The others go on; a server that is short of connections is not asked for as many again for a while.
            self._pace.fewer(len(self._lanes) + self._opening)
            log.warning("Going on with %d connections: %s", self._pace.connections, problem)
        elif self._openings.failed(problem):
            self._supply.give_up(problem)
        elif self._openings.at_once and self._supply.ready:
            self.delivered(self._supply.ready.popleft().not_sent(problem))

    def _add(self, session: Line) -> None:
        lane = PipelinedSession(session, self, keep=self._open_session is not None)
        number = lane.fileno()
        self._lanes[number] = lane
        self._poll.register(number, select.POLLIN)
        lane.speak()
        self._after(number, lane)

    def _retire(self) -> None:
        """Say good-bye on lines that the server is better without."""
        for number, lane in list(self._lanes.items()):
            if len(self._lanes) > self._pace.connections and not lane.busy and lane.session is not self._lent:
                lane.session.say_quit()
                lane.abandon()
                self._after(number, lane)

    # --- The end

    def _wind_up(self) -> None:
        """Somebody asked to end: begin nothing, end what nobody can have, and hear the other answers for a while."""
        now = time.monotonic()
        if not self.closing:
            self.closing = True
            self._end_by = now + _WINDING_UP
            self._supply.cut_off(self._stop.error())
        for number, lane in list(self._lanes.items()):
            lane.wind_up(self._stop.error(), out_of_time=now >= self._end_by)
            self._after(number, lane)

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

    def _account_for(self, interruption: BaseException) -> None:
        """An exception from elsewhere ends the batch: add the delivery of each mail that was begun, and hang up.

        It may have come between any two steps, so a mail can be found in two places; the first one knows most.
        """
        lanes = list(self._lanes.items())
        known = {delivery.index for delivery in self._finished}
        error = not_sent_for(interruption)
        for delivery in [
            *(delivery for _, lane in lanes for delivery in lane.interrupted(interruption)),
            *self._supply.not_sent(error),
        ]:
            if delivery.index not in known:
                known.add(delivery.index)
                self._finished.append(delivery)
        for number, lane in lanes:
            lane.abandon()
            self._after(number, lane)

    def _close(self) -> None:
        """Send QUIT on every connection at once, and wait for the replies, no longer than for one."""
        sessions = [result for result in self._background.close() if not callable(result)]
        sessions += [lane.session for lane in self._lanes.values() if lane.session is not self._lent]
        for lane in list(self._lanes.values()):
            if lane.busy:
                lane.abandon()
        for session in sessions:
            if self._stop.asked and session.usable:
                session.wire.give_up_at = time.monotonic() + _GOOD_BYE
            session.say_quit()
        for session in sessions:
            session.close()


def _close(result: Callable[[], None] | Line) -> None:
    if not callable(result):
        with contextlib.suppress(MailError):
            result.close()
