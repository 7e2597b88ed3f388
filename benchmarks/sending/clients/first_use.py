"""What is loaded when it is first used, loaded beforehand: it is an import too, and nobody's imports are counted."""

from __future__ import annotations

import encodings.idna  # noqa: F401 - the first name that is looked up, in every client
import os

from airflow.sdk import BaseHook

# Airflow loads its supervisor's messages and more with the first connection that is asked for.
os.environ["AIRFLOW_CONN_FIRST_USE"] = '{"conn_type": "smtp", "host": "localhost", "extra": {"a": "b"}}'
assert BaseHook.get_connection("first_use").extra_dejson == {"a": "b"}
