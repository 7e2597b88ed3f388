"""Many mails: who stops listening, and what interrupts, leaves no mail untold and nothing open."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import (
    OutcomeUnknownError,
)
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.smtp.lane import Lane
from airflow_provider_smtpcm.smtp.wire import Wire
from tests.smtp.dialogue import Dialogue
from tests.smtp.many.batches import NO_FROM, TimeLimit, interrupted, letter, send, silent_server
from tests.smtp.server import Server
from tests.smtp.test_pipelining import ENVELOPE, HELLO, QUEUED, WANTED

ManagerFor = Callable[..., SmtpConnectionManager]


def test_who_stops_listening_stops_the_sending() -> None:
    """What was begun is brought to an end, nothing more is begun, and every session says good-bye."""
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
    """The mail before it is finished; the server wants the next message, which nobody sends it now."""
    steps = f"{HELLO}\n{ENVELOPE}\n{WANTED}\nMESSAGE\n{ENVELOPE}\nPAUSE\n{QUEUED}\n{WANTED}\nHANG"
    both = ("a@corp.example", "b@corp.example")
    began = time.monotonic()
    with Dialogue(steps) as dialogue:
        deliveries = send(manager_for(dialogue, timeout=5), [letter(0, *both), letter(1, *both), NO_FROM])
        assert next(deliveries).index == 2
        deliveries.close()
        assert time.monotonic() - began < 4
    assert len(dialogue.messages) == 1


def test_who_never_listens_leaves_nothing_open() -> None:
    """The sending begins with the first delivery that is asked for."""
    manager = SmtpConnectionManager(host="127.0.0.1", ssl_mode="none")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(20):
        send(manager, [letter(0)])
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


def test_nothing_stays_open_after_the_last_delivery() -> None:
    """No socket, no pipe, no thread; a session that was being opened when it was not needed any more soon neither."""

    def open_ones() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208

    before = open_ones()
    with Server(per_connection=2) as server:
        list(send(server.manager(), [letter(number) for number in range(10)], connections=3))
    deadline = time.monotonic() + 5
    while (now := open_ones()) != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert now == before


@pytest.mark.parametrize("connections", [1, 2])
def test_an_interruption_names_every_mail_that_only_the_server_knows_about(connections: int) -> None:
    """A retry would send them again; there is one for each connection at the most."""
    with silent_server() as server, pytest.raises(OutcomeUnknownError) as caught:
        interrupted(0.4, TimeLimit, send(server.manager(), map(letter, range(6)), connections=connections))
    assert sum(f"<{number}@corp.example>" in str(caught.value) for number in range(6)) == connections


def test_control_c_stays_what_it_is() -> None:
    """Nobody retries after it."""
    with silent_server() as server, pytest.raises(KeyboardInterrupt):
        interrupted(0.3, KeyboardInterrupt, send(server.manager(), [letter(0), letter(1)]))


def test_an_interruption_while_the_final_dot_goes_out_finds_it_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The octets are the system's before the program knows so."""
    send_some = Wire.send_some

    def send_and_stop(wire: Wire, octets: bytes) -> int:
        sent = send_some(wire, octets)
        if bytes(octets).startswith(b"Date:"):
            raise TimeLimit
        return sent

    monkeypatch.setattr(Wire, "send_some", send_and_stop)
    with Server() as server, pytest.raises(OutcomeUnknownError, match=r"<0@corp\.example>"):
        list(send(server.manager(), [letter(0)]))


def test_an_interruption_before_the_delivery_could_be_handed_out_tells_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mail was accepted, and nobody else knows."""

    def stop_when_heard(lane: Lane) -> None:
        listen(lane)
        if not lane.busy:
            raise TimeLimit

    listen = Lane.listen
    monkeypatch.setattr(Lane, "listen", stop_when_heard)
    with Server() as server, pytest.raises(OutcomeUnknownError, match=r"<0@corp\.example>"):
        list(send(server.manager(), [letter(0)]))
