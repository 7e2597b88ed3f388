"""Merges through a real Postfix that refuses some recipients or is stopped; and through a sink with faults."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_smtpcm.errors import (
    ConnectError,
    ConnectionLostError,
    MailError,
    NoAnswerError,
    OutcomeUnknownError,
    RefusedError,
)
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.operators._task import AirflowException, AirflowFailException
from tests.integration.faulty_postfix import FaultyPostfix
from tests.integration.programs import absent
from tests.integration.sink import Sink
from tests.integration.system_packages import skip_for_want_of, skip_unless_root
from tests.ledger.stores import Memory
from tests.operators.merges import merge
from tests.operators.tasks import context
from tests.torture.hooks import hook_for
from tests.torture.tally import TALLY

log = logging.getLogger(__name__)

pytestmark = pytest.mark.slow

TOPIC = "Postfix' own faults"
CONNECTIONS = 2
#: The shortest time that a connection's settings allow.
SINK_SECONDS = 1
_TO = re.compile(rb"^Delivered-To: (.*)\r$", re.MULTILINE)
_QUEUE_ID = re.compile(rb"^\tby mail\.corp\.example .*with ESMTP id (\w+)\r$", re.MULTILINE)
SOFT, HARD = "450 4.2.1 busy for a while", "550 5.1.1 gone for good"


@pytest.fixture(scope="module")
def running_postfix() -> Iterator[FaultyPostfix]:
    """One for all tests here."""
    if missing := FaultyPostfix.missing():
        skip_for_want_of(missing)
    skip_unless_root("Postfix")
    with FaultyPostfix() as server:
        yield server


@pytest.fixture
def postfix(running_postfix: FaultyPostfix, monkeypatch: pytest.MonkeyPatch) -> FaultyPostfix:
    """Postfix behind the default connection, with an empty mailbox and an empty access map."""
    running_postfix.clear()
    running_postfix.access.actions.clear()
    running_postfix.access.asked.clear()
    connection = running_postfix.airflow_connection(timeout=60)
    monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(connection))
    return running_postfix


class Store(Memory):
    """Like Airflow's accessor, which is given the retention."""

    def set(self, key: str, value: Any, *, retention: object = None) -> None:  # noqa: ARG002
        super().set(key, value)


@dataclass
class Task:
    """A merge, run as many times as Airflow would, each time with the store that the last attempt left."""

    folder: Path
    fields: Mapping[str, Any]
    store: Store = field(default_factory=Store)
    tries: int = 0

    def attempt(self, rows: Any, **fields: Any) -> AirflowException | None:
        """One more attempt, which is not the last; return the error with which it ends."""
        self.tries += 1
        task = merge(**{"rows": rows, "report_file": str(self.report_file), **self.fields, **fields})
        around = context(try_number=self.tries, max_tries=9) | {"task_state_store": self.store}
        try:
            task.execute(around)
        except AirflowException as error:
            return error
        return None

    @property
    def report_file(self) -> Path:
        """What it wrote."""
        return self.folder / "report.jsonl"

    def lines(self, try_number: int | None = None) -> list[dict[str, Any]]:
        """The report's lines, of one attempt or of all."""
        lines = [json.loads(line) for line in self.report_file.read_text().splitlines()]
        return [line for line in lines if try_number in (None, line["try_number"])]

    def outcomes(self, try_number: int | None = None) -> dict[str, str]:
        """The last line of each row, by its key."""
        return {line["key"]: line["outcome"] for line in self.lines(try_number)}


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., Task]:
    """Makes a task with these fields."""

    def make(**fields: Any) -> Task:
        return Task(tmp_path, {"row_key": "{{ row.email }}", "connections": CONNECTIONS, **fields})

    return make


def people(*names: str) -> list[dict[str, str]]:
    """A row for each."""
    return [{"email": f"{name}@corp.example", "name": name} for name in names]


def arrived(postfix: FaultyPostfix, count: int) -> Counter[str]:
    """How many times Postfix accepted a mail for each recipient, once it has processed all of them.

    By its queue: a stop may come between a delivery and the note of it, and then Postfix itself delivers once more.
    """
    taken = {(_TO.search(copy)[1], _QUEUE_ID.search(copy)[1]) for copy in postfix.settled(count)}  # type: ignore[index]
    return Counter(address.decode() for address, _ in taken)


# --- Refusals


def test_exactly_those_whom_the_server_refuses_are_reported_and_the_others_have_it_once(
    postfix: FaultyPostfix, task: Callable[..., Task]
) -> None:
    """Temporary and permanent ones, each with the server's reply."""
    names = [f"p{number}" for number in range(60)]
    soft, hard = names[5::20], names[9::20]
    postfix.access.actions = {f"{name}@corp.example": SOFT for name in soft}
    postfix.access.actions |= {f"{name}@corp.example": HARD for name in hard}
    sending = task(retry_for=0)

    error = sending.attempt(people(*names))

    refused = {line["key"]: line["error"] for line in sending.lines() if line["outcome"] == "refused"}
    well = {f"{name}@corp.example": 1 for name in names if name not in (*soft, *hard)}
    assert set(refused) == set(postfix.access.actions)
    for address, said in refused.items():
        code, enhanced, words = postfix.access.actions[address].split(" ", 2)
        assert f"'{code} {enhanced} <{address}>" in said
        assert words in said
    assert {key for key, outcome in sending.outcomes().items() if outcome == "accepted"} == set(well)
    assert arrived(postfix, len(well)) == well
    assert type(error) is AirflowException  # the soft ones may pass
    TALLY.add(TOPIC, {"faults tried": len(refused), "sent": len(well), "lost": 0, "doubled": 0})


def test_the_next_try_asks_only_those_again_who_were_refused_for_now(
    postfix: FaultyPostfix, task: Callable[..., Task]
) -> None:
    """A mail to three recipients: one has it, one may have it later, and one never will."""
    postfix.access.actions = {"later@corp.example": SOFT, "never@corp.example": HARD}
    sending = task(retry_for=0, to="{{ row.email }}, later@corp.example, never@corp.example")

    first = sending.attempt(people("now"))
    del postfix.access.actions["later@corp.example"]
    asked = postfix.access.asked.copy()
    second = sending.attempt(people("now"))

    assert type(first) is AirflowException
    assert type(second) is AirflowFailException  # the one who is refused permanently stays refused
    assert set(postfix.access.asked - asked) & {"now@corp.example", "never@corp.example"} == set()
    assert arrived(postfix, 2) == {"now@corp.example": 1, "later@corp.example": 1}
    assert sending.lines(2)[0]["accepted"] == ["now@corp.example", "later@corp.example"]


def test_a_soft_refusal_that_is_lifted_while_the_task_waits_is_none(
    postfix: FaultyPostfix, task: Callable[..., Task]
) -> None:
    """Within the attempt, on the same connection."""
    rows = people(*(f"p{number}" for number in range(20)))
    busy = {row["email"]: SOFT for row in rows[::7]}
    postfix.access.actions = dict(busy)
    sending = task(retry_for=20)
    lifted = threading.Timer(0.8, postfix.access.actions.clear)
    lifted.start()

    error = sending.attempt(rows)

    lifted.join()
    assert error is None
    assert set(sending.outcomes().values()) == {"accepted"}
    assert all(postfix.access.asked[address] > 1 for address in busy)
    assert arrived(postfix, len(rows)) == {row["email"]: 1 for row in rows}
    TALLY.add(TOPIC, {"faults tried": len(busy), "sent": len(rows), "lost": 0, "doubled": 0})


# --- A stop in the middle


@pytest.mark.parametrize("retry_for", [0, 20])
def test_a_stop_in_the_middle_of_a_merge_loses_and_doubles_nothing(
    retry_for: float, postfix: FaultyPostfix, task: Callable[..., Task]
) -> None:
    """With `retry_for` the attempt outlasts it; without, the next one sends the rest."""
    rows = people(*(f"p{number}" for number in range(600)))
    sending = task(retry_for=retry_for)

    def outage() -> None:
        postfix.halt()
        time.sleep(0.5)
        postfix.resume()

    with ThreadPoolExecutor() as pool:
        troubles = []

        def with_trouble() -> Iterator[dict[str, str]]:
            for number, row in enumerate(rows):
                if number == 250:
                    troubles.append(pool.submit(outage))
                yield row

        errors = [sending.attempt(with_trouble())]
        troubles[0].result()
    assert len(sending.outcomes(1)) == len(rows)
    while errors[-1] is not None and type(errors[-1]) is AirflowException and len(errors) < 4:
        errors.append(sending.attempt(iter(rows)))

    outcomes = sending.outcomes()
    in_doubt = {key for key, outcome in outcomes.items() if outcome == "unknown"}
    copies = arrived(postfix, len(rows) - len(in_doubt))
    lost = [row["email"] for row in rows if not copies[row["email"]] and row["email"] not in in_doubt]
    doubled = [address for address, number in copies.items() if number > 1]
    counts = Counter(sending.outcomes(1).values())
    log.info("retry_for=%s: %s at first, %d tries, %d in doubt.", retry_for, dict(counts), sending.tries, len(in_doubt))
    TALLY.add(TOPIC, {"faults tried": 1, "sent": copies.total(), "lost": len(lost), "doubled": len(doubled)})
    assert lost == []
    assert doubled == []
    assert set(outcomes.values()) <= {"accepted", "unknown"}
    assert len(in_doubt) <= CONNECTIONS
    assert Counter(line["key"] for line in sending.lines() if line["outcome"] == "accepted").most_common(1)[0][1] == 1
    assert isinstance(errors[-1], AirflowFailException) if in_doubt else errors[-1] is None
    if not retry_for:
        assert counts["not_sent"] > 0  # the outage was one
        assert sending.tries > 1


# --- smtp-sink

#: How many mails a batch has. Where the server says that it is busy there are few, since it is sent to ever slower.
MANY, FEW = 30, 2
MAILBOX_BUSY = ("-b", "450 4.2.1 Error: mailbox busy")


@dataclass(frozen=True, slots=True)
class Fault:
    """What the sink does, and what that is."""

    options: tuple[str, ...]
    outcome: str
    error: type[MailError]
    retryable: bool
    mails: int = MANY

    def __str__(self) -> str:
        return " ".join(self.options)


FAULTS = [
    # A hard error. EHLO may be refused where HELO is not (RFC 5321 3.2).
    Fault(("-f", "connect"), "not_sent", ConnectError, retryable=False),
    Fault(("-f", "ehlo,helo"), "not_sent", ConnectError, retryable=False),
    *(Fault(("-f", command), "refused", RefusedError, retryable=False) for command in ("mail", "rcpt", "data", ".")),
    # A soft one, of the mailbox or of the server.
    *(Fault(("-r", command), "not_sent", ConnectError, retryable=True) for command in ("connect", "ehlo")),
    *(
        Fault(("-r", command, *MAILBOX_BUSY), "refused", RefusedError, retryable=True)
        for command in ("mail", "rcpt", "data", ".")
    ),
    *(Fault(("-r", command), "refused", RefusedError, retryable=True, mails=FEW) for command in ("mail", ".")),
    # The connection is cut without a reply.
    *(Fault(("-q", command), "not_sent", ConnectionLostError, retryable=True) for command in ("connect", "ehlo")),
    *(Fault(("-q", command), "not_sent", ConnectionLostError, retryable=True) for command in ("mail", "rcpt", "data")),
    Fault(("-q", "."), "unknown", OutcomeUnknownError, retryable=False),
    # It is cut with a 421.
    *(Fault(("-Q", command), "not_sent", ConnectError, retryable=True) for command in ("connect", "ehlo")),
    *(
        Fault(("-Q", command), "refused", RefusedError, retryable=True, mails=FEW)
        for command in ("mail", "rcpt", "data", ".")
    ),
    # No answer comes in time. Where the answer to the final dot waits, the sink gives later commands theirs before it,
    # so that there must be none.
    Fault(("-W", "connect:9"), "not_sent", NoAnswerError, retryable=True, mails=FEW),
    *(
        Fault(("-W", f"{command}:9"), "not_sent", NoAnswerError, retryable=True, mails=FEW)
        for command in ("mail", "data")
    ),
    Fault(("-W", ".:9", "-p"), "unknown", OutcomeUnknownError, retryable=False, mails=FEW),
    # It refuses before the end of the message, and reads no more.
    Fault(("-A", "0"), "refused", RefusedError, retryable=False),
]


@pytest.fixture(scope="module")
def _sink_is_there() -> None:
    if missing := absent(("smtp-sink",)):
        skip_for_want_of(missing)


def numbered(count: int) -> list[Mail]:
    """So many mails."""
    return [
        Mail(from_address="etl@corp.example", to=f"p{number}@corp.example", subject=f"{number}", text="x\n" * 20)
        for number in range(count)
    ]


@pytest.mark.usefixtures("_sink_is_there")
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_whatever_goes_wrong_in_the_sink_each_mail_ends_as_what_it_is(fault: Fault) -> None:
    """One mail raises it, and of many each has it; none counts as accepted."""
    with Sink(*fault.options) as sink:
        patience = SINK_SECONDS if "-W" in fault.options else 60
        hook = hook_for(sink.port, timeout=patience, final_reply_timeout=patience)
        with pytest.raises(MailError) as raised:
            hook.send(*numbered(1))
        deliveries = list(hook.send_many(numbered(fault.mails), connections=CONNECTIONS))

    assert type(raised.value) is fault.error
    assert raised.value.retryable is fault.retryable
    assert sorted(delivery.index for delivery in deliveries) == list(range(fault.mails))
    assert {str(delivery.outcome) for delivery in deliveries} == {fault.outcome}
    assert {type(delivery.error) for delivery in deliveries} == {fault.error}
    TALLY.add(TOPIC, {"faults tried": 1 + fault.mails})


@pytest.mark.usefixtures("_sink_is_there")
def test_a_server_that_knows_helo_alone_is_none_that_goes_wrong() -> None:
    """RFC 5321 3.2: EHLO is refused, HELO is not."""
    with Sink("-f", "ehlo") as sink:
        outcomes = {str(delivery.outcome) for delivery in hook_for(sink.port).send_many(numbered(MANY))}
    assert outcomes == {"accepted"}
