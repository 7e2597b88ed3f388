"""The replies of a relay, and the mails that it keeps."""

from __future__ import annotations

import smtplib
import socket
import ssl
import time
from typing import TYPE_CHECKING

import pytest

from airflow_provider_smtpcm.testing import Relay
from tests.testing.clients import CONTENT, USERS, connect, log_in, send

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def anonymous() -> Iterator[Relay]:
    with Relay(
        ssl_mode="none",
        size_limit=100_000,
        refuse={"nobody@corp.example": "550 5.1.1 No such user", "Busy@corp.example": "451 4.3.0 Come back later"},
    ) as relay:
        yield relay


@pytest.fixture
def client(anonymous: Relay) -> Iterator[smtplib.SMTP]:
    anonymous.clear()
    with connect(anonymous) as client:
        yield client


# --- Certificates


@pytest.mark.parametrize("ssl_mode", ["starttls", "implicit"])
@pytest.mark.parametrize(
    ("certificate", "complaint"),
    [
        ({"certificate_expired": True}, "certificate has expired"),
        ({"certificate_names": ("mail.corp.example",)}, "Hostname mismatch"),
    ],
)
def test_a_bad_certificate_really_fails_verification(
    ssl_mode: str, certificate: dict[str, object], complaint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Expired, or for another name. The relay continues and logs nothing."""
    with Relay(ssl_mode=ssl_mode, **certificate) as relay:  # type: ignore[arg-type]
        for _ in range(2):
            with pytest.raises(ssl.SSLCertVerificationError, match=complaint):
                connect(relay)
        assert relay.messages == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("ssl_mode", ["starttls", "implicit"])
def test_no_client_trusts_the_relay_by_default(ssl_mode: str) -> None:
    """Neither by default nor with the authority of another relay."""
    with Relay(ssl_mode=ssl_mode) as relay, Relay(ssl_mode=ssl_mode) as other:  # type: ignore[arg-type]
        for context in (ssl.create_default_context(), ssl.create_default_context(cadata=other.ca_certificate)):
            with socket.create_connection(("localhost", relay.port), timeout=60) as plain:
                if ssl_mode == "starttls":
                    plain.sendall(b"EHLO client.corp.example\r\nSTARTTLS\r\n")
                    received = b""
                    while b"220 2.0.0" not in received:
                        received += plain.recv(1000)
                with pytest.raises(ssl.SSLCertVerificationError, match=r"unable to get local issuer|self-signed"):
                    context.wrap_socket(plain, server_hostname="localhost")


def test_tls_is_for_those_who_want_it() -> None:
    """An anonymous relay with STARTTLS accepts mail without TLS too. The mail has the TLS version."""
    with Relay() as relay:
        with connect(relay, tls=False) as client:
            send(client)
        with connect(relay) as client:
            assert not client.has_extn("starttls")
            send(client)
        assert [mail.tls_version for mail in relay.messages] == [None, "TLSv1.3"]


def test_a_name_and_an_address_are_in_the_certificate() -> None:
    """`localhost` and `127.0.0.1` both verify."""
    with Relay(ssl_mode="implicit") as relay:
        for host in ("localhost", "127.0.0.1"):
            with connect(relay, host=host) as client:
                assert client.noop()[0] == 250


@pytest.mark.parametrize("host", ["::1", "127.0.0.2"])
def test_wherever_it_listens_its_certificate_fits(host: str) -> None:
    """The connection that it returns works."""
    with Relay(host=host, ssl_mode="implicit") as relay:
        context = ssl.create_default_context(cadata=relay.ca_certificate)
        with (
            socket.create_connection((relay.airflow_connection()["host"], relay.port), timeout=60) as plain,
            context.wrap_socket(plain, server_hostname=relay.airflow_connection()["host"]) as encrypted,
        ):
            assert encrypted.recv(4) == b"220 "


def test_without_tls_none_is_offered(client: smtplib.SMTP) -> None:
    """Neither in EHLO nor on request."""
    assert not client.has_extn("starttls")
    assert client.docmd("STARTTLS")[0] == 502


# --- Recipients and size


def test_a_refused_recipient_gets_the_reply_that_was_asked_for(anonymous: Relay, client: smtplib.SMTP) -> None:
    """Word by word, whatever the case of the address. The other recipients are accepted."""
    refused = send(client, "bob@corp.example", "Nobody@Corp.Example", "busy@corp.example", "carol@corp.example")
    assert refused == {
        "Nobody@Corp.Example": (550, b"5.1.1 No such user"),
        "busy@corp.example": (451, b"4.3.0 Come back later"),
    }
    assert anonymous.messages[0].recipients == ("bob@corp.example", "carol@corp.example")


def test_if_all_recipients_are_refused_nothing_is_kept(anonymous: Relay, client: smtplib.SMTP) -> None:
    """DATA has no recipients."""
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(client, "nobody@corp.example")
    client.docmd("MAIL", "FROM:<alice@corp.example>")
    assert client.docmd("DATA")[0] == 503
    assert anonymous.messages == []


def test_a_mail_that_says_it_is_too_large_is_refused_at_once(client: smtplib.SMTP) -> None:
    """By the SIZE parameter (RFC 1870)."""
    assert client.esmtp_features["size"] == "100000"
    assert client.docmd("MAIL", "FROM:<alice@corp.example> SIZE=100001")[0:2] == (
        552,
        b"5.3.4 Error: message size exceeds fixed maximum message size",
    )
    assert client.docmd("MAIL", "FROM:<alice@corp.example> SIZE=100000")[0] == 250


def test_a_mail_that_is_too_large_is_refused_at_its_end(anonymous: Relay, client: smtplib.SMTP) -> None:
    """Also without a SIZE parameter. The session continues."""
    client.docmd("MAIL", "FROM:<alice@corp.example>")
    client.docmd("RCPT", "TO:<bob@corp.example>")
    code, reply = client.data(b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 2000)
    assert (code, reply[:6]) == (552, b"5.3.4 ")
    assert anonymous.messages == []
    assert send(client) == {}


def test_a_line_of_a_mail_that_is_too_long_is_refused(anonymous: Relay, client: smtplib.SMTP) -> None:
    """998 octets and CRLF are the limit (RFC 5321 4.5.3.1.6)."""
    with pytest.raises(smtplib.SMTPDataError):
        send(client, content=b"Subject: long\r\n\r\n" + b"x" * 1000)
    with pytest.raises(smtplib.SMTPDataError):
        send(client, content=b"Subject: longer\r\n\r\n" + b"x" * 20_000)
    assert send(client, content=b"Subject: just right\r\n\r\n" + b"x" * 998) == {}
    assert len(anonymous.messages) == 1


# --- The conversation as a whole


def test_an_anonymous_relay_has_no_auth(client: smtplib.SMTP) -> None:
    """It replies as a server with AUTH switched off."""
    assert not client.has_extn("auth")
    assert client.docmd("AUTH", "NTLM") == (500, b"5.3.3 Unrecognized command")


def test_every_reply_after_ehlo_has_an_enhanced_status_code(client: smtplib.SMTP) -> None:
    """As ENHANCEDSTATUSCODES promises (RFC 2034), of the same class as the reply."""
    assert client.has_extn("enhancedstatuscodes")
    commands = [
        "NOOP",
        "RSET",
        "HELP",
        "VRFY bob",
        "EXPN bob",
        "NONSENSE",
        "RCPT TO:<b@corp.example>",
        "DATA",
        "DATA x",
    ]
    commands += ["MAIL FROM:<", "MAIL", "MAIL FROM:<a@corp.example> BODY=9BIT", "MAIL FROM:<a@corp.example> NEW=1"]
    commands += ["MAIL FROM:<ü@corp.example>", "MAIL FROM:<a@corp.example>", "MAIL FROM:<a@corp.example>", "QUIT"]
    client.command_encoding = "utf-8"
    for command in commands:
        code, reply = client.docmd(command)
        assert reply[:2] == b"%d." % (code // 100), command
        assert reply.split()[0].count(b".") == 2, command


def test_a_client_with_helo_gets_plain_replies(anonymous: Relay) -> None:
    """Without enhanced status codes. Its mail is accepted."""
    with smtplib.SMTP("localhost", anonymous.port, timeout=60) as client:
        assert client.helo("old.corp.example") == (250, b"localhost")
        assert client.docmd("NOOP") == (250, b"OK")
        assert send(client) == {}
        assert anonymous.messages[-1].helo_name == "old.corp.example"


def test_pipelining_works_as_it_is_advertised(anonymous: Relay) -> None:
    """A whole envelope in one packet, with refusals, and the replies in order (RFC 2920)."""
    anonymous.clear()
    with socket.create_connection(("localhost", anonymous.port), timeout=60) as line, line.makefile("rb") as replies:
        assert replies.readline().startswith(b"220 ")
        line.sendall(b"EHLO client.corp.example\r\n")
        offered: list[bytes] = []
        while not offered or offered[-1][3:4] == b"-":
            offered.append(replies.readline())
        assert b"250-PIPELINING\r\n" in offered
        line.sendall(
            b"MAIL FROM:<a@corp.example>\r\nRCPT TO:<b@corp.example>\r\nRCPT TO:<nobody@corp.example>\r\n"
            b"RCPT TO:<c@corp.example>\r\nDATA\r\n"
        )
        assert [replies.readline()[:3] for _ in range(5)] == [b"250", b"250", b"550", b"250", b"354"]
        line.sendall(b"Subject: 1\r\n\r\n.\r\nMAIL FROM:<d@corp.example>\r\nRCPT TO:<e@corp.example>\r\nDATA\r\n")
        assert [replies.readline()[:3] for _ in range(4)] == [b"250", b"250", b"250", b"354"]
        line.sendall(b"Subject: 2\r\n\r\n.\r\nQUIT\r\n")
        assert [replies.readline()[:3] for _ in range(2)] == [b"250", b"221"]
    assert [mail.recipients for mail in anonymous.messages] == [
        ("b@corp.example", "c@corp.example"),
        ("e@corp.example",),
    ]


def test_addresses_beyond_ascii_are_for_relays_that_take_them(client: smtplib.SMTP) -> None:
    """SMTPUTF8 is offered on request only."""
    assert not client.has_extn("smtputf8")
    with Relay(ssl_mode="none", smtputf8=True) as relay, connect(relay) as utf8:
        utf8.sendmail("jürgen@corp.example", ["用户@corp.example"], CONTENT, mail_options=["SMTPUTF8", "BODY=8BITMIME"])
        assert (relay.messages[0].mail_from, relay.messages[0].recipients) == (
            "jürgen@corp.example",
            ("用户@corp.example",),
        )


def test_the_null_sender_and_the_auth_parameter_are_taken() -> None:
    """`<>` as in bounces (RFC 5321 4.5.5), and `AUTH=<>` if AUTH is offered (RFC 4954 5)."""
    with Relay(users=USERS, ssl_mode="none") as relay, connect(relay) as client:
        log_in(client)
        assert client.docmd("MAIL", "FROM:<> AUTH=<> SIZE=10 BODY=8BITMIME")[0] == 250
        client.docmd("RCPT", "TO:<bob@corp.example>")
        client.data(b"Subject: bounce\r\n")
        assert relay.messages[0].mail_from == ""


def test_a_mail_is_kept_octet_by_octet(anonymous: Relay, client: smtplib.SMTP) -> None:
    """Dots, non-ASCII octets and a last line without an end."""
    send(client, content=CONTENT + b"\r\n..\r\n.\r\n\xff\x00\xfe")
    [mail] = anonymous.messages
    assert mail.content == CONTENT + b"\r\n..\r\n.\r\n\xff\x00\xfe\r\n"
    assert mail.helo_name == "client.corp.example"
    assert (mail.authenticated_as, mail.mechanism, mail.tls_version) == (None, None, None)
    assert mail.message["Subject"] == "Report"


def test_a_client_that_hangs_up_in_the_middle_leaves_nothing(
    anonymous: Relay, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither a mail nor a log line."""
    anonymous.clear()
    for words in (b"", b"EHLO x\r\n", b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nSubj"):
        with socket.create_connection(("localhost", anonymous.port), timeout=60) as line:
            line.sendall(words)
    time.sleep(0.2)
    assert anonymous.messages == []
    assert capfd.readouterr().err == ""
