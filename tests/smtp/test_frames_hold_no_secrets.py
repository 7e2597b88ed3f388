"""After a failed sign-in no frame of the error holds a password, its hash or a token: error collectors record them."""

from __future__ import annotations

import base64
import importlib.util
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import AuthenticationError, ConnectionSettingsError, MailError
from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.smtp.auth.ntlm import compute_nt_hash
from airflow_provider_smtpcm.smtp.session import Session
from airflow_provider_smtpcm.smtp.transport import Transport
from tests.integration.programs import KERBEROS_COMMAND
from tests.smtp.auth.test_sasl import CHALLENGE
from tests.smtp.dialogue import Dialogue
from tests.smtp.frames import secrets_in
from tests.smtp.test_handshake import GREETING

PASSWORD = "correct horse"
WINDOWS = {"auth_mode": "windows", "login": r"CORP\alice", "password": PASSWORD}
SERVERS_TOKEN = base64.b64encode(CHALLENGE).decode()
HASH_FILE = f"alice:1000:{'0' * 32}:{compute_nt_hash(PASSWORD).upper()}:[U          ]:LCT-00000000:"

ManagerFor = Callable[..., SmtpConnectionManager]


def spnego_challenge() -> str:
    """The same challenge as GSS-SPNEGO carries it."""
    from spnego._context import GSSMech
    from spnego._spnego import NegState, NegTokenResp

    token = NegTokenResp(
        neg_state=NegState.accept_incomplete, supported_mech=GSSMech.ntlm.value, response_token=CHALLENGE
    )
    return base64.b64encode(token.pack()).decode()


def secrets(dialogue: Dialogue) -> list[bytes]:
    """The password and its hash in all forms, and each token that the server received or sent."""
    tokens = [line for line in dialogue.heard if len(line) > 16 and " " not in line]
    known = [
        PASSWORD.encode(),
        PASSWORD.encode("utf-16-le"),
        compute_nt_hash(PASSWORD).encode(),
        bytes.fromhex(compute_nt_hash(PASSWORD)),
    ]
    known += [compute_nt_hash(PASSWORD).upper().encode(), CHALLENGE, SERVERS_TOKEN.encode()]
    return [*known, *(line.encode() for line in tokens), *(base64.b64decode(line) for line in tokens)]


def opening(mechanism: str) -> str:
    """A server that offers one mechanism, up to its first 334."""
    return f"{GREETING}\nS: 250-mail\nS: 250 AUTH {mechanism}\nC: AUTH {mechanism}\nS: 334 go on\nC: *"


CHALLENGES = {"NTLM": SERVERS_TOKEN, "GSSAPI": SERVERS_TOKEN, "GSS-SPNEGO": spnego_challenge()}
# What the server does next: after the first token (None), or after the challenge and the last token.
ENDS = {
    "the first token is refused": (1, "S: 535 5.7.3 no"),
    "the first token is refused for now": (1, "S: 454 4.7.0 later"),
    "the challenge is not base64": (1, "S: 334 !!!\nC: ?\nS: 501 cancelled"),
    "the challenge is of something else": (1, "S: 334 aGVsbG8=\nC: ?\nS: 501 cancelled"),
    "the success comes too early": (1, "S: 235 welcome"),
    "the server hangs up on the first token": (1, "RESET"),
    "the last token is refused": (2, "S: 535 5.7.3 no"),
    "the last token is repeated": (2, "ECHO 535"),
    "the server hangs up on the last token": (2, "RESET"),
    "the server says nothing to the last token": (2, "HANG"),
    "the server speaks no SMTP after the last token": (2, "S: what"),
    "the server asks for more": (2, "S: 334 aGVsbG8=\nC: *\nS: 334 aGVsbG8=\nC: *\nS: 501 no"),
}


def through_hook(manager: SmtpConnectionManager, mail: Mail) -> None:
    """One mail, whose session is opened in a thread."""
    hook = SmtpConnectionManagerHook("mail")
    vars(hook)["connection_manager"] = manager
    hook.send(mail)


def through_session(manager: SmtpConnectionManager, mail: Mail) -> None:
    """A separate session, in this thread."""
    Session(manager).open()


def from_a_thread(manager: SmtpConnectionManager, mail: Mail) -> None:
    """While something else is being handled."""
    try:
        raise LookupError("the row is missing")
    except LookupError:
        through_session(manager, mail)


FACES = (through_hook, through_session, from_a_thread)


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("mechanism", CHALLENGES)
def test_no_frame_of_a_refused_sign_in_holds_a_secret(
    mechanism: str, end: str, face: Callable[[SmtpConnectionManager, Mail], None], manager_for: ManagerFor, mail: Mail
) -> None:
    """With any mechanism, whenever the server refuses, hangs up or sends nonsense."""
    leg, answer = ENDS[end]
    script = opening(mechanism) + (f"\nS: 334 {CHALLENGES[mechanism]}\nC: *" if leg == 2 else "") + f"\n{answer}"
    # In this order the dialogue sees the error, and accepts that the mechanism left the script.
    with pytest.raises(MailError) as caught, Dialogue(script) as dialogue:
        face(manager_for(dialogue, windows_protocol="ntlm", **WINDOWS), mail)
    assert len(secrets(dialogue)) >= 9
    assert secrets_in(caught.value, secrets(dialogue)) == []
    assert caught.value.__traceback__ is not None


def test_nor_does_that_of_a_mail_that_is_refused_afterwards(manager_for: ManagerFor, mail: Mail) -> None:
    """The sign-in succeeded, and its secrets are no longer needed."""
    script = f"{opening('NTLM')}\nS: 334 {SERVERS_TOKEN}\nC: *\nS: 235 welcome\nC: MAIL *\nS: 550 5.7.1 no"
    with pytest.raises(MailError, match="550") as caught, Dialogue(script) as dialogue:
        through_hook(manager_for(dialogue, **WINDOWS), mail)
    assert secrets_in(caught.value, secrets(dialogue)) == []


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_nor_does_that_of_one_that_is_interrupted(
    interruption: type[BaseException], manager_for: ManagerFor, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a time limit of Airflow, or by a bug of this package."""
    write = Transport.write

    def interrupted(self: Transport, block: bytes) -> None:
        if block.startswith(b"TlRMTVNTUAAD"):
            raise interruption
        write(self, block)

    monkeypatch.setattr(Transport, "write", interrupted)
    with (
        Dialogue(f"{opening('NTLM')}\nS: 334 {SERVERS_TOKEN}\nHANG") as dialogue,
        pytest.raises(interruption) as caught,
    ):
        through_session(manager_for(dialogue, **WINDOWS), mail)
    assert secrets_in(caught.value, [*secrets(dialogue), b"TlRMTVNTUAAD", CHALLENGE[:8] + b"\3\0\0\0"]) == []


@pytest.mark.parametrize(
    ("settings", "environment"),
    [
        (WINDOWS, {"LM_COMPAT_LEVEL": "0"}),
        ({**WINDOWS, "password": f"{PASSWORD}\ud800"}, {}),
        ({"auth_mode": "windows"}, {"NTLM_USER_FILE": f"CORP:alice:{PASSWORD}:x"}),
        ({"auth_mode": "windows"}, {"NTLM_USER_FILE": HASH_FILE, "LM_COMPAT_LEVEL": "0"}),
        ({"auth_mode": "windows"}, {"NTLM_USER_FILE": HASH_FILE}),
    ],
)
@pytest.mark.parametrize("mechanism", ["NTLM", "GSS-SPNEGO"])
def test_nor_does_that_of_an_account_that_cannot_be_used(
    settings: dict[str, str],
    environment: dict[str, str],
    mechanism: str,
    manager_for: ManagerFor,
    mail: Mail,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Before anything is sent to the server, or because of its reply."""
    for name, value in environment.items():
        if name == "NTLM_USER_FILE":
            (tmp_path / "users").write_text(value)
        monkeypatch.setenv(name, str(tmp_path / "users") if name == "NTLM_USER_FILE" else value)
    with pytest.raises(AuthenticationError) as caught, Dialogue(f"{opening(mechanism)}\nS: 535 no") as dialogue:
        through_hook(manager_for(dialogue, windows_protocol="ntlm", **settings), mail)
    assert secrets_in(caught.value, secrets(dialogue)) == []


@pytest.fixture
def silent_kdc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A realm whose KDC is not there."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    path = tmp_path / "krb5.conf"
    path.write_text(
        "[libdefaults]\n default_realm = CORP.EXAMPLE\n dns_lookup_kdc = false\n udp_preference_limit = 1\n"
        f"[realms]\n CORP.EXAMPLE = {{\n  kdc = 127.0.0.1:{port}\n }}\n"
    )
    monkeypatch.setenv("KRB5_CONFIG", str(path))


@pytest.mark.skipif(importlib.util.find_spec("krb5") is None, reason=f"Python's krb5 missing: {KERBEROS_COMMAND}")
@pytest.mark.parametrize("protocol", ["kerberos", "negotiate"])
@pytest.mark.parametrize("mechanism", ["GSSAPI", "GSS-SPNEGO"])
def test_nor_does_that_of_a_kdc_that_is_not_there(
    mechanism: str, protocol: str, silent_kdc: None, manager_for: ManagerFor, mail: Mail
) -> None:
    """In a separate thread; then NTLM, if that is allowed."""
    settings = {**WINDOWS, "login": "alice@corp.example", "windows_protocol": protocol, "spn": "smtp/mail.corp.example"}
    script = f"{opening(mechanism)}\nS: 535 no"
    with pytest.raises(AuthenticationError, match="KDC") as caught, Dialogue(script) as dialogue:
        through_hook(manager_for(dialogue, timeout=10, **settings), mail)
    assert secrets_in(caught.value, secrets(dialogue)) == []


def test_a_refused_account_that_is_not_tried_again_raises_an_error_of_its_own(manager_for: ManagerFor) -> None:
    """Not one that grows with the frames of each thread that asks."""
    from airflow_provider_smtpcm.smtp.auth.negotiation import WindowsAuthenticator

    with Dialogue(f"{opening('NTLM')}\nS: 535 5.7.3 no") as dialogue:
        manager = manager_for(dialogue, **WINDOWS)
        authenticator = WindowsAuthenticator(manager)
        errors = []
        with pytest.raises(AuthenticationError) as caught:
            Session(manager, authenticator=authenticator).open()
        errors.append(caught.value)
    for _ in range(2):
        with Dialogue(f"{GREETING}\nS: 250-mail\nS: 250 AUTH NTLM") as dialogue:
            again = manager_for(dialogue, **WINDOWS)
            with pytest.raises(AuthenticationError) as caught:
                Session(again, authenticator=authenticator).open()
            errors.append(caught.value)
    assert len({id(error) for error in errors}) == 3
    assert len({str(error) for error in errors}) == 1
    assert authenticator.account.refusal is not None
    assert authenticator.account.refusal.__traceback__ is None


@pytest.mark.parametrize("fault", [{"port": "x"}, {"extra": {"auth_mode": "yes"}}, {"extra": "no JSON"}, {"host": ""}])
def test_no_frame_of_settings_that_cannot_be_used_holds_the_password(fault: dict[str, object]) -> None:
    """Neither does the connection of Airflow's, which shows it in its repr."""
    from airflow.sdk import Connection

    with pytest.raises(ConnectionSettingsError) as caught:
        # What the caller holds is the caller's.
        SmtpConnectionManager.from_airflow(SimpleNamespace(**{"host": "h", "password": PASSWORD, **fault}))
    assert secrets_in(caught.value, [PASSWORD.encode()]) == []
    with pytest.raises(ConnectionSettingsError) as caught:
        SmtpConnectionManager.from_airflow(Connection(conn_id="mail", conn_type="smtpcm", password=PASSWORD))
    assert secrets_in(caught.value, [PASSWORD.encode()]) == []
    with pytest.raises(ConnectionSettingsError) as caught:
        SmtpConnectionManager.from_connection_string(f"SmtpServer=h;Timeout=x;Foo={PASSWORD}")
    assert secrets_in(caught.value, [PASSWORD.encode()]) == []
