"""The documents describe the newest Airflow, and are tested on it alone."""

from __future__ import annotations

from tests.documents.newest import ON_THE_NEWEST_AIRFLOW

collect_ignore_glob = [] if ON_THE_NEWEST_AIRFLOW else ["test_*.py"]
