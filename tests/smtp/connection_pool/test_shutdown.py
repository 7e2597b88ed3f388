"""Many mails: a closed generator or an interruption leaves no mail without a delivery, and nothing open."""

from __future__ import annotations

import gc
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.smtp import Delivery
from airflow_provider_smtpcm.smtp.cancellation import InterruptedDeliveryError, get_single_delivery
from airflow_provider_smtpcm.smtp.pipelining import PipelinedSession
from airflow_provider_smtpcm.smtp.transport import Transport
from tests.interruptions import Moments, TimeLimit, watched
from tests.smtp.connection_pool.batches import NO_FROM, SilentServer, interrupted, letter, send
from tests.smtp.dialogue import Dialogue
from tests.smtp.server import Server
from tests.smtp.test_pipelining import ENVELOPE, HELLO, QUEUED, WANTED
from tests.waiting import wait_until

ManagerFor = Callable[..., SmtpConnectionManager]


def test_who_stops_listening_stops_the_sending() -> None:
    """Started mails are finished, no further one is started, and every session sends QUIT."""
    taken = 0

    def source() -> Iterator[Mail]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield letter(number)

    with Server() as server:
        deliveries = send(server.manager(), source(), connections=3)
        next(deliveries)
        deliveries.close()
    assert 1 <= len(server.stored) <= taken < 20
    assert all(count == 1 for count in Counter(stored.message_id for stored in server.stored).values())


def test_who_stops_listening_is_not_held_up_by_an_envelope(manager_for: ManagerFor) -> None:
    """The previous mail is finished; the server waits for the next message, which is not sent."""
    steps = f"{HELLO}\n{ENVELOPE}\n{WANTED}\nMESSAGE\n{ENVELOPE}\nPAUSE\n{QUEUED}\n{WANTED}\nHANG"
    both = ("a@corp.example", "b@corp.example")
    with Dialogue(steps) as dialogue:
        deliveries = send(manager_for(dialogue, timeout=3600), [letter(0, *both), letter(1, *both), NO_FROM])
        assert next(deliveries).index == 2
        deliveries.close()
    assert len(dialogue.messages) == 1


def test_who_never_listens_leaves_nothing_open() -> None:
    """Sending begins when the first delivery is requested."""
    manager = SmtpConnectionManager(host="127.0.0.1", ssl_mode="none")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(20):
        send(manager, [letter(0)])
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


def test_nothing_stays_open_after_the_last_delivery() -> None:
    """No socket, no pipe, no thread; soon no session either that was being opened when it was no longer needed."""

    def open_ones() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208

    files, threads = open_ones()
    with Server(per_connection=2) as server:
        list(send(server.manager(), [letter(number) for number in range(10)], connections=3))
    # Fewer, where something of an earlier test ends only now.
    wait_until(lambda: open_ones()[0] <= files and open_ones()[1] <= threads)


@pytest.mark.parametrize("connections", [1, 2])
def test_an_interruption_leaves_each_mail_that_was_begun_with_its_delivery(connections: int) -> None:
    """There is one for each connection that only the server knows about; the others can be sent again."""
    with SilentServer() as server:
        sending = send(server.manager(), map(letter, range(6)), connections=connections)
        told = interrupted(lambda: server.taken == connections, TimeLimit, sending)
    assert sorted(delivery.index for delivery in told) == list(range(len(told)))
    unknown = [delivery for delivery in told if delivery.outcome == "unknown"]
    assert len(unknown) == connections
    assert all("the task was interrupted (TimeLimit)" in str(delivery.error) for delivery in unknown)
    others = [delivery for delivery in told if delivery not in unknown]
    assert all(delivery.outcome == "not_sent" and delivery.error.retryable for delivery in others if delivery.error)


def test_control_c_stays_what_it_is() -> None:
    """There is no retry after it."""
    with SilentServer() as server:
        told = interrupted(lambda: server.taken, KeyboardInterrupt, send(server.manager(), [letter(0), letter(1)]))
    assert {delivery.outcome for delivery in told} == {"unknown", "not_sent"}


def test_an_interruption_while_the_final_dot_goes_out_finds_it_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system has the octets before the program knows."""
    send_some = Transport.send_some

    def send_and_stop(wire: Transport, octets: bytes) -> int:
        sent = send_some(wire, octets)
        if bytes(octets).startswith(b"Date:"):
            raise TimeLimit
        return sent

    monkeypatch.setattr(Transport, "send_some", send_and_stop)
    assert [(delivery.index, delivery.outcome) for delivery in _told_to_the_end()] == [(0, "unknown")]


def test_an_interruption_before_the_delivery_could_be_handed_out_tells_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mail was accepted, and nothing else records that."""

    def stop_when_heard(session: PipelinedSession) -> None:
        receive(session)
        if not session.is_busy:
            raise TimeLimit

    receive = PipelinedSession.receive
    monkeypatch.setattr(PipelinedSession, "receive", stop_when_heard)
    assert [(delivery.index, delivery.outcome) for delivery in _told_to_the_end()] == [(0, "accepted")]


# A session whose QUIT was interrupted is closed when it is forgotten.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_anywhere_loses_no_delivery() -> None:
    """Not between taking a delivery from the queue and yielding it."""

    def check(at: int | None) -> int:
        told: list[Delivery] = []
        with Server() as server:
            moments = Moments(at, lambda: bool(server.stored))
            with suppress(TimeLimit), watched(moments):
                told.extend(send(server.manager(), [letter(0), letter(1)]))
        assert Counter(delivery.message_id for delivery in told).keys() >= {one.message_id for one in server.stored}
        assert all(count == 1 for count in Counter(delivery.index for delivery in told).values()), f"at {at}"
        return moments.passed

    for at in range(1, check(None) + 1):
        check(at)
    gc.collect()


def test_who_was_accepted_before_the_interruption_is_told_with_those_who_were_not_asked() -> None:
    """The server accepted the first recipient, and requires a further transaction for the second."""
    transactions: list[str] = []

    def decide(about: str) -> str | None:
        transactions.extend([about] * about.startswith("MAIL"))
        if len(transactions) < 2:
            return "452 4.5.3 too many recipients" if about == "RCPT TO:<b0@corp.example>" else None
        server.over.wait()
        return None

    with Server(decide) as server:
        (delivery,) = interrupted(lambda: len(transactions) == 2, TimeLimit, send(server.manager(), [letter(0)]))
        assert (delivery.outcome, delivery.accepted) == ("partial", ("a0@corp.example",))
        assert "not sent to b0@corp.example: It was not sent: the task was interrupted" in str(delivery.error)
        with pytest.raises(InterruptedDeliveryError) as caught:
            get_single_delivery(iter_then(delivery, TimeLimit()))
        assert caught.value.delivery is delivery
        assert caught.value.retryable


def iter_then(delivery: Delivery, error: BaseException) -> Iterator[Delivery]:
    """A batch of one mail that is interrupted."""
    yield delivery
    raise error


def _told_to_the_end() -> list[Delivery]:
    """The deliveries of one letter, up to the exception that ends them."""
    told: list[Delivery] = []
    with Server() as server, pytest.raises(TimeLimit):
        told.extend(send(server.manager(), [letter(0)]))
    return told
