"""A relay with the personality of an Exchange and a keytab: GSSAPI, as independent clients and this package use it."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import spnego

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import AuthenticationError
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.smtp.session import Session
from airflow_provider_smtpcm.testing import Exchange, Relay
from tests.integration.kerberos import KerberosRealm
from tests.integration.spnego_client import Client

pytestmark = pytest.mark.slow

ACCEPTED = "235 2.7.0 Authentication successful"
REFUSED = "535 5.7.3 Authentication unsuccessful"
WRONG = b"tls-server-end-point:" + b"\1" * 32
MAIL = Mail(from_address="etl@corp.example", to="dba@corp.example", subject="Signed in", text="By Kerberos.")


def exchange(kerberos: KerberosRealm, **settings: Any) -> Exchange:
    """An Exchange in the realm that answers at once."""
    return Exchange(keytab=str(kerberos.service_keytab), tarpit=0, **settings)


@pytest.mark.parametrize(
    ("policy", "right", "absent", "wrong"),
    [
        ("none", ACCEPTED, ACCEPTED, ACCEPTED),
        ("allow", ACCEPTED, ACCEPTED, REFUSED),
        ("require", ACCEPTED, REFUSED, REFUSED),
    ],
)
@pytest.mark.parametrize("protocol", ["kerberos", "negotiate", "ntlm"])
def test_auth_gssapi_takes_what_exchange_takes(
    kerberos: KerberosRealm, protocol: str, policy: Any, right: str, absent: str, wrong: str
) -> None:
    """Kerberos, SPNEGO around it, and NTLM, with right, absent and wrong channel bindings."""
    password = kerberos.password_of("alice")
    user = r"CORP\alice" if protocol == "ntlm" else "alice@CORP.EXAMPLE"
    account = spnego.Password(user, password)
    settings = exchange(kerberos, extended_protection=policy)
    with Relay(users={r"CORP\alice": password}, personality=settings) as relay:
        for bindings, reply in (("right", right), (None, absent), (WRONG, wrong)):
            with Client(relay.port, relay.ca_certificate) as client:
                assert client.offered == ["GSSAPI", "NTLM"]
                data = client.bindings() if isinstance(bindings, str) else bindings
                assert client.login("GSSAPI", account, protocol, bindings=data) == reply
                if reply == ACCEPTED:
                    client.send("Hello")
        mails = relay.messages
    assert {(mail.authenticated_as, mail.mechanism) for mail in mails} == {(user, "GSSAPI")}


@pytest.mark.parametrize("token", [b"", b"\x60\x03abc", b"NTLMSSP\0", b"x" * 1000])
def test_what_is_no_ticket_is_refused(kerberos: KerberosRealm, token: bytes) -> None:
    """And the session goes on."""
    with (
        Relay(personality=exchange(kerberos)) as relay,
        Client(relay.port, relay.ca_certificate) as client,
    ):
        assert client.smtp.docmd("AUTH", "GSSAPI") == (334, b"")
        assert client.smtp.docmd(base64.b64encode(token).decode()) == (535, REFUSED[4:].encode())
        account = spnego.Password("alice@CORP.EXAMPLE", kerberos.password_of("alice"))
        assert client.login("GSSAPI", account, "kerberos") == ACCEPTED


def test_this_package_signs_in_where_channel_bindings_are_required(kerberos: KerberosRealm) -> None:
    """With a keytab by Kerberos. Without bindings it is refused."""
    with Relay(personality=exchange(kerberos, extended_protection="require")) as relay:
        connection = relay.airflow_connection()
        assert connection["extra"]["auth_mode"] == "windows"
        settings: dict[str, Any] = {
            "host": "localhost",
            "port": relay.port,
            **connection["extra"],
            "login": kerberos.client_principal,
            "keytab": str(kerberos.client_keytab),
        }
        with Session(SmtpConnectionManager(**settings)) as session:
            session.send(MAIL)
        [mail] = relay.messages
        assert (mail.authenticated_as, mail.mechanism) == (kerberos.client_principal, "GSSAPI")
        with pytest.raises(AuthenticationError, match=r"535 5\.7\.3") as refused:
            Session(SmtpConnectionManager(**settings, channel_binding="none")).open()
        assert refused.value.remedy.startswith("'Channel binding' is 'none'")
        assert "setspn" not in refused.value.remedy
