"""One transaction as a state machine without a socket: which replies lead to which delivery, and which are errors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import ConnectionLostError, Phase, ProtocolError, Reply
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.mail.render import render
from airflow_provider_smtpcm.smtp import Outcome
from airflow_provider_smtpcm.smtp.queue import OutgoingMail, SendRequest
from airflow_provider_smtpcm.smtp.throttling import ServerProfile
from airflow_provider_smtpcm.smtp.transaction import Stage, Transaction

MANAGER = SmtpConnectionManager(host="mail.corp.example", ssl_mode="none")
A, B, C = (f"{name}@corp.example" for name in "abc")
CODES = ["250", "251", "354", "334", "421", "450", "452", "452 4.5.3 too many", "552 too many", "550", "503", "554"]


def outgoing(*to: str) -> OutgoingMail:
    """A mail to these people."""
    mail = Mail(from_address="etl@corp.example", to=to or (A, B), text="x", message_id="<1@corp.example>")
    return OutgoingMail(SendRequest(0, mail), render(mail), MANAGER)


def begun(
    mail: OutgoingMail | None = None,
    *,
    grouped: bool = True,
    chunking: bool = False,
    reset: bool = False,
    announced: int | None = None,
    profile: ServerProfile | None = None,
) -> Transaction:
    """A transaction whose first group of commands was sent."""
    mail = mail or outgoing()
    begun = Transaction(
        mail,
        mail.rendering,
        peer="mail.corp.example:25",
        parameters=" SIZE=1",
        chunking=chunking,
        grouped=grouped,
        pipelined=False,
        reset=reset,
        announced_limit=announced,
        profile=profile or ServerProfile(),
    )
    begun.lines_sent = len(begun.next_lines())
    return begun


def reply(words: str) -> Reply:
    """A reply, nearly as the parser makes it."""
    code, _, text = words.partition(" ")
    enhanced = text.split(" ")[0] if text[1:2] == "." else None
    return Reply(code=int(code), enhanced=enhanced, text=text.removeprefix(enhanced or "").strip())


def hear(transaction: Transaction, *replies: str) -> Transaction:
    """Reply to what was sent; the message follows as soon as the server waits for it, and each line when it may."""
    for words in replies:
        transaction.on_reply(reply(words))
        if transaction.stage in (Stage.CONTENT, Stage.EMPTY_DATA):
            transaction.stage, transaction.committed = Stage.FINAL_REPLY, True
        if transaction.stage is Stage.ENVELOPE:
            transaction.lines_sent += len(transaction.next_lines())
    return transaction


def outcome(transaction: Transaction) -> Outcome | None:
    """The transaction's delivery."""
    return transaction.delivery.outcome if transaction.delivery else None


OUT_OF_STEP = [["354"], ["250", "354"], ["250", "250", "354"], ["250"] * 4, ["250", "250", "250", "334"]]


@pytest.mark.parametrize(
    ("replies", "grouped"),
    [
        *((replies, grouped) for replies in OUT_OF_STEP for grouped in (True, False)),
        (["550", "503", "503", "250"], True),
    ],
)
def test_a_reply_that_cannot_answer_the_command_shows_that_the_line_is_out_of_step(
    replies: list[str], grouped: bool
) -> None:
    """Such as a 354 to RCPT, after a missing reply, or a 250 to DATA, after a superfluous one."""
    with pytest.raises(ProtocolError, match="which is not a reply to it") as caught:
        hear(begun(grouped=grouped), *replies)
    assert caught.value.phase is Phase.ENVELOPE


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize(
    "words",
    [
        "554 SMTP synchronization error",
        "503 5.5.0 Improper use of SMTP command pipelining",
        "554 5.5.0 Error: SMTP protocol synchronisation error",
        "421 4.7.0 Improper command pipelining",
    ],
)
def test_a_server_that_objects_to_the_group_has_not_refused_the_mail(at: int, words: str) -> None:
    """Whichever command it rejects."""
    with pytest.raises(ProtocolError):
        hear(begun(), *["250"] * at, words)


@pytest.mark.parametrize("words", ["550 5.1.1 <data-pipeline@corp.example> unknown", "550 no synchronization@ here"])
def test_an_address_about_pipelines_is_no_objection(words: str) -> None:
    """Servers repeat addresses, and data engineers name theirs so."""
    assert outcome(hear(begun(), "250", words, words, "554 no valid recipients")) is Outcome.REFUSED


def test_what_one_by_one_would_be_no_objection_is_a_refusal() -> None:
    """There was no group to reject."""
    assert outcome(hear(begun(grouped=False), "554 SMTP synchronization error")) is Outcome.REFUSED


def test_a_reset_that_is_refused_leaves_no_ground_to_stand_on() -> None:
    """What the server remembers is not known."""
    with pytest.raises(ProtocolError, match="RSET"):
        hear(begun(reset=True), "500")


def test_a_354_although_everybody_was_refused_gets_a_lone_dot_and_no_trust() -> None:
    """RFC 2920 3.1: whatever the reply to it, no recipient was accepted."""
    transaction = begun()
    for words in ("250", "550 5.1.1 no", "450 4.2.1 later", "354 go on"):
        transaction.on_reply(reply(words))
    assert transaction.stage is Stage.EMPTY_DATA
    transaction.stage, transaction.committed = Stage.FINAL_REPLY, True
    transaction.on_reply(reply("250 2.6.0 queued"))
    assert transaction.delivery is not None
    assert transaction.delivery.outcome is Outcome.REFUSED
    assert {address: said.code for address, said in transaction.delivery.refused.items()} == {A: 550, B: 450}
    assert not transaction.closes_connection


def test_a_lone_dot_without_an_answer_is_no_unknown_outcome() -> None:
    """No recipient was accepted, so no one can have it."""
    transaction = hear(begun(), "250", "550 no", "550 no", "354 go on")
    delivery = transaction.fail(ConnectionLostError("it hung up"))
    assert delivery.outcome is Outcome.REFUSED
    assert not delivery.error or delivery.error.phase is Phase.ENVELOPE


def test_a_refused_sender_explains_the_refused_rest_of_the_group() -> None:
    """Not the server's subsequent 503 to RCPT and DATA."""
    delivery = hear(begun(), "550 5.7.60 not your address", "503 no", "503 no", "503 no").delivery
    assert delivery is not None
    assert {str(said) for said in delivery.refused.values()} == {"550 5.7.60 not your address"}
    assert "the sender etl@corp.example" in str(delivery.error)


def test_recipients_that_are_taken_although_the_sender_was_refused_are_not_believed() -> None:
    """A server that replies 354 then gets only the final dot."""
    transaction = begun()
    for words in ("550 no", "250", "250", "354"):
        transaction.on_reply(reply(words))
    assert transaction.stage is Stage.EMPTY_DATA


def test_the_last_word_of_a_server_that_closes_is_a_refusal_for_everybody() -> None:
    """A 421 cancels the recipients accepted before it."""
    for at in range(4):
        transaction = hear(begun(), *["250"] * at, "421 4.3.2 closing")
        assert transaction.delivery is not None
        assert (transaction.delivery.outcome, transaction.closes_connection) == (Outcome.REFUSED, True)
        assert set(transaction.delivery.refused) == {A, B}


def not_through() -> Transaction:
    """A transaction whose message is being sent, but not its end."""
    transaction = begun()
    for words in ("250", "250", "250", "354"):
        transaction.on_reply(reply(words))
    transaction.stage = Stage.FINAL_REPLY
    return transaction


def test_a_yes_before_the_last_octet_is_not_believed() -> None:
    """Its reply is to something else, so the connection cannot be used."""
    transaction = not_through()
    with pytest.raises(ProtocolError) as caught:
        transaction.on_reply(reply("250 ok"))
    assert caught.value.phase is Phase.DATA
    assert transaction.closes_connection
    assert transaction.fail(caught.value).outcome is Outcome.NOT_SENT


@pytest.mark.parametrize("words", ["552 5.3.4 too big", "421 4.3.2 closing"])
def test_a_no_before_the_last_octet_is_a_refusal(words: str) -> None:
    """The server discards a message without its end."""
    transaction = hear(not_through(), words)
    assert (outcome(transaction), transaction.closes_connection) == (Outcome.REFUSED, True)


def test_an_unknown_outcome_names_those_who_were_refused_before() -> None:
    """They are known not to have it."""
    mail = outgoing(A, B, C)
    transaction = hear(begun(mail), "250", "250", "550 5.1.1 no", "452 4.5.3 too many", "354")
    delivery = transaction.fail(ConnectionLostError("it hung up"))
    assert delivery.outcome is Outcome.UNKNOWN
    assert {address: said.code for address, said in delivery.refused.items()} == {B: 550, C: 452}
    assert A in str(delivery.error)
    assert B not in str(delivery.error)


@pytest.mark.parametrize(
    "words", ["452 4.5.3 too many recipients", "452 too many", "552 Too Many recipients", "552 5.5.3 no more"]
)
def test_recipients_too_many_are_asked_for_again(words: str) -> None:
    """RFC 5321 4.5.3.1.10, with the replies of old and new servers."""
    mail = outgoing(A, B, C)
    assert outcome(hear(begun(mail), "250", "250", words, words, "354", "250 queued")) is None
    assert (list(mail.recipients), mail.accepted, mail.refused) == ([B, C], [A], {})
    delivery = hear(begun(mail), "250", "250", "250", "354", "250 queued").delivery
    assert delivery is not None
    assert (delivery.outcome, delivery.accepted) == (Outcome.ACCEPTED, (A, B, C))


def test_a_354_to_the_end_of_a_message_answers_something_else() -> None:
    """So the outcome of the message, and of everything after it, is unknown."""
    transaction = begun()
    with pytest.raises(ProtocolError, match="the end of the message") as caught:
        hear(transaction, "250", "250", "250", "354", "354 go on")
    assert caught.value.phase is Phase.FINAL_DOT
    delivery = transaction.fail(caught.value)
    assert (delivery.outcome, delivery.reply) == (Outcome.UNKNOWN, reply("354 go on"))


@pytest.mark.parametrize("words", ["452 4.2.2 mailbox full", "552 5.2.2 over quota", "552 no room", "550 too many"])
def test_somebody_without_room_is_not_one_too_many(words: str) -> None:
    """The same codes mean a full mailbox."""
    assert outcome(hear(begun(), "250", "250", words, "354", "250 queued")) is Outcome.PARTIAL


def test_a_server_for_which_one_recipient_exceeds_recipient_limit_refuses_them() -> None:
    """No recipient was accepted, so a further transaction would not help."""
    replies = ["250", *["452 4.5.3 too many recipients"] * 2, "554 no valid recipients"]
    assert outcome(hear(begun(), *replies)) is Outcome.REFUSED


@pytest.mark.parametrize("last", [["550 5.6.0 bad content"], []])
def test_who_got_it_before_has_it_whatever_becomes_of_a_further_transaction(last: list[str]) -> None:
    """So the outcome is partial, or unknown with accepted recipients; never a retry of the whole mail."""
    mail = outgoing(A, B)
    hear(begun(mail), "250", "250", "452 4.5.3 too many", "354", "250 queued")
    further = begun(mail)
    hear(further, "250", "250", "354", *last)
    delivery = further.delivery or further.fail(ConnectionLostError("it hung up"))
    assert delivery.outcome is (Outcome.PARTIAL if last else Outcome.UNKNOWN)
    assert delivery.accepted == (A,)
    assert delivery.error is not None
    assert not delivery.error.retryable


@pytest.mark.parametrize("chunking", [True, False])
@pytest.mark.parametrize("grouped", [True, False])
def test_everybody_gets_it(chunking: bool, grouped: bool) -> None:
    """Including forwarded ones (251)."""
    replies = ["250", "251", "250", "354", "250 queued"]
    if chunking:
        replies.remove("354")
    delivery = hear(begun(grouped=grouped, chunking=chunking), *replies).delivery
    assert delivery is not None
    assert (delivery.outcome, delivery.accepted, delivery.refused) == (Outcome.ACCEPTED, (A, B), {})


@given(
    answers=st.lists(st.sampled_from(CODES), max_size=30),
    grouped=st.booleans(),
    chunking=st.booleans(),
    reset=st.booleans(),
    recipients=st.integers(1, 6),
    group=st.integers(1, 4),
    limit=st.none() | st.integers(1, 3),
)
def test_whatever_is_answered_a_mail_comes_to_an_end(
    answers: list[str], grouped: bool, chunking: bool, reset: bool, recipients: int, group: int, limit: int | None
) -> None:
    """No recipient is accepted without a 250 to the end of the message; each later transaction has fewer pending."""
    profile = ServerProfile(recipients_at_once=group, recipient_limit=limit)
    mail = outgoing(*(f"r{number}@corp.example" for number in range(recipients)))
    everybody = set(mail.recipients)
    left = iter(answers)
    transactions = 0
    while True:
        transactions += 1
        assert transactions <= recipients
        asked = set(mail.recipients)
        transaction = begun(mail, grouped=grouped, chunking=chunking, reset=reset, profile=profile)
        try:
            while transaction.stage is not Stage.DONE and (words := next(left, None)) is not None:
                hear(transaction, words)
        except ProtocolError as error:
            delivery = transaction.fail(error)
        else:
            if transaction.stage is not Stage.DONE:
                delivery = transaction.fail(ConnectionLostError("no more answers"))
            elif transaction.delivery is None:
                assert set(mail.recipients) < asked
                continue
            else:
                delivery = transaction.delivery
        break
    assert set(delivery.accepted) | set(delivery.refused) <= everybody
    assert not set(delivery.accepted) & set(delivery.refused)
    assert (delivery.error is None) is (delivery.outcome is Outcome.ACCEPTED)
    if delivery.outcome is Outcome.ACCEPTED:
        assert set(delivery.accepted) == everybody
    elif delivery.outcome is not Outcome.UNKNOWN:
        assert bool(delivery.accepted) is (delivery.outcome is Outcome.PARTIAL)
    if delivery.outcome is Outcome.REFUSED:
        assert set(delivery.refused) == everybody


def test_recipients_are_named_in_groups_until_it_is_known_how_many_a_server_takes() -> None:
    """Each group waits for the replies to the one before; DATA goes with the last one, or once one was too many."""
    mail, profile = outgoing(*(f"r{number}@corp.example" for number in range(8))), ServerProfile(recipients_at_once=3)
    transaction = begun(mail, reset=True, profile=profile)
    assert transaction.lines_sent == 5
    hear(transaction, "250", "250", "250", "250")
    assert transaction.next_lines() == []
    hear(transaction, "550 5.1.1 no")
    assert transaction.lines[5 : transaction.lines_sent] == [
        f"RCPT TO:<r{number}@corp.example>" for number in (3, 4, 5)
    ]
    hear(transaction, "250", "452 4.5.3 too many", "452 4.5.3 too many")
    assert (transaction.lines[-2:], transaction.is_awaiting_reply) == (["RCPT TO:<r5@corp.example>", "DATA"], True)
    hear(transaction, "354", "250 queued")
    assert [address[:2] for address in mail.accepted] == ["r0", "r1", "r3"]
    assert [address[:2] for address in mail.recipients] == ["r4", "r5", "r6", "r7"]


@pytest.mark.parametrize("chunking", [True, False])
@pytest.mark.parametrize("grouped", [True, False])
def test_no_further_recipient_is_named_once_one_was_too_many(grouped: bool, chunking: bool) -> None:
    """The message follows for those who were accepted."""
    mail = outgoing(*(f"r{number}@corp.example" for number in range(5)))
    transaction = begun(mail, grouped=grouped, chunking=chunking, profile=ServerProfile(recipients_at_once=2))
    hear(transaction, "250", "250", "452 4.5.3 too many")
    if not chunking:
        hear(transaction, "354")
    assert transaction.stage is Stage.FINAL_REPLY
    assert outcome(hear(transaction, "250 queued")) is None
    assert len(mail.recipients) == 4
