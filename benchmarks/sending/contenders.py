"""The contenders: how each is started, as a process of its own, and how it reports its figures."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Self

from benchmarks.sending import peers
from benchmarks.sending.clients.order import SENDER, Order, Run

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300  # no run takes longer
Contender = Callable[[Order], Run]


class RunError(Exception):
    """A contender failed; the message has its output."""


@contextmanager
def python_client(name: str, environment: Mapping[str, str]) -> Iterator[Contender]:
    """A Python client (`clients/host.py`) whose imports are done."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/socket"
        command = [sys.executable, "-m", "benchmarks.sending.clients.host", name, path]
        host = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

        def run(order: Order) -> Run:
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(SECONDS)
                line.connect(path)
                line.sendall(json.dumps(asdict(order)).encode() + b"\n")
                try:
                    answer = b"".join(iter(lambda: line.recv(65536), b""))
                except TimeoutError:
                    raise RunError(f"{name} did not end within {SECONDS} seconds.") from None
            return _run(name, answer.decode())

        try:
            assert host.stdout is not None
            while (said := host.stdout.readline()) != "ready\n":  # Airflow may print something before
                if not said:
                    raise RunError(f"`{' '.join(command)}` ended before it was ready.")
            yield run
        finally:
            assert host.stdin is not None
            host.stdin.close()
            host.wait(10)


@contextmanager
def nodemailer(environment: Mapping[str, str], *, install: bool) -> Iterator[Contender]:
    """Nodemailer, in a fresh process for each run."""
    node, folder = peers.nodemailer(install=install)
    script = str(ROOT / "benchmarks/sending/clients/nodemailer.mjs")
    environment = {**environment, "NODE_EXTRA_CA_CERTS": environment["SSL_CERT_FILE"]}

    def run(order: Order) -> Run:
        return _run("nodemailer", _said([node, script, folder, json.dumps(asdict(order))], environment))

    yield run


@contextmanager
def pipeliner(environment: Mapping[str, str]) -> Iterator[Contender]:
    """A pipelining client in C, which shows the upper limit."""
    program = peers.compiled("native/pipeliner.c")

    def run(order: Order) -> Run:
        words = [program, *(str(word) for word in (order.port, order.connections, order.mails, order.octets))]
        return _run("pipeliner", _said(words, environment))

    yield run


@contextmanager
def smtp_source(environment: Mapping[str, str]) -> Iterator[Contender]:
    """Postfix's load generator. It reports nothing, so its whole process is timed: about 2 ms more."""
    program = peers.program("smtp-source", "postfix")

    def run(order: Order) -> Run:
        options: tuple[object, ...] = ("-4", "-d", "-N", "-s", order.connections, "-m", order.mails, "-l", order.octets)
        options += ("-r", order.recipients) if order.recipients > 1 else ()
        options += ("-M", "client.example", "-f", SENDER, "-t", "user@corp.example", f"127.0.0.1:{order.port}")
        began = time.perf_counter()
        process = subprocess.Popen([program, *map(str, options)], env=environment, stderr=subprocess.PIPE)
        limit = threading.Timer(SECONDS, process.kill)
        limit.start()
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        limit.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.stderr is not None
        with process.stderr as said:
            if process.returncode:
                raise RunError(f"smtp-source failed: {said.read().decode(errors='replace')}")
        return Run(sent=order.mails, wall=wall, cpu=used.ru_utime + used.ru_stime, peak=None)

    yield run


class Contenders:
    """All contenders. Each is started on first use and kept for the scenarios that follow.

    Args:
        environment: of their processes; its SSL_CERT_FILE has the authorities that they trust.
        install: whether missing programs may be fetched.
    """

    def __init__(self, environment: Mapping[str, str], *, install: bool) -> None:
        self._made = {
            "ours": lambda: python_client("ours", environment),
            "stock": lambda: python_client("stock", environment),
            "smtplib": lambda: python_client("standard_library", environment),
            "aiosmtplib": lambda: python_client("asynchronous", environment),
            "nodemailer": lambda: nodemailer(environment, install=install),
            "smtp-source": lambda: smtp_source(environment),
            "pipeliner": lambda: pipeliner(environment),
        }
        self._started: dict[str, Contender] = {}
        self._stack = ExitStack()
        #: The contenders that are left out, and the command that would install each.
        self.left_out: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def get(self, name: str) -> Contender | None:
        """Return a contender, or None if it is left out."""
        if name not in self._started and name not in self.left_out:
            try:
                self._started[name] = self._stack.enter_context(self._made[name]())
            except peers.MissingError as missing:
                self.left_out[name] = str(missing)
        return self._started.get(name)


def _said(command: list[str], environment: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise RunError(f"`{command[0]}` did not end within {SECONDS} seconds.") from None
    if done.returncode:
        raise RunError(f"`{command[0]}` failed: {done.stderr[-2000:]}")
    return done.stdout


def _run(name: str, answer: str) -> Run:
    figures = json.loads(answer) if answer else {"error": "it ended without a word"}
    if "error" in figures:
        raise RunError(f"{name}: {figures['error']}")
    return Run(**figures)
