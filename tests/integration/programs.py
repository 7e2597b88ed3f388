"""The system's programs: looking for them, running one to its end, and servers that run until they are stopped."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from signal import SIGTERM, Signals
from types import TracebackType
from typing import ClassVar, Self

from demo.processes import LOOPBACK, Service, stop

LIBRARIES = Path("/usr/lib")
GSS_NTLMSSP = "*/gssntlmssp/gssntlmssp.so"
FAKETIME = "*/faketime/libfaketime.so.1"
#: On a machine with ten times its load, a large server takes a minute for each of its steps.
START_SECONDS = 300
STOP_SECONDS = 60

#: How Python's half of Kerberos comes, which has to be compiled.
KERBEROS_COMMAND = "make system-packages, then make venv"


class ProgramError(Exception):
    """A program failed; the message has its output."""


def system_path() -> str:
    """Return PATH with the folders of system programs, which that of a normal user may lack."""
    return os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


def absent(programs: Sequence[str] = (), libraries: Mapping[str, str] | None = None) -> str | None:
    """Return what the machine lacks, or None.

    Args:
        libraries: patterns below /usr/lib, each with a description.
    """
    names = [program for program in programs if shutil.which(program, path=system_path()) is None]
    names += [name for pattern, name in (libraries or {}).items() if not any(LIBRARIES.glob(pattern))]
    return ", ".join(names) or None


def run(command: Sequence[str], *, env: Mapping[str, str] | None = None, stdin: str = "", timeout: float = 60) -> None:
    """Run a program to its end.

    Args:
        env: added to this process's environment.
        timeout: seconds.

    Raises:
        ProgramError: it failed.
    """
    # The output goes to a file: Postfix' master keeps a pipe open for as long as it runs.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            command,
            env={**os.environ, "PATH": system_path(), **(env or {})},
            input=stdin.encode(),
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
        output.seek(0)
        said = output.read().decode(errors="replace")
    if done.returncode:
        raise ProgramError(f"`{' '.join(command)}` failed with {done.returncode}:\n{said}")


def faked_clock(offset: int) -> dict[str, str]:
    """Return the variables by which a process's clock is ahead; its timers are not affected."""
    if not offset:
        return {}
    library = next(LIBRARIES.glob(FAKETIME))
    return {"LD_PRELOAD": str(library), "FAKETIME": f"{offset:+}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


class ServerProgram:
    """A server as a context manager: a program in a session of its own, and a folder that is removed at the end.

    A subclass has a name, and starts the program in `_start`.
    """

    name: ClassVar[str]
    #: What ends the program in order.
    stop_signal: ClassVar[Signals] = SIGTERM

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        self._service: Service | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the program, and remove its folder. Idempotent."""
        self._end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        """Return the program's log."""
        return self._output()

    def _start(self) -> None:
        """Write the configuration, and call `_launch`."""
        raise NotImplementedError

    def _launch(
        self, command: Sequence[str], is_ready: Callable[[], bool], *, env: Mapping[str, str] | None = None
    ) -> None:
        """Start the program, and wait until it is ready.

        Args:
            env: added to this process's environment.

        Raises:
            ProgramError: it has ended, or is not ready after `START_SECONDS`.
        """
        env = {**os.environ, "PATH": system_path(), **(env or {})}
        self._service = Service(self.name, command, env=env, log=self.folder / "output")
        deadline = time.monotonic() + START_SECONDS
        while not is_ready():
            if self._service.returncode is not None or time.monotonic() > deadline:
                said = "\n".join(dict.fromkeys((self._output(), self.log())))
                raise ProgramError(f"{self.name} does not start:\n{said}")
            time.sleep(0.02)

    def _end(self) -> None:
        """End the program and all that it has started. Idempotent."""
        if self._service is None:
            return
        if self._service.returncode is None:
            os.kill(self._service.session, self.stop_signal)
        self._service.wait(STOP_SECONDS)
        stop([self._service])
        self._service = None

    def _output(self) -> str:
        path = self.folder / "output"
        return path.read_text(errors="replace") if path.exists() else ""


def is_listening(*ports: int, address: str = LOOPBACK) -> bool:
    """Return whether all these ports are listened on.

    It looks at the system's table of sockets: a connection would count for the server, as one that fails, for example.
    """
    host = socket.inet_aton(address)[::-1].hex().upper()
    rows = map(str.split, Path("/proc/net/tcp").read_text(encoding="ascii").splitlines())
    listening = {row[1] for row in rows if row[3] == "0A"}
    return listening.issuperset(f"{host}:{port:04X}" for port in ports)
