"""Accounts of an Active Directory: whatever Windows accepts signs in. The directory is Samba's, with its checks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import AuthenticationError, ConnectionSettingsError
from airflow_provider_smtpcm.smtp.auth import negotiation
from airflow_provider_smtpcm.smtp.auth.sasl import Authentication
from airflow_provider_smtpcm.smtp.session import Session
from tests.integration.binding_server import BindingServer
from tests.integration.kdc_proxy import KdcProxy
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
@pytest.mark.parametrize("user", ["hash", "half"])
def test_a_password_that_looks_like_hashes_or_is_no_text_is_a_password(
    user: str, protocol: str, samba_server: BindingServer, samba: SambaDomain
) -> None:
    """In each protocol. Managed service accounts have passwords of any UTF-16 code units."""
    sign_in(samba_server, login=f"{user}@corp.example", password=samba.password_of(user), windows_protocol=protocol)


def test_a_password_that_kerberos_would_cut_off_is_not_sent(samba_server: BindingServer, samba: SambaDomain) -> None:
    """What is before the NUL character would count as wrong, or be somebody's password."""
    before = samba.bad_password_count("alice")
    error = refusal(samba_server, login="alice", password="wrong\0horse", windows_protocol="kerberos")
    assert "contains a NUL character" in str(error)
    assert samba.bad_password_count("alice") == before


# --- UPNs: their suffix need not be a realm, and their name need not be that of the account.

UPNS = list(SambaDomain.upns.items())


@pytest.mark.parametrize("protocol", ["kerberos", "negotiate"])
@pytest.mark.parametrize(("user", "upn"), UPNS)
def test_a_upn_gets_a_ticket_as_an_enterprise_name(
    user: str, upn: str, protocol: str, samba_server: BindingServer, samba: SambaDomain
) -> None:
    """The KDC returns the account's own principal."""
    authentication = sign_in(samba_server, login=upn, password=samba.password_of(user), windows_protocol=protocol)
    assert str(authentication) == f"GSSAPI (Kerberos) as {user}@CORP.EXAMPLE"
    (attempt,) = samba_server.attempts()
    assert attempt.user == f"{user}@CORP.EXAMPLE"


@pytest.mark.parametrize(("user", "upn"), UPNS)
def test_a_upn_signs_in_by_ntlm(user: str, upn: str, samba_server: BindingServer, samba: SambaDomain) -> None:
    """As the domain controller takes it: the whole of it is the user name, without a domain."""
    sign_in(samba_server, login=upn, password=samba.password_of(user), windows_protocol="ntlm")
    (attempt,) = samba_server.attempts()
    assert attempt.protocol == "ntlm"


@pytest.mark.parametrize("domain", ["CORP", "corp", "corp.example"])
@pytest.mark.parametrize("protocol", ["kerberos", "negotiate", "ntlm"])
def test_a_upn_beside_its_domain_signs_in_as_the_upn_alone(
    protocol: str, domain: str, samba_server: BindingServer, samba: SambaDomain
) -> None:
    """A controller of the domain would not find the name of a UPN in its NetBIOS domain."""
    settings = {"login": samba.upns["erin"], "password": samba.password_of("erin"), "domain": domain}
    sign_in(samba_server, windows_protocol=protocol, **settings)
    (attempt,) = samba_server.attempts()
    # gss-ntlmssp writes the domain that was sent before a backslash: none.
    assert str(attempt.user) == (f"\\{samba.upns['erin']}" if protocol == "ntlm" else "erin@CORP.EXAMPLE")


def test_a_upn_beside_another_domain_is_not_tried(samba_server: BindingServer, samba: SambaDomain) -> None:
    """It may be the account of either."""
    with pytest.raises(ConnectionSettingsError, match=r"Windows domain .* differs from the domain in the user name"):
        sign_in(samba_server, login=samba.upns["erin"], password=samba.password_of("erin"), domain="OTHER")


# --- Local accounts of the server, which only it knows.


@pytest.mark.parametrize(
    "settings", [{"login": ".\\alice"}, {"login": "alice", "domain": "."}], ids=["login", "domain"]
)
def test_a_local_account_of_the_server_signs_in_by_ntlm_alone(
    settings: dict[str, str], samba_server: BindingServer, samba: SambaDomain
) -> None:
    """Also where Kerberos is possible. The accounts of a domain controller itself are those of the domain."""
    authentication = sign_in(samba_server, password=samba.password_of("alice"), **settings)
    assert str(authentication) == "NTLM as .\\alice"
    assert "local account of the mail server, which no KDC knows" in authentication.reason
    (attempt,) = samba_server.attempts()
    assert "alice" in str(attempt.user)


@pytest.mark.parametrize("protocol", ["negotiate", "ntlm"])
def test_a_wrong_password_of_a_local_account_counts_once(
    protocol: str, samba_server: BindingServer, samba: SambaDomain
) -> None:
    """The remedy says whose account it is, and not to try Kerberos."""
    before = samba.bad_password_count("alice")
    error = refusal(samba_server, login=".\\alice", password="wrong-horse", windows_protocol=protocol)
    assert samba.bad_password_count("alice") == before + 1
    assert "local account of the server itself" in error.remedy
    assert "'kerberos' as 'Windows protocol'" not in error.remedy


def test_a_local_account_has_no_ticket(samba_server: BindingServer, samba: SambaDomain) -> None:
    """No KDC is asked for it."""
    before = samba.bad_password_count("alice")
    error = refusal(samba_server, login=".\\alice", password="wrong-horse", windows_protocol="kerberos")
    assert "a local account of the mail server, which no KDC knows" in str(error)
    assert "'negotiate' or 'ntlm'" in error.remedy
    assert samba.bad_password_count("alice") == before
    assert samba_server.attempts() == []


# --- Credential caches.


@pytest.mark.parametrize("options", [("-E",), ("-E", "-C")], ids=" ".join)
def test_a_cache_that_kinit_made_for_a_upn_is_that_logins(
    options: tuple[str, ...], samba_server: BindingServer, samba: SambaDomain
) -> None:
    """With the enterprise name as its principal, or with the one that the KDC returned."""
    upn = samba.upns["carol"]
    ccache = samba.ccache(upn, *options)
    assert sign_in(samba_server, login=upn, ccache=ccache, windows_protocol="kerberos").protocol == "Kerberos"
    (attempt,) = samba_server.attempts()
    assert str(attempt.user).partition("@")[0].partition("\\")[0] in ("carol", "carol.brand")


@pytest.mark.parametrize("login", ["erin@corp.example", "CORP\\erin", "erin"])
def test_the_cache_of_another_account_is_not_that_logins(
    login: str, samba_server: BindingServer, samba: SambaDomain
) -> None:
    """Only the name of a UPN can differ from that in its ticket; both are named."""
    error = refusal(samba_server, login=login, ccache=samba.ccache("alice"), windows_protocol="kerberos")
    assert f"its tickets are those of alice@CORP.EXAMPLE, not of {login}." in str(error)
    assert samba_server.attempts() == []


def test_a_cache_of_one_upn_is_not_that_of_another(samba_server: BindingServer, samba: SambaDomain) -> None:
    """Where its principal is the UPN itself, as `kinit -E` makes it."""
    ccache = samba.ccache(samba.upns["carol"], "-E")
    error = refusal(samba_server, login="alice@brand.example", ccache=ccache, windows_protocol="kerberos")
    assert "carol.brand\\@brand.example@CORP.EXAMPLE, not of alice@brand.example" in str(error)
    assert samba_server.attempts() == []


@pytest.mark.parametrize("protocol", ["kerberos", "negotiate"])
def test_a_upn_whose_suffix_is_another_realm_gets_a_ticket(
    protocol: str, samba_server: BindingServer, samba: SambaDomain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a merger whose old domain is still in krb5.conf: its KDC does not know the account."""
    kdc = ":".join(map(str, samba.kdc_address))
    use_krb5_conf(
        samba, tmp_path, monkeypatch, "[domain_realm]", f"BRAND.EXAMPLE = {{\nkdc = {kdc}\n}}\n[domain_realm]"
    )
    upn = samba.upns["carol"]
    authentication = sign_in(samba_server, login=upn, password=samba.password_of("carol"), windows_protocol=protocol)
    assert str(authentication) == "GSSAPI (Kerberos) as carol@CORP.EXAMPLE"


def use_krb5_conf(samba: SambaDomain, folder: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """Use a changed krb5.conf."""
    conf = samba.krb5_conf.read_text(encoding="utf-8")
    assert old in conf
    (folder / "krb5.conf").write_text(conf.replace(old, new), encoding="utf-8")
    monkeypatch.setenv("KRB5_CONFIG", str(folder / "krb5.conf"))


@pytest.mark.parametrize("protocol", ["kerberos", "negotiate"])
@pytest.mark.parametrize(("user", "upn"), UPNS)
def test_a_wrong_password_of_a_upn_counts_once(
    user: str, upn: str, protocol: str, samba_server: BindingServer, samba: SambaDomain
) -> None:
    """No other name and no other protocol is tried with it."""
    before = samba.bad_password_count(user)
    error = refusal(samba_server, login=upn, password="wrong-horse", windows_protocol=protocol)
    assert "the password is wrong" in str(error)
    assert samba.bad_password_count(user) == before + 1
    assert samba_server.attempts() == []


def test_a_upn_that_no_account_has_says_what_the_kdc_needs_to_know(samba_server: BindingServer) -> None:
    """Not that the suffix has to be a realm of krb5.conf, which leads nowhere."""
    error = refusal(samba_server, login="nobody@brand.example", password="x", windows_protocol="kerberos")
    assert "the KDC does not know the account" in str(error)
    assert "default_realm" in error.remedy
    assert "[realms]" not in error.remedy


# --- Wrong passwords, with more than one KDC and with a slow one.


@pytest.mark.parametrize("protocol", ["kerberos", "negotiate"])
def test_a_wrong_password_is_not_sent_again_to_the_primary_kdc(
    protocol: str, samba_server: BindingServer, samba: SambaDomain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As kinit does where krb5.conf names one."""
    kdc = "kdc = " + ":".join(map(str, samba.kdc_address))
    with KdcProxy(samba.kdc_address) as primary:
        use_krb5_conf(samba, tmp_path, monkeypatch, kdc, f"{kdc}\nprimary_kdc = 127.0.0.1:{primary.port}")
        before = samba.bad_password_count("alice")
        error = refusal(samba_server, login="alice", password="wrong-horse", windows_protocol=protocol)
        assert "the password is wrong" in str(error)
        assert samba.bad_password_count("alice") == before + 1
        assert primary.requests == 0


def test_a_kdc_that_ntlm_has_replaced_is_not_sent_the_password(
    samba_server: BindingServer, samba: SambaDomain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it answers later. The server has already refused the password, which counts once."""
    monkeypatch.setattr(negotiation, "KDC_TIMEOUT", 0.5)
    with KdcProxy(samba.kdc_address, silent_after=0) as kdc:
        address = ":".join(map(str, samba.kdc_address))
        use_krb5_conf(samba, tmp_path, monkeypatch, address, f"127.0.0.1:{kdc.port}")
        before = samba.bad_password_count("alice")
        error = refusal(samba_server, login="CORP\\alice", password="wrong-horse")
        assert "no KDC answered" in str(error)
        (waiting,) = [thread for thread in threading.enumerate() if thread.name == "smtpcm-kerberos"]
        kdc.answer()
        waiting.join()
        assert samba.bad_password_count("alice") == before + 1
        assert kdc.requests == 1


@contextmanager
def slow_second_answer(samba: SambaDomain, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KdcProxy]:
    """A KDC whose answer to the proof of the password is held back, and a client that waits less for the first one."""
    monkeypatch.setattr(negotiation, "KDC_TIMEOUT", 2.0)
    with KdcProxy(samba.kdc_address, silent_after=1) as kdc:
        address = ":".join(map(str, samba.kdc_address))
        use_krb5_conf(samba, folder, monkeypatch, address, f"127.0.0.1:{kdc.port}")
        yield kdc


def answer_late(kdc: KdcProxy) -> None:
    """Let the KDC answer when the client would have tried NTLM, if it had not proved the password."""
    kdc.is_holding.wait()
    time.sleep(negotiation.KDC_TIMEOUT + 0.5)
    kdc.answer()


@pytest.mark.parametrize("password", ["wrong-horse", None], ids=["wrong", "right"])
def test_a_kdc_that_has_proof_of_the_password_is_waited_for(
    password: str | None,
    samba_server: BindingServer,
    samba: SambaDomain,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NTLM would be the second proof, and would count a wrong one twice."""
    before = samba.bad_password_count("alice")
    with slow_second_answer(samba, tmp_path, monkeypatch) as kdc:
        threading.Thread(target=answer_late, args=(kdc,), daemon=True).start()
        if password is None:
            authentication = sign_in(samba_server, login="CORP\\alice", password=samba.password_of("alice"))
            assert authentication.protocol == "Kerberos"
        else:
            error = refusal(samba_server, login="CORP\\alice", password=password)
            assert "the password is wrong" in str(error)
            assert samba.bad_password_count("alice") == before + 1
            assert samba_server.attempts() == []


@pytest.mark.parametrize("protocol", ["negotiate", "kerberos"])
def test_a_kdc_that_never_says_whether_the_password_is_right_is_the_end(
    protocol: str, samba_server: BindingServer, samba: SambaDomain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have counted it, as a server that hangs up after it. Neither NTLM nor a retry proves it again."""
    before = samba.bad_password_count("alice")
    settings = {"login": "CORP\\alice", "password": "wrong-horse", "windows_protocol": protocol, "timeout": 4.0}
    with slow_second_answer(samba, tmp_path, monkeypatch) as kdc:
        error = refusal(samba_server, **settings)
        assert "a KDC was sent proof of the password, and has not said whether it is right." in str(error)
        assert "was not sent again" in error.remedy
        assert not error.retryable
        assert samba.bad_password_count("alice") == before + 1
        assert samba_server.attempts() == []
        (waiting,) = [thread for thread in threading.enumerate() if thread.name == "smtpcm-kerberos"]
        kdc.answer()
        waiting.join()
    assert samba.bad_password_count("alice") == before + 1


# --- Names without a suffix, and NetBIOS domains.


@pytest.mark.parametrize("login", ["alice", "ALICE", "groß", "CORP\\alice", "corp\\alice"])
def test_negotiate_takes_kerberos_where_krb5_conf_knows_the_realm(
    login: str, samba_server: BindingServer, samba: SambaDomain
) -> None:
    """The default realm, for a bare name."""
    user = login.rpartition("\\")[2]
    assert sign_in(samba_server, login=login, password=samba.password_of(user)).protocol == "Kerberos"


def test_a_netbios_domain_stands_for_the_realm_that_begins_with_it(
    samba_server: BindingServer, samba: SambaDomain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where that is not the default realm."""
    use_krb5_conf(samba, tmp_path, monkeypatch, "default_realm = CORP.EXAMPLE", "default_realm = ELSE")
    authentication = sign_in(samba_server, login="CORP\\alice", password=samba.password_of("alice"))
    assert str(authentication) == "GSSAPI (Kerberos) as alice@CORP.EXAMPLE"


@pytest.mark.parametrize(
    ("login", "why", "remedy"),
    [
        (
            "OTHER\\alice",
            "Kerberos was not possible: Kerberos: the domain of the user name is not a realm",
            "may take Kerberos only",
        ),
        (
            "alice@other.example",
            "Kerberos was tried first. Kerberos (password of alice@other.example): the KDC does not",
            "The KDC does not know this account",
        ),
    ],
)
def test_where_ntlm_is_refused_the_remedy_is_about_kerberos_too(
    login: str, why: str, remedy: str, samba_server: BindingServer
) -> None:
    """Beside the password; if a KDC has said that there is no such account, the name is what to look at."""
    error = refusal(samba_server, login=login, password="wrong-horse")
    assert why in str(error)
    assert "Check 'User name'" in error.remedy
    assert remedy in error.remedy
    (attempt,) = samba_server.attempts()
    assert attempt.mechanism == "NTLM"


# --- Keytabs.


def test_a_keytab_that_begins_with_a_service_says_which_name_was_tried(
    samba_server: BindingServer, samba: SambaDomain
) -> None:
    """And that the account is a user name away."""
    keytab = str(samba.client_keytab)
    error = refusal(samba_server, keytab=keytab)
    assert f"whose first entry is {samba.service_principal}" in str(error)
    assert "Enter the account as 'User name'" in error.remedy
    authentication = sign_in(samba_server, keytab=keytab, login="svc-etl@corp.example")
    assert str(authentication) == "GSSAPI (Kerberos) as svc-etl@CORP.EXAMPLE"


@pytest.mark.parametrize("login", ["SVC-ETL", "CORP\\Svc-Etl", "Svc-ETL@corp.example"])
def test_a_keytab_has_the_key_of_an_account_in_any_case(
    login: str, samba_server: BindingServer, samba: SambaDomain
) -> None:
    """Windows does not distinguish them, and a keytab does."""
    authentication = sign_in(samba_server, keytab=str(samba.client_keytab), login=login)
    assert str(authentication) == "GSSAPI (Kerberos) as svc-etl@CORP.EXAMPLE"


def test_a_file_that_is_no_keytab_is_not_a_changed_password(
    samba_server: BindingServer, samba: SambaDomain, tmp_path: Path
) -> None:
    """The error says what the file is not."""
    path = tmp_path / "svc-etl.keytab"
    path.write_text("This is no keytab.")
    error = refusal(samba_server, keytab=str(path), login="svc-etl")
    assert "is not a keytab, or is damaged" in str(error)
    assert "password has been changed" not in error.remedy
