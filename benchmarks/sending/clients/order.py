"""The order for a contender, its figures, and the mails that all Python contenders send."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

HOST = "127.0.0.1"
SENDER = "etl@corp.example"
CONNECTION_ID = "bench"
_CONNECTION = f"AIRFLOW_CONN_{CONNECTION_ID.upper()}"
_LINE = "The quick brown fox jumps over the lazy dog and runs off home again.\n"

# The bodies of a merge, whose rows have `name`, `address` and `amount`.
SUBJECT_TEMPLATE = "Statement for {{ row.name }}"
HTML_TEMPLATE = """\
<html><body><p>Dear {{ row.name }},</p><p>your balance is {{ row.amount }}. The last movements:</p><table>
{% for n in range(1, 11) %}<tr><td>{{ n }}</td><td>{{ row.name }}</td><td>{{ row.amount }}</td></tr>
{% endfor %}</table><p>Yours,<br>the treasury</p></body></html>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One run of a contender.

    Args:
        work: what to do; a key of the client's `WORKS`.
        host, port: of the server, which is on loopback.
        mails, connections, recipients: how many.
        octets: of the text of each mail.
        tls: whether to require STARTTLS and a trusted certificate.
        ca: the path of the CA certificate to trust; empty: the system's.
        auth: `ntlm` or `kerberos`; empty: none.
        login, password: of the account.
        ccache, krb5_conf: of Kerberos.
        store: the milliseconds of an access to the task's state store; None: there is none, as before Airflow 3.3.
        file: the path of an attachment.
        rows: the path of a CSV file, for a merge.
        binary: whether the file may be sent unencoded (BINARYMIME).
        fast: whether the extra `fast` is available.
    """

    work: str = "send"
    host: str = HOST
    port: int = 0
    mails: int = 1
    connections: int = 1
    recipients: int = 1
    octets: int = 1024
    tls: bool = False
    ca: str = ""
    auth: str = ""
    login: str = ""
    password: str = ""
    ccache: str = ""
    krb5_conf: str = ""
    store: float | None = None
    file: str = ""
    rows: str = ""
    binary: bool = False
    fast: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The figures of one run.

    Args:
        sent: mails that the server accepted, as seen by the client.
        wall, cpu: seconds; `cpu` is user and system time of all threads.
        peak: largest increase of memory, in octets; None: unknown.
        turns: round trips; None: not counted.
        steps: wall and CPU seconds of each step of the work, if it has any.
    """

    sent: int
    wall: float
    cpu: float
    peak: int | None
    turns: int | None = None
    steps: dict[str, tuple[float, float]] | None = None


def smtpcm_environment(order: Order) -> dict[str, str]:
    """Return the environment with the Airflow connection of this package."""
    extra: dict[str, Any] = {"ssl_mode": "starttls" if order.tls else "none", "from_address": SENDER}
    if order.ca:
        extra["ca_certificate"] = order.ca
    if order.auth:
        extra |= {"auth_mode": "windows", "windows_protocol": order.auth}
    if order.ccache:
        extra["ccache"] = order.ccache
    if order.binary:
        extra["binary_mime"] = True
    connection = {"conn_type": "smtpcm", "host": order.host, "port": order.port, "extra": extra}
    if order.login:
        connection |= {"login": order.login, "password": order.password}
    kerberos = {"KRB5_CONFIG": order.krb5_conf} if order.krb5_conf else {}
    return {_CONNECTION: json.dumps(connection)} | kerberos


def smtp_environment(order: Order) -> dict[str, str]:
    """Return the environment with the connection of Airflow's own SMTP provider."""
    extra = {"from_email": SENDER, "disable_ssl": True, "disable_tls": not order.tls}
    connection = {"conn_type": "smtp", "host": order.host, "port": order.port, "extra": extra}
    return {_CONNECTION: json.dumps(connection)}


def addresses(order: Order, number: int) -> list[str]:
    """Return the recipients of a mail; they differ from mail to mail."""
    if order.recipients == 1:
        return [f"user{number}@corp.example"]
    return [f"user{number}.{n}@corp.example" for n in range(order.recipients)]


def text(order: Order, number: int) -> str:
    """Return the text of a mail; it differs from mail to mail."""
    first = f"Mail {number}\n"
    body = _LINE * (order.octets // len(_LINE) + 1)
    return first + body[: order.octets - len(first) - 1] + "\n"


def rows(order: Order) -> Iterator[dict[str, Any]]:
    """Yield the rows of a merge, read by the standard library."""
    import csv

    with open(order.rows, encoding="utf-8", newline="") as file:  # noqa: PTH123 - the path is a str
        yield from islice(csv.DictReader(file), order.mails)
