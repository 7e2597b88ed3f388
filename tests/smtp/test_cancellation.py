"""A canceled batch starts no further mail, sends no half mail, reads the replies that come, and reports each mail."""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, SimpleNamespace
from typing import Any, BinaryIO

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager, SslMode
from airflow_provider_smtpcm.errors import RefusedError, StoppedError
from airflow_provider_smtpcm.mail import Attachment, Mail
from airflow_provider_smtpcm.smtp import Delivery, Outcome, connection_pool, retry
from airflow_provider_smtpcm.smtp.cancellation import CancellationToken
from airflow_provider_smtpcm.smtp.connection_pool import BatchSender
from airflow_provider_smtpcm.smtp.queue import SendRequest
from airflow_provider_smtpcm.smtp.retry import RetryQueue
from airflow_provider_smtpcm.smtp.session import Session
from airflow_provider_smtpcm.smtp.tls import create_tls_context
from tests.smtp.connection_pool.batches import requests
from tests.smtp.dialogue import Dialogue
from tests.smtp.server import MESSAGE, Server
from tests.smtp.test_pipelining import BYE, HELLO, QUEUED, WANTED
from tests.smtp.test_retried_batches import A, B, at_first, batch, letter
from tests.waiting import wait_until

ManagerFor = Callable[..., SmtpConnectionManager]
PLAIN = "S: 220 mail ESMTP\nC: EHLO *\nS: 250-mail\nS: 250 8BITMIME"
GROUP = "C: MAIL *\nC: RCPT *\nC: RCPT *\nC: DATA"
STEPS = ["C: MAIL *", "S: 250 ok", "C: RCPT *", "S: 250 ok", "C: RCPT *", "S: 250 ok", "C: DATA", "S: 354 go on"]
FORGET = "C: RSET\nS: 250 ok\nC: QUIT\nS: 221 bye"
LONG = 8_000_000


def script(*steps: str) -> str:
    """A dialogue from its parts."""
    return "\n".join(steps)


def paused(dialogue: Dialogue) -> bool:
    """Whether the server has reached its PAUSE, which ends a moment after the cancellation."""
    return dialogue.paused.is_set()


def heard(word: str) -> Callable[[Dialogue], bool]:
    """Whether the client has sent this."""
    return lambda dialogue: any(line.startswith(word) for line in dialogue.heard)


def stopped(
    dialogue: Dialogue,
    manager: SmtpConnectionManager,
    mails: list[Mail],
    when: Callable[[Dialogue], bool] = paused,
    *,
    connections: int = 1,
) -> dict[int, Delivery]:
    """The outcomes of the mails if the batch is canceled in the middle, by index."""
    stop = CancellationToken()
    dialogue.go_on.clear()

    def ask() -> None:
        wait_until(lambda: when(dialogue))
        stop.cancel("the worker is shut down")
        dialogue.go_on.set()

    asking = threading.Thread(target=ask)
    asking.start()
    # A source that returns a time counts as fast, so the mails are pipelined.
    found = list(batch(manager, iter((-math.inf, *requests(mails))), stop=stop, connections=connections))
    asking.join()
    assert len({delivery.index for delivery in found}) == len(found)
    return {delivery.index: delivery for delivery in found}


def assert_stopped(delivery: Delivery) -> None:
    """No one has it, and the outcome says so."""
    assert (delivery.outcome, type(delivery.error)) == (Outcome.NOT_SENT, StoppedError)
    assert delivery.error is not None
    assert delivery.error.retryable
    assert str(delivery.error) == "It was not sent: the worker is shut down. Run the task again."


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_pool, "_CANCEL_SECONDS", 30.0)  # the reply that comes in the end is awaited
    monkeypatch.setattr(retry, "FIRST_WAIT", 5.0)


# --- Before any command.


def test_who_was_asked_beforehand_bothers_no_server(manager_for: ManagerFor) -> None:
    """A worker that is shut down while a task begins."""
    stop = CancellationToken()
    stop.cancel()
    with Dialogue("S: 220 mail") as dialogue:
        assert list(batch(manager_for(dialogue), [letter(0), letter(1)], stop=stop)) == []
        assert not dialogue.connected


def test_a_session_that_is_being_opened_is_given_up_at_once(manager_for: ManagerFor) -> None:
    """With one connection, it is opened in the thread that sends; the server does not answer EHLO."""
    with Dialogue("S: 220 mail ESMTP\nC: EHLO *\nHANG") as dialogue:
        found = stopped(dialogue, manager_for(dialogue), [letter(0), letter(1)], heard("EHLO"))
        assert_stopped(found[0])
    assert dialogue.heard[1:] == []


@pytest.mark.parametrize("stalled", ["name service", "greeting", "TLS handshake"])
def test_a_session_is_given_up_at_whatever_moment_of_its_opening(stalled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler may run before there is a session, a lock or a socket to interrupt."""
    resolve, answers = socket.getaddrinfo, threading.Event()

    def getaddrinfo(host: bytes, *args: Any, flags: int = 0, **options: Any) -> Any:
        if not flags:
            answers.wait(60)
        return resolve(host, *args, flags=flags, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:  # it never answers
        manager = SmtpConnectionManager(
            host="localhost" if stalled == "name service" else "127.0.0.1",
            port=listener.getsockname()[1],
            ssl_mode=SslMode.IMPLICIT if stalled == "TLS handshake" else SslMode.NONE,
            timeout=60,
        )
        context = create_tls_context(manager.ca_certificate, verify=manager.verify_certificate)

        def give_up(at: int = 0) -> int:
            """Cancel at this moment, or once it waits for the server; return how many moments there were."""
            stop, passed = CancellationToken(), [0]

            def profile(frame: FrameType, event: str, _argument: object) -> None:
                if event in ("call", "c_return", "return") and frame.f_code.co_filename.endswith(
                    ("session.py", "handshake.py", "transport.py", "ssl.py", "connection_pool.py")
                ):
                    passed[0] += not stop.is_canceled
                    if passed[0] == at:
                        sys.setprofile(None)
                        stop.cancel()

            sender = BatchSender(
                requests([letter(0)]), manager, lambda: Session(manager, context=context), cancellation=stop
            )
            timer = threading.Timer(2 if at else 0.5, lambda: stop.is_canceled or stop.cancel())
            timer.start()
            began = time.monotonic()
            sys.setprofile(profile)
            try:
                deliveries = list(sender.deliveries())
            finally:
                sys.setprofile(None)
                timer.cancel()
            assert time.monotonic() - began < 30, f"canceled at moment {at}"
            assert all(isinstance(delivery.error, StoppedError) for delivery in deliveries)
            return passed[0]

        for at in range(1, give_up() + 1):
            give_up(at)
    answers.set()


def test_a_mail_that_waits_for_a_session_is_not_sent(manager_for: ManagerFor) -> None:
    """The session that opens too late is closed with QUIT."""
    with Dialogue(script(PLAIN.replace("S: 250-", "PAUSE\nS: 250-"), BYE)) as dialogue:
        found = stopped(dialogue, manager_for(dialogue), [letter(0)], connections=2)
        assert_stopped(found[0])
        wait_until(lambda: "QUIT" in dialogue.heard)
    assert dialogue.heard[1:] == ["QUIT"]


def test_a_session_that_has_nothing_to_do_says_good_bye(manager_for: ManagerFor) -> None:
    """While the source has no mail."""
    send_requests: list[SendRequest | float] = [SendRequest(0, letter(0)), math.inf]
    stop = CancellationToken()
    with Dialogue(script(HELLO, GROUP, WANTED, "MESSAGE", QUEUED, BYE)) as dialogue:
        sending = batch(manager_for(dialogue), iter(send_requests), stop=stop)
        assert next(sending).outcome == "accepted"
        threading.Timer(0.1, stop.cancel).start()
        assert list(sending) == []


# --- Before DATA.


@pytest.mark.parametrize("at", [1, 3, 5])
def test_before_data_the_session_takes_it_back_and_says_good_bye(at: int, manager_for: ManagerFor) -> None:
    """The reply to the last command is read first; then RSET and QUIT."""
    with Dialogue(script(PLAIN, *STEPS[:at], "PAUSE", STEPS[at], FORGET)) as dialogue:
        found = stopped(dialogue, manager_for(dialogue), [letter(0), letter(1)])
    assert_stopped(found[0])
    assert set(found) <= {0, 1}
    assert dialogue.heard[-2:] == ["RSET", "QUIT"]
    assert dialogue.messages == []


def test_an_envelope_that_is_never_answered_is_left_after_a_while(
    manager_for: ManagerFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No one can have the mail."""
    monkeypatch.setattr(connection_pool, "_CANCEL_SECONDS", 0.6)
    with Dialogue(script(PLAIN, "C: MAIL *", "HANG")) as dialogue:
        began = time.monotonic()
        found = stopped(dialogue, manager_for(dialogue, timeout=3600), [letter(0)], heard("MAIL"))
    assert time.monotonic() - began >= 0.6
    assert_stopped(found[0])


def test_good_byes_that_are_not_answered_are_not_waited_for(
    manager_for: ManagerFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow kills a task soon after SIGTERM, and results must still be recorded."""
    monkeypatch.setattr(connection_pool, "_CANCEL_QUIT_SECONDS", 0.2)
    with Dialogue(script(PLAIN, *STEPS[:1], "PAUSE", STEPS[1], "C: RSET", "HANG")) as dialogue:
        found = stopped(dialogue, manager_for(dialogue, timeout=3600), [letter(0)])
    assert_stopped(found[0])


# --- After DATA.


def test_after_data_not_a_word_follows(manager_for: ManagerFor) -> None:
    """It would be message text."""
    with Dialogue(script(PLAIN, *STEPS[:7], "PAUSE", STEPS[7], "MESSAGE")) as dialogue:
        found = stopped(dialogue, manager_for(dialogue), [letter(0)])
    assert_stopped(found[0])
    assert dialogue.messages == []
    assert dialogue.heard[-1] == "DATA"


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_message_that_is_half_sent_gets_no_final_dot(pipelined: bool, manager_for: ManagerFor) -> None:
    """A dot would deliver half a mail."""
    envelope = (HELLO, GROUP, WANTED) if pipelined else (PLAIN, *STEPS)
    mail = letter(0, attachments=[Attachment(content=os.urandom(LONG), name="report.bin")])
    with Dialogue(script(*envelope, "PART", "PAUSE", "MESSAGE")) as dialogue:
        found = stopped(dialogue, manager_for(dialogue), [mail, letter(1)])
    assert_stopped(found[0])
    assert dialogue.messages == []


def test_of_a_message_in_chunks_the_last_octet_is_kept_back(manager_for: ManagerFor) -> None:
    """The server forgets what it did not get in full."""
    hello = "S: 220 mail ESMTP\nC: EHLO *\nS: 250-mail\nS: 250-CHUNKING\nS: 250 BINARYMIME"
    mail = letter(0, A, attachments=[Attachment(content=os.urandom(LONG), name="report.bin")])
    steps = ("C: MAIL *", "S: 250 ok", "C: RCPT *", "S: 250 ok", "C: BDAT * LAST", "PART", "PAUSE", "CHUNK")
    with Dialogue(script(hello, *steps)) as dialogue:
        found = stopped(dialogue, manager_for(dialogue, binary_mime=True), [mail])
    assert_stopped(found[0])
    (part,) = dialogue.messages
    assert len(part) < LONG


def test_a_data_that_was_pipelined_has_its_reply_read_first(manager_for: ManagerFor) -> None:
    """Then the socket is closed, and nothing is delivered."""
    with Dialogue(script(HELLO, GROUP, "PAUSE", WANTED, "MESSAGE")) as dialogue:
        began = time.monotonic()
        found = stopped(dialogue, manager_for(dialogue), [letter(0)])
        assert time.monotonic() - began > 0.29
    assert_stopped(found[0])
    assert dialogue.messages == []
    assert dialogue.heard[-1] == "DATA"


def test_a_refusal_that_was_on_its_way_is_heard(manager_for: ManagerFor) -> None:
    """That is the mail's outcome, and the session can send QUIT."""
    no = "S: 250 ok\nS: 550 5.1.1 no\nS: 550 5.1.1 no\nS: 554 nobody"
    with Dialogue(script(HELLO, GROUP, "PAUSE", no, BYE)) as dialogue:
        found = stopped(dialogue, manager_for(dialogue), [letter(0)])
    assert found[0].outcome == "refused"
    assert isinstance(found[0].error, RefusedError)


def test_a_server_that_wants_a_message_for_nobody_gets_none(manager_for: ManagerFor) -> None:
    """Not even the dot that would end it."""
    no = "S: 250 ok\nS: 550 5.1.1 no\nS: 550 5.1.1 no\nS: 354 go on"
    with Dialogue(script(HELLO, GROUP, "PAUSE", no, "MESSAGE")) as dialogue:
        found = stopped(dialogue, manager_for(dialogue), [letter(0)])
    assert found[0].outcome == "refused"
    assert dialogue.messages == []


# --- After the final dot.


def test_the_answer_to_a_mail_that_was_handed_over_is_heard(manager_for: ManagerFor) -> None:
    """It counts."""
    with Dialogue(script(PLAIN, *STEPS, "MESSAGE", "PAUSE", QUEUED, BYE)) as dialogue:
        found = stopped(dialogue, manager_for(dialogue), [letter(0), letter(1)])
    assert found[0].outcome == "accepted"
    assert len(dialogue.messages) == 1
    assert set(found) == {0, 1}
    assert_stopped(found[1])


def test_an_answer_that_does_not_come_in_time_is_not_known(
    manager_for: ManagerFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the mail is never reported as not sent."""
    monkeypatch.setattr(connection_pool, "_CANCEL_SECONDS", 0.6)
    with Dialogue(script(PLAIN, *STEPS, "MESSAGE", "HANG")) as dialogue:
        manager = manager_for(dialogue, timeout=3600)
        found = stopped(dialogue, manager, [letter(0)], lambda dialogue: bool(dialogue.messages))
    assert found[0].outcome == "unknown"
    assert "the worker is shut down" in str(found[0].error)
    assert len(dialogue.messages) == 1


def test_behind_a_mail_that_was_handed_over_the_next_one_is_taken_back(manager_for: ManagerFor) -> None:
    """Its envelope was pipelined after the message, DATA included: the first is accepted, the second not sent."""
    steps = (HELLO, GROUP, WANTED, "MESSAGE", GROUP, "PAUSE", QUEUED, WANTED, "MESSAGE")
    with Dialogue(script(*steps)) as dialogue:
        found = stopped(dialogue, manager_for(dialogue), [letter(0), letter(1), letter(2)])
    assert found[0].outcome == "accepted"
    assert_stopped(found[1])
    assert len(dialogue.messages) == 1


# --- What waits.


@pytest.mark.parametrize(
    ("about", "outcome", "accepted"), [("RCPT", "refused", ()), (f"RCPT TO:<{B}>", "partial", (A,))]
)
def test_a_mail_that_waits_for_another_turn_is_told_as_it_stood(
    about: str, outcome: str, accepted: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as one that was never started."""
    stop, settle = CancellationToken(), RetryQueue.settle

    def settle_and_ask(*what: Any) -> Delivery | None:
        settled = settle(*what)
        assert settled is None  # from now on it waits
        stop.cancel()
        return settled

    monkeypatch.setattr(RetryQueue, "settle", settle_and_ask)
    with Server(at_first(2, "450 4.2.0 later", about)) as server:
        (found,) = batch(server.manager(), [letter(0)], stop=stop)
    assert (str(found.outcome), found.accepted) == (outcome, accepted)
    assert str(found.refused[B]) == "450 4.2.0 later"


def test_a_store_that_does_not_answer_holds_nobody_up() -> None:
    """A file that is being measured when the task is canceled; waiting for it takes no processor time."""
    over, stop = threading.Event(), CancellationToken()

    class Slow:
        name = "report.csv"

        def stat(self) -> object:
            over.wait()
            return SimpleNamespace(st_size=1)

        def open(self, mode: str) -> BinaryIO:
            raise LookupError(mode)

    threading.Timer(0.2, stop.cancel).start()
    with Server() as server:
        used = time.process_time()
        (found,) = batch(server.manager(), [letter(0, attachments=[Attachment(Slow())])], stop=stop)
        assert time.process_time() - used < 0.5
        over.set()
    assert (found.outcome, type(found.error)) == (Outcome.NOT_SENT, StoppedError)


def test_who_is_asked_while_a_server_is_away_does_not_wait_for_it() -> None:
    """It would be retried for an hour."""
    stop = CancellationToken()
    manager = SmtpConnectionManager(host="127.0.0.1", port=1, ssl_mode="none", timeout=5.0)
    threading.Timer(0.3, stop.cancel).start()
    (found,) = batch(manager, [letter(0)], stop=stop, retry_for=3600)
    assert (found.outcome, type(found.error)) == (Outcome.NOT_SENT, StoppedError)


# --- Canceled by a signal.


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("pipelining", [True, False])
def test_a_signal_in_the_middle_of_a_batch_loses_and_doubles_nothing(connections: int, pipelining: bool) -> None:
    """At any moment: what was stored is what is reported, and the server got whole mails only."""
    offers = ("PIPELINING", "SIZE 0", "8BITMIME") if pipelining else ("SIZE 0", "8BITMIME")
    for attempt in range(5):
        stop = CancellationToken()

        def ask(_number: int, _frame: object, stop: CancellationToken = stop) -> None:
            stop.cancel()

        def mails() -> Iterator[SendRequest]:
            for number in range(100_000):
                yield SendRequest(number, letter(number))

        before = signal.signal(signal.SIGTERM, ask)
        timer = threading.Timer(0.03 + 0.023 * attempt, os.kill, (os.getpid(), signal.SIGTERM))
        try:
            with Server(offers=offers) as server:
                timer.start()
                found = list(batch(server.manager(), mails(), stop=stop, connections=connections))
        finally:
            timer.join()
            signal.signal(signal.SIGTERM, before)
        assert sorted(delivery.index for delivery in found) == list(range(len(found)))
        assert {str(delivery.outcome) for delivery in found} <= {"accepted", "not_sent"}
        for delivery in found:
            assert server.copies(delivery.message_id) == ([A, B] if delivery.outcome == "accepted" else [])
        assert all(re.search(rb"All is well\.\r\n\Z", stored.message) for stored in server.stored)


def test_a_signal_wakes_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else happens that would."""
    monkeypatch.setattr(connection_pool, "_CANCEL_SECONDS", 0.6)
    stop = CancellationToken()
    before = signal.signal(signal.SIGALRM, lambda _number, _frame: stop.cancel())

    def say_nothing(about: str) -> str | None:
        if about == MESSAGE:
            time.sleep(0.1)  # until the client waits
            os.kill(os.getpid(), signal.SIGALRM)
            server.over.wait()
        return None

    try:
        with Server(say_nothing) as server:
            (found,) = batch(server.manager(timeout=3600, final_reply_timeout=3600), [letter(0)], stop=stop)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert found.outcome == "unknown"
