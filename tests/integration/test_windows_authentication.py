"""Where Windows Authentication fails: each step says which side has to change what, and nothing weaker is tried."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import AuthenticationError, MailError
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.smtp.auth import negotiation as sign_in
from airflow_provider_smtpcm.smtp.auth.negotiation import WindowsAuthenticator
from airflow_provider_smtpcm.smtp.auth.ntlm import compute_nt_hash
from airflow_provider_smtpcm.smtp.session import Session
from demo.processes import LOOPBACK
from tests.integration.binding_server import BindingServer
from tests.integration.gssapi_postfix import GssapiPostfix
from tests.integration.kerberos import KerberosRealm
from tests.smtp.connection_pool.batches import send_many
from tests.smtp.frames import secrets_in
from tests.smtp.server import Server

pytestmark = pytest.mark.slow

Serve = Callable[..., BindingServer]
MAIL = Mail(from_address="etl@corp.example", to="operations@corp.example", subject="Signed in", text="From Linux.")


#: What failed in the test that runs.
ERRORS: list[MailError] = []


@pytest.fixture(autouse=True)
def nothing_secret_is_said(kerberos: KerberosRealm, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No password, no hash of one, no token, in a log at DEBUG or in an error, after each test."""
    caplog.set_level(logging.DEBUG)
    ERRORS.clear()
    yield
    passwords = [*(kerberos.password_of(user) for user in kerberos.users), "wrong-horse"]
    secrets = [*passwords, *map(compute_nt_hash, passwords), "TlRMTVNTUAAD", "NTLMSSP", "YII"]
    said = caplog.text + "".join(f"{error} {error!r} {error.reply!r} {vars(error)}" for error in ERRORS)
    assert [secret for secret in secrets if secret in said] == []


def manager(server: GssapiPostfix | BindingServer, port: str = "port", **settings: Any) -> SmtpConnectionManager:
    """A connection to a server, with Windows Authentication."""
    defaults = {
        "host": "localhost",
        "port": getattr(server, port),
        "auth_mode": "windows",
        "ca_certificate": server.ca_certificate,
        "timeout": 20,
    }
    return SmtpConnectionManager(**{**defaults, **settings})


def failure(connection: SmtpConnectionManager, authenticator: WindowsAuthenticator | None = None) -> MailError:
    """The error of a failed sign-in."""
    with pytest.raises(MailError) as caught:
        Session(connection, authenticator=authenticator).open()
    assert caught.value.__cause__ is None
    ERRORS.append(caught.value)
    assert str(caught.value).rstrip()[-1] in ".)"
    password = connection.password or "none at all"
    known = [
        password.encode(),
        password.encode("utf-16-le"),
        compute_nt_hash(password).encode(),
        bytes.fromhex(compute_nt_hash(password)),
    ]
    assert secrets_in(caught.value, [*known, b"TlRMTVNTUAAD", b"NTLMSSP\0\3", b"YII", b"\x6e\x82"]) == []
    return caught.value


# --- Kerberos: what the KDC and the files say.


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("carol", "the password has expired"),
        ("dave", "the account is locked, disabled or expired"),
        ("erin", "the account has expired"),
        ("nobody", "the KDC does not know the account"),
    ],
)
def test_what_the_kdc_says_of_an_account_is_passed_on(
    user: str, said: str, gssapi_postfix: GssapiPostfix, kerberos: KerberosRealm
) -> None:
    """Each for a reason of its own."""
    password = "wrong-horse" if user == "nobody" else kerberos.password_of(user)
    connection = manager(
        gssapi_postfix, "starttls_port", login=f"{user}@corp.example", password=password, windows_protocol="kerberos"
    )
    assert said in str(failure(connection))


@pytest.mark.parametrize("protocol", ["kerberos", "negotiate"])
def test_a_password_that_the_kdc_calls_wrong_is_tried_nowhere_else(protocol: str, binding_server: Serve) -> None:
    """NTLM with the same password would count toward a lockout again."""
    server = binding_server(channel_binding="allow")
    connection = manager(server, login="alice@corp.example", password="wrong-horse", windows_protocol=protocol)
    assert "the password is wrong" in str(failure(connection))
    assert server.attempts() == []


def test_a_server_that_the_kdc_does_not_know_says_how_to_register_it(
    gssapi_postfix: GssapiPostfix, kerberos: KerberosRealm
) -> None:
    """With setspn, or with the right name."""
    connection = manager(
        gssapi_postfix, "starttls_port", ccache=kerberos.ccache("alice"), spn="smtp/other.corp.example"
    )
    error = failure(connection)
    assert "does not know the server as smtp/other.corp.example" in str(error)
    assert "setspn -S smtp/other.corp.example" in error.remedy


@pytest.fixture
def dns_in_names(kerberos: KerberosRealm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process's krb5.conf has MIT's defaults: a host's name in DNS replaces the one that was asked for."""
    lines = kerberos.krb5_conf.read_text(encoding="utf-8").splitlines(keepends=True)
    conf = "".join(line for line in lines if "dns_canonicalize_hostname" not in line and "rdns" not in line)
    (tmp_path / "krb5.conf").write_text(conf, encoding="utf-8")
    monkeypatch.setenv("KRB5_CONFIG", str(tmp_path / "krb5.conf"))


@pytest.mark.parametrize("port", ["starttls_port", "spnego_only_port"])
def test_a_ticket_is_requested_for_the_name_that_was_said(
    port: str, gssapi_postfix: GssapiPostfix, kerberos: KerberosRealm, dns_in_names: None
) -> None:
    """For 127.0.0.1 the Kerberos library would take localhost, as DNS has it, and get a ticket for that."""
    settings = {"ccache": kerberos.ccache("alice"), "windows_protocol": "kerberos"}
    error = failure(manager(gssapi_postfix, port, spn="smtp/127.0.0.1", **settings))
    assert "the KDC does not know the server as smtp/127.0.0.1" in str(error)
    with Session(manager(gssapi_postfix, port, spn="smtp/localhost", **settings)) as session:
        assert session.authentication is not None


def test_an_address_is_nobodys_name_in_kerberos(gssapi_postfix: GssapiPostfix, kerberos: KerberosRealm) -> None:
    """Unless the name is spelled out."""
    settings = {"host": "127.0.0.1", "ccache": kerberos.ccache("alice")}
    assert "Kerberos needs the server's name" in str(failure(manager(gssapi_postfix, "starttls_port", **settings)))
    with Session(manager(gssapi_postfix, "starttls_port", spn="smtp/localhost", **settings)) as session:
        assert session.authentication is not None


def test_no_kdc_is_worth_another_try(gssapi_postfix: GssapiPostfix, kerberos: KerberosRealm) -> None:
    """It may be back then."""
    connection = manager(gssapi_postfix, "starttls_port", keytab=str(kerberos.client_keytab))
    with kerberos.kdc_stopped():
        error = failure(connection)
    assert "no KDC of the realm answers" in str(error)
    assert error.retryable


def test_a_clock_that_differs_says_so(
    gssapi_postfix: GssapiPostfix, kerberos: KerberosRealm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five minutes are the usual limit."""
    monkeypatch.setenv("KRB5_CONFIG", str(kerberos.strict_clock_krb5_conf))
    settings = {"login": "alice@corp.example", "password": kerberos.password_of("alice")}
    with kerberos.kdc_clock_ahead(3600):
        error = failure(manager(gssapi_postfix, "starttls_port", windows_protocol="kerberos", **settings))
        second_best = failure(manager(gssapi_postfix, "starttls_port", **settings))
    assert "clock" in str(error)
    assert "NTP" in error.remedy
    # NTLM was tried instead, and its failure must also say why Kerberos was not used.
    assert "535" in str(second_best)
    assert "clock" in str(second_best)


@pytest.mark.parametrize(("offset", "said"), [(3600, "60 minutes behind"), (-3600, "60 minutes ahead of")])
def test_a_clock_that_only_the_server_minds_is_told_by_the_kdcs(
    offset: int, said: str, binding_server: Serve, kerberos: KerberosRealm
) -> None:
    """By default the Kerberos library makes up for the difference; the server refuses without a reason."""
    server = binding_server(channel_binding="allow")
    settings = {"login": "alice@corp.example", "password": kerberos.password_of("alice")}
    with kerberos.kdc_clock_ahead(offset):
        error = failure(manager(server, windows_protocol="kerberos", **settings))
    assert "535" in error.message
    assert f"this worker's clock is {said} the KDC's" in error.remedy


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"keytab": "/nowhere/etl.keytab"},
            "Keytab (keytab): /nowhere/etl.keytab cannot be used (there is no such file)",
        ),
        ({"ccache": "/nowhere/ccache"}, "Credential cache (ccache): /nowhere/ccache cannot be used"),
        ({"windows_protocol": "kerberos"}, "Run kinit"),
        ({}, "Run kinit"),
    ],
)
def test_a_credential_that_is_not_there_is_named(
    settings: dict[str, str], said: str, gssapi_postfix: GssapiPostfix
) -> None:
    """The file, or what would give the worker an identity."""
    assert said in str(failure(manager(gssapi_postfix, "starttls_port", **settings)))


def test_a_keytab_without_that_account_says_how_to_look_into_it(
    gssapi_postfix: GssapiPostfix, kerberos: KerberosRealm
) -> None:
    """By klist -k."""
    connection = manager(
        gssapi_postfix, "starttls_port", keytab=str(kerberos.client_keytab), login="alice@corp.example"
    )
    error = failure(connection)
    assert "the keytab has no key for that account" in str(error)
    assert "klist -k" in error.remedy


@pytest.mark.parametrize("own", [False, True], ids=["the connection's", "the worker's own"])
def test_a_keytab_that_is_older_than_the_password_has_to_be_made_anew(
    own: bool, gssapi_postfix: GssapiPostfix, kerberos: KerberosRealm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The KDC calls the password wrong, of which the connection has none."""
    stale = kerberos.stale_keytab(f"svc-stale-{own}")
    if own:
        monkeypatch.setenv("KRB5_CLIENT_KTNAME", stale)
    error = failure(manager(gssapi_postfix, "starttls_port", **({} if own else {"keytab": stale})))
    assert "the key in the keytab is no longer the account's" in str(error)
    assert "export the keytab again" in error.remedy
    assert "'Password'" not in error.remedy
    assert not error.retryable


@pytest.mark.parametrize("own", [False, True], ids=["the connection's", "the worker's own"])
def test_a_keytab_without_the_type_of_key_that_the_kdc_wants_is_not_called_stale(
    own: bool, gssapi_postfix: GssapiPostfix, kerberos: KerberosRealm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password may be the same as ever; the remedy has the commands, with the type."""
    user = f"svc-aes128-{own}"
    outdated = kerberos.outdated_keytab(user)
    if own:
        monkeypatch.setenv("KRB5_CLIENT_KTNAME", outdated)
    error = failure(manager(gssapi_postfix, "starttls_port", **({} if own else {"keytab": outdated})))
    assert "the keytab has no key of a type that the KDC takes for" in str(error)
    assert own or f"for {user}@CORP.EXAMPLE (it has aes128-cts-hmac-sha1-96)" in str(error)
    assert "ktpass ... -crypto AES256-SHA1" in error.remedy
    assert "-e aes256-cts-hmac-sha1-96 -f" in error.remedy
    assert "password" not in error.message


@pytest.mark.parametrize(
    ("what", "octets", "said"),
    [
        ("KRB5_CONFIG", b"[libdefaults\nrealm", "cannot be read, or has a syntax error"),
        ("keytab", b"", "is not a keytab, or is damaged"),
        ("keytab", b"not a keytab", "is not a keytab, or is damaged"),
        ("ccache", b"", "is not a credential cache, or is damaged"),
        ("ccache", b"not a cache", "is not a credential cache, or is damaged"),
    ],
)
def test_a_file_that_cannot_be_read_is_described_in_words(
    what: str,
    octets: bytes,
    said: str,
    gssapi_postfix: GssapiPostfix,
    kerberos: KerberosRealm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the library's number for it."""
    broken = tmp_path / "broken"
    broken.write_bytes(octets)
    settings = {what: str(broken), "windows_protocol": "kerberos"}
    if what == "KRB5_CONFIG":
        monkeypatch.setenv(what, settings.pop(what))
        settings |= {"login": "alice@corp.example", "password": kerberos.password_of("alice")}
    error = failure(manager(gssapi_postfix, "starttls_port", **settings))
    assert said in error.message
    assert str(broken) in error.message
    assert re.search(r"\d{6}", str(error).replace(str(broken), "")) is None


@pytest.mark.parametrize("what", ["keytab", "ccache"])
def test_a_file_that_is_neither_keytab_nor_cache_is_a_typed_error(
    what: str, gssapi_postfix: GssapiPostfix, tmp_path: Path
) -> None:
    """Whatever it contains."""
    junk = tmp_path / "junk"
    junk.write_bytes(b"\x05\x02junk" * 10)
    assert isinstance(failure(manager(gssapi_postfix, "starttls_port", **{what: str(junk)})), AuthenticationError)


def test_a_netbios_name_without_a_realm_says_how_to_write_it(
    gssapi_postfix: GssapiPostfix, kerberos: KerberosRealm
) -> None:
    r"""Kerberos would make CORPalice of it."""
    connection = manager(
        gssapi_postfix, "starttls_port", login=r"OTHER\alice", password="wrong-horse", windows_protocol="kerberos"
    )
    assert "as user@corp.example" in failure(connection).remedy


# --- The choice.


def test_smtpsvc_is_tried_where_the_kdc_does_not_know_smtp(
    gssapi_postfix: GssapiPostfix, kerberos: KerberosRealm, corp_names: None
) -> None:
    """Exchange is registered under both, some servers under the second alone."""
    connection = manager(
        gssapi_postfix, "smtpsvc_port", host=kerberos.smtpsvc_only_host, ccache=kerberos.ccache("alice")
    )
    with Session(connection) as session:
        assert str(session.authentication) == "GSSAPI (Kerberos) as alice@CORP.EXAMPLE"


@pytest.mark.parametrize(
    ("login", "why"),
    [
        ("alice", "the user name has no realm, and krb5.conf names no default realm"),
        (r"OTHER\alice", "not a realm that this worker knows"),
        ("alice@other.example", "krb5.conf does not know the realm OTHER.EXAMPLE"),
    ],
)
def test_without_a_realm_of_ours_ntlm_is_taken_at_once(
    login: str,
    why: str,
    binding_server: Serve,
    kerberos: KerberosRealm,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the log says why."""
    without_default = kerberos.krb5_conf.read_text(encoding="utf-8").replace("default_realm =", "no_default_realm =")
    (tmp_path / "krb5.conf").write_text(without_default, encoding="utf-8")
    monkeypatch.setenv("KRB5_CONFIG", str(tmp_path / "krb5.conf"))
    server = binding_server(channel_binding="allow", mechanisms=("GSSAPI", "NTLM"))
    connection = manager(server, login=login, password=kerberos.password_of("alice"))
    try:
        with Session(connection) as session:
            assert session.authentication is not None
            assert session.authentication.protocol == "NTLM"
    except AuthenticationError:
        assert login != "alice"  # the server knows no other domain
    assert [attempt.mechanism for attempt in server.attempts()] == ["NTLM"]
    assert why in caplog.text


def test_a_name_that_the_kdc_does_not_know_signs_in_by_ntlm(binding_server: Serve, kerberos: KerberosRealm) -> None:
    """As a UPN it could have been one of the default realm's."""
    server = binding_server(channel_binding="allow", mechanisms=("GSSAPI", "NTLM"))
    error = failure(manager(server, login="alice@other.example", password=kerberos.password_of("alice")))
    assert [attempt.mechanism for attempt in server.attempts()] == ["NTLM"]
    assert "Kerberos was tried first. Kerberos (password of alice@other.example): the KDC does not know" in str(error)


def test_a_kdc_that_is_silent_is_waited_for_once_for_each_hook(
    binding_server: Serve, kerberos: KerberosRealm, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not before each mail."""
    monkeypatch.setattr(sign_in, "KDC_TIMEOUT", 1.0)
    server = binding_server(channel_binding="allow", mechanisms=("GSSAPI", "NTLM"))
    connection = manager(server, login=r"CORP\alice", password=kerberos.password_of("alice"))
    authenticator = WindowsAuthenticator(connection)
    asked = []
    start = threading.Thread.start

    def note_and_start(thread: threading.Thread) -> None:
        asked.extend([thread.name] * (thread.name == "smtpcm-kerberos"))
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", note_and_start)
    with kerberos.kdc_silent():
        for _ in range(3):
            with Session(connection, authenticator=authenticator) as session:
                assert session.authentication is not None
                assert session.authentication.protocol == "NTLM"
    assert len(asked) == 1
    assert "no KDC answered within 1 seconds" in caplog.text


@pytest.fixture
def swallowing_kdc(kerberos: KerberosRealm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process's KDC accepts packets and connections, and never replies, as behind some firewalls."""
    with socket.create_server((LOOPBACK, 0)) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        port = tcp.getsockname()[1]
        udp.bind((LOOPBACK, port))
        conf = kerberos.krb5_conf.read_text(encoding="utf-8").replace(
            f"{LOOPBACK}:{kerberos.port}", f"{LOOPBACK}:{port}"
        )
        (tmp_path / "krb5.conf").write_text(conf, encoding="utf-8")
        monkeypatch.setenv("KRB5_CONFIG", str(tmp_path / "krb5.conf"))
        yield


def test_the_sessions_of_a_batch_wait_together_for_a_kdc_that_is_silent(swallowing_kdc: None) -> None:
    """And not each for those before it: that would be half a minute and more. No error blames the mail server."""
    with Server(offers=("AUTH GSSAPI", "8BITMIME")) as server:
        login = {"auth_mode": "windows", "windows_protocol": "kerberos", "login": "alice@corp.example", "password": "x"}
        connection = server.manager(timeout=4, **login)
        authenticator = WindowsAuthenticator(connection)
        mails = [
            Mail(from_address="etl@corp.example", to="a@corp.example", message_id=f"<{number}@corp.example>")
            for number in range(8)
        ]
        began = time.monotonic()
        sending = send_many(
            mails, connection, lambda: Session(connection, authenticator=authenticator).open(), connections=8
        )
        found = list(sending)
        assert time.monotonic() - began < 30
        began = time.monotonic()
        for _ in range(20):  # also after the Kerberos library has given up, which takes longer than this hook's timeout
            with pytest.raises(AuthenticationError, match="no KDC answered within 4 seconds"):
                Session(connection, authenticator=authenticator).open()
        assert time.monotonic() - began < 15
        assert not any("AUTH" in command for command in server.commands)
    assert [str(delivery.outcome) for delivery in found] == ["not_sent"] * 8
    assert [str(each.error) for each in found if "no KDC answered within" not in str(each.error)] == []


def test_a_kdc_that_answers_again_is_asked_again(gssapi_postfix: GssapiPostfix, kerberos: KerberosRealm) -> None:
    """With the same hook; the abandoned request then gets its answer."""
    connection = manager(
        gssapi_postfix,
        "starttls_port",
        login="alice@corp.example",
        password=kerberos.password_of("alice"),
        windows_protocol="kerberos",
        timeout=5,
    )
    authenticator = WindowsAuthenticator(connection)
    with kerberos.kdc_silent():
        for _ in range(3):
            with pytest.raises(AuthenticationError, match="no KDC answered within"):
                Session(connection, authenticator=authenticator).open()
    until = time.monotonic() + 60
    while True:
        try:
            with Session(connection, authenticator=authenticator) as session:
                assert session.authentication is not None
            break
        except MailError as error:
            if time.monotonic() > until:
                pytest.fail(f"{error}\n{kerberos.log()[-3000:]}")
            time.sleep(0.1)


SIGN_IN = """\
import sys
from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import AuthenticationError
from airflow_provider_smtpcm.smtp.auth.kerberos import KerberosClient

settings = {"auth_mode": "windows", "windows_protocol": "kerberos", "login": "alice@corp.example"}
client = KerberosClient(SmtpConnectionManager(host="localhost", password=sys.argv[1], **settings))
try:
    client.create_context(None, in_spnego=False, timeout=60)
    print("signed in as", client.identity)
except AuthenticationError as error:
    print(error.message)
print(bytes([120]))
"""


def sign_in_with_debug_allocator(password: str) -> str:
    """The output of `SIGN_IN` in a process that overwrites memory as soon as Python has released it."""
    environment = os.environ | {"PYTHONMALLOC": "debug"}
    command = [sys.executable, "-c", SIGN_IN, password]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_a_password_stays_in_memory_until_the_kerberos_library_has_read_it(kerberos: KerberosRealm) -> None:
    """Otherwise, while other threads run, their data may be sent instead, and a right password is called wrong."""
    assert "signed in as alice@CORP.EXAMPLE" in sign_in_with_debug_allocator(kerberos.password_of("alice"))


def test_a_password_of_one_character_does_not_change_the_bytes_of_the_process(kerberos: KerberosRealm) -> None:
    """Python has one object for all bytes `b"x"`, and the Kerberos library overwrites the password with zeros."""
    output = sign_in_with_debug_allocator("x")
    assert "the password is wrong" in output
    assert output.endswith("b'x'\n")


def test_a_ticket_is_fetched_once_for_each_hook(gssapi_postfix: GssapiPostfix, kerberos: KerberosRealm) -> None:
    """Not for each session: the KDC may go meanwhile."""
    connection = manager(
        gssapi_postfix, "starttls_port", login="alice@corp.example", password=kerberos.password_of("alice")
    )
    authenticator = WindowsAuthenticator(connection)
    with Session(connection, authenticator=authenticator) as session:
        assert session.authentication is not None
    with kerberos.kdc_stopped(), Session(connection, authenticator=authenticator) as session:
        assert session.authentication is not None
        assert session.authentication.protocol == "Kerberos"


@pytest.mark.parametrize("protocol", ["negotiate", "kerberos", "ntlm"])
def test_after_a_535_nothing_weaker_is_tried(protocol: str, binding_server: Serve, kerberos: KerberosRealm) -> None:
    """One attempt, and Extended Protection among the remedies."""
    server = binding_server(channel_binding="require", binding_type="tls-unique", max_tls="TLSv1_2")
    login = r"CORP\alice" if protocol == "ntlm" else "alice@corp.example"
    connection = manager(server, login=login, password=kerberos.password_of("alice"), windows_protocol=protocol)
    error = failure(connection)
    assert "535" in str(error)
    assert "Extended Protection" in error.remedy
    assert "'Channel binding'" in error.remedy
    assert len(server.attempts()) == 1


@pytest.mark.parametrize(
    ("mechanisms", "protocol", "said"),
    [
        (("NTLM",), "kerberos", "does not offer Kerberos"),
        (("X-BIG",), "negotiate", "does not offer Windows Authentication"),
        ((), "negotiate", "offers no authentication at all"),
    ],
)
def test_a_mechanism_that_is_not_offered_is_named(
    mechanisms: tuple[str, ...], protocol: str, said: str, binding_server: Serve, kerberos: KerberosRealm
) -> None:
    """With what is offered; nothing falls back to anonymous."""
    server = binding_server(channel_binding="allow", mechanisms=mechanisms)
    connection = manager(server, ccache=kerberos.ccache("alice"), windows_protocol=protocol)
    assert said in str(failure(connection))


@pytest.mark.parametrize("protocol", ["ntlm", "negotiate", "kerberos"])
def test_a_refused_account_is_tried_once_for_each_hook(
    protocol: str, binding_server: Serve, kerberos: KerberosRealm
) -> None:
    """Whatever the number of sessions: a few tries lock an account."""
    server = binding_server(channel_binding="allow", mechanisms=("GSSAPI", "NTLM"))
    login = r"CORP\alice" if protocol == "ntlm" else "alice@corp.example"
    connection = manager(server, login=login, password="wrong-horse", windows_protocol=protocol)
    authenticator = WindowsAuthenticator(connection)
    before = kerberos.log().count("PREAUTH_FAILED")
    deliveries = list(
        send_many(
            [MAIL] * 8, connection, lambda: Session(connection, authenticator=authenticator).open(), connections=4
        )
    )
    assert {str(delivery.outcome) for delivery in deliveries} == {"not_sent"}
    assert len(server.attempts()) + kerberos.log().count("PREAUTH_FAILED") - before == 1


def test_kerberos_that_vanishes_from_the_offer_is_not_replaced_by_ntlm(
    binding_server: Serve, kerberos: KerberosRealm
) -> None:
    """An attacker who strips it may want the NTLM response."""
    server = binding_server(channel_binding="allow", mechanisms=("GSSAPI", "NTLM"))
    account = {"login": "alice@corp.example", "password": kerberos.password_of("alice")}
    authenticator = WindowsAuthenticator(manager(server, **account))
    with Session(manager(server, **account), authenticator=authenticator) as session:
        assert session.authentication is not None
        assert session.authentication.protocol == "Kerberos"
    stripped = binding_server(channel_binding="allow", mechanisms=("NTLM",))
    assert "only NTLM" in str(failure(manager(stripped, **account), authenticator))
    assert stripped.attempts() == []


def test_a_refusal_of_kerberos_looks_at_the_server(binding_server: Serve, kerberos: KerberosRealm) -> None:
    """The KDC accepted the account, and there may be no password at all."""
    server = binding_server(channel_binding="allow", clock_offset=3600)
    error = failure(manager(server, ccache=kerberos.ccache("alice")))
    assert "The KDC accepted alice@CORP.EXAMPLE" in error.remedy
    assert "'Password'" not in error.remedy


def test_the_log_says_what_was_offered_what_was_taken_and_why(
    gssapi_postfix: GssapiPostfix, kerberos: KerberosRealm, caplog: pytest.LogCaptureFixture
) -> None:
    """Before and after TLS, at INFO."""
    with Session(manager(gssapi_postfix, "starttls_port", ccache=kerberos.ccache("alice"))):
        pass
    said = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
    assert any("offered before TLS: " in line and "STARTTLS" in line for line in said)
    taken = "offers GSSAPI GSS-SPNEGO; signing in with GSSAPI (Kerberos) as alice@CORP.EXAMPLE (Kerberos is preferred)"
    assert any(taken in line for line in said)


# --- Channel bindings.


@pytest.mark.parametrize("mode", ["require", "allow", "none"])
@pytest.mark.parametrize("protocol", ["kerberos", "ntlm"])
@pytest.mark.parametrize("kind", ["tls-server-end-point", "none"])
def test_bindings_are_sent_as_the_connection_says(
    mode: str, protocol: str, kind: str, binding_server: Serve, kerberos: KerberosRealm
) -> None:
    """Right ones pass everywhere, none where the server does not insist."""
    server = binding_server(channel_binding=mode, mechanisms=("GSSAPI", "NTLM"))
    password = kerberos.password_of("alice")
    login = r"CORP\alice" if protocol == "ntlm" else "alice@corp.example"
    connection = manager(server, login=login, password=password, windows_protocol=protocol, channel_binding=kind)
    if mode == "require" and kind == "none":
        error = failure(connection)
        assert "535" in str(error)
        assert error.remedy.startswith("'Channel binding' is 'none'")
        assert "setspn" not in error.remedy
    else:
        with Session(connection) as session:
            assert session.authentication is not None
    (attempt,) = server.attempts()
    assert not attempt.initial_response


@pytest.mark.parametrize("protocol", ["kerberos", "ntlm"])
def test_tls_unique_is_right_up_to_tls_1_2(protocol: str, binding_server: Serve, kerberos: KerberosRealm) -> None:
    """And an error beyond, before anything is tried."""
    settings = {
        "login": r"CORP\alice" if protocol == "ntlm" else "alice@corp.example",
        "password": kerberos.password_of("alice"),
        "windows_protocol": protocol,
        "channel_binding": "tls-unique",
    }
    old = binding_server(channel_binding="require", binding_type="tls-unique", max_tls="TLSv1_2")
    with Session(manager(old, **settings)) as session:
        assert session.tls_version == "TLSv1.2"
    new = binding_server(channel_binding="allow")
    assert "tls-unique is not defined for TLSv1.3" in str(failure(manager(new, **settings)))
    assert new.attempts() == []


# --- Tickets with hundreds of groups.


def test_a_ticket_above_8_kib_travels_as_a_line_of_its_own(binding_server: Serve, kerberos: KerberosRealm) -> None:
    """Through a server whose command lines end at 512 octets; an initial response is never attempted."""
    server = binding_server(channel_binding="require")
    with Session(manager(server, ccache=kerberos.bulky_ccache("alice"))) as session:
        assert session.authentication is not None
    (attempt,) = server.attempts()
    assert attempt.user == "alice@CORP.EXAMPLE"
    assert max(attempt.line_lengths) > 8 * 1024 * 4 / 3 - 1000
    assert not attempt.initial_response


def test_a_ticket_that_is_too_long_for_the_server_says_so(
    gssapi_postfix: GssapiPostfix, kerberos: KerberosRealm
) -> None:
    """Postfix reads 12288 octets."""
    connection = manager(gssapi_postfix, "starttls_port", ccache=kerberos.bulky_ccache("alice", octets=9000))
    error = failure(connection)
    assert "hundreds of groups" in error.remedy
