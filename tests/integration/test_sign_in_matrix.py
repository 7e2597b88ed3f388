"""Every cell of the sign-in table: the mail arrives, and the server recorded whom it let in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.smtp import Outcome
from airflow_provider_smtpcm.smtp.session import Session
from airflow_provider_smtpcm.testing import Exchange, Relay
from tests.integration.binding_server import BindingServer
from tests.integration.gssapi_postfix import GssapiPostfix
from tests.integration.kerberos import KerberosRealm
from tests.integration.loopback_postfix import LoopbackPostfix
from tests.integration.postfix import Postfix
from tests.integration.samba_domain import SambaDomain
from tests.integration.sign_in_matrix import IDENTITY, RELAY, Cell, cells, directory_cells, write

pytestmark = pytest.mark.slow

MAIL = Mail(from_address="etl@corp.example", to="operations@corp.example", subject="Signed in", text="From Linux.")
Server = LoopbackPostfix | BindingServer | Relay
EXCHANGES_LIST = ("GSSAPI", "NTLM")


@pytest.fixture(scope="module")
def passed() -> Iterator[dict[Cell, str]]:
    """The cells that ran; written into the documents where that is asked for."""
    found: dict[Cell, str] = {}
    yield found
    if os.environ.get("WRITE_MATRIX") and len(found) == len(cells()) + len(directory_cells()):
        write(found)


@pytest.fixture
def settings_for(
    kerberos: KerberosRealm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[Cell], dict[str, str]]:
    """The connection's settings for a credential; those of the worker's own identity go into the environment."""

    def settings(cell: Cell) -> dict[str, str]:
        alice = Postfix.users["alice"] if cell.server == "Postfix, Cyrus SASL" else kerberos.password_of("alice")
        netbios = {"login": r"CORP\alice", "password": alice}
        users = tmp_path / "users"
        users.write_text(f"CORP:alice:{alice}\n", encoding="utf-8")
        keytab = str(kerberos.client_keytab)
        in_environment = {
            "own ccache": {"KRB5CCNAME": kerberos.ccache("alice")},
            # With a cache of its own, since the library keeps there what it got by the keytab.
            "own keytab": {"KRB5_CLIENT_KTNAME": keytab, "KRB5CCNAME": f"FILE:{tmp_path}/ccache"},
            "own file": {"NTLM_USER_FILE": str(users)},
        }
        for name, value in in_environment.get(cell.credential, {}).items():
            monkeypatch.setenv(name, value)
        in_connection = {
            "password": netbios if cell.protocol == "ntlm" else {"login": "alice@corp.example", "password": alice},
            "netbios": netbios,
            "non-ASCII": {"login": "jürgen@corp.example", "password": kerberos.password_of("jürgen")},
            "keytab": {"keytab": keytab},
            "ccache": {"ccache": kerberos.ccache("alice")},
        }
        return in_connection.get(cell.credential, {})

    return settings


@pytest.fixture(scope="module")
def relays() -> Iterator[Callable[[Exchange, str], Relay]]:
    """One relay for all cells of the same server."""
    running: dict[str | None, Relay] = {}
    with ExitStack() as stack:

        def get(personality: Exchange, password: str) -> Relay:
            policy = personality.extended_protection
            if policy not in running:
                running[policy] = stack.enter_context(Relay(users={r"CORP\alice": password}, personality=personality))
            running[policy].clear()
            return running[policy]

        yield get


@pytest.fixture
def server_of(
    postfix: Postfix,
    gssapi_postfix: GssapiPostfix,
    binding_server: Callable[..., BindingServer],
    relays: Callable[[Exchange, str], Relay],
    kerberos: KerberosRealm,
) -> Callable[[Cell], Server]:
    """The server of a cell, with an empty mailbox."""

    def server(cell: Cell) -> Server:
        if cell.server == "Postfix, Cyrus SASL":
            return postfix
        if cell.server.startswith(RELAY):
            policy: Any = cell.server.removeprefix(RELAY).strip().replace("off", "none")
            personality = Exchange(keytab=str(kerberos.service_keytab), tarpit=0, extended_protection=policy)
            return relays(personality, kerberos.password_of("alice"))
        if "bindings" not in cell.server:
            return gssapi_postfix
        spnego = "SPNEGO" in cell.server
        return binding_server(
            channel_binding="require",
            ssl_mode=cell.ssl_mode,
            mechanisms=("GSS-SPNEGO",) if spnego else EXCHANGES_LIST,
            spnego_layer=spnego,
        )

    return server


def recorded(server: Server) -> str:
    """Whom the server let in, in its own words."""
    if isinstance(server, Relay):
        [mail] = server.messages
        return str(mail.authenticated_as)
    if isinstance(server, BindingServer):
        (attempt,) = server.attempts()
        assert attempt.bindings == "right"
        assert not attempt.initial_response
        return str(attempt.user)
    (message,) = server.wait_for_messages(1)
    return str(message["Received"]).partition("(Authenticated sender: ")[2].partition(")")[0]


@pytest.mark.parametrize("cell", cells(), ids=str)
def test_this_way_in_works(
    cell: Cell,
    settings_for: Callable[[Cell], dict[str, str]],
    server_of: Callable[[Cell], Server],
    passed: dict[Cell, str],
) -> None:
    """With the identity that was meant."""
    server = server_of(cell)
    manager = SmtpConnectionManager(
        host="localhost",
        port=getattr(server, cell.port),
        auth_mode="windows",  # type: ignore[arg-type]
        ssl_mode=cell.ssl_mode,  # type: ignore[arg-type]
        windows_protocol=cell.protocol,  # type: ignore[arg-type]
        ca_certificate=None if cell.ssl_mode == "none" else server.ca_certificate,
        **settings_for(cell),  # type: ignore[arg-type]
    )
    with Session(manager) as session:
        assert session.authentication is not None
        assert session.authentication.mechanism == cell.mechanism
        assert session.authentication.protocol.lower() == cell.protocol
        assert session.send(MAIL).outcome is Outcome.ACCEPTED
    identity = recorded(server)
    if cell.protocol == "kerberos":
        expected = IDENTITY.get(cell.credential, "alice@CORP.EXAMPLE")
        # Postfix writes what is not ASCII as question marks.
        assert identity in (expected, expected.encode().decode("ascii", "replace").replace("\ufffd", "?"))
    else:
        assert "alice" in identity.lower()
    passed[cell] = identity


@pytest.fixture
def directory_settings(samba: SambaDomain) -> Callable[[Cell], dict[str, str]]:
    """The connection's settings for a credential in the Active Directory."""
    upn = samba.upns["carol"]
    logins = {
        "password": "alice@corp.example",
        "netbios": r"CORP\alice",
        "non-ASCII": "jürgen@corp.example",
        "sharp s": r"CORP\groß",
        "hashes": r"CORP\hash",
        "UPN": upn,
    }
    without_password = {
        "keytab": lambda: {"keytab": str(samba.client_keytab), "login": "svc-etl@corp.example"},
        "ccache": lambda: {"ccache": samba.ccache("alice")},
        "UPN ccache": lambda: {"ccache": samba.ccache(upn, "-E", "-C"), "login": upn},
    }

    def settings(cell: Cell) -> dict[str, str]:
        if cell.credential in without_password:
            return without_password[cell.credential]()
        # As in the other servers' column, the account of NTLM is that of NetBIOS.
        is_netbios = (cell.protocol, cell.credential) == ("ntlm", "password")
        login = logins["netbios" if is_netbios else cell.credential]
        user = IDENTITY.get(cell.credential, "alice@").partition("@")[0]
        return {"login": login, "password": samba.password_of(user)}

    return settings


@pytest.mark.parametrize("cell", directory_cells(), ids=str)
def test_this_way_into_a_directory_works(
    cell: Cell,
    directory_settings: Callable[[Cell], dict[str, str]],
    samba_server: BindingServer,
    passed: dict[Cell, str],
) -> None:
    """With the identity that the domain controller confirmed."""
    manager = SmtpConnectionManager(
        host="localhost",
        port=samba_server.port,
        auth_mode="windows",  # type: ignore[arg-type]
        windows_protocol=cell.protocol,  # type: ignore[arg-type]
        ca_certificate=samba_server.ca_certificate,
        **directory_settings(cell),  # type: ignore[arg-type]
    )
    with Session(manager) as session:
        assert session.authentication is not None
        assert session.authentication.mechanism == cell.mechanism
        assert session.send(MAIL).outcome is Outcome.ACCEPTED
    identity = recorded(samba_server)
    expected = IDENTITY.get(cell.credential, "alice@CORP.EXAMPLE")
    if cell.protocol == "kerberos":
        assert identity == expected
    else:
        assert expected.partition("@")[0] in identity
    passed[cell] = identity
