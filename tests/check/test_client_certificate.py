"""What a check says of the connection's own certificate, before anything is sent."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.testing import Relay
from tests.check.checked import Checked, CheckIt, make_check
from tests.client_certificates import Clients


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
