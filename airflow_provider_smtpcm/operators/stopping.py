"""How a task is asked to end: by Airflow's `on_kill`, and shortly before its `execution_timeout`."""

from __future__ import annotations

import math
import time
from datetime import timedelta

from airflow_provider_smtpcm.stop import Stop

# How long before Airflow's own time limit a task ends by itself, so that it can write down what became of its mails.
_BEFORE_THE_LIMIT = 5.0


class Stoppable:
    """The part of an operator that ends its sending.

    Each run has a `Stop` of its own: Airflow runs a copy of the operator in the DAG, and in `dag.test()` one copy after
    the other in one process.
    """

    execution_timeout: timedelta | None
    # Of the run that was begun last; on the class, so that nothing of a run is there to be copied before it begins.
    _stop: Stop | None = None
    _killed_before = False

    def on_kill(self) -> None:
        """Begin nothing more; what was handed over has its answer heard, and the ledger and the report say so."""
        if self._stop is None:  # a signal that came before `execute`
            self._killed_before = True
        else:
            self._stop.ask()

    def _begin_to_run(self) -> Stop:
        """What ends this run."""
        at = math.inf
        if self.execution_timeout is not None:
            seconds = self.execution_timeout.total_seconds()
            at = time.monotonic() + max(seconds * 0.9, seconds - _BEFORE_THE_LIMIT)
        self._stop = stop = Stop(at=at, why="its execution_timeout is nearly over")
        if self._killed_before:
            self._killed_before = False
            stop.ask()
        return stop
