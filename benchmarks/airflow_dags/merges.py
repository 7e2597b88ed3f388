"""Merges of several sizes, with and without Airflow's task state store. Each writes its figures into a file."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from airflow.sdk import DAG

from airflow_provider_smtpcm.operators.mail_merge import MailMergeOperator
from benchmarks.sending.clients.host import measured
from benchmarks.sending.clients.order import HTML_TEMPLATE, SUBJECT_TEMPLATE, Order

FOLDER = Path(os.environ["BENCHMARK_FOLDER"])  # with files such as `1000.csv`


class CountingStore:
    """Airflow's state store for a task; counts and times what is asked of it."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.seconds: list[float] = []

    def __getattr__(self, name: str) -> Any:
        """Return a method of the store."""
        method = getattr(self._store, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(*arguments, **options)
            finally:
                self.seconds.append(time.perf_counter() - began)

        return counted


class MeasuredMerge(MailMergeOperator):
    """A merge that writes its figures into `<dag_id>.json`."""

    def execute(self, context: Any) -> dict[str, object]:
        """Run the merge, without a state store if its DAG says so."""
        values = {**context}
        store = CountingStore(values.pop("task_state_store"))
        if "without" not in self.dag_id:
            values["task_state_store"] = store
        results: list[dict[str, Any]] = []

        def work(_order: Order) -> int:
            results.append(super(MeasuredMerge, self).execute(values))  # type: ignore[arg-type]
            accepted: int = results[0]["counts"]["accepted"]
            return accepted

        figures = asdict(measured(work, Order())) | {"store": store.seconds}
        (FOLDER / f"{self.dag_id}.json").write_text(json.dumps(figures))
        return results[0]


for rows in (1000, 100_000):
    for name in ("with", "without"):
        with DAG(dag_id=f"merge_of_{rows}_{name}_store", schedule=None):
            MeasuredMerge(
                task_id="merge",
                smtpcm_conn_id="ours",
                rows=str(FOLDER / f"{rows}.csv"),
                to="{{ row.address }}",
                subject=SUBJECT_TEMPLATE,
                html=HTML_TEMPLATE,
                connections=4,
            )
