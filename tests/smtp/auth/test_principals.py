"""The names by which Kerberos knows the server; a KDC is asked for exactly these."""

from __future__ import annotations

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import AuthenticationError
from airflow_provider_smtpcm.smtp.auth.principals import list_service_names


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "fe80::1%eth0"])
def test_an_address_is_nobodys_name(address: str) -> None:
    """A ticket is issued for a name."""
    with pytest.raises(AuthenticationError, match="needs the server's name") as caught:
        list_service_names(SmtpConnectionManager(host=address))
    assert "'SPN'" in caught.value.remedy


@pytest.mark.parametrize("host", ["mail.corp.example", "mail.corp.example."])
def test_the_dot_of_the_root_is_no_part_of_a_name(host: str) -> None:
    """No directory has a name with it."""
    names = list_service_names(SmtpConnectionManager(host=host))
    assert names == ["smtp/mail.corp.example", "SMTPSVC/mail.corp.example"]


def test_a_name_that_is_spelled_out_is_the_only_one() -> None:
    """As it stands, and for an address too."""
    manager = SmtpConnectionManager(host="192.0.2.1", auth_mode="windows", spn="SMTPSVC/mail.corp.example")  # type: ignore[arg-type]
    assert list_service_names(manager) == ["SMTPSVC/mail.corp.example"]
