"""Client certificates and servers that ask for them, for tests."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trustme

from tests.smtp.server import Server

NAME = "etl.corp.example"


class Clients:
    """A certificate authority of clients, with files of their certificates.

    Args:
        folder: where the files are written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA(organization_name="Clients")

    @property
    def authority_pem(self) -> str:
        """The authority's certificate."""
        return self.authority.cert_pem.bytes().decode()

    def issue(
        self, file: str = "client.pem", *, authority: trustme.CA | None = None, days: float = 90, since: float = -1
    ) -> str:
        """Write a certificate with its key to a file that nobody else may read; return its path.

        Args:
            file: the file's name.
            authority: the issuer; None: the authority that servers of these clients trust.
            days: how long it is valid from now.
            since: days from now from which it is valid.
        """
        now = datetime.now(UTC)
        issued = (authority or self.authority).issue_cert(
            NAME, common_name=NAME, not_before=now + timedelta(days=since), not_after=now + timedelta(days=days)
        )
        return self.write(file, issued.private_key_and_cert_chain_pem.bytes())

    def write(self, file: str, content: bytes) -> str:
        """Write a file that nobody else may read; return its path."""
        path = self.folder / file
        path.touch(0o600)
        path.write_bytes(content)
        return str(path)

    def split(self, file: str) -> tuple[str, str]:
        """Write the certificates and the key of a file to files of their own; return the two paths."""
        begin = b"-----BEGIN CERTIFICATE-----"
        key, *certificates = Path(file).read_bytes().split(begin)
        name = Path(file).stem
        chain = b"".join(begin + certificate for certificate in certificates)
        return self.write(f"{name}.crt", chain), self.write(f"{name}.key", key)


def tls_server(server: trustme.CA, clients: trustme.CA, **settings: Any) -> ssl.SSLContext:
    """Return the context of a server that asks for the certificates of these clients.

    Args:
        server: issues the server's own certificate.
        clients: issues those of the clients.
        settings: attributes of the context.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.issue_cert("localhost").configure_cert(context)
    clients.configure_trust(context)
    for name, value in settings.items():
        setattr(context, name, value)
    return context


def settings_for(server: trustme.CA, **settings: object) -> dict[str, object]:
    """Return the settings of a connection to such a server, which speaks TLS from the start."""
    trusted = server.cert_pem.bytes().decode()
    return {"host": "localhost", "ssl_mode": "implicit", "ca_certificate": trusted, **settings}


__all__ = ["NAME", "Clients", "Server", "settings_for", "tls_server"]
