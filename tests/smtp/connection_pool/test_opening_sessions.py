"""Many mails: sessions that cannot be opened, and those that end early."""

from __future__ import annotations

import itertools

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import (
    AuthenticationError,
    ConnectError,
)
from airflow_provider_smtpcm.smtp.session import Session
from airflow_provider_smtpcm.smtp.throttling import MAX_CONNECT_FAILURES
from tests.smtp.connection_pool.batches import letter, outcomes, send, send_many
from tests.smtp.server import Limit, Server


def test_a_server_that_is_down_is_asked_a_few_times_and_no_more() -> None:
    """Not for each of forty thousand mails."""
    attempts = 0

    def refuse() -> Session:
        nonlocal attempts
        attempts += 1
        raise ConnectError("Connection refused.", remedy="Start it.")

    manager = SmtpConnectionManager(host="127.0.0.1", ssl_mode="none")
    found = list(send_many([letter(number) for number in range(50)], manager, refuse, connections=4))
    assert outcomes(found) == ["not_sent"] * 50
    assert attempts <= MAX_CONNECT_FAILURES * 4
    assert all(delivery.error is not None and delivery.error.retryable for delivery in found)


def test_a_sign_in_that_is_refused_is_not_repeated() -> None:
    """It would lock the account."""
    attempts = 0

    def refuse() -> Session:
        nonlocal attempts
        attempts += 1
        raise AuthenticationError("Wrong password.", remedy="Correct it.")

    manager = SmtpConnectionManager(host="127.0.0.1", ssl_mode="none")
    found = list(send_many([letter(number) for number in range(20)], manager, refuse))
    assert outcomes(found) == ["not_sent"] * 20
    assert attempts == 1


def test_fewer_sessions_than_wanted_carry_all_mails() -> None:
    """The server allows two at a time, and refuses a third in its greeting."""
    greeted = itertools.count(1)

    def at_most_two(about: str) -> str | None:
        return "421 4.7.0 too many connections" if about == "CONNECT" and next(greeted) > 2 else None

    with Server(at_most_two) as server:
        found = list(send(server.manager(), [letter(number) for number in range(40)], connections=5))
    assert outcomes(found) == ["accepted"] * 40
    assert len(server.stored) == 40
    assert len(server.heard) <= 5


def test_a_bug_in_opening_a_session_is_not_taken_for_a_mails_fault() -> None:
    """It is raised in the caller's thread."""

    def broken() -> Session:
        raise ZeroDivisionError

    manager = SmtpConnectionManager(host="127.0.0.1", ssl_mode="none")
    with pytest.raises(ZeroDivisionError):
        list(send_many([letter(0)], manager, broken))


def test_a_server_that_closes_every_session_at_once_is_given_up_mail_by_mail() -> None:
    """Each session is tried with a mail, and there is no further one without progress."""
    with Server(lambda about: "421 4.3.2 not now" if about.startswith("MAIL") else None) as server:
        found = list(send(server.manager(), [letter(number) for number in range(5)], connections=2))
    assert outcomes(found) == ["refused"] * 5
    assert len(server.heard) <= 6


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("limit", Limit)
@pytest.mark.parametrize("per_connection", [1, 2, 5])
def test_a_limit_of_messages_for_each_connection_loses_and_repeats_nothing(
    per_connection: int, limit: Limit, connections: int
) -> None:
    """However the server ends the session."""
    with Server(per_connection=per_connection, limit=limit) as server:
        found = list(send(server.manager(), [letter(number) for number in range(12)], connections=connections))
    assert outcomes(found) == ["accepted"] * 12
    assert sorted(stored.message_id for stored in server.stored) == sorted(f"<{at}@corp.example>" for at in range(12))
    assert len(server.heard) >= 12 / per_connection
