"""Postfix with Cyrus SASL's GSSAPI and GSS-SPNEGO: Kerberos by MIT's library, NTLM inside of both by gss-ntlmssp."""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from typing import ClassVar

from tests.integration.kerberos import KerberosRealm
from tests.integration.loopback_postfix import ANONYMOUS, IMPLICIT_TLS, LoopbackPostfix
from tests.integration.programs import GSS_NTLMSSP

SASL_CONF = Template("""\
mech_list: $mechanisms
keytab: $keytab
""")


class GssapiPostfix(LoopbackPostfix):
    """The server as a context manager; its name in the realm is `smtp/localhost`, also `smtp/mail.corp.example`.

    `starttls_port` requires STARTTLS and then a sign-in, `implicit_port` uses TLS from the first byte, `plain_port`
    requires a sign-in and has no STARTTLS: all three offer GSSAPI and GSS-SPNEGO. `gssapi_only_port` and
    `spnego_only_port` (STARTTLS) offer one of them. `smtpsvc_port` (STARTTLS) accepts only tickets for `SMTPSVC/...`.
    `anonymous_port` accepts mail from every client on this machine.

    NTLM inside of either is for names in ASCII: gss-ntlmssp uses the locale for others, and smtpd has none.
    """

    sasl_domain = KerberosRealm.realm
    certificate_names = (*LoopbackPostfix.certificate_names, "mail.corp.example", KerberosRealm.smtpsvc_only_host)

    starttls_port: int
    implicit_port: int
    plain_port: int
    gssapi_only_port: int
    spnego_only_port: int
    smtpsvc_port: int
    anonymous_port: int
    services: ClassVar = {
        "starttls_port": (),
        "implicit_port": IMPLICIT_TLS,
        "plain_port": ("smtpd_tls_security_level=none",),
        "gssapi_only_port": ("smtpd_sasl_path=gssapi-only",),
        "spnego_only_port": ("smtpd_sasl_path=spnego-only",),
        "smtpsvc_port": ("smtpd_sasl_service=SMTPSVC",),
        "anonymous_port": ANONYMOUS,
    }
    plugins: ClassVar = {
        "*/sasl2/libgssapiv2.so*": "Cyrus SASL's GSSAPI plugin",
        GSS_NTLMSSP: "gss-ntlmssp",
    }

    def __init__(self, realm: KerberosRealm) -> None:
        super().__init__()
        self.realm = realm

    def _configure_sasl(self) -> Mapping[str, str]:
        keytab = self._secret_file("smtp.keytab", self.realm.service_keytab.read_bytes(), owner="postfix")
        users = self._secret_file("ntlm-users", self.realm.ntlm_user_file.read_bytes(), owner="postfix")
        for name, mechanisms in (
            ("smtpd", "GSSAPI GSS-SPNEGO"),
            ("gssapi-only", "GSSAPI"),
            ("spnego-only", "GSS-SPNEGO"),
        ):
            self._sasl_file(name, SASL_CONF.substitute(mechanisms=mechanisms, keytab=keytab))
        return self.realm.environment() | {
            "KRB5_KTNAME": str(keytab),
            "KRB5RCACHENAME": "none:",  # the machine's would outlive the realm
            "NTLM_USER_FILE": str(users),
        }
