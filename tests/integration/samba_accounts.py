"""Adds accounts to a Samba domain that does not run. For the system's Python, which has Samba's library.

Arguments: smb.conf and a file of JSON: `users` (name to password), `upns` (name to UPN), `upn_suffix`, `base` (the
domain's DN), `service` (SPN and name of its account), and `keytabs` (path to principals).
"""

import base64
import json
import sys
from pathlib import Path

import samba.dckeytab  # noqa: F401 - adds `export_keytab`
from samba.auth import system_session
from samba.net import Net
from samba.param import LoadParm
from samba.samdb import SamDB

AES = 24  # msDS-SupportedEncryptionTypes of 128 and 256 bits; else the service's keytab would have RC4 alone

parameters = LoadParm()
parameters.load(sys.argv[1])
accounts = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
database = SamDB(session_info=system_session(), lp=parameters)
base = accounts["base"]


def change(dn: str, action: str, name: str, value: object) -> None:
    """Add to, or replace, an attribute."""
    attribute = name.rstrip(":")  # with a colon behind its name, the value is base64
    database.modify_ldif(f"dn: {dn}\nchangetype: modify\n{action}: {attribute}\n{name}: {value}\n")


database.set_pwdProperties("0")  # no complexity
database.set_minPwdAge("0")
change(base, "replace", "lockoutThreshold", 100)  # without one, wrong passwords are not counted
for user, password in accounts["users"].items():
    database.newuser(user, password.encode("utf-8", "replace").decode())
    if "\ud800" in password:  # as the domain sets that of a managed service account
        raw = base64.b64encode(password.encode("utf-16-le", "surrogatepass")).decode()
        change(f"CN={user},CN=Users,{base}", "replace", "clearTextPassword:", raw)
change(f"CN=Partitions,CN=Configuration,{base}", "add", "uPNSuffixes", accounts["upn_suffix"])
for user, upn in accounts["upns"].items():
    change(f"CN={user},CN=Users,{base}", "replace", "userPrincipalName", upn)
spn, user = accounts["service"]
change(f"CN={user},CN=Users,{base}", "replace", "msDS-SupportedEncryptionTypes", AES)
database.setpassword(f"(sAMAccountName={user})", accounts["users"][user])
change(f"CN={user},CN=Users,{base}", "add", "servicePrincipalName", spn)
for path, principals in accounts["keytabs"].items():
    for principal in principals:
        Net(None, parameters).export_keytab(keytab=path, principal=principal)
