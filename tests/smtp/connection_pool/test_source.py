"""Many mails: their source, and sessions that the server closes while the source is slow."""

from __future__ import annotations

import logging
import select
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.smtp import Delivery, Outcome
from airflow_provider_smtpcm.smtp.connection_pool import BatchSender
from airflow_provider_smtpcm.smtp.retry import RetryQueue
from airflow_provider_smtpcm.smtp.session import Session
from tests.smtp.connection_pool.batches import NO_FROM, close_from_afar, letter, outcomes, requests, send, send_many
from tests.smtp.dialogue import Dialogues
from tests.smtp.server import MESSAGE, Server
from tests.smtp.test_pipelining import BYE, ENVELOPE, HELLO, QUEUED, WANTED
from tests.waiting import wait_until

ManagerFor = Callable[..., SmtpConnectionManager]


def test_a_source_that_raises_is_heard_of_when_what_it_gave_is_settled() -> None:
    """No started mail is lost because of it."""

    def source() -> Iterator[Mail]:
        yield letter(0)
        yield letter(1)
        raise LookupError("no such column")

    found: list[Delivery] = []
    with Server() as server, pytest.raises(LookupError, match="no such column"):
        found.extend(send(server.manager(), source(), connections=2))
    assert outcomes(found) == ["accepted", "accepted"]
    assert len(server.stored) == 2


@pytest.mark.parametrize("item", [None, "a mail", 5.0, {}], ids=repr)
def test_what_is_not_a_mail_is_an_error_once_the_mails_before_it_are_sent(item: Any) -> None:
    """It does not end the batch silently, and takes no mail's number."""
    found: list[Delivery] = []
    with Server() as server, pytest.raises(TypeError, match=f"not {type(item).__name__}"):
        found.extend(send(server.manager(), iter([letter(0), item, letter(1)])))
    assert outcomes(found) == ["accepted"]
    assert len(server.stored) == 1


def test_a_source_is_asked_for_no_more_than_is_needed() -> None:
    """However many mails there are, a few are in memory."""
    taken = 0

    def source() -> Iterator[Mail]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield letter(number)

    with Server() as server:
        for delivered, _ in enumerate(send(server.manager(), source(), connections=2)):
            # In memory: two on each line, two ready, and two that finished together with this one.
            assert taken - delivered <= 2 * 2 + 2 + 2 + 1
    assert taken == 100


def test_a_source_of_mails_that_cannot_be_sent_is_not_read_ahead_of_either() -> None:
    """Each has its delivery immediately, so few have to be kept."""
    taken = 0

    def source() -> Iterator[Mail]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield NO_FROM

    with Server() as server:
        deliveries = send(server.manager(), source(), connections=3)
        for delivered, delivery in enumerate(deliveries, 1):
            assert delivery.outcome is Outcome.NOT_SENT
            assert taken - delivered <= 3
    assert server.heard == []


def test_a_slow_source_and_a_server_that_closes_idle_sessions_lose_nothing(manager_for: ManagerFor) -> None:
    """Whether the server says so or only hangs up."""
    once = f"{HELLO}\n{ENVELOPE}\n{WANTED}\nMESSAGE\n{QUEUED}"

    def source() -> Iterator[Mail]:
        for number in range(3):
            yield letter(number, "a@corp.example", "b@corp.example")
            time.sleep(0.1)

    with Dialogues(f"{once}\nS: 421 4.4.2 idle for too long", once, f"{once}\n{BYE}") as dialogues:
        assert outcomes(list(send(manager_for(dialogues), source()))) == ["accepted"] * 3
    assert len(dialogues.messages) == 3


@pytest.mark.parametrize("is_known", [True, False], ids=["while it was idle", "before the batch knew of it"])
def test_a_session_that_was_closed_before_it_carried_anything_refuses_nobody(is_known: bool) -> None:
    """It was opened too late for the first mails, and the server closed it; the next mail does not use it."""
    started: list[Session] = []
    opened: list[Session] = []

    def keep_the_first_session_busy(about: str) -> str | None:
        if about == MESSAGE and len(server.stored) == 2:
            wait_until(lambda: not opened[1].is_open)
        return None

    def open_session() -> Session:
        started.append(session := Session(manager))
        if len(started) == 2:
            wait_until(lambda: len(server.stored) == 2)
        opened.append(session.open())
        return session

    def source() -> Iterator[Mail]:
        yield letter(0)
        yield letter(1)
        while len(server.stored) < 2 or (is_known and len(batch._sessions) < 2):
            yield NO_FROM
        wait_until(lambda: len(opened) == 2)
        close_from_afar(server, opened[1], b"421 4.4.2 idle\r\n")
        yield letter(2)
        yield letter(3)

    with Server(keep_the_first_session_busy) as server:
        manager = server.manager()
        batch = BatchSender(source(), manager, open_session, connections=2)
        found = list(batch.deliveries())
    assert Counter(str(delivery.outcome) for delivery in found if delivery.message_id) == {"accepted": 4}


@pytest.mark.parametrize("connections", [1, 2])
def test_a_server_that_closes_each_session_at_once_is_not_tried_for_ever(connections: int) -> None:
    """It counts as one that cannot be reached."""
    opened = 0

    def open_session() -> Session:
        nonlocal opened
        opened += 1
        session = Session(manager).open()
        close_from_afar(server, session, b"421 4.3.2 going down\r\n")
        return session

    with Server() as server:
        manager = server.manager()
        found = list(send_many(map(letter, range(9)), manager, open_session, connections=connections))
    assert outcomes(found) == ["not_sent"] * 9
    assert all("closed the session with '421 4.3.2 going down'" in str(delivery.error) for delivery in found)
    assert opened <= 3 * connections


def test_once_connecting_has_failed_no_mail_waits_for_a_retry_that_would_send_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A session that was closed at once is a failure to connect, which the batch has retried itself."""
    caplog.set_level(logging.INFO)

    def open_session() -> Session:
        session = Session(manager).open()
        close_from_afar(server, session, b"421 4.3.2 going down\r\n")
        return session

    with Server() as server:
        manager = server.manager()
        retries = RetryQueue(requests(map(letter, range(3))), 2.0)
        sender = BatchSender(retries.admit_requests(), manager, open_session, retry_connect_for=2.0)
        found = list(retries.deliveries(sender))
    assert outcomes(found) == ["not_sent"] * 3
    assert "Retrying to connect" in caplog.text
    assert "Retrying mail" not in caplog.text
    assert all("search the server's log" in str(delivery.error) for delivery in found)


def test_no_mail_waits_in_a_servers_hands_for_the_next_one_to_be_made() -> None:
    """A server that waits for a message gives up after a while, and a source may be slow."""
    heard: Counter[str] = Counter()
    order: list[str] = []

    def note(about: str) -> str | None:
        heard[about] += 1
        return None

    def source() -> Iterator[Mail]:
        for number in range(4):
            order.append(f"{number} is made")
            yield letter(number)
            time.sleep(0.15)
            # Meanwhile no session is served: a server that waits for something would not get it, however long it waits.
            until = time.monotonic() + 4
            while heard["DATA"] > heard[MESSAGE] and time.monotonic() < until:
                time.sleep(0.01)
            if heard["DATA"] > heard[MESSAGE]:
                order.append("a server waits")

    with Server(note) as server:
        for delivery in send(server.manager(), source()):
            order += (f"{delivery.index} is {delivery.outcome}",)
    made, told = ([f"{number} is {what}" for number in range(4)] for what in ("made", "accepted"))
    assert order == [made[0], made[1], told[0], made[2], told[1], made[3], told[2], told[3]]


def test_an_open_session_that_was_closed_while_it_was_idle_is_opened_again(manager_for: ManagerFor) -> None:
    """Although it never carried a mail; and it stays open afterward."""
    closed = f"{HELLO}\nS: 421 4.4.2 idle for too long"
    again = f"{HELLO}\n{ENVELOPE}\n{WANTED}\nMESSAGE\n{QUEUED}\nC: NOOP\nS: 250 ok\n{BYE}"
    with Dialogues(closed, again) as dialogues, Session(manager_for(dialogues)) as session:
        select.select([session.transport._sock], [], [])  # the server has hung up
        mail = letter(0, "a@corp.example", "b@corp.example")
        assert outcomes(list(session.send_many([mail]))) == ["accepted"]
        assert session.noop().positive


def test_a_session_that_could_be_opened_again_only_at_the_second_attempt_stays_open(manager_for: ManagerFor) -> None:
    """As one that was opened at the first."""
    closed, busy = f"{HELLO}\nS: 421 4.4.2 idle for too long", "S: 421 4.3.2 busy"
    again = f"{HELLO}\n{ENVELOPE}\n{WANTED}\nMESSAGE\n{QUEUED}\nC: NOOP\nS: 250 ok\n{BYE}"
    with Dialogues(closed, busy, again) as dialogues, Session(manager_for(dialogues)) as session:
        select.select([session.transport._sock], [], [])  # the server has hung up
        mails = [letter(number, "a@corp.example", "b@corp.example") for number in range(2)]
        assert outcomes(list(session.send_many(mails))) == ["not_sent", "accepted"]
        assert session.noop().positive
