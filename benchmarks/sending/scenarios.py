"""The scenarios: the work, the contenders, the server, and the goals of this package.

A run takes about a second: slower contenders send fewer mails.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.sending.figures import Goal, faster, flat, leaner, linear, memory, round_trips

OURS, FAST, OPERATOR = "this package", "this package, extra `fast`", "stock EmailOperator"
FEWER_ROWS = "this package, 1,000 rows"
HOOK, KEPT = "stock SmtpHook", "stock SmtpHook, one connection"
SOURCE, PIPELINER = "smtp-source", "C pipeliner (the limit)"
SMTPLIB, AIOSMTPLIB, NODEMAILER = "smtplib", "aiosmtplib", "nodemailer"
CURL, MSMTP = "curl, whole process", "msmtp, whole process"
_MERGE = {"work": "merge", "file": "statement.pdf", "rows": "rows.csv"}
ServerKind = Literal["smtp-sink", "sink", "sink, TLS", "Postfix", "Postfix, NTLM", "Postfix, Kerberos", "none"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender in a scenario.

    Args:
        label: in the tables.
        contender: see `Contenders`.
        order: its `Order` without the port. A `file` or `rows` is the name of one of `Files`.
        unit: how many units one mail is.
        quick: the divisor of the number of mails in a smoke run.
    """

    label: str
    contender: str
    order: dict[str, Any] = field(default_factory=dict)
    unit: float = 1
    quick: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A piece of work that contenders are compared by.

    Args:
        name: for `--only`.
        title: in the tables.
        entries: the contenders, this package first.
        goals: for this package.
        server: that receives the mails.
        round_trip: in milliseconds.
        units: what a rate counts.
        side_by_side: whether all rounds may run at once, because the contenders mostly wait.
        rounds: how many times as many rounds as usual, because a run is short.
    """

    name: str
    title: str
    entries: tuple[Entry, ...]
    goals: tuple[Goal, ...]
    server: ServerKind = "smtp-sink"
    round_trip: float = 0
    units: str = "mails/s"
    side_by_side: bool = False
    rounds: int = 1


def _kib(name: str, connections: int, round_trip: float, mails: dict[str, int], goals: tuple[Goal, ...]) -> Scenario:
    who = {OURS: "ours", OPERATOR: "stock", HOOK: "stock", SMTPLIB: "smtplib", AIOSMTPLIB: "aiosmtplib"}
    who |= {NODEMAILER: "nodemailer", SOURCE: "smtp-source", PIPELINER: "pipeliner"}
    works = {OPERATOR: "operator", HOOK: "hook"}
    return Scenario(
        name=name,
        title=f"1 KiB, {connections} connection{'s' if connections > 1 else ''}, {round_trip:g} ms",
        round_trip=round_trip,
        entries=tuple(
            Entry(
                label,
                who[label],
                {"work": works.get(label, "send"), "mails": count, "connections": connections},
                # A few mails for each connection make a run of about a second, which is mostly waiting.
                quick=10 if not round_trip or count < 10 * connections else 4,
            )
            for label, count in mails.items()
        ),
        goals=goals,
    )


def _recipients(number: int, slow: int, goals: tuple[Goal, ...]) -> Scenario:
    """Return the entries for few mails over one connection.

    Args:
        slow: number of mails of the contenders that wait for the reply to each recipient.
    """
    some, few = {"recipients": number, "mails": 10}, {"recipients": number, "mails": slow}
    return Scenario(
        name=f"recipients-{number}",
        title=f"{number} recipient{'s' if number > 1 else ''} a mail, 50 ms",
        round_trip=50,
        side_by_side=True,
        entries=(
            Entry(OURS, "ours", some, quick=1),
            Entry(OPERATOR, "stock", {**few, "work": "operator"}, quick=1),
            Entry(SMTPLIB, "smtplib", few, quick=1),
            Entry(NODEMAILER, "nodemailer", some, quick=1),
            Entry(SOURCE, "smtp-source", few, quick=1),
        ),
        goals=goals,
    )


def _file(mib: int) -> dict[str, Any]:
    return {"work": "attach", "file": f"{mib}-mib.bin"}


SCENARIOS = (
    _kib(
        "one-connection",
        1,
        0,
        {OURS: 12000, OPERATOR: 200, HOOK: 300, SMTPLIB: 400, AIOSMTPLIB: 400, NODEMAILER: 700, SOURCE: 4000}
        | {PIPELINER: 15000},
        (faster(OURS, OPERATOR, 20), faster(OURS, SOURCE, 2.5), leaner(OURS, OPERATOR, 25)),
    ),
    _kib(
        "four-connections",
        4,
        0,
        {OURS: 20000, OPERATOR: 200, AIOSMTPLIB: 400, NODEMAILER: 800, SOURCE: 10000, PIPELINER: 30000},
        (faster(OURS, OPERATOR, 50), faster(OURS, SOURCE, 1)),
    ),
    _kib(
        "sixteen-connections-5-ms",
        16,
        5,
        {OURS: 2880, OPERATOR: 24, SMTPLIB: 40, AIOSMTPLIB: 400, NODEMAILER: 960, SOURCE: 800, PIPELINER: 2880},
        (
            faster(OURS, OPERATOR, 100),
            faster(OURS, SOURCE, 3.5),
            faster(OURS, PIPELINER, 0.85),
            round_trips(OURS, 1.1),
        ),
    ),
    _kib(
        "sixteen-connections-50-ms",
        16,
        50,
        {OURS: 640, OPERATOR: 4, SMTPLIB: 6, AIOSMTPLIB: 80, NODEMAILER: 160, SOURCE: 96, PIPELINER: 640},
        (faster(OURS, OPERATOR, 90),),
    ),
    _recipients(1, 10, ()),
    _recipients(100, 1, ()),
    _recipients(500, 1, (faster(OURS, OPERATOR, 200),)),
    Scenario(
        name="one-mail",
        title="One mail to 500 recipients and its connection, 50 ms",
        round_trip=50,
        side_by_side=True,
        entries=tuple(
            Entry(label, who, {"recipients": 500, "work": work})
            for label, who, work in (
                (OURS, "ours", "send"),
                (OPERATOR, "stock", "operator"),
                (NODEMAILER, "nodemailer", "send"),
            )
        ),
        goals=(),
    ),
    Scenario(
        name="tls",
        title="1 KiB over TLS 1.3, certificate verified, one connection",
        server="sink, TLS",
        entries=(
            Entry(OURS, "ours", {"mails": 6000, "tls": True}),
            Entry(HOOK, "stock", {"work": "hook", "mails": 25, "tls": True}, quick=5),
            Entry(KEPT, "stock", {"work": "kept", "mails": 400, "tls": True}),
            Entry(SMTPLIB, "smtplib", {"mails": 400, "tls": True}),
            Entry(AIOSMTPLIB, "aiosmtplib", {"mails": 300, "tls": True}),
            Entry(NODEMAILER, "nodemailer", {"mails": 500, "tls": True}),
        ),
        goals=(faster(OURS, HOOK, 150),),
    ),
    Scenario(
        name="postfix",
        title="1 KiB into Postfix with a synced queue, 16 connections",
        server="Postfix",
        entries=(
            Entry(OURS, "ours", {"mails": 1200, "connections": 16}),
            Entry(OPERATOR, "stock", {"work": "operator", "mails": 120}),
            Entry(NODEMAILER, "nodemailer", {"mails": 500, "connections": 16}),
            Entry(SOURCE, "smtp-source", {"mails": 1000, "connections": 16}),
        ),
        goals=(faster(OURS, OPERATOR, 5), faster(OURS, SOURCE, 1.2)),
    ),
    Scenario(
        name="merge-generation",
        title="Merge with a shared 20 KiB attachment: making the mails, no network",
        server="none",
        entries=(
            Entry(OURS, "ours", {**_MERGE, "work": "generate", "mails": 5000}),
            Entry(HOOK, "stock", {**_MERGE, "work": "generate", "mails": 400}),
        ),
        goals=(leaner(OURS, HOOK, 12),),
    ),
    Scenario(
        name="merge",
        title="Merge of 10,000 with a shared 20 KiB attachment, 4 connections",
        entries=(
            Entry(OURS, "ours", {**_MERGE, "mails": 10000, "connections": 4}),
            Entry(FEWER_ROWS, "ours", {**_MERGE, "mails": 1000, "connections": 4}),
            Entry(OPERATOR, "stock", {**_MERGE, "mails": 150}),
            Entry(NODEMAILER, "nodemailer", {**_MERGE, "mails": 500, "connections": 4}),
        ),
        goals=(faster(OURS, OPERATOR, 20), flat(OURS, FEWER_ROWS, 2)),
    ),
    Scenario(
        name="attachment",
        title="100 MiB attachment",
        server="sink",
        units="MiB/s",
        entries=(
            Entry(OURS, "ours", _file(100), unit=100),
            Entry(FAST, "ours", {**_file(100), "fast": True}, unit=100),
            Entry(OPERATOR, "stock", {**_file(100), "work": "operator"}, unit=100),
            Entry(SMTPLIB, "smtplib", _file(100), unit=100),
            Entry(NODEMAILER, "nodemailer", _file(100), unit=100),
        ),
        goals=(faster(OURS, OPERATOR, 12), faster(FAST, OPERATOR, 18), memory(OURS, 4), memory(FAST, 4)),
    ),
    Scenario(
        name="attachment-sizes",
        title="10 MiB to 1 GiB attachment",
        server="sink",
        units="MiB/s",
        entries=(
            Entry("1 GiB", "ours", _file(1024), unit=1024),
            Entry("100 MiB", "ours", _file(100), unit=100),
            Entry("10 MiB", "ours", _file(10), unit=10),
            Entry("1 GiB, BINARYMIME", "ours", {**_file(1024), "binary": True}, unit=1024),
            Entry("100 MiB, BINARYMIME", "ours", {**_file(100), "binary": True}, unit=100),
        ),
        goals=(
            memory("1 GiB", 4),
            memory("1 GiB, BINARYMIME", 4),
            linear("1 GiB", "100 MiB", 1.25),
            linear("1 GiB", "10 MiB", 1.25),
        ),
    ),
)
