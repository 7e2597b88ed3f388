"""Accounts of an Active Directory: whatever Windows accepts signs in. The directory is Samba's, with its checks."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import AuthenticationError
from airflow_provider_smtpcm.smtp.auth.sasl import Authentication
from airflow_provider_smtpcm.smtp.session import Session
from tests.integration.binding_server import BindingServer
from tests.integration.samba_domain import SambaDomain

pytestmark = pytest.mark.slow


def sign_in(server: BindingServer, **settings: Any) -> Authentication:
    """Sign in, and return how."""
    manager = SmtpConnectionManager(
        host="localhost", port=server.port, auth_mode="windows", ca_certificate=server.ca_certificate, **settings
    )
    with Session(manager) as session:
        assert session.authentication is not None
        return session.authentication


def refusal(server: BindingServer, **settings: Any) -> AuthenticationError:
    """Return the error with which signing in fails."""
    with pytest.raises(AuthenticationError) as caught:
        sign_in(server, **settings)
    return caught.value


# --- NTLM: names and passwords.


@pytest.mark.parametrize("form", ["CORP\\{}", "{}@corp.example", "{}"])
@pytest.mark.parametrize("user", ["alice", "ALICE", "jürgen", "JÜRGEN", *SambaDomain.odd_names])
def test_ntlm_signs_in_an_account_whatever_the_letters_of_its_name(
    user: str, form: str, samba_server: BindingServer, samba: SambaDomain
) -> None:
    """The domain controller computes the response with Windows' capitals."""
    sign_in(samba_server, login=form.format(user), password=samba.password_of(user), windows_protocol="ntlm")
    (attempt,) = samba_server.attempts()
    assert attempt.mechanism == "NTLM"


@pytest.mark.parametrize("protocol", ["ntlm", "kerberos", "negotiate"])
def test_a_password_that_looks_like_hashes_is_a_password(
    protocol: str, samba_server: BindingServer, samba: SambaDomain
) -> None:
    """In each protocol."""
    sign_in(
        samba_server, login="hash@corp.example", password=samba.password_of("hash"), windows_protocol=protocol
    )
