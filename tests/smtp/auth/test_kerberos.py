"""A KDC that is silent is waited for once, and a call that hangs in the Kerberos library rules nothing out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import AuthenticationError
from airflow_provider_smtpcm.smtp.auth import kerberos
from airflow_provider_smtpcm.smtp.auth.kerberos import KerberosClient, TimedCalls

NO_ANSWER = r"Kerberos \(password of alice\): no KDC answered within .* seconds\."


@pytest.fixture
def answer() -> Iterator[threading.Event]:
    """What a KDC that is silent waits for."""
    event = threading.Event()
    yield event
    event.set()


def gone(name: str) -> bool:
    """Whether no thread of that name is left, after a while."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        if not any(thread.name == name for thread in threading.enumerate()):
            return True
        time.sleep(0.001)
    return False


def test_what_it_raises_is_raised_where_it_is_waited_for() -> None:
    """And what it returns is returned."""
    calls = TimedCalls("password of alice")

    def fail() -> None:
        raise LookupError("no such principal")

    with pytest.raises(LookupError, match="no such principal"):
        calls.run(fail, timeout=5)
    assert calls.run(lambda: 7, timeout=5) == 7


def test_while_a_call_that_was_given_up_goes_on_no_other_is_made(answer: threading.Event) -> None:
    """It would wait for the same KDC; once that has answered, it is asked again."""
    calls, made = TimedCalls("password of alice"), []
    with pytest.raises(AuthenticationError, match=NO_ANSWER) as caught:
        calls.run(answer.wait, timeout=0.05)
    assert caught.value.retryable
    for _ in range(9):
        with pytest.raises(AuthenticationError, match=NO_ANSWER):
            calls.run(lambda: made.append(1), timeout=60)
    assert made == []
    answer.set()
    assert gone("smtpcm-kerberos")
    calls.run(lambda: made.append(1), timeout=5)
    assert made == [1]


def test_a_call_that_hangs_for_ever_is_not_waited_for_for_ever(
    answer: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a share that is away, say."""
    monkeypatch.setattr(kerberos, "STUCK_SECONDS", 0.2)
    calls = TimedCalls("password of alice")
    with pytest.raises(AuthenticationError, match=NO_ANSWER):
        calls.run(answer.wait, timeout=0.05)
    time.sleep(0.2)
    assert calls.run(lambda: 7, timeout=5) == 7


# --- The ticket of a password or a keytab.


@pytest.fixture
def fetch(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], str]], KerberosClient]:
    """Gives somebody whose tickets come from this function."""

    def make(fetched: Callable[[], str]) -> KerberosClient:
        def request_ticket(_: KerberosClient) -> kerberos._Ticket:
            return kerberos._Ticket(None, None, fetched(), time.time() + 3600)

        monkeypatch.setattr(KerberosClient, "_request_ticket", request_ticket)
        login = {"auth_mode": "windows", "login": "alice", "password": "x", "domain": "CORP"}
        return KerberosClient(SmtpConnectionManager(host="mail.corp.example", **login))  # type: ignore[arg-type]

    return make


def in_threads(count: int, work: Callable[[], object]) -> list[threading.Thread]:
    """So many threads that do it."""
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_sessions_that_need_a_ticket_at_once_fetch_one(
    fetch: Callable[[Callable[[], str]], KerberosClient], answer: threading.Event
) -> None:
    """Each further one with a wrong password would count as a further try."""
    asked, failed = [], []

    def refuse() -> str:
        asked.append(1)
        answer.wait(5)
        raise AuthenticationError("wrong password")

    someone = fetch(refuse)

    def sign_in() -> None:
        try:
            someone._renew_ticket(None)
        except AuthenticationError as error:
            failed.append(error)

    threads = in_threads(8, sign_in)
    while len(asked) < 1:
        time.sleep(0.001)
    time.sleep(0.05)  # the others have come meanwhile
    answer.set()
    for thread in threads:
        thread.join(5)
    assert (len(asked), len(failed)) == (1, 8)


def test_a_thread_that_hangs_in_the_library_holds_nobody_up_for_ever(
    fetch: Callable[[Callable[[], str]], KerberosClient], answer: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one fetches the ticket, and the first, if it ever comes back, does no harm."""
    monkeypatch.setattr(kerberos, "STUCK_SECONDS", 0.1)
    hanging = [True]

    def hang_once() -> str:
        if hanging:
            hanging.clear()
            answer.wait(10)
            return "late"
        return "soon"

    someone = fetch(hang_once)
    (first,) = in_threads(1, lambda: someone._renew_ticket(None))
    while hanging:
        time.sleep(0.001)
    time.sleep(0.15)
    ticket = someone._renew_ticket(None)
    assert ticket.cache_name == "soon"
    answer.set()
    first.join(5)
    assert someone._renew_ticket(ticket).cache_name in ("late", "soon")
