"""Complete messages through the hook: the same guarantees and the same delivery as for a `Mail`."""

from __future__ import annotations

import json
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest

from airflow_provider_smtpcm.errors import MessageError, OutcomeUnknownError, RefusedError
from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
from airflow_provider_smtpcm.mail import Mail, MimeMessage
from airflow_provider_smtpcm.testing import Relay
from tests.smtp.dialogue import Dialogue

WHOLE = (
    b"From: ETL <etl@corp.example>\r\nTo: a@corp.example, bad@corp.example\r\nBcc: c@corp.example\r\n"
    b"Date: Mon, 1 Jan 2024 00:00:00 +0000\r\nMessage-ID: <1@corp.example>\r\nX-Odd:  kept \r\n\r\n.\r\n.x\r\n"
)
SENT = WHOLE.replace(b"Bcc: c@corp.example\r\n", b"")
HELLO = "S: 220 mail ESMTP\nC: EHLO *\nS: 250-mail"
HookFor = Callable[..., SmtpConnectionManagerHook]


@pytest.fixture
def hook_for(monkeypatch: pytest.MonkeyPatch) -> HookFor:
    """A hook for a server."""

    def define(server: Relay | Dialogue, **extra: object) -> SmtpConnectionManagerHook:
        if isinstance(server, Relay):
            connection = server.airflow_connection(**extra)
        else:
            extra = {"ssl_mode": "none", "timeout": server.patience, "final_reply_timeout": server.patience, **extra}
            connection = {"conn_type": "smtpcm", "host": "127.0.0.1", "port": server.port, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_MAIL", json.dumps(connection))
        return SmtpConnectionManagerHook("mail")

    return define


def simple(to: str = "a@corp.example") -> EmailMessage:
    """A message of Python's `email`."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "etl@corp.example", to, "Grüße"
    message.set_content("Drei Zeilen für dich.\n")
    return message


def test_the_octets_arrive_as_they_are_with_the_envelope_of_the_header(hook_for: HookFor) -> None:
    """Without Bcc; who was refused is told as for any mail."""
    with Relay(ssl_mode="none", refuse={"bad@corp.example": "550 5.1.1 No such user"}) as relay:
        delivery = hook_for(relay).send(WHOLE)
        (received,) = relay.messages
    assert (delivery.outcome, delivery.message_id) == ("partial", "<1@corp.example>")
    assert delivery.accepted == ("a@corp.example", "c@corp.example")
    assert list(delivery.refused) == ["bad@corp.example"]
    assert received.content == SENT
    assert (received.mail_from, received.recipients) == ("etl@corp.example", delivery.accepted)


@pytest.mark.parametrize("kind", ["EmailMessage", "bytes", "Path", "MimeMessage"])
def test_every_kind_of_message_is_sent(kind: str, hook_for: HookFor, tmp_path: Path) -> None:
    """And has the Message-ID of its header, or one that is added."""
    message = simple()
    path = tmp_path / "mail.eml"
    path.write_bytes(message.as_bytes())
    sources = {"EmailMessage": message, "bytes": bytes(message), "Path": path, "MimeMessage": MimeMessage(path)}
    with Relay(ssl_mode="none") as relay:
        hook = hook_for(relay)
        hook.check(sources[kind])  # type: ignore[arg-type]
        delivery = hook.send(sources[kind])  # type: ignore[arg-type]
        with hook.get_conn() as session:
            assert session.send(sources[kind]).outcome == "accepted"  # type: ignore[arg-type]
        received, _ = relay.messages
    assert received.message["Message-ID"] == delivery.message_id
    assert received.message["Subject"] == "Grüße"
    assert received.message.get_content().splitlines() == ["Drei Zeilen für dich."]
    assert received.message["Date"]


def test_many_are_sent_beside_mails_and_one_that_cannot_be_sent_stops_none(hook_for: HookFor, tmp_path: Path) -> None:
    """One delivery for each, in their order of finishing."""
    mails = [
        simple("a@corp.example"),
        Mail(from_address="etl@corp.example", to="b@corp.example", subject="x"),
        b"no header at all",
        tmp_path / "missing.eml",
        MimeMessage(simple(), recipients="c@corp.example", envelope_from="<>"),
        b"From: etl@corp.example\r\n\r\nto no one\r\n",
    ]
    with Relay(ssl_mode="none") as relay:
        deliveries = {delivery.index: delivery for delivery in hook_for(relay).send_many(mails)}
        received = {mail.recipients: mail.mail_from for mail in relay.messages}
    assert [str(deliveries[index].outcome) for index in range(6)] == [
        "accepted",
        "accepted",
        "not_sent",
        "not_sent",
        "accepted",
        "not_sent",
    ]
    assert received == {
        ("a@corp.example",): "etl@corp.example",
        ("b@corp.example",): "etl@corp.example",
        ("c@corp.example",): "",
    }
    assert "not a header field" in str(deliveries[2].error)
    assert "missing.eml" in str(deliveries[3].error)
    assert "no recipient" in str(deliveries[5].error)
    assert not any(deliveries[index].error.retryable for index in (2, 3, 5))  # type: ignore[union-attr]


def test_what_is_neither_a_mail_nor_a_message_is_an_error(hook_for: HookFor) -> None:
    """A str is the text of a mail, more likely than a path."""
    with Relay(ssl_mode="none") as relay:
        hook = hook_for(relay)
        with pytest.raises(MessageError, match="A str is neither"):
            hook.send("Three rows were loaded.")  # type: ignore[arg-type]
        for wrong in ("text", 5, None):
            with pytest.raises(TypeError, match="Only mails can be sent"):
                list(hook.send_many([wrong]))  # type: ignore[list-item]
        assert not relay.messages


def test_a_message_of_8_bits_says_body_8bitmime(hook_for: HookFor) -> None:
    """RFC 6152; one of 7 bits says nothing."""
    script = f"{HELLO}\nS: 250 8BITMIME\nC: MAIL FROM:<etl@corp.example> BODY=8BITMIME\nS: 250 ok\nC: RCPT *\nS: 250 ok"
    with Dialogue(f"{script}\nC: DATA\nS: 354 go on\nMESSAGE\nS: 250 ok\nC: QUIT\nS: 221 bye") as dialogue:
        assert hook_for(dialogue).send(simple()).outcome == "accepted"
    assert "für".encode() in dialogue.messages[0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ((b".x", "ä".encode()), "8BITMIME"),
        ((b"X-Odd:  kept ", "X-Odd: ä".encode()), "SMTPUTF8"),
        ((b"a@corp.example", "jürgen@corp.example".encode()), "jürgen@corp.example"),
    ],
)
def test_what_the_server_does_not_take_is_refused_before_it_is_sent(
    change: tuple[bytes, bytes], told: str, hook_for: HookFor
) -> None:
    """With the extension that it lacks; the session goes on."""
    message = WHOLE.replace(*change)
    with Dialogue(f"{HELLO}\nS: 250 HELP\nC: QUIT\nS: 221 bye") as dialogue:
        with pytest.raises(MessageError, match=told) as caught:
            hook_for(dialogue).send(message)
        assert not caught.value.retryable


def test_smtputf8_is_used_where_the_server_offers_it(hook_for: HookFor) -> None:
    """With 8-bit content too."""
    message = simple("jürgen@corp.example")
    with Relay(ssl_mode="none", smtputf8=True) as relay:
        assert hook_for(relay).send(message).accepted == ("jürgen@corp.example",)
        assert relay.messages[0].recipients == ("jürgen@corp.example",)


@pytest.mark.parametrize(
    ("ending", "error"),
    [("S: 550 5.7.1 no", RefusedError), ("S: 451 later", RefusedError), ("SEND b''", OutcomeUnknownError)],
)
def test_refusals_and_unknown_outcomes_are_those_of_any_mail(
    ending: str, error: type[Exception], hook_for: HookFor
) -> None:
    """The error names the Message-ID of the header."""
    script = (
        f"{HELLO}\nS: 250 HELP\nC: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nC: DATA\nS: 354 go on\nMESSAGE\n{ending}"
    )
    with Dialogue(script) as dialogue, pytest.raises(error, match=r"<1@corp\.example>|451|550"):
        hook_for(dialogue).send(MimeMessage(WHOLE, recipients="a@corp.example"))
    assert dialogue.messages == [SENT.replace(b"\r\n.", b"\r\n..")]


def test_the_envelope_sender_of_the_connection_is_that_of_messages_too(hook_for: HookFor) -> None:
    """Unless the message has one of its own."""
    with Relay(ssl_mode="none") as relay:
        hook = hook_for(relay, envelope_from="Bounces <bounces@corp.example>")
        hook.send(simple())
        hook.send(MimeMessage(simple(), envelope_from="<>"))
        hook.send(Mail(from_address="etl@corp.example", to="a@corp.example"))
        hook.send(Mail(from_address="etl@corp.example", to="a@corp.example", envelope_from="<>"))
        assert [mail.mail_from for mail in relay.messages] == ["bounces@corp.example", "", "bounces@corp.example", ""]
