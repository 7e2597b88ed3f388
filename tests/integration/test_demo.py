"""`make demo` and `make ui` as a newcomer runs them: what they print, how they end, and that nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parents[2]
UP_SECONDS = 800


class Demo:
    """One run of `python -m demo`, in a folder for its temporary files."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._folder = folder
        self._output = folder / "output.txt"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "demo", *arguments],
                cwd=ROOT,
                env=os.environ | {"TMPDIR": str(folder)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def said(self) -> str:
        """All that it has printed so far."""
        return self._output.read_text(encoding="utf-8")

    def living(self) -> list[psutil.Process]:
        """Its running processes, recognized by their working directory or their environment, which not all keep."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                marks = (process.cwd(), process.environ().get("TMPDIR", ""))
                if process.pid != self.process.pid and any(mark.startswith(str(self._folder)) for mark in marks):
                    found.append(process)
        return found

    def listening(self) -> set[Any]:
        """The addresses that its processes listen on."""
        found: set[Any] = set()
        for process in self.living():
            with suppress(psutil.NoSuchProcess):
                sockets = process.net_connections("inet")
                found |= {socket.laddr for socket in sockets if socket.status == psutil.CONN_LISTEN}
        return found

    def leftovers(self) -> list[Path | psutil.Process]:
        """Processes and files that should be gone."""
        return [*self.living(), *(path for path in self._folder.iterdir() if path != self._output)]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Return a function that starts `python -m demo`; what a failed test leaves running is stopped."""
    with ExitStack() as afterwards:

        def run(*arguments: str) -> Demo:
            demo = Demo(tmp_path, *arguments)
            afterwards.callback(demo.process.wait, UP_SECONDS)
            afterwards.callback(demo.process.terminate)
            return demo

        yield run


def test_it_delivers_and_shows_the_mail_and_who_sent_it(start: Callable[..., Demo]) -> None:
    """The main job, from nothing to a delivered mail; the one scheduler that every test run starts."""
    demo = start()

    assert demo.process.wait(UP_SECONDS) == 0, demo.said()
    assert "Subject: Windows Authentication works" in demo.said()
    assert re.search(r"authenticated as +CORP\\alice with NTLM", demo.said())
    assert re.search(r"encrypted by +TLSv1\.3", demo.said())
    assert demo.leftovers() == []


@pytest.mark.slow
def test_a_failure_ends_it_with_the_tasks_log_and_status_1(start: Callable[..., Demo]) -> None:
    """By a wrong password, which is in no line."""
    demo = start("--password", "wrong-Password-1")

    assert demo.process.wait(UP_SECONDS) == 1, demo.said()
    assert "535 5.7.3" in demo.said()
    assert "wrong-Password-1" not in demo.said()
    assert demo.leftovers() == []


@pytest.mark.slow
def test_the_ui_stays_on_loopback_until_ctrl_c_and_then_all_of_it_is_gone(start: Callable[..., Demo]) -> None:
    """It cannot be reached from outside this machine, and a second Ctrl-C changes nothing."""
    demo = start("ui")
    deadline = time.monotonic() + UP_SECONDS
    while "Ctrl-C" not in demo.said():
        assert demo.process.poll() is None, demo.said()
        assert time.monotonic() < deadline, demo.said()
        time.sleep(0.2)
    port = int(re.search(r"http://127\.0\.0\.1:(\d+)/connections", demo.said())[1])
    listening = demo.listening()

    demo.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    demo.process.send_signal(signal.SIGINT)

    assert demo.process.wait(UP_SECONDS) == 0, demo.said()
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert port in {address.port for address in listening}
    assert len(listening) == 2  # the API server and the relay
    assert demo.leftovers() == []
