"""Child processes that are stopped with all their descendants: each is the leader of a session of its own.

Airflow's task processes leave their parent's process group, so a signal to the group would not reach them. They stay
in the session.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM
from typing import Any

import psutil

LOOPBACK = "127.0.0.1"
KILL_SECONDS = 10  # how long the system may take to carry out a SIGKILL


def free_port() -> int:
    """Return a TCP port of the loopback address that is free, and that the system gives to nobody else for a minute.

    A connection that was closed by this end holds the port in TIME-WAIT (RFC 9293 3.6.1): the system takes it for no
    other connection, and a server that sets SO_REUSEADDR, as all do, can listen on it.
    """
    with socket.create_server((LOOPBACK, 0)) as probe:
        port: int = probe.getsockname()[1]
        with socket.create_connection((LOOPBACK, port)):
            probe.accept()[0].close()
        return port


class Service:
    """One long-running command with its output in a file."""

    def __init__(self, name: str, command: Sequence[str], *, env: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                env=dict(env),
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def returncode(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.poll()

    @property
    def session(self) -> int:
        """The id of the session, which is that of its leader."""
        return self._process.pid

    def log_tail(self, lines: int = 30) -> str:
        """Return the last lines of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def terminate(self) -> None:
        """Send SIGTERM."""
        if self._process.poll() is None:
            self._process.terminate()

    def wait(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for it to end."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(timeout, 0))


def stop(services: Sequence[Service], *, grace_period: float = 4) -> None:
    """End the services and all that they started: SIGTERM, then SIGKILL for their sessions.

    Args:
        grace_period: seconds between the two. A LocalExecutor sometimes waits forever for one of its idle workers.
    """
    for service in services:
        service.terminate()
    deadline = time.monotonic() + grace_period
    for service in services:
        service.wait(deadline - time.monotonic())
    sessions = {service.session for service in services}
    deadline = time.monotonic() + KILL_SECONDS
    while (members := processes_in(sessions)) and time.monotonic() < deadline:
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, SIGKILL)
        for service in services:
            service.wait(1)
        time.sleep(0.05)


def processes_in(sessions: set[int]) -> list[int]:
    """Return the ids of the running processes of these sessions."""
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.Error):
            if os.getsid(process.pid) in sessions and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into `SystemExit`, so that `with` blocks and `finally` clauses run as on Ctrl-C."""

    def leave(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    # A shell starts background jobs with SIGINT ignored; here Ctrl-C and `kill -INT` stop the program.
    handlers = {SIGINT: signal.default_int_handler, SIGTERM: leave, SIGHUP: leave}
    with _handling(handlers):
        yield


@contextmanager
def signals_held() -> Iterator[list[int]]:
    """Hold SIGINT, SIGTERM and SIGHUP until the block ends; yields the list of those that arrived."""
    held: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only the main thread can set handlers
        yield held
        return

    def hold(number: int, _frame: object) -> None:
        held.append(number)

    with _handling(dict.fromkeys((SIGINT, SIGTERM, SIGHUP), hold)):
        yield held


@contextmanager
def _handling(handlers: Mapping[signal.Signals, Any]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
