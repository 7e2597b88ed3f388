"""The check finds the first step that fails, prints the remedy, and shows no secret."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import trustme

from airflow_provider_smtpcm.check import checker
from airflow_provider_smtpcm.check.report import describe_chain
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
    """Check a connection manager."""
    return make_check(capsys, caplog)


def scripted(dialogue: Dialogue, **settings: Any) -> SmtpConnectionManager:
    """Return the connection manager for a scripted server."""
    where: dict[str, Any] = {"host": "127.0.0.1", "port": dialogue.port, "ssl_mode": "none"}
    defaults = {**where, "timeout": dialogue.patience}
    return SmtpConnectionManager(**{**defaults, **settings})


def manager_of(relay: Relay, **changes: Any) -> SmtpConnectionManager:
    """Return the connection manager for a relay, with changes."""
    known = SmtpConnectionManager.from_airflow(type("Connection", (), relay.airflow_connection()))
    return dataclasses.replace(known, **changes)


# --- Each step can fail, and what comes after it is not reached.


def test_a_name_that_cannot_be_resolved(check_it: CheckIt, monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection was opened."""

    def nobody(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    found = check_it(SmtpConnectionManager(host="mial.corp.example"))
    found.assert_failed_at("name resolution", "this worker's name service knows it")
    assert found.statuses["TCP"] == found.statuses["NOOP"] == "skipped"
    assert "- not reached: TCP, greeting, EHLO, TLS, certificate" in found.text


def test_a_port_on_which_no_server_listens(check_it: CheckIt) -> None:
    """The name was resolved, and its address is shown."""
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
        (f"{HELLO}\n".replace("SIZE 1000", "AUTH PLAIN"), WINDOWS, "mechanisms", "with PLAIN or LOGIN"),
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
def test_the_check_stops_at_the_step_that_fails(
    script: str, settings: dict[str, Any], step: str, remedy: str, check_it: CheckIt
) -> None:
    """Whatever the server replies."""
    with Dialogue(script) as dialogue:
        found = check_it(scripted(dialogue, **settings))
    found.assert_failed_at(step, remedy)
    assert list(found.statuses.values()).count("failed") == 1


def test_no_check_takes_longer_than_its_limit(check_it: CheckIt, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the connection's own timeout."""
    assert checker.CHECK_SECONDS == 30
    monkeypatch.setattr(checker, "CHECK_SECONDS", 3.0)
    with Dialogue(f"{GREETING}\nC: EHLO *\nHANG") as dialogue:
        found = check_it(scripted(dialogue, timeout=3600))
    found.assert_failed_at("EHLO", "The check takes 3 seconds at most")


def test_a_server_cannot_manipulate_the_terminal(check_it: CheckIt) -> None:
    """Control characters are replaced, and a reply stays on one line."""
    with Dialogue("SEND b'220 \\x1b[31mred\\x07\\r\\n'\nC: EHLO *\nS: 554 no") as dialogue:
        found = check_it(scripted(dialogue))
    assert "?[31mred?" in found.details["greeting"]
    assert "\x1b" not in found.page


def test_a_wrong_password_shows_the_exchange_without_tokens(check_it: CheckIt) -> None:
    """Only the sizes of tokens are shown; and the remedy names --bindings."""
    with Relay(users=ALICE) as relay:
        found = check_it(manager_of(relay, password="wrong-Password-1"))
    found.assert_failed_at("sign-in", "run the check with --bindings")
    legs = found.details["sign-in"].split("\n")
    assert legs[0] == "C: AUTH NTLM"
    assert sum("not shown" in leg for leg in legs) >= 3
    assert legs[-2].startswith("S: 535 ")
    assert found.details["chosen mechanism"] == r"NTLM as CORP\alice: the server offers only NTLM."


# --- Certificates.


@pytest.mark.parametrize("ssl_mode", ["starttls", "implicit"])
def test_an_untrusted_certificate_is_shown(ssl_mode: Any, check_it: CheckIt) -> None:
    """From a second connection, without a sign-in."""
    with Relay(ssl_mode=ssl_mode, users=ALICE) as relay:
        found = check_it(manager_of(relay, ca_certificate=None))
    found.assert_failed_at("TLS", "Give its private authority as 'CA certificate'")
    assert found.statuses["certificate"] == "warning"
    assert "without a sign-in" in found.details["certificate"]
    assert "names: localhost, 127.0.0.1" in found.details["certificate"]
    assert "which this worker does not trust: give that authority" in found.details["certificate"]


def test_the_second_connection_does_not_sign_in(check_it: CheckIt, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not have the account."""
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


def test_the_report_says_when_a_certificate_expired(check_it: CheckIt) -> None:
    """Of the server's own certificate."""
    with Relay(certificate_expired=True) as relay:
        found = check_it(manager_of(relay))
    found.assert_failed_at("TLS", "must renew it")
    assert "Certificate 1 expired 24 hours ago." in found.details["certificate"]


def test_the_report_names_the_hosts_of_a_certificate_for_another_host(check_it: CheckIt) -> None:
    """And the host for which it is not issued."""
    with Relay(certificate_names=("mail.corp.example",)) as relay:
        found = check_it(manager_of(relay))
    found.assert_failed_at("TLS", "a name that is in the certificate")
    assert "names: mail.corp.example" in found.details["certificate"]
    assert "Certificate 1 is not issued for localhost." in found.details["certificate"]
    assert "does not trust" not in found.details["certificate"]


def test_each_certificate_of_a_chain_is_described() -> None:
    """An intermediate authority, a wildcard, and an unreadable certificate."""
    authority = trustme.CA()
    between = authority.create_child_ca()
    issued = between.issue_cert("*.corp.example")
    chain = [pem_to_der(blob.bytes()) for blob in issued.cert_chain_pems]
    lines, faults = describe_chain(chain, host="mail.corp.example", authority_known=False)
    assert lines[0].startswith("1. ")
    assert lines[2].startswith("2. ")
    assert len(faults) == 1
    assert "which this worker does not trust" in faults[0]
    lines, faults = describe_chain([b"no certificate", *chain], host="a.b.corp.example", authority_known=True)
    assert lines[0] == "1. (14 octets that cannot be read as a certificate)"
    assert faults == ["Certificate 1 is not issued for a.b.corp.example."]
    assert describe_chain([], host=None, authority_known=True)[1] == ["The server sent no readable certificate."]


def test_an_invalid_certificate_is_described_as_far_as_possible() -> None:
    """People run the check because of servers that send such certificates."""
    authority = trustme.CA()
    whole = pem_to_der(authority.issue_cert("mail.corp.example").cert_chain_pems[0].bytes())
    unknown_version = whole.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05", 1)
    lines, faults = describe_chain([unknown_version, whole], host="mail.corp.example", authority_known=True)
    assert lines[0] == f"1. ({len(whole)} octets that cannot be read as a certificate)"
    assert lines[1].startswith("2. ")
    assert faults == []
    # A second SubjectAltName (2.5.29.17), made from the AuthorityKeyIdentifier (2.5.29.35).
    twice = whole.replace(b"\x06\x03\x55\x1d\x23", b"\x06\x03\x55\x1d\x11")
    lines, faults = describe_chain([twice], host="mail.corp.example", authority_known=True)
    assert "names:" not in lines[0]
    assert faults == ["Certificate 1 is not issued for mail.corp.example."]


def pem_to_der(pem: bytes) -> bytes:
    """Return the certificate in DER."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


# --- Connections that work.


def test_a_connection_that_works_is_reported_from_the_settings_to_noop(check_it: CheckIt) -> None:
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
    assert found.details["size limit"] == "37,748,736 octets a message"
    assert found.text.endswith("The connection works.")


# --- Fallback hosts.


def test_each_server_is_checked(check_it: CheckIt) -> None:
    """One that is down does not hide the next, and makes the check fail."""
    with Relay(ssl_mode="none") as relay, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        found = check_it(
            SmtpConnectionManager(
                host="127.0.0.1",
                port=port,
                ssl_mode="none",  # type: ignore[arg-type]
                fallback_hosts=f"127.0.0.1:{relay.port}",
            )
        )
        assert relay.messages == []
    servers = [step.detail for step in found.report.steps if step.name == "server"]
    assert servers == [f"127.0.0.1:{port}, the SMTP server", f"127.0.0.1:{relay.port}, fallback host 1 of 1"]
    assert [step.name for step in found.report.steps].count("settings") == 1
    found.assert_failed_at("TCP", f"127.0.0.1:{port}: Check 'SMTP server' and 'Port'")
    assert f"not reached at 127.0.0.1:{port}: greeting, EHLO, identity, size limit, NOOP" in found.text
    assert f"Mail is sent through 127.0.0.1:{relay.port}, until a server before it can be reached." in found.text
    assert found.statuses["NOOP"] == "ok"


@pytest.mark.parametrize("says", ["S: 421 4.3.2 closing", "S: 554 no", "RESET"])
def test_the_fallback_host_that_takes_the_mail_is_named(check_it: CheckIt, says: str) -> None:
    """A server that says 421 or hangs up before its EHLO cannot be reached; one that refuses EHLO can."""
    with Dialogue(f"{GREETING}\nC: EHLO *\n{says}") as first, Relay(ssl_mode="none") as relay:
        found = check_it(scripted(first, fallback_hosts=f"127.0.0.1:{relay.port}"))
    found.assert_failed_at("EHLO", "")
    assert ("Mail is sent through" in found.text) is (says != "S: 554 no")


def test_servers_that_all_work_are_a_connection_that_works(check_it: CheckIt) -> None:
    """Each is signed in to, by its own name."""
    with Relay(users=ALICE) as first, Relay(users=ALICE) as second:
        authorities = first.ca_certificate + second.ca_certificate
        manager = manager_of(first, ca_certificate=authorities, fallback_hosts=f"127.0.0.1:{second.port}")
        found = check_it(manager)
    assert (str(found.report.verdict), found.report.exit_status) == ("ok", 0), found.page
    assert [step.name for step in found.report.steps].count("sign-in") == 2


def test_an_account_that_one_server_refused_is_not_tried_at_the_next(check_it: CheckIt) -> None:
    """The rest of the next one is checked nevertheless."""
    with Relay(users=ALICE) as first, Relay(users=ALICE) as second:
        authorities = first.ca_certificate + second.ca_certificate
        found = check_it(
            manager_of(
                first, password="mistyped", ca_certificate=authorities, fallback_hosts=f"127.0.0.1:{second.port}"
            )
        )
    assert [step.name for step in found.report.steps].count("sign-in") == 1
    found.assert_failed_at("sign-in", "User name")
    assert f"not tried: localhost:{first.port} refused the account" in found.text
    assert "Mail is sent through" not in found.text
    assert found.statuses["NOOP"] == "ok"


@pytest.mark.parametrize("changes", [{"ssl_mode": "none"}, {"ssl_mode": "starttls", "verify_certificate": False}])
def test_weak_settings_are_warnings_and_do_not_change_the_exit_status(
    changes: dict[str, Any], check_it: CheckIt
) -> None:
    """They are explicit."""
    with Relay(ssl_mode=changes["ssl_mode"], users=ALICE) as relay:
        found = check_it(manager_of(relay, **changes))
    assert (str(found.report.verdict), found.report.exit_status) == ("warning", 0)
    assert found.statuses["weak settings"] == "warning"
    assert found.text.endswith("The connection works, with warnings: weak settings.")


@pytest.mark.parametrize(
    ("settings", "why"),
    [({}, "no sign-in to bind"), ({"ssl_mode": "none"}, "nothing to bind to")],
    ids=["anonymous", "clear"],
)
def test_bindings_are_tried_only_where_there_is_something_to_bind(
    settings: dict[str, Any], why: str, check_it: CheckIt
) -> None:
    """That is, with a sign-in and TLS."""
    with Relay(ssl_mode=settings.get("ssl_mode", "starttls"), users=ALICE if settings else None) as relay:
        found = check_it(manager_of(relay, **settings), every_binding=True)
    assert found.statuses["every binding"] == "skipped"
    assert why in found.details["every binding"]


def test_three_sign_ins_are_announced_before_they_are_tried(check_it: CheckIt) -> None:
    """And if no binding is accepted, the report says so."""
    with Relay(users=ALICE) as relay:
        found = check_it(manager_of(relay, password="wrong-Password-1"), every_binding=True)
    found.assert_failed_at("sign-in", "Do not repeat this")
    assert "counts three times toward a lockout" in found.details["settings"]
    assert "No binding was accepted" in found.details["every binding"]
    assert "Nothing else was tried" not in found.report.remedy


def test_a_binding_that_tls_1_3_does_not_define_is_not_a_failure(check_it: CheckIt) -> None:
    """No server can have it."""
    with Relay(users=ALICE) as relay:
        found = check_it(manager_of(relay), every_binding=True)
    lines = dict(line.split(": ", 1) for line in found.details["every binding"].split("\n"))
    assert lines["tls-server-end-point (the connection's own)"] == "accepted"
    assert (
        lines["tls-unique"] == "not tried, as expected: it is defined up to TLS 1.2, and this connection has TLSv1.3."
    )
    assert str(found.report.verdict) == "ok"


@pytest.mark.parametrize("offer", ["NTLM", "PLAIN GSSAPI", "gss-spnego"])
def test_an_anonymous_connection_to_a_server_with_windows_authentication_gets_a_hint(
    offer: str, check_it: CheckIt
) -> None:
    """Only a mail would show whether the server accepts mail without a sign-in."""
    with Dialogue(f"{GREETING}\nC: EHLO *\nS: 250-mail\nS: 250 AUTH {offer}\n{WELL}") as dialogue:
        found = check_it(scripted(dialogue))
    none, hint = found.details["identity"].split("\n")
    assert none == "none: an anonymous session"
    assert "may refuse mail" in hint and "Authentication is 'Windows Authentication' (auth_mode)" in hint
    assert offer.upper().split()[-1] in hint and "PLAIN" not in hint
    assert found.statuses["identity"] == "ok"


@pytest.mark.parametrize("keyword", ["SIZE 1000", "AUTH PLAIN LOGIN"])
def test_an_anonymous_connection_to_any_other_server_gets_no_hint(keyword: str, check_it: CheckIt) -> None:
    """No setting would help."""
    with Dialogue(f"{GREETING}\nC: EHLO *\nS: 250-mail\nS: 250 {keyword}\n{WELL}") as dialogue:
        found = check_it(scripted(dialogue))
    assert found.details["identity"] == "none: an anonymous session"


def test_a_locked_account_is_not_tried_again(check_it: CheckIt, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each further sign-in would keep it locked."""
    from airflow_provider_smtpcm.smtp.auth.negotiation import WindowsAuthenticator

    def refuse(*_: object, **__: object) -> None:
        from airflow_provider_smtpcm.errors import AuthenticationError, Reply

        raise AuthenticationError("Refused.", remedy="Wait.", reply=Reply(code=535, text="5.7.3 Account is locked"))

    monkeypatch.setattr(WindowsAuthenticator, "authenticate", refuse)
    with Relay(users=ALICE) as relay:
        found = check_it(manager_of(relay), every_binding=True)
        assert found.statuses["every binding"] == "skipped"
        assert check_it(manager_of(relay)).report.remedy == "Wait."  # --bindings is not suggested


# --- The command.


def connection(relay: Relay, **changes: Any) -> str:
    """Return the connection to a relay as Airflow's JSON."""
    return json.dumps({**relay.airflow_connection(), **changes})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check"], "Give CONN_ID, --uri - or --uri-env NAME"),
        (["check", "mail", "--uri", "-"], "Give CONN_ID"),
        (["check", "--uri", "smtpcm://alice:hush-hush@mail.corp.example"], "give it on standard input with '--uri -'"),
        (["check", "smtpcm://alice:hush-hush@mail.corp.example"], "shows its password to everyone"),
        (["check", '{"password": "hush-hush"}'], "or in an environment variable with '--uri-env NAME'"),
        (
            ["check", "--uri-env", "smtpcm://alice:hush-hush@mail.corp.example"],
            "give the name of an environment variable",
        ),
    ],
)
def test_wrong_arguments_are_explained_without_being_repeated(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With argparse's exit status."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    output = "".join(capsys.readouterr())
    assert end.value.code == 2
    assert message in " ".join(output.split())
    assert "hush-hush" not in output


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
def test_text_that_is_not_a_connection_is_refused_without_being_repeated(
    text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an environment variable, and from standard input."""
    monkeypatch.setenv("MAIL_URI", text)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    for arguments in (["--uri-env", "MAIL_URI"], ["--uri", "-"], ["--uri-env", "MAIL_URI", "--json"]):
        assert main(["check", *arguments]) == 3
        output = "".join(capsys.readouterr())
        assert "hush-hush" not in output
        assert "Fix this" in output
        # The connection is not in the Airflow UI.
        assert "Admin" not in output
        where = "in the environment variable MAIL_URI" if "MAIL_URI" in arguments else "in the text on standard input"
        assert where in " ".join(output.split())


def test_every_fault_of_a_connection_is_reported(
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


def test_a_missing_ca_file_is_a_fault_of_the_connection(check_it: CheckIt) -> None:
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


def test_json_is_one_object(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps, the verdict, the error and the remedy; nothing else is printed."""
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


def test_standard_input_in_another_encoding_is_a_fault(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no traceback."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"smtpcm://j\xfcrgen:hush-hush@mail/"), "utf-8"))
    assert main(["check", "--uri", "-"]) == 3
    page = capsys.readouterr().out
    assert "percent-encode non-ASCII characters" in " ".join(page.split())
    assert "hush-hush" not in page


def test_a_closed_standard_output_ends_the_command_without_a_traceback(set_connection: Callable[..., None]) -> None:
    """`check mail | head -1` has no traceback."""
    set_connection("mail", {"conn_type": "smtpcm", "host": "127.0.0.1", "port": 9})
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "airflow_provider_smtpcm", "check", "mail"]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")
