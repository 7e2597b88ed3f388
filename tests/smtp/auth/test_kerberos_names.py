"""The server's SPNs, for which a KDC is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import AuthenticationError
from airflow_provider_smtpcm.smtp.auth.kerberos import find_host_realm, list_service_names


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


@pytest.mark.parametrize(
    ("host", "realm"),
    [
        ("mail.corp.example", "CORP.EXAMPLE"),
        ("MAIL.corp.example.", "CORP.EXAMPLE"),
        ("odd.corp.example", "ODD.EXAMPLE"),
        ("a.b.brand.example", "BRAND.EXAMPLE"),
        ("brand.example", "BRAND.EXAMPLE"),
        ("localhost", ""),
        ("mail.other.example", ""),
    ],
)
def test_a_servers_realm_is_that_of_krb5_conf(
    host: str, realm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If it has none, the KDC finds the server's realm."""
    (tmp_path / "krb5.conf").write_text(
        "[realms]\n CORP.EXAMPLE = {\n kdc = localhost\n }\n[domain_realm]\n"
        "# localhost = NO.EXAMPLE\n .corp.example = CORP.EXAMPLE\n odd.corp.example = ODD.EXAMPLE\n"
        "[libdefaults]\n localhost = NO.EXAMPLE\n[domain_realm]\n brand.example = BRAND.EXAMPLE\n"
    )
    monkeypatch.setenv("KRB5_CONFIG", str(tmp_path / "krb5.conf"))
    assert find_host_realm(host) == realm
