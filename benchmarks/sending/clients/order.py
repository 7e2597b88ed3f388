"""What a contender is told to do, what it answers, and the mails that all Python contenders make. Knows no client."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

HOST = "127.0.0.1"
SENDER = "etl@corp.example"
CONNECTION_ID = "bench"
_LINE = "The quick brown fox jumps over the lazy dog and runs off home again.\n"

# A merge: what stands in every mail, over a row with `name`, `address` and `amount`.
SUBJECT_TEMPLATE = "Statement for {{ row.name }}"
HTML_TEMPLATE = """\
<html><body><p>Dear {{ row.name }},</p><p>your balance is {{ row.amount }}. The last movements:</p><table>
{% for n in range(1, 11) %}<tr><td>{{ n }}</td><td>{{ row.name }}</td><td>{{ row.amount }}</td></tr>
{% endfor %}</table><p>Yours,<br>the treasury</p></body></html>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One run.

    Args:
        work: what to do; each client names what it can in its `WORKS`.
        port: of the server, on loopback.
        mails, connections, recipients: how many.
        octets: of the text of each mail.
        tls: whether to insist on STARTTLS and a certificate that holds.
        file: the path of an attachment.
        rows: the path of a CSV file, for a merge.
        binary: whether the file may go as it is (BINARYMIME).
        fast: whether the extra `fast` is there.
    """

    work: str = "send"
    port: int = 0
    mails: int = 1
    connections: int = 1
    recipients: int = 1
    octets: int = 1024
    tls: bool = False
    file: str = ""
    rows: str = ""
    binary: bool = False
    fast: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run took.

    Args:
        sent: mails that the server accepted, as the client saw it.
        wall, cpu: seconds; `cpu` is user and system, of all threads.
        peak: octets of memory above what the process held before, at the most; None: not known.
        turns: how often a client spoke after its server had spoken; None: nobody counted.
    """

    sent: int
    wall: float
    cpu: float
    peak: int | None
    turns: int | None = None


def addresses(order: Order, number: int) -> list[str]:
    """The recipients of a mail; no two mails go to the same."""
    if order.recipients == 1:
        return [f"user{number}@corp.example"]
    return [f"user{number}.{n}@corp.example" for n in range(order.recipients)]


def text(order: Order, number: int) -> str:
    """The text of a mail; no two mails have the same."""
    first = f"Mail {number}\n"
    body = _LINE * (order.octets // len(_LINE) + 1)
    return first + body[: order.octets - len(first) - 1] + "\n"


def rows(order: Order) -> Iterator[dict[str, Any]]:
    """The rows of a merge, as the standard library reads them."""
    import csv

    with open(order.rows, encoding="utf-8", newline="") as file:  # noqa: PTH123 - a string it is
        yield from islice(csv.DictReader(file), order.mails)
