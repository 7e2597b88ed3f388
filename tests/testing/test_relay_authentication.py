"""A relay with users accepts mail only after NTLM authentication."""

from __future__ import annotations

import random
import smtplib
import subprocess
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest

from airflow_provider_smtpcm.testing import Relay
from tests.testing.clients import CONTENT, PASSWORD, USER, USERS, connect, log_in, ntlm_context, send

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNSUCCESSFUL = (535, b"5.7.3 Authentication unsuccessful")


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    with Relay(users=USERS) as relay:
        yield relay


@pytest.fixture
def client(relay: Relay) -> Iterator[smtplib.SMTP]:
    relay.clear()
    with connect(relay) as client:
        yield client


def test_mail_without_auth_is_refused_as_exchange_does(relay: Relay, client: smtplib.SMTP) -> None:
    """MAIL, RCPT and DATA are refused."""
    assert client.docmd("MAIL", "FROM:<alice@corp.example>") == (530, b"5.7.1 Client was not authenticated")
    assert client.docmd("RCPT", "TO:<bob@corp.example>")[0] == 530
    assert client.docmd("DATA")[0] == 530
    assert relay.messages == []


@pytest.mark.parametrize(
    ("user", "password"),
    [
        (USER, "wrong"),
        (USER, ""),
        (r"CORP\mallory", PASSWORD),
        (r"OTHER\alice", PASSWORD),
        ("alice", PASSWORD),
        ("alice@corp.example", PASSWORD),
    ],
)
def test_unknown_users_and_wrong_passwords_are_refused(client: smtplib.SMTP, user: str, password: str) -> None:
    """Wrong password, unknown user, other domain, other form of the name: the same reply."""
    assert log_in(client, user, password) == UNSUCCESSFUL
    assert client.docmd("MAIL", "FROM:<alice@corp.example>")[0] == 530


def test_after_a_failure_the_session_goes_on(relay: Relay, client: smtplib.SMTP) -> None:
    """The next attempt, with the right password, succeeds."""
    assert log_in(client, password="wrong") == UNSUCCESSFUL
    assert log_in(client)[0] == 235
    assert send(client) == {}
    assert [mail.authenticated_as for mail in relay.messages] == [USER]


def test_a_canceled_exchange_is_501(client: smtplib.SMTP) -> None:
    """At the first challenge and at the second."""
    assert client.docmd("AUTH", "NTLM")[0] == 334
    assert client.docmd("*") == (501, b"5.7.0 Authentication canceled")
    assert client.docmd("AUTH", "NTLM")[0] == 334
    assert client.docmd(b64encode(ntlm_context().step()).decode())[0] == 334
    assert client.docmd("*")[0] == 501
    assert log_in(client)[0] == 235


@pytest.mark.parametrize("broken", ["=", "====", "TlRM!", "TlR", "T l R M"])
def test_broken_base64_is_501(client: smtplib.SMTP, broken: str) -> None:
    """A line that is not base64; and `=`, which is an empty token and so not NTLM."""
    assert client.docmd("AUTH", "NTLM")[0] == 334
    assert client.docmd(broken)[0] == (535 if broken == "=" else 501)
    assert log_in(client)[0] == 235


def test_a_broken_initial_response_is_refused(client: smtplib.SMTP) -> None:
    """Not base64, not NTLM, or too many arguments."""
    assert client.docmd("AUTH", "NTLM TlRM!")[0] == 501
    assert client.docmd("AUTH", "NTLM TlRM") == UNSUCCESSFUL
    assert client.docmd("AUTH", "NTLM =") == UNSUCCESSFUL
    assert client.docmd("AUTH", "NTLM TlRM TlRM")[0] == 501
    assert client.docmd("AUTH")[0] == 501
    assert log_in(client)[0] == 235


def test_whatever_octets_come_the_answer_is_535_and_the_session_goes_on(client: smtplib.SMTP) -> None:
    """Half a message, wrong lengths and offsets, noise: the acceptor's parser may fail, but not the relay."""
    noise = random.Random(4711)  # noqa: S311  (the same noise each time)
    negotiate = ntlm_context().step()
    for _ in range(100):
        broken = bytearray(negotiate[: noise.randrange(len(negotiate) + 1)])
        assert client.docmd("AUTH", "NTLM")[0] == 334
        code, _ = client.docmd(b64encode(broken).decode() or "=")
        if code == 334:
            message = bytearray(b"NTLMSSP\0\x03\0\0\0" + noise.randbytes(noise.randrange(200)))
            code, _ = client.docmd(b64encode(message).decode())
        assert code == 535
    assert log_in(client)[0] == 235


def test_a_line_that_is_too_long_is_500(client: smtplib.SMTP) -> None:
    """RFC 4954: 12288 octets are accepted, more are not; neither ends the session."""
    assert client.docmd("AUTH", "NTLM")[0] == 334
    assert client.docmd("A" * 12288) == UNSUCCESSFUL
    assert client.docmd("AUTH", "NTLM")[0] == 334
    assert client.docmd("A" * 100_000) == (500, b"5.5.6 Authentication exchange line is too long")
    assert client.docmd("AUTH", "NTLM " + "A" * 600)[0] == 500
    assert log_in(client)[0] == 235


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "GSSAPI", "NTLMX"])
def test_other_mechanisms_are_refused(client: smtplib.SMTP, mechanism: str) -> None:
    """Neither offered nor accepted, also with an initial response."""
    assert client.esmtp_features["auth"].split() == ["NTLM"]
    assert client.docmd("AUTH", mechanism) == (504, b"5.7.4 Unrecognized authentication type")
    assert client.docmd("AUTH", f"{mechanism} AGEAYg==")[0] == 504


def test_ntlm_is_offered_after_tls_only(relay: Relay) -> None:
    """Before STARTTLS, the relay neither offers nor accepts AUTH, and accepts no mail."""
    with connect(relay, tls=False) as client:
        assert not client.has_extn("auth")
        assert client.has_extn("starttls")
        assert client.docmd("AUTH", "NTLM") == (530, b"5.7.0 Must issue a STARTTLS command first")
        assert client.docmd("MAIL", "FROM:<alice@corp.example>")[0] == 530


def test_login_ends_with_tls(relay: Relay, client: smtplib.SMTP) -> None:
    """A second AUTH and a second STARTTLS are refused."""
    assert log_in(client)[0] == 235
    assert client.docmd("AUTH", "NTLM")[0] == 503
    assert client.docmd("STARTTLS")[0] == 502


@pytest.mark.parametrize("initial_response", [False, True], ids=["bare", "initial response"])
@pytest.mark.parametrize("ssl_mode", ["starttls", "implicit", "none"])
def test_the_right_password_lets_in(ssl_mode: str, *, initial_response: bool) -> None:
    """With every TLS mode and both forms of AUTH. The mail has the user."""
    with Relay(users=USERS, ssl_mode=ssl_mode) as relay, connect(relay) as client:  # type: ignore[arg-type]
        assert log_in(client, initial_response=initial_response) == (235, b"2.7.0 Authentication successful")
        assert send(client) == {}
        [mail] = relay.messages
        assert (mail.authenticated_as, mail.mechanism) == (USER, "NTLM")
        assert mail.tls_version == (None if ssl_mode == "none" else "TLSv1.3")


def test_the_name_of_the_mechanism_and_the_user_may_be_written_in_any_case(relay: Relay, client: smtplib.SMTP) -> None:
    """As .NET does. The mail has the name as in `users`."""
    assert client.docmd("auth", "ntlm")[0] == 334
    assert client.docmd("*")[0] == 501
    assert log_in(client, r"corp\Alice")[0] == 235
    send(client)
    assert relay.messages[0].authenticated_as == USER


@pytest.mark.parametrize(
    ("user", "password"),
    [
        (r"ДОМЕН\Jürgen", "пароль – çà 🔑"),
        ("alice@corp.example", "with ' \" \\ $ `  in it"),
        ("alice", "a" * 200),
        (r"CORP\renée o'neil", " blanks at both ends "),
    ],
)
def test_names_and_passwords_may_be_anything_that_people_have(user: str, password: str) -> None:
    """Non-ASCII, with blanks and quotes, without a domain. A wrong password fails."""
    with Relay(users={user: password, r"CORP\bob": "other"}) as relay, connect(relay) as client:
        assert log_in(client, user, password + "x") == UNSUCCESSFUL
        assert log_in(client, user, "other") == UNSUCCESSFUL
        assert log_in(client, user, password)[0] == 235
        send(client)
        assert relay.messages[0].authenticated_as == user


@pytest.mark.parametrize("ssl_mode", ["starttls", "implicit"])
def test_curl_logs_in_too(ssl_mode: str, tmp_path: Path) -> None:
    """A client with other NTLM and TLS libraries: accepted, but refused with a wrong password."""
    with Relay(users=USERS, ssl_mode=ssl_mode) as relay:  # type: ignore[arg-type]
        (tmp_path / "ca.pem").write_text(relay.ca_certificate)
        (tmp_path / "mail.eml").write_bytes(CONTENT)

        def curl(password: str) -> int:
            url = f"{'smtps' if ssl_mode == 'implicit' else 'smtp'}://localhost:{relay.port}/client.corp.example"
            arguments = ["--silent", "--ssl-reqd", "--cacert", "ca.pem", "--ntlm", "--user", f"{USER}:{password}", url]
            arguments += ["--mail-from", "alice@corp.example", "--mail-rcpt", "bob@corp.example", "-T", "mail.eml"]
            return subprocess.run(["curl", *arguments], cwd=tmp_path, check=False, timeout=60).returncode

        if b"NTLM" not in subprocess.check_output(["curl", "--version"]):
            pytest.skip("this curl speaks no NTLM")
        assert curl("wrong") == 67  # "The user name or password or similar was not accepted"
        assert relay.messages == []
        assert curl(PASSWORD) == 0
        [mail] = relay.messages
        assert (mail.authenticated_as, mail.content) == (USER, CONTENT)
