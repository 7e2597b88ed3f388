"""Postfix' smtp-sink, which discards every mail, and fails as its options say."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from demo.processes import LOOPBACK, free_port
from tests.integration.programs import system_path

START_SECONDS = 60


class Sink:
    """The sink as a context manager.

    Args:
        options: of smtp-sink(1): `-f`, `-r`, `-q` and `-Q` have the commands that fail.
    """

    def __init__(self, *options: str) -> None:
        self._options = options
        self._folder = Path(tempfile.mkdtemp(prefix="smtp-sink-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        program = shutil.which("smtp-sink", path=system_path())
        assert program is not None
        user = ("-u", "nobody") if os.geteuid() == 0 else ()
        command = [program, "-4", *user, *self._options, f"{LOOPBACK}:{self.port}", "64"]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stderr=log, stdout=log)
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait(self) -> None:
        """Wait for it by the system's table of sockets: a connection would be one of those that fail."""
        assert self._process is not None
        wanted = f"{socket.inet_aton(LOOPBACK)[::-1].hex().upper()}:{self.port:04X}"
        deadline = time.monotonic() + START_SECONDS
        while not any(
            words[1:4:2] == [wanted, "0A"] for words in map(str.split, Path("/proc/net/tcp").read_text().splitlines())
        ):
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
