"""A real Postfix on free loopback ports; its subclasses define who may sign in, and how.

It has its own configuration, queue, data and mail folders, so another Postfix on the machine is neither used nor
changed. Every recipient of every domain is one local maildir; no mail leaves the machine.
"""

from __future__ import annotations

import email.policy
import pwd
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from email.message import EmailMessage
from pathlib import Path
from string import Template
from typing import ClassVar

import trustme

from demo.processes import LOOPBACK, free_port
from tests.integration.programs import ProgramError, ServerProgram, absent, is_listening, run

MAIN_CF = Template("""\
compatibility_level = 3.6
queue_directory = $folder/spool
data_directory = $folder/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file_prefixes = $folder
maillog_file = $folder/maillog

myhostname = $name
mydomain = $domain
myorigin = $domain
inet_interfaces = $address
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
disable_dns_lookups = yes
smtpd_peername_lookup = no

# Every recipient of every domain is a local maildir, and nothing is relayed.
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
virtual_mailbox_domains = static:all
virtual_mailbox_base = $folder/mail
virtual_mailbox_maps = static:inbox/
virtual_uid_maps = static:$mail_uid
virtual_gid_maps = static:$mail_gid
default_transport = error:outbound-mail-is-off
relay_transport = error:outbound-mail-is-off

smtpd_tls_security_level = encrypt
smtpd_tls_chain_files = $folder/etc/server.pem
smtpd_tls_received_header = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = cyrus
smtpd_sasl_path = smtpd
smtpd_sasl_local_domain = $sasl_domain
smtpd_sasl_security_options = noanonymous, noplaintext
smtpd_sasl_tls_security_options = noanonymous
smtpd_sasl_authenticated_header = yes
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
smtpd_error_sleep_time = 0
# smtpd forgets its environment but for these.
import_environment = MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ LANG=C $environment
""")

MASTER_CF = """\
anvil      unix      - - n -   1 anvil
bounce     unix      - - n -   0 bounce
cleanup    unix      n - n -   0 cleanup
defer      unix      - - n -   0 bounce
error      unix      - - n -   - error
postlog    unix-dgram n - n -  1 postlogd
proxymap   unix      - - n -   - proxymap
qmgr       unix      n - n 300 1 qmgr
retry      unix      - - n -   - error
rewrite    unix      - - n -   - trivial-rewrite
tlsmgr     unix      - - n 1000? 1 tlsmgr
trace      unix      - - n -   0 bounce
virtual    unix      - n n -   - virtual
"""

#: Options of a port that accepts mail from any client on this machine.
ANONYMOUS = (
    "smtpd_tls_security_level=may",
    "smtpd_sasl_auth_enable=no",
    "smtpd_relay_restrictions=permit_mynetworks,reject",
    "smtpd_recipient_restrictions=permit_mynetworks,reject",
)
#: Options of a port that speaks TLS from the first byte.
IMPLICIT_TLS = ("smtpd_tls_wrappermode=yes",)


class PostfixError(Exception):
    """Postfix did not do what was waited for; the message ends in its log."""


class LoopbackPostfix(ServerProgram):
    """The server as a context manager. Each name in `services` becomes an attribute: the port of that smtpd."""

    name = "postfix"
    host = "localhost"
    domain = "corp.example"
    #: What `(Authenticated sender: ...)` has after the name.
    sasl_domain: ClassVar[str] = domain
    certificate_names: ClassVar[tuple[str, ...]] = (host, LOOPBACK)
    #: The ports, each with what sets its smtpd apart. Without options it requires STARTTLS and then a sign-in.
    services: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    programs: ClassVar[tuple[str, ...]] = ("postfix",)
    #: Files below /usr/lib, each with what it is.
    plugins: ClassVar[Mapping[str, str]] = {}

    def __init__(self) -> None:
        super().__init__()
        self._ports = {name: free_port() for name in self.services}
        vars(self).update(self._ports)
        certificates = trustme.CA()
        self.ca_certificate = certificates.cert_pem.bytes().decode()
        self._server_pem = certificates.issue_cert(*self.certificate_names).private_key_and_cert_chain_pem.bytes()
        self._etc = self.folder / "etc"

    def _configure_sasl(self) -> Mapping[str, str]:
        """Write Cyrus SASL's configuration below `_etc`; return the environment that smtpd needs for it."""
        raise NotImplementedError

    def _start(self) -> None:
        self._configure()
        self._start_master()

    def _start_master(self) -> None:
        ports = self._ports.values()
        self._launch(["postfix", "-c", str(self._etc), "start-fg"], lambda: is_listening(*ports))

    def _end(self) -> None:
        """Run `postfix stop`, since the program in front of Postfix' master passes no signal on. Idempotent."""
        if self._service is not None and self._service.returncode is None:
            with suppress(ProgramError):  # it has not started
                run(["postfix", "-c", str(self._etc), "stop"])
        super()._end()

    def messages(self) -> list[EmailMessage]:
        """Return the delivered mails, oldest first; their topmost Received header has the authenticated user."""
        stored = sorted((self.folder / "mail/inbox/new").glob("*"), key=lambda path: path.stat().st_mtime_ns)
        return [_parse(path.read_bytes()) for path in stored]

    def wait_for_messages(self, count: int, *, timeout: float = 60) -> list[EmailMessage]:
        """Wait for a number of delivered mails: the queue is a moment behind the reply to the client."""
        deadline = time.monotonic() + timeout
        while len(found := self.messages()) < count:
            if time.monotonic() > deadline:
                raise PostfixError(f"{len(found)} of {count} messages after {timeout} s:\n{self.log()}")
            time.sleep(0.05)
        return found

    def clear(self) -> None:
        """Remove the delivered mails."""
        for path in (self.folder / "mail/inbox/new").glob("*"):
            path.unlink()

    def log(self) -> str:
        """Return Postfix' log."""
        path = self.folder / "maillog"
        return path.read_text(errors="replace") if path.exists() else ""

    @classmethod
    def missing(cls) -> str | None:
        """Return what this Postfix needs and this machine lacks, or None."""
        return absent(cls.programs, cls.plugins)

    def _configure(self) -> None:
        # Postfix' daemons run as other users and must be able to enter.
        self.folder.chmod(0o755)
        if not all(path.stat().st_mode & 0o001 for path in self.folder.parents):
            raise PostfixError(f"Postfix cannot enter {self.folder}: set TMPDIR to a folder that all users may enter.")
        for folder in ("etc/sasl", "spool", "data", "mail"):
            (self.folder / folder).mkdir(parents=True)
        shutil.chown(self.folder / "data", "postfix")
        shutil.chown(self.folder / "mail", "nobody")
        self._secret_file("server.pem", self._server_pem)
        nobody = pwd.getpwnam("nobody")
        main_cf = MAIN_CF.substitute(
            folder=self.folder,
            address=LOOPBACK,
            name=f"mail.{self.domain}",
            domain=self.domain,
            sasl_domain=self.sasl_domain,
            mail_uid=nobody.pw_uid,
            mail_gid=nobody.pw_gid,
            environment=" ".join(f"{name}={value}" for name, value in self._configure_sasl().items()),
        )
        (self._etc / "main.cf").write_text(main_cf)
        (self._etc / "master.cf").write_text("".join(self._services()) + MASTER_CF)

    def _services(self) -> list[str]:
        """Return the lines of master.cf for the ports."""
        return [
            f"{LOOPBACK}:{self._ports[name]} inet n - n - - smtpd\n" + "".join(f"  -o {option}\n" for option in options)
            for name, options in self.services.items()
        ]

    def _sasl_file(self, name: str, text: str) -> None:
        # Debian's Postfix looks for Cyrus' settings here, whatever `cyrus_sasl_config_path` says.
        (self._etc / f"sasl/{name}.conf").write_text(text)

    def _secret_file(self, name: str, content: bytes, *, owner: str | None = None) -> Path:
        path = self._etc / name
        path.touch(0o600)
        path.write_bytes(content)
        if owner is not None:
            shutil.chown(path, owner)
        return path


def _parse(message: bytes) -> EmailMessage:
    return email.message_from_bytes(message, EmailMessage, policy=email.policy.default)
