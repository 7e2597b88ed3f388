"""Keys and certificates with which the pages sign mail."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.integration.system_packages import skip_for_want_of

SIGNER = "etl@corp.example"


def make_smime_identity(path: Path) -> None:
    """Write a certificate for mail, which is its own authority, and its key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.EMAIL_ADDRESS, SIGNER)])
    builder = x509.CertificateBuilder(
        subject_name=name,
        issuer_name=name,
        public_key=key.public_key(),
        serial_number=4711,
        not_valid_before=datetime.now(UTC) - timedelta(days=1),
        not_valid_after=datetime.now(UTC) + timedelta(days=1),
    )
    certificate = builder.add_extension(x509.SubjectAlternativeName([x509.RFC822Name(SIGNER)]), critical=False).sign(
        key, hashes.SHA256()
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(certificate.public_bytes(pem) + private)


def make_openpgp_identity(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a key without a passphrase in a home of its own, which `gpg` uses from now on."""
    if shutil.which("gpg") is None:
        skip_for_want_of("gpg")
    home.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    command = ["gpg", "--batch", "--passphrase", "", "--quick-gen-key", SIGNER, "ed25519", "sign", "never"]
    subprocess.run(command, check=True, capture_output=True)
