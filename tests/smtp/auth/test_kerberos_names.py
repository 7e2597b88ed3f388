"""The server's SPNs and the account's principals, for which a KDC is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import AuthenticationError
from airflow_provider_smtpcm.smtp.auth.kerberos_names import find_host_realm, list_client_names, list_service_names
from tests.integration.programs import KERBEROS_COMMAND


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


# --- The account's names, by what krb5.conf knows. No KDC is asked.

KRB5_CONF = """\
[libdefaults]
  default_realm = CORP.EXAMPLE
[realms]
  CORP.EXAMPLE = {
    kdc = 127.0.0.1
  }
  EU.CORP.EXAMPLE = {
    kdc = 127.0.0.1
  }
  LAB.ONE = {
    kdc = 127.0.0.1
  }
  LAB.TWO = {
    kdc = 127.0.0.1
  }
[capaths]
  ELSE.EXAMPLE = {
    CORP.EXAMPLE = .
  }
"""


@pytest.fixture
def krb5_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The krb5.conf of this process."""
    pytest.importorskip("krb5", reason=KERBEROS_COMMAND)
    path = tmp_path / "krb5.conf"
    path.write_text(KRB5_CONF, encoding="utf-8")
    monkeypatch.setenv("KRB5_CONFIG", str(path))
    return path


def names_of(login: str, domain: str = "") -> list[str]:
    """Return the principals as MIT's library reads them."""
    import krb5

    manager = SmtpConnectionManager(host="h", auth_mode="windows", login=login, domain=domain, password="x")  # type: ignore[arg-type]
    context = krb5.init_context()
    return [krb5.unparse_name_flags(context, name.parse(context)).decode() for name in list_client_names(manager)]


@pytest.mark.parametrize(
    ("login", "names"),
    [
        ("zoe", ["zoe@CORP.EXAMPLE"]),
        (r"CORP\zoe", ["zoe@CORP.EXAMPLE"]),
        (r"eu\zoe", ["zoe@EU.CORP.EXAMPLE"]),
        (r"Lab.One\zoe", ["zoe@LAB.ONE", r"zoe\@Lab.One@LAB.ONE", r"zoe\@Lab.One@CORP.EXAMPLE"]),
        ("zoe@corp.example", ["zoe@CORP.EXAMPLE", r"zoe\@corp.example@CORP.EXAMPLE"]),
        (
            "zoe@eu.corp.example",
            [
                "zoe@EU.CORP.EXAMPLE",
                r"zoe\@eu.corp.example@EU.CORP.EXAMPLE",
                r"zoe\@eu.corp.example@CORP.EXAMPLE",
            ],
        ),
        ("zoe@brand.example", ["zoe@BRAND.EXAMPLE", r"zoe\@brand.example@CORP.EXAMPLE"]),
        ("zoe@else.example", ["zoe@ELSE.EXAMPLE", r"zoe\@else.example@CORP.EXAMPLE"]),
        ("zoe@CORP", ["zoe@CORP.EXAMPLE", r"zoe\@CORP@CORP.EXAMPLE"]),
        ("zoe@brand", [r"zoe\@brand@CORP.EXAMPLE"]),
    ],
)
def test_a_login_has_the_names_by_which_a_kdc_may_know_it(login: str, names: list[str], krb5_conf: Path) -> None:
    """As an account of the realm, and as a UPN: in the realm of its suffix, then in the default realm."""
    assert names_of(login) == names


def test_the_domain_beside_the_login_is_that_of_the_name(krb5_conf: Path) -> None:
    """NetBIOS name, realm or UPN suffix."""
    assert names_of("zoe", "EU") == ["zoe@EU.CORP.EXAMPLE"]
    assert names_of("zoe", "brand.example") == names_of("zoe@brand.example")


@pytest.mark.parametrize("login", [r"OTHER\zoe", r"LAB\zoe", r"ELSE\zoe"])
def test_a_netbios_domain_that_is_no_realm_or_several_is_an_error(login: str, krb5_conf: Path) -> None:
    """A guess could be another account's name."""
    with pytest.raises(AuthenticationError, match="not a realm that this worker knows"):
        names_of(login)


@pytest.mark.parametrize(("login", "domain"), [(r".\zoe", ""), ("zoe", "."), (r".\zoe", ".")])
def test_a_local_account_of_the_server_has_no_name_at_a_kdc(login: str, domain: str) -> None:
    """Whatever krb5.conf knows."""
    manager = SmtpConnectionManager(host="h", auth_mode="windows", login=login, domain=domain, password="x")  # type: ignore[arg-type]
    with pytest.raises(AuthenticationError, match="local account of the mail server, which no KDC knows") as caught:
        list_client_names(manager)
    assert "'negotiate' or 'ntlm'" in caught.value.remedy


def test_without_a_default_realm_a_upn_has_nobody_to_ask(krb5_conf: Path) -> None:
    """Only the realm that its suffix may be."""
    krb5_conf.write_text(KRB5_CONF.replace("default_realm = CORP.EXAMPLE", ""), encoding="utf-8")
    assert names_of("zoe@brand.example") == ["zoe@BRAND.EXAMPLE"]
    assert names_of(r"EU\zoe") == ["zoe@EU.CORP.EXAMPLE"]


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
