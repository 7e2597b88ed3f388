"""An Active Directory domain: Samba's domain controller with its KDC, its LDAP server and winbindd. No mail server.

`KerberosRealm` is MIT's; this one has what only a directory of Windows' kind has: UPN suffixes, names in any case, and
NTLM that the domain controller checks. gss-ntlmssp, which finds no file with users, asks winbindd.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import subprocess
import tempfile
from pathlib import Path
from string import Template
from typing import IO, ClassVar

from demo.processes import free_port
from tests.integration.programs import GSS_NTLMSSP, START_SECONDS, ProgramError, ServerProgram, absent, run, system_path

PROGRAMS = ("samba", "samba-tool", "winbindd", "wbinfo", "ldbsearch", "kinit")
#: LDAP and RPC have fixed ports, so the domain controller has an address of its own on the loopback interface.
ADDRESS = "127.0.0.61"
#: libwbclient looks nowhere else, so that a machine has one winbindd.
WINBIND_SOCKETS = Path("/run/samba/winbindd")
LOCK = Path(tempfile.gettempdir()) / "smtpcm-samba-domain.lock"
PYTHON = "/usr/bin/python3"  # which has Samba's library
ACCOUNTS = Path(__file__).with_name("samba_accounts.py")
PROVISION = Path("/usr/share/samba/setup/provision.ldif")

SMB_CONF = Template("""\
[global]
  realm = $realm
  workgroup = $netbios_domain
  netbios name = MAIL
  server role = active directory domain controller
  server services = rpc, ldap, cldap, kdc, winbindd, s3fs
  interfaces = $address/8
  bind interfaces only = yes
  krb5 port = $kdc_port
  kpasswd port = $kpasswd_port
  smb ports = $smb_port
  rpc server port = $rpc_port
  tls enabled = no
  cache directory = $folder/cache
  lock directory = $folder
  private dir = $folder/private
  state directory = $folder/state
  binddns dir = $folder/bind-dns
  pid directory = $folder/pid
  ncalrpc dir = $folder/ncalrpc
  winbindd socket directory = $sockets
  log file = $folder/log.%m
  logging = file
  load printers = no
  disable spoolss = yes
[sysvol]
  path = $folder/state/sysvol
[netlogon]
  path = $folder/state/sysvol/$domain/scripts
""")

KRB5_CONF = Template("""\
[libdefaults]
  default_realm = $realm
  dns_lookup_kdc = false
  dns_lookup_realm = false
  dns_canonicalize_hostname = false
  rdns = false
  udp_preference_limit = 1
  ignore_acceptor_hostname = true
  default_ccache_name = FILE:$folder/default.ccache
  default_client_keytab_name = FILE:$folder/default-client.keytab
  default_keytab_name = FILE:$folder/default.keytab
[realms]
  $realm = {
    kdc = $address:$kdc_port
  }
[domain_realm]
  .$domain = $realm
  $domain = $realm
  localhost = $realm
""")


class SambaDomain(ServerProgram):
    """The domain as a context manager; `users` can log in, and those with a UPN of their own by that, too."""

    name = "samba"
    realm = "CORP.EXAMPLE"
    domain = "corp.example"
    netbios_domain = "CORP"
    upn_suffix = "brand.example"
    #: The account and its UPN. `erin`'s has the realm as its suffix, and another name.
    upns: ClassVar = {"carol": "carol.brand@brand.example", "erin": "erin.maier@corp.example"}
    #: Letters of which Python's capitals differ from Windows'; Samba knows all of these.
    odd_names = ("groß", "ŉame", "ﬁlip", "ınce", "µser", "ǅeko", "ΐris", "ნინო", "𐐨zoe")
    users = ("alice", "jürgen", "hash", "half", *upns, *odd_names)
    #: Its key is in `client_keytab`, behind that of a service.
    client_principal = f"svc-etl@{realm}"
    service_principal = f"smtp/localhost@{realm}"

    def __init__(self) -> None:
        super().__init__()
        self.krb5_conf = self.folder / "krb5.conf"
        self.service_keytab = self.folder / "service.keytab"
        self.client_keytab = self.folder / "client.keytab"
        self._smb_conf = self.folder / "smb.conf"
        self._password = f"P@ssw0rd-{secrets.token_hex(4)}"
        self._lock: IO[bytes] | None = None

    def stop(self) -> None:
        """End the domain controller and remove everything. Idempotent."""
        super().stop()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def environment(self) -> dict[str, str]:
        """Return the variables for a client of this domain."""
        return {"KRB5_CONFIG": str(self.krb5_conf)}

    def acceptor_environment(self) -> dict[str, str]:
        """Return the variables for a server of this domain, whose NTLM is checked by winbindd."""
        return self.environment() | {"KRB5_KTNAME": str(self.service_keytab)}

    def password_of(self, user: str) -> str:
        """Return the password of an account. That of `hash` has the form of two hashes; `half` has half a character."""
        if user == "hash":
            return ":".join([self._password.encode().hex()[:32].ljust(32, "0")] * 2)
        if user == "half":
            return f"{self._password}\ud800"
        return self._password + ("-№2-🔑" if user.lower() == "jürgen" else "")

    def ccache(self, user: str, *options: str) -> str:
        """Return a credential cache with a fresh ticket, as `FILE:...`; the options are kinit's."""
        path = self.folder / f"{secrets.token_hex(4)}.ccache"
        run(
            ["kinit", *options, "-c", str(path), user],
            env=self.environment() | {"LC_ALL": "C.UTF-8"},
            stdin=self.password_of(user) + "\n",
        )
        return f"FILE:{path}"

    def bad_password_count(self, user: str) -> int:
        """Return how many wrong passwords the domain controller has counted for an account."""
        found = subprocess.run(
            ["ldbsearch", "-H", str(self._database), f"(sAMAccountName={user})", "badPwdCount"],
            env={**os.environ, "PATH": system_path(), "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        return int(found.partition("badPwdCount: ")[2].partition("\n")[0] or 0)

    def log(self) -> str:
        """Return the log of the domain controller."""
        paths = (self.folder / "output", *sorted(self.folder.glob("log.*")))
        return "".join(path.read_text(errors="replace") for path in paths if path.exists())

    @staticmethod
    def missing() -> str | None:
        """Return what the domain needs and this machine lacks, or None."""
        return absent(PROGRAMS, {GSS_NTLMSSP: "gss-ntlmssp"}) or (None if PROVISION.exists() else "samba-ad-provision")

    # --- Setting up.

    def _start(self) -> None:
        # Another worker of the same test run may have the machine's one winbindd; it ends with its file of tests.
        self._lock = LOCK.open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._provision()
        self._add_accounts()
        command = ["samba", "-i", "-M", "single", "-s", str(self._smb_conf)]
        self._launch(command, self._is_ready, env={"PYTHONPATH": ""})

    @property
    def _database(self) -> Path:
        return self.folder / "private/sam.ldb"

    def _provision(self) -> None:
        self.folder.chmod(0o755)
        for name in ("pid", "cache"):
            (self.folder / name).mkdir()
        WINBIND_SOCKETS.parent.mkdir(exist_ok=True)
        settings = {
            "folder": self.folder,
            "realm": self.realm,
            "domain": self.domain,
            "netbios_domain": self.netbios_domain,
            "address": ADDRESS,
            "sockets": WINBIND_SOCKETS,
            **{f"{name}_port": free_port() for name in ("kdc", "kpasswd", "smb", "rpc")},
        }
        self.krb5_conf.write_text(KRB5_CONF.substitute(settings))
        self.kdc_address = (ADDRESS, int(settings["kdc_port"]))
        run(
            ["samba-tool", "domain", "provision", f"--realm={self.realm}", f"--domain={self.netbios_domain}",
             "--server-role=dc", "--dns-backend=NONE", f"--targetdir={self.folder}", "--host-name=mail",
             f"--host-ip={ADDRESS}", f"--adminpass={self._password}", "-s", os.devnull],
            env={"PYTHONPATH": ""}, timeout=START_SECONDS,
        )  # fmt: skip
        self._smb_conf.write_text(SMB_CONF.substitute(settings))
        (self.folder / "etc/smb.conf").unlink()

    def _add_accounts(self) -> None:
        service, _, _ = self.service_principal.partition("@")
        accounts = {
            "base": ",".join(f"DC={label}" for label in self.domain.split(".")),
            "users": {user: self.password_of(user) for user in (*self.users, "svc-etl", "mail-service")},
            "upns": self.upns,
            "upn_suffix": self.upn_suffix,
            "service": (service, "mail-service"),
            "keytabs": {
                str(self.service_keytab): [service],
                str(self.client_keytab): [service, self.client_principal],
            },
        }
        path = self.folder / "accounts.json"
        path.write_text(json.dumps(accounts), encoding="utf-8")
        run(
            [PYTHON, str(ACCOUNTS), str(self._smb_conf), str(path)],
            env={"PYTHONPATH": "", "LC_ALL": "C.UTF-8"},
            timeout=START_SECONDS,
        )

    def _is_ready(self) -> bool:
        try:
            socket.create_connection(self.kdc_address, timeout=1).close()
            run(["wbinfo", "-p"])
        except (OSError, ProgramError):
            return False
        return True
