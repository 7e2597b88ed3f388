"""Many mails: a waiting thread is woken by what it waits for, and by nothing else."""

from __future__ import annotations

import itertools
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.smtp import connection_pool, retry, session
from airflow_provider_smtpcm.smtp.cancellation import CancellationToken
from airflow_provider_smtpcm.smtp.connection_pool import BatchSender
from airflow_provider_smtpcm.smtp.outcome import Delivery
from airflow_provider_smtpcm.smtp.queue import SendRequest
from tests.smtp.connection_pool.batches import letter, outcomes, requests, send
from tests.smtp.server import MESSAGE, Server
from tests.smtp.test_retried_batches import at_first, batch
from tests.waiting import wait_until


@pytest.fixture
def wakes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many times the sending thread was woken, or stopped waiting, so far."""
    count = 0
    wait = BatchSender._wait

    def counted(mailing: BatchSender, seconds: float) -> None:
        nonlocal count
        count += 1
        wait(mailing, seconds)

    monkeypatch.setattr(BatchSender, "_wait", counted)
    return lambda: count


def test_a_mail_that_waits_for_its_next_turn_wakes_nobody(
    wakes: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is due."""
    monkeypatch.setattr(retry, "FIRST_WAIT", 2.0)
    with Server(at_first(1, "450 4.2.0 later", "RCPT")) as server:
        assert outcomes(list(batch(server.manager(), [letter(0, "a@corp.example")]))) == ["accepted"]
    assert wakes() < 30


def test_a_server_that_takes_its_time_wakes_nobody(wakes: Callable[[], int]) -> None:
    """Until it answers; meanwhile there is nothing more to send."""

    def slow(about: str) -> str | None:
        time.sleep(0.5 if about == MESSAGE else 0)
        return None

    with Server(slow) as server:
        assert outcomes(list(batch(server.manager(), [letter(n) for n in range(4)], connections=2))) == ["accepted"] * 4
    assert wakes() < 60


def test_a_rate_limit_wakes_once_for_each_mail(wakes: Callable[[], int]) -> None:
    """When it is due."""
    with Server() as server:
        found = list(send(server.manager(), (letter(n) for n in range(5)), rate_limit=120))
    assert outcomes(found) == ["accepted"] * 5
    assert wakes() < 60


def test_rows_that_come_slowly_wake_nobody(wakes: Callable[[], int]) -> None:
    """Until there is one."""

    def rows() -> Iterator[SendRequest | float]:
        for number in range(4):
            due = time.monotonic() + 0.3
            while time.monotonic() < due:
                yield due
            yield SendRequest(number, letter(number))

    with Server() as server:
        assert outcomes(list(batch(server.manager(), rows()))) == ["accepted"] * 4
    assert wakes() < 60


def test_who_has_nothing_more_until_a_delivery_is_asked_after_it() -> None:
    """Immediately, and no sooner."""
    told: list[Delivery] = []

    def one_after_the_other() -> Iterator[SendRequest | float]:
        for number in range(5):
            while len(told) < number:
                yield math.inf
            yield SendRequest(number, letter(number))

    with Server() as server:
        told.extend(batch(server.manager(), one_after_the_other(), connections=3))
    assert [str(delivery.outcome) for delivery in told] == ["accepted"] * 5


# --- However long.


@pytest.mark.parametrize("rate_limit", [1e-5, 1e-300, 1e-320])
def test_a_limit_of_a_mail_in_months_is_kept(rate_limit: float) -> None:
    """The system's own clocks would overflow."""
    stop = CancellationToken()
    with Server() as server:
        manager = server.manager()
        sending = BatchSender(
            requests([letter(0), letter(1)]),
            manager,
            lambda: session.Session(manager),
            rate_limit=rate_limit,
            cancellation=stop,
        ).deliveries()
        assert next(sending).outcome == "accepted"
        threading.Timer(0.2, stop.cancel).start()
        assert next(sending).outcome == "not_sent"
        assert list(sending) == []
    assert len(server.stored) == 1


@pytest.mark.parametrize("seconds", [3e6, 1e300])
def test_any_time_can_be_waited_for(seconds: float) -> None:
    """`poll` itself takes 24 days at the most."""
    ours, theirs = socket.socketpair()
    mailing = BatchSender(iter(()), SmtpConnectionManager(host="127.0.0.1", ssl_mode="none"), None)
    with ours, theirs:
        mailing._poll.register(ours, 1)
        theirs.send(b"!")
        mailing._background = connection_pool.BackgroundTasks(connection_pool._discard)
        mailing._wait(seconds)
        mailing._background.close()


def test_however_many_connections_are_allowed_few_mails_are_held_ready() -> None:
    """Memory does not grow with the number of mails."""
    taken = itertools.count()

    def letters() -> Iterator[Mail]:
        for number in range(3000):
            next(taken)
            yield letter(number)

    with Server() as server:
        sending = send(server.manager(), letters(), connections=10**9, rate_limit=60)
        assert next(sending).outcome == "accepted"
        assert next(taken) < 400
        sending.close()


# --- The end.


def test_servers_that_do_not_answer_a_good_bye_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many sessions there are, the end takes as long as with one; one after the other, six times that."""
    monkeypatch.setattr(session, "QUIT_TIMEOUT", 3.0)
    all_at_once = threading.Barrier(6)

    def silent_at_the_end(about: str) -> str | None:
        if about == "QUIT":
            server.over.wait()
        elif about == MESSAGE:
            all_at_once.wait()  # over six sessions
        return None

    with Server(silent_at_the_end) as server:
        began = time.monotonic()
        found = list(send(server.manager(), [letter(number) for number in range(24)], connections=6))
        took = time.monotonic() - began
        assert server.commands.count("QUIT") == 6
    assert outcomes(found) == ["accepted"] * 24
    assert took < 6 * 3.0


def test_sessions_that_were_opened_and_not_needed_say_good_bye_with_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of them, before waiting for the first reply."""
    monkeypatch.setattr(session, "QUIT_TIMEOUT", 3600.0)

    def silent_at_the_end(about: str) -> str | None:
        if about == "QUIT":
            wait_until(lambda: server.commands.count("QUIT") == 6)
        return None

    with Server(silent_at_the_end) as server:
        opened = [session.Session(server.manager(timeout=3600)).open() for _ in range(6)]
        mailing = BatchSender(iter(()), server.manager(), None)
        mailing._background = connection_pool.BackgroundTasks(connection_pool._discard)
        for one in opened:
            mailing._background.run(lambda one=one: one)  # type: ignore[misc]
        wait_until(lambda: mailing._background._results.qsize() == 6)
        mailing._close()
        assert server.commands.count("QUIT") == 6


def test_few_mails_go_over_as_many_sessions_as_there_are(wakes: Callable[[], int]) -> None:
    """A pipelined mail would wait for a slow server, while a session is free or could be opened.

    A ledger admits as many mails of a slow server as there are connections.
    """
    delivered: list[Delivery] = []
    changed, at_once, most = threading.Condition(), 0, 0

    def decide(about: str) -> str | None:
        nonlocal at_once, most
        if about == MESSAGE:
            with changed:
                at_once += 1
                most = max(most, at_once)
                changed.notify_all()
                changed.wait_for(lambda: most == 4, 60)
                at_once -= 1
        return None

    def two_at_a_time() -> Iterator[SendRequest | float]:
        for number in range(0, 24, 2):
            while number - len(delivered) > 2:
                yield math.inf
            yield SendRequest(number, letter(number))
            yield SendRequest(number + 1, letter(number + 1))
            yield time.monotonic() + 0.02  # while they are written down

    with Server(decide) as server:
        manager = server.manager()
        mailing = BatchSender(two_at_a_time(), manager, lambda: session.Session(manager), connections=4)
        for delivery in mailing.deliveries():
            delivered.append(delivery)  # noqa: PERF402 - meanwhile the source looks at how many they are
    assert outcomes(delivered) == ["accepted"] * 24
    assert most == 4
    assert wakes() < 300
