"""What to do about a refused sign-in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_smtpcm.errors import Reply
from airflow_provider_smtpcm.smtp.auth.sasl import Authentication, get_authentication_remedy

NTLM = Authentication(mechanism="NTLM", protocol="NTLM", identity="")
BOUND_NTLM = Authentication(mechanism="NTLM", protocol="NTLM", identity="", has_channel_binding=True)
BOUND_KERBEROS = Authentication(mechanism="NTLM", protocol="Kerberos", identity="svc", has_channel_binding=True)
NTLM_BESIDE_KERBEROS = replace(BOUND_NTLM, offers_kerberos=True)


@pytest.mark.parametrize("authentication", [NTLM, BOUND_NTLM, BOUND_KERBEROS, NTLM_BESIDE_KERBEROS])
def test_the_remedy_for_a_refused_sign_in_has_three_sentences_at_most(authentication: Authentication) -> None:
    """The documents list the other causes."""
    reply = Reply(code=535, enhanced="5.7.3", text="Authentication unsuccessful")
    remedy = get_authentication_remedy(reply, authentication, longest_line=500)
    assert remedy.endswith(".")
    assert remedy.count(". ") <= 2
    assert ("'Channel binding'" in remedy) is authentication.has_channel_binding
    assert ("'User name'" in remedy) is (authentication.protocol == "NTLM")
    assert ("may take Kerberos only" in remedy) is authentication.offers_kerberos
