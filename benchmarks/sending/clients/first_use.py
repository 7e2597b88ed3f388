"""Imports what is otherwise loaded on first use: those are imports too, and imports are not counted."""

from __future__ import annotations

import encodings.idna  # noqa: F401 - for the first name that any client looks up
import os

from airflow.sdk import BaseHook

# Airflow loads the messages of its supervisor, and more, with the first connection that is looked up.
os.environ["AIRFLOW_CONN_FIRST_USE"] = '{"conn_type": "smtp", "host": "localhost", "extra": {"a": "b"}}'
assert BaseHook.get_connection("first_use").extra_dejson == {"a": "b"}
