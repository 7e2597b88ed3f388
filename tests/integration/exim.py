"""Exim that demands or verifies its clients' TLS certificates, on free loopback ports.

Debian's Exim and Postfix exclude each other, so that `make system-packages` takes Exim's program alone out of its
package. The user whose name is compiled into it exists only for this process, by nss_wrapper. Nothing is delivered:
mails stay in the queue, and the log has the name in the client's certificate.
"""

from __future__ import annotations

import pwd
import shutil
from string import Template

import trustme

from demo.processes import LOOPBACK, free_port
from tests.client_certificates import Clients
from tests.integration.programs import LIBRARIES, ServerProgram, absent, is_listening, system_path

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


class Exim(ServerProgram):
    """The server as a context manager.

    `demanding_port` demands a certificate of the clients' authority in the handshake (`tls_verify_hosts`),
    `asking_port` relays for those who have one (`verify = certificate`).
    """

    name = "exim"
    host = "localhost"

    def __init__(self) -> None:
        super().__init__()
        self.demanding_port, self.asking_port = free_port(), free_port()
        certificates = trustme.CA()
        self.ca_certificate = certificates.cert_pem.bytes().decode()
        self._server_pem = certificates.issue_cert(self.host).private_key_and_cert_chain_pem.bytes()
        self.clients = Clients(self.folder)

    @staticmethod
    def missing() -> str | None:
        """Return what this Exim needs and this machine lacks, or None."""
        return absent(("exim4",), {_NSS_WRAPPER: "nss_wrapper"})

    def log(self) -> str:
        """Return Exim's logs."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*log")))

    def _start(self) -> None:
        self._configure()
        nobody = pwd.getpwnam("nobody")
        program = shutil.which("exim4", path=system_path())
        assert program is not None
        self._launch(
            [program, "-bdf", "-C", str(self.folder / "exim.conf"), "-oP", str(self.folder / "pid")],
            lambda: is_listening(self.demanding_port, self.asking_port),
            env={
                "LD_PRELOAD": str(next(LIBRARIES.glob(_NSS_WRAPPER))),
                "NSS_WRAPPER_PASSWD": self._write(
                    "passwd", f"root:x:0:0::/:\n{_USER}:x:{nobody.pw_uid}:{nobody.pw_gid}::/:\n"
                ),
                "NSS_WRAPPER_GROUP": self._write("group", f"root:x:0:\n{_USER}:x:{nobody.pw_gid}:\n"),
            },
        )

    def _configure(self) -> None:
        self.folder.chmod(0o755)
        (self.folder / "spool").mkdir()
        self._write("server.pem", self._server_pem.decode())
        self._write("clients.pem", self.clients.authority_pem)
        ports = {"demanding_port": self.demanding_port, "asking_port": self.asking_port}
        self._write("exim.conf", _CONFIGURATION.substitute(folder=self.folder, address=LOOPBACK, **ports))
        for name in ("", "spool", "server.pem"):
            shutil.chown(self.folder / name, "nobody")

    def _write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)
