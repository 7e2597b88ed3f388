"""Until a sign-in has succeeded, other sessions wait for it, but no longer than their own timeout."""

from __future__ import annotations

from airflow_provider_smtpcm.errors import NoAnswerError
from airflow_provider_smtpcm.smtp.auth.negotiation import WindowsAuthenticator
from airflow_provider_smtpcm.smtp.session import Session
from tests.smtp.connection_pool.batches import letter, outcomes, send_many
from tests.smtp.server import Server


def test_sessions_of_a_server_that_does_not_reply_to_auth_do_not_add_up_their_timeouts() -> None:
    """They would if each waited for all sessions before it."""

    def say_nothing(about: str) -> str | None:
        if about.startswith("AUTH"):
            server.over.wait(20)
        return None

    with Server(say_nothing, offers=("AUTH NTLM", "8BITMIME")) as server:
        manager = server.manager(
            timeout=1.5, auth_mode="windows", windows_protocol="ntlm", login=r"CORP\alice", password="x"
        )
        authenticator = WindowsAuthenticator(manager)
        mails = [letter(number) for number in range(12)]
        found = list(
            send_many(mails, manager, lambda: Session(manager, authenticator=authenticator).open(), connections=12)
        )
        asked = sum(command.startswith("AUTH") for command in server.commands)
    assert outcomes(found) == ["not_sent"] * 12
    assert {type(delivery.error) for delivery in found} == {NoAnswerError}
    assert asked < 8
