"""Sign-ins of one account: one at a time until it was accepted, and none once it was refused, or may have been."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable

import pytest

from airflow_provider_smtpcm.errors import AuthenticationError, ConnectionLostError, MailError, NoAnswerError
from airflow_provider_smtpcm.smtp import Delivery
from airflow_provider_smtpcm.smtp.auth import negotiation
from airflow_provider_smtpcm.smtp.auth.negotiation import WindowsAuthenticator
from airflow_provider_smtpcm.smtp.session import Session
from tests.smtp.auth.test_sasl import CHALLENGE
from tests.smtp.connection_pool.batches import letter, outcomes, send_many
from tests.smtp.server import HANG_UP, Server

ACCEPTED = "235 2.7.0 ok"
#: What servers say to a wrong password, and what they may mean by it.
REFUSALS = [f"{code} 5.7.3 no" for code in (535, 550, 501, 534, 500, 530, 554)] + ["250 what?", "334 aGVsbG8="]
#: What may be a refusal: the server does not say.
UNCLEAR = ["421 4.7.0 bye", HANG_UP, "garbage"]
TEMPORARY = ["454 4.7.0 Temporary authentication failure", "432 4.3.2 slow down", "435 Unable to authenticate"]


class Directory:
    """Accounts behind a mail server: counts how often a password was to be checked, and how many times at once.

    Args:
        verdict: returns the reply to the proof of this number, from 1.
    """

    def __init__(self, verdict: Callable[[int], str]) -> None:
        self._verdict = verdict
        self._lock = threading.Lock()
        self.proofs = self.at_once = self.most_at_once = 0

    def answer(self, line: str) -> str | None:
        """The server's reply to a line of an NTLM sign-in."""
        if line == "AUTH NTLM":
            return "334 ntlm supported"
        if line.startswith("TlRMTVNTUAAB"):
            return f"334 {base64.b64encode(CHALLENGE).decode()}"
        if not line.startswith("TlRMTVNTUAAD"):
            return None
        with self._lock:
            self.proofs += 1
            number = self.proofs
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
        time.sleep(0.05)  # the others have time to be so bold, too
        with self._lock:
            self.at_once -= 1
        return self._verdict(number)


class Account:
    """An account with a wrong or right password, as a hook signs it in at a server."""

    def __init__(self, verdict: Callable[[int], str]) -> None:
        self.directory = Directory(verdict)
        self.server = Server(self.directory.answer, offers=("AUTH NTLM", "8BITMIME"))
        self.manager = self.server.manager(
            timeout=20, auth_mode="windows", windows_protocol="ntlm", login=r"CORP\alice", password="x"
        )
        self.authenticator = WindowsAuthenticator(self.manager)

    def open(self) -> Session:
        return Session(self.manager, authenticator=self.authenticator).open()

    def send(self, count: int = 20, connections: int = 8, **how: float) -> list[Delivery]:
        def new_session() -> Session:
            return Session(self.manager, authenticator=self.authenticator)

        mails = [letter(number) for number in range(count)]
        return list(send_many(mails, self.manager, new_session, connections=connections, **how))


@pytest.mark.parametrize("verdict", [*REFUSALS, *UNCLEAR])
def test_a_wrong_password_is_proved_once_whatever_the_verdict_is_called(verdict: str) -> None:
    """In one batch, in the next, and with single mails; each mail has an error that no retry follows."""
    account = Account(lambda _: verdict)
    with account.server:
        first = account.send(retry_connect_for=5)
        again = account.send(count=3)
        with pytest.raises(AuthenticationError) as caught:
            account.open()
    assert account.directory.proofs == 1
    assert outcomes(first) == ["not_sent"] * 20
    assert outcomes(again) == ["not_sent"] * 3
    assert not any(delivery.error.retryable for delivery in first + again if delivery.error)
    assert not caught.value.retryable


@pytest.mark.parametrize("verdict", ["421 4.7.0 bye", HANG_UP])
def test_a_hang_up_instead_of_the_verdict_is_said_to_be_a_refusal_perhaps(verdict: str) -> None:
    """And nobody is told to try again as if nothing had happened."""
    account = Account(lambda _: verdict)
    with account.server, pytest.raises(AuthenticationError) as caught:
        account.open()
    assert r"may have refused the NTLM sign-in of CORP\alice" in caught.value.message
    assert "'Password'" in caught.value.remedy
    assert "ry again" not in caught.value.remedy


@pytest.mark.parametrize("verdict", TEMPORARY)
def test_a_server_that_cannot_check_now_is_asked_one_at_a_time(verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who come meanwhile take the first one's answer, so that eight connections are not eight proofs."""
    account = Account(lambda _: verdict)
    with account.server, monkeypatch.context() as patch:
        patch.setattr(negotiation, "SHARED_SECONDS", 600.0)
        found = account.send()
    assert account.directory.proofs == 1
    assert all(delivery.error is not None and delivery.error.retryable for delivery in found)


def test_a_server_that_could_not_check_for_a_while_gets_the_mails_in_the_end() -> None:
    """The account was right all the time."""
    account = Account(lambda number: TEMPORARY[0] if number < 3 else ACCEPTED)
    with account.server:
        found = account.send(retry_connect_for=20)
    assert outcomes(found) == ["accepted"] * 20


@pytest.mark.parametrize("stage", ["AUTH NTLM", "TlRMTVNTUAAB"])
def test_a_hang_up_before_the_password_was_proved_is_a_broken_line(stage: str) -> None:
    """The directory has counted nothing."""
    account = Account(lambda _: ACCEPTED)
    broken = [True, True]

    def hang_up_first(line: str) -> str | None:
        return HANG_UP if line.startswith(stage) and broken and broken.pop() else account.directory.answer(line)

    account.server._decide = hang_up_first
    with account.server:
        with pytest.raises(ConnectionLostError) as caught:
            account.open()
        assert caught.value.retryable
        assert outcomes(account.send(retry_connect_for=20)) == ["accepted"] * 20


@pytest.mark.parametrize("verdict", ["421 4.7.0 bye", HANG_UP])
def test_a_hang_up_at_an_account_that_was_accepted_before_is_a_broken_line_once(verdict: str) -> None:
    """A server that restarts does this. A second time, the password may have been changed."""
    account = Account(lambda number: ACCEPTED if number in (1, 3) else verdict)
    with account.server:
        account.open().close()
        with pytest.raises(MailError) as broken:
            account.open()
        assert broken.value.retryable
        account.open().close()
        for retryable in (True, False, False):
            with pytest.raises(MailError) as broken:
                account.open()
            assert broken.value.retryable is retryable
    assert account.directory.proofs == 5


def test_a_password_that_is_changed_between_two_batches_is_proved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some time after the last success, sign-ins go one at a time again."""
    account = Account(lambda number: ACCEPTED if number <= 8 else "535 5.7.3 no")
    with account.server:
        assert outcomes(account.send(count=1, connections=1)) == ["accepted"]
        monkeypatch.setattr(negotiation, "TRUST_SECONDS", -1.0)
        account.directory.proofs = 8
        assert outcomes(account.send()) == ["not_sent"] * 20
    assert account.directory.proofs == 9


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
