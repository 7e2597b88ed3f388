"""Who takes the mails in, and what lies between: sinks that count, a real Postfix that syncs, a line with a delay."""

from __future__ import annotations

import json
import os
import smtplib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import trustme

from benchmarks.sending import peers
from demo.processes import LOOPBACK, free_port
from tests.integration.loopback_postfix import ANONYMOUS, LoopbackPostfix

SECONDS = 20  # no server takes longer to start, or to count


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where mails go.

    Args:
        port: on loopback.
        delivered: how many mails it has accepted since it was made, once nobody sends any more; it may be asked once.
    """

    port: int
    delivered: Callable[[], int]


class CountError(Exception):
    """The server has not accepted what the client says it has sent."""


@contextmanager
def nowhere() -> Iterator[Server]:
    """For work that sends nothing."""
    yield Server(port=0, delivered=lambda: 0)


@contextmanager
def own_sink(mails: int, recipients: int, certificate: Path | None = None) -> Iterator[Server]:
    """Our sink in C, with STARTTLS where it has a certificate."""
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
    """Postfix's sink, which says nothing of what it took, but can be told to end after so many mails."""
    port = free_port()
    user = ("-u", "nobody") if os.geteuid() == 0 else ()
    # One more than what is to come: it ends at that one, and not at another, if exactly so many came before.
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
                # The system still accepts connections for a process that is about to end, but nobody greets on them.
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
    """Postfix as Debian has it: it answers the final dot when the mail is on the disk. It delivers to nobody."""

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

    def done(self) -> int:
        """How many mails have left the queue."""
        return (self._folder / "maillog").read_bytes().count(b"status=sent")


@contextmanager
def postfix() -> Iterator[Callable[[int], Server]]:
    """A real Postfix; called before a run, it counts from there on.

    Raises:
        MissingError: it is not installed, or nobody may start one.
    """
    missing = SyncedPostfix.missing()
    if missing or os.geteuid() != 0:
        raise peers.MissingError(
            f"{missing} is missing: apt-get install --yes postfix"
            if missing
            else "A Postfix can be started by root alone: run this as root"
        )
    with SyncedPostfix() as server:

        def ready(mails: int) -> Server:
            before = server.done()

            def delivered() -> int:
                deadline = time.monotonic() + SECONDS
                while (count := server.done() - before) < mails and time.monotonic() < deadline:
                    time.sleep(0.02)
                return count

            return Server(port=server.port, delivered=delivered)

        yield ready


@contextmanager
def delayed(port: int, milliseconds: float) -> Iterator[tuple[int, Callable[[], int | None]]]:
    """The port of a line to a server, and what tells, once, how often a client spoke after its server had spoken."""
    if not milliseconds:
        yield port, lambda: None
        return
    with _counting([peers.compiled("native/delay.c"), str(milliseconds), str(port)]) as (near, counts):
        yield near, lambda: counts()["turns"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """A certificate for loopback, and the system's authorities with ours among them."""

    server: Path
    authorities: Path

    @classmethod
    def write(cls, folder: Path) -> Certificates:
        """Make them."""
        made = cls(server=folder / "server.pem", authorities=folder / "authorities.pem")
        authority = trustme.CA()
        pem = authority.issue_cert("localhost", LOOPBACK).private_key_and_cert_chain_pem.bytes()
        made.server.touch(0o600)
        made.server.write_bytes(pem)
        known = Path("/etc/ssl/certs/ca-certificates.crt")
        made.authorities.write_bytes((known.read_bytes() if known.exists() else b"") + authority.cert_pem.bytes())
        return made


@contextmanager
def _counting(command: list[str]) -> Iterator[tuple[int, Callable[[], dict[str, int]]]]:
    """One of our C servers: it prints its port, and its counts when its standard input ends."""
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
