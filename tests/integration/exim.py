"""Exim that demands or verifies its clients' TLS certificates, on free loopback ports.

Debian's Exim and Postfix exclude each other, so that `make system-packages` takes Exim's program alone out of its
package. The user whose name is compiled into it exists only for this process, by nss_wrapper. Nothing is delivered:
mails stay in the queue, and the log has the name in the client's certificate.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from string import Template
from types import TracebackType
from typing import Self

import trustme

from demo.processes import LOOPBACK, free_port
from tests.client_certificates import Clients
from tests.integration.programs import LIBRARIES, absent, system_path

START_SECONDS = 60
_NSS_WRAPPER = "*/libnss_wrapper.so"
_USER = "Debian-exim"

_CONFIGURATION = Template("""\
primary_hostname = mail.corp.example
spool_directory = $folder/spool
log_file_path = $folder/%slog
log_selector = +tls_peerdn +tls_certificate_verified
keep_environment = LD_PRELOAD : NSS_WRAPPER_PASSWD : NSS_WRAPPER_GROUP
local_interfaces = $address
daemon_smtp_ports = $demanding_port : $asking_port
queue_only
host_lookup =
rfc1413_hosts =

tls_advertise_hosts = *
tls_certificate = $folder/server.pem
tls_privatekey = $folder/server.pem
tls_verify_certificates = $folder/clients.pem
tls_verify_hosts = $${if eq{$$received_port}{$demanding_port}{*}}
tls_try_verify_hosts = *
acl_smtp_rcpt = rcpt

begin acl

rcpt:
  accept
    verify = certificate
  deny
    message = relay not permitted
""")


class EximError(Exception):
    """Exim failed; the message ends in its log."""


class Exim:
    """The server as a context manager.

    `demanding_port` demands a certificate of the clients' authority in the handshake (`tls_verify_hosts`),
    `asking_port` relays for those who have one (`verify = certificate`).
    """

    host = "localhost"

    def __init__(self) -> None:
        self.demanding_port, self.asking_port = free_port(), free_port()
        certificates = trustme.CA()
        self.ca_certificate = certificates.cert_pem.bytes().decode()
        self._server_pem = certificates.issue_cert(self.host).private_key_and_cert_chain_pem.bytes()
        self._folder = Path(tempfile.mkdtemp(prefix="exim-"))
        self.clients = Clients(self._folder)
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def missing() -> str | None:
        """Return what this Exim needs and this machine lacks, or None."""
        return absent(("exim4",), {_NSS_WRAPPER: "nss_wrapper"})

    def log(self) -> str:
        """Return Exim's logs."""
        return "".join(path.read_text(errors="replace") for path in sorted(self._folder.glob("*log")))

    def __enter__(self) -> Self:
        self._configure()
        nobody = pwd.getpwnam("nobody")
        program = shutil.which("exim4", path=system_path())
        assert program is not None
        self._process = subprocess.Popen(
            [program, "-bdf", "-C", str(self._folder / "exim.conf"), "-oP", str(self._folder / "pid")],
            env={
                **os.environ,
                "LD_PRELOAD": str(next(LIBRARIES.glob(_NSS_WRAPPER))),
                "NSS_WRAPPER_PASSWD": self._write(
                    "passwd", f"root:x:0:0::/:\n{_USER}:x:{nobody.pw_uid}:{nobody.pw_gid}::/:\n"
                ),
                "NSS_WRAPPER_GROUP": self._write("group", f"root:x:0:\n{_USER}:x:{nobody.pw_gid}:\n"),
            },
            stdout=subprocess.DEVNULL,
            stderr=(self._folder / "stderrlog").open("wb"),
        )
        try:
            for port in (self.demanding_port, self.asking_port):
                self._wait_for(port)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End this Exim, and remove its folder."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _configure(self) -> None:
        self._folder.chmod(0o755)
        (self._folder / "spool").mkdir()
        self._write("server.pem", self._server_pem.decode())
        self._write("clients.pem", self.clients.authority_pem)
        ports = {"demanding_port": self.demanding_port, "asking_port": self.asking_port}
        self._write("exim.conf", _CONFIGURATION.substitute(folder=self._folder, address=LOOPBACK, **ports))
        for name in ("", "spool", "server.pem"):
            shutil.chown(self._folder / name, "nobody")

    def _write(self, name: str, text: str) -> str:
        path = self._folder / name
        path.write_text(text)
        return str(path)

    def _wait_for(self, port: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection((LOOPBACK, port), timeout=1).close()
            except OSError:
                assert self._process is not None
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise EximError(f"Port {port} did not open:\n{self.log()}") from None
                time.sleep(0.05)
            else:
                return
