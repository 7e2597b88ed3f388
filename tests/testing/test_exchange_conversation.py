"""A relay with the personality of an Exchange says what Exchange says, where Exchange says it."""

from __future__ import annotations

import smtplib
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_smtpcm.testing import Exchange, Relay
from airflow_provider_smtpcm.testing.exchange import Connector
from tests.testing.clients import CONTENT, USER, USERS, connect, log_in, send, trusting

if TYPE_CHECKING:
    from collections.abc import Iterator

UNABLE_TO_RELAY = b"5.7.54 SMTP; Unable to relay recipient in non-accepted domain"
SEND_AS_DENIED = b"5.7.60 SMTP; Client does not have permissions to send as this sender"
NOT_FOUND = b"5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup"
TOO_MANY_MESSAGES = b"4.4.2 Message submission rate for this client has exceeded the configured limit"


def exchange(**settings: Any) -> Exchange:
    """An Exchange that answers at once."""
    return Exchange(**({"tarpit": 0.0} | settings))


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    with Relay(users=USERS, personality=exchange(), size_limit=100_000) as relay:
        yield relay


@pytest.fixture
def client(relay: Relay) -> Iterator[smtplib.SMTP]:
    relay.clear()
    with connect(relay) as client:
        assert log_in_to_exchange(client)[0] == 235
        yield client


def log_in_to_exchange(client: smtplib.SMTP, **arguments: str) -> tuple[int, bytes]:
    """Log in by AUTH NTLM with an initial response, so that only the last reply matters."""
    return log_in(client, **arguments, initial_response=True)


# --- Greeting, EHLO


def test_the_greeting_and_ehlo_are_those_of_exchange_2019() -> None:
    """The conversation in Microsoft's document about testing with telnet, and what goes with STARTTLS."""
    with Relay(users=USERS, personality=exchange()) as relay:
        with socket.create_connection(("127.0.0.1", relay.port), timeout=60) as plain, plain.makefile("rwb") as file:
            assert file.readline().startswith(b"220 localhost Microsoft ESMTP MAIL Service ready at ")
            file.write(b"EHLO client.corp.example\r\n")
            file.flush()
            lines = [file.readline().decode().rstrip() for _ in range(13)]
        assert lines == [
            "250-localhost Hello [127.0.0.1]",
            "250-SIZE 37748736",
            "250-PIPELINING",
            "250-DSN",
            "250-ENHANCEDSTATUSCODES",
            "250-STARTTLS",
            "250-X-ANONYMOUSTLS",
            "250-AUTH NTLM",
            "250-X-EXPS GSSAPI NTLM",
            "250-8BITMIME",
            "250-BINARYMIME",
            "250-CHUNKING",
            "250 XRDST",
        ]
        with connect(relay, tls=False) as client:
            assert client.starttls(context=trusting(relay)) == (220, b"2.0.0 SMTP server ready")
            _, after = client.ehlo()
        gone = {"STARTTLS", "X-ANONYMOUSTLS"}
        assert after.decode().split("\n") == [line[4:] for line in lines if line[4:] not in gone]


def test_exchange_2010_has_its_own_extensions() -> None:
    """As in conversations from that time; and SMTPUTF8 where the relay accepts it."""
    personality = exchange(version=2010)
    with Relay(ssl_mode="none", personality=personality, smtputf8=True) as relay, connect(relay) as client:
        assert client.ehlo_resp is not None
        assert client.ehlo_resp.decode().split("\n")[-4:] == ["SMTPUTF8", "XEXCH50", "XRDST", "XSHADOW"]
        assert client.docmd("X-SOMETHING") == (500, b"5.3.3 Unrecognized command")


def test_commands_out_of_sequence_and_unknown_ones_are_refused_in_its_words(relay: Relay, client: smtplib.SMTP) -> None:
    """Also before EHLO."""
    assert client.docmd("X-SOMETHING") == (500, b"5.3.3 Unrecognized command 'X-SOMETHING'")
    assert client.docmd("RCPT", "TO:<bob@corp.example>") == (503, b"5.5.2 Need mail command")
    assert client.docmd("MAIL", "FROM:<alice@corp.example>")[0] == 250
    assert client.docmd("DATA") == (503, b"5.5.2 Need rcpt command")
    assert client.quit() == (221, b"2.0.0 Service closing transmission channel")
    with smtplib.SMTP("localhost", relay.port, timeout=60) as silent:
        assert silent.docmd("MAIL", "FROM:<alice@corp.example>") == (503, b"5.5.2 Send hello first")


def test_ntlm_is_offered_before_starttls_too(relay: Relay) -> None:
    """As on every receive connector with Integrated Windows authentication; the hint is Exchange's."""
    with connect(relay, tls=False) as client:
        assert client.docmd("AUTH", "NTLM") == (334, b"NTLM supported")
        assert client.docmd("*")[0] == 501
        assert client.docmd("AUTH", "GSSAPI")[0] == 504  # not without a keytab
        assert log_in_to_exchange(client) == (235, b"2.7.0 Authentication successful")
        assert send(client) == {}


# --- Chunks


def test_a_message_may_come_in_chunks(relay: Relay, client: smtplib.SMTP) -> None:
    """With any octets in it; parameters for delivery status notifications are accepted."""
    assert client.docmd("MAIL", "FROM:<alice@corp.example> BODY=BINARYMIME RET=HDRS ENVID=abc")[0] == 250
    assert client.docmd("RCPT", "TO:<bob@corp.example> NOTIFY=FAILURE,DELAY ORCPT=rfc822;bob@corp.example")[0] == 250
    client.send(b"BDAT 5\r\na\0\n\xffb" + b"BDAT 3 LAST\r\n.\r\n")
    assert client.getreply() == (250, b"2.6.0 CHUNK received OK, 5 octets")
    code, words = client.getreply()
    assert code == 250
    assert words.endswith(b"Queued mail for delivery")
    [mail] = relay.messages
    assert mail.content == b"a\0\n\xffb.\r\n"


@pytest.mark.parametrize("chunk", [b"BDAT 9", b"BDAT 9 LAST"])
def test_a_chunk_that_nobody_asked_for_is_not_read_as_commands(
    relay: Relay, client: smtplib.SMTP, chunk: bytes
) -> None:
    """RFC 3030: whatever the reply is, its octets are dropped."""
    client.send(chunk + b"\r\nRSET\r\n\r\n\r")
    assert client.getreply() == (503, b"5.5.2 Need mail command")
    assert client.docmd("NOOP")[0] == 250
    assert client.docmd("BDAT")[0] == 501
    assert client.docmd("BDAT", "1 FIRST")[0] == 501
    assert relay.messages == []


def test_binary_content_without_chunks_is_out_of_sequence(client: smtplib.SMTP) -> None:
    """RFC 3030 3; after RSET all is well."""
    client.docmd("MAIL", "FROM:<alice@corp.example> BODY=BINARYMIME")
    client.docmd("RCPT", "TO:<bob@corp.example>")
    assert client.docmd("DATA") == (503, b"5.5.1 Bad sequence of commands")
    client.rset()
    assert send(client) == {}


def test_a_message_that_is_too_large_is_552(relay: Relay, client: smtplib.SMTP) -> None:
    """As announced, as received by DATA, and as received in chunks."""
    too_large = (552, b"5.3.4 Message size exceeds fixed maximum message size")
    assert client.docmd("MAIL", "FROM:<alice@corp.example> SIZE=100001") == too_large
    large = CONTENT + b"x" * 70 + b"\r\n"
    large *= 1000
    client.docmd("MAIL", "FROM:<alice@corp.example>")
    client.docmd("RCPT", "TO:<bob@corp.example>")
    assert client.data(large) == too_large
    client.docmd("MAIL", "FROM:<alice@corp.example>")
    client.docmd("RCPT", "TO:<bob@corp.example>")
    client.send(b"BDAT %d LAST\r\n" % len(large) + large)
    assert client.getreply() == too_large
    assert relay.messages == []
    assert send(client) == {}


# --- Refusals


def test_a_client_that_has_not_signed_in_is_530_at_mail() -> None:
    """What it sends behind MAIL in the same packet is out of sequence."""
    with Relay(users=USERS, personality=exchange()) as relay, connect(relay) as client:
        client.send(b"MAIL FROM:<alice@corp.example>\r\nRCPT TO:<bob@corp.example>\r\nDATA\r\n")
        words = b"5.7.57 SMTP; Client was not authenticated to send anonymous mail during MAIL FROM"
        assert client.getreply() == (530, words)
        assert client.getreply() == (503, b"5.5.2 Need mail command")
        assert client.getreply() == (503, b"5.5.2 Need rcpt command")
        assert log_in_to_exchange(client, password="wrong") == (535, b"5.7.3 Authentication unsuccessful")


@pytest.mark.parametrize(
    ("version", "refusal"), [(2019, UNABLE_TO_RELAY), (2010, b"5.7.1 Unable to relay")], ids=["2019", "2010"]
)
def test_an_anonymous_client_reaches_accepted_domains_only(version: int, refusal: bytes) -> None:
    """Each recipient has a reply of its own. Who has signed in reaches everybody."""
    settings = exchange(version=version, accepted_domains=["Corp.example"])
    with Relay(personality=settings) as relay, connect(relay) as client:
        refused = send(client, "bob@CORP.example", "bob@elsewhere.example")
        assert refused == {"bob@elsewhere.example": (550, refusal)}
        assert relay.messages[0].recipients == ("bob@CORP.example",)
    with Relay(users=USERS, personality=settings) as relay, connect(relay) as client:
        assert log_in_to_exchange(client)[0] == 235
        assert send(client, "bob@elsewhere.example") == {}


def test_one_unknown_recipient_has_the_whole_message_refused() -> None:
    """Microsoft: on Mailbox servers, recipient filtering rejects the message."""
    settings = exchange(mailboxes=["bob@corp.example"])
    with Relay(personality=settings) as relay, connect(relay) as client:
        with pytest.raises(smtplib.SMTPDataError) as refused:
            send(client, "Bob@corp.example", "gone@corp.example")
        assert (refused.value.smtp_code, refused.value.smtp_error) == (550, NOT_FOUND)
        assert relay.messages == []
        assert send(client, "Bob@corp.example", "anybody@elsewhere.example") == {}


def test_exchange_2010_refuses_the_unknown_recipient_alone() -> None:
    """In reply to RCPT."""
    settings = exchange(version=2010, mailboxes=["bob@corp.example"])
    with Relay(personality=settings) as relay, connect(relay) as client:
        assert send(client, "bob@corp.example", "gone@corp.example") == {
            "gone@corp.example": (550, b"5.1.1 User unknown")
        }
        assert len(relay.messages) == 1


@pytest.mark.parametrize(
    ("version", "refusal"),
    [(2019, SEND_AS_DENIED), (2010, b"5.7.1 Client does not have permissions to send as this sender")],
    ids=["2019", "2010"],
)
def test_a_user_sends_as_its_own_addresses_only(version: int, refusal: bytes) -> None:
    """Both the envelope and the header From count; the refusal comes after the message."""
    settings = exchange(version=version, senders={USER.lower(): ["Alice@corp.example"]})
    with Relay(users=USERS, personality=settings) as relay, connect(relay) as client:
        assert log_in_to_exchange(client)[0] == 235
        assert send(client) == {}
        for sender, author in (("etl", "alice"), ("alice", "etl")):
            content = CONTENT.replace(b"alice@", author.encode() + b"@")
            with pytest.raises(smtplib.SMTPDataError) as refused:
                client.sendmail(f"{sender}@corp.example", "bob@corp.example", content)
            assert (refused.value.smtp_code, refused.value.smtp_error) == (550, refusal)
        assert len(relay.messages) == 1


def test_any_other_reply_may_be_given_for_a_recipient() -> None:
    """`refuse` works as in every relay."""
    too_large = "550 5.2.3 RESOLVER.RST.RecipSizeLimit; message too large for this recipient"
    with Relay(personality=exchange(), refuse={"bob@corp.example": too_large}) as relay, connect(relay) as client:
        assert client.docmd("MAIL", "FROM:<>")[0] == 250
        assert client.docmd("RCPT", "TO:<bob@corp.example>") == (550, too_large[4:].encode())


# --- Limits and delays


def test_beyond_the_message_rate_the_connection_is_closed() -> None:
    """Of a user, on all of its connections together; the reply survives what the client had sent before."""
    settings = exchange(message_rate_limit=2)
    users = USERS | {r"CORP\bob": "other"}
    with Relay(users=users, personality=settings) as relay, connect(relay) as first, connect(relay) as second:
        assert log_in_to_exchange(first)[0] == 235
        assert log_in_to_exchange(second)[0] == 235
        assert send(first) == {}
        assert send(second) == {}
        second.send(b"MAIL FROM:<alice@corp.example>\r\n" + b"RCPT TO:<bob@corp.example>\r\n" * 100)
        assert second.getreply() == (421, TOO_MANY_MESSAGES)
        with pytest.raises(smtplib.SMTPServerDisconnected):
            second.getreply()
        with connect(relay) as other:
            assert log_in_to_exchange(other, user=r"CORP\bob", password="other")[0] == 235
            assert send(other) == {}
        assert len(relay.messages) == 3


def test_the_message_rate_is_per_interval() -> None:
    """A message no longer counts once it is older, a refused one never counts, and each user has its own count."""
    connector = Connector(exchange(message_rate_limit=2, rate_interval=60.0), None)
    refusal = f"421 {TOO_MANY_MESSAGES.decode()}"
    assert [connector.refuse_message(USER, now) for now in (0.0, 30.0)] == [None, None]
    assert [connector.refuse_message(USER, now) for now in (31.0, 59.0)] == [refusal, refusal]
    assert connector.refuse_message("192.0.2.7", 59.0) is None
    assert connector.refuse_message(USER, 60.0) is None
    assert connector.refuse_message(USER, 60.0) == refusal
    assert connector.refuse_message(USER, 90.0) is None


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (2019, b"The maximum number of concurrent server connections has exceeded a per-source limit"),
        (2010, b"The maximum number of concurrent connections has exceeded a limit"),
    ],
    ids=["2019", "2010"],
)
def test_one_connection_too_many_is_greeted_with_421(version: int, words: bytes) -> None:
    """Once another has ended, there is room again."""
    settings = exchange(version=version, connection_limit=2)
    with Relay(personality=settings) as relay:
        with connect(relay) as first, connect(relay):
            with pytest.raises(smtplib.SMTPConnectError) as refused:
                smtplib.SMTP("localhost", relay.port, timeout=60)
            assert refused.value.smtp_code == 421
            assert refused.value.smtp_error == b"4.3.2 " + words + b", closing transmission channel"
            send(first)
        while True:  # until the relay has noticed that they are gone
            try:
                connect(relay).close()
                break
            except smtplib.SMTPConnectError:
                time.sleep(0.01)


def test_under_back_pressure_messages_are_refused_for_a_while() -> None:
    """The session goes on."""
    with Relay(personality=exchange(back_pressure=2)) as relay, connect(relay) as client:
        for _ in range(2):
            assert client.docmd("MAIL", "FROM:<alice@corp.example>") == (452, b"4.3.1 Insufficient system resources")
        assert send(client) == {}


def test_refusals_to_clients_that_have_not_signed_in_are_delayed() -> None:
    """Of mail, and of a sign-in."""
    with Relay(users=USERS, personality=exchange(tarpit=0.5)) as relay, connect(relay) as client:
        for command, arguments in (("MAIL", "FROM:<alice@corp.example>"), ("AUTH", "GSSAPI")):
            began = time.monotonic()
            assert client.docmd(command, arguments)[0] >= 500
            assert time.monotonic() - began >= 0.5


def test_who_has_signed_in_is_never_delayed() -> None:
    """A delay of an hour would be longer than this client waits."""
    with Relay(users=USERS, personality=exchange(tarpit=3600)) as relay, connect(relay) as client:
        assert log_in_to_exchange(client)[0] == 235
        assert client.docmd("X-SOMETHING")[0] == 500


def test_the_delay_is_five_seconds_unless_set() -> None:
    """And the other limits are those of a connector as installed."""
    settings = Exchange()
    assert (settings.tarpit, settings.connection_limit, settings.message_rate_limit) == (5.0, 20, None)
    with Relay(personality="exchange", ssl_mode="none") as relay, connect(relay) as client:
        began = time.monotonic()
        assert client.docmd("X-SOMETHING")[0] == 500
        assert time.monotonic() - began >= 5
