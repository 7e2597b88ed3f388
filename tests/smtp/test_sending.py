"""Sending through an open session: the outcome of each mail is known, and no half mail is delivered."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import (
    ConnectionLostError,
    MessageError,
    OutcomeUnknownError,
    Phase,
    RefusedError,
)
from airflow_provider_smtpcm.mail import Attachment, Mail
from airflow_provider_smtpcm.smtp import Delivery, Outcome
from airflow_provider_smtpcm.smtp.session import Session
from airflow_provider_smtpcm.smtp.transaction import stuff_dots
from airflow_provider_smtpcm.smtp.transport import Transport
from tests.smtp.dialogue import Dialogue, Pace
from tests.waiting import wait_until

ManagerFor = Callable[..., SmtpConnectionManager]
HELLO = "S: 220 mail.corp.example ESMTP\nC: EHLO *\nS: 250-mail.corp.example\nS: 250-SIZE 10000\nS: 250 8BITMIME"
MAIL = "C: MAIL FROM:<etl@corp.example> SIZE=*\nS: 250 2.1.0 ok"
TWO_RECIPIENTS = "C: RCPT TO:<a@corp.example>\nS: 250 2.1.5 ok\nC: RCPT TO:<b@corp.example>\nS: 250 2.1.5 ok"
DATA = "C: DATA\nS: 354 go on\nMESSAGE"
RESET = "C: RSET\nS: 250 ok"
BYE = "C: QUIT\nS: 221 bye"
BOTH = ("a@corp.example", "b@corp.example")


def script(*steps: str) -> str:
    """A dialogue from its parts."""
    return "\n".join((HELLO, *steps))


def deliver(steps: str, manager_for: ManagerFor, mail: Mail, pace: Pace = Pace.WHOLE, **settings: object) -> Delivery:
    """The delivery of a mail through a scripted server."""
    with Dialogue(steps, pace) as dialogue, Session(manager_for(dialogue, **settings)) as session:
        return session.send(mail)


@pytest.mark.parametrize("code", [421, 450, 452, 500, 530, 550, 552, 554])
@pytest.mark.parametrize("at", ["MAIL", "RCPT", "DATA", "final dot"])
def test_a_refusal_at_any_step_is_a_refusal_for_everybody(
    code: int, at: str, manager_for: ManagerFor, mail: Mail
) -> None:
    """A 4yz is retried, a 5yz is not (RFC 5321 4.2.1), and the server's text is quoted."""
    said = f"S: {code} {code // 100}.3.0 because"
    after = "" if code == 421 else BYE
    steps = {
        "MAIL": ["C: MAIL FROM:*", said, after],
        "RCPT": [MAIL, "C: RCPT TO:<a*", said, *([] if code == 421 else ["C: RCPT TO:<b*", said]), after],
        "DATA": [MAIL, TWO_RECIPIENTS, "C: DATA", said, after],
        "final dot": [MAIL, TWO_RECIPIENTS, DATA, said, "" if code == 421 else BYE],
    }
    delivery = deliver(script(*steps[at]), manager_for, mail)
    assert delivery.outcome is Outcome.REFUSED
    assert delivery.accepted == ()
    assert set(delivery.refused) == set(BOTH)
    assert isinstance(delivery.error, RefusedError)
    assert delivery.error.retryable is (code < 500)
    assert f"{code} {code // 100}.3.0 because" in str(delivery.error)
    assert delivery.error.phase is {"final dot": Phase.FINAL_DOT}.get(at, Phase.ENVELOPE)


@pytest.mark.parametrize("fault", ["HANG", "RESET", "SEND b''", "DRIP 250 2.1.0 a long answer", "SEND b'x' * 100000"])
@pytest.mark.parametrize("at", ["MAIL", "RCPT", "DATA"])
def test_a_line_that_fails_before_the_message_leaves_nothing_behind(
    fault: str, at: str, manager_for: ManagerFor, mail: Mail
) -> None:
    """No one has the mail, so a retry cannot deliver it twice."""
    fault = fault.replace("b'x' * 100000", repr(b"x" * 100_000))
    steps = {
        "MAIL": ["C: MAIL FROM:*"],
        "RCPT": [MAIL, "C: RCPT TO:<a*"],
        "DATA": [MAIL, TWO_RECIPIENTS, "C: DATA"],
    }
    delivery = deliver(script(*steps[at], fault), manager_for, mail)
    assert delivery.outcome is Outcome.NOT_SENT
    assert delivery.accepted == ()
    assert delivery.error is not None
    assert delivery.error.phase is Phase.ENVELOPE
    assert delivery.error.retryable is not fault.startswith("SEND b'x")


@pytest.mark.parametrize(
    "fault",
    ["HANG", "RESET", "SEND b''", "DRIP 250 2.6.0 queued", "S: 354 go on", f"SEND {b'x' * 100_000!r}", "S: nonsense"],
)
def test_no_answer_to_the_final_dot_is_unknown(fault: str, manager_for: ManagerFor, mail: Mail) -> None:
    """It may have been delivered: never resent blindly, and the Message-ID is there to look for."""
    steps = script(MAIL, TWO_RECIPIENTS, DATA, fault)
    delivery = deliver(steps, manager_for, mail, final_reply_timeout=1)
    assert delivery.outcome is Outcome.UNKNOWN
    assert isinstance(delivery.error, OutcomeUnknownError)
    assert not delivery.error.retryable
    assert delivery.message_id in str(delivery.error)
    assert "a@corp.example, b@corp.example" in str(delivery.error)


def test_the_final_reply_has_a_deadline_of_its_own(manager_for: ManagerFor, mail: Mail) -> None:
    """A server that scans for viruses is slow (RFC 5321 4.5.3.2.6)."""
    steps = script(MAIL, TWO_RECIPIENTS, DATA, "DRIP 250 2.6.0 queued", BYE)
    assert deliver(steps, manager_for, mail, timeout=2, final_reply_timeout=30).outcome is Outcome.ACCEPTED


def test_some_refused_recipients_are_named_with_the_servers_words(manager_for: ManagerFor, mail: Mail) -> None:
    """The others get the mail."""
    steps = script(
        MAIL,
        "C: RCPT TO:<a@corp.example>\nS: 550 5.1.1 no such user",
        "C: RCPT TO:<b@corp.example>\nS: 250 ok",
        DATA,
        "S: 250 2.6.0 queued",
        BYE,
    )
    delivery = deliver(steps, manager_for, mail)
    assert delivery.outcome is Outcome.PARTIAL
    assert delivery.accepted == ("b@corp.example",)
    assert str(delivery.refused["a@corp.example"]) == "550 5.1.1 no such user"
    assert "a@corp.example: '550 5.1.1 no such user'" in str(delivery.error)
    assert delivery.error is not None
    assert not delivery.error.retryable


def test_everybody_refused_for_different_reasons_is_told_apart(manager_for: ManagerFor, mail: Mail) -> None:
    """One of them may be retried."""
    steps = script(MAIL, "C: RCPT *\nS: 550 5.1.1 no such user", "C: RCPT *\nS: 450 4.2.1 mailbox busy", BYE)
    delivery = deliver(steps, manager_for, mail)
    assert delivery.outcome is Outcome.REFUSED
    assert delivery.error is not None
    assert delivery.error.retryable
    assert "no such user" in str(delivery.error)
    assert "mailbox busy" in str(delivery.error)


def test_a_server_that_closes_between_recipients_has_taken_none(manager_for: ManagerFor, mail: Mail) -> None:
    """A 421 cancels the recipients accepted before it."""
    steps = script(MAIL, "C: RCPT *\nS: 250 ok", "C: RCPT *\nS: 421 4.3.2 shutting down")
    delivery = deliver(steps, manager_for, mail)
    assert (delivery.outcome, delivery.accepted) == (Outcome.REFUSED, ())
    assert set(delivery.refused) == set(BOTH)


def test_an_anonymous_sender_that_must_sign_in_is_told_so(manager_for: ManagerFor, mail: Mail) -> None:
    """Exchange's reply to MAIL from an unknown sender."""
    steps = script("C: MAIL *\nS: 530 5.7.57 Client not authenticated to send mail", BYE)
    assert "'Windows Authentication'" in str(deliver(steps, manager_for, mail).error)


def test_a_message_above_the_servers_limit_fails_before_it_is_sent(manager_for: ManagerFor, mail: Mail) -> None:
    """With both numbers."""
    big = Mail(
        from_address="etl@corp.example", to="a@corp.example", attachments=[Attachment(content=b"x" * 20_000, name="x")]
    )
    delivery = deliver(script(BYE), manager_for, big)
    assert delivery.outcome is Outcome.NOT_SENT
    assert isinstance(delivery.error, MessageError)
    assert "10,000" in str(delivery.error)
    assert "28," in str(delivery.error)


def test_a_missing_attachment_fails_before_anything_is_said(manager_for: ManagerFor, tmp_path: Path) -> None:
    """The error names the file."""
    mail = Mail(from_address="etl@corp.example", to="a@corp.example", attachments=[tmp_path / "gone.csv"])
    delivery = deliver(script(BYE), manager_for, mail)
    assert delivery.outcome is Outcome.NOT_SENT
    assert "gone.csv" in str(delivery.error)


class Shrinking:
    """A file that is truncated between being measured and being read."""

    name = "report.csv"

    def __init__(self, path: Path) -> None:
        self._path = path

    def stat(self) -> object:
        """As large as promised."""
        return self._path.stat()

    def open(self, mode: str) -> object:
        """Shorter than promised."""
        self._path.write_bytes(b"x" * 10)
        return self._path.open(mode)


def test_an_attachment_that_shrinks_on_the_way_is_never_half_a_mail(manager_for: ManagerFor, tmp_path: Path) -> None:
    """The socket is closed without the final dot."""
    path = tmp_path / "report.csv"
    path.write_bytes(b"x" * 3000)
    mail = Mail(from_address="etl@corp.example", to="a@corp.example", attachments=[Attachment(Shrinking(path))])  # type: ignore[arg-type]
    steps = script(MAIL, "C: RCPT *\nS: 250 ok", DATA)
    with Dialogue(steps) as dialogue, Session(manager_for(dialogue)) as session:
        delivery = session.send(mail)
        assert not session.is_open
    assert dialogue.messages == []
    assert delivery.outcome is Outcome.NOT_SENT
    assert delivery.error is not None
    assert delivery.error.phase is Phase.DATA


def test_a_local_part_outside_ascii_needs_a_server_that_takes_it(manager_for: ManagerFor) -> None:
    """SMTPUTF8 is not offered here (RFC 6531)."""
    mail = Mail(from_address="etl@corp.example", to="a@corp.example", reply_to="jürgen@corp.example")
    delivery = deliver(script(BYE), manager_for, mail)
    assert "jürgen@corp.example" in str(delivery.error)
    assert "etl@corp.example" not in str(delivery.error)
    assert "ASCII alias" in str(delivery.error)


def test_a_local_part_outside_ascii_is_announced(manager_for: ManagerFor) -> None:
    """Where the server offers SMTPUTF8."""
    mail = Mail(from_address="etl@corp.example", to="jürgen@corp.example")
    steps = script("C: MAIL FROM:<etl@corp.example> SIZE=* SMTPUTF8\nS: 250 ok", "C: RCPT TO:<jürgen@*\nS: 250 ok")
    steps = steps.replace("S: 250 8BITMIME", "S: 250-8BITMIME\nS: 250 SMTPUTF8")
    delivery = deliver(f"{steps}\n{DATA}\nS: 250 ok\n{BYE}", manager_for, mail)
    assert delivery.outcome is Outcome.ACCEPTED


def test_a_mail_without_sender_takes_the_connections(manager_for: ManagerFor) -> None:
    """And its Reply-To; without either it is an error that names both places."""
    mail = Mail(to="a@corp.example")
    assert "'From address' on the connection" in str(deliver(script(BYE), manager_for, mail).error)
    steps = script("C: MAIL FROM:<robot@corp.example> *\nS: 250 ok", "C: RCPT *\nS: 250 ok", DATA, "S: 250 ok", BYE)
    with Dialogue(steps) as dialogue:
        manager = manager_for(dialogue, from_address="Robot <robot@corp.example>", reply_to="ops@corp.example")
        with Session(manager) as session:
            delivery = session.send(mail)
    assert delivery.outcome is Outcome.ACCEPTED
    assert delivery.message_id.endswith("@corp.example>")
    assert b"Reply-To: ops@corp.example\r\n" in dialogue.messages[0]


def test_after_a_refusal_the_next_mail_goes_through_the_same_session(manager_for: ManagerFor, mail: Mail) -> None:
    """RSET clears the table."""
    steps = script("C: MAIL *\nS: 451 4.3.0 busy", RESET, MAIL, TWO_RECIPIENTS, DATA, "S: 250 ok", BYE)
    with Dialogue(steps) as dialogue, Session(manager_for(dialogue)) as session:
        assert session.send(mail).outcome is Outcome.REFUSED
        assert session.send(mail, index=1).outcome is Outcome.ACCEPTED


def test_a_session_whose_line_is_dead_says_so(manager_for: ManagerFor, mail: Mail) -> None:
    """Nothing more is sent on it."""
    with Dialogue(script("C: MAIL *\nRESET")) as dialogue, Session(manager_for(dialogue)) as session:
        assert isinstance(session.send(mail).error, ConnectionLostError)
        again = session.send(mail, index=1)
    assert (again.index, again.outcome) == (1, Outcome.NOT_SENT)


def test_what_the_server_said_before_it_hung_up_is_repeated(manager_for: ManagerFor) -> None:
    """A server that refuses a message in the middle."""
    big = Mail(
        from_address="etl@corp.example",
        to="a@corp.example",
        attachments=[Attachment(content=b"x" * 9_000_000, name="x")],
    )
    steps = script("C: MAIL *\nS: 250 ok", "C: RCPT *\nS: 250 ok", "C: DATA\nS: 354 go on\nS: 552 5.3.4 too big")
    delivery = deliver(steps.replace("SIZE 10000", "SIZE 0"), manager_for, big, timeout=5)
    assert delivery.outcome is Outcome.REFUSED
    assert "552 5.3.4 too big" in str(delivery.error)


@pytest.mark.parametrize("size", [10, 9_000_000])
@pytest.mark.parametrize(("code", "retryable"), [(451, True), (552, False)])
@pytest.mark.parametrize("then", ["HANG", "RESET", "SEND b''"])
def test_a_refusal_in_the_middle_of_a_message_is_not_taken_for_an_unknown_outcome(
    size: int, code: int, retryable: bool, then: str, manager_for: ManagerFor
) -> None:
    """Whether the server stops reading or hangs up; the final dot is not sent after a refusal."""
    mail = Mail(
        from_address="etl@corp.example", to="a@corp.example", attachments=[Attachment(content=b"x" * size, name="x")]
    )
    steps = script("C: MAIL *\nS: 250 ok", "C: RCPT *\nS: 250 ok", f"C: DATA\nS: 354 go on\nS: {code} no", then)
    delivery = deliver(steps.replace("SIZE 10000", "SIZE 0"), manager_for, mail)
    assert delivery.outcome in ((Outcome.REFUSED,) if then != "RESET" else (Outcome.REFUSED, Outcome.NOT_SENT))
    if delivery.outcome is Outcome.REFUSED:
        assert delivery.error is not None
        assert delivery.error.retryable is retryable


def test_an_acceptance_that_comes_before_the_final_dot_is_not_believed(manager_for: ManagerFor, mail: Mail) -> None:
    """It answers something else."""
    steps = script(MAIL, TWO_RECIPIENTS, "C: DATA\nS: 354 go on\nS: 250 2.0.0 fake")
    delivery = deliver(steps, manager_for, mail)
    assert delivery.outcome is Outcome.NOT_SENT
    assert "before it had the whole message" in str(delivery.error)


class TimeLimit(BaseException):
    """Like Airflow's own: not an `Exception`."""


def time_is_up(_number: int, _frame: object) -> None:
    """Like Airflow's own: raised from a signal handler."""
    raise TimeLimit


def test_an_interruption_after_the_final_dot_is_an_unknown_outcome(manager_for: ManagerFor, mail: Mail) -> None:
    """Airflow would retry the task for its time limit, and the mail may have been delivered."""
    steps = script(MAIL, TWO_RECIPIENTS, DATA, "HANG")
    with Dialogue(steps) as dialogue, Session(manager_for(dialogue)) as session:

        def interrupt() -> None:
            wait_until(lambda: dialogue.messages)
            os.kill(os.getpid(), signal.SIGALRM)

        signal.signal(signal.SIGALRM, time_is_up)
        interrupting = threading.Thread(target=interrupt)
        interrupting.start()
        with pytest.raises(OutcomeUnknownError, match="interrupted"):
            session.send(mail)
        interrupting.join()
        assert not session.is_open


def test_an_interruption_before_the_final_dot_stays_what_it_is(
    manager_for: ManagerFor, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No one has the mail, and the connection is not used again."""

    def interrupted(_wire: Transport, _block: bytes) -> None:
        raise TimeLimit

    with Dialogue(HELLO) as dialogue, Session(manager_for(dialogue)) as session:
        monkeypatch.setattr(Transport, "send_some", interrupted)
        with pytest.raises(TimeLimit):
            session.send(mail)
        assert not session.is_open


def test_hundreds_of_refused_recipients_make_a_readable_error(manager_for: ManagerFor) -> None:
    """All of them are in the delivery."""
    everybody = [f"r{number}@corp.example" for number in range(200)]
    mail = Mail(from_address="etl@corp.example", to=everybody)
    answers = [f"C: RCPT *\nS: {'250 ok' if n % 2 else f'550 5.1.1 no such user [{n}]'}" for n in range(200)]
    delivery = deliver(script("C: MAIL *\nS: 250 ok", *answers, DATA, "S: 250 ok", BYE), manager_for, mail)
    assert len(delivery.refused) == 100
    assert len(str(delivery.error)) < 1000
    assert "and 90 more" in str(delivery.error)


@pytest.mark.parametrize("pace", Pace)
def test_a_mail_is_accepted(pace: Pace, manager_for: ManagerFor, mail: Mail) -> None:
    """Its size was announced, its dots are doubled, and the server's reply is kept."""
    steps = script(MAIL, TWO_RECIPIENTS, DATA, "S: 250 2.6.0 <x@y> Queued mail for delivery", BYE)
    with Dialogue(steps, pace) as dialogue, Session(manager_for(dialogue)) as session:
        delivery = session.send(mail)
    assert (delivery.outcome, delivery.accepted, delivery.refused) == (Outcome.ACCEPTED, BOTH, {})
    assert str(delivery.reply) == "250 2.6.0 <x@y> Queued mail for delivery"
    (message,) = dialogue.messages
    assert dialogue.heard[1].endswith(f"SIZE={len(message)}")
    assert delivery.to_dict() == {
        "index": 0,
        "message_id": delivery.message_id,
        "outcome": "accepted",
        "accepted": list(BOTH),
        "refused": {},
        "reply": {"code": 250, "enhanced": "2.6.0", "text": "<x@y> Queued mail for delivery"},
        "error": None,
        "server": f"127.0.0.1:{dialogue.port}",
    }


@given(text=st.text(alphabet=".\r\na", max_size=40), cuts=st.lists(st.integers(0, 40), max_size=6))
@settings(max_examples=300)
def test_dots_are_doubled_across_the_borders_of_chunks(text: str, cuts: list[int]) -> None:
    """Wherever a chunk ends, the wire carries the same octets (RFC 5321 4.5.2)."""
    message = text.replace("\r", "").replace("\n", "\r\n").encode()
    borders = sorted({0, *(min(cut, len(message)) for cut in cuts), len(message)})
    chunks = [message[a:b] for a, b in itertools.pairwise(borders)]
    wire = b"".join(stuff_dots(iter(chunks)))
    lines = message.removesuffix(b"\r\n").split(b"\r\n")
    expected = b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines) + b"\r\n"
    assert wire == (expected if message else b"")
