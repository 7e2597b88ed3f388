"""The work of two workers: mapped mails, and merges that are interrupted; and the servers that receive it all."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from string import Template

import psutil

from tests.integration.celery_stack import CeleryStack
from tests.integration.killed_merge import KilledMerge
from tests.smtp.server import MESSAGE, Server
from tests.waiting import wait_until

PATIENCE = 900

MAPPED = Template('''\
"""Written by a test."""

from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_smtpcm.operators.send_mail import SendMailOperator

with DAG("mapped", schedule=None):
    SendMailOperator.partial(
        task_id="send",
        smtpcm_conn_id="mapped_server",
        from_address="{{ var.value.worker }}@corp.example",
        subject="Report",
        text="The sender is the worker.",
        retries=2,
        retry_delay=timedelta(seconds=1),
    ).expand(to=[f"region{n}@corp.example" for n in range($mails)])
''')


class RelayWithAPool(Server):
    """Counts the sessions that are open at the same time, and holds its replies until there are as many as `slots`.

    Args:
        slots: of the pool.
    """

    def __init__(self, slots: int) -> None:
        super().__init__(self._hold)
        self._slots = slots
        self._changed = threading.Condition()
        self._open = 0
        #: The most there were.
        self.most = 0

    def _serve(self, peer: socket.socket, heard: list[str]) -> None:
        with self._changed:
            self._open += 1
            self.most = max(self.most, self._open)
            self._changed.notify_all()
        try:
            super()._serve(peer, heard)
        finally:
            with self._changed:
                self._open -= 1

    def _hold(self, about: str) -> None:
        if about == MESSAGE:
            with self._changed:
                self._changed.wait_for(lambda: self.most >= self._slots, 300)
                # Time for one session too many.
                self._changed.wait_for(lambda: self.most > self._slots, 1.5)


class CatchingServer(Server):
    """Can hold a worker's mail at the worst moment: it has arrived, and has no reply yet."""

    def __init__(self) -> None:
        super().__init__(self._hold_if_wanted)
        self._sender = threading.local()
        self._wanted = ""
        self._caught, self._released = threading.Event(), threading.Event()

    @contextmanager
    def caught(self, worker: str) -> Iterator[None]:
        """Hold the mails of this worker during the block, which starts when there is one."""
        self._wanted = worker
        try:
            assert self._caught.wait(PATIENCE), f"no mail of worker {worker} came"
            yield
        finally:
            self._wanted = ""
            self._released.set()

    def _hold_if_wanted(self, about: str) -> None:
        if about.startswith("MAIL"):
            self._sender.line = about
        elif about == MESSAGE and self._wanted and f"<{self._wanted}@" in self._sender.line:
            self._caught.set()
            self._released.wait(PATIENCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeOnAWorker(KilledMerge):
    """A merge whose worker is killed, with a mapped mail on its way too.

    Args:
        mapped: takes the mapped mails.
        sent_before: how many mapped mails arrive before it is killed.
        is_waiting: set when it is to be killed, and waits for the mapped mails.
    """

    airflow: CeleryStack
    mapped: CatchingServer
    sent_before: int
    is_waiting: threading.Event = field(default_factory=threading.Event)

    def kill(self) -> None:
        self.is_waiting.set()
        wait_until(lambda: len(self.mapped.stored) >= self.sent_before, seconds=PATIENCE)
        worker = self.airflow.worker_of(latest_pid(self))
        with self.mapped.caught(worker):
            self.airflow.kill(worker)


@dataclass(frozen=True, slots=True, kw_only=True)
class PausedMerge(KilledMerge):
    """A merge whose process is stopped, as on a suspended machine, until Airflow has retried it, and then resumed."""

    stopped: list[int] = field(default_factory=list)

    def kill(self) -> None:
        task = latest_pid(self)
        supervisor = psutil.Process(task).ppid()
        for pid in (supervisor, task):
            self.stopped.append(pid)
            os.kill(pid, signal.SIGSTOP)

    def wake_up(self) -> None:
        """Resume the process: two processes now run the task; wait until the older one has ended."""
        task = psutil.Process(self.stopped[-1])
        for pid in self.stopped:
            os.kill(pid, signal.SIGCONT)
        task.wait(PATIENCE)


def latest_pid(merge: KilledMerge) -> int:
    """Return the process of the latest try."""
    pids = merge._pids()
    return pids[max(pids)]
