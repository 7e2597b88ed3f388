"""The server's SPNs, for which a KDC is asked."""

from __future__ import annotations

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import AuthenticationError
from airflow_provider_smtpcm.smtp.auth.kerberos_names import list_service_names


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "fe80::1%eth0"])
def test_an_ip_address_has_no_spn(address: str) -> None:
    """A ticket is issued for a name."""
    with pytest.raises(AuthenticationError, match="needs the server's name") as caught:
        list_service_names(SmtpConnectionManager(host=address))
    assert "'SPN'" in caught.value.remedy


@pytest.mark.parametrize("host", ["mail.corp.example", "mail.corp.example."])
def test_a_trailing_dot_is_not_part_of_the_name(host: str) -> None:
    """Directories register names without it."""
    names = list_service_names(SmtpConnectionManager(host=host))
    assert names == ["smtp/mail.corp.example", "SMTPSVC/mail.corp.example"]


def test_an_spn_in_the_connection_is_the_only_one() -> None:
    """Unchanged, and for an IP address too."""
    manager = SmtpConnectionManager(host="192.0.2.1", auth_mode="windows", spn="SMTPSVC/mail.corp.example")  # type: ignore[arg-type]
    assert list_service_names(manager) == ["SMTPSVC/mail.corp.example"]
