"""The system's programs and libraries: looking for them, and running a program to its end."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

LIBRARIES = Path("/usr/lib")
GSS_NTLMSSP = "*/gssntlmssp/gssntlmssp.so"
FAKETIME = "*/faketime/libfaketime.so.1"


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
