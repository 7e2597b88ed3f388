"""Many mails over a few sessions: an iterator in, exactly one delivery for each mail out. Knows no Airflow."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator

from airflow_provider_smtpcm.errors import ConnectionLostError, MailError, Phase
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.smtp.delivery import Delivery, Outcome
from airflow_provider_smtpcm.smtp.session import Session

# A server that cannot be reached so many times in a row is not asked again for the mails that remain.
OPENINGS_BEFORE_GIVING_UP = 3

OpenSession = Callable[[], Session]


class Lane:
    """One session at a time, opened when a mail needs it, and again after it broke."""

    def __init__(self, open_session: OpenSession) -> None:
        self._open_session = open_session
        self._session: Session | None = None
        self._failed_openings = 0
        self._given_up: MailError | None = None

    def send(self, index: int, mail: Mail) -> Delivery:
        """Send one mail; an opening that fails is this mail's failure, and a hopeless one that of all that follow."""
        if self._given_up is not None:
            return _not_sent(index, mail, self._given_up)
        if self._session is None or not self._session.usable:
            try:
                self._session = self._open_session()
            except MailError as error:
                self._failed_openings += 1
                if not error.retryable or self._failed_openings >= OPENINGS_BEFORE_GIVING_UP:
                    self._given_up = error
                return _not_sent(index, mail, error)
            self._failed_openings = 0
            return self._session.send(mail, index=index)
        delivery = self._session.send(mail, index=index)
        if _was_closed_while_idle(delivery):
            # Nothing of this mail was said to anybody who still listened.
            self._session.close()
            self._session = None
            return self.send(index, mail)
        return delivery

    def close(self) -> None:
        """Say good-bye."""
        if self._session is not None:
            self._session.close()


def _was_closed_while_idle(delivery: Delivery) -> bool:
    """Whether a session that had carried mail before turned out closed at the first command of this one."""
    error = delivery.error
    if delivery.accepted or error is None or error.phase is not Phase.ENVELOPE:
        return False
    lost = isinstance(error, ConnectionLostError) and delivery.outcome is Outcome.NOT_SENT
    return lost or (error.reply is not None and error.reply.code == 421)


def _not_sent(index: int, mail: Mail, error: MailError) -> Delivery:
    return Delivery(
        index=index, message_id=mail.message_id or "", outcome=Outcome.NOT_SENT, reply=error.reply, error=error
    )


def send_many(mails: Iterable[Mail], open_session: OpenSession, *, connections: int = 1) -> Iterator[Delivery]:
    """Send every mail, and yield one delivery for each, in the order in which they finish.

    Args:
        mails: taken one at a time, as there is a session free for it.
        open_session: makes an open session, or raises MailError.
        connections: how many sessions at the most.
    """
    if connections < 1:
        raise ValueError(f"connections is {connections}; give a number from 1")
    if connections == 1:
        return _one_lane(mails, open_session)
    return _Lanes(mails, open_session, connections).deliveries()


def _one_lane(mails: Iterable[Mail], open_session: OpenSession) -> Iterator[Delivery]:
    lane = Lane(open_session)
    try:
        for index, mail in enumerate(mails):
            yield lane.send(index, mail)
    finally:
        lane.close()


class _Lanes:
    """Several lanes that take from one source, each in a thread of its own."""

    def __init__(self, mails: Iterable[Mail], open_session: OpenSession, connections: int) -> None:
        self._numbered = enumerate(mails)
        self._open_session = open_session
        self._connections = connections
        self._taking = threading.Lock()
        self._stop = threading.Event()
        self._failure: Exception | None = None
        # Bounded, so that nobody reads far ahead of a consumer that is slow. None means that a lane has ended.
        self._finished: queue.Queue[Delivery | None] = queue.Queue(maxsize=connections * 2)

    def deliveries(self) -> Iterator[Delivery]:
        """Run the lanes; what is on its way still ends where the consumer leaves early."""
        for number in range(self._connections):
            threading.Thread(target=self._work, name=f"smtpcm-{number}", daemon=True).start()
        running = self._connections
        try:
            while running:
                delivery = self._finished.get()
                if delivery is None:
                    running -= 1
                else:
                    yield delivery
        finally:
            self._stop.set()
            while running:
                running -= self._finished.get() is None
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        lane = Lane(self._open_session)
        try:
            while (item := self._take()) is not None:
                self._finished.put(lane.send(*item))
        except Exception as error:  # noqa: BLE001 - the source of mails failed; its consumer hears of it
            self._failure = error
            self._stop.set()
        finally:
            lane.close()
            self._finished.put(None)

    def _take(self) -> tuple[int, Mail] | None:
        with self._taking:
            return None if self._stop.is_set() else next(self._numbered, None)
