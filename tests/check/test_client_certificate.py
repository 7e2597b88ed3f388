"""What a check says of the connection's own certificate, before anything is sent."""

from __future__ import annotations

import dataclasses
import json
import socket
import ssl
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.testing import Relay
from tests.check.checked import Checked, CheckIt, make_check
from tests.client_certificates import Clients, Server, settings_for, tls_server


@pytest.fixture
def check_it(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> CheckIt:
    """Check a connection manager."""
    return make_check(capsys, caplog)


@pytest.fixture
def clients(tmp_path: Path) -> Clients:
    """An authority of clients."""
    return Clients(tmp_path)


def checked(check_it: CheckIt, certificate: str, key: str | None = None, **settings: Any) -> Checked:
    """Check a connection with this certificate to a relay, which asks for none."""
    with Relay() as relay:
        known = SmtpConnectionManager.from_airflow(type("Connection", (), relay.airflow_connection()))
        changed = dataclasses.replace(known, client_certificate=certificate, client_key=key, **settings)
        return check_it(changed)


class StartTlsServer:
    """One session with STARTTLS, in which every command is taken."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(60)
        self._listener.close()

    def _serve(self) -> None:
        peer, _ = self._listener.accept()
        peer.settimeout(60)
        peer.sendall(b"220 mail.corp.example ESMTP\r\n")
        for reply in (b"250-mail.corp.example\r\n250 STARTTLS\r\n", b"220 2.0.0 go on\r\n"):
            peer.recv(4096)
            peer.sendall(reply)
        with self._context.wrap_socket(peer, server_side=True) as encrypted:
            while encrypted.recv(4096):
                encrypted.sendall(b"250 2.0.0 ok\r\n")


def for_servers_only(clients: Clients) -> str:
    """Issue a certificate as public authorities do today: for TLS servers, and not for clients."""
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "etl.corp.example")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=90))
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    certificate = builder.add_extension(usage, critical=False).sign(key, SHA256())
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return clients.write("server.pem", certificate.public_bytes(Encoding.PEM) + secret)


@pytest.mark.parametrize(
    ("dates", "warning"),
    [
        ({"days": 13}, "Certificate 1 expires soon: 12 days left."),
        ({"days": -3, "since": -9}, "Certificate 1 expired 3 days ago."),
        ({"days": 9, "since": 2}, "Certificate 1 is not valid before "),
    ],
)
def test_the_dates_of_a_certificate_are_a_warning(
    dates: dict[str, float], warning: str, clients: Clients, check_it: CheckIt
) -> None:
    """Two weeks before it expires; and afterwards it is still for the server to judge."""
    found = checked(check_it, clients.issue(**dates))
    assert found.statuses["client certificate"] == "warning"
    assert warning in found.details["client certificate"]
    assert found.report.exit_status == 0


def test_a_certificate_that_is_not_issued_for_clients_is_a_warning(clients: Clients, check_it: CheckIt) -> None:
    """Public authorities issue hardly any other."""
    found = checked(check_it, for_servers_only(clients))
    assert "not issued for TLS clients" in found.details["client certificate"]
    assert "not issued for TLS clients" not in checked(check_it, clients.issue()).text


@pytest.mark.parametrize("in_one_file", [True, False])
def test_a_key_that_everybody_may_read_is_noted(in_one_file: bool, clients: Clients, check_it: CheckIt) -> None:
    """A note, since a secret that Kubernetes mounts is like that."""
    certificate, key = clients.issue(), None
    if not in_one_file:
        certificate, key = clients.split(certificate)
        Path(certificate).chmod(0o644)
    assert "Note:" not in checked(check_it, certificate, key).page
    Path(key or certificate).chmod(0o644)
    found = checked(check_it, certificate, key)
    assert found.statuses["client certificate"] == "ok"
    assert f"may read the private key ({key or certificate} has mode 0644)" in found.details["client certificate"]


def test_a_certificate_that_openssl_alone_can_read_is_checked_all_the_same(clients: Clients, check_it: CheckIt) -> None:
    """Such as one with OpenSSL's own notes of trust."""
    certificate, key = clients.split(clients.issue())
    trusted = str(clients.folder / "trusted.crt")
    command = ["openssl", "x509", "-in", certificate, "-trustout", "-out", trusted]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    found = checked(check_it, trusted, key)
    assert "cannot be shown" in found.details["client certificate"]
    assert found.report.exit_status == 0


def test_what_one_server_asked_for_is_not_said_of_the_next(clients: Clients, check_it: CheckIt) -> None:
    """The second offers no STARTTLS, so that no handshake begins there."""
    authority = trustme.CA()
    context = tls_server(authority, clients.authority, verify_mode=ssl.CERT_OPTIONAL)
    with StartTlsServer(context) as first, Server() as second:
        settings = settings_for(authority, ssl_mode="starttls", client_certificate=clients.issue(), port=first.port)
        found = check_it(SmtpConnectionManager(**settings, fallback_hosts=f"localhost:{second.port}"))
    there, here = [step.detail for step in found.report.steps if step.name == "TLS"]
    assert "asked for a client certificate, and it was sent" in there
    assert here.startswith(f"localhost:{second.port} does not offer STARTTLS")


def test_a_file_that_cannot_be_used_ends_the_check_at_the_settings(check_it: CheckIt) -> None:
    """Before any network."""
    found = checked(check_it, "/nowhere/at/client.pem")
    found.assert_failed_at("settings", "exists on the worker")
    assert "client_certificate=/nowhere/at/client.pem" in found.details["settings"]
    assert "TCP" not in found.statuses


def test_no_value_that_may_be_a_password_is_shown(check_it: CheckIt) -> None:
    """As for the other paths."""
    found = checked(check_it, "Hunter2x", "Hunter2y")
    assert "Hunter2" not in found.page + json.dumps(found.report.to_dict())


def test_a_connection_without_one_has_no_such_step(check_it: CheckIt) -> None:
    """Where nobody asked for one either."""
    with Relay() as relay:
        connection = type("Connection", (), relay.airflow_connection())
        found = check_it(SmtpConnectionManager.from_airflow(connection))
    assert "client certificate" not in found.page
