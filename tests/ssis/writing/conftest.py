"""A relay, and a way to run a DAG module as Airflow does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_smtpcm.ssis.writing.conversion import DagModule
from airflow_provider_smtpcm.testing import Relay
from tests.airflow_database import forget_dag


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """A relay for the connection that the packages use."""
    with Relay(ssl_mode="none") as relay:
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_MAIL_CORP_EXAMPLE", json.dumps(relay.airflow_connection()))
        yield relay


@pytest.fixture
def run(run_dag: Callable[..., Any], tmp_path: Path) -> Callable[[DagModule], str]:
    """Runs the DAG of a module; returns the state of the run."""

    def run_module(module: DagModule) -> str:
        file = tmp_path / module.file_name
        file.write_text(module.source, encoding="utf-8")
        space: dict[str, Any] = {"__name__": "dag_module"}
        exec(compile(module.source, file, "exec"), space)  # noqa: S102 - it is what Airflow does with a DAG's file
        forget_dag(module.dag_id)
        return str(run_dag(space["dag"]).state)

    return run_module
