"""The first mail of a task process: the imports of its DAG file, the operator, its fields, its execution, each timed.

This module imports what Airflow has loaded in every task process before it reads the DAG file: the supervisor, from
which the process is forked, the task runner, and the reader of DAG files. Nothing else: a scheduler that runs its tasks
by the LocalExecutor has loaded more, such as `cryptography`'s certificates.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import airflow.dag_processing.dagbag
import airflow.executors.base_executor
import airflow.executors.workloads
import airflow.sdk.execution_time.supervisor
import airflow.sdk.execution_time.task_runner  # noqa: F401
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.lineage import get_hook_lineage_collector

from benchmarks.sending.clients import first_use
from benchmarks.sending.clients.host import Steps
from benchmarks.sending.clients.order import (
    CONNECTION_ID,
    Order,
    addresses,
    smtp_environment,
    smtpcm_environment,
    text,
)
from benchmarks.sending.clients.task import execute

LOADED_BEFOREHAND = (first_use,)
# Done before a task is executed: there is an environment of templates, and plugins that read lineage were looked for.
DAG("rendered", schedule=None).get_template_env().from_string("{{ value }}").render(value=1)
get_hook_lineage_collector()
gc.collect()
gc.freeze()  # as the LocalExecutor does before it forks


def environment(order: Order) -> dict[str, str]:
    """Return both Airflow connections, as environment."""
    return smtp_environment(order) if order.work == "stock" else smtpcm_environment(order)


def ours(order: Order) -> tuple[int, Steps]:
    """Send a mail by `SendMailOperator`."""

    def load() -> Any:
        from airflow_provider_smtpcm.operators.send_mail import SendMailOperator

        return SendMailOperator

    def construct(operator: Any) -> Any:
        return operator(
            task_id="mail",
            smtpcm_conn_id=CONNECTION_ID,
            to=addresses(order, 0),
            subject="Mail 0",
            text=text(order, 0),
        )

    return _timed(order, load, construct)


def stock(order: Order) -> tuple[int, Steps]:
    """Send a mail by `EmailOperator`."""

    def load() -> Any:
        from airflow.providers.smtp.operators.smtp import EmailOperator

        return EmailOperator

    def construct(operator: Any) -> Any:
        return operator(
            task_id="mail",
            conn_id=CONNECTION_ID,
            to=addresses(order, 0),
            subject="Mail 0",
            html_content=text(order, 0),
        )

    return _timed(order, load, construct)


def _timed(order: Order, load: Callable[[], Any], construct: Callable[[Any], BaseOperator]) -> tuple[int, Steps]:
    moments = [_now()]
    operator = load()
    moments.append(_now())
    task = construct(operator)
    moments.append(_now())
    task.render_template_fields({"ti": None})  # type: ignore[typeddict-item]
    moments.append(_now())
    execute(task, order)
    moments.append(_now())
    steps = [(wall - since, cpu - used) for (since, used), (wall, cpu) in pairwise(moments)]
    return 1, dict(zip(("import", "construct", "render", "execute"), steps, strict=True))


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


WORKS = {"ours": ours, "stock": stock}
