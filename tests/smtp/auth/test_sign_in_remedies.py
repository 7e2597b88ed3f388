"""What to do about a refused sign-in."""

from __future__ import annotations

import base64
import struct
import time
from dataclasses import replace
from email.utils import formatdate

import pytest

from airflow_provider_smtpcm.errors import Reply
from airflow_provider_smtpcm.smtp.auth.remedies import get_authentication_remedy
from airflow_provider_smtpcm.smtp.auth.sasl import Authentication

REFUSED = Reply(code=535, enhanced="5.7.3", text="Authentication unsuccessful")
NTLM = Authentication(mechanism="NTLM", protocol="NTLM", identity="")
BOUND_NTLM = Authentication(mechanism="NTLM", protocol="NTLM", identity="", has_channel_binding=True)
BOUND_KERBEROS = Authentication(mechanism="NTLM", protocol="Kerberos", identity="svc", has_channel_binding=True)
NTLM_BESIDE_KERBEROS = replace(BOUND_NTLM, offers_kerberos=True)


@pytest.mark.parametrize("authentication", [NTLM, BOUND_NTLM, BOUND_KERBEROS, NTLM_BESIDE_KERBEROS])
def test_the_remedy_for_a_refused_sign_in_has_three_sentences_at_most(authentication: Authentication) -> None:
    """The documents list the other causes."""
    reply = Reply(code=535, enhanced="5.7.3", text="Authentication unsuccessful")
    remedy = get_authentication_remedy(reply, authentication, token_lines=["a" * 500])
    assert remedy.endswith(".")
    assert remedy.count(". ") <= 2
    assert ("'Channel binding'" in remedy) is authentication.has_channel_binding
    assert ("'User name'" in remedy) is (authentication.protocol == "NTLM")
    assert ("may take Kerberos only" in remedy) is authentication.offers_kerberos


def test_an_account_that_the_kdc_does_not_know_is_a_matter_of_its_name() -> None:
    """The server refuses it by NTLM afterward, which alone would say nothing about the name. Kerberos does not help."""
    reason = "Kerberos (password of x@corp.example): the KDC does not know the account."
    refused = replace(NTLM_BESIDE_KERBEROS, reason=reason)
    remedy = get_authentication_remedy(REFUSED, refused, token_lines=[])
    assert remedy.startswith("The KDC does not know this account, so 'User name' is probably wrong.")
    assert "may take Kerberos only" not in remedy
    assert remedy.count(". ") <= 2
    locked = Reply(code=535, text="The account is locked out")
    assert "KDC" not in get_authentication_remedy(locked, refused, token_lines=[])


@pytest.mark.parametrize("authentication", [NTLM, replace(NTLM, offers_kerberos=True), replace(BOUND_KERBEROS)])
def test_a_binding_that_is_turned_off_comes_first(authentication: Authentication) -> None:
    """What is right about the account, the server never gets to say."""
    unbound = replace(authentication, has_channel_binding=False, is_binding_off=True)
    remedy = get_authentication_remedy(REFUSED, unbound, token_lines=[])
    assert remedy.startswith("'Channel binding' is 'none', and a server whose Extended Protection requires one")
    assert "set it to 'tls-server-end-point'" in remedy.partition(":")[2].partition(".")[0]
    locked = get_authentication_remedy(Reply(code=535, text="Account is locked out"), unbound, token_lines=[])
    assert "'Channel binding'" not in locked


def test_a_refused_local_account_is_not_told_to_try_kerberos() -> None:
    """No KDC knows it."""
    local = replace(NTLM_BESIDE_KERBEROS, identity=r".\alice")
    remedy = get_authentication_remedy(REFUSED, local, token_lines=[])
    assert r".\user is a local account of the server itself" in remedy
    assert "Kerberos" not in remedy


def challenge(flags: int) -> list[str]:
    """The lines of an NTLM sign-in, with the server's CHALLENGE_MESSAGE."""
    message = b"NTLMSSP\0" + struct.pack("<IHHII", 2, 0, 0, 0, flags) + bytes(24)
    return ["TlRMTVNTUAAB", base64.b64encode(message).decode(), "TlRMTVNTUAAD"]


EXIM = challenge(0x00008201)
WITH_TARGET_INFO = challenge(0x00808201)


def test_an_exim_that_takes_ntlm_v1_only_is_not_about_the_password() -> None:
    """Its challenge lacks what NTLMv2 needs."""
    greeting = "mail.corp.example ESMTP Exim 4.96 Mon, 30 Nov 2026 09:00:00 +0000"
    remedy = get_authentication_remedy(REFUSED, NTLM, token_lines=EXIM, greeting=greeting)
    assert "This server takes NTLMv1 only" in remedy
    assert "'Password'" not in remedy


@pytest.mark.parametrize(
    ("lines", "greeting", "mentions_v1"),
    [
        (WITH_TARGET_INFO, "mail.corp.example ESMTP Exim 4.96", False),  # Dovecot's NTLM behind Exim
        (WITH_TARGET_INFO, "mail.corp.example ESMTP Postfix", False),
        (EXIM, "mail.corp.example ESMTP Postfix", True),  # Cyrus SASL, which takes NTLMv2
        (["TlRMTVNTUAAB", "what?"], "mail.corp.example ESMTP Exim 4.96", False),
    ],
)
def test_the_password_comes_first_where_the_server_may_take_ntlm_v2(
    lines: list[str], greeting: str, mentions_v1: bool
) -> None:
    """A server without target information may be one that takes NTLMv1 only."""
    remedy = get_authentication_remedy(REFUSED, NTLM, token_lines=lines, greeting=greeting)
    assert "'Password'" in remedy
    assert ("NTLMv1" in remedy) is mentions_v1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Account is locked out", "unlocked"),
        ("The referenced account is currently disabled", "unlocked"),
        ("NT_STATUS_ACCOUNT_LOCKED_OUT", "unlocked"),
        ("NT_STATUS_PASSWORD_MUST_CHANGE", "Set a new password"),
        ("Your password has expired", "Set a new password"),
        ("NT_STATUS_INVALID_LOGON_HOURS", "logon hours"),
    ],
)
def test_a_server_that_says_what_is_wrong_with_the_account_is_believed(text: str, said: str) -> None:
    """No list of causes."""
    remedy = get_authentication_remedy(Reply(code=535, text=text), BOUND_NTLM, token_lines=[])
    assert said in remedy
    assert "'User name'" not in remedy
    assert "'Channel binding'" not in remedy


@pytest.mark.parametrize(
    ("offset", "said"),
    [
        (None, "its clock may differ"),
        (3600, "its clock is 60 minutes ahead of this worker's"),
        (-900, "its clock is 15 minutes behind this worker's"),
        (20, ""),
    ],
)
def test_the_servers_clock_is_told_by_its_greeting(offset: float | None, said: str) -> None:
    """The KDC has accepted this worker's clock before."""
    greeting = "exchange.corp.example Microsoft ESMTP MAIL Service ready"
    if offset is not None:
        greeting += f" at {formatdate(time.time() + offset, localtime=True)}"
    remedy = get_authentication_remedy(REFUSED, BOUND_KERBEROS, token_lines=[], greeting=greeting)
    assert said in remedy
    assert ("clock" in remedy) is bool(said)
