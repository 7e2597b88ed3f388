"""Connections that fail, each for a reason that administrators meet, and the answer of *Test* to each."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_smtpcm.testing import Relay
from demo.processes import LOOPBACK, free_port

LOGIN, PASSWORD = r"CORP\alice", "P@ssw0rd-Alice"
WRONG_PASSWORD = "wrong-Password-1"

# A KDC that is reached over TCP only: it receives the request, and does not answer.
KRB5_CONF = """\
[libdefaults]
  default_realm = CORP.EXAMPLE
  dns_lookup_kdc = false
  udp_preference_limit = 1
[realms]
  CORP.EXAMPLE = {{
    kdc = {kdc}
  }}
"""


class Servers:
    """The servers of the connections.

    Args:
        windows: requires STARTTLS and Windows Authentication.
        anonymous: offers STARTTLS and no authentication.
        clear: offers neither.
        implicit: uses TLS from the start.
        silent: the port of one that accepts connections and does not answer.
    """

    def __init__(self, *, windows: Relay, anonymous: Relay, clear: Relay, implicit: Relay, silent: int) -> None:
        self.windows = windows
        self.anonymous = anonymous
        self.clear = clear
        self.implicit = implicit
        self.silent = silent


@contextmanager
def running_servers() -> Iterator[Servers]:
    """Run all of them during a block."""
    users = {LOGIN: PASSWORD}
    with ExitStack() as running:
        silent = running.enter_context(socket.create_server((LOOPBACK, 0), backlog=64))
        yield Servers(
            windows=running.enter_context(Relay(users=users)),
            anonymous=running.enter_context(Relay()),
            clear=running.enter_context(Relay(ssl_mode="none")),
            implicit=running.enter_context(Relay(users=users, ssl_mode="implicit")),
            silent=silent.getsockname()[1],
        )


def silent_kdc(folder: Path, port: int) -> Path:
    """Write a krb5.conf whose only KDC does not answer; return its path."""
    path = folder / "krb5.conf"
    path.write_text(KRB5_CONF.format(kdc=f"{LOOPBACK}:{port}"))
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault, as a change of a working connection to `server`.

    Args:
        server: an attribute of `Servers`.
        said: parts of the answer, the remedy last.
        changes: of Airflow's own fields.
        extra: settings.
    """

    server: str = "windows"
    said: tuple[str, ...]
    changes: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def connection(self, servers: Servers) -> dict[str, Any]:
        """Return the body for Airflow's API."""
        if self.server == "silent":
            made: dict[str, Any] = {"conn_type": "smtpcm", "host": "localhost", "port": servers.silent, "extra": {}}
        else:
            made = getattr(servers, self.server).airflow_connection()
        changes = {name: free_port() if value is free_port else value for name, value in self.changes.items()}
        return {**made, **changes, "extra": json.dumps({**made["extra"], **self.extra})}


ACCOUNT = {"login": LOGIN, "password": PASSWORD}

FAULTS = {
    "a wrong password": Fault(
        said=("535 5.7.3", "Check 'User name'", "'Password'"), changes={"password": WRONG_PASSWORD}
    ),
    "a closed port": Fault(said=("Connection refused", "Check 'SMTP server' and 'Port'"), changes={"port": free_port}),
    "a name that nobody knows": Fault(
        said=("'mail.corp.example' cannot be resolved", "Check 'SMTP server'"), changes={"host": "mail.corp.example"}
    ),
    "no STARTTLS": Fault(
        server="clear", said=("does not offer STARTTLS", "or to 'None'"), extra={"ssl_mode": "starttls"}
    ),
    "a private authority": Fault(said=("is not trusted", "as 'CA certificate'"), extra={"ca_certificate": None}),
    "no Windows Authentication": Fault(
        server="anonymous",
        said=("offers no authentication at all", "set Authentication to 'Anonymous'"),
        changes=ACCOUNT,
        extra={"auth_mode": "windows"},
    ),
    "implicit TLS where STARTTLS is spoken": Fault(
        said=("does not speak TLS from the start", "Set SSL to 'STARTTLS'"), extra={"ssl_mode": "implicit"}
    ),
    "STARTTLS where TLS is implicit": Fault(
        server="implicit", said=("set SSL to 'Implicit TLS'",), extra={"ssl_mode": "starttls", "timeout": 2}
    ),
    "an account at an anonymous server": Fault(
        said=("This connection cannot be used: ", "User name (login)", "leave all account fields empty"),
        extra={"auth_mode": "anonymous"},
    ),
    "an account without authentication": Fault(
        said=("User name (login) and Password (password): set, but", "choose 'Windows Authentication' to sign in"),
        extra={"auth_mode": None},
    ),
    "several settings wrong": Fault(
        said=("for 2 reasons: (1) ", "without smtp://. (2) ", "write etl@corp.example"),
        changes={"host": "smtp://mail.corp.example"},
        extra={"from_address": "nobody"},
    ),
    "a file that is not there": Fault(
        said=("/nowhere/ca.pem", "Tested on "), extra={"ca_certificate": "/nowhere/ca.pem"}
    ),
    "a server that says nothing": Fault(
        server="silent", said=("did not answer in full before the deadline", "raise 'Timeout'"), extra={"timeout": 2}
    ),
}
