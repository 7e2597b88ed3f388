"""The scenarios of a single mail: a warm process, the first mail of a fresh one, and how many round trips it takes.

Warm means that everything has been imported; each mail is a task of its own with a connection of its own. Airflow 3.3
keeps a task's state: this package's ledger writes it here to a file, at no cost but its own.
"""

from __future__ import annotations

from typing import Any

from benchmarks.sending.figures import Goal, cheaper, faster, flat, more_round_trips, quicker
from benchmarks.sending.scenarios import (
    CURL,
    FEWER_ROWS,
    HOOK,
    MSMTP,
    OPERATOR,
    OURS,
    Entry,
    Scenario,
    ServerKind,
)

NO_LEDGER, OURS_HOOK, OWN_CA = "this package, no state store", "this package, hook", "this package, `ca_certificate`"
FEWER_ROWS_NO_LEDGER = "this package, 1,000 rows, no state store"
_OPERATOR = {"work": "operator"}
_OURS = {**_OPERATOR, "store": 0}


def _operator(round_trip: float, mails: int, goals: tuple[Goal, ...]) -> Scenario:
    """Return the operator in a warm process beside the stock one and curl.

    Args:
        mails: of each contender.
    """
    return Scenario(
        name=f"operator-{round_trip:g}-ms",
        title=f"Operator, warm, {round_trip:g} ms",
        round_trip=round_trip,
        side_by_side=round_trip >= 50,
        entries=(
            Entry(OURS, "ours", {**_OURS, "mails": mails}),
            *([] if round_trip else [Entry(NO_LEDGER, "ours", {**_OPERATOR, "mails": mails})]),
            Entry(OPERATOR, "stock", {**_OPERATOR, "mails": mails}),
            Entry(CURL, "curl", {"mails": max(1, mails // 8)}),
        ),
        goals=goals,
    )


def _first(
    name: str, title: str, server: ServerKind, order: dict[str, Any], goals: tuple[Goal, ...], *, stock: bool
) -> Scenario:
    """Return the first mail of a fresh task process: import, construct, execute."""
    return Scenario(
        name=f"first-{name}",
        title=f"First mail of a task process, {title}",
        server=server,
        entries=(
            Entry(OURS, "first-mail", {**order, "work": "ours", "store": 0}),
            *([] if order else [Entry(NO_LEDGER, "first-mail", {**order, "work": "ours"})]),
            *([Entry(OPERATOR, "first-mail", {**order, "work": "stock"})] if stock else []),
            Entry(CURL, "curl", order),
        ),
        goals=goals,
        rounds=3,
    )


def _trips(
    name: str, server: ServerKind, order: dict[str, Any], goals: tuple[Goal, ...], *, stock: bool = True
) -> Scenario:
    """Return how many round trips a single mail takes, beyond those of TCP and of the greeting."""
    return Scenario(
        name=f"round-trips-{name}",
        title=f"One mail and its connection, 20 ms, {name}",
        server=server,
        round_trip=20,
        entries=(
            Entry(OURS, "ours", {**order, **_OURS}),
            *([Entry(OPERATOR, "stock", {**order, **_OPERATOR})] if stock else []),
            Entry(CURL, "curl", order),
            Entry(MSMTP, "msmtp", order),
        ),
        goals=goals,
    )


_TLS, _NTLM, _KERBEROS = {"tls": True}, {"tls": True, "auth": "ntlm"}, {"tls": True, "auth": "kerberos"}
_ONE_MORE = (more_round_trips(OURS, CURL, 1),)
_HALF_MORE = (faster(OURS, OPERATOR, 1.5), *_ONE_MORE)

SINGLE_MAIL = (
    _operator(0, 160, (faster(OURS, OPERATOR, 2), cheaper(OURS, OPERATOR, 0.6))),
    _operator(5, 16, _HALF_MORE),
    _operator(50, 3, _HALF_MORE),
    Scenario(
        name="hook",
        title="Hook, warm, a connection each, 0 ms",
        entries=(
            Entry(OURS_HOOK, "ours", {"work": "hook", "mails": 300}),
            Entry(HOOK, "stock", {"work": "hook", "mails": 300}),
        ),
        goals=(faster(OURS_HOOK, HOOK, 1.8),),
    ),
    _first("plain", "no TLS", "smtp-sink", {}, (quicker(OURS, OPERATOR, 1), cheaper(OURS, OPERATOR, 1)), stock=True),
    _first(
        "starttls",
        "STARTTLS, certificate verified",
        "sink, TLS",
        _TLS,
        (quicker(OURS, OPERATOR, 0.6), cheaper(OURS, OPERATOR, 0.6)),
        stock=True,
    ),
    _first("ntlm", "STARTTLS and NTLM", "Postfix, NTLM", _NTLM, (quicker(OURS, CURL, 1.5),), stock=False),
    _first("kerberos", "STARTTLS and Kerberos", "Postfix, Kerberos", _KERBEROS, (), stock=False),
    _trips("plain", "smtp-sink", {}, _ONE_MORE),
    _trips("STARTTLS", "sink, TLS", _TLS, _ONE_MORE),
    _trips("STARTTLS-NTLM", "Postfix, NTLM", _NTLM, _ONE_MORE, stock=False),
)

# The milliseconds of an access to the task state store of Airflow 3.3 with SQLite while the machine has little to do.
# `merge-in-airflow` measures the real one, with which the merge shares the machine: 40 ms on two busy cores.
_STORE = 15
_MERGE: dict[str, Any] = {"work": "merge", "file": "", "rows": "rows.csv", "connections": 4}

LEDGER_MERGE = Scenario(
    name="merge-ledger",
    title="Merge of 100,000, 4 connections, 0 ms",
    entries=(
        Entry(OURS, "ours", {**_MERGE, "mails": 100_000, "store": _STORE}),
        Entry(NO_LEDGER, "ours", {**_MERGE, "mails": 100_000}),
        Entry(FEWER_ROWS, "ours", {**_MERGE, "mails": 1000, "store": _STORE}),
        Entry(FEWER_ROWS_NO_LEDGER, "ours", {**_MERGE, "mails": 1000}),
    ),
    goals=(faster(OURS, NO_LEDGER, 0.7), flat(OURS, FEWER_ROWS, 1)),
)
