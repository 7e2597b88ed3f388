"""Commands in groups (RFC 2920): every mixture of replies, servers without support, and what is never in one."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import MessageError, OutcomeUnknownError, Phase, TlsError
from airflow_provider_smtpcm.mail import Attachment, Mail
from airflow_provider_smtpcm.smtp import Delivery, Outcome, retry, session
from airflow_provider_smtpcm.smtp.connection_pool import BatchSender
from airflow_provider_smtpcm.smtp.pipelining import PipelinedSession
from airflow_provider_smtpcm.smtp.queue import SendRequest
from airflow_provider_smtpcm.smtp.retry import RetryQueue
from airflow_provider_smtpcm.smtp.session import Session
from airflow_provider_smtpcm.smtp.throttling import ServerProfile
from airflow_provider_smtpcm.smtp.transport import Transport
from tests.smtp.auth.test_sasl import CHALLENGE
from tests.smtp.connection_pool.batches import send_many
from tests.smtp.dialogue import Dialogue, Dialogues, Pace
from tests.smtp.files import Changing
from tests.smtp.server import Habit, Server

ManagerFor = Callable[..., SmtpConnectionManager]
HELLO = "S: 220 mail.corp.example ESMTP\nC: EHLO *\nS: 250-mail.corp.example\nS: 250-SIZE 0\nS: 250 PIPELINING"
ENVELOPE = "C: MAIL FROM:<etl@corp.example> SIZE=*\nC: RCPT TO:<a@corp.example>\nC: RCPT TO:<b@corp.example>\nC: DATA"
WANTED = "S: 250 2.1.0 ok\nS: 250 2.1.5 ok\nS: 250 2.1.5 ok\nS: 354 go on"
QUEUED = "S: 250 2.6.0 queued"
BYE = "C: QUIT\nS: 221 bye"
# The same conversation with a server that gets its commands one by one.
ONE_BY_ONE = """C: MAIL *\nQUIET\nS: 250 ok\nC: RCPT *\nQUIET\nS: 250 ok\nC: RCPT *\nQUIET\nS: 250 ok
C: DATA\nQUIET\nS: 354 go on\nMESSAGE\nQUIET\nS: 250 queued"""
BOTH = ("a@corp.example", "b@corp.example")


def script(*steps: str) -> str:
    """A dialogue from its parts."""
    return "\n".join((HELLO, *steps))


def mails(number: int) -> list[Mail]:
    """This many mails, each to two recipients."""
    return [
        Mail(from_address="etl@corp.example", to=BOTH, subject=f"No. {at}", message_id=f"<{at}@corp.example>")
        for at in range(number)
    ]


def deliver(
    number: int, manager_for: ManagerFor, *scripts: str, profile: ServerProfile | None = None, **settings: object
) -> tuple[list[Delivery], list[bytes]]:
    """What becomes of so many mails over one connection at a time, in their order, and what was sent in full."""
    with Dialogues(*scripts) as dialogues:
        manager = manager_for(dialogues, **settings)
        found = list(send_many(mails(number), manager, lambda: Session(manager), profile=profile))
    assert sorted(delivery.index for delivery in found) == list(range(number))
    return sorted(found, key=lambda delivery: delivery.index), dialogues.messages


def outcomes(deliveries: list[Delivery]) -> list[str]:
    """The outcome of each mail."""
    return [str(delivery.outcome) for delivery in deliveries]


# --- Refusals within a group


@pytest.mark.parametrize("code", [450, 500, 550, 554])
@pytest.mark.parametrize("at", ["MAIL", "RCPT", "DATA", "final dot"])
def test_a_refusal_anywhere_in_the_group_is_a_refusal_for_everybody(
    code: int, at: str, manager_for: ManagerFor
) -> None:
    """And the next mail goes through the same session, after RSET where the server may remember something."""
    no, ok = f"S: {code} {code // 100}.3.0 because", "S: 250 ok"
    answers = {
        "MAIL": [no, *["S: 503 5.5.1 no MAIL"] * 3],
        "RCPT": [ok, no, no, "S: 554 5.5.1 no valid recipients"],
        "DATA": [ok, ok, ok, no],
        "final dot": [ok, ok, ok, "S: 354 go on", "MESSAGE", ENVELOPE, no, WANTED, "MESSAGE", QUEUED, BYE],
    }
    rest = [] if at == "final dot" else ["C: RSET", ENVELOPE, "S: 250 ok", WANTED, "MESSAGE", QUEUED, BYE]
    (first, second), _ = deliver(2, manager_for, script(ENVELOPE, *answers[at], *rest))
    assert (first.outcome, second.outcome) == (Outcome.REFUSED, Outcome.ACCEPTED)
    assert set(first.refused) == set(BOTH)
    assert first.error is not None
    assert first.error.retryable is (code < 500)
    assert "because" in str(first.error)
    assert first.error.phase is {"final dot": Phase.FINAL_DOT}.get(at, Phase.ENVELOPE)


@pytest.mark.parametrize("answer", ["250 2.6.0 queued", "554 5.5.1 no recipients", "451 4.3.0 later", "334 what"])
def test_a_354_although_everybody_was_refused_gets_a_lone_dot(answer: str, manager_for: ManagerFor) -> None:
    """RFC 2920 3.1: not the message; and whatever the reply to the dot, no one has it."""
    refused = "S: 250 ok\nS: 550 5.1.1 no such user\nS: 550 5.1.1 no such user\nS: 354 go on"
    steps = script(ENVELOPE, refused, "MESSAGE", ENVELOPE, f"S: {answer}", WANTED, "MESSAGE", QUEUED, BYE)
    deliveries, messages = deliver(2, manager_for, steps)
    assert outcomes(deliveries) == ["refused", "accepted"]
    assert messages[0] == b""
    assert b"No. 1" in messages[1]
    assert "no such user" in str(deliveries[0].error)


def test_a_refused_sender_and_a_354_get_a_lone_dot_too(manager_for: ManagerFor) -> None:
    """The server took the recipients without a sender."""
    steps = script(ENVELOPE, "S: 550 5.7.60 not yours\nS: 250 ok\nS: 250 ok\nS: 354 go on", "MESSAGE", QUEUED, BYE)
    (delivery,), messages = deliver(1, manager_for, steps)
    assert (delivery.outcome, messages) == (Outcome.REFUSED, [b""])
    assert "the sender etl@corp.example" in str(delivery.error)


def test_a_lone_dot_without_an_answer_leaves_a_refusal(manager_for: ManagerFor) -> None:
    """The outcome is not unknown; the next mail, whose envelope was already sent, goes through another session."""
    refused = "S: 250 ok\nS: 550 5.1.1 no\nS: 450 4.2.1 busy\nS: 354 go on"
    first = script(ENVELOPE, refused, "MESSAGE", ENVELOPE)
    deliveries, _ = deliver(2, manager_for, first, f"{HELLO}\n{ONE_BY_ONE}\n{BYE}")
    assert outcomes(deliveries) == ["refused", "accepted"]
    assert deliveries[0].error is not None
    assert deliveries[0].error.retryable


def test_some_refused_recipients_leave_a_partial_delivery(manager_for: ManagerFor) -> None:
    """With the server's reply for each."""
    answers = "S: 250 ok\nS: 550 5.1.1 no such user\nS: 250 ok\nS: 354 go on"
    (delivery,), _ = deliver(1, manager_for, script(ENVELOPE, answers, "MESSAGE", QUEUED, BYE))
    assert (delivery.outcome, delivery.accepted) == (Outcome.PARTIAL, ("b@corp.example",))
    assert str(delivery.refused["a@corp.example"]) == "550 5.1.1 no such user"


@pytest.mark.parametrize("too_many", ["452 4.5.3 too many recipients", "552 too many recipients"])
def test_recipients_too_many_get_the_same_mail_in_a_further_transaction(too_many: str, manager_for: ManagerFor) -> None:
    """With the same Message-ID; the mail has one delivery."""
    steps = script(
        f"{ENVELOPE}\nS: 250 ok\nS: 250 ok\nS: {too_many}\nS: 354 go on\nMESSAGE\n{QUEUED}",
        f"C: MAIL *\nC: RCPT TO:<b@corp.example>\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go on\nMESSAGE\n{QUEUED}",
        BYE,
    )
    (delivery,), messages = deliver(1, manager_for, steps)
    assert (delivery.outcome, delivery.accepted) == (Outcome.ACCEPTED, BOTH)
    assert messages[0] == messages[1]


def test_recipients_too_many_wait_for_no_other_mail(manager_for: ManagerFor) -> None:
    """The next mail's envelope was sent before the server said so: it comes first, and no recipient is forgotten."""
    steps = script(
        f"{ENVELOPE}\nS: 250 ok\nS: 250 ok\nS: 452 4.5.3 too many\nS: 354 go on\nMESSAGE",
        f"{ENVELOPE}\n{QUEUED}\n{WANTED}\nMESSAGE",
        "C: MAIL *\nC: RCPT TO:<b@corp.example>\nC: DATA",
        f"{QUEUED}\nS: 250 ok\nS: 250 ok\nS: 354 go on\nMESSAGE\n{QUEUED}\n{BYE}",
    )
    deliveries, _ = deliver(2, manager_for, steps)
    assert outcomes(deliveries) == ["accepted", "accepted"]
    assert [delivery.accepted for delivery in deliveries] == [BOTH, BOTH]


# --- 421, and lost connections


@pytest.mark.parametrize("at", range(4))
def test_a_421_in_the_first_group_is_a_refusal_that_may_pass(at: int, manager_for: ManagerFor) -> None:
    """A server that closes each session without accepting a mail is not retried forever."""
    steps = script(ENVELOPE, *["S: 250 ok"] * at, "S: 421 4.3.2 shutting down")
    (first, second), _ = deliver(2, manager_for, steps, script(ENVELOPE, WANTED, "MESSAGE", QUEUED, BYE))
    assert (first.outcome, second.outcome) == (Outcome.REFUSED, Outcome.ACCEPTED)
    assert first.error is not None
    assert first.error.retryable


@pytest.mark.parametrize("at", range(4))
def test_a_421_to_a_later_mail_sends_that_through_another_session(at: int, manager_for: ManagerFor) -> None:
    """It is about the session, which has carried a mail; PIPELINING is not to blame."""
    first = script(ENVELOPE, WANTED, "MESSAGE", ENVELOPE, QUEUED, *["S: 250 ok"] * at, "S: 421 4.3.2 enough")
    deliveries, messages = deliver(2, manager_for, first, script(ENVELOPE, WANTED, "MESSAGE", QUEUED, BYE))
    assert outcomes(deliveries) == ["accepted", "accepted"]
    assert len(messages) == 2


@pytest.mark.parametrize("words", ["S: 421 4.3.2 shutting down", "S: 421 4.3.2 shutting down\nS: 421 4.3.2 really"])
def test_a_421_to_the_final_dot_refuses_that_mail_alone(words: str, manager_for: ManagerFor) -> None:
    """The next one goes through another session."""
    first = script(ENVELOPE, WANTED, "MESSAGE", ENVELOPE, words)
    deliveries, _ = deliver(2, manager_for, first, script(ENVELOPE, WANTED, "MESSAGE", QUEUED, BYE))
    assert outcomes(deliveries) == ["refused", "accepted"]
    assert deliveries[0].error is not None
    assert deliveries[0].error.retryable


@pytest.mark.parametrize("fault", ["RESET", "SEND b''", "S: 354 go on", "S: nonsense", f"SEND {b'x' * 100_000!r}"])
def test_a_line_that_breaks_behind_the_final_dot_leaves_one_unknown_mail(fault: str, manager_for: ManagerFor) -> None:
    """And not two: the pipelined one is sent again, command by command, since pipelining may have been the cause."""
    first = script(ENVELOPE, WANTED, "MESSAGE", ENVELOPE, fault)
    deliveries, _ = deliver(3, manager_for, first, f"{HELLO}\n{ONE_BY_ONE}\n{ONE_BY_ONE}\n{BYE}")
    assert outcomes(deliveries) == ["unknown", "accepted", "accepted"]
    assert isinstance(deliveries[0].error, OutcomeUnknownError)
    assert "<0@corp.example>" in str(deliveries[0].error)


@pytest.mark.parametrize("fault", ["RESET", "SEND b''"])
def test_a_line_that_breaks_where_pipelining_is_known_to_work_slows_nothing_down(
    fault: str, manager_for: ManagerFor
) -> None:
    """Connections break."""
    first = script(ENVELOPE, WANTED, "MESSAGE", ENVELOPE, QUEUED, WANTED, "MESSAGE", ENVELOPE, QUEUED, fault)
    profile = ServerProfile()
    second = script(ENVELOPE, WANTED, "MESSAGE", ENVELOPE, QUEUED, WANTED, "MESSAGE", QUEUED, BYE)
    deliveries, _ = deliver(4, manager_for, first, second, profile=profile)
    assert outcomes(deliveries) == ["accepted"] * 4
    assert profile.pipelining


def test_a_fresh_line_that_breaks_where_pipelining_is_known_to_work_costs_one_mail(manager_for: ManagerFor) -> None:
    """The one after it was not committed, and is sent again."""
    once = script(ENVELOPE, WANTED, "MESSAGE", ENVELOPE, "RESET")
    last = script(ENVELOPE, WANTED, "MESSAGE", QUEUED, BYE)
    profile = ServerProfile(pipelining_works=True)
    deliveries, _ = deliver(2, manager_for, once, last, profile=profile)
    assert outcomes(deliveries) == ["unknown", "accepted"]


@pytest.mark.parametrize("heard", range(4))
def test_a_line_that_breaks_after_the_group_was_wanted_leaves_nothing_behind(
    heard: int, manager_for: ManagerFor
) -> None:
    """No dot was sent: after the first group the mail is sent again command by command, and no one has it twice."""
    first = script(ENVELOPE, *["S: 250 ok"] * heard)
    deliveries, messages = deliver(1, manager_for, first, f"{HELLO}\n{ONE_BY_ONE}\n{BYE}")
    assert outcomes(deliveries) == ["accepted"]
    assert len(messages) == 1


# --- Servers that offer it, and do not support it


@pytest.mark.parametrize(
    "answers",
    [
        "S: 250 ok\nHANG",
        "S: 250 ok\nS: 250 ok\nS: 354 go on",
        "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go on",
        "S: 250 ok\nS: 250 ok\nS: 550 no\nS: 250 ok\nS: 354 go on",
        "S: 554 5.5.0 SMTP synchronization error",
        "S: 250 ok\nS: 554 5.5.0 SMTP synchronization error",
        "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 503 5.5.0 Improper use of SMTP command pipelining",
        "S: 421 4.7.0 SMTP protocol synchronization error",
        "S: 250 ok\nS: nonsense",
        "S: 250 ok\nRESET",
    ],
)
def test_a_mail_whose_group_a_server_makes_nothing_of_goes_again_one_by_one(
    answers: str, manager_for: ManagerFor, caplog: pytest.LogCaptureFixture
) -> None:
    """Lost commands, a reply too few or too many, or a text about it: no dot was sent, so no harm; logged once."""
    with caplog.at_level(logging.WARNING):
        deliveries, _ = deliver(
            2, manager_for, script(ENVELOPE, answers), f"{HELLO}\n{ONE_BY_ONE}\n{ONE_BY_ONE}\n{BYE}"
        )
    assert outcomes(deliveries) == ["accepted", "accepted"]
    assert caplog.text.count("offers PIPELINING, but does not support it") == 1


@pytest.mark.parametrize(
    "answers",
    [
        "HANG",
        "S: 503 5.5.0 improper pipelining\nHANG",
        "S: 421 4.7.0 SMTP synchronization error",
        "S: 250 ok\nS: 250 ok\nS: 354 go on",
        "S: nonsense",
    ],
)
def test_an_envelope_on_the_heels_that_gets_lost_goes_again_one_by_one(answers: str, manager_for: ManagerFor) -> None:
    """The previous mail had its reply."""
    first = script(ENVELOPE, WANTED, "MESSAGE", ENVELOPE, QUEUED, answers)
    deliveries, messages = deliver(3, manager_for, first, f"{HELLO}\n{ONE_BY_ONE}\n{ONE_BY_ONE}\n{BYE}")
    assert outcomes(deliveries) == ["accepted"] * 3
    assert len(messages) == 3


def test_what_was_learnt_of_a_server_holds_for_the_next_batch(manager_for: ManagerFor) -> None:
    """A hook keeps it."""
    profile = ServerProfile()
    deliver(
        1,
        manager_for,
        script(ENVELOPE, "S: 554 synchronization error"),
        f"{HELLO}\n{ONE_BY_ONE}\n{BYE}",
        profile=profile,
    )
    deliveries, _ = deliver(2, manager_for, f"{HELLO}\n{ONE_BY_ONE}\n{ONE_BY_ONE}\n{BYE}", profile=profile)
    assert outcomes(deliveries) == ["accepted", "accepted"]


def test_a_session_remembers_it_for_when_it_is_opened_again(manager_for: ManagerFor) -> None:
    """A single mail through an open session is not sent again by itself: the caller has to open another."""
    with Dialogues(script(ENVELOPE, "S: 554 synchronization error"), f"{HELLO}\n{ONE_BY_ONE}\n{BYE}") as dialogues:
        session = Session(manager_for(dialogues))
        with session:
            assert session.send(mails(1)[0]).outcome is Outcome.NOT_SENT
        with session:
            assert session.send(mails(1)[0]).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize(
    ("habit", "connections"),
    [(Habit.FORGETS, 3), (Habit.OBJECTS, 1), (Habit.OBJECTS, 3), (Habit.HANGS_UP, 1), (Habit.HANGS_UP, 3)],
)
def test_a_server_that_cannot_take_a_group_still_gets_every_mail_once(habit: Habit, connections: int) -> None:
    """Whatever it does with early commands."""
    with Server(habit=habit) as server:
        manager = server.manager(timeout=1)
        found = list(send_many(mails(8), manager, lambda: Session(manager), connections=connections))
    assert sorted(delivery.index for delivery in found) == list(range(8))
    assert outcomes(found) == ["accepted"] * 8
    assert sorted(stored.message_id for stored in server.stored) == [f"<{at}@corp.example>" for at in range(8)]


def test_a_server_that_does_not_offer_it_gets_one_command_at_a_time(manager_for: ManagerFor) -> None:
    """And nothing directly after a message."""
    hello = HELLO.replace("250 PIPELINING", "250 8BITMIME")
    deliveries, _ = deliver(2, manager_for, f"{hello}\n{ONE_BY_ONE}\n{ONE_BY_ONE}\n{BYE}")
    assert outcomes(deliveries) == ["accepted", "accepted"]


# --- What is never in a group


def test_starttls_is_never_in_a_group(manager_for: ManagerFor) -> None:
    """RFC 3207 4.2, and nothing is sent before its reply."""
    steps = script("C: STARTTLS", "QUIET", "S: 454 4.7.0 TLS not available").replace("EHLO *", "EHLO *\nQUIET")
    steps = steps.replace("250-SIZE 0", "250-STARTTLS")
    with Dialogue(steps) as dialogue, pytest.raises(TlsError):
        Session(manager_for(dialogue, ssl_mode="starttls")).open()


def test_auth_is_never_in_a_group(manager_for: ManagerFor, mail: Mail) -> None:
    """RFC 4954 4: each of its lines waits for the server's, and the first MAIL for the 235."""
    challenge = base64.b64encode(CHALLENGE).decode()
    steps = script(
        f"C: AUTH NTLM\nQUIET\nS: 334 ntlm supported\nC: TlRM*\nQUIET\nS: 334 {challenge}\nC: TlRM*\nQUIET\nS: 235 ok",
        ENVELOPE,
        WANTED,
        "MESSAGE",
        QUEUED,
        BYE,
    )
    steps = steps.replace("250-SIZE 0", "250-SIZE 0\nS: 250-AUTH NTLM")
    account = {"auth_mode": "windows", "login": r"CORP\alice", "password": "correct horse"}
    with Dialogue(steps) as dialogue, Session(manager_for(dialogue, **account)) as session:
        assert session.send(mail).outcome is Outcome.ACCEPTED


# --- Files that change while they are sent


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("how", ["shorter", "longer", "gone", "broken", "overwritten", "replaced"])
@pytest.mark.parametrize("remote", [True, False])
def test_a_file_that_changes_on_its_way_is_never_half_a_mail(
    how: str, remote: bool, pipelining: bool, tmp_path: Path
) -> None:
    """The socket is closed without the final dot; the mails around it are not touched."""
    batch = mails(3)
    with Server(offers=("PIPELINING",) if pipelining else ()) as server:
        file = Changing(tmp_path / "report.csv", 300_000, how, remote=remote)
        batch[1] = Mail(
            from_address="etl@corp.example", to=BOTH, attachments=[Attachment(file.path, name="report.csv")]
        )
        manager = server.manager()
        found = list(send_many(file.watch(batch), manager, lambda: Session(manager)))
    by_index = sorted(found, key=lambda delivery: delivery.index)
    assert outcomes(by_index) == ["accepted", "not_sent", "accepted"]
    assert isinstance(by_index[1].error, MessageError)
    assert by_index[1].error.phase is Phase.DATA
    assert [stored.message_id for stored in server.stored] == ["<0@corp.example>", "<2@corp.example>"]


# --- Success


@pytest.mark.parametrize("pace", Pace)
def test_an_envelope_is_one_group_and_the_next_is_on_the_heels_of_the_message(
    pace: Pace, manager_for: ManagerFor
) -> None:
    """One round trip per mail, in whatever pieces the replies arrive."""
    steps = script(
        ENVELOPE, WANTED, "MESSAGE", ENVELOPE, QUEUED, WANTED, "MESSAGE", ENVELOPE, QUEUED, WANTED, "MESSAGE"
    )
    with Dialogues(f"{steps}\n{QUEUED}\n{BYE}", pace=pace) as dialogues:
        manager = manager_for(dialogues)
        found = list(send_many(mails(3), manager, lambda: Session(manager)))
    assert outcomes(found) == ["accepted"] * 3
    assert all(str(delivery.reply) == "250 2.6.0 queued" for delivery in found)
    assert [b"No. %d" % at in message for at, message in enumerate(dialogues.messages)] == [True] * 3


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("size", [0, 60_000, 300_000, 3_000_000])
def test_a_file_of_any_size_arrives(size: int, pipelining: bool, tmp_path: Path) -> None:
    """Prepared in one piece, or block by block from the disk."""
    path = tmp_path / "report.csv"
    path.write_bytes(b"." * size)
    batch = [
        Mail(from_address="etl@corp.example", to=BOTH, attachments=[path], message_id=f"<{at}@corp.example>")
        for at in range(3)
    ]
    with Server(offers=("PIPELINING",) if pipelining else ()) as server:
        manager = server.manager()
        found = list(send_many(batch, manager, lambda: Session(manager)))
    assert outcomes(found) == ["accepted"] * 3
    expected = base64.encodebytes(b"." * size).replace(b"\n", b"\r\n")
    assert all(expected in stored.message for stored in server.stored)


# --- QUIT with the last mail (RFC 2920 3.1)


def last(**fields: object) -> list[SendRequest]:
    """A batch of exactly one mail."""
    return [SendRequest(0, mails(1)[0], is_last=True, **fields)]  # type: ignore[arg-type]


def deliver_last(
    manager_for: ManagerFor, *scripts: str, retry_for: float = 0, **settings: object
) -> tuple[Delivery, list[list[str]]]:
    """The mail's delivery, and what each connection received."""
    with Dialogues(*scripts) as dialogues:
        retries = RetryQueue(iter(last()), retry_for)
        manager = manager_for(dialogues, **settings)
        sender = BatchSender(retries.admit_requests(), manager, lambda: Session(manager))
        (delivery,) = retries.deliveries(sender)
    return delivery, dialogues.heard


def test_without_pipelining_quit_waits_for_the_answer_to_the_message(manager_for: ManagerFor) -> None:
    """RFC 5321: one command after the other."""
    steps = script(ONE_BY_ONE, BYE).replace("S: 250 PIPELINING", "S: 250 OK")
    delivery, _ = deliver_last(manager_for, steps)
    assert delivery.outcome == "accepted"


def test_quit_comes_with_the_last_message(manager_for: ManagerFor) -> None:
    """The server has it before it answers the message, which saves a round trip."""
    delivery, _ = deliver_last(manager_for, script(ENVELOPE, WANTED, "MESSAGE", "C: QUIT", QUEUED, "S: 221 bye"))
    assert delivery.outcome == "accepted"


def test_a_server_that_does_not_answer_quit_has_accepted_the_mail(manager_for: ManagerFor) -> None:
    """It closes the connection immediately."""
    delivery, _ = deliver_last(manager_for, script(ENVELOPE, WANTED, "MESSAGE", "C: QUIT", QUEUED))
    assert delivery.outcome == "accepted"


def test_no_answer_after_the_message_and_quit_is_unknown(manager_for: ManagerFor) -> None:
    """QUIT does not make it less so."""
    delivery, _ = deliver_last(manager_for, script(ENVELOPE, WANTED, "MESSAGE", "C: QUIT"), retry_for=10)
    assert delivery.outcome == "unknown"


def test_the_reply_to_quit_in_place_of_that_to_the_message_is_unknown(manager_for: ManagerFor) -> None:
    """A server or proxy that processes QUIT first has not confirmed the mail."""
    delivery, _ = deliver_last(manager_for, script(ENVELOPE, WANTED, "MESSAGE", "C: QUIT", "S: 221 bye"), retry_for=10)
    assert delivery.outcome == "unknown"
    assert "221 bye" in str(delivery.error)


def test_quit_that_the_system_did_not_take_in_full_is_not_waited_for(
    manager_for: ManagerFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply to the message comes while the buffer has no room for QUIT: there will be no reply to QUIT."""
    send_some = Transport.send_some
    monkeypatch.setattr(
        Transport, "send_some", lambda self, octets: send_some(self, bytes(octets).removesuffix(b"QUIT\r\n"))
    )
    poll = PipelinedSession.send
    monkeypatch.setattr(PipelinedSession, "send", lambda self: None if self._block == b"QUIT\r\n" else poll(self))
    monkeypatch.setattr(session, "QUIT_TIMEOUT", 3600)  # longer than a test may take
    delivery, _ = deliver_last(manager_for, script(ENVELOPE, WANTED, "MESSAGE", QUEUED, "HANG"), timeout=3600)
    assert delivery.outcome == "accepted"


def test_a_mail_that_was_refused_for_now_is_sent_again_in_a_new_session(
    manager_for: ManagerFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one got QUIT already."""
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.01)
    busy = script(ENVELOPE, WANTED, "MESSAGE", "C: QUIT", "S: 451 4.3.0 not now", "S: 221 bye")
    good = script(ENVELOPE, WANTED, "MESSAGE", "C: QUIT", QUEUED, "S: 221 bye")
    delivery, heard = deliver_last(manager_for, busy, good, retry_for=10)
    assert delivery.outcome == "accepted"
    assert [lines[-1] for lines in heard] == ["QUIT", "QUIT"]


def test_a_mail_in_two_transactions_gets_quit_with_the_second(manager_for: ManagerFor) -> None:
    """The server takes one recipient at a time."""
    one = "C: MAIL *\nC: RCPT TO:<{}@corp.example>\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go on\nMESSAGE\n"
    steps = script(one.format("a"), "QUIET", QUEUED, one.format("b"), "C: QUIT", QUEUED, "S: 221 bye")
    delivery, _ = deliver_last(
        manager_for, steps.replace("S: 250 PIPELINING", "S: 250-PIPELINING\nS: 250 LIMITS RCPTMAX=1")
    )
    assert delivery.accepted == BOTH


def test_the_given_session_stays_open_after_a_last_mail(manager_for: ManagerFor) -> None:
    """Its owner closes it."""
    with Dialogue(script(ENVELOPE, WANTED, "MESSAGE", QUEUED, "C: NOOP", "S: 250 ok", BYE)) as dialogue:
        manager = manager_for(dialogue)
        with Session(manager) as session:
            (delivery,) = BatchSender(last(), manager, lambda: session, session=session).deliveries()
            assert delivery.outcome == "accepted"
            session.noop()
