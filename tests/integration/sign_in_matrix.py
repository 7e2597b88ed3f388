"""Every way to sign in to the real servers, as data: server, mechanism, TLS, credential, and the expected user.

The tests run every cell; `make matrix` has them write the table into the documents.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/servers.md"
BEGIN = "<!-- sign-in table: every cell is a test that ran; `make matrix` runs them and updates it -->\n"
END = "<!-- end of the sign-in table -->\n"

TLS = {"starttls": "STARTTLS", "implicit": "implicit", "none": "none"}
# The name of each credential in the table; the page says what it stands for.
KERBEROS = {
    "password": "UPN",
    "netbios": "NetBIOS name",
    "non-ASCII": "non-ASCII",
    "keytab": "keytab",
    "ccache": "cache",
    "own ccache": "`KRB5CCNAME`",
    "own keytab": "`KRB5_CLIENT_KTNAME`",
}
NTLM = {"password": KERBEROS["netbios"], "own file": "`NTLM_USER_FILE`"}
# What only a directory has.
DIRECTORY = {
    "sharp s": "sharp s",
    "UPN": "UPN suffix",
    "UPN ccache": "UPN suffix in a cache",
    "hashes": "hash-like password",
}
IDENTITY = {
    "keytab": "svc-etl@CORP.EXAMPLE",
    "own keytab": "svc-etl@CORP.EXAMPLE",
    "non-ASCII": "jürgen@CORP.EXAMPLE",
    "sharp s": "groß@CORP.EXAMPLE",
    "UPN": "carol@CORP.EXAMPLE",
    "UPN ccache": "carol@CORP.EXAMPLE",
    "hashes": "hash@CORP.EXAMPLE",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A way to sign in.

    Args:
        server: which of the servers.
        port: the attribute that has its port.
        ssl_mode: of the connection.
        mechanism: that is expected to be used.
        protocol: the connection's `windows_protocol`.
        credential: a key of `KERBEROS`, `NTLM` or `DIRECTORY`.
    """

    server: str
    port: str
    ssl_mode: str
    mechanism: str
    protocol: str
    credential: str

    def __str__(self) -> str:
        return f"{self.server}, {self.mechanism} ({self.protocol}), {TLS[self.ssl_mode]}, {self.credential}"


#: The package's relay with the personality of an Exchange, and its Extended Protection.
RELAY = "embedded relay as Exchange, Extended Protection"

# Server: its ports by TLS mode, and its mechanisms by protocol.
_SERVERS = {
    "Postfix, Cyrus SASL": ({"starttls": "starttls_port", "implicit": "implicit_port"}, {"ntlm": "NTLM"}),
    "Postfix, MIT Kerberos": (
        {"starttls": "starttls_port", "implicit": "implicit_port", "none": "plain_port"},
        {"kerberos": "GSSAPI", "ntlm": "GSS-SPNEGO"},
    ),
    "Postfix, MIT Kerberos, only GSSAPI": ({"starttls": "gssapi_only_port"}, {"kerberos": "GSSAPI", "ntlm": "GSSAPI"}),
    "Postfix, MIT Kerberos, only GSS-SPNEGO": (
        {"starttls": "spnego_only_port"},
        {"kerberos": "GSS-SPNEGO", "ntlm": "GSS-SPNEGO"},
    ),
    "bindings required (Exchange's list)": (
        {"starttls": "port", "implicit": "port"},
        {"kerberos": "GSSAPI", "ntlm": "NTLM"},
    ),
    "bindings required, layer in SPNEGO": ({"starttls": "port"}, {"kerberos": "GSS-SPNEGO", "ntlm": "GSS-SPNEGO"}),
    **{
        f"{RELAY} {policy}": ({"starttls": "port"}, {"kerberos": "GSSAPI", "ntlm": "NTLM"})
        for policy in ("off", "allow", "require")
    },
}


def directory_cells() -> list[Cell]:
    """Return the ways into a server in an Active Directory, which is Samba's."""
    credentials = {
        "kerberos": ("password", "netbios", "non-ASCII", "keytab", "ccache", *DIRECTORY),
        "ntlm": ("password", "non-ASCII", "sharp s", "UPN", "hashes"),
    }
    return [
        Cell(
            server="Active Directory (Samba)",
            port="port",
            ssl_mode="starttls",
            mechanism={"kerberos": "GSSAPI", "ntlm": "NTLM"}[protocol],
            protocol=protocol,
            credential=credential,
        )
        for protocol, names in credentials.items()
        for credential in names
    ]


def cells() -> list[Cell]:
    """Return those into all other servers."""
    return [
        Cell(server=server, port=port, ssl_mode=ssl_mode, mechanism=mechanism, protocol=protocol, credential=credential)
        for server, (ports, mechanisms) in _SERVERS.items()
        for ssl_mode, port in ports.items()
        for protocol, mechanism in mechanisms.items()
        for credential in (KERBEROS if protocol == "kerberos" else NTLM)
    ]


def table(passed: dict[Cell, str]) -> str:
    """Return the table of the cells that ran: a row for server and mechanism, with each account that was recorded."""
    names = {**NTLM, **KERBEROS, **DIRECTORY}
    rows: dict[tuple[str, str], dict[str, list[str]]] = {}
    modes: dict[tuple[str, str], list[str]] = {}
    for cell, identity in passed.items():
        inside = "" if cell.mechanism == "NTLM" else f" ({'Kerberos' if cell.protocol == 'kerberos' else 'NTLM'})"
        place = (cell.server, cell.mechanism + inside)
        if TLS[cell.ssl_mode] not in modes.setdefault(place, []):
            modes[place].append(TLS[cell.ssl_mode])
        # By password, the tests of NTLM sign in with the NetBIOS name.
        credential = "netbios" if cell.protocol == "ntlm" and cell.credential == "password" else cell.credential
        # Postfix replaces a backslash; a UPN has no domain before it.
        account = re.sub(r"^(CORP)?[\\?]", "", identity.partition("@")[0])
        credentials = rows.setdefault(place, {}).setdefault(account, [])
        if names[credential] not in credentials:
            credentials.append(names[credential])
    lines = ["| server | mechanism: TLS | recorded account (credentials) |", "|---|---|---|"]
    for place, recorded in rows.items():
        accounts = "; ".join(f"`{account}` ({', '.join(credentials)})" for account, credentials in recorded.items())
        lines.append(f"| {place[0]} | {place[1]}: {', '.join(modes[place])} | {accounts} |")
    return "\n".join(lines) + "\n"


def write(passed: dict[Cell, str]) -> None:
    """Write the table into its page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table(passed)}\n{END}{after}", encoding="utf-8")
