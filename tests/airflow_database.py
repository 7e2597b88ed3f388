"""Airflow's tables, which one worker of a test run creates; the others, and whole Airflows, begin with a copy."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
from pathlib import Path

import pytest


def template(folders: pytest.TempPathFactory) -> Path:
    """Return an SQLite database with the tables of the installed Airflow, and what it puts into them at first."""
    shared = folders.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # each worker's folder is in that of the run
    path = shared / "airflow.db"
    with (shared / "airflow.db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _create(path)
    return path


def copy_to_home(database: Path) -> None:
    """Give this process's Airflow a copy, unless it is the one that has created it."""
    own = _own()
    if not own.exists():
        shutil.copyfile(database, own)


def _create(path: Path) -> None:
    from airflow.utils.db import initdb

    initdb()
    with sqlite3.connect(_own()) as database:
        database.execute("VACUUM INTO ?", (str(path),))


def _own() -> Path:
    return Path(os.environ["AIRFLOW_HOME"]) / "airflow.db"


def forget_dag(dag_id: str) -> None:
    """Delete the DAG of this id: Airflow 3.1 would take the next one for a new version of it."""
    from airflow.api.common.delete_dag import delete_dag
    from airflow.exceptions import DagNotFound

    with contextlib.suppress(DagNotFound):
        delete_dag(dag_id)
