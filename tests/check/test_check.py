"""The check finds the first step that fails, says what to do about it, and shows nothing secret."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import trustme

from airflow_provider_smtpcm.check import checker
from airflow_provider_smtpcm.check.certificates import describe_chain
from airflow_provider_smtpcm.cli import main
from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.testing import Relay
from tests.check.checked import CheckIt, assert_nothing_secret, make_check
from tests.smtp.dialogue import Dialogue

PASSWORD = "correct horse battery"
ALICE = {r"CORP\alice": PASSWORD}
GREETING = "S: 220 mail ESMTP"
HELLO = f"{GREETING}\nC: EHLO *\nS: 250-mail\nS: 250 SIZE 1000"
WELL = "C: NOOP\nS: 250 ok\nC: QUIT\nS: 221 bye"
WINDOWS = {"auth_mode": "windows", "login": r"CORP\alice", "password": PASSWORD}


@pytest.fixture
def check_it(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> CheckIt:
    """Checks a connection manager."""
    return make_check(capsys, caplog)


def scripted(dialogue: Dialogue, **settings: Any) -> SmtpConnectionManager:
    """The connection manager of a scripted server."""
    defaults: dict[str, Any] = {"host": "127.0.0.1", "port": dialogue.port, "ssl_mode": "none", "timeout": 1.0}
    return SmtpConnectionManager(**{**defaults, **settings})


def manager_of(relay: Relay, **changes: Any) -> SmtpConnectionManager:
    """The connection manager that a relay asks for, changed."""
    known = SmtpConnectionManager.from_airflow(type("Connection", (), relay.airflow_connection()))
    return dataclasses.replace(known, **changes)


# --- Each step can fail, and what comes after it is not reached.


def test_a_name_that_nobody_knows(check_it: CheckIt, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was connected to."""

    def nobody(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    found = check_it(SmtpConnectionManager(host="mial.corp.example"))
    found.assert_failed_at("name resolution", "this worker's name service knows it")
    assert found.statuses["TCP"] == found.statuses["NOOP"] == "skipped"
    assert "- not reached: TCP, greeting, EHLO, TLS, certificate" in found.text


def test_a_port_that_nobody_listens_on(check_it: CheckIt) -> None:
    """The name is known, and shown."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found = check_it(SmtpConnectionManager(host="127.0.0.1", port=port))
    found.assert_failed_at("TCP", "firewall")
    assert found.statuses["name resolution"] == "ok"


@pytest.mark.parametrize(
    ("script", "settings", "step", "remedy"),
    [
        ("S: 554 no mail from you", {}, "greeting", "ask its administrator"),
        ("HANG", {}, "greeting", "set SSL to 'Implicit TLS'"),
        (f"{GREETING}\nC: EHLO *\nS: 550 who?\nC: HELO *\nS: 550 who?", {}, "EHLO", "Local host name"),
        (HELLO, {"ssl_mode": "starttls"}, "TLS", "Have it enabled on the server"),
        (f"{HELLO}\nC: NOOP\nS: 530 5.7.0 Must sign in\nC: QUIT\nS: 221 bye", {}, "NOOP", "Windows Authentication"),
        (HELLO, WINDOWS, "mechanisms", "set Authentication to 'Anonymous'"),
        (f"{HELLO}\n".replace("SIZE 1000", "AUTH PLAIN"), WINDOWS, "mechanisms", "by PLAIN or LOGIN"),
        (
            f"{HELLO}\n".replace("SIZE 1000", "AUTH NTLM"),
            {**WINDOWS, "windows_protocol": "kerberos"},
            "chosen mechanism",
            "'negotiate' or 'ntlm'",
        ),
        (
            f"{HELLO}\n".replace("SIZE 1000", "AUTH NTLM") + "C: AUTH NTLM\nS: 504 unknown",
            WINDOWS,
            "sign-in",
            "another 'Windows protocol'",
        ),
    ],
    ids=lambda value: value.split("\n")[-1] if isinstance(value, str) else "",
)
def test_a_conversation_ends_where_it_fails(
    script: str, settings: dict[str, Any], step: str, remedy: str, check_it: CheckIt
) -> None:
    """Whatever the server says."""
    with Dialogue(script) as dialogue:
        found = check_it(scripted(dialogue, **settings))
    found.assert_failed_at(step, remedy)
    assert list(found.statuses.values()).count("failed") == 1


def test_no_check_takes_longer_than_its_ceiling(check_it: CheckIt, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the connection's own timeout."""
    assert checker.CHECK_SECONDS == 30
    monkeypatch.setattr(checker, "CHECK_SECONDS", 0.6)
    began = time.monotonic()
    with Dialogue(f"{GREETING}\nC: EHLO *\nHANG") as dialogue:
        found = check_it(scripted(dialogue, timeout=600))
    assert time.monotonic() - began < 3
    found.assert_failed_at("EHLO", "The check takes 0.6 seconds at most")


def test_a_server_cannot_paint_on_the_terminal(check_it: CheckIt) -> None:
    """Control characters do not come through, and it has no lines of its own."""
    with Dialogue("SEND b'220 \\x1b[31mred\\x07\\r\\n'\nC: EHLO *\nS: 554 no") as dialogue:
        found = check_it(scripted(dialogue))
    assert "?[31mred?" in found.details["greeting"]
    assert "\x1b" not in found.page


def test_a_wrong_password_shows_each_leg_and_no_token(check_it: CheckIt) -> None:
    """Sizes are all that is told of a token; and there is a way to learn about bindings."""
    with Relay(users=ALICE) as relay:
        found = check_it(manager_of(relay, password="wrong-Password-1"))
    found.assert_failed_at("sign-in", "run the check with --bindings")
    legs = found.details["sign-in"].split("\n")
    assert legs[0] == "C: AUTH NTLM"
    assert sum("not shown" in leg for leg in legs) >= 3
    assert legs[-2].startswith("S: 535 ")
    assert found.details["chosen mechanism"] == r"NTLM as CORP\alice: the server offers NTLM alone."


# --- Certificates.


@pytest.mark.parametrize("ssl_mode", ["starttls", "implicit"])
def test_a_certificate_that_is_not_trusted_is_shown_nevertheless(ssl_mode: Any, check_it: CheckIt) -> None:
    """On a second connection, over which nobody signs in."""
    with Relay(ssl_mode=ssl_mode, users=ALICE) as relay:
        found = check_it(manager_of(relay, ca_certificate=None))
    found.assert_failed_at("TLS", "Give its private authority as 'CA certificate'")
    assert found.statuses["certificate"] == "warning"
    assert "which did not sign in" in found.details["certificate"]
    assert "names: localhost, 127.0.0.1" in found.details["certificate"]
    assert "that authority must be among those that this worker trusts" in found.details["certificate"]


def test_nobody_signs_in_over_the_second_look(check_it: CheckIt, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account is not even known to it."""
    seen: list[SmtpConnectionManager] = []

    class Watched(checker.Session):
        def __init__(self, manager: SmtpConnectionManager, **options: Any) -> None:
            seen.append(manager)
            super().__init__(manager, **options)

    monkeypatch.setattr(checker, "Session", Watched)
    with Relay(users=ALICE) as relay:
        check_it(manager_of(relay, ca_certificate=None))
    first, second = seen
    assert (first.auth_mode, first.verify_certificate) == ("windows", True)
    assert (second.auth_mode, second.verify_certificate) == ("anonymous", False)
    assert second.login is second.password is None


def test_a_certificate_that_has_expired_says_since_when(check_it: CheckIt) -> None:
    """As far as the server's own goes."""
    with Relay(certificate_expired=True) as relay:
        found = check_it(manager_of(relay))
    found.assert_failed_at("TLS", "must renew it")
    assert "Certificate 1 has expired: 24 hours ago." in found.details["certificate"]


def test_a_certificate_for_another_name_says_for_whom(check_it: CheckIt) -> None:
    """And for whom it is."""
    with Relay(certificate_names=("mail.corp.example",)) as relay:
        found = check_it(manager_of(relay))
    found.assert_failed_at("TLS", "a name that is in the certificate")
    assert "names: mail.corp.example" in found.details["certificate"]
    assert "It is not issued for localhost." in found.details["certificate"]
    assert "must be among those" not in found.details["certificate"]


def test_a_chain_is_described_to_its_end() -> None:
    """An intermediate authority, a wildcard, and a certificate that nobody can read."""
    authority = trustme.CA()
    between = authority.create_child_ca()
    issued = between.issue_cert("*.corp.example")
    chain = [pem_to_der(blob.bytes()) for blob in issued.cert_chain_pems]
    lines, complaints = describe_chain(chain, host="mail.corp.example", authority_known=False)
    assert lines[0].startswith("1. ")
    assert lines[2].startswith("2. ")
    assert len(complaints) == 1
    assert "that authority must be among those" in complaints[0]
    lines, complaints = describe_chain([b"no certificate", *chain], host="a.b.corp.example", authority_known=True)
    assert lines[0] == "1. (14 octets that cannot be read as a certificate)"
    assert complaints == ["It is not issued for a.b.corp.example."]
    assert describe_chain([], host=None, authority_known=True)[1] == [
        "The server showed no certificate that can be read."
    ]


def test_a_certificate_that_breaks_the_rules_is_described_as_far_as_it_goes() -> None:
    """A server that sends such a one is what people run the check for."""
    authority = trustme.CA()
    whole = pem_to_der(authority.issue_cert("mail.corp.example").cert_chain_pems[0].bytes())
    unknown_version = whole.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05", 1)
    lines, complaints = describe_chain([unknown_version, whole], host="mail.corp.example", authority_known=True)
    assert lines[0] == f"1. ({len(whole)} octets that cannot be read as a certificate)"
    assert lines[1].startswith("2. ")
    assert complaints == []
    # Another extension becomes a second SubjectAltName: 2.5.29.35, of the authority's key, turns into 2.5.29.17.
    twice = whole.replace(b"\x06\x03\x55\x1d\x23", b"\x06\x03\x55\x1d\x11")
    lines, complaints = describe_chain([twice], host="mail.corp.example", authority_known=True)
    assert "names:" not in lines[0]
    assert complaints == ["It is not issued for mail.corp.example."]


def pem_to_der(pem: bytes) -> bytes:
    """The certificate's own octets."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


# --- It works.


def test_a_connection_that_works_is_told_from_the_settings_to_noop(check_it: CheckIt) -> None:
    """Each step once, in order, and nothing is sent."""
    with Relay(users=ALICE) as relay:
        found = check_it(manager_of(relay))
        assert relay.messages == []
    assert (str(found.report.verdict), found.report.exit_status) == ("ok", 0)
    assert list(found.statuses) == [
        "settings", "weak settings", "name resolution", "TCP", "greeting", "EHLO", "TLS", "certificate",
        "EHLO after TLS", "mechanisms", "channel binding", "chosen mechanism", "sign-in", "identity", "size limit",
        "NOOP",
    ]  # fmt: skip
    assert set(found.statuses.values()) == {"ok"}
    assert r"login=CORP\alice, password=(set)" in found.details["settings"]
    assert found.details["TLS"].startswith("TLSv1.3, TLS_")
    assert "new: AUTH NTLM; gone: STARTTLS; otherwise the same" in found.details["EHLO after TLS"]
    assert found.details["channel binding"] == "tls-server-end-point"
    assert found.details["identity"] == r"CORP\alice"
    assert found.details["size limit"] == "33,554,432 octets a message"
    assert found.text.endswith("All is well.")


@pytest.mark.parametrize("changes", [{"ssl_mode": "none"}, {"ssl_mode": "starttls", "verify_certificate": False}])
def test_weak_settings_are_warned_about_and_change_no_exit_status(changes: dict[str, Any], check_it: CheckIt) -> None:
    """They were spelled out."""
    with Relay(ssl_mode=changes["ssl_mode"], users=ALICE) as relay:
        found = check_it(manager_of(relay, **changes))
    assert (str(found.report.verdict), found.report.exit_status) == ("warning", 0)
    assert found.statuses["weak settings"] == "warning"
    assert found.text.endswith("It works, with warnings: weak settings.")


@pytest.mark.parametrize(
    ("settings", "why"),
    [({}, "binds nothing"), ({"ssl_mode": "none"}, "nothing to bind to")],
    ids=["anonymous", "clear"],
)
def test_bindings_are_tried_only_where_there_is_something_to_bind(
    settings: dict[str, Any], why: str, check_it: CheckIt
) -> None:
    """A sign-in, and TLS."""
    with Relay(ssl_mode=settings.get("ssl_mode", "starttls"), users=ALICE if settings else None) as relay:
        found = check_it(manager_of(relay, **settings), every_binding=True)
    assert found.statuses["every binding"] == "skipped"
    assert why in found.details["every binding"]


def test_three_wrong_passwords_are_announced_before_they_are_tried(check_it: CheckIt) -> None:
    """And where none passes, it says so."""
    with Relay(users=ALICE) as relay:
        found = check_it(manager_of(relay, password="wrong-Password-1"), every_binding=True)
    found.assert_failed_at("sign-in", "Do not repeat this")
    assert "counts three times towards a lockout" in found.details["settings"]
    assert "None of them passes" in found.details["every binding"]
    assert "Nothing else was tried" not in found.report.remedy


def test_a_binding_that_tls_1_3_does_not_have_is_no_failure(check_it: CheckIt) -> None:
    """It is so with every server."""
    with Relay(users=ALICE) as relay:
        found = check_it(manager_of(relay), every_binding=True)
    lines = dict(line.split(": ", 1) for line in found.details["every binding"].split("\n"))
    assert lines["tls-server-end-point (the connection's own)"] == "accepted"
    assert (
        lines["tls-unique"] == "not tried, as expected: it is defined up to TLS 1.2, and this connection has TLSv1.3."
    )
    assert str(found.report.verdict) == "ok"


@pytest.mark.parametrize("offer", ["NTLM", "PLAIN GSSAPI", "gss-spnego"])
def test_an_anonymous_connection_to_a_server_that_offers_windows_is_given_a_hint(offer: str, check_it: CheckIt) -> None:
    """It may take mail from everybody here, or refuse it at the first recipient: that is not seen without a mail."""
    with Dialogue(f"{GREETING}\nC: EHLO *\nS: 250-mail\nS: 250 AUTH {offer}\n{WELL}") as dialogue:
        found = check_it(scripted(dialogue))
    none, hint = found.details["identity"].split("\n")
    assert none == "none: an anonymous session"
    assert "may refuse mail" in hint and "Authentication is 'Windows Authentication' (auth_mode)" in hint
    assert offer.upper().split()[-1] in hint and "PLAIN" not in hint
    assert found.statuses["identity"] == "ok"


@pytest.mark.parametrize("keyword", ["SIZE 1000", "AUTH PLAIN LOGIN"])
def test_an_anonymous_connection_to_any_other_server_is_given_none(keyword: str, check_it: CheckIt) -> None:
    """There is nothing that it could do about it."""
    with Dialogue(f"{GREETING}\nC: EHLO *\nS: 250-mail\nS: 250 {keyword}\n{WELL}") as dialogue:
        found = check_it(scripted(dialogue))
    assert found.details["identity"] == "none: an anonymous session"


def test_a_locked_account_is_left_alone(check_it: CheckIt, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each further sign-in would keep it locked."""
    from airflow_provider_smtpcm.smtp import session

    def refuse(*_: object, **__: object) -> None:
        from airflow_provider_smtpcm.errors import AuthenticationError, Reply

        raise AuthenticationError("Refused.", remedy="Wait.", reply=Reply(code=535, text="5.7.3 Account is locked"))

    monkeypatch.setattr(session.WindowsAuthenticator, "authenticate", refuse)
    with Relay(users=ALICE) as relay:
        found = check_it(manager_of(relay), every_binding=True)
    assert found.statuses["every binding"] == "skipped"


# --- The command.


def connection(relay: Relay, **changes: Any) -> str:
    """A relay's connection in Airflow's JSON."""
    return json.dumps({**relay.airflow_connection(), **changes})


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["check"], "Give one of CONN_ID, --uri - and --uri-env NAME"),
        (["check", "mail", "--uri", "-"], "Give one of CONN_ID"),
        (["check", "--uri", "smtpcm://alice:hush-hush@mail.corp.example"], "give it on standard input with '--uri -'"),
        (["check", "smtpcm://alice:hush-hush@mail.corp.example"], "shows its password to everyone"),
        (["check", '{"password": "hush-hush"}'], "or in an environment variable with '--uri-env NAME'"),
        (["check", "--uri-env", "smtpcm://alice:hush-hush@mail.corp.example"], "name an environment variable here"),
    ],
)
def test_wrong_arguments_are_explained_without_being_repeated(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With argparse's exit status."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    said = "".join(capsys.readouterr())
    assert end.value.code == 2
    assert complaint in " ".join(said.split())
    assert "hush-hush" not in said


@pytest.mark.parametrize(
    "text",
    [
        "",
        "alice:hush-hush",
        '{"password": "hush-hush"',
        '{"conn_type": "smtpcm", "host": "mail", "port": "hush-hush"}',
        "smtpcm://alice:hush-hush@mail:hush-hush/",
        '["hush-hush"]',
    ],
)
def test_text_that_is_no_connection_is_refused_without_being_repeated(
    text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a variable, and from standard input."""
    monkeypatch.setenv("MAIL_URI", text)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    for arguments in (["--uri-env", "MAIL_URI"], ["--uri", "-"], ["--uri-env", "MAIL_URI", "--json"]):
        assert main(["check", *arguments]) == 3
        said = "".join(capsys.readouterr())
        assert "hush-hush" not in said
        assert "Fix each of these" in said
        # Nobody looks for it in the Airflow UI.
        assert "Admin" not in said
        where = "in the environment variable MAIL_URI" if "MAIL_URI" in arguments else "in what is on standard input"
        assert where in " ".join(said.split())


def test_a_connection_that_is_written_wrong_names_every_fault(
    set_connection: Callable[[str, Mapping[str, Any]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """By its form labels, with an exit status of its own."""
    set_connection(
        "mail", {"conn_type": "smtpcm", "host": "", "password": "hush-hush", "extra": {"auth_mode": "basic"}}
    )
    assert main(["check", "mail"]) == 3
    page = capsys.readouterr().out
    assert "Connection 'mail' cannot be used" in page
    assert page.count(" - ") == 2
    assert " ".join(page.split()).endswith("(Admin, Connections), and run the check again.")
    assert "hush-hush" not in page


def test_a_ca_file_that_is_missing_is_the_connections_fault(check_it: CheckIt) -> None:
    """Nothing was tried."""
    found = check_it(SmtpConnectionManager(host="mail.corp.example", ca_certificate="/no/such/ca.pem"))
    found.assert_failed_at("settings", "a PEM file that exists on the worker")
    assert list(found.statuses) == ["settings"]


def test_a_connection_on_standard_input_is_checked_as_a_uri(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its password percent-encoded, its extras as text."""
    with Relay(ssl_mode="none", users={"alice": "hush/hush@1"}) as relay:
        uri = f"smtpcm://alice:hush%2Fhush%401@127.0.0.1:{relay.port}/?auth_mode=windows&ssl_mode=none\n"
        monkeypatch.setattr("sys.stdin", io.StringIO(uri))
        assert main(["check", "--uri", "-"]) == 0
    page = capsys.readouterr().out
    assert page.startswith("Checking the connection on standard input from ")
    assert_nothing_secret(page, "hush/hush@1")


def test_a_machine_gets_one_object(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same steps, the verdict, the error and the remedy; and nothing beside it."""
    with Relay(users=ALICE) as relay:
        monkeypatch.setenv("MAIL_URI", connection(relay))
        assert main(["check", "--uri-env", "MAIL_URI", "--json"]) == 0
        well = json.loads(capsys.readouterr().out)
        monkeypatch.setenv("MAIL_URI", connection(relay, password="wrong-Password-1"))
        assert main(["check", "--uri-env", "MAIL_URI", "--json"]) == 1
        output = capsys.readouterr()
        failed = json.loads(output.out)
    assert (well["verdict"], well["error"], well["remedy"], well["exit_status"]) == ("ok", None, None, 0)
    assert (failed["verdict"], failed["failed_step"], failed["exit_status"]) == ("failed", "sign-in", 1)
    assert "535" in failed["error"]
    assert "Check 'User name'" in failed["remedy"]
    assert all(set(step) == {"name", "status", "detail", "seconds"} for step in failed["steps"])
    assert output.err == ""
    assert_nothing_secret(output.out, "wrong-Password-1")


def test_standard_input_in_another_alphabet_is_a_fault(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no traceback."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"smtpcm://j\xfcrgen:hush-hush@mail/"), "utf-8"))
    assert main(["check", "--uri", "-"]) == 3
    page = capsys.readouterr().out
    assert "percent-encode what is not ASCII" in page
    assert "hush-hush" not in page


def test_a_reader_who_goes_away_ends_the_command_quietly(set_connection: Callable[..., None]) -> None:
    """`check mail | head -1` has no traceback."""
    set_connection("mail", {"conn_type": "smtpcm", "host": "127.0.0.1", "port": 9})
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "airflow_provider_smtpcm", "check", "mail"]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")
