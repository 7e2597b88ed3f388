"""The servers: sinks that count, a real Postfix that syncs to disk, and a proxy that delays."""

from __future__ import annotations

import json
import os
import smtplib
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import trustme

from benchmarks.sending import peers
from demo.processes import LOOPBACK, free_port
from tests.integration.gssapi_postfix import GssapiPostfix
from tests.integration.kerberos import KerberosRealm
from tests.integration.loopback_postfix import ANONYMOUS, LoopbackPostfix
from tests.integration.postfix import Postfix

SECONDS = 60  # limit for starting a server, and for its count


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that receives mails.

    Args:
        port: on loopback.
        delivered: returns how many mails it has accepted, once sending has ended; may be called once.
        account: of those who may send: fields of an `Order`.
    """

    port: int
    delivered: Callable[[], int]
    account: Mapping[str, Any] = field(default_factory=dict)


class CountError(Exception):
    """The server has not accepted what the client reports as sent."""


@contextmanager
def nowhere() -> Iterator[Server]:
    """Return a server for work that sends nothing."""
    yield Server(port=0, delivered=lambda: 0)


@contextmanager
def own_sink(mails: int, recipients: int, certificate: Path | None = None) -> Iterator[Server]:
    """Start our sink in C, with STARTTLS if it has a certificate."""
    program = peers.compiled("native/sink.c", tls=certificate is not None)
    with _counting([program, *([str(certificate)] if certificate else [])]) as (port, counts):

        def delivered() -> int:
            found = counts()
            if found["recipients"] != mails * recipients:
                raise CountError(f"{found['recipients']} recipients arrived, not {mails * recipients}.")
            return found["mails"]

        yield Server(port=port, delivered=delivered)


@contextmanager
def smtp_sink(mails: int) -> Iterator[Server]:
    """Start Postfix's sink, which does not report its count, but can be told to end after a number of mails."""
    port = free_port()
    user = ("-u", "nobody") if os.geteuid() == 0 else ()
    # One more than expected: if it ends at the mail that is sent below, exactly the expected number came before.
    command = [peers.program("smtp-sink", "postfix"), "-4", *user, "-M", str(mails + 1), f"{LOOPBACK}:{port}", "128"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        _wait_for(port, lambda: process.poll() is None)

        def delivered() -> int:
            try:
                server = smtplib.SMTP(LOOPBACK, port, timeout=SECONDS)
                server.helo()
                server.mail("a@corp.example")
                server.rcpt("b@corp.example")
                server.docmd("DATA")
            except (ConnectionError, smtplib.SMTPServerDisconnected):
                # The system still accepts connections for a process that is about to end, but there is no greeting.
                process.wait(SECONDS)
                return mails + 1  # or more
            with server:
                try:
                    server.send("Subject: the one more\r\n\r\n.\r\n")
                    server.getreply()
                    server.noop()  # it may have answered before it ended
                except smtplib.SMTPServerDisconnected:
                    process.wait(SECONDS)
                    return mails
            return mails - 1  # or fewer

        yield Server(port=port, delivered=delivered)
    finally:
        process.terminate()
        process.communicate(timeout=SECONDS)


class SyncedPostfix(LoopbackPostfix):
    """Postfix as in Debian: it replies to the final dot once the mail is on disk. It discards all mail."""

    port: int
    services: ClassVar = {"port": ANONYMOUS}

    def _configure_sasl(self) -> dict[str, str]:
        return {}

    def _configure(self) -> None:
        super()._configure()
        with (self._etc / "main.cf").open("a") as settings:
            settings.write("virtual_transport = discard:\n")
        with (self._etc / "master.cf").open("a") as services:
            services.write("discard unix - - n - - discard\n")


@contextmanager
def postfix() -> Iterator[Callable[[int], Server]]:
    """Start a real Postfix; yields what returns it, and counts from that call on.

    Raises:
        MissingError: it is not installed, or may not be started by this user.
    """
    _require_root(SyncedPostfix.missing(), "apt-get install --yes postfix")
    with SyncedPostfix() as server:
        yield lambda mails: _counting_mails(server, mails, server.port)


@contextmanager
def ntlm_postfix() -> Iterator[Callable[[int], Server]]:
    """Start a Postfix that requires STARTTLS and NTLM (Cyrus SASL's); see `postfix`."""
    _require_root(Postfix.missing(), "make system-packages")
    with Postfix() as server, _file(server.ca_certificate) as ca:
        account = {"ca": ca, "login": r"CORP\alice", "password": server.users["alice"]}
        yield lambda mails: _counting_mails(server, mails, server.starttls_port, account)


@contextmanager
def kerberos_postfix() -> Iterator[Callable[[int], Server]]:
    """Start a Postfix that requires STARTTLS and a Kerberos ticket, and its KDC; see `postfix`."""
    _require_root(GssapiPostfix.missing() or KerberosRealm.missing(), "make system-packages")
    with KerberosRealm() as realm, GssapiPostfix(realm) as server, _file(server.ca_certificate) as ca:
        account = {"ca": ca, "host": "localhost", "krb5_conf": str(realm.krb5_conf), "ccache": realm.ccache("alice")}
        yield lambda mails: _counting_mails(server, mails, server.starttls_port, account)


def _require_root(missing: str | None, remedy: str) -> None:
    if missing:
        raise peers.MissingError(f"{missing} is missing: {remedy}")
    if os.geteuid() != 0:
        raise peers.MissingError("A Postfix can be started by root alone: run this as root")


@contextmanager
def _file(text: str) -> Iterator[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(text)
        file.flush()
        yield file.name


def _counting_mails(server: LoopbackPostfix, mails: int, port: int, account: Mapping[str, str] | None = None) -> Server:
    """Return a Postfix that counts the mails that leave its queue from now on."""

    def done() -> int:
        return server.log().count("status=sent")

    before = done()

    def delivered() -> int:
        deadline = time.monotonic() + SECONDS
        while (count := done() - before) < mails and time.monotonic() < deadline:
            time.sleep(0.02)
        return count

    return Server(port=port, delivered=delivered, account=account or {})


@contextmanager
def delayed(port: int, milliseconds: float) -> Iterator[tuple[int, Callable[[], int | None]]]:
    """Start a proxy that delays; returns its port, and what returns, once, the number of round trips."""
    if not milliseconds:
        yield port, lambda: None
        return
    with _counting([peers.compiled("native/delay.c"), str(milliseconds), str(port)]) as (near, counts):
        yield near, lambda: counts()["turns"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """A certificate for loopback, and the system's authorities with its own added, as `update-ca-certificates` does.

    Args:
        server: the certificate with its key.
        authorities: all authorities in one file.
        folders: all authorities by the hash of their names, as for SSL_CERT_DIR.
    """

    server: Path
    authorities: Path
    folders: str

    @classmethod
    def write(cls, folder: Path) -> Certificates:
        """Create them in a folder."""
        hashed = folder / "authorities"
        made = cls(
            server=folder / "server.pem",
            authorities=folder / "authorities.pem",
            folders=f"/etc/ssl/certs{os.pathsep}{hashed}",
        )
        authority = trustme.CA()
        hashed.mkdir()
        authority.cert_pem.write_to_path(str(hashed / "own.pem"))
        subprocess.run([peers.program("openssl", "openssl"), "rehash", str(hashed)], check=True)
        pem = authority.issue_cert("localhost", LOOPBACK).private_key_and_cert_chain_pem.bytes()
        made.server.touch(0o600)
        made.server.write_bytes(pem)
        known = Path("/etc/ssl/certs/ca-certificates.crt")
        made.authorities.write_bytes((known.read_bytes() if known.exists() else b"") + authority.cert_pem.bytes())
        return made


@contextmanager
def _counting(command: list[str]) -> Iterator[tuple[int, Callable[[], dict[str, int]]]]:
    """Start one of our C servers, which prints its port, and its counts when its standard input ends."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def counts() -> dict[str, int]:
        said, _ = process.communicate(timeout=SECONDS)
        found: dict[str, int] = json.loads(said)
        return found

    try:
        assert process.stdout is not None
        yield int(process.stdout.readline()), counts
    finally:
        if process.poll() is None:
            process.communicate(timeout=SECONDS)


def _wait_for(port: int, alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while alive() and time.monotonic() < deadline:
        try:
            socket.create_connection((LOOPBACK, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.01)
    raise peers.MissingError(f"smtp-sink did not open port {port}: look at its message above")
