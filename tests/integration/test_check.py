"""The check against real servers, and as the two commands that people type."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import trustme
from cryptography.fernet import Fernet

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.testing import Relay
from tests.check.checked import Checked, CheckIt, assert_nothing_secret, make_check
from tests.integration.binding_server import BindingServer
from tests.integration.gssapi_postfix import GssapiPostfix
from tests.integration.kerberos import KerberosRealm
from tests.integration.postfix import Postfix
from tests.smtp.dialogue import hang_up

pytestmark = pytest.mark.slow

Server = Postfix | GssapiPostfix | BindingServer


@pytest.fixture
def check_it(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> CheckIt:
    """Checks a connection manager."""
    return make_check(capsys, caplog)


def manager_of(server: Server, **settings: Any) -> SmtpConnectionManager:
    """A connection manager for Windows Authentication at a server."""
    port = server.port if isinstance(server, BindingServer) else server.starttls_port
    defaults: dict[str, Any] = {"port": port, "auth_mode": "windows", "ca_certificate": server.ca_certificate}
    return SmtpConnectionManager(host=server.host, **{**defaults, **settings})


def by_password(realm: KerberosRealm, **settings: Any) -> dict[str, Any]:
    """The account that every server has."""
    return {"login": "alice@corp.example", "password": realm.password_of("alice"), **settings}


# --- NTLM.


def test_a_wrong_password_at_postfix_fails_at_the_sign_in(postfix: Postfix, check_it: CheckIt) -> None:
    """With Postfix's reply."""
    found = check_it(manager_of(postfix, login="alice", password="wrong-Password-1"))
    found.assert_failed_at("sign-in", "Check 'User name'")
    assert "S: 535 5.7.8 Error: authentication failed" in found.details["sign-in"]


def test_a_server_without_ntlm_fails_at_the_mechanisms(postfix: Postfix, check_it: CheckIt) -> None:
    """It names what there is."""
    manager = manager_of(postfix, port=postfix.basic_only_port, login="alice", password=postfix.users["alice"])
    found = check_it(manager)
    found.assert_failed_at("mechanisms", "sends no password with PLAIN or LOGIN")
    assert "it offers PLAIN, LOGIN" in found.details["mechanisms"]


@pytest.mark.parametrize("ssl_mode", ["starttls", "implicit"])
def test_ntlm_at_postfix_is_told_to_its_end(ssl_mode: str, postfix: Postfix, check_it: CheckIt) -> None:
    """And leaves no mail behind."""
    port = getattr(postfix, f"{ssl_mode}_port")
    password = postfix.users["alice"]
    found = check_it(manager_of(postfix, port=port, ssl_mode=ssl_mode, login="alice", password=password))
    assert (str(found.report.verdict), found.report.exit_status) == ("ok", 0), found.page
    assert found.details["chosen mechanism"] == "NTLM as alice: the server offers only NTLM."
    assert found.details["sign-in"].endswith("S: 235 2.7.0 Authentication successful")
    assert ("EHLO after TLS" in found.statuses) is (ssl_mode == "starttls")
    assert postfix.messages() == []


# --- Kerberos.


def test_a_password_that_the_kdc_refuses_is_not_tried_again(
    binding_server: Callable[..., BindingServer], kerberos: KerberosRealm, check_it: CheckIt
) -> None:
    """Not even if each binding was requested, and not with NTLM."""
    server = binding_server()
    manager = manager_of(server, login="alice@corp.example", password="wrong-Password-1")
    found = check_it(manager, every_binding=True)
    found.assert_failed_at("Kerberos ticket", "to avoid locking the account")
    assert found.statuses["every binding"] == "skipped"
    assert server.attempts() == []


def test_a_server_that_the_kdc_does_not_know_is_named(
    gssapi_postfix: GssapiPostfix, kerberos: KerberosRealm, check_it: CheckIt
) -> None:
    """With the command that makes it known."""
    found = check_it(manager_of(gssapi_postfix, ccache=kerberos.ccache("alice"), spn="smtp/nobody.corp.example"))
    found.assert_failed_at("Kerberos ticket", "setspn -S smtp/nobody.corp.example")


def test_a_kdc_that_is_stopped_ends_a_check_that_asks_for_kerberos(
    gssapi_postfix: GssapiPostfix, kerberos: KerberosRealm, check_it: CheckIt
) -> None:
    """At the ticket."""
    with kerberos.kdc_stopped():
        found = check_it(manager_of(gssapi_postfix, **by_password(kerberos, windows_protocol="kerberos")))
    found.assert_failed_at("Kerberos ticket", "between this worker and the KDC (port 88)")


def test_a_kdc_that_is_stopped_is_a_warning_where_ntlm_gets_in(
    binding_server: Callable[..., BindingServer], kerberos: KerberosRealm, check_it: CheckIt
) -> None:
    """Which is why it was not Kerberos."""
    with kerberos.kdc_stopped():
        found = check_it(manager_of(binding_server(), **by_password(kerberos, login=r"CORP\alice")))
    assert (str(found.report.verdict), found.report.exit_status) == ("warning", 0), found.page
    assert "no KDC of the realm answers" in found.details["Kerberos ticket"]
    assert found.details["chosen mechanism"].startswith(r"NTLM as CORP\alice: ")
    assert found.text.endswith("The connection works, with warnings: Kerberos ticket.")


def test_a_silent_kdc_does_not_outlast_the_check(
    gssapi_postfix: GssapiPostfix, kerberos: KerberosRealm, check_it: CheckIt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the connection would wait for it."""
    monkeypatch.setattr("airflow_provider_smtpcm.check.checker.CHECK_SECONDS", 5.0)
    settings = by_password(kerberos, windows_protocol="kerberos", timeout=600)
    with kerberos.kdc_silent():
        found = check_it(manager_of(gssapi_postfix, **settings))
    found.assert_failed_at("Kerberos ticket", "The check takes 5 seconds at most")
    assert sum(step.seconds for step in found.report.steps) < 25  # MIT's library waits for 27


@pytest.mark.parametrize("source", ["credential cache", "keytab", "password"])
def test_a_ticket_is_told_with_its_owner_its_source_and_its_end(
    source: str, gssapi_postfix: GssapiPostfix, kerberos: KerberosRealm, check_it: CheckIt
) -> None:
    """Wherever it comes from."""
    settings: dict[str, dict[str, Any]] = {
        "credential cache": {"ccache": kerberos.ccache("alice")},
        "keytab": {"keytab": str(kerberos.client_keytab)},
        "password": by_password(kerberos),
    }
    found = check_it(manager_of(gssapi_postfix, **settings[source]))
    owner = kerberos.client_principal if source == "keytab" else f"alice@{kerberos.realm}"
    assert (str(found.report.verdict), found.report.exit_status) == ("ok", 0), found.page
    whose, until = found.details["Kerberos ticket"].split("\n")
    assert whose.startswith(f"{owner} for smtp/localhost, from the {source}")
    assert until.startswith(f"service ticket smtp/localhost@{kerberos.realm}, until ")
    assert until.endswith(" UTC (9 hours left)")
    assert found.details["chosen mechanism"] == f"GSSAPI (Kerberos) as {owner}: Kerberos is preferred"
    assert found.details["identity"] == owner


# --- Channel bindings.


@pytest.mark.parametrize("protocol", ["kerberos", "ntlm"])
def test_the_binding_that_passes_is_the_remedy(
    protocol: str, binding_server: Callable[..., BindingServer], kerberos: KerberosRealm, check_it: CheckIt
) -> None:
    """Where the connection's own does not."""
    server = binding_server(channel_binding="require")
    account = by_password(kerberos, login=r"CORP\alice", windows_protocol=protocol)
    found = check_it(manager_of(server, **account, channel_binding="none"), every_binding=True)
    found.assert_failed_at("sign-in", "Set 'Channel binding' to 'tls-server-end-point'")
    assert bindings_of(found) == {
        "none (the connection's own)": "not accepted",
        "tls-server-end-point": "accepted",
        "tls-unique": "not tried, as expected",
    }
    assert len(server.attempts()) == 2  # the third is not defined for TLS 1.3


def test_each_binding_is_tried_where_the_connections_own_passes(
    binding_server: Callable[..., BindingServer], kerberos: KerberosRealm, check_it: CheckIt
) -> None:
    """With TLS 1.2 all three are sent."""
    server = binding_server(channel_binding="require", binding_type="tls-unique", max_tls="TLSv1_2")
    manager = manager_of(server, ccache=kerberos.ccache("alice"), channel_binding="tls-unique")
    found = check_it(manager, every_binding=True)
    assert (str(found.report.verdict), found.report.exit_status) == ("ok", 0), found.page
    assert bindings_of(found) == {
        "tls-unique (the connection's own)": "accepted",
        "tls-server-end-point": "not accepted",
        "none": "not accepted",
    }
    assert len(server.attempts()) == 3


def test_a_certificate_to_which_nothing_can_be_bound_is_noted(
    binding_server: Callable[..., BindingServer], kerberos: KerberosRealm, check_it: CheckIt
) -> None:
    """No server could check a binding, so the default is none; one that was spelled out is an error."""
    server = binding_server(channel_binding="allow", signature="Ed25519")
    ccache = kerberos.ccache("alice")
    found = check_it(manager_of(server, ccache=ccache))
    assert (str(found.report.verdict), found.report.exit_status) == ("ok", 0), found.page
    assert found.details["channel binding"].startswith("none: tls-server-end-point is not defined for the server's")
    (attempt,) = server.attempts()
    assert (attempt.user, attempt.bindings) == ("alice@CORP.EXAMPLE", "absent")
    spelled_out = check_it(manager_of(server, ccache=ccache, channel_binding="tls-server-end-point"))
    spelled_out.assert_failed_at("channel binding", "Leave 'Channel binding' empty")
    assert len(server.attempts()) == 1


@pytest.fixture
def proxy() -> Iterator[Callable[[int], int]]:
    """Starts a proxy that ends TLS in front of a server with implicit TLS; returns its port for that server's."""
    listener = socket.create_server(("127.0.0.1", 0))
    sockets = [listener]
    front, back = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    back.check_hostname, back.verify_mode = False, ssl.CERT_NONE
    trustme.CA().issue_cert("localhost").configure_cert(front)

    def pass_on(source: ssl.SSLSocket, target: ssl.SSLSocket) -> None:
        with contextlib.suppress(OSError):
            while octets := source.recv(65536):
                target.sendall(octets)
        for one in (source, target):
            hang_up(one)

    def accept(port: int) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = front.wrap_socket(listener.accept()[0], server_side=True)
                server = back.wrap_socket(socket.create_connection(("127.0.0.1", port)))
                sockets.extend((client, server))
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=pass_on, args=pair, daemon=True).start()

    def start(port: int) -> int:
        threading.Thread(target=accept, args=(port,), daemon=True).start()
        number: int = listener.getsockname()[1]
        return number

    yield start
    for one in sockets:
        hang_up(one)


@pytest.mark.parametrize("protocol", ["kerberos", "ntlm"])
def test_behind_a_proxy_that_ends_tls_the_binding_may_be_what_is_wrong(
    protocol: str,
    binding_server: Callable[..., BindingServer],
    kerberos: KerberosRealm,
    check_it: CheckIt,
    proxy: Callable[[int], int],
) -> None:
    """Nothing passes where the server requires a binding; the remedy says so beside the other causes."""
    server = binding_server(channel_binding="require", ssl_mode="implicit")
    settings = {"port": proxy(server.port), "ssl_mode": "implicit", "verify_certificate": False, "ca_certificate": None}
    manager = manager_of(server, **by_password(kerberos, windows_protocol=protocol), **settings)
    found = check_it(manager, every_binding=True)
    found.assert_failed_at("sign-in", "a proxy or load balancer ends TLS")
    assert "No binding was accepted." in found.details["every binding"]
    assert "unlikely" not in found.page
    assert ("'Password'" in found.report.remedy) is (protocol == "ntlm")
    assert len(server.attempts()) == 2


def bindings_of(found: Checked) -> dict[str, str]:
    """Each binding, and whether it passed."""
    lines = [line.split(": ") for line in found.details["every binding"].split("\n") if ": " in line]
    return {line[0]: line[1] for line in lines if line[0] != "Accepted"}


# --- The commands.


def run(*command: str, status: int, stdin: str = "", **environment: str) -> tuple[str, str]:
    """Run a command in the tests' own Airflow home; what it wrote to standard output and to standard error."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        check=False,
        input=stdin,
        env=os.environ | environment,
        timeout=600,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def stored_connection(airflow_db: None) -> Iterator[Callable[..., None]]:
    """Puts a connection into Airflow's database for one test; with an environment, by Airflow's own command in it."""
    from airflow.models import Connection
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    added: list[str] = []

    def add(conn_id: str, definition: Mapping[str, Any], **environment: str) -> None:
        added.append(conn_id)
        if environment:
            words = ("airflow", "connections", "add", conn_id, "--conn-json", json.dumps(definition))
            run(*words, status=0, **environment)
            return
        with create_session() as session:
            stored = Connection.from_json(json.dumps(definition), conn_id=conn_id)  # noqa: AIR311 - the database's own
            session.add(stored)

    yield add
    with create_session() as session:
        session.execute(delete(Connection).where(Connection.conn_id.in_(added)))  # noqa: AIR311 - the database's own


def test_airflows_own_command_line_has_the_check(stored_connection: Callable[..., None]) -> None:
    """It finds a connection that is in the database alone, and its exit status is the check's."""
    with Relay(users={r"CORP\alice": "correct horse battery"}) as relay:
        stored_connection("check_in_database", relay.airflow_connection())
        page, noise = run("airflow", "smtpcm", "check", "check_in_database", status=0)
        assert page.startswith("Checking the Airflow connection 'check_in_database' from ")
        assert page.endswith("\nThe connection works.\n")
        machine, _ = run("airflow", "smtpcm", "check", "check_in_database", "--json", status=0)
        assert json.loads(machine)["verdict"] == "ok"
    page, _ = run("airflow", "smtpcm", "check", "check_in_database", status=1)
    assert "FAILED at this step: TCP." in page
    for shown in (page, machine, noise):
        assert_nothing_secret(shown, "correct horse battery")


def test_airflows_own_command_line_knows_the_exit_statuses(airflow_db: None) -> None:
    """And refuses a connection as an argument."""
    page, _ = run("airflow", "smtpcm", "check", "no_such_connection", status=3)
    assert "Connection 'no_such_connection' was not found" in page
    assert "Give CONN_ID" in run("airflow", "smtpcm", "check", status=2)[1]
    _, error = run("airflow", "smtpcm", "check", "--uri", "smtpcm://alice:hush-hush@mail.corp.example", status=2)
    assert "give it on standard input with '--uri -'" in " ".join(error.split())
    assert "hush-hush" not in error
    described, _ = run("airflow", "smtpcm", "check", "--help", status=0)
    assert "3 the connection does not exist or cannot be used" in " ".join(described.split())


def test_the_package_has_the_same_command(stored_connection: Callable[..., None]) -> None:
    """From the database, the environment and standard input."""
    with Relay(users={r"CORP\alice": "correct horse battery"}) as relay:
        connection = relay.airflow_connection()
        stored_connection("check_by_package", connection)
        text = json.dumps(connection)
        ways: list[tuple[list[str], dict[str, str]]] = [
            (["check_by_package"], {}),
            (["check_in_environment"], {"AIRFLOW_CONN_CHECK_IN_ENVIRONMENT": text}),
            (["--uri-env", "MAIL"], {"MAIL": text}),
            (["--uri", "-"], {"stdin": text}),
        ]
        for arguments, given in ways:
            page, noise = run("airflow_provider_smtpcm", "check", *arguments, status=0, **given)
            assert page.endswith("\nThe connection works.\n")
            assert_nothing_secret(page + noise, "correct horse battery")


def test_a_connection_that_cannot_be_decrypted_has_a_hint(stored_connection: Callable[..., None]) -> None:
    """Airflow itself says that there is none."""
    definition = {"conn_type": "smtpcm", "host": "mail.corp.example", "login": "alice", "password": "hush-hush"}
    stored_connection("check_encrypted", definition, AIRFLOW__CORE__FERNET_KEY=Fernet.generate_key().decode())
    words = ("airflow_provider_smtpcm", "check", "check_encrypted")
    page, _ = run(*words, status=3, AIRFLOW__CORE__FERNET_KEY=Fernet.generate_key().decode())
    assert "lacks the [core] fernet_key" in " ".join(page.split())


def test_airflow_builds_its_parser_without_what_the_check_needs() -> None:
    """`airflow dags list` does not wait for NTLM."""
    program = """
import sys
import airflow.cli.cli_parser as parser
assert "smtpcm" in parser.ALL_COMMANDS_DICT
parser.get_parser()
heavy = [name for name in sys.modules if name.split(".")[0] == "spnego"]
heavy += [name for name in sys.modules if name.startswith("airflow_provider_smtpcm.")]
assert set(heavy) <= {
    "airflow_provider_smtpcm.cli", "airflow_provider_smtpcm.get_provider_info",
    *(name for name in heavy if name.split(".")[1:2] in (["cli"], ["connection_manager"])),
    "airflow_provider_smtpcm.errors", "airflow_provider_smtpcm.frozen_dataclasses",
}, heavy
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600, env=dict(os.environ))
