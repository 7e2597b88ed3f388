"""The NTLM mechanism, without a socket: tokens in, tokens out, and never an untyped error."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager
from airflow_provider_smtpcm.errors import AuthenticationError, Phase
from airflow_provider_smtpcm.smtp.ntlm import ntlm_context
from airflow_provider_smtpcm.smtp.sasl import Mechanism, ntlm

# MS-NLMP 4.2.4.3: the CHALLENGE_MESSAGE of the published NTLMv2 example.
CHALLENGE = bytes.fromhex(
    "4e544c4d53535000020000000c000c003800000033828ae20123456789abcdef"
    "00000000000000002400240044000000060070170000000f53006500720076006500720002000c0044006f006d00610069006e00"
    "01000c0053006500720076006500720000000000"
)


def mechanism(account: str | None = r"CORP\alice", password: str | None = "correct horse") -> Mechanism:
    """A sign-in that is ready to begin."""
    manager = SmtpConnectionManager(
        host="mail.corp.example", auth_mode=AuthMode.WINDOWS, login=account, password=password
    )
    return ntlm(*ntlm_context(manager, None, mechanism="NTLM"))


def test_a_success_before_anything_was_proved_is_not_believed() -> None:
    """The server said 235 after our first message."""
    steps = mechanism()
    next(steps)
    with pytest.raises(AuthenticationError, match="before anything was proved"):
        steps.send(None)


def test_a_challenge_after_the_last_message_is_an_error() -> None:
    """NTLM has three messages."""
    steps = mechanism()
    next(steps)
    steps.send(CHALLENGE)
    with pytest.raises(AuthenticationError, match="asked for more"):
        steps.send(b"more")


def test_a_worker_without_identity_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is said to the server."""
    monkeypatch.delenv("NTLM_USER_FILE", raising=False)
    with pytest.raises(AuthenticationError, match="Enter 'User name' and 'Password'") as caught:
        mechanism(None, None)
    assert caught.value.phase is Phase.AUTH
    assert not caught.value.retryable


@given(challenge=st.binary(max_size=300) | st.binary(max_size=120).map(lambda tail: CHALLENGE[:48] + tail))
@settings(max_examples=300, deadline=None)
def test_no_challenge_whatever_breaks_out_of_the_mechanism(challenge: bytes) -> None:
    """A typed error, or an answer."""
    steps = mechanism()
    next(steps)
    with contextlib.suppress(AuthenticationError):
        assert steps.send(challenge)


@pytest.mark.parametrize("account", [r"CORP\alice", "alice@corp.example", "alice", "CORP\\jürgen", "CORP\\𝒿ürgen"])
def test_three_messages_and_it_is_done(account: str) -> None:
    """Negotiate, challenge, authenticate; then the server's success ends it."""
    steps = mechanism(account, "pässwörd-𝓍")
    assert next(steps).startswith(b"NTLMSSP\x00\x01\x00\x00\x00")
    assert steps.send(CHALLENGE).startswith(b"NTLMSSP\x00\x03\x00\x00\x00")
    with pytest.raises(StopIteration):
        steps.send(None)


def test_a_password_that_looks_like_hashes_is_a_password() -> None:
    """Pyspnego would take it for hashes if it came as bare text."""
    hashes = "0" * 32 + ":" + "0" * 32
    steps = mechanism(password=hashes)
    next(steps)
    assert b"NTLMSSP" in steps.send(CHALLENGE)


def test_integrity_is_asked_for() -> None:
    """Samba and gss-ntlmssp refuse the session key that comes without it (NEGOTIATE_SIGN, MS-NLMP 2.2.2.5)."""
    flags = int.from_bytes(next(mechanism())[12:16], "little")
    assert flags & 0x00000010


def test_the_identity_may_come_from_the_workers_user_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SSIS means that by Windows Authentication: whoever the process is."""
    users = tmp_path / "users"
    users.write_text("CORP:etl:correct horse\n", encoding="utf-8")
    monkeypatch.setenv("NTLM_USER_FILE", str(users))
    steps = mechanism(None, None)
    next(steps)
    assert "etl".encode("utf-16-le") in steps.send(CHALLENGE)
    assert os.environ["NTLM_USER_FILE"] == str(users)
