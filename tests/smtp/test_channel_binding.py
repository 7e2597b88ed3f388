"""Channel bindings are computed with the hash of the certificate's signature; only an undefined one is left out."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID

from airflow_provider_smtpcm.connection_manager import ChannelBinding, SmtpConnectionManager
from airflow_provider_smtpcm.errors import AuthenticationError
from airflow_provider_smtpcm.smtp.tls import compute_channel_bindings

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
RSA = rsa.generate_private_key(65537, 2048)

# Signed with ECDSA and SHA-1 by OpenSSL, since current libraries verify such signatures but do not create them.
SHA1_CERTIFICATE = base64.b64decode(
    "MIIBjjCCATSgAwIBAgIUQrTBqkckF7+R7LNuyt7UTtIxTwswCQYHKoZIzj0EATAcMRowGAYDVQQDDBFtYWlsLmNvcnAuZXhhbXBs"
    "ZTAgFw0yNjExMjMxNTQwNTVaGA8yMTI2MTAzMDE1NDA1NVowHDEaMBgGA1UEAwwRbWFpbC5jb3JwLmV4YW1wbGUwWTATBgcqhkjO"
    "PQIBBggqhkjOPQMBBwNCAARiNSayj3TEwHL7tCmusFNNE5DHcCD24x3c0JoGZY6XrM968ep+cKu+5bk+rd6lY0D0TTGYVE+sAqpG"
    "09eLwnK/o1MwUTAdBgNVHQ4EFgQUN5t/PZKzqSjyMga2jZ3Oi6y6BBowHwYDVR0jBBgwFoAUN5t/PZKzqSjyMga2jZ3Oi6y6BBow"
    "DwYDVR0TAQH/BAUwAwEB/zAJBgcqhkjOPQQBA0kAMEYCIQCpk0RfHwNkdCumVu0H84lMhf3pw4KVG+vWH9GKPqqH0gIhAKy7lm8A"
    "rX0WpVAQTm4J1tNybDh4xO0i7hgoaBa+Hh+d"
)


@dataclass
class FakeTransport:
    """A transport after the TLS handshake."""

    tls_version: str | None = "TLSv1.3"
    server_certificate: bytes | None = None
    tls_unique: bytes | None = b"finished"


def certificate(key: Key, algorithm: hashes.HashAlgorithm | None, scheme: padding.PSS | None = None) -> bytes:
    """Return a certificate in DER, signed by this key with this hash."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.corp.example")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=1,
        not_valid_before=now,
        not_valid_after=now + dt.timedelta(days=1),
    )
    signed = builder.sign(key, algorithm, rsa_padding=scheme)  # type: ignore[arg-type]
    return signed.public_bytes(serialization.Encoding.DER)


def bound_to(kind: ChannelBinding, transport: FakeTransport) -> bytes | None:
    """Return the application data of the binding."""
    bindings = compute_channel_bindings(kind, transport)  # type: ignore[arg-type]
    return bindings and bindings.application_data


@pytest.mark.parametrize("version", ["TLSv1.3", "SSLv3"])
def test_tls_unique_is_undefined_beyond_tls_1_2(version: str) -> None:
    """CPython returns a value nevertheless (RFC 9266 1)."""
    with pytest.raises(AuthenticationError, match="tls-unique is not defined"):
        bound_to(ChannelBinding.TLS_UNIQUE, FakeTransport(tls_version=version))


def test_a_certificate_whose_signature_has_no_hash_is_an_error() -> None:
    """If the connection spells the binding out: RFC 5929 4.1 leaves Ed25519 undefined."""
    line = FakeTransport(server_certificate=certificate(ed25519.Ed25519PrivateKey.generate(), None))
    with pytest.raises(AuthenticationError, match=r"not defined.*Ed25519") as caught:
        bound_to(ChannelBinding.TLS_SERVER_END_POINT, line)
    assert "'none'" in caught.value.remedy


def test_without_being_required_it_is_left_out_for_such_a_certificate() -> None:
    """No server could check it."""
    line = FakeTransport(server_certificate=certificate(ed25519.Ed25519PrivateKey.generate(), None))
    assert compute_channel_bindings(ChannelBinding.TLS_SERVER_END_POINT, line, is_required=False) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("octets", [b"", b"no certificate"])
def test_octets_that_are_no_certificate_are_an_error_even_if_it_is_not_required(octets: bytes) -> None:
    """That is not what an undefined binding looks like."""
    line = FakeTransport(server_certificate=octets)
    with pytest.raises(AuthenticationError, match="channel binding cannot be computed"):
        compute_channel_bindings(ChannelBinding.TLS_SERVER_END_POINT, line, is_required=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("extra", "is_required"),
    [({}, False), ({"channel_binding": None}, False), ({"channel_binding": ""}, False),
     ({"channel_binding": "tls-server-end-point"}, True), ({"channel_binding": "tls-unique"}, True)],
)  # fmt: skip
def test_a_binding_is_required_if_the_connection_spells_it_out(extra: dict[str, Any], is_required: bool) -> None:
    """Also after another setting was replaced, and after the way to Airflow and back."""
    parsed = SmtpConnectionManager.from_airflow(SimpleNamespace(host="h", extra={"auth_mode": "windows", **extra}))
    back = SmtpConnectionManager.from_airflow(SimpleNamespace(**parsed.to_airflow()))
    made = SmtpConnectionManager(host="h", auth_mode="windows", **extra)  # type: ignore[arg-type]
    for manager in (parsed, back, made, replace(parsed, timeout=5), replace(made, timeout=5)):
        assert manager.is_binding_required is is_required
        assert manager.channel_binding is ChannelBinding(extra.get("channel_binding") or "tls-server-end-point")


# The first octets of a certificate include its version; there is no version 6.
VERSION_6 = certificate(RSA, hashes.SHA256()).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05", 1)


@pytest.mark.parametrize("octets", [b"", b"no certificate", VERSION_6])
def test_octets_that_are_not_a_certificate_are_an_error(octets: bytes) -> None:
    """Rather than a wrong binding, which looks like a relay attack."""
    with pytest.raises(AuthenticationError, match="channel binding cannot be computed"):
        bound_to(ChannelBinding.TLS_SERVER_END_POINT, FakeTransport(server_certificate=octets))


@pytest.mark.parametrize("kind", ChannelBinding)
def test_in_clear_text_there_is_nothing_to_bind_to(kind: ChannelBinding) -> None:
    """Whatever the connection's setting."""
    assert bound_to(kind, FakeTransport(tls_version=None)) is None


def test_none_binds_nothing() -> None:
    """Where a proxy terminates TLS."""
    assert bound_to(ChannelBinding.NONE, FakeTransport(server_certificate=b"x")) is None


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [(hashes.SHA256(), "sha256"), (hashes.SHA384(), "sha384"), (hashes.SHA512(), "sha512")],
)
@pytest.mark.parametrize("key", [RSA, ec.generate_private_key(ec.SECP256R1())], ids=["RSA", "ECDSA"])
def test_the_end_point_is_hashed_as_its_signature_is(key: Key, algorithm: hashes.HashAlgorithm, name: str) -> None:
    """RFC 5929 4.1."""
    der = certificate(key, algorithm)
    expected = b"tls-server-end-point:" + hashlib.new(name, der).digest()
    assert bound_to(ChannelBinding.TLS_SERVER_END_POINT, FakeTransport(server_certificate=der)) == expected


def test_the_hash_of_a_pss_signature_is_read_from_its_parameters() -> None:
    """The algorithm identifier does not include it (RFC 4055 3.1)."""
    scheme = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
    der = certificate(RSA, hashes.SHA384(), scheme)
    expected = b"tls-server-end-point:" + hashlib.sha384(der).digest()
    assert bound_to(ChannelBinding.TLS_SERVER_END_POINT, FakeTransport(server_certificate=der)) == expected


def test_a_certificate_signed_with_sha_1_is_hashed_with_sha_256() -> None:
    """Like one signed with MD5 (RFC 5929 4.1)."""
    expected = b"tls-server-end-point:" + hashlib.sha256(SHA1_CERTIFICATE).digest()
    assert bound_to(ChannelBinding.TLS_SERVER_END_POINT, FakeTransport(server_certificate=SHA1_CERTIFICATE)) == expected


def test_tls_unique_is_the_handshakes() -> None:
    """Up to TLS 1.2."""
    line = FakeTransport(tls_version="TLSv1.2", tls_unique=b"finished")
    assert bound_to(ChannelBinding.TLS_UNIQUE, line) == b"tls-unique:finished"
