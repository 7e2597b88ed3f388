"""Finds, compiles or installs what the contenders need; reports what is missing with the command that installs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent / ".peers"
NODEMAILER = "nodemailer@10.6.0"
PLOTTING = "matplotlib>=3.9"
_TLS = Path("/usr/include/openssl/ssl.h")
_WARNINGS = ("-O2", "-Wall", "-Wextra")


class MissingError(Exception):
    """Something is missing; the message has the command that installs it."""


def program(name: str, package: str) -> str:
    """Return the path of a system program.

    Args:
        name: of the program.
        package: the Debian package that has it.

    Raises:
        MissingError: it is not installed.
    """
    path = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin")))
    if path is None:
        raise MissingError(f"{name} is missing: apt-get install --yes {package}")
    return path


def compiled(source: str, *, tls: bool = False) -> str:
    """Return the path of one of our C programs, which is compiled if it is older than its source.

    Args:
        source: relative to this folder.
        tls: whether to link OpenSSL.

    Raises:
        MissingError: there is no compiler, or no OpenSSL to compile with.
    """
    path = HERE / source
    target = FOLDER / f"{path.stem}{'-tls' if tls else ''}"
    if target.exists() and target.stat().st_mtime > path.stat().st_mtime:
        return str(target)
    compiler = program("cc", "gcc libc6-dev")
    if tls and not _TLS.exists():
        raise MissingError(f"{_TLS} is missing: apt-get install --yes libssl-dev")
    FOLDER.mkdir(exist_ok=True)
    fresh = target.with_suffix(f".{os.getpid()}")
    options = [*_WARNINGS, *(["-DWITH_TLS"] if tls else []), "-o", str(fresh), str(path)]
    subprocess.run([compiler, *options, *(["-lssl", "-lcrypto"] if tls else [])], check=True)
    fresh.rename(target)
    return str(target)


def nodemailer(*, install: bool) -> tuple[str, str]:
    """Return the path of node, and the folder in which it finds nodemailer.

    Args:
        install: whether to install it if it is missing.

    Raises:
        MissingError: node or npm is missing, or nodemailer cannot be installed.
    """
    node = program("node", "nodejs")
    if not (FOLDER / "node_modules/nodemailer").exists():
        if not install:
            raise MissingError("nodemailer is missing: `make bench` fetches it")
        FOLDER.mkdir(exist_ok=True)
        _fetch([program("npm", "npm"), "install", "--prefix", str(FOLDER), "--silent", "--no-save", NODEMAILER])
    return node, str(FOLDER)


def plotting() -> str:
    """Return the path of a Python with matplotlib, in an environment of its own.

    Raises:
        MissingError: it cannot be installed.
    """
    python = FOLDER / "venv/bin/python"
    if not (FOLDER / "venv/.made").exists():
        FOLDER.mkdir(exist_ok=True)
        _fetch([sys.executable, "-m", "venv", "--clear", str(FOLDER / "venv")])
        _fetch([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PLOTTING])
        (FOLDER / "venv/.made").touch()
    return str(python)


def _fetch(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MissingError(f"`{' '.join(command)}` failed: {(done.stderr or done.stdout).strip()[-300:]}")
