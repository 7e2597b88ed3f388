"""The SASL mechanisms, without a socket: tokens in, tokens out, and no untyped error."""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

import pytest
import spnego
from hypothesis import given, settings
from hypothesis import strategies as st
from spnego._context import GSSMech
from spnego._spnego import NegState, NegTokenResp

from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager
from airflow_provider_smtpcm.errors import AuthenticationError, Phase
from airflow_provider_smtpcm.smtp.auth.ntlm import create_ntlm_context, find_ntlm_identity
from airflow_provider_smtpcm.smtp.auth.sasl import Mechanism, gss_spnego_mechanism, gssapi_mechanism, ntlm_mechanism

# MS-NLMP 4.2.4.3: the CHALLENGE_MESSAGE of the published NTLMv2 example.
CHALLENGE = bytes.fromhex(
    "4e544c4d53535000020000000c000c003800000033828ae20123456789abcdef"
    "00000000000000002400240044000000060070170000000f53006500720076006500720002000c0044006f006d00610069006e00"
    "01000c0053006500720076006500720000000000"
)


def mechanism(account: str | None = r"CORP\alice", password: str | None = "correct horse") -> Mechanism:
    """Return a new NTLM mechanism."""
    manager = SmtpConnectionManager(
        host="mail.corp.example", auth_mode=AuthMode.WINDOWS, login=account, password=password
    )
    return ntlm_mechanism(*create_ntlm_context(manager, find_ntlm_identity(manager), None, mechanism="NTLM"))


def test_a_success_before_the_exchange_is_complete_is_an_error() -> None:
    """The server replied 235 to the first message."""
    steps = mechanism()
    next(steps)
    with pytest.raises(AuthenticationError, match="before the exchange was complete"):
        steps.send(None)


def test_a_challenge_after_the_last_message_is_an_error() -> None:
    """NTLM has three messages."""
    steps = mechanism()
    next(steps)
    steps.send(CHALLENGE)
    with pytest.raises(AuthenticationError, match="asked for more"):
        steps.send(b"more")


def test_a_worker_without_an_identity_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is sent to the server."""
    monkeypatch.delenv("NTLM_USER_FILE", raising=False)
    with pytest.raises(AuthenticationError, match="Enter 'User name' and 'Password'") as caught:
        mechanism(None, None)
    assert caught.value.phase is Phase.AUTH
    assert not caught.value.retryable


@given(challenge=st.binary(max_size=300) | st.binary(max_size=120).map(lambda tail: CHALLENGE[:48] + tail))
@settings(max_examples=300, deadline=None)
def test_no_challenge_causes_an_untyped_error(challenge: bytes) -> None:
    """A response, or a typed error."""
    steps = mechanism()
    next(steps)
    with contextlib.suppress(AuthenticationError):
        assert steps.send(challenge)


@pytest.mark.parametrize("level", ["0", "2", "x", ""])
def test_a_worker_that_allows_ntlm_v1_is_an_error(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment sets the level for pyspnego, and NTLMv1 can be cracked."""
    monkeypatch.setenv("LM_COMPAT_LEVEL", level)
    with pytest.raises(AuthenticationError, match="LM_COMPAT_LEVEL"):
        mechanism()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        (b"CORP:etl:pass:word\n", "no line that can be used"),
        (b"\xff\xfe", "cannot be read"),
        (b"", "no line that can be used"),
    ],
)
def test_a_user_file_that_cannot_be_used_is_named(
    content: bytes | None, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As unusable, not as missing; its text is not repeated."""
    users = tmp_path / "users"
    if content is not None:
        users.write_bytes(content)
    monkeypatch.setenv("NTLM_USER_FILE", str(users))
    with pytest.raises(AuthenticationError, match=said) as caught:
        mechanism(None, None)
    assert str(users) in str(caught.value)
    assert "pass:word" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "account", "password"),
    [
        ("# DOMAIN:user:password\n\nCORP:etl:correct horse\n", r"CORP\etl", "correct horse"),
        ("\ufeffCORP:etl:correct horse\r\n", r"CORP\etl", "correct horse"),
        ("CORP : etl : correct horse \n", r"CORP\etl", " correct horse "),
        (":etl@corp.example:correct horse", "etl@corp.example", "correct horse"),
        ("CORP:etl:\nCORP:etl2:correct horse", r"CORP\etl2", "correct horse"),
    ],
)
def test_a_line_of_the_user_file_is_an_identity(
    content: str, account: str, password: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A misread one would count as a failed sign-in. Blanks are kept in the password only."""
    users = tmp_path / "users"
    users.write_text(content, encoding="utf-8", newline="")
    monkeypatch.setenv("NTLM_USER_FILE", str(users))
    identity = find_ntlm_identity(SmtpConnectionManager(host="mail.corp.example", auth_mode=AuthMode.WINDOWS))
    assert (identity.account, identity.password) == (account, password)


def test_a_line_of_smbpasswd_is_an_identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a hash instead of a password."""
    users = tmp_path / "users"
    users.write_text("CORP\\etl:1000:XXXXXXXX:A4F49C406510BDCAB6824EE7C30FD852:[U]:LCT-0\n", encoding="utf-8")
    monkeypatch.setenv("NTLM_USER_FILE", str(users))
    steps = mechanism(None, None)
    next(steps)
    assert "etl".encode("utf-16-le") in steps.send(CHALLENGE)


@pytest.mark.parametrize("account", [r"CORP\alice", "alice@corp.example", "alice", "CORP\\jürgen", "CORP\\𝒿ürgen"])
def test_three_messages_and_it_is_done(account: str) -> None:
    """Negotiate, challenge, authenticate; then the server's success."""
    steps = mechanism(account, "pässwörd-𝓍")
    assert next(steps).startswith(b"NTLMSSP\x00\x01\x00\x00\x00")
    assert steps.send(CHALLENGE).startswith(b"NTLMSSP\x00\x03\x00\x00\x00")
    with pytest.raises(StopIteration):
        steps.send(None)


@pytest.mark.parametrize("account", [r".\alice", "alice"])
def test_a_local_account_of_the_server_is_sent_without_a_domain(account: str) -> None:
    """Windows looks in the server's own accounts first, if there is none; it has no domain of the name `.`."""
    steps = mechanism(account)
    next(steps)
    message = steps.send(CHALLENGE)
    domain, user = (message[start : start + size] for size, _, start in struct.iter_unpack("<HHI", message[28:44]))
    assert (domain, user.decode("utf-16-le")) == (b"", "alice")  # MS-NLMP 2.2.1.3


def test_integrity_is_requested() -> None:
    """Samba and gss-ntlmssp refuse the session key that comes without it (NEGOTIATE_SIGN, MS-NLMP 2.2.2.5)."""
    flags = int.from_bytes(next(mechanism())[12:16], "little")
    assert flags & 0x00000010


def test_the_identity_may_come_from_the_workers_user_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In SSIS, Windows Authentication means the account of the process."""
    users = tmp_path / "users"
    users.write_text("CORP:etl:correct horse\n", encoding="utf-8")
    monkeypatch.setenv("NTLM_USER_FILE", str(users))
    steps = mechanism(None, None)
    next(steps)
    assert "etl".encode("utf-16-le") in steps.send(CHALLENGE)
    assert os.environ["NTLM_USER_FILE"] == str(users)


# --- GSSAPI and GSS-SPNEGO, with NTLM inside; the server is pyspnego's acceptor.


class Acceptor:
    """The server's side of a context, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, protocol: str) -> None:
        users = folder / "users"
        users.write_text("CORP:alice:correct horse\n", encoding="utf-8")
        monkeypatch.setenv("NTLM_USER_FILE", str(users))
        self._context = spnego.server(protocol=protocol)

    def step(self, token: bytes) -> bytes | None:
        """Return the server's response to a token."""
        return self._context.step(token)

    def wrap(self, data: bytes) -> bytes:
        """Return an offer of security layers, wrapped by the server."""
        return self._context.wrap(data, encrypt=False).data

    def unwrap(self, data: bytes) -> bytes:
        """Return the layer that the client chose."""
        return self._context.unwrap(data).data


def wrapped(name: str) -> Mechanism:
    """Return a mechanism with NTLM inside."""
    manager = SmtpConnectionManager(
        host="mail.corp.example", auth_mode=AuthMode.WINDOWS, login=r"CORP\alice", password="correct horse"
    )
    return {"GSSAPI": gssapi_mechanism, "GSS-SPNEGO": gss_spnego_mechanism}[name](
        *create_ntlm_context(manager, find_ntlm_identity(manager), None, mechanism=name)
    )


@pytest.fixture
def established(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Mechanism, Acceptor]:
    """AUTH GSSAPI with a complete context, before the security layer."""
    server, steps = Acceptor(monkeypatch, tmp_path, "ntlm"), wrapped("GSSAPI")
    authenticate = steps.send(server.step(next(steps)))
    assert server.step(authenticate) is None
    return steps, server


@pytest.mark.parametrize(
    "offer", [b"\x06\xff\xff\xff", b"\x02\x00\x10\x00", b"\x01\x00\x00", b"\x01\x00\x00\x00\x00", b""]
)
def test_a_required_security_layer_is_an_error(offer: bytes, established: tuple[Mechanism, Acceptor]) -> None:
    """Bit 1 of four octets says that none is acceptable (RFC 4752 3.3)."""
    steps, server = established
    with pytest.raises(AuthenticationError, match="insists on a security layer"):
        steps.send(server.wrap(offer))


def test_an_offer_that_the_server_has_not_wrapped_is_an_error(established: tuple[Mechanism, Acceptor]) -> None:
    """It comes from someone without the key."""
    steps, _ = established
    with pytest.raises(AuthenticationError, match="cannot be unwrapped"):
        steps.send(b"\x01\x00\x00\x00" * 8)


def test_a_success_before_the_security_layer_is_an_error(established: tuple[Mechanism, Acceptor]) -> None:
    """Without it the server has not proved that it knows the key."""
    steps, _ = established
    with pytest.raises(AuthenticationError, match="before the exchange was complete"):
        steps.send(None)


def test_a_challenge_after_the_security_layer_is_an_error(established: tuple[Mechanism, Acceptor]) -> None:
    """The exchange is complete."""
    steps, server = established
    steps.send(server.wrap(b"\x01\x00\x00\x00"))
    with pytest.raises(AuthenticationError, match="asked for more"):
        steps.send(b"")


@pytest.mark.parametrize("empty_first", [False, True])
def test_the_client_chooses_no_layer_and_no_authorization_identity(
    empty_first: bool, established: tuple[Mechanism, Acceptor]
) -> None:
    """Exactly 01 00 00 00; an empty 334 before the offer is answered by an empty line."""
    steps, server = established
    if empty_first:
        assert steps.send(b"") == b""
    choice = steps.send(server.wrap(b"\x07\x00\xff\xff"))
    assert server.unwrap(choice) == b"\x01\x00\x00\x00"
    with pytest.raises(StopIteration):
        steps.send(None)


def test_spnego_ends_with_the_servers_last_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As Cyrus does: no layer, and 235 after an empty line of the client."""
    server, steps = Acceptor(monkeypatch, tmp_path, "negotiate"), wrapped("GSS-SPNEGO")
    token = next(steps)
    while (challenge := server.step(token)) is not None:
        token = steps.send(challenge)
    assert token == b""
    with pytest.raises(StopIteration):
        steps.send(None)


@pytest.mark.parametrize("legs", [0, 1])
@pytest.mark.parametrize("name", ["GSSAPI", "GSS-SPNEGO"])
def test_spnego_that_succeeds_too_early_is_an_error(
    name: str, legs: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """At any point of the exchange."""
    server = Acceptor(monkeypatch, tmp_path, "negotiate" if name == "GSS-SPNEGO" else "ntlm")
    steps = wrapped(name)
    token = next(steps)
    for _ in range(legs):
        token = steps.send(server.step(token))
    with pytest.raises(AuthenticationError, match="before the exchange was complete"):
        steps.send(None)


def test_spnego_that_completes_with_the_challenge_is_an_error() -> None:
    """The client would never have sent its AUTHENTICATE message."""
    steps = wrapped("GSS-SPNEGO")
    next(steps)
    complete = NegTokenResp(
        neg_state=NegState.accept_complete, supported_mech=GSSMech.ntlm.value, response_token=CHALLENGE
    ).pack()
    with pytest.raises(AuthenticationError, match="before the exchange was complete"):
        _send_then_succeed(steps, complete)


def _send_then_succeed(steps: Mechanism, token: bytes) -> None:
    assert steps.send(token) == b""
    steps.send(None)


@given(
    replies=st.lists(st.binary(max_size=200), min_size=1, max_size=4), name=st.sampled_from(["GSSAPI", "GSS-SPNEGO"])
)
@settings(max_examples=300, deadline=None)
def test_no_reply_causes_an_untyped_error_in_gssapi_or_spnego(replies: list[bytes], name: str) -> None:
    """A response or a typed error, but never a success."""
    steps = wrapped(name)
    next(steps)
    with contextlib.suppress(AuthenticationError):
        for reply in replies:
            assert isinstance(steps.send(reply), bytes)
        with pytest.raises(AuthenticationError):
            steps.send(None)


SPNEGO_CHALLENGE = bytes.fromhex("a18181307fa0030a0101a10c060a2b06010401823702020aa26a0468") + CHALLENGE


@given(cut=st.integers(0, len(SPNEGO_CHALLENGE)), noise=st.binary(max_size=20))
@settings(max_examples=200, deadline=None)
def test_a_garbled_spnego_token_is_a_typed_error(cut: int, noise: bytes) -> None:
    """Cut anywhere, and followed by noise."""
    steps = wrapped("GSS-SPNEGO")
    next(steps)
    with contextlib.suppress(AuthenticationError):
        steps.send(SPNEGO_CHALLENGE[:cut] + noise + SPNEGO_CHALLENGE[cut + len(noise) :])
        with pytest.raises(AuthenticationError):
            steps.send(None)


class SwitchingContext:
    """A context in which the server switches the protocol inside SPNEGO."""

    complete = False
    negotiated_protocol = "kerberos"

    def step(self, _token: bytes) -> bytes:
        """Switch to NTLM."""
        self.negotiated_protocol = "ntlm"
        return b"NTLMSSP"


def test_a_server_that_switches_the_protocol_inside_spnego_gets_no_ntlm_token() -> None:
    """If the exchange began with Kerberos."""
    steps = gss_spnego_mechanism(SwitchingContext(), b"first")  # type: ignore[arg-type]
    next(steps)
    with pytest.raises(AuthenticationError, match="switched to ntlm after kerberos had begun"):
        steps.send(b"rather NTLM")
