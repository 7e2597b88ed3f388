"""Many mails: deadlines, a rate limit, a busy server, timeouts."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.smtp.throttling import RateController
from tests.smtp.connection_pool.batches import letter, outcomes, send, send_through_a_strait
from tests.smtp.dialogue import Dialogue
from tests.smtp.server import MESSAGE, Server
from tests.smtp.test_pipelining import BYE, ENVELOPE, HELLO, QUEUED, WANTED

ManagerFor = Callable[..., SmtpConnectionManager]


def test_the_answer_to_a_message_may_take_its_time_while_the_next_envelope_waits() -> None:
    """A server that is busy with a message reads nothing (RFC 5321 4.5.3.2.6), however long the envelope after it."""
    everybody = [f"recipient-number-{number}@corp.example" for number in range(3000)]

    def busy(about: str) -> str | None:
        time.sleep(4 if about == MESSAGE and not server.stored else 0)
        return None

    with Server(busy, at_once=1024, pause=0.003) as server:
        manager = server.manager(timeout=3.5, final_reply_timeout=30)
        found = list(send_through_a_strait(manager, [letter(0), letter(1, *everybody)]))
    assert outcomes(found) == ["accepted", "accepted"]
    assert len(server.heard) == 1


def test_a_long_text_has_its_time_for_each_block_of_it() -> None:
    """The server reads slowly, and steadily."""
    text = "All is well.\n" * 50_000
    with Server(at_once=2048, pause=0.008) as server:
        found = list(send_through_a_strait(server.manager(timeout=2), [letter(0, text=text)]))
    assert outcomes(found) == ["accepted"]


def test_a_server_that_stops_reading_is_left_at_the_deadline(manager_for: ManagerFor) -> None:
    """Even in the middle of a block."""
    steps = f"{HELLO}\n{ENVELOPE}\n{WANTED}\nPART\nDEAF"
    mail = letter(0, "a@corp.example", "b@corp.example", size=20_000_000)
    began = time.monotonic()
    with Dialogue(steps) as dialogue:
        found = list(send(manager_for(dialogue), [mail]))
        assert time.monotonic() - began > 0.9
    assert outcomes(found) == ["not_sent"]
    assert "did not read what was sent" in str(found[0].error)


def test_waiting_takes_no_processor_time(manager_for: ManagerFor) -> None:
    """Here for a server that does not read, while the next mail is ready, and at some time may be sent."""
    both = ("a@corp.example", "b@corp.example")
    first = f"{ENVELOPE}\n{WANTED}\nPAUSE\nPAUSE\nMESSAGE\n{ENVELOPE}\n{QUEUED}\n{WANTED}\nPAUSE\nMESSAGE"
    with Dialogue(f"{HELLO}\n{first}\n{QUEUED}\n{BYE}") as dialogue:
        dialogue._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        manager = manager_for(dialogue, timeout=5)
        busy = time.process_time()
        batch = [letter(0, *both, text="x\n" * 20_000), letter(1, *both)]
        found = list(send_through_a_strait(manager, batch, rate_limit=600))
        busy = time.process_time() - busy
    assert outcomes(found) == ["accepted", "accepted"]
    assert busy < 0.4


def test_no_more_mails_a_minute_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two mails at least the interval, with a second connection or a slow start too."""
    begun: list[float] = []
    begin = RateController.on_begin

    def note_and_begin(pace: RateController) -> None:
        begun.append(time.monotonic())
        begin(pace)

    monkeypatch.setattr(RateController, "on_begin", note_and_begin)

    def slow(about: str) -> str | None:
        time.sleep(0.12 if about == "CONNECT" else 0)
        return None

    with Server(slow) as server:
        found = list(send(server.manager(), [letter(n) for n in range(6)], connections=6, rate_limit=240))
    assert outcomes(found) == ["accepted"] * 6
    gaps = [later - earlier for earlier, later in itertools.pairwise(begun)]
    assert len(gaps) == 5
    assert min(gaps) > 0.2499
    assert len(server.heard) < 5  # one suffices, unless everything is slow


@pytest.mark.parametrize("wrong", [{"connections": 0}, {"rate_limit": 0}, {"rate_limit": -1}])
def test_what_makes_no_sense_is_refused_at_once(wrong: dict[str, int]) -> None:
    """Before the first mail is asked for."""
    with pytest.raises(ValueError, match="give"):
        send(SmtpConnectionManager(host="127.0.0.1", ssl_mode="none"), [letter(0)], **wrong)


def test_a_server_that_is_busy_for_ever_is_left_to_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mails after it are reported as not sent, and may be retried; the batch ends."""
    monkeypatch.setattr("airflow_provider_smtpcm.smtp.connection_pool._MAX_THROTTLED_SECONDS", 0.3)
    monkeypatch.setattr("airflow_provider_smtpcm.smtp.throttling.FIRST_PAUSE", 0.05)
    monkeypatch.setattr("airflow_provider_smtpcm.smtp.throttling.LONGEST_PAUSE", 0.1)

    def busy(about: str) -> str | None:
        return "450 4.3.0 busy" if about.startswith("MAIL") else None

    with Server(busy) as server:
        found = list(send(server.manager(), (letter(number) for number in range(500))))
    assert len(found) == 500
    assert {str(delivery.outcome) for delivery in found} == {"refused", "not_sent"}
    last = found[-1].error
    assert last is not None and last.retryable
    assert "has accepted no mail for" in str(last)
