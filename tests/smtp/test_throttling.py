"""A busy server gets less mail, and more again once it recovers; an unreachable one is retried for a while."""

from __future__ import annotations

import itertools
import math
import random
import re
import threading
import time
from collections import deque
from collections.abc import Iterator

import pytest

from airflow_provider_smtpcm.errors import AuthenticationError, ConnectError, Phase, Reply
from airflow_provider_smtpcm.smtp import retry
from airflow_provider_smtpcm.smtp import throttling as module
from airflow_provider_smtpcm.smtp.queue import SendRequest
from airflow_provider_smtpcm.smtp.session import Session
from airflow_provider_smtpcm.smtp.throttling import (
    MAX_CONNECT_FAILURES,
    ConnectBackoff,
    RateController,
    ServerProfile,
    is_throttled,
    is_throttling_reply,
)
from tests.smtp.connection_pool.batches import requests, send_many
from tests.smtp.server import MESSAGE, Server
from tests.smtp.test_retried_batches import B, batch, letter, outcomes

AWAY = ConnectError("nobody is there")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.02)


# --- What throttles.


@pytest.mark.parametrize(
    ("code", "enhanced", "text", "phase"),
    [
        (550, "5.7.1", "You send too many messages", Phase.ENVELOPE),
        (250, None, "not too busy", Phase.FINAL_DOT),
        (450, "4.2.1", "The user is receiving mail too quickly: ask later", Phase.FINAL_DOT),
        (452, "4.2.2", "Mailbox full", Phase.ENVELOPE),
        (452, "4.5.3", "Too many recipients", Phase.ENVELOPE),
        (451, "4.1.8", "Domain of sender address does not resolve", Phase.ENVELOPE),
        (450, "4.7.1", "Greylisted, see you in five minutes", Phase.FINAL_DOT),
        (451, None, "You have been gray-listed", Phase.FINAL_DOT),
        (451, "4.7.1", "Please try again later", Phase.ENVELOPE),
        (450, None, "mailbox unavailable", Phase.ENVELOPE),
    ],
)
def test_what_is_about_one_mail_or_one_mailbox_slows_nobody_down(
    code: int, enhanced: str | None, text: str, phase: Phase
) -> None:
    """The others may continue."""
    assert not is_throttling_reply(Reply(code=code, enhanced=enhanced, text=text), phase)


@pytest.mark.parametrize(
    ("code", "enhanced", "text", "phase"),
    [
        (421, "4.3.2", "Service not available", Phase.ENVELOPE),
        (432, "4.3.2", "STOREDRV; mailbox server is busy", Phase.ENVELOPE),
        (432, "4.2.1", "whatever stands behind it", Phase.FINAL_DOT),
        (450, "4.7.1", "Error: too many connections", Phase.ENVELOPE),
        (450, None, "busy", Phase.FINAL_DOT),
        (451, "4.3.0", "try again", Phase.ENVELOPE),
        (451, "4.7.500", "Server busy. Please try again later", Phase.FINAL_DOT),
        (452, "4.3.1", "Insufficient system resources", Phase.ENVELOPE),
        (454, "4.7.0", "Temporary authentication failure", Phase.AUTH),
        (450, "4.2.0", "The recipient's submission rate limit was exceeded", Phase.ENVELOPE),
        (499, None, "You are throttled", None),
    ],
)
def test_a_server_that_is_busy_is_known_by_its_code_or_its_words(
    code: int, enhanced: str | None, text: str, phase: Phase | None
) -> None:
    """Exchange's too."""
    assert is_throttling_reply(Reply(code=code, enhanced=enhanced, text=text), phase)


@pytest.mark.parametrize(
    ("code", "enhanced", "text"),
    [
        (450, "4.7.1", "Error: too much mail from 192.0.2.1"),  # Postfix
        (451, "4.7.1", "Please try again later"),
        (451, None, "Sender rate overlimit - 20 / 1m"),  # Exim
        (452, None, "space shortage, please try later"),  # Exim
        (452, "4.4.5", "Maximum number of messages per session exceeded."),  # Stalwart
    ],
)
def test_a_refusal_of_mail_or_data_is_not_about_one_recipient(code: int, enhanced: str | None, text: str) -> None:
    """Whatever the words: every recipient would be refused."""
    reply = Reply(code=code, enhanced=enhanced, text=text)
    assert is_throttling_reply(reply, Phase.ENVELOPE, is_about_recipient=False)


@pytest.mark.parametrize(
    ("code", "enhanced", "text"),
    [(451, "4.1.8", "Domain of sender address does not resolve"), (450, None, "Greylisted"), (550, "5.7.1", "no")],
)
def test_a_refused_sender_slows_nobody_down(code: int, enhanced: str | None, text: str) -> None:
    """Another sender may be accepted."""
    reply = Reply(code=code, enhanced=enhanced, text=text)
    assert not is_throttling_reply(reply, Phase.ENVELOPE, is_about_recipient=False)


@pytest.mark.parametrize("text", ["Error: too many recipients from 192.0.2.1", "recipients rate overlimit"])
def test_a_rate_of_recipients_is_a_rate(text: str) -> None:
    """Postfix's and Exim's, in reply to RCPT."""
    assert is_throttling_reply(Reply(code=450, enhanced="4.7.1", text=text), Phase.ENVELOPE)


@pytest.mark.parametrize(
    ("about", "says", "throttled"),
    [
        ("MAIL", "450 4.7.1 wait", True),
        ("RCPT", "450 4.7.1 wait", False),
        ("DATA", "450 4.7.1 wait", True),
        (MESSAGE, "450 4.7.1 wait", True),
        ("MAIL", "451 4.1.8 who?", False),
    ],
)
@pytest.mark.parametrize("limit", [None, 1])
def test_the_command_that_is_refused_tells_whether_a_server_is_busy(
    about: str, says: str, throttled: bool, limit: int | None
) -> None:
    """Even if a recipient has the mail by an earlier transaction."""
    profile, count = ServerProfile(recipient_limit=limit), itertools.count()

    def decide(command: str) -> str | None:
        return says if command.startswith(about) and next(count) >= (limit or 0) else None

    with Server(decide) as server:
        manager = server.manager()
        (delivery,) = send_many([letter(0)], manager, lambda: Session(manager), profile=profile)
    assert delivery.outcome == ("partial" if limit else "refused")
    assert is_throttled(delivery) is throttled


# --- Slower, and faster again.


def test_each_complaint_doubles_the_pause_and_halves_the_connections_down_to_one() -> None:
    """Up to the longest pause."""
    pace, waits, counts = RateController(8, None), [], []
    for _ in range(5):
        wait = pace.on_throttled()
        assert wait is not None
        assert not pace.is_due()
        waits.append(wait)
        counts.append(pace.connections)
        pace.next_at = pace._paused_until = time.monotonic()
    assert counts == [4, 2, 1, 1, 1]
    for number, wait in enumerate(waits):
        assert 0.01 * 2**number <= wait <= 0.02 * 2**number


def test_complaints_about_what_went_before_the_pause_count_as_one() -> None:
    """Eight connections have eight mails in flight."""
    pace = RateController(8, None)
    assert pace.on_throttled() is not None
    assert [pace.on_throttled() for _ in range(7)] == [None] * 7
    assert pace.connections == 4


def test_a_complaint_does_not_make_a_limited_rate_any_faster() -> None:
    """A pause is half a second, and a mail a minute is a mail a minute."""
    pace = RateController(1, 1)
    pace.on_begin()
    next_at = pace.next_at
    pace.on_throttled()
    assert pace.next_at >= next_at


def test_connections_come_back_one_by_one_and_more_slowly_each_time() -> None:
    """A server that cannot handle them is not tried with them all the time."""

    def acceptances_until(connections: int) -> int:
        accepted = 0
        while pace.connections < connections:
            pace.on_accepted()
            accepted += 1
        return accepted

    pace = RateController(3, None)
    pace.limit_connections(1)
    first = acceptances_until(2)
    assert acceptances_until(3) >= first
    pace.limit_connections(2)
    assert acceptances_until(3) > first
    for _ in range(20):
        pace.limit_connections(2)
    assert acceptances_until(3) <= 2 * module._LONGEST_RECOVERY


def test_a_complaint_now_and_then_is_no_reason_to_pause_for_longer_each_time() -> None:
    """A hundred thousand mails would take days."""
    pace = RateController(1, None)
    for _ in range(100):
        wait = pace.on_throttled()
        assert wait is not None
        assert wait <= 0.02
        pace.next_at = pace._paused_until = time.monotonic()
        for _ in range(20):
            pace.on_accepted()


def test_once_enough_was_taken_the_next_pause_is_short_again() -> None:
    """Throttling from hours ago no longer counts."""
    pace = RateController(1, None)
    for _ in range(8):
        pace.on_throttled()
        pace.next_at = pace._paused_until = time.monotonic()
    for _ in range(100):
        pace.on_accepted()
    wait = pace.on_throttled()
    assert wait is not None
    assert wait <= 0.02


# --- A server with a limit.


class Clock:
    """Time that passes only when the code waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, chance: int = 0) -> None:
        self.now = 100.0
        monkeypatch.setattr(module, "time", self)
        monkeypatch.setattr(module, "random", random.Random(chance))  # noqa: S311 - no secret
        monkeypatch.setattr(module, "FIRST_PAUSE", 0.5)

    def monotonic(self) -> float:
        """As `time.monotonic`."""
        return self.now

    def send(
        self, pace: RateController, mails: int, *, limit: int, window: float, until: float = math.inf
    ) -> list[float]:
        """When a server with a limit per window accepted each mail; refused mails count too."""
        asked: list[float] = []
        taken: list[float] = []
        while len(taken) < mails:
            self.now = max(self.now, pace.next_at) + 0.001
            pace.on_begin()
            asked = [moment for moment in asked if moment > self.now - window]
            asked.append(self.now)
            if len(asked) > limit and self.now < until:
                pace.on_throttled()
            else:
                taken.append(self.now)
                pace.on_accepted()
        return taken


@pytest.mark.parametrize(("limit", "window"), [(3, 4), (5, 60), (30, 60), (100, 60)])
def test_a_server_that_takes_so_many_a_minute_is_sent_nearly_so_many(
    limit: int, window: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its limit; and it never refuses everything for so long that a mail is given up."""
    for chance in range(20):
        clock = Clock(monkeypatch, chance=chance)
        taken = clock.send(RateController(1, None), 20 * limit, limit=limit, window=window)
        assert taken[-1] - taken[0] < 3 * 20 * window
        assert max(after - before for before, after in itertools.pairwise(taken)) < 2 * 60


def test_the_rate_that_was_found_is_logged_without_needless_digits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One decimal below ten mails a minute, none above."""
    caplog.set_level("INFO", logger=module.__name__)
    for limit in (3, 100):
        Clock(monkeypatch).send(RateController(1, None), 10 * limit, limit=limit, window=60)
    rates = re.findall(r"accepts about (\S+) mails a minute", caplog.text)
    assert [rate for rate in rates if not re.fullmatch(r"\d\.\d|\d{2,}", rate)] == []
    assert {"." in rate for rate in rates} == {True, False}


def test_a_rate_that_was_asked_for_is_kept_to_whatever_was_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The author knows the server better."""
    clock = Clock(monkeypatch)
    taken = clock.send(RateController(1, 60), 50, limit=100, window=60)
    assert min(after - before for before, after in itertools.pairwise(taken)) >= 1


def test_a_limit_that_is_lifted_is_soon_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that was full for a while is no reason to send a mail every ten seconds all night."""
    clock = Clock(monkeypatch)
    taken = clock.send(RateController(1, None), 1000, limit=3, window=60, until=400)
    assert taken[-1] < 400 + 1800
    assert taken[-1] - taken[-2] < 0.01


def test_a_long_silence_is_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is restarted takes as much as before."""
    clock = Clock(monkeypatch)
    taken = clock.send(RateController(1, None), 500, limit=3, window=1000, until=200)
    assert taken[-1] < 200 + 500
    clock = Clock(monkeypatch)
    taken = clock.send(RateController(1, None), 500, limit=1, window=1000, until=200)
    assert taken[-1] < 200 + 60


# --- A server that cannot be reached.


def test_what_will_not_pass_is_not_tried_again() -> None:
    """A password does not become right."""
    assert ConnectBackoff(60).on_failure(AuthenticationError("no"))


def test_where_nobody_waits_a_few_openings_are_enough() -> None:
    """Each costs a mail."""
    openings = ConnectBackoff(0)
    assert [openings.on_failure(AWAY) for _ in range(MAX_CONNECT_FAILURES)] == [
        *[False] * (MAX_CONNECT_FAILURES - 1),
        True,
    ]


def test_a_server_that_is_away_is_tried_for_so_many_seconds_after_waits_that_double(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the first consecutive failure; a success in between restarts the count."""
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    openings = ConnectBackoff(0.3)
    tries = 1
    while not openings.on_failure(AWAY):
        tries += 1
        while not openings.is_due():
            clock[0] += 0.001
    assert 3 <= tries <= 7
    assert clock[0] - 100 <= 0.3
    openings.on_success()
    assert openings.is_due()
    assert not openings.on_failure(AWAY)


@pytest.mark.parametrize("seconds", [1e6, math.inf])
def test_a_server_that_is_away_for_days_is_tried_after_the_longest_pause_each_time(seconds: float) -> None:
    """Two to the power of this many failures overflows a float."""
    openings = ConnectBackoff(seconds)
    for _ in range(1100):
        now = time.monotonic()
        assert not openings.on_failure(AWAY)
        assert openings.next_at - now <= module.LONGEST_PAUSE + 1


# --- With a server.


def test_a_server_that_sheds_load_gets_fewer_connections_and_every_mail() -> None:
    """It refuses all but two sessions' mails, and says so; no mail is lost, and no one gets it twice."""
    lock, busy, refused = threading.Lock(), [0], [0]

    def decide(about: str) -> str | None:
        with lock:
            if about.startswith("MAIL"):
                busy[0] += 1
                if busy[0] % 6 == 0 and refused[0] < 5:
                    refused[0] += 1
                    return "451 4.3.2 System busy, throttled"
        return None

    mails = [letter(number) for number in range(60)]
    with Server(decide) as server:
        found = list(batch(server.manager(), mails, retry_for=60, connections=4))
    assert outcomes(found) == ["accepted"] * 60
    assert refused[0] == 5
    assert all(len(server.copies(f"<{number}@corp.example>")) == 2 for number in range(60))
    assert len(server.heard) < 30


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize(
    "says",
    [
        "421 4.4.2 Message submission rate for this client has exceeded the limit",
        "450 4.7.1 Error: too much mail from 127.0.0.1",
    ],
)
def test_a_server_with_a_limit_gets_every_mail_in_the_end(
    says: str, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number per period, and refused mails count too; Exchange's MessageRateLimit also closes the connection."""
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.025)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 1.5)
    monkeypatch.setattr(module, "_MIN_LEARNED_INTERVAL", 0.005)
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.05)
    monkeypatch.setattr(retry, "LONGEST_WAIT", 3.0)
    lock, asked = threading.Lock(), deque([-math.inf] * 3, maxlen=3)

    def decide(about: str) -> str | None:
        if not about.startswith("MAIL"):
            return None
        with lock:
            too_many = time.monotonic() - asked[0] < 0.2
            asked.append(time.monotonic())
        return says if too_many else None

    with Server(decide) as server:
        mails = [letter(number) for number in range(20)]
        found = list(batch(server.manager(), mails, retry_for=60, connections=connections))
    assert outcomes(found) == ["accepted"] * 20
    assert all(len(server.copies(f"<{number}@corp.example>")) == 2 for number in range(20))


def test_a_mail_that_was_taken_for_some_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """If every mail is copied to an unknown address, occasional throttling does not end the batch."""
    monkeypatch.setattr("airflow_provider_smtpcm.smtp.connection_pool._MAX_THROTTLED_SECONDS", 0.1)
    mails = 0

    def decide(about: str) -> str | None:
        nonlocal mails
        mails += about.startswith("MAIL")
        if about.startswith("MAIL") and mails in (3, 4, 60, 61):  # in a new session too
            return "451 4.3.0 busy"
        return "550 5.1.1 no such mailbox" if about.startswith(f"RCPT TO:<{B}>") else None

    def slowly() -> Iterator[SendRequest]:
        for send_request in requests([letter(number) for number in range(100)]):
            time.sleep(0.005)
            yield send_request

    with Server(decide, offers=()) as server:
        found = outcomes(list(batch(server.manager(), slowly(), retry_for=0)))
    assert (found.count("partial"), found.count("refused")) == (98, 2)
