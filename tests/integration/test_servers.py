"""The test servers behave as they claim, checked by pyspnego alone, so that no failure of another test is theirs."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
import spnego
from spnego.exceptions import SpnegoError

from tests.integration.binding_server import BindingServer
from tests.integration.gssapi_postfix import GssapiPostfix
from tests.integration.kerberos import KerberosRealm
from tests.integration.programs import KERBEROS_COMMAND
from tests.integration.spnego_client import Client

krb5 = pytest.importorskip("krb5", reason=KERBEROS_COMMAND)

pytestmark = pytest.mark.slow

ACCEPTED = "235 2.7.0 Authentication successful"
REFUSED_BY_POSTFIX = "535 5.7.8 Error: authentication failed: authentication failure"
REFUSED_BY_BINDING_SERVER = "535 5.7.3 Authentication unsuccessful"
WRONG_BINDINGS = b"tls-server-end-point:" + bytes(32)

#: Mechanism, pyspnego's protocol, and whether the name is Windows' (which leads `negotiate` to NTLM).
WAYS = {
    "Kerberos in GSSAPI": ("GSSAPI", "kerberos", False),
    "SPNEGO in GSSAPI": ("GSSAPI", "negotiate", False),
    "NTLM in GSSAPI": ("GSSAPI", "ntlm", True),
    "Kerberos in GSS-SPNEGO": ("GSS-SPNEGO", "negotiate", False),
    "NTLM in GSS-SPNEGO": ("GSS-SPNEGO", "negotiate", True),
    "NTLM": ("NTLM", "ntlm", True),
}


def credential(realm: KerberosRealm, user: str = "alice", *, windows: bool = False) -> spnego.Password:
    """Return the user's name, in the form of Windows or Kerberos, and the password."""
    name = rf"{realm.netbios_domain}\{user}" if windows else f"{user}@{realm.realm}"
    return spnego.Password(name, realm.password_of(user))


def ticket_error(cred: Any, *, host: str = "localhost", service: str = "smtp") -> tuple[int, float]:
    """Return the code of MIT's library for a failed request of a ticket, and how long that took."""
    began = time.monotonic()
    with pytest.raises((krb5.Krb5Error, SpnegoError)) as caught:
        spnego.client(cred, hostname=host, service=service, protocol="kerberos").step()
    took = time.monotonic() - began
    error = caught.value
    if isinstance(error, krb5.Krb5Error):
        return error.err_code, took
    assert error.base_error is not None
    return error.base_error.min_code - 2**32, took  # GSSAPI's are unsigned


# --- The realm. The numbers are those of RFC 4120 7.5.9, and of MIT's library, behind -1765328384.

KDC_ERR_NAME_EXP = -1765328383
KDC_ERR_C_PRINCIPAL_UNKNOWN = -1765328378
KDC_ERR_S_PRINCIPAL_UNKNOWN = -1765328377
KDC_ERR_CLIENT_REVOKED = -1765328366
KDC_ERR_KEY_EXPIRED = -1765328361
KDC_ERR_PREAUTH_FAILED = -1765328360
KRB_AP_ERR_SKEW = -1765328347
KRB5_KDC_UNREACH = -1765328228


@pytest.mark.parametrize("user", ["alice", "jürgen"])
def test_a_password_and_a_ccache_lead_to_a_ticket(user: str, kerberos: KerberosRealm) -> None:
    """In any alphabet."""
    for cred in (credential(kerberos, user), spnego.KerberosCCache(kerberos.ccache(user))):
        assert spnego.client(cred, hostname="localhost", service="smtp", protocol="kerberos").step()


def test_a_keytab_leads_to_a_ticket_also_as_the_process_own(
    kerberos: KerberosRealm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name, or as the process's default identity."""
    monkeypatch.setenv("KRB5_CLIENT_KTNAME", str(kerberos.client_keytab))
    monkeypatch.setenv("KRB5CCNAME", "MEMORY:client-keytab")
    keytab = spnego.KerberosKeytab(str(kerberos.client_keytab), kerberos.client_principal)
    for cred in (keytab, None):
        assert spnego.client(cred, hostname="localhost", service="smtp", protocol="kerberos").step()


def test_a_process_that_was_given_nothing_has_no_identity(kerberos: KerberosRealm) -> None:
    """The machine's own tickets and keys are out of reach."""
    with pytest.raises(spnego.exceptions.NoCredentialError):
        spnego.client(None, hostname="localhost", service="smtp", protocol="kerberos").step()


def test_each_fault_of_an_account_has_its_code(kerberos: KerberosRealm) -> None:
    """Expired, locked, gone, wrong, unknown."""
    found = {
        user: ticket_error(credential(kerberos, user))[0]
        for user in (kerberos.expired_password_user, kerberos.locked_user, kerberos.expired_account_user, "nobody")
    }
    found["wrong password"] = ticket_error(spnego.Password(f"alice@{kerberos.realm}", "wrong"))[0]
    assert found == {
        kerberos.expired_password_user: KDC_ERR_KEY_EXPIRED,
        kerberos.locked_user: KDC_ERR_CLIENT_REVOKED,
        kerberos.expired_account_user: KDC_ERR_NAME_EXP,
        "nobody": KDC_ERR_C_PRINCIPAL_UNKNOWN,
        "wrong password": KDC_ERR_PREAUTH_FAILED,
    }


def test_one_server_is_registered_as_smtpsvc_only(kerberos: KerberosRealm) -> None:
    """The KDC does not have `smtp/` with its name."""
    cred, host = credential(kerberos), kerberos.smtpsvc_only_host
    assert ticket_error(cred, host=host)[0] == KDC_ERR_S_PRINCIPAL_UNKNOWN
    assert spnego.client(cred, hostname=host, service="SMTPSVC", protocol="kerberos").step()


def test_a_stopped_kdc_refuses_connections_and_can_be_started_again(kerberos: KerberosRealm) -> None:
    """A password needs it, and a cache without the service's ticket."""
    ccache = spnego.KerberosCCache(kerberos.ccache("alice"))
    with kerberos.kdc_stopped():
        for cred in (credential(kerberos), ccache):
            code, took = ticket_error(cred)
            assert code == KRB5_KDC_UNREACH
            assert took < 20  # a silent one is waited for for 27 seconds
    assert spnego.client(ccache, hostname="localhost", service="smtp", protocol="kerberos").step()


def test_a_silent_kdc_accepts_connections(kerberos: KerberosRealm) -> None:
    """MIT's library gives up after 27 seconds, for which this test does not wait."""
    with kerberos.kdc_silent(), socket.create_connection(("127.0.0.1", kerberos.port), timeout=1) as connection:
        connection.settimeout(0.2)
        connection.sendall(b"\0\0\0\1\0")
        with pytest.raises(TimeoutError):
            connection.recv(1)
    assert spnego.client(credential(kerberos), hostname="localhost", service="smtp", protocol="kerberos").step()


def test_a_kdc_with_another_time_refuses_a_ccache_and_a_strict_client(
    kerberos: KerberosRealm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client with a password adopts the KDC's time, unless it is configured not to."""
    ccache = spnego.KerberosCCache(kerberos.ccache("alice"))
    with kerberos.kdc_clock_ahead(3600):
        assert ticket_error(ccache)[0] == KRB_AP_ERR_SKEW
        assert spnego.client(credential(kerberos), hostname="localhost", service="smtp", protocol="kerberos").step()
        monkeypatch.setenv("KRB5_CONFIG", str(kerberos.strict_clock_krb5_conf))
        assert ticket_error(credential(kerberos))[0] == KRB_AP_ERR_SKEW


# --- Postfix.


@pytest.mark.parametrize(
    ("name", "ssl_mode", "offered"),
    [
        ("starttls_port", "starttls", ["GSSAPI", "GSS-SPNEGO"]),
        ("implicit_port", "implicit", ["GSSAPI", "GSS-SPNEGO"]),
        ("plain_port", "none", ["GSSAPI", "GSS-SPNEGO"]),
        ("gssapi_only_port", "starttls", ["GSSAPI"]),
        ("spnego_only_port", "starttls", ["GSS-SPNEGO"]),
        ("smtpsvc_port", "starttls", ["GSSAPI", "GSS-SPNEGO"]),
        ("anonymous_port", "starttls", []),
    ],
)
def test_each_port_offers_what_it_says(
    name: str, ssl_mode: str, offered: list[str], gssapi_postfix: GssapiPostfix
) -> None:
    """After TLS, or without it where there is none."""
    with Client(getattr(gssapi_postfix, name), gssapi_postfix.ca_certificate, ssl_mode=ssl_mode) as client:
        assert client.offered == offered
        assert client.smtp.has_extn("starttls") is False


@pytest.mark.parametrize("way", [way for way in WAYS if way != "NTLM"])
def test_postfix_accepts_kerberos_and_ntlm_in_both_mechanisms(
    way: str, gssapi_postfix: GssapiPostfix, kerberos: KerberosRealm
) -> None:
    """And records the user; it writes a backslash as a question mark."""
    mechanism, protocol, windows = WAYS[way]
    with Client(gssapi_postfix.starttls_port, gssapi_postfix.ca_certificate) as client:
        assert client.login(mechanism, credential(kerberos, windows=windows), protocol) == ACCEPTED
        client.send(way)
    [message] = gssapi_postfix.wait_for_messages(1)
    name = r"CORP?alice" if windows else "alice"
    assert f"(Authenticated sender: {name}@CORP.EXAMPLE)" in message["Received"]


@pytest.mark.parametrize(("name", "ssl_mode"), [("implicit_port", "implicit"), ("plain_port", "none")])
def test_postfix_accepts_a_ccache_and_a_keytab(
    name: str, ssl_mode: str, gssapi_postfix: GssapiPostfix, kerberos: KerberosRealm
) -> None:
    """With TLS from the first byte, and without TLS."""
    ccache = spnego.KerberosCCache(kerberos.ccache("jürgen"))
    keytab = spnego.KerberosKeytab(str(kerberos.client_keytab), kerberos.client_principal)
    for number, (cred, user) in enumerate(((ccache, "j??rgen"), (keytab, "svc-etl")), start=1):
        with Client(getattr(gssapi_postfix, name), gssapi_postfix.ca_certificate, ssl_mode=ssl_mode) as client:
            assert client.login("GSSAPI", cred, "kerberos") == ACCEPTED
            client.send(user)
        message = gssapi_postfix.wait_for_messages(number)[-1]
        assert f"(Authenticated sender: {user}@CORP.EXAMPLE)" in message["Received"]


def test_each_port_of_postfix_has_one_service_name(gssapi_postfix: GssapiPostfix, kerberos: KerberosRealm) -> None:
    """`SMTPSVC/` at one of them, `smtp/` at the others."""
    where = {"host": kerberos.smtpsvc_only_host, "service": "SMTPSVC"}
    for port, reply in (
        (gssapi_postfix.smtpsvc_port, ACCEPTED),
        (gssapi_postfix.starttls_port, REFUSED_BY_POSTFIX),
    ):
        with Client(port, gssapi_postfix.ca_certificate) as client:
            assert client.login("GSSAPI", credential(kerberos), "kerberos", **where) == reply


def test_a_bulky_ticket_passes_up_to_the_limit_of_a_line(
    gssapi_postfix: GssapiPostfix, kerberos: KerberosRealm
) -> None:
    """12288 octets of base64 (RFC 4954 4)."""
    for octets, reply in ((7000, ACCEPTED), (9000, "500 5.5.6 SASL response limit exceeded")):
        ccache = spnego.KerberosCCache(kerberos.bulky_ccache("alice", octets=octets))
        with Client(gssapi_postfix.starttls_port, gssapi_postfix.ca_certificate) as client:
            assert client.login("GSSAPI", ccache, "kerberos") == reply


# --- The server that checks channel bindings.


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["require", "allow", "none"])
def test_bindings_are_checked_as_the_mode_says(
    mode: str, way: str, binding_server: Callable[..., BindingServer], kerberos: KerberosRealm
) -> None:
    """Right ones are always accepted; none unless required; wrong ones only without checks."""
    mechanism, protocol, windows = WAYS[way]
    server = binding_server(channel_binding=mode)
    replies = []
    for what in ("right", "absent", "wrong"):
        with Client(server.port, server.ca_certificate) as client:
            bindings = {"right": client.bindings(), "absent": None, "wrong": WRONG_BINDINGS}[what]
            cred = credential(kerberos, windows=windows)
            replies.append(client.login(mechanism, cred, protocol, bindings=bindings)[:3])
    assert (
        replies
        == {
            "require": ["235", "535", "535"],
            "allow": ["235", "235", "535"],
            "none": ["235", "235", "235"],
        }[mode]
    )

    right = server.attempts()[0]
    assert right.user == (r"CORP\alice" if windows else "alice@CORP.EXAMPLE")
    assert right.protocol == ("ntlm" if windows else "kerberos")
    assert right.service == (None if windows else "smtp/localhost@CORP.EXAMPLE")
    assert right.bindings == ("unchecked" if mode == "none" else "right")


@pytest.mark.parametrize("ssl_mode", ["starttls", "implicit"])
@pytest.mark.parametrize("binding_type", ["tls-server-end-point", "tls-unique"])
def test_both_types_of_bindings_are_checked_with_both_tls_modes(
    binding_type: str, ssl_mode: str, binding_server: Callable[..., BindingServer], kerberos: KerberosRealm
) -> None:
    """The other type is wrong."""
    server = binding_server(binding_type=binding_type, ssl_mode=ssl_mode, max_tls="TLSv1_2")
    for kind in ("tls-server-end-point", "tls-unique"):
        with Client(server.port, server.ca_certificate, ssl_mode=ssl_mode) as client:
            assert client.smtp.sock.version() == "TLSv1.2"
            reply = client.login("GSSAPI", credential(kerberos), "kerberos", bindings=client.bindings(kind))
            assert reply == (ACCEPTED if kind == binding_type else REFUSED_BY_BINDING_SERVER)


def test_spnego_may_end_with_a_layer_round(
    binding_server: Callable[..., BindingServer], kerberos: KerberosRealm
) -> None:
    """One line more, which is the choice of no layer."""
    lines = []
    for spnego_layer in (False, True):
        server = binding_server(channel_binding="none", spnego_layer=spnego_layer)
        with Client(server.port, server.ca_certificate) as client:
            assert client.login("GSS-SPNEGO", credential(kerberos), "negotiate") == ACCEPTED
        [attempt] = server.attempts()
        lines.append(len(attempt.line_lengths))
    assert lines == [2, 3]


def test_a_mail_is_stored_with_its_authenticated_user(
    binding_server: Callable[..., BindingServer], kerberos: KerberosRealm
) -> None:
    """And no client sends without a sign-in."""
    server = binding_server(channel_binding="none")
    with Client(server.port, server.ca_certificate) as client:
        assert client.smtp.mail("etl@corp.example")[0] == 530
        assert client.login("NTLM", credential(kerberos, "jürgen", windows=True), "ntlm") == ACCEPTED
        client.send("Hello")
    [mail] = server.messages()
    assert mail.authenticated_as == r"CORP\jürgen"
    assert mail.recipients == ("ops@corp.example",)
    assert "Subject: Hello" in mail.content


def test_a_wrong_password_is_refused(binding_server: Callable[..., BindingServer], kerberos: KerberosRealm) -> None:
    """In the one mechanism in which the server checks it."""
    server = binding_server(channel_binding="none")
    with Client(server.port, server.ca_certificate) as client:
        assert client.login("NTLM", spnego.Password(r"CORP\alice", "wrong"), "ntlm") == REFUSED_BY_BINDING_SERVER
    assert server.attempts()[0].user is None


def test_a_server_with_another_time_refuses_a_ticket(
    binding_server: Callable[..., BindingServer], kerberos: KerberosRealm
) -> None:
    """By more than the five minutes that Kerberos allows."""
    server = binding_server(channel_binding="none", clock_offset=3600)
    with Client(server.port, server.ca_certificate) as client:
        assert client.login("GSSAPI", credential(kerberos), "kerberos") == REFUSED_BY_BINDING_SERVER
    assert "Clock skew too great" in (server.attempts()[0].why or "")


@pytest.mark.parametrize(
    ("octets", "reply"),
    [
        (100, "501 5.5.4 An initial response is not taken here"),
        (600, "500 5.5.2 Line too long"),
        (14000, "500 5.5.2 Line too long"),
    ],
)
def test_an_initial_response_is_refused_and_recorded(
    octets: int, reply: str, binding_server: Callable[..., BindingServer]
) -> None:
    """A command ends at 512 octets in any case."""
    server = binding_server(channel_binding="none")
    with Client(server.port, server.ca_certificate) as client:
        code, text = client.smtp.docmd("AUTH", "GSSAPI " + "A" * octets)
        assert f"{code} {text.decode()}" == reply
        assert client.smtp.docmd("NOOP", "x" * 600)[0] == 500
        assert client.smtp.noop()[0] == 250
    [attempt] = server.attempts()
    assert (attempt.mechanism, attempt.initial_response, attempt.reply) == ("GSSAPI", True, reply)


@pytest.mark.parametrize(("octets", "code"), [(9000, 235), (9216, 235), (9217, 500), (60000, 500)])
def test_a_line_of_base64_may_be_long_and_its_length_is_recorded(
    octets: int, code: int, binding_server: Callable[..., BindingServer]
) -> None:
    """Up to 12288 octets; a longer one is read to its end, and the next command is understood."""
    server = binding_server(channel_binding="none")
    token = base64.b64encode(bytes(octets)).decode()
    with Client(server.port, server.ca_certificate) as client:
        assert client.smtp.docmd("AUTH", "X-BIG")[0] == 334
        assert client.smtp.docmd(token)[0] == code
        assert client.smtp.noop()[0] == 250
    [attempt] = server.attempts()
    assert attempt.line_lengths == [len(token)]


def test_the_binding_server_accepts_a_bulky_ticket(
    binding_server: Callable[..., BindingServer], kerberos: KerberosRealm
) -> None:
    """Kerberos' own first token, of more than 8 KiB."""
    server = binding_server()
    with Client(server.port, server.ca_certificate) as client:
        ccache = spnego.KerberosCCache(kerberos.bulky_ccache("alice"))
        assert client.login("GSSAPI", ccache, "kerberos", bindings=client.bindings()) == ACCEPTED
    [attempt] = server.attempts()
    assert attempt.line_lengths[0] > 8192
