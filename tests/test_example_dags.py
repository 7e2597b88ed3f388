"""The example DAGs run unchanged, however they are triggered, and load without a warning."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_smtpcm.testing import Relay

FOLDER = Path(__file__).resolve().parent.parent / "example_dags"
EXAMPLES = sorted(FOLDER.glob("*.py"))


def load(path: Path) -> DAG:
    """Return the DAG of an example."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.dag  # type: ignore[no-any-return]


def test_the_folder_is_parsed_without_an_error() -> None:
    """Without Kubernetes, whose example is in a folder that is ignored."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # Airflow 3.1
        from airflow.models.dagbag import DagBag

    read = DagBag(dag_folder=FOLDER)
    assert read.import_errors == {}
    assert {Path(dag.fileloc) for dag in read.dags.values()} == set(EXAMPLES)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_loads_without_a_warning(path: Path) -> None:
    """And has the name of its file."""
    assert load(path).dag_id == path.stem


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_delivers_its_mails(
    path: Path, run_dag: Callable[[DAG], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A run that was triggered by hand has no logical date."""
    monkeypatch.setenv("AIRFLOW_CONN_SALES", json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "sales.db")}))
    with Relay(users={r"CORP\alice": "correct horse"}) as relay:
        monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(relay.airflow_connection()))
        assert str(run_dag(load(path)).state) == "success"
        assert relay.messages
