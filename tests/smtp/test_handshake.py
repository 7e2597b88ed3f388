"""Opening a session: each failure says, in time, what the server replied and what to change."""

from __future__ import annotations

import base64
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionLostError,
    MailError,
    NoAnswerError,
    Phase,
    ProtocolError,
    TlsError,
)
from airflow_provider_smtpcm.smtp.session import Session
from tests.smtp.auth.test_sasl import CHALLENGE
from tests.smtp.dialogue import Dialogue, Pace

ManagerFor = Callable[..., SmtpConnectionManager]
WINDOWS = {"auth_mode": "windows", "login": r"CORP\alice", "password": "correct horse"}
GREETING = "S: 220 mail.corp.example ESMTP\nC: EHLO *"
NTLM_OFFERED = f"{GREETING}\nS: 250-mail.corp.example Hello\nS: 250-SIZE 37748736\nS: 250-AUTH NTLM\nS: 250 8BITMIME"
# What Exchange 2019 offers on a receive connector with Integrated Windows authentication, in its order.
EXCHANGE = f"""{GREETING}
S: 250-exchange.corp.example Hello [192.0.2.7]
S: 250-SIZE 37748736
S: 250-PIPELINING
S: 250-DSN
S: 250-ENHANCEDSTATUSCODES
S: 250-AUTH GSSAPI NTLM
S: 250-X-EXPS GSSAPI NTLM
S: 250-8BITMIME
S: 250-BINARYMIME
S: 250-CHUNKING
S: 250-SMTPUTF8
S: 250 XRDST
C: AUTH NTLM
S: 334 ntlm supported
C: TlRMTVNTUAAB*
S: 334 {base64.b64encode(CHALLENGE).decode()}
C: TlRMTVNTUAAD*
"""


def failure(script: str, manager_for: ManagerFor, pace: Pace = Pace.WHOLE, **settings: object) -> MailError:
    """The error of opening a session to a scripted server."""
    with Dialogue(script, pace) as dialogue, pytest.raises(MailError) as caught:
        Session(manager_for(dialogue, **settings)).open()
    assert str(caught.value).rstrip()[-1] in ".?"
    return caught.value


def test_a_server_that_is_down_is_worth_another_try() -> None:
    """Nothing listens on the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectError, match="Connection refused") as caught:
        Session(SmtpConnectionManager(host="127.0.0.1", port=port, ssl_mode="none")).open()  # type: ignore[arg-type]
    assert caught.value.retryable
    assert caught.value.phase is Phase.CONNECT
    assert "'Port'" in str(caught.value)


def test_a_name_that_nobody_knows_says_so() -> None:
    """RFC 6761 keeps .invalid unknown."""
    with pytest.raises(ConnectError, match=r"mail\.invalid.*cannot be resolved"):
        Session(SmtpConnectionManager(host="mail.invalid", timeout=5)).open()


@pytest.mark.parametrize("ssl_mode", ["none", "implicit"])
def test_a_time_limit_of_the_caller_s_own_is_not_taken_for_the_server_s_silence(
    ssl_mode: str, manager_for: ManagerFor
) -> None:
    """`signal.alarm` with a handler that raises TimeoutError is the usual way to limit a piece of Python."""

    def time_is_up(_number: int, _frame: object) -> None:
        raise TimeoutError("the caller's own")

    with Dialogue("HANG") as dialogue:
        before = signal.signal(signal.SIGALRM, time_is_up)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            with pytest.raises(TimeoutError, match="the caller's own"):
                Session(manager_for(dialogue, ssl_mode=ssl_mode, timeout=300)).open()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("hangs", ["stat", "read"])
@pytest.mark.parametrize("setting", ["ca_certificate", "client_certificate"])
def test_a_time_limit_of_the_caller_s_own_is_not_taken_for_a_bad_certificate(
    setting: str, hangs: str, tmp_path: Path, manager_for: ManagerFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is one that is never read to its end, as on a network drive that hangs."""
    file = tmp_path / "certificate.pem"
    os.mkfifo(file)
    a_file = Path(__file__).stat()

    def stat(_: Path) -> os.stat_result:
        if hangs == "stat":
            signal.pause()
        return a_file

    def time_is_up(_number: int, _frame: object) -> None:
        raise TimeoutError("the caller's own")

    with Dialogue("HANG") as dialogue:
        before = signal.signal(signal.SIGALRM, time_is_up)
        monkeypatch.setattr(Path, "stat", stat)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            with pytest.raises(TimeoutError, match="the caller's own"):
                Session(manager_for(dialogue, ssl_mode="implicit", **{setting: str(file)})).open()
        finally:
            monkeypatch.undo()
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def test_an_address_of_a_family_that_the_worker_lacks_is_passed_over(
    manager_for: ManagerFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resolver hands out an IPv6 address to a kernel that was booted without IPv6, too."""
    unknown_family = (255, socket.SOCK_STREAM, 6, "", ("2001:db8::25", 25, 0, 0))
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda *asked, **how: [unknown_family, *resolve(*asked, **how)])
    with Dialogue(f"{GREETING}\nS: 250 hello\nC: QUIT\nS: 221 bye") as dialogue, Session(manager_for(dialogue)):
        pass
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [unknown_family])
    with pytest.raises(ConnectError, match="2001:db8::25: Address family not supported"):
        Session(SmtpConnectionManager(host="mail.corp.example")).open()


@pytest.mark.parametrize("step", ["HANG", "DRIP 220 mail.corp.example ESMTP ready when you are"])
def test_a_server_that_hangs_or_drips_is_left_at_the_deadline(step: str, manager_for: ManagerFor) -> None:
    """The clock does not start again with every octet."""
    error = failure(step, manager_for)
    assert isinstance(error, NoAnswerError)
    assert error.phase is Phase.CONNECT
    assert error.retryable
    assert "Implicit TLS" in error.remedy


@pytest.mark.parametrize("step", ["RESET", ""])
def test_a_server_that_hangs_up_is_worth_another_try(step: str, manager_for: ManagerFor) -> None:
    """Politely or not."""
    error = failure(step or "SEND b''", manager_for)
    assert isinstance(error, ConnectionLostError | ConnectError)  # a reset may arrive while the client connects
    assert error.retryable


@pytest.mark.parametrize(
    ("octets", "remedy"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "SMTP port"),
        (b"\x15\x03\x01\x00\x02\x02\x46\r\n", "Implicit TLS"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SMTP port"),
        (b"\r\n", "SMTP port"),
        (b"2\x00\x00 hi\r\n", "SMTP port"),
        (b"199 hi\r\n", "SMTP port"),
        (b"600 hi\r\n", "SMTP port"),
        (b"220-hi\r\n250 hi\r\n", "within one reply"),
        (b"220 " + b"x" * 100_000 + b"\r\n", "SMTP port"),
        (b"220-hi\r\n" * 20_000, "SMTP port"),
    ],
)
def test_what_is_not_smtp_is_called_that(octets: bytes, remedy: str, manager_for: ManagerFor) -> None:
    """Whatever else listens on that port, and however much it says."""
    error = failure(f"SEND {octets!r}\nHANG", manager_for)
    assert isinstance(error, ProtocolError)
    assert remedy in str(error)
    assert len(str(error)) < 400
    assert not error.retryable


@pytest.mark.parametrize(("code", "retryable"), [(421, True), (450, True), (554, False), (250, True)])
def test_a_greeting_other_than_220_means_no(code: int, retryable: bool, manager_for: ManagerFor) -> None:
    """RFC 5321 3.1."""
    error = failure(f"S: {code} not now", manager_for)
    assert isinstance(error, ConnectError)
    assert error.reply is not None
    assert (error.reply.code, error.retryable) == (code, retryable)


@pytest.mark.parametrize(
    ("code", "retryable", "remedy"),
    [(421, True, "try again"), (451, True, "try again"), (530, False, "Windows"), (550, False, "Local host name")],
)
def test_a_refused_ehlo_says_what_may_help(code: int, retryable: bool, remedy: str, manager_for: ManagerFor) -> None:
    """Some servers check the client's name; others have other reasons."""
    script = f"{GREETING}\nS: {code} who are you" + ("\nC: HELO *\nS: 550 who are you" if code == 550 else "")
    error = failure(script, manager_for)
    assert remedy in error.remedy
    assert error.retryable is retryable


def test_starttls_that_is_not_offered_is_an_error_that_names_what_is(manager_for: ManagerFor) -> None:
    """Nothing is sent in clear instead."""
    error = failure(
        f"{GREETING}\nS: 250-mail.corp.example\nS: 250-SIZE 1000\nS: 250 HELP", manager_for, ssl_mode="starttls"
    )
    assert isinstance(error, TlsError)
    assert "SIZE 1000, HELP" in str(error)
    assert "'None'" in error.remedy
    assert not error.retryable


@pytest.mark.parametrize(("code", "retryable"), [(454, True), (501, False)])
def test_starttls_that_is_refused_is_an_error(code: int, retryable: bool, manager_for: ManagerFor) -> None:
    """RFC 3207 4."""
    script = f"{GREETING}\nS: 250-mail.corp.example\nS: 250 STARTTLS\nC: STARTTLS\nS: {code} no certificate"
    error = failure(script, manager_for, ssl_mode="starttls")
    assert isinstance(error, TlsError)
    assert error.retryable is retryable


def test_what_was_slipped_in_before_tls_is_an_attack(manager_for: ManagerFor) -> None:
    """RFC 3207 6: a command injected in clear text would be taken for the server's, encrypted."""
    script = f"{GREETING}\nS: 250-mail.corp.example\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\nS: 250 AUTH PLAIN"
    error = failure(script, manager_for, ssl_mode="starttls")
    assert isinstance(error, ProtocolError)
    assert error.phase is Phase.TLS


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ("HANG", "did not finish the TLS handshake"),
        ("PAUSE\nS: 250 what\nPAUSE", "continued in clear text"),
        ("PAUSE\nRESET", "closed the connection during the TLS handshake"),
    ],
)
def test_a_handshake_that_fails_after_starttls_does_not_recommend_starttls(
    after: str, said: str, manager_for: ManagerFor
) -> None:
    """It is set already."""
    script = f"{GREETING}\nS: 250-mail.corp.example\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\n{after}"
    error = failure(script, manager_for, ssl_mode="starttls")
    assert said in str(error)
    assert error.phase is Phase.TLS
    assert "STARTTLS'" not in error.remedy


def test_a_server_that_stops_after_its_greeting_is_not_taken_for_tls(manager_for: ManagerFor) -> None:
    """It has spoken SMTP."""
    error = failure(f"{GREETING}\nHANG", manager_for)
    assert isinstance(error, NoAnswerError)
    assert "TLS" not in error.remedy


def test_each_reply_has_the_whole_timeout(manager_for: ManagerFor) -> None:
    """Connecting and TLS share one deadline, replies have their own."""
    script = "DRIP 220 mail.it\nC: EHLO *\nDRIP 250 mail.it\nC: QUIT\nS: 221 bye"  # 13 times 0.15 s each
    with Dialogue(script) as dialogue, Session(manager_for(dialogue, timeout=3.6)):
        pass


def test_a_token_that_the_server_repeats_is_not_passed_on(manager_for: ManagerFor) -> None:
    """With it the password can be guessed offline."""
    token = base64.b64encode(b"NTLMSSP\0" + bytes(60)).decode()
    error = failure(
        f"{NTLM_OFFERED}\nC: AUTH NTLM\nS: 334 x\nC: *\nS: 501 5.5.2 bad token {token}", manager_for, **WINDOWS
    )
    assert token[:40] not in f"{error} {error.reply}"


def test_a_token_that_the_server_repeats_in_pieces_is_not_passed_on_either(manager_for: ManagerFor) -> None:
    """Folded at 36 octets."""
    challenge = base64.b64encode(CHALLENGE).decode()
    steps = f"C: AUTH NTLM\nS: 334 x\nC: *\nS: 334 {challenge}\nC: TlRMTVNTUAAD*\nECHO 535"
    error = failure(f"{NTLM_OFFERED}\n{steps}", manager_for, **WINDOWS)
    assert "TlRMTVNTUAAD" not in f"{error} {error.reply}"


def test_what_is_no_reply_to_a_token_is_not_shown(manager_for: ManagerFor) -> None:
    """It may be the token."""
    garbled = "SEND b'TlRMTVNTUAAB\\r\\n'"
    error = failure(f"{NTLM_OFFERED}\nC: AUTH NTLM\nS: 334 x\nC: *\n{garbled}", manager_for, **WINDOWS)
    assert "12 octets, not shown" in str(error)


def test_a_size_limit_of_any_length_is_read_or_ignored(manager_for: ManagerFor) -> None:
    """RFC 1870 4 gives it twenty digits."""
    script = f"{GREETING}\nS: 250-mail\nS: 250 SIZE {'9' * 5000}\nC: QUIT\nS: 221 bye"
    with Dialogue(script) as dialogue, Session(manager_for(dialogue)) as session:
        assert session.size_limit is None


@pytest.mark.parametrize("answer", ["S: 421 bye", "S: 530 5.7.1 Authentication required", "HANG"])
def test_a_server_that_wants_something_before_noop_says_so(answer: str, manager_for: ManagerFor) -> None:
    """After that, its QUIT is not awaited."""
    script = f"{GREETING}\nS: 250 hello\nC: NOOP\n{answer}" + (
        "\nC: QUIT\nS: 221 bye" if answer.startswith("S") else ""
    )
    with Dialogue(script) as dialogue, Session(manager_for(dialogue)) as session, pytest.raises(MailError) as caught:
        session.noop()
    assert ("Windows Authentication" in str(caught.value)) is ("530" in answer)


def test_opening_an_open_session_changes_nothing(manager_for: ManagerFor) -> None:
    """The first connection is not lost."""
    with Dialogue(f"{GREETING}\nS: 250 hello\nC: QUIT\nS: 221 bye") as dialogue:
        session = Session(manager_for(dialogue)).open()
        assert session.open() is session
        session.close()


def test_implicit_tls_on_a_plain_port_says_so(manager_for: ManagerFor) -> None:
    """The server greets in clear text."""
    error = failure("S: 220 mail.corp.example ESMTP\nHANG", manager_for, ssl_mode="implicit")
    assert isinstance(error, TlsError)
    assert "STARTTLS" in error.remedy


def test_no_authentication_offered_says_that_anonymous_may_do(manager_for: ManagerFor) -> None:
    """SSIS would silently have sent anonymously."""
    error = failure(f"{GREETING}\nS: 250-mail.corp.example\nS: 250 SIZE", manager_for, **WINDOWS)
    assert isinstance(error, AuthenticationError)
    assert "'Anonymous'" in error.remedy
    assert "SIZE" in str(error)


def test_ntlm_that_is_not_offered_is_an_error_that_names_what_is(manager_for: ManagerFor) -> None:
    """The password is not sent with PLAIN instead."""
    error = failure(f"{GREETING}\nS: 250-mail.corp.example\nS: 250 AUTH PLAIN LOGIN", manager_for, **WINDOWS)
    assert isinstance(error, AuthenticationError)
    assert "PLAIN, LOGIN" in str(error)
    assert "Integrated Windows authentication" in error.remedy


@pytest.mark.parametrize("code", [454, 500, 501, 504, 530, 535, 538, 550])
@pytest.mark.parametrize("leg", [1, 2, 3])
def test_a_sign_in_refused_on_any_leg_ends_there(code: int, leg: int, manager_for: ManagerFor) -> None:
    """No weaker mechanism with the same password, no star after the server's own refusal, no mail."""
    legs = ["C: AUTH NTLM", "S: 334 ntlm supported", "C: *", f"S: 334 {base64.b64encode(CHALLENGE).decode()}", "C: *"]
    script = "\n".join([NTLM_OFFERED, *legs[: 2 * leg - 1], f"S: {code} 5.7.3 no", "HANG"])
    with Dialogue(script) as dialogue, pytest.raises(AuthenticationError) as caught:
        Session(manager_for(dialogue, **WINDOWS)).open()
    assert len(dialogue.heard) == 1 + leg
    assert caught.value.reply is not None
    assert caught.value.reply.code == code
    assert caught.value.retryable is (code == 454)
    assert "correct horse" not in str(caught.value)


@pytest.mark.parametrize(
    ("challenge", "complaint"),
    [("not//base64!", "not base64"), ("aGVsbG8=", "cannot be used"), ("", "it ends too early")],
)
def test_a_challenge_that_cannot_be_read_is_canceled(challenge: str, complaint: str, manager_for: ManagerFor) -> None:
    """The client cancels the exchange (RFC 4954 4)."""
    script = f"{NTLM_OFFERED}\nC: AUTH NTLM\nS: 334 ntlm supported\nC: *\nS: 334 {challenge}\nC: ?\nS: 501 cancelled"
    with Dialogue(script) as dialogue, pytest.raises(AuthenticationError, match=complaint):
        Session(manager_for(dialogue, **WINDOWS)).open()
    assert dialogue.heard[-1] == "*"


@pytest.mark.parametrize("leg", [1, 2])
def test_a_success_that_comes_too_early_is_not_believed(leg: int, manager_for: ManagerFor) -> None:
    """A server that accepts anyone is not the expected server."""
    legs = ["C: AUTH NTLM", "S: 334 ", "C: *"][: 2 * leg - 1]
    error = failure("\n".join([NTLM_OFFERED, *legs, "S: 235 welcome"]), manager_for, **WINDOWS)
    assert "before the exchange was complete" in str(error)


def test_the_sign_in_hangs_no_longer_than_the_deadline(manager_for: ManagerFor) -> None:
    """And the error has the phase."""
    error = failure(f"{NTLM_OFFERED}\nC: AUTH NTLM\nHANG", manager_for, **WINDOWS)
    assert isinstance(error, NoAnswerError)
    assert error.phase is Phase.AUTH


def test_nothing_that_auth_says_is_logged(manager_for: ManagerFor, caplog: pytest.LogCaptureFixture) -> None:
    """From NTLM's messages a password can be guessed offline; at DEBUG too."""
    caplog.set_level("DEBUG")
    with (
        Dialogue(f"{EXCHANGE}S: 235 2.7.0 welcome\nC: QUIT\nS: 221 bye") as dialogue,
        Session(manager_for(dialogue, **WINDOWS)),
    ):
        pass
    assert "AUTH NTLM" in caplog.text
    # Why not Kerberos: the reason depends on whether its libraries are installed; no period within the parentheses.
    assert re.search(r"signing in with NTLM as CORP\\alice \([^()]*[^.]\)\.", caplog.text)
    assert "TlRMTVNTUA" not in caplog.text
    assert "NTLMSSP" not in caplog.text
    assert "correct horse" not in caplog.text


@pytest.mark.parametrize("pace", Pace)
def test_the_way_into_exchange(pace: Pace, manager_for: ManagerFor) -> None:
    """AUTH without initial response; the first 334 is free text (MS-SMTPNTLM 2.2.1.2)."""
    with Dialogue(f"{EXCHANGE}S: 235 2.7.0 Authentication successful\nC: QUIT\nS: 221 2.0.0 bye", pace) as dialogue:
        with Session(manager_for(dialogue, **WINDOWS)) as session:
            assert str(session.authentication) == r"NTLM as CORP\alice"
            assert session.size_limit == 37748736
            assert session.extensions["X-EXPS"] == "GSSAPI NTLM"
        assert dialogue.heard[1] == "AUTH NTLM"


def test_a_server_of_old_that_knows_helo_only_takes_anonymous_mail(manager_for: ManagerFor) -> None:
    """RFC 5321 3.2."""
    script = f"{GREETING}\nS: 502 what\nC: HELO *\nS: 250 hello\nC: NOOP\nS: 250 ok\nC: QUIT\nS: 221 bye"
    with Dialogue(script) as dialogue, Session(manager_for(dialogue)) as session:
        assert session.extensions == {}
        assert session.noop().code == 250


@pytest.mark.parametrize("line", ["AUTH=NTLM", "auth ntlm", "AUTH PLAIN\nS: 250-AUTH=NTLM", "AUTH  NTLM  LOGIN"])
def test_auth_is_understood_in_all_its_spellings(line: str, manager_for: ManagerFor) -> None:
    """Servers write it for clients of every age."""
    script = f"{GREETING}\nS: 250-mail\nS: 250-{line}\nS: 250 HELP\nC: AUTH NTLM\nS: 535 5.7.3 no"
    assert isinstance(failure(script, manager_for, **WINDOWS), AuthenticationError)


@pytest.mark.parametrize("name", ["worker1.corp.example", "[192.0.2.1]"])
def test_the_configured_name_is_said_in_ehlo(name: str, manager_for: ManagerFor) -> None:
    """If a server requires a certain one."""
    script = f"S: 220 hi\nC: EHLO {name}\nS: 250 hello\nC: QUIT\nS: 221 bye"
    with Dialogue(script) as dialogue, Session(manager_for(dialogue, local_hostname=name)):
        assert dialogue.heard == [f"EHLO {name}"]


def test_without_a_full_host_name_an_address_is_said(manager_for: ManagerFor, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 5321 4.1.4; and there is no DNS lookup."""
    monkeypatch.setattr(socket, "gethostname", lambda: "worker_1")
    script = f"{GREETING}\nS: 250 hello\nC: QUIT\nS: 221 bye"
    with Dialogue(script) as dialogue, Session(manager_for(dialogue)):
        assert dialogue.heard == ["EHLO [127.0.0.1]"]


@pytest.mark.parametrize("answer", ["S: 500 what", "RESET", "HANG", "S: 421 bye"])
def test_a_bad_good_bye_harms_nobody(answer: str, manager_for: ManagerFor, monkeypatch: pytest.MonkeyPatch) -> None:
    """QUIT cannot turn a success into a failure."""
    monkeypatch.setattr("airflow_provider_smtpcm.smtp.session.QUIT_TIMEOUT", 0.5)
    with Dialogue(f"{GREETING}\nS: 250 hello\nC: QUIT\n{answer}") as dialogue, Session(manager_for(dialogue)):
        pass
