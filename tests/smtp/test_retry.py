"""Mail that reached no one is retried with exponential backoff, for a limited time; mail in doubt never is."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import SimpleNamespace

import pytest

from airflow_provider_smtpcm.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionLostError,
    ConnectionSettingsError,
    MailError,
    MessageError,
    OutcomeUnknownError,
    Phase,
    RefusedError,
    Reply,
    StoppedError,
    TlsError,
)
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.smtp import retry as module
from airflow_provider_smtpcm.smtp.outcome import Delivery, Outcome
from airflow_provider_smtpcm.smtp.queue import SendRequest
from airflow_provider_smtpcm.smtp.retry import RetryQueue, pending_recipients

A, B, C = "a@corp.example", "b@corp.example", "c@corp.example"
LATER, NEVER = Reply(code=451, text="later"), Reply(code=550, text="no")
BUSY = RefusedError("refused", phase=Phase.ENVELOPE, reply=LATER, retryable=True)


def send_request(index: int = 0, *to: str) -> SendRequest:
    """A mail with this index."""
    return SendRequest(
        index, Mail(from_address="etl@corp.example", to=to or (A,), message_id=f"<{index}@corp.example>")
    )


def became(
    outcome: Outcome,
    error: MailError | None = BUSY,
    *,
    index: int = 0,
    accepted: tuple[str, ...] = (),
    refused: Mapping[str, Reply] | None = None,
) -> Delivery:
    """Its delivery."""
    return Delivery(
        index=index,
        message_id=f"<{index}@corp.example>",
        outcome=outcome,
        accepted=accepted,
        refused=refused or {},
        error=error,
    )


def refused(index: int = 0) -> Delivery:
    """Every recipient was temporarily refused."""
    return became(Outcome.REFUSED, index=index, refused={A: LATER})


def settled(retry_queue: RetryQueue, delivery: Delivery) -> Delivery | None:
    """What the queue returns for this delivery."""
    return retry_queue.settle(delivery, retry_queue.pending_recipients(delivery))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT", 0.02)


# --- What is not retried.


@pytest.mark.parametrize(
    "delivery",
    [
        became(Outcome.UNKNOWN, OutcomeUnknownError("no answer")),
        became(Outcome.UNKNOWN, OutcomeUnknownError("no answer"), accepted=(A,), refused={B: LATER}),
        became(Outcome.REFUSED, RefusedError("no", reply=NEVER), refused={A: NEVER, B: NEVER}),
        became(Outcome.PARTIAL, RefusedError("no", reply=NEVER), accepted=(A,), refused={B: NEVER}),
        became(Outcome.NOT_SENT, MessageError("no such file")),
        became(Outcome.ACCEPTED, None, accepted=(A, B)),
    ],
    ids=lambda delivery: f"{delivery.outcome}, {len(delivery.refused)} refused",
)
def test_what_may_have_been_delivered_or_was_refused_for_good_has_no_further_turn(delivery: Delivery) -> None:
    """Whatever time is left."""
    retry_queue = RetryQueue(iter((send_request(0, A, B),)), 60)
    turns = iter(retry_queue)
    next(turns)
    assert retry_queue.pending_recipients(delivery) == ()
    assert settled(retry_queue, delivery) is delivery
    assert list(turns) == []


@pytest.mark.parametrize(
    "error",
    [
        ConnectError("nobody is there"),
        TlsError("not verified", retryable=True),
        AuthenticationError("not now", retryable=True),
        ConnectionSettingsError(["no host"]),
        StoppedError("asked to end"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_server_that_was_tried_for_long_enough_is_the_end(error: MailError) -> None:
    """Opening a session has retries of its own; and a canceled batch does not retry."""
    retry_queue = RetryQueue(iter((send_request(),)), 60)
    next(iter(retry_queue))
    delivery = became(Outcome.NOT_SENT, error)
    assert settled(retry_queue, delivery) is delivery


def test_without_time_there_is_one_turn() -> None:
    """`retry_for=0`."""
    retry_queue = RetryQueue(iter((send_request(),)), 0)
    next(iter(retry_queue))
    delivery = refused()
    assert settled(retry_queue, delivery) is delivery


def test_no_turn_begins_after_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts from the first attempt, and the wait before the next one counts too."""
    now, turns, last = 100.0, 0, 0.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(module, "FIRST_WAIT", 0.05)
    retry_queue = RetryQueue(iter((send_request(),)), 0.3)
    for each in retry_queue:
        if isinstance(each, float):
            now += 0.001
            continue
        turns, last = turns + 1, now
        settled(retry_queue, refused())
    assert 2 <= turns <= 5
    assert last < 100.301


# --- What is retried.


@pytest.mark.parametrize(
    ("delivery", "left"),
    [
        (became(Outcome.REFUSED, refused={A: LATER, B: LATER, C: LATER}), (A, B, C)),
        (became(Outcome.REFUSED, refused={A: NEVER, B: LATER, C: NEVER}), (B,)),
        (became(Outcome.PARTIAL, accepted=(A,), refused={B: LATER, C: NEVER}), (B,)),
        (became(Outcome.NOT_SENT, ConnectionLostError("broke", phase=Phase.ENVELOPE)), (A, B, C)),
        (became(Outcome.PARTIAL, ConnectionLostError("broke", phase=Phase.DATA), accepted=(A,)), (B, C)),
        (became(Outcome.PARTIAL, MessageError("the file is gone"), accepted=(A,)), ()),
    ],
)
def test_those_are_left_whom_another_try_may_reach_and_cannot_reach_twice(
    delivery: Delivery, left: tuple[str, ...]
) -> None:
    """Recipients that were accepted, or permanently refused, are not among them."""
    assert pending_recipients(delivery, send_request(0, A, B, C)) == left


def test_of_a_mail_that_some_have_the_others_alone_are_asked() -> None:
    """With what is known of the rest."""
    retry_queue = RetryQueue(iter((send_request(0, A, B, C),)), 60)
    turns = (each for each in retry_queue if isinstance(each, SendRequest))
    first = next(turns)
    assert settled(retry_queue, became(Outcome.PARTIAL, accepted=(A,), refused={B: LATER, C: NEVER})) is None
    again = next(turns)
    assert (again.index, again.recipients, again.accepted, again.refused) == (0, (B,), (A,), {C: NEVER})
    assert again.mail is first.mail  # and with it the Message-ID
    done = became(Outcome.PARTIAL, accepted=(A, B), refused={C: NEVER})
    assert settled(retry_queue, done) is done
    assert list(turns) == []


def test_each_wait_is_twice_the_one_before_up_to_a_longest_and_never_quite_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thousand tasks do not retry in step."""
    monkeypatch.setattr(module, "FIRST_WAIT", 1.0)
    firsts, waits = set(), []
    for _ in range(20):
        retry_queue = RetryQueue(iter((send_request(),)), 1e6)
        next(iter(retry_queue))
        waits = []
        for _ in range(9):
            now = time.monotonic()
            assert settled(retry_queue, refused()) is None
            ((at, _),) = retry_queue._waiting
            retry_queue._waiting.clear()
            waits.append(at - now)
        firsts.add(round(waits[0], 4))
    for number, wait in enumerate(waits):
        longest = min(module.LONGEST_WAIT, 2.0**number)
        assert longest / 2 <= wait <= longest + 0.05
    assert len(firsts) > 10


def test_no_mail_is_begun_while_very_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory does not grow with the number of mails that a server refuses."""
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    now = 100.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(module, "FIRST_WAIT", 0.2)
    retry_queue = RetryQueue(map(send_request, range(5)), 60)
    turns = iter(retry_queue)
    for index in range(3):
        assert isinstance(next(turns), SendRequest)
        assert settled(retry_queue, refused(index)) is None
    assert isinstance(next(turns), float)
    now += 0.2
    again = next(turns)
    assert isinstance(again, SendRequest)
    assert again.index < 3


def test_nothing_to_do_just_now_is_said_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By it, and by those who give the mails; and it ends when the last one is settled."""
    now = 100.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))

    def source() -> Iterator[SendRequest | float]:
        yield 7.0
        yield send_request()

    retry_queue = RetryQueue(source(), 60)
    turns = iter(retry_queue)
    assert next(turns) == 7.0
    assert isinstance(next(turns), SendRequest)
    assert next(turns) == math.inf
    settled(retry_queue, refused())
    due = next(turns)
    assert isinstance(due, float)
    assert 0.01 <= due - now <= 0.02
    now = due
    assert isinstance(next(turns), SendRequest)
    settled(retry_queue, became(Outcome.ACCEPTED, None, accepted=(A,)))
    assert list(turns) == []


def test_who_has_it_from_an_earlier_turn_is_no_sign_that_the_server_takes_mails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For a busy server, twice the time counts from the last accepted mail, and no more."""
    now = 100.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(module, "FIRST_WAIT", 1.0)
    busy, yes = Reply(code=421, text="busy"), Reply(code=250, text="queued")
    retry_queue = RetryQueue(iter((send_request(0, A, B),)), 60)
    turns = iter(retry_queue)
    assert next(turns)
    taken = replace(became(Outcome.PARTIAL, accepted=(A,), refused={B: busy}), reply=yes)
    assert settled(retry_queue, taken) is None
    again = replace(taken, reply=busy)
    while True:
        now += 1
        if isinstance(next(turns), SendRequest) and settled(retry_queue, again) is not None:
            break
    assert now - 100 <= 2 * 60


@pytest.mark.parametrize("seconds", [1e6, math.inf, float("1.7e308")])
def test_a_mail_that_is_tried_for_days_waits_as_long_before_each_turn(seconds: float) -> None:
    """Two to the power of this many attempts overflows a float."""
    retry_queue = RetryQueue(iter((send_request(),)), seconds)
    next(iter(retry_queue))
    for _ in range(1100):
        now = time.monotonic()
        assert settled(retry_queue, refused()) is None
        ((at, _),) = retry_queue._waiting
        retry_queue._waiting.clear()
        assert at - now <= module.LONGEST_WAIT + 1


def test_who_waited_when_nobody_has_another_turn_is_told_as_it_stood() -> None:
    """In the order of the mails."""
    retry_queue = RetryQueue(map(send_request, range(3)), 60)
    turns = iter(retry_queue)
    for _ in range(3):
        next(turns)
    waiting = [refused(index) for index in (2, 0)]
    assert [settled(retry_queue, delivery) for delivery in waiting] == [None, None]
    assert retry_queue.abandon(()) == [waiting[1], waiting[0]]
    assert retry_queue.abandon(()) == []


def test_who_had_another_turn_and_never_got_away_is_told_as_it_stood_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender failed; for a mail that was sent again, the last result no longer counts."""
    monkeypatch.setattr(module, "FIRST_WAIT", 0.0)
    retry_queue = RetryQueue(map(send_request, range(2)), 60)
    turns = iter(retry_queue)
    for _ in range(2):
        next(turns)
    for index in range(2):
        settled(retry_queue, refused(index))
    assert (
        {turn.index for turn in (next(turns), next(turns)) if isinstance(turn, SendRequest)}
        == retry_queue.in_flight
        == {0, 1}
    )
    assert retry_queue.abandon(retry_queue.in_flight) == []
    assert [delivery.index for delivery in retry_queue.abandon({0})] == [1]


def test_an_interruption_names_who_may_have_the_mail_and_who_has_it() -> None:
    """Its Message-ID is in the server's log because of the others."""
    queue = RetryQueue(iter([send_request(0, A, B)]), 60)
    requests = iter(queue)
    assert isinstance(next(requests), SendRequest)
    assert settled(queue, became(Outcome.PARTIAL, accepted=(A,), refused={B: LATER})) is None
    while not isinstance(next(requests), SendRequest):
        time.sleep(0.01)
    (delivery,) = queue._finish_interrupted((), TimeoutError("it took too long"))
    assert (delivery.outcome, delivery.accepted) == (Outcome.UNKNOWN, (A,))
    assert f"While this mail was in flight to {B}, " in str(delivery.error)
    assert f"It was accepted for {A}. Look for its Message-ID and {B} in the server's log" in str(delivery.error)
