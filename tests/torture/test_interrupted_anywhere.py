"""A time limit at any moment: each row has one line, no accepted mail is reported as not sent, no one has two copies.

Python runs signal handlers when a function begins and after a call. A profile function raises at exactly these moments.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_smtpcm.operators._task import AirflowException, AirflowFailException
from airflow_provider_smtpcm.operators.send_mail import SendMailOperator
from tests.interruptions import Moments, watched
from tests.operators.merges import merge
from tests.operators.tasks import context
from tests.operators.test_mail_merge_outcomes import lines
from tests.operators.test_send_mail_tries import Kept
from tests.smtp.server import Server
from tests.torture.tally import TALLY

# A session whose QUIT was interrupted is closed when it is forgotten.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

Behind = Callable[..., None]
EVERY = int(os.environ.get("EVERY", "0"))
# How many moments of each kind of task are tried, of the thousands that there are.
MOMENTS = 60
ROWS = [{"email": f"p{number}@corp.example", "name": str(number)} for number in range(5)]
TOPIC = "interruptions"


def attempt(task: Any, store: Kept | None, moments: Moments | None = None) -> tuple[Any, BaseException | None]:
    """What a try pushed or returned, and what it raised."""
    surroundings = context(max_tries=1, _ti_context_from_server=SimpleNamespace(should_retry=True))
    if store is not None:
        surroundings["task_state_store"] = store
    try:
        with watched(moments) if moments is not None else nullcontext():
            return task.execute(surroundings), None
    except BaseException as error:  # noqa: BLE001 - any of them
        if not surroundings["ti"]._ti_context_from_server.should_retry:
            error = AirflowFailException(repr(error))
        return surroundings["ti"].pushed.get("return_value"), error


def moments_of(total: int) -> list[int]:
    """Some of them, evenly."""
    step = EVERY or max(1, total // MOMENTS)
    return list(range(1, total + 1, step))


def check_merge(at: int | None, report: Path, *, durable: bool, connections: int, behind: Behind) -> Moments:
    """Interrupt one merge, look at what is known of it, and try again where Airflow would."""
    store = Kept() if durable else None
    fields = {"rows": ROWS, "connections": connections, "report_file": str(report)}
    with Server() as server:
        behind(server)
        moments = Moments(at, lambda: bool(server.stored))
        _, error = attempt(merge(**fields), store, moments)
        copies = Counter(recipient for stored in server.stored for recipient in stored.recipients)
        told = {line["row"]: line["outcome"] for line in lines(report)}
        assert len(told) == len(lines(report)), f"two lines for a row, interrupted at {at}"
        for number, row in enumerate(ROWS, 1):
            if copies[row["email"]]:
                assert told.get(number) in ("accepted", "unknown"), f"row {number}, interrupted at {at}"
        if not moments.raised or error is None:
            return moments
        if durable:
            attempt(merge(**fields), store)
        else:
            assert isinstance(error, AirflowFailException), f"{error!r}, interrupted at {at}"
        copies = Counter(recipient for stored in server.stored for recipient in stored.recipients)
        assert max(copies.values()) == 1, f"interrupted at {at}"
        if durable:
            doubted = {line["row"] for line in lines(report) if line["outcome"] == "unknown"}
            assert all(copies[row["email"]] or number in doubted for number, row in enumerate(ROWS, 1)), f"at {at}"
    return moments


@pytest.mark.parametrize("connections", [1, 2])
@pytest.mark.parametrize("durable", [False, True])
def test_a_merge_that_is_interrupted_anywhere_accounts_for_each_row_once(
    durable: bool, connections: int, behind: Behind, tmp_path: Path
) -> None:
    """However far it had got."""
    how: dict[str, Any] = {"durable": durable, "connections": connections, "behind": behind}
    total = check_merge(None, tmp_path / "report.jsonl", **how).passed
    assert total > MOMENTS
    moments = moments_of(total)
    for at in moments:
        check_merge(at, tmp_path / f"{at}.jsonl", **how)
    TALLY.add(TOPIC, {"schedules run": len(moments)})


@pytest.mark.parametrize("durable", [False, True])
def test_a_mail_that_is_interrupted_anywhere_is_sent_once(durable: bool, behind: Behind) -> None:
    """Its first recipient is accepted, and the second one refused for now."""

    def check(at: int | None) -> int:
        store = Kept() if durable else None
        refusals = ["450 4.2.0 later"]
        with Server(lambda said: refusals.pop() if refusals and said == "RCPT TO:<b@corp.example>" else None) as server:
            behind(server)
            moments = Moments(at, lambda: bool(server.stored))
            fields: dict[str, Any] = {"from_address": "etl@corp.example", "to": ["a@corp.example", "b@corp.example"]}
            _, error = attempt(SendMailOperator(task_id="send", retry_for=0, **fields), store, moments)
            assert isinstance(error, AirflowException) or durable, f"{error!r}, interrupted at {at}"
            if not isinstance(error, AirflowFailException):
                attempt(SendMailOperator(task_id="send", retry_for=0, **fields), store)
            copies = Counter(recipient for stored in server.stored for recipient in stored.recipients)
            assert max(copies.values()) == 1, f"interrupted at {at}"
        return moments.passed

    moments = moments_of(check(None))
    for at in moments:
        check(at)
    TALLY.add(TOPIC, {"schedules run": len(moments)})
