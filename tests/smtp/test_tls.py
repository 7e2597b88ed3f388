"""A certificate that is not trusted: the remedy names a setting that helps, and none that cannot."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from airflow_provider_smtpcm.errors import TlsError
from airflow_provider_smtpcm.smtp.session import Session
from airflow_provider_smtpcm.smtp.tls import create_tls_context
from tests.smtp.server import Server


def named(name: str) -> x509.Name:
    """A name as certificates have it."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def certificate(
    name: str, key: RSAPrivateKey, issuer: str, issuer_key: RSAPrivateKey, *extensions: x509.ExtensionType
) -> x509.Certificate:
    """A certificate with these extensions and no others."""
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(named(issuer), named(name), key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return builder.sign(issuer_key, SHA256())


def careless_authority(
    folder: Path, *extensions: x509.ExtensionType, bits: int = 2048
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate from a careless authority, and a client's context that trusts it."""
    authority_key, key = generate_private_key(65537, 2048), generate_private_key(65537, bits)
    authority = certificate("ca", authority_key, "ca", authority_key, x509.BasicConstraints(ca=True, path_length=None))
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    leaf = certificate("mail", key, "ca", authority_key, names, *extensions)
    chain = folder / "server.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain.write_bytes(leaf.public_bytes(Encoding.PEM) + secret)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.set_ciphers("DEFAULT@SECLEVEL=0")
    server.load_cert_chain(chain)
    pem = authority.public_bytes(Encoding.PEM).decode()
    client = create_tls_context(pem, verify=True)
    client.verify_flags &= ~ssl.VERIFY_X509_STRICT  # so that all Pythons are alike
    return server, client


def distrusted(server: ssl.SSLContext, client: ssl.SSLContext) -> TlsError:
    """How a session with that server fails."""
    with Server(tls=server) as running, pytest.raises(TlsError, match="is not trusted") as caught:
        Session(running.manager(ssl_mode="implicit", host="localhost"), context=client).open()
    return caught.value


@pytest.mark.parametrize("octets", [b"0 s:CN = mail.corp.example\n", b"0\x82", b"0\x82\x03\x00" + b"x" * 768, b""])
def test_a_file_without_a_certificate_is_called_that(octets: bytes, tmp_path: Path) -> None:
    """Whatever it begins with."""
    file = tmp_path / "corp-ca.cer"
    file.write_bytes(octets)
    with pytest.raises(TlsError, match=r"corp-ca\.cer cannot be used \(no certificate found in it\)"):
        create_tls_context(str(file), verify=True)


def test_an_authority_as_windows_exports_it_is_trusted(tmp_path: Path, authority: trustme.CA) -> None:
    """A `.cer` file holds DER unless it was exported as Base64."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    file = tmp_path / "corp-ca.cer"
    file.write_bytes(ssl.PEM_cert_to_DER_cert(authority.cert_pem.bytes().decode()))
    settings = {"ssl_mode": "implicit", "ca_certificate": str(file), "host": "localhost"}
    with Server(tls=tls) as server, Session(server.manager(**settings)) as session:
        assert session.tls_version


def test_a_certificate_that_newer_pythons_refuse_says_so(tmp_path: Path) -> None:
    """Python 3.13 refuses what 3.12 took (`VERIFY_X509_STRICT`), and no authority in the settings helps."""
    server, client = careless_authority(tmp_path)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    error = distrusted(server, client)
    assert "Missing Authority Key Identifier" in error.message
    assert "Python 3.13" in error.remedy
    assert "reissued" in error.remedy
    assert "'CA certificate'" not in error.remedy


def test_a_certificate_with_a_weak_key_says_so(tmp_path: Path) -> None:
    """However well its authority is known."""
    server, client = careless_authority(tmp_path, bits=1024)
    client.set_ciphers("DEFAULT@SECLEVEL=2")
    error = distrusted(server, client)
    assert "too weak" in error.message
    assert "reissued" in error.remedy
    assert "'CA certificate'" not in error.remedy


def test_a_certificate_for_another_purpose_says_so(tmp_path: Path) -> None:
    """One that was issued for signing code, for example."""
    error = distrusted(*careless_authority(tmp_path, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])))
    assert "purpose" in error.message
    assert "reissued" in error.remedy
    assert "'CA certificate'" not in error.remedy


def test_a_name_with_the_dot_of_the_root_is_the_name_in_the_certificate(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mail.corp.example.` keeps the resolver from trying its search list; no certificate bears the dot."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("mail.corp.example").configure_cert(tls)
    resolve, asked = socket.getaddrinfo, []

    def getaddrinfo(host: bytes, *args: Any, **options: Any) -> Any:
        asked.append(host)
        return resolve("127.0.0.1", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    settings = {"ssl_mode": "implicit", "ca_certificate": authority.cert_pem.bytes().decode()}
    with Server(tls=tls) as server:
        with pytest.raises(TlsError, match="Hostname mismatch"):
            Session(server.manager(**settings, host="other.corp.example.")).open()
        with Session(server.manager(**settings, host="mail.corp.example.")) as session:
            assert session.tls_version
    assert asked == [b"other.corp.example.", b"mail.corp.example."]
