"""A private Kerberos realm: MIT's KDC on a free loopback port, with users, services and tickets. No mail server.

The machine's own Kerberos is neither read nor changed. `environment()` has the variables for a client of the realm.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import ClassVar

from demo.processes import LOOPBACK, free_port
from tests.integration.programs import FAKETIME, ServerProgram, absent, faked_clock, is_listening, run

PROGRAMS = ("krb5kdc", "kdb5_util", "kadmin.local", "kinit")
BULKY_TICKET = Path(__file__).with_name("bulky_ticket.py")

KRB5_CONF = Template("""\
[libdefaults]
  default_realm = $realm
  dns_lookup_kdc = false
  dns_lookup_realm = false
  dns_canonicalize_hostname = false
  rdns = false
  udp_preference_limit = 1
  ignore_acceptor_hostname = true
  kdc_timesync = $timesync
  # Without these a client would look at the machine's own tickets and keys.
  default_ccache_name = FILE:$folder/default.ccache
  default_client_keytab_name = FILE:$folder/default-client.keytab
  default_keytab_name = FILE:$folder/default.keytab
[realms]
  $realm = {
    kdc = $address:$port
  }
[domain_realm]
  .$domain = $realm
  $domain = $realm
  localhost = $realm
""")

KDC_CONF = Template("""\
[kdcdefaults]
  kdc_listen = $address:$port
  kdc_tcp_listen = $address:$port
[realms]
  $realm = {
    database_name = $folder/db/principal
    key_stash_file = $folder/db/stash
    acl_file = $folder/db/kadm5.acl
    max_life = 10h 0m 0s
    max_renewable_life = 7d 0h 0m 0s
    supported_enctypes = aes256-cts:normal aes128-cts:normal
  }
[logging]
  kdc = FILE:$folder/kdc.log
  default = FILE:$folder/library.log
""")


class KerberosRealm(ServerProgram):
    """The realm as a context manager.

    `users` can sign in. All other accounts have a password too (`password_of`), and are refused, each for a reason of
    its own. As in Active Directory, every account has to prove its password before it gets a ticket.
    """

    name = "kerberos"
    realm = "CORP.EXAMPLE"
    domain = "corp.example"
    #: What NTLM calls the same domain.
    netbios_domain = "CORP"
    users: ClassVar = {"alice": "P@ssw0rd-Alice", "jürgen": "Pässwörd-№2-🔑"}
    expired_password_user = "carol"
    locked_user = "dave"
    expired_account_user = "erin"
    #: Its key is nowhere but in `client_keytab`.
    client_principal = f"svc-etl@{realm}"
    #: The last is a server that is not registered under `smtp/`.
    services = ("smtp/localhost", "smtp/mail.corp.example", "SMTPSVC/exchange.corp.example")
    smtpsvc_only_host = "exchange.corp.example"

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()
        self.krb5_conf = self.folder / "krb5.conf"
        #: As `krb5_conf`, for a client that does not set its clock by the KDC's.
        self.strict_clock_krb5_conf = self.folder / "strict-clock.conf"
        self.service_keytab = self.folder / "service.keytab"
        self.client_keytab = self.folder / "client.keytab"
        #: `users` for gss-ntlmssp, by its environment variable `NTLM_USER_FILE`.
        self.ntlm_user_file = self.folder / "ntlm-users"

    def _start(self) -> None:
        self._configure()
        self._add_principals()
        self.start_kdc()

    def environment(self) -> dict[str, str]:
        """Return the variables for a client of this realm."""
        return {"KRB5_CONFIG": str(self.krb5_conf)}

    def acceptor_environment(self) -> dict[str, str]:
        """Return the variables for a server of this realm that lets its `users` in."""
        return self.environment() | {
            "KRB5_KTNAME": str(self.service_keytab),
            "NTLM_USER_FILE": str(self.ntlm_user_file),
        }

    def password_of(self, user: str) -> str:
        """Return the password of an account."""
        return self.users.get(user, f"P@ssw0rd-{user}")

    # --- Tickets.

    def ccache(self, user: str) -> str:
        """Return a credential cache with a fresh ticket for one of `users`, as `FILE:...`."""
        path = self.folder / f"{user}-{secrets.token_hex(4)}.ccache"
        self._run("kinit", "-c", str(path), user, stdin=self.password_of(user) + "\n")
        return f"FILE:{path}"

    def bulky_ccache(self, user: str, *, service: str = "smtp/localhost", octets: int = 7000) -> str:
        """Return a credential cache as `ccache` does, with a larger service ticket, as by membership in many groups.

        A line of base64 may have 12288 octets (RFC 4954 4): 7000 make one of 10324, and 9000 one that is too long.
        """
        ccache = self.ccache(user)
        self._run(sys.executable, str(BULKY_TICKET), ccache, f"{service}@{self.realm}", str(octets))
        return ccache

    def stale_keytab(self, user: str) -> str:
        """Return a keytab of an account of its own, whose password was changed after the keytab was made."""
        path = self.folder / f"{user}.keytab"
        self._kadmin("addprinc", "+requires_preauth", "-randkey", user)
        self._kadmin("ktadd", "-k", str(path), user)
        self._kadmin("cpw", "-randkey", user)
        return str(path)

    def outdated_keytab(self, user: str) -> str:
        """Return a keytab of an account of its own with an AES128 key; the KDC takes only AES256 for the account."""
        path = self.folder / f"{user}.keytab"
        self._kadmin("addprinc", "+requires_preauth", "-randkey", "-e", "aes128-cts:normal", user)
        self._kadmin("ktadd", "-norandkey", "-k", str(path), user)
        self._kadmin("cpw", "-randkey", "-e", "aes256-cts:normal", user)
        return str(path)

    # --- Faults of the KDC.

    def start_kdc(self, *, clock_offset: int = 0) -> None:
        """Start the KDC, with its clock ahead by some seconds."""
        env = self._own_environment() | faked_clock(clock_offset)
        self._launch(["krb5kdc", "-n", "-r", self.realm], lambda: is_listening(self.port), env=env)

    def stop_kdc(self) -> None:
        """Stop the KDC: its port refuses connections. Idempotent."""
        self._end()

    @contextmanager
    def kdc_stopped(self) -> Iterator[None]:
        """Stop the KDC for a block; its port refuses connections."""
        self.stop_kdc()
        try:
            yield
        finally:
            self.start_kdc()

    @contextmanager
    def kdc_silent(self) -> Iterator[None]:
        """Silence the KDC for a block: it accepts connections and does not answer, as behind some firewalls."""
        assert self._service is not None
        os.kill(self._service.session, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._service.session, signal.SIGCONT)

    @contextmanager
    def kdc_clock_ahead(self, seconds: int) -> Iterator[None]:
        """Set the KDC's clock ahead for a block. Only a client with `strict_clock_krb5_conf` refuses that."""
        self.stop_kdc()
        self.start_kdc(clock_offset=seconds)
        try:
            yield
        finally:
            self.stop_kdc()
            self.start_kdc()

    def log(self) -> str:
        """Return the KDC's log."""
        paths = (self.folder / name for name in ("output", "kdc.log"))
        return "".join(path.read_text(errors="replace") for path in paths if path.exists())

    @staticmethod
    def missing() -> str | None:
        """Return what the realm needs and this machine lacks, or None."""
        return absent(PROGRAMS, {FAKETIME: "libfaketime"})

    # --- Setting up.

    def _configure(self) -> None:
        self.folder.chmod(0o755)  # a mail server that runs as another user reads krb5.conf
        (self.folder / "db").mkdir(mode=0o700)
        settings = {
            "folder": self.folder,
            "realm": self.realm,
            "domain": self.domain,
            "address": LOOPBACK,
            "port": self.port,
        }
        self.krb5_conf.write_text(KRB5_CONF.substitute(settings, timesync=1))
        self.strict_clock_krb5_conf.write_text(KRB5_CONF.substitute(settings, timesync=0))
        (self.folder / "kdc.conf").write_text(KDC_CONF.substitute(settings))
        self.ntlm_user_file.touch(0o600)
        self.ntlm_user_file.write_text(
            "".join(f"{self.netbios_domain}:{user}:{password}\n" for user, password in self.users.items())
        )

    def _add_principals(self) -> None:
        self._run("kdb5_util", "create", "-s", "-r", self.realm, "-P", secrets.token_hex())
        for service in self.services:
            self._kadmin("addprinc", "-randkey", service)
            self._kadmin("ktadd", "-k", str(self.service_keytab), service)
        self._kadmin("addprinc", "-randkey", self.client_principal)
        self._kadmin("ktadd", "-k", str(self.client_keytab), self.client_principal)
        for user in self.users:
            self._add_user(user)
        self._add_user(self.expired_password_user, "-pwexpire", "yesterday")
        self._add_user(self.locked_user, "-allow_tix")
        self._add_user(self.expired_account_user, "-expire", "yesterday")

    def _add_user(self, user: str, *options: str) -> None:
        self._kadmin("addprinc", "+requires_preauth", *options, "-pw", self.password_of(user), user)

    def _kadmin(self, *query: str) -> None:
        self._run("kadmin.local", "-r", self.realm, *query)

    def _run(self, *command: str, stdin: str = "") -> None:
        run(command, env=self._own_environment(), stdin=stdin)

    def _own_environment(self) -> dict[str, str]:
        return self.environment() | {"KRB5_KDC_PROFILE": str(self.folder / "kdc.conf"), "LC_ALL": "C.UTF-8"}
