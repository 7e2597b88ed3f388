"""A server that limits what one session may send gets the rest in new ones; a busy one is not stormed with them."""

from __future__ import annotations

import itertools
import threading
from collections import Counter

import pytest

from airflow_provider_smtpcm.smtp import Delivery, retry, throttling
from airflow_provider_smtpcm.smtp.session import Session
from tests.smtp.connection_pool.batches import letter, outcomes, send, send_many
from tests.smtp.server import MESSAGE, Decide, Server, SessionLimit
from tests.smtp.test_many_recipients import everybody_once, sent
from tests.smtp.test_many_recipients import letter as letter_to_many
from tests.smtp.test_retried_batches import batch

A = "a0@corp.example"
OFFERS = pytest.mark.parametrize("offers", [("PIPELINING", "SIZE 0"), ("SIZE 0",)], ids=["pipelining", "one by one"])


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(throttling, "FIRST_PAUSE", 0.02)


def everybody_has_it_once(server: Server, mails: int) -> bool:
    """Whether both recipients of each mail have it exactly once."""
    return all(
        Counter(server.copies(f"<{number}@corp.example>"))
        == {f"a{number}@corp.example": 1, f"b{number}@corp.example": 1}
        for number in range(mails)
    )


# --- Failures


def test_a_message_that_was_sent_in_full_is_not_sent_through_another_session_at_once() -> None:
    """It was refused after its final dot: what follows is for the retries to decide."""
    messages = itertools.count()

    def decide(about: str) -> str | None:
        return "452 4.4.5 messages per session" if about == MESSAGE and next(messages) == 2 else None

    with Server(decide, offers=("SIZE 0",)) as server:
        assert outcomes(list(send(server.manager(), [letter(number) for number in range(4)]))) == [
            *["accepted"] * 2,
            "refused",
            "accepted",
        ]
        assert not server.copies("<2@corp.example>")


@OFFERS
@pytest.mark.parametrize("connections", [1, 3])
def test_a_mail_that_is_refused_in_a_new_session_too_is_refused(connections: int, offers: tuple[str, ...]) -> None:
    """It alone; and it costs at most the sessions that were open."""

    def decide(about: str) -> str | None:
        return "451 4.3.0 not this one" if about.startswith("MAIL FROM:<odd@") else None

    mails = [letter(number) for number in range(40)]
    mails[20] = mails[20].with_identity(from_address=mails[20].from_address, envelope_from="odd@corp.example")
    with Server(decide, offers=offers) as server:
        found = outcomes(list(send(server.manager(), mails, connections=connections)))
        asked = [line for line in server.commands if "odd@" in line]
    assert found.count("accepted") == 39
    assert found[20] == "refused"
    assert 2 <= len(asked) <= connections + 1
    assert len(server.heard) <= 2 * connections + 1


@pytest.mark.parametrize("connections", [1, 4])
def test_a_busy_server_is_not_stormed_with_sessions(connections: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new session shows that the limit is not one of the session: then there are pauses, and few further sessions."""
    monkeypatch.setattr("airflow_provider_smtpcm.smtp.connection_pool._MAX_THROTTLED_SECONDS", 1.0)
    lock, asked = threading.Lock(), itertools.count()

    def decide(about: str) -> str | None:
        with lock:
            return "450 4.7.1 too much mail" if about.startswith("MAIL") and next(asked) >= 20 else None

    with Server(decide) as server:
        mails = [letter(number) for number in range(100)]
        found = list(batch(server.manager(), mails, retry_for=0.5, connections=connections))
        refusals = sum(line.startswith("MAIL") for line in server.commands) - 20
    assert outcomes(found).count("accepted") == 20
    assert refusals < 20
    assert len(server.heard) <= 2 * connections + refusals // 2


def test_a_session_that_was_given_without_another_one_is_kept() -> None:
    """A caller's own session is closed by the caller."""
    with Server(session_limit=SessionLimit("MAIL", 2, "452 4.5.3 Too many messages sent")) as server:
        manager = server.manager()
        with Session(manager) as session:
            found = [session.send(letter(number)).outcome for number in range(4)]
            assert session.is_open
    assert found == ["accepted", "accepted", "refused", "refused"]
    assert len(server.heard) == 1


# --- Success


@OFFERS
@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize(
    ("command", "count", "says"),
    [
        ("MAIL", 5, "452 4.5.3 Too many recipients: Too many messages sent"),  # OpenSMTPD
        ("MAIL", 5, "451 Mails per session limit"),
        ("MAIL", 5, "450 4.7.0 no more"),
        ("DATA", 5, "452 4.4.5 Maximum number of messages per session exceeded."),  # Stalwart
        ("RCPT", 10, "452 4.5.3 Too many recipients"),
        ("RCPT", 10, "552 5.5.3 Too many recipients"),
        ("RCPT", 10, "450 4.3.2 no more in this session"),
    ],
)
def test_a_limit_of_a_session_is_none_of_the_batch(
    command: str, count: int, says: str, connections: int, offers: tuple[str, ...]
) -> None:
    """Without retries, and without a pause: the refused mail goes through a new session."""
    with Server(offers=offers, session_limit=SessionLimit(command, count, says)) as server:
        found = list(send(server.manager(), [letter(number) for number in range(23)], connections=connections))
    assert outcomes(found) == ["accepted"] * 23
    assert everybody_has_it_once(server, 23)
    assert len(server.heard) <= 23 // 5 + connections


@pytest.mark.parametrize("says", ["452 4.5.3 too many", "552 5.5.3 too many", "451 4.5.3 too many", "452 too many"])
def test_a_mail_to_more_than_a_session_takes_goes_through_several(says: str) -> None:
    """Everyone has it once, and each session is used for as many as it takes."""
    with Server(session_limit=SessionLimit("RCPT", 200, says)) as server:
        (delivery,) = sent(server, letter_to_many(0, 500))
    assert delivery.outcome == "accepted"
    assert everybody_once(server, 0, 500)
    assert len(server.heard) <= 5


@OFFERS
@pytest.mark.parametrize("connections", [1, 3])
def test_an_announced_number_of_mails_is_never_exceeded(connections: int, offers: tuple[str, ...]) -> None:
    """LIMITS MAILMAX (RFC 9422 4): each session has so many, and none is refused."""
    limit = SessionLimit("MAIL", 5, "554 5.5.0 you were told")
    with Server(offers=(*offers, "LIMITS MAILMAX=5 RCPTMAX=50"), session_limit=limit) as server:
        found = list(send(server.manager(), [letter(number) for number in range(23)], connections=connections))
    assert outcomes(found) == ["accepted"] * 23
    assert everybody_has_it_once(server, 23)
    assert max(sum(line.startswith("MAIL") for line in lines) for lines in server.heard) == 5
    assert len(server.heard) <= 23 // 5 + connections


def test_refused_mails_count_too() -> None:
    """RFC 9422 4: each MAIL, whatever its reply; and a session that had all of its mails gets no later one."""

    def decide(about: str) -> str | None:
        return "550 5.7.1 no" if about.startswith("MAIL") and counted[0] else None

    counted = [True]
    with Server(decide, offers=("PIPELINING", "LIMITS MAILMAX=2")) as server:
        manager = server.manager()
        session = Session(manager)
        with session:
            found: list[Delivery] = list(send_many([letter(0), letter(1)], manager, lambda: session, session=session))
            counted[0] = False
            found += session.send_many([letter(2), letter(3), letter(4)])
            assert session.is_open
    assert [str(delivery.outcome) for delivery in found] == ["refused", "refused", "accepted", "accepted", "accepted"]
    assert [sum(line.startswith("MAIL") for line in lines) for lines in server.heard] == [2, 2, 1]


@pytest.mark.parametrize(
    ("said", "limit"), [("MAILMAX=100", 100), ("rcptmax=7 mailmax=3", 3), ("MAILMAX=0", None), ("XMAILMAX=5", None)]
)
def test_a_number_of_mails_that_is_none_is_not_one(said: str, limit: int | None) -> None:
    """RFC 9422 4.2: one to six digits, the first of which is not 0."""
    with Server() as server:
        session = Session(server.manager())
        session.extensions = {"LIMITS": said}
        assert session.mail_limit == limit


def test_a_callers_session_is_opened_again_and_left_open() -> None:
    """As if the server had closed it."""
    with Server(session_limit=SessionLimit("MAIL", 3, "452 4.5.3 Too many messages sent")) as server:
        manager = server.manager()
        with Session(manager) as session:
            found = list(session.send_many([letter(number) for number in range(7)]))
            assert session.is_open
    assert outcomes(found) == ["accepted"] * 7
    assert everybody_has_it_once(server, 7)
    assert len(server.heard) == 3


def at_first_session(says: str) -> Decide:
    """Refuses every recipient in the first session."""
    sessions = itertools.count()
    current = [0]

    def decide(about: str) -> str | None:
        if about == "CONNECT":
            current[0] = next(sessions)
        return says if about.startswith("RCPT") and not current[0] else None

    return decide


@OFFERS
def test_a_server_that_wants_to_be_called_again_is(offers: tuple[str, ...]) -> None:
    """Postfix' postscreen, after its deep protocol tests: the retry is refused too, until the client reconnects."""
    with Server(at_first_session("450 4.3.2 Service currently unavailable"), offers=offers) as server:
        found = list(batch(server.manager(), [letter(number) for number in range(3)]))
    assert outcomes(found) == ["accepted"] * 3
    assert everybody_has_it_once(server, 3)
    assert len(server.heard) == 2
