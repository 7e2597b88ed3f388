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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Self

from benchmarks.sending import peers
from benchmarks.sending.clients.order import SENDER, Order, Run, addresses, text

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
            host.wait(SECONDS)


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
        wall, cpu = _timed([program, *map(str, options)], environment)
        return Run(sent=order.mails, wall=wall, cpu=cpu, peak=None)

    yield run


@contextmanager
def curl(environment: Mapping[str, str]) -> Iterator[Contender]:
    """curl, a process for each mail, all of which is timed."""
    program = peers.program("curl", "curl")

    def command(order: Order, number: int, message: str) -> list[str]:
        options = ["--ssl-reqd", "--cacert", order.ca or environment["SSL_CERT_FILE"]] if order.tls else []
        if order.auth == "ntlm":
            options += ["--ntlm", "--user", f"{order.login}:{order.password}"]
        elif order.auth == "kerberos":
            options += ["--negotiate", "--user", ":", "--login-options", "AUTH=GSSAPI"]
        [recipient] = addresses(order, number)
        options += ["--mail-from", SENDER, "--mail-rcpt", recipient, "--upload-file", message]
        return [program, "--silent", "--show-error", *options, f"smtp://{order.host}:{order.port}/client.example"]

    yield _process_for_each_mail(command, environment)


@contextmanager
def msmtp(environment: Mapping[str, str]) -> Iterator[Contender]:
    """msmtp, a process for each mail, all of which is timed."""
    program = peers.program("msmtp", "msmtp")

    def command(order: Order, number: int, message: str) -> list[str]:
        options = [f"--host={order.host}", f"--port={order.port}", f"--from={SENDER}"]
        if order.tls:
            options += ["--tls=on", "--tls-starttls=on", f"--tls-trust-file={order.ca or environment['SSL_CERT_FILE']}"]
        if order.auth:
            user = order.login.rpartition("\\")[2]
            secret = Path(message).with_name("password")
            secret.touch(0o600)
            secret.write_text(order.password)
            options += ["--auth=ntlm", f"--user={user}", f"--passwordeval=cat {secret}"]
        return [program, *options, *addresses(order, number)]

    yield _process_for_each_mail(command, environment, reads_message=True)


def _process_for_each_mail(
    command: Callable[[Order, int, str], list[str]], environment: Mapping[str, str], *, reads_message: bool = False
) -> Contender:
    """Return a contender that runs a command for each mail.

    Args:
        command: returns the command for an order, the number of a mail, and the path of its message.
        environment: of the processes.
        reads_message: whether the message is its standard input.
    """

    def run(order: Order) -> Run:
        walls, cpus = 0.0, 0.0
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "message"
            more = {"KRB5CCNAME": order.ccache, "KRB5_CONFIG": order.krb5_conf} if order.ccache else {}
            for number in range(order.mails):
                [recipient] = addresses(order, number)
                header = f"From: {SENDER}\nTo: {recipient}\nSubject: Mail {number}\n\n"
                path.write_bytes((header + text(order, number)).replace("\n", "\r\n").encode())
                with path.open("rb") as message:
                    stdin = message if reads_message else subprocess.DEVNULL
                    wall, cpu = _timed(command(order, number, str(path)), {**environment, **more}, stdin)
                walls, cpus = walls + wall, cpus + cpu
        return Run(sent=order.mails, wall=walls, cpu=cpus, peak=None)

    return run


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
            "first-mail": lambda: python_client("first_mail", environment),
            "curl": lambda: curl(environment),
            "msmtp": lambda: msmtp(environment),
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


def _timed(
    command: Sequence[str], environment: Mapping[str, str], stdin: int | IO[bytes] = subprocess.DEVNULL
) -> tuple[float, float]:
    """Return the wall and CPU seconds of a whole process."""
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    limit = threading.Timer(SECONDS, process.kill)
    limit.start()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    limit.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.stderr is not None
    with process.stderr as said:
        if process.returncode:
            raise RunError(f"`{command[0]}` failed: {said.read().decode(errors='replace')}")
    return wall, used.ru_utime + used.ru_stime


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
