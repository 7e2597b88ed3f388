"""Postfix with Cyrus SASL's NTLM against a user table of its own."""

from __future__ import annotations

import grp
import pwd
import shutil
from collections.abc import Mapping
from string import Template
from typing import ClassVar

from tests.integration.loopback_postfix import ANONYMOUS, IMPLICIT_TLS, LoopbackPostfix
from tests.integration.programs import run

SASL_CONF = Template("""\
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: $table
mech_list: $mechanisms
""")


class Postfix(LoopbackPostfix):
    """The server as a context manager.

    `starttls_port` requires STARTTLS and then Windows Authentication, `implicit_port` uses TLS from the first byte,
    `basic_only_port` offers PLAIN and LOGIN but not NTLM, and `anonymous_port` accepts mail from every client on this
    machine.
    """

    # Cyrus' NTLM supports one byte for a character, so it refuses the second account in any case.
    users: ClassVar = {"alice": "P@ssw0rd-Alice", "jürgen": "Pässwörd-№2"}

    starttls_port: int
    implicit_port: int
    basic_only_port: int
    anonymous_port: int
    services: ClassVar = {
        "starttls_port": (),
        "implicit_port": IMPLICIT_TLS,
        "basic_only_port": ("smtpd_sasl_path=basic-only",),
        "anonymous_port": ANONYMOUS,
    }
    programs = ("postfix", "saslpasswd2")
    plugins: ClassVar = {"*/sasl2/libntlm.so*": "Cyrus SASL's NTLM plugin"}

    def _configure_sasl(self) -> Mapping[str, str]:
        table = self._etc / "sasldb2"
        for name, mechanisms in (("smtpd", "NTLM PLAIN LOGIN"), ("basic-only", "PLAIN LOGIN")):
            self._sasl_file(name, SASL_CONF.substitute(table=table, mechanisms=mechanisms))
        for name, password in self.users.items():
            run(["saslpasswd2", "-p", "-c", "-f", str(table), "-u", self.domain, name], stdin=password)
        shutil.chown(table, "postfix", grp.getgrgid(pwd.getpwnam("postfix").pw_gid).gr_name)
        return {}
