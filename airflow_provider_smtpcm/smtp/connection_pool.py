"""The batch sender: sends many mails over several sessions, and yields exactly one delivery per mail.

An event loop in the caller's thread serves all sessions through `poll`; other threads open further sessions and read
remote files. Memory does not grow with the number of mails.
"""

from __future__ import annotations

import contextlib
import logging
import math
import select
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import ConnectError, MailError
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.smtp.background_tasks import BackgroundTasks
from airflow_provider_smtpcm.smtp.cancellation import CancellationToken, interruption_error
from airflow_provider_smtpcm.smtp.outcome import Delivery
from airflow_provider_smtpcm.smtp.pipelining import PipelinedSession
from airflow_provider_smtpcm.smtp.queue import OnResult, OutgoingMail, PrefetchQueue, SendRequest
from airflow_provider_smtpcm.smtp.throttling import ConnectBackoff, RateController, ServerProfile, is_throttled

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail.mime_message import MessageLike
    from airflow_provider_smtpcm.smtp.failover import Failover, Server
    from airflow_provider_smtpcm.smtp.session import Session

log = logging.getLogger(__name__)

# Maximum seconds for in-flight mails after the consumer closes the generator, if 'Timeout' is not shorter.
_DRAIN_SECONDS = 30.0
# After this many seconds of throttling without an accepted mail, the batch fails; see `_on_throttled`.
_MAX_THROTTLED_SECONDS = 60.0
# Minimum seconds between checks of the deadlines while `poll` always returns events.
_DEADLINE_INTERVAL = 0.05
# Maximum seconds for `poll`, which takes milliseconds as a C int.
_MAX_POLL_SECONDS = 2_000_000.0
# Seconds for final replies to in-flight mails after a cancellation; Airflow kills a task five seconds after SIGTERM.
_CANCEL_SECONDS = 3.0
# Seconds for the replies to QUIT, once no mail is in flight.
_CANCEL_QUIT_SECONDS = 0.5


class BatchSender:
    """Sends one batch.

    Args:
        source: mails and messages, or requests with complete mails; consumed lazily, a few ahead of the deliveries. A
            float means that there is none before this time (`time.monotonic`), unless a delivery or a call of `wake`
            comes first. If the source raises, the mails that it returned before are sent first.
        manager: the server, and the defaults for From and Reply-To.
        new_session: returns a session to open. None: only `session` sends.
        connections: maximum number of sessions.
        rate_limit: maximum mails per minute over all sessions; None: no limit.
        profile: what earlier batches learned about the server; None: nothing.
        retry_connect_for: seconds of retrying to connect before the mails fail; 0: three attempts without waits.
        cancellation: cancels the batch; None: it cannot be canceled.
        session: an open session to use, which is left open at the end; None: all sessions are new.
        failover: the servers of the new sessions, to return to a better one once it is up again; None: there is one.

    Raises:
        ValueError: `connections` or `rate_limit` is not positive.
    """

    def __init__(
        self,
        source: Iterable[Mail | MessageLike | SendRequest | float],
        manager: SmtpConnectionManager,
        new_session: Callable[[], Session] | None,
        *,
        connections: int = 1,
        rate_limit: float | None = None,
        profile: ServerProfile | None = None,
        retry_connect_for: float = 0.0,
        cancellation: CancellationToken | None = None,
        session: Session | None = None,
        failover: Failover | None = None,
    ) -> None:
        if connections < 1:
            raise ValueError(f"connections is {connections}; give a number of at least 1")
        if rate_limit is not None and not rate_limit > 0:
            raise ValueError(f"rate_limit is {rate_limit}; give messages per minute, or None for no limit")
        self.profile = profile or ServerProfile()
        #: Whether no further mail is started.
        self.is_closing = False
        self.queue = PrefetchQueue(
            iter(source),
            manager,
            size=connections,
            run_in_background=self._run_in_background,
            on_delivery=self.on_delivery,
            is_in_memory=isinstance(source, list | tuple),
        )
        self._manager = manager
        self._finished: deque[Delivery] = deque()
        #: The sending rate of the server in use, to which further sessions are opened.
        self.rate = RateController(connections, rate_limit)
        # The servers of the connection, and the rank of the one in use. Each has a rate of its own.
        self._failover = failover
        self._rank = 0
        self._rates = {0: self.rate}
        self._connections, self._rate_limit = connections, rate_limit
        # Whether sessions to a server that was in use before are open. They begin no mail.
        self._has_former_sessions = False
        # A session that tries a better server again.
        self._probe: Session | None = None
        self._new_session = new_session
        # A single connection is opened in this thread, since the batch has nothing else to do meanwhile. A call into
        # the Kerberos library gets a thread nevertheless, since nothing can interrupt it.
        self._opens_here = connections == 1 and not manager.may_use_kerberos
        # How many sessions are being opened in background threads.
        self._opening_count = 0
        self._retry_connect_for = retry_connect_for
        self._connect_backoff = ConnectBackoff(retry_connect_for)
        self._cancellation = cancellation or CancellationToken()
        self._drain_until = math.inf
        self._deadlines_checked_at = 0.0
        #: A session that stays open at the end.
        self.given_session = session
        # Other sessions to close at the end: one that is being opened here, or whose QUIT was sent with its last mail.
        self._to_close: list[Session] = []
        self._sessions: dict[int, PipelinedSession] = {}
        self._poll = select.poll()
        self._background: BackgroundTasks[OnResult | Session]  # set by `deliveries`
        # The ledger's thread may call `wake` before `deliveries` starts, which then checks everything first.
        self._wake: Callable[[], None] = lambda: None

    # --- For the sessions

    def claim_turn(self, rate: RateController, *, is_pipelined: bool) -> bool:
        """Return whether a session may take the next mail from the queue and begin it.

        Args:
            rate: the rate of the session's server.
            is_pipelined: whether it would be sent before the final reply to the session's previous mail.
        """
        if not self.queue.ready or not rate.is_due() or (is_pipelined and not self._has_surplus_mails()):
            return False
        if rate is not self.rate:
            return False
        rate.on_begin()
        return True

    def requeue(self, outgoing: OutgoingMail, *, accepting: RateController | None = None) -> None:
        """Put a mail back at the front of the queue, for its pending recipients.

        Args:
            outgoing: the mail.
            accepting: the rate of the server, if it has just accepted the mail for other recipients.
        """
        if accepting is not None:
            accepting.on_accepted()
        if self.is_closing:
            self.on_delivery(outgoing.not_sent(self._cancellation.error()))
        else:
            self.queue.ready.appendleft(outgoing)

    def on_delivery(self, delivery: Delivery, rate: RateController | None = None) -> None:
        """Queue a delivery for the consumer, and adapt the rate of its server; None: that of the server in use."""
        self._finished.append(delivery)
        rate = rate or self.rate
        if delivery.error is None or delivery.was_accepted:
            rate.on_accepted()
        if delivery.error is not None and is_throttled(delivery):
            self._on_throttled(delivery, rate)

    def on_quit(self, session: Session) -> None:
        """Close a session at the end; QUIT was sent with its last mail."""
        self._to_close.append(session)

    def wake(self) -> None:
        """Make the event loop check the source and remote files again. May be called in any thread."""
        self._wake()

    # --- The event loop

    def deliveries(self) -> Generator[Delivery, None, None]:
        """Send the batch, and yield one delivery per mail, in the order in which they finish.

        If the batch is interrupted (see `cancellation`), the deliveries of all mails taken from the source are yielded
        before the exception is raised again.
        """
        self._background = BackgroundTasks(_discard)
        self._wake = self._cancellation.wake = self._background.wake
        try:
            self._poll.register(self._background, select.POLLIN)
            if self.given_session is not None and self.given_session.is_open:
                self._use_server_of(self.given_session)
                self._add_session(self.given_session)
            while True:
                if self._cancellation.is_canceled:
                    self._cancel()
                else:
                    self._begin_more()
                if self._finished:
                    yield from self._take_finished()
                    self.queue.poll_now()  # a retry may be due, or the journal may admit more
                    if not self._sessions and not self._opening_count and self.queue.poll_at is not None:
                        continue  # no socket has to be served first
                if self._is_done():
                    break
                self._wait(self._seconds_to_wait())
        except GeneratorExit:
            self._finish_in_flight()
            raise
        except BaseException as interruption:
            self._interrupt(interruption)
            yield from self._take_finished()
            raise
        finally:
            self._cancellation.wake = None
            self._close()
        if self.queue.source_error is not None:
            raise self.queue.source_error

    def _take_finished(self) -> Iterator[Delivery]:
        while self._finished:
            # CPython runs signal handlers after calls. These lines contain none, so no handler can lose the delivery.
            delivery = self._finished[0]
            del self._finished[0]
            yield delivery

    def _run_in_background(self, function: Callable[[], OnResult]) -> None:
        self._background.run(function)

    def _begin_more(self) -> None:
        if self._may_poll_source():
            self.queue.fill()
        if self._has_former_sessions or len(self._sessions) > self.rate.connections:
            self._retire_sessions()
        if self._rank:
            self._try_better_server()
        if self.queue.ready:
            if idle := self._sessions_for_mail():
                self._begin_mails(idle)
            if self._session_count + self._opening_count < self.rate.connections:
                self._open_sessions()

    @property
    def _session_count(self) -> int:
        """The number of sessions to the server in use."""
        if not self._has_former_sessions:
            return len(self._sessions)
        return sum(session.rate is self.rate for session in self._sessions.values())

    def _sessions_for_mail(self) -> list[int]:
        """Return the sessions that may begin a mail now."""
        fds = [fd for fd, session in self._sessions.items() if session.wants_mail]
        if not fds or self._has_surplus_mails():
            return fds
        return [fd for fd in fds if not self._sessions[fd].is_busy]

    def _has_surplus_mails(self) -> bool:
        """Return whether there are more ready mails than sessions that are idle or can still be opened.

        Only the surplus is pipelined: a mail gets its final reply sooner on an idle session. Few mails are ready when
        the ledger admits only one mail per connection, as it does for a slow server.
        """
        free = 0 if self._new_session is None else max(0, self.rate.connections - self._session_count)
        for session in self._sessions.values():
            if not session.is_busy:
                free += 1
        return len(self.queue.ready) > free

    def _is_done(self) -> bool:
        if not self.queue.is_done or self._finished:
            return False
        return not any(session.is_busy for session in self._sessions.values())

    def _may_poll_source(self) -> bool:
        """Return whether `next(source)` may be called: a slow source blocks all sessions."""
        return self.queue.is_fast or not any(session.is_sending for session in self._sessions.values())

    def _seconds_to_wait(self) -> float:
        """Return the seconds until the next deadline or the next due mail."""
        wake_at = self._drain_until
        for session in self._sessions.values():
            wake_at = min(wake_at, session.deadline)
        if not self.is_closing:
            poll_at = self.queue.poll_at
            if poll_at is not None and poll_at < wake_at and self._may_poll_source():
                wake_at = poll_at
            wake_at = min(wake_at, self._cancellation.at)
            wake_at = min(wake_at, self._probe_at)
            if self.queue.ready:
                if self._sessions_for_mail():
                    wake_at = min(wake_at, self.rate.next_at)
                elif not self._opening_count and self._session_count < self.rate.connections:
                    wake_at = min(wake_at, max(self.rate.next_at, self._connect_backoff.next_at))
        return wake_at if wake_at == math.inf else max(0.0, wake_at - time.monotonic())

    def _wait(self, seconds: float) -> None:
        """Wait for sockets and background results, and process them; then check the deadlines."""
        # Rounded up, so that a deadline has passed when the wait for it ends.
        events = self._poll.poll(None if seconds == math.inf else math.ceil(min(seconds, _MAX_POLL_SECONDS) * 1000))
        for fd, event in events:
            session = self._sessions.get(fd)
            if session is None:
                self._take_results()
                continue
            if event & ~select.POLLOUT:
                session.receive()
            else:
                session.send()
            if session.is_closed or session.wants_write is not session.polls_write:
                self._update_poll(fd, session)
        now = time.monotonic()
        if not events or now > self._deadlines_checked_at + _DEADLINE_INTERVAL:
            self._deadlines_checked_at = now
            for fd, session in list(self._sessions.items()):
                session.check_deadline(now)
                self._update_poll(fd, session)

    def _update_poll(self, fd: int, session: PipelinedSession) -> None:
        """Update the events that `poll` watches for the session."""
        if session.is_closed:
            self._poll.unregister(fd)
            del self._sessions[fd]
        elif session.wants_write is not session.polls_write:
            session.polls_write = session.wants_write
            self._poll.modify(fd, select.POLLIN | (select.POLLOUT if session.wants_write else 0))

    def _take_results(self) -> None:
        self.queue.poll_now()
        for result in self._background.results():
            if callable(result):
                result()
                continue
            is_probe = result is self._probe
            if is_probe:
                self._probe = None
            else:
                self._opening_count -= 1
            self._on_opened(result, is_probe=is_probe)
        for fd, session in list(self._sessions.items()):
            session.send()  # the next block of its remote file may have been read
            self._update_poll(fd, session)

    def _begin_mails(self, fds: list[int]) -> None:
        """Begin mails on these sessions, if a mail is due."""
        if not self.rate.is_due():
            return
        for fd in fds:
            session = self._sessions[fd]
            if self._new_session is None:
                session.send()
            else:
                session.receive()  # notices first if the server has closed the idle session
            self._update_poll(fd, session)

    def _on_throttled(self, delivery: Delivery, rate: RateController) -> None:
        """Pause; if the server has accepted nothing for too long, fail the remaining mails."""
        # `RetryQueue` retries a throttled mail for twice `retry_for`, too.
        if rate is self.rate and rate.throttled_for > max(2 * self._retry_connect_for, _MAX_THROTTLED_SECONDS):
            self.queue.fail(
                ConnectError(
                    f"The server has accepted no mail for {rate.throttled_for:.0f} seconds, and is throttling "
                    f"this client: '{delivery.reply}'.",
                    remedy="Try again later, or ask its administrator about its limits.",
                    reply=delivery.reply,
                )
            )
            return
        wait = rate.on_throttled()
        if wait is not None:
            log.info(
                "The server accepts no mail for now ('%s'): continuing in %.1f seconds, with at most %d %s.",
                delivery.reply,
                wait,
                rate.connections,
                "connection" if rate.connections == 1 else "connections",
            )

    # --- Sessions

    def _open_sessions(self) -> None:
        """Open the sessions that the ready mails need, if a mail is due."""
        if not self.queue.ready or not self.rate.is_due() or not self._connect_backoff.is_due():
            return
        if self._new_session is None:
            if not self._sessions:
                self.queue.fail(ConnectError("The session is closed.", remedy="Open another one."))
            return
        if self._opens_here:
            if not self._finished:  # first yield what is known: opening may take a long time
                self._open_here(self._new_session)
            return
        due = 1 if self.rate.has_rate else len(self.queue.ready)
        due -= len(self._sessions_for_mail())
        while due > self._opening_count and self._session_count + self._opening_count < self.rate.connections:
            self._opening_count += 1
            self._background.run(self._try_open)

    def _open_here(self, new_session: Callable[[], Session]) -> None:
        """Open a session in this thread. A cancellation interrupts it."""
        try:
            session = new_session()
            self._to_close = [*(one for one in self._to_close if one.is_open), session]
            self._cancellation.wake = session.interrupt
            session.open(give_up_at=self._cancellation.at)
        except Exception as error:  # noqa: BLE001 - raised again by `_on_open_failed`
            if not self._cancellation.is_canceled:
                self._on_open_failed(error)
        else:
            if not self._cancellation.is_canceled:
                self._on_opened(session)
                self._to_close.remove(session)
        finally:
            self._cancellation.wake = self._background.wake

    def _try_open(self) -> Session | OnResult:
        """Open a session; return it, or a callback for the failure. Runs in a background thread.

        Nothing may be able to interrupt it, but several servers must share the time until a cancellation.
        """
        assert self._new_session is not None
        try:
            return self._new_session().open(give_up_at=self._cancellation.at)
        except Exception as error:  # noqa: BLE001 - raised again in the event loop
            problem = error

        def on_result() -> None:
            self._opening_count -= 1
            self._on_open_failed(problem)

        return on_result

    def _on_opened(self, session: Session, *, is_probe: bool = False) -> None:
        try:
            session.check_open()  # it may have waited here while the source made the next mail
        except MailError as error:
            session.abort()
            if self._failover is not None and session.server is not None and session.server.rank < self._rank:
                self._failover.on_closed(session.server, error)
            if not is_probe:
                self._on_open_failed(error)
            return
        reason = self._use_server_of(session)
        if reason is not None:
            self._limit_connections(reason)
            session.send_quit()
            session.abort()
            return
        self._connect_backoff.on_success()
        self._add_session(session)

    def _use_server_of(self, session: Session) -> str | None:
        """Make a new session's server the one in use.

        Returns:
            Why the session is not needed: the better server that was tried before it limits connections, since it has
            turned this one away while others are open. None if the session is to be used.
        """
        server = session.server
        if server is None or server.rank == self._rank:
            return None
        if server.rank > self._rank and self._failover is not None and self._session_count:
            outage = session.passed_over.get(self._rank)
            if outage is not None and outage.may_be_limit:
                self._failover.servers[self._rank].mark_up()
                return outage.error
        next_at = min(self.rate.next_at, time.monotonic() + 60 / (self._rate_limit or math.inf))
        self._rank = server.rank
        if self._rank not in self._rates:
            self._rates[self._rank] = RateController(self._connections, self._rate_limit)
        self.rate = self._rates[self._rank]
        if self._rate_limit:  # the limit is one for all servers
            self.rate.next_at = max(self.rate.next_at, next_at)
        self._has_former_sessions = bool(self._sessions)
        return None

    @property
    def _probe_at(self) -> float:
        """When (`time.monotonic`) to try a better server again; infinity: there is none, or no mail is left for it."""
        if not self._rank or self._failover is None or self._probe is not None or self.queue.is_done:
            return math.inf
        return self._failover.next_probe_at(self._rank)

    def _try_better_server(self) -> None:
        """Try a better server again in a background thread, if one may be up, while mail is sent through this one."""
        if self._failover is None or self._new_session is None or time.monotonic() < self._probe_at:
            return
        server = self._failover.claim_probe(self._rank)
        if server is not None:
            self._probe = session = self._new_session()
            self._background.run(lambda: self._try_probe(session, server))

    def _try_probe(self, session: Session, server: Server) -> Session | OnResult:
        """Open a session to a better server; return it, or a callback for the failure. Runs in a background thread."""
        if session.open_to(server):
            return session

        def on_result() -> None:
            self._probe = None

        return on_result

    def _on_open_failed(self, problem: Exception) -> None:
        if not isinstance(problem, MailError):
            raise problem
        if self._session_count or self._opening_count:
            self._limit_connections(problem)
        elif self._connect_backoff.on_failure(problem):
            self.queue.fail(problem)
        elif self._connect_backoff.is_immediate and self.queue.ready:
            self.on_delivery(self.queue.ready.popleft().not_sent(problem))

    def _limit_connections(self, problem: MailError | str) -> None:
        """Use the open sessions: the server may limit connections. More are tried only after a while."""
        self.rate.limit_connections(self._session_count + self._opening_count)
        noun = "connection" if self.rate.connections == 1 else "connections"
        log.warning("Continuing with %d %s: %s", self.rate.connections, noun, problem)

    def _add_session(self, opened: Session) -> None:
        session = PipelinedSession(opened, self, can_requeue=self._new_session is not None)
        fd = session.fileno()
        self._sessions[fd] = session
        self._poll.register(fd, select.POLLIN)
        session.send()
        self._update_poll(fd, session)

    def _retire_sessions(self) -> None:
        """Close idle sessions to a former server, and others until no more than the allowed number are open."""
        for fd, session in list(self._sessions.items()):
            is_surplus = session.rate is not self.rate or self._session_count > self.rate.connections
            if is_surplus and not session.is_busy and session.session is not self.given_session:
                session.retire()
                self._update_poll(fd, session)
        self._has_former_sessions = self._session_count < len(self._sessions)

    # --- Shutdown

    def _cancel(self) -> None:
        """Begin no further mail, end uncommitted ones, and wait up to 3 s for the final replies to the others."""
        now = time.monotonic()
        if not self.is_closing:
            self.is_closing = True
            self._drain_until = now + _CANCEL_SECONDS
            self.queue.close(self._cancellation.error())
        for fd, session in list(self._sessions.items()):
            session.drain(self._cancellation.error(), is_out_of_time=now >= self._drain_until)
            self._update_poll(fd, session)

    def _finish_in_flight(self) -> None:
        """Finish the messages being sent and wait for their final replies, after the consumer closed the generator."""
        self.is_closing = True
        deadline = time.monotonic() + min(self._manager.timeout, _DRAIN_SECONDS)
        while (remaining := deadline - time.monotonic()) > 0:
            for fd, session in list(self._sessions.items()):
                if session.is_busy and not session.is_past_envelope:
                    session.abort()
                    self._update_poll(fd, session)
            if not any(session.is_busy for session in self._sessions.values()):
                return
            self._wait(min(remaining, self._seconds_to_wait()))

    def _interrupt(self, interruption: BaseException) -> None:
        """Queue the delivery of each mail taken from the source, and close the sockets.

        The interruption may have come between any two steps, so a mail can be in two places; the first has the most
        recent state.
        """
        sessions = list(self._sessions.items())
        known = {delivery.index for delivery in self._finished}
        error = interruption_error(interruption)
        for delivery in [
            *(delivery for _, session in sessions for delivery in session.interrupt(interruption)),
            *self.queue.not_sent(error),
        ]:
            if delivery.index not in known:
                known.add(delivery.index)
                self._finished.append(delivery)
        for fd, session in sessions:
            session.abort()
            self._update_poll(fd, session)

    def _close(self) -> None:
        """Send QUIT on all connections, then wait for all replies together."""
        opened = [result for result in self._background.close() if not callable(result)] + self._to_close
        opened += [one.session for one in self._sessions.values()]
        opened = [session for session in opened if session is not self.given_session]
        for one in list(self._sessions.values()):
            if one.is_busy:
                one.abort()
        for session in opened:
            if self._cancellation.is_canceled and session.is_open:
                session.transport.give_up_at = time.monotonic() + _CANCEL_QUIT_SECONDS
            session.send_quit()
        for session in opened:
            session.close()


def _discard(result: OnResult | Session) -> None:
    """Close a session that was opened after the end of the batch."""
    if not callable(result):
        with contextlib.suppress(MailError):
            result.close()
