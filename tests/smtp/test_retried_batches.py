"""A batch: each mail is retried until it is settled, no one gets it twice, and a journal records it beforehand."""

from __future__ import annotations

import itertools
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import LedgerError
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.smtp import Delivery, Outcome, retry, throttling
from airflow_provider_smtpcm.smtp.cancellation import CancellationToken
from airflow_provider_smtpcm.smtp.connection_pool import BatchSender
from airflow_provider_smtpcm.smtp.queue import SendRequest
from airflow_provider_smtpcm.smtp.retry import RetryQueue
from airflow_provider_smtpcm.smtp.session import Session
from demo.processes import free_port
from tests.smtp.connection_pool.batches import requests
from tests.smtp.server import HANG_UP, MESSAGE, STORE_AND_HANG_UP, Decide, Server

if TYPE_CHECKING:
    from airflow_provider_smtpcm.smtp.retry import Journal

A, B = "a@corp.example", "b@corp.example"


def letter(number: int, *to: str, **fields: Any) -> Mail:
    """A mail to two people."""
    return Mail(
        **{
            "from_address": "etl@corp.example",
            "to": to or (A, B),
            "text": "All is well.",
            "message_id": f"<{number}@corp.example>",
            **fields,
        }
    )


def batch(
    manager: SmtpConnectionManager,
    mails: Iterable[Mail] | Iterator[SendRequest | float],
    *,
    retry_for: float = 10,
    journal: Journal | None = None,
    stop: CancellationToken | None = None,
    connections: int = 1,
) -> Generator[Delivery, None, None]:
    """Send them as the hook does."""
    given = requests(mails) if isinstance(mails, list) else mails
    retries = RetryQueue(given, retry_for, journal=journal)  # type: ignore[arg-type]
    sender = BatchSender(
        retries.admit_requests(),
        manager,
        lambda: Session(manager),
        connections=connections,
        retry_connect_for=retry_for,
        cancellation=stop,
    )
    return retries.deliveries(sender)


def outcomes(found: list[Delivery]) -> list[str]:
    """The outcome of each mail, in order."""
    assert sorted(delivery.index for delivery in found) == list(range(len(found)))
    return [str(delivery.outcome) for delivery in sorted(found, key=lambda delivery: delivery.index)]


def at_first(times: int, answer: str, about: str) -> Decide:
    """Gives this reply to the first commands that begin like this."""
    asked = itertools.count()
    return lambda said: answer if said.startswith(about) and next(asked) < times else None


class Diary:
    """A journal that keeps everything in order."""

    def __init__(self) -> None:
        self.pages: list[tuple[str, int]] = []
        self.left: list[tuple[str, ...]] = []
        self.in_doubt: set[int] = set()

    def admit(self, send_requests: Iterator[SendRequest | float]) -> Iterator[SendRequest | float]:
        """Whatever comes."""
        for send_request in send_requests:
            if isinstance(send_request, SendRequest):
                self.pages.append(("admitted", send_request.index))
                self.in_doubt.add(send_request.index)
            yield send_request

    def set_wakeup(self, wake: Callable[[], None]) -> None:
        """It never waits."""

    def on_result(self, delivery: Delivery, left: tuple[str, ...]) -> None:
        """Whatever became of it."""
        self.pages.append((str(delivery.outcome), delivery.index))
        self.left.append(left)
        self.in_doubt.remove(delivery.index)

    def annotate(self, delivery: Delivery) -> Delivery:
        """There was no earlier attempt."""
        return delivery


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(throttling, "FIRST_PAUSE", 0.02)


# --- What is not retried, or no longer.


def test_a_mail_that_was_stored_without_an_answer_is_not_sent_again() -> None:
    """However much time there is."""
    with Server(at_first(1, STORE_AND_HANG_UP, MESSAGE)) as server:
        found = list(batch(server.manager(), [letter(0), letter(1)]))
    assert outcomes(found) == ["unknown", "accepted"]
    assert server.copies("<0@corp.example>") == [A, B]


def test_a_refusal_for_good_is_heard_once() -> None:
    """It would be said again."""
    with Server(at_first(99, "550 5.1.1 no such user", "RCPT")) as server:
        found = list(batch(server.manager(), [letter(0)]))
    assert outcomes(found) == ["refused"]
    assert len([line for line in server.commands if line.startswith("RCPT")]) == 2


def test_without_time_every_mail_has_one_turn() -> None:
    """Airflow's own retries come later."""
    with Server(at_first(1, "451 later", MESSAGE)) as server:
        found = list(batch(server.manager(), [letter(0), letter(1)], retry_for=0))
    assert outcomes(found) == ["refused", "accepted"]


def test_when_the_time_is_over_the_last_word_is_told() -> None:
    """And not how many times it was sent."""
    with Server(at_first(9999, "450 4.2.0 full", "RCPT")) as server:
        (found,) = batch(server.manager(), [letter(0)], retry_for=0.4)
    assert (found.outcome, str(found.refused[A])) == (Outcome.REFUSED, "450 4.2.0 full")
    assert found.error is not None
    assert found.error.retryable


def test_a_server_that_stays_away_is_given_up_for_all_mails() -> None:
    """After the time, and not after the time for each, which would be an hour."""
    manager = SmtpConnectionManager(host="127.0.0.1", port=free_port(), ssl_mode="none", timeout=5.0)
    found = list(batch(manager, [letter(number) for number in range(7200)], retry_for=0.5, connections=1))
    assert outcomes(found) == ["not_sent"] * 7200


# --- What is.


@pytest.mark.parametrize(
    ("about", "answer"),
    [
        ("CONNECT", "421 4.3.2 busy"),
        *itertools.product(
            ["MAIL", "RCPT", "DATA", MESSAGE], ["451 4.3.0 later", "452 4.3.1 no room", "421 4.3.2 closing", HANG_UP]
        ),
    ],
)
def test_whatever_passes_is_waited_for_at_every_step(about: str, answer: str) -> None:
    """Everyone has it once; but a connection that breaks after the final dot leaves the outcome unknown."""
    with Server(at_first(3, answer, about)) as server:
        found = list(batch(server.manager(), [letter(number) for number in range(4)]))
    unknown = 3 if (about, answer) == (MESSAGE, HANG_UP) else 0
    assert Counter(outcomes(found)) == Counter(unknown=unknown, accepted=4 - unknown)
    for delivery in found:
        copies = sorted(server.copies(delivery.message_id))
        assert copies == ([A, B] if delivery.outcome == "accepted" else []), about


def test_who_was_refused_for_now_is_asked_alone_and_gets_the_same_mail() -> None:
    """The others have it."""
    diary = Diary()
    with Server(at_first(2, "450 4.2.0 greylisted", f"RCPT TO:<{B}>")) as server:
        (found,) = batch(server.manager(), [letter(0)], journal=diary)
    assert (found.outcome, found.accepted, dict(found.refused)) == (Outcome.ACCEPTED, (A, B), {})
    assert [stored.recipients for stored in server.stored] == [(A,), (B,)]
    assert {stored.message_id for stored in server.stored} == {"<0@corp.example>"}
    assert diary.left == [(B,), (B,), ()]


def test_a_server_that_comes_back_gets_everything() -> None:
    """It was restarted while a batch began."""
    port = free_port()
    manager = SmtpConnectionManager(host="127.0.0.1", port=port, ssl_mode="none", timeout=60.0)
    server = Server()
    server._listener.close()

    def come_back() -> None:
        server._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        server.__enter__()

    timer = threading.Timer(0.3, come_back)
    timer.start()
    try:
        found = list(batch(manager, [letter(number) for number in range(10)], connections=3))
    finally:
        timer.join()
        server.__exit__(None, None, None)
    assert outcomes(found) == ["accepted"] * 10
    assert len(server.stored) == 10


# --- The journal.


def test_what_cannot_be_written_down_any_more_is_not_sent_and_the_rest_is_told() -> None:
    """Even for a mail that waits for a retry: its last result is known."""

    class Full(Diary):
        def admit(self, send_requests: Iterator[SendRequest | float]) -> Iterator[SendRequest | float]:
            for number, send_request in enumerate(super().admit(send_requests)):
                if number == 2:
                    raise LedgerError("full")
                yield send_request

    found: list[Delivery] = []
    with Server(at_first(99, "450 4.2.0 later", f"RCPT TO:<{B}>")) as server, pytest.raises(LedgerError, match="full"):
        found.extend(batch(server.manager(), [letter(0, A), letter(1), letter(2)], journal=Full()))
    assert len(server.stored) == 2


def test_a_mail_that_waits_is_told_when_something_breaks() -> None:
    """As it stood."""
    found: list[Delivery] = []

    def send_requests() -> Iterator[SendRequest | float]:
        yield SendRequest(0, letter(0))
        yield SendRequest(1, letter(1, A))
        time.sleep(0.1)
        raise LookupError("no such column")

    refuse = at_first(99, "450 4.2.0 later", f"RCPT TO:<{B}>")
    with Server(refuse) as server, pytest.raises(LookupError, match="no such column"):
        found.extend(batch(server.manager(), send_requests()))
    assert outcomes(found) == ["partial", "accepted"]
    assert len(server.stored) == 2


def test_nothing_is_sent_before_it_is_admitted_and_everything_is_heard_of() -> None:
    """In each attempt."""
    diary = Diary()
    with Server(at_first(2, "451 later", MESSAGE)) as server:
        found = list(batch(server.manager(), [letter(number) for number in range(3)], journal=diary, connections=2))
    assert outcomes(found) == ["accepted"] * 3
    for index in range(3):
        pages = [what for what, of in diary.pages if of == index]
        assert pages[::2] == ["admitted"] * (len(pages) // 2)
        assert pages[-1] == "accepted"
    assert Counter(what for what, _ in diary.pages) == {"admitted": 5, "refused": 2, "accepted": 3}


def test_a_ledger_that_is_written_before_the_event_loop_runs_may_wake_it() -> None:
    """There is nothing to wake yet, and the loop begins with a look at everything."""

    class Early(Diary):
        def set_wakeup(self, wake: Callable[[], None]) -> None:
            wake()

    with Server() as server:
        assert outcomes(list(batch(server.manager(), [letter(0)], journal=Early()))) == ["accepted"]


def test_who_stops_listening_stops_the_sending() -> None:
    """And no thread and no session stay."""
    with Server() as server:
        sending = batch(server.manager(), [letter(number) for number in range(100)], connections=2)
        next(sending)
        sending.close()
        assert len(server.stored) < 12


def test_waiting_for_a_turn_takes_little_processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch may wait for a minute."""
    monkeypatch.setattr(retry, "FIRST_WAIT", 2.0)
    with Server(at_first(1, "450 4.2.0 later", "RCPT")) as server:
        sending = batch(server.manager(), [letter(0, A)])
        used = time.process_time()
        assert outcomes(list(sending)) == ["accepted"]
        assert time.process_time() - used < 0.4


# --- Everything at once.


@pytest.mark.parametrize("connections", [1, 3])
def test_of_many_mails_to_a_moody_server_each_ends_once_and_nobody_gets_it_twice(
    connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses, forgets and hangs up as it pleases."""
    monkeypatch.setattr(throttling, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(retry, "LONGEST_WAIT", 0.05)
    moods = [None] * 60 + ["451 4.2.0 later", "450 grey-listed", HANG_UP, "452 4.3.1 no room", "421 enough"]
    lock, dice = threading.Lock(), random.Random(7)  # noqa: S311 - no secret

    def decide(about: str) -> str | None:
        with lock:
            return dice.choice(moods) if about.startswith(("MAIL", "RCPT", "DATA", MESSAGE)) else None

    with Server(decide) as server:
        found = list(batch(server.manager(), [letter(number) for number in range(60)], connections=connections))
    assert len(found) == 60
    assert set(outcomes(found)) <= {"accepted", "unknown"}
    for delivery in found:
        copies = Counter(server.copies(delivery.message_id))
        assert max(copies.values(), default=0) <= 1
        assert delivery.outcome == "unknown" or copies == {A: 1, B: 1}
