"""Tasks that are run and retried as Airflow does, and what the package guarantees, whatever goes wrong."""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest

from airflow_provider_smtpcm.operators._task import AirflowException, AirflowFailException
from airflow_provider_smtpcm.operators.mail_merge import MailMergeOperator
from airflow_provider_smtpcm.operators.send_mail import SendMailOperator
from tests.ledger.stores import Memory
from tests.operators.tasks import context
from tests.torture.faulty_relay import TIMEOUT, Fault, FaultyRelay, loses_an_answer
from tests.waiting import PATIENCE

RETRIES = 2
# The first wait of the backoff, in seconds.
_WAIT = 0.005
_GOT_IT = re.compile(r" for (?P<who>[^:]*?), who will receive it")


def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten all waits."""
    monkeypatch.setattr("airflow_provider_smtpcm.smtp.session.QUIT_TIMEOUT", TIMEOUT)
    monkeypatch.setattr("airflow_provider_smtpcm.smtp.retry.FIRST_WAIT", _WAIT)
    monkeypatch.setattr("airflow_provider_smtpcm.smtp.throttling.FIRST_PAUSE", _WAIT)
    monkeypatch.setattr("airflow_provider_smtpcm.ledger.record._RETRY_DELAYS", (_WAIT, _WAIT))


class Accessor(Memory):
    """The task state store as a task gets it from Airflow.

    Args:
        outage: the first write that fails, from 1, and how many do.
    """

    def __init__(self, outage: tuple[int, int] | None = None) -> None:
        super().__init__()
        self._outage = outage
        self._writes = 0
        #: Whether one failed.
        self.failed = False

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:  # noqa: ARG002
        """As `TaskStateStoreAccessor.set` has it."""
        self._writes += 1
        if self._outage is not None and 0 <= self._writes - self._outage[0] < self._outage[1]:
            self.failed = True
            raise ConnectionError("the API server is away")
        super().set(key, value)


class Ended(StrEnum):
    """How an attempt ended."""

    SUCCESS = "success"
    RETRY = "failed, to be tried again"
    FAILED = "failed for good"


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt of a task.

    Args:
        ended: how.
        result: its XCom, if there is one.
        said: its error.
        seconds: how long it took.
    """

    ended: Ended
    result: Mapping[str, Any] | None
    said: str = ""
    seconds: float = 0


@dataclass(frozen=True, slots=True)
class Told:
    """What a task reports about one mail."""

    outcome: str
    accepted: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)
    message_id: str | None = None


@dataclass(kw_only=True)
class Job:
    """One task, and its mails.

    Args:
        relay: where they go to.
        folder: where the report goes to.
        rows: how many rows; None: it is a SendMailOperator.
        recipients: of each mail.
        store: the ledger's; None: this Airflow has none.
        retry_for, connections, ledger_window, on_refused, on_unknown: see the operators.
        text: of each mail.
    """

    relay: FaultyRelay
    folder: Path
    rows: int | None
    recipients: int = 2
    store: Any = None
    retry_for: float = 0
    connections: int = 1
    ledger_window: int | None = None
    on_refused: Literal["fail", "warn"] = "fail"
    on_unknown: Literal["fail", "retry"] = "fail"
    text: str = "x"
    tries: list[Try] = field(default_factory=list)

    def __post_init__(self) -> None:
        # On a busy machine a short time limit may end a session with a relay that is merely slow.
        self._define_connection(TIMEOUT if self.relay.falls_silent else PATIENCE)

    def _define_connection(self, timeout: float) -> None:
        """With these time limits, in seconds."""
        extra = {"ssl_mode": "none", "timeout": timeout, "final_reply_timeout": timeout}
        connection = {"conn_type": "smtpcm", "host": "127.0.0.1", "port": self.relay.port, "extra": extra}
        os.environ[f"AIRFLOW_CONN_{self._conn_id.upper()}"] = json.dumps(connection)

    def repair(self) -> None:
        """From now on nothing goes wrong, so the limits can be generous."""
        self.relay.repair()
        self._define_connection(PATIENCE)

    @property
    def _conn_id(self) -> str:
        return f"torture_{self.relay.port}"

    @property
    def report(self) -> Path:
        """The file that gets a line for each row."""
        return self.folder / f"{self.relay.port}.jsonl"

    @property
    def mails(self) -> list[list[str]]:
        """The recipients of each mail; none is a recipient of two mails."""
        numbers = range(1, (self.rows or 1) + 1)
        return [[f"{chr(97 + at)}{number}@corp.example" for at in range(self.recipients)] for number in numbers]

    def operator(self) -> SendMailOperator | MailMergeOperator:
        """The task as a process of Airflow's builds it: a new one for each attempt."""
        shared: dict[str, Any] = {
            "task_id": "send",
            "smtpcm_conn_id": self._conn_id,
            "from_address": "etl@corp.example",
            "subject": "Report",
            "text": self.text,
            "retry_for": self.retry_for,
            "on_refused": self.on_refused,
            "on_unknown": self.on_unknown,
        }
        if self.rows is None:
            return SendMailOperator(to=self.mails[0], **shared)
        return MailMergeOperator(
            rows=[{"to": "; ".join(to), "number": number} for number, to in enumerate(self.mails, 1)],
            to="{{ row.to }}",
            row_key="{{ row.number }}",
            report_file=str(self.report),
            connections=self.connections,
            ledger_window=self.ledger_window,
            **shared,
        )

    def run(self, *, tries: int = RETRIES + 1) -> None:
        """Run it up to this many times, while Airflow would retry; after earlier attempts, clearing does the same."""
        most = len(self.tries) + tries
        for _ in range(tries):
            self.tries.append(self._try(len(self.tries) + 1, most))
            if self.last.ended is not Ended.RETRY:
                return

    @property
    def last(self) -> Try:
        """The last attempt."""
        return self.tries[-1]

    def _try(self, number: int, most: int) -> Try:
        surroundings = context(try_number=number, max_tries=most - 1)
        if self.store is not None:
            surroundings["task_state_store"] = self.store
        pushed = surroundings["ti"].pushed
        began = time.monotonic()
        try:
            result: Mapping[str, Any] = self.operator().execute(surroundings)
        except AirflowFailException as error:
            return Try(Ended.FAILED, pushed.get("return_value"), str(error), time.monotonic() - began)
        except AirflowException as error:
            return Try(Ended.RETRY, pushed.get("return_value"), str(error), time.monotonic() - began)
        return Try(Ended.SUCCESS, result, "", time.monotonic() - began)

    def told(self) -> list[Told | None]:
        """The last report about each mail; None for one that was forgotten."""
        if self.rows is None:
            return [self._told_of_one()]
        said: dict[int, Told] = {}
        for line in self.report.read_text().splitlines() if self.report.exists() else ():
            entry = json.loads(line)
            accepted = frozenset(entry["accepted"])
            said[entry["row"]] = Told(entry["outcome"], accepted, entry["refused"], entry["message_id"])
        return [said.get(number) for number in range(1, self.rows + 1)]

    def _told_of_one(self) -> Told:
        result, text = self.last.result, self.last.said
        if result is not None:
            return Told(result["outcome"], frozenset(result["accepted"]), result["refused"], result["message_id"])
        if "may have been delivered" in text:
            return Told("unknown")
        got_it = _GOT_IT.search(text)
        if got_it is not None:
            return Told("partial", frozenset(to for to in self.mails[0] if to in got_it["who"]))
        return Told("refused" if "refused" in text else "not_sent")


def broken_promises(job: Job) -> list[str]:
    """What violates the guarantees, after all attempts."""
    told = job.told()
    wrong = [f"nothing is said of mail {number}" for number, one in enumerate(told, 1) if one is None]
    for recipients, one in zip(job.mails, told, strict=True):
        if one is not None:
            wrong += _of_one(job, recipients, one)
    said = [one for one in told if one is not None]
    wrong += _of_the_state(job, said)
    if job.rows is not None and job.last.result is not None:
        numbers = {name: number for name, number in job.last.result["counts"].items() if number}
        if numbers != {"rows": job.rows, **Counter(one.outcome for one in said)}:
            wrong.append(f"the result says {numbers}")
    return wrong


def without_reason(job: Job) -> list[str]:
    """What was reported as worse than it was; called once the relay has ended, since the relay knows what happened."""
    relay, wrong = job.relay, []
    if _store_failed(job):
        return []
    lost_answers = sum(times for planned, times in relay.happened.items() if loses_an_answer(planned))
    unknown = sum(one is not None and one.outcome == "unknown" for one in job.told())
    if unknown > lost_answers + relay.deserted:
        wrong.append(f"{unknown} mails are unknown, since {lost_answers} answers did not come")
    harmless = not {planned.fault for planned in relay.happened} - {Fault.SLOW}
    # On a busy machine a time limit may pass although the relay did not cause it.
    if harmless and job.tries[0].ended is not Ended.SUCCESS and job.tries[0].seconds < TIMEOUT:
        wrong.append("nothing went wrong, and yet it failed")
    return wrong


def not_mended(job: Job) -> list[str]:
    """Which mails no one has, and may have, after the fault was fixed and the task cleared."""
    return [
        f"lost: {recipients}, {one}"
        for recipients, one in zip(job.mails, job.told(), strict=True)
        if one is None or (one.outcome not in ("accepted", "unknown") and not one.accepted)
    ]


def counts(job: Job, wrong: Sequence[str]) -> dict[str, int]:
    """What the tally counts; a copy that `on_unknown` requested is no duplicate."""
    copies = [job.relay.copies(to) for recipients in job.mails for to in recipients]
    return {
        "schedules run": 1,
        "faults tried": job.relay.happened.total(),
        "copies stored": sum(copies),
        "lost": sum("lost" in one for one in wrong),
        "doubled": sum(copy - 1 for copy in copies if copy) if job.on_unknown == "fail" else 0,
    }


def _store_failed(job: Job) -> bool:
    return isinstance(job.store, Accessor) and job.store.failed


def _of_one(job: Job, recipients: list[str], one: Told) -> list[str]:
    copies = {to: job.relay.copies(to) for to in recipients}
    ids = {message_id for message_id, to in job.relay.stored if to in copies}
    wrong: list[str] = []
    if max(copies.values()) > 1 and job.on_unknown == "fail":
        wrong.append(f"doubled: {copies}")
    if len(ids) > 1 or not ids <= ({one.message_id} if one.message_id else ids):
        wrong.append(f"several Message-IDs: {ids}, {one.message_id}")
    if one.outcome == "accepted" and not set(recipients) <= one.accepted:
        wrong.append(f"accepted for {set(one.accepted)} only")
    for to, number in copies.items():
        if number == 0 and to in one.accepted:
            wrong.append(f"lost: {to}")
        if number and to not in one.accepted and one.outcome != "unknown":
            wrong.append(f"{to} has a copy and is said not to ({one.outcome})")
    return wrong


def _everybody_was_asked(recipients: list[str], one: Told) -> bool:
    """A warning is about refused recipients; those not attempted are pending."""
    return one.outcome != "partial" or set(recipients) <= {*one.accepted, *one.refused}


def _of_the_state(job: Job, said: list[Told]) -> list[str]:
    wrong: list[str] = []
    tolerated = ("accepted", "partial", "refused") if job.on_refused == "warn" else ("accepted",)
    done = all(one.outcome in tolerated for one in said) and any(one.accepted for one in said)
    asked = zip(job.mails, job.told(), strict=True)
    done = done and all(one is None or _everybody_was_asked(recipients, one) for recipients, one in asked)
    if done is not (job.last.ended is Ended.SUCCESS) and not _store_failed(job):
        wrong.append(f"the task is {job.last.ended}, and {Counter(one.outcome for one in said)}")
    faults = {planned.fault for planned in job.relay.happened}
    if job.last.ended is Ended.FAILED and not faults & {Fault.PERMANENT, Fault.GARBLE}:
        # A transient failure is retried, as long as that delivers nothing twice.
        outcomes = {one.outcome for one in said}
        left = outcomes - {*tolerated, "unknown"}
        if left and (job.store is not None or outcomes <= {"not_sent", "refused"}):
            wrong.append(f"the task is not tried again, and {Counter(one.outcome for one in said)}")
    return wrong
