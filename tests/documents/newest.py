"""The Airflow version that the documents describe. Does not import Airflow."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

_LINES = (Path(__file__).resolve().parents[2] / ".ci/airflow-version.txt").read_text(encoding="utf-8").splitlines()

#: Older ones have another SMTP provider, other options and other commands.
ON_THE_NEWEST_AIRFLOW = f"apache-airflow=={version('apache-airflow')}" in _LINES
