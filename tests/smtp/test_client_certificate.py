"""A client certificate is sent to a server that asks for it, and whatever is wrong with it is said with a remedy."""

from __future__ import annotations

import logging
import os
import ssl
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import MailError, TlsError
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.smtp.session import Session
from airflow_provider_smtpcm.smtp.tls import TlsContextCache, create_context_of
from tests.client_certificates import Clients, settings_for, tls_server
from tests.smtp.server import Server

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture
def clients(tmp_path: Path) -> Clients:
    """Those whom the servers know."""
    return Clients(tmp_path)


def load(certificate: str, key: str | None = None) -> None:
    """Make the TLS context of a connection with this certificate."""
    create_context_of(SmtpConnectionManager(host="h", client_certificate=certificate, client_key=key))


def complaint(certificate: str, key: str | None = None) -> TlsError:
    """How that fails."""
    with pytest.raises(TlsError) as caught:
        load(certificate, key)
    assert not caught.value.retryable
    return caught.value


# --- The files.


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
@pytest.mark.parametrize("in_one_file", [True, False])
def test_a_server_that_demands_a_certificate_gets_it(
    in_one_file: bool, version: ssl.TLSVersion, clients: Clients, authority: trustme.CA, mail: Mail
) -> None:
    """From one file, or from two."""
    certificate, key = clients.issue(), None
    if not in_one_file:
        certificate, key = clients.split(certificate)
    tls = tls_server(authority, clients.authority, verify_mode=ssl.CERT_REQUIRED, maximum_version=version)
    with Server(tls=tls) as server:
        manager = server.manager(**settings_for(authority, client_certificate=certificate, client_key=key))
        with Session(manager) as session:
            assert session.send(mail).outcome == "accepted"
    assert len(server.stored) == 1


def test_a_missing_file_is_named_with_its_field(clients: Clients) -> None:
    """Be it the certificate's or the key's."""
    certificate, key = clients.split(clients.issue())
    error = complaint("/nowhere/at/client.pem")
    assert error.message == (
        "Client certificate (client_certificate): /nowhere/at/client.pem cannot be used (No such file or directory)."
    )
    assert "exists on the worker" in error.remedy
    error = complaint(certificate, "/nowhere/at/client.key")
    assert error.message.startswith("Client key (client_key): /nowhere/at/client.key cannot be used (No such file")
    assert "Is a directory" in complaint(certificate, str(Path(key).parent)).message


def test_a_file_without_a_certificate_is_called_that(clients: Clients) -> None:
    """The key's file in place of the certificate's, for example."""
    certificate, key = clients.split(clients.issue())
    error = complaint(key, certificate)
    assert "client.key cannot be used (no certificate found in it)" in error.message
    assert "BEGIN and END lines" in error.remedy


def test_a_certificate_without_its_key_names_both_ways_to_give_it(clients: Clients) -> None:
    """In a file of its own, or in the same."""
    certificate, _ = clients.split(clients.issue())
    error = complaint(certificate)
    assert "client.crt cannot be used (no private key found in it)" in error.message
    assert "'Client key'" in error.remedy
    error = complaint(certificate, certificate)
    assert error.message.startswith("Client key (client_key): ")
    assert "no private key found in it" in error.message


def test_the_key_of_another_certificate_is_refused(clients: Clients) -> None:
    """With what to look for."""
    certificate, _ = clients.split(clients.issue())
    _, key = clients.split(clients.issue("other.pem"))
    error = complaint(certificate, key)
    assert error.message.startswith("Client key (client_key): ")
    assert "is not that of the first certificate" in error.message
    assert "before its issuers" in error.remedy


@pytest.mark.parametrize("form", [(), ("-traditional",)])
def test_an_encrypted_key_is_refused_with_the_command_that_decrypts_it(form: tuple[str, ...], clients: Clients) -> None:
    """And nothing asks for its password on a terminal."""
    certificate, key = clients.split(clients.issue())
    encrypted = f"{key}.encrypted"
    subprocess.run(
        ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:Hunter2x", "-out", encrypted, *form],
        check=True,
        capture_output=True,
        timeout=60,
    )
    error = complaint(certificate, encrypted)
    assert "its private key is encrypted" in error.message
    assert "openssl pkey -in" in error.remedy


@pytest.mark.parametrize("in_key", [True, False])
def test_the_pfx_that_windows_exports_is_refused_with_the_command_that_converts_it(
    in_key: bool, clients: Clients
) -> None:
    """It is DER, not PEM."""
    certificate, _ = clients.split(clients.issue())
    pfx = clients.write("client.pfx", b"0\x82\x0a\x01" + b"x" * 2561)
    error = complaint(certificate, pfx) if in_key else complaint(pfx)
    assert "it is not PEM, but DER" in error.message
    assert "openssl pkcs12 -in" in error.remedy


def test_a_certificate_that_was_cut_off_is_refused(clients: Clients) -> None:
    """Although it begins as one."""
    content = Path(clients.issue()).read_bytes()
    torn = clients.write("torn.pem", content.replace(b"-----END CERTIFICATE-----", b""))
    assert "Client certificate (client_certificate): " in complaint(torn).message
    assert "PEM" in complaint(torn).remedy


def test_what_is_no_file_is_refused_before_it_is_opened(clients: Clients) -> None:
    """A named pipe would block the task for as long as nobody writes to it."""
    certificate, key = clients.split(clients.issue())
    pipe = str(clients.folder / "pipe")
    os.mkfifo(pipe)
    for error in (complaint(pipe), complaint(certificate, pipe), complaint(pipe, key)):
        assert f"{pipe} cannot be used (not a regular file)" in error.message
    for path, why in ((pipe, "not a regular file"), (str(clients.folder), "Is a directory")):
        with pytest.raises(TlsError, match=rf"CA certificate \(ca_certificate\): .* \({why}\)"):
            create_context_of(SmtpConnectionManager(host="h", ca_certificate=path))


def test_a_key_that_is_too_small_has_to_be_issued_again(clients: Clients) -> None:
    """Writing the file again would not help."""
    key = generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - as old as they come
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "etl.corp.example")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    now = datetime.now(UTC)
    issued = builder.not_valid_before(now).not_valid_after(now + timedelta(days=90)).sign(key, SHA256())
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    error = complaint(clients.write("small.pem", issued.public_bytes(Encoding.PEM) + secret))
    assert "its key is too small" in error.message
    assert "issued again" in error.remedy


def test_no_value_that_may_be_a_password_is_repeated(clients: Clients) -> None:
    """As for every other path."""
    certificate = clients.issue()
    for error in (complaint("Hunter2x"), complaint(certificate, "a/Hunter2x")):
        assert "Hunter2x" not in str(error)
        assert "Hunter2x" not in str(error.__cause__)


# --- What the server says to it.


def refusal(server: Server, authority: trustme.CA, **settings: object) -> MailError:
    """How the session with that server fails."""
    with server, pytest.raises(MailError) as caught:
        Session(server.manager(**settings_for(authority, **settings))).open()
    return caught.value


def test_a_demand_that_cannot_be_met_names_the_setting(clients: Clients, authority: trustme.CA) -> None:
    """TLS 1.3 says it in place of the greeting, when the handshake of the client is long over."""
    tls = tls_server(authority, clients.authority, verify_mode=ssl.CERT_REQUIRED)
    error = refusal(Server(tls=tls), authority)
    assert isinstance(error, TlsError)
    assert not error.retryable
    assert "demands a client certificate, and the connection has none (TLS alert: certificate required)" in str(error)
    assert "as 'Client certificate'" in error.remedy


def test_the_same_demand_in_tls_1_2_is_one_of_two_causes(clients: Clients, authority: trustme.CA) -> None:
    """Its alert is that of a handshake that failed, for whatever reason."""
    tls = tls_server(authority, clients.authority, verify_mode=ssl.CERT_REQUIRED, maximum_version=TLS_1_2)
    error = refusal(Server(tls=tls), authority)
    assert "handshake failure" in error.message
    assert "demands a client certificate" in error.remedy


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_a_certificate_of_an_unknown_authority_is_refused_with_what_helps(
    version: ssl.TLSVersion, clients: Clients, authority: trustme.CA
) -> None:
    """Whenever the server's alert comes."""
    tls = tls_server(authority, clients.authority, verify_mode=ssl.CERT_OPTIONAL, maximum_version=version)
    error = refusal(Server(tls=tls), authority, client_certificate=clients.issue(authority=trustme.CA()))
    assert isinstance(error, TlsError)
    assert "refused the client certificate (TLS alert: unknown CA)" in error.message
    assert "its issuers' certificates" in error.remedy


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_an_expired_certificate_is_for_the_server_to_refuse(
    version: ssl.TLSVersion, clients: Clients, authority: trustme.CA
) -> None:
    """One that compares fingerprints does not look at the date."""
    expired = clients.issue(days=-1, since=-9)
    tls = tls_server(authority, clients.authority, verify_mode=ssl.CERT_REQUIRED, maximum_version=version)
    error = refusal(Server(tls=tls), authority, client_certificate=expired)
    assert "TLS alert: certificate expired" in error.message
    assert error.remedy.startswith("Renew it")


@pytest.mark.parametrize(("has_certificate", "hint"), [(False, "may demand a client"), (True, "may not accept")])
def test_a_server_that_hangs_up_after_the_handshake_may_have_judged_the_certificate(
    has_certificate: bool, hint: str, clients: Clients, authority: trustme.CA
) -> None:
    """Without an alert, it is one cause among others."""
    tls = tls_server(authority, clients.authority)

    def hang_up(_: str) -> None:
        raise ConnectionAbortedError

    server = Server(hang_up, tls=tls)
    settings = {"client_certificate": clients.issue()} if has_certificate else {}
    error = refusal(server, authority, **settings)
    assert error.retryable
    assert hint in error.remedy


# --- Renewal.


def test_a_renewed_certificate_is_used_from_the_next_session_on(clients: Clients, authority: trustme.CA) -> None:
    """A merge of many hours outlives a certificate."""
    path = clients.issue()
    manager = SmtpConnectionManager(host="h", client_certificate=path)
    contexts = TlsContextCache(manager)
    first = contexts.get()
    assert contexts.get() is first
    clients.issue("renewed.pem")
    Path(clients.folder / "renewed.pem").rename(path)
    assert contexts.get() is not first


def test_a_certificate_that_is_just_being_renewed_leaves_the_old_one_in_use(
    clients: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    """The certificate and its key are seldom written at once."""
    certificate, key = clients.split(clients.issue())
    contexts = TlsContextCache(SmtpConnectionManager(host="h", client_certificate=certificate, client_key=key))
    first = contexts.get()
    clients.issue("renewed.pem")
    new_certificate, new_key = clients.split(str(clients.folder / "renewed.pem"))
    Path(new_certificate).rename(certificate)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert contexts.get() is first
    (warning,) = caplog.messages  # however many sessions are opened meanwhile
    assert "is not that of the first certificate" in warning
    Path(new_key).rename(key)
    assert contexts.get() is not first


def test_a_certificate_that_is_renewed_while_it_is_read_is_read_again(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes exchanges both files of a mounted secret at once, by a link: one may be read before, one after."""
    data = clients.folder / "..data"
    for version in ("old", "new"):
        (clients.folder / version).mkdir()
        for path in clients.split(clients.issue("tls.pem")):
            Path(path).rename(clients.folder / version / Path(path).name)
    data.symlink_to("old")
    load = ssl.SSLContext.load_cert_chain

    def exchange_between(context: ssl.SSLContext, certificate: str, key: str, password: Callable[[], str]) -> None:
        monkeypatch.undo()
        data.with_name("..next").symlink_to("new")
        data.with_name("..next").rename(data)
        load(context, clients.folder / "old" / "tls.crt", key, password)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", exchange_between)
    settings = {"client_certificate": str(data / "tls.crt"), "client_key": str(data / "tls.key")}
    contexts = TlsContextCache(SmtpConnectionManager(host="h", **settings))
    assert data.readlink() == Path("new")
    first = contexts.get()
    assert contexts.get() is first


def test_a_renewed_authority_is_trusted_too(tmp_path: Path, authority: trustme.CA) -> None:
    """It is a file like the others."""
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.cert_pem.bytes())
    contexts = TlsContextCache(SmtpConnectionManager(host="h", ca_certificate=str(path)))
    first = contexts.get()
    assert contexts.get() is first
    path.write_bytes(authority.cert_pem.bytes() + trustme.CA().cert_pem.bytes())
    assert contexts.get() is not first


# --- What it costs.


def test_who_has_no_client_certificate_loads_nothing_for_it_and_who_has_one_no_parser(
    clients: Clients, authority: trustme.CA
) -> None:
    """Each task is a process of its own, which would import it again."""
    probe = """
import sys
from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.smtp.tls import TlsContextCache
TlsContextCache(SmtpConnectionManager(host="h")).get()
print("airflow_provider_smtpcm.smtp.client_certificate" in sys.modules)
TlsContextCache(SmtpConnectionManager(host="h", client_certificate=sys.argv[1])).get()
print("airflow_provider_smtpcm.smtp.client_certificate" in sys.modules, "cryptography" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", probe, clients.issue()], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["False", "True", "False"]
