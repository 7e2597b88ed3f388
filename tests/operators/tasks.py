"""What surrounds a task, as far as the operators use it: its context, its time limit, its templates."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tests.waiting import wait_until

if TYPE_CHECKING:
    import jinja2


def context(**changes: object) -> Any:
    """The part of Airflow's context that a task's identity is made of; what the task pushes is in `ti.pushed`."""
    place = {"dag_id": "d", "run_id": "r", "task_id": "send", "map_index": -1, "try_number": 1, **changes}
    pushed: dict[str, Any] = {}
    return {"ti": SimpleNamespace(**place, pushed=pushed, xcom_push=lambda key, value: pushed.update({key: value}))}


@contextmanager
def time_limit(when: Callable[[], object]) -> Iterator[None]:
    """Airflow's time limit of a task, which strikes during the block, when this is true."""
    from airflow.sdk.execution_time.timeout import timeout

    def strike() -> None:
        wait_until(when)
        os.kill(os.getpid(), signal.SIGALRM)

    striking = threading.Thread(target=strike)
    with timeout(3600):
        striking.start()
        try:
            yield
        finally:
            striking.join()


def environment(**settings: Any) -> jinja2.Environment:
    """The environment of a task in a DAG with these settings."""
    from airflow.sdk import DAG

    return DAG("templates", schedule=None, **settings).get_template_env()
