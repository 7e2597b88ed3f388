"""A silent KDC is waited for once, and a call that hangs in the Kerberos library does not block others forever."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import AuthenticationError
from airflow_provider_smtpcm.smtp.auth import kdc_calls, kerberos
from airflow_provider_smtpcm.smtp.auth.kdc_calls import TimedCalls
from airflow_provider_smtpcm.smtp.auth.kerberos import KerberosClient
from airflow_provider_smtpcm.smtp.auth.sasl import AccountRefusedError
from tests.integration.programs import KERBEROS_COMMAND
from tests.waiting import wait_until

NO_ANSWER = r"Kerberos \(password of alice\): no KDC answered within .* seconds\."


@pytest.fixture
def answer() -> Iterator[threading.Event]:
    """An event; the simulated KDC is silent until it is set."""
    event = threading.Event()
    yield event
    event.set()


def test_an_error_of_a_call_is_raised_in_the_caller() -> None:
    """Like its result, which is returned there."""
    calls = TimedCalls("password of alice")

    def fail() -> None:
        raise LookupError("no such principal")

    with pytest.raises(LookupError, match="no such principal"):
        calls.run(fail, timeout=60)
    assert calls.run(lambda: 7, timeout=60) == 7


def test_no_call_is_made_while_one_that_timed_out_still_runs(answer: threading.Event) -> None:
    """It would wait for the same KDC. Once the KDC has answered, calls are made again."""
    calls, made = TimedCalls("password of alice"), []
    with pytest.raises(AuthenticationError, match=NO_ANSWER) as caught:
        calls.run(answer.wait, timeout=0.05)
    assert caught.value.retryable
    for _ in range(9):
        with pytest.raises(AuthenticationError, match=NO_ANSWER):
            calls.run(lambda: made.append(1), timeout=60)
    assert made == []
    answer.set()
    for thread in threading.enumerate():
        if thread.name == "smtpcm-kerberos":
            thread.join()
    calls.run(lambda: made.append(1), timeout=60)
    assert made == [1]


def test_who_waits_for_a_running_call_is_told_of_the_kdc(answer: threading.Event) -> None:
    """Before it times out, too; a call that has ended is nothing to wait for."""
    calls, began = TimedCalls("password of alice"), threading.Event()
    calls.raise_if_silent()

    def ask() -> None:
        began.set()
        answer.wait()

    caller = threading.Thread(target=lambda: calls.run(ask, timeout=60))
    caller.start()
    assert began.wait(60)
    with pytest.raises(AuthenticationError, match=NO_ANSWER) as caught:
        calls.raise_if_silent()
    assert caught.value.retryable
    answer.set()
    caller.join()
    calls.raise_if_silent()


def test_a_call_that_hangs_forever_does_not_block_others_forever(
    answer: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example on a network share that does not answer."""
    calls = TimedCalls("password of alice")
    with pytest.raises(AuthenticationError, match=NO_ANSWER):
        calls.run(answer.wait, timeout=0.05)
    monkeypatch.setattr(kdc_calls, "STUCK_SECONDS", 0.0)  # they are over
    assert calls.run(lambda: 7, timeout=60) == 7


def test_a_kdc_that_was_silent_is_not_waited_for_again(answer: threading.Event) -> None:
    """Not after its call has failed, either; who comes later is told what the first was told."""
    calls = TimedCalls("password of alice")
    silent = AuthenticationError("no KDC of the realm answers", retryable=True)

    def give_up() -> None:
        answer.wait()
        raise silent

    with pytest.raises(AuthenticationError, match=NO_ANSWER):
        calls.run(give_up, timeout=0.8)
    answer.set()
    wait_until(lambda: calls._silence is not None and calls._silence.message == silent.message)
    answer.clear()
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(AuthenticationError, match="no KDC"):
            calls.run(answer.wait, timeout=60)
    assert time.monotonic() - began < 10


def test_a_kdc_that_answers_again_is_waited_for_as_at_first(answer: threading.Event) -> None:
    """Also if it was the abandoned call that got the answer."""
    calls = TimedCalls("password of alice")
    with pytest.raises(AuthenticationError, match=NO_ANSWER):
        calls.run(answer.wait, timeout=0.05)
    answer.set()
    wait_until(lambda: calls._silence is None)
    assert calls.run(lambda: time.sleep(2 * kdc_calls.RECHECK_SECONDS) or 7, timeout=60) == 7


def test_a_refusal_that_came_after_the_timeout_is_that_of_later_calls(answer: threading.Event) -> None:
    """The KDC has counted the password, and another call would prove it again."""
    calls, made = TimedCalls("password of alice"), []

    def prove() -> None:
        answer.wait()
        assert calls.begin_proof(is_awaited=False)
        raise AccountRefusedError("the password is wrong")

    with pytest.raises(AuthenticationError, match=NO_ANSWER) as caught:
        calls.run(prove, timeout=0.05)
    assert caught.value.retryable
    (waiting,) = [thread for thread in threading.enumerate() if thread.name == "smtpcm-kerberos"]
    answer.set()
    waiting.join()
    with pytest.raises(AccountRefusedError, match="the password is wrong"):
        calls.run(lambda: made.append(1), timeout=60)
    assert made == []


def test_a_call_that_timed_out_proves_nothing_where_nobody_waits_for_it(answer: threading.Event) -> None:
    """NTLM has taken its place."""
    calls, may_prove = TimedCalls("password of alice"), []

    def prove() -> None:
        answer.wait()
        may_prove.append(calls.begin_proof(is_awaited=True))

    with pytest.raises(AuthenticationError, match=NO_ANSWER):
        calls.run(prove, timeout=0.05, proof_timeout=60)
    answer.set()
    wait_until(lambda: may_prove)
    assert may_prove == [False]


# --- The ticket of a password or a keytab.


@pytest.fixture
def fetch(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], str]], KerberosClient]:
    """Creates a client whose tickets come from a function."""

    def make(fetched: Callable[[], str]) -> KerberosClient:
        def request_ticket(_: KerberosClient) -> kerberos._Ticket:
            return kerberos._Ticket(None, None, fetched(), time.time() + 3600)

        monkeypatch.setattr(KerberosClient, "_request_ticket", request_ticket)
        login = {"auth_mode": "windows", "login": "alice", "password": "x", "domain": "CORP"}
        return KerberosClient(SmtpConnectionManager(host="mail.corp.example", **login))  # type: ignore[arg-type]

    return make


def in_threads(count: int, work: Callable[[], object]) -> list[threading.Thread]:
    """Start threads that do the same work."""
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_sessions_that_need_a_ticket_at_the_same_time_request_one(
    fetch: Callable[[Callable[[], str]], KerberosClient], answer: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a wrong password, each request would count toward a lockout."""
    asked, failed, waiting = [], [], []

    class Waited(Future[Any]):
        """The request, which notes who waits for its result."""

        def result(self, timeout: float | None = None) -> Any:
            waiting.append(1)
            return super().result(timeout)

    monkeypatch.setattr("concurrent.futures.Future", Waited)

    def refuse() -> str:
        asked.append(1)
        answer.wait()
        raise AuthenticationError("wrong password")

    someone = fetch(refuse)

    def sign_in() -> None:
        try:
            someone._renew_ticket(None)
        except AuthenticationError as error:
            failed.append(error)

    threads = in_threads(8, sign_in)
    wait_until(lambda: len(waiting) == 7)
    answer.set()
    for thread in threads:
        thread.join()
    assert (len(asked), len(failed)) == (1, 8)


def test_a_thread_that_hangs_in_the_library_does_not_block_others_forever(
    fetch: Callable[[Callable[[], str]], KerberosClient], answer: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one requests the ticket, and the first does no harm if it returns later."""
    hanging = [True]

    def hang_once() -> str:
        if hanging:
            hanging.clear()
            answer.wait()
            return "late"
        return "soon"

    someone = fetch(hang_once)
    (first,) = in_threads(1, lambda: someone._renew_ticket(None))
    wait_until(lambda: not hanging)
    monkeypatch.setattr(kerberos, "STUCK_SECONDS", 0.0)  # they are over
    ticket = someone._renew_ticket(None)
    assert ticket.cache_name == "soon"
    answer.set()
    first.join()
    assert someone._renew_ticket(ticket).cache_name in ("late", "soon")


# An error whose traceback is part of a cycle, as those of Airflow's tasks are, is left to Python's garbage collection.
COLLECTED = """\
import gc, sys
from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import AuthenticationError
from airflow_provider_smtpcm.smtp.auth.kerberos import KerberosClient

manager = SmtpConnectionManager(
    host="mail.corp.example", auth_mode="windows", windows_protocol="kerberos", login="alice", password="secret"
)
for _ in range(5):
    try:
        KerberosClient(manager).create_context(None, in_spnego=False, timeout=60)
    except AuthenticationError as error:
        cycle = [error]
        cycle.append(cycle)
        del cycle
    gc.collect()
"""


def test_a_failed_request_for_a_ticket_is_released_at_once(tmp_path: Path) -> None:
    """The Kerberos binding crashes the process if a request that failed is garbage-collected."""
    pytest.importorskip("krb5", reason=KERBEROS_COMMAND)
    path = tmp_path / "krb5.conf"
    path.write_text(
        "[libdefaults]\n default_realm = CORP.EXAMPLE\n dns_lookup_kdc = false\n"
        "[realms]\n CORP.EXAMPLE = {\n kdc = 127.0.0.1:1\n }\n",
        encoding="utf-8",
    )
    environment = os.environ | {"KRB5_CONFIG": str(path)}
    ended = subprocess.run(
        [sys.executable, "-c", COLLECTED], env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
