"""Extended Protection of a relay with the personality of an Exchange, for NTLM; for Kerberos: tests/integration."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, Any

import pytest
import spnego

from airflow_provider_smtpcm.testing import Exchange, Relay
from airflow_provider_smtpcm.testing.authentication import find_channel_bindings, hash_channel_bindings
from tests.integration.spnego_client import Client
from tests.testing.clients import PASSWORD, USER, USERS

if TYPE_CHECKING:
    from pathlib import Path

ACCEPTED = "235 2.7.0 Authentication successful"
REFUSED = "535 5.7.3 Authentication unsuccessful"
WRONG = b"tls-server-end-point:" + b"\1" * 32


def log_in(relay: Relay, bindings: bytes | str | None, ssl_mode: str = "starttls", **credential: Any) -> str:
    """Log in by NTLM, and return the last reply. Text means the right bindings of that type."""
    account = spnego.Password(**({"username": USER, "password": PASSWORD} | credential))
    with Client(relay.port, relay.ca_certificate, ssl_mode=ssl_mode) as client:
        data = client.bindings(bindings) if isinstance(bindings, str) else bindings
        return client.login("NTLM", account, "ntlm", bindings=data)


@pytest.mark.parametrize(
    ("policy", "right", "absent", "wrong"),
    [
        ("none", ACCEPTED, ACCEPTED, ACCEPTED),
        ("allow", ACCEPTED, ACCEPTED, REFUSED),
        ("require", ACCEPTED, REFUSED, REFUSED),
    ],
)
@pytest.mark.parametrize("ssl_mode", ["starttls", "implicit"])
def test_bindings_are_checked_as_the_policy_says(
    policy: Any, right: str, absent: str, wrong: str, ssl_mode: Any
) -> None:
    """Right, absent and wrong ones; bindings of another type are wrong; the right password alone does not help."""
    settings = Exchange(tarpit=0, extended_protection=policy)
    with Relay(users=USERS, ssl_mode=ssl_mode, personality=settings) as relay:
        assert log_in(relay, "tls-server-end-point", ssl_mode) == right
        assert log_in(relay, None, ssl_mode) == absent
        assert log_in(relay, WRONG, ssl_mode) == wrong
        assert log_in(relay, "tls-unique", ssl_mode) == wrong
        assert log_in(relay, "tls-server-end-point", ssl_mode, password="wrong") == REFUSED


def test_without_tls_no_bindings_are_right() -> None:
    """Neither those of the certificate, which nobody has seen, nor none where they are required."""
    with Relay(users=USERS, personality=Exchange(tarpit=0, extended_protection="require")) as relay:
        assert log_in(relay, None, "none") == REFUSED
        with Client(relay.port, relay.ca_certificate) as client:
            bindings = client.bindings()
        assert log_in(relay, bindings, "none") == REFUSED
    with Relay(users=USERS, personality=Exchange(tarpit=0, extended_protection="allow")) as relay:
        assert log_in(relay, None, "none") == ACCEPTED


def test_bindings_are_found_in_what_a_client_sends() -> None:
    """All zeros, and a message that ends within a field, are no bindings."""
    # From MS-NLMP 2.2.2.1: an AV pair is an id, a length and a value.
    pairs = (b"\x01\x00\x02\x00xy", b"\x0a\x00\x10\x00" + hash_channel_bindings(WRONG), b"\0\0\0\0")

    def authenticate(*pairs: bytes) -> bytes:
        response = b"p" * 16 + b"f" * 28 + b"".join(pairs)
        return (
            b"NTLMSSP\0\3\0\0\0"
            + b"\0" * 8
            + len(response).to_bytes(2, "little") * 2
            + b"\x40\0\0\0"
            + bytes(0x40 - 28)
            + response
        )

    assert find_channel_bindings(authenticate(*pairs)) == hash_channel_bindings(WRONG)
    assert find_channel_bindings(authenticate(pairs[0], pairs[2], pairs[1])) is None
    assert find_channel_bindings(authenticate(b"\x0a\x00\x10\x00" + bytes(16), pairs[2])) is None
    assert find_channel_bindings(authenticate(pairs[0])) is None
    assert find_channel_bindings(authenticate(b"\x0a\x00")) is None


def test_a_relay_without_users_accepts_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It offers NTLM as Exchange does, and knows no account: not that of the process which started it either."""
    own = tmp_path / "ntlm-user"
    domain, _, name = USER.partition("\\")
    own.write_text(f"{domain}:{name}:{PASSWORD}\n", encoding="utf-8")
    monkeypatch.setitem(os.environ, "NTLM_USER_FILE", str(own))
    with Relay(personality=Exchange(tarpit=0)) as relay:
        assert log_in(relay, None) == REFUSED
        with Client(relay.port, relay.ca_certificate) as client:
            client.send("Anonymous")
        assert [mail.authenticated_as for mail in relay.messages] == [None]


def test_whatever_a_client_sends_is_refused_and_the_session_goes_on() -> None:
    """Not NTLM, and not base64."""
    with (
        Relay(users=USERS, personality=Exchange(tarpit=0)) as relay,
        Client(relay.port, relay.ca_certificate) as client,
    ):
        for token in (b"", b"NTLMSSP\0", os.urandom(100)):
            assert client.smtp.docmd("AUTH", "NTLM")[0] == 334
            assert client.smtp.docmd(base64.b64encode(token).decode()) == (535, REFUSED[4:].encode())
        assert client.login("NTLM", spnego.Password(USER, PASSWORD), "ntlm") == ACCEPTED
