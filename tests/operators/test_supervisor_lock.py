"""Two threads of a task send requests to Airflow in turn: their connection is not thread-safe in `dag.test()`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

from airflow_provider_smtpcm.ledger.record import FINGERPRINT_OCTETS, RowState
from airflow_provider_smtpcm.merge.rows import open_rows
from airflow_provider_smtpcm.operators._task import Attempt, TaskStateStore, fetch_under_lock, supervisor_lock
from tests.interruptions import TimeLimit, within
from tests.operators.tasks import context
from tests.operators.test_send_mail_tries import Kept

LONG_ENOUGH = 0.2  # seconds, for a thread that does not wait


class Accessor:
    """Airflow's, which records its requests."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def set(self, key: str, value: Any, *, retention: timedelta | None) -> None:
        """Note it, as Airflow would keep it for as long as it is configured."""
        assert retention is None
        self.told.append(f"{key}={value}")


class LazySequence:
    """The outputs of a mapped task, of which Airflow fetches each; meanwhile another thread writes to the ledger."""

    __module__ = "airflow.sdk.execution_time.lazy_sequence"

    def __init__(self, accessor: Accessor) -> None:
        self._accessor = accessor
        self.told_meanwhile: list[str] = []
        self.writer = threading.Thread(target=TaskStateStore(accessor).set, args=("row", 1))

    def __iter__(self) -> Iterator[dict[str, str]]:
        """One row."""
        self.writer.start()
        self.writer.join(LONG_ENOUGH)
        self.told_meanwhile += self._accessor.told
        yield {"email": "jane@corp.example"}


def test_the_ledger_waits_while_airflow_fetches_a_row() -> None:
    """And is written to as soon as it is there."""
    accessor = Accessor()
    sequence = LazySequence(accessor)

    rows = list(open_rows(fetch_under_lock(sequence), encoding="utf-8").items)
    sequence.writer.join()

    assert rows == [{"email": "jane@corp.example"}]
    assert sequence.told_meanwhile == []
    assert accessor.told == ["row=1"]


def test_the_ledger_does_not_wait_for_rows_that_are_no_business_of_airflow_s() -> None:
    """A generator may be slow."""
    accessor = Accessor()

    def rows() -> Iterator[dict[str, str]]:
        writer = threading.Thread(target=TaskStateStore(accessor).set, args=("row", 1))
        writer.start()
        writer.join()
        assert accessor.told == ["row=1"]
        yield {"email": "jane@corp.example"}

    assert len(list(open_rows(fetch_under_lock(rows()), encoding="utf-8").items)) == 1


def test_a_task_that_is_interrupted_as_it_asks_airflow_comes_to_its_end() -> None:
    """From Python 3.14 on a signal handler may raise just after a lock was acquired, which is then never released."""
    surroundings = context(max_tries=1)
    surroundings["task_state_store"] = store = Kept()
    attempt = Attempt(surroundings)
    with within(5), suppress(TimeLimit), attempt.open_ledger(on_clear="resume_unfinished") as ledger:
        assert ledger is not None
        ledger.record(0, RowState.ACCEPTED, fingerprint=bytes(FINGERPRINT_OCTETS))
        supervisor_lock.acquire()
        raise TimeLimit
    assert store.get("smtpcm/0/0")["states"] == "a"
