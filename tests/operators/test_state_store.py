"""What this package leaves in Airflow's table of task states, and what `airflow state-store clean` removes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_smtpcm.operators.send_mail import SendMailOperator
from airflow_provider_smtpcm.testing import Relay
from tests.operators.merges import ROWS, merge

RunDag = Callable[[DAG], Any]


def kept(run: Any) -> dict[str, Any]:
    """The rows of the table, by their keys."""
    from airflow.models.task_state_store import TaskStateStoreModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        rows = session.scalars(select(TaskStateStoreModel).where(TaskStateStoreModel.dag_id == run.dag_id))
        return {row.key: (row.value, row.expires_at) for row in rows}


def days_left(row: tuple[str, datetime]) -> float:
    """Until it expires."""
    expires_at = row[1] if row[1].tzinfo else row[1].replace(tzinfo=UTC)
    return (expires_at - datetime.now(tz=UTC)) / timedelta(days=1)


def clean(days: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """`airflow state-store clean`, so many days later."""
    from airflow.cli import cli_parser
    from airflow.state import metastore

    later = datetime.now(tz=UTC) + timedelta(days=days)
    monkeypatch.setattr(metastore.timezone, "utcnow", lambda: later)
    arguments = cli_parser.get_parser().parse_args(["state-store", "clean"])
    arguments.func(arguments)
    monkeypatch.undo()


@pytest.mark.parametrize("kind", ["one", "merge"])
def test_a_task_that_was_done_leaves_its_result_for_a_day_and_a_head_without_addresses(
    kind: str, relay: Relay, run_dag: RunDag, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both expire, and are then removed by Airflow's own command."""
    with DAG(f"kept_of_{kind}", schedule=None) as dag:
        if kind == "one":
            SendMailOperator(task_id="send", from_address="etl@corp.example", to="jane@corp.example")
        else:
            merge()
    run = run_dag(dag)
    assert str(run.state) == "success"
    before = kept(run)
    assert sorted(before) == ["smtpcm", "smtpcm/0/result"]
    assert "jane@" not in before["smtpcm"][0]
    assert 29 < days_left(before["smtpcm"]) <= 30
    assert 0.9 < days_left(before["smtpcm/0/result"]) <= 1
    clean(0.5, monkeypatch)
    assert sorted(kept(run)) == sorted(before)
    clean(2, monkeypatch)
    assert sorted(kept(run)) == ["smtpcm"]
    clean(31, monkeypatch)
    assert kept(run) == {}


def test_a_task_that_failed_keeps_who_has_the_mail_as_long_as_airflow_is_configured(
    relay: Relay, run_dag: RunDag, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clearing it sends the rest."""
    monkeypatch.setenv("AIRFLOW__STATE_STORE__DEFAULT_RETENTION_DAYS", "7")
    with DAG("kept_of_a_failure", schedule=None) as dag:
        merge(rows=[{"email": "jane@corp.example; bad@corp.example", "name": "both"}, *ROWS[1:]])
    run = run_dag(dag)
    assert str(run.state) == "failed"
    before = kept(run)
    assert sorted(before) == ["smtpcm", "smtpcm/0/0"]
    assert "jane@corp.example" in before["smtpcm/0/0"][0]
    assert all(6 < days_left(row) <= 7 for row in before.values())
    clean(8, monkeypatch)
    assert kept(run) == {}


@pytest.mark.parametrize("kind", ["one", "merge"])
def test_a_try_that_was_done_and_died_before_airflow_heard_of_it_is_not_made_again(
    kind: str, relay: Relay, run_dag: RunDag
) -> None:
    """The next one sends nothing, and returns what the one before would have returned."""
    raised: list[int] = []
    results: list[dict[str, Any]] = []

    def break_in(_context: Any, result: dict[str, Any]) -> None:
        results.append(result)
        if not raised:
            raised.append(1)
            raise RuntimeError("the worker is lost")

    again: dict[str, Any] = {"retries": 1, "retry_delay": timedelta(0), "post_execute": break_in}
    with DAG(f"done_of_{kind}", schedule=None) as dag:
        if kind == "one":
            SendMailOperator(task_id="send", from_address="etl@corp.example", to="jane@corp.example", **again)
        else:
            merge(rows=ROWS[:1], **again)
    assert str(run_dag(dag).state) == "success"
    assert results[0] == results[1]
    assert len(relay.messages) == 1
